//! The database: a job's row and the guarded statements that change it.
//!
//! Each function mirrors one statement of `src/db`, named in its comment, with the columns that the
//! protocol depends on. A statement is atomic and commits or does not; whether its worker hears of
//! that is the protocol's matter.

use apipayd::domain::state::State as Status;

use crate::setup::{Op, Setup, Variant};
use crate::time::{LEASE, QUIET, REQUEST, SETTLE, is_lease_over};

/// A row of `apipay.jobs`, with the one open attempt of its that matters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Row {
    /// `state`, as the daemon has it: the protocol has a `State` of its own. Cancelled stands for expired too.
    pub(crate) status: Status,
    /// `epoch`. Only compared, so unused numbers are closed up after each step.
    pub(crate) epoch: u8,
    /// The epoch of the open attempt of kind `send`: at most one, by `attempts_one_open_send`.
    pub(crate) open_send: Option<u8>,
    /// Ticks since the lease was given (`leased_until`).
    pub(crate) lease_age: u8,
    /// Ticks until `run_at`.
    pub(crate) due_in: u8,
    /// `attempts`
    pub(crate) attempts: u8,
    /// Ticks since `unproven_since`.
    pub(crate) unproven: Option<u8>,
    /// Ticks since `absent_since`.
    pub(crate) absent: Option<u8>,
    /// `invoice_id` of a create, once known.
    pub(crate) object: Option<u8>,
    /// `baseline`: the refunds that were known before, one bit each.
    pub(crate) baseline: Option<u8>,
}

impl Row {
    /// A row as the user inserts it.
    pub(crate) fn new() -> Row {
        Row {
            status: Status::Queued,
            epoch: 0,
            open_send: None,
            lease_age: 0,
            due_in: 0,
            attempts: 0,
            unproven: None,
            absent: None,
            object: None,
            baseline: None,
        }
    }

    /// The predicate of the index `jobs_one_open_refund`.
    pub(crate) fn is_open_refund(&self) -> bool {
        match self.status {
            Status::Sending | Status::Uncertain | Status::Accepted | Status::Held => true,
            Status::Queued | Status::Parked => self.unproven.is_some(),
            Status::Succeeded | Status::Failed | Status::Cancelled | Status::Expired => false,
        }
    }

    /// Lets a tick pass. Ages stop where no decision tells them apart.
    pub(crate) fn tick(&mut self, setup: &Setup) {
        let older = |age: u8, oldest: u8| (age + 1).min(oldest);
        if self.status == Status::Sending {
            self.lease_age = older(self.lease_age, LEASE);
        }
        self.due_in = self.due_in.saturating_sub(1);
        // Without a give-up nothing depends on the age.
        let oldest = setup.give_up.unwrap_or(0);
        self.unproven = self.unproven.map(|age| older(age, oldest));
        self.absent = self.absent.map(|age| older(age, SETTLE));
    }

    /// Forgets what no statement reads in this state.
    pub(crate) fn forget(&mut self) {
        if !matches!(self.status, Status::Queued | Status::Uncertain) {
            self.due_in = 0;
        }
        if self.status != Status::Sending {
            self.lease_age = 0;
        }
        if self.status.is_final() || self.status == Status::Held {
            *self = Row {
                status: self.status,
                epoch: self.epoch,
                open_send: self.open_send,
                ..Row::new()
            };
        }
    }
}

/// What a worker decided, as the statement that records it takes it: the fields of
/// `db::entry::Transition` that the protocol depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Move {
    /// The attempt to close: a send's. A look-up's has no part in the protocol.
    pub(crate) closes_send: bool,
    /// `from_state`
    pub(crate) from: Status,
    /// `state`
    pub(crate) to: Status,
    /// `after_s`
    pub(crate) after: Option<u8>,
    /// `counts`
    pub(crate) counts: bool,
    /// `unproven`
    pub(crate) unproven: bool,
    /// `proven`
    pub(crate) proven: bool,
    /// `absent`
    pub(crate) absent: bool,
    /// `invoice_id`
    pub(crate) object: Option<u8>,
    /// Whether the account is to be parked before this is recorded.
    pub(crate) parks: bool,
}

impl Move {
    /// Back to the look-up, because the key may be free by now. The daemon does not do this yet.
    pub(crate) const LOOK_UP_FIRST: Move = Move {
        closes_send: true,
        from: Status::Sending,
        to: Status::Uncertain,
        after: Some(0),
        counts: false,
        unproven: false,
        proven: false,
        absent: false,
        object: None,
        parks: false,
    };
}

