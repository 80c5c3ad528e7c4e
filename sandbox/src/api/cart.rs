//! Cart lines: what was ordered, and what is given back.

use rust_decimal::Decimal;

use super::input::Fields;
use crate::envelope::Reply;
use crate::money;
use crate::world::{CatalogItem, Invoice, Line, ReturnedItem};

pub(super) struct Wanted {
    catalog_item_id: u64,
    count: u32,
    price: Option<Decimal>,
}

pub(super) fn read_wanted(fields: &mut Fields<'_>) -> Option<Wanted> {
    for name in ["catalog_item_id", "count"] {
        if !fields.has(name) {
            fields.required(name);
        }
    }
    let price = fields.amount("price", Decimal::new(1, 2), money::LARGEST);
    let count = fields.integer("count", 1);
    if fields.has("price") && price.is_none() {
        return None;
    }
    Some(Wanted {
        catalog_item_id: fields.integer("catalog_item_id", 0)?,
        count: u32::try_from(count?).ok()?,
        price,
    })
}

/// Prices the lines; the discount is taken from each of them.
pub(super) fn price(
    catalog: &[CatalogItem],
    wanted: &[Wanted],
    percentage: Option<Decimal>,
) -> Result<Vec<Line>, Reply> {
    if catalog.is_empty() {
        return Err(Reply::refused_cart(
            "catalog_not_supported",
            "У организации нет каталога",
        ));
    }
    wanted
        .iter()
        .map(|wanted| price_line(catalog, wanted, percentage))
        .collect()
}

fn price_line(
    catalog: &[CatalogItem],
    wanted: &Wanted,
    percentage: Option<Decimal>,
) -> Result<Line, Reply> {
    let Some(item) = catalog
        .iter()
        .find(|item| item.id == wanted.catalog_item_id)
    else {
        return Err(Reply::refused_cart(
            "catalog_item_not_found",
            "Товар не найден в каталоге",
        ));
    };
    let price = wanted.price.unwrap_or(item.price);
    Ok(Line {
        catalog_item_id: item.id,
        name: item.name.clone(),
        count: wanted.count,
        price,
        total: money::after_discount(price * Decimal::from(wanted.count), percentage),
    })
}

/// A line of `return_items`: pieces or money.
pub(super) struct Return {
    catalog_item_id: u64,
    what: What,
}

enum What {
    Count(u32),
    Amount(Decimal),
}

pub(super) fn read_return(fields: &mut Fields<'_>) -> Option<Return> {
    if !fields.has("catalog_item_id") {
        fields.required("catalog_item_id");
    }
    if fields.has("count") == fields.has("amount") {
        fields.wrong(
            "count",
            "Exactly one of count and amount is required.".to_owned(),
        );
        return None;
    }
    let catalog_item_id = fields.integer("catalog_item_id", 0);
    let count = fields.integer("count", 1);
    let amount = fields.amount("amount", Decimal::new(1, 2), money::LARGEST);
    let what = match (count, amount) {
        (Some(count), _) => What::Count(u32::try_from(count).ok()?),
        (None, amount) => What::Amount(amount?),
    };
    Some(Return {
        catalog_item_id: catalog_item_id?,
        what,
    })
}

/// What the returned lines are worth; `before` is what earlier refunds already took.
pub(super) fn value_returns(
    invoice: &Invoice,
    before: &[&ReturnedItem],
    returns: &[Return],
) -> Result<Vec<ReturnedItem>, Reply> {
    let mut valued: Vec<ReturnedItem> = Vec::with_capacity(returns.len());
    for wanted in returns {
        let taken = before.iter().copied().chain(&valued);
        let taken: Vec<_> = taken
            .filter(|item| item.catalog_item_id == wanted.catalog_item_id)
            .collect();
        let item = value_return(invoice, &taken, wanted).ok_or_else(mismatch)?;
        valued.push(item);
    }
    Ok(valued)
}

fn value_return(
    invoice: &Invoice,
    taken: &[&ReturnedItem],
    wanted: &Return,
) -> Option<ReturnedItem> {
    let lines = invoice
        .draft
        .lines
        .iter()
        .filter(|line| line.catalog_item_id == wanted.catalog_item_id);
    let (count, total) = lines.fold((0_u64, Decimal::ZERO), |(count, total), line| {
        (count + u64::from(line.count), total + line.total)
    });
    let taken_count: u64 = taken
        .iter()
        .filter_map(|item| item.count)
        .map(u64::from)
        .sum();
    let taken_amount: Decimal = taken.iter().map(|item| item.amount).sum();
    let (returned, amount) = match wanted.what {
        What::Count(returned) if u64::from(returned) <= count.checked_sub(taken_count)? => (
            Some(returned),
            (total * Decimal::from(returned) / Decimal::from(count)).round_dp(2),
        ),
        What::Count(_) => return None,
        What::Amount(amount) => (None, amount),
    };
    let fits = taken_amount + amount <= total;
    fits.then_some(ReturnedItem {
        catalog_item_id: wanted.catalog_item_id,
        count: returned,
        amount,
    })
}

pub(super) fn mismatch() -> Reply {
    Reply::refused_cart(
        "cart_items_mismatch",
        "Позиции возврата не совпадают со счётом",
    )
}
