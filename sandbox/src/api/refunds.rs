//! `POST /invoices/{id}/refund`. There is no idempotency key: a repeat is another refund while funds remain.

use rust_decimal::Decimal;
use serde_json::{Map, Value, json};

use super::cart::{self, Return};
use super::input::Fields;
use super::{Answer, Call};
use crate::envelope::Reply;
use crate::world::{Invoice, RefundDraft, RefundStatus, ReturnedItem, Session};
use crate::{money, stamp};

struct Asked {
    amount: Option<Decimal>,
    reason: Option<String>,
    returns: Option<Vec<Return>>,
}

pub(super) fn create(call: &mut Call<'_>) -> Answer {
    call.require_tariff()?;
    call.invoice()?;
    let body = call.json()?;
    let asked = read(&body)?;
    if call.switches().session != Session::Active {
        return Err(Reply::session_invalid());
    }
    let draft = decide(call, asked)?;
    let id = call.world.create_refund(call.origin, call.id, draft);
    Ok(Reply::json(201, &show(call, id)))
}

fn read(body: &Map<String, Value>) -> Result<Asked, Reply> {
    let mut fields = Fields::new(body);
    let amount = fields.amount("amount", Decimal::new(1, 2), money::LARGEST);
    if amount.is_some_and(money::is_too_fine) {
        fields.wrong(
            "amount",
            "The amount field must have at most 2 decimal places.".to_owned(),
        );
    }
    let asked = Asked {
        amount,
        reason: fields.text("reason", 500, "field_too_long"),
        returns: fields.objects("return_items", cart::read_return),
    };
    fields.finish()?;
    Ok(asked)
}

fn decide(call: &Call<'_>, asked: Asked) -> Result<RefundDraft, Reply> {
    let invoice = call.invoice()?;
    if !invoice.status.is_paid() || invoice.is_fully_refunded() {
        return Err(Reply::error_only(400, "Invoice is not refundable", None));
    }
    let available = call.world.available_for_refund(invoice);
    let items = match asked.returns {
        Some(returns) => cart::value_returns(invoice, &returned_before(call, invoice), &returns)?,
        None => Vec::new(),
    };
    let worth: Decimal = items.iter().map(|item| item.amount).sum();
    let amount = match (asked.amount, items.is_empty()) {
        (Some(amount), false) if amount != worth => return Err(cart::mismatch()),
        (Some(amount), _) => amount,
        (None, false) => worth,
        (None, true) => available,
    };
    if amount > available || available.is_zero() {
        return Err(Reply::error_only(
            400,
            "Refund amount exceeds available amount",
            None,
        ));
    }
    if amount < available && items.is_empty() && !invoice.draft.lines.is_empty() {
        let message = "Для частичного возврата укажите return_items";
        return Err(Reply::refused_cart(
            "partial_refund_requires_return_items",
            message,
        ));
    }
    Ok(RefundDraft {
        amount,
        reason: asked.reason,
        items,
        initiated_by: "api",
    })
}

fn returned_before<'a>(call: &'a Call<'_>, invoice: &Invoice) -> Vec<&'a ReturnedItem> {
    let refunds = invoice
        .refunds
        .iter()
        .filter_map(|id| call.world.refund(*id));
    refunds
        .filter(|refund| refund.status != RefundStatus::Failed)
        .flat_map(|refund| &refund.draft.items)
        .collect()
}

fn show(call: &Call<'_>, id: u64) -> Value {
    let (Some(refund), Ok(invoice)) = (call.world.refund(id), call.invoice()) else {
        return Value::Null;
    };
    json!({
        "message": "Refund queued for processing",
        "refund": {
            "id": refund.id,
            "invoice_id": refund.invoice,
            "amount": money::text(refund.draft.amount),
            "reason": refund.draft.reason,
            "status": refund.status.as_str(),
            "initiated_by": refund.draft.initiated_by,
            "created_at": stamp::utc(refund.created_at),
        },
        "invoice": {
            "id": invoice.id,
            "amount": money::text(invoice.draft.amount),
            "status": invoice.status_text(),
            "total_refunded": money::text(invoice.total_refunded),
            "pending_refund_amount": money::number(call.world.pending_refunds(invoice)),
            "available_for_refund": money::number(call.world.available_for_refund(invoice)),
        },
    })
}
