//! Asks whether parked accounts are well again, and lets one job through before all others.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::Mutex;
use tracing::{info, warn};

use crate::crash::{self, Point};
use crate::db::among::ClaimedTo;
use crate::db::claim::{self, Claim, Purpose};
use crate::db::clock::SteadySecond;
use crate::db::entry::Entry;
use crate::db::fault::Fault;
use crate::db::probes::{self, DueProbe};
use crate::db::{DbError, accounts, alerts, among};
use crate::domain::account::AccountName;
use crate::domain::answer::Answer;
use crate::domain::operation::OPERATIONS;
use crate::gateway::wire;
use crate::heart;
use crate::policy::breaker::{Health, Probed, Trial, health, is_accumulating, probe_delay, probed};
use crate::policy::hints;
use crate::policy::quoted::{got, words};
use crate::policy::remedy::is_specific;
use crate::policy::verdict::{AccountSignal, Reason};
use crate::telemetry::Chain;
use crate::worker::account::Account;
use crate::worker::accounts::named;
use crate::worker::alerting::{self, Appearance};
use crate::worker::clock::Moment;
use crate::worker::context::Context;
use crate::worker::culprits::Culprits;
use crate::worker::jitter::jitter;
use crate::worker::pulse::Step;
use crate::worker::recorder::Outcome;
use crate::worker::room::{self, Work};
use crate::worker::send::{self, Job, Role, Sent};

/// The loop's memory: of each account the jobs that the database does not let be claimed for a probe.
#[derive(Default)]
pub struct Probes {
    culprits: BTreeMap<AccountName, Arc<Mutex<Culprits>>>,
    /// What the database last refused to do for one of the tasks; the next step fails of it.
    failed: Arc<Mutex<Option<DbError>>>,
}

impl Probes {
    /// Claims the probes that are due, and hands each to a task of its account. The job that a probe lets through is none
    /// of the culprits.
    pub async fn step(&mut self, ctx: &Arc<Context>) -> Result<Step, DbError> {
        if let Some(error) = self.failed.lock().await.take() {
            return Err(error);
        }
        // A probe ends with a send.
        if ctx.recorder.forgotten().is_some() {
            return Ok(Step::Idle);
        }
        let served = ctx.served();
        let idle = served.iter();
        let idle = idle.filter(|account| account.places.free(Work::Probe) > 0);
        let idle: Vec<String> = idle.map(|account| account.name.to_string()).collect();
        let due = probes::claim(&ctx.pool, &idle, ctx.lease).await?;
        if due.is_empty() {
            return Ok(Step::Idle);
        }
        for probe in due {
            let Some(account) =
                AccountName::parse(&probe.account).and_then(|name| named(&served, &name))
            else {
                continue;
            };
            // Nobody else takes the place.
            let Some(place) = account.places.take(Work::Probe) else {
                continue;
            };
            let culprits = self.culprits.entry(account.name.clone());
            let culprits =
                culprits.or_insert_with(|| Arc::new(Mutex::new(Culprits::new(ClaimedTo::Probe))));
            let (culprits, failed) = (culprits.clone(), self.failed.clone());
            let (for_task, owner) = (ctx.clone(), account.clone());
            room::spawn(ctx, account, "probe", async move {
                let mut culprits = culprits.lock().await;
                let probed = probe_account(&for_task, &mut culprits, &owner, &probe).await;
                if let Err(error) = probed {
                    *failed.lock().await = Some(error);
                }
                drop(place);
            });
        }
        Ok(Step::Worked)
    }
}

/// Asks for the health of accounts that are served from now on, once: an account whose `base_url` leads nowhere is
/// parked before a payment fails for it, and one that is parked is probed at once. Everything else that health may say
/// waits for the first job.
pub async fn look_around(ctx: &Arc<Context>, accounts: Vec<Arc<Account>>) {
    let names: Vec<String> = accounts
        .iter()
        .map(|account| account.name.to_string())
        .collect();
    let probed = match probes::make_due(&ctx.pool, &names).await {
        Ok(probed) => probed,
        Err(error) => {
            warn!(error = %Chain(&error), "parked accounts are probed no sooner than before the start");
            Vec::new()
        }
    };
    let asked = accounts.into_iter();
    let asked = asked.filter(|account| !probed.iter().any(|name| name == account.name.as_str()));
    // All at once: none waits for one whose gateway is slow.
    let looks = join_all(asked.map(|account| look_at(ctx, account)));
    tokio::select! {
        () = ctx.stop.cancelled() => {}
        _ = looks => {}
    }
}

