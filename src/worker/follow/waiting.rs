//! What an object that was just shown means for the jobs that wait for it.

use std::time::Duration;

use tracing::{info, warn};

use super::earlier;
use crate::db::entry::Entry;
use crate::db::mirrors::{AcceptedJob, DueMirror};
use crate::domain::object::{Object, Outlook, Standing};
use crate::domain::state::State;
use crate::policy::checks::{NextCheck, Sighting, next_check};
use crate::policy::finding::Subject;
use crate::policy::follow::{
    Followed, Spans, follow, has_double, is_anothers, is_dropped_again, is_of_another_amount,
    proves_delivery,
};
use crate::policy::judge::Circumstances;
use crate::policy::reconcile::lives_after_all;
use crate::policy::rules::Jitter;
use crate::policy::verdict::{Next, Reason};
use crate::worker::alerting::{Alert, Known, ToCancel};
use crate::worker::guard::Guard;
use crate::worker::jitter::jitter;
use crate::worker::outcome::{self, Following};
use crate::worker::plan::{self, NoPlan};
use crate::worker::recorder::Outcome;
use crate::worker::room::Room;

/// An object as the gateway has just shown it.
#[derive(Clone, Copy)]
pub(super) struct Shown<'a> {
    pub(super) object: &'a Object,
    /// All that the same answer listed, where a list was asked for.
    pub(super) among: &'a [Object],
    /// For how long it has been shown with this status.
    pub(super) unchanged_for: Duration,
}

/// Decides about the jobs that wait for an object, and records what becomes of them, each together with how the object
/// stands (`mirrors`, when it is to be looked at again): a move that is lost takes that along, and the object is asked
/// about again.
pub(super) async fn decide_waiting(
    room: &Room,
    mirror: &DueMirror,
    shown: Shown<'_>,
    usual: NextCheck,
    mirrors: impl Fn(NextCheck) -> Entry,
    following: Following<'_>,
) {
    let mut check = usual;
    let mut decided = Vec::new();
    for job in &mirror.waiting {
        let followed = match has_double(job.name, shown.object, shown.among) {
            true => Some(Followed::doubled()),
            false => decide(room, mirror, job, shown).await,
        };
        if let Some(after) = followed.as_ref().and_then(|followed| followed.check_after) {
            check = NextCheck::After(after);
        }
        let has_news = |followed: &Followed| followed.next.is_some() || followed.signal.is_some();
        decided.extend(followed.filter(has_news).map(|followed| (job, followed)));
    }
    if check == NextCheck::Settled && decided.len() < mirror.waiting.len() {
        let sighting = Sighting {
            unchanged_for: shown.unchanged_for,
            ..Sighting::FIRST
        };
        let rules = &room.handles.rules.follow;
        check = next_check(Outlook::OpenByItself, sighting, rules, jitter());
    }
    let mirrors = mirrors(check);
    if decided.is_empty() {
        let outcome = Outcome::plain(&mirror.account, mirrors);
        room.handles.recorder.record(outcome).await;
        return;
    }
    for (job, followed) in decided {
        let guard = Guard {
            account: mirror.account.clone(),
            id: job.id,
            token: job.name.token,
            worker: None,
            epoch: job.epoch,
            state: State::Accepted,
        };
        let found = followed.found.as_deref();
        let known = Known {
            found,
            is_anothers: followed.is_anothers,
            to_cancel: ToCancel::of_one(
                &job.operation,
                shown.object.id(),
                Some(Standing::of(&**shown.object)),
            ),
            ..Known::nothing_of(&job.operation)
        };
        let next = followed.next.as_ref();
        let is_dropped = is_dropped_again(&job.history, next);
        let alert = next.and_then(|next| Alert::of(&guard, next, known));
        let alert = alert.or_else(|| is_dropped.then(|| Alert::dropped(mirror, job, shown.object)));
        let entry = match next {
            Some(next) => {
                info!(job.id = %job.id, next = next.state().as_str(), reason = next.reason().map(Reason::code), "followed");
                let mirrors = mirrors.clone();
                outcome::followed(&guard, next, shown.object, mirrors, known, following)
            }
            None => mirrors.clone(),
        };
        // Nearly always nobody waits for that, and it costs nothing.
        let is_proof = room.park.waits_for_delivery() && proves_delivery(next);
        room.handles
            .recorder
            .record(Outcome {
                signal: followed.signal,
                alert,
                delivered: is_proof.then(|| mirror.now - job.accepted_for),
                ..Outcome::plain(&mirror.account, entry)
            })
            .await;
        room.handles.wake.dispatch.notify_one();
    }
}

async fn decide(
    room: &Room,
    mirror: &DueMirror,
    job: &AcceptedJob,
    shown: Shown<'_>,
) -> Option<Followed> {
    let planned = plan::plan(
        &room.handles.pool,
        job.id,
        &job.name,
        &job.operation,
        &job.params,
    );
    let (operation, plan) = match planned.await {
        Ok((operation, planned)) => (operation, planned.plan),
        // What it made is followed all the same. Nothing is sent of it by this version.
        Err(NoPlan::Invalid(_)) => plan::without_params(&job.operation, job.history.invoice_id)?,
        // It stays accepted, and the alert of overdue jobs tells of it.
        Err(why @ (NoPlan::UnknownOperation | NoPlan::Unread(_))) => {
            warn!(job.id = %job.id, ?why, "an accepted job cannot be read; it is followed later");
            return None;
        }
    };
    if is_anothers(&plan, job.name, shown.object) {
        return Some(Followed::anothers(shown.object));
    }
    if is_of_another_amount(&plan, shown.object, mirror.amount) {
        return Some(Followed::of_another_amount(&plan, shown.object));
    }
    // It is decided anew with each check, and people read when the object is asked about again: that is not to move.
    let at = Circumstances {
        jitter: Jitter::of_number(shown.object.id()),
        ..room.circumstances(mirror.now)
    };
    let followed = follow(
        operation,
        &plan,
        &job.history,
        shown.object,
        Spans {
            unchanged: shown.unchanged_for,
            accepted: job.accepted_for,
            resumed: mirror.resumed_for,
        },
        at,
    );
    let is_given_up = followed.next == Some(Next::Failed(Reason::GaveUp));
    if !is_given_up || !operation.makes_invoice() {
        return Some(followed);
    }
    let subject = Subject {
        operation,
        plan: &plan,
        name: job.name,
        history: &job.history,
        protection: room.protection,
        baseline: None,
    };
    let earlier = earlier::look_back(room, mirror, job).await?;
    let living = lives_after_all(&subject, &earlier.known, &earlier.named);
    Some(living.map_or(followed, Followed::living))
}

pub(super) fn unchanged_for(mirror: &DueMirror, status: &str) -> Duration {
    if mirror.status == status {
        mirror.unchanged_for
    } else {
        Duration::ZERO
    }
}
