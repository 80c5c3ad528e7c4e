//! What several answers mean for their account together.
//!
//! Answers that come at the same time may each say that the account is unwell. It is parked for one reason, so the one is
//! chosen here that helps a person most.

use std::time::Duration;

use crate::domain::job::JobId;
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

/// The job whose send was refused with an answer that parks its account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedSend {
    /// The job.
    pub job: JobId,
    /// The name of its operation.
    pub operation: String,
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
    /// What was refused so; none when something was only asked.
    pub refused: Option<RefusedSend>,
}

impl Combined {
    /// Adds what a later answer means, with what it has refused. Of several reasons for a park the last specific one counts,
    /// or else the first.
    pub fn add(&mut self, signal: &AccountSignal, refused: Option<&RefusedSend>) {
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
                    self.park = Some(Park {
                        reason,
                        hint,
                        said,
                        refused: refused.cloned(),
                    });
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
            combined.add(signal, None);
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
    fn what_was_refused_is_that_of_the_reason_that_counts() {
        let of = |job, operation: &str| RefusedSend {
            job: JobId(job),
            operation: operation.to_owned(),
        };
        let (bill, cancel) = (of(1, "invoice.create"), of(2, "invoice.cancel"));
        let mut combined = Combined::default();
        combined.add(&park(Reason::ServiceUnavailable, None), Some(&bill));
        combined.add(&park(Reason::SessionExpired, None), Some(&cancel));
        assert_eq!(combined.park.unwrap().refused, Some(cancel));
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
