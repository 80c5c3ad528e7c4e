//! What every finding means, for every operation, protection and history.

use rust_decimal::Decimal;
use serde_json::json;

use super::*;
use crate::domain::answer::{Body, Lost, NotSent};
use crate::domain::object::{Invoice, InvoiceStatus, Refund};
use crate::domain::phone::Phone;
use crate::policy::fixtures::*;
use DuplicateProtection::{Key, Lookup};

/// Who is looked up.
struct Case<'a> {
    kind: Kind,
    history: History,
    protection: DuplicateProtection,
    baseline: Option<&'a Baseline>,
}

fn case(kind: Kind, history: History) -> Case<'static> {
    Case {
        kind,
        history,
        protection: Key,
        baseline: None,
    }
}

#[track_caller]
fn check(case: &Case<'_>, finding: &Finding, expected: &str) {
    let rules = rules();
    let subject = Subject {
        operation: case.kind.operation,
        plan: &case.kind.plan,
        name: NAME,
        history: &case.history,
        protection: case.protection,
        baseline: case.baseline,
    };
    let verdict = reconcile(&subject, finding, at(&rules));
    assert_eq!(show(&verdict), expected, "{:?} {finding:?}", case.history);
}

/// One request was unproven for this long, and a look-up found nothing this long ago.
fn history(attempts: u32, unproven_for: u64, absent_for: Option<u64>) -> History {
    History {
        attempts,
        unproven_since: Some(NOW - seconds(unproven_for)),
        absent_since: absent_for.map(|absent| NOW - seconds(absent)),
        lookups: 1,
        ..clean()
    }
}

fn invoices(found: &[Invoice]) -> Finding {
    Finding::listed(found.to_vec())
}

fn refunds(found: &[Refund]) -> Finding {
    Finding::listed(found.to_vec())
}

fn unclear(answer: Answer) -> Finding {
    Finding::Unclear(timed(answer))
}

const GIVE_UP: u64 = 20 * 3600;
const HELD: &str = "unknown held unknown_outcome free";
const SETTLE: &str = "unknown uncertain lookup_absent in 900s absent free";
const PROVEN: &str = "not_applied queued not_applied in 0ns proven free";
const PROVEN_AT_ONCE: &str = "not_applied queued not_applied in 5s proven free";
const GAVE_UP: &str = "not_applied failed gave_up free";

/// Nothing is sent any more of a job whose time is over, so its key is of no use: what was sent is settled.
#[test]
fn an_expired_job_is_looked_up_until_it_is_proven_what_became_of_it() {
    for (absent_for, expected) in [(None, SETTLE), (Some(0), SETTLE), (Some(900), PROVEN)] {
        let expired = History {
            is_sent_no_more: true,
            ..history(1, 1000, absent_for)
        };
        check(&case(create(), expired), &invoices(&[]), expected);
    }
}

/// The gateway has said that it has something with the key: to find nothing is no proof that there is nothing.
#[test]
fn what_has_the_key_is_found_by_its_name_or_a_humans_to_find() {
    let taken = |absent_for| History {
        is_key_taken: true,
        ..history(2, 60, absent_for)
    };
    for (absent_for, expected) in [(None, SETTLE), (Some(0), SETTLE), (Some(900), HELD)] {
        check(&case(create(), taken(absent_for)), &invoices(&[]), expected);
    }
    let found = invoices(&[own_invoice("pending")]);
    let adopted = "applied succeeded invoice 15 pending free";
    check(&case(create(), taken(None)), &found, adopted);
    let given_up = History {
        attempts: 40,
        is_sent_no_more: true,
        ..taken(Some(900))
    };
    check(&case(create(), given_up), &invoices(&[]), HELD);
    let denied = |sent_at| History {
        denied_since: Some(NOW - seconds(60)),
        unproven_since: Some(NOW - seconds(GIVE_UP)),
        sent_at,
        ..taken(Some(GIVE_UP))
    };
    let long_ago = Some(NOW - seconds(900));
    check(&case(create(), denied(long_ago)), &invoices(&[]), PROVEN);
}

