//! `GET /invoices/{id}/refunds` and `GET /refunds`.

use serde_json::{Map, Value, json};
use time::{Duration, OffsetDateTime};

use super::page::{Page, Query};
use super::{Answer, Call};
use crate::envelope::Reply;
use crate::world::{Refund, RefundPages, RefundStatus, ReturnedItem, World};
use crate::{money, stamp};

pub(super) fn of_invoice(call: &mut Call<'_>) -> Answer {
    let invoice = call.invoice()?;
    let visible_until = visible_until(call);
    let refunds = invoice
        .refunds
        .iter()
        .filter_map(|id| call.world.refund(*id));
    let rows: Vec<Value> = refunds
        .filter(|refund| refund.created_real <= visible_until)
        .map(|refund| Value::Object(row(refund)))
        .collect();
    let body = json!({
        "invoice": {
            "id": invoice.id,
            "amount": money::text(invoice.draft.amount),
            "total_refunded": money::text(invoice.total_refunded),
            "available_for_refund": money::number(call.world.available_for_refund(invoice)),
            "is_fully_refunded": invoice.is_fully_refunded(),
        },
        "total": rows.len(),
        "refunds": rows,
    });
    Ok(Reply::json(200, &body))
}

pub(super) fn list(call: &mut Call<'_>) -> Answer {
    let query = std::mem::take(&mut call.query);
    let mut query = Query::new(&query);
    let words = RefundStatus::ALL.map(|status| (status.as_str(), status));
    let statuses = query.words("status", &words);
    let invoice = query.number("invoice_id", 1, u64::MAX);
    let window = query.window();
    let page = query.page();
    query.finish()?;
    let visible_until = visible_until(call);
    let organization = call.organization();
    let own = organization
        .refunds
        .iter()
        .rev()
        .filter_map(|id| call.world.refund(*id));
    let rows: Vec<&Refund> = own
        .filter(|refund| refund.created_real <= visible_until)
        .filter(|refund| statuses.is_empty() || statuses.contains(&refund.status))
        .filter(|refund| invoice.is_none_or(|invoice| invoice == refund.invoice))
        .filter(|refund| window.holds(Some(refund.created_at)))
        .collect();
    let data: Vec<Value> = page
        .cut(&rows, organization.switches.list_shift)
        .iter()
        .map(|refund| listed(call.world, refund))
        .collect();
    Ok(Reply::json(
        200,
        &show_page(organization.switches.refund_pages, page, data, rows.len()),
    ))
}

/// A refund with everything, for the control API.
pub(crate) fn full(world: &World, refund: &Refund) -> Value {
    let mut shown = listed(world, refund);
    if let Some(map) = shown.as_object_mut() {
        map.insert(
            "organization".to_owned(),
            json!(world.organizations[refund.organization].name),
        );
    }
    shown
}

fn visible_until(call: &Call<'_>) -> OffsetDateTime {
    let lag =
        Duration::milliseconds(i64::try_from(call.switches().list_lag_ms).unwrap_or(i64::MAX));
    call.origin.now.real.saturating_sub(lag)
}

fn show_page(shape: RefundPages, page: Page, data: Vec<Value>, total: usize) -> Value {
    match shape {
        RefundPages::Flat => json!({"current_page": page.number, "data": data, "total": total}),
        RefundPages::Meta => json!({
            "data": data,
            "meta": {
                "current_page": page.number,
                "last_page": page.last(total),
                "per_page": page.size,
                "total": total,
            },
        }),
    }
}

fn row(refund: &Refund) -> Map<String, Value> {
    let shown = json!({
        "id": refund.id,
        "invoice_id": refund.invoice,
        "amount": money::text(refund.draft.amount),
        "status": refund.status.as_str(),
        "reason": refund.draft.reason,
        "kaspi_refund_id": refund.kaspi_refund_id,
        "error_message": refund.error_message,
        "error_code": refund.error_code,
        "items": refund.draft.items.iter().map(item).collect::<Vec<_>>(),
        "created_at": stamp::utc(refund.created_at),
    });
    match shown {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn listed(world: &World, refund: &Refund) -> Value {
    let mut map = row(refund);
    map.insert("kaspi_status".to_owned(), Value::Null);
    map.insert("initiated_by".to_owned(), json!(refund.draft.initiated_by));
    let invoice = world.invoice(refund.invoice).map(|invoice| {
        json!({
            "id": invoice.id,
            "amount": money::text(invoice.draft.amount),
            "status": invoice.status_text(),
            "external_order_id": invoice.draft.external_order_id,
        })
    });
    map.insert("invoice".to_owned(), json!(invoice));
    Value::Object(map)
}

fn item(item: &ReturnedItem) -> Value {
    json!({"catalog_item_id": item.catalog_item_id, "count": item.count, "amount": money::text(item.amount)})
}
