//! What every read of an accepted object begins and ends with: whether it may be made, and what becomes of what it was to
//! show.

use std::sync::Arc;
use std::time::Duration;

use crate::db::entry::Entry;
use crate::db::mirrors::{self, DueMirror};
use crate::domain::answer::{Answer, Timed};
use crate::domain::outage::Read;
use crate::domain::times::SEND_WINDOW;
use crate::policy::checks::check_distance;
use crate::policy::judge::signal_of;
use crate::policy::outage::{Errand, Sign, is_absence, sign_of_doubted, sign_of_read};
use crate::telemetry::Chain;
use crate::worker::clock::Moment;
use crate::worker::failing;
use crate::worker::recorder::{Outcome, Signed};
use crate::worker::room::Room;
use crate::worker::room::places::Work;
use crate::worker::spell::warn_in_spells;

/// Whether a request that was claimed at this moment may still leave. A stop waits for one that is under way, and for
/// none after it.
pub(super) fn may_ask(room: &Room, claimed_at: Moment) -> bool {
    let is_young = claimed_at.elapsed() <= SEND_WINDOW;
    is_young && room.may_send(claimed_at) && !room.handles.stop.is_cancelled()
}

/// The accounts of which such reads may be made now: where they get no clear answer one asks at a time.
pub(super) fn readable(served: &[Arc<Room>], read: Read) -> Vec<String> {
    let has_place = |room: &&Arc<Room>| room.places.free(Work::Follow) > 0;
    let readable = served.iter().filter(has_place);
    let readable = readable.filter(|room| room.may_read(read));
    readable.map(|room| room.name.to_string()).collect()
}

/// Nobody was asked: what was claimed is due again.
pub(super) async fn put_back(room: &Room, due: &[DueMirror]) {
    put_back_for(room, due, Duration::ZERO).await;
}

/// Nobody was asked: what was claimed is due again after a while.
pub(super) async fn put_back_for(room: &Room, due: &[DueMirror], after: Duration) {
    if let Err(error) = mirrors::put_back(&room.handles.pool, &room.name, due, after).await {
        warn_in_spells!(room.name; account = %room.name, error = %Chain(&error), "what was not asked about is due again only when its claim runs out");
    }
}

/// The next check of the account's invoices may begin, at its distance.
pub(super) async fn end_check(room: &Room) {
    let distance = check_distance(&room.handles.rules.follow);
    if let Err(error) = mirrors::end_check(&room.handles.pool, &room.name, distance).await {
        warn_in_spells!(room.name; account = %room.name, error = %Chain(&error), "the next check waits until the lease of this one is over");
    }
}

/// Notes what a read says of the gateway, and for the account if it brought nothing: then what it asked
/// about is due again, and the distance of such reads says when. Returns what it says.
pub(super) async fn note(
    room: &Room,
    errand: Errand,
    timed: &Timed,
    is_usable: bool,
    due: &[DueMirror],
) -> Sign {
    // A check is about many, and leaves out what is not there.
    let is_check = matches!(
        errand,
        Errand::Read(Read::Check) | Errand::ReadTrial(Read::Check)
    );
    let is_absent = !is_check && is_absence(timed);
    let signal = match (&timed.answer, due.first()) {
        (Answer::Reply(reply), Some(mirror)) if !is_usable => {
            signal_of(reply, None, room.circumstances(mirror.now))
        }
        _ => None,
    };
    let is_heeded = room.park.heed_read(signal.as_ref(), room.age());
    let signed = Signed {
        errand,
        job: None,
        sign: match is_absent {
            true => Sign::Clear,
            false if !is_heeded => sign_of_doubted(timed),
            false => sign_of_read(timed, is_usable),
        },
    };
    let sign = signed.sign.clone();
    let signal = signal.filter(|_| is_heeded);
    if signal.is_some() || failing::is_news(room, &signed) {
        let outcome = Outcome {
            signal,
            signed: Some(signed),
            ..Outcome::plain(&room.name, Entry::default())
        };
        // Known before the next one is claimed.
        room.handles.recorder.record_now(outcome).await;
    }
    // What is not there stays claimed until that claim runs out: others are asked about first.
    if !is_usable && !is_absent {
        put_back(room, due).await;
    }
    sign
}
