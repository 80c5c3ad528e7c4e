//! What is decided about a job.

use std::time::Duration;

use crate::domain::object::Object;
use crate::domain::outage::Undelivered;
pub use crate::domain::reason::Reason;
use crate::domain::state::State;

/// The decision about one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// What the request did at the gateway, as far as its answer proves.
    pub effect: Effect,
    /// What becomes of the job.
    pub next: Next,
    /// Whether the request counts against the limit of attempts.
    pub counts: bool,
    /// What it means for the whole account.
    pub signal: Option<AccountSignal>,
}

/// What a request did at the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It did what was asked.
    Applied,
    /// The gateway refused it for good; nothing was done.
    Rejected,
    /// Nothing was done this time.
    NotApplied,
    /// It may have done what was asked.
    Unknown,
}

impl Effect {
    /// The word in `apipay.attempts.effect`.
    pub fn as_str(self) -> &'static str {
        match self {
            Effect::Applied => "applied",
            Effect::Rejected => "rejected",
            Effect::NotApplied => "not_applied",
            Effect::Unknown => "unknown",
        }
    }
}

/// What becomes of a job.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Final: the gateway did what was asked.
    Succeeded(Object),
    /// The gateway has taken it on: follow the object.
    Accepted {
        /// The object to follow.
        seen: Object,
        /// What is waited for.
        reason: Reason,
    },
    /// Final: refused, or given up with proof that nothing was done.
    Failed(Reason),
    /// Send again after the delay: nothing was done so far.
    Queued {
        /// How long to wait.
        after: Duration,
        /// Why it waits.
        reason: Reason,
        /// What is known about earlier requests now.
        proof: Proof,
    },
    /// Send again as a new generation: the earlier object is certainly dead. It counts against the limit if
    /// it died for the moment, and not if the account was unwell: see [`Next::is_spared`].
    Resubmit(Reason),
    /// Wait until the account is well.
    Parked(Reason),
    /// Look up after the delay, before anything else.
    Uncertain {
        /// How long to wait before the look-up.
        after: Duration,
        /// Why it is uncertain.
        reason: Reason,
        /// The invoice that the gateway says it has for this job.
        invoice_id: Option<i64>,
        /// Whether this was a complete look-up that found nothing.
        absent: bool,
    },
    /// A human decides.
    Held(Reason),
    /// Final: a person said that nothing was done and that it is to end, and nothing alive was found.
    CalledOff {
        /// What was found dead, if anything: it is watched all the same.
        dead: Option<Object>,
        /// Whether the gateway has said clearly what it has of the job. If not, the word is all there is.
        is_seen: bool,
    },
}

impl Next {
    /// The state that the job moves to, or stays in.
    pub fn state(&self) -> State {
        match self {
            Next::Succeeded(_) => State::Succeeded,
            Next::Accepted { .. } => State::Accepted,
            Next::Failed(_) => State::Failed,
            Next::Queued { .. } | Next::Resubmit(_) => State::Queued,
            Next::Parked(_) => State::Parked,
            Next::Uncertain { .. } => State::Uncertain,
            Next::Held(_) => State::Held,
            Next::CalledOff { .. } => State::Cancelled,
        }
    }

    /// Whether the gateway has taken it: it is done, or under way. What is refused for a reason of its own is not, for the
    /// gateway may have refused it before it looked at the account.
    pub fn is_taken(&self) -> bool {
        matches!(self, Next::Succeeded(_) | Next::Accepted { .. })
    }

    /// Whether the generation that died counts against no limit, for it was not the job's trouble.
    pub fn is_spared(&self) -> bool {
        matches!(self, Next::Resubmit(reason) if *reason != Reason::AsyncRetry)
    }

    /// Why; a success needs no reason.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Next::Succeeded(_) => None,
            Next::CalledOff { is_seen: true, .. } => Some(Reason::CalledOff),
            Next::CalledOff { is_seen: false, .. } => Some(Reason::CalledOffUnseen),
            Next::Accepted { reason, .. }
            | Next::Queued { reason, .. }
            | Next::Uncertain { reason, .. } => Some(*reason),
            Next::Failed(reason)
            | Next::Resubmit(reason)
            | Next::Parked(reason)
            | Next::Held(reason) => Some(*reason),
        }
    }
}

