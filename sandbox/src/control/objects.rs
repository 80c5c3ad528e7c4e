//! Invoices and refunds planted or forced by a test. None of this is an effect of a client.

use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::json;

use super::{Outcome, read, refuse};
use crate::api::{is_phone, show_invoice_in_full, show_refund_in_full};
use crate::clock::Moment;
use crate::envelope::Reply;
use crate::life::{CancelOutcome, STORIES, Story, story_named};
use crate::world::{Draft, RefundDraft, RefundStatus, Status, World, read_amount};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewInvoice {
    organization: String,
    phone: String,
    #[serde(deserialize_with = "read_amount")]
    amount: Decimal,
    #[serde(default = "paid")]
    status: Status,
    error_code: Option<String>,
    error_message: Option<String>,
    description: Option<String>,
    internal_comment: Option<String>,
    external_order_id: Option<String>,
    idempotency_key: Option<String>,
    client_name: Option<String>,
    #[serde(default)]
    is_imported: bool,
    story: Option<String>,
}

fn paid() -> Status {
    Status::Paid
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InvoiceChange {
    status: Option<Status>,
    error_code: Option<String>,
    error_message: Option<String>,
    shown_status: Option<String>,
    cancel_outcome: Option<CancelOutcome>,
    story: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewRefund {
    invoice_id: u64,
    #[serde(deserialize_with = "read_amount")]
    amount: Decimal,
    reason: Option<String>,
    #[serde(default = "completed")]
    status: RefundStatus,
    #[serde(default)]
    initiated_by: Initiator,
}

fn completed() -> RefundStatus {
    RefundStatus::Completed
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Initiator {
    Api,
    #[default]
    Dashboard,
    System,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RefundChange {
    status: RefundStatus,
    error_code: Option<String>,
}

pub(super) fn plant_invoice(world: &mut World, body: &[u8], now: Moment) -> Outcome {
    let new: NewInvoice = read(body)?;
    if !is_phone(&new.phone) {
        return Err(refuse("phone", "expected 8 and ten more digits"));
    }
    let story = read_story(new.story.as_deref())?;
    let organization = world.find_or_found(&new.organization);
    let draft = Draft {
        phone: new.phone,
        amount: new.amount,
        description: new.description,
        internal_comment: new.internal_comment,
        external_order_id: new.external_order_id,
        idempotency_key: new.idempotency_key,
        ..Draft::default()
    };
    let id = world.plant_invoice(organization, now, draft, new.status, story);
    if let Some(invoice) = world.invoice_mut(id) {
        invoice.is_imported = new.is_imported;
        invoice.client_name = new.client_name;
        invoice.error_code = new.error_code;
        invoice.error_message = new.error_message;
    }
    Ok(json!({"id": id}))
}

pub(super) fn force_invoice(world: &mut World, id: &str, body: &[u8], now: Moment) -> Outcome {
    let change: InvoiceChange = read(body)?;
    let no_invoice = || Reply::message_only(404, "no such invoice");
    let id: u64 = id.parse().map_err(|_| no_invoice())?;
    world.invoice(id).ok_or_else(no_invoice)?;
    let story = read_story(change.story.as_deref())?;
    if let Some(status) = change.status {
        let error = change.error_code.map(|code| (code, change.error_message));
        world.force_invoice(id, status, error, now.life);
    } else if change.error_code.is_some() || change.error_message.is_some() {
        return Err(refuse("error_code", "needs a status"));
    }
    if let Some(story) = story {
        world.tell(id, story, now.life);
    }
    if let Some(invoice) = world.invoice_mut(id) {
        invoice.cancel_outcome = change.cancel_outcome.or(invoice.cancel_outcome);
        // An empty text shows the real status again.
        let shown = change.shown_status.or_else(|| invoice.shown_status.take());
        invoice.shown_status = shown.filter(|shown| !shown.is_empty());
    }
    let invoice = world.invoice(id).ok_or_else(no_invoice)?;
    Ok(show_invoice_in_full(
        invoice,
        &world.organizations[invoice.organization].name,
    ))
}

pub(super) fn plant_refund(world: &mut World, body: &[u8], now: Moment) -> Outcome {
    let new: NewRefund = read(body)?;
    let initiated_by = match new.initiated_by {
        Initiator::Api => "api",
        Initiator::Dashboard => "dashboard",
        Initiator::System => "system",
    };
    let draft = RefundDraft {
        amount: new.amount,
        reason: new.reason,
        items: Vec::new(),
        initiated_by,
    };
    let id = world.plant_refund(now, new.invoice_id, draft, new.status);
    id.map(|id| json!({"id": id}))
        .ok_or_else(|| refuse("invoice_id", "no such invoice"))
}

pub(super) fn force_refund(world: &mut World, id: &str, body: &[u8], now: Moment) -> Outcome {
    let change: RefundChange = read(body)?;
    let no_refund = || Reply::message_only(404, "no such refund");
    let id: u64 = id.parse().map_err(|_| no_refund())?;
    world.refund(id).ok_or_else(no_refund)?;
    world.force_refund(id, change.status, change.error_code, now.life);
    world
        .refund(id)
        .map(|refund| show_refund_in_full(world, refund))
        .ok_or_else(no_refund)
}

fn read_story(name: Option<&str>) -> Result<Option<&'static Story>, Reply> {
    let Some(name) = name else {
        return Ok(None);
    };
    let names = || {
        STORIES
            .iter()
            .map(|story| story.name)
            .collect::<Vec<_>>()
            .join(", ")
    };
    story_named(name)
        .map(Some)
        .ok_or_else(|| refuse("story", &format!("expected one of: {}", names())))
}
