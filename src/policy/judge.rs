//! The answer to a send: what becomes of the job and its account.

use std::time::Duration;

use time::OffsetDateTime;

use crate::domain::answer::{Answer, Body, Lost, NotSent, Reply, Timed};
use crate::domain::codes::Class;
use crate::domain::fields::id;
use crate::domain::job::{History, JobName};
use crate::domain::object::Object;
use crate::domain::operation::{Applied, OPERATIONS, Operation, Plan, Progress, Resend};
use crate::domain::state::State;
use crate::policy::backoff;
use crate::policy::hints;
use crate::policy::quoted::{NOT_IN_ITS_WORDS, page, words};
use crate::policy::rules::{Curve, Jitter, Rules};
use crate::policy::verdict::{AccountSignal, Effect, Next, Proof, Reason, Scope, Verdict};

/// How soon to try again when the account's limit of requests was used up.
const QUOTA_WAIT: Duration = Duration::from_secs(1);

/// How soon to try again when the database failed what comes before a request.
const DATABASE_WAIT: Duration = Duration::from_secs(1);

/// How soon to see whether a newer version has taken over.
pub(super) const UPGRADE_WAIT: Duration = Duration::from_secs(60);

/// The circumstances of a decision: settings, time and randomness.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// The settings.
    pub rules: &'a Rules,
    /// The database's clock.
    pub now: OffsetDateTime,
    /// Randomness.
    pub jitter: Jitter,
    /// Refusals of the account for its rate in a row, with the present one if it is one.
    pub refusals: u32,
    /// Whether the account has slowed down: only one job of it tries at a time.
    pub is_slow: bool,
}

/// Decides about a job whose request got this answer.
///
/// A job whose effect is unknown only ever becomes [`Next::Uncertain`]; it is never sent again from
/// here. A job with an earlier unproven request is looked up even after a plain refusal, which may
/// be our own success. So is one whose success shows an object that says it is another job's: a proxy may have
/// answered with what it had.
pub fn judge(
    operation: &dyn Operation,
    plan: &Plan,
    name: JobName,
    history: &History,
    timed: &Timed,
    at: Circumstances<'_>,
) -> Verdict {
    match &timed.answer {
        Answer::NotSent(cause) => not_sent(*cause, history, at),
        Answer::Lost(lost) => {
            let reason = match lost {
                Lost::Timeout => Reason::Timeout,
                Lost::Cut => Reason::ConnectionCut,
            };
            uncertain(reason, quiet(at.rules.quiet_after_timeout, timed.took, at))
        }
        Answer::Reply(reply) => replied(operation, plan, name, history, reply, timed.took, at),
    }
}

fn replied(
    operation: &dyn Operation,
    plan: &Plan,
    name: JobName,
    history: &History,
    reply: &Reply,
    took: Duration,
    at: Circumstances<'_>,
) -> Verdict {
    let quiet = quiet(at.rules.quiet_after_answer, took, at);
    match reply.class() {
        Class::Success => match read_success(operation, plan, reply) {
            Some(applied) if !name.is_denied_by(plan, &applied.seen) => self::applied(applied),
            _ => uncertain(Reason::UnreadableAnswer, quiet),
        },
        Class::DuplicateKey => duplicate_key(reply),
        // The refusal is about the object's state. A look-up reads that state, and for this operation sending again is
        // harmless.
        Class::StateRefused if plan.resend == Resend::Harmless => Verdict {
            effect: Effect::NotApplied,
            next: look_up_soon(Reason::StateRefused, Duration::ZERO),
            counts: true,
            signal: None,
        },
        Class::Refused | Class::StateRefused if history.unproven_since.is_some() => Verdict {
            effect: Effect::NotApplied,
            next: look_up_soon(Reason::RefusedAfterUnknown, quiet),
            counts: true,
            signal: None,
        },
        Class::Refused | Class::StateRefused => Verdict {
            effect: Effect::Rejected,
            next: Next::Failed(Reason::Refused),
            counts: true,
            signal: None,
        },
        // What was not sent this time waits for the end of the cap once it is known whether it was sent before.
        Class::Capped if history.unproven_since.is_some() => Verdict {
            signal: signal_of(reply, Some(operation), at),
            ..Verdict::not_applied(look_up_soon(Reason::CapReached, quiet), false)
        },
        Class::Throttled | Class::Capped | Class::RecipientThrottled | Class::AccountFault(_) => {
            not_now(history, reply, Some(operation), at)
        }
        Class::Busy => back_off(history, Reason::Busy, at),
        Class::Unknown(reason) => Verdict {
            signal: signal_of(reply, Some(operation), at),
            ..uncertain(reason, quiet)
        },
    }
}

