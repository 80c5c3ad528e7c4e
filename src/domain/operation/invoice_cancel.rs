//! `invoice.cancel`: takes back an invoice that is not paid yet (API, section 2.5).

use serde_json::Value;

use super::fields::{Field, FieldKind, Fields, Need};
use super::params;
use super::{Applied, Lookup, Operation, Plan, Planned, Progress, Request, Resend, Sight};
use crate::domain::errors::FieldErrors;
use crate::domain::fields;
use crate::domain::job::JobName;
use crate::domain::object::{Expected, Invoice, InvoiceStatus, Object};

/// The gateway's id of the invoice that a job acts on.
pub(super) const INVOICE_ID: Field = Field {
    name: "invoice_id",
    kind: FieldKind::Id,
    need: Need::Required,
    allowed: "the gateway's id of the invoice, as in apipay.jobs.invoice_id: a whole number from 1",
};

static FIELDS: Fields = Fields {
    fields: &[INVOICE_ID],
    reserved: &[],
    rules: &[],
};

/// Cancels an invoice. Repeating it does nothing new: the gateway refuses any state but pending
/// and processing.
pub(super) struct InvoiceCancel;

impl Operation for InvoiceCancel {
    fn name(&self) -> &'static str {
        "invoice.cancel"
    }

    fn in_plural(&self) -> &'static str {
        "cancellations"
    }

    fn sight(&self) -> Sight {
        Sight {
            id: None,
            done: "that invoice is cancelled",
            not_done: "it is not",
            before_again: "that invoice as not cancelled",
            before_new: "",
        }
    }

    fn fields(&self) -> &'static Fields {
        &FIELDS
    }

    fn prepare(&self, params: &Value, _name: &JobName) -> Result<Planned, FieldErrors> {
        let id = params::read(params, &FIELDS)?.id("invoice_id");
        Ok(Planned {
            request: Request::post(format!("/invoices/{id}/cancel"), None),
            plan: of_invoice(id),
        })
    }

    fn without_params(&self, invoice_id: Option<i64>) -> Option<Plan> {
        invoice_id.map(of_invoice)
    }

    fn read_success(&self, plan: &Plan, status: u16, body: &Value) -> Option<Applied> {
        let Lookup::Invoice { id } = plan.lookup else {
            return None;
        };
        let invoice = match status {
            202 => fields::id(body, "invoice_id")
                .map(|id| Invoice::bare(id, InvoiceStatus::Cancelling))?,
            _ => Invoice::read(body.get("invoice")?)?,
        };
        let progress = progress(&invoice);
        // A success that shows the invoice as it was before, or paid, contradicts itself: look it up.
        let agrees = invoice.id == id && matches!(progress, Progress::Done | Progress::UnderWay);
        agrees.then_some(Applied {
            seen: Object::Invoice(invoice),
            progress,
        })
    }

    fn progress(&self, seen: &Object) -> Progress {
        let Object::Invoice(invoice) = seen else {
            // Not this job's object, so it can neither end the job nor allow another request.
            return Progress::UnderWay;
        };
        progress(invoice)
    }
}

