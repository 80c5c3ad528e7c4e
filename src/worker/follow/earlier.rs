//! Before an accepted bill is given up: whether another invoice of it lives.

use tracing::warn;

use super::apart::{check_apart, may_ask_once_more};
use super::asking::note;
use crate::db::claim::Purpose;
use crate::db::mirrors::{self, AcceptedJob, DueMirror};
use crate::domain::object::Object;
use crate::domain::outage::Read;
use crate::gateway::wire;
use crate::policy::finding::Finding;
use crate::policy::others::unrecorded;
use crate::policy::outage::Errand;
use crate::policy::reconcile::asked_for;
use crate::telemetry::Chain;
use crate::worker::clock::Moment;
use crate::worker::find;
use crate::worker::guard::Maker;
use crate::worker::room::Room;
use crate::worker::watch::watch;

/// What all invoices of a bill look like now.
pub(super) struct Earlier {
    /// Those that are known by their numbers.
    pub(super) known: Vec<Object>,
    /// Those that a search by its name showed.
    pub(super) named: Vec<Object>,
}

/// Asks for them. `None` when that is not possible now: then the job stays accepted, and it is decided later.
pub(super) async fn look_back(
    room: &Room,
    mirror: &DueMirror,
    job: &AcceptedJob,
) -> Option<Earlier> {
    let ids = match mirrors::of_job(
        &room.handles.pool,
        &room.name,
        job.id,
        job.name.token,
        wire::CHECK_IDS,
    )
    .await
    {
        Ok(ids) => ids,
        Err(error) => {
            warn!(job.id = %job.id, error = %Chain(&error), "the invoices of a job are not known; it is given up later, if at all");
            return None;
        }
    };
    let due = std::slice::from_ref(mirror);
    let known = check_apart(room, &ids, due, Moment::now()).await?;
    let known = asked_for(&ids, known)?;
    let known = known.into_iter().map(Object::from).collect();
    let is_possible = room.may_read(Read::LookUp) && may_ask_once_more(room, Moment::now()).await;
    if !is_possible {
        return None;
    }
    let errand = Errand::read(Read::LookUp, room.outages.reads_slowly(Read::LookUp));
    let asked = find::by_name(room, &job.name.first(), Purpose::Follow).await;
    let is_found = matches!(asked.finding, Finding::Listed(_));
    note(room, errand, &asked.timed, is_found, due).await;
    match asked.finding {
        Finding::Listed(named) => {
            let maker = Maker {
                id: job.id,
                token: job.name.token,
            };
            watch(room, maker, unrecorded(job.name, &ids, &named)).await;
            Some(Earlier { known, named })
        }
        Finding::Read(_) | Finding::Unclear(_) => None,
    }
}
