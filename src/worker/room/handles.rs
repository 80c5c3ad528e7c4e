//! What a room has of the rest of the daemon: where claims and quota come from, where outcomes go, and whom to wake.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::db::Pool;
use crate::policy::rules::Rules;
use crate::worker::in_hand::InHand;
use crate::worker::passed_over::PassedOver;
use crate::worker::recorder::Recorder;
use crate::worker::slots::Slots;
use crate::worker::steady::SteadyClock;
use crate::worker::wake::Wake;

/// Handles to what all rooms share. None of them leads to another account.
#[derive(Clone)]
pub struct Handles {
    /// The database.
    pub pool: Pool,
    /// This process, in whose name jobs are claimed.
    pub worker: Uuid,
    /// The machine that it runs on.
    pub host: Arc<str>,
    /// How long a claim holds a job.
    pub lease: Duration,
    /// Claims that are in hand.
    pub in_hand: InHand,
    /// Jobs that nobody can move now.
    pub passed_over: Arc<PassedOver>,
    /// The way to the writer of outcomes.
    pub recorder: Arc<Recorder>,
    /// Wakes the loops before their timers.
    pub wake: Arc<Wake>,
    /// The time that the quota is counted by.
    pub clock: Arc<SteadyClock>,
    /// What decisions depend on.
    pub rules: Arc<Rules>,
    /// Slots for the requests of sends, of all accounts.
    pub slots: Slots,
    /// Jobs that are claimed and not finished; a stop waits for them.
    pub sends: TaskTracker,
    /// Tasks beside the sends; a stop waits for them.
    pub tasks: TaskTracker,
    /// Set when the daemon is told to stop: what was not sent yet stays unsent.
    pub stop: CancellationToken,
}
