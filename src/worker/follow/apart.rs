//! What is read beside the usual checks, to decide about one object: each takes quota of its own.

use std::time::Duration;

use super::asking::{end_check, note, put_back_for};
use crate::crash::{self, Point};
use crate::db::claim::Purpose;
use crate::db::mirrors::{self, DueMirror};
use crate::domain::object::{Invoice, RefundList};
use crate::domain::outage::Read;
use crate::domain::times::SEND_WINDOW;
use crate::gateway::wire;
use crate::policy::checks::by_id;
use crate::policy::outage::Errand;
use crate::telemetry::Chain;
use crate::worker::clock::Moment;
use crate::worker::room::Room;
use crate::worker::spell::warn_in_spells;

/// Reads an invoice by itself. `None` when that is not possible now.
pub(super) async fn read_whole(
    room: &Room,
    id: i64,
    due: &[DueMirror],
    claimed_at: Moment,
) -> Option<Invoice> {
    if !room.may_read(Read::Code) {
        // Its next trial has a time of its own.
        let trial_at = room.outages.course(Some(Read::Code)).trial_at();
        let wait = trial_at.map(|at| at - room.handles.clock.expected());
        let wait = wait.and_then(|wait| Duration::try_from(wait).ok());
        let wait = wait.unwrap_or_default().min(room.handles.rules.follow.max);
        put_back_for(room, due, wait).await;
        return None;
    }
    if !may_ask_once_more(room, claimed_at).await {
        return None;
    }
    crash::reach(Point::CodeBeforeRequest);
    let read = read_one(room, id, due).await;
    crash::reach(Point::CodeAfterAnswer);
    read
}

/// Reads an invoice because a check does not show in which mode its account is, nor whose mark it bears. `None` when that
/// is not possible now: it is not worth waiting for.
pub(super) async fn read_besides(
    room: &Room,
    id: i64,
    due: &[DueMirror],
    claimed_at: Moment,
) -> Option<Invoice> {
    if room.outages.reads_slowly(Read::Code) || !may_ask_once_more(room, claimed_at).await {
        return None;
    }
    read_one(room, id, due).await
}

async fn read_one(room: &Room, id: i64, due: &[DueMirror]) -> Option<Invoice> {
    let errand = Errand::read(Read::Code, room.outages.reads_slowly(Read::Code));
    let timed = room.call(&wire::get_invoice(id)).await;
    let read = wire::read_invoice(&timed, id);
    note(room, errand, &timed, read.is_some(), due).await;
    read
}

/// Takes quota for a further request of a round that began at this moment.
pub(super) async fn may_ask_once_more(room: &Room, claimed_at: Moment) -> bool {
    match room.take_one(Purpose::Follow).await {
        Ok(is_granted) => is_granted && room.may_send(claimed_at),
        Err(error) => {
            warn_in_spells!(room.name; account = %room.name, error = %Chain(&error), "no quota could be taken; an invoice is read later");
            false
        }
    }
}

/// The invoice of refunds that are done, as it stands after them: reading it shows all there is to know, but
/// may be answered with what was so a day ago (API, section 2.4). Then the list of its refunds and a check
/// say what has changed since.
pub(super) async fn read_after_refund(
    room: &Room,
    invoice_id: i64,
    list: &RefundList,
    due: &[DueMirror],
    claimed_at: Moment,
) -> Option<Invoice> {
    let mut invoice = read_whole(room, invoice_id, due, claimed_at).await?;
    if invoice.total_refunded < list.total_refunded {
        let rows = check_apart(room, &[invoice_id], due, claimed_at).await?;
        let shown = by_id(rows).remove(&invoice_id)?;
        invoice.status = shown.status;
        invoice.total_refunded = list.total_refunded;
    }
    Some(invoice)
}

/// A check of some invoices that is needed to decide about something else. `None` when it cannot be made now. Where
/// checks get no clear answer it is one of the trials, and takes the turn of one.
pub(super) async fn check_apart(
    room: &Room,
    ids: &[i64],
    due: &[DueMirror],
    claimed_at: Moment,
) -> Option<Vec<Invoice>> {
    if !room.may_read(Read::Check) {
        return None;
    }
    let is_trial = room.outages.reads_slowly(Read::Check);
    let may_ask = if is_trial {
        may_try(room, claimed_at).await
    } else {
        may_ask_once_more(room, claimed_at).await
    };
    if !may_ask {
        return None;
    }
    let errand = Errand::read(Read::Check, is_trial);
    let timed = room.call(&wire::check_invoices(ids)).await;
    if is_trial {
        end_check(room).await;
    }
    let shown = wire::read_check(&timed);
    note(room, errand, &timed, shown.is_some(), due).await;
    shown
}

/// Takes the turn of the account's next check.
async fn may_try(room: &Room, claimed_at: Moment) -> bool {
    let (name, second) = (&room.name, room.handles.clock.second());
    match mirrors::take_check(&room.handles.pool, name, room.handles.lease, second).await {
        Ok(is_ours) => is_ours && room.may_send(claimed_at) && claimed_at.elapsed() <= SEND_WINDOW,
        Err(error) => {
            warn_in_spells!(name; account = %name, error = %Chain(&error), "no turn of a check could be taken; it is made later");
            false
        }
    }
}
