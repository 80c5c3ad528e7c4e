//! Watches accepted objects to their end.

mod apart;
mod asking;
mod divide;
mod earlier;
mod invoices;
mod others;
mod refunds;
mod waiting;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::db::DbError;
use crate::db::entry::Entry;
use crate::db::mirrors::DueMirror;
use crate::policy::follow::is_overdue;
use crate::worker::alerting::Alert;
use crate::worker::clock::Moment;
use crate::worker::context::Context;
use crate::worker::pulse::Step;
use crate::worker::recorder::Outcome;
use crate::worker::room::Room;
use crate::worker::room::places::Work;
use crate::worker::rooms::named;
use crate::worker::steady::Asked;

/// Claims what is due to be checked, and hands each account's part to a task of its room. Of an account whose last
/// part is not done yet nothing is claimed.
pub async fn step(ctx: &Arc<Context>) -> Result<Step, DbError> {
    let served = ctx.served();
    let claimed_at = Moment::now();
    let asked = ctx.clock.ask();
    // Neither waits for what fails the other.
    let mut due = Vec::new();
    let mut failed = None;
    for claimed in [
        invoices::claim(ctx, &served).await,
        refunds::claim(ctx, &served).await,
    ] {
        match claimed {
            Ok(claimed) => due.extend(by_expected_clock(asked, claimed)),
            Err(error) => drop(failed.get_or_insert(error)),
        }
    }
    let is_idle = due.is_empty();
    for (name, due) in by(due, |mirror| mirror.account.clone()) {
        let Some(room) = named(&served, &name).cloned() else {
            continue;
        };
        // Nobody else takes the place.
        let Some(place) = room.places.take(Work::Follow) else {
            continue;
        };
        room.clone().spawn("follow", async move {
            check_account(&room, due, claimed_at).await;
            drop(place);
            room.handles.wake.follow.notify_one();
        });
    }
    match failed {
        Some(error) => Err(error),
        None if is_idle => Ok(Step::Idle),
        None => Ok(Step::Worked),
    }
}

/// The database measured how long things have been so: by a clock that was set just now, it did so wrongly.
fn by_expected_clock(asked: Asked, mut due: Vec<DueMirror>) -> Vec<DueMirror> {
    for mirror in &mut due {
        let now = asked.now(mirror.now);
        let ahead = Duration::try_from(mirror.now - now).unwrap_or_default();
        mirror.now = now;
        mirror.unchanged_for = mirror.unchanged_for.saturating_sub(ahead);
        mirror.mirrored_for = mirror.mirrored_for.saturating_sub(ahead);
        for job in &mut mirror.waiting {
            job.accepted_for = job.accepted_for.saturating_sub(ahead);
        }
    }
    due
}

fn by<K: Ord>(
    due: impl IntoIterator<Item = DueMirror>,
    key: impl Fn(&DueMirror) -> K,
) -> BTreeMap<K, Vec<DueMirror>> {
    let mut groups: BTreeMap<K, Vec<DueMirror>> = BTreeMap::new();
    for mirror in due {
        groups.entry(key(&mirror)).or_default().push(mirror);
    }
    groups
}

async fn check_account(room: &Room, due: Vec<DueMirror>, claimed_at: Moment) {
    tell_overdue(room, &due).await;
    let (refunds, invoices): (Vec<_>, Vec<_>) = due
        .into_iter()
        .partition(|mirror| mirror.refund_id.is_some());
    if !invoices.is_empty() {
        invoices::check(room, &invoices, claimed_at).await;
    }
    for (invoice_id, due) in by(refunds, |mirror| mirror.invoice_id) {
        refunds::check(room, invoice_id, &due, claimed_at).await;
    }
}

/// Opens an alert about the job that has been accepted for longest, if that is too long. By a clock that was
/// set just now nobody can tell: what was written meanwhile may not have been carried along.
async fn tell_overdue(room: &Room, due: &[DueMirror]) {
    if !room.handles.clock.is_calm() {
        return;
    }
    let waiting = due
        .iter()
        .flat_map(|mirror| mirror.waiting.iter().map(move |job| (mirror, job)));
    let longest = waiting.max_by_key(|(_, job)| job.accepted_for);
    let Some((mirror, job)) =
        longest.filter(|(_, job)| is_overdue(job.accepted_for, &room.handles.rules))
    else {
        return;
    };
    room.handles
        .recorder
        .record(Outcome {
            alert: Some(Alert::overdue(mirror, job)),
            ..Outcome::plain(&room.name, Entry::default())
        })
        .await;
}
