//! An organization: the owner of keys, invoices and refunds, and the switches that set how the gateway treats it.

use std::collections::HashMap;

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize};
use time::OffsetDateTime;

use super::refund::RefundOutcome;
use crate::life::CancelOutcome;

/// Whether invoices of an organization would reach real payers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Cancels are queued and take their time, nothing can be simulated.
    #[default]
    Live,
    /// Cancels are immediate, `simulate-status` works, objects carry `is_sandbox: true`.
    Sandbox,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Tariff {
    Active,
    Trial,
    Frozen,
    Expired,
    Cancelled,
    None,
}

impl Tariff {
    /// Why paid operations are refused; `None` when they are not.
    pub(crate) fn refusal_reason(self) -> Option<&'static str> {
        match self {
            Self::Active | Self::Trial => Option::None,
            Self::Frozen | Self::None => Some("none"),
            Self::Expired => Some("expired"),
            Self::Cancelled => Some("cancelled"),
        }
    }
}

/// Whether the operator approved the business form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kyc {
    Approved,
    Missing,
    Rejected,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Session {
    Active,
    Expired,
    Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Search {
    Ok,
    /// Finds nothing, whatever is there.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RefundPages {
    /// `{current_page, data, total}`.
    Flat,
    /// `{data, meta}`.
    Meta,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CatalogItem {
    pub(crate) id: u64,
    pub(crate) name: String,
    #[serde(deserialize_with = "amount")]
    pub(crate) price: Decimal,
}

/// Reads an amount of a control request: a string or a number.
pub(crate) fn amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
    let expected = "an amount such as \"5000.00\" or 5000, at least 0";
    let amount = match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::String(text) => Decimal::from_str_exact(&text).ok(),
        serde_json::Value::Number(number) => crate::money::from_number(&number),
        _ => None,
    };
    let in_range =
        amount.filter(|amount| !amount.is_sign_negative() && *amount <= crate::money::LARGEST);
    in_range.ok_or_else(|| serde::de::Error::custom(format!("expected {expected}")))
}

#[derive(Clone, Debug)]
pub(crate) struct Switches {
    pub(crate) mode: Mode,
    pub(crate) tariff: Tariff,
    pub(crate) kyc: Kyc,
    pub(crate) archived: bool,
    pub(crate) revoked: bool,
    pub(crate) invoices_disabled: bool,
    pub(crate) accumulating: bool,
    pub(crate) requests_per_minute: u32,
    pub(crate) honour_idempotency_key: bool,
    pub(crate) idempotency_key_released: bool,
    pub(crate) list_lag_ms: u64,
    pub(crate) search: Search,
    pub(crate) list_shift: bool,
    pub(crate) refund_pages: RefundPages,
    pub(crate) catalog: Vec<CatalogItem>,
    pub(crate) cached_terminal_ms: u64,
    pub(crate) refund_outcome: RefundOutcome,
    pub(crate) cancel_outcome: Option<CancelOutcome>,
    pub(crate) processing_ms: u64,
    pub(crate) description_limit: usize,
    pub(crate) sandbox_invoice_limit: usize,
    pub(crate) wrong_amount: bool,
    pub(crate) flip_is_sandbox: bool,
    pub(crate) session: Session,
    /// The status that creations are refused with while the session is lost: 503 or 409.
    pub(crate) session_answer: u16,
}

impl Switches {
    pub(crate) fn new(mode: Mode, requests_per_minute: u32) -> Self {
        Self {
            mode,
            tariff: Tariff::Active,
            kyc: Kyc::Approved,
            archived: false,
            revoked: false,
            invoices_disabled: false,
            accumulating: false,
            requests_per_minute,
            honour_idempotency_key: true,
            idempotency_key_released: true,
            list_lag_ms: 0,
            search: Search::Ok,
            list_shift: false,
            refund_pages: RefundPages::Flat,
            catalog: Vec::new(),
            cached_terminal_ms: 0,
            refund_outcome: RefundOutcome::Completed,
            cancel_outcome: None,
            processing_ms: 1_000,
            description_limit: 60,
            sandbox_invoice_limit: 1_000,
            wrong_amount: false,
            flip_is_sandbox: false,
            session: Session::Active,
            session_answer: 503,
        }
    }

    pub(crate) fn shows_sandbox(&self) -> bool {
        (self.mode == Mode::Sandbox) != self.flip_is_sandbox
    }
}

#[derive(Debug)]
pub(crate) struct Organization {
    /// What control answers and logs call it; never the key itself unless somebody chose so.
    pub(crate) name: String,
    pub(crate) switches: Switches,
    /// In order of creation.
    pub(crate) invoices: Vec<u64>,
    pub(crate) refunds: Vec<u64>,
    pub(crate) newest_by_key: HashMap<String, u64>,
    /// Accepted but not sent to Kaspi while the organization accumulates.
    pub(crate) held: Vec<u64>,
    pub(crate) held_since: Option<OffsetDateTime>,
    pub(crate) session_error_at: Option<OffsetDateTime>,
    pub(crate) last_used_at: Option<OffsetDateTime>,
}

impl Organization {
    pub(crate) fn new(name: String, switches: Switches) -> Self {
        Self {
            name,
            switches,
            invoices: Vec::new(),
            refunds: Vec::new(),
            newest_by_key: HashMap::new(),
            held: Vec::new(),
            held_since: None,
            session_error_at: None,
            last_used_at: None,
        }
    }
}
