//! Claims due jobs and hands each to its room, which sends it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::crash::{self, Point};
use crate::db::DbError;
use crate::db::among::ClaimedTo;
use crate::db::claim::{self, Granted, Met, Share};
use crate::domain::account::AccountName;
use crate::worker::clock::Moment;
use crate::worker::context::Context;
use crate::worker::culprits::Culprits;
use crate::worker::passed_over::FoundBy;
use crate::worker::pulse::Step;
use crate::worker::room::Room;
use crate::worker::room::handles::Handles;
use crate::worker::rooms::named;
use crate::worker::send::{self, Role, Sending};
use crate::worker::steady::Asked;

/// The claiming loop's memory: whose turn it is, and which jobs make a claim fail.
pub struct Dispatcher {
    turn: usize,
    culprits: Culprits,
}

/// How long a claim waits for more free slots while requests are in flight: one statement for several
/// jobs costs the database a fraction of one for each.
const GATHER: Duration = Duration::from_millis(3);

/// How often it waits while more jobs are in hand than can be sent at once.
const GATHER_TIMES: usize = 10;

/// Jobs of each account among which the one is searched that makes the claim of a trial fail.
const TRIALS_LISTED: usize = 20;

impl Dispatcher {
    /// Nothing was claimed yet.
    pub fn new(handles: &Handles) -> Dispatcher {
        Dispatcher {
            turn: 0,
            culprits: Culprits::new(ClaimedTo::Send, handles),
        }
    }

    /// Claims as many jobs as can be taken, and starts their sends.
    pub async fn step(&mut self, ctx: &Arc<Context>) -> Result<Step, DbError> {
        // Before the free slots are counted, so that a send that ends meanwhile does not go unnoticed.
        ctx.wake.wants_slots.store(true, Ordering::Relaxed);
        let ahead = ahead(ctx);
        let all_ahead = ahead.values().sum::<usize>().min(ctx.claim_batch);
        gather(ctx, all_ahead).await;
        let served = ctx.served();
        let (shares, jobs) = self.shares(ctx, &served, &ahead, all_ahead);
        if jobs == 0 {
            return Ok(Step::Skipped);
        }
        let sent = self.send_usual(ctx, &served, &shares, jobs).await;
        ctx.passed_over.set(FoundBy::Claim, self.culprits.jobs());
        sent
    }

    async fn send_usual(
        &mut self,
        ctx: &Arc<Context>,
        served: &[Arc<Room>],
        shares: &[Share],
        jobs: usize,
    ) -> Result<Step, DbError> {
        crash::reach(Point::BeforeClaim);
        let claimed_at = Moment::now();
        let asked = ctx.clock.ask();
        let (granted, step) = apart(self.claim(ctx, shares, jobs).await?);
        if !granted.is_empty() {
            crash::reach(Point::AfterClaim);
        }
        let claims = || granted.iter().flat_map(|granted| granted.claims.iter());
        let is_full = |share: &Share| {
            let of_account = claims().filter(|claim| claim.account == share.account);
            of_account.count() >= share.jobs
        };
        let wants_slots =
            shares.len() < served.len() || shares.iter().any(is_full) || claims().count() >= jobs;
        ctx.wake.wants_slots.store(wants_slots, Ordering::Relaxed);
        for granted in granted {
            start(served, granted, asked, claimed_at, Role::Usual).await;
        }
        Ok(step)
    }

    /// Claims due jobs except those that are known to make a claim fail. An account with too many such jobs gets no new
    /// claims; only those jobs are retried.
    async fn claim(
        &mut self,
        ctx: &Context,
        shares: &[Share],
        jobs: usize,
    ) -> Result<Vec<Met>, DbError> {
        let mut open = shares.to_vec();
        open.retain(|share| !self.culprits.is_full(&share.account));
        let names: Vec<String> = open.iter().map(|share| share.account.to_string()).collect();
        let claimed = self
            .culprits
            .run(&names, jobs, |among| {
                let shares = match among.only.as_deref() {
                    None => open.as_slice(),
                    // Without reading a long queue for it.
                    Some([]) => &[],
                    Some(_) => shares,
                };
                claim::claim(
                    &ctx.pool,
                    ctx.worker,
                    ctx.lease,
                    shares,
                    jobs,
                    among,
                    ctx.clock.second(),
                )
            })
            .await;
        for room in ctx.rooms.open() {
            let refused = self.culprits.of_account(&room.name);
            room.jobs
                .note_refused(u32::try_from(refused).unwrap_or(u32::MAX));
        }
        claimed
    }

