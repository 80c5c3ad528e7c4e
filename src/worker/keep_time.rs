//! Notices when the database's clock is set, and keeps no stored moment further ahead than its purpose.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::db::{self, DbError, clock};
use crate::policy::bounds::bounds;
use crate::policy::clock::at_least;
use crate::worker::clock::Moment;
use crate::worker::context::Context;
use crate::worker::pulse::Step;

/// How often the bounds are looked after while the clock goes on as it should.
const EVERY: Duration = Duration::from_secs(10);

/// How long the clock must go on as it should before its alert is resolved.
const STEADY: Duration = Duration::from_secs(300);

/// The loop's memory: when it last looked after the bounds.
#[derive(Default)]
pub struct Keeper {
    kept_at: Option<Moment>,
}

impl Keeper {
    /// One look at the clock.
    pub async fn step(&mut self, ctx: &Arc<Context>) -> Result<Step, DbError> {
        let jump = ctx.clock.look(&ctx.pool, ctx.lease).await?;
        if let Some(jump) = jump {
            warn!(
                by_s = jump.0 / 1_000_000,
                "the database's clock was set; what was measured by it is carried along"
            );
            ctx.wake.deliver.notify_one();
            ctx.wake.dispatch.notify_one();
        }
        if jump.is_none() && self.kept_at.is_some_and(|at| at.elapsed() < EVERY) {
            return Ok(Step::Idle);
        }
        let brought_back = db::bounds::keep(
            &ctx.pool,
            &bounds(&ctx.rules, ctx.lease),
            at_least(ctx.clock.expected()),
        )
        .await?;
        clock::resolve_jump(&ctx.pool, ctx.clock.second(), STEADY).await?;
        if brought_back > 0 {
            info!(brought_back, "moments that lay too far ahead");
            return Ok(Step::Worked);
        }
        self.kept_at = Some(Moment::now());
        Ok(Step::Idle)
    }
}
