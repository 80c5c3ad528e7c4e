//! What several answers mean for their account together.
//!
//! Answers that come at the same time may each say that the account is unwell. It is parked for one reason, so the one is
//! chosen here that helps a person most.

use std::time::Duration;

use crate::domain::outage::Undelivered;
use crate::policy::remedy::is_specific;
use crate::policy::verdict::{AccountSignal, Reason, Scope};

/// What the account is to be told of some answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Combined {
    /// Waits that the gateway asked for, in the order of the answers.
    pub blocks: Vec<Block>,
    /// Why it is parked because of what was answered.
    pub park: Option<Park>,
    /// Why it is parked because of what was accepted and has failed since: the latest that was accepted.
    pub undelivered: Option<(Reason, Undelivered)>,
}

/// A wait that the gateway asked for; the fields are those of [`AccountSignal::Block`].
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// For how long.
    pub wait: Duration,
    /// The gateway's code.
    pub code: String,
    /// The gateway's own words, or the beginning.
    pub said: Option<String>,
    /// What waits.
    pub scope: Scope,
    /// Whether a human must know: a cap, not a rate.
    pub capped: bool,
}

/// A park because of an answer; the fields are those of [`AccountSignal::Park`].
#[derive(Clone, Debug, PartialEq)]
pub struct Park {
    /// Why.
    pub reason: Reason,
    /// How long the gateway asked to wait before asking again.
    pub hint: Option<Duration>,
    /// The gateway's own words, or the beginning.
    pub said: Option<String>,
}

impl Combined {
    /// Adds what a later answer means. Of several reasons for a park the last specific one counts, or else the first.
    pub fn add(&mut self, signal: &AccountSignal) {
        match signal.clone() {
            AccountSignal::Block {
                wait,
                code,
                said,
                scope,
                capped,
            } => self.blocks.push(Block {
                wait,
                code,
                said,
                scope,
                capped,
            }),
            AccountSignal::Park {
                reason,
                undelivered: Some(failed),
                ..
            } => {
                let known = self.undelivered.as_ref();
                if known.is_none_or(|(_, known)| known.accepted_at < failed.accepted_at) {
                    self.undelivered = Some((reason, failed));
                }
            }
            AccountSignal::Park {
                reason,
                hint,
                said,
                undelivered: None,
            } => {
                if self.park.is_none() || is_specific(reason) {
                    self.park = Some(Park { reason, hint, said });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    fn park(reason: Reason, accepted_at: Option<i64>) -> AccountSignal {
        AccountSignal::Park {
            reason,
            hint: None,
            said: None,
            undelivered: accepted_at.map(|second| Undelivered {
                code: format!("code_{second}"),
                accepted_at: OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(second),
            }),
        }
    }

    fn combined(signals: &[AccountSignal]) -> Combined {
        let mut combined = Combined::default();
        for signal in signals {
            combined.add(signal);
        }
        combined
    }

    #[test]
    fn of_several_reasons_the_one_that_says_more_counts() {
        let vague = park(Reason::ServiceUnavailable, None);
        let specific = park(Reason::SessionExpired, None);
        for signals in [
            vec![vague.clone(), specific.clone()],
            vec![specific.clone(), vague.clone()],
        ] {
            let park = combined(&signals).park.unwrap();
            assert_eq!(park.reason, Reason::SessionExpired);
        }
        let park = combined(&[vague.clone(), vague]).park.unwrap();
        assert_eq!(park.reason, Reason::ServiceUnavailable);
    }

    #[test]
    fn of_several_failures_at_kaspi_the_latest_that_was_accepted_counts() {
        let signals = [5, 9, 7].map(|second| park(Reason::SessionExpired, Some(second)));
        let (_, failed) = combined(&signals).undelivered.unwrap();
        assert_eq!(failed.code, "code_9");
    }

    #[test]
    fn a_park_because_of_an_answer_and_one_because_of_a_failure_are_both_told() {
        let both = combined(&[
            park(Reason::SessionExpired, Some(1)),
            park(Reason::KeyRejected, None),
        ]);
        assert!(both.park.is_some() && both.undelivered.is_some());
        assert!(both.blocks.is_empty());
    }
}
