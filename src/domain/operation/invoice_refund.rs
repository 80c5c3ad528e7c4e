//! `invoice.refund`: gives back all or a part of a paid invoice (API, section 2.8).

use serde_json::Value;

use super::params::{Body, Params, number};
use super::{Applied, Expected, Lookup, Operation, Plan, Progress, Request, Resend, Seen};
use crate::domain::errors::FieldErrors;
use crate::domain::fields;
use crate::domain::job::JobName;
use crate::domain::mirror::{RefundSeen, RefundStatus};

const FIELDS: &[&str] = &["invoice_id", "amount", "reason", "return_items"];

const RETURN_FIELDS: &[&str] = &["catalog_item_id", "count", "amount"];

const REASON_MAX: usize = 500;

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

    // Money goes out: not for a test.
    fn is_safe_to_try(&self) -> bool {
        false
    }

    fn prepare(&self, params: &Value, name: &JobName) -> Result<Plan, FieldErrors> {
        let mut params = Params::open(params, FIELDS, &[])?;
        params.require("invoice_id");
        let invoice_id = params.id("invoice_id");
        let amount = params.tenge("amount");

        let mut body = Body::default();
        body.set("amount", amount.map(number));
        body.set(
            "reason",
            Some(name.marked(params.text_to_mark("reason", REASON_MAX))),
        );
        body.set(
            "return_items",
            params.items("return_items", RETURN_FIELDS, read_return_item),
        );

        let plan = invoice_id.map(|invoice_id| Plan {
            request: Request::post(format!("/invoices/{invoice_id}/refund"), Some(body.into())),
            lookup: Lookup::Refunds { invoice_id },
            resend: Resend::ByBaseline,
            expected: Expected {
                amount,
                ..Expected::default()
            },
        });
        params.finish(plan)
    }

    fn read_success(&self, plan: &Plan, _status: u16, body: &Value) -> Option<Applied> {
        let Lookup::Refunds { invoice_id } = plan.lookup else {
            return None;
        };
        let refund = RefundSeen::read(body.get("refund")?, invoice_id)?;
        let shown_invoice = body
            .get("invoice")
            .and_then(|invoice| fields::id(invoice, "id"));
        let agrees = refund.agrees(invoice_id, plan.expected.amount)
            && shown_invoice.is_none_or(|shown| shown == invoice_id);
        let progress = progress(&refund);
        agrees.then_some(Applied {
            seen: Seen::Refund(refund),
            progress,
        })
    }

    fn progress(&self, seen: &Seen) -> Progress {
        match seen {
            Seen::Refund(refund) => progress(refund),
            // Not this job's object, so it can neither end the job nor allow another request.
            Seen::Invoice(_) => Progress::UnderWay,
        }
    }
}

fn read_return_item(item: &mut Params<'_>) -> Value {
    item.require("catalog_item_id");
    if item.has("count") == item.has("amount") {
        item.refuse("count", "either count or amount must be given, not both");
    }
    let mut body = Body::default();
    body.set("catalog_item_id", item.id("catalog_item_id"));
    body.set("count", item.id("count"));
    body.set("amount", item.tenge("amount").map(number));
    body.into()
}

