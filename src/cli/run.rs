//! `apipayd run`

use super::{Failure, schema_advice};
use crate::app::{self, RunError};
use crate::config::{Settings, Sources};
use crate::telemetry::{self, Chain};

/// Runs the daemon until it is told to stop.
pub(super) async fn run(sources: &Sources) -> Result<(), Failure> {
    #[cfg(feature = "crash-points")]
    if let Some(point) = sources.environment.get(crate::crash::VARIABLE) {
        crate::crash::arm(point).map_err(Failure::of_configuration)?;
    }
    let settings = Settings::read(sources)?.load_keys(&sources.environment)?;
    telemetry::init(&settings.log, &sources.environment)
        .map_err(|error| Failure::of_configuration(Chain(&error)))?;
    app::run(settings).await.map_err(|error| match error {
        RunError::Schema(version) => Failure::of_configuration(
            schema_advice(version, sources.file.as_deref()).unwrap_or_default(),
        ),
        RunError::Pooler | RunError::TriggersOff => Failure::of_configuration(error),
        error => Failure::of(&error),
    })
}
