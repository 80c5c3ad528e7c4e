//! Jobs that make a claim fail are set aside, so that the others go on.
//!
//! The fast way is one statement for all. When it fails and single rows may be the reason, the jobs are
//! listed and the statement is run for halves of the list, until each bad one stands alone. It is left out
//! from then on, and told once it stays bad. One of those that are refused for the same cause is tried again
//! every few seconds, and once it goes through the others are too ([`refusals`](crate::policy::refusals)); one
//! whose row has been changed, as `apipay.retry` does, is tried at once.
//!
//! Of what a probe lets through one job is enough, so its candidates are tried one after another instead.
//!
//! What the statement is refused for without any job, or for a fault of the schema, is no job's trouble: it
//! is an error like that of a database which is away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::db::among::{self, Candidate, ClaimedTo};
use crate::db::claim::OfJobs;
use crate::db::fault::AtFault;
use crate::db::{Among, DbError, Pool, locks, schema};
use crate::domain::account::AccountName;
use crate::domain::job::JobId;
use crate::policy::refusals::{Pace, Part, Refusals, Tried};
use crate::telemetry::Chain;
use crate::worker::alerting::{Alert, Others};
use crate::worker::jitter::jitter;
use crate::worker::open;
use crate::worker::passed_over::PassedOver;
use crate::worker::room::handles::Handles;
use crate::worker::spell::warn_in_spells;
use crate::worker::wake::Wake;

/// Jobs of one account that are set aside; with more, the account itself is.
const ACCOUNT_MOST: usize = 100;

/// Jobs that are set aside in all; with more, it is not about single rows.
const MOST: usize = 10_000;

/// Statements in search of bad rows, of one round.
const SEARCH: usize = 64;

/// Statements about rows that are tried again, of one round.
pub(super) const AGAIN: usize = 8;

/// A lock that is held for a moment is told to nobody.
const TELL_AFTER: Duration = Duration::from_secs(30);

/// Statements in a row that took too long before single rows are taken to be the reason: each costs half a
/// minute, and a database that is only slow is well again without a search.
const LATE_MOST: u32 = 2;

/// How often one of those that are refused for the same cause is tried again: all causes together three times in
/// ten seconds, and a cause each five minutes at the least.
pub(super) const PACE: Pace = Pace {
    initial: Duration::from_secs(2),
    apart: Duration::from_secs(3),
    longest: Duration::from_secs(300),
};

/// How long a row that is tried again waits for a lock: it is expected to be held.
const PATIENCE: Duration = Duration::from_millis(100);

/// How often it is looked which of the rows have been changed: no more than a fiftieth of the time, unless the look took
/// long, which may be the wait for a connection.
const LOOKED_AT_MOST: Duration = Duration::from_secs(1);
const LOOKED_AT_LEAST: Duration = Duration::from_secs(10);

/// How long after a look that took so long the next one is.
pub(super) fn look_again_after(took: Duration) -> Duration {
    took.saturating_mul(50)
        .clamp(LOOKED_AT_MOST, LOOKED_AT_LEAST)
}

/// How much of the time that a try took is counted for its distance to the next one: what a row costs. Who waits for a
/// lock, or is not refused, waits no longer than its patience; what is beyond that was the wait for a connection or a
/// database that was slow, which may be over.
pub(super) fn counted(took: Duration, refused: Option<AtFault>) -> Duration {
    match refused {
        None | Some(AtFault::Lock) => took.min(PATIENCE),
        Some(_) => took,
    }
}

/// The jobs that one kind of claim leaves out.
pub struct Culprits {
    to: ClaimedTo,
    pool: Pool,
    wake: Arc<Wake>,
    passed_over: Arc<PassedOver>,
    rows: BTreeMap<i64, Bad>,
    refusals: Refusals<i64>,
    /// Accounts whose alert says that no other job of theirs is tried.
    told_to_wait: BTreeSet<AccountName>,
    started: Instant,
    look_at: Instant,
    /// Whether the last round was that of rows which had been refused: then this one is everybody's.
    was_theirs: bool,
    /// Statements for all in a row that took too long.
    late: u32,
}

