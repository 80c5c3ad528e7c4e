//! How far ahead stored moments may lie, as a value.

use std::time::Duration;

/// The longest waits from now, of each kind of moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounds {
    /// An account that was refused for its rate, and its jobs.
    pub rate: Duration,
    /// An account that has reached a cap, and its jobs.
    pub cap: Duration,
    /// The codes of such caps.
    pub cap_codes: Vec<String>,
    /// The next probe of a parked account.
    pub probe: Duration,
    /// A lease, of any daemon: their settings may differ.
    pub lease: Duration,
    /// Any other job that was put off, and a look-up.
    pub wait: Duration,
    /// The next check of an invoice or a refund.
    pub check: Duration,
}
