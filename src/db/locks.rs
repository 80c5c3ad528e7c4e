//! What is locked, and who holds it: a row that a statement waits for, or a due job that every claim passes
//! over, so that nobody would know.

use std::time::Duration;

use time::OffsetDateTime;

use super::fault::Fault;
use super::record::Entry;
use super::{APPLICATION, DbError, Pool, Task};
use crate::domain::account::AccountName;
use crate::domain::job::JobId;

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
        Err(error) if error.fault() == Fault::Lock => Ok(Locked::Table),
        Err(error) => Err(error),
    }
}

/// A session that holds what we wait for, as far as our role may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker {
    /// Its process: `select pg_terminate_backend(pid)` ends it.
    pub pid: i32,
    /// Its user.
    pub user: Option<String>,
    /// What it calls itself.
    pub application: Option<String>,
    /// When its transaction began.
    pub since: Option<OffsetDateTime>,
}

/// The session that holds one of the rows that an entry is to change, or its account's row, unless it is a
/// daemon's, which holds none for long. A row's `xmax` is the transaction that has it locked; of a row that several
/// share, none is named.
pub async fn blocker(
    pool: &Pool,
    account: &AccountName,
    entry: &Entry,
) -> Result<Option<Blocker>, DbError> {
    let transition = entry.transition.as_ref();
    sqlx::query_as!(
        Blocker,
        r#"select l.pid as "pid!", s.usename::text as "user?", s.application_name as "application?",
                  s.xact_start as "since?"
             from (select xmax as transaction from apipay.jobs where id = $1
                   union all
                   select xmax from apipay.attempts where job_id = $1 and epoch = $2
                   union all
                   select xmax from apipay.invoices where account = $3 and id = $4
                   union all
                   select xmax from apipay.refunds where account = $3 and id = $5
                   union all
                   select xmax from apipay.accounts where name = $3) r
             join pg_catalog.pg_locks l
               on l.locktype = 'transactionid' and l.transactionid = r.transaction and l.granted
             left join pg_catalog.pg_stat_activity s on s.pid = l.pid
            where l.pid <> pg_backend_pid() and s.application_name is distinct from $6
            limit 1"#,
        transition.map(|transition| transition.job_id),
        transition.map(|transition| transition.epoch),
        account.as_str(),
        entry.invoice.as_ref().map(|row| row.id),
        entry.refund.as_ref().map(|row| row.id),
        APPLICATION,
    )
    .fetch_optional(pool)
    .await
    .task("see who blocks")
}

/// A due job that is locked now, and by whom, as far as our role may see.
#[derive(Clone, Debug)]
pub struct LockedJob {
    /// The job.
    pub id: JobId,
    /// Its account.
    pub account: AccountName,
    /// Its state.
    pub state: String,
    /// Its fence.
    pub epoch: i64,
    /// The session that holds it; none when several share it.
    pub blocker: Option<Blocker>,
}

/// Looks through the jobs that have been due for longest. What a statement of a daemon's has locked is not among
/// them: it ends by itself.
pub async fn due_jobs(
    pool: &Pool,
    accounts: &[String],
    overdue: Duration,
) -> Result<Vec<LockedJob>, DbError> {
    let rows = sqlx::query!(
        r#"with eldest as materialized (
             select d.* from unnest($1::text[]) as a(name)
             cross join lateral (
               (select j.id, j.account, j.state, j.epoch, j.xmax from apipay.jobs j
                 where j.account = a.name and j.state = 'queued' and j.id > 0 and apipay._is_in_turn(j.reason)
                   and j.run_at < now() - make_interval(secs => $2)
                 order by j.run_at, j.id limit 100)
               union all
               (select j.id, j.account, j.state, j.epoch, j.xmax from apipay.jobs j
                 where j.account = a.name and j.state = 'uncertain' and j.run_at < now() - make_interval(secs => $2)
                 order by j.run_at, j.id limit 100)) d
             where d.xmax <> '0'::xid),
           free as materialized (
             select j.id from apipay.jobs j where j.id = any (array(select id from eldest))
             for no key update skip locked)
           select e.id as "id!", e.account as "account!", e.state as "state!", e.epoch as "epoch!",
                  l.pid, s.usename::text as "user?", s.application_name as "application?", s.xact_start as "since?"
             from eldest e
             left join pg_catalog.pg_locks l
               on l.locktype = 'transactionid' and l.transactionid = e.xmax and l.granted
             left join pg_catalog.pg_stat_activity s on s.pid = l.pid
            where e.id not in (select id from free) and s.application_name is distinct from $3
            order by e.id
            limit 100"#,
        accounts,
        overdue.as_secs_f64(),
        APPLICATION,
    )
    .fetch_all(pool)
    .await
    .task("see which due jobs are locked")?;
    let locked = rows.into_iter().filter_map(|row| {
        Some(LockedJob {
            id: JobId(row.id),
            // A name in the database is a proper one, by its check constraint.
            account: AccountName::parse(&row.account)?,
            state: row.state,
            epoch: row.epoch,
            blocker: row.pid.map(|pid| Blocker {
                pid,
                user: row.user,
                application: row.application,
                since: row.since,
            }),
        })
    });
    Ok(locked.collect())
}
