//! What is said and what is found, for every operation.

use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::domain::account::DuplicateProtection;
use crate::domain::answer::{Answer, Lost};
use crate::domain::job::History;
use crate::domain::mirror::{InvoiceSeen, RefundSeen};
use crate::policy::fixtures::*;

const SAID: Stated = Stated {
    id: 15,
    anyway: false,
    owner: None,
};

const ANYWAY: Stated = Stated {
    anyway: true,
    ..SAID
};

const HELD: &str = "unknown held not_as_stated free";

/// A long time ago, with a look-up that found nothing: what is said counts all the same.
fn history() -> History {
    History {
        attempts: 9,
        unproven_since: Some(NOW - seconds(90 * 3600)),
        absent_since: Some(NOW - seconds(80 * 3600)),
        lookups: 1,
        ..clean()
    }
}

#[track_caller]
fn check(kind: &Kind, stated: Stated, finding: &Finding, expected: &str, refuted: Option<&str>) {
    let rules = rules();
    let subject = Subject {
        operation: kind.operation,
        plan: &kind.plan,
        name: NAME,
        history: &history(),
        protection: DuplicateProtection::Key,
        baseline: None,
    };
    let checked = check_stated(&subject, &stated, finding, at(&rules));
    let case = format!("{stated:?} {finding:?}");
    assert_eq!(show(&checked.verdict), expected, "{case}");
    assert_eq!(checked.refuted.as_deref(), refuted, "{case}");
}

fn invoice(changes: serde_json::Value) -> Finding {
    let mut shown = json!({
        "id": 15, "status": "pending", "amount": "5000.00", "phone_number": "87001234567",
    });
    for (field, value) in changes.as_object().expect("changes are an object") {
        shown[field] = value.clone();
    }
    Finding::Invoice(InvoiceSeen::read(&shown).expect("an invoice"))
}

fn refunds(found: &[RefundSeen]) -> Finding {
    Finding::Refunds(RefundList {
        refunds: found.to_vec(),
        total_refunded: None,
    })
}

fn unclear(answer: Answer) -> Finding {
    Finding::Unclear(timed(answer))
}

#[test]
fn an_invoice_that_agrees_is_taken_and_followed() {
    for (status, expected) in [
        ("pending", "applied succeeded invoice 15 pending free"),
        ("paid", "applied succeeded invoice 15 paid free"),
        ("expired", "applied succeeded invoice 15 expired free"),
        (
            "processing",
            "applied accepted under_way invoice 15 processing free",
        ),
    ] {
        let found = invoice(json!({"status": status}));
        check(&create(), SAID, &found, expected, None);
    }
    // A dead one is followed by a new one, so it must be ours, or meant.
    let taken = "applied accepted under_way invoice 15 error free";
    let dead = invoice(json!({"status": "error"}));
    let said = "invoice 15 was named; ApiPay has 5000 tenge to 8700***4567 (status error), without this job's name";
    check(&create(), SAID, &dead, HELD, Some(said));
    check(&create(), ANYWAY, &dead, taken, None);
    let ours = invoice(json!({"status": "error", "internal_comment": NAME.mark()}));
    check(&create(), SAID, &ours, taken, None);
    // Made by hand, or by the job itself, in this generation or one before.
    for marks in [
        json!({"internal_comment": "by Aida, at the till", "is_imported": true}),
        json!({"internal_comment": NAME.mark(), "external_order_id": NAME.to_string()}),
        json!({"internal_comment": JobName { generation: 3, ..NAME }.mark()}),
    ] {
        let taken = "applied succeeded invoice 15 pending free";
        check(&create(), SAID, &invoice(marks), taken, None);
    }
}

#[test]
fn what_differs_is_held_again_with_both_values_unless_it_is_meant() {
    for (changes, refuted) in [
        (
            json!({"amount": "5001.00"}),
            "invoice 15 was named; 5000 tenge to 8700***4567 was asked for, and ApiPay has 5001 tenge to 8700***4567 (status pending)",
        ),
        (
            json!({"phone_number": "87009999999", "status": "paid"}),
            "invoice 15 was named; 5000 tenge to 8700***4567 was asked for, and ApiPay has 5000 tenge to 8700***9999 (status paid)",
        ),
        (
            json!({"external_order_id": "order-9"}),
            "invoice 15 was named; 5000 tenge to 8700***4567 for order 00000000-0000-0000-0000-000000000007 was asked for, \
             and ApiPay has 5000 tenge to 8700***4567 (status pending) for order order-9",
        ),
    ] {
        let found = invoice(changes);
        check(&create(), SAID, &found, HELD, Some(refuted));
        let status = if refuted.contains("paid") {
            "paid"
        } else {
            "pending"
        };
        let taken = format!("applied succeeded invoice 15 {status} free");
        check(&create(), ANYWAY, &found, &taken, None);
    }
}

