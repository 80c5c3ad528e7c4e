//! Who has the transactions that keep others waiting: sessions, and prepared transactions, which no session has any more.

use std::collections::BTreeMap;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::db::{APPLICATION, DbError, Task};
use crate::domain::statement::first_words;

/// Somebody who holds what we wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocker {
    /// A session with an open transaction.
    Session(Session),
    /// A transaction that `PREPARE TRANSACTION` has left to a later decision.
    Prepared(Prepared),
}

/// A session that holds what we wait for, as far as our role may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
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

/// A prepared transaction. It keeps its locks, over restarts of the server too, until somebody ends it by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The name that it was prepared with.
    pub gid: String,
    /// Who prepared it.
    pub owner: String,
    /// The database in which alone it can be ended.
    pub database: String,
    /// When it was prepared.
    pub since: OffsetDateTime,
}

impl Blocker {
    /// What tells it from all others: `session 4711`, `prepared transaction 'p1'`.
    pub fn name(&self) -> String {
        match self {
            Blocker::Session(session) => format!("session {}", session.pid),
            Blocker::Prepared(prepared) => format!("prepared transaction {}", prepared.quoted()),
        }
    }

    /// The same with whose it is, and what is to be done.
    pub fn with_remedy(&self) -> String {
        let name = self.name();
        match self {
            Blocker::Session(session) => {
                let user = session.user.as_deref().unwrap_or("unknown");
                format!("{name} (user {user}): end that transaction")
            }
            Blocker::Prepared(prepared) => {
                let since = prepared.since.truncate_to_second().format(&Rfc3339);
                let (since, end) = (since.unwrap_or_default(), prepared.end());
                format!("{name} (prepared since {since}): end it, {end}")
            }
        }
    }

    /// The process of a session.
    pub fn pid(&self) -> Option<i32> {
        match self {
            Blocker::Session(session) => Some(session.pid),
            Blocker::Prepared(_) => None,
        }
    }

    /// When its transaction began, or was prepared.
    pub fn since(&self) -> Option<OffsetDateTime> {
        match self {
            Blocker::Session(session) => session.since,
            Blocker::Prepared(prepared) => Some(prepared.since),
        }
    }
}

impl Prepared {
    /// What ends it, where and as whom.
    pub fn end(&self) -> String {
        let Prepared {
            owner, database, ..
        } = self;
        let gid = self.quoted();
        format!(
            "in the database {database}, as {owner} or a superuser: rollback prepared {gid}; or commit prepared {gid};"
        )
    }

    /// The name as SQL has it.
    fn quoted(&self) -> String {
        format!("'{}'", self.gid.replace('\'', "''"))
    }
}

/// Who has a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Somebody else.
    Other(Blocker),
    /// A statement of a daemon's, which ends by itself: a trigger may make it slow.
    Ours,
}

impl Holder {
    /// Somebody else, who has to be told of.
    pub fn other(self) -> Option<Blocker> {
        match self {
            Holder::Other(blocker) => Some(blocker),
            Holder::Ours => None,
        }
    }
}

/// Sees who has these transactions, each by the name that `pg_locks` shows for it in every lock of it
/// (`virtualtransaction`). Those that have ended are left out, and so is our own.
pub(super) async fn holders<'e>(
    executor: impl sqlx::Executor<'e, Database = sqlx::Postgres>,
    transactions: &[String],
) -> Result<BTreeMap<String, Holder>, DbError> {
    if transactions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = sqlx::query!(
        // A daemon's transaction that is older than any statement of its may be is one that was left open. A prepared
        // transaction has no process, and is known by its number, which it has locked.
        r#"with locks as materialized (
             select l.virtualtransaction, l.pid, l.transactionid from pg_catalog.pg_locks l
              where l.virtualtransaction = any ($1) and l.pid is distinct from pg_backend_pid())
           select t.virtualtransaction as "transaction!",
                  coalesce(s.application_name = $2 and s.xact_start > now() - interval '40 s', false) as "is_ours!",
                  t.pid, s.usename::text as "user?", s.application_name as "application?", s.xact_start as "since?",
                  s.state as "state?", left(s.query, 200) as "query?",
                  p.gid as "gid?", p.owner::text as "owner?", p.database::text as "database?", p.prepared as "prepared?"
             from (select distinct virtualtransaction, pid from locks) t
             left join pg_catalog.pg_stat_activity s on s.pid = t.pid
             left join (select l.virtualtransaction, x.* from locks l
                          join pg_catalog.pg_prepared_xacts x on x.transaction = l.transactionid
                         where l.pid is null) p
               on t.pid is null and p.virtualtransaction = t.virtualtransaction"#,
        transactions,
        APPLICATION,
    )
    .fetch_all(executor)
    .await
    .task("see who has a transaction")?;
    let holders = rows.into_iter().filter_map(|row| {
        let holder = match (row.pid, row.gid, row.prepared) {
            _ if row.is_ours => Holder::Ours,
            (Some(pid), _, _) => Holder::Other(Blocker::Session(Session {
                pid,
                user: row.user,
                application: row.application,
                since: row.since,
                state: row.state,
                statement: row.query.as_deref().and_then(first_words),
            })),
            (None, Some(gid), Some(since)) => Holder::Other(Blocker::Prepared(Prepared {
                gid,
                owner: row.owner.unwrap_or_default(),
                database: row.database.unwrap_or_default(),
                since,
            })),
            (None, _, _) => return None,
        };
        Some((row.transaction, holder))
    });
    Ok(holders.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_prepared_transaction_is_quoted_as_sql_has_it() {
        let prepared = Prepared {
            gid: "it's".into(),
            owner: "aida".into(),
            database: "shop".into(),
            since: OffsetDateTime::UNIX_EPOCH,
        };
        assert_eq!(
            prepared.end(),
            "in the database shop, as aida or a superuser: rollback prepared 'it''s'; or commit prepared 'it''s';"
        );
        assert_eq!(
            Blocker::Prepared(prepared).name(),
            "prepared transaction 'it''s'"
        );
    }
}
