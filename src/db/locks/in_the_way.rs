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
    /// Who is at the end of that, where the one whom it waits for waits too: the others may go on once this one has ended.
    pub root: Option<Blocker>,
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
        for row in [Row::Quota(account), Row::Account(account)] {
            let (table, _, _) = row.key();
            let blockers = keepers(pool, row).await?;
            kept.extend(blockers.into_iter().map(|blocker| InTheWay {
                blocker,
                table: format!("apipay.{table}"),
                account: Some(account.clone()),
                behind: None,
                root: None,
            }));
        }
    }
    Ok(kept)
}

/// Sees who keeps a table of ours from everybody, or waits to do so. No table of ours is read.
pub async fn of_tables(pool: &Pool) -> Result<Vec<InTheWay>, DbError> {
    let rows = sqlx::query!(
        // Of whom it waits for, a prepared transaction has no process but the number 0: it is one that has the table.
        r#"with recursive kept as materialized (
             select l.virtualtransaction, l.pid, min(c.relname)::text as relname, bool_and(l.granted) as granted
               from pg_catalog.pg_locks l
               join pg_catalog.pg_class c on c.oid = l.relation
              where l.locktype = 'relation' and l.pid is distinct from pg_backend_pid()
                and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
                and c.relnamespace = (select n.oid from pg_catalog.pg_namespace n where n.nspname = 'apipay')
                and c.relkind = 'r'
                and l.mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
              group by l.virtualtransaction, l.pid),
           -- Whom each waits for that only waits for a table, and whom that one waits for, to the end.
           waits as (
             select k.pid as first, k.pid as waiter, b.pid
               from kept k cross join lateral unnest(pg_blocking_pids(k.pid)) as b (pid) where not k.granted
             union
             select w.first, w.pid, b.pid
               from waits w cross join lateral unnest(pg_blocking_pids(w.pid)) as b (pid) where w.pid <> 0),
           locks as materialized (select * from pg_catalog.pg_locks),
           awaited as materialized (
             select distinct w.first, w.waiter = w.first as is_next, h.virtualtransaction,
                    not exists (select from waits x where x.first = w.first and x.waiter = w.pid) as is_root
               from waits w
               join locks h on h.pid = w.pid
                 or w.pid = 0 and h.pid is null and h.granted
                    and exists (select from locks l
                                 where l.pid = w.waiter and not l.granted
                                   and (l.locktype, l.database, l.relation, l.transactionid)
                                       is not distinct from (h.locktype, h.database, h.relation, h.transactionid)))
           select k.virtualtransaction as "transaction!", k.relname as "table!",
                  array(select a.virtualtransaction from awaited a where a.first = k.pid and a.is_next) as "behind!",
                  array(select a.virtualtransaction from awaited a where a.first = k.pid and a.is_root) as "roots!"
             from kept k"#,
    )
    .fetch_all(pool)
    .await
    .task("see who keeps a table locked")?;
    let transactions = rows
        .iter()
        .flat_map(|row| {
            let others = row.behind.iter().chain(&row.roots);
            std::iter::once(&row.transaction).chain(others)
        })
        .cloned();
    let known = holders(pool, &transactions.collect::<Vec<_>>()).await?;
    let other = |transaction: &String| known.get(transaction).cloned().and_then(Holder::other);
    let kept = rows.into_iter().filter_map(|row| {
        let first = |of: &[String]| of.iter().filter_map(other).min_by_key(Blocker::since);
        let is_next = |root: &&String| row.behind.contains(root);
        let (behind, root) = match row.roots.iter().find(is_next) {
            // Nobody is between.
            Some(root) => (other(root), None),
            None => (first(&row.behind), first(&row.roots)),
        };
        Some(InTheWay {
            blocker: other(&row.transaction)?,
            table: format!("apipay.{}", row.table),
            account: None,
            behind,
            root,
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

/// A row that is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Row<'a> {
    /// The quota of an account.
    Quota(&'a str),
    /// An account.
    Account(&'a str),
    /// A job.
    Job(i64),
    /// An invoice of an account.
    Invoice(&'a str, i64),
    /// A refund of an account.
    Refund(&'a str, i64),
}

impl Row<'_> {
    /// Its table, its account and its number, as far as it has them.
    fn key(&self) -> (&'static str, Option<&str>, Option<i64>) {
        match *self {
            Row::Quota(account) => ("_quotas", Some(account), None),
            Row::Account(account) => ("accounts", Some(account), None),
            Row::Job(id) => ("jobs", None, Some(id)),
            Row::Invoice(account, id) => ("invoices", Some(account), Some(id)),
            Row::Refund(account, id) => ("refunds", Some(account), Some(id)),
        }
    }
}

/// Who keeps a row. One that several sessions share names none of them, as one of `apipay.accounts` is
/// by each insert of a job: so it is waited for, and seen whom that waits for. It is let go at once.
pub(super) async fn keepers(pool: &Pool, row: Row<'_>) -> Result<Vec<Blocker>, DbError> {
    let (table, account, id) = row.key();
    let mut wait = std::pin::pin!(async {
        sqlx::query!(
            r#"with patience as materialized (select set_config('lock_timeout', $4, true)),
             quota as (
               select q.account from patience, apipay._quotas q where $1 = '_quotas' and q.account = $2 for no key update of q),
             account as (
               select a.name from patience, apipay.accounts a where $1 = 'accounts' and a.name = $2 for no key update of a),
             job as (
               select j.id from patience, apipay.jobs j where $1 = 'jobs' and j.id = $3 for no key update of j),
             invoice as (
               select i.id from patience, apipay.invoices i
                where $1 = 'invoices' and i.account = $2 and i.id = $3 for no key update of i),
             refund as (
               select r.id from patience, apipay.refunds r
                where $1 = 'refunds' and r.account = $2 and r.id = $3 for no key update of r)
             select (select count(*) from quota) + (select count(*) from account) + (select count(*) from job)
                    + (select count(*) from invoice) + (select count(*) from refund) as "rows!""#,
            table,
            account,
            id,
            TRIED_FOR_MS,
        )
        .fetch_one(pool)
        .await
    });
    // That it cannot be had is what is looked for. On a busy machine its wait may begin late, so it is seen more than once.
    let mut seen = Ok(Vec::new());
    while tokio::time::timeout(LOOKED_AFTER, &mut wait).await.is_err() {
        seen = awaited(pool, row).await;
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
async fn awaited(pool: &Pool, row: Row<'_>) -> Result<Vec<Blocker>, DbError> {
    let (table, account, id) = row.key();
    let transactions = sqlx::query_scalar!(
        r#"with awaited as materialized (
             select q.tableoid as relation, q.ctid as place from apipay._quotas q
              where $1 = '_quotas' and q.account = $2
             union all
             select a.tableoid, a.ctid from apipay.accounts a where $1 = 'accounts' and a.name = $2
             union all
             select j.tableoid, j.ctid from apipay.jobs j where $1 = 'jobs' and j.id = $3
             union all
             select i.tableoid, i.ctid from apipay.invoices i where $1 = 'invoices' and i.account = $2 and i.id = $3
             union all
             select r.tableoid, r.ctid from apipay.refunds r where $1 = 'refunds' and r.account = $2 and r.id = $3),
           locks as materialized (select * from pg_catalog.pg_locks)
           select distinct h.virtualtransaction as "transaction!"
             from awaited r
             join locks t
               on t.locktype = 'tuple' and t.relation = r.relation and format('(%s,%s)', t.page, t.tuple)::tid = r.place
              and t.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
             join locks w on w.pid = t.pid and w.locktype = 'transactionid' and not w.granted
             join locks h on h.locktype = 'transactionid' and h.transactionid = w.transactionid and h.granted"#,
        table,
        account,
        id,
    )
    .fetch_all(pool)
    .await
    .task("see who keeps a row locked")?;
    let holders = holders(pool, &transactions).await?;
    let mut blockers: Vec<Blocker> = holders.into_values().filter_map(Holder::other).collect();
    blockers.sort_by_key(|blocker| (blocker.since(), blocker.name()));
    blockers.truncate(NAMED);
    Ok(blockers)
}
