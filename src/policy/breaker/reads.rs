//! Whether the answer to a read may park its account.
//!
//! A read that is answered as if the account were unwell parks it, since sends would be answered in the same way. But such
//! an answer may be about the one object that was asked for. When a read is answered so again after a park that a read
//! began, only that read has failed: reads slow down, their failure is told as any other, and sends go on. It does not
//! matter what ended that park. Where only health said well, and was mistaken, the next send is refused without an effect
//! and parks the account itself.
//!
//! `now` is the time of a clock that nobody sets.

use std::time::Duration;

use crate::policy::verdict::AccountSignal;

/// For how long after such a park, and after each further such answer, the reads of an account park it no more. What a
/// send or a probe is answered parks it all the same.
const DOUBT: Duration = Duration::from_secs(24 * 3600);

/// How far the reads of an account are believed when they are answered as if it were unwell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reads {
    /// The next such answer parks the account.
    #[default]
    Believed,
    /// Such an answer has parked the account.
    Parked {
        /// Whether the database has shown that park.
        is_shown: bool,
    },
    /// Such a park has ended. Until this moment such an answer does not park the account.
    Doubted {
        /// Until when.
        until: Duration,
    },
}

impl Reads {
    /// A read was answered with this signal. Returns whether the account has to obey it.
    pub fn heed(&mut self, signal: &AccountSignal, now: Duration) -> bool {
        if !matches!(signal, AccountSignal::Park { .. }) {
            return true;
        }
        match self {
            Reads::Doubted { until } if now < *until => {
                *until = now + DOUBT;
                false
            }
            _ => {
                *self = Reads::Parked { is_shown: false };
                true
            }
        }
    }

    /// The database shows the account as parked, or as not parked.
    pub fn observe(&mut self, is_parked: bool, now: Duration) {
        match self {
            Reads::Parked { is_shown } if is_parked => *is_shown = true,
            Reads::Parked { is_shown: true } => self.resume(now),
            _ => {}
        }
    }

    /// A probe has ended the park.
    pub fn resume(&mut self, now: Duration) {
        if matches!(self, Reads::Parked { .. }) {
            *self = Reads::Doubted { until: now + DOUBT };
        }
    }

    /// A send or a probe says as well that the account is unwell.
    pub fn confirm(&mut self) {
        *self = Reads::Believed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::verdict::Reason;

    const SECOND: Duration = Duration::from_secs(1);

    fn unwell(reason: Reason) -> AccountSignal {
        AccountSignal::Park {
            reason,
            hint: None,
            said: None,
            undelivered: None,
        }
    }

    /// Of an account that a read has parked, and that went on after that.
    fn doubted() -> Reads {
        let mut reads = Reads::default();
        assert!(reads.heed(&unwell(Reason::ServiceUnavailable), SECOND));
        reads.observe(true, SECOND);
        reads.observe(false, SECOND);
        reads
    }

    #[test]
    fn the_first_such_answer_parks_and_the_next_ones_do_not_once_the_account_went_on() {
        let mut reads = doubted();
        for hours in [1, 20, 40, 60] {
            let now = SECOND * 3600 * hours;
            assert!(!reads.heed(&unwell(Reason::ServiceUnavailable), now));
            assert!(!reads.heed(&unwell(Reason::SessionExpired), now));
            // The key has just been good for a send.
            assert!(!reads.heed(&unwell(Reason::KeyRejected), now));
        }
        assert!(reads.heed(&unwell(Reason::ServiceUnavailable), SECOND * 3600 * 85));
    }

    #[test]
    fn a_row_that_was_read_before_the_park_was_stored_ends_no_belief() {
        let mut reads = Reads::default();
        assert!(reads.heed(&unwell(Reason::SessionExpired), SECOND));
        reads.observe(false, SECOND);
        assert!(reads.heed(&unwell(Reason::SessionExpired), SECOND));
    }

    #[test]
    fn a_send_or_a_probe_that_says_so_as_well_restores_the_belief() {
        let mut reads = doubted();
        reads.confirm();
        assert!(reads.heed(&unwell(Reason::ServiceUnavailable), SECOND));
        reads.confirm();
        reads.observe(true, SECOND);
        reads.observe(false, SECOND);
        assert!(reads.heed(&unwell(Reason::ServiceUnavailable), SECOND));
    }

    #[test]
    fn the_probe_that_ends_the_park_begins_the_doubt() {
        let mut reads = Reads::default();
        reads.resume(SECOND);
        assert!(reads.heed(&unwell(Reason::ServiceUnavailable), SECOND));
        reads.resume(SECOND);
        assert!(!reads.heed(&unwell(Reason::ServiceUnavailable), SECOND));
    }
}
