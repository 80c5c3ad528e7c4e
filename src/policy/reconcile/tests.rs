//! What every finding means, for every operation, protection and history.

mod earlier;
mod refunds;
mod words;

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