struct Bad {
    due: Candidate,
    since: Instant,
}

impl Culprits {
    /// No row is set aside yet.
    pub fn new(to: ClaimedTo, handles: &Handles) -> Culprits {
        Culprits {
            to,
            pool: handles.pool.clone(),
            wake: handles.wake.clone(),
            passed_over: handles.passed_over.clone(),
            rows: BTreeMap::new(),
            refusals: Refusals::new(PACE),
            told_to_wait: BTreeSet::new(),
            started: Instant::now(),
            look_at: Instant::now(),
            was_theirs: false,
            late: 0,
        }
    }

    /// Whether so many jobs of an account are bad that no new one is tried: those are, one after the other.
    pub fn is_full(&self, account: &AccountName) -> bool {
        self.of_account(account) >= ACCOUNT_MOST
    }

    /// Jobs of an account that are left out.
    pub fn of_account(&self, account: &AccountName) -> usize {
        let of_account = |bad: &&Bad| bad.due.account == *account;
        self.rows.values().filter(of_account).count()
    }

    fn others(&self, account: &AccountName) -> Others {
        match self.of_account(account) {
            0 | 1 => Others::GoOn,
            jobs if self.is_full(account) => Others::Wait(jobs - 1),
            jobs => Others::Refused(jobs - 1),
        }
    }

    /// The jobs that are left out.
    pub fn jobs(&self) -> Vec<i64> {
        self.rows.keys().copied().collect()
    }

    /// Claims one job with this statement: the first of these that the database lets be claimed, or else one of those
    /// that were refused before and whose turn it is. None when there is none, or it is locked.
    ///
    /// An error means that nothing was done, and that the reason is no single row.
    pub async fn run_one<T, F>(
        &mut self,
        candidates: Vec<Candidate>,
        statement: impl Fn(Among) -> F,
    ) -> Result<Option<T>, DbError>
    where
        F: Future<Output = Result<Option<T>, DbError>>,
    {
        if !self.rows.is_empty() {
            self.look_for_changes().await?;
        }
        let again = self.refusals.due(self.started.elapsed(), AGAIN);
        let again = again.iter().filter_map(|job| self.rows.get(job));
        let again: Vec<Candidate> = again.map(|bad| bad.due.clone()).collect();
        let mut refused = 0;
        for due in candidates.into_iter().chain(again) {
            let began = Instant::now();
            let among = self.only(vec![due.id.0]);
            let error = match statement(Among {
                patience: PATIENCE,
                ..among
            })
            .await
            {
                Ok(Some(claimed)) => {
                    self.forget(due.id.0);
                    self.wake.deliver.notify_one();
                    return Ok(Some(claimed));
                }
                Ok(None) => {
                    self.refusals.put_off(due.id.0, self.tried(began, None));
                    continue;
                }
                Err(error) => error,
            };
            if !error.is_about_rows() || is_of_schema(&self.pool, &error).await {
                return Err(error);
            }
            // A trigger of the statement, or a lock that stops them all.
            statement(self.only(Vec::new())).await?;
            self.failed(due, &error, began).await;
            refused += 1;
            // One that takes too long takes half a minute.
            if refused == SEARCH || error.is_cancelled() {
                break;
            }
        }
        Ok(None)
    }

    /// Forgets what was refused of an account: its jobs are tried as if they had never been.
    pub fn forget_account(&mut self, account: &AccountName) {
        let of_account = |(_, bad): &(&i64, &Bad)| bad.due.account == *account;
        let jobs: Vec<i64> = self
            .rows
            .iter()
            .filter(of_account)
            .map(|(job, _)| *job)
            .collect();
        for job in jobs {
            self.forget(job);
        }
    }

