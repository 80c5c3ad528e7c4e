//! The one writer of outcomes: whatever gathered while the last statement ran goes into the next.
//!
//! An outcome is kept until the database has it. While the database is away nothing new can be claimed, so
//! what waits here is bounded by what was in flight. What only some rows are to blame for stops nobody else:
//! [`settle`] divides a batch until they stand alone,
//! [`aside`](crate::worker::aside) holds them and tries them again, and what concerns an account
//! ([`signals`]) waits for that account's row by itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use time::OffsetDateTime;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info, warn};

use crate::db::DbError;
use crate::db::entry::Entry;
use crate::db::fate::{Forgotten, Recorded};
use crate::db::fault::Fault;
use crate::domain::account::AccountName;
use crate::heart::{self, Heart};
use crate::policy::hints::Remaining;
use crate::policy::outage::Sign;
use crate::policy::verdict::AccountSignal;
use crate::telemetry::Chain;
use crate::worker::alerting::Alert;
use crate::worker::aside::{Aside, Place, SetAside, Shelf};
use crate::worker::context::Context;
use crate::worker::failing::{self, Signed};
use crate::worker::pulse::wait_for_database;
use crate::worker::settle::{self, Refused};
use crate::worker::signals;

/// A decision and everything that has to become true with it.
#[derive(Debug)]
pub struct Outcome {
    /// The account it concerns.
    pub account: AccountName,
    /// The rows.
    pub entry: Entry,
    /// What it means for the account.
    pub signal: Option<AccountSignal>,
    /// An alert that belongs to it.
    pub alert: Option<Alert>,
    /// When the gateway accepted what Kaspi has delivered now, if that may show that its account is well again.
    pub delivered: Option<OffsetDateTime>,
    /// What the end of its request says of the gateway.
    pub signed: Option<Signed>,
    /// What the answer said remains of the quota.
    pub remaining: Option<Remaining>,
}

impl Outcome {
    /// A decision that concerns nothing but its rows.
    pub fn plain(account: &AccountName, entry: Entry) -> Outcome {
        Outcome {
            account: account.clone(),
            entry,
            signal: None,
            alert: None,
            delivered: None,
            signed: None,
            remaining: None,
        }
    }

    /// Whether its account is to be told of something before the rows are recorded.
    fn is_about_account(&self, ctx: &Context) -> bool {
        let account = ctx.accounts.get(&self.account);
        let account = account.as_ref();
        let is_news = |signed| account.is_some_and(|account| failing::is_news(account, signed));
        let ends_doubt = account.is_some_and(|account| account.is_doubted()) && self.got_through();
        self.signal.is_some()
            || self.alert.is_some()
            || self.delivered.is_some()
            || self.signed.as_ref().is_some_and(is_news)
            || ends_doubt
    }

    /// Whether something was sent with success, as far as it says anything of the account.
    pub fn got_through(&self) -> bool {
        let is_clear =
            |signed: &Signed| signed.errand.kind().is_none() && signed.sign == Sign::Clear;
        self.signal.is_none() && self.signed.as_ref().is_some_and(is_clear)
    }
}

/// An outcome on its way, with who waits to hear of it.
#[derive(Debug)]
pub struct Message {
    /// The outcome.
    pub outcome: Outcome,
    /// Rises with each outcome: of two sights of a job the later one counts.
    pub number: u64,
    reply: Option<oneshot::Sender<Recorded>>,
    /// Its part of the backlog, until it is recorded, or set aside.
    kept: Option<Kept>,
    /// Has its job left alone until then, if the outcome waits for its account.
    place: Option<Place>,
}

impl Message {
    /// An outcome with its number, and who waits to hear of it.
    pub fn new(outcome: Outcome, number: u64, reply: Option<oneshot::Sender<Recorded>>) -> Message {
        Message {
            outcome,
            number,
            reply,
            kept: None,
            place: None,
        }
    }

    /// It is part of the backlog no more: what has its job left alone is its place on the shelf.
    pub(super) fn leave_backlog(&mut self) {
        self.kept = None;
    }

    /// Tells whoever waits what became of it; only the first word counts.
    pub fn tell(&mut self, recorded: Recorded) {
        let told = self.reply.take().map(|reply| reply.send(recorded));
        if told.is_some_and(|told| told.is_err()) {
            debug!("whoever waited for a record is gone");
        }
    }
}

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
    pub(super) errands: TaskTracker,
}

/// The outcomes in memory that are to be recorded.
#[derive(Debug, Default)]
struct Backlog {
    outcomes: usize,
    /// Whether the database was away while there were some: until all of them are recorded.
    is_behind: bool,
}

/// One outcome of the backlog.
#[derive(Debug)]
struct Kept(Arc<Mutex<Backlog>>);

impl Kept {
    fn new(backlog: &Arc<Mutex<Backlog>>) -> Kept {
        lock(backlog).outcomes += 1;
        Kept(backlog.clone())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut backlog = lock(&self.0);
        backlog.outcomes -= 1;
        if backlog.outcomes == 0 {
            backlog.is_behind = false;
        }
    }
}

