//! The turn of an account at the recorder: what outcomes mean for it is stored by one statement after another, and each is
//! repeated until it is stored.

use std::sync::Arc;

use tracing::{error, warn};

use crate::db::DbError;
use crate::db::fate::Recorded;
use crate::db::fault::AtFault;
use crate::domain::account::AccountName;
use crate::telemetry::Chain;
use crate::worker::context::Context;
use crate::worker::held_up::Stage;
use crate::worker::jitter::jitter;
use crate::worker::patience::wait_for_database;
use crate::worker::recorder::Message;
use crate::worker::recorder::insist::insist;
use crate::worker::room::Room;

/// An account whose turn it is, and the outcomes that wait for it.
pub(super) struct Turn<'a> {
    /// The daemon.
    pub ctx: &'a Arc<Context>,
    /// The account.
    pub account: &'a AccountName,
    /// Its outcomes.
    pub messages: Vec<Message>,
}

impl Turn<'_> {
    /// The account's room. It is looked for where it is needed, since a closed account may go while rows are waited for.
    pub(super) fn room(&self) -> Option<Arc<Room>> {
        self.ctx.rooms.get(self.account)
    }

    /// Repeats a statement about the account until it is done, or refused for good. Whoever locks the account's
    /// row is waited for. `None` when it was refused.
    pub(super) async fn persist<T, F>(
        &mut self,
        task: &'static str,
        run: impl Fn() -> F,
    ) -> Option<T>
    where
        F: Future<Output = Result<T, DbError>>,
    {
        let mut failures = 0;
        loop {
            match insist(&self.ctx.recorder, task, &run).await {
                Ok(done) => return Some(done),
                Err(error) if error.fault() == AtFault::Lock => {
                    failures += 1;
                    if failures == 1 {
                        warn!(account = %self.account, task, error = %Chain(&error), "a row of the account is locked; its outcomes wait");
                        self.tell_that_they_wait();
                    }
                    wait_for_database(failures, jitter()).await;
                }
                Err(error) => {
                    error!(account = %self.account, task, error = %Chain(&error), "the database refused to store an account signal");
                    return None;
                }
            }
        }
    }

    /// The same for what changes the account itself. A change that is refused is waited for like one whose row is locked: what
    /// is recorded without it goes against what the gateway asked for. It is told, until it is stored.
    pub(super) async fn hold_until<T, F>(&mut self, task: &'static str, run: impl Fn() -> F) -> T
    where
        F: Future<Output = Result<T, DbError>>,
    {
        let held_up = &self.ctx.held_up;
        let mut failures = 0;
        loop {
            let error = match insist(&self.ctx.recorder, task, &run).await {
                Ok(done) => {
                    held_up.clear(self.account, Stage::Change);
                    return done;
                }
                Err(error) => error,
            };
            failures += 1;
            if failures == 1 {
                if error.fault() == AtFault::Lock {
                    warn!(account = %self.account, task, error = %Chain(&error), "a row of the account is locked; its outcomes wait");
                } else {
                    error!(account = %self.account, task, error = %Chain(&error), "the database refuses a change of the account; its outcomes wait");
                }
                self.tell_that_they_wait();
            }
            if error.fault() != AtFault::Lock {
                let (pool, account) = (&self.ctx.pool, self.account);
                held_up
                    .hold_up(pool, account, Stage::Change, Some(&error))
                    .await;
            }
            wait_for_database(failures, jitter()).await;
        }
    }

    /// Those who wait for a record of these outcomes wait no more.
    fn tell_that_they_wait(&mut self) {
        for message in &mut self.messages {
            message.tell(Recorded::Waiting);
        }
    }
}
