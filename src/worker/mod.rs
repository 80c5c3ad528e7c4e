//! The only place that loops: claim → call → decide → record.
//!
//! Each loop is a reconciler: its step compares what is with what should be and does one bounded
//! piece of work, takes no input, and may run at any time. A signal or a timer only says when. A
//! step is never dropped half-way: an answer of the gateway would be lost with it.
//!
//! - [`start`] does what is done once for each account, past those that somebody keeps locked.
//! - [`organization`] finds out whether an account's key is of its organisation; before that nothing of it is asked.
//! - [`dispatch`] claims due jobs and hands each to [`send`]; [`in_hand`] notices when one is given twice.
//! - [`lookup`] finds out what became of uncertain jobs.
//! - [`locks`] tells of due jobs that somebody keeps locked.
//! - [`follow`] watches accepted objects to their end, past those of which nothing can be stored ([`unstored`]).
//! - [`accounts`] are those that are served, which come and go while all this runs.
//! - [`room`] has the places for an account's tasks, and supervises them: look-ups, follow-ups and probes run there.
//! - [`probe`] asks whether parked accounts are well again.
//! - [`recover`] moves jobs whose time has come: expired leases, expired jobs, the end of an outage, those that
//!   waited for another.
//! - [`deliver`] carries alerts out, each channel in a loop of its own; [`tell_failing`] and [`tell_refused`] keep two of them up to date.
//! - [`pulse`] runs each loop, and has what a loop shows of itself.
//! - [`progress`] looks from outside whether all that moves anything.
//! - [`keep_time`] notices when the database's clock is set.
//! - [`oversee`] reads the accounts' states and writes the status line.
//! - [`culprits`] finds the jobs that make a claim fail, [`passed_over`] keeps those that nobody can move now, and
//!   [`plan`] reads a job's params.
//! - [`recorder`] is the one writer of outcomes: [`settle`] records them, [`aside`] holds those that the
//!   database does not take, [`strains`] tells their accounts, with [`failing`], which gathers what answers
//!   say of the gateway. [`outcome`] turns decisions into its rows, and [`alarm`] has the words for people.

pub mod account;
pub mod accounts;
pub mod alarm;
pub mod aside;
pub mod clock;
pub mod culprits;
pub mod deliver;
pub mod dispatch;
pub mod failing;
pub mod follow;
pub mod in_hand;
pub mod keep_time;
pub mod listen;
pub mod locks;
pub mod lookup;
pub mod missing;
pub mod modes;
pub mod organization;
pub mod outcome;
pub mod oversee;
pub mod passed_over;
pub mod plan;
pub mod probe;
pub mod progress;
pub mod pulse;
pub mod recorder;
pub mod recover;
pub mod revived;
pub mod room;
pub mod search;
pub mod send;
pub mod settle;
pub mod start;
pub mod steady;
pub mod strains;
pub mod tell_failing;
pub mod tell_refused;
pub mod unstored;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::alert::Webhook;
use crate::db::among::ClaimedTo;
use crate::db::claim::{self, Purpose};
use crate::db::{DbError, Pool};
use crate::domain::account::AccountName;
use crate::policy::judge::Circumstances;
use crate::policy::outage::longest;
use crate::policy::rules::{Jitter, Rules};
use account::{Account, Slots};
use accounts::Accounts;
use clock::Moment;
use culprits::Culprits;
use in_hand::InHand;
use passed_over::PassedOver;
use progress::Progress;
use pulse::{Pulse, run_loop};
use recorder::Recorder;
use start::{HeldUp, Start};
use steady::SteadyClock;
use unstored::Unstored;

