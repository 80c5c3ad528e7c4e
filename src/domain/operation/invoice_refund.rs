//! `invoice.refund`: gives back all or a part of a paid invoice (API, section 2.8).

use serde_json::Value;

use super::fields::{COUNT, Field, FieldKind, Fields, Need, Rule, TENGE};
use super::invoice_cancel::INVOICE_ID;
use super::params;
use super::{Applied, Lookup, Operation, Plan, Planned, Progress, Request, Resend, Sight};
use crate::domain::errors::FieldErrors;
use crate::domain::fields;
use crate::domain::job::JobName;
use crate::domain::object::{Expected, Object, ObjectKind, Refund, RefundStatus};

/// What the gateway takes in `reason`, the job's mark included.
const REASON_MAX: usize = 500;

static FIELDS: Fields = Fields {
    fields: &[
        INVOICE_ID,
        Field {
            name: "amount",
            kind: TENGE,
            need: Need::Optional,
            allowed: "0.01 to 99999999.99 tenge with at most two decimals, or null for all that is left",
        },
        Field {
            name: "reason",
            kind: FieldKind::Text {
                most: REASON_MAX - JobName::MARK_MAX,
                lines: true,
                marked: true,
            },
            need: Need::Optional,
            allowed: "text of at most 436 characters",
        },
        Field {
            name: "return_items",
            kind: FieldKind::Items(&RETURN_ITEM),
            need: Need::Optional,
            allowed: "an array of 1 to 100 objects",
        },
    ],
    reserved: &[],
    rules: &[],
};

static RETURN_ITEM: Fields = Fields {
    fields: &[
        Field {
            name: "catalog_item_id",
            kind: FieldKind::Id,
            need: Need::Required,
            allowed: "a whole number from 1",
        },
        Field {
            name: "count",
            kind: COUNT,
            need: Need::Optional,
            allowed: "a whole number from 1",
        },
        Field {
            name: "amount",
            kind: TENGE,
            need: Need::Optional,
            allowed: "0.01 to 99999999.99 tenge with at most two decimals",
        },
    ],
    reserved: &[],
    rules: &[Rule::ExactlyOne("count", "amount")],
};

/// Refunds an invoice. The gateway knows no key for it, and a second partial refund gives back more
/// money: the mark in `reason` and the stored baseline are all there is to tell one from the other.
pub(super) struct InvoiceRefund;

impl Operation for InvoiceRefund {
    fn name(&self) -> &'static str {
        "invoice.refund"
    }

    fn in_plural(&self) -> &'static str {
        "refunds"
    }

    fn sight(&self) -> Sight {
        Sight::made(
            "REFUND_ID",
            "Before you enqueue a new refund, see in ApiPay's dashboard that nothing of this job is there. ",
        )
    }

    // Money goes out: not for a test.
    fn is_safe_to_try(&self) -> bool {
        false
    }

    // Two partial refunds of the same amount look alike.
    fn is_one_at_a_time(&self) -> bool {
        true
    }

    fn fields(&self) -> &'static Fields {
        &FIELDS
    }

    fn prepare(&self, params: &Value, name: &JobName) -> Result<Planned, FieldErrors> {
        let given = params::read(params, &FIELDS)?;
        let invoice_id = given.id("invoice_id");
        let mut body = given.body();
        // It stands in the path.
        body.remove("invoice_id");
        let reason = name.marked(given.text("reason"));
        body.insert("reason".to_owned(), reason.into());
        Ok(Planned {
            request: Request::post(format!("/invoices/{invoice_id}/refund"), Some(body.into())),
            plan: of_invoice(
                invoice_id,
                Expected {
                    amount: given.number("amount"),
                    ..Expected::default()
                },
            ),
        })
    }

    fn without_params(&self, invoice_id: Option<i64>) -> Option<Plan> {
        Some(of_invoice(invoice_id?, Expected::default()))
    }

    fn read_success(&self, plan: &Plan, _status: u16, body: &Value) -> Option<Applied> {
        let Lookup::Refunds { invoice_id } = plan.lookup else {
            return None;
        };
        let refund = Refund::read(body.get("refund")?, invoice_id)?;
        let shown_invoice = body
            .get("invoice")
            .and_then(|invoice| fields::id(invoice, "id"));
        let agrees = refund.invoice_id == invoice_id
            && refund.agrees(&plan.expected)
            && shown_invoice.is_none_or(|shown| shown == invoice_id);
        let progress = progress(&refund);
        agrees.then_some(Applied {
            seen: Object::Refund(refund),
            progress,
        })
    }

    fn progress(&self, seen: &Object) -> Progress {
        let Object::Refund(refund) = seen else {
            // Not this job's object, so it can neither end the job nor allow another request.
            return Progress::UnderWay;
        };
        progress(refund)
    }
}

