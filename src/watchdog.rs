//! Tells systemd that the daemon is alive, from a thread of its own: no gateway, database or receiver of
//! alerts that keeps the daemon waiting keeps the sign of life from leaving.
//!
//! It stays away only when the daemon itself is stuck, be it one loop or all that the runtime has to do.
//! systemd then ends the process (`WatchdogSec`) and starts it again.

use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use tracing::{error, info};

use crate::heart::Heart;
use crate::service::Service;

/// How often it looks, and tells. The unit lets thirty times as long pass.
const EVERY: Duration = Duration::from_secs(1);

/// The thread's view of the daemon. The thread ends when this is dropped.
pub struct Watchdog {
    watched: Arc<Watched>,
}

struct Watched {
    hearts: Mutex<Vec<Arc<Heart>>>,
    limit: Duration,
}

impl Watchdog {
    /// Starts the thread, inside of a runtime, which is watched at once. A heart that is silent for longer than
    /// `limit` is stuck.
    pub fn start(service: Arc<Service>, limit: Duration) -> io::Result<Watchdog> {
        let runtime = Heart::new("runtime");
        let watched = Arc::new(Watched {
            hearts: Mutex::new(vec![runtime.clone()]),
            limit,
        });
        let (for_runtime, for_thread) = (Arc::downgrade(&watched), Arc::downgrade(&watched));
        tokio::spawn(async move {
            while for_runtime.strong_count() > 0 {
                runtime.beat();
                tokio::time::sleep(EVERY).await;
            }
        });
        thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || watch(&for_thread, &service))?;
        Ok(Watchdog { watched })
    }

    /// Watches these as well.
    pub fn watch(&self, hearts: impl IntoIterator<Item = Arc<Heart>>) {
        self.watched.hearts().extend(hearts);
    }
}

impl Watched {
    fn hearts(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Heart>>> {
        self.hearts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop that is stuck, if one is, and for how long it has given no sign of life.
    fn stuck(&self) -> Option<(&'static str, Duration)> {
        let hearts = self.hearts();
        let mut silent = hearts
            .iter()
            .map(|heart| (heart.name(), heart.silent_for()));
        silent.find(|(_, silent_for)| *silent_for > self.limit)
    }
}

fn watch(watched: &Weak<Watched>, service: &Service) {
    let mut was_stuck = false;
    while let Some(watched) = watched.upgrade() {
        match watched.stuck() {
            Some((task, silent_for)) => {
                if !was_stuck {
                    let silent_s = silent_for.as_secs();
                    error!(
                        task,
                        silent_s,
                        "a part of apipayd is stuck; unless it moves again, systemd starts the daemon again"
                    );
                }
                was_stuck = true;
            }
            None => {
                if was_stuck {
                    info!("what was stuck moves again");
                }
                was_stuck = false;
                service.alive();
            }
        }
        drop(watched);
        thread::sleep(EVERY);
    }
}
