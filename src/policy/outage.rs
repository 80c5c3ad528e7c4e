//! A gateway that gives an account no clear answer: when the account slows down, when its next trial is
//! due, when a human is told, and when all is over.
//!
//! Each kind of request has a course of its own: a read that succeeds says nothing of sends, nor of reads of
//! another kind, so it ends nothing of theirs. What is told of all of them together is in [`telling`].

pub mod telling;

use std::time::Duration;

use crate::domain::answer::{Answer, Timed};
use crate::domain::codes::Class;
use crate::domain::job::JobId;
use crate::domain::outage::{Course, Fault, Outage, Read, Row, Wait};
use crate::policy::backoff;
use crate::policy::judge::Circumstances;
use crate::policy::quoted::words;
use crate::policy::rules::{Curve, Jitter, Rules};
use crate::policy::verdict::{Effect, Next, Reason, Verdict};

/// What the end of one request says of the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It answers: done, a refusal that is about the job, or what parks the account.
    Clear,
    /// No clear answer.
    Failing(Fault),
    /// No clear answer, and the job that it was asked about is not asked about any more.
    GivenUp(Fault),
    /// Refused for the account's limit.
    Refused,
    /// Refused for a cap, of which its own alert tells: the limit let it through.
    Capped,
    /// Nothing: not sent for a cause of ours.
    Silent,
}

/// What a send says. `read_first` when the request only read what is known before a send: its failure
/// stands in the way of its job's send, its success proves nothing of sends.
pub fn sign_of_send(timed: &Timed, verdict: &Verdict, read_first: bool) -> Sign {
    match sign(timed) {
        // A success whose body could not be used is none.
        Sign::Clear if is_undecided(timed, verdict) => Sign::Failing(fault(timed)),
        Sign::Clear if read_first && is_unseen(timed, verdict) => Sign::Failing(fault(timed)),
        Sign::Clear if read_first => Sign::Silent,
        Sign::Refused if !read_first && is_capped(timed) => Sign::Capped,
        sign => sign,
    }
}

/// What a look-up says, of look-ups only.
pub fn sign_of_lookup(timed: &Timed, verdict: &Verdict) -> Sign {
    let is_unclear = match &verdict.next {
        Next::Uncertain { reason, .. } => *reason == Reason::LookupUnclear,
        Next::Held(reason) => matches!(reason, Reason::UnknownOutcome | Reason::Unconfirmed),
        Next::CalledOff { is_seen, .. } => !is_seen,
        _ => false,
    };
    match sign_of_read(timed, !is_unclear) {
        Sign::Failing(fault) if !matches!(verdict.next, Next::Uncertain { .. }) => {
            Sign::GivenUp(fault)
        }
        sign => sign,
    }
}

/// What a read says, of reads of its kind only. `is_usable` when it brought what was asked for.
pub fn sign_of_read(timed: &Timed, is_usable: bool) -> Sign {
    match sign(timed) {
        _ if is_usable => Sign::Clear,
        Sign::Clear if !is_parking(timed) => Sign::Failing(fault(timed)),
        sign => sign,
    }
}

/// What a request says that was answered as if the account were unwell, where that is not believed (see
/// [`Beliefs`](super::breaker::belief::Beliefs)): it has failed.
pub fn sign_of_doubted(timed: &Timed) -> Sign {
    Sign::Failing(fault(timed))
}

/// What a send that was answered so, and is not believed either, says of its account's sends. Bills may be very many: each
/// that fails so counts like any that fails, so that in the end one at a time is tried. Of what else fails so there is
/// little, and no bill waits for it.
pub fn sign_of_alone(timed: &Timed, makes_invoice: bool) -> Sign {
    match makes_invoice {
        true => sign_of_doubted(timed),
        false => Sign::Silent,
    }
}

/// What it says of its account's sends what came of a question that is asked before a bill is sent, given what that says
/// of the bill: that it was refused for the limit, at most. That there was no clear answer, or one that left out what was
/// asked for, keeps this bill from being sent, and each such bill backs off by itself; others may be sent as well as ever.
pub fn sign_of_question(of_bill: &Sign) -> Sign {
    match of_bill {
        Sign::Refused => Sign::Refused,
        Sign::Clear | Sign::Failing(_) | Sign::GivenUp(_) | Sign::Capped | Sign::Silent => {
            Sign::Silent
        }
    }
}

/// Whether one object that was asked for is not there: an answer, and the key's or the object's matter.
pub fn is_absence(timed: &Timed) -> bool {
    matches!(&timed.answer, Answer::Reply(reply)
        if matches!(reply.status, 404 | 410) && reply.class() == Class::Refused)
}

fn sign(timed: &Timed) -> Sign {
    match &timed.answer {
        Answer::NotSent(cause) if !cause.is_of_the_network() => Sign::Silent,
        Answer::NotSent(_) | Answer::Lost(_) => Sign::Failing(fault(timed)),
        Answer::Reply(reply) => match (reply.class(), reply.status) {
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
            (Class::Throttled | Class::Capped, _) | (Class::Unknown(_), 429) => Sign::Refused,
            (Class::Busy | Class::Unknown(_), _) => Sign::Failing(fault(timed)),
        },
    }
}

