//! The only place that loops: claim → call → decide → record.
//!
//! Each loop is a reconciler: its step compares what is with what should be and does one bounded
//! piece of work, takes no input, and may run at any time. A signal or a timer only says when. A
//! step is never dropped half-way: an answer of the gateway would be lost with it.
//!
//! - [`start`] does what is done once for each account, past those that somebody keeps locked.
//! - [`organization`] finds out whether an account's key is of its organization; before that nothing of it is asked.
//! - [`dispatch`] claims due jobs and hands each to [`send`], within the [send window](crate::domain::times::SEND_WINDOW); [`in_hand`] notices when one is given twice.
//! - [`lookup`] finds out what became of uncertain jobs.
//! - [`locks`] tells of due jobs that somebody keeps locked.
//! - [`find`] asks for a job's objects at the gateway as its look-up says, and [`given_back`] has whatever a list of refunds
//!   shows of jobs that have ended recorded and told.
//! - [`follow`] watches accepted objects to their end, past those of which nothing can be stored ([`unstored`]).
//! - [`written`] has moments as sentences have them.
//! - [`context`] is what the loops share, and [`guard`] says which job a record may change.
//! - [`slots`] bound how many requests of sends are under way at once.
//! - [`room`] is all that belongs to one account: its client, its places, what is known of it. Sends, look-ups, follow-ups
//!   and probes are its tasks, and are given nothing else. [`rooms`] come and go while all this runs.
//! - [`probe`] asks whether parked accounts are well again.
//! - [`recover`] moves jobs whose time has come: expired leases, expired jobs, the end of an outage, those that
//!   waited for another.
//! - [`alerts`] opens those that are missing and ends those whose cause is gone; [`tell_failing`], [`tell_refused`] and
//!   [`tell_mode`] keep three kinds up to date, and [`unserved`] ends what was told of accounts that nobody serves any
//!   more. [`deliver`] carries them out, each channel in a loop of its own.
//! - [`pulse`] runs each loop, and has what a loop shows of itself.
//! - [`progress`] looks from outside whether all that moves anything.
//! - [`keep_time`] notices when the database's clock is set.
//! - [`oversee`] reads the accounts' states and writes the status line.
//! - [`culprits`] finds the jobs that make a claim fail, [`passed_over`] keeps those that nobody can move now, and
//!   [`plan`] reads a job's params.
//! - [`recorder`] is the way to the one [`writer`] of outcomes: [`record`] writes them, [`aside`] holds those that the
//!   database does not take ([`set_aside`]), [`signals`] tells their accounts, with [`failing`], which gathers what
//!   answers say of the gateway, and [`quotas`] corrects what is left of their quotas. [`outcome`] turns decisions into
//!   its rows.
//! - [`alerting`] has the words for people, [`open`] opens an alert, [`held`] tells on of held jobs, and [`held_up`]
//!   knows which accounts cannot begin or be changed.
//! - [`spell`] logs what a loop meets again and again once for each spell of it.
//! - [`wake`] wakes the loops, [`patience`] says how long they wait for a database that fails, and [`jitter`] is the
//!   randomness of decisions.

pub mod alerting;
pub mod alerts;
pub mod aside;
pub mod clock;
pub mod context;
pub mod culprits;
pub mod deliver;
pub mod dispatch;
pub mod failing;
pub mod find;
pub mod follow;
pub mod given_back;
pub mod guard;
pub mod held;
pub mod held_up;
pub mod in_hand;
pub mod jitter;
pub mod keep_time;
pub mod listen;
pub mod locks;
pub mod lookup;
pub mod missing;
pub mod open;
pub mod organization;
pub mod outcome;
pub mod oversee;
pub mod passed_over;
pub mod patience;
pub mod plan;
pub mod probe;
pub mod progress;
pub mod pulse;
pub mod quotas;
pub mod record;
pub mod recorder;
pub mod recover;
pub mod revived;
pub mod room;
pub mod rooms;
pub mod send;
pub mod set_aside;
pub mod signals;
pub mod slots;
pub mod spell;
pub mod start;
pub mod steady;
pub mod tell_failing;
pub mod tell_mode;
pub mod tell_refused;
pub mod unserved;
pub mod unstored;
pub mod wake;
pub mod watch;
pub mod writer;
pub mod written;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use crate::db::among::ClaimedTo;
use context::Context;
use culprits::Culprits;
use progress::Progress;
use pulse::{Pulse, run_loop};
use start::Start;

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
    let mut dispatcher = dispatch::Dispatcher::new(&ctx.handles());
    spawn!(
        "dispatch",
        ctx.poll_interval,
        |ctx| Some(&ctx.wake.dispatch),
        async move |ctx| dispatcher.step(ctx).await
    );
    let mut trials = dispatch::Trials::new(&ctx.handles());
    spawn!(
        "trials",
        Duration::from_millis(500),
        |ctx| Some(&ctx.wake.trials),
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
    let mut culprits = Culprits::new(ClaimedTo::LookUp, &ctx.handles());
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
    let mut rounds = alerts::Rounds::default();
    spawn!(
        "deliver",
        Duration::from_secs(2),
        |ctx| Some(&ctx.wake.deliver),
        async move |ctx| alerts::step(ctx, &mut rounds).await
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
