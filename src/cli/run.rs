//! `apipayd run`

use std::sync::Arc;

use super::advice;
use super::failure::Failure;
use super::session;
use crate::app::{self, RunError};
use crate::config::{Settings, Sources};
use crate::telemetry::{self, Chain, TelemetryError};

/// Runs the daemon until it is told to stop.
pub(super) async fn run(sources: &Sources) -> Result<(), Failure> {
    #[cfg(feature = "crash-points")]
    if let Some(point) = sources.environment.get(crate::crash::VARIABLE) {
        crate::crash::arm(point).map_err(Failure::of_configuration)?;
    }
    let read = |sources: &Sources| Settings::read(sources)?.load_keys(&sources.environment);
    let sources_again = sources.clone();
    let again = Arc::new(move || read(&sources_again));
    let first = again.clone();
    let settings = session::patiently(move || first()).await??;
    let variable = |name| sources.environment.get(name);
    let rest_of_log = telemetry::init(
        &settings.log,
        variable("RUST_LOG"),
        variable("JOURNAL_STREAM"),
    )
    .map_err(|error| match error {
        TelemetryError::Thread(_) => Failure::of(&error),
        TelemetryError::Filter(_) | TelemetryError::Journal(_) => {
            Failure::of_configuration(Chain(&error))
        }
    })?;
    let ended = app::run(settings, again).await;
    // Before the words of a failure.
    drop(rest_of_log);
    ended.map_err(|error| match error {
        RunError::Schema(version) => Failure::of_configuration(
            advice::schema(version, sources.file.as_deref()).unwrap_or_default(),
        ),
        RunError::Pooler | RunError::TriggersOff => Failure::of_configuration(error),
        error => Failure::of(&error),
    })
}
