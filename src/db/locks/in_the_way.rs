//! Who keeps what every statement needs: a table, or an account's rows.

use std::time::Duration;

use super::holders::{Blocker, Holder, holders};
use crate::db::{DbError, Pool, Task};

/// Somebody who keeps what every statement needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InTheWay {
    /// Who it is.
    pub blocker: Blocker,
    /// What it keeps: a table.
    pub table: String,
    /// The account whose row in it is kept; none: the whole table.
    pub account: Option<String>,
    /// Whom it waits for itself; until then, everybody who comes later waits behind it.
    pub behind: Option<Blocker>,
}

/// Blockers that are named at most.
const NAMED: usize = 3;

/// Sees who keeps a table of ours from everybody, or waits to do so; else who keeps the rows without which nothing of
/// these accounts is claimed or recorded. The tables are not read while one of them is locked.
pub async fn in_the_way(pool: &Pool, accounts: &[String]) -> Result<Vec<InTheWay>, DbError> {
    let tables = of_tables(pool).await?;
    if !tables.is_empty() {
        return Ok(tables);
    }
    let mut kept = Vec::new();
    for account in accounts.iter().take(ASKED_FOR) {
        for (table, is_quota) in [("apipay._quotas", true), ("apipay.accounts", false)] {
            let blockers = keepers(pool, account, is_quota).await?;
            kept.extend(blockers.into_iter().map(|blocker| InTheWay {
                blocker,
                table: table.to_owned(),
                account: Some(account.clone()),
                behind: None,
            }));
        }
    }
    Ok(kept)
}

async fn of_tables(pool: &Pool) -> Result<Vec<InTheWay>, DbError> {
    let rows = sqlx::query!(
        // Of whom it waits for, a prepared transaction has no process but the number 0: it is one that has the table.
        r#"with kept as (
             select l.virtualtransaction, l.pid, min(c.relname)::text as relname, bool_and(l.granted) as granted
               from pg_catalog.pg_locks l
               join pg_catalog.pg_class c on c.oid = l.relation
              where l.locktype = 'relation' and l.pid is distinct from pg_backend_pid()
                and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
                and c.relnamespace = (select n.oid from pg_catalog.pg_namespace n where n.nspname = 'apipay')
                and c.relkind = 'r'
                and l.mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
              group by l.virtualtransaction, l.pid)
           select k.virtualtransaction as "transaction!", k.relname as "table!",
                  array(select distinct h.virtualtransaction from pg_catalog.pg_locks h
                         where h.pid = any (b.pids)
                            or h.pid is null and h.granted and 0 = any (b.pids)
                               and (h.database, h.relation) in (select w.database, w.relation from pg_catalog.pg_locks w
                                                                 where w.pid = k.pid and not w.granted)) as "behind!"
             from kept k
             cross join lateral (
               select case when k.granted then '{}' else pg_blocking_pids(k.pid) end as pids) b"#,
    )
    .fetch_all(pool)
    .await
    .task("see who keeps a table locked")?;
    let transactions = rows
        .iter()
        .flat_map(|row| std::iter::once(&row.transaction).chain(&row.behind))
        .cloned();
    let known = holders(pool, &transactions.collect::<Vec<_>>()).await?;
    let other = |transaction: &String| known.get(transaction).cloned().and_then(Holder::other);
    let kept = rows.into_iter().filter_map(|row| {
        Some(InTheWay {
            blocker: other(&row.transaction)?,
            table: format!("apipay.{}", row.table),
            account: None,
            behind: row
                .behind
                .iter()
                .filter_map(other)
                .min_by_key(Blocker::since),
        })
    });
    let mut kept: Vec<InTheWay> = kept.collect();
    kept.sort_by_key(|way| (way.blocker.since(), way.blocker.name()));
    kept.truncate(NAMED);
    Ok(kept)
}

