//! A refund as the gateway shows it, and what its status means.

use std::collections::BTreeSet;
use std::fmt;

use rust_decimal::Decimal;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::contract::{Numbers, ObjectKind, Outlook};
use crate::domain::fields::{decimal, id, moment, short, text};

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
            other => RefundStatus::Other(short(other)),
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

/// A refund as one answer showed it.
#[derive(Clone, Debug, PartialEq)]
pub struct Refund {
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

impl Refund {
    /// What it is called in a sentence, before its number.
    pub const NOUN: &'static str = "refund";

    /// Reads a refund; `None` without a positive id and a status. `invoice_id` is the invoice that
    /// was asked about, for answers that do not repeat it.
    pub fn read(object: &Value, invoice_id: i64) -> Option<Refund> {
        Some(Refund {
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
}

impl ObjectKind for Refund {
    fn noun(&self) -> &'static str {
        Refund::NOUN
    }

    fn id(&self) -> i64 {
        self.id
    }

    fn numbers(&self) -> Numbers {
        Numbers {
            invoice_id: self.invoice_id,
            refund_id: Some(self.id),
        }
    }

    fn status(&self) -> &str {
        self.status.as_str()
    }

    fn amount(&self) -> Option<Decimal> {
        self.amount
    }

    fn marked_text(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    fn error_code(&self) -> Option<&str> {
        self.error_code.as_deref()
    }

    fn error_message(&self) -> Option<&str> {
        self.error_message.as_deref()
    }

    fn is_failed(&self) -> bool {
        self.status == RefundStatus::Failed
    }

    fn is_dead(&self) -> bool {
        self.is_failed()
    }

    fn outlook(&self) -> Outlook {
        match self.status {
            RefundStatus::Pending | RefundStatus::Processing | RefundStatus::Other(_) => {
                Outlook::OpenByItself
            }
            RefundStatus::Completed => Outlook::ChangesInvoice,
            RefundStatus::Failed => Outlook::Failed,
        }
    }

    fn result(&self) -> Value {
        json!({
            "id": self.id,
            "invoice_id": self.invoice_id,
            "status": self.status.as_str(),
            "amount": self.amount.map(|amount| amount.to_string()),
        })
    }
}

/// All refunds of an invoice, from one complete answer.
#[derive(Clone, Debug, PartialEq)]
pub struct RefundList {
    /// The refunds.
    pub refunds: Vec<Refund>,
    /// Refunded so far, as the answer's invoice says.
    pub total_refunded: Option<Decimal>,
}

impl RefundList {
    /// Reads the answer of `GET /invoices/{id}/refunds`; `None` when a row cannot be read, when
    /// anything in it belongs to another invoice, when `total` is not the number of rows, or when
    /// one is there twice, perhaps in another's place: such a list proves nothing (API, section 2.9).
    pub fn read(object: &Value, invoice_id: i64) -> Option<RefundList> {
        let invoice = object.get("invoice");
        let rows = object.get("refunds")?.as_array()?;
        let refunds: Vec<Refund> = rows
            .iter()
            .map(|row| Refund::read(row, invoice_id))
            .collect::<Option<_>>()?;
        let complete = object
            .get("total")
            .is_none_or(|total| total.as_u64() == Some(rows.len() as u64));
        let ids: BTreeSet<i64> = refunds.iter().map(|refund| refund.id).collect();
        let complete = complete && ids.len() == refunds.len();
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
