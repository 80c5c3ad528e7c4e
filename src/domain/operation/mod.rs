//! The operations: what each one sends, what it expects back, and how it is looked up.
//!
//! Everything an operation says is a value; the worker and the policy know no operation by name. What
//! adding one touches stands in ARCHITECTURE.md.

pub mod fields;
mod invoice_cancel;
mod invoice_create;
mod invoice_refund;
mod params;
mod written;

use std::fmt;

use rust_decimal::Decimal;
use serde_json::Value;

use crate::domain::errors::FieldErrors;
use crate::domain::job::JobName;
use crate::domain::mirror::{InvoiceSeen, RefundSeen};
use crate::domain::phone::Phone;

use fields::Fields;

pub use written::{PARAMS_MAX, Written};

/// Every operation, by name.
pub static OPERATIONS: &[&dyn Operation] = &[
    &invoice_cancel::InvoiceCancel,
    &invoice_create::InvoiceCreate,
    &invoice_refund::InvoiceRefund,
];

/// Finds an operation by its name in `apipay.jobs.operation`.
pub fn operation(name: &str) -> Option<&'static dyn Operation> {
    OPERATIONS
        .iter()
        .copied()
        .find(|operation| operation.name() == name)
}

/// What the daemon needs to know about one kind of job.
pub trait Operation: Sync {
    /// The name in `apipay.jobs.operation`.
    fn name(&self) -> &'static str;

    /// What `params` may hold.
    fn fields(&self) -> &'static Fields;

    /// Checks `params` against [`Operation::fields`] and builds what will be sent.
    ///
    /// Deterministic: the same params and name give the same request, byte for byte.
    fn prepare(&self, params: &Value, name: &JobName) -> Result<Plan, FieldErrors>;

    /// Reads the body of a 200, 201 or 202; `None` when it has not the expected shape, which makes
    /// the outcome unknown.
    fn read_success(&self, plan: &Plan, status: u16, body: &Value) -> Option<Applied>;

    /// Whether what is seen of the object ends the job.
    fn progress(&self, seen: &Seen) -> Progress;

    /// Whether one job of this kind may test if an unwell account is well again: nothing worse than
    /// a refusal can come of it that a look-up could not settle.
    fn is_safe_to_try(&self) -> bool {
        true
    }

    /// Whether it makes an invoice: what the gateway's caps are about (API, section 4.3).
    fn makes_invoice(&self) -> bool {
        false
    }

    /// What jobs of this kind are called in a sentence.
    fn in_plural(&self) -> &'static str;
}

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

/// A request to the gateway, without host and key.
#[derive(Clone, PartialEq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path below the base URL, starting with a slash.
    pub path: String,
    /// The query, unencoded.
    pub query: Vec<(&'static str, String)>,
    /// The JSON body.
    pub body: Option<Value>,
}

/// Without query and body: they hold phone numbers.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method.as_str(), self.path)
    }
}

impl Request {
    /// A POST with a body.
    pub fn post(path: impl Into<String>, body: Option<Value>) -> Request {
        Request {
            method: Method::Post,
            path: path.into(),
            query: Vec::new(),
            body,
        }
    }

    /// A GET.
    pub fn get(path: impl Into<String>, query: Vec<(&'static str, String)>) -> Request {
        Request {
            method: Method::Get,
            path: path.into(),
            query,
            body: None,
        }
    }
}

/// The methods in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET
    Get,
    /// POST
    Post,
}

impl Method {
    /// The word in the request line.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
        }
    }
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
