//! Claims due jobs and hands each to its send.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::crash::{self, Point};
use crate::db::DbError;
use crate::db::among::ClaimedTo;
use crate::db::claim::{self, Claim, Met, Room};
use crate::domain::account::AccountName;
use crate::worker::account::Account;
use crate::worker::accounts::named;
use crate::worker::clock::Moment;
use crate::worker::context::Context;
use crate::worker::culprits::Culprits;
use crate::worker::passed_over::FoundBy;
use crate::worker::pulse::Step;
use crate::worker::room as rooms;
use crate::worker::send::{self, Job, Role};

/// The claiming loop's memory: whose turn it is, how fast each account's sends end, and which jobs make a claim fail.
pub struct Dispatcher {
    turn: usize,
    paces: BTreeMap<AccountName, Pace>,
    culprits: Culprits,
}

impl Default for Dispatcher {
    fn default() -> Dispatcher {
        Dispatcher {
            turn: 0,
            paces: BTreeMap::new(),
            culprits: Culprits::new(ClaimedTo::Send),
        }
    }
}

/// How long a claim waits for more room while requests are in flight: one statement for several
/// jobs costs the database a fraction of one for each.
const GATHER: Duration = Duration::from_millis(3);

/// How often it waits while more jobs are in hand than can be sent at once.
const GATHER_TIMES: usize = 10;

/// Jobs of each account among which the one is searched that makes the claim of a trial fail.
const TRIALS_LISTED: usize = 20;

impl Dispatcher {
    /// Claims as many jobs as there is room for, and starts their sends.
    pub async fn step(&mut self, ctx: &Arc<Context>) -> Result<Step, DbError> {
        // Before the room is counted, so that a send that ends meanwhile does not go unnoticed.
        ctx.wants_room.store(true, Ordering::Relaxed);
        let ahead = self.ahead(ctx);
        let all_ahead = ahead.values().sum::<usize>().min(ctx.claim_batch);
        gather_room(ctx, all_ahead).await;
        let served = ctx.served();
        let (rooms, jobs) = self.rooms(ctx, &served, &ahead, all_ahead);
        if jobs == 0 {
            return Ok(Step::Idle);
        }
        let sent = self.send_usual(ctx, &served, &rooms, jobs).await;
        ctx.passed_over.set(FoundBy::Claim, self.culprits.jobs());
        sent
    }

    async fn send_usual(
        &mut self,
        ctx: &Arc<Context>,
        served: &[Arc<Account>],
        rooms: &[Room],
        jobs: usize,
    ) -> Result<Step, DbError> {
        crash::reach(Point::BeforeClaim);
        let claimed_at = Moment::now();
        let asked = ctx.clock.ask();
        let (claims, step) = apart(self.claim(ctx, rooms, jobs).await?);
        if !claims.is_empty() {
            crash::reach(Point::AfterClaim);
        }
        let is_full = |room: &Room| {
            claims
                .iter()
                .filter(|claim| claim.account == room.account)
                .count()
                >= room.jobs
        };
        let wants_room =
            rooms.len() < served.len() || rooms.iter().any(is_full) || claims.len() >= jobs;
        ctx.wants_room.store(wants_room, Ordering::Relaxed);
        for mut claim in claims {
            claim.now = asked.now(claim.now);
            start(ctx, served, claim, claimed_at, Role::Usual).await;
        }
        Ok(step)
    }

    /// Claims, but for the jobs that make a claim fail. What has too many of them has none but those tried.
    async fn claim(
        &mut self,
        ctx: &Context,
        rooms: &[Room],
        jobs: usize,
    ) -> Result<Vec<Met>, DbError> {
        let mut open = rooms.to_vec();
        open.retain(|room| !self.culprits.is_full(&room.account));
        let names: Vec<String> = open.iter().map(|room| room.account.to_string()).collect();
        let claimed = self
            .culprits
            .run(ctx, &names, jobs, |among| {
                let rooms = match among.only.as_deref() {
                    None => open.as_slice(),
                    // Without reading a long queue for it.
                    Some([]) => &[],
                    Some(_) => rooms,
                };
                claim::claim(
                    &ctx.pool,
                    ctx.worker,
                    ctx.lease,
                    rooms,
                    jobs,
                    among,
                    ctx.clock.second(),
                )
            })
            .await;
        for account in ctx.accounts.open() {
            let refused = self.culprits.of_account(&account.name);
            account.note_refused(u32::try_from(refused).unwrap_or(u32::MAX));
        }
        claimed
    }

