//! An account's room: places for the tasks that work for it, and the supervision of these tasks.
//!
//! The loops only find what is due, and hand each account its part: whatever waits for an answer of the gateway is a
//! task of the account. So an account whose gateway is slow makes nobody wait but itself. Each kind of work has places
//! of its own, for a send must not wait for a look-up, nor a probe for a check.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::error;

use crate::crash;
use crate::worker::account::Account;
use crate::worker::alerting::Alert;
use crate::worker::context::Context;
use crate::worker::open;

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
    /// Whether no task is under way.
    pub fn are_free(&self) -> bool {
        Work::ALL
            .iter()
            .all(|work| self.free(*work) == work.places())
    }

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

/// Runs a task of an account, which a stop waits for. One that panics is told; what it had in hand is claimed again when
/// its lease is over, and no other task is concerned.
pub fn spawn(
    ctx: &Arc<Context>,
    account: &Arc<Account>,
    what: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
) {
    let (for_task, account) = (ctx.clone(), account.clone());
    ctx.tasks
        .spawn(async move { supervised(&for_task, &account, what, work).await });
}

/// Does a task's work, and tells when it panics.
pub async fn supervised(
    ctx: &Context,
    account: &Account,
    what: &'static str,
    work: impl Future<Output = ()>,
) {
    let work = async {
        crash::panic_in(what);
        work.await;
    };
    // Whatever it had changed is in the database, or behind locks that do not mind a panic.
    if AssertUnwindSafe(work).catch_unwind().await.is_err() {
        error!(account = %account.name, task = what, "a task of the account panicked, which is a fault of apipayd; what it had in hand is taken up again");
        open::try_to_open(
            &ctx.pool,
            &ctx.wake,
            &account.name,
            &Alert::panicked(&account.name, what),
        )
        .await;
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
