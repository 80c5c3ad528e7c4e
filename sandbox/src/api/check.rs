//! `POST /invoices/status/check`.

use serde_json::{Value, json};

use super::input::Fields;
use super::{Answer, Call};
use crate::envelope::Reply;
use crate::world::Invoice;
use crate::{money, stamp};

const MOST_IDS: usize = 100;

pub(super) fn check(call: &mut Call<'_>) -> Answer {
    let body = call.json()?;
    let mut fields = Fields::new(&body);
    let ids = read_ids(&mut fields);
    fields.finish()?;
    let own = ids.into_iter().filter_map(|id| call.world.invoice(id));
    let own = own.filter(|invoice| invoice.organization == call.origin.organization);
    let rows: Vec<Value> = own.map(row).collect();
    Ok(Reply::json(200, &json!({"invoices": rows})))
}

fn read_ids(fields: &mut Fields<'_>) -> Vec<u64> {
    let Some(value) = fields.get("invoice_ids") else {
        fields.required("invoice_ids");
        return Vec::new();
    };
    let Some(list) = value
        .as_array()
        .filter(|list| (1..=MOST_IDS).contains(&list.len()))
    else {
        fields.wrong(
            "invoice_ids",
            format!("The invoice ids field must be an array of 1 to {MOST_IDS} items."),
        );
        return Vec::new();
    };
    let mut ids = Vec::with_capacity(list.len());
    for (position, value) in list.iter().enumerate() {
        match value.as_u64() {
            Some(id) => ids.push(id),
            None => fields.wrong(
                &format!("invoice_ids.{position}"),
                "The id must be an integer.".to_owned(),
            ),
        }
    }
    ids
}

fn row(invoice: &Invoice) -> Value {
    json!({
        "id": invoice.id,
        "status": invoice.status_text(),
        "kaspi_invoice_id": invoice.kaspi_invoice_id,
        "amount": money::text(invoice.draft.amount),
        "error_message": invoice.error_message,
        "updated_at": stamp::utc(invoice.updated_at),
    })
}
