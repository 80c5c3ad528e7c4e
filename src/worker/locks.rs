//! Tells of due jobs that somebody keeps locked, as with a `select … for update` that was left open.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::db::{DbError, alerts, locks};
use crate::worker::alarm::Alarm;
use crate::worker::{Context, Step, strains};

/// How long a job is due, and then seen locked, before a human is told: half a minute in all.
const PATIENCE: Duration = Duration::from_secs(15);

/// The loop's memory: since when each job has been seen locked by one session.
#[derive(Default)]
pub struct Locks {
    seen: BTreeMap<i64, (Option<i32>, Instant)>,
}

impl Locks {
    /// One look. What is told ends with the lock: by then its session may have another transaction, which is
    /// not to be ended.
    pub async fn step(&mut self, ctx: &Arc<Context>) -> Result<Step, DbError> {
        let now = Instant::now();
        let mut seen = BTreeMap::new();
        let mut lasting = Vec::new();
        for job in locks::due_jobs(&ctx.pool, &ctx.account_names(), PATIENCE).await? {
            let pid = job.blocker.as_ref().map(|blocker| blocker.pid);
            let before = self.seen.get(&job.id.0).filter(|(of, _)| *of == pid);
            let since = before.map_or(now, |(_, since)| *since);
            seen.insert(job.id.0, (pid, since));
            if now.duration_since(since) >= PATIENCE {
                lasting.push(job);
            }
        }
        self.seen = seen;
        let held: Vec<(i64, Option<i32>)> = self
            .seen
            .iter()
            .map(|(job, (pid, _))| (*job, *pid))
            .collect();
        if alerts::resolve_unlocked(&ctx.pool, &held).await? > 0 {
            ctx.wake.deliver.notify_one();
        }
        for job in &lasting {
            strains::try_to_open(ctx, &job.account, &Alarm::locked(job)).await;
        }
        Ok(Step::Idle)
    }
}
