//! What is decided about a job.

use std::time::Duration;

use crate::domain::operation::Seen;
use crate::domain::outage::Undelivered;
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
    pub strain: Option<Strain>,
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
    Succeeded(Seen),
    /// The gateway has taken it on: follow the object.
    Accepted {
        /// The object to follow.
        seen: Seen,
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
    Anew(Reason),
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
    /// Final: a person said that nothing was done and that it is to end, and nothing alive was found. With what was
    /// found dead, if anything, which is watched all the same.
    CalledOff(Option<Seen>),
}

impl Next {
    /// The state that the job moves to, or stays in.
    pub fn state(&self) -> State {
        match self {
            Next::Succeeded(_) => State::Succeeded,
            Next::Accepted { .. } => State::Accepted,
            Next::Failed(_) => State::Failed,
            Next::Queued { .. } | Next::Anew(_) => State::Queued,
            Next::Parked(_) => State::Parked,
            Next::Uncertain { .. } => State::Uncertain,
            Next::Held(_) => State::Held,
            Next::CalledOff(_) => State::Cancelled,
        }
    }

    /// Whether the generation that died counts against no limit, for it was not the job's trouble.
    pub fn is_spared(&self) -> bool {
        matches!(self, Next::Anew(reason) if *reason != Reason::AsyncRetry)
    }

    /// Why; a success needs no reason.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Next::Succeeded(_) => None,
            Next::CalledOff(_) => Some(Reason::CalledOff),
            Next::Accepted { reason, .. }
            | Next::Queued { reason, .. }
            | Next::Uncertain { reason, .. } => Some(*reason),
            Next::Failed(reason)
            | Next::Anew(reason)
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
pub enum Strain {
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

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// Why a job or an account is in its state: stable codes, part of the public interface.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Reason] = &[$(Reason::$name,)*];

            /// The code in `apipay.jobs.reason`, `apipay.accounts.parked_reason` and events.
            pub fn code(self) -> &'static str {
                match self { $(Reason::$name => $code,)* }
            }
        }
    };
}

reasons! {
    /// The gateway has taken it on; it is followed.
    UnderWay = "under_way",
    /// 429: the account waits.
    RetryAfter = "retry_after",
    /// 429 of a cap: the wait may be long.
    CapReached = "cap_reached",
    /// 5xx: the request may have had its effect.
    ServerError = "server_error",
    /// No answer in time.
    Timeout = "timeout",
    /// The connection ended before the answer.
    ConnectionCut = "connection_cut",
    /// An answer that could not be read.
    UnreadableAnswer = "unreadable_answer",
    /// An answer that is in no document.
    UnlistedAnswer = "unlisted_answer",
    /// A refusal that may be our own earlier success.
    RefusedAfterUnknown = "refused_after_unknown",
    /// A refusal about the object's state: what the state is decides.
    StateRefused = "state_refused",
    /// The gateway already has an invoice with this job's key.
    DuplicateKey = "duplicate_key",
    /// No byte of the request left.
    Network = "network",
    /// The lease was too old when the send was due.
    WindowClosed = "window_closed",
    /// The gateway is busy with the object.
    Busy = "busy",
    /// A look-up proved that nothing was done.
    NotApplied = "not_applied",
    /// A look-up could not be completed.
    LookupUnclear = "lookup_unclear",
    /// A look-up found nothing, or nothing alive; it counts once it is seen again.
    LookupAbsent = "lookup_absent",
    /// The gateway refused it.
    Refused = "refused",
    /// The invoice is paid, so it cannot be cancelled.
    AlreadyPaid = "already_paid",
    /// This version does not know the operation.
    UnknownOperation = "unknown_operation",
    /// The params are not what the operation takes; nothing was sent.
    InvalidParams = "invalid_params",
    /// The attempts are used up; nothing was done.
    GaveUp = "gave_up",
    /// It failed at Kaspi after it was accepted.
    AsyncError = "async_error",
    /// It failed at Kaspi for the moment; a new one follows.
    AsyncRetry = "async_retry",
    /// Cannot be told from here whether the request had its effect.
    UnknownOutcome = "unknown_outcome",
    /// Two objects carry this job's name.
    DuplicateDetected = "duplicate_detected",
    /// The object with this job's name or key has another amount, payer or order.
    Mismatch = "mismatch",
    /// The Kaspi session behind the account is gone.
    SessionExpired = "session_expired",
    /// The API key is not accepted.
    KeyRejected = "key_rejected",
    /// The organisation is not set up or not allowed.
    OrganizationNotReady = "organization_not_ready",
    /// The tariff is not paid.
    TariffInactive = "tariff_inactive",
    /// The gateway takes no invoices now.
    InvoicesDisabled = "invoices_disabled",
    /// 503 of another kind.
    ServiceUnavailable = "service_unavailable",
    /// 403 of another kind.
    AccessDenied = "access_denied",
    /// The daemon was told to stop before the request left.
    Stopping = "stopping",
    /// The account was parked before the request left.
    AccountParked = "account_parked",
    /// The account's limit of requests left none for what had to be read first.
    QuotaSpent = "quota_spent",
    /// The database did not take what had to be written first.
    DatabaseFailed = "database_failed",
    /// The database has forgotten commits.
    HistoryLost = "history_lost",
    /// There is no such call where the account's `base_url` leads.
    RouteNotFound = "route_not_found",
    /// What somebody said in `apipay.resolve` is not what the gateway has.
    NotAsStated = "not_as_stated",
    /// The account's key is not known to be of its organisation.
    KeyDoubted = "key_doubted",
    /// The account is for another organisation than the one that it was sent to.
    OtherOrganization = "other_organization",
    /// Somebody said that nothing was done and that it is to end, and nothing alive was found.
    CalledOff = "called_off",
    /// The account was taken out of the daemon's configuration, or changed there, before the request left.
    AccountClosed = "account_closed",
}

