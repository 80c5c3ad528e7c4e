//! The steady time, as all daemons of a database share it.

use std::time::Duration;

use time::OffsetDateTime;

use super::accounts::AlertText;
use super::{ACCOUNT_PATIENCE_MS, DbError, Pool, Task};

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

/// What was counted by the database's clock before our machine was started, of all accounts but those that are done:
/// nobody knows how that clock went since. What the quota's windows hold counts as taken just now, and what a look-up
/// missed as missed at `began`. What somebody has locked is passed over.
#[derive(Clone, Debug)]
pub struct Begun {
    /// The database's clock.
    pub now: OffsetDateTime,
    /// Accounts whose window starts again.
    pub windows: Vec<String>,
    /// Accounts of which something is locked.
    pub locked: Vec<String>,
}

/// Has what was counted before our machine was started count from now.
pub async fn begin_counts(
    pool: &Pool,
    second: SteadySecond,
    done: &[String],
    began: Option<OffsetDateTime>,
) -> Result<Begun, DbError> {
    sqlx::query_as!(
        Begun,
        r#"with free as materialized (
             select q.account from apipay._quotas q where q.account <> all ($2) for no key update skip locked),
           windows as (
             update apipay._quotas q
                set used = apipay._quota_slide(q.used, $1::bigint + 3600, $1::bigint),
                    asked = apipay._quota_slide(q.asked, $1::bigint + 3600, $1::bigint), newest = $1::bigint
              where q.account = any (array(select account from free)) and apipay._quota_sum(q.used) > 0),
           missed as materialized (
             select j.id, j.account from apipay.jobs j
              -- What somebody said needs no clock.
              where j.state = 'uncertain' and j.absent_since <> apipay._denied() and j.absent_since < coalesce($3, now())),
           reached as materialized (
             select j.id from apipay.jobs j where j.id = any (array(select id from missed)) for no key update skip locked),
           absences as (
             update apipay.jobs j set absent_since = coalesce($3, now()) where j.id = any (array(select id from reached)))
           select now() as "now!", array(select account from free) as "windows!",
                  array(select q.account from apipay._quotas q
                         where q.account <> all ($2) and q.account not in (select account from free)
                        union
                        select account from missed where id not in (select id from reached)) as "locked!""#,
        second.0,
        done,
        began,
    )
    .fetch_one(pool)
    .await
    .task("begin the steady time")
}

/// Stores where the steady time of our machine began, once all of that is done. Nothing changes when another daemon of
/// the machine was faster.
pub async fn begin_boot(pool: &Pool, boot: &str, ahead_us: i64) -> Result<(), DbError> {
    sqlx::query!(
        "with patience as materialized (select set_config('lock_timeout', $3, true))
         insert into apipay._clocks (boot, ahead_us)
         select $1, $2 from patience where not exists (select from apipay._clocks where boot = $1)
         on conflict do nothing",
        boot,
        ahead_us,
        ACCOUNT_PATIENCE_MS,
    )
    .execute(pool)
    .await
    .task("store where the steady time begins")
    .map(|_| ())
}

/// Stores by how much the steady time is ahead of the time since our machine was started.
pub async fn store_boot(pool: &Pool, boot: &str, ahead_us: i64) -> Result<(), DbError> {
    sqlx::query!(
        "with patience as materialized (select set_config('lock_timeout', $3, true))
         insert into apipay._clocks as b (boot, ahead_us) select $1, $2 from patience
         on conflict (boot) do update set ahead_us = excluded.ahead_us",
        boot,
        ahead_us,
        ACCOUNT_PATIENCE_MS,
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
        ACCOUNT_PATIENCE_MS,
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
