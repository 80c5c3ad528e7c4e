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
pub mod cleared;
pub mod clock;
mod connect;
pub mod entry;
mod error;
pub mod fate;
pub mod fault;
pub mod given_back;
pub mod health;
pub mod held;
mod host;
pub mod listen;
pub mod locks;
pub mod migrate;
pub mod mirrors;
pub mod missing;
pub mod organization;
pub mod originals;
pub mod outage;
pub mod outbox;
mod pool;
pub mod probes;
pub mod progress;
pub mod quota;
pub mod record;
pub mod recover;
pub mod refused;
pub mod revived;
pub mod schema;
mod settings;
pub mod soundness;
pub mod troubled;
pub mod unserved;

use std::time::Duration;

pub use among::Among;
pub use connect::Connect;
pub use error::DbError;
pub use pool::Pool;

use error::Task;

/// What our sessions that run statements call themselves.
const APPLICATION: &str = "apipayd";

/// How long a statement about one account waits for its row, in milliseconds: who keeps it locked stops that
/// account, not a connection that others need.
const ACCOUNT_PATIENCE_MS: &str = "300";

/// Seconds for a column, within what an interval of ours can mean.
pub fn seconds(duration: Duration) -> f64 {
    const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);
    duration.min(YEAR).as_secs_f64()
}
