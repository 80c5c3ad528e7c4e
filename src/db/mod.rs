//! The only place with SQL.
//!
//! Each function makes one fact true with one autocommit statement: nothing here holds a
//! transaction, so nothing can be left open by a dropped future, and poolers that switch
//! connections between transactions do no harm. Long statements stand beside their Rust as `.sql`.
//! A plan is kept for long, and one that was made while a table was small must still be right when it
//! is large. So rows to change are named by an array (`id = any (array(…))`), and rows to read stand in
//! a lateral sub-query with `offset 0`, which leave the planner one index and no join to misjudge.
//!
//! `db` decides nothing: it carries out what `policy` decided and reports what it found.

pub mod accounts;
pub mod alerts;
pub mod claim;
pub mod health;
pub mod listen;
pub mod migrate;
pub mod mirrors;
pub mod record;
pub mod recover;

use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

/// A statement that failed, with what it was for.
#[derive(Debug, thiserror::Error)]
#[error("the database did not {task}")]
pub struct DbError {
    task: &'static str,
    #[source]
    source: sqlx::Error,
}

impl DbError {
    /// Whether the rows, not the database, are at fault: no retry will help.
    pub fn is_about_data(&self) -> bool {
        let code = match &self.source {
            sqlx::Error::Database(error) => error.code(),
            sqlx::Error::Encode(_) => return true,
            _ => return false,
        };
        // Classes 22 (data exception) and 23 (integrity constraint violation).
        code.is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
    }

    /// Whether our user lacks a privilege.
    pub fn is_denied(&self) -> bool {
        let error = self.source.as_database_error();
        error.and_then(|error| error.code()).as_deref() == Some("42501")
    }

    /// Whether the statement lost against a concurrent one and may simply be run again.
    pub fn is_conflict(&self) -> bool {
        let sqlx::Error::Database(error) = &self.source else {
            return false;
        };
        // Deadlock, serialization failure, and two claims that met on one_open_refund.
        matches!(error.code().as_deref(), Some("40P01" | "40001" | "23505"))
    }
}

/// Names what a statement was for.
trait Task<T> {
    fn task(self, task: &'static str) -> Result<T, DbError>;
}

impl<T> Task<T> for Result<T, sqlx::Error> {
    fn task(self, task: &'static str) -> Result<T, DbError> {
        self.map_err(|source| DbError { task, source })
    }
}

/// How to reach the database.
#[derive(Clone)]
pub struct Connect {
    /// Through a pooler or direct.
    pub options: PgConnectOptions,
    /// Direct, for LISTEN.
    pub listen_options: PgConnectOptions,
    /// The size of the pool.
    pub max_connections: u32,
}

/// No statement of ours takes this long on a healthy database.
const STATEMENT_TIMEOUT: &str = "30s";

impl Connect {
    /// The same past a pooler, with one connection: migrations hold a lock of their session, which
    /// poolers do not keep.
    pub fn direct(&self) -> Connect {
        Connect {
            options: self.listen_options.clone(),
            max_connections: 1,
            ..self.clone()
        }
    }

    /// Opens the pool without connecting: the database may come up later.
    pub fn pool(&self) -> PgPool {
        let options = self.options.clone().application_name("apipayd").options([
            ("statement_timeout", STATEMENT_TIMEOUT),
            ("lock_timeout", "10s"),
            ("idle_in_transaction_session_timeout", "30s"),
            // Short statements, run often: compiling or planning each anew costs more than running it.
            ("jit", "off"),
            ("plan_cache_mode", "force_generic_plan"),
            // Each touches a handful of rows by their index. A plan that was made while a table was
            // small, and reads all of it, would be kept when it is large.
            ("enable_seqscan", "off"),
            // Every look-up of ours is for another row: a cache of rows costs and never hits.
            ("enable_memoize", "off"),
        ]);
        PgPoolOptions::new()
            .max_connections(self.max_connections)
            .acquire_timeout(Duration::from_secs(10))
            .connect_lazy_with(options)
    }
}
