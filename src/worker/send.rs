//! One request and its jobs: prepare → read what is known before → last look → call → judge → record.

mod earlier;
mod job;
mod sending;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use serde_json::json;
use tracing::{error, info, warn};

use crate::crash::{self, Point};
use crate::db::clock::SteadySecond;
use crate::db::entry::Entry;
use crate::db::originals::{self, Original};
use crate::domain::account::AccountName;
use crate::domain::answer::{Answer, NotSent, Timed};
use crate::domain::errors::FieldErrors;
use crate::domain::group::Group;
use crate::domain::job::{JobId, JobName};
use crate::domain::object::Object;
use crate::domain::operation::{Lookup, Operation, Plan, Planned, Request, Resend};
use crate::domain::outage::Read;
use crate::domain::state::State;
use crate::gateway::wire;
use crate::policy::breaker::{Trial, trial, trial_of_read};
use crate::policy::finding::{Baseline, Finding, Subject};
use crate::policy::found::in_words;
use crate::policy::judge::{asked_again, if_anothers, judge};
use crate::policy::last_look::{LastLook, obstacle};
use crate::policy::others;
use crate::policy::outage::{Sign, sign_of_send};
use crate::policy::reconcile::{key_may_be_free, made_before, original_lives, without_baseline};
use crate::policy::verdict::{Next, Reason, Verdict};
use crate::telemetry::Chain;
use crate::worker::alerting::Known;
use crate::worker::clock::Moment;
use crate::worker::failing;
use crate::worker::find::{self, Asked};
use crate::worker::guard::Guard;
use crate::worker::outcome::{self, AttemptKind, Evidence};
use crate::worker::plan::{self, NoPlan};
use crate::worker::recorder::{Outcome, Signed};
use crate::worker::room::Room;
use crate::worker::room::jobs::Claimed;
use crate::worker::slots::Slot;
use job::{circumstances, hear, if_recorded, purpose, put_back, renew_lease, take_quota};

pub use job::{Job, Role, conclude, guard, hear_lookup};
pub use sending::Sending;

/// Has a request sent by a task of its own, which a stop waits for, as soon as there is a slot for it. Its place among those
/// that wait for one is taken before this returns, so slots are given in the order of the claims.
pub async fn start(room: &Arc<Room>, sending: Sending) {
    let held: Vec<Claimed> = sending
        .jobs
        .iter()
        .map(|_| room.jobs.count_claimed())
        .collect();
    let mut slot = Box::pin(room.clone().slot());
    let at_once = poll_fn(|task| Poll::Ready(slot.as_mut().poll(task))).await;
    let room = room.clone();
    room.handles.sends.clone().spawn(async move {
        let slot = match at_once {
            Poll::Ready(slot) => slot,
            Poll::Pending => slot.await,
        };
        let work = Box::pin(async {
            send(&room, sending, slot).await;
        });
        room.supervise("send", work).await;
        drop(held);
        let wake = &room.handles.wake;
        if wake.wants_slots.load(Ordering::Relaxed) {
            wake.dispatch.notify_one();
        }
    });
}

/// A job that may go to the gateway, and what for.
struct Prepared {
    job: Job,
    guard: Guard,
    operation: &'static dyn Operation,
    planned: Planned,
}

