//! `apipayd run`

use super::advice;
use super::failure::Failure;
use super::session::Session;
use crate::app::{self, RunError};
use crate::config::Sources;
use crate::telemetry::{self, Chain};

/// Runs the daemon until it is told to stop.
pub(super) async fn run(sources: &Sources) -> Result<(), Failure> {
    #[cfg(feature = "crash-points")]
    if let Some(point) = sources.environment.get(crate::crash::VARIABLE) {
        crate::crash::arm(point).map_err(Failure::of_configuration)?;
    }
    let settings = Session::open(sources)?.settings;
    let settings = settings.load_keys(&sources.environment)?;
    let variable = |name| sources.environment.get(name);
    telemetry::init(
        &settings.log,
        variable("RUST_LOG"),
        variable("JOURNAL_STREAM"),
    )
    .map_err(|error| Failure::of_configuration(Chain(&error)))?;
    app::run(settings).await.map_err(|error| match error {
        RunError::Schema(version) => Failure::of_configuration(
            advice::schema(version, sources.file.as_deref()).unwrap_or_default(),
        ),
        RunError::Pooler | RunError::TriggersOff => Failure::of_configuration(error),
        error => Failure::of(&error),
    })
}
