//! `POST /invoices/{id}/cancel`.

use serde_json::json;

use super::{Answer, Call, show};
use crate::envelope::Reply;
use crate::world::{CancelTaken, Session};

pub(super) fn cancel(call: &mut Call<'_>) -> Answer {
    call.require_tariff()?;
    call.invoice()?;
    if call.switches().session != Session::Active {
        return Err(Reply::session_invalid());
    }
    match call.world.cancel(call.origin, call.id) {
        CancelTaken::AtOnce => {
            let invoice = show::single(call.invoice()?);
            Ok(Reply::json(
                200,
                &json!({"message": "Invoice cancelled", "invoice": invoice}),
            ))
        }
        CancelTaken::Queued => Ok(Reply::json(
            202,
            &json!({"message": "Invoice cancellation queued", "invoice_id": call.id}),
        )),
        CancelTaken::Refused => Err(Reply::error_only(400, "Invoice cannot be cancelled", None)),
    }
}
