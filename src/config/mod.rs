//! Settings: what is written, where it may be written, and what is refused.
//!
//! `config/default.toml` is compiled in, holds every key with its comment, and is the reference for
//! users. A file and the environment override it. Whatever is unknown, wrong or contradictory
//! becomes one [`ConfigError`] that names its place, and stops the start. No error and no `Debug`
//! here shows a secret.
//!
//! [`Settings::read`] reads and checks everything but the API keys; [`Settings::load_keys`] reads
//! those. So `apipayd migrate` needs no key.

mod credentials;
mod duration;
mod endpoint;
mod environment;
mod error;
mod read;
mod reading;
mod section;
mod settings;
mod source;
#[cfg(test)]
mod tests;

pub use credentials::KeyFile;
pub use environment::Environment;
pub use error::ConfigError;
pub use reading::Reading;
pub use settings::{
    AccountSettings, AlertSettings, DatabaseSettings, Settings, WebhookSettings, WorkerSettings,
};
pub use source::Sources;