/// A person's word stands for a look-up that found nothing as from when the job was sent, and not before what was sent would be
/// shown.
#[test]
fn a_word_is_no_proof_before_what_was_sent_would_be_shown() {
    let known = Baseline::default();
    let bill = case(create(), clean());
    let by_look_up = |kind| Case {
        protection: Lookup,
        baseline: Some(&known),
        ..case(kind, clean())
    };
    let kinds: [(fn() -> Kind, Finding); 2] = [(create, invoices(&[])), (refund, refunds(&[]))];
    for (kind, nothing) in kinds {
        let waits = "unknown uncertain lookup_absent in 840s absent free";
        for (sent, unproven, expected) in [
            (Some(60), GIVE_UP, waits),
            (None, 60, waits),
            (Some(900), GIVE_UP, PROVEN),
            (None, 900, PROVEN),
        ] {
            let history = History {
                denied_since: Some(NOW - seconds(30)),
                sent_at: sent.map(|ago| NOW - seconds(ago)),
                ..history(1, unproven, Some(GIVE_UP))
            };
            let subject = Case {
                history,
                ..by_look_up(kind())
            };
            check(&subject, &nothing, expected);
        }
    }
    // The same key makes nothing twice.
    let fresh = History {
        denied_since: Some(NOW - seconds(30)),
        ..history(1, 60, Some(GIVE_UP))
    };
    let again = "not_applied queued not_applied in 5s free";
    check(
        &Case {
            history: fresh,
            ..bill
        },
        &invoices(&[]),
        again,
    );
}

/// A person said that nothing was done: what lives with the job's name speaks first, and what is dead was seen to.
#[test]
fn a_person_who_says_that_nothing_was_done_is_believed_unless_something_of_it_lives() {
    let denied = || History {
        denied_since: Some(NOW - seconds(GIVE_UP)),
        ..history(1, GIVE_UP + 1, Some(GIVE_UP))
    };
    let with = |status: &str, amount: &str| {
        invoices(&[Invoice {
            amount: amount.parse().ok(),
            ..own_invoice(status)
        }])
    };
    for (finding, expected) in [
        (invoices(&[]), PROVEN),
        (with("pending", "5001"), "unknown held mismatch free"),
        (with("processing", "5001"), "unknown held mismatch free"),
        (with("cancelled", "5001"), PROVEN),
        (with("error", "5001"), PROVEN),
        (
            with("pending", "5000"),
            "applied succeeded invoice 15 pending free",
        ),
    ] {
        check(&case(create(), denied()), &finding, expected);
    }
}

/// No request is sent on a word alone: where no look-up since has got a clear answer for long, a person is asked again.
#[test]
fn a_word_that_no_look_up_confirms_sends_nothing() {
    let denied_for = |seconds_ago| History {
        denied_since: Some(NOW - seconds(seconds_ago)),
        ..history(1, 2 * GIVE_UP, Some(2 * GIVE_UP))
    };
    let known = Baseline::default();
    let again = "unknown uncertain lookup_unclear in 5s free";
    for kind in [create, refund, cancel] {
        for protection in [Key, Lookup] {
            for answer in [
                reply(502, Body::Broken),
                Answer::Lost(Lost::Timeout),
                Answer::NotSent(NotSent::Connect),
            ] {
                let subject = |denied_for| Case {
                    protection,
                    baseline: Some(&known),
                    ..case(kind(), denied_for)
                };
                let failed = unclear(answer);
                check(
                    &subject(denied_for(GIVE_UP)),
                    &failed,
                    "unknown held unconfirmed free",
                );
                // However old the request is, it is asked about for as long since that was said.
                check(&subject(denied_for(GIVE_UP - 1)), &failed, again);
            }
        }
    }
}

/// A create that is found nowhere: with a key that is honoured one look-up lets the same key go out
/// again, without it only two with the settle time between them.
#[test]
fn an_invoice_that_is_not_found() {
    let by_key = "not_applied queued not_applied in 5s free";
    let partly = "unknown uncertain lookup_absent in 600s absent free";
    for (attempts, unproven_for, absent_for, key, lookup) in [
        (1, 60, None, by_key, SETTLE),
        (1, 60, Some(0), by_key, SETTLE),
        (1, 1000, Some(300), by_key, partly),
        (
            1,
            1000,
            Some(899),
            by_key,
            "unknown uncertain lookup_absent in 1s absent free",
        ),
        (1, 1000, Some(900), PROVEN, PROVEN),
        (1, 1000, Some(950), PROVEN, PROVEN),
        // The last attempt is used up: no further send, but the proof is still worth having.
        (5, 60, None, SETTLE, SETTLE),
        (5, 1000, Some(300), partly, partly),
        (5, 1000, Some(900), GAVE_UP, GAVE_UP),
        (9, 1000, Some(900), GAVE_UP, GAVE_UP),
        // The first invoice may be dead by now, and its key free: only proof is good enough.
        (1, GIVE_UP - 1, None, by_key, SETTLE),
        (1, GIVE_UP, None, SETTLE, SETTLE),
        (1, GIVE_UP, Some(300), partly, partly),
        (1, GIVE_UP, Some(900), PROVEN, PROVEN),
        (5, GIVE_UP + 1, Some(900), GAVE_UP, GAVE_UP),
    ] {
        for (protection, expected) in [(Key, key), (Lookup, lookup)] {
            let subject = Case {
                protection,
                ..case(create(), history(attempts, unproven_for, absent_for))
            };
            check(&subject, &invoices(&[]), expected);
        }
    }
    // A later attempt waits longer; a moment in the future is no wait that is over.
    let third = case(create(), history(3, 60, None));
    let waits = "not_applied queued not_applied in 20s free";
    check(&third, &invoices(&[]), waits);
    let future = History {
        absent_since: Some(NOW + seconds(60)),
        ..history(5, 60, None)
    };
    check(&case(create(), future), &invoices(&[]), SETTLE);
}