/// Everything the loops share.
pub struct Context {
    /// The database.
    pub pool: Pool,
    /// Its own connections, to see what keeps the others waiting.
    pub lookout: Pool,
    /// This process, random for each start: a worker that comes back is another one.
    pub worker: Uuid,
    /// The machine that it runs on.
    pub host: String,
    /// The accounts that it serves.
    pub accounts: Accounts,
    /// What decisions depend on.
    pub rules: Rules,
    /// How long a claim holds a job.
    pub lease: Duration,
    /// The longest distance of polls for jobs.
    pub poll_interval: Duration,
    /// Most jobs of one claim.
    pub claim_batch: usize,
    /// Sends in flight at once, of all accounts, beside those whose gateway is slow: the number of `slots`.
    pub concurrency: usize,
    /// Where alerts go besides the log.
    pub webhook: Option<Webhook>,
    /// How often an open alert is told again.
    pub alert_repeat: Duration,
    /// Jobs that nobody can move now.
    pub passed_over: PassedOver,
    /// Invoices and refunds of which nothing can be stored now.
    pub unstored: Unstored,
    /// Accounts that cannot begin to be served.
    pub held_up: HeldUp,
    /// The time that the quota is counted by.
    pub clock: SteadyClock,
    /// The writer of outcomes.
    pub recorder: Recorder,
    /// Claims that are in hand.
    pub in_hand: InHand,
    /// Slots for the requests of sends, of all accounts.
    pub slots: Slots,
    /// Jobs that are claimed and not finished; a stop waits for them.
    pub sends: TaskTracker,
    /// Tasks of the accounts beside their sends; a stop waits for them.
    pub tasks: TaskTracker,
    /// Whether the last claim ended for want of room: then the next send that ends wakes it.
    pub wants_room: AtomicBool,
    /// Set when the daemon is told to stop: what was not sent yet stays unsent.
    pub stop: CancellationToken,
    /// Wakes the loops before their timers.
    pub wake: Wake,
    /// What does not move, for the status line.
    pub standstill: Mutex<Option<String>>,
}

/// One signal for each loop that is worth waking.
#[derive(Default)]
pub struct Wake {
    /// There may be due jobs, or free slots.
    pub dispatch: Notify,
    /// Uncertain jobs may be looked up: an account is served from now on.
    pub lookup: Notify,
    /// What was accepted may be asked for: an account has done its last part.
    pub follow: Notify,
    /// Jobs may have to be moved: one has ended that others wait for, or an outage.
    pub recover: Notify,
    /// There may be a notice to deliver.
    pub deliver: Notify,
    /// There may be one for the log.
    pub log: Notify,
    /// There may be one for the webhook.
    pub webhook: Notify,
}

impl Context {
    /// The names of all accounts, for statements.
    pub fn account_names(&self) -> Vec<String> {
        let open = self.accounts.open().into_iter();
        open.map(|account| account.name.to_string()).collect()
    }

    /// The accounts of which the gateway may be asked anything: their key is known to be of their organisation.
    pub fn served(&self) -> Vec<Arc<Account>> {
        let open = self.accounts.open().into_iter();
        open.filter(|account| account.serves()).collect()
    }

    /// What a decision depends on, at this moment of the database's clock (see [`steady::Asked`]).
    pub fn circumstances(&self, account: &Account, now: OffsetDateTime) -> Circumstances<'_> {
        Circumstances {
            rules: &self.rules,
            now,
            jitter: self.jitter(),
            refusals: account.refusals(),
            is_slow: account.is_slow(),
        }
    }

    /// Takes one more request from an account's quota. One that was granted so late that the quota would
    /// soon forget it is not granted: like any that is not used, it comes back by itself.
    pub async fn take_one(&self, account: &AccountName, purpose: Purpose) -> Result<bool, DbError> {
        let asked_at = Moment::now();
        let is_granted = claim::take_one(&self.pool, account, purpose, self.clock.second()).await?;
        Ok(is_granted && asked_at.elapsed() <= send::SEND_WINDOW)
    }

    /// Notes what does not move, or that all does.
    fn stand_still(&self, what: Option<String>) {
        *self
            .standstill
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = what;
    }

    /// What does not move, if anything.
    pub fn standstill(&self) -> Option<String> {
        let what = self
            .standstill
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        what.clone()
    }

    /// No trial or look-up of a failing account is put off for longer.
    pub fn longest_trial(&self) -> Duration {
        longest(&self.rules).max(self.lease)
    }

    /// How long a trial may take from its claim to its record: should its worker die, the next one is made
    /// then, by whoever comes, and not only when the lease has run out.
    pub fn trial(&self) -> Duration {
        (self.rules.request_timeout + send::SEND_WINDOW * 2).min(self.lease)
    }

    /// A fresh random number for a decision.
    pub fn jitter(&self) -> Jitter {
        // The upper 53 bits of a random UUID's 64: what a float between 0 and 1 can hold.
        let random = Uuid::new_v4().as_u64_pair().0 >> 11;
        Jitter::new(random as f64 / (1_u64 << 53) as f64)
    }
}

