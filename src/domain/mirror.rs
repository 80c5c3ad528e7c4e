//! Invoices and refunds as the gateway shows them.

use std::fmt;

use rust_decimal::Decimal;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::domain::phone::Phone;

/// The status of an invoice (API, section 5.1). The gateway's list is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvoiceStatus {
    /// Stored by the gateway, not yet with Kaspi.
    Processing,
    /// Delivered to the customer.
    Pending,
    /// A cancel is under way.
    Cancelling,
    /// Money received.
    Paid,
    /// Money received, a part of it given back.
    PartiallyRefunded,
    /// Cancelled; it may still turn paid when the payment won the race.
    Cancelled,
    /// Not paid in time; it may still turn paid.
    Expired,
    /// Not delivered; it may still turn pending.
    Error,
    /// A status that no document lists.
    Other(String),
}

impl InvoiceStatus {
    /// Reads the gateway's word.
    pub fn parse(word: &str) -> InvoiceStatus {
        match word {
            "processing" => InvoiceStatus::Processing,
            "pending" => InvoiceStatus::Pending,
            "cancelling" => InvoiceStatus::Cancelling,
            "paid" => InvoiceStatus::Paid,
            "partially_refunded" => InvoiceStatus::PartiallyRefunded,
            "cancelled" => InvoiceStatus::Cancelled,
            "expired" => InvoiceStatus::Expired,
            "error" => InvoiceStatus::Error,
            other => InvoiceStatus::Other(storable(other)),
        }
    }

    /// The gateway's word.
    pub fn as_str(&self) -> &str {
        match self {
            InvoiceStatus::Processing => "processing",
            InvoiceStatus::Pending => "pending",
            InvoiceStatus::Cancelling => "cancelling",
            InvoiceStatus::Paid => "paid",
            InvoiceStatus::PartiallyRefunded => "partially_refunded",
            InvoiceStatus::Cancelled => "cancelled",
            InvoiceStatus::Expired => "expired",
            InvoiceStatus::Error => "error",
            InvoiceStatus::Other(word) => word,
        }
    }
}

