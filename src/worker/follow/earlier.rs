//! Before an accepted bill is given up: whether another invoice of it lives.

use std::sync::Arc;

use tracing::warn;

use super::apart::{check_apart, may_ask_once_more};
use super::asking::{may_read, note};
use crate::db::claim::Purpose;
use crate::db::mirrors::{self, AcceptedJob, DueMirror};
use crate::domain::object::Object;
use crate::domain::outage::Read;
use crate::gateway::wire;
use crate::policy::finding::Finding;
use crate::policy::outage::Errand;
use crate::telemetry::Chain;
use crate::worker::account::Account;
use crate::worker::clock::Moment;
use crate::worker::context::Context;
use crate::worker::search;

/// What all invoices of a bill look like now.
pub(super) struct Earlier {
    /// Those that are known by their numbers.
    pub(super) known: Vec<Object>,
    /// Those that a search by its name showed.
    pub(super) named: Vec<Object>,
}

/// Asks for them. `None` when that is not possible now: then the job stays accepted, and it is decided later.
pub(super) async fn look_back(
    ctx: &Arc<Context>,
    account: &Account,
    mirror: &DueMirror,
    job: &AcceptedJob,
) -> Option<Earlier> {
    let ids = match mirrors::of_job(&ctx.pool, &account.name, job.id, wire::CHECK_IDS).await {
        Ok(ids) => ids,
        Err(error) => {
            warn!(job.id = %job.id, error = %Chain(&error), "the invoices of a job are not known; it is given up later, if at all");
            return None;
        }
    };
    let due = std::slice::from_ref(mirror);
    let known = check_apart(ctx, account, &ids, due, Moment::now()).await?;
    let known = known.into_iter().map(Object::from).collect();
    let is_possible = may_read(ctx, account, Read::LookUp)
        && may_ask_once_more(ctx, account, Moment::now()).await;
    if !is_possible {
        return None;
    }
    let errand = Errand::read(Read::LookUp, account.reads_slowly(Read::LookUp));
    let (_, timed, found) = search::by_name(ctx, account, &job.name.first(), Purpose::Follow).await;
    let is_found = matches!(found, Finding::Listed(_));
    note(ctx, account, errand, &timed, is_found, due).await;
    match found {
        Finding::Listed(named) => Some(Earlier { known, named }),
        Finding::Read(_) | Finding::Unclear(_) => None,
    }
}
