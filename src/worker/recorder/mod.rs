//! The way to the one writer of outcomes, for everybody who decides something.
//!
//! An outcome is kept until the database has it. While the database is away nothing new can be claimed, so
//! what waits here is bounded by what was in flight. It is written by the [writer](crate::worker::writer), of which
//! nothing here knows.

mod backlog;
pub mod insist;
pub mod message;
pub mod shelf;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

use crate::db::DbError;
use crate::db::fate::{Forgotten, Recorded};
use crate::domain::account::AccountName;
use crate::heart;
use crate::telemetry::Chain;
use backlog::{Backlog, Kept, lock};
use shelf::Shelf;

pub use message::{Message, Outcome, Signed};

/// The way to the writer.
pub struct Recorder {
    sender: mpsc::Sender<Message>,
    closed: CancellationToken,
    /// How many outcomes have come.
    outcomes: AtomicU64,
    /// Statements that wait for the database, with outcomes that it does not have yet.
    waiting: AtomicUsize,
    backlog: Arc<Mutex<Backlog>>,
    /// What the database last said to one of them.
    refusal: Mutex<String>,
    /// Outcomes that the database does not take although it is well.
    shelf: Arc<Shelf>,
    /// The first sign that the database has lost commits.
    forgotten: OnceLock<Forgotten>,
    turns: Mutex<BTreeMap<AccountName, Arc<tokio::sync::Mutex<()>>>>,
    /// What follows a record and nobody waits for.
    pub(in crate::worker) errands: TaskTracker,
}

/// A statement that waits for the database.
pub struct WaitingStatement<'a>(&'a AtomicUsize);

impl Drop for WaitingStatement<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The writer's end.
pub struct Inbox {
    pub(super) receiver: mpsc::Receiver<Message>,
    pub(super) closed: CancellationToken,
}

/// Outcomes that may wait before those who bring more have to.
const QUEUE: usize = 1024;

impl Recorder {
    /// A recorder and the end that the [writer](crate::worker::writer) reads.
    pub fn new() -> (Recorder, Inbox) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let closed = CancellationToken::new();
        (
            Recorder {
                sender,
                closed: closed.clone(),
                outcomes: AtomicU64::new(0),
                waiting: AtomicUsize::new(0),
                backlog: Arc::default(),
                refusal: Mutex::default(),
                shelf: Arc::default(),
                forgotten: OnceLock::new(),
                turns: Mutex::default(),
                errands: TaskTracker::new(),
            },
            Inbox { receiver, closed },
        )
    }

    /// Whether outcomes wait for the database, or have waited and are not recorded yet: then nothing new is claimed, even
    /// if that were possible, and no lease is judged.
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0 || lock(&self.backlog).is_behind
    }

    /// Why outcomes wait for the database, if they do.
    pub fn trouble(&self) -> Option<String> {
        let refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_waiting().then(|| refusal.clone())
    }

    /// Notes what the database said to a statement that waits for it.
    pub(super) fn note_refusal(&self, error: &DbError) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Chain(error).to_string();
    }

    /// Outcomes wait until the answer is dropped. Batches do so each by itself: one that gets through
    /// does not speak for the other.
    pub(super) fn wait(&self) -> WaitingStatement<'_> {
        let mut backlog = lock(&self.backlog);
        backlog.is_behind = backlog.outcomes > 0;
        drop(backlog);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        WaitingStatement(&self.waiting)
    }

    /// The outcomes that the database does not take although it is well.
    pub fn shelf(&self) -> &Arc<Shelf> {
        &self.shelf
    }

    /// What showed that the database has lost commits. From then on this daemon sends nothing: what the
    /// database says of a job may be older than what was sent.
    pub fn forgotten(&self) -> Option<&Forgotten> {
        self.forgotten.get()
    }

    /// Nothing is sent any more.
    pub(in crate::worker) fn forget(&self, forgotten: Forgotten) {
        error!(
            job.id = forgotten.job, job.epoch = forgotten.epoch, account = %forgotten.account, found = ?forgotten.lost,
            "the database has forgotten a claim that it had committed: nothing is sent until apipayd is started again"
        );
        // The first one is told of.
        let _ = self.forgotten.set(forgotten);
    }

    /// The turn of an account: statements about its row go one after the other, and keep no other
    /// account's waiting.
    pub(in crate::worker) fn turn(&self, account: &AccountName) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.entry(account.clone()).or_default().clone()
    }

    /// Nothing more comes: the writer ends once everything is written.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// Hands an outcome over; it will be recorded.
    pub fn record(&self, outcome: Outcome) -> impl Future<Output = ()> {
        self.hand_over(self.message(outcome, None))
    }

    /// Hands an outcome over and waits until it is recorded, or set aside.
    pub fn record_now(&self, outcome: Outcome) -> impl Future<Output = Recorded> {
        let (reply, answer) = oneshot::channel();
        let handed_over = self.hand_over(self.message(outcome, Some(reply)));
        async {
            handed_over.await;
            // The writer answers every message, unless the process ends: then nobody reads this.
            heart::beat_until(answer).await.unwrap_or(Recorded::Stale)
        }
    }

    fn message(&self, outcome: Outcome, reply: Option<oneshot::Sender<Recorded>>) -> Message {
        let number = self.outcomes.fetch_add(1, Ordering::Relaxed);
        let mut message = Message::new(outcome, number, reply);
        message.kept = Some(Kept::new(&self.backlog));
        message
    }

    async fn hand_over(&self, message: Message) {
        let handed_over = heart::beat_until(self.sender.send(message)).await;
        if let Err(mpsc::error::SendError(message)) = handed_over {
            // The writer ends only after everything that could record has ended.
            error!(account = %message.outcome.account, "the writer of outcomes is gone; what became of the job is asked about again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_wait_until_the_last_statement_got_through() {
        let (recorder, _inbox) = Recorder::new();
        assert!(!recorder.is_waiting());
        let (one, other) = (recorder.wait(), recorder.wait());
        drop(one);
        assert!(recorder.is_waiting(), "the other still waits");
        drop(other);
        assert!(!recorder.is_waiting());
    }

    #[test]
    fn what_waited_goes_on_waiting_until_all_of_it_is_recorded() {
        let (recorder, _inbox) = Recorder::new();
        let (one, other) = (Kept::new(&recorder.backlog), Kept::new(&recorder.backlog));
        assert!(!recorder.is_waiting(), "the database is well");
        drop(recorder.wait());
        assert!(recorder.is_waiting(), "neither is recorded");
        drop(one);
        assert!(recorder.is_waiting(), "the other is not");
        drop(other);
        assert!(!recorder.is_waiting());
        let _next = Kept::new(&recorder.backlog);
        assert!(!recorder.is_waiting(), "the database has been well since");
    }
}
