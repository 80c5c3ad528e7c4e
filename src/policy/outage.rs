//! A gateway that gives an account no clear answer: when the account slows down, when its next trial is
//! due, when a human is told, and when all is over.
//!
//! Sends decide. A look-up that succeeds says nothing of sends, so it ends nothing; look-ups that get
//! no clear answer have a row of their own, and slow down by themselves.

use std::time::Duration;

use time::OffsetDateTime;

use crate::domain::answer::{Answer, Reply, Timed, beginning};
use crate::domain::job::JobId;
use crate::domain::mirror::storable;
use crate::domain::outage::{Fault, Outage, Reads, Row};
use crate::policy::backoff;
use crate::policy::codes::{Class, classify};
use crate::policy::judge::Circumstances;
use crate::policy::rules::{Curve, Jitter, Rules};
use crate::policy::verdict::{Effect, Next, Reason, Verdict};

/// What the end of one request says of the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It answers: done, a refusal that is about the job, or what parks the account.
    Clear,
    /// No clear answer.
    Failing(Fault),
    /// Nothing: not sent for a cause of ours, or refused for the account's limit.
    Silent,
}

/// What a send says. `read_first` when the request only read what is known before a send: its failure
/// stands in the send's way, its success proves nothing of sends.
pub fn sign_of_send(timed: &Timed, verdict: &Verdict, read_first: bool) -> Sign {
    match sign(timed) {
        // A success whose body could not be used is none.
        Sign::Clear if is_undecided(timed, verdict) => Sign::Failing(fault(timed)),
        Sign::Clear if read_first => Sign::Silent,
        sign => sign,
    }
}

/// What a look-up says, of look-ups only.
pub fn sign_of_lookup(timed: &Timed, verdict: &Verdict) -> Sign {
    let is_unclear = match &verdict.next {
        Next::Uncertain { reason, .. } => *reason == Reason::LookupUnclear,
        Next::Held(reason) => *reason == Reason::UnknownOutcome,
        _ => false,
    };
    match sign(timed) {
        _ if !is_unclear => Sign::Clear,
        Sign::Clear if is_parking(timed) => Sign::Clear,
        Sign::Silent => Sign::Silent,
        Sign::Clear | Sign::Failing(_) => Sign::Failing(fault(timed)),
    }
}

fn sign(timed: &Timed) -> Sign {
    match &timed.answer {
        Answer::NotSent(cause) if !cause.is_of_the_network() => Sign::Silent,
        Answer::NotSent(_) | Answer::Lost(_) => Sign::Failing(fault(timed)),
        Answer::Reply(reply) => match (classify(reply), reply.status) {
            (
                Class::Success
                | Class::DuplicateKey
                | Class::Refused
                | Class::StateRefused
                | Class::RecipientThrottled,
                _,
            ) => Sign::Clear,
            // What parks the account takes over; so does a proxy's page in its place.
            (Class::AccountFault(_), _) | (Class::Unknown(_), 503) => Sign::Clear,
            (Class::Throttled | Class::Capped, _) | (Class::Unknown(_), 429) => Sign::Silent,
            (Class::Busy | Class::Unknown(_), _) => Sign::Failing(fault(timed)),
        },
    }
}

fn is_parking(timed: &Timed) -> bool {
    matches!(&timed.answer, Answer::Reply(reply)
        if reply.status == 503 || matches!(classify(reply), Class::AccountFault(_)))
}

fn is_undecided(timed: &Timed, verdict: &Verdict) -> bool {
    let is_success =
        matches!(&timed.answer, Answer::Reply(reply) if classify(reply) == Class::Success);
    is_success && verdict.effect != Effect::Applied
}

fn fault(timed: &Timed) -> Fault {
    let (code, status, said) = match &timed.answer {
        Answer::NotSent(cause) => (cause.code(), None, None),
        Answer::Lost(lost) => (lost.code(), None, None),
        Answer::Reply(reply) => {
            let code = match classify(reply) {
                Class::Unknown(reason) => reason.code(),
                Class::Busy => Reason::Busy.code(),
                _ => Reason::UnreadableAnswer.code(),
            };
            (code, Some(reply.status), words(reply))
        }
    };
    Fault {
        code: code.to_owned(),
        status,
        said,
    }
}

/// The gateway's words about an error: its message, else its code.
pub(crate) fn words(reply: &Reply) -> Option<String> {
    const BYTES: usize = 300;
    let said = reply.message().or_else(|| reply.error_code())?.trim();
    let said = storable(beginning(said, BYTES));
    (!said.is_empty()).then_some(said)
}

/// Why a queued job waits when its request got no clear answer, or had none of its effect: at the end of
/// an outage it goes on.
pub const BACKED_OFF: [Reason; 4] = [
    Reason::Network,
    Reason::NotApplied,
    Reason::ServerError,
    Reason::Busy,
];

