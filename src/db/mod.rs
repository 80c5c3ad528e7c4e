//! The only place with SQL.
//!
//! Each function makes one fact true with one statement that is committed when it returns: no
//! transaction outlives its statement. Long statements stand beside their Rust as `.sql`.
//! A plan is kept for long, and one that was made while a table was small must still be right when it
//! is large. So rows to change are named by an array (`id = any (array(…))`), and rows to read stand in
//! a lateral sub-query or an `exists` with `offset 0`, which leave the planner one index and no join to
//! misjudge.
//!
//! `db` decides nothing: it carries out what `policy` decided and reports what it found.

pub mod accounts;
pub mod alerts;
pub mod among;
pub mod bounds;
mod by_hand;
pub mod claim;
pub mod clock;
pub mod fate;
pub mod fault;
pub mod health;
pub mod listen;
pub mod locks;
pub mod migrate;
pub mod mirrors;
pub mod missing;
pub mod organization;
pub mod outage;
pub mod outbox;
mod pool;
pub mod probes;
pub mod progress;
pub mod record;
pub mod recover;
pub mod refused;
pub mod revived;
pub mod schema;
mod settings;
pub mod soundness;
pub mod troubled;

use crate::heart;
use fault::{Cause, Fault, Said, fault};
use settings::SETTINGS;
use sqlx::postgres::PgConnectOptions;
use std::time::Duration;

pub use among::Among;
pub use pool::Pool;

/// What our sessions that run statements call themselves.
const APPLICATION: &str = "apipayd";

/// How long a statement about one account waits for its row, in milliseconds: who keeps it locked stops that
/// account, not a connection that others need.
const ACCOUNT_PATIENCE_MS: &str = "300";

/// A statement that failed, with what it was for. What it says of the cause has its phones masked (module `fault`).
#[derive(Debug, thiserror::Error)]
#[error("the statement of the database to {task} failed")]
pub struct DbError {
    task: &'static str,
    #[source]
    source: Said,
}

impl DbError {
    /// Whether the server answered, if only to refuse.
    pub fn is_answer(&self) -> bool {
        self.source.0.as_database_error().is_some()
    }

    /// Who is at fault, and so what helps.
    pub fn fault(&self) -> Fault {
        fault(&self.source.0)
    }

    /// What the database said.
    pub fn cause(&self) -> Cause {
        Cause::of(&self.source.0)
    }

    /// Whether single rows may be the reason: then the others may do without them.
    pub fn is_about_rows(&self) -> bool {
        matches!(self.fault(), Fault::Rows | Fault::Words | Fault::Lock)
    }

    /// A statement that succeeded and changed nothing, where these triggers may be why.
    fn swallowed(task: &'static str, triggers: &[&str]) -> DbError {
        let by = match triggers {
            [] => "nothing that is seen".to_owned(),
            triggers => triggers.join(" or "),
        };
        DbError {
            task,
            source: Said(sqlx::Error::AnyDriverError(Box::new(Swallowed { by }))),
        }
    }

    /// Whether the statement took too long, or was cancelled by hand.
    pub fn is_cancelled(&self) -> bool {
        let error = self.source.0.as_database_error();
        error.and_then(|error| error.code()).as_deref() == Some("57014")
    }

    /// Whether our user lacks a privilege.
    pub fn is_denied(&self) -> bool {
        let error = self.source.0.as_database_error();
        error.and_then(|error| error.code()).as_deref() == Some("42501")
    }

    /// Whether it speaks of a pooler: our start-up parameters are refused, or a statement was prepared
    /// with another server connection.
    pub fn is_of_pooler(&self) -> bool {
        self.source.0.as_database_error().is_some_and(|error| {
            error.message().starts_with("unsupported startup parameter")
                || matches!(error.code().as_deref(), Some("42P05" | "26000"))
        })
    }
}

/// One to wait for a lock, and one to see who keeps it.
const LOOKOUT: u32 = 2;

/// A row that a statement should have changed is as it was, although the statement succeeded.
#[derive(Debug, thiserror::Error)]
#[error("the change was swallowed without an error: {by} returns null for this row")]
struct Swallowed {
    by: String,
}

/// Names what a statement was for, and gives a sign of life: the wait for it is over.
trait Task<T> {
    fn task(self, task: &'static str) -> Result<T, DbError>;
}

impl<T> Task<T> for Result<T, sqlx::Error> {
    fn task(self, task: &'static str) -> Result<T, DbError> {
        heart::beat();
        self.map_err(|error| DbError {
            task,
            source: Said(error),
        })
    }
}

/// How to reach the database.
#[derive(Clone)]
pub struct Connect {
    /// Where statements go: through a pooler, when there is a way past it.
    pub options: PgConnectOptions,
    /// Past the pooler: LISTEN and migrations need a session of their own.
    pub past_pooler: Option<PgConnectOptions>,
    /// The size of the pool.
    pub max_connections: u32,
}

impl Connect {
    /// The same past a pooler, with one connection: migrations hold a lock of their session, which
    /// poolers do not keep.
    pub fn direct(&self) -> Connect {
        Connect {
            options: self.past_pooler.as_ref().unwrap_or(&self.options).clone(),
            past_pooler: None,
            max_connections: 1,
        }
    }

    /// How a connection of this pool introduces itself. Poolers know few start-up parameters, refuse
    /// or forget the others, and give a session to the next who comes: they are sent none.
    pub fn session(&self) -> PgConnectOptions {
        let options = self.options.clone().application_name(APPLICATION);
        // The one that sqlx sends by itself is in the list too.
        let options = options.extra_float_digits(None);
        if self.is_pooled() {
            options.statement_cache_capacity(0)
        } else {
            options.options(SETTINGS)
        }
    }

    /// Opens the pool without connecting: the database may come up later.
    pub fn pool(&self) -> Pool {
        Pool::new(self.session(), self.max_connections, self.is_pooled())
    }

    /// A second pool, for what looks at the daemon's work from outside: whatever keeps all connections of the first one
    /// waiting, a locked table for instance, is seen all the same. Where connections are few it keeps none.
    pub fn lookout(&self) -> Pool {
        Pool::fleeting(self.session(), LOOKOUT, self.is_pooled())
    }

    fn is_pooled(&self) -> bool {
        self.past_pooler.is_some()
    }
}

/// Seconds for a column, within what an interval of ours can mean.
pub fn seconds(duration: Duration) -> f64 {
    const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);
    duration.min(YEAR).as_secs_f64()
}
