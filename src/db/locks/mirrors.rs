//! Invoices and refunds that somebody keeps locked.

use std::time::Duration;

use super::holders::{Blocker, holders};
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
    /// Who holds its row; none when several share it.
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
    let rows = sqlx::query!(
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
                  l.virtualtransaction as "transaction?"
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
    .task("see which invoices and refunds are locked, and by whom")?;
    let transactions: Vec<String> = rows
        .iter()
        .filter_map(|row| row.transaction.clone())
        .collect();
    let holders = holders(pool, &transactions).await?;
    let locked = rows.into_iter().filter_map(|row| {
        // One that has ended meanwhile keeps nothing.
        let blocker = match row.transaction {
            Some(transaction) => Some(holders.get(&transaction)?.clone().other()?),
            None => None,
        };
        Some(LockedMirror {
            account: row.account,
            is_refund: row.is_refund,
            id: row.id,
            blocker,
        })
    });
    Ok(locked.collect())
}