/// Sends a request, and records of each of its jobs what came of it. Not to be dropped before it ends. Returns the worst of
/// what the jobs that were sent say of the account, or, where none was, of what the others do.
pub async fn send(room: &Room, sending: Sending, mut slot: Slot) -> Trial {
    let Sending { jobs, taken } = sending;
    let mut prepared = Vec::with_capacity(jobs.count());
    let mut kept = Trial::Done;
    for job in jobs {
        match prepare(room, job, &mut slot).await {
            Ok(ready) => prepared.push(ready),
            Err(trial) => kept = kept.max(trial),
        }
    }
    let mut going = Vec::with_capacity(prepared.len());
    for prepared in prepared {
        match obstacle_of(room, &prepared.job) {
            None => going.push(prepared),
            Some(cause) => {
                if cause == NotSent::WindowClosed {
                    room.jobs.note_late(true);
                }
                let trial = put_back(room, &prepared.guard, &prepared.job, cause).await;
                kept = kept.max(trial);
            }
        }
    }
    let Some(going) = Group::of_rest(going) else {
        give_back(room, taken).await;
        return kept;
    };
    room.jobs.note_late(false);
    crash::reach(Point::BeforeSend);
    let request = request_of(&going);
    let answer = crash::unanswered(room.call(request));
    let timed = slot.wait(answer).await;
    crash::reach(Point::AfterAnswer);
    if slot.is_brisk() {
        room.pace.count_brisk();
    }
    drop(slot);
    let mut worst = Trial::Done;
    for prepared in going.iter() {
        worst = worst.max(record(room, prepared, request, &timed).await);
    }
    if matches!(timed.answer, Answer::NotSent(_)) {
        give_back(room, taken).await;
    }
    worst
}

/// The one request of all of these jobs. That of a single one is its own, and no operation takes several in one request
/// yet, so groups are of one job.
fn request_of(going: &Group<Prepared>) -> &Request {
    &going.first().planned.request
}

/// Finds out what a job asks for and whether it may be sent, by all that is to be read before. What it says of the account,
/// where the job was recorded otherwise, or is no longer ours.
async fn prepare(room: &Room, mut job: Job, slot: &mut Slot) -> Result<Prepared, Trial> {
    let guard = guard(room, &job.claim, State::Sending);
    let claim = &job.claim;
    let planned = plan::of_claim(&room.handles.pool, claim);
    let (operation, planned) = match planned.await {
        Ok(planned) => planned,
        Err(NoPlan::UnknownOperation) => {
            error!(job.id = %guard.id, operation = claim.operation, "this version does not know the operation; a newer apipayd will");
            return Err(put_back(room, &guard, &job, NotSent::UnknownOperation).await);
        }
        Err(NoPlan::Unread(error)) => {
            warn!(job.id = %guard.id, error = %Chain(&error), "the params could not be fetched; nothing was sent");
            return Err(put_back(room, &guard, &job, NotSent::DatabaseFailed).await);
        }
        Err(NoPlan::Invalid(errors)) => {
            return Err(refuse(room, &guard, &job, &errors).await);
        }
    };
    let plan = &planned.plan;
    let originals = match job.claim.is_copy {
        true => originals(room, &guard, &job).await?,
        false => Vec::new(),
    };
    if plan.resend == Resend::ByBaseline {
        let read = read_before(room, operation, &originals, &guard, plan, &job, slot);
        job.window_from = Box::pin(read).await?;
    }
    if operation.makes_invoice() {
        if !originals.is_empty() {
            let look = earlier::look_at_originals(room, &originals, &guard, plan, &job, slot);
            job.window_from = Box::pin(look).await?;
        }
        if job.claim.name.generation > 1 {
            let look = earlier::look_back(room, operation, &guard, plan, &job, slot);
            job.window_from = Box::pin(look).await?;
        }
    }
    Ok(Prepared {
        job,
        guard,
        operation,
        planned,
    })
}

/// The jobs that a copy repeats. When they cannot be read, the copy is put back.
async fn originals(room: &Room, guard: &Guard, job: &Job) -> Result<Vec<Original>, Trial> {
    match originals::of(&room.handles.pool, guard.id, wire::CHECK_IDS).await {
        Ok(originals) => Ok(originals),
        Err(error) => {
            warn!(job.id = %guard.id, error = %Chain(&error), "what a copy repeats is not known; it is not sent yet");
            Err(put_back(room, guard, job, NotSent::DatabaseFailed).await)
        }
    }
}