fn is_capped(timed: &Timed) -> bool {
    matches!(&timed.answer, Answer::Reply(reply) if reply.class() == Class::Capped)
}

fn is_parking(timed: &Timed) -> bool {
    matches!(&timed.answer, Answer::Reply(reply)
        if reply.status == 503 || matches!(reply.class(), Class::AccountFault(_)))
}

fn is_undecided(timed: &Timed, verdict: &Verdict) -> bool {
    let is_success =
        matches!(&timed.answer, Answer::Reply(reply) if reply.class() == Class::Success);
    // What was read before a copy may have ended it.
    let is_ended = matches!(verdict.next, Next::Failed(_));
    is_success && verdict.effect != Effect::Applied && !is_ended
}

/// Whether what is read before a send was not shown, for a reason that does not park the account. A refusal of that
/// question is no answer about the job.
fn is_unseen(timed: &Timed, verdict: &Verdict) -> bool {
    let is_without = matches!(
        verdict.next.reason(),
        Some(Reason::EarlierUnseen | Reason::GaveUp)
    );
    is_without && !is_parking(timed)
}

fn fault(timed: &Timed) -> Fault {
    let (code, status, said) = match &timed.answer {
        Answer::NotSent(cause) => (cause.code(), None, None),
        Answer::Lost(lost) => (lost.code(), None, None),
        Answer::Reply(reply) => {
            let code = match reply.class() {
                Class::Unknown(reason) => reason.code(),
                Class::Busy => Reason::Busy.code(),
                Class::Refused | Class::StateRefused => Reason::UnlistedAnswer.code(),
                Class::AccountFault(reason) => reason.code(),
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

/// Why a queued job waits when its request got no clear answer, or had none of its effect: at the end of
/// an outage it goes on.
pub const BACKED_OFF: [Reason; 5] = [
    Reason::Network,
    Reason::NotApplied,
    Reason::ServerError,
    Reason::Busy,
    Reason::EarlierUnseen,
];

/// Why an uncertain job waits when its look-up got no clear answer: at the end of an outage it goes on.
/// Quiet periods and waits for proof last as long as before.
pub const LOOKED_UP_IN_VAIN: [Reason; 1] = [Reason::LookupUnclear];

/// Whether a job goes on before its time, now that its account has got a clear answer.
///
/// It does if nothing of its account had got one between its last two tries: what failed then was the gateway, as far as
/// anybody saw. How far apart they were follows from how long it waits now, since each wait is a multiple of the one
/// before. A job of which others got through meanwhile fails by itself and keeps its distance, which grows. So one that
/// always fails is tried early only while it waits about twice as long, as shipped, as its account goes without an answer.
pub fn goes_on_early(wait: &Wait, rules: &Rules) -> bool {
    let longer = |curve: &Curve| curve.multiplier.max(1.0) * (1.0 + curve.jitter);
    let longer = longer(&rules.server_error).max(longer(&rules.network));
    let failed_with_all = wait.failed_at - wait.unanswered_since;
    failed_with_all.is_positive() && failed_with_all * longer >= wait.due_at - wait.failed_at
}

/// What a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// A send as usual.
    Send,
    /// The one send of an account that has slowed down.
    Trial,
    /// A read as usual.
    Read(Read),
    /// The one read of a kind that has slowed down.
    ReadTrial(Read),
}

impl Errand {
    /// A read of this kind, made while its kind had slowed down or not.
    pub fn read(read: Read, is_slow: bool) -> Errand {
        match is_slow {
            true => Errand::ReadTrial(read),
            false => Errand::Read(read),
        }
    }

    /// Its kind, if it is a read.
    pub fn kind(self) -> Option<Read> {
        match self {
            Errand::Send | Errand::Trial => None,
            Errand::Read(read) | Errand::ReadTrial(read) => Some(read),
        }
    }

    /// Whether it was made to see whether the others may go on.
    pub fn is_trial(self) -> bool {
        matches!(self, Errand::Trial | Errand::ReadTrial(_))
    }

    /// How long after a failure the next trial is due. What only follows is asked at its longest usual
    /// distance, at least: a customer may have paid.
    fn distance(self, fault: &Fault, step: u32, at: Circumstances<'_>) -> Duration {
        let rules = at.rules;
        match self.kind() {
            None if fault.is_of_the_network() => backoff::delay(&rules.network, step, at.jitter),
            None | Some(Read::LookUp) => backoff::delay(&rules.server_error, step, at.jitter),
            Some(Read::Check | Read::Code | Read::Refunds) => {
                backoff::delay(&rules.server_error, step, at.jitter).min(rules.follow.max)
            }
        }
    }
}

/// So many jobs, or reads, in a row without a clear answer slow their kind down. One job alone never
/// does: it backs off by itself.
const SLOW_AFTER: u32 = 3;

/// So many trials must have failed before a human is told.
const TRIALS_TOLD: u32 = 3;

/// A person is told after as long as this many tries of one job take.
const TRIES_TOLD: u32 = 5;

impl Outage {
    /// What is known after one more request.
    pub fn after(
        mut self,
        errand: Errand,
        job: Option<JobId>,
        sign: &Sign,
        at: Circumstances<'_>,
    ) -> Outage {
        match errand.kind() {
            None => self.sends = self.sends.after(errand, job, sign, at),
            Some(read) => {
                let course = self.reads.remove(&read).unwrap_or_default();
                self.reads.insert(read, course.after(errand, job, sign, at));
            }
        }
        self
    }
}

impl Course {
    /// Whether a human must know of the account as a whole.
    pub fn tells(&self) -> bool {
        let trials = self.failing.as_ref().filter(|row| row.trial_at.is_some());
        trials.is_some_and(|row| row.failures >= SLOW_AFTER + TRIALS_TOLD)
    }

    /// What is known after one more request of this kind.
    pub fn after(
        self,
        errand: Errand,
        job: Option<JobId>,
        sign: &Sign,
        at: Circumstances<'_>,
    ) -> Course {
        match sign {
            Sign::Clear => Course::default(),
            Sign::Failing(fault) => self.failed(errand, fault, job, at),
            Sign::GivenUp(fault) => self.failed(errand, fault, job, at).next_soon(errand, at),
            Sign::Refused => Course {
                refused_since: self.refused_since.or(Some(at.now)),
                ..self.unproven(errand, at)
            },
            Sign::Capped => Course {
                refused_since: None,
                ..self.unproven(errand, at)
            },
            Sign::Silent => self.unproven(errand, at),
        }
    }

    fn failed(
        self,
        errand: Errand,
        fault: &Fault,
        job: Option<JobId>,
        at: Circumstances<'_>,
    ) -> Course {
        Course {
            failing: Some(match self.failing {
                None => Row {
                    since: at.now,
                    fault: fault.clone(),
                    failed_at: at.now,
                    job,
                    failures: 1,
                    trial_at: None,
                },
                Some(row) => row.failed(errand, fault, job, at),
            }),
            refused_since: None,
        }
    }

    /// The time of others may be over like that of the job of this trial: so that none of them waits for many long
    /// distances, the next trial has the shortest.
    fn next_soon(self, errand: Errand, at: Circumstances<'_>) -> Course {
        if !errand.is_trial() {
            return self;
        }
        let soon = |row: &Row| at.now + errand.distance(&row.fault, 1, at);
        Course {
            failing: self.failing.map(|row| Row {
                trial_at: row.trial_at.map(|due| due.min(soon(&row))),
                ..row
            }),
            ..self
        }
    }

    /// A trial that proved nothing: the next one is due.
    fn unproven(self, errand: Errand, at: Circumstances<'_>) -> Course {
        if !errand.is_trial() {
            return self;
        }
        Course {
            failing: self.failing.map(|row| Row {
                trial_at: row.trial_at.map(|_| at.now),
                ..row
            }),
            ..self
        }
    }
}

impl Row {
    fn failed(
        self,
        errand: Errand,
        fault: &Fault,
        job: Option<JobId>,
        at: Circumstances<'_>,
    ) -> Row {
        let is_slow = self.trial_at.is_some();
        // What was under way when its kind slowed down is no trial, and says nothing new.
        let counts = match is_slow {
            true => errand.is_trial(),
            false => job.is_none() || job != self.job,
        };
        let failures = self.failures.saturating_add(u32::from(counts));
        let trial_at = match (is_slow, counts) {
            (true, false) => self.trial_at,
            _ => slow_since(failures).map(|step| at.now + errand.distance(fault, step, at)),
        };
        Row {
            since: self.since,
            fault: fault.clone(),
            failed_at: at.now,
            job,
            failures,
            trial_at,
        }
    }
}

/// The longest distance of trials, of sends and of reads.
fn longest(rules: &Rules) -> Duration {
    let most = |curve: &Curve| backoff::delay(curve, u32::MAX, Jitter::new(1.0));
    most(&rules.server_error).max(most(&rules.network))
}

/// No trial or look-up of a failing account is put off for longer, where a claim holds a job for this lease.
pub fn longest_trial(rules: &Rules, lease: Duration) -> Duration {
    longest(rules).max(lease)
}

/// Which distance of the curve is next, from 1; `None` before the slow-down.
fn slow_since(failures: u32) -> Option<u32> {
    (failures >= SLOW_AFTER).then(|| failures - SLOW_AFTER + 1)
}

/// So many refusals in a row of one job, for a reason of its own, are told to a human, if they last as long as
/// [`told_after`].
pub const REFUSALS_TOLD: i64 = 5;

/// How long a job gets no clear answer before a human is told: as long as the back-off after its first
/// tries. With the delays as shipped, two and a half minutes.
pub fn told_after(rules: &Rules) -> Duration {
    (1..=TRIES_TOLD)
        .map(|attempt| backoff::delay(&rules.server_error, attempt, Jitter::NONE))
        .sum()
}

#[cfg(test)]
mod tests;