#[test]
fn what_does_not_exist_or_is_another_jobs_is_never_taken() {
    let another = JobName {
        token: Uuid::from_u128(8),
        generation: 1,
    };
    for stated in [SAID, ANYWAY] {
        let missing = unclear(coded(404, "not_found"));
        let said = "invoice 15 was named; ApiPay has none with that number";
        check(&create(), stated, &missing, HELD, Some(said));
        check(&cancel(), stated, &missing, HELD, Some(said));
        let marked = invoice(json!({"internal_comment": another.mark()}));
        let said = "invoice 15 was named; at ApiPay it carries the name of another job";
        check(&create(), stated, &marked, HELD, Some(said));
        let owned = Stated {
            owner: Some(7),
            ..stated
        };
        let said = "invoice 15 was named; it belongs to job 7";
        check(&create(), owned, &invoice(json!({})), HELD, Some(said));

        let none = "refund 15 was named; ApiPay has no refund of that invoice";
        check(&refund(), stated, &refunds(&[]), HELD, Some(none));
        let others = [16, 17].map(|id| refund_row(id, "completed", None));
        let only = "refund 15 was named; ApiPay has only refund 16, 17 of that invoice";
        check(&refund(), stated, &refunds(&others), HELD, Some(only));
        let marked = [refund_row(15, "completed", Some(&another.mark()))];
        let said = "refund 15 was named; at ApiPay it carries the name of another job";
        check(&refund(), stated, &refunds(&marked), HELD, Some(said));
    }
}

#[test]
fn a_refund_is_found_among_those_of_its_invoice() {
    let found = [
        refund_row(14, "completed", None),
        refund_row(15, "processing", Some("by the cashier")),
    ];
    let taken = "applied accepted under_way refund 15 processing free";
    check(&refund(), SAID, &refunds(&found), taken, None);
    let mut other = refund_row(15, "completed", None);
    other.amount = Some(rust_decimal::Decimal::from(9));
    let said = "refund 15 was named; 1000.5 tenge was asked for, and ApiPay has 9 tenge (status completed)";
    check(
        &refund(),
        SAID,
        &refunds(&[other.clone()]),
        HELD,
        Some(said),
    );
    let taken = "applied succeeded refund 15 completed free";
    check(&refund(), ANYWAY, &refunds(&[other]), taken, None);
    // One that carries the job's own name speaks first, whatever is meant.
    let own = refund_row(16, "completed", Some(&NAME.mark()));
    let found = refunds(&[refund_row(15, "completed", None), own]);
    let said = "refund 15 was named; refund 16 carries this job's name";
    check(&refund(), SAID, &found, HELD, Some(said));
    check(&refund(), ANYWAY, &found, HELD, Some(said));
}

#[test]
fn a_cancel_must_have_been_done_or_be_under_way() {
    for (status, expected) in [
        ("cancelled", "applied succeeded invoice 15 cancelled free"),
        ("expired", "applied succeeded invoice 15 expired free"),
        (
            "cancelling",
            "applied accepted under_way invoice 15 cancelling free",
        ),
    ] {
        let found = invoice(json!({"status": status}));
        check(&cancel(), SAID, &found, expected, None);
    }
    for status in [
        "pending",
        "processing",
        "paid",
        "partially_refunded",
        "error",
    ] {
        let said =
            format!("invoice 15 was named; ApiPay has 5000 tenge to 8700***4567 (status {status})");
        for stated in [SAID, ANYWAY] {
            let found = invoice(json!({"status": status}));
            check(&cancel(), stated, &found, HELD, Some(&said));
        }
    }
}

#[test]
fn no_clear_answer_is_asked_for_again_however_long_that_takes() {
    for kind in kinds() {
        for answer in [
            Answer::Lost(Lost::Timeout),
            coded(500, "server_error"),
            json_reply(200, json!({"nothing": "of it"})),
        ] {
            let again = "unknown uncertain lookup_unclear in 5s free";
            check(&kind, SAID, &unclear(answer), again, None);
        }
        let parks = "unknown uncertain lookup_unclear in 5s free; park session_expired";
        check(
            &kind,
            SAID,
            &unclear(coded(503, "kaspi_session_invalid")),
            parks,
            None,
        );
    }
}