    /// Accounts take turns at being first.
    fn shares(
        &mut self,
        ctx: &Context,
        served: &[Arc<Room>],
        ahead: &BTreeMap<AccountName, usize>,
        all_ahead: usize,
    ) -> (Vec<Share>, usize) {
        let in_all = free(ctx, all_ahead).min(ctx.claim_batch);
        let mut shares: Vec<Share> = served
            .iter()
            .filter(|room| !ctx.recorder.shelf().is_full(&room.name))
            .map(|room| Share {
                account: room.name.clone(),
                jobs: room.free(ahead[&room.name]).min(in_all),
            })
            .collect();
        self.turn = (self.turn + 1) % shares.len().max(1);
        shares.rotate_left(self.turn);
        shares.retain(|share| share.jobs > 0);
        let jobs = if shares.is_empty() { 0 } else { in_all };
        (shares, jobs)
    }
}

/// How many jobs of each account are claimed ahead of its free slots.
fn ahead(ctx: &Context) -> BTreeMap<AccountName, usize> {
    let now = Instant::now();
    let rooms = ctx.rooms.open();
    let ahead = rooms
        .iter()
        .map(|room| (room.name.clone(), room.pace.ahead(now)));
    ahead.collect()
}

/// The memory of the loop that claims trials: which jobs make such a claim fail. It is a loop of its own, so that accounts
/// that have slowed down cost the others nothing.
pub struct Trials {
    culprits: Culprits,
}

impl Trials {
    /// No trial was claimed yet.
    pub fn new(handles: &Handles) -> Trials {
        Trials {
            culprits: Culprits::new(ClaimedTo::Try, handles),
        }
    }

    /// Claims the trials that are due of accounts that have slowed down, and starts their sends. That an account has is
    /// known here a second after another daemon has found out; the usual claim leaves it out from that moment on.
    pub async fn step(&mut self, ctx: &Arc<Context>) -> Result<Step, DbError> {
        let mut slow = ctx.served();
        slow.retain(|room| room.outages.is_slow());
        if slow.is_empty() {
            self.culprits = Culprits::new(ClaimedTo::Try, &ctx.handles());
            ctx.passed_over.set(FoundBy::Trial, Vec::new());
            return Ok(Step::Skipped);
        }
        let jobs = free(ctx, 0).min(ctx.claim_batch);
        let is_open =
            |room: &&Arc<Room>| !ctx.recorder.shelf().is_full(&room.name) && room.free(0) > 0;
        let open = slow.iter().filter(is_open);
        let open: Vec<String> = open.map(|room| room.name.to_string()).collect();
        if open.is_empty() || jobs == 0 {
            return Ok(Step::Skipped);
        }
        let claimed_at = Moment::now();
        let asked = ctx.clock.ask();
        let listed = TRIALS_LISTED * open.len();
        let met = self
            .culprits
            .run(&open, listed, |among| {
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
        let (granted, step) = apart(met?);
        for granted in granted {
            start(&slow, granted, asked, claimed_at, Role::TrialOfOutage).await;
        }
        Ok(step)
    }
}

/// The claimed jobs of what a claim returned. If it returned anything, the next claim follows at once: behind jobs that
/// now wait in turn there may be others.
fn apart(met: Vec<Met>) -> (Vec<Granted>, Step) {
    let step = if met.is_empty() {
        Step::Idle
    } else {
        Step::Worked
    };
    let granted = |met| match met {
        Met::Claimed(granted) => Some(*granted),
        Met::StandsBack(_) => None,
    };
    (met.into_iter().filter_map(granted).collect(), step)
}

/// How many jobs this daemon may hold more than it holds now, but for those whose gateway is slow.
fn free(ctx: &Context, ahead: usize) -> usize {
    if ctx.recorder.is_waiting() || ctx.recorder.forgotten().is_some() {
        return 0;
    }
    (ctx.concurrency + ahead).saturating_sub(in_hand(ctx))
}

fn in_hand(ctx: &Context) -> usize {
    ctx.sends.len().saturating_sub(ctx.slots.slow())
}

/// While sends are under way and few slots are free, waits a little for more: longer as long as there
/// is plenty to send.
async fn gather(ctx: &Context, ahead: usize) {
    let enough = ((ctx.concurrency + ahead) / 2).max(1);
    let plenty = ctx.concurrency * 2;
    for time in 0..GATHER_TIMES {
        let in_hand = in_hand(ctx);
        let is_worth_it = if time == 0 {
            in_hand > 0
        } else {
            in_hand > plenty
        };
        if !is_worth_it || free(ctx, ahead) >= enough {
            return;
        }
        tokio::time::sleep(GATHER).await;
    }
}

/// Hands what was claimed for one request to its room.
async fn start(
    served: &[Arc<Room>],
    mut granted: Granted,
    asked: Asked,
    claimed_at: Moment,
    role: Role,
) {
    for claim in granted.claims.iter_mut() {
        claim.now = asked.now(claim.now);
    }
    let first = granted.claims.first();
    let Some(room) = named(served, &first.account) else {
        // Only accounts that were asked for are claimed; the lease would settle it.
        tracing::error!(job.id = %first.id, account = %first.account, "claimed a job of an account that is not served");
        return;
    };
    if let Some(sending) = Sending::take(room, granted, claimed_at, role) {
        send::start(room, sending).await;
    }
}
