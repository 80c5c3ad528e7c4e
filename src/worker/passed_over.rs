//! Jobs that nobody can move now: the database refuses it, or somebody keeps them locked. A refund does not wait for
//! one of them that would go before it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Who has found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FoundBy {
    /// The claim of jobs.
    Claim,
    /// The claim of trials.
    Trial,
    /// The look for locks.
    Locks,
    /// The moving of those whose turn it is.
    Turn,
}

/// What each of them knows, as of its last round.
#[derive(Debug, Default)]
pub struct PassedOver(Mutex<BTreeMap<FoundBy, Vec<i64>>>);

impl PassedOver {
    /// These are the ones that it knows now.
    pub fn set(&self, by: FoundBy, jobs: Vec<i64>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if jobs.is_empty() {
            known.remove(&by);
        } else {
            known.insert(by, jobs);
        }
    }

    /// All of them.
    pub fn jobs(&self) -> Vec<i64> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().flatten().copied().collect()
    }
}
