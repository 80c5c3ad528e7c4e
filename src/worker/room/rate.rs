//! Refusals of an account for its rate: how many in a row.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::worker::clock::Moment;

/// Refusals for the rate in a row.
#[derive(Default)]
pub struct RateRefusals(Mutex<Row>);

#[derive(Default)]
struct Row {
    count: u32,
    /// When the wait of the newest is over, if nobody ends it.
    over_at: Option<Moment>,
}

/// A request that is about to leave, as [`RateRefusals::note`] wants it.
#[derive(Clone, Copy, Debug)]
pub struct Leaving {
    before: u32,
    is_early: bool,
}

impl RateRefusals {
    /// How many, to this moment.
    pub fn count(&self) -> u32 {
        self.row().count
    }

    /// A request leaves at this moment.
    pub fn leaving(&self, now: Moment) -> Leaving {
        let row = self.row();
        Leaving {
            before: row.count,
            is_early: row.over_at.is_some_and(|over_at| now < over_at),
        }
    }

    /// The gateway asks all to wait for so long, from this moment on. A longer wait stays, as it does in the database.
    pub fn wait(&self, now: Moment, wait: Duration) {
        let mut row = self.row();
        let over_at = now.after(wait.saturating_sub(wait / TOLERANCE));
        row.over_at = Some(row.over_at.map_or(over_at, |known| known.max(over_at)));
    }

    /// Counts what a request brought. Those under way at the same time are refused together. One that left before the
    /// wait was over did so upon the word of a person, who had ended it: it takes the place of the one that was due then,
    /// and the next wait is no longer for it. One that was taken and had left before the newest refusal says nothing of what
    /// came after, and nothing is known of what got no clear answer.
    pub fn note(&self, leaving: Leaving, is_refused: Option<bool>) {
        let mut row = self.row();
        match is_refused {
            Some(true) if leaving.is_early => {
                row.count = row.count.max(leaving.before).max(1);
                // The wait that was ended stands no more; the one that this answer asks for does.
                row.over_at = None;
            }
            Some(true) => row.count = row.count.max(leaving.before.saturating_add(1)),
            Some(false) if leaving.before == row.count => *row = Row::default(),
            Some(false) | None => {}
        }
    }

    /// Nothing in it can be half-changed, so a panic elsewhere does not spoil it.
    fn row(&self) -> MutexGuard<'_, Row> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// This part of a wait is left out: the database's clock may go a little faster than that of this machine, and what is
/// sent at the end of the wait is not early.
const TOLERANCE: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_refused_together_counts_once_and_a_clear_answer_ends_the_row() {
        let refusals = RateRefusals::default();
        let now = Moment::now();
        let before = refusals.leaving(now);
        refusals.note(before, Some(true));
        refusals.note(before, Some(true));
        assert_eq!(refusals.count(), 1);
        refusals.note(refusals.leaving(now), None);
        refusals.note(refusals.leaving(now), Some(true));
        assert_eq!(refusals.count(), 2);
        refusals.note(before, Some(true));
        assert_eq!(refusals.count(), 2, "late, and not news");
        refusals.note(before, Some(false));
        assert_eq!(refusals.count(), 2, "it had left before both refusals");
        refusals.note(refusals.leaving(now), Some(false));
        assert_eq!(refusals.count(), 0);
    }

    #[test]
    fn a_try_before_the_end_of_the_wait_does_not_lengthen_the_next_one() {
        let refusals = RateRefusals::default();
        let start = Moment::now();
        let at = |minutes: u32| start.after(MINUTE * minutes);
        let refused = |minutes, wait: u32| {
            refusals.note(refusals.leaving(at(minutes)), Some(true));
            refusals.wait(at(minutes), MINUTE * wait);
            refusals.count()
        };
        assert_eq!(refused(0, 1), 1);
        assert_eq!(refused(1, 2), 2, "the wait is over");
        for _ in 0..5 {
            assert_eq!(refused(2, 2), 2, "somebody has ended it");
        }
        assert_eq!(refused(3, 2), 2, "the wait that the try has begun counts");
        assert_eq!(refused(5, 4), 3);
        // What is due at the end of a wait is not early, should the clocks differ a little.
        let soon = at(9).before(Duration::from_secs(2));
        refusals.note(refusals.leaving(soon), Some(true));
        assert_eq!(refusals.count(), 4);
        refusals.note(refusals.leaving(soon), Some(false));
        assert_eq!(refused(9, 1), 1, "a clear answer ends the wait as well");
    }

    #[test]
    fn of_two_waits_the_longer_counts_until_somebody_ends_it() {
        let refusals = RateRefusals::default();
        let start = Moment::now();
        let at = |minutes: u32| start.after(MINUTE * minutes);
        let refused = |minutes, wait: u32| {
            refusals.note(refusals.leaving(at(minutes)), Some(true));
            refusals.wait(at(minutes), MINUTE * wait);
            refusals.count()
        };
        assert_eq!(refused(0, 60), 1);
        refusals.wait(at(0), MINUTE);
        assert_eq!(refused(5, 1), 1, "somebody has ended the hour");
        assert_eq!(refused(6, 1), 2, "and the minute was waited for");
    }
}
