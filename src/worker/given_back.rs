//! Refunds of jobs that have ended otherwise than with success, or that go by another refund: nobody asks for them any more,
//! and whoever reads a list of refunds has those recorded as their jobs', and told.

use uuid::Uuid;

use crate::db::alerts::{self, About};
use crate::db::given_back::{OfEnded, of_ended};
use crate::db::{DbError, Pool};
use crate::domain::job::JobName;
use crate::domain::object::Object;
use crate::policy::given_back::{Telling, telling};
use crate::telemetry::Chain;
use crate::worker::alerting;
use crate::worker::guard::Maker;
use crate::worker::open;
use crate::worker::outcome;
use crate::worker::recorder::Outcome;
use crate::worker::room::Room;
use crate::worker::spell::warn_in_spells;

/// Records those of these refunds of an invoice that are of ended jobs, as far as what they show is news. What gives money
/// back is told before it is recorded: where that fails, the next list shows it as news once more.
pub async fn note(room: &Room, invoice_id: i64, listed: impl Iterator<Item = &Object>) {
    let listed: Vec<&Object> = listed.collect();
    if listed.is_empty() {
        return;
    }
    let refunds: Vec<i64> = listed.iter().map(|refund| refund.id()).collect();
    let marks = listed.iter().map(|refund| JobName::only_one(&***refund));
    let marks: Vec<Option<Uuid>> = marks.map(|name| name.map(|name| name.token)).collect();
    let pool = &room.handles.pool;
    let found = match of_ended(pool, &room.name, invoice_id, &refunds, &marks).await {
        Ok(found) => found,
        Err(error) => {
            warn_in_spells!(room.name; account = %room.name, error = %Chain(&error), "whether refunds are of ended jobs could not be read; the next list tells");
            return;
        }
    };
    for ended in found {
        let shown = listed.iter().find(|refund| refund.id() == ended.refund);
        let Some(refund) = shown else { continue };
        let Some(telling) = telling(ended.known.as_deref(), refund) else {
            continue;
        };
        if let Err(error) = tell(room, pool, &ended, refund, telling).await {
            warn_in_spells!(ended.refund; refund = ended.refund, error = %Chain(&error), "a refund of a job that has ended could not be told of yet");
            continue;
        }
        record(room, &ended, refund).await;
    }
}

async fn tell(
    room: &Room,
    pool: &Pool,
    ended: &OfEnded,
    refund: &Object,
    telling: Telling,
) -> Result<(), DbError> {
    let account = &room.name;
    let subject = alerting::of_refund(ended.refund);
    let text = alerting::given_back(account, refund, ended);
    match telling {
        Telling::Nothing => return Ok(()),
        Telling::Anew => {
            let about = About {
                account: Some(account),
                kind: alerting::GIVEN_BACK,
                subject: &subject,
                severity: "critical",
            };
            open::say(pool, &about, &text).await?;
        }
        Telling::Further => {
            alerts::change(pool, account, alerting::GIVEN_BACK, &subject, &text).await?;
        }
    }
    room.handles.wake.deliver.notify_one();
    Ok(())
}

async fn record(room: &Room, ended: &OfEnded, refund: &Object) {
    let made_by = Maker {
        id: ended.job,
        token: ended.token,
    };
    let entry = outcome::first_mirror(&room.name, Some(made_by), refund, room.following());
    let outcome = Outcome::plain(&room.name, entry);
    room.handles.recorder.record(outcome).await;
}
