//! What an accepted object looks like by now, and what becomes of its job.

use std::time::Duration;

use rust_decimal::Decimal;
use time::OffsetDateTime;

use crate::domain::job::{History, JobName};
use crate::domain::object::Object;
use crate::domain::operation::{Operation, Plan, Progress, Resend};
use crate::domain::outage::Undelivered;
use crate::domain::times::SILENT_CANCEL;
use crate::policy::asynchronous::{AsyncClass, classify_async};
use crate::policy::backoff;
use crate::policy::found::{against, named};
use crate::policy::judge::Circumstances;
use crate::policy::reconcile::Living;
use crate::policy::rules::{Jitter, Rules};
use crate::policy::verdict::{AccountSignal, Next, Proof, Reason, why_failed};

/// The decision about an accepted job.
#[derive(Clone, Debug, PartialEq)]
pub struct Followed {
    /// What becomes of the job; `None` while it stays accepted for the same reason.
    pub next: Option<Next>,
    /// When to look again, if that is not the usual time.
    pub check_after: Option<Duration>,
    /// What it means for the account.
    pub signal: Option<AccountSignal>,
    /// What the gateway has, in words, where a human decides.
    pub found: Option<String>,
    /// Whether the object is another job's: whatever becomes of this one, that is not to be cancelled.
    pub is_anothers: bool,
}

impl Followed {
    const WAIT: Followed = Followed {
        next: None,
        check_after: None,
        signal: None,
        found: None,
        is_anothers: false,
    };

    /// It is not given up: an invoice of it lives.
    pub fn living(living: Living) -> Followed {
        Followed {
            found: Some(living.found),
            ..Followed::becomes(living.verdict.next)
        }
    }

    /// Its object carries the name of another job, and none of its own: it goes by a number that an answer named, and a
    /// human decides.
    pub fn anothers(seen: &Object) -> Followed {
        Followed {
            found: Some(format!(
                "{} carries the name of another job at ApiPay",
                named(seen)
            )),
            is_anothers: true,
            ..Followed::becomes(Next::Held(Reason::Mismatch))
        }
    }

    /// Its object shows another amount than was asked for, as no look-up would take it: a human decides.
    pub fn of_another_amount(plan: &Plan, seen: &Object) -> Followed {
        Followed {
            found: Some(against(plan, seen, None)),
            ..Followed::becomes(Next::Held(Reason::Mismatch))
        }
    }

    /// More than one refund carries the name of the job: a human decides.
    pub fn doubled() -> Followed {
        Followed::becomes(Next::Held(Reason::DuplicateDetected))
    }

    fn becomes(next: Next) -> Followed {
        Followed {
            next: Some(next),
            ..Followed::WAIT
        }
    }
}

/// For how long things have been as they are, by the database's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spans {
    /// How long the object has been seen so; nought at first sight.
    pub unchanged: Duration,
    /// How long the job has been accepted.
    pub accepted: Duration,
    /// How long its account has been active since it was last resumed; none while it is parked, or if it never was.
    pub resumed: Option<Duration>,
}

impl Spans {
    /// Whether the account has been resumed since the object was first seen so.
    fn is_resumed_since(&self) -> bool {
        self.resumed
            .is_some_and(|resumed| resumed <= self.unchanged)
    }
}

/// Decides about an accepted job whose object looks like this now.
///
/// A new object is sent, or the job given up, only once the old one was seen failed twice with the back-off between, because
/// an invoice in error may turn pending after all. What an account is to blame for backs off the longer the more often it
/// fails; once the account is resumed, no more than the first time.
pub fn follow(
    operation: &dyn Operation,
    plan: &Plan,
    history: &History,
    seen: &Object,
    spans: Spans,
    at: Circumstances<'_>,
) -> Followed {
    match operation.progress(seen) {
        Progress::Done => Followed::becomes(Next::Succeeded(seen.clone())),
        Progress::UnderWay => Followed::WAIT,
        Progress::NotStarted if spans.accepted < SILENT_CANCEL => Followed::WAIT,
        Progress::NotStarted if at.rules.server_error.is_exhausted_by(history.attempts) => {
            Followed::becomes(Next::Failed(Reason::GaveUp))
        }
        Progress::NotStarted => Followed::becomes(Next::Queued {
            after: Duration::ZERO,
            reason: Reason::NotApplied,
            proof: Proof::NothingApplied,
        }),
        // What the object says is the end of it: there is nothing to resubmit.
        Progress::Failed if plan.resend == Resend::Harmless => {
            Followed::becomes(Next::Failed(why_failed(seen, Reason::AsyncError)))
        }
        Progress::Failed => failed(plan, history, seen, spans, at),
    }
}