/// Judges what came of one job of a request, and records it.
async fn record(room: &Room, prepared: &Prepared, request: &Request, timed: &Timed) -> Trial {
    let Prepared {
        job,
        guard,
        operation,
        planned: Planned { plan, .. },
    } = prepared;
    let at = circumstances(room, job);
    let (name, history) = (job.claim.name, &job.claim.history);
    let verdict = judge(*operation, plan, name, history, timed, at);
    let trial = trial(timed, &verdict);
    let heard = hear(room, job, timed, verdict, false);
    let verdict = &heard.verdict;
    log(&guard.account, &guard.id, verdict);
    let evidence = Evidence {
        guard,
        kind: AttemptKind::Send,
        plan,
        request,
        timed,
        now: at.now,
        signed: job.signed(sign_of_send(timed, verdict, false)),
        failing_since: history.failing_since,
        read: None,
        instead: if_anothers(plan, name, &verdict.next, asked_again(timed, at)),
        may_have_others: others::after_send(plan, history),
        known: Known::nothing_of(&job.claim.operation),
    };
    let recorded = conclude(room, &evidence, heard, job.role == Role::TrialOfPark).await;
    if_recorded(trial, recorded)
}

/// Gives back the quota of a request of which no byte left.
pub async fn give_back(room: &Room, taken: SteadySecond) {
    let outcome = Outcome {
        unspent: Some(taken),
        ..Outcome::plain(&room.name, Entry::default())
    };
    room.handles.recorder.record(outcome).await;
}

/// Why the request must not leave, as things stand now.
fn obstacle_of(room: &Room, job: &Job) -> Option<NotSent> {
    let is_unserved = !room.serves();
    obstacle(LastLook {
        is_stopping: room.handles.stop.is_cancelled(),
        is_history_lost: room.handles.recorder.forgotten().is_some(),
        waited: job.window_from.elapsed(),
        unserved: is_unserved.then(|| room.client.serving.unserved()),
        is_parked: job.role != Role::TrialOfPark && !room.park.allows(job.claimed_at),
        may_key_be_free: key_may_be_free(&job.claim.history, circumstances(room, job)),
    })
}

/// Reads what a look-up of the job would list before it is sent, each time: the database may have forgotten that
/// it was. Stores it when it is the first time. Returns from when the send window counts, or, when the job was recorded
/// otherwise or is no longer ours, what that says of the account.
async fn read_before(
    room: &Room,
    operation: &dyn Operation,
    originals: &[Original],
    guard: &Guard,
    plan: &Plan,
    job: &Job,
    slot: &mut Slot,
) -> Result<Moment, Trial> {
    take_quota(room, guard, job).await?;
    let errand = room.errand(kind_of(&plan.lookup));
    let asked = find::by(room, &plan.lookup, &job.claim.name, purpose(job));
    let Asked {
        request,
        timed,
        finding,
    } = slot.wait(asked).await;
    let at = circumstances(room, job);
    let evidence = |verdict: &Verdict| Evidence {
        guard,
        kind: AttemptKind::Send,
        plan,
        request: &request,
        timed: &timed,
        now: at.now,
        signed: job.signed_first(errand, sign_of_send(&timed, verdict, true)),
        failing_since: job.claim.history.failing_since,
        read: None,
        instead: if_anothers(plan, job.claim.name, &verdict.next, asked_again(&timed, at)),
        may_have_others: false,
        known: Known::nothing_of(&job.claim.operation),
    };
    let Finding::Listed(listed) = finding else {
        let verdict = without_baseline(&job.claim.history, &timed, at);
        let heard = hear(room, job, &timed, verdict, true);
        let recorded = conclude(
            room,
            &evidence(&heard.verdict),
            heard,
            job.role == Role::TrialOfPark,
        )
        .await;
        return Err(if_recorded(trial_of_read(&timed), recorded));
    };
    let is_shown = Signed {
        errand,
        job: None,
        sign: Sign::Clear,
    };
    if failing::is_news(room, &is_shown) {
        let outcome = Outcome {
            signed: Some(is_shown),
            ..Outcome::plain(&room.name, Entry::default())
        };
        room.handles.recorder.record(outcome).await;
    }
    let subject = Subject {
        operation,
        plan,
        name: job.claim.name,
        history: &job.claim.history,
        protection: room.protection,
        baseline: None,
    };
    let made = made_before(&subject, &listed);
    if made.is_some() {
        warn!(job.id = %guard.id, "what the job asks for stands at the gateway already, and the database knows nothing of it; it is not sent again");
    }
    let made = made.map(|verdict| {
        let found = in_words(&subject, &Finding::Listed(listed.clone()), &verdict.next);
        (verdict, found)
    });
    let of_originals = || {
        let names: Vec<JobName> = originals.iter().map(Original::name).collect();
        let is_known = |object: &&Object| {
            let mut originals = originals.iter();
            originals.any(|original| original.refunds.contains(&object.id()))
        };
        let known: Vec<Object> = listed.iter().filter(is_known).cloned().collect();
        let living = original_lives(&job.claim.history, &names, &known, &listed)?;
        Some((living.verdict, Some(living.found)))
    };
    if let Some((verdict, found)) = made.or_else(of_originals) {
        let heard = hear(room, job, &timed, verdict, true);
        let evidence = evidence(&heard.verdict);
        let evidence = Evidence {
            known: Known {
                found: found.as_deref(),
                ..evidence.known
            },
            ..evidence
        };
        let recorded = conclude(room, &evidence, heard, job.role == Role::TrialOfPark).await;
        return Err(if_recorded(trial_of_read(&timed), recorded));
    }
    let baseline = json!(Baseline::of(&listed));
    crash::reach(Point::BeforeBaseline);
    let window_from = renew_lease(room, guard, job, Some(&baseline)).await?;
    crash::reach(Point::AfterBaseline);
    Ok(window_from)
}

