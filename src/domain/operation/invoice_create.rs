//! `invoice.create`: bills a phone number (API, section 2.1).

use rust_decimal::Decimal;
use serde_json::Value;

use super::params::{Body, Params, number};
use super::{Applied, Expected, Lookup, Operation, Plan, Progress, Request, Resend, Seen};
use crate::domain::errors::FieldErrors;
use crate::domain::job::JobName;
use crate::domain::mirror::{InvoiceSeen, InvoiceStatus};

const FIELDS: &[&str] = &[
    "phone_number",
    "amount",
    "cart_items",
    "discount_percentage",
    "description",
    "internal_comment",
    "external_order_id",
    "kaspi_connection_id",
];

const CART_FIELDS: &[&str] = &["catalog_item_id", "count", "price"];

/// What older organisations may write; for newer ones the gateway itself refuses more than 60.
const DESCRIPTION_MAX: usize = 500;

const COMMENT_MAX: usize = 255;

const ORDER_ID_MAX: usize = 255;

/// The field in which the gateway takes the key of a request.
const KEY: &str = "external_order_id_idempotency";

/// Creates an invoice and delivers it to the customer's phone.
pub(super) struct InvoiceCreate;

impl Operation for InvoiceCreate {
    fn name(&self) -> &'static str {
        "invoice.create"
    }

    fn prepare(&self, params: &Value, name: &JobName) -> Result<Plan, FieldErrors> {
        let mut params = Params::open(params, &known_fields())?;
        refuse_key(&mut params);
        params.require("phone_number");
        let phone = params.phone("phone_number");
        let discount = params.whole("discount_percentage", 1..=99);
        let amount = read_amount(&mut params);
        let due = amount.and_then(|amount| after_discount(&mut params, amount, discount));

        let mut body = Body::default();
        body.set("phone_number", phone.as_ref().map(|phone| phone.as_str()));
        body.set("amount", amount.map(number));
        body.set(
            "cart_items",
            params.items("cart_items", CART_FIELDS, read_cart_item),
        );
        body.set("discount_percentage", discount);
        body.set("description", params.text("description", DESCRIPTION_MAX));
        let comment = params.text_to_mark("internal_comment", COMMENT_MAX);
        body.set("internal_comment", Some(name.marked(comment)));
        let order_id = params.text("external_order_id", ORDER_ID_MAX);
        body.set(
            "external_order_id",
            Some(order_id.map_or_else(|| name.to_string(), str::to_owned)),
        );
        body.set(KEY, Some(name.to_string()));
        body.set("kaspi_connection_id", params.id("kaspi_connection_id"));

        params.finish(Some(Plan {
            request: Request::post("/invoices", Some(body.into())),
            lookup: Lookup::InvoiceByName,
            resend: Resend::ByProtection,
            expected: Expected { amount: due, phone },
        }))
    }

    fn read_success(&self, plan: &Plan, _status: u16, body: &Value) -> Option<Applied> {
        let invoice = [Some(body), body.get("invoice"), body.get("data")]
            .into_iter()
            .flatten()
            .find_map(InvoiceSeen::read)?;
        let agrees = invoice.agrees(plan.expected.amount, plan.expected.phone.as_ref());
        let progress = progress(&invoice);
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

fn known_fields() -> Vec<&'static str> {
    FIELDS.iter().copied().chain([KEY]).collect()
}

fn refuse_key(params: &mut Params<'_>) {
    if params.has(KEY) {
        params.refuse(KEY, "must not be given: the job's token is the key");
    }
}

/// The amount of an invoice without a cart. With a cart the gateway ignores it, so it is neither
/// checked nor sent.
fn read_amount(params: &mut Params<'_>) -> Option<Decimal> {
    if params.has("cart_items") {
        return None;
    }
    if !params.has("amount") {
        params.refuse("amount", "is required unless cart_items is given");
    }
    params.whole_tenge("amount")
}

/// What the customer pays. The gateway wants whole tenge after the discount, too.
fn after_discount(
    params: &mut Params<'_>,
    amount: Decimal,
    discount: Option<i64>,
) -> Option<Decimal> {
    let hundred = Decimal::ONE_HUNDRED;
    let due = (amount * (hundred - Decimal::from(discount.unwrap_or(0))) / hundred).normalize();
    if !due.is_integer() {
        params.refuse(
            "discount_percentage",
            "must leave a whole number of tenge of the amount",
        );
        return None;
    }
    Some(due)
}

fn read_cart_item(item: &mut Params<'_>) -> Value {
    item.require("catalog_item_id");
    item.require("count");
    let mut body = Body::default();
    body.set("catalog_item_id", item.id("catalog_item_id"));
    body.set("count", item.id("count"));
    body.set("price", item.tenge("price").map(number));
    body.into()
}

/// The job is done once the invoice reached the customer; what becomes of it then is the mirror's
/// story.
fn progress(invoice: &InvoiceSeen) -> Progress {
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
