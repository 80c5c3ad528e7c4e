//! Invoices as the gateway shows them, and the two calls on a single one.

use serde_json::{Map, Value, json};
use time::Duration;

use super::input::Fields;
use super::{Answer, Call};
use crate::envelope::Reply;
use crate::world::{Invoice, Line};
use crate::{money, stamp};

pub(super) fn show(call: &mut Call<'_>) -> Answer {
    let lasts = call.switches().cached_terminal_ms;
    let now = call.origin.now.real;
    let invoice = call.invoice()?;
    let lasts = Duration::milliseconds(i64::try_from(lasts).unwrap_or(i64::MAX));
    if let Some((taken, cached)) = &invoice.cached
        && now < taken.saturating_add(lasts)
    {
        return Ok(Reply::json(200, cached));
    }
    let shown = single(invoice);
    let reply = Reply::json(200, &shown);
    if lasts.is_positive() && invoice.status.is_cached() {
        let id = call.id;
        if let Some(invoice) = call.world.invoice_mut(id) {
            invoice.cached = Some((now, shown));
        }
    }
    Ok(reply)
}

pub(super) fn patch(call: &mut Call<'_>) -> Answer {
    call.require_tariff()?;
    call.invoice()?;
    let body = call.json()?;
    let mut fields = Fields::new(&body);
    if !fields.has_key("internal_comment") {
        fields.wrong(
            "internal_comment",
            "The internal comment field must be present.".to_owned(),
        );
    }
    let comment = fields.text("internal_comment", 255, "field_too_long");
    fields.finish()?;
    let (id, now) = (call.id, call.origin.now.life);
    if let Some(invoice) = call.world.invoice_mut(id) {
        invoice.draft.internal_comment = comment;
        invoice.updated_at = now;
        invoice.cached = None;
    }
    call.invoice()
        .map(|invoice| Reply::json(200, &single(invoice)))
}

/// The short body of a creation, without what only lists echo.
pub(super) fn created(invoice: &Invoice) -> Value {
    let mut shown = json!({
        "id": invoice.id,
        "amount": money::text(invoice.draft.amount),
        "status": invoice.status_text(),
        "paid_at": null,
        "phone": invoice.draft.phone,
        "is_imported": false,
        "created_at": stamp::utc(invoice.created_at),
    });
    if let (Some(map), true) = (shown.as_object_mut(), invoice.draft.discount.is_some()) {
        add_discount(map, invoice);
    }
    shown
}

/// `GET /invoices/{id}`.
pub(super) fn single(invoice: &Invoice) -> Value {
    let mut map = common(invoice);
    map.insert("phone_number".to_owned(), json!(invoice.draft.phone));
    Value::Object(map)
}

/// A row of `GET /invoices`.
pub(super) fn row(invoice: &Invoice) -> Value {
    let mut map = common(invoice);
    map.insert("phone".to_owned(), json!(invoice.draft.phone));
    map.insert("is_recurring".to_owned(), json!(false));
    Value::Object(map)
}

fn common(invoice: &Invoice) -> Map<String, Value> {
    let draft = &invoice.draft;
    let shown = json!({
        "id": invoice.id,
        "amount": money::text(draft.amount),
        "description": draft.description,
        "external_order_id": draft.external_order_id,
        "status": invoice.status_text(),
        "kaspi_invoice_id": invoice.kaspi_invoice_id,
        "kaspi_qr_link": null,
        "client_name": invoice.client_name,
        "internal_comment": draft.internal_comment,
        "is_sandbox": invoice.is_sandbox,
        "is_imported": invoice.is_imported,
        "total_refunded": money::text(invoice.total_refunded),
        "is_fully_refunded": invoice.is_fully_refunded(),
        "error_message": invoice.error_message,
        "error_code": invoice.error_code,
        "paid_at": invoice.paid_at.filter(|_| invoice.status.is_paid()).map(stamp::utc),
        "created_at": stamp::utc(invoice.created_at),
        "items": draft.lines.iter().map(line).collect::<Vec<_>>(),
    });
    let mut map = match shown {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    add_discount(&mut map, invoice);
    map
}

fn add_discount(map: &mut Map<String, Value>, invoice: &Invoice) {
    let discount = invoice.draft.discount.as_ref();
    let taken = discount.map(|discount| money::text(discount.subtotal - invoice.draft.amount));
    map.insert(
        "subtotal".to_owned(),
        json!(discount.map(|discount| money::text(discount.subtotal))),
    );
    map.insert("discount_sum".to_owned(), json!(taken));
    let percentage = discount.map_or(Value::Null, |discount| money::number(discount.percentage));
    map.insert("discount_percentage".to_owned(), percentage);
}

fn line(line: &Line) -> Value {
    json!({
        "catalog_item_id": line.catalog_item_id,
        "name": line.name,
        "count": line.count,
        "price": money::text(line.price),
        "total": money::text(line.total),
    })
}