/// Nothing was done, and the cause is not the job's: it waits, and that costs no attempt. `sent` as in
/// [`signal_of`].
pub(crate) fn not_now(
    history: &History,
    reply: &Reply,
    sent: Option<&dyn Operation>,
    at: Circumstances<'_>,
) -> Verdict {
    let signal = signal_of(reply, sent, at);
    let next = match &signal {
        Some(AccountSignal::Park { reason, .. }) => Next::Parked(*reason),
        Some(AccountSignal::Block { wait, capped, .. }) => {
            let reason = if *capped {
                Reason::CapReached
            } else {
                Reason::RetryAfter
            };
            wait_for(history, *wait, reason)
        }
        // One recipient's limit is not the account's.
        None => wait_for(history, rate_wait(reply, at), Reason::RetryAfter),
    };
    Verdict {
        signal,
        ..Verdict::not_applied(next, false)
    }
}

/// The gateway has an invoice with our key: it is read by its number, or looked up like any other where the answer names none,
/// and adopted if it is ours. Nothing is sent again while the key is taken.
fn duplicate_key(reply: &Reply) -> Verdict {
    let invoice_id = reply
        .object()
        .and_then(|body| id(body, "invoice_id").or_else(|| id(body, "id")));
    Verdict {
        effect: Effect::Applied,
        next: Next::Uncertain {
            after: Duration::ZERO,
            reason: Reason::DuplicateKey,
            invoice_id,
            absent: false,
        },
        counts: true,
        signal: None,
    }
}

/// Whether the account was refused for its rate; `None` when the gateway did not get to say.
pub fn is_refused_for_rate(answer: &Answer) -> Option<bool> {
    let Answer::Reply(reply) = answer else {
        return None;
    };
    match (reply.class(), reply.status) {
        (Class::Throttled, _) | (Class::Unknown(_), 429) => Some(true),
        (Class::Unknown(_), _) => None,
        _ => Some(false),
    }
}

/// What a reply means for the account: sends, look-ups, checks and probes share this. `sent` is the operation
/// whose own request it answers; none when something was only asked.
pub fn signal_of(
    reply: &Reply,
    sent: Option<&dyn Operation>,
    at: Circumstances<'_>,
) -> Option<AccountSignal> {
    let code = || {
        let code = reply.stable_code();
        code.unwrap_or_else(|| "too_many_requests".to_owned())
    };
    match (reply.class(), reply.status) {
        (Class::AccountFault(reason), _) => Some(AccountSignal::Park {
            reason,
            hint: hints::wait(reply, at.now),
            said: words(reply),
            undelivered: None,
        }),
        (Class::Capped, _) => Some(AccountSignal::Block {
            wait: cap_wait(reply, at),
            code: code(),
            said: words(reply),
            scope: sent.map_or(Scope::Everything, |sent| Scope::Sends(capped_with(sent))),
            capped: true,
        }),
        // A 429 page from a proxy proves nothing about the job, so the job is looked up. The account waits all the
        // same: further requests would be refused, too.
        (Class::Throttled, _) | (Class::Unknown(_), 429) => Some(AccountSignal::Block {
            wait: rate_wait(reply, at),
            code: code(),
            said: words(reply).or_else(|| Some(format!("{NOT_IN_ITS_WORDS}: {}", page(reply)?))),
            scope: Scope::Everything,
            capped: false,
        }),
        (Class::Unknown(_), 503) => Some(AccountSignal::Park {
            reason: Reason::ServiceUnavailable,
            hint: hints::wait(reply, at.now),
            said: words(reply),
            undelivered: None,
        }),
        _ => None,
    }
}

