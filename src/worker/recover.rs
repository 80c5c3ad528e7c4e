//! Moves jobs whose time has come: expired leases, sends that were left open, expired jobs, parked jobs of active accounts,
//! what backed off before its account got clear answers again, and jobs whose turn it is after another one or the end of a
//! cap. Has the objects of accepted jobs followed again that nobody follows, and asked about soon that failed because of an
//! account which is resumed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info, warn};

use crate::crash::{self, Point};
use crate::db::fault::AtFault;
use crate::db::locks::{self, Blocker};
use crate::db::recover::{self, Cursor, DueJob, Found, Occasion, Terms};
use crate::db::{DbError, among};
use crate::domain::job::JobId;
use crate::policy::asynchronous::ACCOUNT_FAULTS;
use crate::policy::follow::longest_once_resumed;
use crate::policy::outage::{BACKED_OFF, LOOKED_UP_IN_VAIN, goes_on_early};
use crate::policy::refusals::{Part, Refusals, Tried};
use crate::policy::verdict::Reason;
use crate::worker::alerting::{Alert, Others};
use crate::worker::clock::Moment;
use crate::worker::context::Context;
use crate::worker::culprits::{AGAIN, PACE, counted, is_our_own_lock, is_told, look_again_after};
use crate::worker::jitter::jitter;
use crate::worker::open;
use crate::worker::passed_over::FoundBy;
use crate::worker::pulse::Step;

/// Jobs of one statement.
const MOST: usize = 500;

/// The loop's memory: jobs that could not be moved, and how far it looked through those that wait, of each kind.
#[derive(Default)]
pub struct Recovery {
    kinds: [Unmoved; Occasion::ALL.len()],
    places: [Cursor; Occasion::ALL.len()],
}

/// Jobs of one kind that the database did not let move, or that somebody keeps locked. One of those of a cause is tried again every few
/// seconds, and with it the others; one whose row has been changed is tried at once.
struct Unmoved {
    jobs: HashMap<i64, Stuck>,
    refusals: Refusals<i64>,
    look_at: Moment,
}

struct Stuck {
    job: DueJob,
    since: Moment,
}

impl Default for Unmoved {
    fn default() -> Unmoved {
        Unmoved {
            jobs: HashMap::new(),
            refusals: Refusals::new(PACE),
            look_at: Moment::now(),
        }
    }
}

/// How long one round looks through those that may all wait rightly; the next goes on where it ended.
const LOOK_THROUGH: Duration = Duration::from_millis(150);

impl Recovery {
    /// One round.
    pub async fn step(&mut self, ctx: &Arc<Context>) -> Result<Step, DbError> {
        // What waits to be written knows better than a look-up what became of its job.
        if ctx.recorder.is_waiting() {
            return Ok(Step::Idle);
        }
        let mut step = Step::Idle;
        let codes = Codes::new();
        let terms = codes.terms(ctx);
        let kinds = Occasion::ALL.into_iter().zip(&mut self.kinds);
        for ((due, unmoved), place) in kinds.zip(&mut self.places) {
            // An end is final: a clock that has just been set may be put right again.
            if due == Occasion::Expiry && !ctx.clock.is_calm() {
                continue;
            }
            if unmoved.try_again(ctx, due).await? > 0 {
                step = Step::Worked;
            }
            let mut except = ctx.recorder.shelf().jobs();
            except.extend(unmoved.jobs.keys());
            if due == Occasion::Turn {
                except.extend(ctx.passed_over.jobs());
            }
            if due == Occasion::Lease {
                crash::reach(Point::RecoverBefore);
            }
            let began = Moment::now();
            loop {
                let expected = ctx.clock.expected();
                let found = recover::find(&ctx.pool, due, expected, place, MOST, &except, terms);
                let Found { mut jobs, is_full } = found.await?;
                jobs.retain(|job| {
                    let wait = job.wait.as_ref();
                    wait.is_none_or(|wait| goes_on_early(wait, &ctx.rules))
                });
                if !jobs.is_empty() && unmoved.advance(ctx, due, jobs).await? > 0 && is_full {
                    step = Step::Worked;
                }
                // Those that may all wait rightly are looked through in several pieces a round.
                if !matches!(due, Occasion::Turn | Occasion::Answered)
                    || place.is_at_start()
                    || began.elapsed() >= LOOK_THROUGH
                {
                    break;
                }
            }
            if due == Occasion::Turn {
                let jobs = unmoved.jobs.keys().copied().collect();
                ctx.passed_over.set(FoundBy::Turn, jobs);
            }
        }
        Ok(step)
    }
}

