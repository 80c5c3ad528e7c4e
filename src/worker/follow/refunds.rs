//! Looks at refunds: one request shows all of an invoice.

use std::sync::Arc;

use super::apart::read_after_refund;
use super::asking::{may_ask, note, put_back, readable};
use super::waiting::{Shown, decide_waiting, unchanged_for};
use crate::crash::{self, Point};
use crate::db::DbError;
use crate::db::entry::Entry;
use crate::db::mirrors::{self, DueMirror, MirrorKind};
use crate::domain::job::JobName;
use crate::domain::object::{Invoice, Object, ObjectKind, Refund, RefundStatus};
use crate::domain::outage::Read;
use crate::gateway::wire;
use crate::policy::checks::{NextCheck, Sighting, next_check};
use crate::policy::outage::{Errand, is_absence};
use crate::worker::clock::Moment;
use crate::worker::context::Context;
use crate::worker::given_back;
use crate::worker::jitter::jitter;
use crate::worker::missing;
use crate::worker::outcome::{self, Following};
use crate::worker::recorder::Outcome;
use crate::worker::room::Room;

/// Refunds of an account in one round: each invoice of theirs is a request, one after the other, and
/// the next check of the invoices waits for them.
const REFUNDS: usize = 4;

/// Claims refunds that are due, of each account as many as a round has room for.
pub(super) async fn claim(ctx: &Context, served: &[Arc<Room>]) -> Result<Vec<DueMirror>, DbError> {
    let accounts = readable(served, Read::Refunds);
    ctx.unstored
        .claim(
            &ctx.pool,
            &ctx.wake,
            MirrorKind::Refund,
            &accounts,
            |among| {
                mirrors::claim_refunds(
                    &ctx.pool,
                    &accounts,
                    REFUNDS,
                    ctx.lease,
                    ctx.clock.second(),
                    among,
                )
            },
        )
        .await
}

/// Asks about these refunds of an invoice, records how they stand, and decides about the jobs that wait for them.
pub(super) async fn check(room: &Room, invoice_id: i64, due: &[DueMirror], claimed_at: Moment) {
    if !may_ask(room, claimed_at) || !room.may_read(Read::Refunds) {
        put_back(room, due).await;
        return;
    }
    let errand = Errand::read(Read::Refunds, room.outages.reads_slowly(Read::Refunds));
    crash::reach(Point::RefundsBeforeRequest);
    let timed = room.call(&wire::list_refunds(invoice_id)).await;
    let following = room.following();
    crash::reach(Point::RefundsAfterAnswer);
    let list = wire::read_refunds(&timed, invoice_id);
    note(room, errand, &timed, list.is_some(), due).await;
    let Some(list) = list else {
        // An invoice that is not there has no refunds that are.
        if is_absence(&timed) {
            missing::tell(room, &due.iter().collect::<Vec<_>>(), None).await;
        }
        return;
    };
    let all: Vec<Object> = list.refunds.iter().cloned().map(Object::from).collect();
    let is_waited_for = |refund: &&Object| {
        let mut waited_for = due.iter().filter(|mirror| !mirror.waiting.is_empty());
        waited_for.any(|mirror| mirror.refund_id == Some(refund.id()))
    };
    let others = all.iter().filter(|refund| !is_waited_for(refund));
    given_back::note(room, invoice_id, others).await;
    let is_done = |mirror: &&DueMirror| {
        let shown = list.refunds.iter().find(|r| Some(r.id) == mirror.refund_id);
        shown.is_some_and(|refund| refund.status == RefundStatus::Completed)
    };
    let after = if due.iter().any(|mirror| is_done(&mirror)) {
        read_after_refund(room, invoice_id, &list, due, claimed_at).await
    } else {
        None
    };
    // It comes first: once the job is done nobody asks for this list again.
    if let Some(invoice) = &after {
        record_by_hand(room, &list.refunds, due, invoice).await;
    }
    let mut left_out = Vec::new();
    for mirror in due {
        let Some(refund) = list.refunds.iter().find(|r| Some(r.id) == mirror.refund_id) else {
            left_out.push(mirror);
            continue;
        };
        let unchanged_for = unchanged_for(mirror, refund.status.as_str());
        let sighting = Sighting {
            unchanged_for,
            is_invoice_read: after.is_some(),
            ..Sighting::FIRST
        };
        let check = next_check_of(room, refund, sighting);
        let shown = Shown {
            object: &refund.clone().into(),
            among: &all,
            unchanged_for,
        };
        let mirrors = |check| mirrors_of(room, refund, after.as_ref(), check, following);
        decide_waiting(room, mirror, shown, check, mirrors, following).await;
    }
    missing::tell(room, &left_out, None).await;
}

/// Records the refunds that no job asked for: what people gave back counts in the invoice's total, so it is shown beside it.
async fn record_by_hand(room: &Room, refunds: &[Refund], due: &[DueMirror], invoice: &Invoice) {
    let is_by_hand = |refund: &&Refund| {
        let is_due = due.iter().any(|mirror| mirror.refund_id == Some(refund.id));
        !is_due && !refund.reason.as_deref().is_some_and(JobName::is_marked)
    };
    for refund in refunds.iter().filter(is_by_hand) {
        let sighting = Sighting {
            is_invoice_read: true,
            ..Sighting::FIRST
        };
        let check = next_check_of(room, refund, sighting);
        let entry = mirrors_of(room, refund, Some(invoice), check, room.following());
        let outcome = Outcome::plain(&room.name, entry);
        room.handles.recorder.record(outcome).await;
    }
}

fn next_check_of(room: &Room, refund: &Refund, sighting: Sighting) -> NextCheck {
    let rules = &room.handles.rules.follow;
    next_check(refund.outlook(), sighting, rules, jitter())
}

/// A refund as it was seen, and its invoice as it stands after it, if that was read.
fn mirrors_of(
    room: &Room,
    refund: &Refund,
    after: Option<&Invoice>,
    check: NextCheck,
    following: Following<'_>,
) -> Entry {
    let of_invoice = after.map_or_else(Entry::default, |invoice| {
        outcome::first_mirror(&room.name, None, &invoice.clone().into(), following)
    });
    Entry {
        refund: Some(outcome::refund_row(
            &room.name, None, refund, after, check, following,
        )),
        ..of_invoice
    }
}