async fn look_at(ctx: &Arc<Context>, account: Arc<Account>) {
    match ctx.take_one(&account.name, Purpose::Probe).await {
        Ok(true) => {}
        Ok(false) => return,
        Err(error) => {
            warn!(account = %account.name, error = %Chain(&error), "the account is not looked at before its first job");
            return;
        }
    }
    let timed = account.call(&wire::account_health()).await;
    let Answer::Reply(reply) = &timed.answer else {
        return;
    };
    if health(&timed.answer) != Health::Unwell(Reason::RouteNotFound) {
        return;
    }
    let signal = AccountSignal::Park {
        reason: Reason::RouteNotFound,
        hint: None,
        said: words(reply),
        undelivered: None,
    };
    account.heed(Some(&signal));
    ctx.recorder
        .record(Outcome {
            signal: Some(signal),
            ..Outcome::plain(&account.name, Entry::default())
        })
        .await;
}

async fn probe_account(
    ctx: &Arc<Context>,
    culprits: &mut Culprits,
    account: &Arc<Account>,
    probe: &DueProbe,
) -> Result<(), DbError> {
    let probes = u32::try_from(probe.probes).unwrap_or(0) + 1;
    let name = &account.name;
    let retry = |hint| probe_delay(&ctx.rules.breaker, probes, hint, jitter());
    let later = async |hint| probes::schedule(&ctx.pool, name, retry(hint), None).await;
    if !ctx.take_one(name, Purpose::Probe).await? {
        return later(None).await;
    }
    crash::reach(Point::ProbeBeforeRequest);
    let timed = account.call(&wire::account_health()).await;
    crash::reach(Point::ProbeAfterAnswer);
    let hint = match &timed.answer {
        Answer::Reply(reply) => hints::wait(reply, ctx.clock.expected()),
        Answer::NotSent(_) | Answer::Lost(_) => None,
    };
    let answered = health(&timed.answer);
    let is_unclear = answered == Health::Unclear;
    account.note_probe(is_unclear.then(|| got(&timed.answer)));
    match answered {
        Health::Well => {}
        Health::Unwell(reason) => {
            info!(account = %name, reason = reason.code(), probes, "still unwell");
            learn(ctx, account, probe, reason).await?;
            return later(hint).await;
        }
        Health::Unclear => {
            warn!(account = %name, probes, "a probe got no clear answer");
            return later(hint).await;
        }
    }
    if let Some(code) = &probe.delivery_error {
        tell_that_health_is_mistaken(ctx, account, &probe.reason, code).await?;
    }
    if probe.probes == 0 {
        culprits.forget_account(name);
    }
    let trial = let_one_through(ctx, culprits, account).await?;
    match probed(trial, probe.delivery_error.is_some()) {
        Probed::Proven => resume(ctx, account, probe, Some("a probe succeeded")).await,
        // Health alone may be mistaken: its alert ends once the account stays well.
        Probed::Believed => resume(ctx, account, probe, None).await,
        Probed::Wait => {
            if trial == Trial::NotTaken && is_accumulating(&timed.answer) {
                learn(ctx, account, probe, Reason::InvoicesDisabled).await?;
            }
            later(None).await
        }
        Probed::WaitForJob => {
            let soonest = ctx.rules.breaker.probe_initial;
            probes::schedule(&ctx.pool, name, retry(None), Some(soonest)).await
        }
    }
}

/// Whoever looks at the dashboard sees an account that is well, so the alert says what is not.
async fn tell_that_health_is_mistaken(
    ctx: &Context,
    account: &Account,
    parked_reason: &str,
    code: &str,
) -> Result<(), DbError> {
    let reason = Reason::ALL
        .iter()
        .find(|reason| reason.code() == parked_reason);
    let reason = reason.copied().unwrap_or(Reason::ServiceUnavailable);
    let text = alerting::undelivered(&account.name, reason, code, Appearance::Well);
    let changed = alerts::change(&ctx.pool, &account.name, "account_parked", "", &text).await;
    let is_news = match changed {
        // Whoever keeps the alert locked keeps no payment from being tried.
        Err(error) if error.fault() == Fault::Lock => {
            warn!(account = %account.name, error = %Chain(&error), "that health is mistaken is told with a later probe");
            false
        }
        changed => changed?,
    };
    if is_news {
        info!(account = %account.name, code, "health says well, and what is accepted fails at Kaspi");
        ctx.wake.deliver.notify_one();
    }
    Ok(())
}