impl Unmoved {
    /// Leaves a job alone for a while that the database refused. What a second try mends is told to nobody.
    async fn refused(&mut self, ctx: &Context, job: &DueJob, error: &DbError, began: Moment) {
        let cause = error.cause();
        let is_again = self.leave(job, &cause.case(), began, error.fault());
        let (id, account, state) = (job.id, &job.account, job.state);
        if !is_again {
            warn!(job.id = %id, account = %account, sqlstate = cause.sqlstate, cause = cause.message, "the database does not let a job move; it is left alone for a while, the others go on");
        } else if is_told(self.refusals.failures(id.0), self.since(id), error.fault())
            && !is_our_own_lock(&ctx.pool, account, id, error).await
        {
            let alert = Alert::unmoved(account, id, state, job.epoch, Others::GoOn, &cause);
            open::try_to_open(&ctx.pool, &ctx.wake, account, &alert).await;
        }
    }

    /// Leaves those of the jobs alone for a while that somebody keeps locked, and returns them. A lock that is held
    /// for a moment is told to nobody.
    async fn locked(
        &mut self,
        ctx: &Context,
        jobs: &[DueJob],
        began: Moment,
    ) -> Result<Vec<i64>, DbError> {
        let ids: Vec<i64> = jobs.iter().map(|job| job.id.0).collect();
        if ids.is_empty() {
            return Ok(ids);
        }
        let held = locks::held(&ctx.pool, &ids).await?;
        for lock in &held {
            let Some(job) = jobs.iter().find(|job| job.id == lock.id) else {
                continue;
            };
            // Those of one transaction are free together.
            let by = lock.blocker.as_ref().map(Blocker::name);
            let is_again = self.leave(job, &format!("locked by {by:?}"), began, AtFault::Lock);
            if !is_again {
                info!(job.id = %job.id, account = %job.account, by, "a job is locked by somebody else; it is left alone for a while, the others go on");
            } else if is_told(0, self.since(job.id), AtFault::Lock) {
                open::try_to_open(&ctx.pool, &ctx.wake, &job.account, &Alert::locked(lock)).await;
            }
        }
        Ok(held.into_iter().map(|lock| lock.id.0).collect())
    }

    /// Leaves a job alone for a while. Whether it was before.
    fn leave(&mut self, job: &DueJob, case: &str, began: Moment, fault: AtFault) -> bool {
        let id = job.id.0;
        let tried = Tried {
            now: Moment::now().since_boot(),
            took: counted(began.elapsed(), Some(fault)),
            jitter: jitter(),
        };
        self.refusals.refuse(id, case, tried);
        let is_again = self.jobs.contains_key(&id);
        self.jobs.entry(id).or_insert_with(|| Stuck {
            job: job.clone(),
            since: Moment::now(),
        });
        is_again
    }

    /// How long a job has been left alone.
    fn since(&self, job: JobId) -> Duration {
        let stuck = self.jobs.get(&job.0);
        stuck.map_or(Duration::ZERO, |stuck| stuck.since.elapsed())
    }

    /// Tries those whose turn it is, and those of causes that are mended. Returns how many moved.
    async fn try_again(&mut self, ctx: &Arc<Context>, due: Occasion) -> Result<usize, DbError> {
        if self.jobs.is_empty() {
            return Ok(0);
        }
        self.look_for_changes(ctx).await?;
        let codes = Codes::new();
        let terms = codes.terms(ctx);
        let mut turns = self.refusals.due(Moment::now().since_boot(), AGAIN);
        turns.reverse();
        let mut all = 0;
        for _ in 0..AGAIN {
            let mut part = if let Some(job) = turns.pop() {
                Part::alone(job)
            } else if let Some(part) = self.refusals.hopeful(MOST) {
                part
            } else {
                break;
            };
            let began = Moment::now();
            match recover::advance(&ctx.pool, due, &part.rows, terms).await {
                Ok(moved) => {
                    tell(ctx, due, &part.rows, moved.len());
                    all += moved.len();
                    for job in &moved {
                        self.refusals.went_through(*job);
                    }
                    let left = part.rows.iter().filter(|job| !moved.contains(job));
                    let left = left.filter_map(|job| self.jobs.get(job));
                    let left: Vec<DueJob> = left.map(|stuck| stuck.job.clone()).collect();
                    let held = self.locked(ctx, &left, began).await?;
                    // What has neither moved nor is locked has moved otherwise.
                    part.rows.retain(|job| !held.contains(job));
                    let through = part.rows.clone();
                    self.refusals.passed(part, &through);
                    self.jobs.retain(|job, _| self.refusals.knows(*job));
                    ctx.wake.deliver.notify_one();
                }
                Err(error) if matches!(error.fault(), AtFault::Database | AtFault::Conflict) => {
                    return Err(error);
                }
                Err(_) if part.rows.len() > 1 => self.refusals.failed(part),
                Err(error) => {
                    self.refusals.failed_alone(&part);
                    let stuck = part.rows.first().and_then(|job| self.jobs.get(job));
                    if let Some(job) = stuck.map(|stuck| stuck.job.clone()) {
                        self.refused(ctx, &job, &error, began).await;
                    }
                }
            }
        }
        Ok(all)
    }