fn lock(backlog: &Mutex<Backlog>) -> std::sync::MutexGuard<'_, Backlog> {
    backlog.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A statement that waits for the database.
struct WaitingStatement<'a>(&'a AtomicUsize);

impl Drop for WaitingStatement<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The writer's end.
pub struct Inbox {
    receiver: mpsc::Receiver<Message>,
    closed: CancellationToken,
}

/// Outcomes that may wait before those who bring more have to.
const QUEUE: usize = 1024;

/// Statements under way at once.
const AT_ONCE: usize = 2;

/// Outcomes of one statement.
const BATCH: usize = 512;

impl Recorder {
    /// A recorder and the end that [`write()`] reads.
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

    fn note_refusal(&self, error: &DbError) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Chain(error).to_string();
    }

    /// Outcomes wait until the answer is dropped. Batches do so each by itself: one that gets through
    /// does not speak for the other.
    fn wait(&self) -> WaitingStatement<'_> {
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
    pub(super) fn forget(&self, forgotten: Forgotten) {
        error!(
            job.id = forgotten.job, job.epoch = forgotten.epoch, account = %forgotten.account, found = ?forgotten.lost,
            "the database has forgotten a claim that it had committed: nothing is sent until apipayd is started again"
        );
        // The first one is told of.
        let _ = self.forgotten.set(forgotten);
    }

    /// The turn of an account: statements about its row go one after the other, and keep no other
    /// account's waiting.
    pub(super) fn turn(&self, account: &AccountName) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.entry(account.clone()).or_default().clone()
    }

    /// Nothing more comes: the writer ends once everything is written.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// Hands an outcome over; it will be recorded.
    pub async fn record(&self, outcome: Outcome) {
        self.hand_over(outcome, None).await;
    }

    /// Hands an outcome over and waits until it is recorded, or set aside.
    pub async fn record_now(&self, outcome: Outcome) -> Recorded {
        let (reply, answer) = oneshot::channel();
        self.hand_over(outcome, Some(reply)).await;
        // The writer answers every message, unless the process ends: then nobody reads this.
        heart::beat_until(answer).await.unwrap_or(Recorded::Stale)
    }

    async fn hand_over(&self, outcome: Outcome, reply: Option<oneshot::Sender<Recorded>>) {
        let number = self.outcomes.fetch_add(1, Ordering::Relaxed);
        let message = Message {
            kept: Some(Kept::new(&self.backlog)),
            ..Message::new(outcome, number, reply)
        };
        let handed_over = heart::beat_until(self.sender.send(message)).await;
        if let Err(mpsc::error::SendError(message)) = handed_over {
            // The writer ends only after everything that could record has ended.
            error!(account = %message.outcome.account, "the writer of outcomes is gone; the job will be looked up");
        }
    }
}

/// Writes until the recorder is closed and everything is written.
///
/// Two batches may be under way, if the second is worth a statement of its own: while the database
/// makes one durable, it works on the next. Their order does not matter, for whatever depends on a
/// record reads it from the database first.
pub async fn write(ctx: Arc<Context>, inbox: Inbox, heart: Arc<Heart>) {
    let errands = ctx.recorder.errands.clone();
    Writer::new(ctx, inbox, heart).run().await;
    errands.close();
    errands.wait().await;
}

struct Writer {
    ctx: Arc<Context>,
    inbox: Inbox,
    heart: Arc<Heart>,
    is_open: bool,
    /// What is to be recorded next.
    ready: Vec<Message>,
    batches: JoinSet<Result<(), Refused>>,
    /// Outcomes whose account is told of something first.
    signalling: JoinSet<Vec<Message>>,
    /// Batches that are divided, and whose turn it is: they leave connections to everybody else.
    dividing: JoinSet<Vec<SetAside>>,
    divisions: Arc<Semaphore>,
    aside: Aside,
}

impl Writer {
    fn new(ctx: Arc<Context>, inbox: Inbox, heart: Arc<Heart>) -> Writer {
        Writer {
            ctx,
            inbox,
            heart,
            is_open: true,
            ready: Vec::with_capacity(BATCH),
            batches: JoinSet::new(),
            signalling: JoinSet::new(),
            dividing: JoinSet::new(),
            divisions: Arc::new(Semaphore::new(AT_ONCE)),
            aside: Aside::default(),
        }
    }

    async fn run(&mut self) {
        let mut fresh = Vec::with_capacity(BATCH);
        while self.is_open || !self.is_done() {
            if self.is_writing() {
                self.heart.beat();
            } else {
                self.heart.rest();
            }
            let room = BATCH.saturating_sub(self.ready.len());
            tokio::select! {
                biased;
                Some(done) = self.batches.join_next() => self.written(done),
                Some(done) = self.signalling.join_next() => self.ready.extend(finished(done).unwrap_or_default()),
                Some(done) = self.dividing.join_next() => self.aside.put(&self.ctx, finished(done).unwrap_or_default()),
                count = self.inbox.receiver.recv_many(&mut fresh, room), if self.is_open && room > 0 => {
                    self.is_open = count > 0;
                    self.take(&mut fresh);
                }
                () = self.inbox.closed.cancelled(), if !self.inbox.receiver.is_closed() => {
                    self.inbox.receiver.close();
                    self.aside.hurry();
                }
                () = self.aside.progress(&self.ctx) => {}
            }
            self.start();
        }
    }

