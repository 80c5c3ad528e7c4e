//! What a command begins with: its settings, and a database that answers.

use crate::config::{ConfigError, KeyFile, Settings, Sources};
use crate::db::{Connect, DbError, Pool, health};

/// The settings of a command, none of whose API keys is read yet, and the way to their database.
pub(super) struct Session {
    /// The settings.
    pub(super) settings: Settings<KeyFile>,
}

impl Session {
    /// Reads and checks the settings.
    pub(super) fn open(sources: &Sources) -> Result<Session, ConfigError> {
        let settings = Settings::read(sources)?;
        Ok(Session { settings })
    }

    /// The database as the daemon reaches it: through the pooler, if there is one.
    pub(super) async fn database(&self) -> Result<Pool, DbError> {
        reach(self.settings.connect()).await
    }

    /// Whether there is a pooler to be passed.
    pub(super) fn has_pooler(&self) -> bool {
        self.settings.connect().past_pooler.is_some()
    }

    /// The database past the pooler, by a single connection.
    pub(super) async fn past_pooler(&self) -> Result<Pool, DbError> {
        reach(self.settings.connect().direct()).await
    }
}

/// A pool alone would try again until its time is over, and tell only that; so one connection is made first, which tells
/// what is wrong as the server says it.
async fn reach(connect: Connect) -> Result<Pool, DbError> {
    health::reach(&connect.session()).await?;
    Ok(connect.pool())
}
