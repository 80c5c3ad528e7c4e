//! The claims that this daemon has in hand: it can be given none of them again, unless the database has lost commits.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use crate::domain::job::{Epoch, JobName};

/// The claims in hand, by the token of their job.
#[derive(Clone, Default)]
pub struct InHand(Arc<Mutex<BTreeSet<(Uuid, Epoch)>>>);

/// A claim in hand, until it is dropped.
pub struct Taken {
    claims: InHand,
    claim: (Uuid, Epoch),
}

impl InHand {
    /// Takes a claim in hand. `None` when the job is in hand already at this epoch or a later one: epochs only rise, so
    /// the database has forgotten that claim, and its request may be under way.
    pub fn take(&self, name: &JobName, epoch: Epoch) -> Option<Taken> {
        let claim = (name.token, epoch);
        let mut claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_job = (name.token, Epoch(i64::MIN))..=(name.token, Epoch(i64::MAX));
        let is_forgotten = claims.range(of_job).any(|(_, held)| *held >= epoch);
        if is_forgotten {
            return None;
        }
        claims.insert(claim);
        Some(Taken {
            claims: self.clone(),
            claim,
        })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut claims = (self.claims.0.lock()).unwrap_or_else(PoisonError::into_inner);
        claims.remove(&self.claim);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(token: u128) -> JobName {
        JobName {
            token: Uuid::from_u128(token),
            generation: 1,
        }
    }

    #[test]
    fn a_claim_in_hand_is_given_again_only_by_a_database_that_forgot_it() {
        let claims = InHand::default();
        let first = claims.take(&job(7), Epoch(3));
        assert!(first.is_some());
        assert!(claims.take(&job(7), Epoch(3)).is_none(), "the same claim");
        assert!(claims.take(&job(7), Epoch(2)).is_none(), "an earlier one");
        // Its lease ran out, and it was looked up and claimed again.
        let later = claims.take(&job(7), Epoch(5));
        assert!(later.is_some());
        assert!(claims.take(&job(8), Epoch(3)).is_some(), "another job");
        drop(first);
        assert!(claims.take(&job(7), Epoch(4)).is_none());
        drop(later);
        assert!(claims.take(&job(7), Epoch(3)).is_some(), "no more in hand");
    }
}
