//! The calls that belong to no single operation: look-ups, checks, probes.

use serde_json::{Value, json};

use crate::domain::answer::{Answer, Body, Reply, Timed};
use crate::domain::job::JobName;
use crate::domain::object::{Invoice, RefundList};
use crate::domain::operation::Request;

/// Rows of a page: the most the gateway gives (API, section 2.4).
pub const PAGE_ROWS: usize = 100;

/// Invoices of one status check: the most the gateway takes (API, section 2.6).
pub const CHECK_IDS: usize = 100;

/// A page of the invoices that carry a job's name somewhere. The search is for a substring, so what
/// it returns has to be matched exactly. In the order of ids, which no later change disturbs.
pub fn search_invoices(name: &JobName, page: usize) -> Request {
    Request::get(
        "/invoices",
        vec![
            ("search", name.to_string()),
            ("per_page", PAGE_ROWS.to_string()),
            ("page", page.to_string()),
            ("sort_by", "id".to_owned()),
            ("sort_order", "asc".to_owned()),
        ],
    )
}

/// One page of a search.
#[derive(Clone, Debug, PartialEq)]
pub struct InvoicePage {
    /// Its rows.
    pub invoices: Vec<Invoice>,
    /// Rows of all pages.
    pub total: usize,
}

/// Reads a page; `None` when any of it cannot be read: a partial page is not a "no".
pub fn read_invoice_page(timed: &Timed) -> Option<InvoicePage> {
    let body = success(timed)?;
    let invoices = body
        .get("data")?
        .as_array()?
        .iter()
        .map(Invoice::read)
        .collect::<Option<_>>()?;
    let total = usize::try_from(body.get("total")?.as_u64()?).ok()?;
    Some(InvoicePage { invoices, total })
}

/// One invoice.
pub fn get_invoice(id: i64) -> Request {
    Request::get(format!("/invoices/{id}"), Vec::new())
}

/// Reads one invoice, if it is the one that was asked for.
pub fn read_invoice(timed: &Timed, id: i64) -> Option<Invoice> {
    Invoice::read(success(timed)?).filter(|invoice| invoice.id == id)
}

/// The refunds of an invoice.
pub fn list_refunds(invoice_id: i64) -> Request {
    Request::get(format!("/invoices/{invoice_id}/refunds"), Vec::new())
}

/// Reads the refunds of an invoice, if the list is complete.
pub fn read_refunds(timed: &Timed, invoice_id: i64) -> Option<RefundList> {
    RefundList::read(success(timed)?, invoice_id)
}

/// The status of up to [`CHECK_IDS`] invoices.
pub fn check_invoices(ids: &[i64]) -> Request {
    Request::post(
        "/invoices/status/check",
        Some(json!({ "invoice_ids": ids })),
    )
}

/// Reads a status check. Rows that cannot be read and invoices that are not there are left out: the
/// next check asks again.
pub fn read_check(timed: &Timed) -> Option<Vec<Invoice>> {
    let rows = success(timed)?.get("invoices")?.as_array()?;
    Some(rows.iter().filter_map(Invoice::read).collect())
}

/// An invoice's own mode, which is that of its account when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShownMode {
    /// The invoice.
    pub invoice: i64,
    /// Whether it exists in the gateway's sandbox only.
    pub is_sandbox: bool,
}

/// The mode of the newest invoice that an answer shows, whatever was asked.
pub fn shown_mode(timed: &Timed) -> Option<ShownMode> {
    let body = success(timed).or_else(|| created(timed))?;
    let mut places = vec![body];
    places.extend(
        ["data", "invoice", "invoices"]
            .iter()
            .filter_map(|key| body.get(key)),
    );
    let rows = places.into_iter().flat_map(|place| match place {
        Value::Array(rows) => rows.as_slice(),
        single => std::slice::from_ref(single),
    });
    let shown = rows.filter_map(|row| {
        let invoice = Invoice::read(row)?;
        Some(ShownMode {
            invoice: invoice.id,
            is_sandbox: invoice.is_sandbox?,
        })
    });
    shown.max_by_key(|shown| shown.invoice)
}

/// The body of a 201 or 202.
fn created(timed: &Timed) -> Option<&Value> {
    match &timed.answer {
        Answer::Reply(Reply {
            status: 201 | 202,
            body: Body::Json(body),
            ..
        }) => Some(body),
        _ => None,
    }
}

/// Where the gateway says whether the account is well.
pub const HEALTH: &str = "/account/health";

/// Whether the account is well.
pub fn account_health() -> Request {
    Request::get(HEALTH, Vec::new())
}

/// The body of a 200.
fn success(timed: &Timed) -> Option<&Value> {
    match &timed.answer {
        Answer::Reply(Reply {
            status: 200,
            body: Body::Json(body),
            ..
        }) => Some(body),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::answer::Limits;

    fn shown(status: u16, body: Value) -> Option<(i64, bool)> {
        let timed = Timed {
            answer: Answer::Reply(Reply::new(
                status,
                Body::Json(body),
                Limits::default(),
                false,
            )),
            took: std::time::Duration::ZERO,
        };
        shown_mode(&timed).map(|shown| (shown.invoice, shown.is_sandbox))
    }

    #[test]
    fn any_answer_may_show_a_mode_and_its_newest_invoice_counts() {
        let row = |id: i64, is_sandbox: Option<bool>| json!({"id": id, "status": "paid", "is_sandbox": is_sandbox});
        assert_eq!(shown(201, row(7, Some(true))), Some((7, true)));
        assert_eq!(
            shown(200, json!({"invoice": row(7, Some(false))})),
            Some((7, false))
        );
        assert_eq!(
            shown(202, json!({"data": row(7, Some(false))})),
            Some((7, false))
        );
        let page = json!({"data": [row(7, Some(true)), row(9, Some(false)), row(8, Some(true))], "total": 3});
        assert_eq!(shown(200, page), Some((9, false)));
        let check = json!({"invoices": [row(7, Some(true)), row(9, None)]});
        assert_eq!(shown(200, check), Some((7, true)));
        assert_eq!(shown(200, row(7, None)), None);
        assert_eq!(shown(200, json!({"connection": {}})), None);
        assert_eq!(shown(422, row(7, Some(true))), None, "nothing was made");
    }
}