/// What is known about the earlier requests of a job that is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Whatever was unproven stays so: the idempotency key is what protects.
    Unchanged,
    /// Every earlier request is proven to have had no effect.
    NothingApplied,
}

/// What of an account a block is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Whatever its key is used for.
    Everything,
    /// The sends of these operations, by name. Everything else goes on.
    Sends(Vec<&'static str>),
}

/// What an answer means for the account as a whole.
#[derive(Clone, Debug, PartialEq)]
pub enum AccountSignal {
    /// Something is not sent, or nothing sent or asked, for a while.
    Block {
        /// For how long.
        wait: Duration,
        /// The gateway's code.
        code: String,
        /// The gateway's own words, or the beginning.
        said: Option<String>,
        /// What waits.
        scope: Scope,
        /// Whether a human must know: a cap, not a rate.
        capped: bool,
    },
    /// Nothing is sent until a probe succeeds or a human resumes it.
    Park {
        /// Why.
        reason: Reason,
        /// How long the gateway asked to wait before asking again.
        hint: Option<Duration>,
        /// The gateway's own words, or the beginning.
        said: Option<String>,
        /// What accepted jobs failed with at Kaspi, when that is why: then only a delivery proves that the
        /// account is well again.
        undelivered: Option<Undelivered>,
    },
}

impl Verdict {
    /// A request that did nothing and is sent again; whatever was unproven before stays so.
    pub(crate) fn not_applied(next: Next, counts: bool) -> Verdict {
        Verdict {
            effect: Effect::NotApplied,
            next,
            counts,
            signal: None,
        }
    }

    /// A request that may have done what was asked.
    pub(crate) fn unknown(next: Next) -> Verdict {
        Verdict {
            effect: Effect::Unknown,
            next,
            counts: true,
            signal: None,
        }
    }
}

/// Why something can no longer be done to an object: it is paid, or `otherwise`.
pub(crate) fn why_failed(seen: &Object, otherwise: Reason) -> Reason {
    if seen.is_paid() {
        Reason::AlreadyPaid
    } else {
        otherwise
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::object::{Invoice, InvoiceStatus};

    #[test]
    fn the_words_of_effects_are_stable() {
        let effects = [
            Effect::Applied,
            Effect::Rejected,
            Effect::NotApplied,
            Effect::Unknown,
        ];
        let words = effects.map(Effect::as_str);
        assert_eq!(words, ["applied", "rejected", "not_applied", "unknown"]);
    }

    #[test]
    fn every_move_names_its_state_and_its_reason() {
        let seen = Object::Invoice(Invoice::bare(15, InvoiceStatus::Pending));
        let reason = Reason::Busy;
        let after = Duration::ZERO;
        let accepted = Next::Accepted {
            seen: seen.clone(),
            reason,
        };
        let queued = Next::Queued {
            after,
            reason,
            proof: Proof::Unchanged,
        };
        let uncertain = Next::Uncertain {
            after,
            reason,
            invoice_id: None,
            absent: false,
        };
        let called_off = |is_seen| Next::CalledOff {
            dead: None,
            is_seen,
        };
        for (next, state, expected) in [
            (Next::Succeeded(seen), State::Succeeded, None),
            (accepted, State::Accepted, Some(reason)),
            (queued, State::Queued, Some(reason)),
            (uncertain, State::Uncertain, Some(reason)),
            (Next::Resubmit(reason), State::Queued, Some(reason)),
            (Next::Failed(reason), State::Failed, Some(reason)),
            (Next::Parked(reason), State::Parked, Some(reason)),
            (Next::Held(reason), State::Held, Some(reason)),
            (called_off(true), State::Cancelled, Some(Reason::CalledOff)),
            (
                called_off(false),
                State::Cancelled,
                Some(Reason::CalledOffUnseen),
            ),
        ] {
            assert_eq!((next.state(), next.reason()), (state, expected));
            let is_taken = [State::Succeeded, State::Accepted].contains(&state);
            assert_eq!(next.is_taken(), is_taken, "{next:?}");
        }
    }
}
