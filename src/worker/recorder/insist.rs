//! Statements that must be made: repeated for as long as it is the database that fails them.

use tokio::task::JoinError;
use tracing::{error, info, warn};

use super::{Recorder, WaitingStatement};
use crate::db::DbError;
use crate::db::fault::AtFault;
use crate::telemetry::Chain;
use crate::worker::jitter::jitter;
use crate::worker::patience::wait_for_database;

/// Repeats a statement while the database fails it, or lost it against another one. An error is the
/// rows' own.
pub(in crate::worker) async fn insist<T, F>(
    recorder: &Recorder,
    task: &'static str,
    run: impl Fn() -> F,
) -> Result<T, DbError>
where
    F: Future<Output = Result<T, DbError>>,
{
    let mut patient = Patient::new(recorder, task);
    loop {
        match run().await {
            Err(error) if patient.bears(&error) => patient.wait(&error).await,
            done => {
                patient.done();
                return done;
            }
        }
    }
}

/// Waits for the database, and says so once.
pub(in crate::worker) struct Patient<'a> {
    recorder: &'a Recorder,
    task: &'static str,
    failures: u32,
    waiting: Option<WaitingStatement<'a>>,
}

/// Conflicts in a row after which a statement is no longer taken to be unlucky.
const CONFLICTS: u32 = 10;

impl<'a> Patient<'a> {
    pub(in crate::worker) fn new(recorder: &'a Recorder, task: &'static str) -> Patient<'a> {
        Patient {
            recorder,
            task,
            failures: 0,
            waiting: None,
        }
    }

    /// Whether waiting helps.
    fn bears(&self, error: &DbError) -> bool {
        match error.fault() {
            AtFault::Database => true,
            AtFault::Conflict => self.failures < CONFLICTS,
            AtFault::Rows | AtFault::Words | AtFault::Lock => false,
        }
    }

    /// A failure that is everybody's.
    pub(in crate::worker) async fn wait(&mut self, error: &DbError) {
        self.failures += 1;
        if error.fault() != AtFault::Conflict {
            self.recorder.note_refusal(error);
            self.waiting.get_or_insert_with(|| self.recorder.wait());
        }
        if self.failures == 1 {
            warn!(task = self.task, error = %Chain(error), "the database failed; the outcome waits in memory");
        }
        wait_for_database(self.failures, jitter()).await;
    }

    fn done(&self) {
        if self.failures > 0 {
            let (task, failures) = (self.task, self.failures);
            info!(task, failures, "the database answers again");
        }
    }
}

/// What a task brought, unless it panicked.
pub(in crate::worker) fn finished<T>(done: Result<T, JoinError>) -> Option<T> {
    done.inspect_err(|panic| {
        error!(error = %Chain(panic), "writing outcomes panicked; what became of their jobs is asked about again");
    })
    .ok()
}
