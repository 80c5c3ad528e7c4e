//! The daemon.

use crate::config::Settings;
use crate::db::DbError;
use crate::db::migrate::SchemaVersion;

/// Why the daemon ended otherwise than by a stop.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The schema is not the one this program works with.
    #[error("the schema does not fit")]
    Schema(SchemaVersion),
    /// The database failed.
    #[error("the daemon cannot go on")]
    Database(#[source] DbError),
}

/// Runs until it is told to stop.
pub async fn run(_settings: Settings) -> Result<(), RunError> {
    Ok(())
}
