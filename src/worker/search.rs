//! Searches the invoices of an account for those that carry a job's name.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::db::claim::Purpose;
use crate::domain::answer::{Answer, Lost, Timed};
use crate::domain::job::JobName;
use crate::domain::object::Object;
use crate::domain::operation::Request;
use crate::gateway::wire;
use crate::policy::finding::Finding;
use crate::worker::room::Room;

/// Pages of a search that are read at most. A job's name is random: more than one page is odd.
const PAGES: usize = 20;

/// Reads all pages. What shifted while it was read, or could not be read to its end, is unclear. The quota of the
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
