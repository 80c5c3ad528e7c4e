//! What an outcome means for its account, before its rows are recorded.
//!
//! Each statement here is about one account, whose row somebody may keep locked: then that account's
//! outcomes wait for it, in its turn, and nobody else's.

mod turn;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tracing::{debug, info};

use crate::db::DbError;
use crate::db::accounts::{self, Park};
use crate::db::probes::{self, NextProbe};
use crate::domain::account::AccountName;
use crate::domain::outage::Read;
use crate::heart;
use crate::policy::breaker::probe_delay;
use crate::policy::combined::{Block, Combined};
use crate::policy::remedy::is_specific;
use crate::policy::verdict::{Reason, Scope};
use crate::worker::alerting::{self, Alert};
use crate::worker::clock::Moment;
use crate::worker::context::Context;
use crate::worker::failing;
use crate::worker::jitter::jitter;
use crate::worker::open;
use crate::worker::recorder::{Message, Signed};
use crate::worker::room::Room;
use turn::Turn;

/// Blocks and parks the account, and opens its alerts, before the jobs are recorded that wait for it: a
/// daemon that dies in between leaves leases to run out, never a parked job without a parked account.
/// Returns the outcomes, which may be recorded now.
pub async fn tell(
    ctx: &Arc<Context>,
    account: &AccountName,
    messages: Vec<Message>,
) -> Vec<Message> {
    let turn = ctx.recorder.turn(account);
    let _turn = heart::beat_until(turn.lock()).await;
    let outcomes = || messages.iter().map(|message| &message.outcome);
    let mut combined = Combined::default();
    for outcome in outcomes() {
        if let Some(signal) = &outcome.signal {
            combined.add(signal, outcome.refused.as_ref());
        }
    }
    let got_through = outcomes().any(|outcome| outcome.got_through());
    let delivered = outcomes().filter_map(|outcome| outcome.delivered).max();
    let signs: Vec<Signed> = outcomes().filter_map(|o| o.signed.clone()).collect();
    let caps = combined.blocks.iter().filter(|block| block.capped);
    let caps = caps.map(|cap| Alert::capped(account, &cap.code, cap.said.as_deref(), &cap.scope));
    let alerts: Vec<Alert> = caps
        .chain(outcomes().filter_map(|o| o.alert.clone()))
        .collect();
    let mut turn = Turn {
        ctx,
        account,
        messages,
    };
    for block in &combined.blocks {
        store_block(&mut turn, block).await;
    }
    // Before the parks: what is sent with success ends the one before.
    if got_through && let Some(room) = turn.room().filter(|room| room.park.is_doubted()) {
        let task = "store that something got through";
        turn.persist(task, || end_doubt(&room)).await;
    }
    if let Some(park) = combined.park {
        let (said, refused) = (park.said.as_deref(), park.refused.as_ref());
        let stored = alerting::parked(account, park.reason, said, refused, &ctx.host);
        store_park(&mut turn, park.reason, park.hint, &stored).await;
    }
    if let Some((reason, failed)) = combined.undelivered {
        let stored = alerting::parked_undelivered(account, reason, &failed);
        store_park(&mut turn, reason, None, &stored).await;
    }
    // After the parks: what is delivered of the same time as what failed has been accepted later.
    if let Some(accepted_at) = delivered {
        store_delivery(&mut turn, accepted_at).await;
    }
    // What requests say of the gateway is known before the jobs are recorded that wait because of it.
    let kinds: BTreeSet<Option<Read>> = signs.iter().map(|signed| signed.errand.kind()).collect();
    for kind in kinds {
        // A closed account may go while its rows are waited for.
        let run = || async {
            match ctx.rooms.get(account) {
                Some(room) => failing::note(&room, kind, &signs).await,
                None => Ok(()),
            }
        };
        turn.persist("store what fails", run).await;
    }
    for alert in &alerts {
        let run = || open::open(&ctx.pool, account, alert);
        turn.persist("open an alert", run).await;
        ctx.wake.deliver.notify_one();
    }
    turn.messages
}

/// The gateway asks the account to wait, with some of its requests or with all.
async fn store_block(turn: &mut Turn<'_>, block: &Block) {
    let (ctx, account) = (turn.ctx, turn.account);
    let Block {
        wait,
        code,
        said,
        scope,
        ..
    } = block;
    let said = said.as_deref();
    match scope {
        Scope::Everything => {
            if let Some(room) = turn.room() {
                room.client.refusals.wait(Moment::now(), *wait);
            }
            let run = || accounts::block(&ctx.pool, account, *wait, code, said);
            turn.hold_until("block an account", run).await;
        }
        Scope::Sends(operations) => {
            let run = || accounts::cap(&ctx.pool, account, *wait, code, said, operations);
            turn.hold_until("store a cap", run).await;
        }
    }
    debug!(account = %account, code, scope = ?scope, wait_s = wait.as_secs(), "the gateway asks to wait");
}

/// The account is unwell, and is probed from now on, no sooner than after `hint`.
async fn store_park(turn: &mut Turn<'_>, reason: Reason, hint: Option<Duration>, park: &Park) {
    let (ctx, account) = (turn.ctx, turn.account);
    let delay = probe_delay(&ctx.rules.breaker, 0, hint, jitter());
    let run = || accounts::park(&ctx.pool, account, park, delay);
    let became_parked = turn.hold_until("park an account", run).await;
    if became_parked {
        let run = || go_on_probing(ctx, account, hint);
        turn.persist("put off a probe", run).await;
    }
    if is_specific(reason) && !became_parked {
        let run = || accounts::learn_of_park(&ctx.pool, account, park);
        let task = "store why an account is parked";
        turn.hold_until(task, run).await;
    }
    // What was accepted before the account was resumed has changed nothing.
    let is_news = park.undelivered.is_none() || became_parked;
    if let Some(room) = turn.room().filter(|_| is_news) {
        room.park.is_stored();
    }
    ctx.wake.deliver.notify_one();
}

/// Something was delivered that the gateway accepted at this moment: the account goes on, if it waited for that.
async fn store_delivery(turn: &mut Turn<'_>, accepted_at: OffsetDateTime) {
    let (ctx, account) = (turn.ctx, turn.account);
    let (how, slow_start) = ("an invoice was delivered", ctx.rules.breaker.slow_start);
    let run = || accounts::delivered(&ctx.pool, account, accepted_at, how, slow_start);
    let task = "resume an account that is delivered for";
    if let Some(jobs) = turn.hold_until(task, run).await {
        info!(account = %account, jobs, "resumed: what was accepted is delivered");
        ctx.wake.dispatch.notify_one();
        ctx.wake.deliver.notify_one();
    }
}

/// Something got through since the account's health alone ended its park: that is over now, and so is its alert.
pub async fn end_doubt(room: &Room) -> Result<(), DbError> {
    accounts::got_through(&room.handles.pool, &room.name).await?;
    room.park.doubt(false);
    room.handles.wake.deliver.notify_one();
    Ok(())
}

/// A park that goes on with the one before is probed at the distance that this had come to.
async fn go_on_probing(
    ctx: &Context,
    account: &AccountName,
    hint: Option<Duration>,
) -> Result<(), DbError> {
    let made = probes::made(&ctx.pool, account).await?;
    if made == 0 {
        return Ok(());
    }
    let delay = probe_delay(&ctx.rules.breaker, made, hint, jitter());
    probes::schedule(&ctx.pool, account, NextProbe::After(delay), None).await?;
    Ok(())
}
