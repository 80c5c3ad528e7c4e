//! Finds the objects of a job at the gateway, as its look-up says.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::db::claim::Purpose;
use crate::domain::answer::{Answer, Lost, Timed};
use crate::domain::job::JobName;
use crate::domain::object::Object;
use crate::domain::operation::{Lookup, Request};
use crate::gateway::wire;
use crate::policy::finding::Finding;
use crate::worker::room::Room;

/// Pages of a search that are read at most. A job's name is random: more than one page is odd.
const PAGES: usize = 20;

/// Asks as `lookup` says, where that is by name for `name`. The quota of the first request is taken already, that of further
/// pages of a search is taken for `purpose`. Returns what was asked first, the last answer, and what it comes to.
pub async fn by(
    room: &Room,
    lookup: &Lookup,
    name: &JobName,
    purpose: Purpose,
) -> (Request, Timed, Finding) {
    match *lookup {
        Lookup::InvoiceByName => by_name(room, name, purpose).await,
        Lookup::Invoice { id } => {
            let read = |timed: &Timed| wire::read_invoice(timed, id).map(Finding::read);
            once(room, wire::get_invoice(id), read).await
        }
        Lookup::Refunds { invoice_id } => {
            let read = |timed: &Timed| {
                wire::read_refunds(timed, invoice_id).map(|list| Finding::listed(list.refunds))
            };
            once(room, wire::list_refunds(invoice_id), read).await
        }
    }
}

async fn once(
    room: &Room,
    request: Request,
    read: impl Fn(&Timed) -> Option<Finding>,
) -> (Request, Timed, Finding) {
    let timed = room.call(&request).await;
    let finding = read(&timed).unwrap_or_else(|| Finding::Unclear(timed.clone()));
    (request, timed, finding)
}

/// Searches the invoices for those that carry the name, and reads all pages. What shifted while it was read, or could not be read to its end, is unclear. The quota of the
/// first page is taken already. Returns what was asked first, the last answer, and what it comes to.
pub async fn by_name(room: &Room, name: &JobName, purpose: Purpose) -> (Request, Timed, Finding) {
    let first = wire::search_invoices(name, 1);
    let mut found: BTreeMap<i64, Object> = BTreeMap::new();
    let mut last = Timed {
        answer: Answer::Lost(Lost::Cut),
        took: Duration::ZERO,
    };
    for page in 1..=PAGES {
        if page > 1 && !matches!(room.take_one(purpose).await, Ok(true)) {
            break;
        }
        last = room.call(&wire::search_invoices(name, page)).await;
        let Some(read) = wire::read_invoice_page(&last) else {
            break;
        };
        let rows = read.invoices.len();
        found.extend(
            read.invoices
                .into_iter()
                .map(|invoice| (invoice.id, invoice.into())),
        );
        if found.len() >= read.total {
            let finding = Finding::Listed(found.into_values().collect());
            return (first, last, finding);
        }
        if rows == 0 {
            break;
        }
    }
    (first, last.clone(), Finding::Unclear(last))
}