fn progress(refund: &Refund) -> Progress {
    match refund.status {
        RefundStatus::Pending | RefundStatus::Processing | RefundStatus::Other(_) => {
            Progress::UnderWay
        }
        RefundStatus::Completed => Progress::Done,
        RefundStatus::Failed => Progress::Failed,
    }
}

fn of_invoice(invoice_id: i64, expected: Expected) -> Plan {
    Plan {
        lookup: Lookup::Refunds { invoice_id },
        resend: Resend::ByBaseline,
        expected,
    }
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    const NAME: JobName = JobName {
        token: Uuid::from_u128(7),
        generation: 1,
    };
    const TOKEN: &str = "00000000-0000-0000-0000-000000000007";
    const AMOUNT: &str =
        "0.01 to 99999999.99 tenge with at most two decimals, or null for all that is left";

    /// Params that are valid but for `changes`; a null takes a field away.
    fn params(changes: Value) -> Value {
        let mut params = json!({"invoice_id": 15});
        for (field, value) in changes.as_object().expect("changes are an object") {
            params[field] = value.clone();
        }
        params
    }

    fn planned(changes: Value) -> Planned {
        InvoiceRefund
            .prepare(&params(changes), &NAME)
            .expect("valid params")
    }

    #[track_caller]
    fn refused(changes: Value, field: &str, sentence: &str) {
        let mut expected = FieldErrors::new();
        expected.add(field, sentence);
        let refused = InvoiceRefund
            .prepare(&params(changes.clone()), &NAME)
            .expect_err("invalid");
        assert_eq!(refused, expected, "{changes}");
    }

    #[test]
    fn a_full_refund_names_no_amount() {
        assert_eq!(
            planned(json!({})),
            Planned {
                request: Request::post(
                    "/invoices/15/refund",
                    Some(json!({"reason": format!("[apipayd {TOKEN}]")})),
                ),
                plan: of_invoice(15, Expected::default()),
            }
        );
    }

    #[test]
    fn every_field_is_sent() {
        let planned = planned(json!({
            "amount": "1000.50",
            "reason": "брак",
            "return_items": [
                {"catalog_item_id": 1, "count": 2},
                {"catalog_item_id": 2, "amount": 0.01},
            ],
        }));
        assert_eq!(
            planned.request.body,
            Some(json!({
                "amount": 1000.5,
                "reason": format!("брак [apipayd {TOKEN}]"),
                "return_items": [
                    {"catalog_item_id": 1, "count": 2},
                    {"catalog_item_id": 2, "amount": 0.01},
                ],
            }))
        );
        assert_eq!(planned.plan.expected.amount, Some(Decimal::new(100_050, 2)));
    }

    #[test]
    fn amounts_are_exact() {
        for (written, sent) in [
            ("0.01", "0.01"),
            ("0.10", "0.1"),
            ("99999999.99", "99999999.99"),
            ("1000.000", "1000"),
            ("33333333.33", "33333333.33"),
        ] {
            let number: Value = serde_json::from_str(written).expect("a number");
            for amount in [json!(written), number] {
                let body = planned(json!({"amount": amount}))
                    .request
                    .body
                    .expect("a body");
                assert_eq!(body["amount"].to_string(), sent);
            }
        }
        let wrong = |amount: &Value, problem: &str| {
            let sentence = format!("{problem}; allowed: {AMOUNT}");
            refused(json!({"amount": amount}), "amount", &sentence);
        };
        for written in ["0", "0.001", "0.015", "10.505", "100000000", "-0.01"] {
            let number: Value = serde_json::from_str(written).expect("a number");
            for amount in [json!(written), number] {
                wrong(&amount, &format!("is {written}"));
            }
        }
        wrong(&json!("99999999.991"), "is not an allowed number");
        for written in ["1e2", "1e-2"] {
            wrong(&json!(written), "is not a number in digits");
        }
    }

    #[test]
    fn wrong_params_are_named() {
        let id =
            "the gateway's id of the invoice, as in apipay.jobs.invoice_id: a whole number from 1";
        let id = |problem: &str| format!("{problem}; allowed: {id}");
        for (changes, field, sentence) in [
            (
                json!({"invoice_id": null}),
                "invoice_id",
                &*id("is missing"),
            ),
            (
                json!({"invoice_id": "x"}),
                "invoice_id",
                &id("is not an id of the gateway"),
            ),
            (
                json!({"reason": 5}),
                "reason",
                "is a JSON number; allowed: text of at most 436 characters",
            ),
            (
                json!({"reason": "ы".repeat(437)}),
                "reason",
                "has 437 characters; allowed: at most 436",
            ),
            (
                json!({"reason": "a\u{1}b"}),
                "reason",
                "has control characters; allowed: line breaks and tabs, and no others",
            ),
            (
                json!({"reason": "[apipayd x"}),
                "reason",
                "has \"[apipayd\", which marks jobs; allowed: text without it",
            ),
            (
                json!({"return_items": []}),
                "return_items",
                "has 0 items; allowed: 1 to 100",
            ),
            (
                json!({"return_items": vec![1; 101]}),
                "return_items",
                "has 101 items; allowed: 1 to 100",
            ),
            (
                json!({"return_items": [1]}),
                "return_items.0",
                "is a JSON number; allowed: an object with catalog_item_id, count, amount",
            ),
            (
                json!({"return_items": [{"count": 1}]}),
                "return_items.0.catalog_item_id",
                "is missing; allowed: a whole number from 1",
            ),
            (
                json!({"return_items": [{"catalog_item_id": 1}]}),
                "return_items.0",
                "has neither count nor amount; allowed: exactly one of the two",
            ),
            (
                json!({"return_items": [{"catalog_item_id": 1, "count": 1}, {"catalog_item_id": 1, "count": 1, "amount": 1}]}),
                "return_items.1",
                "has count and amount; allowed: exactly one of the two",
            ),
            (
                json!({"phone": "87001234567"}),
                "phone",
                "is not a known field; allowed: invoice_id, amount, reason, return_items",
            ),
        ] {
            refused(changes, field, sentence);
        }
    }

    #[test]
    fn lines_of_a_reason_are_sent_as_one() {
        let body = planned(json!({"reason": "брак\tи\nбой"}))
            .request
            .body
            .expect("a body");
        assert_eq!(body["reason"], format!("брак и бой [apipayd {TOKEN}]"));
    }

    #[test]
    fn the_longest_reason_fits_the_gateways_field() {
        let body = planned(json!({"reason": "ы".repeat(436)}))
            .request
            .body
            .expect("a body");
        let reason = body["reason"].as_str().expect("a text");
        assert!(NAME.marks(reason) && reason.chars().count() <= 500);
    }

    #[test]
    fn a_queued_refund_is_read() {
        let body = json!({
            "message": "Refund queued for processing",
            "refund": {"id": 3, "invoice_id": 15, "amount": "1000.00", "reason": "x", "status": "pending"},
            "invoice": {"id": 15, "amount": "5000.00", "total_refunded": "0.00"},
        });
        let applied = InvoiceRefund
            .read_success(&planned(json!({"amount": 1000})).plan, 201, &body)
            .expect("the shape");
        let Object::Refund(refund) = applied.seen else {
            panic!("not a refund")
        };
        assert_eq!(
            (refund.id, refund.invoice_id, refund.status),
            (3, 15, RefundStatus::Pending)
        );
        assert_eq!(applied.progress, Progress::UnderWay);
        let full = InvoiceRefund.read_success(&planned(json!({})).plan, 201, &body);
        assert!(full.is_some());
    }

    #[test]
    fn an_answer_that_contradicts_the_request_proves_nothing() {
        let plan = planned(json!({"amount": 1000})).plan;
        for body in [
            json!({}),
            json!({"refund": null}),
            json!({"refund": {"status": "pending"}}),
            json!({"refund": {"id": 3}}),
            json!({"refund": {"id": 3, "status": "pending", "invoice_id": 16}}),
            json!({"refund": {"id": 3, "status": "pending", "amount": "1000.01"}}),
            json!({"refund": {"id": 3, "status": "pending"}, "invoice": {"id": 16}}),
        ] {
            assert_eq!(
                InvoiceRefund.read_success(&plan, 201, &body),
                None,
                "{body}"
            );
        }
    }

    #[test]
    fn progress_by_status() {
        for (status, expected) in [
            ("pending", Progress::UnderWay),
            ("processing", Progress::UnderWay),
            ("completed", Progress::Done),
            ("failed", Progress::Failed),
            ("queued", Progress::UnderWay),
        ] {
            let refund = Refund::read(&json!({"id": 3, "status": status}), 15).expect("a refund");
            assert_eq!(
                InvoiceRefund.progress(&Object::Refund(refund)),
                expected,
                "{status}"
            );
        }
    }
}