/// Where nothing is sent again before proof can be had, proof is waited for, key or not; and what was
/// waited for it is waited.
#[test]
fn absence_becomes_proof_while_nothing_is_sent_again_anyway() {
    let mut rules = rules();
    rules.server_error.attempts = 0;
    let kind = create();
    let decide = |history: &History, is_slow| {
        let subject = Subject {
            operation: kind.operation,
            plan: &kind.plan,
            name: NAME,
            history,
            protection: Key,
            baseline: None,
        };
        let at = Circumstances {
            is_slow,
            ..at(&rules)
        };
        show(&reconcile(&subject, &invoices(&[]), at))
    };
    let by_key = "not_applied queued not_applied in 5s free";
    assert_eq!(decide(&history(1, 60, None), false), by_key);
    assert_eq!(decide(&history(1, 60, None), true), SETTLE);
    assert_eq!(decide(&history(1, 1000, Some(900)), true), PROVEN);
    // Its own back-off is as long.
    let last_short = "not_applied queued not_applied in 640s free";
    assert_eq!(decide(&history(8, 60, None), false), last_short);
    assert_eq!(decide(&history(9, 60, None), false), SETTLE);
    assert_eq!(decide(&history(9, 1000, Some(900)), false), PROVEN);
    let rest = "not_applied queued not_applied in 300s proven free";
    rules.server_error.max = seconds(1200);
    let subject_history = history(9, 1000, Some(900));
    let subject = Subject {
        operation: kind.operation,
        plan: &kind.plan,
        name: NAME,
        history: &subject_history,
        protection: Key,
        baseline: None,
    };
    assert_eq!(show(&reconcile(&subject, &invoices(&[]), at(&rules))), rest);
}

#[test]
fn the_invoice_with_the_jobs_name_is_adopted() {
    for (status, expected) in [
        (
            "processing",
            "applied accepted under_way invoice 15 processing free",
        ),
        ("pending", "applied succeeded invoice 15 pending free"),
        ("cancelling", "applied succeeded invoice 15 cancelling free"),
        ("paid", "applied succeeded invoice 15 paid free"),
        (
            "partially_refunded",
            "applied succeeded invoice 15 partially_refunded free",
        ),
        ("cancelled", "applied succeeded invoice 15 cancelled free"),
        ("expired", "applied succeeded invoice 15 expired free"),
        ("error", "applied accepted under_way invoice 15 error free"),
        ("odd", "applied accepted under_way invoice 15 odd free"),
    ] {
        for history in [history(1, 60, None), history(9, GIVE_UP, Some(GIVE_UP))] {
            for protection in [Key, Lookup] {
                let subject = Case {
                    protection,
                    ..case(create(), history.clone())
                };
                check(&subject, &invoices(&[own_invoice(status)]), expected);
                check(&subject, &Finding::read(own_invoice(status)), expected);
            }
        }
    }
}

/// The first request's invoice died before the second request came with the same key: there may be
/// another one that the list does not show yet.
#[test]
fn a_dead_invoice_is_not_all_there_is_where_its_key_was_sent_again() {
    let partly = "unknown uncertain lookup_absent in 600s absent free";
    for (status, adopted) in [
        ("error", "applied accepted under_way invoice 15 error free"),
        ("cancelled", "applied succeeded invoice 15 cancelled free"),
        ("expired", "applied succeeded invoice 15 expired free"),
    ] {
        // A person's word has the attempts begin anew, and what was sent stays sent.
        for (attempts, is_repeated, absent_for, key) in [
            (1, false, None, adopted),
            (2, true, None, SETTLE),
            (2, true, Some(300), partly),
            (2, true, Some(900), adopted),
            (9, true, Some(0), SETTLE),
            (0, true, None, SETTLE),
        ] {
            let history = History {
                is_repeated,
                ..history(attempts, 1000, absent_for)
            };
            // Without keys a request is repeated only after the list has settled.
            for (protection, expected) in [(Key, key), (Lookup, adopted)] {
                let subject = Case {
                    protection,
                    ..case(create(), history.clone())
                };
                check(&subject, &invoices(&[own_invoice(status)]), expected);
            }
        }
    }
    let repeated = History {
        is_repeated: true,
        ..history(2, 60, None)
    };
    let repeated = case(create(), repeated);
    let alive = "applied succeeded invoice 15 pending free";
    check(&repeated, &invoices(&[own_invoice("pending")]), alive);
}

