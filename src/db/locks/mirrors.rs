//! Invoices and refunds that somebody keeps locked.

use std::collections::BTreeMap;
use std::time::Duration;

use super::holders::{Blocker, Holder, holders};
use super::in_the_way::{Row, keepers};
use super::unnamed::{Keeper, WAITED_FOR, keeper};
use crate::db::{DbError, Pool, Task};

/// An invoice or refund that is due to be checked and that somebody else keeps locked.
#[derive(Clone, Debug)]
pub struct LockedMirror {
    /// Its account.
    pub account: String,
    /// Whether it is a refund.
    pub is_refund: bool,
    /// The gateway's id.
    pub id: i64,
    /// Who holds its row; none where that could not be seen.
    pub blocker: Option<Blocker>,
}

/// Invoices and refunds that are looked at of one account, those due longest: what is passed over stays among them.
const MIRRORS_OF_ONE: i64 = 100;

/// Looks through what has been due to be checked for so long.
pub async fn due_mirrors(
    pool: &Pool,
    accounts: &[String],
    overdue: Duration,
) -> Result<Vec<LockedMirror>, DbError> {
    let rows = marked(pool, accounts, overdue).await?;
    let named = rows.iter().filter_map(|row| row.transaction.clone());
    let named = holders(pool, &named.collect::<Vec<_>>()).await?;
    let mut unnamed = BTreeMap::new();
    for (is_refund, table) in [(false, "apipay.invoices"), (true, "apipay.refunds")] {
        let mut of_it = rows.iter().filter(|row| row.is_refund == is_refund);
        if let Some(first) = of_it.find(|row| row.transaction.is_none()) {
            let keeper = keeper(pool, table, first.place()).await?;
            unnamed.insert(is_refund, (keeper, first.clone()));
        }
    }
    let still = if unnamed.is_empty() {
        Vec::new()
    } else {
        marked(pool, accounts, overdue).await?
    };
    let mut waits = 0;
    let mut locked = Vec::new();
    for row in rows {
        // One that has ended meanwhile keeps nothing.
        let holder = match (&row.transaction, unnamed.get(&row.is_refund)) {
            (Some(transaction), _) => named.get(transaction).cloned(),
            (None, _) if !still.contains(&row) => None,
            (None, Some((Keeper::Of(holder), _))) => holder.clone(),
            (None, Some((Keeper::OneOf(blocker), first))) if *first == row => {
                locked.push(row.with(blocker.clone()));
                continue;
            }
            (None, _) => {
                waits += 1;
                let blocker = if waits <= WAITED_FOR {
                    keepers(pool, row.place()).await?.into_iter().next()
                } else {
                    None
                };
                locked.push(row.with(blocker));
                continue;
            }
        };
        if let Some(blocker) = holder.and_then(Holder::other) {
            locked.push(row.with(Some(blocker)));
        }
    }
    Ok(locked)
}

/// A locked row as it shows itself.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Marked {
    account: String,
    is_refund: bool,
    id: i64,
    /// The number of the lock: with the same one it is still the same lock.
    lock: String,
    /// Who has it, if the row names one.
    transaction: Option<String>,
}

impl Marked {
    fn place(&self) -> Row<'_> {
        match self.is_refund {
            true => Row::Refund(&self.account, self.id),
            false => Row::Invoice(&self.account, self.id),
        }
    }

    fn with(self, blocker: Option<Blocker>) -> LockedMirror {
        LockedMirror {
            account: self.account,
            is_refund: self.is_refund,
            id: self.id,
            blocker,
        }
    }
}

/// Those that are due and locked, by whomever.
async fn marked(
    pool: &Pool,
    accounts: &[String],
    overdue: Duration,
) -> Result<Vec<Marked>, DbError> {
    sqlx::query_as!(
        Marked,
        r#"with due as materialized (
             select d.* from unnest($1::text[]) as a(name)
             cross join lateral (
               (select i.account, false as is_refund, i.id, i.xmax as transaction, i.ctid as place_in_table from apipay.invoices i
                 where i.account = a.name and not i.settled and i.next_check_at < now() - make_interval(secs => $2)
                 order by i.next_check_at limit $3)
               union all
               (select r.account, true, r.id, r.xmax, r.ctid from apipay.refunds r
                 where r.account = a.name and not r.settled and r.next_check_at < now() - make_interval(secs => $2)
                 order by r.next_check_at limit $3)) d
              where d.transaction <> '0'::xid),
           free_invoices as materialized (
             select i.account, i.id from apipay.invoices i
              where i.ctid = any (array(select place_in_table from due where not is_refund)) for no key update skip locked),
           free_refunds as materialized (
             select r.account, r.id from apipay.refunds r
              where r.ctid = any (array(select place_in_table from due where is_refund)) for no key update skip locked)
           select d.account as "account!", d.is_refund as "is_refund!", d.id as "id!",
                  d.transaction::text as "lock!", l.virtualtransaction as "transaction?"
             from due d
             left join pg_catalog.pg_locks l
               on l.locktype = 'transactionid' and l.transactionid = d.transaction and l.granted
            where case when d.is_refund then (d.account, d.id) not in (select account, id from free_refunds)
                       else (d.account, d.id) not in (select account, id from free_invoices) end
            order by d.account, d.is_refund, d.id
            limit 20"#,
        accounts,
        overdue.as_secs_f64(),
        MIRRORS_OF_ONE,
    )
    .fetch_all(pool)
    .await
    .task("see which invoices and refunds are locked, and by whom")
}