    /// Jobs that somebody has changed since they were refused are tried now.
    async fn look_for_changes(&mut self, ctx: &Context) -> Result<(), DbError> {
        let began = Moment::now();
        if began < self.look_at {
            return Ok(());
        }
        let known = self.jobs.iter();
        let (jobs, versions): (Vec<i64>, Vec<String>) = known
            .map(|(job, stuck)| (*job, stuck.job.version.clone()))
            .unzip();
        for (job, version) in among::changed(&ctx.pool, None, &jobs, &versions).await? {
            match (version, self.jobs.get_mut(&job)) {
                (Some(version), Some(stuck)) => {
                    stuck.job.version = version;
                    self.refusals.ask(job);
                }
                _ => {
                    self.refusals.forget(job);
                    self.jobs.remove(&job);
                }
            }
        }
        self.look_at = began.after(look_again_after(began.elapsed()));
        Ok(())
    }

    /// Moves what can be moved: a statement that some of the jobs are to blame for is divided until they
    /// stand alone. Returns how many moved.
    async fn advance(
        &mut self,
        ctx: &Arc<Context>,
        due: Occasion,
        jobs: Vec<DueJob>,
    ) -> Result<usize, DbError> {
        let codes = Codes::new();
        let terms = codes.terms(ctx);
        let mut parts = VecDeque::from([jobs]);
        let mut all = 0;
        while let Some(mut jobs) = parts.pop_front() {
            let ids: Vec<i64> = jobs.iter().map(|job| job.id.0).collect();
            let began = Moment::now();
            match recover::advance(&ctx.pool, due, &ids, terms).await {
                Ok(moved) => {
                    tell(ctx, due, &ids, moved.len());
                    all += moved.len();
                    jobs.retain(|job| !moved.contains(&job.id.0));
                    self.locked(ctx, &jobs, began).await?;
                }
                Err(error) if matches!(error.fault(), AtFault::Database | AtFault::Conflict) => {
                    return Err(error);
                }
                Err(_) if jobs.len() > 1 => {
                    let rest = jobs.split_off(jobs.len() / 2);
                    parts.extend([jobs, rest]);
                }
                Err(error) => {
                    for job in &jobs {
                        self.refused(ctx, job, &error, began).await;
                    }
                }
            }
        }
        Ok(all)
    }
}

/// Why jobs wait that go on at the end of an outage or of a park.
struct Codes {
    backed_off: Vec<String>,
    looked_up_in_vain: Vec<String>,
    account_faults: Vec<String>,
}

impl Codes {
    fn new() -> Codes {
        let codes = |reasons: &[Reason]| -> Vec<String> {
            let codes = reasons.iter().map(|reason| reason.code().to_owned());
            codes.collect()
        };
        Codes {
            backed_off: codes(&BACKED_OFF),
            looked_up_in_vain: codes(&LOOKED_UP_IN_VAIN),
            account_faults: ACCOUNT_FAULTS.map(|(code, _)| code.to_owned()).into(),
        }
    }

    fn terms(&self, ctx: &Context) -> Terms<'_> {
        Terms {
            quiet: ctx.rules.quiet_after_timeout.max(ctx.rules.request_timeout),
            backed_off: &self.backed_off,
            looked_up_in_vain: &self.looked_up_in_vain,
            account_faults: &self.account_faults,
            once_resumed: longest_once_resumed(&ctx.rules),
        }
    }
}

fn tell(ctx: &Context, due: Occasion, jobs: &[i64], moved: usize) {
    if moved == 0 {
        return;
    }
    match due {
        Occasion::Lease => {
            crash::reach(Point::RecoverAfter);
            warn!(jobs = ?jobs, moved, "leases ran out: whether these jobs were sent is unknown, they will be looked up");
        }
        Occasion::LeftOpen => {
            warn!(jobs = ?jobs, moved, "sends of these jobs stood open although they were not being sent: whether they had an effect is unknown, what would be sent again is looked up first");
        }
        Occasion::Expiry => info!(moved, "jobs expired"),
        Occasion::Release => {
            info!(moved, "parked jobs go on: their account is active");
            ctx.wake.dispatch.notify_one();
        }
        Occasion::GoOn => {
            info!(
                moved,
                "jobs that backed off go on: their account gets clear answers again"
            );
            ctx.wake.dispatch.notify_one();
        }
        Occasion::Answered => {
            info!(
                moved,
                "jobs that failed with all others of their account go on: one got a clear answer"
            );
            ctx.wake.dispatch.notify_one();
        }
        Occasion::Turn => {
            debug!(moved, "jobs go on: the one that they waited for has ended");
            ctx.wake.dispatch.notify_one();
        }
        Occasion::Cap => {
            info!(moved, "jobs go on: the cap that they waited for is over");
            ctx.wake.dispatch.notify_one();
        }
        Occasion::Unfollowed => {
            info!(jobs = ?jobs, moved, "nobody followed the invoices or refunds of these accepted jobs any more, or their account has been resumed since they failed: they are asked about again");
            ctx.wake.follow.notify_one();
        }
    }
}