/// `db/claim.sql`, and `db/claim_trial_of_park.sql` when the account is parked. Returns the epoch.
///
/// The account's state and the due date are the caller's to check; one open refund per invoice is
/// checked here.
pub(crate) fn claim(rows: &mut [Row], job: usize, setup: &Setup) -> Option<u8> {
    let others_open = || {
        rows.iter()
            .enumerate()
            .any(|(other, row)| other != job && row.is_open_refund())
    };
    if setup.operation == Op::Refund && others_open() {
        return None;
    }
    let row = &mut rows[job];
    if setup.variant == Variant::NoIntentRow {
        return Some(row.epoch);
    }
    // The unique index attempts_one_open_send would fail the whole statement.
    if row.open_send.is_some() {
        return None;
    }
    row.status = Status::Sending;
    row.epoch += 1;
    row.lease_age = 0;
    row.open_send = Some(row.epoch);
    Some(row.epoch)
}

/// `db::claim::renew`: keeps the first, renews the lease. False: the job is not ours.
pub(crate) fn store_baseline(row: &mut Row, epoch: u8, baseline: u8) -> bool {
    let ours = row.epoch == epoch && row.status == Status::Sending && !is_lease_over(row.lease_age);
    if ours {
        row.baseline = row.baseline.or(Some(baseline));
        row.lease_age = 0;
    }
    ours
}

/// `db/record.sql`: moves the job if it is still in the state and epoch of the decision, and closes
/// the attempt in any case. Zero rows moved is a stale worker: nothing else happens.
pub(crate) fn record(row: &mut Row, epoch: u8, outcome: &Move, setup: &Setup) {
    if outcome.closes_send && row.open_send == Some(epoch) {
        row.open_send = None;
    }
    if !holds(row, epoch, outcome, setup) {
        return;
    }
    row.attempts = (row.attempts + u8::from(outcome.counts)).min(setup.attempts);
    row.due_in = outcome.after.unwrap_or(row.due_in);
    row.object = outcome.object.or(row.object);
    row.unproven = match () {
        () if outcome.proven => None,
        () if outcome.unproven => row.unproven.or(Some(0)),
        () => row.unproven,
    };
    row.absent = match () {
        () if outcome.absent => row.absent.or(Some(0)),
        () if outcome.from == Status::Uncertain && outcome.to == Status::Uncertain => row.absent,
        () => None,
    };
    row.status = outcome.to;
}

/// The guard of `db/record.sql`: `j.epoch = t.epoch and j.state = t.from_state`.
pub(crate) fn holds(row: &Row, epoch: u8, outcome: &Move, setup: &Setup) -> bool {
    let from = match (setup.variant, outcome.from) {
        (Variant::SettleUnguarded, _) => return true,
        (Variant::NoIntentRow, Status::Sending) => Status::Queued,
        (_, from) => from,
    };
    row.epoch == epoch && row.status == from
}

/// `db/recover.sql`, with the quiet period that worker/recover.rs gives it.
pub(crate) fn recover(row: &mut Row, setup: &Setup) {
    row.open_send = row.open_send.filter(|epoch| *epoch != row.epoch);
    row.epoch += 1;
    row.attempts = (row.attempts + 1).min(setup.attempts);
    if setup.variant == Variant::RescueToQueued {
        row.status = Status::Queued;
        return;
    }
    row.status = Status::Uncertain;
    row.due_in = match setup.variant {
        Variant::NoQuietPeriod => 0,
        _ => QUIET.max(REQUEST),
    };
    row.unproven = row.unproven.or(Some(0));
    row.absent = None;
}

/// `db/claim_lookups.sql`. Returns the epoch.
pub(crate) fn claim_lookup(row: &mut Row) -> u8 {
    row.epoch += 1;
    // A promise of as long as a lease, not a state.
    row.due_in = LEASE;
    row.epoch
}

/// `db::recover::release_parked`
pub(crate) fn release(row: &mut Row) {
    row.status = Status::back_to(row.unproven);
    row.due_in = 0;
}

/// The user's `apipay.cancel`, only while nothing is unproven. To expire is the same to the protocol.
pub(crate) fn withdraw(row: &mut Row) {
    row.status = Status::Cancelled;
}
