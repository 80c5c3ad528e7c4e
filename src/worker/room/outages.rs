//! How the requests of an account go: its sends, and each kind of its reads, as far as is known here.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;

use crate::domain::outage::{Course, Outage, Read};

/// What is known of an account's requests that got no clear answer.
#[derive(Default)]
pub struct Outages(Mutex<Outage>);

impl Outages {
    /// What the database says of all kinds of requests.
    pub fn learn(&self, outage: Outage) {
        *self.outage() = outage;
    }

    /// What is known of its sends, or of its reads of this kind.
    pub fn learn_of(&self, kind: Option<Read>, course: Course) {
        let mut outage = self.outage();
        match kind {
            None => outage.sends = course,
            Some(read) => drop(outage.reads.insert(read, course)),
        }
    }

    /// How its sends go, or its reads of this kind.
    pub fn course(&self, kind: Option<Read>) -> Course {
        self.outage().course(kind)
    }

    /// Whether one job of it tries while the others wait.
    pub fn is_slow(&self) -> bool {
        self.outage().is_slow()
    }

    /// Whether reads of this kind have slowed down.
    pub fn reads_slowly(&self, read: Read) -> bool {
        self.outage().reads_slowly(read)
    }

    /// Whether a read of this kind may be made (see [`Outage::may_read`]).
    pub fn may_read(&self, read: Read, now: OffsetDateTime, longest: Duration) -> bool {
        self.outage().may_read(read, now, longest)
    }

    /// Takes the trial of this kind of reads, where one is due: until its answer is known, no other is due before `until`.
    pub fn take_trial(
        &self,
        read: Read,
        now: OffsetDateTime,
        longest: Duration,
        until: OffsetDateTime,
    ) -> bool {
        let mut outage = self.outage();
        let is_due = outage.reads_slowly(read) && outage.may_read(read, now, longest);
        let row = outage.reads.get_mut(&read);
        if let Some(row) = row
            .and_then(|course| course.failing.as_mut())
            .filter(|_| is_due)
        {
            row.trial_at = Some(until);
        }
        is_due
    }

    /// Nothing in it can be half-changed, so a panic elsewhere does not spoil it.
    fn outage(&self) -> MutexGuard<'_, Outage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::outage::{Fault, Row};

    #[test]
    fn a_trial_is_taken_once() {
        let (now, minute) = (OffsetDateTime::UNIX_EPOCH, Duration::from_secs(60));
        let slow = Course {
            failing: Some(Row {
                since: now,
                fault: Fault {
                    code: "server_error".to_owned(),
                    status: Some(500),
                    said: None,
                },
                failed_at: now,
                job: None,
                failures: 3,
                trial_at: Some(now + minute / 2),
            }),
            refused_since: None,
        };
        let outages = Outages::default();
        outages.learn_of(Some(Read::Refunds), slow);
        let take = |read, now| outages.take_trial(read, now, minute, now + minute / 2);
        assert!(!take(Read::Check, now + minute / 2));
        for (after, is_taken) in [
            (29, false),
            (30, true),
            (30, false),
            (59, false),
            (60, true),
        ] {
            let now = now + Duration::from_secs(after);
            assert_eq!(take(Read::Refunds, now), is_taken, "{after}");
        }
        assert!(outages.reads_slowly(Read::Refunds));
    }

    #[test]
    fn what_is_learned_of_one_kind_says_nothing_of_the_others() {
        let outages = Outages::default();
        let refused = Course {
            refused_since: Some(OffsetDateTime::UNIX_EPOCH),
            ..Course::default()
        };
        outages.learn_of(Some(Read::Check), refused.clone());
        assert_eq!(outages.course(Some(Read::Check)), refused);
        assert_eq!(outages.course(Some(Read::Refunds)), Course::default());
        assert_eq!(outages.course(None), Course::default());
        outages.learn_of(None, refused.clone());
        assert_eq!(outages.course(None), refused);
        outages.learn(Outage::default());
        assert_eq!(outages.course(None), Course::default());
    }
}
