//! What systemd is told: READY, RELOADING, STATUS, WATCHDOG, STOPPING. Without systemd, nothing.
//!
//! Nobody waits for systemd. What its socket has no room for is kept, of each kind the newest, and sent with what comes
//! next: at the latest with the sign of life, a second later.
//! Protocol: sd_notify(3).

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tracing::debug;

/// The service manager, if there is one.
pub struct Service {
    /// Where it listens.
    socket: Option<PathBuf>,
    words: Mutex<Words>,
}

#[derive(Default)]
struct Words {
    last_status: String,
    /// Oldest first.
    unsent: Vec<Assignment>,
}

/// The name of a variable and its value.
type Assignment = (&'static str, String);

impl Service {
    /// The manager named by `NOTIFY_SOCKET`.
    pub fn from_environment() -> Service {
        Service {
            socket: std::env::var_os("NOTIFY_SOCKET").map(PathBuf::from),
            words: Mutex::default(),
        }
    }

    /// The service is up.
    pub fn ready(&self, status: &str) {
        self.tell("READY", "1");
        self.status(status);
    }

    /// The configuration is being read again.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        // It is never negative.
        let since = Duration::try_from(now).unwrap_or_default().as_micros();
        self.tell("RELOADING", &format!("1\nMONOTONIC_USEC={since}"));
    }

    /// The configuration was read, and is in force or refused.
    pub fn reloaded(&self) {
        self.tell("READY", "1");
    }

    /// One line for a human. The same line is not told twice.
    pub fn status(&self, status: &str) {
        // A second line would be another message; what a database says may have several.
        let status = status.replace(char::is_control, " ");
        let words = &mut *self.words();
        if words.last_status != status {
            words.last_status.clone_from(&status);
            self.put(&mut words.unsent, "STATUS", status);
        }
    }

    /// The daemon is not stuck.
    pub fn alive(&self) {
        self.tell("WATCHDOG", "1");
    }

    /// The service is going down.
    pub fn stopping(&self, status: &str) {
        self.tell("STOPPING", "1");
        self.status(status);
    }

    fn words(&self) -> std::sync::MutexGuard<'_, Words> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, name: &'static str, value: &str) {
        self.put(&mut self.words().unsent, name, value.to_owned());
    }

    /// Sends what is unsent and this, as far as there is room.
    fn put(&self, unsent: &mut Vec<Assignment>, name: &'static str, value: String) {
        let Some(socket) = &self.socket else { return };
        unsent.retain(|(earlier, _)| *earlier != name);
        unsent.push((name, value));
        while let Some((name, value)) = unsent.first() {
            match send(socket, &format!("{name}={value}\n")) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => debug!(error = %error, "the service manager was not told"),
                Ok(()) => {}
            }
            unsent.remove(0);
        }
    }
}

/// Fails where it would have to wait.
fn send(to: &Path, message: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to(message.as_bytes(), to)?;
    Ok(())
}