fn progress(invoice: &Invoice) -> Progress {
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

fn of_invoice(id: i64) -> Plan {
    Plan {
        lookup: Lookup::Invoice { id },
        resend: Resend::Harmless,
        expected: Expected::default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    const NAME: JobName = JobName {
        token: Uuid::from_u128(7),
        generation: 1,
    };

    fn planned() -> Planned {
        InvoiceCancel
            .prepare(&json!({"invoice_id": 15}), &NAME)
            .expect("valid params")
    }

    fn read(status: u16, body: Value) -> Option<(InvoiceStatus, Progress)> {
        let applied = InvoiceCancel.read_success(&planned().plan, status, &body)?;
        let Object::Invoice(invoice) = applied.seen else {
            panic!("not an invoice")
        };
        assert_eq!(invoice.id, 15);
        Some((invoice.status, applied.progress))
    }

    #[test]
    fn the_id_is_all_that_is_sent() {
        assert_eq!(
            planned(),
            Planned {
                request: Request::post("/invoices/15/cancel", None),
                plan: of_invoice(15),
            }
        );
        let written = InvoiceCancel.prepare(&json!({"invoice_id": "15"}), &NAME);
        assert_eq!(written, Ok(planned()));
    }

    #[test]
    fn wrong_params_are_named() {
        let positive = "is not an id of the gateway; allowed: the gateway's id of the invoice, \
            as in apipay.jobs.invoice_id: a whole number from 1";
        let missing = "is missing; allowed: the gateway's id of the invoice, \
            as in apipay.jobs.invoice_id: a whole number from 1";
        for (params, field, sentence) in [
            (json!({}), "invoice_id", missing),
            (json!({"invoice_id": null}), "invoice_id", missing),
            (json!({"invoice_id": 0}), "invoice_id", positive),
            (json!({"invoice_id": -15}), "invoice_id", positive),
            (json!({"invoice_id": 1.5}), "invoice_id", positive),
            (json!({"invoice_id": ""}), "invoice_id", positive),
            (json!({"invoice_id": "15/../16"}), "invoice_id", positive),
            (
                json!({"invoice_id": "9223372036854775808"}),
                "invoice_id",
                positive,
            ),
            (json!({"invoice_id": [15]}), "invoice_id", positive),
            (
                json!({"invoice_id": 15, "why": 1}),
                "why",
                "is not a known field; allowed: invoice_id",
            ),
            (
                json!([15]),
                "params",
                "is a JSON array; allowed: an object with invoice_id",
            ),
        ] {
            let mut expected = FieldErrors::new();
            expected.add(field, sentence);
            assert_eq!(
                InvoiceCancel.prepare(&params, &NAME),
                Err(expected),
                "{params}"
            );
        }
    }

    #[test]
    fn a_cancel_is_done_at_once_or_queued() {
        let cancelled =
            json!({"message": "Invoice cancelled", "invoice": {"id": 15, "status": "cancelled"}});
        assert_eq!(
            read(200, cancelled),
            Some((InvoiceStatus::Cancelled, Progress::Done))
        );
        let queued = json!({"message": "Invoice cancellation queued", "invoice_id": 15});
        assert_eq!(
            read(202, queued),
            Some((InvoiceStatus::Cancelling, Progress::UnderWay))
        );
    }

    #[test]
    fn an_answer_that_contradicts_the_request_proves_nothing() {
        for (status, body) in [
            (202, json!({"message": "queued", "invoice_id": 16})),
            (202, json!({"message": "queued"})),
            (200, json!({"message": "cancelled", "invoice_id": 15})),
            (
                200,
                json!({"message": "cancelled", "invoice": {"id": 16, "status": "cancelled"}}),
            ),
            (
                200,
                json!({"message": "cancelled", "invoice": {"id": 15, "status": "pending"}}),
            ),
            (200, json!({"message": "cancelled", "invoice": {"id": 15}})),
            (200, json!([])),
        ] {
            assert_eq!(read(status, body.clone()), None, "{status} {body}");
        }
    }

    #[test]
    fn progress_by_status() {
        for (status, code, expected) in [
            ("processing", None, Progress::NotStarted),
            ("pending", None, Progress::NotStarted),
            ("cancelling", None, Progress::UnderWay),
            ("paid", None, Progress::Failed),
            ("partially_refunded", None, Progress::Failed),
            ("cancelled", None, Progress::Done),
            ("expired", None, Progress::Done),
            ("error", None, Progress::Failed),
            ("error", Some("invoice_already_paid"), Progress::Failed),
            (
                "error",
                Some("invoice_not_found_in_kaspi"),
                Progress::Failed,
            ),
            ("error", Some("invoice_already_cancelled"), Progress::Done),
            ("accumulating", None, Progress::UnderWay),
        ] {
            let mut invoice = Invoice::bare(15, InvoiceStatus::parse(status));
            invoice.error_code = code.map(str::to_owned);
            assert_eq!(
                InvoiceCancel.progress(&Object::Invoice(invoice)),
                expected,
                "{status} {code:?}"
            );
        }
    }
}