/// The search is for a substring, so most of what it returns may be somebody else's.
#[test]
fn only_the_exact_name_makes_an_invoice_ours() {
    let subject = Case {
        protection: Lookup,
        ..case(create(), history(1, 60, None))
    };
    let adopted = "applied succeeded invoice 15 pending free";
    let token = NAME.to_string();
    let second = JobName {
        generation: 2,
        ..NAME
    };
    let written = |order: Option<&str>, comment: Option<&str>, is_imported| Invoice {
        external_order_id: order.map(str::to_owned),
        internal_comment: comment.map(str::to_owned),
        is_imported,
        ..own_invoice("pending")
    };
    for (invoice, expected) in [
        (written(Some(&token), None, false), adopted),
        (
            written(Some("order-15"), Some(&NAME.marked(Some("till 2"))), false),
            adopted,
        ),
        (written(None, Some(&NAME.mark()), false), adopted),
        (written(Some(&token), Some(&NAME.mark()), true), SETTLE),
        (written(None, None, false), SETTLE),
        (written(None, Some(&token), false), SETTLE),
        (written(Some(&format!("{token} ")), None, false), SETTLE),
        (written(Some(&second.to_string()), None, false), SETTLE),
        (written(None, Some(&second.mark()), false), SETTLE),
        (written(Some(&NAME.mark()), None, false), SETTLE),
    ] {
        check(
            &subject,
            &invoices(std::slice::from_ref(&invoice)),
            expected,
        );
        let others = [
            written(Some("x"), None, false),
            invoice,
            written(None, None, true),
        ];
        check(&subject, &invoices(&others), expected);
    }
}

fn another_job() -> JobName {
    JobName {
        token: uuid::Uuid::from_u128(8),
        generation: 1,
    }
}

/// A program may choose another job's name as its order id: the mark says whose the invoice is.
#[test]
fn an_invoice_with_another_jobs_mark_is_not_ours_whatever_its_order_id() {
    let marked = |comment: String| {
        invoices(&[Invoice {
            internal_comment: Some(comment),
            ..own_invoice("pending")
        }])
    };
    let subject = case(create(), history(1, 60, None));
    let theirs = marked(another_job().mark());
    check(
        &subject,
        &theirs,
        "not_applied queued not_applied in 5s free",
    );
    let ours = format!("{} {}", another_job().mark(), NAME.mark());
    check(
        &subject,
        &marked(ours),
        "applied succeeded invoice 15 pending free",
    );
}

/// A key is not echoed, so the order id has to speak for it.
#[test]
fn what_answers_to_our_key_and_is_of_another_order_is_held() {
    let mut ours = create();
    ours.plan.expected.order_id = Some("order-15".to_owned());
    let shown = |order: Option<&str>, comment: Option<String>| {
        Finding::read(Invoice {
            external_order_id: order.map(str::to_owned),
            internal_comment: comment,
            ..own_invoice("pending")
        })
    };
    let adopted = "applied succeeded invoice 15 pending free";
    let mismatch = "unknown held mismatch free";
    let subject = case(ours, history(1, 60, None));
    for (finding, expected) in [
        (shown(Some("order-15"), None), adopted),
        (shown(Some("order-15"), Some("edited".to_owned())), adopted),
        (shown(None, None), adopted),
        (shown(None, Some("edited".to_owned())), adopted),
        (shown(Some("ORDER-15"), Some(NAME.mark())), adopted),
        (shown(Some("order-16"), None), mismatch),
        (
            shown(Some("order-16"), Some("order-15".to_owned())),
            mismatch,
        ),
        (
            shown(Some("order-15"), Some(another_job().mark())),
            mismatch,
        ),
    ] {
        check(&subject, &finding, expected);
    }
    // The order of the invoice that is cancelled is nobody's business.
    let subject = case(cancel(), history(1, 60, None));
    let finding = Finding::read(Invoice {
        external_order_id: Some("order-16".to_owned()),
        ..Invoice::bare(15, InvoiceStatus::Cancelled)
    });
    check(
        &subject,
        &finding,
        "applied succeeded invoice 15 cancelled free",
    );
}

