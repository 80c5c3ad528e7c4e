//! Finds out what became of uncertain jobs.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;
use tracing::{info, warn};

use crate::crash::{self, Point};
use crate::db::DbError;
use crate::db::claim::{self, Claim, Lookups, Purpose, Share};
use crate::domain::account::AccountName;
use crate::domain::answer::Answer;
use crate::domain::job::{JobName, Stated};
use crate::domain::object::Object;
use crate::domain::operation::{Operation, Plan};
use crate::domain::outage::Read;
use crate::domain::state::State;
use crate::policy::finding::{Baseline, Finding, Subject};
use crate::policy::follow::is_anothers;
use crate::policy::found::{self, in_words};
use crate::policy::judge::if_anothers;
use crate::policy::others;
use crate::policy::outage::{Errand, sign_of_lookup};
use crate::policy::reconcile::{asked_later, reconcile};
use crate::policy::stated::{Checked, call_off, check_stated, needs_own};
use crate::policy::verdict::{Next, Reason};
use crate::telemetry::Chain;
use crate::worker::alerting::{Alert, Known, ToCancel};
use crate::worker::clock::Moment;
use crate::worker::context::Context;
use crate::worker::culprits::Culprits;
use crate::worker::find::{self, Asked};
use crate::worker::guard::Guard;
use crate::worker::outcome::{self, AttemptKind, Evidence};
use crate::worker::plan::{self, NoPlan};
use crate::worker::pulse::Step;
use crate::worker::recorder::{Outcome, Signed};
use crate::worker::room::Room;
use crate::worker::room::places::Work;
use crate::worker::rooms::named;
use crate::worker::send::{conclude, guard, hear_lookup};
use crate::worker::watch::watch;

/// Claims the jobs that are due, but for those that make their claim fail, and hands each to a task of its room. As
/// many of an account as it has places for.
pub async fn step(ctx: &Arc<Context>, culprits: &mut Culprits) -> Result<Step, DbError> {
    let served = ctx.served();
    let shares = served.iter().map(|room| Share {
        account: room.name.clone(),
        jobs: room.places.free(Work::LookUp),
    });
    let shares: Vec<Share> = shares.filter(|share| share.jobs > 0).collect();
    let accounts: Vec<String> = shares
        .iter()
        .map(|share| share.account.to_string())
        .collect();
    let claimed_at = Moment::now();
    let asked = ctx.clock.ask();
    // One at a time asks for these: what it gets says whether the others may.
    let slow = served.iter();
    let slow = slow.filter(|room| room.outages.reads_slowly(Read::LookUp));
    let slow: BTreeSet<AccountName> = slow.map(|room| room.name.clone()).collect();
    let most = shares.iter().map(|share| share.jobs).sum();
    let lookups = Lookups {
        shares: &shares,
        lease: ctx.lease,
        longest: ctx.longest_trial(),
        trial: ctx.trial(),
    };
    let claims = culprits
        .run(&accounts, most, |mut among| {
            // What was found out about these is known, and not stored yet.
            among.without.extend(ctx.recorder.shelf().jobs());
            claim::claim_lookups(&ctx.pool, ctx.worker, lookups, among, ctx.clock.second())
        })
        .await?;
    if claims.is_empty() {
        return Ok(Step::Idle);
    }
    for mut claim in claims {
        claim.now = asked.now(claim.now);
        let Some(room) = named(&served, &claim.account).cloned() else {
            continue;
        };
        // Only as many are claimed as there are places, and nobody else takes them.
        let Some(place) = room.places.take(Work::LookUp) else {
            continue;
        };
        let errand = Errand::read(Read::LookUp, slow.contains(&room.name));
        room.clone().spawn("lookup", async move {
            look_up(&room, claim, claimed_at, errand).await;
            let wake = &room.handles.wake;
            if place.is_last() {
                wake.lookup.notify_one();
            }
            drop(place);
            wake.dispatch.notify_one();
        });
    }
    Ok(Step::Worked)
}