    fn is_done(&self) -> bool {
        self.ready.is_empty() && !self.is_writing() && self.aside.is_empty()
    }

    /// Whether the database is asked something, in a task that gives the signs of life.
    fn is_writing(&self) -> bool {
        !(self.batches.is_empty() && self.signalling.is_empty() && self.dividing.is_empty())
    }

    /// What means something for its account waits until the account is told.
    fn take(&mut self, fresh: &mut Vec<Message>) {
        let mut signalling: BTreeMap<AccountName, Vec<Message>> = BTreeMap::new();
        for message in fresh.drain(..) {
            if message.outcome.got_through()
                && let Some(account) = self.ctx.accounts.get(&message.outcome.account)
            {
                account.note_success();
            }
            if message.outcome.is_about_account(&self.ctx) {
                let account = message.outcome.account.clone();
                signalling.entry(account).or_default().push(message);
            } else {
                self.ready.push(message);
            }
        }
        for (account, mut messages) in signalling {
            let ctx = self.ctx.clone();
            for message in &mut messages {
                let transition = message.outcome.entry.transition.as_ref();
                message.place = transition.map(|t| ctx.recorder.shelf().protect(t.key()));
                message.leave_backlog();
            }
            let work = async move { signals::tell(&ctx, &account, messages).await };
            self.signalling.spawn(self.heart.clone().carry(work));
        }
    }

    fn start(&mut self) {
        let is_worth_it = |batches: usize, ready: usize| {
            ready > 0 && (batches == 0 || (batches < AT_ONCE && ready >= BATCH / 2))
        };
        while is_worth_it(self.batches.len(), self.ready.len()) {
            let rest = self.ready.split_off(self.ready.len().min(BATCH));
            let batch = std::mem::replace(&mut self.ready, rest);
            let ctx = self.ctx.clone();
            let work = async move { settle::batch(&ctx, batch).await };
            self.batches.spawn(self.heart.clone().carry(work));
        }
    }

    fn written(&mut self, done: Result<Result<(), Refused>, JoinError>) {
        if let Some(Err(refused)) = finished(done) {
            let (ctx, divisions) = (self.ctx.clone(), self.divisions.clone());
            self.dividing.spawn(self.heart.clone().carry(async move {
                // The semaphore is never closed.
                let _turn = divisions.acquire().await;
                settle::divide(&ctx, refused, None).await
            }));
        }
    }
}

/// What a task brought, unless it panicked.
pub(super) fn finished<T>(done: Result<T, JoinError>) -> Option<T> {
    done.inspect_err(|panic| {
        error!(error = %Chain(panic), "writing outcomes panicked; their jobs will be looked up");
    })
    .ok()
}

/// Repeats a statement while the database fails it, or lost it against another one. An error is the
/// rows' own.
pub(super) async fn insist<T, F>(
    ctx: &Context,
    task: &'static str,
    run: impl Fn() -> F,
) -> Result<T, DbError>
where
    F: Future<Output = Result<T, DbError>>,
{
    let mut patient = Patient::new(ctx, task);
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
pub(super) struct Patient<'a> {
    ctx: &'a Context,
    task: &'static str,
    failures: u32,
    waiting: Option<WaitingStatement<'a>>,
}

/// Conflicts in a row after which a statement is no longer taken to be unlucky.
const CONFLICTS: u32 = 10;

impl<'a> Patient<'a> {
    pub(super) fn new(ctx: &'a Context, task: &'static str) -> Patient<'a> {
        Patient {
            ctx,
            task,
            failures: 0,
            waiting: None,
        }
    }

    /// Whether waiting helps.
    fn bears(&self, error: &DbError) -> bool {
        match error.fault() {
            Fault::Database => true,
            Fault::Conflict => self.failures < CONFLICTS,
            Fault::Rows | Fault::Words | Fault::Lock => false,
        }
    }

    /// A failure that is everybody's.
    pub(super) async fn wait(&mut self, error: &DbError) {
        self.failures += 1;
        if error.fault() != Fault::Conflict {
            let ctx = self.ctx;
            ctx.recorder.note_refusal(error);
            self.waiting.get_or_insert_with(|| ctx.recorder.wait());
        }
        if self.failures == 1 {
            warn!(task = self.task, error = %Chain(error), "the database failed; the outcome waits in memory");
        }
        wait_for_database(self.failures, self.ctx.jitter()).await;
    }

    fn done(&self) {
        if self.failures > 0 {
            let (task, failures) = (self.task, self.failures);
            info!(task, failures, "the database answers again");
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
