//! Putting right what time alone made wrong.

use std::time::Duration;

use time::OffsetDateTime;

use super::{DbError, Pool, Task};
use crate::domain::job::JobId;

/// Moves jobs whose lease ran out to uncertain, and closes their attempts as unknown.
pub async fn expire_leases(
    pool: &Pool,
    quiet: Duration,
    most: usize,
) -> Result<Vec<JobId>, DbError> {
    sqlx::query_file_scalar!(
        "src/db/recover.sql",
        quiet.as_secs_f64(),
        i64::try_from(most).unwrap_or(i64::MAX),
    )
    .fetch_all(pool)
    .await
    .task("recover expired leases")
    .map(|ids| ids.into_iter().map(JobId).collect())
}

/// Ends unsent jobs that are past their `expires_at`. A job that may have been sent is uncertain,
/// not queued, or carries what is unproven: it is settled first.
/// By the database's clock, but not beyond `expected`, what it should show.
pub async fn expire_jobs(
    pool: &Pool,
    expected: OffsetDateTime,
    most: usize,
) -> Result<u64, DbError> {
    sqlx::query!(
        "update apipay.jobs
            set state = 'expired', reason = 'expired', finished_at = now(), updated_at = now()
          where id = any (array(
            select id from apipay.jobs
            where state = 'queued' and expires_at <= least(now(), $2) and unproven_since is null
            order by expires_at
            limit $1
            for no key update skip locked))",
        i64::try_from(most).unwrap_or(i64::MAX),
        expected,
    )
    .execute(pool)
    .await
    .task("expire jobs")
    .map(|done| done.rows_affected())
}

/// Puts back parked jobs whose account is active: it was resumed, or they were recorded later. A request
/// that is still unproven is looked up before anything is sent again.
pub async fn release_parked(pool: &Pool, most: usize) -> Result<u64, DbError> {
    sqlx::query!(
        "update apipay.jobs j
            set state = case when j.unproven_since is null then 'queued' else 'uncertain' end,
                reason = 'resumed', run_at = least(j.run_at, now()), updated_at = now()
          where j.id = any (array(
            select p.id from apipay.accounts a
            cross join lateral (
              select id from apipay.jobs
              where account = a.name and state = 'parked'
              order by id
              limit $1
              for no key update skip locked) p
            where a.state = 'active'
            limit $1))",
        i64::try_from(most).unwrap_or(i64::MAX),
    )
    .execute(pool)
    .await
    .task("release parked jobs")
    .map(|done| done.rows_affected())
}
