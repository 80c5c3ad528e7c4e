//! The steady time, as all daemons of a database share it.

use std::time::Duration;

use super::accounts::AlertText;
use super::{DbError, Pool, Task};

/// A second of the steady time, by which the quota is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SteadySecond(pub i64);

/// What the database knows of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// Its own clock, in microseconds since 1970.
    pub database_us: i64,
    /// By how much the steady time is ahead of it.
    pub steady_ahead_us: i64,
    /// By how much the steady time is ahead of the time since the machine was started, if a daemon of
    /// that start has ever come here.
    pub boot_ahead_us: Option<i64>,
}

/// Reads the database's clock and what belongs to it; `boot` names the start of our machine.
pub async fn read(pool: &Pool, boot: &str) -> Result<Clocks, DbError> {
    sqlx::query_as!(
        Clocks,
        r#"select (extract(epoch from clock_timestamp()) * 1e6)::bigint as "database_us!", c.steady_ahead_us,
                  (select b.ahead_us from apipay._clocks b where b.boot = $1) as "boot_ahead_us?"
             from apipay._control c"#,
        boot,
    )
    .fetch_one(pool)
    .await
    .task("read the clock")
}

/// Begins the steady time for our machine. Nobody knows how the database's clock went since its last
/// start: what the quota's windows hold counts as taken just now, and what a look-up missed as missed just
/// now. Nothing changes when another daemon of the machine was faster.
pub async fn begin_boot(
    pool: &Pool,
    boot: &str,
    ahead_us: i64,
    second: SteadySecond,
) -> Result<(), DbError> {
    sqlx::query!(
        "with begun as (
           insert into apipay._clocks (boot, ahead_us) values ($1, $2) on conflict do nothing returning boot),
         windows as (
           update apipay._quotas q
              set used = apipay._quota_slide(q.used, $3::bigint + 3600, $3::bigint),
                  asked = apipay._quota_slide(q.asked, $3::bigint + 3600, $3::bigint), newest = $3::bigint
             from begun
            where apipay._quota_sum(q.used) > 0)
         update apipay.jobs j
            set absent_since = now()
           from begun
          -- What somebody said needs no clock.
          where j.state = 'uncertain' and j.absent_since <> apipay._denied()",
        boot,
        ahead_us,
        second.0,
    )
    .execute(pool)
    .await
    .task("begin the steady time")
    .map(|_| ())
}

/// Stores by how much the steady time is ahead of the time since our machine was started.
pub async fn store_boot(pool: &Pool, boot: &str, ahead_us: i64) -> Result<(), DbError> {
    sqlx::query!(
        "insert into apipay._clocks as b (boot, ahead_us) values ($1, $2)
         on conflict (boot) do update set ahead_us = excluded.ahead_us",
        boot,
        ahead_us,
    )
    .execute(pool)
    .await
    .task("store the steady time")
    .map(|_| ())
}

/// Stores that the database's clock was set by so many seconds, carries along what was measured by it,
/// and opens the alert. False when another daemon has done so.
pub async fn store_jump(
    pool: &Pool,
    from_us: i64,
    to_us: i64,
    lease: Duration,
    text: &AlertText,
) -> Result<bool, DbError> {
    // No clock is wrong by more; a moment that was carried further would be no moment.
    const MOST_S: f64 = 1e9;
    let seconds = (from_us.saturating_sub(to_us) as f64 / 1e6).clamp(-MOST_S, MOST_S);
    sqlx::query_file_scalar!(
        "src/db/clock_jump.sql",
        from_us,
        to_us,
        seconds,
        lease.as_secs_f64(),
        text.summary,
        text.action,
        text.details,
    )
    .fetch_optional(pool)
    .await
    .task("store that its clock was set")
    .map(|alert| alert.is_some())
}

/// Resolves the alert of a jump that is longer ago than this.
pub async fn resolve_jump(pool: &Pool, now: SteadySecond, steady: Duration) -> Result<(), DbError> {
    sqlx::query!(
        "update apipay.alerts
            set resolved_at = now(), resolution = 'the clock has been steady since'
          where coalesce(account, '') = '' and kind = 'clock_jumped' and resolved_at is null
            and (details ->> 'steady_second')::bigint not between $1 - $2::bigint and $1",
        now.0,
        i64::try_from(steady.as_secs()).unwrap_or(i64::MAX),
    )
    .execute(pool)
    .await
    .task("resolve the alert of its clock")
    .map(|_| ())
}
