//! Jobs that somebody keeps locked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::holders::{Blocker, Holder, holders};
use super::in_the_way::{Row, keepers};
use super::unnamed::{Keeper, WAITED_FOR, keeper};
use crate::db::fault::AtFault;
use crate::db::{APPLICATION, DbError, Pool, Task};
use crate::domain::account::AccountName;
use crate::domain::job::JobId;
use crate::domain::state::State;

/// What is locked, when a statement waited too long for a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Locked {
    /// These jobs; none when it is another row of theirs, or nothing any more.
    Jobs(Vec<JobId>),
    /// A whole table, which is everybody's trouble.
    Table,
}

/// Sees what is locked: one of these jobs, or a table that outcomes are written to.
pub async fn among(pool: &Pool, jobs: &[i64], patience: Duration) -> Result<Locked, DbError> {
    let looked = sqlx::query!(
        r#"with patience as materialized (
             select set_config('lock_timeout', $2, true)
           ),
           free as materialized (
             select j.id from patience, apipay.jobs j
              where j.id = any ($1::bigint[])
                for no key update of j skip locked
           )
           select array(select j.id from apipay.jobs j
                         where j.id = any ($1::bigint[]) and j.id not in (select id from free)) as "jobs!",
                  exists (
                    select from pg_catalog.pg_locks l
                     where l.locktype = 'relation' and l.granted
                       and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
                       and l.relation = any (array['apipay.jobs', 'apipay.attempts', 'apipay.invoices',
                                                   'apipay.refunds', 'apipay.events']::regclass[]::oid[])
                       and l.mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
                  ) as "table!""#,
        jobs,
        patience.as_millis().to_string(),
    )
    .fetch_one(pool)
    .await
    .task("see which jobs are locked");
    match looked {
        Ok(row) if row.table => Ok(Locked::Table),
        Ok(row) => Ok(Locked::Jobs(row.jobs.into_iter().map(JobId).collect())),
        Err(error) if error.fault() == AtFault::Lock => Ok(Locked::Table),
        Err(error) => Err(error),
    }
}

/// A job that somebody else keeps locked.
#[derive(Clone, Debug)]
pub struct LockedJob {
    /// The job.
    pub id: JobId,
    /// Its account.
    pub account: AccountName,
    /// Its state.
    pub state: State,
    /// Its fence.
    pub epoch: i64,
    /// Whether it is a refund, which others of its invoice may wait for.
    pub is_refund: bool,
    /// The number of the lock, as the row has it: with the same one it is still the same lock.
    pub lock: String,
    /// Who holds it; none where that could not be seen.
    pub blocker: Option<Blocker>,
}

/// A locked job as its row shows it.
#[derive(Clone, Debug)]
struct Marked {
    id: i64,
    account: String,
    state: String,
    epoch: i64,
    is_refund: bool,
    lock: String,
    /// Who has it, if the row names one.
    transaction: Option<String>,
}

/// Those of the jobs that somebody else keeps locked. What a statement of a daemon's has locked is not among them:
/// it ends by itself.
pub async fn held(pool: &Pool, jobs: &[i64]) -> Result<Vec<LockedJob>, DbError> {
    let rows = marked(pool, jobs).await?;
    let named = rows.iter().filter_map(|row| row.transaction.clone());
    let named = holders(pool, &named.collect::<Vec<_>>()).await?;
    let is_unnamed = |row: &Marked| row.transaction.is_none();
    let unnamed = if rows.iter().any(is_unnamed) {
        let unnamed = rows.iter().filter(|row| is_unnamed(row));
        keep_unnamed(
            pool,
            unnamed.map(|row| (row.id, row.lock.clone())).collect(),
        )
        .await?
    } else {
        BTreeMap::new()
    };
    let locked = rows.into_iter().filter_map(|row| {
        // One that has ended meanwhile keeps nothing.
        let blocker = match &row.transaction {
            Some(transaction) => Some(named.get(transaction)?.clone().other()?),
            None => match unnamed.get(&row.id)? {
                Some(holder) => Some(holder.clone().other()?),
                None => None,
            },
        };
        Some(LockedJob {
            id: JobId(row.id),
            // A name and a state in the database are proper ones, by their check constraints.
            account: AccountName::parse(&row.account)?,
            state: State::parse(&row.state)?,
            epoch: row.epoch,
            is_refund: row.is_refund,
            lock: row.lock,
            blocker,
        })
    });
    Ok(locked.collect())
}

