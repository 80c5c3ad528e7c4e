//! Finds the objects of a job at the gateway, as its look-up says.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::db::claim::Purpose;
use crate::domain::answer::{Answer, NotSent, Timed};
use crate::domain::job::JobName;
use crate::domain::object::Object;
use crate::domain::operation::{Lookup, Request};
use crate::gateway::wire;
use crate::policy::finding::Finding;
use crate::worker::given_back;
use crate::worker::room::Room;

/// Pages of a search that are read at most. A job's name is random: more than one page is odd.
const PAGES: usize = 20;

/// A request, its own answer, and what that comes to with all that was asked before.
pub struct Asked {
    /// What was asked last.
    pub request: Request,
    /// The answer to that.
    pub timed: Timed,
    /// What it comes to.
    pub finding: Finding,
}

impl Asked {
    fn unclear(request: Request, timed: Timed) -> Asked {
        let finding = Finding::Unclear(timed.clone());
        Asked {
            request,
            timed,
            finding,
        }
    }
}

/// Asks as `lookup` says, where that is by name for `name`. The quota of the first request is taken already, that of further
/// pages of a search is taken for `purpose`.
pub async fn by(room: &Room, lookup: &Lookup, name: &JobName, purpose: Purpose) -> Asked {
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
            let asked = once(room, wire::list_refunds(invoice_id), read).await;
            let own = |object: &&Object| {
                JobName::only_one(&***object).is_some_and(|other| other.token == name.token)
            };
            let others = asked.finding.objects().iter().filter(|o| !own(o));
            given_back::note(room, invoice_id, others).await;
            asked
        }
    }
}

async fn once(room: &Room, request: Request, read: impl Fn(&Timed) -> Option<Finding>) -> Asked {
    let timed = room.call(&request).await;
    match read(&timed) {
        Some(finding) => Asked {
            request,
            timed,
            finding,
        },
        None => Asked::unclear(request, timed),
    }
}

/// Searches the invoices for those that carry the name, and reads all pages. What shifted while it was read, or could not
/// be read to its end, is unclear. The quota of the first page is taken already.
pub async fn by_name(room: &Room, name: &JobName, purpose: Purpose) -> Asked {
    let mut found: BTreeMap<i64, Object> = BTreeMap::new();
    let mut page = 1;
    loop {
        let request = wire::search_invoices(name, page);
        if page > 1 {
            let left = match room.take_one(purpose).await {
                Ok(true) => None,
                Ok(false) => Some(NotSent::QuotaSpent),
                Err(_) => Some(NotSent::DatabaseFailed),
            };
            if let Some(cause) = left {
                let answer = Answer::NotSent(cause);
                let took = Duration::ZERO;
                return Asked::unclear(request, Timed { answer, took });
            }
        }
        let timed = room.call(&request).await;
        let Some(read) = wire::read_invoice_page(&timed) else {
            return Asked::unclear(request, timed);
        };
        let rows = read.invoices.len();
        found.extend(
            read.invoices
                .into_iter()
                .map(|invoice| (invoice.id, invoice.into())),
        );
        if found.len() >= read.total {
            return Asked {
                request,
                timed,
                finding: Finding::Listed(found.into_values().collect()),
            };
        }
        if rows == 0 || page == PAGES {
            return Asked::unclear(request, timed);
        }
        page += 1;
    }
}
