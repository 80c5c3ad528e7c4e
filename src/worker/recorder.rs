//! The one writer of outcomes: whatever gathered while the last statement ran goes into the next.
//!
//! An outcome is kept until the database has it. While the database is away nothing new can be
//! claimed, so what waits here is bounded by what was in flight.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::crash::{self, Point};
use crate::db::record::{self, Entry, Recorded, Results};
use crate::db::{DbError, accounts, alerts};
use crate::domain::account::AccountName;
use crate::domain::job::{Epoch, JobId};
use crate::policy::breaker::probe_delay;
use crate::policy::hints::Remaining;
use crate::policy::remedy::is_specific;
use crate::policy::verdict::{Reason, Strain};
use crate::telemetry::Chain;
use crate::worker::alarm::{self, Alarm};
use crate::worker::failing::{self, Signed, Signs};
use crate::worker::{Context, wait_for_database};

/// A decision and everything that has to become true with it.
#[derive(Debug)]
pub struct Outcome {
    /// The account it concerns.
    pub account: AccountName,
    /// The rows.
    pub entry: Entry,
    /// What it means for the account.
    pub strain: Option<Strain>,
    /// An alert that belongs to it.
    pub alert: Option<Alarm>,
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
            strain: None,
            alert: None,
            signed: None,
            remaining: None,
        }
    }
}

struct Message {
    outcome: Outcome,
    reply: Option<oneshot::Sender<Recorded>>,
}

/// The way to the writer.
pub struct Recorder {
    sender: mpsc::Sender<Message>,
    closed: CancellationToken,
    /// Statements that wait for the database, with outcomes that it does not have yet.
    waiting: AtomicUsize,
    /// What the database last said to one of them.
    refusal: Mutex<String>,
}

/// A statement that waits for the database.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
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
                waiting: AtomicUsize::new(0),
                refusal: Mutex::default(),
            },
            Inbox { receiver, closed },
        )
    }

    /// Whether outcomes wait for the database: then nothing new is claimed, even if that were possible.
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
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
    fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(&self.waiting)
    }

    /// Nothing more comes: the writer ends once everything is written.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// Hands an outcome over; it will be recorded.
    pub async fn record(&self, outcome: Outcome) {
        self.hand_over(Message {
            outcome,
            reply: None,
        })
        .await;
    }

    /// Hands an outcome over and waits until it is recorded.
    pub async fn record_now(&self, outcome: Outcome) -> Recorded {
        let (reply, answer) = oneshot::channel();
        self.hand_over(Message {
            outcome,
            reply: Some(reply),
        })
        .await;
        // The writer answers every message, unless the process ends: then nobody reads this.
        answer.await.unwrap_or(Recorded::Stale)
    }

    async fn hand_over(&self, message: Message) {
        if let Err(mpsc::error::SendError(message)) = self.sender.send(message).await {
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
pub async fn write(ctx: Arc<Context>, mut inbox: Inbox) {
    let mut batches = JoinSet::new();
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            biased;
            count = inbox.receiver.recv_many(&mut batch, BATCH) => {
                if count == 0 {
                    break;
                }
                while batches.len() >= AT_ONCE || (batch.len() < BATCH / 2 && !batches.is_empty()) {
                    log_panic(batches.join_next().await);
                    take_more(&mut inbox.receiver, &mut batch);
                }
                let (ctx, batch) = (ctx.clone(), std::mem::take(&mut batch));
                batches.spawn(async move { write_batch(&ctx, batch).await });
            }
            () = inbox.closed.cancelled(), if !inbox.receiver.is_closed() => inbox.receiver.close(),
        }
    }
    while let Some(done) = batches.join_next().await {
        log_panic(Some(done));
    }
}

/// What came while a batch was waited for goes with this one.
fn take_more(receiver: &mut mpsc::Receiver<Message>, batch: &mut Vec<Message>) {
    while batch.len() < BATCH
        && let Ok(message) = receiver.try_recv()
    {
        batch.push(message);
    }
}

fn log_panic(done: Option<Result<(), JoinError>>) {
    if let Some(Err(panic)) = done {
        error!(error = %Chain(&panic), "writing outcomes panicked; their jobs will be looked up");
    }
}

