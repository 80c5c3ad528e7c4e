//! Tells of due jobs that somebody keeps locked, as with a `select … for update` that was left open.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::db::locks::{self, Blocker};
use crate::db::{DbError, cleared};
use crate::worker::alerting::Alert;
use crate::worker::context::Context;
use crate::worker::open;
use crate::worker::passed_over::FoundBy;
use crate::worker::pulse::Step;

/// How long a job is due before it is looked at: by then a claim has met it.
const OVERDUE: Duration = Duration::from_secs(5);

/// How long it is then seen locked before a human is told: half a minute in all.
const PATIENCE: Duration = Duration::from_secs(20);

/// The loop's memory: since when each job has been seen locked by one blocker, and which transactions were open at
/// the last look.
#[derive(Default)]
pub struct Locks {
    seen: BTreeMap<i64, Seen>,
    open: BTreeSet<String>,
}

/// A job that was seen locked.
struct Seen {
    /// The number of the lock.
    lock: String,
    /// Who keeps it, as far as it was seen at some look.
    by: Option<Blocker>,
    since: Instant,
}

impl Seen {
    fn name(&self) -> Option<String> {
        self.by.as_ref().map(Blocker::name)
    }
}

impl Locks {
    /// One look. What is told ends with the lock: by then its session may have another transaction, which is
    /// not to be ended.
    pub async fn step(&mut self, ctx: &Arc<Context>) -> Result<Step, DbError> {
        // Where no transaction lasts, no lock does: then no job is looked at.
        let open = locks::open_transactions(&ctx.pool).await?;
        let is_lasting = open.intersection(&self.open).next().is_some();
        self.open = open;
        let locked = if is_lasting {
            locks::due_jobs(&ctx.pool, &ctx.account_names(), OVERDUE).await?
        } else {
            Vec::new()
        };
        let refunds = locked.iter().filter(|job| job.is_refund);
        ctx.passed_over
            .set(FoundBy::Locks, refunds.map(|job| job.id.0).collect());
        let now = Instant::now();
        let mut seen = BTreeMap::new();
        let mut lasting = Vec::new();
        for mut job in locked {
            let before = self.seen.remove(&job.id.0);
            // Who keeps a lock is not seen at each look.
            let before = before.filter(|seen| seen.lock == job.lock);
            let (by, since) = before.map_or((None, now), |seen| (seen.by, seen.since));
            job.blocker = job.blocker.or(by);
            let known = Seen {
                lock: job.lock.clone(),
                by: job.blocker.clone(),
                since,
            };
            seen.insert(job.id.0, known);
            if now.duration_since(since) >= PATIENCE {
                lasting.push(job);
            }
        }
        self.seen = seen;
        let held: Vec<(i64, Option<String>)> = self
            .seen
            .iter()
            .map(|(job, seen)| (*job, seen.name()))
            .collect();
        if cleared::resolve_unlocked(&ctx.pool, &held).await? > 0 {
            ctx.wake.deliver.notify_one();
        }
        for job in &lasting {
            open::try_to_open(&ctx.pool, &ctx.wake, &job.account, &Alert::locked(job)).await;
        }
        Ok(Step::Idle)
    }
}
