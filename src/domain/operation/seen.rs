//! What the gateway shows of an object, and how far it is with what was asked.

use crate::domain::mirror::{InvoiceSeen, RefundSeen};

/// What a successful answer says was done.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The object it was done to, as the answer shows it.
    pub seen: Seen,
    /// Whether that ends the job.
    pub progress: Progress,
}

/// An object of the gateway.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// An invoice.
    Invoice(InvoiceSeen),
    /// A refund.
    Refund(RefundSeen),
}

impl Seen {
    /// The object's error code, if it ended in error.
    pub fn error_code(&self) -> Option<&str> {
        match self {
            Seen::Invoice(invoice) => invoice.error_code.as_deref(),
            Seen::Refund(refund) => refund.error_code.as_deref(),
        }
    }
}

/// How far the gateway is with what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Done: the job succeeded.
    Done,
    /// Accepted and under way: follow it.
    UnderWay,
    /// Nothing of it is to be seen: the object is as it was before.
    NotStarted,
    /// It ended without being done; the object's error code says why.
    Failed,
}