async fn write_batch(ctx: &Context, batch: Vec<Message>) {
    strain_accounts(ctx, &batch).await;
    open_alarms(ctx, &batch).await;
    let (outcomes, replies): (Vec<Outcome>, Vec<_>) = batch
        .into_iter()
        .map(|message| (message.outcome, message.reply))
        .unzip();
    let mut keys = Vec::with_capacity(outcomes.len());
    let mut entries = Vec::with_capacity(outcomes.len());
    let mut remaining: BTreeMap<AccountName, Remaining> = BTreeMap::new();
    for outcome in outcomes {
        if let Some(told) = outcome.remaining {
            let least = remaining.entry(outcome.account.clone()).or_insert(told);
            if told.requests < least.requests {
                *least = told;
            }
        }
        keys.push(
            outcome
                .entry
                .transition
                .as_ref()
                .map(|t| (JobId(t.job_id), Epoch(t.epoch))),
        );
        entries.push(outcome.entry);
    }
    crash::reach(Point::BeforeSettle);
    let recorded = record_all(ctx, &entries).await;
    crash::reach(Point::AfterSettle);
    for (key, reply) in keys.into_iter().zip(replies) {
        let result = key.and_then(|key| recorded.get(&key).copied());
        if let (Some((job, epoch)), Some(Recorded::Stale)) = (key, result) {
            warn!(job.id = %job, job.epoch = epoch.0, "a stale outcome was refused: the job had moved on");
        }
        let told = reply.map(|reply| reply.send(result.unwrap_or(Recorded::Stale)));
        if told.is_some_and(|told| told.is_err()) {
            debug!("whoever waited for a record is gone; the record stands");
        }
    }
    return_unspent(ctx, &entries).await;
    correct_quotas(ctx, remaining).await;
    note_modes(ctx, &entries).await;
}

/// Records until it is done. Rows that the database cannot take are recorded one by one, the bad
/// ones without the gateway's words.
async fn record_all(ctx: &Context, entries: &[Entry]) -> Results {
    match insist(ctx, "record outcomes", || {
        record::record(&ctx.pool, entries)
    })
    .await
    {
        Ok(results) => results,
        Err(_) if entries.len() > 1 => {
            let mut results = Results::new();
            for entry in entries {
                results.extend(Box::pin(record_all(ctx, std::slice::from_ref(entry))).await);
            }
            results
        }
        Err(error) => {
            let Some(entry) = entries.first() else {
                return Results::new();
            };
            warn!(error = %Chain(&error), "an outcome could not be stored as it was; storing it without the gateway's words");
            let bare = || record::record_without_answer(&ctx.pool, entry);
            insist(ctx, "record an outcome", bare).await.unwrap_or_else(|error| {
                error!(error = %Chain(&error), "an outcome could not be stored; the job will be looked up");
                Results::new()
            })
        }
    }
}

/// Repeats a statement until it succeeds, or fails for a reason that no repetition mends.
async fn insist<T, F>(ctx: &Context, task: &'static str, run: impl Fn() -> F) -> Result<T, DbError>
where
    F: Future<Output = Result<T, DbError>>,
{
    let mut failures = 0;
    let mut waiting = None;
    loop {
        let error = match run().await {
            Err(error) if error.is_conflict() || !error.is_about_data() => error,
            done => {
                if failures > 0 {
                    info!(task, failures, "the database answers again");
                }
                return done;
            }
        };
        failures += 1;
        ctx.recorder.note_refusal(&error);
        waiting.get_or_insert_with(|| ctx.recorder.wait());
        if failures == 1 {
            warn!(task, error = %Chain(&error), "the database failed; the outcome waits in memory");
        }
        wait_for_database(failures, ctx.jitter()).await;
    }
}

/// Blocks and parks accounts before the jobs are recorded that wait for it: a daemon that dies in
/// between leaves leases to run out, never a parked job without a parked account.
async fn strain_accounts(ctx: &Context, batch: &[Message]) {
    let mut parks: BTreeMap<&AccountName, Parking> = BTreeMap::new();
    for Message { outcome, .. } in batch {
        match &outcome.strain {
            Some(Strain::Park { reason, hint, said }) => {
                let parking = (*reason, *hint, said.as_deref());
                let known = parks.entry(&outcome.account).or_insert(parking);
                // Of several reasons at once, one that says more.
                if is_specific(*reason) {
                    *known = parking;
                }
            }
            Some(Strain::Block { wait, code, capped }) => {
                let (account, wait) = (&outcome.account, *wait);
                log_refusal(
                    insist(ctx, "block an account", || {
                        accounts::block(&ctx.pool, account, wait, code)
                    })
                    .await,
                );
                if *capped {
                    let alarm = Alarm::capped(account, code, wait);
                    open_alarm(ctx, account, &alarm).await;
                }
                debug!(account = %account, code, wait_s = wait.as_secs(), "the gateway asks to wait");
            }
            None => {}
        }
    }
    for (account, (reason, hint, said)) in parks {
        let delay = probe_delay(&ctx.rules.breaker, 0, hint, ctx.jitter());
        let park = alarm::parked(account, reason, said);
        let run = || accounts::park(&ctx.pool, account, &park, delay);
        let became_parked = insist(ctx, "park an account", run).await;
        if is_specific(reason) && matches!(became_parked, Ok(false)) {
            let run = || accounts::learn_of_park(&ctx.pool, account, &park);
            log_refusal(insist(ctx, "store why an account is parked", run).await);
        }
        log_refusal(became_parked);
        if let Some(account) = ctx.accounts.get(account) {
            account.parked_in_database();
        }
        ctx.wake.deliver.notify_one();
    }
    note_signs(ctx, batch).await;
}

/// Why an account is to be parked, when it is probed at the earliest, and what the gateway said.
type Parking<'a> = (Reason, Option<Duration>, Option<&'a str>);

