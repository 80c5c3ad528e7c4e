//! What follows from the params of a job.

use rust_decimal::Decimal;

use super::request::Request;
use crate::domain::phone::Phone;

/// Everything about a job that follows from its params.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What to send.
    pub request: Request,
    /// How to find out whether it had its effect.
    pub lookup: Lookup,
    /// What allows sending again after a look-up found nothing.
    pub resend: Resend,
    /// What an object must show to be taken for this job's own.
    pub expected: Expected,
}

/// How an unproven request is looked up (API, section 3.3).
#[derive(Clone, Debug, PartialEq)]
pub enum Lookup {
    /// Search the invoices for the job's name.
    InvoiceByName,
    /// Read the invoice that the job acts on.
    Invoice {
        /// The gateway's id.
        id: i64,
    },
    /// Read the refunds of the invoice that the job acts on.
    Refunds {
        /// The gateway's id of the invoice.
        invoice_id: i64,
    },
}

/// What allows sending again once a look-up found nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resend {
    /// The gateway knows the request by a key: the account's `duplicate_protection` decides.
    ByProtection,
    /// Repeating does nothing new: the gateway guards it by the object's state.
    Harmless,
    /// Only if the stored baseline proves twice that nothing happened.
    ByBaseline,
}

/// What an object must show to be ours.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expected {
    /// The amount, where the request states it.
    pub amount: Option<Decimal>,
    /// The payer, where the request states one.
    pub phone: Option<Phone>,
    /// The order id that is sent along, where one is.
    pub order_id: Option<String>,
}