fn progress(refund: &RefundSeen) -> Progress {
    match refund.status {
        RefundStatus::Pending | RefundStatus::Processing | RefundStatus::Other(_) => {
            Progress::UnderWay
        }
        RefundStatus::Completed => Progress::Done,
        RefundStatus::Failed => Progress::Failed,
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

    /// Params that are valid but for `changes`; a null takes a field away.
    fn params(changes: Value) -> Value {
        let mut params = json!({"invoice_id": 15});
        for (field, value) in changes.as_object().expect("changes are an object") {
            params[field] = value.clone();
        }
        params
    }

    fn plan(changes: Value) -> Plan {
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
            plan(json!({})),
            Plan {
                request: Request::post(
                    "/invoices/15/refund",
                    Some(json!({"reason": format!("[apipayd {TOKEN}]")})),
                ),
                lookup: Lookup::Refunds { invoice_id: 15 },
                resend: Resend::ByBaseline,
                expected: Expected::default(),
            }
        );
    }

    #[test]
    fn every_field_is_sent() {
        let plan = plan(json!({
            "amount": "1000.50",
            "reason": "брак",
            "return_items": [
                {"catalog_item_id": 1, "count": 2},
                {"catalog_item_id": 2, "amount": 0.01},
            ],
        }));
        assert_eq!(
            plan.request.body,
            Some(json!({
                "amount": 1000.5,
                "reason": format!("брак [apipayd {TOKEN}]"),
                "return_items": [
                    {"catalog_item_id": 1, "count": 2},
                    {"catalog_item_id": 2, "amount": 0.01},
                ],
            }))
        );
        assert_eq!(plan.expected.amount, Some(Decimal::new(100_050, 2)));
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
                let body = plan(json!({"amount": amount}))
                    .request
                    .body
                    .expect("a body");
                assert_eq!(body["amount"].to_string(), sent);
            }
        }
        let sentence =
            "must be an amount in tenge from 0.01 to 99999999.99 with at most two decimals";
        for written in [
            "0",
            "0.001",
            "0.015",
            "10.505",
            "100000000",
            "99999999.991",
            "-0.01",
            "1e2",
            "1e-2",
        ] {
            let number: Value = serde_json::from_str(written).expect("a number");
            for amount in [json!(written), number] {
                refused(json!({"amount": amount}), "amount", sentence);
            }
        }
    }

    #[test]
    fn wrong_params_are_named() {
        let one_of = "either count or amount must be given, not both";
        let list = "must be a list of 1 to 100 objects";
        for (changes, field, sentence) in [
            (json!({"invoice_id": null}), "invoice_id", "is required"),
            (
                json!({"invoice_id": "x"}),
                "invoice_id",
                "must be a positive whole number",
            ),
            (json!({"reason": 5}), "reason", "must be text"),
            (
                json!({"reason": "ы".repeat(436)}),
                "reason",
                "must be at most 435 characters long",
            ),
            (
                json!({"reason": "a\tb"}),
                "reason",
                "must not hold control characters such as line breaks",
            ),
            (
                json!({"reason": "[apipayd x"}),
                "reason",
                "must not hold \"[apipayd\", which marks jobs",
            ),
            (json!({"return_items": []}), "return_items", list),
            (json!({"return_items": vec![1; 101]}), "return_items", list),
            (
                json!({"return_items": [1]}),
                "return_items.0",
                "must be an object",
            ),
            (
                json!({"return_items": [{"count": 1}]}),
                "return_items.0.catalog_item_id",
                "is required",
            ),
            (
                json!({"return_items": [{"catalog_item_id": 1}]}),
                "return_items.0.count",
                one_of,
            ),
            (
                json!({"return_items": [{"catalog_item_id": 1, "count": 1}, {"catalog_item_id": 1, "count": 1, "amount": 1}]}),
                "return_items.1.count",
                one_of,
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
    fn the_longest_reason_fits_the_gateways_field() {
        let body = plan(json!({"reason": "ы".repeat(435)}))
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
            .read_success(&plan(json!({"amount": 1000})), 201, &body)
            .expect("the shape");
        let Seen::Refund(refund) = applied.seen else {
            panic!("not a refund")
        };
        assert_eq!(
            (refund.id, refund.invoice_id, refund.status),
            (3, 15, RefundStatus::Pending)
        );
        assert_eq!(applied.progress, Progress::UnderWay);
        let full = InvoiceRefund.read_success(&plan(json!({})), 201, &body);
        assert!(full.is_some());
    }

    #[test]
    fn an_answer_that_contradicts_the_request_proves_nothing() {
        let plan = plan(json!({"amount": 1000}));
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
            let refund =
                RefundSeen::read(&json!({"id": 3, "status": status}), 15).expect("a refund");
            assert_eq!(
                InvoiceRefund.progress(&Seen::Refund(refund)),
                expected,
                "{status}"
            );
        }
    }
}
