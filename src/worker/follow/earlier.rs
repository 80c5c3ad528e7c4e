//! Before an accepted bill is given up: whether another invoice of it lives.

use std::sync::Arc;

use tracing::warn;

use super::{may_ask_once_more, may_read, note};
use crate::db::claim::Purpose;
use crate::db::mirrors::{self, DueMirror, Waiting};
use crate::domain::mirror::InvoiceSeen;
use crate::domain::outage::Read;
use crate::gateway::wire;
use crate::policy::outage::Errand;
use crate::policy::reconcile::Finding;
use crate::telemetry::Chain;
use crate::worker::Context;
use crate::worker::account::Account;
use crate::worker::clock::Moment;
use crate::worker::search;

/// What all invoices of a bill look like now.
pub(super) struct Earlier {
    /// Those that are known by their numbers.
    pub(super) known: Vec<InvoiceSeen>,
    /// Those that a search by its name showed.
    pub(super) named: Vec<InvoiceSeen>,
}

/// Asks for them. `None` when that is not possible now: then the job stays accepted, and it is decided later.
pub(super) async fn look_back(
    ctx: &Arc<Context>,
    account: &Account,
    mirror: &DueMirror,
    job: &Waiting,
) -> Option<Earlier> {
    let ids = match mirrors::of_job(&ctx.pool, &account.name, job.id, wire::CHECK_IDS).await {
        Ok(ids) => ids,
        Err(error) => {
            warn!(job.id = %job.id, error = %Chain(&error), "the invoices of a job are not known; it is given up later, if at all");
            return None;
        }
    };
    let due = std::slice::from_ref(mirror);
    let errand = may_ask(ctx, account, Read::Check).await?;
    let timed = account.call(&wire::check_invoices(&ids)).await;
    let known = wire::read_check(&timed);
    note(ctx, account, errand, &timed, known.is_some(), due).await;
    let known = known?;
    let errand = may_ask(ctx, account, Read::LookUp).await?;
    let (_, timed, found) = search::by_name(ctx, account, &job.name.first(), Purpose::Follow).await;
    let is_found = matches!(found, Finding::Invoices(_));
    note(ctx, account, errand, &timed, is_found, due).await;
    match found {
        Finding::Invoices(named) => Some(Earlier { known, named }),
        Finding::Invoice(_) | Finding::Refunds(_) | Finding::Unclear(_) => None,
    }
}

/// The errand of one more read of this kind, if it may be made now.
async fn may_ask(ctx: &Arc<Context>, account: &Account, read: Read) -> Option<Errand> {
    let may_be_made =
        may_read(ctx, account, read) && may_ask_once_more(ctx, account, Moment::now()).await;
    may_be_made.then(|| Errand::read(read, account.reads_slowly(read)))
}
