//! Asks whether parked accounts are well again, and lets one job through before all others.

use std::sync::Arc;

use tracing::{info, warn};

use crate::crash::{self, Point};
use crate::db::DbError;
use crate::db::accounts::{self, DueProbe};
use crate::db::claim::{self, Claim, Purpose};
use crate::domain::account::AccountName;
use crate::domain::answer::Answer;
use crate::domain::operation::{OPERATIONS, Operation};
use crate::gateway::wire;
use crate::policy::breaker::{Health, health, is_accumulating, probe_delay};
use crate::policy::hints;
use crate::policy::remedy::is_specific;
use crate::policy::verdict::Reason;
use crate::telemetry::Chain;
use crate::worker::account::Account;
use crate::worker::alarm;
use crate::worker::clock::Moment;
use crate::worker::send::{self, Job, Role, Sent};
use crate::worker::{Context, Step};

/// Probes what is due.
pub async fn step(ctx: &Arc<Context>) -> Result<Step, DbError> {
    // A probe ends with a send.
    if ctx.recorder.forgotten().is_some() {
        return Ok(Step::Idle);
    }
    let due = accounts::claim_probes(&ctx.pool, &ctx.account_names(), ctx.lease).await?;
    if due.is_empty() {
        return Ok(Step::Idle);
    }
    let mut failed = None;
    for probe in due {
        let Some(account) =
            AccountName::parse(&probe.account).and_then(|name| ctx.accounts.get(&name))
        else {
            continue;
        };
        // What fails one account keeps no other from its probe.
        if let Err(error) = probe_account(ctx, account, &probe).await {
            failed.get_or_insert(error);
        }
    }
    failed.map_or(Ok(Step::Worked), Err)
}

async fn probe_account(
    ctx: &Arc<Context>,
    account: &Arc<Account>,
    probe: &DueProbe,
) -> Result<(), DbError> {
    let probes = u32::try_from(probe.probes).unwrap_or(0) + 1;
    let retry = |hint| probe_delay(&ctx.rules.breaker, probes, hint, ctx.jitter());
    if !ctx.take_one(&account.name, Purpose::Probe).await? {
        return accounts::schedule_probe(&ctx.pool, &account.name, retry(None)).await;
    }
    crash::reach(Point::ProbeBeforeRequest);
    let timed = account.call(&wire::account_health()).await;
    crash::reach(Point::ProbeAfterAnswer);
    let hint = match &timed.answer {
        Answer::Reply(reply) => hints::wait(reply, ctx.clock.expected()),
        Answer::NotSent(_) | Answer::Lost(_) => None,
    };
    match health(&timed.answer) {
        Health::Well => {}
        Health::Unwell(reason) => {
            info!(account = %account.name, reason = reason.code(), probes, "still unwell");
            learn(ctx, account, probe, reason).await?;
            return accounts::schedule_probe(&ctx.pool, &account.name, retry(hint)).await;
        }
        Health::Unclear => {
            warn!(account = %account.name, probes, "a probe got no clear answer");
            return accounts::schedule_probe(&ctx.pool, &account.name, retry(hint)).await;
        }
    }
    match let_one_through(ctx, account).await? {
        proof @ (None | Some(Sent::Well)) => {
            crash::reach(Point::CanaryDone);
            // Health alone may be mistaken: its alert ends once the account stays well.
            let resolution = proof.map(|_| "a probe succeeded");
            let jobs = accounts::resume(&ctx.pool, &account.name, resolution).await?;
            info!(account = %account.name, jobs, was = probe.reason, by_health = proof.is_none(), "resumed: a probe succeeded");
            ctx.wake.dispatch.notify_one();
            ctx.wake.deliver.notify_one();
            Ok(())
        }
        Some(Sent::NotWell) => {
            if is_accumulating(&timed.answer) {
                learn(ctx, account, probe, Reason::InvoicesDisabled).await?;
            }
            accounts::schedule_probe(&ctx.pool, &account.name, retry(None)).await
        }
    }
}

/// What the gateway says is wrong takes the place of what was known, unless that says more.
async fn learn(
    ctx: &Context,
    account: &Account,
    probe: &DueProbe,
    reason: Reason,
) -> Result<(), DbError> {
    let is_vague = probe.reason == Reason::ServiceUnavailable.code();
    if !is_vague && !is_specific(reason) {
        return Ok(());
    }
    let park = alarm::parked(&account.name, reason, None);
    if accounts::learn_of_park(&ctx.pool, &account.name, &park).await? {
        info!(account = %account.name, reason = reason.code(), was = probe.reason, "a probe learned more");
        ctx.wake.deliver.notify_one();
    }
    Ok(())
}

/// Sends one job of the account. Health is what the gateway says; a job is the proof: one that is safe to
/// try, if there is one. `None` with no job at all: health has to do, and the slow start tries the next one
/// alone.
async fn let_one_through(
    ctx: &Arc<Context>,
    account: &Arc<Account>,
) -> Result<Option<Sent>, DbError> {
    let slot = account.clone().slot(ctx.slots.clone()).await;
    let claimed_at = Moment::now();
    let asked = ctx.clock.ask();
    let claimed = match claim_one(ctx, account, |operation| operation.is_safe_to_try()).await {
        Ok(None) => claim_one(ctx, account, |operation| !operation.is_safe_to_try()).await,
        claimed => claimed,
    };
    match claimed {
        Ok(Some(mut claim)) => {
            claim.now = asked.now(claim.now);
            crash::reach(Point::CanaryClaimed);
            let ctx = ctx.clone();
            let job = Job {
                claim,
                claimed_at,
                role: Role::Canary,
            };
            // A task of its own: a stop waits for it, and nothing can drop it half-way.
            let sent = ctx
                .sends
                .clone()
                .spawn(async move { send::send(&ctx, job, slot).await })
                .await;
            Ok(Some(sent.unwrap_or(Sent::NotWell)))
        }
        Ok(None) => Ok(None),
        // The one job that stands first does not keep the account parked.
        Err(error) if error.is_about_rows() => {
            warn!(account = %account.name, error = %Chain(&error), "no job could be claimed for a probe; health has to do");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Claims the first job of an operation that is wanted.
async fn claim_one(
    ctx: &Context,
    account: &Account,
    is_wanted: impl Fn(&dyn Operation) -> bool,
) -> Result<Option<Claim>, DbError> {
    let wanted = OPERATIONS.iter().filter(|operation| is_wanted(**operation));
    let wanted: Vec<String> = wanted
        .map(|operation| operation.name().to_owned())
        .collect();
    claim::claim_canary(
        &ctx.pool,
        ctx.worker,
        ctx.lease,
        &account.name,
        &wanted,
        ctx.clock.second(),
    )
    .await
}
