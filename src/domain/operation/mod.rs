//! The operations: what each one sends, what it expects back, and how it is looked up.
//!
//! Everything an operation says is a value; the worker and the policy know no operation by name. What
//! adding one touches stands in ARCHITECTURE.md.

mod applied;
mod contract;
pub mod fields;
mod invoice_cancel;
mod invoice_create;
mod invoice_refund;
mod params;
mod plan;
mod request;
mod sight;
mod written;

pub use applied::{Applied, Progress};
pub use contract::Operation;
pub use plan::{Lookup, Plan, Planned, Resend};
pub use request::{Method, Request};
pub use sight::Sight;
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
