//! `invoice.refund`: gives back all or a part of a paid invoice (API, section 2.8).

use serde_json::Value;

use super::params::{Body, Params, number};
use super::{Applied, Expected, Lookup, Operation, Plan, Progress, Request, Resend, Seen};
use crate::domain::errors::FieldErrors;
use crate::domain::job::JobName;
use crate::domain::mirror::{self, RefundSeen, RefundStatus};

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

    fn prepare(&self, params: &Value, name: &JobName) -> Result<Plan, FieldErrors> {
        let mut params = Params::open(params, FIELDS)?;
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
                phone: None,
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
            .and_then(|invoice| mirror::id(invoice, "id"));
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
        item.refuse("count", "must be given, or amount, but not both");
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
