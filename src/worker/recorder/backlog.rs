//! The outcomes in memory, and whether the database is behind with them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The outcomes in memory that are to be recorded.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    pub(super) outcomes: usize,
    /// Whether the database was away while there were some: until all of them are recorded.
    pub(super) is_behind: bool,
}

/// One outcome of the backlog.
#[derive(Debug)]
pub(super) struct Kept(Arc<Mutex<Backlog>>);

impl Kept {
    pub(super) fn new(backlog: &Arc<Mutex<Backlog>>) -> Kept {
        lock(backlog).outcomes += 1;
        Kept(backlog.clone())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut backlog = lock(&self.0);
        backlog.outcomes -= 1;
        if backlog.outcomes == 0 {
            backlog.is_behind = false;
        }
    }
}

/// Nothing in it can be half-changed, so a panic elsewhere does not spoil it.
pub(super) fn lock(backlog: &Mutex<Backlog>) -> MutexGuard<'_, Backlog> {
    backlog.lock().unwrap_or_else(PoisonError::into_inner)
}