#[test]
fn what_contradicts_the_job_is_held() {
    let subject = case(create(), history(1, 60, None));
    let own = own_invoice("pending");
    let mismatch = "unknown held mismatch free";
    let other_amount = Invoice {
        amount: Some(Decimal::from(5001)),
        ..own.clone()
    };
    let other_phone = Invoice {
        phone: Phone::parse("87001234568"),
        ..own.clone()
    };
    let silent = Invoice {
        amount: None,
        phone: None,
        ..own.clone()
    };
    for (invoice, expected) in [
        (other_amount, mismatch),
        (other_phone, mismatch),
        (silent, "applied succeeded invoice 15 pending free"),
    ] {
        check(
            &subject,
            &invoices(std::slice::from_ref(&invoice)),
            expected,
        );
        check(&subject, &Finding::read(invoice), expected);
    }
    // A cart has no amount of ours to compare.
    let mut cart = create();
    cart.plan.expected.amount = None;
    let adopted = "applied succeeded invoice 15 pending free";
    check(
        &case(cart, history(1, 60, None)),
        &invoices(std::slice::from_ref(&own)),
        adopted,
    );

    let second = Invoice {
        id: 16,
        ..own.clone()
    };
    let twice = "unknown held duplicate_detected free";
    check(&subject, &invoices(&[own, second]), twice);
}

/// What differs and is dead was dealt with: what lives beside it is judged by itself. What was asked for, and died, has
/// had its effect, or may still have it: of that a human has to know.
#[test]
fn a_dead_invoice_that_differs_is_no_second_one_of_one_that_lives() {
    let twice = "unknown held duplicate_detected free";
    let invoice = |id: i64, status: &str, amount: &str| Invoice {
        id,
        amount: amount.parse().ok(),
        ..own_invoice(status)
    };
    let adopted = "applied succeeded invoice 16 pending free";
    for status in ["cancelled", "expired", "error"] {
        for (dead, living, expected) in [
            ("5001", "5000", adopted),
            ("5001", "5001", "unknown held mismatch free"),
            ("5000", "5000", twice),
            ("5000", "5001", twice),
        ] {
            let dead = invoice(15, status, dead);
            let living = invoice(16, "pending", living);
            for found in [[dead.clone(), living.clone()], [living, dead]] {
                for history in [history(1, 60, None), history(9, GIVE_UP, Some(GIVE_UP))] {
                    check(&case(create(), history), &invoices(&found), expected);
                }
            }
        }
        // Nothing lives: none of them is what is meant more than the other.
        let both = [invoice(15, status, "5001"), invoice(16, status, "5001")];
        let subject = case(create(), history(1, 60, None));
        check(&subject, &invoices(&both), twice);
    }
}

/// Cancelling again does nothing new, so the invoice's state alone decides.
#[test]
fn a_cancel_is_decided_by_the_invoices_state() {
    let paid = "rejected failed already_paid free";
    let refused = "rejected failed refused free";
    let subject = |history| case(cancel(), history);
    for (invoice, expected) in [
        (
            own_invoice("cancelled"),
            "applied succeeded invoice 15 cancelled free",
        ),
        (
            own_invoice("expired"),
            "applied succeeded invoice 15 expired free",
        ),
        (
            own_invoice("cancelling"),
            "applied accepted under_way invoice 15 cancelling free",
        ),
        (
            own_invoice("odd"),
            "applied accepted under_way invoice 15 odd free",
        ),
        (own_invoice("paid"), paid),
        (own_invoice("partially_refunded"), paid),
        (coded_invoice("invoice_already_paid"), paid),
        (coded_invoice("network_unavailable"), refused),
        (own_invoice("error"), refused),
        (
            coded_invoice("invoice_already_cancelled"),
            "applied succeeded invoice 15 error free",
        ),
        (own_invoice("pending"), PROVEN_AT_ONCE),
        (own_invoice("processing"), PROVEN_AT_ONCE),
    ] {
        for history in [clean(), history(1, 60, None), history(4, GIVE_UP, None)] {
            let expected = match history.attempts {
                4 => expected.replace("in 5s", "in 40s"),
                _ => expected.to_owned(),
            };
            check(
                &subject(history),
                &Finding::read(invoice.clone()),
                &expected,
            );
        }
    }
    for attempts in [5, 9] {
        let pending = Finding::read(own_invoice("pending"));
        check(&subject(history(attempts, 60, None)), &pending, GAVE_UP);
    }
}

fn coded_invoice(code: &str) -> Invoice {
    Invoice {
        error_code: Some(code.to_owned()),
        ..own_invoice("error")
    }
}

