//! The steady time, as all daemons of a database share it.

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

/// Stores that the database's clock was set. False when another daemon has done so.
pub async fn store_jump(pool: &Pool, from_us: i64, to_us: i64) -> Result<bool, DbError> {
    sqlx::query!(
        "update apipay._control set steady_ahead_us = $2 where steady_ahead_us = $1",
        from_us,
        to_us,
    )
    .execute(pool)
    .await
    .task("store that its clock was set")
    .map(|done| done.rows_affected() == 1)
}
