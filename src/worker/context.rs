//! What the loops and the tasks of the accounts share.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::account::Account;
use super::accounts::Accounts;
use super::clock::Moment;
use super::held_up::HeldUp;
use super::in_hand::InHand;
use super::jitter::jitter;
use super::outcome::Following;
use super::passed_over::PassedOver;
use super::recorder::Recorder;
use super::send;
use super::slots::Slots;
use super::steady::SteadyClock;
use super::unstored::Unstored;
use super::wake::Wake;
use crate::alert::Webhook;
use crate::db::claim::{self, Purpose};
use crate::db::{DbError, Pool};
use crate::domain::account::AccountName;
use crate::policy::judge::Circumstances;
use crate::policy::outage::longest;
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

    /// What a decision depends on, at this moment of the database's clock (see [`Asked`](super::steady::Asked)).
    pub fn circumstances(&self, account: &Account, now: OffsetDateTime) -> Circumstances<'_> {
        Circumstances {
            rules: &self.rules,
            now,
            jitter: jitter(),
            refusals: account.refusals(),
            is_slow: account.is_slow(),
        }
    }

    /// When what the gateway has just shown of an account is looked at again.
    pub fn following<'a>(&'a self, account: &'a Account) -> Following<'a> {
        Following {
            rules: &self.rules.follow,
            jitter: jitter(),
            key: account.fingerprint(),
            seen_at: self.clock.expected(),
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
        longest(&self.rules).max(self.lease)
    }

    /// How long a trial may take from its claim to its record: should its worker die, the next one is made
    /// then, by whoever comes, and not only when the lease has run out.
    pub fn trial(&self) -> Duration {
        (self.rules.request_timeout + send::SEND_WINDOW * 2).min(self.lease)
    }
}
