//! `invoice.create`: bills a phone number (API, section 2.1).

use serde_json::Value;

use super::fields::{COUNT, Field, FieldKind, Fields, Need, Reserved, Rule, TENGE, WHOLE_TENGE};
use super::params;
use super::{Applied, Lookup, Operation, Plan, Planned, Progress, Request, Resend, Sight};
use crate::domain::errors::FieldErrors;
use crate::domain::job::JobName;
use crate::domain::object::{Expected, Invoice, InvoiceStatus, Object, ObjectKind};

/// The field in which the gateway takes the key of a request.
const KEY: &str = "external_order_id_idempotency";

/// What older organizations may write; for newer ones the gateway itself refuses more than 60.
const DESCRIPTION_MAX: usize = 500;

/// What the gateway takes in `internal_comment`, the job's mark included.
const COMMENT_MAX: usize = 255;

const ORDER_ID_MAX: usize = 255;

static FIELDS: Fields = Fields {
    fields: &[
        Field {
            name: "phone_number",
            kind: FieldKind::Phone,
            need: Need::Required,
            allowed: "8 and ten digits, also written with +7 or 7 in place of the 8, with blanks, dashes and brackets",
        },
        // With a cart the gateway ignores it.
        Field {
            name: "amount",
            kind: WHOLE_TENGE,
            need: Need::Unless("cart_items"),
            allowed: "whole tenge from 1 to 99999999, or cart_items instead",
        },
        Field {
            name: "cart_items",
            kind: FieldKind::Items(&CART_ITEM),
            need: Need::Optional,
            allowed: "an array of 1 to 100 objects",
        },
        Field {
            name: "discount_percentage",
            kind: FieldKind::Number {
                least: "1",
                most: "99",
                decimals: 0,
            },
            need: Need::Optional,
            allowed: "a whole number from 1 to 99, or null for no discount",
        },
        Field {
            name: "description",
            kind: FieldKind::Text {
                most: DESCRIPTION_MAX,
                lines: true,
                marked: false,
            },
            need: Need::Optional,
            allowed: "text of at most 500 characters",
        },
        Field {
            name: "internal_comment",
            kind: FieldKind::Text {
                most: COMMENT_MAX - JobName::MARK_MAX,
                lines: true,
                marked: true,
            },
            need: Need::Optional,
            allowed: "text of at most 191 characters",
        },
        Field {
            name: "external_order_id",
            kind: FieldKind::Text {
                most: ORDER_ID_MAX,
                lines: false,
                marked: false,
            },
            need: Need::Optional,
            allowed: "text of at most 255 characters",
        },
        Field {
            name: "kaspi_connection_id",
            kind: FieldKind::Id,
            need: Need::Optional,
            allowed: "a whole number from 1",
        },
    ],
    reserved: &[Reserved {
        name: KEY,
        why: "must not be given: the job's token is the key",
    }],
    // The gateway wants whole tenge after the discount, too.
    rules: &[Rule::WholeAfterDiscount {
        amount: "amount",
        discount: "discount_percentage",
    }],
};

static CART_ITEM: Fields = Fields {
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
            need: Need::Required,
            allowed: "a whole number from 1",
        },
        Field {
            name: "price",
            kind: TENGE,
            need: Need::Optional,
            allowed: "0.01 to 99999999.99 tenge with at most two decimals, or no price",
        },
    ],
    reserved: &[],
    rules: &[],
};

/// Creates an invoice and delivers it to the customer's phone.
pub(super) struct InvoiceCreate;

impl Operation for InvoiceCreate {
    fn name(&self) -> &'static str {
        "invoice.create"
    }

    fn makes_invoice(&self) -> bool {
        true
    }

    fn in_plural(&self) -> &'static str {
        "new bills"
    }

    fn sight(&self) -> Sight {
        Sight::made(
            "INVOICE_ID",
            "Before you enqueue a new payment, see in ApiPay's dashboard that nothing of this job is there, and cancel what \
             is. ",
        )
    }

    fn fields(&self) -> &'static Fields {
        &FIELDS
    }

    fn prepare(&self, params: &Value, name: &JobName) -> Result<Planned, FieldErrors> {
        let given = params::read(params, &FIELDS)?;
        let discount = given.number("discount_percentage");
        let due = given
            .number("amount")
            .map(|amount| params::after_discount(amount, discount));
        let comment = name.marked(given.text("internal_comment"));
        let order_id = given
            .text("external_order_id")
            .map_or_else(|| name.to_string(), str::to_owned);

        let mut body = given.body();
        body.insert("internal_comment".to_owned(), comment.into());
        body.insert("external_order_id".to_owned(), order_id.as_str().into());
        body.insert(KEY.to_owned(), name.to_string().into());
        Ok(Planned {
            request: Request::post("/invoices", Some(body.into())),
            plan: by_name(Expected {
                amount: due,
                phone: given.phone("phone_number").cloned(),
                order_id: Some(order_id),
            }),
        })
    }

    fn without_params(&self, _invoice_id: Option<i64>) -> Option<Plan> {
        Some(by_name(Expected::default()))
    }

    fn read_success(&self, plan: &Plan, _status: u16, body: &Value) -> Option<Applied> {
        let invoice = [Some(body), body.get("invoice"), body.get("data")]
            .into_iter()
            .flatten()
            .find_map(Invoice::read)?;
        let agrees = invoice.agrees(&plan.expected);
        let progress = progress(&invoice);
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

fn by_name(expected: Expected) -> Plan {
    Plan {
        lookup: Lookup::InvoiceByName,
        resend: Resend::ByProtection,
        expected,
    }
}

/// The job is done once the invoice reached the customer; what becomes of it then is the mirror's
/// story.
fn progress(invoice: &Invoice) -> Progress {
    match invoice.status {
        InvoiceStatus::Processing | InvoiceStatus::Other(_) => Progress::UnderWay,
        InvoiceStatus::Error if invoice.error_code.as_deref() == Some("invoice_already_paid") => {
            Progress::Done
        }
        InvoiceStatus::Error => Progress::Failed,
        InvoiceStatus::Pending
        | InvoiceStatus::Cancelling
        | InvoiceStatus::Paid
        | InvoiceStatus::PartiallyRefunded
        | InvoiceStatus::Cancelled
        | InvoiceStatus::Expired => Progress::Done,
    }
}

#[cfg(test)]
mod tests;