/// Those of the accounts of which somebody else keeps a row locked at this moment.
pub async fn kept_accounts(pool: &Pool, accounts: &[String]) -> Result<Vec<String>, DbError> {
    let rows = sqlx::query!(
        r#"with touched as materialized (
             select a.name, a.xmax as transaction from apipay.accounts a where a.name = any ($1) and a.xmax <> '0'::xid),
           touched_quotas as materialized (
             select q.account, q.xmax as transaction from apipay._quotas q where q.account = any ($1) and q.xmax <> '0'::xid),
           free as materialized (
             select a.name from apipay.accounts a where a.name = any (array(select name from touched))
             for no key update skip locked),
           free_quotas as materialized (
             select q.account from apipay._quotas q where q.account = any (array(select account from touched_quotas))
             for no key update skip locked)
           select k.name as "name!", l.virtualtransaction as "transaction?"
             from (select t.name, t.transaction from touched t where t.name not in (select name from free)
                   union all
                   select t.account, t.transaction from touched_quotas t where t.account not in (select account from free_quotas)) k
             left join pg_catalog.pg_locks l
               on l.locktype = 'transactionid' and l.transactionid = k.transaction and l.granted
            order by k.name"#,
        accounts,
    )
    .fetch_all(pool)
    .await
    .task("see which accounts are locked")?;
    let transactions: Vec<String> = rows
        .iter()
        .filter_map(|row| row.transaction.clone())
        .collect();
    let holders = holders(pool, &transactions).await?;
    // A claim has the row of a quota for milliseconds, and one that has ended meanwhile keeps nothing.
    let kept = rows.into_iter().filter(|row| {
        row.transaction
            .as_ref()
            .is_none_or(|it| matches!(holders.get(it), Some(Holder::Other(_))))
    });
    let mut names: Vec<String> = kept.map(|row| row.name).collect();
    names.dedup();
    Ok(names)
}

/// Accounts whose rows are tried, each for a moment.
const ASKED_FOR: usize = 3;

/// How long a row is waited for, and how long before it is seen who keeps it.
const TRIED_FOR_MS: &str = "500";
const LOOKED_AFTER: Duration = Duration::from_millis(200);

/// Who keeps the row of an account. A row that several sessions share names none of them, as one of `apipay.accounts` is
/// by each insert of a job: so it is waited for, and seen whom that waits for. It is let go at once.
async fn keepers(pool: &Pool, account: &str, is_quota: bool) -> Result<Vec<Blocker>, DbError> {
    let mut wait = std::pin::pin!(async {
        sqlx::query!(
            r#"with patience as materialized (select set_config('lock_timeout', $3, true)),
             quota as (
               select q.account from patience, apipay._quotas q where $2 and q.account = $1 for no key update of q),
             account as (
               select a.name from patience, apipay.accounts a where not $2 and a.name = $1 for no key update of a)
             select (select count(*) from quota) + (select count(*) from account) as "rows!""#,
            account,
            is_quota,
            TRIED_FOR_MS,
        )
        .fetch_one(pool)
        .await
    });
    // That it cannot be had is what is looked for. On a busy machine its wait may begin late, so it is seen more than once.
    let mut seen = Ok(Vec::new());
    while tokio::time::timeout(LOOKED_AFTER, &mut wait).await.is_err() {
        seen = awaited(pool, account, is_quota).await;
        if !matches!(&seen, Ok(blockers) if blockers.is_empty()) {
            wait.await.ok();
            break;
        }
    }
    seen
}

/// Whom the wait of [`keepers`] waits for. Everybody who waits for a row has its place (`ctid`) locked or waits for that,
/// and waits, once at the front, for the transactions that have the row: so those that only wait, of whomever, are told
/// from those that keep it, and from whatever else anybody waits for.
async fn awaited(pool: &Pool, account: &str, is_quota: bool) -> Result<Vec<Blocker>, DbError> {
    let transactions = sqlx::query_scalar!(
        r#"with awaited as materialized (
             select 'apipay._quotas'::regclass::oid as relation, q.ctid as place from apipay._quotas q
              where $2 and q.account = $1
             union all
             select 'apipay.accounts'::regclass::oid, a.ctid from apipay.accounts a
              where not $2 and a.name = $1),
           locks as materialized (select * from pg_catalog.pg_locks)
           select distinct h.virtualtransaction as "transaction!"
             from awaited r
             join locks t
               on t.locktype = 'tuple' and t.relation = r.relation and format('(%s,%s)', t.page, t.tuple)::tid = r.place
              and t.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
             join locks w on w.pid = t.pid and w.locktype = 'transactionid' and not w.granted
             join locks h on h.locktype = 'transactionid' and h.transactionid = w.transactionid and h.granted"#,
        account,
        is_quota,
    )
    .fetch_all(pool)
    .await
    .task("see who keeps an account locked")?;
    let holders = holders(pool, &transactions).await?;
    let mut blockers: Vec<Blocker> = holders.into_values().filter_map(Holder::other).collect();
    blockers.sort_by_key(|blocker| (blocker.since(), blocker.name()));
    blockers.truncate(NAMED);
    Ok(blockers)
}
