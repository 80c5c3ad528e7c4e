//! What is done once after a start, for each account by itself: its row is made or brought up to date, and what was counted
//! before the machine was started counts from now. Whoever keeps rows of one account locked holds up that account and no
//! other: it is tried again each second, and told when that lasts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use tracing::{info, warn};

use crate::db::entry::Entry;
use crate::db::fault::Fault;
use crate::db::locks::{self, Holder};
use crate::db::{DbError, accounts, alerts};
use crate::domain::account::AccountName;
use crate::telemetry::Chain;
use crate::worker::account::Account;
use crate::worker::alerting;
use crate::worker::context::Context;
use crate::worker::pulse::Step;

/// Accounts that are tried at once: one that is locked takes a third of a second.
const AT_ONCE: usize = 8;

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

    fn note(&self, account: &AccountName, stage: Stage, cause: String) -> bool {
        let before = self.entries().insert((account.clone(), stage), cause);
        before.is_none()
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, BTreeMap<(AccountName, Stage), String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes that an account cannot begin, or be changed, and who keeps it from that; `error` is none where rows were passed over because
/// somebody has them locked.
pub async fn hold_up(ctx: &Context, account: &AccountName, stage: Stage, error: Option<&DbError>) {
    let is_locked = error.is_none_or(|error| error.fault() == Fault::Lock);
    let blocker = if is_locked {
        match locks::holder(&ctx.pool, account, &Entry::default()).await {
            Ok(holder) => holder.and_then(Holder::other),
            Err(_) => None,
        }
    } else {
        None
    };
    let cause = error.map(DbError::cause);
    let words = alerting::held_up(cause.as_ref(), blocker.as_ref());
    if ctx.held_up.note(account, stage, words.clone()) && stage != Stage::Change {
        warn!(account = %account, cause = words, "the account cannot begin to be served; the others are, and it is tried again");
    }
}

/// What is left to do of the start.
#[derive(Debug, Default)]
pub struct Start {
    is_told: bool,
}

impl Start {
    /// Does what can be done now.
    pub async fn step(&mut self, ctx: &Context) -> Result<Step, DbError> {
        let has_begun = |account: &Arc<Account>| account.has_begun();
        let open = ctx.accounts.open();
        if self.is_told && ctx.clock.has_begun() && open.iter().all(has_begun) {
            return Ok(Step::Idle);
        }
        if !self.is_told {
            // Whoever starts it has read why it stopped sending.
            let names = ctx.account_names();
            let left = alerts::end_history_lost(&ctx.pool, &ctx.host, &names, ctx.worker).await?;
            self.is_told = left == 0;
        }
        let mut stores = Vec::new();
        for account in open {
            if !account.has_begun() {
                stores.push(store(ctx, account));
            }
        }
        let stored: Vec<_> = futures_util::stream::iter(stores)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let locked = match ctx.clock.begin(&ctx.pool).await {
            Ok(locked) => locked,
            // Others of the machine store the same.
            Err(error) if error.fault() != Fault::Database => {
                warn!(error = %Chain(&error), "where the steady time begins is not stored yet");
                for (account, _) in stored {
                    hold_up(ctx, &account.name, Stage::Row, Some(&error)).await;
                }
                return Ok(Step::Idle);
            }
            Err(error) => return Err(error),
        };
        let mut failed = None;
        for (account, stored) in stored {
            let name = &account.name;
            match stored {
                Ok(()) if !locked.iter().any(|other| other == name.as_str()) => {
                    ctx.held_up.clear(name, Stage::Row);
                    account.begin();
                    info!(account = %name, "the account is ready to be served");
                }
                Ok(()) => hold_up(ctx, name, Stage::Row, None).await,
                Err(error) if error.fault() == Fault::Database => failed = Some(error),
                Err(error) => hold_up(ctx, name, Stage::Row, Some(&error)).await,
            }
        }
        failed.map_or(Ok(Step::Idle), Err)
    }
}

async fn store(ctx: &Context, account: Arc<Account>) -> (Arc<Account>, Result<(), DbError>) {
    let stored = accounts::ensure(&ctx.pool, &account.name, account.requests_per_minute).await;
    (account, stored)
}
