//! Claims due jobs and hands each to its send.

use std::sync::Arc;
use std::time::Duration;

use crate::db::DbError;
use crate::db::claim::{self, Claim, Room};
use crate::worker::clock::Moment;
use crate::worker::send::{self, Job};
use crate::worker::{Context, Step};

/// The claiming loop's memory: whose turn it is.
#[derive(Default)]
pub struct Dispatcher {
    turn: usize,
}

/// How long a claim waits for more slots while requests are in flight: one statement for several
/// jobs costs the database a fraction of one for each.
const GATHER: Duration = Duration::from_millis(3);

impl Dispatcher {
    /// Claims as many jobs as there are slots, and starts their sends.
    pub async fn step(&mut self, ctx: &Arc<Context>) -> Result<Step, DbError> {
        self.gather_slots(ctx).await;
        let (rooms, slots) = self.rooms(ctx);
        if slots == 0 {
            return Ok(Step::Idle);
        }
        let claimed_at = Moment::now();
        let claims = claim::claim(&ctx.pool, ctx.worker, ctx.lease, &rooms, slots).await?;
        let step = if claims.is_empty() {
            Step::Idle
        } else {
            Step::Worked
        };
        for claim in claims {
            start(ctx, claim, claimed_at);
        }
        Ok(step)
    }

    /// Accounts take turns at being first.
    fn rooms(&mut self, ctx: &Context) -> (Vec<Room>, usize) {
        let in_all = ctx
            .concurrency
            .saturating_sub(ctx.sends.len())
            .min(ctx.claim_batch);
        let mut rooms: Vec<Room> = ctx
            .accounts
            .values()
            .map(|account| Room {
                account: account.name.clone(),
                slots: account.room(&ctx.rules.breaker).min(in_all),
            })
            .collect();
        self.turn = (self.turn + 1) % rooms.len().max(1);
        rooms.rotate_left(self.turn);
        rooms.retain(|room| room.slots > 0);
        let slots = if rooms.is_empty() { 0 } else { in_all };
        (rooms, slots)
    }

    /// While sends are under way and few slots are free, waits a little for more.
    async fn gather_slots(&self, ctx: &Context) {
        let enough = (ctx.concurrency / 2).max(1);
        let deadline = tokio::time::Instant::now() + GATHER;
        while !ctx.sends.is_empty() && ctx.concurrency.saturating_sub(ctx.sends.len()) < enough {
            if tokio::time::timeout_at(deadline, ctx.wake.dispatch.notified())
                .await
                .is_err()
            {
                return;
            }
        }
    }
}

fn start(ctx: &Arc<Context>, claim: Claim, claimed_at: Moment) {
    let Some(slot) = ctx
        .accounts
        .get(&claim.account)
        .and_then(|account| account.take_slot())
    else {
        // Rooms are counted by this loop alone, so a slot is there; the lease would settle it.
        tracing::error!(job.id = %claim.id, "claimed without a free slot; the job waits for its lease");
        return;
    };
    let ctx = ctx.clone();
    ctx.sends.clone().spawn(async move {
        send::send(
            &ctx,
            Job {
                claim,
                claimed_at,
                canary: false,
            },
            slot,
        )
        .await;
    });
}