/// A pulse for each loop, and the loops themselves, spawned on the tracker.
pub fn spawn_loops(
    ctx: &Arc<Context>,
    tracker: &TaskTracker,
    mut progress: Progress,
    mut start: Start,
) -> Vec<Arc<Pulse>> {
    let mut pulses = Vec::new();
    macro_rules! spawn {
        ($name:literal, $interval:expr, $wake:expr, $step:expr) => {{
            let pulse = Arc::new(Pulse::new($name));
            pulses.push(pulse.clone());
            tracker.spawn(run_loop(
                ctx.clone(),
                pulse,
                $interval,
                $wake,
                ctx.stop.clone(),
                $step,
            ));
        }};
    }
    let mut dispatcher = dispatch::Dispatcher::default();
    spawn!(
        "dispatch",
        ctx.poll_interval,
        |ctx| Some(&ctx.wake.dispatch),
        async move |ctx| dispatcher.step(ctx).await
    );
    let mut trials = dispatch::Trials::default();
    spawn!(
        "trials",
        Duration::from_millis(500),
        |_| None,
        async move |ctx| trials.step(ctx).await
    );
    spawn!(
        "start",
        Duration::from_secs(1),
        |_| None,
        async move |ctx| start.step(ctx).await
    );
    let mut organizations = organization::Organizations::default();
    spawn!(
        "organization",
        Duration::from_secs(1),
        |_| None,
        async move |ctx| organizations.step(ctx).await
    );
    let mut keeper = keep_time::Keeper::default();
    spawn!(
        "keep_time",
        Duration::from_secs(1),
        |_| None,
        async move |ctx| keeper.step(ctx).await
    );
    let mut recovery = recover::Recovery::default();
    spawn!(
        "recover",
        Duration::from_secs(1),
        |ctx| Some(&ctx.wake.recover),
        async move |ctx| { recovery.step(ctx).await }
    );
    let mut culprits = Culprits::new(ClaimedTo::LookUp);
    spawn!(
        "lookup",
        Duration::from_millis(500),
        |ctx| Some(&ctx.wake.lookup),
        async move |ctx| lookup::step(ctx, &mut culprits).await
    );
    let mut locks = locks::Locks::default();
    spawn!(
        "locks",
        Duration::from_secs(5),
        |_| None,
        async move |ctx| locks.step(ctx).await
    );
    spawn!(
        "follow",
        Duration::from_millis(500),
        |ctx| Some(&ctx.wake.follow),
        follow::step
    );
    let mut probes = probe::Probes::default();
    spawn!(
        "probe",
        Duration::from_millis(500),
        |_| None,
        async move |ctx| probes.step(ctx).await
    );
    let mut standing = deliver::Standing::default();
    spawn!(
        "deliver",
        Duration::from_secs(2),
        |ctx| Some(&ctx.wake.deliver),
        async move |ctx| deliver::step(ctx, &mut standing).await
    );
    spawn!(
        "deliver to the log",
        Duration::from_secs(2),
        |ctx| Some(&ctx.wake.log),
        async move |ctx| deliver::empty(ctx, deliver::LOG).await
    );
    if ctx.webhook.is_some() {
        spawn!(
            "deliver to the webhook",
            Duration::from_secs(2),
            |ctx| Some(&ctx.wake.webhook),
            async move |ctx| deliver::empty(ctx, deliver::WEBHOOK).await
        );
    }
    let watched = pulses.clone();
    spawn!(
        "progress",
        progress::interval(ctx),
        |_| None,
        async move |ctx| progress.step(ctx, &watched).await
    );
    pulses
}
