//! Checks of invoices: one request shows how many of them stand.

use std::sync::Arc;

use super::apart::{read_besides, read_whole};
use super::asking::{end_check, may_ask, note, put_back, readable};
use super::divide;
use super::others;
use super::waiting::{Shown, decide_waiting, unchanged_for};
use crate::crash::{self, Point};
use crate::db::DbError;
use crate::db::entry::Entry;
use crate::db::mirrors::{self, AcceptedJob, DueMirror, MirrorKind};
use crate::domain::job::JobId;
use crate::domain::object::{InvoiceStatus, Object};
use crate::domain::outage::Read;
use crate::gateway::wire;
use crate::policy::checks::{
    Crowd, Sighting, by_id, is_to_be_read, lives_unexpectedly, next_check,
};
use crate::policy::outage::Errand;
use crate::policy::quoted::got;
use crate::telemetry::Chain;
use crate::worker::clock::Moment;
use crate::worker::context::Context;
use crate::worker::jitter::jitter;
use crate::worker::outcome;
use crate::worker::room::Room;
use crate::worker::spell::warn_in_spells;
use crate::worker::{missing, revived};

/// Accounts whose invoices are claimed for a check by one statement.
const CHECKS: usize = 16;

/// Claims the next checks of accounts, each with what it asks about.
pub(super) async fn claim(ctx: &Context, served: &[Arc<Room>]) -> Result<Vec<DueMirror>, DbError> {
    let accounts = readable(served, Read::Check);
    ctx.unstored
        .claim(
            &ctx.pool,
            &ctx.wake,
            MirrorKind::Invoice,
            &accounts,
            |among| {
                mirrors::claim_invoices(
                    &ctx.pool,
                    &accounts,
                    wire::CHECK_IDS,
                    ctx.lease,
                    ctx.clock.second(),
                    CHECKS,
                    among,
                )
            },
        )
        .await
}

/// Asks about these invoices of an account, records how they stand, and decides about the jobs that wait for them.
pub(super) async fn check(room: &Room, due: &[DueMirror], claimed_at: Moment) {
    let name = &room.name;
    if !may_ask(room, claimed_at) {
        put_back(room, due).await;
        end_check(room).await;
        return;
    }
    let crowd = if due.len() < wire::CHECK_IDS {
        Crowd::OneCheck
    } else {
        Crowd::ManyChecks
    };
    let (question, due) = &divide::take_part(room, due).await;
    let errand = Errand::read(Read::Check, room.outages.reads_slowly(Read::Check));
    crash::reach(Point::FollowBeforeRequest);
    let timed = room.call(&wire::check_invoices(&question.ids)).await;
    let following = room.following();
    crash::reach(Point::FollowAfterAnswer);
    end_check(room).await;
    // Ids that are not the key's are left out without a word (API, section 2.6): all of them, if need be.
    let rows = wire::read_check(&timed);
    let sign = note(room, errand, &timed, rows.is_some(), due).await;
    let Some(rows) = rows else {
        divide::note_failure(room, &sign, &got(&timed.answer), question, due).await;
        return;
    };
    room.division().shown(question);
    let mut shown = by_id(rows);
    let mut left_out = Vec::new();
    let mut searches = 0;
    for mirror in due {
        // What is not shown stays claimed until that claim runs out, and is asked about again then.
        let Some(invoice) = shown.remove(&mirror.invoice_id) else {
            left_out.push(mirror);
            continue;
        };
        let before = InvoiceStatus::parse(&mirror.status);
        let is_waited_for = !mirror.waiting.is_empty();
        let invoice = if is_to_be_read(&before, &invoice, is_waited_for) {
            // So does what cannot be read now.
            let due = std::slice::from_ref(mirror);
            match read_whole(room, invoice.id, due, claimed_at).await {
                Some(whole) => whole,
                None => continue,
            }
        } else if is_just_made(mirror) && room.client.modes.wants_a_look() {
            let due = std::slice::from_ref(mirror);
            let whole = read_besides(room, invoice.id, due, claimed_at).await;
            whole.unwrap_or(invoice)
        } else if mirror.may_be_unseens && is_waited_for {
            let due = std::slice::from_ref(mirror);
            let whole = read_besides(room, invoice.id, due, claimed_at).await;
            whole.map_or_else(|| invoice.clone(), |whole| invoice.marked_as(whole))
        } else {
            invoice
        };
        let now = invoice.standing();
        let unchanged_for = unchanged_for(mirror, now.as_str());
        // It is told of before it is stored; else it is seen so once more.
        if !is_waited_for
            && lives_unexpectedly(&before, &now, mirror.is_superseded)
            && let Some(job) = mirror.made_by.map(JobId)
            && let Err(error) = revived::tell(room, job, invoice.id, &now).await
        {
            warn_in_spells!(invoice.id; invoice = invoice.id, error = %Chain(&error), "an invoice that no job goes by lives, and could not be told of yet");
            continue;
        }
        let has_unsought = others::search(room, mirror, unchanged_for, &mut searches).await;
        let object = Object::Invoice(invoice.clone());
        let sighting = Sighting {
            unchanged_for,
            crowd,
            has_unsought,
            ..Sighting::FIRST
        };
        let check = next_check(
            object.outlook(),
            sighting,
            &room.handles.rules.follow,
            jitter(),
        );
        let shown = Shown {
            object: &object,
            among: &[],
            unchanged_for,
        };
        let mirrors = |check| Entry {
            invoices: vec![outcome::invoice_row(name, None, &invoice, check, following)],
            ..Entry::default()
        };
        decide_waiting(room, mirror, shown, check, mirrors, following).await;
    }
    missing::tell(room, &left_out, None).await;
}

/// Whether the job that made an invoice still waits for it.
fn is_just_made(mirror: &DueMirror) -> bool {
    let made_by = |job: &AcceptedJob| Some(job.id.0) == mirror.made_by;
    mirror.waiting.iter().any(made_by)
}
