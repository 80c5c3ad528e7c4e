//! What every state of an accepted object means, and when it is looked at again.

use super::*;
use crate::domain::object::{Invoice, InvoiceStatus};
use crate::policy::fixtures::*;

const MINUTE: Duration = seconds(60);

fn invoice(status: &str) -> Object {
    Object::Invoice(own_invoice(status))
}

fn refunded(status: &str, code: &str) -> Object {
    let mut refund = refund_row(3, status, None);
    refund.error_code = Some(code.to_owned());
    Object::Refund(refund)
}

fn show_followed(followed: &Followed) -> String {
    let next = followed.next.as_ref().map_or("waits".to_owned(), show_next);
    let check = followed
        .check_after
        .map_or(String::new(), |after| format!(" check in {after:?}"));
    format!("{next}{check}{}", show_strain(followed.signal.as_ref()))
}

fn generation(generation: i16) -> History {
    History {
        generation,
        ..attempted(1, clean())
    }
}

/// The object has looked so for `unchanged`, the job been accepted for as long.
#[track_caller]
fn check(kind: &Kind, history: &History, seen: &Object, unchanged: Duration, expected: &str) {
    let spans = Spans {
        unchanged,
        accepted: unchanged,
        resumed: None,
    };
    check_spans(kind, history, seen, spans, expected);
}

#[track_caller]
fn check_spans(kind: &Kind, history: &History, seen: &Object, spans: Spans, expected: &str) {
    let rules = rules();
    let (operation, plan) = (kind.operation, &kind.plan);
    let at = at(&rules);
    let followed = follow(operation, plan, history, seen, spans, at);
    assert_eq!(show_followed(&followed), expected, "{history:?} {seen:?}");
}

#[test]
fn what_is_done_or_under_way() {
    for (kind, seen, expected) in [
        (create(), invoice("processing"), "waits"),
        (create(), invoice("odd"), "waits"),
        (create(), invoice("pending"), "succeeded invoice 15 pending"),
        (
            create(),
            invoice("cancelling"),
            "succeeded invoice 15 cancelling",
        ),
        (create(), invoice("paid"), "succeeded invoice 15 paid"),
        (
            create(),
            invoice("partially_refunded"),
            "succeeded invoice 15 partially_refunded",
        ),
        (
            create(),
            invoice("cancelled"),
            "succeeded invoice 15 cancelled",
        ),
        (create(), invoice("expired"), "succeeded invoice 15 expired"),
        (
            create(),
            failed_invoice("invoice_already_paid"),
            "succeeded invoice 15 error",
        ),
        (cancel(), invoice("cancelling"), "waits"),
        (cancel(), invoice("odd"), "waits"),
        (
            cancel(),
            invoice("cancelled"),
            "succeeded invoice 15 cancelled",
        ),
        (cancel(), invoice("expired"), "succeeded invoice 15 expired"),
        (
            cancel(),
            failed_invoice("invoice_already_cancelled"),
            "succeeded invoice 15 error",
        ),
        (refund(), refunded("pending", ""), "waits"),
        (refund(), refunded("processing", ""), "waits"),
        (refund(), refunded("odd", ""), "waits"),
        (
            refund(),
            refunded("completed", ""),
            "succeeded refund 3 completed",
        ),
    ] {
        for history in [generation(1), attempted(9, generation(3))] {
            check(&kind, &history, &seen, Duration::ZERO, expected);
            check(&kind, &history, &seen, seconds(7 * 24 * 3600), expected);
        }
    }
}

/// A cancel that was taken may leave no trace for minutes; then it is asked for again.
#[test]
fn a_silent_cancel_is_asked_for_again() {
    let again = "queued not_applied in 0ns proven";
    for status in ["pending", "processing"] {
        for (attempts, minutes, expected) in [
            (1, 0, "waits"),
            (9, 0, "waits"),
            (4, 10, again),
            (1, 60, again),
            (5, 10, "failed gave_up"),
            (6, 10, "failed gave_up"),
        ] {
            let history = attempted(attempts, clean());
            check(
                &cancel(),
                &history,
                &invoice(status),
                MINUTE * minutes,
                expected,
            );
        }
        let nearly = seconds(599);
        check(&cancel(), &generation(1), &invoice(status), nearly, "waits");
    }
}

#[test]
fn a_cancel_that_came_too_late_says_why() {
    for (seen, expected) in [
        (invoice("paid"), "failed already_paid"),
        (invoice("partially_refunded"), "failed already_paid"),
        (
            failed_invoice("invoice_already_paid"),
            "failed already_paid",
        ),
        (
            failed_invoice("invoice_not_found_in_kaspi"),
            "failed async_error",
        ),
        (failed_invoice("network_unavailable"), "failed async_error"),
        (invoice("error"), "failed async_error"),
    ] {
        check(&cancel(), &generation(1), &seen, Duration::ZERO, expected);
        check(&cancel(), &generation(3), &seen, MINUTE * 60, expected);
    }
}

