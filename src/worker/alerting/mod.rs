//! What people are told when a payment waits, and what they can do about it.

mod by_person;
mod database;
mod fault;
mod gateway;
mod held;
mod lock;
mod missing;
mod organization;
mod parked;
mod wording;

use crate::db::accounts::AlertText;

pub use by_person::{
    GIVEN_BACK, MODE, REVIVED, given_back, mode_changed, of_invoice, of_refund, revived,
};
pub use database::{HISTORY, Others, STUCK, StuckJob, clock_jumped, held_up, history_lost};
pub use fault::PANICKED;
pub use gateway::OVERDUE;
pub use held::{ANOTHERS, DIFFERS, DUPLICATE, HELD, HeldJob, Known, ToCancel};
pub use lock::blocker;
pub use missing::{MISSING, missing};
pub use organization::{ORGANIZATION, other_organization};
pub use parked::{Appearance, of_park, parked, parked_undelivered, undelivered};

/// How an alert ends whose account is parked now.
pub const PARKED_NOW: &str = "the account is parked now: its alert account_parked says why";

/// An alert to open.
#[derive(Clone, Debug)]
pub struct Alert {
    /// Its kind.
    pub kind: &'static str,
    /// `critical` or `warning`.
    pub severity: &'static str,
    /// What it says.
    pub text: AlertText,
    /// Whether an alert of its kind that is open already says this from now on.
    pub renews: bool,
}
