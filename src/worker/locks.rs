//! Tells of due jobs that somebody keeps locked, as with a `select … for update` that was left open.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::db::locked::locked;
use crate::db::{DbError, alerts};
use crate::worker::alarm::Alarm;
use crate::worker::{Context, Step};

/// How long a job is due, and then seen locked, before a human is told: half a minute in all.
const PATIENCE: Duration = Duration::from_secs(15);

/// The loop's memory: since when each job has been seen locked by one session.
#[derive(Default)]
pub struct Locks {
    seen: BTreeMap<i64, (Option<i32>, Instant)>,
}

impl Locks {
    /// One look.
    pub async fn step(&mut self, ctx: &Arc<Context>) -> Result<Step, DbError> {
        let now = Instant::now();
        let mut seen = BTreeMap::new();
        for job in locked(&ctx.pool, &ctx.account_names(), PATIENCE).await? {
            let before = self.seen.get(&job.id.0).filter(|(pid, _)| *pid == job.pid);
            let since = before.map_or(now, |(_, since)| *since);
            seen.insert(job.id.0, (job.pid, since));
            if now.duration_since(since) >= PATIENCE {
                let alarm = Alarm::locked(&job);
                alerts::open(
                    &ctx.pool,
                    Some(&job.account),
                    alarm.kind,
                    alarm.severity,
                    &alarm.text,
                )
                .await?;
                ctx.wake.deliver.notify_one();
            }
        }
        self.seen = seen;
        Ok(Step::Idle)
    }
}
