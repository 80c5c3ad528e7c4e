//! Who has a row locked that does not name its holder: its `xmax` is no transaction that `pg_locks` shows when the row was
//! locked in a subtransaction that has ended (a savepoint, an exception block of a function), or when several share it.

use std::collections::BTreeSet;

use super::holders::{Blocker, Holder, holders};
use super::in_the_way::{Row, keepers};
use crate::db::{DbError, Pool, Task};

/// Rows of one look that are waited for besides the first, to see whom that waits for.
pub(super) const WAITED_FOR: usize = 2;

/// Who has rows of a table locked.
pub(super) enum Keeper {
    /// This one has all of them, or it has ended.
    Of(Option<Holder>),
    /// Several may have them; this one has the one row that was waited for.
    OneOf(Option<Blocker>),
}

/// Who has those rows of this table locked that do not name their holders, of which `one` is one. It is true of rows that
/// were locked before and are locked by the same one afterwards.
pub(super) async fn keeper(
    pool: &Pool,
    table: &'static str,
    one: Row<'_>,
) -> Result<Keeper, DbError> {
    let mut touching = touching(pool, table).await?;
    if touching.len() > 1 {
        // Whoever touches it only for a moment has ended after that.
        let keepers = keepers(pool, one).await?;
        let later = self::touching(pool, table).await?;
        touching.retain(|transaction| later.contains(transaction));
        if touching.len() > 1 {
            return Ok(Keeper::OneOf(keepers.into_iter().next()));
        }
    }
    let transactions: Vec<String> = touching.into_iter().collect();
    let holders = holders(pool, &transactions).await?;
    Ok(Keeper::Of(holders.into_values().next()))
}

/// The transactions that have changed or locked rows of this table and are open: whoever has a row of it locked is among
/// them, because a lock of the table is kept for as long as that of the row.
async fn touching(pool: &Pool, table: &'static str) -> Result<BTreeSet<String>, DbError> {
    let transactions = sqlx::query_scalar!(
        r#"with locks as materialized (select * from pg_catalog.pg_locks where granted)
           select distinct r.virtualtransaction as "transaction!"
             from locks r
             join locks t on t.virtualtransaction = r.virtualtransaction and t.locktype = 'transactionid'
            where r.locktype = 'relation' and r.relation = $1::text::regclass::oid and r.mode <> 'AccessShareLock'
              and r.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
              and r.pid is distinct from pg_backend_pid()"#,
        table,
    )
    .fetch_all(pool)
    .await
    .task("see who has rows of a table locked")?;
    Ok(transactions.into_iter().collect())
}