/// What requests say of the gateway is known, and people are told, before the jobs are recorded that
/// wait because of it.
async fn note_signs(ctx: &Context, batch: &[Message]) {
    let mut signs = Signs::new();
    for Message { outcome, .. } in batch {
        if let Some(signed) = &outcome.signed {
            signs.entry(&outcome.account).or_default().push(signed);
        }
    }
    for (account, signs) in signs {
        let run = || failing::note(ctx, account, &signs);
        match insist(ctx, "store what fails", run).await {
            Ok(Some(telling)) => open_alarm(ctx, account, &Alarm::failing(account, &telling)).await,
            done => log_refusal(done),
        }
    }
}

async fn open_alarms(ctx: &Context, batch: &[Message]) {
    for Message { outcome, .. } in batch {
        if let Some(alarm) = &outcome.alert {
            open_alarm(ctx, &outcome.account, alarm).await;
        }
    }
}

async fn open_alarm(ctx: &Context, account: &AccountName, alarm: &Alarm) {
    let run = || alerts::open(&ctx.pool, account, alarm.kind, alarm.severity, &alarm.text);
    log_refusal(insist(ctx, "open an alert", run).await);
    ctx.wake.deliver.notify_one();
}

fn log_refusal<T>(result: Result<T, DbError>) {
    if let Err(error) = result {
        error!(error = %Chain(&error), "the database refused what it must be told");
    }
}

async fn return_unspent(ctx: &Context, entries: &[Entry]) {
    let mut unspent: BTreeMap<&AccountName, usize> = BTreeMap::new();
    for account in entries.iter().filter_map(|entry| entry.unspent.as_ref()) {
        *unspent.entry(account).or_default() += 1;
    }
    for (account, count) in unspent {
        // Quota that is not given back comes back by itself within the minute: not worth insisting.
        if let Err(error) =
            record::return_quota(&ctx.pool, account, count, ctx.clock.second()).await
        {
            warn!(account = %account, error = %Chain(&error), "quota of unsent requests was not given back");
        }
    }
}

/// Somebody else may use the key too. Only a low count can bind, so only a low count is looked at.
async fn correct_quotas(ctx: &Context, remaining: BTreeMap<AccountName, Remaining>) {
    for (name, told) in remaining {
        let low = ctx
            .accounts
            .get(&name)
            .is_some_and(|account| told.requests < account.requests_per_minute / 2);
        let (requests, resets_after) = (told.requests, told.resets_after);
        if low
            && let Err(error) =
                record::correct_quota(&ctx.pool, &name, requests, resets_after, ctx.clock.second())
                    .await
        {
            warn!(account = %name, error = %Chain(&error), "the quota was not corrected");
        }
    }
}

/// A key whose organisation moves between sandbox and live is a mistake of somebody's.
async fn note_modes(ctx: &Context, entries: &[Entry]) {
    for row in entries.iter().filter_map(|entry| entry.invoice.as_ref()) {
        let mode = match row.is_sandbox {
            Some(true) => "sandbox",
            Some(false) => "live",
            None => continue,
        };
        let Some((name, account)) =
            AccountName::parse(&row.account).and_then(|name| ctx.accounts.get_key_value(&name))
        else {
            continue;
        };
        if !account.is_news(mode) {
            continue;
        }
        match accounts::saw_mode(&ctx.pool, name, mode).await {
            Ok(None) => {}
            Ok(Some(before)) => {
                open_alarm(ctx, name, &Alarm::mode_changed(name, &before, mode)).await
            }
            Err(error) => {
                warn!(account = %name, error = %Chain(&error), "the account's mode was not stored")
            }
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
}
