//! What is asked for before a bill is sent: earlier invoices of its own, and those of what a copy repeats.

use super::*;

#[test]
fn an_earlier_invoice_that_lives_after_all_is_taken_before_a_bill_is_resubmitted() {
    let kind = create();
    let subject = Subject {
        operation: kind.operation,
        plan: &kind.plan,
        name: JobName {
            generation: 3,
            ..NAME
        },
        history: &clean(),
        protection: DuplicateProtection::Key,
        baseline: None,
    };
    let shown = |id, status: &str| Object::from(Invoice::bare(id, InvoiceStatus::parse(status)));
    for (earlier, expected) in [
        (vec![], None),
        (vec![shown(1, "error"), shown(2, "cancelled")], None),
        (vec![shown(1, "expired"), shown(2, "error")], None),
        (
            vec![shown(1, "expired"), shown(2, "processing")],
            Some("applied accepted under_way invoice 2 processing free"),
        ),
        (
            vec![shown(1, "cancelling"), shown(2, "error")],
            Some("applied succeeded invoice 1 cancelling free"),
        ),
        (
            vec![shown(1, "accumulating")],
            Some("applied accepted under_way invoice 1 accumulating free"),
        ),
        (
            vec![shown(1, "cancelling"), shown(2, "pending")],
            Some("unknown held duplicate_detected free"),
        ),
        (
            vec![shown(1, "pending"), shown(2, "error")],
            Some("applied succeeded invoice 1 pending free"),
        ),
        (
            vec![shown(1, "error"), shown(2, "paid")],
            Some("applied succeeded invoice 2 paid free"),
        ),
        (
            vec![shown(1, "partially_refunded"), shown(2, "pending")],
            Some("unknown held duplicate_detected free"),
        ),
    ] {
        let verdict = lives_after_all(&subject, &earlier, &[]).map(|living| living.verdict);
        assert_eq!(
            verdict.as_ref().map(show).as_deref(),
            expected,
            "{earlier:?}"
        );
    }
    // While a request of the new generation is unproven, that one may live as well.
    let history = unproven();
    let unsure = Subject {
        history: &history,
        ..subject
    };
    let verdict =
        lives_after_all(&unsure, &[shown(1, "pending")], &[]).map(|living| living.verdict);
    let expected = "unknown held unknown_outcome free";
    assert_eq!(verdict.as_ref().map(show).as_deref(), Some(expected));
    assert_eq!(lives_after_all(&unsure, &[shown(1, "error")], &[]), None);
}

#[test]
fn an_invoice_that_only_its_name_tells_is_taken_before_a_bill_is_resubmitted() {
    let kind = create();
    let history = clean();
    let subject = Subject {
        operation: kind.operation,
        plan: &kind.plan,
        name: JobName {
            generation: 2,
            ..NAME
        },
        history: &history,
        protection: DuplicateProtection::Key,
        baseline: None,
    };
    let named = |id, status: &str, generation| Invoice {
        id,
        external_order_id: Some(JobName { generation, ..NAME }.to_string()),
        internal_comment: None,
        ..own_invoice(status)
    };
    let dead = [Object::from(Invoice::bare(1, InvoiceStatus::Error))];
    let decide = |subject: &Subject<'_>, named: &[Invoice]| {
        let named: Vec<Object> = named.iter().cloned().map(Object::from).collect();
        let living = lives_after_all(subject, &dead, &named);
        living.map(|living| (show(&living.verdict), living.found))
    };
    let found = |verdict: &str, found: &str| Some((verdict.to_owned(), found.to_owned()));
    assert_eq!(decide(&subject, &[]), None);
    for status in ["error", "cancelled", "expired"] {
        assert_eq!(decide(&subject, &[named(5, status, 1)]), None);
    }
    let stranger = Invoice {
        external_order_id: Some("order-5".to_owned()),
        ..named(5, "pending", 1)
    };
    assert_eq!(decide(&subject, &[stranger]), None);
    // What is known is as the check says, whatever the list shows of it.
    assert_eq!(decide(&subject, &[named(1, "pending", 1)]), None);
    assert_eq!(
        decide(&subject, &[named(5, "processing", 1)]),
        found(
            "applied accepted under_way invoice 5 processing free",
            "the gateway shows invoice 5: 5000 tenge to 8700***4567 (status processing)"
        )
    );
    assert_eq!(
        decide(&subject, &[named(5, "pending", 1), named(6, "paid", 2)]),
        found(
            "unknown held duplicate_detected free",
            "the gateway shows invoice 5: 5000 tenge to 8700***4567 (status pending), and \
             invoice 6: 5000 tenge to 8700***4567 (status paid)"
        )
    );
    // Of an unproven request it shows what became of it.
    let history = unproven();
    let unsure = Subject {
        history: &history,
        ..subject
    };
    let verdict = |named| decide(&unsure, &[named]).expect("it lives").0;
    let expected = "applied succeeded invoice 6 pending free";
    assert_eq!(verdict(named(6, "pending", 2)), expected);
    let expected = "unknown held unknown_outcome free";
    assert_eq!(verdict(named(5, "pending", 1)), expected);
}