/// Which reads go as one does that looks so for what a job made.
fn kind_of(lookup: &Lookup) -> Read {
    match lookup {
        Lookup::Refunds { .. } => Read::Refunds,
        Lookup::InvoiceByName | Lookup::Invoice { .. } => Read::LookUp,
    }
}

/// Ends a job whose params are wrong: nothing is sent. One that an earlier version may have sent is looked up first. Returns
/// what that says of the account.
async fn refuse(room: &Room, guard: &Guard, job: &Job, errors: &FieldErrors) -> Trial {
    info!(job.id = %guard.id, "invalid params; nothing was sent");
    let entry = match job.claim.history.unproven_since {
        None => outcome::invalid_params(guard, AttemptKind::Send, errors),
        Some(_) => outcome::invalid_params_unproven(guard, errors),
    };
    let outcome = Outcome::plain(&guard.account, entry);
    let signed = Some(job.signed(Sign::Silent));
    let outcome = Outcome { signed, ..outcome };
    let recorded = if job.role == Role::Usual {
        room.handles.recorder.record(outcome).await;
        None
    } else {
        Some(room.handles.recorder.record_now(outcome).await)
    };
    if job.role == Role::TrialOfOutage {
        room.handles.wake.trials.notify_one();
    }
    if_recorded(Trial::Wrong, recorded)
}

fn log(account: &AccountName, id: &JobId, verdict: &Verdict) {
    let next = &verdict.next;
    let told = match next {
        Next::Succeeded(_) => "done",
        Next::Accepted { .. } => "accepted; it is followed to its end",
        Next::Queued { .. } => "not done; it is sent again after a while",
        Next::Resubmit(_) => "what it made is dead; it is resubmitted after a while",
        Next::Uncertain { .. } => "whether it was done is not known; it is looked up",
        Next::Parked(_) => "not done; it waits until its account is well",
        Next::Failed(_) => "it failed",
        Next::Held(_) => "whether it was done cannot be told; a human decides",
        Next::CalledOff { .. } => "nothing alive is known of it; it ends as somebody said",
    };
    if matches!(next, Next::Succeeded(_) | Next::Accepted { .. }) {
        tracing::debug!(job.id = %id, account = %account, "{told}");
    } else {
        info!(job.id = %id, account = %account, effect = verdict.effect.as_str(), next = next.state().as_str(), reason = next.reason().map(Reason::code), "{told}");
    }
}