/// Resumes the account, unless an operator has taken it over or resumed it while it was probed.
async fn resume(
    ctx: &Context,
    account: &Account,
    probe: &DueProbe,
    resolution: Option<&str>,
) -> Result<(), DbError> {
    crash::reach(Point::TrialOfParkDone);
    let slow_start = ctx.rules.breaker.slow_start;
    let resumed = accounts::resume(&ctx.pool, &account.name, resolution, slow_start).await?;
    let Some(jobs) = resumed else {
        info!(account = %account.name, was = probe.reason, "a probe succeeded, of an account that an operator has parked or resumed meanwhile");
        return Ok(());
    };
    account.doubt(resolution.is_none());
    info!(account = %account.name, jobs, was = probe.reason, by_health = resolution.is_none(), "resumed: a probe succeeded");
    ctx.wake.dispatch.notify_one();
    ctx.wake.deliver.notify_one();
    Ok(())
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
    let park = alerting::parked(&account.name, reason, None);
    if accounts::learn_of_park(&ctx.pool, &account.name, &park).await? {
        info!(account = %account.name, reason = reason.code(), was = probe.reason, "a probe learned more");
        ctx.wake.deliver.notify_one();
    }
    Ok(())
}

/// Sends one job of the account. Health is what the gateway says; a job is the proof: one that is safe to
/// try, if there is one.
async fn let_one_through(
    ctx: &Arc<Context>,
    culprits: &mut Culprits,
    account: &Arc<Account>,
) -> Result<Trial, DbError> {
    let slot = heart::beat_until(account.clone().slot(ctx.slots.clone())).await;
    let claimed_at = Moment::now();
    let asked = ctx.clock.ask();
    let taken = ctx.clock.second();
    if !ctx.take_one(&account.name, Purpose::Probe).await? {
        return Ok(Trial::NotNow);
    }
    match claim_one(ctx, culprits, account, taken).await {
        Ok(Some(mut claim)) => {
            claim.now = asked.now(claim.now);
            crash::reach(Point::TrialOfParkClaimed);
            let Some(job) = Job::take(ctx, claim, claimed_at, Role::TrialOfPark) else {
                return Ok(Trial::NotNow);
            };
            let (ctx, account) = (ctx.clone(), account.clone());
            // A task of its own: a stop waits for it, and nothing can drop it half-way.
            let sends = ctx.sends.clone();
            let sent = sends
                .spawn(heart::shared(async move {
                    send::send(&ctx, &account, job, slot).await
                }))
                .await;
            Ok(match sent.unwrap_or(Sent::NotWell) {
                Sent::Done => Trial::Done,
                Sent::Well => Trial::Taken,
                Sent::NotWell => Trial::NotTaken,
            })
        }
        // What the database does not let be claimed keeps no account parked.
        Ok(None) => Ok(Trial::NoJob),
        Err(error) if error.fault() == Fault::Lock => {
            warn!(account = %account.name, error = %Chain(&error), "no job could be claimed for a probe now");
            Ok(Trial::NotNow)
        }
        Err(error) => Err(error),
    }
}

/// Claims the first job that can be claimed: one of an operation that is safe to try, or else another.
async fn claim_one(
    ctx: &Context,
    culprits: &mut Culprits,
    account: &Account,
    taken: SteadySecond,
) -> Result<Option<Claim>, DbError> {
    for is_safe in [true, false] {
        let wanted = OPERATIONS.iter();
        let wanted = wanted.filter(|operation| operation.is_safe_to_try() == is_safe);
        let wanted: Vec<String> = wanted
            .map(|operation| operation.name().to_owned())
            .collect();
        let (without, passed_over) = (culprits.jobs(), ctx.passed_over.jobs());
        let name = &account.name;
        let due = among::due_for_probe(&ctx.pool, name, &wanted, &without, &passed_over).await?;
        let claimed = culprits
            .run_one(ctx, due, |among| {
                claim::claim_trial_of_park(&ctx.pool, ctx.worker, ctx.lease, name, among, taken)
            })
            .await?;
        if claimed.is_some() {
            return Ok(claimed);
        }
    }
    Ok(None)
}
