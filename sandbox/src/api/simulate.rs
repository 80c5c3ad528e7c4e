//! `POST /invoices/{id}/simulate-status`, which only sandbox mode has.

use serde_json::json;

use super::input::Fields;
use super::{Answer, Call, show};
use crate::envelope::Reply;
use crate::world::{Mode, Status};

const WORDS: [&str; 5] = ["paid", "cancelled", "expired", "error", "qr_scanned"];

pub(super) fn simulate(call: &mut Call<'_>) -> Answer {
    if call.switches().mode != Mode::Sandbox {
        return Err(Reply::business(
            403,
            "not_sandbox",
            "Доступно только в режиме песочницы",
        ));
    }
    let current = call.invoice()?.status;
    let body = call.json()?;
    let mut fields = Fields::new(&body);
    let message = fields.text("error_message", 255, "field_too_long");
    let word = fields
        .get("status")
        .and_then(|value| value.as_str())
        .filter(|word| WORDS.contains(word));
    if word.is_none() {
        fields.wrong("status", "The selected status is invalid.".to_owned());
    }
    fields.finish()?;
    if current != Status::Pending {
        return Err(wrong_status(current));
    }
    let (status, error) = match word {
        Some("paid") => (Status::Paid, None),
        Some("cancelled") => (Status::Cancelled, None),
        Some("expired") => (Status::Expired, None),
        Some("error") => (
            Status::Error,
            Some(("sandbox_simulated_error".to_owned(), message)),
        ),
        _ => {
            return Err(Reply::business(
                400,
                "not_qr_invoice",
                "Счёт выставлен не по QR",
            ));
        }
    };
    call.world
        .force_invoice(call.id, status, error, call.origin.now.life);
    let invoice = show::single(call.invoice()?);
    Ok(Reply::json(
        200,
        &json!({"message": "Invoice status simulated", "invoice": invoice}),
    ))
}

fn wrong_status(current: Status) -> Reply {
    let body = json!({
        "error": "invalid_status_transition",
        "message": "Счёт не в статусе pending",
        "current_status": current,
        "allowed_from": ["pending"],
    });
    Reply::json(400, &body)
}