/// The operations that a cap is about which answered a send of this one. Every cap that is documented limits the
/// making of invoices (API, section 4.3); what else the gateway answers with one, it limits too.
fn capped_with(sent: &dyn Operation) -> Vec<&'static str> {
    OPERATIONS
        .iter()
        .filter(|operation| operation.makes_invoice() || operation.name() == sent.name())
        .map(|operation| operation.name())
        .collect()
}

/// Reads a 200, 201 or 202 of the expected shape.
fn read_success(operation: &dyn Operation, plan: &Plan, reply: &Reply) -> Option<Applied> {
    match &reply.body {
        Body::Json(body) => operation.read_success(plan, reply.status, body),
        Body::Text(_) | Body::TooLarge | Body::Broken => None,
    }
}

fn applied(applied: Applied) -> Verdict {
    Verdict {
        effect: Effect::Applied,
        next: conclude(applied.seen, applied.progress),
        counts: true,
        signal: None,
    }
}

/// What becomes of a job whose effect stands as this object.
///
/// One that failed at Kaspi is accepted too: whether a new one follows is decided where it is
/// followed.
pub(crate) fn conclude(seen: Object, progress: Progress) -> Next {
    match progress {
        Progress::Done => Next::Succeeded(seen),
        Progress::UnderWay | Progress::NotStarted | Progress::Failed => Next::Accepted {
            seen,
            reason: Reason::UnderWay,
        },
    }
}

/// What becomes of a job of which no byte left.
pub fn not_sent(cause: NotSent, history: &History, at: Circumstances<'_>) -> Verdict {
    // Ours, not the job's: it costs no attempt.
    let put_back = |wait, reason| Verdict::not_applied(wait_for(history, wait, reason), false);
    match cause {
        NotSent::Dns
        | NotSent::LookUpsHang
        | NotSent::Connect
        | NotSent::Tls
        | NotSent::CertificateExpired
        | NotSent::CertificateName
        | NotSent::CertificateIssuer
        | NotSent::ForbiddenAddress => back_off_on(&at.rules.network, history, Reason::Network, at),
        NotSent::WindowClosed => put_back(Duration::ZERO, Reason::WindowClosed),
        NotSent::Stopping => put_back(Duration::ZERO, Reason::Stopping),
        NotSent::AccountParked => put_back(Duration::ZERO, Reason::AccountParked),
        NotSent::KeyTooOld => put_back(Duration::ZERO, Reason::UnknownOutcome),
        NotSent::QuotaSpent => put_back(QUOTA_WAIT, Reason::QuotaSpent),
        NotSent::DatabaseFailed => put_back(DATABASE_WAIT, Reason::DatabaseFailed),
        NotSent::UnknownOperation => put_back(UPGRADE_WAIT, Reason::UnknownOperation),
        NotSent::HistoryLost => put_back(Duration::ZERO, Reason::HistoryLost),
        NotSent::KeyDoubted => put_back(Duration::ZERO, Reason::KeyDoubted),
        NotSent::AccountClosed => put_back(Duration::ZERO, Reason::AccountClosed),
    }
}

/// What becomes of a job whose send was answered as if its account were unwell, where that is not believed (see
/// [`Beliefs`](super::breaker::belief::Beliefs)): nothing of it was done, and it backs off by itself. One of which it is not
/// known whether it was done is looked up, as ever.
pub fn alone(verdict: Verdict, history: &History, at: Circumstances<'_>) -> Verdict {
    match verdict.next {
        Next::Parked(reason) => back_off(history, reason, at),
        _ => Verdict {
            signal: None,
            ..verdict
        },
    }
}

/// Sends again later something the gateway did not do.
pub(crate) fn back_off(history: &History, reason: Reason, at: Circumstances<'_>) -> Verdict {
    back_off_on(&at.rules.server_error, history, reason, at)
}