/// Who keeps those jobs locked whose rows do not name it; none where that cannot be seen. Those that are locked no more, or
/// anew, are left out.
async fn keep_unnamed(
    pool: &Pool,
    unnamed: BTreeMap<i64, String>,
) -> Result<BTreeMap<i64, Option<Holder>>, DbError> {
    let Some(first) = unnamed.keys().next().copied() else {
        return Ok(BTreeMap::new());
    };
    let keeper = keeper(pool, "apipay.jobs", Row::Job(first)).await?;
    let ids: Vec<i64> = unnamed.keys().copied().collect();
    let still = marked(pool, &ids).await?;
    let still = still
        .into_iter()
        .filter(|row| unnamed.get(&row.id) == Some(&row.lock));
    let still: Vec<i64> = still.map(|row| row.id).collect();
    let blocker = match keeper {
        // What ended meanwhile keeps nothing.
        Keeper::Of(None) => return Ok(BTreeMap::new()),
        Keeper::Of(holder) => {
            return Ok(still.into_iter().map(|id| (id, holder.clone())).collect());
        }
        Keeper::OneOf(blocker) => blocker,
    };
    let mut holders: BTreeMap<_, _> = still.iter().map(|id| (*id, None)).collect();
    let others = still.iter().filter(|id| **id != first).take(WAITED_FOR);
    for id in others {
        let keepers = keepers(pool, Row::Job(*id)).await?;
        holders.insert(*id, keepers.into_iter().next().map(Holder::Other));
    }
    if let Some(holder) = holders.get_mut(&first) {
        *holder = blocker.map(Holder::Other);
    }
    Ok(holders)
}

/// Those of the jobs that are locked, by whomever.
async fn marked(pool: &Pool, jobs: &[i64]) -> Result<Vec<Marked>, DbError> {
    sqlx::query_as!(
        Marked,
        r#"with marked as materialized (
             select j.id, j.account, j.state, j.epoch, j.operation, j.xmax from apipay.jobs j
              where j.id = any ($1::bigint[]) and j.xmax <> '0'::xid),
           free as materialized (
             select j.id from apipay.jobs j where j.id = any (array(select id from marked))
             for no key update skip locked)
           select m.id as "id!", m.account as "account!", m.state as "state!", m.epoch as "epoch!",
                  m.operation = 'invoice.refund' as "is_refund!",
                  m.xmax::text as "lock!", l.virtualtransaction as "transaction?"
             from marked m
             left join pg_catalog.pg_locks l
               on l.locktype = 'transactionid' and l.transactionid = m.xmax and l.granted
            where m.id not in (select id from free)
            order by m.id
            limit 100"#,
        jobs,
    )
    .fetch_all(pool)
    .await
    .task("see which jobs are locked, and by whom")
}

/// The transactions that hold locks of their own, of whichever database, but for daemons': as long as one is open, a
/// row that it has locked stays so.
pub async fn open_transactions(pool: &Pool) -> Result<BTreeSet<String>, DbError> {
    let open = sqlx::query_scalar!(
        r#"select l.transactionid::text as "transaction!"
             from pg_catalog.pg_locks l
             left join pg_catalog.pg_stat_activity s on s.pid = l.pid
            where l.locktype = 'transactionid' and l.mode = 'ExclusiveLock' and l.granted
              and l.pid is distinct from pg_backend_pid() and s.application_name is distinct from $1"#,
        APPLICATION,
    )
    .fetch_all(pool)
    .await
    .task("see which transactions are open")?;
    Ok(open.into_iter().collect())
}