    /// All but those that are left out. Refunds do not wait for those that nobody can move.
    fn all(&self) -> Among {
        let mut without: BTreeSet<i64> = self.rows.keys().copied().collect();
        without.extend(self.passed_over.jobs());
        Among {
            without: without.into_iter().collect(),
            ..Among::default()
        }
    }

    /// Only these, likewise.
    fn only(&self, jobs: Vec<i64>) -> Among {
        let mut without = self.passed_over.jobs();
        without.retain(|job| !jobs.contains(job));
        Among {
            without,
            ..Among::only(jobs)
        }
    }

    /// Claims with this statement, all but the bad ones.
    ///
    /// An error means that nothing was done, and that the reason is no single row.
    pub async fn run<T: OfJobs, F>(
        &mut self,
        accounts: &[String],
        most: usize,
        statement: impl Fn(Among) -> F,
    ) -> Result<Vec<T>, DbError>
    where
        F: Future<Output = Result<Vec<T>, DbError>>,
    {
        let mut done = self.try_again(most, &statement).await?;
        self.was_theirs = !done.is_empty() && !self.was_theirs;
        if self.was_theirs {
            // They have taken the room; the next round is at once.
            return Ok(done);
        }
        let all = self.all();
        let without = all.without.clone();
        let error = match statement(all).await {
            Ok(rows) => {
                self.late = 0;
                done.extend(rows);
                return Ok(done);
            }
            Err(error) => error,
        };
        self.late = if error.is_cancelled() {
            self.late + 1
        } else {
            0
        };
        let is_only_late = error.is_cancelled() && self.late <= LATE_MOST;
        let may_be_rows = error.is_about_rows() && !is_only_late && self.rows.len() < MOST;
        let searched = if may_be_rows && !is_of_schema(&self.pool, &error).await {
            self.search(accounts, most, &without, &mut done, &statement)
                .await
        } else {
            Err(error)
        };
        match searched {
            // What was moved already has to be gone on with.
            Err(error) if !done.is_empty() => {
                warn_in_spells!(""; error = %Chain(&error), "a part of the jobs was not moved; trying again");
                Ok(done)
            }
            Err(error) => Err(error),
            Ok(()) => Ok(done),
        }
    }

    /// Finds the rows that are bad and moves the others.
    async fn search<T: OfJobs, F>(
        &mut self,
        accounts: &[String],
        most: usize,
        without: &[i64],
        done: &mut Vec<T>,
        statement: &impl Fn(Among) -> F,
    ) -> Result<(), DbError>
    where
        F: Future<Output = Result<Vec<T>, DbError>>,
    {
        // A trigger of the statement, or a lock on a table.
        statement(self.only(Vec::new())).await?;
        let due = among::due(&self.pool, self.to, accounts, without, most).await?;
        let mut parts: Vec<&[Candidate]> = vec![&due];
        for _ in 0..SEARCH {
            let Some(part) = parts.pop() else {
                break;
            };
            let ids: Vec<i64> = part.iter().map(|due| due.id.0).collect();
            let began = Instant::now();
            match (statement(self.only(ids)).await, part) {
                (Ok(rows), _) => done.extend(rows),
                (Err(error), _) if !error.is_about_rows() => return Err(error),
                (Err(error), [bad]) => self.failed(bad.clone(), &error, began).await,
                (Err(_), part) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
            }
        }
        Ok(())
    }

