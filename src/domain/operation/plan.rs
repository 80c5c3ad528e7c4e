//! What follows from the params of a job.

use super::request::Request;
use crate::domain::object::{Expected, Invoice, Refund};

/// What is sent of a job, and how to find out what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// What to send.
    pub request: Request,
    /// The rest.
    pub plan: Plan,
}

/// How a job's effect is found and recognised, and what follows if it is not there.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
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

impl Lookup {
    /// What the object that it is to find is called in a sentence, before its number.
    pub fn noun(&self) -> &'static str {
        match self {
            Lookup::InvoiceByName | Lookup::Invoice { .. } => Invoice::NOUN,
            Lookup::Refunds { .. } => Refund::NOUN,
        }
    }

    /// The look-up once the gateway's id of what the job made is known: that is read instead of searched for.
    pub fn of_known(&self, id: Option<i64>) -> Lookup {
        match (self, id) {
            (Lookup::InvoiceByName, Some(id)) => Lookup::Invoice { id },
            _ => self.clone(),
        }
    }

    /// Whether objects are searched for by name, and not asked for by the number of one.
    pub fn is_search(&self) -> bool {
        matches!(self, Lookup::InvoiceByName)
    }

    /// Whether the job acts on an object that was there before it, and makes none: that object bears no name of the
    /// job's.
    pub fn acts_on_object(&self) -> bool {
        match self {
            Lookup::Invoice { .. } => true,
            Lookup::InvoiceByName | Lookup::Refunds { .. } => false,
        }
    }
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
