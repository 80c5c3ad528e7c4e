//! Jobs that make a claim fail are set aside, so that the others go on.
//!
//! The fast way is one statement for all. When it fails and single rows may be the reason, the jobs are
//! listed and the statement is run for halves of the list, until each bad one stands alone. It is left out
//! from then on, tried again by itself after a growing while, and told once it stays bad.
//!
//! What the statement is refused for without any job, or for a fault of the schema, is no job's trouble: it
//! is an error like that of a database which is away.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::db::among::{self, ClaimedTo, Due};
use crate::db::fault::Fault;
use crate::db::{Among, DbError, alerts, schema};
use crate::domain::account::AccountName;
use crate::policy::backoff;
use crate::policy::rules::{Curve, Jitter};
use crate::telemetry::Chain;
use crate::worker::Context;
use crate::worker::alarm::Alarm;

/// Jobs of one account that are set aside; with more, the account itself is.
const ACCOUNT_MOST: usize = 100;

/// Jobs that are set aside in all; with more, it is not about single rows.
const MOST: usize = 10_000;

/// Statements in search of bad rows, of one round.
const SEARCH: usize = 64;

/// Rows that are tried again by themselves in one round.
const AGAIN: usize = 8;

/// A lock that is held for a moment is told to nobody.
const TELL_AFTER: Duration = Duration::from_secs(30);

/// Statements in a row that took too long before single rows are taken to be the reason: each costs half a
/// minute, and a database that is only slow is well again without a search.
const LATE_MOST: u32 = 2;

/// How long a row is left out.
const WAIT: Curve = Curve {
    initial: Duration::from_secs(2),
    max: Duration::from_secs(300),
    multiplier: 2.0,
    jitter: 0.3,
    attempts: 0,
};

/// The jobs that one kind of claim leaves out.
pub struct Culprits {
    to: ClaimedTo,
    rows: BTreeMap<i64, Bad>,
    /// Statements for all in a row that took too long.
    late: u32,
}

struct Bad {
    due: Due,
    failures: u32,
    since: Instant,
    again_at: Instant,
}

