//! Moves jobs whose time has come: expired leases, expired jobs, parked jobs of active accounts.

use std::sync::Arc;

use tracing::{info, warn};

use crate::crash::{self, Point};
use crate::db::{DbError, recover};
use crate::worker::{Context, Step};

/// Jobs of one statement.
const MOST: usize = 500;

/// One round.
pub async fn step(ctx: &Arc<Context>) -> Result<Step, DbError> {
    // What waits to be written knows better than a look-up what became of its job.
    if ctx.recorder.is_waiting() {
        return Ok(Step::Idle);
    }
    let quiet = ctx.rules.quiet_after_timeout.max(ctx.rules.request_timeout);
    crash::reach(Point::RecoverBefore);
    let lost = recover::expire_leases(&ctx.pool, quiet, MOST).await?;
    if !lost.is_empty() {
        crash::reach(Point::RecoverAfter);
    }
    for id in &lost {
        warn!(job.id = %id, "its lease ran out: whether it was sent is unknown, it will be looked up");
    }
    // An end is final: a clock that has just been set may be put right again.
    let expired = if ctx.clock.is_calm() {
        recover::expire_jobs(&ctx.pool, ctx.clock.expected(), MOST).await?
    } else {
        0
    };
    let released = recover::release_parked(&ctx.pool, MOST).await?;
    if expired > 0 || released > 0 {
        info!(expired, released, "jobs moved on");
    }
    if released > 0 {
        ctx.wake.dispatch.notify_one();
    }
    let full = u64::try_from(MOST).unwrap_or(u64::MAX);
    let more = lost.len() == MOST || expired == full || released == full;
    Ok(if more { Step::Worked } else { Step::Idle })
}
