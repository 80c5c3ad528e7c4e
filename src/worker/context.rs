//! What the loops share. The tasks of an account are given their [room](super::room) instead.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::held_up::HeldUp;
use super::in_hand::InHand;
use super::passed_over::PassedOver;
use super::recorder::Recorder;
use super::room::Room;
use super::room::handles::Handles;
use super::rooms::Rooms;
use super::slots::Slots;
use super::steady::SteadyClock;
use super::unstored::Unstored;
use super::wake::Wake;
use crate::alert::Webhook;
use crate::db::Pool;
use crate::domain::account::AccountName;
use crate::domain::times::SEND_WINDOW;
use crate::policy::outage::longest_trial;
use crate::policy::rules::Rules;

/// Everything the loops share.
pub struct Context {
    /// The database.
    pub pool: Pool,
    /// Its own connections, to see what keeps the others waiting.
    pub lookout: Pool,
    /// This process, random for each start: a worker that comes back is another one.
    pub worker: Uuid,
    /// The machine that it runs on.
    pub host: Arc<str>,
    /// The rooms of the accounts that it serves.
    pub rooms: Rooms,
    /// What decisions depend on.
    pub rules: Arc<Rules>,
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
    pub passed_over: Arc<PassedOver>,
    /// Invoices and refunds of which nothing can be stored now.
    pub unstored: Unstored,
    /// Accounts that cannot begin to be served.
    pub held_up: HeldUp,
    /// The time that the quota is counted by.
    pub clock: Arc<SteadyClock>,
    /// The writer of outcomes.
    pub recorder: Arc<Recorder>,
    /// Claims that are in hand.
    pub in_hand: InHand,
    /// Slots for the requests of sends, of all accounts.
    pub slots: Slots,
    /// Jobs that are claimed and not finished; a stop waits for them.
    pub sends: TaskTracker,
    /// Tasks of the accounts beside their sends; a stop waits for them.
    pub tasks: TaskTracker,
    /// Set when the daemon is told to stop: what was not sent yet stays unsent.
    pub stop: CancellationToken,
    /// Wakes the loops before their timers.
    pub wake: Arc<Wake>,
    /// What does not move, for the status line.
    pub standstill: Mutex<Option<String>>,
}

impl Context {
    /// The names of all accounts, for statements.
    pub fn account_names(&self) -> Vec<String> {
        let open = self.rooms.open().into_iter();
        open.map(|room| room.name.to_string()).collect()
    }

    /// Whether this account is one of them.
    pub fn has(&self, account: &AccountName) -> bool {
        let mut open = self.rooms.open().into_iter();
        open.any(|room| room.name == *account)
    }

    /// The rooms of the accounts of which the gateway may be asked anything: their key is known to be of their organization.
    pub fn served(&self) -> Vec<Arc<Room>> {
        let open = self.rooms.open().into_iter();
        open.filter(|room| room.serves()).collect()
    }

    /// What a room has of all this.
    pub fn handles(&self) -> Handles {
        Handles {
            pool: self.pool.clone(),
            worker: self.worker,
            host: self.host.clone(),
            lease: self.lease,
            in_hand: self.in_hand.clone(),
            passed_over: self.passed_over.clone(),
            recorder: self.recorder.clone(),
            wake: self.wake.clone(),
            clock: self.clock.clone(),
            rules: self.rules.clone(),
            slots: self.slots.clone(),
            sends: self.sends.clone(),
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
        }
    }

    /// Notes what does not move, or that all does.
    pub(super) fn stand_still(&self, what: Option<String>) {
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
        longest_trial(&self.rules, self.lease)
    }

    /// How long a trial may take from its claim to its record: should its worker die, the next one is made
    /// then, by whoever comes, and not only when the lease has run out.
    pub fn trial(&self) -> Duration {
        (self.rules.request_timeout + SEND_WINDOW * 2).min(self.lease)
    }
}
