//! How a loop runs: step by step until the stop, with a sign of life for each, and patiently when the database fails it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::crash;
use crate::db::DbError;
use crate::heart::Heart;
use crate::telemetry::Chain;
use crate::worker::clock::Moment;
use crate::worker::context::Context;
use crate::worker::jitter::jitter;
use crate::worker::patience::wait_for_database;

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Something; there may be more.
    Worked,
    /// There was nothing to do.
    Idle,
    /// The database was asked for nothing, because something else has to come first or is not needed any more: whether it
    /// would do it is not known.
    Skipped,
}

/// What a loop shows of itself to the others.
pub struct Pulse {
    /// The loop.
    pub name: &'static str,
    /// Its signs of life, for the watchdog.
    pub heart: Arc<Heart>,
    /// What the database refuses to do for it, and since when.
    trouble: Mutex<Option<(Moment, String)>>,
}

impl Pulse {
    /// Of a loop that has not begun.
    pub(super) fn new(name: &'static str) -> Pulse {
        Pulse {
            name,
            heart: Heart::new(name),
            trouble: Mutex::default(),
        }
    }

    fn end(&self, result: &Result<Step, DbError>) {
        self.heart.rest();
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        *trouble = result.as_ref().err().map(|error| {
            let since = trouble.take().map_or_else(Moment::now, |(since, _)| since);
            (since, Chain(error).to_string())
        });
    }

    /// Why the last step failed, if it did.
    pub fn trouble(&self) -> Option<String> {
        self.failing().map(|(_, cause)| cause)
    }

    /// Since when each step has failed, and why the last did.
    pub fn failing(&self) -> Option<(Moment, String)> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.clone()
    }
}

/// Runs a step whenever it is woken or the interval is over, until the stop.
///
/// A failure is logged here, once for each spell of failures; so is its end, once the database has done again what it is
/// asked for.
pub async fn run_loop<F>(
    ctx: Arc<Context>,
    pulse: Arc<Pulse>,
    interval: Duration,
    wake: impl Fn(&Context) -> Option<&Notify>,
    stop: CancellationToken,
    mut step: F,
) where
    F: AsyncFnMut(&Arc<Context>) -> Result<Step, DbError>,
{
    let mut failures = 0;
    while !stop.is_cancelled() {
        pulse.heart.beat();
        let work = async {
            crash::wedge(pulse.name).await;
            step(&ctx).await
        };
        let result = pulse.heart.clone().carry(work).await;
        pulse.end(&result);
        match result {
            Ok(done) => {
                if failures > 0 && done != Step::Skipped {
                    info!(task = pulse.name, failures, "it fails no more");
                    failures = 0;
                }
                if done == Step::Worked {
                    continue;
                }
                let signal = async {
                    match wake(&ctx) {
                        Some(notify) => notify.notified().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = signal => {}
                    () = tokio::time::sleep(interval) => {}
                }
            }
            Err(error) => {
                failures += 1;
                if failures == 1 {
                    warn!(task = pulse.name, error = %Chain(&error), "the database failed; trying again");
                }
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = wait_for_database(failures, jitter()) => {}
                }
            }
        }
    }
}