/// A new object goes out once the old one stood failed for as long as the back-off.
#[test]
fn what_failed_for_the_moment_is_resubmitted() {
    let again = failed_invoice("network_unavailable");
    let resubmitted = "queued async_retry resubmitted";
    for (made, unchanged_for, expected) in [
        (1, 0, "accepted async_retry invoice 15 error check in 90s"),
        (1, 5, "accepted async_retry invoice 15 error check in 85s"),
        (1, 89, "accepted async_retry invoice 15 error check in 1s"),
        (1, 90, resubmitted),
        (1, 7200, resubmitted),
        (2, 0, "accepted async_retry invoice 15 error check in 180s"),
        (2, 90, "accepted async_retry invoice 15 error check in 90s"),
        (2, 180, resubmitted),
        (3, 0, "accepted async_retry invoice 15 error check in 360s"),
        (3, 360, "failed gave_up"),
        (4, 7200, "failed gave_up"),
    ] {
        check(
            &create(),
            &generation(made),
            &again,
            seconds(unchanged_for),
            expected,
        );
    }
    let refund_again = refunded("failed", "network_unavailable");
    let waits = "accepted async_retry refund 3 failed check in 90s";
    check(
        &refund(),
        &generation(1),
        &refund_again,
        Duration::ZERO,
        waits,
    );
    check(
        &refund(),
        &generation(1),
        &refund_again,
        MINUTE * 2,
        resubmitted,
    );
    // A generation that no database of ours holds is no panic, and no endless row of invoices.
    check(&create(), &generation(-1), &again, MINUTE * 2, resubmitted);
}

#[test]
fn a_fault_of_the_account_parks_it_before_anything_is_resubmitted() {
    let parked = "check in 90s; park session_expired until delivered (kaspi_session_expired)";
    for (kind, seen, what) in [
        (
            create(),
            failed_invoice("kaspi_session_expired"),
            "invoice 15 error",
        ),
        (
            refund(),
            refunded("failed", "kaspi_session_expired"),
            "refund 3 failed",
        ),
    ] {
        let expected = format!("accepted async_retry {what} {parked}");
        check(&kind, &generation(1), &seen, Duration::ZERO, &expected);
        let adopted = expected.replace("90s", "85s");
        check(&kind, &generation(1), &seen, seconds(5), &adopted);
        let resubmitted = "queued session_expired resubmitted";
        check(&kind, &generation(1), &seen, MINUTE * 2, resubmitted);
        let last = expected.replace("90s", "360s");
        check(&kind, &generation(3), &seen, Duration::ZERO, &last);
        // However often: the session is gone, not the payment.
        for made in [3, 4, 1_000] {
            check(&kind, &generation(made), &seen, MINUTE * 60, resubmitted);
        }
    }
}

#[test]
fn what_died_of_the_account_uses_up_nothing_of_what_dies_by_itself() {
    let again = failed_invoice("network_unavailable");
    for (made, spared, expected) in [
        (3, 0, "failed gave_up"),
        (3, 1, "queued async_retry resubmitted"),
        (9, 7, "queued async_retry resubmitted"),
        (9, 6, "failed gave_up"),
        (1, 9, "queued async_retry resubmitted"),
    ] {
        let history = History {
            spared,
            ..generation(made)
        };
        check(&create(), &history, &again, MINUTE * 60, expected);
    }
    for (reason, expected) in [(Reason::AsyncRetry, false), (Reason::SessionExpired, true)] {
        assert_eq!(Next::Resubmit(reason).is_spared(), expected);
    }
    assert!(!Next::Failed(Reason::SessionExpired).is_spared());
}

#[test]
fn only_what_came_through_proves_that_kaspi_delivers() {
    let done = |seen: Object| Some(Next::Succeeded(seen));
    let accepted = Next::Accepted {
        seen: invoice("processing"),
        reason: Reason::UnderWay,
    };
    for (next, expected) in [
        (done(invoice("pending")), true),
        (done(invoice("paid")), true),
        (done(refunded("completed", "")), true),
        (done(failed_invoice("invoice_already_paid")), false),
        (Some(accepted), false),
        (Some(Next::Failed(Reason::AsyncError)), false),
        (Some(Next::Resubmit(Reason::SessionExpired)), false),
        (None, false),
    ] {
        assert_eq!(proves_delivery(next.as_ref()), expected, "{next:?}");
    }
}

#[test]
fn what_failed_for_good_fails() {
    for kind_and_seen in [
        (create(), failed_invoice("client_not_found")),
        (create(), failed_invoice("brand_new")),
        (create(), invoice("error")),
        (refund(), refunded("failed", "refund_insufficient_funds")),
        (refund(), refunded("failed", "unknown_error")),
        (refund(), refunded("failed", "")),
    ] {
        let (kind, seen) = kind_and_seen;
        for history in [generation(1), generation(3)] {
            check(&kind, &history, &seen, Duration::ZERO, "failed async_error");
            check(&kind, &history, &seen, MINUTE * 60, "failed async_error");
        }
    }
}