impl Culprits {
    /// No row is set aside yet.
    pub fn new(to: ClaimedTo) -> Culprits {
        Culprits {
            to,
            rows: BTreeMap::new(),
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

    /// Claims with this statement, all but the bad ones.
    ///
    /// An error means that nothing was done, and that the reason is no single row.
    pub async fn run<T, F>(
        &mut self,
        ctx: &Context,
        accounts: &[String],
        most: usize,
        statement: impl Fn(Among) -> F,
    ) -> Result<Vec<T>, DbError>
    where
        F: Future<Output = Result<Vec<T>, DbError>>,
    {
        let mut done = self.try_again(ctx, &statement).await?;
        let without: Vec<i64> = self.rows.keys().copied().collect();
        let all = Among {
            without: without.clone(),
            only: None,
        };
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
        let searched = if may_be_rows && !is_of_schema(ctx, &error).await {
            self.search(ctx, accounts, most, &without, &mut done, &statement)
                .await
        } else {
            Err(error)
        };
        match searched {
            // What was moved already has to be gone on with.
            Err(error) if !done.is_empty() => {
                warn!(error = %Chain(&error), "a part of the jobs was not moved; trying again");
                Ok(done)
            }
            Err(error) => Err(error),
            Ok(()) => Ok(done),
        }
    }

    /// Finds the rows that are bad and moves the others.
    async fn search<T, F>(
        &mut self,
        ctx: &Context,
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
        statement(Among::only(Vec::new())).await?;
        let due = among::due(&ctx.pool, self.to, accounts, without, most).await?;
        let mut parts: Vec<&[Due]> = vec![&due];
        for _ in 0..SEARCH {
            let Some(part) = parts.pop() else {
                break;
            };
            let ids: Vec<i64> = part.iter().map(|due| due.id.0).collect();
            match (statement(Among::only(ids)).await, part) {
                (Ok(rows), _) => done.extend(rows),
                (Err(error), _) if !error.is_about_rows() => return Err(error),
                (Err(error), [bad]) => self.failed(ctx, bad.clone(), &error).await,
                (Err(_), part) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
            }
        }
        Ok(())
    }

    /// Rows whose wait is over, each by itself.
    async fn try_again<T, F>(
        &mut self,
        ctx: &Context,
        statement: &impl Fn(Among) -> F,
    ) -> Result<Vec<T>, DbError>
    where
        F: Future<Output = Result<Vec<T>, DbError>>,
    {
        let mut done = Vec::new();
        let now = Instant::now();
        let over = self.rows.values().filter(|bad| bad.again_at <= now);
        let over: Vec<Due> = over.take(AGAIN).map(|bad| bad.due.clone()).collect();
        for due in over {
            match statement(Among::only(vec![due.id.0])).await {
                // No trial was due: the job was not tried.
                Ok(rows) if rows.is_empty() && self.to == ClaimedTo::Try => {}
                Ok(rows) => {
                    self.rows.remove(&due.id.0);
                    info!(job.id = %due.id, "no longer set aside");
                    done.extend(rows);
                }
                Err(error) if error.is_about_rows() && !is_of_schema(ctx, &error).await => {
                    self.failed(ctx, due, &error).await;
                }
                // The statement for all will say it again.
                Err(_) if !done.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    async fn failed(&mut self, ctx: &Context, due: Due, error: &DbError) {
        let now = Instant::now();
        let bad = self.rows.entry(due.id.0).or_insert_with(|| Bad {
            due: due.clone(),
            failures: 0,
            since: now,
            again_at: now,
        });
        bad.failures += 1;
        bad.again_at = now + wait(bad.failures, ctx.jitter());
        if bad.failures == 1 {
            // The cause, not the error: a function of the shop's may put a phone number into it.
            let cause = error.cause();
            warn!(job.id = %due.id, account = %due.account, sqlstate = cause.sqlstate, cause = cause.message, "the database refuses a job; it is set aside, the others go on");
        }
        if is_told(bad.failures, bad.since.elapsed(), error.fault()) {
            self.tell(ctx, &due, error).await;
        }
    }

    async fn tell(&self, ctx: &Context, due: &Due, error: &DbError) {
        let alarm = Alarm::unmoved(
            &due.account,
            due.id,
            self.to.state(),
            due.epoch,
            self.of_account(&due.account).saturating_sub(1),
            &error.cause(),
        );
        let opened = alerts::open(
            &ctx.pool,
            Some(&due.account),
            alarm.kind,
            alarm.severity,
            &alarm.text,
        );
        if let Err(error) = opened.await {
            warn!(job.id = %due.id, error = %Chain(&error), "the alert of a stuck job was not opened yet");
        }
        ctx.wake.deliver.notify_one();
    }
}

/// Whether the schema is at fault: a right or a name is missing that functions need, or rows are hidden. A
/// function of the shop's may lack the same for a single job.
async fn is_of_schema(ctx: &Context, error: &DbError) -> bool {
    let is_missing = error
        .cause()
        .sqlstate
        .is_some_and(|state| state.starts_with("42"));
    is_missing
        && schema::faults(&ctx.pool).await.is_ok_and(|faults| {
            faults
                .iter()
                .any(|fault| fault.stops_payments() && !fault.is_partial())
        })
}

/// Whether a job that the database has refused so often, and for so long, is told to a human.
pub fn is_told(failures: u32, lasted: Duration, fault: Fault) -> bool {
    lasted >= TELL_AFTER || (failures > 1 && fault != Fault::Lock)
}

fn wait(failures: u32, jitter: Jitter) -> Duration {
    backoff::delay(&WAIT, failures, jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_told_late_and_a_refusal_that_is_repeated_at_once() {
        let second = Duration::from_secs(1);
        for (failures, lasted, fault, expected) in [
            (1, Duration::ZERO, Fault::Lock, false),
            (1, Duration::ZERO, Fault::Rows, false),
            (2, second, Fault::Rows, true),
            (5, second, Fault::Lock, false),
            (5, TELL_AFTER, Fault::Lock, true),
        ] {
            assert_eq!(
                is_told(failures, lasted, fault),
                expected,
                "{failures} {lasted:?} {fault:?}"
            );
        }
    }
}