impl Verdict {
    /// A request that did nothing and is sent again; whatever was unproven before stays so.
    pub(crate) fn not_applied(next: Next, counts: bool) -> Verdict {
        Verdict {
            effect: Effect::NotApplied,
            next,
            counts,
            strain: None,
        }
    }

    /// A request that may have done what was asked.
    pub(crate) fn unknown(next: Next) -> Verdict {
        Verdict {
            effect: Effect::Unknown,
            next,
            counts: true,
            strain: None,
        }
    }
}

/// Why something can no longer be done to an object: it is paid, or `otherwise`.
pub(crate) fn why_failed(seen: &Seen, otherwise: Reason) -> Reason {
    let is_paid = match seen {
        Seen::Invoice(invoice) => invoice.standing().is_paid(),
        Seen::Refund(_) => false,
    };
    if is_paid {
        Reason::AlreadyPaid
    } else {
        otherwise
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::mirror::{InvoiceSeen, InvoiceStatus};

    /// Programs of users read these words: none is changed, new ones are added at the end.
    const CODES: &str = "under_way retry_after cap_reached server_error timeout connection_cut \
        unreadable_answer unlisted_answer refused_after_unknown state_refused duplicate_key network \
        window_closed busy not_applied lookup_unclear lookup_absent refused already_paid \
        unknown_operation invalid_params gave_up async_error async_retry unknown_outcome \
        duplicate_detected mismatch session_expired key_rejected organization_not_ready \
        tariff_inactive invoices_disabled service_unavailable access_denied stopping \
        account_parked quota_spent database_failed history_lost route_not_found not_as_stated key_doubted \
        other_organization called_off account_closed";

    #[test]
    fn the_codes_of_reasons_are_stable() {
        let codes: Vec<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        let expected: Vec<&str> = CODES.split_whitespace().collect();
        assert_eq!(codes, expected);
    }

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
        let seen = Seen::Invoice(InvoiceSeen::bare(15, InvoiceStatus::Pending));
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
        for (next, state, expected) in [
            (Next::Succeeded(seen), State::Succeeded, None),
            (accepted, State::Accepted, Some(reason)),
            (queued, State::Queued, Some(reason)),
            (uncertain, State::Uncertain, Some(reason)),
            (Next::Anew(reason), State::Queued, Some(reason)),
            (Next::Failed(reason), State::Failed, Some(reason)),
            (Next::Parked(reason), State::Parked, Some(reason)),
            (Next::Held(reason), State::Held, Some(reason)),
            (
                Next::CalledOff(None),
                State::Cancelled,
                Some(Reason::CalledOff),
            ),
        ] {
            assert_eq!((next.state(), next.reason()), (state, expected));
        }
    }
}
