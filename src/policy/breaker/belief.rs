//! Whether an answer that says that the account is unwell is believed of the account.
//!
//! The first such answer parks the account, whatever was asked. But it may be about the one object that was read, about one
//! operation, or about one job. What shows that it is, and that the next such answers of the same kind park nothing:
//!
//! - of a read: the park that it began has ended. It does not matter what ended that park. Where only health said well, and
//!   was mistaken, the next send is refused without an effect and parks the account itself.
//! - of a send: something of another operation was sent with success after it
//!   ([`Next::is_taken`](crate::policy::verdict::Next::is_taken)). Then the answers to sends of its operation are doubted. A
//!   success of the same operation says that it was about the one job, whose answers are doubted then.
//!
//! A doubted answer is the failure of that read, or of that job, which is tried again by itself, and the account goes on.
//! The doubt about an operation ends when one of its sends succeeds; all doubts end when something that is believed says
//! that the account is unwell, or a day after the last answer that was doubted.
//!
//! `now` is the time of a clock that nobody sets.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::domain::job::JobId;
use crate::policy::verdict::AccountSignal;

/// For how long such answers are doubted, from what has shown that they are not about the account, and from each further
/// one.
const DOUBT: Duration = Duration::from_secs(24 * 3600);

/// Of an operation so many jobs are remembered that were answered so: those that were last.
const REMEMBERED: usize = 1000;

/// How far such answers of one kind are believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Belief {
    /// The next such answer parks the account.
    #[default]
    Believed,
    /// Such an answer has parked the account.
    Parked {
        /// Whether the database has shown that park.
        is_shown: bool,
    },
    /// It was not about the account. Until this moment such an answer does not park the account.
    Doubted {
        /// Until when.
        until: Duration,
    },
}

impl Belief {
    /// One more such answer. Returns whether the account has to obey it.
    fn heed(&mut self, now: Duration) -> bool {
        match self {
            Belief::Doubted { until } if now < *until => {
                *until = now + DOUBT;
                false
            }
            _ => {
                *self = Belief::Parked { is_shown: false };
                true
            }
        }
    }

    /// What has parked the account was not about the account.
    fn doubt(&mut self, now: Duration) {
        if matches!(self, Belief::Parked { .. }) {
            *self = Belief::Doubted { until: now + DOUBT };
        }
    }
}

/// How far the answers to sends of one operation are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sends {
    belief: Belief,
    /// When the last of them was answered so.
    refused_at: Duration,
    /// The jobs that were answered so and have not succeeded since.
    jobs: BTreeMap<JobId, Refused>,
}

/// A job that was answered so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Refused {
    /// When, the last time.
    at: Duration,
    /// Until when its answers are doubted, if others of its operation have succeeded since.
    doubted_until: Option<Duration>,
}

impl Sends {
    fn heed(&mut self, job: JobId, now: Duration) -> bool {
        self.refused_at = now;
        let known = self.jobs.get(&job).and_then(|known| known.doubted_until);
        let is_doubted = known.is_some_and(|until| now < until);
        let doubted_until = is_doubted.then_some(now + DOUBT);
        let refused = Refused {
            at: now,
            doubted_until,
        };
        self.jobs.insert(job, refused);
        self.jobs.retain(|_, refused| now < refused.at + DOUBT);
        while self.jobs.len() > REMEMBERED {
            let oldest = self.jobs.iter().min_by_key(|(_, refused)| refused.at);
            let Some(oldest) = oldest.map(|(job, _)| *job) else {
                break;
            };
            self.jobs.remove(&oldest);
        }
        !is_doubted && self.belief.heed(now)
    }

    /// Another job of the operation was sent with success, by a request that left at this moment.
    fn succeed(&mut self, job: JobId, left_at: Duration, now: Duration) {
        if self.refused_at < left_at {
            self.belief = Belief::Believed;
        }
        if self.jobs.get(&job).is_some_and(|own| own.at < left_at) {
            self.jobs.remove(&job);
        }
        for refused in self.jobs.values_mut() {
            if refused.at < left_at {
                refused.doubted_until = refused.doubted_until.max(Some(now + DOUBT));
            }
        }
    }

    /// Something that is believed says as well that the account is unwell: what succeeds after that says anew whether it was.
    fn confirm(&mut self) {
        if matches!(self.belief, Belief::Doubted { .. }) {
            self.belief = Belief::Parked { is_shown: false };
        }
        for refused in self.jobs.values_mut() {
            refused.doubted_until = None;
        }
    }
}

/// How far answers are believed that say that the account is unwell: those to its reads, and those to its sends of each
/// operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beliefs {
    reads: Belief,
    sends: BTreeMap<String, Sends>,
}

impl Beliefs {
    /// A read was answered with this signal. Returns whether the account has to obey it.
    pub fn heed_read(&mut self, signal: &AccountSignal, now: Duration) -> bool {
        !matches!(signal, AccountSignal::Park { .. }) || self.reads.heed(now)
    }

    /// The send of a job of this operation was answered with this signal. Returns whether the account has to obey it.
    pub fn heed_send(
        &mut self,
        operation: &str,
        job: JobId,
        signal: &AccountSignal,
        now: Duration,
    ) -> bool {
        if !matches!(signal, AccountSignal::Park { .. }) {
            return true;
        }
        let sends = self.sends.entry(operation.to_owned()).or_default();
        if !sends.heed(job, now) {
            return false;
        }
        self.reads = Belief::Believed;
        let others = self.sends.iter_mut();
        let others = others.filter(|(name, _)| name.as_str() != operation);
        others.for_each(|(_, sends)| sends.confirm());
        true
    }

    /// A job of this operation was sent with success, by a request that left at this moment.
    pub fn got_through(&mut self, operation: &str, job: JobId, left_at: Duration, now: Duration) {
        for (name, sends) in &mut self.sends {
            if name == operation {
                sends.succeed(job, left_at, now);
            } else if sends.refused_at < left_at {
                sends.belief.doubt(now);
            }
        }
    }

    /// The database shows the account as parked, or as not parked.
    pub fn observe(&mut self, is_parked: bool, now: Duration) {
        match &mut self.reads {
            Belief::Parked { is_shown } if is_parked => *is_shown = true,
            Belief::Parked { is_shown: true } => self.resume(now),
            _ => {}
        }
    }

    /// A probe has ended the park.
    pub fn resume(&mut self, now: Duration) {
        self.reads.doubt(now);
    }

    /// Health says as well that the account is unwell.
    pub fn confirm(&mut self) {
        self.reads = Belief::Believed;
        self.sends.values_mut().for_each(Sends::confirm);
    }
}

#[cfg(test)]
mod tests;