    /// Rows whose turn it is, each by itself, and those of causes that are mended, together.
    async fn try_again<T: OfJobs, F>(
        &mut self,
        most: usize,
        statement: &impl Fn(Among) -> F,
    ) -> Result<Vec<T>, DbError>
    where
        F: Future<Output = Result<Vec<T>, DbError>>,
    {
        let mut done = Vec::new();
        if self.rows.is_empty() {
            return Ok(done);
        }
        self.look_for_changes().await?;
        let mut turns = self.refusals.due(self.started.elapsed(), AGAIN);
        turns.reverse();
        for _ in 0..AGAIN {
            let part = if let Some(row) = turns.pop() {
                Part::alone(row)
            } else if let Some(part) = self.refusals.hopeful(most.saturating_sub(count(&done))) {
                part
            } else {
                break;
            };
            let among = Among {
                patience: PATIENCE,
                ..self.only(part.rows.clone())
            };
            let began = Instant::now();
            match statement(among).await {
                Ok(claims) => {
                    self.took(part, &claims, began);
                    done.extend(claims);
                }
                Err(error) if error.is_about_rows() && !is_of_schema(&self.pool, &error).await => {
                    self.refused(part, &error, began).await;
                }
                // The statement for all will say it again.
                Err(_) if !done.is_empty() => break,
                Err(error) => return Err(error),
            }
            if count(&done) >= most {
                break;
            }
        }
        Ok(done)
    }

    /// Rows that somebody has changed since they were refused are tried now.
    async fn look_for_changes(&mut self) -> Result<(), DbError> {
        let began = Instant::now();
        if began < self.look_at {
            return Ok(());
        }
        let known = self.rows.iter();
        let (jobs, versions): (Vec<i64>, Vec<String>) = known
            .map(|(job, bad)| (*job, bad.due.version.clone()))
            .unzip();
        for (job, version) in
            among::changed(&self.pool, Some(self.to.states()), &jobs, &versions).await?
        {
            match (version, self.rows.get_mut(&job)) {
                (Some(version), Some(bad)) => {
                    bad.due.version = version;
                    self.refusals.ask(job);
                }
                _ => self.forget(job),
            }
        }
        self.look_at = began + look_again_after(began.elapsed());
        Ok(())
    }

    fn forget(&mut self, job: i64) {
        self.refusals.forget(job);
        self.rows.remove(&job);
    }

    /// The database took a part of those that it had refused.
    fn took(&mut self, part: Part<i64>, claims: &[impl OfJobs], began: Instant) {
        // No quota, no trial that was due, a lock: none of them was tried. What became of them otherwise is seen by
        // the change of their rows.
        if claims.is_empty() {
            return self.refusals.untried(&part, self.tried(began, None));
        }
        let through: Vec<i64> = claims
            .iter()
            .flat_map(OfJobs::jobs)
            .map(|job| job.0)
            .collect();
        for job in &through {
            self.refusals.went_through(*job);
        }
        self.refusals.passed(part, &through);
        self.rows.retain(|job, _| self.refusals.knows(*job));
        if !through.is_empty() {
            info!(jobs = ?through, "no longer set aside");
            self.wake.deliver.notify_one();
        }
    }

    /// The database refused a part of them once more.
    async fn refused(&mut self, part: Part<i64>, error: &DbError, began: Instant) {
        let [job] = part.rows[..] else {
            return self.refusals.failed(part);
        };
        self.refusals.failed_alone(&part);
        if let Some(due) = self.rows.get(&job).map(|bad| bad.due.clone()) {
            self.failed(due, error, began).await;
        }
    }

    /// A try that ended now, and how it was refused if it was.
    fn tried(&self, began: Instant, error: Option<&DbError>) -> Tried {
        Tried {
            now: self.started.elapsed(),
            took: counted(began.elapsed(), error.map(DbError::fault)),
            jitter: jitter(),
        }
    }

    async fn failed(&mut self, due: Candidate, error: &DbError, began: Instant) {
        let job = due.id.0;
        // The cause, not the error: a function of the shop's may put a phone number into it.
        let cause = error.cause();
        let is_again = self.rows.contains_key(&job);
        let tried = self.tried(began, Some(error));
        self.refusals.refuse(job, &cause.case(), tried);
        let bad = self.rows.entry(job).or_insert_with(|| Bad {
            due: due.clone(),
            since: Instant::now(),
        });
        if !is_again {
            warn!(job.id = %due.id, account = %due.account, sqlstate = cause.sqlstate, cause = cause.message, "the database refuses a job; it is set aside, the others go on");
            return;
        }
        if is_told(
            self.refusals.failures(job),
            bad.since.elapsed(),
            error.fault(),
        ) && !is_our_own_lock(&self.pool, &due.account, due.id, error).await
        {
            self.tell(&due, error).await;
        }
    }

