//! Follows invoices of a job besides the one that it goes by.

use crate::domain::object::Object;
use crate::worker::guard::Maker;
use crate::worker::outcome;
use crate::worker::recorder::Outcome;
use crate::worker::room::Room;

/// Follows each of these invoices from now on as the job's: it may be paid, whichever the job goes by in the end, and a person
/// must hear of that. Recorded before what is decided of the job: nobody may look for them after that.
pub async fn watch(room: &Room, job: Maker, invoices: impl IntoIterator<Item = &Object>) {
    for invoice in invoices {
        let entry = outcome::first_mirror(&room.name, Some(job), invoice, room.following());
        let outcome = Outcome::plain(&room.name, entry);
        room.handles.recorder.record_now(outcome).await;
    }
}
