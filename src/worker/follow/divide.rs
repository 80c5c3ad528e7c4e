//! Checks that fail because of single invoices: which part is asked about, and who is passed over.

use std::time::Duration;

use tracing::warn;

use super::asking::put_back_for;
use crate::db::mirrors::DueMirror;
use crate::domain::outage::Read;
use crate::policy::division::{Question, is_answer_to_content};
use crate::policy::outage::Sign;
use crate::worker::jitter::jitter;
use crate::worker::missing;
use crate::worker::room::Room;

/// What of these the next check asks about, as a question and as mirrors; the others are put back.
pub(super) async fn take_part(room: &Room, due: &[DueMirror]) -> (Question, Vec<DueMirror>) {
    let now = room.age();
    let ids: Vec<i64> = due.iter().map(|mirror| mirror.invoice_id).collect();
    let question = room.division().to_ask(&ids, now);
    let (part, others): (Vec<DueMirror>, Vec<DueMirror>) =
        (due.iter().cloned()).partition(|mirror| question.ids.contains(&mirror.invoice_id));
    let wait_of = |mirror: &DueMirror| room.division().wait_of(mirror.invoice_id, now);
    let (waiting, ready): (Vec<DueMirror>, Vec<DueMirror>) =
        (others.into_iter()).partition(|mirror| wait_of(mirror) > Duration::ZERO);
    if !ready.is_empty() {
        put_back_for(room, &ready, Duration::ZERO).await;
    }
    // The first of them to be due brings the others with it, as a check is filled up anyway.
    if let Some(wait) = waiting.iter().map(wait_of).min() {
        put_back_for(room, &waiting, wait).await;
    }
    (question, part)
}

/// A check that asked this, about these, brought nothing but this sign, which people read as `answer`, and they are put
/// back. One that fails by itself waits for longer, and is told like any that is not shown.
pub(super) async fn note_failure(
    room: &Room,
    sign: &Sign,
    answer: &str,
    question: &Question,
    due: &[DueMirror],
) {
    if !is_answer_to_content(sign) {
        return;
    }
    let is_slow = room.outages.reads_slowly(Read::Check);
    let (now, jitter) = (room.age(), jitter());
    let passed_over = room.division().fail(question, is_slow, now, jitter);
    let Some(wait) = passed_over else {
        return;
    };
    warn!(account = %room.name, invoices = ?question.ids, answer, "a check fails because of this invoice; it is passed over for a while, the others go on");
    put_back_for(room, due, wait).await;
    missing::tell(room, &due.iter().collect::<Vec<_>>(), Some(answer)).await;
}