/// Why an uncertain job waits when its look-up got no clear answer: at the end of an outage it goes on.
/// Quiet periods and waits for proof last as long as before.
pub const LOOKED_UP_IN_VAIN: [Reason; 1] = [Reason::LookupUnclear];

/// What a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// A send as usual.
    Send,
    /// The one send of an account that has slowed down.
    Trial,
    /// A look-up.
    Lookup,
}

/// So many jobs, or look-ups, in a row without a clear answer slow the account down. One job alone
/// never does: it backs off by itself.
const SLOW_AFTER: u32 = 3;

/// So many trials must have failed before a human is told.
const TRIALS_TOLD: u32 = 3;

/// So many tries of one job, as its back-off spaces them, are the minutes before a human is told.
const TRIES_TOLD: u32 = 5;

impl Outage {
    /// Whether a human must know of the account as a whole.
    pub fn tells(&self) -> bool {
        let trials = self.sends.as_ref().filter(|row| row.trial_at.is_some());
        trials.is_some_and(|row| row.failures >= SLOW_AFTER + TRIALS_TOLD)
    }

    /// What is known after one more request.
    pub fn after(self, errand: Errand, job: JobId, sign: &Sign, at: Circumstances<'_>) -> Outage {
        match (errand, sign) {
            (Errand::Lookup, Sign::Failing(_)) => Outage {
                reads: self.reads.failed(at),
                ..self
            },
            (Errand::Lookup, Sign::Clear) => Outage {
                reads: Reads::default(),
                ..self
            },
            (Errand::Lookup, Sign::Silent) | (Errand::Send, Sign::Silent) => self,
            (Errand::Send | Errand::Trial, Sign::Clear) => Outage {
                sends: None,
                ..self
            },
            (Errand::Send | Errand::Trial, Sign::Failing(fault)) => Outage {
                sends: Some(match self.sends {
                    None => Row::first(fault, job, at),
                    Some(row) => row.failed(errand, fault, job, at),
                }),
                ..self
            },
            // It proved nothing, so the next one is due.
            (Errand::Trial, Sign::Silent) => Outage {
                sends: self.sends.map(|row| Row {
                    trial_at: row.trial_at.map(|_| at.now),
                    ..row
                }),
                ..self
            },
        }
    }
}

impl Row {
    fn first(fault: &Fault, job: JobId, at: Circumstances<'_>) -> Row {
        Row {
            since: at.now,
            fault: fault.clone(),
            job,
            failures: 1,
            trial_at: None,
        }
    }

    fn failed(self, errand: Errand, fault: &Fault, job: JobId, at: Circumstances<'_>) -> Row {
        let is_slow = self.trial_at.is_some();
        // What was under way when the account slowed down is no trial, and says nothing new.
        let counts = match is_slow {
            true => errand == Errand::Trial,
            false => job != self.job,
        };
        let failures = self.failures.saturating_add(u32::from(counts));
        let trial_at = match (is_slow, counts) {
            (true, false) => self.trial_at,
            _ => slow_since(failures).map(|step| {
                let curve = match fault.is_of_the_network() {
                    true => &at.rules.network,
                    false => &at.rules.server_error,
                };
                at.now + backoff::delay(curve, step, at.jitter)
            }),
        };
        Row {
            since: self.since,
            fault: fault.clone(),
            job,
            failures,
            trial_at,
        }
    }
}

impl Reads {
    fn failed(self, at: Circumstances<'_>) -> Reads {
        let failures = self.failures.saturating_add(1);
        let curve = &at.rules.server_error;
        Reads {
            failures,
            next_at: slow_since(failures)
                .map(|step| at.now + backoff::delay(curve, step, at.jitter)),
        }
    }
}

/// The longest distance of trials and of look-ups.
pub fn longest(rules: &Rules) -> Duration {
    let most = |curve: &Curve| backoff::delay(curve, u32::MAX, Jitter::new(1.0));
    most(&rules.server_error).max(most(&rules.network))
}

/// Which distance of the curve is next, from 1; `None` before the slow-down.
fn slow_since(failures: u32) -> Option<u32> {
    (failures >= SLOW_AFTER).then(|| failures - SLOW_AFTER + 1)
}

/// Whether a human must know of one job, whose requests have got no clear answer since then.
pub fn tells_of_job(
    failing_since: Option<OffsetDateTime>,
    now: OffsetDateTime,
    rules: &Rules,
) -> bool {
    failing_since.is_some_and(|since| now - since >= told_after(rules))
}

/// How long a job gets no clear answer before a human is told: as long as the back-off after its first
/// tries. With the delays as shipped, two and a half minutes.
pub fn told_after(rules: &Rules) -> Duration {
    (1..=TRIES_TOLD)
        .map(|attempt| backoff::delay(&rules.server_error, attempt, Jitter::NONE))
        .sum()
}

#[cfg(test)]
mod tests;
