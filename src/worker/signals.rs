//! What an outcome means for its account, before its rows are recorded and after.
//!
//! Each statement here is about one account, whose row somebody may keep locked: then that account's
//! outcomes wait for it, in its turn, and nobody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tracing::{debug, error, info, warn};

use crate::db::clock::SteadySecond;
use crate::db::fate::Recorded;
use crate::db::fault::Fault;
use crate::db::{DbError, accounts, probes, quota};
use crate::domain::account::AccountName;
use crate::domain::outage::{Read, Undelivered};
use crate::heart;
use crate::policy::breaker::probe_delay;
use crate::policy::hints::Remaining;
use crate::policy::remedy::is_specific;
use crate::policy::verdict::{AccountSignal, Reason, Scope};
use crate::telemetry::Chain;
use crate::worker::alerting::{self, Alert};
use crate::worker::context::Context;
use crate::worker::failing;
use crate::worker::held_up::Stage;
use crate::worker::jitter::jitter;
use crate::worker::open;
use crate::worker::patience::wait_for_database;
use crate::worker::recorder::insist::insist;
use crate::worker::recorder::{Message, Signed};
use crate::worker::room::Room;

/// Blocks and parks the account, and opens its alerts, before the jobs are recorded that wait for it: a
/// daemon that dies in between leaves leases to run out, never a parked job without a parked account.
/// Returns the outcomes, which may be recorded now.
pub async fn tell(
    ctx: &Arc<Context>,
    account: &AccountName,
    mut messages: Vec<Message>,
) -> Vec<Message> {
    let turn = ctx.recorder.turn(account);
    let _turn = heart::beat_until(turn.lock()).await;
    let mut park: Option<(Reason, Option<Duration>, Option<String>)> = None;
    let mut undelivered: Option<(Reason, Undelivered)> = None;
    let mut delivered: Option<OffsetDateTime> = None;
    let mut signs: Vec<Signed> = Vec::new();
    let mut to_open = Vec::new();
    let mut blocks = Vec::new();
    let mut got_through = false;
    for Message { outcome, .. } in &messages {
        match &outcome.signal {
            Some(AccountSignal::Park {
                reason,
                undelivered: Some(failed),
                ..
            }) => {
                // The newest says most of the account as it is.
                let is_older =
                    |(_, known): &(Reason, Undelivered)| known.accepted_at < failed.accepted_at;
                if undelivered.as_ref().is_none_or(is_older) {
                    undelivered = Some((*reason, failed.clone()));
                }
            }
            // Of several reasons at once, one that says more.
            Some(AccountSignal::Park {
                reason,
                hint,
                said,
                undelivered: None,
            }) if park.is_none() || is_specific(*reason) => {
                park = Some((*reason, *hint, said.clone()));
            }
            Some(AccountSignal::Block {
                wait,
                code,
                said,
                scope,
                capped,
            }) => {
                let alert = || Alert::capped(account, code, said.as_deref(), scope);
                to_open.extend(capped.then(alert));
                blocks.push((*wait, code.clone(), said.clone(), scope.clone()));
            }
            Some(AccountSignal::Park { .. }) | None => {}
        }
        got_through |= outcome.got_through();
        delivered = delivered.max(outcome.delivered);
        to_open.extend(outcome.alert.clone());
        signs.extend(outcome.signed.clone());
    }
    let mut first_failure = || {
        for message in &mut messages {
            message.tell(Recorded::Waiting);
        }
    };
    for (wait, code, said, scope) in &blocks {
        match scope {
            Scope::Everything => {
                let said = said.as_deref();
                let run = || accounts::block(&ctx.pool, account, *wait, code, said);
                hold_until(ctx, account, "block an account", &mut first_failure, run).await;
            }
            Scope::Sends(operations) => {
                let said = said.as_deref();
                let run = || accounts::cap(&ctx.pool, account, *wait, code, said, operations);
                hold_until(ctx, account, "store a cap", &mut first_failure, run).await;
            }
        }
        debug!(account = %account, code, scope = ?scope, wait_s = wait.as_secs(), "the gateway asks to wait");
    }
    // Before the parks: what is sent with success ends the one before.
    // Looked for again where it is needed: while rows are waited for here, a closed account may go.
    let ours = || ctx.rooms.get(account);
    if got_through && let Some(room) = ours().filter(|room| room.park.is_doubted()) {
        let run = || end_doubt(&room);
        let task = "store that something got through";
        persist(ctx, account, task, &mut first_failure, run).await;
    }
    let parks = [
        park.map(|(reason, hint, said)| {
            (
                reason,
                hint,
                alerting::parked(account, reason, said.as_deref(), &ctx.host),
            )
        }),
        undelivered.map(|(reason, failed)| {
            (
                reason,
                None,
                alerting::parked_undelivered(account, reason, &failed),
            )
        }),
    ];
    for (reason, hint, park) in parks.into_iter().flatten() {
        let delay = probe_delay(&ctx.rules.breaker, 0, hint, jitter());
        let run = || accounts::park(&ctx.pool, account, &park, delay);
        let became_parked =
            hold_until(ctx, account, "park an account", &mut first_failure, run).await;
        if became_parked {
            let run = || go_on_probing(ctx, account, hint);
            persist(ctx, account, "put off a probe", &mut first_failure, run).await;
        }
        if is_specific(reason) && !became_parked {
            let run = || accounts::learn_of_park(&ctx.pool, account, &park);
            let task = "store why an account is parked";
            hold_until(ctx, account, task, &mut first_failure, run).await;
        }
        // What was accepted before the account was resumed has changed nothing.
        let is_news = park.undelivered.is_none() || became_parked;
        if let Some(room) = ours().filter(|_| is_news) {
            room.park.is_stored();
        }
        ctx.wake.deliver.notify_one();
    }
    // After the parks: what is delivered of the same time as what failed has been accepted later.
    if let Some(accepted_at) = delivered {
        let (how, slow_start) = ("an invoice was delivered", ctx.rules.breaker.slow_start);
        let run = || accounts::delivered(&ctx.pool, account, accepted_at, how, slow_start);
        let task = "resume an account that is delivered for";
        let resumed = hold_until(ctx, account, task, &mut first_failure, run).await;
        if let Some(jobs) = resumed {
            info!(account = %account, jobs, "resumed: what was accepted is delivered");
            ctx.wake.dispatch.notify_one();
            ctx.wake.deliver.notify_one();
        }
    }
    // What requests say of the gateway is known before the jobs are recorded that wait because of it.
    let kinds: BTreeSet<Option<Read>> = signs.iter().map(|signed| signed.errand.kind()).collect();
    for kind in kinds {
        let run = || async {
            match ours() {
                Some(room) => failing::note(&room, kind, &signs).await,
                None => Ok(()),
            }
        };
        persist(ctx, account, "store what fails", &mut first_failure, run).await;
    }
    for alert in &to_open {
        let run = || open::open(&ctx.pool, account, alert);
        persist(ctx, account, "open an alert", &mut first_failure, run).await;
        ctx.wake.deliver.notify_one();
    }
    messages
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
    probes::schedule(&ctx.pool, account, delay, None).await
}

