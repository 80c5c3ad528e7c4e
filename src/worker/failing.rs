//! What the ends of requests say of the gateway, gathered for each account and kind of request: what fails
//! slows down when nothing clear comes, and all goes on with the first clear answer.

use tracing::{info, warn};

use crate::db::{DbError, outage};
use crate::domain::outage::{Course, Read};
use crate::policy::outage::Sign;
use crate::worker::recorder::Signed;
use crate::worker::room::Room;

/// Times that something is stored which others keep changing.
const STORED_AT_MOST: u32 = 10;

/// Brings what is known of one kind of requests of an account up to date: its sends, or its reads of a kind.
pub async fn note(room: &Room, kind: Option<Read>, signs: &[Signed]) -> Result<(), DbError> {
    let ours = || signs.iter().filter(|signed| signed.errand.kind() == kind);
    if !ours().any(|signed| is_news(room, signed)) {
        return Ok(());
    }
    for _ in 0..STORED_AT_MOST {
        let asked = room.handles.clock.ask();
        let Some((known, now)) = outage::read(&room.handles.pool, &room.name).await? else {
            return Ok(());
        };
        let before = known.course(kind);
        let at = room.circumstances(asked.now(now));
        let after = ours().fold(before.clone(), |course, signed| {
            course.after(signed.errand, signed.job, &signed.sign, at)
        });
        // Another daemon may have learned something meanwhile: then once more, with that.
        let is_stored = after == before
            || match kind {
                None => {
                    outage::store_sends(&room.handles.pool, &room.name, &before, &after).await?
                }
                Some(read) => {
                    outage::store_reads(&room.handles.pool, &room.name, read, &before, &after)
                        .await?
                }
            };
        if is_stored {
            room.outages.learn_of(kind, after.clone());
            report(room, kind, &before, &after);
            return Ok(());
        }
    }
    // The next request says it again.
    warn!(account = %room.name, "the state of the outage was not stored, because other daemons kept changing it; the next request stores it");
    Ok(())
}

/// Whether it can change anything: nearly every answer is clear, and costs nothing here.
pub fn is_news(room: &Room, signed: &Signed) -> bool {
    let course = || room.outages.course(signed.errand.kind());
    match signed.sign {
        Sign::Failing(_) | Sign::GivenUp(_) => true,
        Sign::Clear => course() != Course::default(),
        Sign::Refused => signed.errand.is_trial() || course().refused_since.is_none(),
        Sign::Capped => signed.errand.is_trial() || course().refused_since.is_some(),
        Sign::Silent => signed.errand.is_trial(),
    }
}

fn report(room: &Room, kind: Option<Read>, before: &Course, after: &Course) {
    let what = kind.map_or("send", Read::as_str);
    match (before.is_slow(), after.is_slow()) {
        (false, true) => {
            let code = after.failing.as_ref().map(|row| row.fault.code.as_str());
            warn!(account = %room.name, what, code, "no clear answer several times in a row: the account sends one trial job at a time");
        }
        (true, false) => {
            info!(account = %room.name, what, "a clear answer: the account sends normally again");
            if kind.is_none() {
                room.park.resume_slowly();
                room.handles.wake.recover.notify_one();
                room.handles.wake.dispatch.notify_one();
            }
        }
        _ => {}
    }
    if before.tells() || after.tells() {
        room.handles.wake.deliver.notify_one();
    }
}
