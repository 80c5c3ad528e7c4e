//! Before a bill is resubmitted, or a copy is sent: whether an invoice of it, or of what it repeats, lives.

use tracing::{info, warn};

use super::job::{
    Job, Role, circumstances, conclude, hear, if_recorded, purpose, put_back, renew_lease,
    take_quota,
};
use crate::crash::{self, Point};
use crate::db::mirrors;
use crate::db::originals::Original;
use crate::domain::answer::{Answer, NotSent, Timed};
use crate::domain::job::{JobId, JobName};
use crate::domain::object::Object;
use crate::domain::operation::{Operation, Plan, Request};
use crate::gateway::wire;
use crate::policy::breaker::{Trial, trial_of_read};
use crate::policy::finding::{Finding, Subject};
use crate::policy::others::unrecorded;
use crate::policy::outage::{sign_of_question, sign_of_send};
use crate::policy::reconcile::{
    Living, asked_for, left_out, lives_after_all, original_lives, without_earlier,
};
use crate::policy::unseen::{First, unseen};
use crate::policy::verdict::{Reason, Verdict};
use crate::telemetry::Chain;
use crate::worker::alerting::Known;
use crate::worker::clock::Moment;
use crate::worker::find::{self, Asked};
use crate::worker::guard::{Guard, Maker};
use crate::worker::outcome::{self, AttemptKind, Evidence};
use crate::worker::room::Room;
use crate::worker::slots::Slot;
use crate::worker::watch::watch;

/// The bill, and who sends it.
struct Asking<'a> {
    room: &'a Room,
    guard: &'a Guard,
    plan: &'a Plan,
    job: &'a Job,
}

/// Asks for the earlier invoices of a bill before it is resubmitted, by the numbers that are known and by its name: where
/// a person named another one in place of its own, that one is known by nothing else. One that lives after all is
/// adopted, and nothing is sent. Returns from when the send window counts, or, when the job was recorded otherwise, what
/// that says of the account.
pub(super) async fn look_back(
    room: &Room,
    operation: &dyn Operation,
    guard: &Guard,
    plan: &Plan,
    job: &Job,
    slot: &mut Slot,
) -> Result<Moment, Trial> {
    let ids = match mirrors::of_job(
        &room.handles.pool,
        &room.name,
        guard.id,
        guard.token,
        wire::CHECK_IDS,
    )
    .await
    {
        Ok(ids) => ids,
        Err(error) => {
            warn!(job.id = %guard.id, error = %Chain(&error), "the earlier invoices of a bill are not known; it is not resubmitted yet");
            return Err(put_back(room, guard, job, NotSent::DatabaseFailed).await);
        }
    };
    let asking = Asking {
        room,
        guard,
        plan,
        job,
    };
    crash::reach(Point::EarlierBeforeRequest);
    let known = match &ids[..] {
        [] => Vec::new(),
        ids => asking.check(ids, First::Own(ids), slot).await?.shown,
    };
    let Named {
        request,
        timed,
        invoices: named,
    } = asking
        .search(job.claim.name.first(), First::Named, slot)
        .await?;
    let subject = Subject {
        operation,
        plan,
        name: job.claim.name,
        history: &job.claim.history,
        protection: room.protection,
        baseline: None,
    };
    let unrecorded = unrecorded(job.claim.name, &ids, &named);
    watch(room, guard.maker(), unrecorded).await;
    match lives_after_all(&subject, &known, &named) {
        None => {
            crash::reach(Point::EarlierAfterAnswer);
            renew_lease(room, guard, job, None).await
        }
        Some(living) => Err(asking.end(&request, &timed, living).await),
    }
}

/// Asks for the invoices of the jobs that a copy repeats: by their numbers, for one that had failed when the copy was made may
/// have been delivered since (API, section 4.4); and by the names of those jobs of which a request got no clear answer, for
/// what that made may have come after the look-up that found nothing. While one lives, the copy ends unsent. Returns and
/// takes what [`look_back`] does.
pub(super) async fn look_at_originals(
    room: &Room,
    originals: &[Original],
    guard: &Guard,
    plan: &Plan,
    job: &Job,
    slot: &mut Slot,
) -> Result<Moment, Trial> {
    let invoices = originals.iter().flat_map(|original| {
        let ids = original.invoices.iter();
        ids.map(|invoice| (original.id, *invoice))
    });
    let invoices: Vec<(JobId, i64)> = invoices.take(wire::CHECK_IDS).collect();
    let unclear = originals.iter().filter(|o| o.may_have_made_more);
    let unclear: Vec<&Original> = unclear.collect();
    if invoices.is_empty() && unclear.is_empty() {
        return Ok(job.window_from);
    }
    let asking = Asking {
        room,
        guard,
        plan,
        job,
    };
    crash::reach(Point::EarlierBeforeRequest);
    if !invoices.is_empty() {
        let ids: Vec<i64> = invoices.iter().map(|(_, invoice)| *invoice).collect();
        let first = First::OfOriginals(&invoices);
        let Checked {
            request,
            timed,
            shown,
        } = asking.check(&ids, first, slot).await?;
        if let Some(living) = original_lives(&job.claim.history, &[], &shown, &[]) {
            return Err(asking.end(&request, &timed, living).await);
        }
    }
    for original in unclear {
        // Each of these requests takes its time.
        renew_lease(room, guard, job, None).await?;
        let first = First::NamedAsOriginal(original.id);
        let Named {
            request,
            timed,
            invoices,
        } = asking.search(original.name(), first, slot).await?;
        let made_by = Maker {
            id: original.id,
            token: original.token,
        };
        let unrecorded = unrecorded(original.name(), &original.invoices, &invoices);
        watch(room, made_by, unrecorded).await;
        let names = [original.name()];
        if let Some(living) = original_lives(&job.claim.history, &names, &[], &invoices) {
            return Err(asking.end(&request, &timed, living).await);
        }
    }
    crash::reach(Point::EarlierAfterAnswer);
    renew_lease(room, guard, job, None).await
}