/// Repeats a statement about an account until it is done, or refused for good. Whoever locks the account's
/// row is waited for; at the first failure those are told who wait for a record. `None` when it was refused.
async fn persist<T, F>(
    ctx: &Context,
    account: &AccountName,
    task: &'static str,
    first_failure: &mut impl FnMut(),
    run: impl Fn() -> F,
) -> Option<T>
where
    F: Future<Output = Result<T, DbError>>,
{
    let mut failures = 0;
    loop {
        match insist(&ctx.recorder, task, &run).await {
            Ok(done) => return Some(done),
            Err(error) if error.fault() == Fault::Lock => {
                failures += 1;
                if failures == 1 {
                    warn!(account = %account, task, error = %Chain(&error), "a row of the account is locked; its outcomes wait");
                    first_failure();
                }
                wait_for_database(failures, jitter()).await;
            }
            Err(error) => {
                error!(account = %account, task, error = %Chain(&error), "the database refused to store an account signal");
                return None;
            }
        }
    }
}

/// The same for what changes the account itself. A change that is refused is waited for like one whose row is locked: what
/// is recorded without it goes against what the gateway asked for. It is told, until it is stored.
async fn hold_until<T, F>(
    ctx: &Context,
    account: &AccountName,
    task: &'static str,
    first_failure: &mut impl FnMut(),
    run: impl Fn() -> F,
) -> T
where
    F: Future<Output = Result<T, DbError>>,
{
    let mut failures = 0;
    loop {
        let error = match insist(&ctx.recorder, task, &run).await {
            Ok(done) => {
                ctx.held_up.clear(account, Stage::Change);
                return done;
            }
            Err(error) => error,
        };
        failures += 1;
        if failures == 1 {
            if error.fault() == Fault::Lock {
                warn!(account = %account, task, error = %Chain(&error), "a row of the account is locked; its outcomes wait");
            } else {
                error!(account = %account, task, error = %Chain(&error), "the database refuses a change of the account; its outcomes wait");
            }
            first_failure();
        }
        if error.fault() != Fault::Lock {
            ctx.held_up
                .hold_up(&ctx.pool, account, Stage::Change, Some(&error))
                .await;
        }
        wait_for_database(failures, jitter()).await;
    }
}

