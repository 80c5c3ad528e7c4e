//! Searches for the other invoices that a followed one's job may have, once they must be listed.

use std::time::Duration;

use tracing::{info, warn};

use super::apart::may_ask_once_more;
use super::asking::note;
use crate::crash::{self, Point};
use crate::db::DbError;
use crate::db::claim::Purpose;
use crate::db::mirrors::{self, DueMirror};
use crate::domain::job::{JobId, JobName};
use crate::domain::object::{InvoiceStatus, Object};
use crate::domain::outage::Read;
use crate::gateway::wire;
use crate::policy::finding::Finding;
use crate::policy::others::{are_listed, unknown};
use crate::policy::outage::Errand;
use crate::telemetry::Chain;
use crate::worker::clock::Moment;
use crate::worker::find;
use crate::worker::guard::Maker;
use crate::worker::revived;
use crate::worker::room::Room;
use crate::worker::watch::watch;

/// Searches by one check at most: what else it has shown waits to be recorded meanwhile.
const SEARCHES: usize = 4;

/// Searches for them if there may be any and it is time. What is found is told, if it lives, then recorded as the job's, and
/// followed. Returns whether the search is still to be made, or made once more: it is over when it shows nothing that is not
/// recorded yet. `searches` counts those of the check.
pub(super) async fn search(
    room: &Room,
    mirror: &DueMirror,
    unchanged_for: Duration,
    searches: &mut usize,
) -> bool {
    let Some((id, token)) = mirror.made_by.map(JobId).zip(mirror.unsought_of) else {
        return false;
    };
    let is_due = are_listed(mirror.mirrored_for, room.handles.rules.settle);
    if !is_due || *searches == SEARCHES {
        return true;
    }
    *searches += 1;
    let job = Maker { id, token };
    match find_unknown(room, mirror, job, unchanged_for).await {
        Ok(is_over) => !is_over,
        Err(error) => {
            warn!(job.id = %id, error = %Chain(&error), "the other invoices of a job could not be searched for; that is tried again");
            true
        }
    }
}

/// Whether the search is over.
async fn find_unknown(
    room: &Room,
    mirror: &DueMirror,
    job: Maker,
    unchanged_for: Duration,
) -> Result<bool, DbError> {
    let pool = &room.handles.pool;
    let is_possible = room.may_read(Read::LookUp) && may_ask_once_more(room, Moment::now()).await;
    if !is_possible {
        return Ok(false);
    }
    let errand = Errand::read(Read::LookUp, room.outages.reads_slowly(Read::LookUp));
    let name = JobName {
        token: job.token,
        generation: 1,
    };
    let asked = find::by_name(room, &name, Purpose::Follow).await;
    let is_found = matches!(asked.finding, Finding::Listed(_));
    note(
        room,
        errand,
        &asked.timed,
        is_found,
        std::slice::from_ref(mirror),
    )
    .await;
    let Finding::Listed(listed) = asked.finding else {
        return Ok(false);
    };
    let known = mirrors::of_job(pool, &room.name, job.id, job.token, wire::CHECK_IDS).await?;
    let others = unknown(name, mirror.invoice_id, &known, &listed);
    let is_over = match &others {
        Some(others) => others.is_empty(),
        // No list has shown the invoice itself in all this time.
        None => unchanged_for >= room.handles.rules.follow.watch_after_final,
    };
    if is_over {
        mirrors::end_search(pool, &room.name, mirror.invoice_id).await?;
    }
    for other in others.unwrap_or_default() {
        record(room, job, other).await?;
    }
    Ok(is_over)
}

/// Whoever must hear of it is told first: an invoice that is paid when it is first seen is never looked at again.
async fn record(room: &Room, job: Maker, other: &Object) -> Result<(), DbError> {
    info!(job.id = %job.id, invoice = other.id(), status = other.status(), "the job has another invoice, of which no answer had told");
    if !other.is_dead() {
        let status = InvoiceStatus::parse(other.status());
        revived::tell(room, job.id, other.id(), &status).await?;
    }
    crash::reach(Point::OthersBeforeRecord);
    watch(room, job, [other]).await;
    crash::reach(Point::OthersAfterRecord);
    Ok(())
}