#[test]
fn a_bill_is_not_resubmitted_while_its_earlier_invoices_cannot_be_read() {
    let rules = rules();
    for (answer, expected) in [
        (
            reply(502, Body::Broken),
            "not_applied queued earlier_unseen in 5s free",
        ),
        (
            coded(422, "x"),
            "not_applied queued earlier_unseen in 5s free",
        ),
        (
            coded(404, "not_found"),
            "not_applied queued earlier_unseen in 5s free",
        ),
        (
            Answer::Lost(Lost::Timeout),
            "not_applied queued earlier_unseen in 5s free",
        ),
        (coded(401, "x"), "not_applied parked key_rejected"),
        (
            coded(429, "request_rate_limited"),
            "not_applied queued retry_after",
        ),
        (
            Answer::NotSent(NotSent::Stopping),
            "not_applied queued stopping in 0ns free",
        ),
        (
            Answer::NotSent(NotSent::Connect),
            "not_applied queued earlier_unseen in ",
        ),
    ] {
        let verdict = without_earlier(&clean(), &timed(answer), at(&rules));
        assert!(show(&verdict).starts_with(expected), "{}", show(&verdict));
    }
}

/// What is only asked counts as no request of the bill, and is asked no more often than that may be tried, both together.
#[test]
fn what_cannot_be_seen_before_a_bill_is_sent_is_asked_ever_less_often_and_counts_as_no_send() {
    let rules = rules();
    let after = |attempts, lookups, history: History| {
        let history = History {
            lookups,
            ..attempted(attempts, history)
        };
        show(&without_earlier(
            &history,
            &timed(coded(502, "")),
            at(&rules),
        ))
    };
    for (attempts, lookups, expected) in [
        (0, 1, "not_applied queued earlier_unseen in 10s free"),
        (1, 0, "not_applied queued earlier_unseen in 5s free"),
        (3, 0, "not_applied queued earlier_unseen in 5s free"),
        (0, 4, "not_applied failed gave_up free"),
        (3, 1, "not_applied failed gave_up free"),
    ] {
        assert_eq!(after(attempts, lookups, clean()), expected);
    }
    // An earlier request may have had its effect: that is looked up.
    let unsure = after(3, 1, unproven());
    assert!(
        unsure.starts_with("not_applied uncertain earlier_unseen in 10s"),
        "{unsure}"
    );
}

#[test]
fn what_a_copy_repeats_and_that_lives_keeps_it_from_being_sent() {
    let shown = |id, status: &str| Object::from(Invoice::bare(id, InvoiceStatus::parse(status)));
    let decided = |history: &History, known: &[Object], listed: &[Object]| {
        let living = original_lives(history, &[NAME], known, listed);
        living.map(|living| show(&living.verdict))
    };
    let is_not_sent = "not_applied failed original_lives free";
    for (known, expected) in [
        (vec![], None),
        (
            vec![
                shown(1, "error"),
                shown(2, "expired"),
                shown(3, "cancelled"),
            ],
            None,
        ),
        (
            vec![shown(1, "error"), shown(2, "pending")],
            Some(is_not_sent),
        ),
        (vec![shown(1, "paid")], Some(is_not_sent)),
        (vec![shown(1, "cancelling")], Some(is_not_sent)),
    ] {
        assert_eq!(
            decided(&clean(), &known, &[]).as_deref(),
            expected,
            "{known:?}"
        );
    }
    // Of a list counts what carries the name of an original, of whichever generation.
    let mark = JobName {
        generation: 2,
        ..NAME
    }
    .mark();
    for (reason, status, expected) in [
        (mark.as_str(), "failed", None),
        (mark.as_str(), "completed", Some(is_not_sent)),
        (mark.as_str(), "pending", Some(is_not_sent)),
        ("by hand", "completed", None),
    ] {
        let listed = [Object::from(refund_row(3, status, Some(reason)))];
        let decided = decided(&clean(), &[], &listed);
        assert_eq!(decided.as_deref(), expected, "{listed:?}");
    }
    // A request of the copy itself may have had its effect besides.
    let unsure = decided(&unproven(), &[shown(1, "pending")], &[]);
    assert_eq!(unsure.as_deref(), Some("unknown held original_lives free"));
}

#[test]
fn what_a_check_leaves_out_may_live_and_what_it_shows_unasked_says_nothing() {
    let shown = |id, status: &str| Invoice::bare(id, InvoiceStatus::parse(status));
    let ids = |shown: Option<Vec<Invoice>>| {
        shown.map(|shown| shown.iter().map(|invoice| invoice.id).collect::<Vec<_>>())
    };
    let both = vec![shown(2, "error"), shown(9, "paid"), shown(1, "expired")];
    assert_eq!(ids(asked_for(&[1, 2], both.clone())), Some(vec![2, 1]));
    assert_eq!(ids(asked_for(&[1, 3], both)), None);
    assert_eq!(ids(asked_for(&[1], Vec::new())), None);
    let seen = [shown(2, "error"), shown(9, "paid")];
    assert_eq!(left_out(&[1, 2, 3], &seen), [1, 3]);
}
