//! Whom a session waits for.

use sqlx::PgConnection;

use super::holders::{Blocker, Holder, holders};
use crate::db::{DbError, Task};

/// Whom the session with this process waits for at this moment, whatever the lock.
pub(in crate::db) async fn awaited_by(
    connection: &mut PgConnection,
    pid: i32,
) -> Result<Vec<Blocker>, DbError> {
    let transactions = sqlx::query_scalar!(
        // Among them a prepared transaction has no process but the number 0: it is one that has what is waited for.
        r#"with awaited as materialized (select pg_blocking_pids($1) as pids),
           locks as materialized (select * from pg_catalog.pg_locks)
           select distinct h.virtualtransaction as "transaction!"
             from awaited b, locks h
            where h.pid = any (b.pids)
               or h.pid is null and h.granted and 0 = any (b.pids)
                  and exists (select from locks w
                               where w.pid = $1 and not w.granted
                                 and (w.locktype, w.database, w.relation, w.transactionid)
                                     is not distinct from (h.locktype, h.database, h.relation, h.transactionid))"#,
        pid,
    )
    .fetch_all(&mut *connection)
    .await
    .task("see whom a session waits for")?;
    let holders = holders(connection, &transactions).await?;
    let mut blockers: Vec<Blocker> = holders.into_values().filter_map(Holder::other).collect();
    blockers.sort_by_key(|blocker| (blocker.since(), blocker.name()));
    Ok(blockers)
}