fn back_off_on(curve: &Curve, history: &History, reason: Reason, at: Circumstances<'_>) -> Verdict {
    let attempt = history.attempts + 1;
    let next = if curve.is_exhausted_by(attempt) && history.unproven_since.is_none() {
        Next::Failed(Reason::GaveUp)
    } else {
        wait_for(history, backoff::delay(curve, attempt, at.jitter), reason)
    };
    Verdict::not_applied(next, true)
}

/// Sends again after the wait; with an unproven request in its history, looks up first.
pub(super) fn wait_for(history: &History, wait: Duration, reason: Reason) -> Next {
    if State::back_to(history.unproven_since) == State::Uncertain {
        look_up_soon(reason, wait)
    } else {
        Next::Queued {
            after: wait,
            reason,
            proof: Proof::Unchanged,
        }
    }
}

fn look_up_soon(reason: Reason, after: Duration) -> Next {
    Next::Uncertain {
        after,
        reason,
        invoice_id: None,
        absent: false,
    }
}

/// What becomes of a job instead, should the object that a verdict takes for its own belong to another job as far as the
/// database knows. `asked_again` is when it is looked up; `None` where nothing is taken.
///
/// A number alone is no proof then, and the job is looked up by its name. An object that bears its name is a human's to
/// decide about: the other job goes by it already.
pub fn if_anothers(plan: &Plan, name: JobName, next: &Next, asked_again: Duration) -> Option<Next> {
    if plan.lookup.acts_on_object() {
        return None;
    }
    match next {
        Next::Succeeded(seen) | Next::Accepted { seen, .. } if name.owns(seen) => {
            Some(Next::Held(Reason::Mismatch))
        }
        Next::Succeeded(_) | Next::Accepted { .. } => {
            Some(look_up_soon(Reason::AnothersObject, asked_again))
        }
        Next::Uncertain {
            after,
            invoice_id: Some(_),
            ..
        } => Some(look_up_soon(Reason::AnothersObject, *after)),
        _ => None,
    }
}

fn uncertain(reason: Reason, quiet: Duration) -> Verdict {
    Verdict::unknown(look_up_soon(reason, quiet))
}

/// When a job is looked up whose answer showed another job's object.
pub fn asked_again(timed: &Timed, at: Circumstances<'_>) -> Duration {
    quiet(at.rules.quiet_after_answer, timed.took, at)
}

/// How long to keep quiet before a look-up: the request may still be at work for as long as its own
/// time limit.
fn quiet(wanted: Duration, took: Duration, at: Circumstances<'_>) -> Duration {
    wanted.max(at.rules.request_timeout.saturating_sub(took))
}

fn rate_wait(reply: &Reply, at: Circumstances<'_>) -> Duration {
    let hint = hints::wait(reply, at.now).map(|hint| hint.min(hints::RATE_WAIT_MAX));
    let unhinted = backoff::delay(&at.rules.rate_limited, at.refusals, Jitter::NONE);
    let wait = hint.unwrap_or(unhinted);
    at.jitter.lengthen(
        wait.max(Duration::from_secs(1)),
        at.rules.rate_limited.jitter,
    )
}

/// The jitter of a cap is at most a minute and at most the wait itself: a share of a wait of weeks would add days, and
/// a full minute would multiply a wait of four seconds.
pub(super) const CAP_JITTER: Duration = Duration::from_secs(60);

/// A cap without a hint is asked again every quarter of an hour.
const CAP_WAIT_DEFAULT: Duration = Duration::from_secs(15 * 60);

fn cap_wait(reply: &Reply, at: Circumstances<'_>) -> Duration {
    let hint = hints::wait(reply, at.now).map(|hint| hint.min(hints::CAP_WAIT_MAX));
    // A moment in the past means that the clocks differ. It waits a little all the same, or an exhausted cap would be
    // asked for in a loop.
    let wait = hint
        .unwrap_or(CAP_WAIT_DEFAULT)
        .max(at.rules.rate_limited.initial);
    wait + at.jitter.of(CAP_JITTER.min(wait))
}

#[cfg(test)]
mod tests;