/// Without a stored baseline nothing was ever sent: the baseline is stored first.
#[test]
fn a_refund_without_a_baseline_was_never_sent() {
    for (history, expected) in [
        (history(1, 60, None), PROVEN_AT_ONCE),
        (history(1, GIVE_UP, None), PROVEN_AT_ONCE),
        (history(5, 60, None), GAVE_UP),
    ] {
        for protection in [Key, Lookup] {
            let subject = Case {
                protection,
                ..case(refund(), history.clone())
            };
            check(&subject, &refunds(&[]), expected);
            let stranger = refund_row(3, "completed", None);
            check(&subject, &refunds(&[stranger]), expected);
        }
    }
}

#[test]
fn a_refund_that_is_not_found_is_sent_again_only_when_nothing_else_happened() {
    let known = Baseline {
        refund_ids: vec![1, 2],
        is_told_apart: false,
    };
    let old = [
        refund_row(1, "completed", None),
        refund_row(2, "failed", Some("брак")),
    ];
    let other_job = JobName {
        generation: 2,
        ..NAME
    };
    let marked = refund_row(4, "pending", Some(&other_job.mark()));
    let unmarked = refund_row(3, "pending", Some("возврат"));
    let unexplained = refund_row(3, "completed", None);
    for protection in [Key, Lookup] {
        let subject = |history| Case {
            protection,
            baseline: Some(&known),
            ..case(refund(), history)
        };
        for seen in [
            vec![],
            old.to_vec(),
            [&old[..], std::slice::from_ref(&marked)].concat(),
        ] {
            for (history, expected) in [
                (history(1, 60, None), SETTLE),
                (
                    history(1, 1000, Some(899)),
                    "unknown uncertain lookup_absent in 1s absent free",
                ),
                (history(1, 1000, Some(900)), PROVEN),
                (history(5, 1000, Some(900)), GAVE_UP),
                (history(1, GIVE_UP, None), SETTLE),
                (history(1, GIVE_UP, Some(900)), PROVEN),
            ] {
                check(&subject(history), &refunds(&seen), expected);
            }
        }
        for stranger in [&unmarked, &unexplained] {
            for seen in [
                vec![stranger.clone()],
                [&old[..], std::slice::from_ref(stranger)].concat(),
            ] {
                // Its own may be shown beside it by then.
                for (history, expected) in [
                    (history(1, 60, None), SETTLE),
                    (history(1, 1000, Some(900)), HELD),
                    (history(9, GIVE_UP, Some(900)), HELD),
                ] {
                    check(&subject(history), &refunds(&seen), expected);
                }
                // A person has told them apart.
                let told_apart = Baseline {
                    is_told_apart: true,
                    ..known.clone()
                };
                let denied = History {
                    denied_since: Some(NOW - seconds(60)),
                    ..history(1, 1000, Some(GIVE_UP))
                };
                let subject = Case {
                    baseline: Some(&told_apart),
                    ..subject(denied)
                };
                check(&subject, &refunds(&seen), PROVEN);
            }
        }
    }
}

#[test]
fn the_refund_with_the_jobs_name_is_adopted() {
    let known = Baseline {
        refund_ids: vec![1],
        is_told_apart: false,
    };
    let own = |status| refund_row(3, status, Some(&NAME.marked(Some("брак"))));
    let stranger = refund_row(4, "pending", None);
    for baseline in [None, Some(&known)] {
        let subject = Case {
            baseline,
            ..case(refund(), history(9, GIVE_UP, None))
        };
        for (status, expected) in [
            (
                "pending",
                "applied accepted under_way refund 3 pending free",
            ),
            (
                "processing",
                "applied accepted under_way refund 3 processing free",
            ),
            ("completed", "applied succeeded refund 3 completed free"),
            ("failed", "applied accepted under_way refund 3 failed free"),
            ("odd", "applied accepted under_way refund 3 odd free"),
        ] {
            check(&subject, &refunds(&[own(status)]), expected);
            check(
                &subject,
                &refunds(&[stranger.clone(), own(status)]),
                expected,
            );
        }
        let second = Refund {
            id: 5,
            ..own("pending")
        };
        let twice = "unknown held duplicate_detected free";
        check(&subject, &refunds(&[own("pending"), second]), twice);
        let other_amount = Refund {
            amount: Some(Decimal::from(1000)),
            ..own("pending")
        };
        check(
            &subject,
            &refunds(&[other_amount]),
            "unknown held mismatch free",
        );
        let silent = Refund {
            amount: None,
            ..own("pending")
        };
        check(
            &subject,
            &refunds(&[silent]),
            "applied accepted under_way refund 3 pending free",
        );
    }
}

