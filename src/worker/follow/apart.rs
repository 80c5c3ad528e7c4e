//! What is read beside the usual checks, to decide about one object: each takes quota of its own.

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::asking::{end_check, may_read, note, put_back_for};
use crate::crash::{self, Point};
use crate::db::claim::Purpose;
use crate::db::mirrors::{self, DueMirror};
use crate::domain::object::{Invoice, RefundList};
use crate::domain::outage::Read;
use crate::gateway::wire;
use crate::policy::follow::by_id;
use crate::policy::outage::Errand;
use crate::telemetry::Chain;
use crate::worker::account::Account;
use crate::worker::clock::Moment;
use crate::worker::context::Context;
use crate::worker::send::SEND_WINDOW;

/// Reads an invoice by itself. `None` when that is not possible now.
pub(super) async fn read_whole(
    ctx: &Arc<Context>,
    account: &Account,
    id: i64,
    due: &[DueMirror],
    claimed_at: Moment,
) -> Option<Invoice> {
    if !may_read(ctx, account, Read::Code) {
        // Its next trial has a time of its own.
        let trial_at = account.course(Some(Read::Code)).trial_at();
        let wait = trial_at.map(|at| at - ctx.clock.expected());
        let wait = wait.and_then(|wait| Duration::try_from(wait).ok());
        let wait = wait.unwrap_or_default().min(ctx.rules.follow.max);
        put_back_for(ctx, &account.name, due, wait).await;
        return None;
    }
    if !may_ask_once_more(ctx, account, claimed_at).await {
        return None;
    }
    crash::reach(Point::CodeBeforeRequest);
    let read = read_one(ctx, account, id, due).await;
    crash::reach(Point::CodeAfterAnswer);
    read
}

/// Reads a new invoice because a check does not show in which mode its account is. `None` when that is not
/// possible now: it is not worth waiting for.
pub(super) async fn read_for_mode(
    ctx: &Arc<Context>,
    account: &Account,
    id: i64,
    due: &[DueMirror],
    claimed_at: Moment,
) -> Option<Invoice> {
    if account.reads_slowly(Read::Code) || !may_ask_once_more(ctx, account, claimed_at).await {
        return None;
    }
    read_one(ctx, account, id, due).await
}

async fn read_one(
    ctx: &Arc<Context>,
    account: &Account,
    id: i64,
    due: &[DueMirror],
) -> Option<Invoice> {
    let errand = Errand::read(Read::Code, account.reads_slowly(Read::Code));
    let timed = account.call(&wire::get_invoice(id)).await;
    let read = wire::read_invoice(&timed, id);
    note(ctx, account, errand, &timed, read.is_some(), due).await;
    read
}

/// Takes quota for a further request of a round that began at this moment.
pub(super) async fn may_ask_once_more(
    ctx: &Context,
    account: &Account,
    claimed_at: Moment,
) -> bool {
    match ctx.take_one(&account.name, Purpose::Follow).await {
        Ok(is_granted) => is_granted && account.may_send(claimed_at),
        Err(error) => {
            warn!(account = %account.name, error = %Chain(&error), "no quota could be taken; an invoice is read later");
            false
        }
    }
}

/// The invoice of refunds that are done, as it stands after them: reading it shows all there is to know, but
/// may be answered with what was so a day ago (API, section 2.4). Then the list of its refunds and a check
/// say what has changed since.
pub(super) async fn read_after_refund(
    ctx: &Arc<Context>,
    account: &Account,
    invoice_id: i64,
    list: &RefundList,
    due: &[DueMirror],
    claimed_at: Moment,
) -> Option<Invoice> {
    let mut invoice = read_whole(ctx, account, invoice_id, due, claimed_at).await?;
    if invoice.total_refunded < list.total_refunded {
        let rows = check_apart(ctx, account, &[invoice_id], due, claimed_at).await?;
        let shown = by_id(rows).remove(&invoice_id)?;
        invoice.status = shown.status;
        invoice.total_refunded = list.total_refunded;
    }
    Some(invoice)
}

/// A check of some invoices that is needed to decide about something else. `None` when it cannot be made now. Where
/// checks get no clear answer it is one of the trials, and takes the turn of one.
pub(super) async fn check_apart(
    ctx: &Arc<Context>,
    account: &Account,
    ids: &[i64],
    due: &[DueMirror],
    claimed_at: Moment,
) -> Option<Vec<Invoice>> {
    if !may_read(ctx, account, Read::Check) {
        return None;
    }
    let is_trial = account.reads_slowly(Read::Check);
    let may_ask = if is_trial {
        may_try(ctx, account, claimed_at).await
    } else {
        may_ask_once_more(ctx, account, claimed_at).await
    };
    if !may_ask {
        return None;
    }
    let errand = Errand::read(Read::Check, is_trial);
    let timed = account.call(&wire::check_invoices(ids)).await;
    if is_trial {
        end_check(ctx, &account.name).await;
    }
    let shown = wire::read_check(&timed);
    note(ctx, account, errand, &timed, shown.is_some(), due).await;
    shown
}

/// Takes the turn of the account's next check.
async fn may_try(ctx: &Context, account: &Account, claimed_at: Moment) -> bool {
    let (name, second) = (&account.name, ctx.clock.second());
    match mirrors::take_check(&ctx.pool, name, ctx.lease, second).await {
        Ok(is_ours) => {
            is_ours && account.may_send(claimed_at) && claimed_at.elapsed() <= SEND_WINDOW
        }
        Err(error) => {
            warn!(account = %name, error = %Chain(&error), "no turn of a check could be taken; it is made later");
            false
        }
    }
}
