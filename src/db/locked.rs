//! Due jobs that another session keeps locked: every claim passes them over, and nobody would know.

use std::time::Duration;

use time::OffsetDateTime;

use super::{DbError, Pool, Task};
use crate::domain::account::AccountName;
use crate::domain::job::JobId;

/// A due job that is locked now, and by whom, as far as our role may see.
#[derive(Clone, Debug)]
pub struct Locked {
    /// The job.
    pub id: JobId,
    /// Its account.
    pub account: AccountName,
    /// Its state.
    pub state: String,
    /// Its fence.
    pub epoch: i64,
    /// The process of the session; none when several share the row.
    pub pid: Option<i32>,
    /// Its user.
    pub user: Option<String>,
    /// What it calls itself.
    pub application: Option<String>,
    /// When its transaction began.
    pub since: Option<OffsetDateTime>,
}

/// Looks through the jobs that have been due for longest. Those that a claim has at this moment are among them.
pub async fn locked(
    pool: &Pool,
    accounts: &[String],
    overdue: Duration,
) -> Result<Vec<Locked>, DbError> {
    let rows = sqlx::query!(
        r#"with eldest as materialized (
             select d.* from unnest($1::text[]) as a(name)
             cross join lateral (
               (select j.id, j.account, j.state, j.epoch, j.xmax from apipay.jobs j
                 where j.account = a.name and j.state = 'queued' and j.id > 0
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
            where e.id not in (select id from free)
            order by e.id
            limit 100"#,
        accounts,
        overdue.as_secs_f64(),
    )
    .fetch_all(pool)
    .await
    .task("see which due jobs are locked")?;
    let locked = rows.into_iter().filter_map(|row| {
        Some(Locked {
            id: JobId(row.id),
            // A name in the database is a proper one, by its check constraint.
            account: AccountName::parse(&row.account)?,
            state: row.state,
            epoch: row.epoch,
            pid: row.pid,
            user: row.user,
            application: row.application,
            since: row.since,
        })
    });
    Ok(locked.collect())
}
