//! What is wrong with the settings.

use std::fmt;

/// What is wrong with the settings: the place, the key, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    /// The place of what nobody wrote.
    pub(super) const ANYWHERE: &str = "configuration";

    pub(super) fn at(origin: &str, sentence: impl fmt::Display) -> ConfigError {
        ConfigError(format!("{origin}: {sentence}"))
    }

    /// About a name of the contract whose feature is still to come: never silently ignored.
    pub(super) fn unsupported(origin: &str, what: impl fmt::Display) -> ConfigError {
        ConfigError::at(
            origin,
            format_args!("not supported by this version: {what}; remove it"),
        )
    }
}
