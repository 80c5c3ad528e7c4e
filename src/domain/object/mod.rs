//! The objects that the gateway has: what it shows of each, and what that means.
//!
//! A kind of object is a file and a variant of [`Object`]. Whoever decides about an object asks it, as
//! [`ObjectKind`] has it, and does not look which kind it is.

mod contract;
mod invoice;
mod refund;

use std::ops::Deref;

pub use contract::{Expected, Numbers, ObjectKind, Outlook, Standing};
pub use invoice::{Invoice, InvoiceStatus};
pub use refund::{Refund, RefundList, RefundStatus};

/// An object of the gateway, as one answer showed it. It answers whatever its kind does.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// An invoice.
    Invoice(Invoice),
    /// A refund.
    Refund(Refund),
}

impl Deref for Object {
    type Target = dyn ObjectKind;

    fn deref(&self) -> &Self::Target {
        match self {
            Object::Invoice(invoice) => invoice,
            Object::Refund(refund) => refund,
        }
    }
}

impl From<Invoice> for Object {
    fn from(invoice: Invoice) -> Object {
        Object::Invoice(invoice)
    }
}

impl From<Refund> for Object {
    fn from(refund: Refund) -> Object {
        Object::Refund(refund)
    }
}

#[cfg(test)]
mod tests;
