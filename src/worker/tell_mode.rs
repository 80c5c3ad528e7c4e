//! Compares in which mode the gateway treats each account, live or sandbox, with what is stored, and tells where they
//! differ.

use std::sync::Arc;

use crate::db::alerts::About;
use crate::db::fault::AtFault;
use crate::db::{DbError, accounts, progress};
use crate::telemetry::Chain;
use crate::worker::alerting;
use crate::worker::context::Context;
use crate::worker::open;
use crate::worker::room::Room;
use crate::worker::room::modes::Sight;
use crate::worker::spell::warn_in_spells;

/// Compares what was seen since the last time with what is stored: opens the alert where they differ, and ends it
/// where they agree again.
pub async fn compare(ctx: &Arc<Context>) -> Result<(), DbError> {
    for room in ctx.rooms.open() {
        let Some(sight) = room.client.modes.untold() else {
            continue;
        };
        match compare_one(&room, sight).await {
            Ok(is_disputed) => room.client.modes.told(sight, is_disputed),
            Err(error) if error.fault() == AtFault::Database => return Err(error),
            // Somebody keeps the account's row locked: the next round comes soon.
            Err(error) => {
                warn_in_spells!(room.name; account = %room.name, error = %Chain(&error), "the account's mode was not compared yet");
            }
        }
    }
    Ok(())
}

async fn compare_one(room: &Room, sight: Sight) -> Result<bool, DbError> {
    let pool = &room.handles.pool;
    let (name, mode) = (&room.name, sight.mode());
    let Some(stored) = accounts::saw_mode(pool, name, mode, sight.invoice()).await? else {
        // A newer invoice was seen by somebody else.
        return Ok(false);
    };
    if stored == mode {
        let how = format!("its newest invoices are {mode}, as is right for the account");
        progress::resolve(pool, Some(name.as_str()), alerting::MODE, "", &how).await?;
        return Ok(false);
    }
    let text = alerting::mode_changed(name, &stored, mode, sight.invoice());
    let about = About::account(name, alerting::MODE, "critical");
    open::once(pool, &about, &text).await?;
    Ok(true)
}