/// What recorded outcomes leave to do for an account.
#[derive(Default)]
struct Errand {
    /// The seconds whose quota is given back, one for each request of which no byte left.
    unspent: Vec<SteadySecond>,
    /// The least that the gateway said remains.
    remaining: Option<Remaining>,
}

/// Does what recorded outcomes leave to do, without anybody waiting for it.
pub fn afterwards(ctx: &Arc<Context>, messages: &[Message]) {
    let mut errands: BTreeMap<&AccountName, Errand> = BTreeMap::new();
    for Message { outcome, .. } in messages {
        let account = &outcome.account;
        if let Some(taken) = outcome.unspent {
            errands.entry(account).or_default().unspent.push(taken);
        }
        // Somebody else may use the key too. Only a low count can bind, so only a low count is looked at.
        let is_low = |told: &Remaining| {
            let known = ctx.rooms.get(account);
            known.is_some_and(|room| told.requests < room.requests_per_minute / 2)
        };
        if let Some(told) = outcome.remaining.filter(is_low) {
            let least = &mut errands.entry(account).or_default().remaining;
            if least.is_none_or(|least| told.requests < least.requests) {
                *least = Some(told);
            }
        }
    }
    for (account, errand) in errands {
        let (ctx, account) = (ctx.clone(), account.clone());
        ctx.recorder.errands.clone().spawn(async move {
            let turn = ctx.recorder.turn(&account);
            let _turn = turn.lock().await;
            run(&ctx, &account, errand).await;
        });
    }
}

/// None of it is worth insisting: quota that is not given back comes back by itself within the minute,
/// and what the gateway said it says again.
async fn run(ctx: &Context, account: &AccountName, errand: Errand) {
    if !errand.unspent.is_empty()
        && let Err(error) =
            quota::return_quota(&ctx.pool, account, &errand.unspent, ctx.clock.second()).await
    {
        warn!(account = %account, error = %Chain(&error), "quota of unsent requests was not given back");
    }
    if let Some(Remaining {
        requests,
        resets_after,
    }) = errand.remaining
        && let Err(error) = quota::correct_quota(
            &ctx.pool,
            account,
            requests,
            resets_after,
            ctx.clock.second(),
        )
        .await
    {
        warn!(account = %account, error = %Chain(&error), "the quota was not corrected");
    }
}