async fn look_up(room: &Room, mut claim: Claim, claimed_at: Moment, errand: Errand) {
    let guard = guard(room, &claim, State::Uncertain);
    let Some((operation, plan)) = planned(room, &guard, &mut claim).await else {
        return;
    };
    if !room.may_send(claimed_at) {
        // The lease of the claim runs out, and the job is looked up once the account is well.
        return;
    }
    let known = baseline(claim.baseline.as_ref());
    let subject = Subject {
        operation,
        plan: &plan,
        name: claim.name,
        history: &claim.history,
        protection: room.protection,
        baseline: known.as_ref(),
    };
    let Some(asked) = ask(room, &claim, &subject).await else {
        // When the claim has run out, all of it is asked for.
        return;
    };
    let at = room.circumstances(claim.now + claimed_at.elapsed());
    let findings: Vec<&Finding> = asked.iter().map(|asked| &asked.finding).collect();
    let finding = findings[0];
    let Checked {
        verdict,
        refuted,
        decided_by,
    } = match &claim.stated {
        _ if claim.is_unwanted => call_off(&subject, &findings, at),
        Some(stated) => check_stated(&subject, stated, finding, findings.get(1).copied(), at),
        None => Checked::of(reconcile(&subject, finding, at)),
    };
    let is_taken_anyway = (refuted.as_ref()).is_some_and(|refuted| refuted.is_taken_anyway);
    let found = refuted
        .map(|refuted| refuted.words)
        .or_else(|| in_words(&subject, finding, &verdict.next));
    // The request that decided, with its own answer.
    let Asked { request, timed, .. } = asked.get(decided_by).unwrap_or(&asked[0]);
    info!(
        job.id = %claim.id, next = verdict.next.state().as_str(),
        reason = verdict.next.reason().map(Reason::code), "looked up"
    );
    let evidence = Evidence {
        guard: &guard,
        kind: AttemptKind::Lookup,
        plan: &plan,
        request,
        timed,
        now: at.now,
        signed: Signed {
            errand,
            job: Some(claim.id),
            sign: sign_of_lookup(timed, &verdict),
        },
        failing_since: claim.history.failing_since,
        read: match finding {
            Finding::Read(object) if plan.lookup.acts_on_object() => Some(object),
            _ => None,
        },
        instead: if_anothers(
            &plan,
            claim.name,
            &verdict.next,
            asked_later(&claim.history, at),
        )
        .filter(|_| !is_taken_as_own(claim.stated.as_ref(), claim.name, &verdict.next)),
        may_have_others: others::after_look_up(&plan, claim.name, &claim.history, finding, at),
        known: Known {
            found: found.as_deref(),
            since: None,
            is_taken_anyway,
            is_anothers: false,
            denied_since: claim.history.denied_since,
            is_refused: matches!(&timed.answer, Answer::Reply(reply) if reply.status == 403),
            to_cancel: to_cancel(&claim, &subject, &findings, &verdict.next),
            sight: subject.operation.sight(),
        },
    };
    let others = found::to_watch(&subject, &findings, &verdict.next);
    watch(room, guard.maker(), others).await;
    let heard = hear_lookup(room, verdict);
    conclude(room, &evidence, heard, true).await;
}

/// How the job is found. None when it cannot be looked up now, or was recorded otherwise.
async fn planned(
    room: &Room,
    guard: &Guard,
    claim: &mut Claim,
) -> Option<(&'static dyn Operation, Plan)> {
    match plan::of_claim(&room.handles.pool, claim).await {
        Ok((operation, planned)) => return Some((operation, planned.plan)),
        // The lease of the claim runs out, and the job is looked up then.
        Err(NoPlan::Unread(error)) => {
            warn!(job.id = %claim.id, error = %Chain(&error), "the params could not be fetched; looked up later");
        }
        Err(NoPlan::UnknownOperation) => {
            let message = "this version does not know the operation";
            cannot_read(room, guard, claim, message).await;
        }
        Err(NoPlan::Invalid(errors)) => {
            // A version that took them may have sent it. This one does not, and says so once it is known that nothing is there.
            let found = plan::without_params(&claim.operation, claim.history.invoice_id);
            if found.is_some() {
                claim.history.is_sent_no_more = true;
                return found;
            }
            let entry = outcome::invalid_params(guard, AttemptKind::Lookup, &errors);
            let outcome = Outcome::plain(&guard.account, entry);
            room.handles.recorder.record(outcome).await;
        }
    }
    None
}

