//! What the quota of an account is told beside its claims: what was not used, and what the gateway says is gone.

use std::time::Duration;

use super::clock::SteadySecond;
use super::{ACCOUNT_PATIENCE_MS, DbError, Pool, Task};
use crate::domain::account::AccountName;

/// Gives back quota that was taken for requests of which no byte left: the second in which it was, of each.
pub async fn return_quota(
    pool: &Pool,
    account: &AccountName,
    taken: &[SteadySecond],
    second: SteadySecond,
) -> Result<(), DbError> {
    let taken: Vec<i64> = taken.iter().map(|taken| taken.0).collect();
    sqlx::query!(
        "with patience as materialized (select set_config('lock_timeout', $4, true))
         select apipay._return_quota($1, $2, $3)::text from patience",
        account.as_str(),
        &taken,
        second.0,
        ACCOUNT_PATIENCE_MS,
    )
    .fetch_one(pool)
    .await
    .task("return quota")
    .map(|_| ())
}

/// Counts as used what the gateway says is no longer there: until it is reset, or, when that is not
/// known, less and less of it over the next minute.
pub async fn correct_quota(
    pool: &Pool,
    account: &AccountName,
    remaining: u32,
    resets_after: Option<Duration>,
    second: SteadySecond,
) -> Result<(), DbError> {
    let resets_after_s =
        resets_after.map(|time| i32::try_from(time.as_secs() + 1).unwrap_or(i32::MAX));
    sqlx::query!(
        "with patience as materialized (select set_config('lock_timeout', $5, true))
         select apipay._correct_quota($1, $2, $3, $4)::text from patience",
        account.as_str(),
        i32::try_from(remaining).unwrap_or(i32::MAX),
        resets_after_s,
        second.0,
        ACCOUNT_PATIENCE_MS,
    )
    .fetch_one(pool)
    .await
    .task("correct the quota")
    .map(|_| ())
}
