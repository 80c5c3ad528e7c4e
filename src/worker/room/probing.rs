//! What an account's probes have come to: for how long they get no clear answer, what they have tried in vain, and which jobs
//! cannot be claimed for one.

use std::sync::{Mutex, MutexGuard, PoisonError};

use time::OffsetDateTime;

use super::handles::Handles;
use crate::db::among::ClaimedTo;
use crate::policy::breaker::trials::Trials;
use crate::worker::culprits::Culprits;

/// What is remembered from one probe to the next.
pub struct Probing {
    /// Since when probes get no clear answer, and what the last one got.
    unclear: Mutex<Option<(OffsetDateTime, String)>>,
    /// What was refused, so that something else is tried next.
    trials: Mutex<Trials>,
    /// The jobs that the database does not let be claimed for a probe.
    pub culprits: tokio::sync::Mutex<Culprits>,
}

impl Probing {
    /// No probe has been made yet.
    pub fn new(handles: &Handles) -> Probing {
        Probing {
            unclear: Mutex::default(),
            trials: Mutex::default(),
            culprits: tokio::sync::Mutex::new(Culprits::new(ClaimedTo::Probe, handles)),
        }
    }

    /// Notes what a probe got, if that was no clear answer.
    pub fn note(&self, unclear: Option<String>) {
        let mut known = self.known();
        *known = unclear.map(|got| {
            let since = known.take().map(|(since, _)| since);
            (since.unwrap_or_else(OffsetDateTime::now_utc), got)
        });
    }

    /// Since when probes get no clear answer, and what the last one got; none when they do, or none is made.
    pub fn unclear(&self) -> Option<(OffsetDateTime, String)> {
        self.known().clone()
    }

    /// What was refused, so that something else is tried next.
    pub fn trials(&self) -> MutexGuard<'_, Trials> {
        self.trials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, Option<(OffsetDateTime, String)>> {
        self.unclear.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
