//! `GET /invoices`.

use std::cmp::Ordering;

use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use super::page::{Page, Query, Window};
use super::{Answer, Call, show};
use crate::envelope::Reply;
use crate::world::{Invoice, Search, Status};

#[derive(Clone, Copy)]
enum DateField {
    CreatedAt,
    PaidAt,
}

#[derive(Clone, Copy)]
enum SortBy {
    Id,
    Amount,
    ClientName,
    Status,
    CreatedAt,
    PaidAt,
}

struct Filter {
    search: Option<String>,
    statuses: Vec<Status>,
    imported: Option<bool>,
    window: Window,
    date_field: DateField,
    /// Younger rows are not in the list yet.
    visible_until: OffsetDateTime,
}

pub(super) fn list(call: &mut Call<'_>) -> Answer {
    let query = std::mem::take(&mut call.query);
    let mut query = Query::new(&query);
    let lag =
        Duration::milliseconds(i64::try_from(call.switches().list_lag_ms).unwrap_or(i64::MAX));
    let filter = read_filter(&mut query, call.origin.now.real.saturating_sub(lag));
    let (sort_by, descending) = read_order(&mut query);
    let page = query.page();
    query.finish()?;
    let organization = call.organization();
    let lost = filter.search.is_some() && organization.switches.search == Search::Lost;
    let own = organization
        .invoices
        .iter()
        .filter_map(|id| call.world.invoice(*id));
    let mut rows: Vec<&Invoice> = own
        .filter(|invoice| !lost && filter.passes(invoice))
        .collect();
    rows.sort_by(|a, b| {
        let order = compare(sort_by, a, b);
        if descending { order.reverse() } else { order }
    });
    Ok(Reply::json(
        200,
        &show_page(&rows, page, organization.switches.list_shift),
    ))
}

/// An invoice with everything, for the control API.
pub(crate) fn full(invoice: &Invoice, organization: &str) -> Value {
    let mut shown = show::row(invoice);
    if let Some(map) = shown.as_object_mut() {
        map.insert("organization".to_owned(), json!(organization));
        map.insert(
            "idempotency_key".to_owned(),
            json!(invoice.draft.idempotency_key),
        );
        map.insert("story".to_owned(), json!(invoice.story.name));
    }
    shown
}

fn show_page(rows: &[&Invoice], page: Page, shifted: bool) -> Value {
    let data: Vec<Value> = page
        .cut(rows, shifted)
        .iter()
        .map(|invoice| show::row(invoice))
        .collect();
    json!({"current_page": page.number, "data": data, "total": rows.len()})
}

fn read_filter(query: &mut Query<'_>, visible_until: OffsetDateTime) -> Filter {
    // `error` is missing from the documented list and refused.
    let statuses: Vec<_> = Status::ALL
        .into_iter()
        .filter(|status| *status != Status::Error)
        .map(|status| (status.as_str(), status))
        .collect();
    let search = query.get("search").map(str::to_owned);
    if search
        .as_ref()
        .is_some_and(|search| search.chars().count() > 100)
    {
        query.wrong(
            "search",
            "The search field must not be greater than 100 characters.",
        );
    }
    Filter {
        search,
        statuses: query.words("status", &statuses),
        imported: query.word(
            "origin",
            &[
                ("all", None),
                ("apipay", Some(false)),
                ("kaspi", Some(true)),
            ],
            None,
        ),
        window: query.window(),
        date_field: query.word(
            "date_field",
            &[
                ("created_at", DateField::CreatedAt),
                ("paid_at", DateField::PaidAt),
            ],
            DateField::CreatedAt,
        ),
        visible_until,
    }
}

fn read_order(query: &mut Query<'_>) -> (SortBy, bool) {
    let columns = [
        ("id", SortBy::Id),
        ("amount", SortBy::Amount),
        ("client_name", SortBy::ClientName),
        ("status", SortBy::Status),
        ("created_at", SortBy::CreatedAt),
        ("paid_at", SortBy::PaidAt),
    ];
    let sort_by = query.word("sort_by", &columns, SortBy::Id);
    (
        sort_by,
        query.word("sort_order", &[("desc", true), ("asc", false)], true),
    )
}

fn compare(sort_by: SortBy, a: &Invoice, b: &Invoice) -> Ordering {
    let by_column = match sort_by {
        SortBy::Id => Ordering::Equal,
        SortBy::Amount => a.draft.amount.cmp(&b.draft.amount),
        SortBy::ClientName => a.client_name.cmp(&b.client_name),
        SortBy::Status => a.status.as_str().cmp(b.status.as_str()),
        SortBy::CreatedAt => a.created_at.cmp(&b.created_at),
        SortBy::PaidAt => a.paid_at.cmp(&b.paid_at),
    };
    by_column.then(a.id.cmp(&b.id))
}

impl Filter {
    fn passes(&self, invoice: &Invoice) -> bool {
        let at = match self.date_field {
            DateField::CreatedAt => Some(invoice.created_at),
            DateField::PaidAt => invoice.paid_at,
        };
        invoice.created_real <= self.visible_until
            && (self.statuses.is_empty() || self.statuses.contains(&invoice.status))
            && self
                .imported
                .is_none_or(|imported| imported == invoice.is_imported)
            && self.window.holds(at)
            && self
                .search
                .as_deref()
                .is_none_or(|search| is_found(invoice, search))
    }
}

/// Whether a search hits: a substring of any text field, or of the digits of phone and Kaspi number.
fn is_found(invoice: &Invoice, search: &str) -> bool {
    let draft = &invoice.draft;
    let texts = [
        &draft.external_order_id,
        &draft.description,
        &draft.internal_comment,
        &invoice.client_name,
    ];
    if texts
        .into_iter()
        .flatten()
        .any(|text| contains(text, search))
        || invoice.id.to_string().contains(search)
    {
        return true;
    }
    let Some(digits) = digits_of(search) else {
        return false;
    };
    draft.phone.contains(&digits)
        || invoice
            .kaspi_invoice_id
            .as_ref()
            .is_some_and(|number| number.contains(&digits))
}

fn contains(text: &str, search: &str) -> bool {
    text.contains(search) || text.to_lowercase().contains(&search.to_lowercase())
}

/// The digits of a text that looks like a number.
fn digits_of(search: &str) -> Option<String> {
    let looks_like_number = search
        .chars()
        .all(|c| c.is_ascii_digit() || " +-()".contains(c));
    let digits: String = search.chars().filter(char::is_ascii_digit).collect();
    (looks_like_number && !digits.is_empty()).then_some(digits)
}
