//! How a command ends badly.
//!
//! Exit codes: 0 fine; 78 the configuration, the command line or the schema must be changed by a
//! human (systemd does not restart then); 1 anything else.

use std::fmt;
use std::process::ExitCode;

use crate::config::ConfigError;
use crate::telemetry::{self, Chain};

/// `EX_CONFIG` of sysexits.h: a restart does not help.
pub(super) const EXIT_CONFIGURATION: u8 = 78;
pub(super) const EXIT_FAILURE: u8 = 1;

/// Why a command ended badly: what the user is told, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    message: String,
    exit: u8,
}

impl Failure {
    /// The configuration, the command line or the schema must be changed.
    pub(super) fn of_configuration(message: impl fmt::Display) -> Failure {
        Failure {
            message: message.to_string(),
            exit: EXIT_CONFIGURATION,
        }
    }

    /// Anything else.
    pub(super) fn of(error: &(dyn std::error::Error + 'static)) -> Failure {
        Failure {
            message: Chain(error).to_string(),
            exit: EXIT_FAILURE,
        }
    }

    /// Tells the user, and gives the exit code.
    pub fn report(&self) -> ExitCode {
        telemetry::say(&format!("apipayd: {}", self.message));
        ExitCode::from(self.exit)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::of_configuration(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::of(&error)
    }
}
