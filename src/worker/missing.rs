//! Invoices and refunds that the gateway does not show any more, although it is asked for them: one alert of the account
//! names them.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::db::DbError;
use crate::db::alerts::About;
use crate::db::mirrors::DueMirror;
use crate::db::missing::{Missing, told};
use crate::policy::checks::is_missing;
use crate::telemetry::Chain;
use crate::worker::alerting;
use crate::worker::open;
use crate::worker::room::Room;
use crate::worker::spell::warn_in_spells;

/// So many are named at most; beyond that a person has to look at all of them anyway.
const MOST: usize = 1000;

/// Tells of those that an answer of the gateway's has just left out, if they were not shown for long. By a clock that
/// was set just now nobody can tell. `answer` is what came in place of the one that was asked for by itself.
pub async fn tell(room: &Room, left_out: &[&DueMirror], answer: Option<&str>) {
    if !room.handles.clock.is_calm() {
        return;
    }
    let missing = left_out.iter().filter(|mirror| {
        is_missing(Duration::try_from(mirror.now - mirror.last_shown).unwrap_or_default())
    });
    let missing: Vec<Missing> = missing.map(|mirror| of(mirror, answer)).collect();
    if missing.is_empty() {
        return;
    }
    if let Err(error) = say(room, missing).await {
        warn_in_spells!(room.name; account = %room.name, error = %Chain(&error), "the alert of what ApiPay does not show was not opened yet");
    }
}

fn of(mirror: &DueMirror, answer: Option<&str>) -> Missing {
    let waiting = mirror.waiting.first().map(|job| job.id.0);
    Missing {
        invoice: mirror.invoice_id,
        refund: mirror.refund_id,
        job: mirror.made_by.or(waiting),
        last_shown: mirror.last_shown,
        answer: answer.map(str::to_owned),
    }
}

/// Opens the alert, or adds what it does not name yet.
async fn say(room: &Room, missing: Vec<Missing>) -> Result<(), DbError> {
    let mut named = told(&room.handles.pool, &room.name).await?;
    let known: BTreeSet<(i64, Option<i64>)> = named.iter().map(key).collect();
    let news: Vec<Missing> = missing
        .into_iter()
        .filter(|missing| !known.contains(&key(missing)))
        .take(MOST.saturating_sub(named.len()))
        .collect();
    if news.is_empty() {
        return Ok(());
    }
    named.extend(news);
    let about = About::account(&room.name, alerting::MISSING, "critical");
    open::say(
        &room.handles.pool,
        &about,
        &alerting::missing(&room.name, named, MOST),
    )
    .await?;
    room.handles.wake.deliver.notify_one();
    Ok(())
}

fn key(missing: &Missing) -> (i64, Option<i64>) {
    (missing.invoice, missing.refund)
}
