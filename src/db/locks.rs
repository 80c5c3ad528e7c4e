//! What is locked, and who holds it: a row that a statement waits for, or a due job that every claim passes
//! over, so that nobody would know.

use std::collections::BTreeSet;
use std::time::Duration;

use time::OffsetDateTime;

use super::entry::{Entry, Transition};
use super::fault::{Cause, Fault};
use super::{APPLICATION, DbError, Pool, Task};
use crate::domain::account::AccountName;
use crate::domain::job::JobId;
use crate::domain::state::State;
use crate::domain::statement::first_words;

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
    /// How it stands: `active`, `idle in transaction` and the like.
    pub state: Option<String>,
    /// The first words of its last statement, without its values.
    pub statement: Option<String>,
}

/// A session as the statements here return it.
struct Session {
    pid: i32,
    user: Option<String>,
    application: Option<String>,
    since: Option<OffsetDateTime>,
    state: Option<String>,
    query: Option<String>,
}

impl From<Session> for Blocker {
    fn from(session: Session) -> Blocker {
        Blocker {
            pid: session.pid,
            user: session.user,
            application: session.application,
            since: session.since,
            state: session.state,
            statement: session.query.as_deref().and_then(first_words),
        }
    }
}

/// Who holds a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Somebody's session.
    Session(Blocker),
    /// A statement of a daemon's, which ends by itself: a trigger may make it slow.
    Ours,
}

/// Who holds one of the rows that an entry is to change, or its account's row. A row's `xmax` is the transaction that has
/// it locked; of a row that several share, none is named.
pub async fn blocker(
    pool: &Pool,
    account: &AccountName,
    entry: &Entry,
) -> Result<Option<Holder>, DbError> {
    let transition = entry.transition.as_ref();
    let held = sqlx::query!(
        // A daemon's transaction that is older than any statement of its may be is one that was left open.
        r#"select coalesce(s.application_name = $6 and s.xact_start > now() - interval '40 s', false) as "is_ours!", l.pid as "pid!", s.usename::text as "user?", s.application_name as "application?",
                  s.xact_start as "since?", s.state as "state?", left(s.query, 200) as "query?"
             from (select xmax as transaction from apipay.jobs where id = $1
                   union all
                   select xmax from apipay.attempts where job_id = $1 and epoch = $2
                   union all
                   select xmax from apipay.invoices where account = $3 and id = $4
                   union all
                   select xmax from apipay.refunds where account = $3 and id = $5
                   union all
                   select xmax from apipay.accounts where name = $3
                   union all
                   select xmax from apipay._quotas where account = $3) r
             join pg_catalog.pg_locks l
               on l.locktype = 'transactionid' and l.transactionid = r.transaction and l.granted
             left join pg_catalog.pg_stat_activity s on s.pid = l.pid
            where l.pid <> pg_backend_pid()
            order by 1
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
    .task("see who blocks")?;
    Ok(held.map(|held| {
        if held.is_ours {
            return Holder::Ours;
        }
        Holder::Session(Blocker::from(Session {
            pid: held.pid,
            user: held.user,
            application: held.application,
            since: held.since,
            state: held.state,
            query: held.query,
        }))
    }))
}

/// Whether it is still somebody else who keeps this job from being changed, after a wait for a lock in vain: not where a
/// statement of a daemon's had its row, or has it now, as one that a trigger makes slow.
pub async fn is_of_others(
    pool: &Pool,
    account: &AccountName,
    job: JobId,
    cause: &Cause,
) -> Result<bool, DbError> {
    let entry = Entry {
        transition: Some(Transition {
            job_id: job.0,
            ..Transition::default()
        }),
        ..Entry::default()
    };
    Ok(match blocker(pool, account, &entry).await? {
        Some(Holder::Session(_)) => true,
        Some(Holder::Ours) => false,
        None => !cause.is_about_a_job() || !held(pool, &[job.0]).await?.is_empty(),
    })
}

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

/// A job that another session keeps locked, and which, as far as our role may see.
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
    /// The session that holds it; none when several share it.
    pub blocker: Option<Blocker>,
}

/// Those of the jobs that another session keeps locked. What a statement of a daemon's has locked is not among them:
/// it ends by itself.
pub async fn held(pool: &Pool, jobs: &[i64]) -> Result<Vec<LockedJob>, DbError> {
    let rows = sqlx::query!(
        r#"with marked as materialized (
             select j.id, j.account, j.state, j.epoch, j.operation, j.xmax from apipay.jobs j
              where j.id = any ($1::bigint[]) and j.xmax <> '0'::xid),
           free as materialized (
             select j.id from apipay.jobs j where j.id = any (array(select id from marked))
             for no key update skip locked)
           select m.id as "id!", m.account as "account!", m.state as "state!", m.epoch as "epoch!",
                  m.operation = 'invoice.refund' as "is_refund!",
                  l.pid, s.usename::text as "user?", s.application_name as "application?", s.xact_start as "since?",
                  s.state as "session_state?", left(s.query, 200) as "query?"
             from marked m
             left join pg_catalog.pg_locks l
               on l.locktype = 'transactionid' and l.transactionid = m.xmax and l.granted
             left join pg_catalog.pg_stat_activity s on s.pid = l.pid
            where m.id not in (select id from free) and s.application_name is distinct from $2
            order by m.id
            limit 100"#,
        jobs,
        APPLICATION,
    )
    .fetch_all(pool)
    .await
    .task("see which jobs are locked, and by whom")?;
    let locked = rows.into_iter().filter_map(|row| {
        Some(LockedJob {
            id: JobId(row.id),
            // A name and a state in the database are proper ones, by their check constraints.
            account: AccountName::parse(&row.account)?,
            state: State::parse(&row.state)?,
            epoch: row.epoch,
            is_refund: row.is_refund,
            blocker: row.pid.map(|pid| {
                Blocker::from(Session {
                    pid,
                    user: row.user,
                    application: row.application,
                    since: row.since,
                    state: row.session_state,
                    query: row.query,
                })
            }),
        })
    });
    Ok(locked.collect())
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

/// An invoice or refund that is due to be checked and that another session keeps locked, and which.
#[derive(Clone, Debug)]
pub struct LockedMirror {
    /// Its account.
    pub account: String,
    /// Whether it is a refund.
    pub is_refund: bool,
    /// The gateway's id.
    pub id: i64,
    /// The session that holds its row; none when several share it.
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
                  l.pid, s.usename::text as "user?", s.application_name as "application?", s.xact_start as "since?",
                  s.state as "state?", left(s.query, 200) as "query?"
             from due d
             left join pg_catalog.pg_locks l
               on l.locktype = 'transactionid' and l.transactionid = d.transaction and l.granted
             left join pg_catalog.pg_stat_activity s on s.pid = l.pid
            where s.application_name is distinct from $4
              and case when d.is_refund then (d.account, d.id) not in (select account, id from free_refunds)
                       else (d.account, d.id) not in (select account, id from free_invoices) end
            order by d.account, d.is_refund, d.id
            limit 20"#,
        accounts,
        overdue.as_secs_f64(),
        MIRRORS_OF_ONE,
        APPLICATION,
    )
    .fetch_all(pool)
    .await
    .task("see which invoices and refunds are locked, and by whom")?;
    let locked = rows.into_iter().map(|row| LockedMirror {
        account: row.account,
        is_refund: row.is_refund,
        id: row.id,
        blocker: row.pid.map(|pid| {
            Blocker::from(Session {
                pid,
                user: row.user,
                application: row.application,
                since: row.since,
                state: row.state,
                query: row.query,
            })
        }),
    });
    Ok(locked.collect())
}
