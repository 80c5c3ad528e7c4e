//! Refusals of an account for its rate: how many in a row.

use std::sync::atomic::{AtomicU32, Ordering};

/// Refusals for the rate in a row.
#[derive(Default)]
pub struct RateRefusals(AtomicU32);

impl RateRefusals {
    /// How many, to this moment.
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts what a request brought, of which so many refusals were known when it was sent: those
    /// under way at the same time are refused together. Nothing is known of what got no clear answer.
    pub fn note(&self, before: u32, is_refused: Option<bool>) {
        match is_refused {
            Some(true) => drop(
                self.0
                    .fetch_max(before.saturating_add(1), Ordering::Relaxed),
            ),
            Some(false) => self.0.store(0, Ordering::Relaxed),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_together_counts_once_and_a_clear_answer_ends_the_row() {
        let refusals = RateRefusals::default();
        let before = refusals.count();
        refusals.note(before, Some(true));
        refusals.note(before, Some(true));
        assert_eq!(refusals.count(), 1);
        refusals.note(refusals.count(), None);
        refusals.note(refusals.count(), Some(true));
        assert_eq!(refusals.count(), 2);
        refusals.note(before, Some(true));
        assert_eq!(refusals.count(), 2, "late, and not news");
        refusals.note(refusals.count(), Some(false));
        assert_eq!(refusals.count(), 0);
    }
}
