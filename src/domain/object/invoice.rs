//! An invoice as the gateway shows it, and what its status means.

use std::fmt;

use rust_decimal::Decimal;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::contract::{Numbers, ObjectKind, Outlook};
use crate::domain::fields::{decimal, id, moment, short, text, text_or_number};
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
    /// Whether the gateway takes the idempotency key of such an invoice for a new one (API, section
    /// 3.1).
    pub fn releases_key(&self) -> bool {
        matches!(
            self,
            InvoiceStatus::Cancelled | InvoiceStatus::Expired | InvoiceStatus::Error
        )
    }

    /// Whether the customer's money is in, or was.
    pub fn is_paid(&self) -> bool {
        matches!(self, InvoiceStatus::Paid | InvoiceStatus::PartiallyRefunded)
    }

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
            other => InvoiceStatus::Other(short(other)),
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

/// An invoice as one answer showed it. Only id and status are certain to be there: the documents
/// disagree about the rest.
#[derive(Clone, Debug, PartialEq)]
pub struct Invoice {
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

impl Invoice {
    /// What it is called in a sentence, before its number.
    pub const NOUN: &'static str = "invoice";

    /// This invoice as a check shows it, with what only another reading of it shows of whose it is.
    pub fn marked_as(&self, whole: Invoice) -> Invoice {
        Invoice {
            internal_comment: whole.internal_comment,
            is_imported: whole.is_imported,
            ..self.clone()
        }
    }

    /// Reads an invoice out of any of the gateway's shapes; `None` without a positive id and a
    /// status.
    pub fn read(object: &Value) -> Option<Invoice> {
        Some(Invoice {
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
    pub fn bare(id: i64, status: InvoiceStatus) -> Invoice {
        Invoice {
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

    /// How it stands: its status, but for an error whose code says that the money came first, or that it was
    /// cancelled before (API, section 4.4).
    pub fn standing(&self) -> InvoiceStatus {
        match (&self.status, self.error_code.as_deref()) {
            (InvoiceStatus::Error, Some("invoice_already_paid")) => InvoiceStatus::Paid,
            (InvoiceStatus::Error, Some("invoice_already_cancelled")) => InvoiceStatus::Cancelled,
            (status, _) => status.clone(),
        }
    }
}

impl ObjectKind for Invoice {
    fn noun(&self) -> &'static str {
        Invoice::NOUN
    }

    fn id(&self) -> i64 {
        self.id
    }

    fn numbers(&self) -> Numbers {
        Numbers {
            invoice_id: self.id,
            refund_id: None,
        }
    }

    fn status(&self) -> &str {
        self.status.as_str()
    }

    fn amount(&self) -> Option<Decimal> {
        self.amount
    }

    fn payer(&self) -> Option<&Phone> {
        self.phone.as_ref()
    }

    fn order_id(&self) -> Option<&str> {
        self.external_order_id.as_deref()
    }

    fn marked_text(&self) -> Option<&str> {
        self.internal_comment.as_deref()
    }

    fn is_imported(&self) -> bool {
        self.is_imported
    }

    fn error_code(&self) -> Option<&str> {
        self.error_code.as_deref()
    }

    fn error_message(&self) -> Option<&str> {
        self.error_message.as_deref()
    }

    fn is_failed(&self) -> bool {
        self.status == InvoiceStatus::Error
    }

    fn is_dead(&self) -> bool {
        self.standing().releases_key()
    }

    fn is_paid(&self) -> bool {
        self.standing().is_paid()
    }

    // By its status alone: what an error says of the past does not take the key back.
    fn frees_key(&self) -> bool {
        self.status.releases_key()
    }

    fn taken_back_by(&self) -> Option<&'static str> {
        Some("apipay.cancel_invoice")
    }

    fn is_being_taken_back(&self) -> bool {
        self.standing() == InvoiceStatus::Cancelling
    }

    /// No status but that of a payment is quite final (API, section 5.1): a cancelled, expired or failed invoice may
    /// still be paid.
    fn outlook(&self) -> Outlook {
        match self.standing() {
            InvoiceStatus::Paid | InvoiceStatus::PartiallyRefunded => Outlook::Settled,
            InvoiceStatus::Cancelled | InvoiceStatus::Expired | InvoiceStatus::Error => {
                Outlook::MayRevive
            }
            InvoiceStatus::Processing
            | InvoiceStatus::Pending
            | InvoiceStatus::Cancelling
            | InvoiceStatus::Other(_) => Outlook::OpenAmongMany,
        }
    }

    fn result(&self) -> Value {
        json!({
            "id": self.id,
            "status": self.standing().as_str(),
            "amount": self.amount.map(|amount| amount.to_string()),
            "kaspi_invoice_id": self.kaspi_invoice_id,
            "is_sandbox": self.is_sandbox,
        })
    }
}
