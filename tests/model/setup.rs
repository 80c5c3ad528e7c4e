//! What is explored: an operation, a gateway, and the protocol or a broken variant of it.

use apipayd::domain::account::DuplicateProtection;

use crate::time::SETTLE;

/// One configuration to explore.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    /// What the jobs ask for.
    pub(crate) operation: Op,
    /// How many jobs there are: two refunds are of the same invoice and of the same amount.
    pub(crate) jobs: u8,
    /// Whether the gateway honours the key of a create.
    pub(crate) honours_key: bool,
    /// What the account is set to rely on.
    pub(crate) protection: DuplicateProtection,
    /// For how many ticks lists and searches may hide a new object. [`FOR_EVER`]: always.
    pub(crate) lag: u8,
    /// For how many ticks beyond what the quiet period covers a request may still have its effect.
    pub(crate) late: u8,
    /// Whether the gateway repeats the texts that carry a job's name.
    pub(crate) echoes: bool,
    /// Whether the gateway may answer 503, which parks the account.
    pub(crate) may_park: bool,
    /// Counted attempts, in all.
    pub(crate) attempts: u8,
    /// After how many ticks the daemon gives up; none: never within a run.
    pub(crate) give_up: Option<u8>,
    /// After how many ticks an invoice ends and its key is free again; none: never within a run.
    pub(crate) invoice_life: Option<u8>,
    /// Whether a key that is older than the give-up is looked up before it is sent again. The daemon
    /// does not do this yet.
    pub(crate) checks_key_before_sending: bool,
    /// Whether a worker may be suspended between the window check and the first byte.
    pub(crate) suspends_after_check: bool,
    /// The protocol, or what is broken in it.
    pub(crate) variant: Variant,
}

/// A lag without end.
pub(crate) const FOR_EVER: u8 = u8::MAX;

/// The operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// `invoice.create`
    Create,
    /// `invoice.refund`
    Refund,
    /// `invoice.cancel`
    Cancel,
}

/// The protocol as it is, or without one of its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    /// As it is.
    Full,
    /// A claim writes nothing: neither epoch, lease nor attempt.
    NoIntentRow,
    /// An expired lease puts the job back into the queue, as job queues do.
    RescueToQueued,
    /// A 502 is backed off from and sent again, without a look-up.
    ResendWithoutLookup,
    /// A look-up comes at once.
    NoQuietPeriod,
    /// A worker that was paused sends whatever it had claimed.
    NoWindowCheck,
    /// What was read before a send opens its window again, and the lease stays as it was.
    WindowWithoutLease,
    /// An outcome is recorded whatever became of the job meanwhile.
    SettleUnguarded,
}

impl Setup {
    /// A create at a gateway that honours the key, with a list that lags as long as it may.
    pub(crate) const CREATE_BY_KEY: Setup = Setup {
        operation: Op::Create,
        jobs: 1,
        honours_key: true,
        protection: DuplicateProtection::Key,
        lag: SETTLE,
        late: 0,
        echoes: true,
        may_park: false,
        attempts: 3,
        give_up: None,
        invoice_life: None,
        checks_key_before_sending: false,
        suspends_after_check: false,
        variant: Variant::Full,
    };

    /// A create at a gateway that ignores the key, of an account that is set up for it.
    pub(crate) const CREATE_BY_LOOKUP: Setup = Setup {
        honours_key: false,
        protection: DuplicateProtection::Lookup,
        ..Setup::CREATE_BY_KEY
    };

    /// Two equal partial refunds of one invoice.
    pub(crate) const TWO_REFUNDS: Setup = Setup {
        operation: Op::Refund,
        jobs: 2,
        attempts: 2,
        ..Setup::CREATE_BY_LOOKUP
    };

    /// A cancel of an invoice that its customer may pay at any moment.
    pub(crate) const CANCEL: Setup = Setup {
        operation: Op::Cancel,
        ..Setup::CREATE_BY_LOOKUP
    };

    /// One refund at a gateway that drops the reason, in which the job's name stands.
    pub(crate) const NAMELESS_REFUND: Setup = Setup {
        jobs: 1,
        attempts: 3,
        echoes: false,
        ..Setup::TWO_REFUNDS
    };

    /// Whether the exploration goes on to what comes of a step that must never happen.
    pub(crate) fn goes_on_after_a_flaw(&self) -> bool {
        self.variant != Variant::Full || self.suspends_after_check
    }

    /// The same with a part broken.
    pub(crate) const fn broken(self, variant: Variant) -> Setup {
        Setup { variant, ..self }
    }
}
