//! What is done once after a start, for each account by itself: its row is made or brought up to date, and what was counted
//! before the machine was started counts from now. Whoever keeps rows of one account locked holds up that account and no
//! other: it is tried again each second, and told when that lasts.

use std::sync::Arc;

use futures_util::StreamExt;
use tracing::info;

use crate::db::fault::AtFault;
use crate::db::{DbError, accounts, alerts};
use crate::telemetry::Chain;
use crate::worker::context::Context;
use crate::worker::held_up::Stage;
use crate::worker::pulse::Step;
use crate::worker::room::Room;
use crate::worker::spell::warn_in_spells;

/// Accounts that are tried at once: one that is locked takes a third of a second.
const AT_ONCE: usize = 8;

/// What is left to do of the start.
#[derive(Debug, Default)]
pub struct Start {
    is_told: bool,
}

impl Start {
    /// Does what can be done now.
    pub async fn step(&mut self, ctx: &Context) -> Result<Step, DbError> {
        let has_begun = |room: &Arc<Room>| room.client.serving.has_begun();
        let open = ctx.rooms.open();
        if self.is_told && ctx.clock.has_begun() && open.iter().all(has_begun) {
            return Ok(Step::Skipped);
        }
        if !self.is_told {
            // Whoever starts it has read why it stopped sending.
            let names = ctx.account_names();
            let left = alerts::end_history_lost(&ctx.pool, &ctx.host, &names, ctx.worker).await?;
            self.is_told = left == 0;
        }
        let mut stores = Vec::new();
        for room in open {
            if room.client.serving.has_begun() {
                continue;
            }
            // What the gateway said of the account, to the room before this one, is not stored yet.
            if ctx.recorder.turn(&room.name).try_lock().is_err() {
                ctx.held_up
                    .hold_up(&ctx.pool, &room.name, Stage::Row, None)
                    .await;
                continue;
            }
            stores.push(store(ctx, room));
        }
        let stored: Vec<_> = futures_util::stream::iter(stores)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let locked = match ctx.clock.begin(&ctx.pool).await {
            Ok(locked) => locked,
            // Others of the machine store the same.
            Err(error) if error.fault() != AtFault::Database => {
                warn_in_spells!(""; error = %Chain(&error), "where the steady time begins is not stored yet");
                for (room, _) in stored {
                    ctx.held_up
                        .hold_up(&ctx.pool, &room.name, Stage::Row, Some(&error))
                        .await;
                }
                return Ok(Step::Idle);
            }
            Err(error) => return Err(error),
        };
        let mut failed = None;
        for (room, stored) in stored {
            let name = &room.name;
            match stored {
                Ok(()) if !locked.iter().any(|other| other == name.as_str()) => {
                    ctx.held_up.clear(name, Stage::Row);
                    room.client.serving.begin();
                    info!(account = %name, "the account is ready to be served");
                }
                Ok(()) => ctx.held_up.hold_up(&ctx.pool, name, Stage::Row, None).await,
                Err(error) if error.fault() == AtFault::Database => failed = Some(error),
                Err(error) => {
                    ctx.held_up
                        .hold_up(&ctx.pool, name, Stage::Row, Some(&error))
                        .await
                }
            }
        }
        failed.map_or(Ok(Step::Idle), Err)
    }
}

async fn store(ctx: &Context, room: Arc<Room>) -> (Arc<Room>, Result<(), DbError>) {
    let stored = accounts::ensure(&ctx.pool, &room.name, room.requests_per_minute).await;
    (room, stored)
}
