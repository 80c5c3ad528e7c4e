//! An account's room: all that belongs to one account at run time, in one place, and the supervision of the tasks that
//! work for it.
//!
//! The loops only find what is due, and hand each room its part: whatever waits for an answer of the gateway is a
//! task of the account, and is given its room and nothing else. So an account whose gateway is slow makes nobody wait but
//! itself, and no task can reach what belongs to another account.

pub mod client;
pub mod handles;
pub mod jobs;
pub mod modes;
pub mod outages;
pub mod pace;
pub mod park;
pub mod places;
pub mod probing;
pub mod rate;
pub mod serving;

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tracing::error;

use crate::crash;
use crate::db::DbError;
use crate::db::claim::{self, Purpose};
use crate::domain::account::{AccountName, DuplicateProtection};
use crate::domain::answer::Timed;
use crate::domain::operation::Request;
use crate::domain::outage::Read;
use crate::domain::times::SEND_WINDOW;
use crate::policy::division::Division;
use crate::policy::judge::Circumstances;
use crate::policy::outage::{Errand, longest_trial};
use crate::worker::alerting::Alert;
use crate::worker::clock::Moment;
use crate::worker::jitter::jitter;
use crate::worker::open;
use crate::worker::outcome::Following;
use crate::worker::slots::Slot;
use client::Client;
use handles::Handles;
use jobs::Jobs;
use outages::Outages;
use pace::Pace;
use park::Park;
use places::Places;
use probing::Probing;

/// An account at run time.
pub struct Room {
    /// Its name.
    pub name: AccountName,
    /// What it may rely on against a second invoice.
    pub protection: DuplicateProtection,
    /// Requests of its sends in flight at once.
    pub concurrency: usize,
    /// Its limit at the gateway.
    pub requests_per_minute: u32,
    /// The account's HTTP client, and whether it may be used.
    pub client: Client,
    /// Whether it is parked, and how fast it begins again.
    pub park: Park,
    /// The jobs that are claimed for it.
    pub jobs: Jobs,
    /// How fast its sends are answered.
    pub pace: Pace,
    /// Its requests that got no clear answer.
    pub outages: Outages,
    /// Places for its tasks beside its sends.
    pub places: Places,
    /// What its probes have come to.
    pub probing: Probing,
    /// What it has of the rest of the daemon.
    pub handles: Handles,
    slots: Arc<Semaphore>,
    division: Mutex<Division>,
    made_at: Moment,
}

impl Room {
    /// The room of an account of which nothing is known yet.
    pub fn new(
        name: AccountName,
        client: Client,
        protection: DuplicateProtection,
        concurrency: usize,
        requests_per_minute: u32,
        handles: Handles,
    ) -> Room {
        Room {
            name,
            protection,
            concurrency,
            requests_per_minute,
            client,
            park: Park::default(),
            jobs: Jobs::default(),
            pace: Pace::default(),
            outages: Outages::default(),
            places: Places::default(),
            probing: Probing::new(&handles),
            handles,
            slots: Arc::new(Semaphore::new(concurrency)),
            division: Mutex::default(),
            made_at: Moment::now(),
        }
    }

    /// Asks the gateway, once (see [`Client::call`]).
    pub async fn call(&self, request: &Request) -> Timed {
        self.client.call(request).await
    }

    /// Whether the gateway may be asked anything for the account (see [`serves`](serving::Serving::serves)).
    pub fn serves(&self) -> bool {
        self.client.serving.serves()
    }

    /// Whether a job that was claimed at this moment may still be sent.
    pub fn may_send(&self, claimed_at: Moment) -> bool {
        self.serves() && self.park.allows(claimed_at)
    }

    /// What a read of this kind is for that waits for no trial: it is one, where one is due.
    pub fn errand(&self, read: Read) -> Errand {
        let (now, longest) = (self.handles.clock.expected(), self.longest_trial());
        let until = now + self.handles.rules.request_timeout;
        Errand::read(read, self.outages.take_trial(read, now, longest, until))
    }

    /// Whether a read of this kind may be made (see [`Outage::may_read`](crate::domain::outage::Outage::may_read)).
    pub fn may_read(&self, read: Read) -> bool {
        let now = self.handles.clock.expected();
        self.outages.may_read(read, now, self.longest_trial())
    }

    fn longest_trial(&self) -> Duration {
        longest_trial(&self.handles.rules, self.handles.lease)
    }

    /// How many more jobs may be claimed: free slots, and `ahead` more unless the account is in its
    /// slow start.
    pub fn free(&self, ahead: usize) -> usize {
        let rules = &self.handles.rules.breaker;
        let limit = self.park.limit(self.concurrency, ahead, rules);
        limit.saturating_sub(self.jobs.claimed())
    }

    /// Waits for a slot of the account, and then of the daemon.
    pub async fn slot(self: Arc<Self>) -> Slot {
        self.handles.slots.clone().take(&self.slots).await
    }

    /// Takes one more request from the account's quota. One that was granted so late that the quota would
    /// soon forget it is not granted: like any that is not used, it comes back by itself.
    pub async fn take_one(&self, purpose: Purpose) -> Result<bool, DbError> {
        let asked_at = Moment::now();
        let (pool, second) = (&self.handles.pool, self.handles.clock.second());
        let is_granted = claim::take_one(pool, &self.name, purpose, second).await?;
        Ok(is_granted && asked_at.elapsed() <= SEND_WINDOW)
    }

    /// What a decision depends on, at this moment of the database's clock (see [`Asked`](super::steady::Asked)).
    pub fn circumstances(&self, now: OffsetDateTime) -> Circumstances<'_> {
        Circumstances {
            rules: &self.handles.rules,
            now,
            jitter: jitter(),
            refusals: self.client.refusals.count(),
            is_slow: self.outages.is_slow(),
        }
    }

    /// When what the gateway has just shown of the account is looked at again.
    pub fn following(&self) -> Following<'_> {
        Following {
            rules: &self.handles.rules.follow,
            jitter: jitter(),
            key: self.client.fingerprint(),
            seen_at: self.handles.clock.expected(),
        }
    }

    /// What is known of its invoices that cannot be shown.
    pub fn division(&self) -> MutexGuard<'_, Division> {
        self.division.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For how long it has been known here, by a clock that nobody sets.
    pub fn age(&self) -> Duration {
        self.made_at.elapsed()
    }

    /// Runs a task of the account, which a stop waits for.
    pub fn spawn(
        self: &Arc<Self>,
        what: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let (room, work) = (self.clone(), Box::pin(work));
        let tasks = &self.handles.tasks;
        tasks.spawn(async move { room.supervise(what, work).await });
    }

    /// Does a task's work. One that panics is told; what it had in hand is claimed again when its lease is over, and no
    /// other task is concerned. The work has its own place in memory: it is large, and each future around it would hold it
    /// once more.
    pub async fn supervise(&self, what: &'static str, work: Pin<Box<impl Future<Output = ()>>>) {
        let work = async {
            crash::panic_in(what);
            work.await;
        };
        // Whatever it had changed is in the database, or behind locks that do not mind a panic.
        if AssertUnwindSafe(work).catch_unwind().await.is_err() {
            error!(account = %self.name, task = what, "a task of the account panicked, which is a fault of apipayd; what it had in hand is taken up again");
            let Handles { pool, wake, .. } = &self.handles;
            let alert = Alert::panicked(&self.name, what);
            open::try_to_open(pool, wake, &self.name, &alert).await;
        }
    }
}