/// An error or a partial page is not a "no": it is asked again, until a human has to.
#[test]
fn an_unclear_look_up_proves_nothing() {
    let again = "unknown uncertain lookup_unclear in 5s free";
    let page = || reply(200, Body::Broken);
    for (answer, signal) in [
        (page(), ""),
        (json_reply(200, json!({"data": [], "total": 1})), ""),
        (reply(502, Body::TooLarge), ""),
        (Answer::Lost(Lost::Timeout), ""),
        (Answer::NotSent(NotSent::Dns), ""),
        (
            reply(404, Body::Text("Not Found".to_owned())),
            "; park route_not_found",
        ),
        (coded(400, "brand_new"), ""),
        (coded(403, "grant_not_granted"), ""),
        (coded(409, "kaspi_session_unavailable"), ""),
        (coded(409, "test_organization"), ""),
        (coded(422, "field_too_long"), ""),
        (coded(401, "x"), "; park key_rejected"),
        (
            coded(409, "kaspi_session_expired"),
            "; park session_expired",
        ),
        (reply(503, Body::Broken), "; park service_unavailable"),
        (
            coded(429, "request_rate_limited"),
            "; block 60s request_rate_limited",
        ),
        (
            coded(429, "tariff_limit_reached"),
            "; block 900s tariff_limit_reached capped",
        ),
    ] {
        for kind in kinds() {
            let subject = case(kind, history(1, GIVE_UP - 1, Some(GIVE_UP - 1)));
            check(
                &subject,
                &unclear(answer.clone()),
                &format!("{again}{signal}"),
            );
        }
        for kind in kinds() {
            let subject = case(kind, history(1, GIVE_UP, None));
            check(
                &subject,
                &unclear(answer.clone()),
                &format!("{HELD}{signal}"),
            );
        }
    }
    // Each look-up waits longer; with nothing unproven their number sets the term.
    for (lookups, expected) in [
        (0, again),
        (1, again),
        (2, "unknown uncertain lookup_unclear in 10s free"),
        (6, "unknown uncertain lookup_unclear in 160s free"),
        (7, "unknown uncertain lookup_unclear in 320s free"),
        (99, "unknown uncertain lookup_unclear in 900s free"),
        (100, HELD),
        (101, HELD),
    ] {
        let history = History { lookups, ..clean() };
        check(&case(cancel(), history), &unclear(page()), expected);
    }
    let patient = History {
        lookups: 1000,
        ..history(1, 60, None)
    };
    let waits = "unknown uncertain lookup_unclear in 900s free";
    check(&case(create(), patient), &unclear(page()), waits);
}

/// An invoice that does not exist cannot have been cancelled, unless it has been seen; that a search, a key's invoice or the
/// refunds are not there says nothing about a create, nor about a refund that may have been sent.
#[test]
fn a_missing_object_ends_a_cancel_and_a_refund_that_was_not_sent() {
    let again = "unknown uncertain lookup_unclear in 5s free";
    for status in [404, 410] {
        let missing = unclear(json_reply(status, json!({"error": "Invoice not found"})));
        let fails = "not_applied failed refused free";
        check(&case(cancel(), history(1, 60, None)), &missing, fails);
        check(&case(cancel(), history(1, GIVE_UP, None)), &missing, fails);
        check(&case(create(), history(1, 60, None)), &missing, again);
        let sent = Baseline::default();
        let refund_sent = Case {
            baseline: Some(&sent),
            ..case(refund(), history(1, 60, None))
        };
        check(&refund_sent, &missing, again);
        check(&case(refund(), history(1, 60, None)), &missing, fails);
        let known = |unproven_for| History {
            is_target_known: true,
            ..history(1, unproven_for, None)
        };
        check(&case(cancel(), known(60)), &missing, again);
        check(
            &case(cancel(), known(GIVE_UP)),
            &missing,
            "unknown held unknown_outcome free",
        );
    }
}

#[test]
fn a_baseline_is_every_refund_of_the_list() {
    let list = [
        refund_row(3, "failed", None),
        refund_row(1, "pending", None),
    ]
    .map(Object::from);
    assert_eq!(
        Baseline::of(&list),
        Baseline {
            refund_ids: vec![3, 1],
            is_told_apart: false,
        }
    );
}