/// Jobs that are looked at of all accounts together, and of one at the most and at the least, of each kind.
const LOOKED_AT: usize = 5_000;
const LOOKED_AT_OF_ONE: usize = 100;
const LOOKED_AT_OF_EACH: usize = 5;

/// Looks through the jobs that have been due for so long, those that every claim meets first: whatever it passes over
/// stays among them, however many there are.
pub async fn due_jobs(
    pool: &Pool,
    accounts: &[String],
    overdue: Duration,
) -> Result<Vec<LockedJob>, DbError> {
    let most = LOOKED_AT / accounts.len().max(1);
    let most = most.clamp(LOOKED_AT_OF_EACH, LOOKED_AT_OF_ONE);
    // By age, for those of the priorities that are never reached; and in the order of the claims.
    let marked = sqlx::query_scalar!(
        r#"select distinct d.id as "id!" from unnest($1::text[]) as a(name)
           cross join lateral (
             (select j.id, j.xmax from apipay.jobs j
               where j.account = a.name and j.state = 'queued' and j.id > 0 and apipay._is_in_turn(j.reason)
                 and j.run_at < now() - make_interval(secs => $2)
               order by j.run_at, j.id limit $3)
             union all
             (select f.id, f.xmax from (
                select j.id, j.xmax, j.run_at from apipay.jobs j
                 where j.account = a.name and j.state = 'queued' and apipay._is_in_turn(j.reason)
                 order by j.priority desc, j.run_at, j.id limit $3) f
               where f.run_at < now() - make_interval(secs => $2))
             union all
             (select j.id, j.xmax from apipay.jobs j
               where j.account = a.name and j.state = 'uncertain' and j.run_at < now() - make_interval(secs => $2)
               order by j.run_at, j.id limit $3)) d
            where d.xmax <> '0'::xid"#,
        accounts,
        overdue.as_secs_f64(),
        i64::try_from(most).unwrap_or(i64::MAX),
    )
    .fetch_all(pool)
    .await
    .task("see which due jobs may be locked")?;
    if marked.is_empty() {
        return Ok(Vec::new());
    }
    held(pool, &marked).await
}

/// Jobs of each kind of which is seen whether they are free.
const SEEN_FREE: i64 = 500;

/// How many of the due jobs of these accounts that a claim meets first are kept locked by nobody, counted to
/// `most`.
pub async fn free_jobs(
    pool: &Pool,
    accounts: &[String],
    most: u32,
) -> Result<BTreeMap<String, u32>, DbError> {
    let rows = sqlx::query!(
        r#"with met as materialized (
             select distinct d.id, d.account, d.xmax::text <> '0' as is_marked from unnest($1::text[]) as a(name)
             cross join lateral (
               (select j.id, j.account, j.xmax from apipay.jobs j
                 where j.account = a.name and j.state = 'queued' and j.id > 0 and apipay._is_in_turn(j.reason)
                   and j.run_at <= now()
                 order by j.run_at, j.id limit $2)
               union all
               (select f.id, f.account, f.xmax from (
                  select j.id, j.account, j.xmax, j.run_at from apipay.jobs j
                   where j.account = a.name and j.state = 'queued' and apipay._is_in_turn(j.reason)
                   order by j.priority desc, j.run_at, j.id limit $2) f
                 where f.run_at <= now())) d),
           free as materialized (
             select j.id from apipay.jobs j where j.id = any (array(select id from met where is_marked))
             for no key update skip locked)
           select m.account as "account!", least(count(*) filter (where not m.is_marked or m.id in (select id from free)), $3) as "free!"
             from met m group by m.account"#,
        accounts,
        SEEN_FREE,
        i64::from(most),
    )
    .fetch_all(pool)
    .await
    .task("see how many due jobs nobody has locked")?;
    let rows = rows.into_iter();
    let counted = rows.map(|row| (row.account, u32::try_from(row.free).unwrap_or(most)));
    Ok(counted.collect())
}
