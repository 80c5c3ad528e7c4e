//! Asks whether parked accounts are well again, and lets one job through before all others.

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::Mutex;
use tracing::{info, warn};

use crate::crash::{self, Point};
use crate::db::claim::{self, Granted, Purpose};
use crate::db::clock::SteadySecond;
use crate::db::entry::Entry;
use crate::db::fault::AtFault;
use crate::db::probes::{self, DueProbe, NextProbe};
use crate::db::{DbError, accounts, alerts, among};
use crate::domain::account::AccountName;
use crate::domain::answer::Answer;
use crate::domain::job::JobId;
use crate::domain::operation::OPERATIONS;
use crate::domain::state::State;
use crate::gateway::wire;
use crate::heart;
use crate::policy::breaker::trials::Trials;
use crate::policy::breaker::{
    Choice, Health, Probed, Trial, Tries, health, is_accumulating, probe_delay, probed,
};
use crate::policy::hints;
use crate::policy::quoted::{got, words};
use crate::policy::remedy::is_specific;
use crate::policy::verdict::{AccountSignal, Reason};
use crate::telemetry::Chain;
use crate::worker::alerting::{self, Appearance};
use crate::worker::clock::Moment;
use crate::worker::context::Context;
use crate::worker::culprits::Culprits;
use crate::worker::jitter::jitter;
use crate::worker::pulse::Step;
use crate::worker::recorder::Outcome;
use crate::worker::room::Room;
use crate::worker::room::places::Work;
use crate::worker::rooms::named;
use crate::worker::send::{self, Role, Sending};

/// The loop's memory: what the database last refused to do for one of the tasks; the next step fails of it.
#[derive(Default)]
pub struct Probes {
    failed: Arc<Mutex<Option<DbError>>>,
}

