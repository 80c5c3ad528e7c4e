//! Places for the tasks of an account beside its sends. Each kind of work has places of its own, for a send must not wait
//! for a look-up, nor a probe for a check.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What the tasks of an account are for, beside its sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Finding out what became of an uncertain job.
    LookUp,
    /// Asking for what was accepted.
    Follow,
    /// Asking whether the account is well, and the one job that is let through then.
    Probe,
}

impl Work {
    const ALL: [Work; 3] = [Work::LookUp, Work::Follow, Work::Probe];

    /// How many tasks of this kind an account may have at once.
    const fn places(self) -> usize {
        match self {
            Work::LookUp => 8,
            Work::Follow | Work::Probe => 1,
        }
    }
}

/// The places of one account.
pub struct Places([Arc<Semaphore>; Work::ALL.len()]);

/// A place in use; free again when it is dropped.
pub struct Place(OwnedSemaphorePermit);

impl Default for Places {
    fn default() -> Places {
        Places(Work::ALL.map(|work| Arc::new(Semaphore::new(work.places()))))
    }
}

impl Places {
    /// How many more tasks of this kind there may be.
    pub fn free(&self, work: Work) -> usize {
        self.0[work as usize].available_permits()
    }

    /// Takes a place, if there is a free one.
    pub fn take(&self, work: Work) -> Option<Place> {
        let place = self.0[work as usize].clone().try_acquire_owned();
        place.ok().map(Place)
    }
}

impl Place {
    /// Whether there is no other one of its kind.
    pub fn is_last(&self) -> bool {
        self.0.semaphore().available_permits() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_work_has_places_of_its_own() {
        let places = Places::default();
        let taken: Vec<Place> = std::iter::from_fn(|| places.take(Work::LookUp)).collect();
        assert_eq!(taken.len(), Work::LookUp.places());
        assert_eq!(places.free(Work::LookUp), 0);
        assert!(taken[0].is_last());
        let check = places.take(Work::Follow).unwrap();
        assert!(places.take(Work::Follow).is_none());
        assert_eq!(places.free(Work::Probe), 1);
        drop((taken, check));
        assert_eq!(places.free(Work::LookUp), Work::LookUp.places());
        assert_eq!(places.free(Work::Follow), 1);
    }
}