/// What a check of invoices by their numbers brought.
struct Checked {
    request: Request,
    timed: Timed,
    shown: Vec<Object>,
}

/// What a search for the invoices with a name brought.
struct Named {
    request: Request,
    timed: Timed,
    invoices: Vec<Object>,
}

impl Asking<'_> {
    /// Asks how these invoices are. When that was not possible, or not all of them were shown, the job is put off, or no
    /// longer ours.
    async fn check(
        &self,
        ids: &[i64],
        first: First<'_>,
        slot: &mut Slot,
    ) -> Result<Checked, Trial> {
        take_quota(self.room, self.guard, self.job).await?;
        let request = wire::check_invoices(ids);
        let timed = slot.wait(self.room.call(&request)).await;
        let shown = wire::read_check(&timed);
        let left_out = shown.as_ref().map(|shown| left_out(ids, shown));
        let Some(shown) = shown.and_then(|shown| asked_for(ids, shown)) else {
            let left_out = left_out.unwrap_or_default();
            return Err(self.put_off(&request, &timed, first, &left_out).await);
        };
        Ok(Checked {
            request,
            timed,
            shown: shown.into_iter().map(Object::from).collect(),
        })
    }

    /// Asks for the invoices with this name. When that was not possible, the job is put off, or no longer ours.
    async fn search(
        &self,
        name: JobName,
        first: First<'_>,
        slot: &mut Slot,
    ) -> Result<Named, Trial> {
        take_quota(self.room, self.guard, self.job).await?;
        let search = find::by_name(self.room, &name, purpose(self.job));
        let Asked {
            request,
            timed,
            finding,
        } = slot.wait(search).await;
        let Finding::Listed(invoices) = finding else {
            return Err(self.put_off(&request, &timed, first, &[]).await);
        };
        Ok(Named {
            request,
            timed,
            invoices,
        })
    }

    /// One lives, so nothing is sent.
    async fn end(&self, request: &Request, timed: &Timed, living: Living) -> Trial {
        let found = Some(living.found.as_str());
        self.record(request, timed, living.verdict, found).await
    }

    /// It could not be asked whether one lives, so nothing is sent.
    async fn put_off(
        &self,
        request: &Request,
        timed: &Timed,
        first: First<'_>,
        left_out: &[i64],
    ) -> Trial {
        let at = circumstances(self.room, self.job);
        let verdict = without_earlier(&self.job.claim.history, timed, at);
        let said = match &timed.answer {
            Answer::Reply(reply) => reply.said().map(|said| format!("ApiPay said: {said}")),
            Answer::NotSent(_) | Answer::Lost(_) => None,
        };
        let instead = said.or_else(|| outcome::explain(&timed.answer));
        let found = unseen(first, left_out, instead.as_deref());
        self.record(request, timed, verdict, Some(&found)).await
    }

    /// Records what becomes of the job in place of its send. Returns what that says of the account.
    async fn record(
        &self,
        request: &Request,
        timed: &Timed,
        verdict: Verdict,
        found: Option<&str>,
    ) -> Trial {
        let (guard, job) = (self.guard, self.job);
        let mut heard = hear(self.room, job, timed, verdict, true);
        // Nothing of the job itself was sent.
        heard.verdict.counts = false;
        let sign = sign_of_send(timed, &heard.verdict, true);
        heard.of_account = Some(sign_of_question(&sign));
        let verdict = &heard.verdict;
        info!(
            job.id = %guard.id, account = %self.room.name, next = verdict.next.state().as_str(),
            reason = verdict.next.reason().map(Reason::code), "what is asked for first keeps it from being sent"
        );
        let evidence = Evidence {
            guard,
            kind: AttemptKind::First,
            plan: self.plan,
            request,
            timed,
            now: circumstances(self.room, job).now,
            signed: job.signed(sign),
            failing_since: job.claim.history.failing_since,
            read: None,
            // Whose its invoices are is known by their numbers, or by its name.
            instead: None,
            may_have_others: false,
            known: Known {
                found,
                ..Known::nothing_of(&job.claim.operation)
            },
        };
        let is_trial = job.role == Role::TrialOfPark;
        let recorded = conclude(self.room, &evidence, heard, is_trial).await;
        if_recorded(trial_of_read(timed), recorded)
    }
}