/// Asks the gateway for what there is of the job: as its operation says, or for the object that a person has named. What the
/// first answer leaves open is asked for as well. None when the quota has no room for that.
async fn ask(room: &Room, claim: &Claim, subject: &Subject<'_>) -> Option<Vec<Asked>> {
    crash::reach(Point::LookupBeforeRequest);
    let plan = subject.plan;
    let by_number = plan.lookup.of_known(claim.history.invoice_id);
    // Of one that is not wanted whichever generation lives can be paid, so all of them are searched for.
    let (lookup, name) = match claim.stated {
        _ if claim.is_unwanted => (&plan.lookup, claim.name.first()),
        Some(stated) => (&plan.lookup.of_known(Some(stated.id)), claim.name),
        None => (&by_number, claim.name),
    };
    let first = find::by(room, lookup, &name, Purpose::Lookup).await;
    crash::reach(Point::LookupAfterAnswer);
    let has_room = async || matches!(room.take_one(Purpose::Lookup).await, Ok(true));
    // What is read by its number and carries another job's name is not this job's, which is looked for by its own.
    let shows_anothers = |seen: &Object| is_anothers(plan, claim.name, seen);
    // What is dead and differs was seen to by whoever says that nothing was done: another one may live.
    let is_seen_to =
        |seen: &Object| claim.history.is_denied() && seen.is_dead() && !seen.agrees(&plan.expected);
    let is_by_number = claim.stated.is_none() && !claim.is_unwanted && by_number != plan.lookup;
    if is_by_number
        && (first.finding.objects().iter()).any(|seen| shows_anothers(seen) || is_seen_to(seen))
    {
        if !has_room().await {
            return None;
        }
        let by_name = find::by(room, &plan.lookup, &claim.name, Purpose::Lookup).await;
        return Some(vec![by_name]);
    }
    let finds_other = match &claim.stated {
        _ if claim.is_unwanted => by_number != plan.lookup,
        Some(stated) => needs_own(subject, stated, &first.finding),
        None => false,
    };
    if !finds_other {
        return Some(vec![first]);
    }
    if !has_room().await {
        return None;
    }
    let other = if claim.is_unwanted {
        find::by(room, &by_number, &claim.name, Purpose::Lookup).await
    } else {
        find::by_name(room, &claim.name.first(), Purpose::Lookup).await
    };
    Some(vec![first, other])
}

/// What a person may have to cancel before the job can be sent again.
fn to_cancel(claim: &Claim, subject: &Subject<'_>, findings: &[&Finding], next: &Next) -> ToCancel {
    match found::to_decide(subject, findings, next) {
        Some((id, standing)) => ToCancel::of_one(&claim.operation, id, Some(standing)),
        None => ToCancel::of(&claim.operation),
    }
}

/// Whether a person has said that the job goes by an object that another job has here, and it carries this job's name.
fn is_taken_as_own(stated: Option<&Stated>, name: JobName, next: &Next) -> bool {
    let is_said = stated.is_some_and(|stated| stated.anyway);
    match next {
        Next::Succeeded(seen) | Next::Accepted { seen, .. } => is_said && name.names(seen),
        _ => false,
    }
}

/// A human has to decide about a job whose operation this version does not know and another one may have sent, or has
/// decided.
async fn cannot_read(room: &Room, guard: &Guard, claim: &Claim, message: &str) {
    let known = Known {
        denied_since: claim.history.denied_since,
        ..Known::nothing_of(&claim.operation)
    };
    if claim.is_unwanted {
        let outcome = Outcome {
            alert: Some(Alert::ended_unseen(guard, known)),
            ..Outcome::plain(&guard.account, outcome::called_off(guard, message))
        };
        return room.handles.recorder.record(outcome).await;
    }
    let outcome = Outcome {
        alert: Alert::of(guard, &Next::Held(Reason::UnknownOutcome), known),
        ..Outcome::plain(&guard.account, outcome::held(guard, message))
    };
    room.handles.recorder.record(outcome).await;
}

fn baseline(stored: Option<&Value>) -> Option<Baseline> {
    stored.map(|stored| {
        serde_json::from_value(stored.clone()).unwrap_or_else(|error| {
            warn!(error = %error, "a stored baseline cannot be read; every refund counts as new");
            Baseline::default()
        })
    })
}