    async fn tell(&mut self, due: &Candidate, error: &DbError) {
        let account = &due.account;
        let others = self.others(account);
        let alert = Alert::unmoved(
            account,
            due.id,
            due.state,
            due.epoch,
            others,
            &error.cause(),
        );
        let tell = async |renew| {
            open::stuck(&self.pool, account, alert.severity, &alert.text, renew).await
        };
        let mut told = tell(false).await;
        // It may be open since there were few.
        if !matches!(others, Others::Wait(_)) {
            self.told_to_wait.remove(account);
        } else if told.is_ok() && self.told_to_wait.insert(account.clone()) {
            told = tell(true).await;
        }
        if let Err(error) = told {
            warn_in_spells!(due.id; job.id = %due.id, error = %Chain(&error), "the alert of a stuck job was not opened yet");
        }
        self.wake.deliver.notify_one();
    }
}

/// How many jobs these are about.
fn count(claimed: &[impl OfJobs]) -> usize {
    claimed.iter().map(|one| one.jobs().len()).sum()
}

/// Whether a job waits in vain for a lock that a statement of a daemon's has: that is nobody's session to be ended.
pub(super) async fn is_our_own_lock(
    pool: &Pool,
    account: &AccountName,
    job: JobId,
    error: &DbError,
) -> bool {
    error.fault() == AtFault::Lock
        && locks::is_of_others(pool, account, job, &error.cause())
            .await
            .is_ok_and(|is_of_others| !is_of_others)
}

/// Whether the schema is at fault: a right or a name is missing that functions need, or rows are hidden. A
/// function of the shop's may lack the same for a single job.
pub(super) async fn is_of_schema(pool: &Pool, error: &DbError) -> bool {
    let is_missing = error
        .cause()
        .sqlstate
        .is_some_and(|state| state.starts_with("42"));
    is_missing
        && schema::faults(pool).await.is_ok_and(|faults| {
            faults
                .iter()
                .any(|fault| fault.stops_payments() && !fault.is_partial())
        })
}

/// Whether a job that the database has refused so often, and for so long, is told to a human.
pub fn is_told(failures: u32, lasted: Duration, fault: AtFault) -> bool {
    lasted >= TELL_AFTER || (failures > 1 && fault != AtFault::Lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_for_a_connection_puts_nothing_off_for_minutes() {
        let long = Duration::from_secs(15);
        assert_eq!(counted(long, Some(AtFault::Lock)), PATIENCE);
        assert_eq!(counted(long, None), PATIENCE);
        assert_eq!(counted(long, Some(AtFault::Rows)), long);
        assert_eq!(look_again_after(long), Duration::from_secs(10));
        let short = Duration::from_millis(100);
        assert_eq!(look_again_after(short), Duration::from_secs(5));
        assert_eq!(look_again_after(Duration::ZERO), LOOKED_AT_MOST);
    }

    #[test]
    fn a_lock_is_told_late_and_a_refusal_that_is_repeated_at_once() {
        let second = Duration::from_secs(1);
        for (failures, lasted, fault, expected) in [
            (1, Duration::ZERO, AtFault::Lock, false),
            (1, Duration::ZERO, AtFault::Rows, false),
            (2, second, AtFault::Rows, true),
            (5, second, AtFault::Lock, false),
            (5, TELL_AFTER, AtFault::Lock, true),
        ] {
            assert_eq!(
                is_told(failures, lasted, fault),
                expected,
                "{failures} {lasted:?} {fault:?}"
            );
        }
    }
}