impl fmt::Display for InvoiceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The status of a refund (API, section 5.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefundStatus {
    /// Queued by the gateway.
    Pending,
    /// With Kaspi.
    Processing,
    /// Money given back.
    Completed,
    /// Not given back; the gateway does not try again.
    Failed,
    /// A status that no document lists.
    Other(String),
}

impl RefundStatus {
    /// Reads the gateway's word.
    pub fn parse(word: &str) -> RefundStatus {
        match word {
            "pending" => RefundStatus::Pending,
            "processing" => RefundStatus::Processing,
            "completed" => RefundStatus::Completed,
            "failed" => RefundStatus::Failed,
            other => RefundStatus::Other(storable(other)),
        }
    }

    /// The gateway's word.
    pub fn as_str(&self) -> &str {
        match self {
            RefundStatus::Pending => "pending",
            RefundStatus::Processing => "processing",
            RefundStatus::Completed => "completed",
            RefundStatus::Failed => "failed",
            RefundStatus::Other(word) => word,
        }
    }
}

impl fmt::Display for RefundStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An invoice as one answer showed it. Only id and status are certain to be there: the documents
/// disagree about the rest.
#[derive(Clone, Debug, PartialEq)]
pub struct InvoiceSeen {
    /// The gateway's id.
    pub id: i64,
    /// Its status.
    pub status: InvoiceStatus,
    /// Amount in tenge.
    pub amount: Option<Decimal>,
    /// The payer.
    pub phone: Option<Phone>,
    /// The merchant's order id.
    pub external_order_id: Option<String>,
    /// The merchant's note, where the job's name stands.
    pub internal_comment: Option<String>,
    /// Kaspi's own id.
    pub kaspi_invoice_id: Option<String>,
    /// Why it is in error.
    pub error_code: Option<String>,
    /// The text for that.
    pub error_message: Option<String>,
    /// Whether it exists in the sandbox only.
    pub is_sandbox: Option<bool>,
    /// Whether it was imported from the Kaspi app, so cannot be ours.
    pub is_imported: bool,
    /// Refunded so far.
    pub total_refunded: Option<Decimal>,
    /// When it was created.
    pub created_at: Option<OffsetDateTime>,
    /// When it last changed.
    pub updated_at: Option<OffsetDateTime>,
    /// When it was paid.
    pub paid_at: Option<OffsetDateTime>,
}

impl InvoiceSeen {
    /// Reads an invoice out of any of the gateway's shapes; `None` without a positive id and a
    /// status.
    pub fn read(object: &Value) -> Option<InvoiceSeen> {
        Some(InvoiceSeen {
            id: id(object, "id")?,
            status: InvoiceStatus::parse(object.get("status")?.as_str()?),
            amount: decimal(object, "amount"),
            phone: text(object, "phone")
                .or_else(|| text(object, "phone_number"))
                .and_then(|phone| Phone::parse(&phone)),
            external_order_id: text(object, "external_order_id"),
            internal_comment: text(object, "internal_comment"),
            kaspi_invoice_id: text_or_number(object, "kaspi_invoice_id"),
            error_code: text(object, "error_code"),
            error_message: text(object, "error_message"),
            is_sandbox: object.get("is_sandbox").and_then(Value::as_bool),
            is_imported: object
                .get("is_imported")
                .and_then(Value::as_bool)
                .unwrap_or(false),
            total_refunded: decimal(object, "total_refunded"),
            created_at: moment(object, "created_at"),
            updated_at: moment(object, "updated_at"),
            paid_at: moment(object, "paid_at"),
        })
    }

    /// An invoice of which an answer says no more than what it is and how it stands.
    pub fn bare(id: i64, status: InvoiceStatus) -> InvoiceSeen {
        InvoiceSeen {
            id,
            status,
            amount: None,
            phone: None,
            external_order_id: None,
            internal_comment: None,
            kaspi_invoice_id: None,
            error_code: None,
            error_message: None,
            is_sandbox: None,
            is_imported: false,
            total_refunded: None,
            created_at: None,
            updated_at: None,
            paid_at: None,
        }
    }

    /// Whether nothing that it shows contradicts what was asked. What is not shown, or was not
    /// asked for, contradicts nothing.
    pub fn agrees(&self, amount: Option<Decimal>, phone: Option<&Phone>) -> bool {
        agree(self.amount, amount) && agree(self.phone.as_ref(), phone)
    }
}

/// A refund as one answer showed it.
#[derive(Clone, Debug, PartialEq)]
pub struct RefundSeen {
    /// The gateway's id.
    pub id: i64,
    /// The refunded invoice.
    pub invoice_id: i64,
    /// Its status.
    pub status: RefundStatus,
    /// Amount in tenge.
    pub amount: Option<Decimal>,
    /// The reason, where the job's name stands.
    pub reason: Option<String>,
    /// Why it failed.
    pub error_code: Option<String>,
    /// The text for that.
    pub error_message: Option<String>,
    /// When it was created.
    pub created_at: Option<OffsetDateTime>,
}

impl RefundSeen {
    /// Reads a refund; `None` without a positive id and a status. `invoice_id` is the invoice that
    /// was asked about, for answers that do not repeat it.
    pub fn read(object: &Value, invoice_id: i64) -> Option<RefundSeen> {
        Some(RefundSeen {
            id: id(object, "id")?,
            invoice_id: id(object, "invoice_id").unwrap_or(invoice_id),
            status: RefundStatus::parse(object.get("status")?.as_str()?),
            amount: decimal(object, "amount"),
            reason: text(object, "reason"),
            error_code: text(object, "error_code"),
            error_message: text(object, "error_message"),
            created_at: moment(object, "created_at"),
        })
    }

    /// Whether it is a refund of this invoice, and its amount, where it shows one, is the one that
    /// was asked for, if one was.
    pub fn agrees(&self, invoice_id: i64, amount: Option<Decimal>) -> bool {
        self.invoice_id == invoice_id && agree(self.amount, amount)
    }
}

/// All refunds of an invoice, from one complete answer.
#[derive(Clone, Debug, PartialEq)]
pub struct RefundList {
    /// The refunds.
    pub refunds: Vec<RefundSeen>,
    /// Refunded so far, as the answer's invoice says.
    pub total_refunded: Option<Decimal>,
}

impl RefundList {
    /// Reads the answer of `GET /invoices/{id}/refunds`; `None` when a row cannot be read, when
    /// anything in it belongs to another invoice, or when `total` is not the number of rows: such
    /// a list proves nothing (API, section 2.9).
    pub fn read(object: &Value, invoice_id: i64) -> Option<RefundList> {
        let invoice = object.get("invoice");
        let rows = object.get("refunds")?.as_array()?;
        let refunds: Vec<RefundSeen> = rows
            .iter()
            .map(|row| RefundSeen::read(row, invoice_id))
            .collect::<Option<_>>()?;
        let complete = object
            .get("total")
            .is_none_or(|total| total.as_u64() == Some(rows.len() as u64));
        let of_invoice = invoice
            .and_then(|invoice| id(invoice, "id"))
            .is_none_or(|id| id == invoice_id)
            && refunds.iter().all(|refund| refund.invoice_id == invoice_id);
        (complete && of_invoice).then(|| RefundList {
            refunds,
            total_refunded: invoice.and_then(|invoice| decimal(invoice, "total_refunded")),
        })
    }
}

/// A positive id under a key, written as a number or as digits.
pub fn id(object: &Value, key: &str) -> Option<i64> {
    let value = object.get(key)?;
    let digits = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| text.parse().ok())?
    };
    let id = value.as_i64().or_else(|| digits(value.as_str()?))?;
    (id > 0).then_some(id)
}

fn agree<T: PartialEq>(shown: Option<T>, asked: Option<T>) -> bool {
    shown.is_none() || asked.is_none() || shown == asked
}

/// Postgres can store any text but one with NUL, and a stored answer must not fail for that.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn text(object: &Value, key: &str) -> Option<String> {
    object.get(key)?.as_str().map(storable)
}

fn text_or_number(object: &Value, key: &str) -> Option<String> {
    match object.get(key)? {
        Value::String(text) => Some(storable(text)),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Amounts come as strings or as numbers, depending on the field and the document's age.
fn decimal(object: &Value, key: &str) -> Option<Decimal> {
    let written = text_or_number(object, key)?;
    let amount = Decimal::from_str_exact(&written).ok()?;
    // The most that the mirror's columns hold, numeric(12, 2); a fraction above would round up.
    (amount.abs() <= Decimal::new(999_999_999_999, 2)).then_some(amount)
}

fn moment(object: &Value, key: &str) -> Option<OffsetDateTime> {
    let written = object.get(key)?.as_str()?;
    // Samples show both "T" and a blank between date and time.
    OffsetDateTime::parse(&written.replacen(' ', "T", 1), &Rfc3339).ok()
}
