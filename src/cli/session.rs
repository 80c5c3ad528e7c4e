//! What a command begins with: its settings, and a database that answers.

use std::time::Duration;

use super::failure::Failure;
use crate::beside::Threads;
use crate::config::{ConfigError, KeyFile, Reading, Settings, Sources};
use crate::db::{Connect, DbError, Pool, health};
use crate::telemetry;

/// The settings of a command, none of whose API keys is read yet, and the way to their database.
pub(super) struct Session {
    /// The settings.
    pub(super) settings: Settings<KeyFile>,
}

impl Session {
    /// Reads and checks the settings.
    pub(super) async fn open(sources: &Sources) -> Result<Result<Session, ConfigError>, Failure> {
        let sources = sources.clone();
        let read = patiently(move || Settings::read(&sources)).await?;
        Ok(read.map(|settings| Session { settings }))
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

/// How long a reading lasts before it is said, and said again, which file it waits for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads settings or keys. A file that does not answer is waited for, and named on stderr.
pub(super) async fn patiently<T: Send + 'static>(
    read: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let reading = Reading::default();
    let carried = reading.clone();
    let begun = Threads::new("read", 1).begin(move || carried.carry(read));
    let mut begun = begun.map_err(|error| Failure::of(&error))?;
    loop {
        match begun.within(PATIENCE).await {
            Some(done) => return done.map_err(|error| Failure::of(&error)),
            None => {
                let file = reading.file().unwrap_or_default();
                let file = file.display();
                telemetry::say(&format!(
                    "apipayd: waiting for {file}, which does not answer"
                ));
            }
        }
    }
}
