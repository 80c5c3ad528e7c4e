//! What was told of accounts that no daemon serves.

use std::time::Duration;

use super::{ACCOUNT_PATIENCE_MS, DbError, Pool, Task};

/// The accounts with an open alert of these kinds that no living daemon has in its configuration. A daemon counts as living
/// for so long after its last sign, unless it has left; one that doubts the key of an account has that account as well.
pub async fn told(
    pool: &Pool,
    kinds: &[String],
    alive_for: Duration,
) -> Result<Vec<String>, DbError> {
    sqlx::query_scalar!(
        r#"select distinct l.account as "account!" from apipay.alerts l
            where l.kind = any ($1) and l.resolved_at is null and l.account is not null
              and not exists (
                select from apipay.daemons d
                 where not d.has_left and d.seen_at > now() - make_interval(secs => $2)
                   and (l.account = any (d.accounts)
                        or exists (select from unnest(d.doubted) as one (key) where split_part(one.key, ' ', 1) = l.account)))"#,
        kinds,
        super::seconds(alive_for),
    )
    .fetch_all(pool)
    .await
    .task("read which alerts are of accounts that nobody serves")
}

/// Resolves the open alerts of these kinds and accounts. One that somebody keeps locked is left for later.
pub async fn resolve(
    pool: &Pool,
    kinds: &[String],
    accounts: &[String],
    resolution: &str,
) -> Result<u64, DbError> {
    sqlx::query!(
        "with patience as materialized (select set_config('lock_timeout', $4, true))
         update apipay.alerts l set resolved_at = now(), resolution = $3 from patience
          where l.id = any (array(
            select f.id from apipay.alerts f
             where f.kind = any ($1) and f.account = any ($2) and f.resolved_at is null
               for no key update skip locked))",
        kinds,
        accounts,
        resolution,
        ACCOUNT_PATIENCE_MS,
    )
    .execute(pool)
    .await
    .task("resolve alerts of accounts that nobody serves")
    .map(|done| done.rows_affected())
}
