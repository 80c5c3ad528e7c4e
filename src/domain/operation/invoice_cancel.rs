//! `invoice.cancel`: takes back an invoice that is not paid yet (API, section 2.5).

use serde_json::Value;

use super::params::Params;
use super::{Applied, Expected, Lookup, Operation, Plan, Progress, Request, Resend, Seen};
use crate::domain::errors::FieldErrors;
use crate::domain::job::JobName;
use crate::domain::mirror::{self, InvoiceSeen, InvoiceStatus};

/// Cancels an invoice. Repeating it does nothing new: the gateway refuses any state but pending
/// and processing.
pub(super) struct InvoiceCancel;

impl Operation for InvoiceCancel {
    fn name(&self) -> &'static str {
        "invoice.cancel"
    }

    fn prepare(&self, params: &Value, _name: &JobName) -> Result<Plan, FieldErrors> {
        let mut params = Params::open(params, &["invoice_id"])?;
        params.require("invoice_id");
        let plan = params.id("invoice_id").map(|id| Plan {
            request: Request::post(format!("/invoices/{id}/cancel"), None),
            lookup: Lookup::Invoice { id },
            resend: Resend::Harmless,
            expected: Expected::default(),
        });
        params.finish(plan)
    }

    fn read_success(&self, plan: &Plan, status: u16, body: &Value) -> Option<Applied> {
        let Lookup::Invoice { id } = plan.lookup else {
            return None;
        };
        let invoice = match status {
            202 => mirror::id(body, "invoice_id")
                .map(|id| InvoiceSeen::bare(id, InvoiceStatus::Cancelling))?,
            _ => InvoiceSeen::read(body.get("invoice")?)?,
        };
        let progress = progress(&invoice);
        // A success that shows the invoice as it was before contradicts itself: look it up.
        let agrees = invoice.id == id && progress != Progress::NotStarted;
        agrees.then_some(Applied {
            seen: Seen::Invoice(invoice),
            progress,
        })
    }

    fn progress(&self, seen: &Seen) -> Progress {
        match seen {
            Seen::Invoice(invoice) => progress(invoice),
            // Not this job's object, so it can neither end the job nor allow another request.
            Seen::Refund(_) => Progress::UnderWay,
        }
    }
}

fn progress(invoice: &InvoiceSeen) -> Progress {
    match invoice.status {
        InvoiceStatus::Cancelled | InvoiceStatus::Expired => Progress::Done,
        InvoiceStatus::Cancelling | InvoiceStatus::Other(_) => Progress::UnderWay,
        InvoiceStatus::Pending | InvoiceStatus::Processing => Progress::NotStarted,
        InvoiceStatus::Error
            if invoice.error_code.as_deref() == Some("invoice_already_cancelled") =>
        {
            Progress::Done
        }
        InvoiceStatus::Error | InvoiceStatus::Paid | InvoiceStatus::PartiallyRefunded => {
            Progress::Failed
        }
    }
}
