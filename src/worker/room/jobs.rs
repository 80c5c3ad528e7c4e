//! The jobs of an account that this daemon has claimed, and those that it could not claim or send.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// How many jobs of an account are in hand, and what kept others from it.
#[derive(Default)]
pub struct Jobs {
    /// Jobs claimed and not yet finished: in flight, or waiting for a slot.
    claimed: Arc<AtomicUsize>,
    /// Jobs claimed since the start.
    claims: AtomicU64,
    /// Jobs that the database refuses to have claimed, and that are left out.
    refused: AtomicU32,
    /// Whether every claim since the last request that left was too old to be sent.
    is_late: AtomicBool,
}

/// A job of an account that is claimed and not yet finished.
pub struct Claimed(Arc<AtomicUsize>);

impl Drop for Claimed {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Jobs {
    /// Counts a claimed job for as long as the answer lives.
    pub fn count_claimed(&self) -> Claimed {
        self.claimed.fetch_add(1, Ordering::Relaxed);
        self.claims.fetch_add(1, Ordering::Relaxed);
        Claimed(self.claimed.clone())
    }

    /// Jobs that are claimed and not yet finished.
    pub fn claimed(&self) -> usize {
        self.claimed.load(Ordering::Relaxed)
    }

    /// Jobs that were claimed since the start.
    pub fn claims(&self) -> u64 {
        self.claims.load(Ordering::Relaxed)
    }

    /// Notes how many jobs are left out of its claims.
    pub fn note_refused(&self, jobs: u32) {
        self.refused.store(jobs, Ordering::Relaxed);
    }

    /// Jobs that are left out of its claims, because the database refuses them.
    pub fn refused(&self) -> u32 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Notes whether a claim was too old to be sent, or its request left.
    pub fn note_late(&self, is_late: bool) {
        self.is_late.store(is_late, Ordering::Relaxed);
    }

    /// Whether claims have only been too old to be sent of late.
    pub fn is_late(&self) -> bool {
        self.is_late.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_in_hand_until_it_is_let_go_and_was_claimed_for_ever() {
        let jobs = Jobs::default();
        let (one, other) = (jobs.count_claimed(), jobs.count_claimed());
        assert_eq!((jobs.claimed(), jobs.claims()), (2, 2));
        drop(one);
        assert_eq!((jobs.claimed(), jobs.claims()), (1, 2));
        drop(other);
        assert_eq!((jobs.claimed(), jobs.claims()), (0, 2));
    }
}
