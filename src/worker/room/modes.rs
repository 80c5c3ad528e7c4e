//! In which mode the gateway treats an account, live or sandbox, as far as answers show it.
//!
//! Only what shows a whole invoice does: neither the answer to a bill nor a check (API, sections 2.1 and 2.6). So of
//! an account that only succeeds one new invoice is read by itself now and then.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::gateway::wire::ShownMode;
use crate::worker::clock::Moment;

/// How long a mode that was seen is believed without another look.
const BELIEVED: Duration = Duration::from_secs(3600);

/// The same while it is not the one that is stored, and the alert says so.
const DISPUTED: Duration = Duration::from_secs(10);

/// The newest invoice that showed its mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight(ShownMode);

impl Sight {
    /// The word for the mode.
    pub fn mode(self) -> &'static str {
        if self.0.is_sandbox { "sandbox" } else { "live" }
    }

    /// The invoice that showed it.
    pub fn invoice(self) -> i64 {
        self.0.invoice
    }
}

/// What answers have shown of an account's mode.
#[derive(Default)]
pub struct Modes(Mutex<Known>);

#[derive(Default)]
struct Known {
    newest: Option<Sight>,
    told: Option<Sight>,
    is_disputed: bool,
    looked_at: Option<Moment>,
}

impl Modes {
    /// An answer showed an invoice. An older one than was seen keeps its own mode, and says nothing of now.
    pub fn see(&self, shown: ShownMode) {
        let mut known = self.known();
        let is_older = |seen: Sight| shown.invoice < seen.0.invoice;
        if !known.newest.is_some_and(is_older) {
            known.newest = Some(Sight(shown));
            known.looked_at = Some(Moment::now());
        }
    }

    /// The mode to compare with `accounts.mode`: one that differs from the last comparison, or that of a newer invoice
    /// while the alert is open.
    pub fn untold(&self) -> Option<Sight> {
        let known = self.known();
        let is_told = |sight: &Sight| match known.told {
            None => false,
            Some(told) => told == *sight || (!known.is_disputed && told.mode() == sight.mode()),
        };
        known.newest.filter(|sight| !is_told(sight))
    }

    /// This was compared; `is_disputed` while another mode is stored.
    pub fn told(&self, sight: Sight, is_disputed: bool) {
        let mut known = self.known();
        known.told = Some(sight);
        known.is_disputed = is_disputed;
    }

    /// Whether the mode was not seen for so long that a new invoice is to be read for it; then it counts as looked at.
    pub fn wants_a_look(&self) -> bool {
        let mut known = self.known();
        let believed = if known.is_disputed {
            DISPUTED
        } else {
            BELIEVED
        };
        let wants = known.looked_at.is_none_or(|at| at.elapsed() >= believed);
        if wants {
            known.looked_at = Some(Moment::now());
        }
        wants
    }

    /// Nothing in it can be half-changed, so a panic elsewhere does not spoil it.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(invoice: i64, is_sandbox: bool) -> ShownMode {
        ShownMode {
            invoice,
            is_sandbox,
        }
    }

    #[test]
    fn a_mode_is_compared_when_it_is_new_and_older_invoices_say_nothing() {
        let modes = Modes::default();
        assert_eq!(modes.untold(), None);
        modes.see(shown(5, false));
        let first = modes.untold().unwrap();
        assert_eq!((first.mode(), first.0.invoice), ("live", 5));
        modes.told(first, false);
        modes.see(shown(6, false));
        assert_eq!(modes.untold(), None, "no news");
        modes.see(shown(4, true));
        assert_eq!(modes.untold(), None, "an older one");
        modes.see(shown(7, true));
        let other = modes.untold().unwrap();
        assert_eq!(other.mode(), "sandbox");
        modes.told(other, true);
        assert_eq!(modes.untold(), None);
        // An operator may have accepted it meanwhile.
        modes.see(shown(8, true));
        assert!(modes.untold().is_some());
        modes.see(shown(9, false));
        assert_eq!(modes.untold().unwrap().mode(), "live");
    }

    #[test]
    fn a_look_is_wanted_once_in_a_while() {
        let modes = Modes::default();
        assert!(modes.wants_a_look());
        assert!(!modes.wants_a_look(), "it is under way");
        let seen = Modes::default();
        seen.see(shown(5, false));
        assert!(!seen.wants_a_look());
    }
}
