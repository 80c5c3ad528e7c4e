//! Who keeps what every statement needs: a table, or an account's rows.

use std::time::Duration;

use super::session::{Blocker, Session};
use crate::db::{APPLICATION, DbError, Pool, Task};

/// A session of somebody else's that keeps what every statement needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InTheWay {
    /// The session.
    pub session: Blocker,
    /// What it keeps: a table.
    pub table: String,
    /// The account whose row in it is kept; none: the whole table.
    pub account: Option<String>,
    /// The session that it waits for itself; until then, everybody who comes later waits behind it.
    pub behind: Option<Blocker>,
}

/// Sessions that are named at most.
const NAMED: i64 = 3;

/// Sees who keeps a table of ours from everybody, or waits to do so; else who keeps the rows without which nothing of
/// these accounts is claimed or recorded. The tables are not read while one of them is locked.
pub async fn in_the_way(pool: &Pool, accounts: &[String]) -> Result<Vec<InTheWay>, DbError> {
    let rows = sqlx::query!(
        r#"with kept as (
             select l.pid, min(c.relname)::text as relname, bool_and(l.granted) as granted
               from pg_catalog.pg_locks l
               join pg_catalog.pg_class c on c.oid = l.relation
              where l.locktype = 'relation' and l.pid is not null
                and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
                and c.relnamespace = (select n.oid from pg_catalog.pg_namespace n where n.nspname = 'apipay')
                and c.relkind = 'r'
                and l.mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
              group by l.pid)
           select k.pid as "pid!", s.usename::text as "user?", s.application_name as "application?", s.xact_start as "since?",
                  s.state as "state?", left(s.query, 200) as "query?", k.relname as "table!",
                  b.pid as "behind?", b.usename::text as "behind_user?", b.application_name as "behind_application?",
                  b.xact_start as "behind_since?", b.state as "behind_state?", left(b.query, 200) as "behind_query?"
             from kept k
             left join pg_catalog.pg_stat_activity s on s.pid = k.pid
             left join lateral (
               select a.* from unnest(case when k.granted then '{}' else pg_blocking_pids(k.pid) end) as p(pid)
                 join pg_catalog.pg_stat_activity a on a.pid = p.pid
                order by a.xact_start limit 1) b on true
            where k.pid <> pg_backend_pid() and s.application_name is distinct from $1
            order by s.xact_start, k.pid limit $2"#,
        APPLICATION,
        NAMED,
    )
    .fetch_all(pool)
    .await
    .task("see who keeps a table locked")?;
    if !rows.is_empty() {
        let kept = rows.into_iter().map(|row| InTheWay {
            session: Blocker::from(Session {
                pid: row.pid,
                user: row.user,
                application: row.application,
                since: row.since,
                state: row.state,
                query: row.query,
            }),
            table: format!("apipay.{}", row.table),
            account: None,
            behind: row.behind.map(|pid| {
                Blocker::from(Session {
                    pid,
                    user: row.behind_user,
                    application: row.behind_application,
                    since: row.behind_since,
                    state: row.behind_state,
                    query: row.behind_query,
                })
            }),
        });
        return Ok(kept.collect());
    }
    let mut kept = Vec::new();
    for account in accounts.iter().take(ASKED_FOR) {
        for (table, is_quota) in [("apipay._quotas", true), ("apipay.accounts", false)] {
            let sessions = keepers(pool, account, is_quota).await?;
            kept.extend(sessions.into_iter().map(|session| InTheWay {
                session,
                table: table.to_owned(),
                account: Some(account.clone()),
                behind: None,
            }));
        }
    }
    Ok(kept)
}

/// Those of the accounts whose rows another session keeps locked at this moment.
pub async fn kept_accounts(pool: &Pool, accounts: &[String]) -> Result<Vec<String>, DbError> {
    sqlx::query_scalar!(
        r#"with touched as materialized (
             select a.name from apipay.accounts a where a.name = any ($1) and a.xmax <> '0'::xid),
           free as materialized (
             select a.name from apipay.accounts a where a.name = any (array(select name from touched))
             for no key update skip locked)
           select m.name as "name!" from touched m where m.name not in (select name from free) order by m.name"#,
        accounts,
    )
    .fetch_all(pool)
    .await
    .task("see which accounts are locked")
}

/// Accounts whose rows are tried, each for a moment.
const ASKED_FOR: usize = 3;

/// How long a row is waited for, and how long before it is seen who keeps it.
const TRIED_FOR_MS: &str = "500";
const LOOKED_AFTER: Duration = Duration::from_millis(200);

/// Who keeps the row of an account. A row that several sessions share names none of them, as one of `apipay.accounts` is
/// by each insert of a job: so it is waited for, and seen who keeps us waiting. It is let go at once.
async fn keepers(pool: &Pool, account: &str, is_quota: bool) -> Result<Vec<Blocker>, DbError> {
    let mut wait = std::pin::pin!(async {
        sqlx::query!(
            r#"with patience as materialized (select set_config('lock_timeout', $3, true)),
             quota as (
               select row_in_the_way.account from patience, apipay._quotas row_in_the_way
                where $2 and row_in_the_way.account = $1 for no key update of row_in_the_way),
             account as (
               select row_in_the_way.name from patience, apipay.accounts row_in_the_way
                where not $2 and row_in_the_way.name = $1 for no key update of row_in_the_way)
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
        seen = in_front(pool).await;
        if !matches!(&seen, Ok(sessions) if sessions.is_empty()) {
            wait.await.ok();
            break;
        }
    }
    seen
}

/// Whom the wait of [`keepers`] waits for in the end: others of ours may wait for the same row, in front of it.
async fn in_front(pool: &Pool) -> Result<Vec<Blocker>, DbError> {
    let sessions = sqlx::query_as!(
        Session,
        r#"with recursive ours as (
             select a.pid from pg_catalog.pg_stat_activity a
              where a.datname = current_database() and a.application_name = $1),
           front as (
             select unnest(pg_blocking_pids(w.pid)) as pid from pg_catalog.pg_stat_activity w
              where w.pid in (select pid from ours) and w.wait_event_type = 'Lock' and w.query like '%row_in_the_way%'
             union
             select unnest(pg_blocking_pids(f.pid)) from front f where f.pid in (select pid from ours))
           select s.pid as "pid!", s.usename::text as "user?", s.application_name as "application?",
                  s.xact_start as "since?", s.state as "state?", left(s.query, 200) as "query?"
             from front f join pg_catalog.pg_stat_activity s on s.pid = f.pid
            where s.application_name is distinct from $1
            order by s.xact_start, s.pid limit $2"#,
        APPLICATION,
        NAMED,
    )
    .fetch_all(pool)
    .await
    .task("see who keeps an account locked")?;
    Ok(sessions.into_iter().map(Blocker::from).collect())
}