    /// How many jobs of each account are claimed ahead of its free slots.
    fn ahead(&mut self, ctx: &Context) -> BTreeMap<AccountName, usize> {
        let now = Instant::now();
        let accounts = ctx.accounts.open();
        let ahead = accounts.iter().map(|account| {
            let pace = self.paces.entry(account.name.clone()).or_default();
            (account.name.clone(), pace.ahead(account.brisk(), now))
        });
        ahead.collect()
    }

    /// Accounts take turns at being first.
    fn rooms(
        &mut self,
        ctx: &Context,
        served: &[Arc<Account>],
        ahead: &BTreeMap<AccountName, usize>,
        all_ahead: usize,
    ) -> (Vec<Room>, usize) {
        let in_all = room(ctx, all_ahead).min(ctx.claim_batch);
        let mut rooms: Vec<Room> = served
            .iter()
            .filter(|account| !ctx.recorder.shelf().is_full(&account.name))
            .map(|account| Room {
                account: account.name.clone(),
                jobs: account
                    .room(ahead[&account.name], &ctx.rules.breaker)
                    .min(in_all),
            })
            .collect();
        self.turn = (self.turn + 1) % rooms.len().max(1);
        rooms.rotate_left(self.turn);
        rooms.retain(|room| room.jobs > 0);
        let jobs = if rooms.is_empty() { 0 } else { in_all };
        (rooms, jobs)
    }
}

/// The memory of the loop that claims trials: which jobs make such a claim fail. It is a loop of its own, so that accounts
/// that have slowed down cost the others nothing.
pub struct Trials {
    culprits: Culprits,
}

impl Default for Trials {
    fn default() -> Trials {
        Trials {
            culprits: Culprits::new(ClaimedTo::Try),
        }
    }
}

impl Trials {
    /// Claims the trials that are due of accounts that have slowed down, and starts their sends. That an account has is
    /// known here a second after another daemon has found out; the usual claim leaves it out from that moment on.
    pub async fn step(&mut self, ctx: &Arc<Context>) -> Result<Step, DbError> {
        let mut slow = ctx.served();
        slow.retain(|account| account.is_slow());
        if slow.is_empty() {
            self.culprits = Culprits::new(ClaimedTo::Try);
            ctx.passed_over.set(FoundBy::Trial, Vec::new());
            return Ok(Step::Idle);
        }
        let jobs = room(ctx, 0).min(ctx.claim_batch);
        let has_room = |account: &&Arc<Account>| {
            !ctx.recorder.shelf().is_full(&account.name) && account.room(0, &ctx.rules.breaker) > 0
        };
        let open = slow.iter().filter(has_room);
        let open: Vec<String> = open.map(|account| account.name.to_string()).collect();
        if open.is_empty() || jobs == 0 {
            return Ok(Step::Idle);
        }
        let claimed_at = Moment::now();
        let asked = ctx.clock.ask();
        let listed = TRIALS_LISTED * open.len();
        let met = self
            .culprits
            .run(ctx, &open, listed, |among| {
                claim::claim_trials(
                    &ctx.pool,
                    ctx.worker,
                    ctx.lease,
                    &open,
                    jobs,
                    among,
                    ctx.clock.second(),
                    ctx.longest_trial(),
                    ctx.trial(),
                )
            })
            .await;
        ctx.passed_over.set(FoundBy::Trial, self.culprits.jobs());
        let (claims, step) = apart(met?);
        for mut claim in claims {
            claim.now = asked.now(claim.now);
            start(ctx, &slow, claim, claimed_at, Role::TrialOfOutage).await;
        }
        Ok(step)
    }
}

