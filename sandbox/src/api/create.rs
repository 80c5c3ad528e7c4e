//! `POST /invoices`.
//!
//! The order of the checks is a guess, on the unkind side: every gate stands before the idempotency key, so a
//! repeat can be refused although the first request created the invoice.

use rust_decimal::Decimal;
use serde_json::{Map, Value, json};

use super::input::Fields;
use super::{Answer, Call, cart, show};
use crate::envelope::Reply;
use crate::money;
use crate::world::{Discount, Draft, Kyc, Mode, Session};

pub(super) fn create(call: &mut Call<'_>) -> Answer {
    call.require_tariff()?;
    let body = call.json()?;
    let draft = read(call, &body)?;
    pass_gates(call)?;
    refuse_duplicate(call, &draft)?;
    let id = call.world.create_invoice(call.origin, draft);
    let created = call.world.invoice(id).map(show::created);
    Ok(Reply::json(201, &created.unwrap_or_default()))
}

fn read(call: &Call<'_>, body: &Map<String, Value>) -> Result<Draft, Reply> {
    let mut fields = Fields::new(body);
    let phone = read_phone(&mut fields);
    let wanted = fields.objects("cart_items", cart::read_wanted);
    let has_cart = fields.has("cart_items");
    let amount = if has_cart {
        None
    } else {
        read_amount(&mut fields)
    };
    let percentage = fields.amount("discount_percentage", Decimal::ONE, Decimal::from(99));
    let draft = Draft {
        phone: phone.unwrap_or_default(),
        description: fields.text(
            "description",
            call.switches().description_limit,
            "description_too_long",
        ),
        internal_comment: fields.text("internal_comment", 255, "field_too_long"),
        external_order_id: fields.text("external_order_id", 255, "field_too_long"),
        idempotency_key: fields
            .text("external_order_id_idempotency", 191, "field_too_long")
            .filter(|key| !key.is_empty()),
        ..Draft::default()
    };
    fields.integer("kaspi_connection_id", 1);
    fields.finish()?;
    let lines = match wanted {
        Some(wanted) => cart::price(&call.switches().catalog, &wanted, percentage)?,
        None => Vec::new(),
    };
    let draft = if lines.is_empty() {
        with_total(draft, amount.unwrap_or_default(), percentage, |amount| {
            money::after_discount(amount, percentage)
        })
    } else {
        let subtotal = lines
            .iter()
            .map(|line| line.price * Decimal::from(line.count))
            .sum();
        let total = lines.iter().map(|line| line.total).sum();
        with_total(Draft { lines, ..draft }, subtotal, percentage, |_| total)
    };
    check_total(draft)
}

fn read_phone(fields: &mut Fields<'_>) -> Option<String> {
    let Some(phone) = fields.get("phone_number") else {
        fields.required("phone_number");
        return None;
    };
    let valid = phone.as_str().filter(|phone| is_phone(phone));
    if valid.is_none() {
        fields.wrong(
            "phone_number",
            "The phone number field format is invalid.".to_owned(),
        );
    }
    valid.map(str::to_owned)
}

/// An 8 and ten more digits.
pub(crate) fn is_phone(text: &str) -> bool {
    text.len() == 11 && text.starts_with('8') && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn read_amount(fields: &mut Fields<'_>) -> Option<Decimal> {
    if !fields.has("amount") {
        fields.wrong(
            "amount",
            "The amount field is required when cart items is not present.".to_owned(),
        );
        return None;
    }
    let is_fraction = |value: &Value| {
        value
            .as_number()
            .and_then(money::from_number)
            .is_some_and(|sum| !money::is_whole(sum))
    };
    if !fields.has("discount_percentage") && fields.get("amount").is_some_and(is_fraction) {
        let message = "The amount must be a whole number of tenge.".to_owned();
        fields.wrong_with("amount", message, Some("amount_must_be_whole_tenge"));
        return None;
    }
    fields.amount("amount", Decimal::ONE, money::LARGEST)
}

fn with_total(
    draft: Draft,
    subtotal: Decimal,
    percentage: Option<Decimal>,
    total: impl Fn(Decimal) -> Decimal,
) -> Draft {
    let discount = percentage.map(|percentage| Discount {
        percentage,
        subtotal,
    });
    Draft {
        amount: total(subtotal),
        discount,
        ..draft
    }
}

/// The whole-tenge rule holds for the total after the discounts.
fn check_total(draft: Draft) -> Result<Draft, Reply> {
    let code = Some("amount_must_be_whole_tenge");
    if !money::is_whole(draft.amount) {
        return Err(Reply::invalid_field(
            "amount",
            "The total after discounts must be a whole number of tenge.",
            code,
        ));
    }
    if draft.amount < Decimal::ONE {
        return Err(Reply::invalid_field(
            "amount",
            "The total must be at least 1.",
            None,
        ));
    }
    if draft.amount > money::LARGEST {
        return Err(Reply::invalid_field(
            "amount",
            "The total must not be greater than 99999999.99.",
            None,
        ));
    }
    Ok(draft)
}

fn pass_gates(call: &Call<'_>) -> Result<(), Reply> {
    let switches = call.switches();
    if switches.mode == Mode::Live {
        match switches.kyc {
            Kyc::Approved => {}
            Kyc::Missing => return Err(Reply::kyc_limit()),
            Kyc::Rejected => {
                return Err(Reply::business(
                    403,
                    "kyc_rejected",
                    "Анкета бизнеса отклонена",
                ));
            }
        }
    }
    if switches.invoices_disabled {
        return Err(Reply::invoices_disabled());
    }
    if switches.session != Session::Active {
        let conflict = switches.session_answer == 409;
        return Err(if conflict {
            Reply::session_expired()
        } else {
            Reply::session_invalid()
        });
    }
    Ok(())
}

fn refuse_duplicate(call: &Call<'_>, draft: &Draft) -> Result<(), Reply> {
    let holder = draft.idempotency_key.as_deref();
    let holder = holder.and_then(|key| call.world.key_holder(call.origin.organization, key));
    if let Some(holder) = holder {
        let body = json!({
            "error": "duplicate_idempotency_key",
            "message": "Счёт с таким ключом идемпотентности уже существует",
            "invoice_id": holder.id,
            "status": holder.status_text(),
        });
        return Err(Reply::json(409, &body));
    }
    let switches = call.switches();
    let limit = switches.sandbox_invoice_limit;
    if switches.mode == Mode::Sandbox && limit > 0 && call.organization().invoices.len() >= limit {
        return Err(Reply::business(
            400,
            "sandbox_invoice_limit",
            "Достигнут лимит счетов песочницы",
        ));
    }
    Ok(())
}
