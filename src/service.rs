//! What systemd is told: READY, RELOADING, STATUS, WATCHDOG, STOPPING. Without systemd, nothing.

use std::sync::Mutex;

use sd_notify::NotifyState;
use tracing::debug;

/// The service manager, if there is one.
pub struct Service {
    last_status: Mutex<String>,
}

impl Service {
    /// The manager named by `NOTIFY_SOCKET`.
    pub fn from_environment() -> Service {
        Service {
            last_status: Mutex::default(),
        }
    }

    /// The service is up.
    pub fn ready(&self, status: &str) {
        tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// The configuration is being read anew.
    pub fn reloading(&self) {
        let since = NotifyState::monotonic_usec_now();
        match since {
            Ok(since) => tell(&[NotifyState::Reloading, since]),
            Err(error) => debug!(error = %error, "the service manager was not told of the reload"),
        }
    }

    /// The configuration was read, and is in force or refused.
    pub fn reloaded(&self) {
        tell(&[NotifyState::Ready]);
    }

    /// One line for a human. The same line is not told twice.
    pub fn status(&self, status: &str) {
        // A second line would be another message; what a database says may have several.
        let status = status.replace(char::is_control, " ");
        let mut last = self
            .last_status
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if *last != status {
            tell(&[NotifyState::Status(&status)]);
            *last = status;
        }
    }

    /// The daemon is not stuck.
    pub fn alive(&self) {
        tell(&[NotifyState::Watchdog]);
    }

    /// The service is going down.
    pub fn stopping(&self, status: &str) {
        tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(error = %error, "the service manager was not told");
    }
}