/// The claims of what a claim met. It goes on at once if it met anything: behind jobs that stand back from now on
/// there may be others.
fn apart(met: Vec<Met>) -> (Vec<Claim>, Step) {
    let step = if met.is_empty() {
        Step::Idle
    } else {
        Step::Worked
    };
    let claim = |met| match met {
        Met::Claimed(claim) => Some(*claim),
        Met::StandsBack(_) => None,
    };
    (met.into_iter().filter_map(claim).collect(), step)
}

/// How many jobs this daemon may hold more than it holds now, but for those whose gateway is slow.
fn room(ctx: &Context, ahead: usize) -> usize {
    if ctx.recorder.is_waiting() || ctx.recorder.forgotten().is_some() {
        return 0;
    }
    (ctx.concurrency + ahead).saturating_sub(in_hand(ctx))
}

fn in_hand(ctx: &Context) -> usize {
    ctx.sends.len().saturating_sub(ctx.slots.slow())
}

/// While sends are under way and there is little room, waits a little for more: longer as long as there
/// is plenty to send.
async fn gather_room(ctx: &Context, ahead: usize) {
    let enough = ((ctx.concurrency + ahead) / 2).max(1);
    let plenty = ctx.concurrency * 2;
    for time in 0..GATHER_TIMES {
        let in_hand = in_hand(ctx);
        let is_worth_it = if time == 0 {
            in_hand > 0
        } else {
            in_hand > plenty
        };
        if !is_worth_it || room(ctx, ahead) >= enough {
            return;
        }
        tokio::time::sleep(GATHER).await;
    }
}

/// How many jobs of an account to claim ahead of free slots: as many as were answered soon in the last tenth of a second. So
/// they wait about that long for their slot, and of an account whose gateway is slow none is claimed ahead.
#[derive(Default)]
struct Pace {
    measured: Option<(Instant, u64)>,
    ahead: usize,
}

impl Pace {
    const SPAN: Duration = Duration::from_millis(100);

    fn ahead(&mut self, brisk: u64, now: Instant) -> usize {
        let (since, before) = *self.measured.get_or_insert((now, brisk));
        let elapsed = now.duration_since(since);
        if elapsed >= Pace::SPAN {
            let share = Pace::SPAN.as_secs_f64() / elapsed.as_secs_f64();
            self.ahead = (brisk.saturating_sub(before) as f64 * share) as usize;
            self.measured = Some((now, brisk));
        }
        self.ahead
    }
}

async fn start(
    ctx: &Arc<Context>,
    served: &[Arc<Account>],
    claim: Claim,
    claimed_at: Moment,
    role: Role,
) {
    let Some(account) = named(served, &claim.account).cloned() else {
        // Only accounts that were asked for are claimed; the lease would settle it.
        tracing::error!(job.id = %claim.id, account = %claim.account, "claimed a job of an account that is not served");
        return;
    };
    let Some(job) = Job::take(ctx, claim, claimed_at, role) else {
        return;
    };
    let held = account.hold();
    // Queued for here, one after the other, so that slots are given in the order of the claim.
    let mut slot = Box::pin(account.clone().slot(ctx.slots.clone()));
    let at_once = poll_fn(|task| Poll::Ready(slot.as_mut().poll(task))).await;
    let ctx = ctx.clone();
    ctx.sends.clone().spawn(async move {
        let slot = match at_once {
            Poll::Ready(slot) => slot,
            Poll::Pending => slot.await,
        };
        let work = async {
            send::send(&ctx, &account, job, slot).await;
        };
        rooms::supervised(&ctx, &account, "send", work).await;
        drop(held);
        if ctx.wants_room.load(Ordering::Relaxed) {
            ctx.wake.dispatch.notify_one();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_gateway_has_jobs_claimed_ahead_and_a_slow_one_none() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pace = Pace::default();
        assert_eq!(pace.ahead(0, at(0)), 0);
        assert_eq!(pace.ahead(400, at(50)), 0, "too early to tell");
        assert_eq!(pace.ahead(800, at(100)), 800);
        assert_eq!(
            pace.ahead(1_000, at(150)),
            800,
            "kept until the next measure"
        );
        assert_eq!(pace.ahead(802, at(10_100)), 0);
    }
}