/// An invoice in error may turn pending after all, so the first back-off lasts in any case.
#[test]
fn what_an_account_was_to_blame_for_waits_no_longer_than_at_first_once_it_is_resumed() {
    let resubmitted = "queued session_expired resubmitted";
    let parked = "park session_expired until delivered (kaspi_session_invalid)";
    let waits =
        |seconds| format!("accepted async_retry invoice 15 error check in {seconds}s; {parked}");
    for (unchanged, resumed, expected) in [
        (300, None, waits(60)),
        (300, Some(301), waits(60)),
        (300, Some(300), resubmitted.to_owned()),
        (90, Some(1), resubmitted.to_owned()),
        (89, Some(1), waits(1)),
        (0, Some(0), waits(90)),
    ] {
        let spans = Spans {
            unchanged: seconds(unchanged),
            accepted: seconds(unchanged),
            resumed: resumed.map(seconds),
        };
        let seen = failed_invoice("kaspi_session_invalid");
        check_spans(&create(), &generation(3), &seen, spans, &expected);
        // What is nobody's fault goes by its own failures.
        let own = Spans {
            unchanged: seconds(359),
            ..spans
        };
        let seen = failed_invoice("kaspi_throttled");
        let waits = "accepted async_retry invoice 15 error check in 1s";
        check_spans(&create(), &generation(3), &seen, own, waits);
    }
}

/// Random time is added to the check, never taken from the back-off.
#[test]
fn a_later_check_finds_the_back_off_over() {
    let rules = rules();
    let kind = create();
    let seen = failed_invoice("kaspi_throttled");
    for random in [0.0, 0.5, 1.0] {
        let at = Circumstances {
            jitter: Jitter::new(random),
            ..at(&rules)
        };
        let history = generation(1);
        let decide = |unchanged_for| {
            follow(
                kind.operation,
                &kind.plan,
                &history,
                &seen,
                Spans {
                    unchanged: unchanged_for,
                    accepted: MINUTE,
                    resumed: None,
                },
                at,
            )
        };
        let wait = decide(Duration::ZERO).check_after.expect("a check");
        assert_eq!(wait, seconds(90).mul_f64(1.0 + 0.2 * random));
        assert_eq!(
            show_followed(&decide(wait)),
            "queued async_retry resubmitted"
        );
    }
}

#[test]
fn two_refunds_of_one_name_are_a_humans_to_see() {
    let marked = |id| refund_row(id, "completed", Some(&NAME.mark()));
    let other = JobName {
        generation: 9,
        ..NAME
    };
    let own = Object::Refund(marked(7));
    for (among, expected) in [
        (vec![marked(7)], false),
        (vec![marked(7), refund_row(8, "completed", None)], false),
        (
            vec![marked(7), refund_row(8, "failed", Some(&other.mark()))],
            false,
        ),
        (vec![marked(7), marked(8)], true),
    ] {
        let among: Vec<Object> = among.into_iter().map(Object::from).collect();
        assert_eq!(has_double(NAME, &own, &among), expected, "{among:?}");
    }
    let among = [marked(7), marked(8)].map(Object::from);
    assert!(!has_double(NAME, &invoice("paid"), &among));
    assert_eq!(
        show_followed(&Followed::doubled()),
        "held duplicate_detected"
    );
}

/// An object of the wrong kind can neither end a job nor allow another request.
#[test]
fn an_object_of_another_kind_says_nothing() {
    let bare = Object::Invoice(Invoice::bare(15, InvoiceStatus::Paid));
    check(&refund(), &generation(1), &bare, MINUTE, "waits");
    for kind in [create(), cancel()] {
        check(
            &kind,
            &generation(1),
            &refunded("completed", ""),
            MINUTE,
            "waits",
        );
    }
    assert_eq!(
        why_failed(&refunded("failed", "invoice_already_paid"), Reason::Refused),
        Reason::Refused
    );
}

#[test]
fn what_was_accepted_so_long_ago_is_overdue() {
    let rules = rules();
    assert!(!is_overdue(rules.give_up - seconds(1), &rules));
    assert!(is_overdue(rules.give_up, &rules));
}

#[test]
fn another_amount_than_was_asked_for_is_for_a_human_unless_it_was_taken_so() {
    let shows = |amount: Option<i64>| {
        Object::Invoice(Invoice {
            amount: amount.map(Decimal::from),
            ..own_invoice("pending")
        })
    };
    let known = |amount: i64| Some(Decimal::from(amount));
    let plan = create().plan;
    for (seen, before, is_another) in [
        (Some(5000), None, false),
        (Some(5000), known(4000), false),
        (None, known(5000), false),
        (Some(4000), None, true),
        (Some(4000), known(5000), true),
        (Some(4000), known(4000), false),
    ] {
        let said = is_of_another_amount(&plan, &shows(seen), before);
        assert_eq!(said, is_another, "{seen:?} {before:?}");
    }
    // What a cancel acts on is another job's.
    assert!(!is_of_another_amount(
        &cancel().plan,
        &shows(Some(4000)),
        None
    ));
    let followed = Followed::of_another_amount(&plan, &shows(Some(4000)));
    assert_eq!(show_followed(&followed), "held mismatch");
    let said = "5000 tenge to 8700***4567 was asked for, and ApiPay has invoice 15: 4000 tenge to 8700***4567 (status pending)";
    assert_eq!(followed.found.as_deref(), Some(said));
}