/// Whether what an accepted job goes by carries the name of another job: what it made itself is another object then.
pub fn is_anothers(plan: &Plan, name: JobName, seen: &Object) -> bool {
    !plan.lookup.acts_on_object() && name.is_another_in(seen)
}

/// Whether what an accepted job goes by shows another amount than was asked for. What it showed before (`known`) was taken
/// so, by a person if it differed.
pub fn is_of_another_amount(plan: &Plan, seen: &Object, known: Option<Decimal>) -> bool {
    let (shown, asked) = (seen.amount(), plan.expected.amount);
    let differs = shown.is_some() && asked.is_some() && shown != asked;
    !plan.lookup.acts_on_object() && differs && shown != known
}

/// Whether the list that shows an accepted refund shows another one of the same job's name.
pub fn has_double(name: JobName, seen: &Object, among: &[Object]) -> bool {
    let is_other = |object: &&Object| object.noun() == seen.noun() && object.id() != seen.id();
    let mut others = among.iter().filter(is_other);
    others.any(|object| name.names(object))
}

/// Whether a job is asked for again, and not for the first time, because nothing came of what the gateway had accepted: it
/// may go on so until a human sees to it.
pub fn is_dropped_again(history: &History, next: Option<&Next>) -> bool {
    let is_dropped = matches!(
        next,
        Some(Next::Queued {
            reason: Reason::NotApplied,
            ..
        })
    );
    is_dropped && history.attempts >= 2
}

/// Whether a job has been accepted for so long that a human must know: the gateway says nowhere when
/// it is done at the latest.
pub fn is_overdue(accepted_for: Duration, rules: &Rules) -> bool {
    accepted_for >= rules.give_up
}

fn failed(
    plan: &Plan,
    history: &History,
    seen: &Object,
    spans: Spans,
    at: Circumstances<'_>,
) -> Followed {
    let generation = u32::try_from(history.generation).unwrap_or(1);
    let curve = &at.rules.async_error;
    let code = seen.error_code().unwrap_or_default();
    let (why, signal) = match classify_async(code, plan.resend) {
        AsyncClass::Fatal => return Followed::becomes(Next::Failed(Reason::AsyncError)),
        AsyncClass::AccountFault(reason) => {
            let signal = AccountSignal::Park {
                reason,
                hint: None,
                said: None,
                undelivered: Some(Undelivered {
                    code: code.to_owned(),
                    accepted_at: before(at.now, spans.accepted),
                }),
            };
            (reason, Some(signal))
        }
        AsyncClass::Again => (Reason::AsyncRetry, None),
    };
    let step = match signal {
        Some(_) if spans.is_resumed_since() => FIRST_STEP,
        _ => generation,
    };
    if spans.unchanged >= backoff::delay(curve, step, Jitter::NONE) {
        // What the account has to answer for uses up nothing of the job's: an outage kills no payment.
        let used = generation.saturating_sub(history.spared);
        let is_given_up = signal.is_none() && curve.is_exhausted_by(used);
        return Followed::becomes(if is_given_up {
            Next::Failed(Reason::GaveUp)
        } else {
            Next::Resubmit(why)
        });
    }
    let wait = backoff::delay(curve, step, at.jitter);
    Followed {
        next: Some(Next::Accepted {
            seen: seen.clone(),
            reason: Reason::AsyncRetry,
        }),
        check_after: Some(wait.saturating_sub(spans.unchanged)),
        signal,
        found: None,
        is_anothers: false,
    }
}

/// The step of the back-off after the first failure.
const FIRST_STEP: u32 = 1;

/// What an account that has been resumed was to blame for is asked about no later than so long after it failed.
pub fn longest_once_resumed(rules: &Rules) -> Duration {
    // What was decided is stored as far ahead of the record as it was of the request.
    backoff::delay(&rules.async_error, FIRST_STEP, Jitter::new(1.0)) + rules.request_timeout
}

/// The moment so long before.
fn before(now: OffsetDateTime, span: Duration) -> OffsetDateTime {
    now.saturating_sub(time::Duration::try_from(span).unwrap_or(time::Duration::MAX))
}

/// Whether the end of an accepted job shows that Kaspi delivers for the account: its object came through, and
/// did not just turn out to be of no use.
pub fn proves_delivery(next: Option<&Next>) -> bool {
    matches!(next, Some(Next::Succeeded(object)) if !object.is_failed())
}

#[cfg(test)]
mod tests;
