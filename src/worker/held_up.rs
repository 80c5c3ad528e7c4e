//! Accounts that cannot begin to be served, or cannot be changed: who keeps them from it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::warn;

use crate::db::entry::Entry;
use crate::db::fault::AtFault;
use crate::db::locks::{self, Holder};
use crate::db::{DbError, Pool};
use crate::domain::account::AccountName;
use crate::worker::alerting;

/// What an account cannot begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Its row and its counts.
    Row,
    /// The key that it is served with.
    Key,
    /// It is served, and what the gateway says of it cannot be stored: a park, a block, a cap.
    Change,
}

/// The accounts that cannot begin to be served, or cannot be changed, and why, in words.
#[derive(Debug, Default)]
pub struct HeldUp(Mutex<BTreeMap<(AccountName, Stage), String>>);

impl HeldUp {
    /// Why each account is held up that cannot begin.
    pub fn list(&self) -> Vec<(AccountName, String)> {
        self.causes(|stage| stage != Stage::Change)
    }

    /// Why each account is held up that cannot be changed.
    pub fn unchanged(&self) -> Vec<(AccountName, String)> {
        self.causes(|stage| stage == Stage::Change)
    }

    fn causes(&self, is_meant: impl Fn(Stage) -> bool) -> Vec<(AccountName, String)> {
        let entries = self.entries();
        let meant = entries.iter().filter(|((_, stage), _)| is_meant(*stage));
        let causes = meant.map(|((account, _), cause)| (account.clone(), cause.clone()));
        causes.collect()
    }

    /// The account is not held up any more by this.
    pub fn clear(&self, account: &AccountName, stage: Stage) {
        self.entries().remove(&(account.clone(), stage));
    }

    /// The account is not served any more.
    pub fn forget(&self, account: &AccountName) {
        self.entries().retain(|(held_up, _), _| held_up != account);
    }

    /// Notes that an account cannot begin, or be changed, and who keeps it from that; `error` is none where rows were passed over because
    /// somebody has them locked.
    pub async fn hold_up(
        &self,
        pool: &Pool,
        account: &AccountName,
        stage: Stage,
        error: Option<&DbError>,
    ) {
        let is_locked = error.is_none_or(|error| error.fault() == AtFault::Lock);
        let blocker = if is_locked {
            match locks::holder(pool, account, &Entry::default()).await {
                Ok(holder) => holder.and_then(Holder::other),
                Err(_) => None,
            }
        } else {
            None
        };
        let cause = error.map(DbError::cause);
        let words = alerting::held_up(cause.as_ref(), blocker.as_ref());
        if self.note(account, stage, words.clone()) && stage != Stage::Change {
            warn!(account = %account, cause = words, "the account cannot begin to be served; the others are, and it is tried again");
        }
    }

    fn note(&self, account: &AccountName, stage: Stage, cause: String) -> bool {
        let before = self.entries().insert((account.clone(), stage), cause);
        before.is_none()
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<(AccountName, Stage), String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
