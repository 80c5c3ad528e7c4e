//! What the status line and `apipayd check` read.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{DbError, Pool, Task, settings};

/// Connects once and hangs up. A pool tries again until its time is over, and then tells only that:
/// people who wait for an answer want the cause.
pub async fn reach(options: &PgConnectOptions) -> Result<(), DbError> {
    let connected = tokio::time::timeout(Duration::from_secs(10), options.connect()).await;
    let late = |_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
    let connection = connected.map_err(late).flatten().task("let us in")?;
    connection.close().await.task("let us go")
}

/// How many jobs of an account are in a state that is not final.
#[derive(Clone, Debug)]
pub struct CountedJobs {
    /// The account.
    pub account: String,
    /// The state.
    pub state: String,
    /// Jobs in it, as far as they were counted.
    pub jobs: i64,
    /// Whether there may be more.
    pub has_more: bool,
}

/// Jobs that are counted of all accounts together, and of one of them in one state at the most and at the least.
const COUNTED: usize = 10_000;
const COUNTED_OF_ONE: usize = 1_000;
const COUNTED_OF_EACH: usize = 10;

/// Counts the jobs of these accounts that are not final: for the status line, which is written each second, and so no
/// more than tells few from many.
pub async fn waiting(pool: &Pool, accounts: &[String]) -> Result<Vec<CountedJobs>, DbError> {
    let most = COUNTED / accounts.len().max(1);
    let most = most.clamp(COUNTED_OF_EACH, COUNTED_OF_ONE);
    sqlx::query_as!(
        CountedJobs,
        r#"select a.name as "account!", s.state as "state!", c.jobs as "jobs!", c.jobs >= $2 as "has_more!"
             from unnest($1::text[]) as a(name)
             cross join (values ('queued'), ('uncertain'), ('parked'), ('held')) as s(state)
             cross join lateral (
               select count(*) as jobs from (
                 -- In the order of an index each: it is read as far as the limit, and not whole.
                 (select from apipay.jobs j where j.account = a.name and j.state = 'queued' and s.state = 'queued'
                   order by apipay._is_in_turn(j.reason), j.priority desc, j.run_at, j.id limit $2)
                 union all
                 (select from apipay.jobs j where j.account = a.name and j.state = 'uncertain' and s.state = 'uncertain'
                   order by j.run_at, j.id limit $2)
                 union all
                 (select from apipay.jobs j
                   where j.account = a.name and j.state in ('parked', 'held') and j.state = s.state
                   order by j.id limit $2)) counted) c
            where c.jobs > 0
            order by a.name, s.state"#,
        accounts,
        i64::try_from(most).unwrap_or(i64::MAX),
    )
    .fetch_all(pool)
    .await
    .task("count what waits")
}

/// What stands beside the accounts in the status line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Glance {
    /// Whether all sending is stopped; none when the row that says so cannot be seen.
    pub stopped: Option<bool>,
    /// The kinds of the open alerts, each with how many are open.
    pub alerts: Vec<String>,
    /// For how many seconds this worker has had the oldest of the jobs that it is sending.
    pub oldest_s: Option<f64>,
}

/// Reads what stands beside the accounts in the status line.
pub async fn glance(pool: &Pool, worker: Uuid) -> Result<Glance, DbError> {
    sqlx::query_as!(
        Glance,
        r#"select (select stopped from apipay._control) as "stopped?",
                  array(select concat(nullif(count(*), 1) || ' ', kind) from apipay.alerts
                         where resolved_at is null group by kind order by kind) as "alerts!",
                  (select extract(epoch from now() - min(j.updated_at))::float8
                     from (select updated_at, leased_by from apipay.jobs where state = 'sending' offset 0) j
                    where j.leased_by = $1) as "oldest_s?""#,
        worker,
    )
    .fetch_one(pool)
    .await
    .task("look at alerts and what is under way")
}

/// Facts about the server and our rights in it.
#[derive(Clone, Debug)]
pub struct Server {
    /// `server_version_num`, such as 150006.
    pub version: i32,
    /// Its clock.
    pub now: OffsetDateTime,
    /// Whether it takes no writes: a replica, or set so.
    pub read_only: bool,
    /// Who we are.
    pub user: String,
    /// Whether we are set to what we asked for: behind a pooler that we were not told of, we are not.
    pub is_set: bool,
    /// Whether our triggers are switched off (`session_replication_role`): no event, and no guard of a row.
    pub triggers_are_off: bool,
    /// Whether a power cut costs no more than what was not committed: `fsync` and `full_page_writes`.
    pub survives_power_cut: bool,
    /// Its encoding, such as `UTF8`.
    pub encoding: String,
}

/// Reads facts about the server.
pub async fn server(pool: &Pool) -> Result<Server, DbError> {
    let task = "ask the server about itself";
    let is_set = settings::are_set(pool).await.task(task)?;
    let row = sqlx::query!(
        r#"select current_setting('server_version_num')::int as "version!", clock_timestamp() as "now!",
                  (pg_is_in_recovery() or current_setting('transaction_read_only') = 'on') as "read_only!",
                  current_user::text as "user!",
                  current_setting('session_replication_role') = 'replica' as "triggers_are_off!",
                  (current_setting('fsync') = 'on' and current_setting('full_page_writes') = 'on') as "survives_power_cut!",
                  current_setting('server_encoding') as "encoding!""#
    )
    .fetch_one(pool)
    .await
    .task(task)?;
    Ok(Server {
        version: row.version,
        now: row.now,
        read_only: row.read_only,
        user: row.user,
        is_set,
        triggers_are_off: row.triggers_are_off,
        survives_power_cut: row.survives_power_cut,
        encoding: row.encoding,
    })
}

/// Whether inserts and outcomes are told by NOTIFY, and what that depends on.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub struct Notifications {
    /// Whether they are let out now.
    pub are_let_out: bool,
    /// The setting `apipay.notify`: `on`, `off`, or nothing.
    pub setting: String,
    /// How full the server's queue is: 1 is full.
    pub queue_usage: f64,
    /// Whether that is too full to add one.
    pub is_filling: bool,
    /// Who keeps it from being emptied: the oldest transaction of this server, which listens or not.
    pub oldest_transaction: Option<i32>,
}

/// Looks whether notifications are let out.
pub async fn notifications(pool: &Pool) -> Result<Notifications, DbError> {
    sqlx::query_as(
        "select apipay._is_notifying() as are_let_out, coalesce(current_setting('apipay.notify', true), '') as setting,
                pg_notification_queue_usage() as queue_usage,
                pg_notification_queue_usage() > apipay._most_of_queue() as is_filling,
                (select pid from pg_stat_activity where xact_start is not null and pid <> pg_backend_pid()
                  order by xact_start limit 1) as oldest_transaction",
    )
    .fetch_one(pool)
    .await
    .task("look whether notifications are let out")
}

/// The roles of the public interface that do not exist: only a superuser can create them.
pub async fn missing_roles(pool: &Pool) -> Result<Vec<String>, DbError> {
    sqlx::query_scalar!(r#"select unnest(apipay._missing_roles()) as "role!""#)
        .fetch_all(pool)
        .await
        .task("look for the roles")
}
