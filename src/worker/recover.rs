//! Moves jobs whose time has come: expired leases, expired jobs, parked jobs of active accounts, what backed off
//! before its account got clear answers again, and jobs whose turn it is after another one.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info, warn};

use crate::crash::{self, Point};
use crate::db::DbError;
use crate::db::fault::Fault;
use crate::db::recover::{self, Due, DueJob, Place, Terms};
use crate::policy::outage::{BACKED_OFF, LOOKED_UP_IN_VAIN};
use crate::policy::verdict::Reason;
use crate::worker::alarm::Alarm;
use crate::worker::clock::Moment;
use crate::worker::culprits::is_told;
use crate::worker::strains;
use crate::worker::{Context, Step};

/// Jobs of one statement.
const MOST: usize = 500;

/// How long a job that the database did not let move is left alone.
const LEFT_ALONE: Duration = Duration::from_secs(10);

/// A job that was not tried again for so long has moved otherwise.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// The loop's memory: jobs that the database did not let move, and how far it looked through those that wait.
#[derive(Default)]
pub struct Recovery {
    unmoved: HashMap<i64, Unmoved>,
    place: Place,
}

struct Unmoved {
    since: Moment,
    tried: Moment,
    failures: u32,
}

impl Recovery {
    /// Leaves a job alone for a while. A lock that is held for a moment, and what a second try mends, is told
    /// to nobody.
    async fn leave(&mut self, ctx: &Context, job: &DueJob, error: &DbError) {
        let now = Moment::now();
        let unmoved = self.unmoved.entry(job.id.0).or_insert(Unmoved {
            since: now,
            tried: now,
            failures: 0,
        });
        unmoved.tried = now;
        unmoved.failures += 1;
        let cause = error.cause();
        if unmoved.failures == 1 {
            warn!(job.id = %job.id, account = %job.account, sqlstate = cause.sqlstate, cause = cause.message, "the database does not let a job move; it is left alone for a while, the others go on");
        }
        if is_told(unmoved.failures, unmoved.since.elapsed(), error.fault()) {
            let alarm = Alarm::unmoved(&job.account, job.id, &job.state, job.epoch, 0, &cause);
            strains::try_to_open(ctx, &job.account, &alarm).await;
        }
    }

    /// One round.
    pub async fn step(&mut self, ctx: &Arc<Context>) -> Result<Step, DbError> {
        // What waits to be written knows better than a look-up what became of its job.
        if ctx.recorder.is_waiting() {
            return Ok(Step::Idle);
        }
        self.unmoved
            .retain(|_, unmoved| unmoved.tried.elapsed() < FORGOTTEN);
        let mut step = Step::Idle;
        for due in Due::ALL {
            // An end is final: a clock that has just been set may be put right again.
            if due == Due::Expiry && !ctx.clock.is_calm() {
                continue;
            }
            let mut except = ctx.recorder.shelf().jobs();
            let left_alone = self
                .unmoved
                .iter()
                .filter(|(_, unmoved)| unmoved.tried.elapsed() < LEFT_ALONE);
            except.extend(left_alone.map(|(job, _)| job));
            if due == Due::Lease {
                crash::reach(Point::RecoverBefore);
            }
            let expected = ctx.clock.expected();
            let place = &mut self.place;
            let jobs = recover::find(&ctx.pool, due, expected, place, MOST, &except).await?;
            if jobs.is_empty() {
                continue;
            }
            let is_full = jobs.len() == MOST;
            if self.advance(ctx, due, jobs).await? > 0 && is_full {
                step = Step::Worked;
            }
        }
        Ok(step)
    }

    /// Moves what can be moved: a statement that some of the jobs are to blame for is divided until they
    /// stand alone. Returns how many moved.
    async fn advance(
        &mut self,
        ctx: &Arc<Context>,
        due: Due,
        jobs: Vec<DueJob>,
    ) -> Result<usize, DbError> {
        let codes = |reasons: &[Reason]| -> Vec<String> {
            let codes = reasons.iter().map(|reason| reason.code().to_owned());
            codes.collect()
        };
        let terms = Terms {
            quiet: ctx.rules.quiet_after_timeout.max(ctx.rules.request_timeout),
            backed_off: &codes(&BACKED_OFF),
            looked_up_in_vain: &codes(&LOOKED_UP_IN_VAIN),
        };
        let mut parts = VecDeque::from([jobs]);
        let mut all = 0;
        while let Some(mut jobs) = parts.pop_front() {
            let ids: Vec<i64> = jobs.iter().map(|job| job.id.0).collect();
            match recover::advance(&ctx.pool, due, &ids, terms).await {
                Ok(moved) => {
                    for job in &ids {
                        self.unmoved.remove(job);
                    }
                    tell(ctx, due, &ids, moved);
                    all += moved;
                }
                Err(error) if matches!(error.fault(), Fault::Database | Fault::Conflict) => {
                    return Err(error);
                }
                Err(_) if jobs.len() > 1 => {
                    let rest = jobs.split_off(jobs.len() / 2);
                    parts.extend([jobs, rest]);
                }
                Err(error) => {
                    for job in &jobs {
                        self.leave(ctx, job, &error).await;
                    }
                }
            }
        }
        Ok(all)
    }
}

fn tell(ctx: &Context, due: Due, jobs: &[i64], moved: usize) {
    if moved == 0 {
        return;
    }
    match due {
        Due::Lease => {
            crash::reach(Point::RecoverAfter);
            warn!(jobs = ?jobs, moved, "leases ran out: whether these jobs were sent is unknown, they will be looked up");
        }
        Due::Expiry => info!(moved, "jobs expired"),
        Due::Release => {
            info!(moved, "parked jobs go on: their account is active");
            ctx.wake.dispatch.notify_one();
        }
        Due::GoOn => {
            info!(
                moved,
                "jobs that backed off go on: their account gets clear answers again"
            );
            ctx.wake.dispatch.notify_one();
        }
        Due::Turn => {
            debug!(moved, "jobs go on: the one that they waited for has ended");
            ctx.wake.dispatch.notify_one();
        }
    }
}