impl Probes {
    /// Claims the probes that are due, and hands each to a task of its room. The job that a probe lets through is none
    /// of the culprits.
    pub async fn step(&mut self, ctx: &Arc<Context>) -> Result<Step, DbError> {
        if let Some(error) = self.failed.lock().await.take() {
            return Err(error);
        }
        // A probe ends with a send.
        if ctx.recorder.forgotten().is_some() {
            return Ok(Step::Skipped);
        }
        let served = ctx.served();
        let idle = served.iter();
        let idle = idle.filter(|room| room.places.free(Work::Probe) > 0);
        let idle: Vec<String> = idle.map(|room| room.name.to_string()).collect();
        let due = probes::claim(&ctx.pool, &idle, ctx.lease).await?;
        if due.is_empty() {
            return Ok(Step::Idle);
        }
        for probe in due {
            let room = AccountName::parse(&probe.account).and_then(|name| named(&served, &name));
            let Some(room) = room.cloned() else {
                continue;
            };
            // Nobody else takes the place.
            let Some(place) = room.places.take(Work::Probe) else {
                continue;
            };
            let failed = self.failed.clone();
            room.clone().spawn("probe", async move {
                if let Err(error) = probe_account(&room, &probe).await {
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
pub async fn look_around(ctx: &Arc<Context>, rooms: Vec<Arc<Room>>) {
    let names: Vec<String> = rooms.iter().map(|room| room.name.to_string()).collect();
    let probed = match probes::make_due(&ctx.pool, &names).await {
        Ok(probed) => probed,
        Err(error) => {
            warn!(error = %Chain(&error), "parked accounts are probed no sooner than before the start");
            Vec::new()
        }
    };
    let asked = rooms.iter();
    let asked = asked.filter(|room| !probed.iter().any(|name| name == room.name.as_str()));
    // All at once: none waits for one whose gateway is slow.
    let looks = join_all(asked.map(|room| look_at(room)));
    tokio::select! {
        () = ctx.stop.cancelled() => {}
        _ = looks => {}
    }
}

async fn look_at(room: &Room) {
    match room.take_one(Purpose::Probe).await {
        Ok(true) => {}
        Ok(false) => return,
        Err(error) => {
            warn!(account = %room.name, error = %Chain(&error), "the account is not looked at before its first job");
            return;
        }
    }
    let timed = room.call(&wire::account_health()).await;
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
    room.park.heed(Some(&signal));
    room.handles
        .recorder
        .record(Outcome {
            signal: Some(signal),
            ..Outcome::plain(&room.name, Entry::default())
        })
        .await;
}

/// Makes a probe.
async fn probe_account(room: &Arc<Room>, probe: &DueProbe) -> Result<(), DbError> {
    let probes = u32::try_from(probe.probes).unwrap_or(0) + 1;
    let name = &room.name;
    let distance = |probes, hint| probe_delay(&room.handles.rules.breaker, probes, hint, jitter());
    // Whoever has claimed another one meanwhile schedules the next.
    let schedule = async |next| {
        let scheduled = probes::schedule(&room.handles.pool, name, next, Some(probe)).await;
        scheduled.map(|_| ())
    };
    let later = async |hint| schedule(NextProbe::After(distance(probes, hint))).await;
    if !room.take_one(Purpose::Probe).await? {
        return later(None).await;
    }
    crash::reach(Point::ProbeBeforeRequest);
    let timed = room.call(&wire::account_health()).await;
    crash::reach(Point::ProbeAfterAnswer);
    let hint = match &timed.answer {
        Answer::Reply(reply) => hints::wait(reply, room.handles.clock.expected()),
        Answer::NotSent(_) | Answer::Lost(_) => None,
    };
    let answered = health(&timed.answer);
    let is_unclear = answered == Health::Unclear;
    room.probing.note(is_unclear.then(|| got(&timed.answer)));
    match answered {
        Health::Well => {}
        Health::Unwell(reason) => {
            room.park.confirm();
            info!(account = %name, reason = reason.code(), probes, "still unwell");
            let said = match &timed.answer {
                Answer::Reply(reply) => words(reply),
                Answer::NotSent(_) | Answer::Lost(_) => None,
            };
            learn(room, probe, reason, said.as_deref()).await?;
            accounts::forget_refused_jobs(&room.handles.pool, Some(name)).await?;
            return later(hint).await;
        }
        Health::Unclear => {
            warn!(account = %name, probes, "a probe got no clear answer");
            return later(hint).await;
        }
    }
    if let Some(code) = &probe.delivery_error {
        tell_that_health_is_mistaken(room, &probe.reason, code).await?;
    }
    let mut culprits = room.probing.culprits.lock().await;
    if probe.probes == 0 {
        culprits.forget_account(name);
        room.probing.trials().begin();
    }
    let trial = let_one_through(room, probe, &mut culprits).await?;
    drop(culprits);
    match probed(trial, probe.delivery_error.is_some()) {
        Probed::Proven => resume(room, probe, Some("a probe succeeded")).await,
        // Health alone may be mistaken: its alert ends once the account stays well.
        Probed::Believed => resume(room, probe, None).await,
        Probed::Wait => {
            if trial == Trial::NotTaken && is_accumulating(&timed.answer) {
                learn(room, probe, Reason::InvoicesDisabled, None).await?;
            }
            later(None).await
        }
        Probed::WaitForJob => {
            let soonest = room.handles.rules.breaker.probe_initial;
            schedule(NextProbe::ForJob(distance(probes, None), soonest)).await
        }
        Probed::WaitUnused => {
            info!(account = %name, "health says well, and nothing that was tried could be sent: the account is probed again soon");
            schedule(NextProbe::Again(distance(0, None))).await
        }
    }
}

/// Whoever looks at the dashboard sees an account that is well, so the alert says what is not.
async fn tell_that_health_is_mistaken(
    room: &Room,
    parked_reason: &str,
    code: &str,
) -> Result<(), DbError> {
    let reason = Reason::ALL
        .iter()
        .find(|reason| reason.code() == parked_reason);
    let reason = reason.copied().unwrap_or(Reason::ServiceUnavailable);
    let text = alerting::undelivered(&room.name, reason, code, Appearance::Well);
    let changed = alerts::change(&room.handles.pool, &room.name, "account_parked", "", &text).await;
    let is_news = match changed {
        // Whoever keeps the alert locked keeps no payment from being tried.
        Err(error) if error.fault() == AtFault::Lock => {
            warn!(account = %room.name, error = %Chain(&error), "the alert could not be updated (health says well, but invoices fail); a later probe updates it");
            false
        }
        changed => changed?,
    };
    if is_news {
        info!(account = %room.name, code, "health says well, and what is accepted fails at Kaspi");
        room.handles.wake.deliver.notify_one();
    }
    Ok(())
}

/// Resumes the account, unless an operator has taken it over or resumed it while it was probed.
async fn resume(room: &Room, probe: &DueProbe, resolution: Option<&str>) -> Result<(), DbError> {
    crash::reach(Point::TrialOfParkDone);
    let slow_start = room.handles.rules.breaker.slow_start;
    let resumed = accounts::resume(&room.handles.pool, &room.name, resolution, slow_start).await?;
    let Some(jobs) = resumed else {
        info!(account = %room.name, was = probe.reason, "a probe succeeded, of an account that an operator has parked or resumed meanwhile");
        return Ok(());
    };
    room.park.doubt(resolution.is_none());
    room.park.resume(room.age());
    info!(account = %room.name, jobs, was = probe.reason, by_health = resolution.is_none(), "resumed: a probe succeeded");
    room.handles.wake.dispatch.notify_one();
    room.handles.wake.deliver.notify_one();
    Ok(())
}

/// What the gateway says is wrong takes the place of what was known, unless that says more.
async fn learn(
    room: &Room,
    probe: &DueProbe,
    reason: Reason,
    said: Option<&str>,
) -> Result<(), DbError> {
    let is_vague = probe.reason == Reason::ServiceUnavailable.code();
    if !is_vague && !is_specific(reason) {
        return Ok(());
    }
    let park = alerting::parked(&room.name, reason, said, None, &room.handles.host);
    if accounts::learn_of_park(&room.handles.pool, &room.name, &park).await? {
        info!(account = %room.name, reason = reason.code(), was = probe.reason, "a probe learned more");
        room.handles.wake.deliver.notify_one();
    }
    Ok(())
}

/// Sends one job of the account. Health is what the gateway says; a job is the proof. One that ends unsent is none, and
/// leaves its place to the next.
async fn let_one_through(
    room: &Arc<Room>,
    probe: &DueProbe,
    culprits: &mut Culprits,
) -> Result<Trial, DbError> {
    let time = room.handles.rules.request_timeout;
    let began_at = Moment::now();
    let mut tries = Tries::NONE;
    loop {
        let trial = try_one(room, probe, culprits, tries.choice).await?;
        match tries.after(trial, began_at.elapsed(), time) {
            Ok(so_far) => tries = so_far,
            Err(trial) => return Ok(trial),
        }
    }
}

/// Makes sure that nobody else probes the account before one more trial of it is over. False when somebody may.
async fn hold_probe(room: &Room, probe: &DueProbe) -> Result<bool, DbError> {
    let held = NextProbe::Held(room.handles.lease);
    probes::schedule(&room.handles.pool, &room.name, held, Some(probe)).await
}

/// Sends one job, unless it turns out that it must not be sent.
async fn try_one(
    room: &Arc<Room>,
    probe: &DueProbe,
    culprits: &mut Culprits,
    choice: Choice,
) -> Result<Trial, DbError> {
    let slot = heart::beat_until(room.clone().slot()).await;
    let claimed_at = Moment::now();
    match hold_probe(room, probe).await {
        Ok(true) => {}
        Ok(false) => {
            info!(account = %room.name, "no job is tried of an account that an operator has parked or resumed meanwhile, or that another daemon probes");
            return Ok(Trial::NotNow);
        }
        Err(error) if error.fault() == AtFault::Lock => return Ok(not_now(room, &error)),
        Err(error) => return Err(error),
    }
    let asked = room.handles.clock.ask();
    let taken = room.handles.clock.second();
    if !room.take_one(Purpose::Probe).await? {
        return Ok(Trial::NotNow);
    }
    let claimed = claim_one(room, culprits, choice, taken).await;
    if !matches!(claimed, Ok(Some(_))) {
        send::give_back(room, taken).await;
    }
    match claimed {
        Ok(Some(mut granted)) => {
            for claim in granted.claims.iter_mut() {
                claim.now = asked.now(claim.now);
            }
            crash::reach(Point::TrialOfParkClaimed);
            let first = granted.claims.first();
            let (operation, job) = (first.operation.clone(), first.id);
            let Some(sending) = Sending::take(room, granted, claimed_at, Role::TrialOfPark) else {
                return Ok(Trial::NotNow);
            };
            let for_send = room.clone();
            // A task of its own: a stop waits for it, and nothing can drop it half-way.
            let sends = room.handles.sends.clone();
            let sent = sends
                .spawn(heart::shared(async move {
                    send::send(&for_send, sending, slot).await
                }))
                .await;
            let trial = sent.unwrap_or(Trial::NotTaken);
            note(&mut room.probing.trials(), probe, trial, &operation, job);
            Ok(trial)
        }
        // What the database does not let be claimed keeps no account parked.
        Ok(None) => Ok(Trial::NoJob),
        Err(error) if error.fault() == AtFault::Lock => Ok(not_now(room, &error)),
        Err(error) => Err(error),
    }
}

/// Somebody keeps a row locked that a trial needs.
fn not_now(room: &Room, error: &DbError) -> Trial {
    warn!(account = %room.name, error = %Chain(error), "no job could be claimed for a probe now");
    Trial::NotNow
}

/// Notes what came of a trial of this job, so that another has its turn.
fn note(trials: &mut Trials, probe: &DueProbe, trial: Trial, operation: &str, job: JobId) {
    match trial {
        Trial::NotTaken => trials.note_tried(operation, job),
        Trial::Taken if probe.delivery_error.is_some() => trials.note_unproven(operation),
        _ => {}
    }
}

/// Claims the first job that can be claimed of those to choose from, in their turn (see [`Trials`]).
async fn claim_one(
    room: &Room,
    culprits: &mut Culprits,
    choice: Choice,
    taken: SteadySecond,
) -> Result<Option<Granted>, DbError> {
    let order = match choice {
        Choice::Any => room.probing.trials().order(),
        Choice::Parked => {
            let all = OPERATIONS.iter().map(|operation| operation.name());
            vec![all.collect()]
        }
    };
    for operations in order {
        let wanted: Vec<String> = operations.iter().map(ToString::to_string).collect();
        let (without, passed_over) = (culprits.jobs(), room.handles.passed_over.jobs());
        let name = &room.name;
        let due =
            among::due_for_probe(&room.handles.pool, name, &wanted, &without, &passed_over).await?;
        let trials = room.probing.trials().clone();
        let due = match choice {
            Choice::Any => trials.in_turn(&operations, due, |due| due.id),
            Choice::Parked => {
                let parked = due.into_iter().filter(|due| due.state == State::Parked);
                trials.refused_first(parked.collect(), |due| due.id)
            }
        };
        let claimed = culprits
            .run_one(due, |among| {
                claim::claim_trial_of_park(
                    &room.handles.pool,
                    room.handles.worker,
                    room.handles.lease,
                    name,
                    among,
                    taken,
                )
            })
            .await?;
        if claimed.is_some() {
            return Ok(claimed);
        }
    }
    Ok(None)
}