/// Nothing was sent, so nothing becomes uncertain that was not before.
#[test]
fn a_refund_whose_baseline_cannot_be_read() {
    let rules = rules();
    let busy = "not_applied queued server_error in 5s counts";
    let later = "not_applied uncertain server_error in 10s counts";
    let parked = "not_applied parked key_rejected free; park key_rejected";
    for (answer, first, with_unproven) in [
        (
            Answer::NotSent(NotSent::Dns),
            "not_applied queued network in 1s counts",
            "not_applied uncertain network in 2s counts",
        ),
        (
            Answer::Lost(Lost::Timeout),
            "not_applied queued network in 5s counts",
            "not_applied uncertain network in 10s counts",
        ),
        (reply(200, Body::Broken), busy, later),
        (reply(404, Body::Broken), busy, later),
        (coded(502, ""), busy, later),
        (coded(409, "brand_new"), busy, later),
        (coded(404, ""), "rejected failed refused counts", later),
        (
            coded(403, "grant_not_granted"),
            "rejected failed refused counts",
            later,
        ),
        (coded(401, ""), parked, parked),
        (
            reply(503, Body::Broken),
            "not_applied queued server_error in 5s counts; park service_unavailable",
            "not_applied uncertain server_error in 10s counts; park service_unavailable",
        ),
        (
            coded(429, "rate_limited"),
            "not_applied queued retry_after in 60s free; block 60s rate_limited",
            "not_applied uncertain retry_after in 60s free; block 60s rate_limited",
        ),
        (
            coded(429, "trial_daily_limit"),
            "not_applied queued cap_reached in 900s free; block 900s trial_daily_limit capped",
            "not_applied uncertain cap_reached in 900s free; block 900s trial_daily_limit capped",
        ),
        (
            coded(429, "outstanding_recipient_limit"),
            "not_applied queued retry_after in 60s free",
            "not_applied uncertain retry_after in 60s free",
        ),
    ] {
        let decide = |history| {
            show(&without_baseline(
                &history,
                &timed(answer.clone()),
                at(&rules),
            ))
        };
        assert_eq!(decide(clean()), first, "{answer:?}");
        assert_eq!(decide(unproven()), with_unproven, "{answer:?}");
    }
    let last = |answer| {
        show(&without_baseline(
            &attempted(4, clean()),
            &timed(answer),
            at(&rules),
        ))
    };
    assert_eq!(last(coded(502, "")), "not_applied failed gave_up counts");
    assert_eq!(
        last(coded(429, "rate_limited")),
        "not_applied queued retry_after in 60s free; block 60s rate_limited"
    );
}

/// A database that went back knows nothing of a refund that was made; its own name in the list tells.
#[test]
fn a_refund_that_the_list_shows_already_is_adopted_and_never_sent() {
    let first = NAME.marked(Some("torn"));
    let second = JobName {
        generation: 2,
        ..NAME
    };
    let stranger = JobName {
        token: uuid::Uuid::from_u128(8),
        ..NAME
    };
    let row = |id, status: &str, reason: &str| refund_row(id, status, Some(reason));
    let made = |name: JobName, list: &[Refund]| {
        let (kind, history) = (refund(), clean());
        let subject = Subject {
            operation: kind.operation,
            plan: &kind.plan,
            name,
            history: &history,
            protection: Key,
            baseline: None,
        };
        let list: Vec<Object> = list.iter().cloned().map(Object::from).collect();
        made_before(&subject, &list).map(|verdict| show(&verdict))
    };
    let adopted = |id, status: &str| {
        let next = if status == "completed" {
            "succeeded"
        } else {
            "accepted under_way"
        };
        Some(format!("applied {next} refund {id} {status} free"))
    };
    assert_eq!(made(NAME, &[]), None);
    let others = [
        row(1, "completed", "a cashier's"),
        row(2, "completed", &stranger.mark()),
    ];
    assert_eq!(made(NAME, &others), None);
    for status in ["pending", "processing", "completed", "failed"] {
        let list = [others[0].clone(), row(3, status, &first)];
        assert_eq!(made(NAME, &list), adopted(3, status));
    }
    // A later generation, of which the database has forgotten that it began.
    let list = [
        row(3, "failed", &first),
        row(4, "completed", &second.mark()),
    ];
    assert_eq!(made(NAME, &list), adopted(4, "completed"));
    assert_eq!(made(second, &list), adopted(4, "completed"));
    assert_eq!(
        made(second, &list[..1]),
        None,
        "it failed, so there is a second"
    );
    // An earlier one that lives would be one refund too many.
    let list = [row(3, "pending", &first)];
    assert_eq!(made(second, &list), adopted(3, "pending"));
    let twice = Some("unknown held duplicate_detected free".to_owned());
    let list = [row(3, "pending", &first), row(4, "pending", &second.mark())];
    assert_eq!(made(second, &list), twice);
    let other_amount = Refund {
        amount: Some(Decimal::from(5)),
        ..row(3, "completed", &first)
    };
    let mismatch = Some("unknown held mismatch free".to_owned());
    assert_eq!(made(NAME, &[other_amount]), mismatch);
}

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
