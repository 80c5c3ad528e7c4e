//! A parked account: what may park it, when to probe it, what health means, how fast it starts again.

pub mod belief;
pub mod trials;

use std::time::Duration;

use crate::domain::answer::{Answer, NotSent, Timed};
use crate::domain::codes::Class;
use crate::policy::backoff;
use crate::policy::rules::{BreakerRules, Curve, Jitter};
use crate::policy::verdict::{Effect, Next, Reason, Verdict};

/// How long after the n-th probe (from 1; 0 for the moment of parking) the next one is due.
///
/// A hint of the gateway's only lengthens it, up to a day.
pub fn probe_delay(
    rules: &BreakerRules,
    probes: u32,
    hint: Option<Duration>,
    jitter: Jitter,
) -> Duration {
    let curve = Curve {
        initial: rules.probe_initial,
        max: rules.probe_max,
        multiplier: 2.0,
        jitter: PROBE_JITTER,
        attempts: 0,
    };
    let hint = hint.unwrap_or_default().min(HINT_MAX);
    backoff::delay(&curve, probes + 1, jitter).max(hint)
}

/// Up to this share is added to the distance of probes.
pub(super) const PROBE_JITTER: f64 = 0.1;

/// A maintenance of more than a day is worth a look in between.
pub(super) const HINT_MAX: Duration = Duration::from_secs(24 * 3600);

/// What `GET /account/health` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Sending makes sense: let one job through.
    Well,
    /// It would fail again.
    Unwell(Reason),
    /// The gateway could not say; ask again later.
    Unclear,
}

/// Reads the answer of a probe (API, section 2.12).
///
/// Fields that are missing count as well: older gateways know fewer, and the one job that goes
/// through first is the true test.
pub fn health(answer: &Answer) -> Health {
    match answer {
        Answer::Reply(reply) => match reply.class() {
            Class::Success => reply.object().map_or(Health::Unclear, read_health),
            Class::AccountFault(reason) => Health::Unwell(reason),
            Class::Refused if reply.status == 404 => Health::Unwell(Reason::RouteNotFound),
            Class::Refused => Health::Unwell(Reason::OrganizationNotReady),
            _ => Health::Unclear,
        },
        Answer::NotSent(_) | Answer::Lost(_) => Health::Unclear,
    }
}

/// Whether the gateway says that it holds accepted invoices back: planned maintenance.
pub fn is_accumulating(answer: &Answer) -> bool {
    let Answer::Reply(reply) = answer else {
        return false;
    };
    let pointer = "/invoicing/accumulating";
    let said = reply.object().and_then(|body| body.pointer(pointer));
    reply.class() == Class::Success && said.and_then(|v| v.as_bool()) == Some(true)
}

fn read_health(body: &serde_json::Value) -> Health {
    let at = |pointer| body.pointer(pointer);
    let is_false = |pointer| at(pointer).and_then(|v| v.as_bool()) == Some(false);
    let is_true = |pointer| at(pointer).and_then(|v| v.as_bool()) == Some(true);
    let is_one_of = |pointer, words: &[&str]| {
        at(pointer)
            .and_then(|v| v.as_str())
            .is_some_and(|word| words.contains(&word))
    };
    if is_false("/connection/kaspi_connected")
        || is_true("/connection/needs_reauth")
        || is_one_of("/connection/session_status", &["expired", "error"])
    {
        Health::Unwell(Reason::SessionExpired)
    } else if is_one_of("/tariff/status", &["none", "expired", "frozen"]) {
        Health::Unwell(Reason::TariffInactive)
    } else {
        Health::Well
    }
}

/// What became of the one job that a probe let through, after health was found well, from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trial {
    /// What it asks for was done.
    Done,
    /// The gateway took the request for what it is; what comes of it shows later, if at all.
    Taken,
    /// Its params are wrong: it has ended without a request. That says nothing of the account, and costs next to nothing.
    Wrong,
    /// Nothing of it was sent, for another reason of its own: it has ended, or is put off. That says nothing of the account
    /// either.
    Unsent,
    /// The request failed, or nothing can be said.
    NotTaken,
    /// There is no job: health has to do, where it can.
    NoJob,
    /// There may be one, and it cannot be sent now.
    NotNow,
}

/// What the answer to a send says of its account.
pub fn trial(timed: &Timed, verdict: &Verdict) -> Trial {
    let answered = matches!(timed.answer, Answer::Reply(_));
    let unclear = verdict.effect == Effect::Unknown;
    // A 429 too: to resume would lift the wait that it asks for.
    match &verdict.next {
        _ if !answered || unclear || verdict.signal.is_some() => Trial::NotTaken,
        Next::Succeeded(_) => Trial::Done,
        _ => Trial::Taken,
    }
}

/// What it says of its account that nothing of a job was sent after this answer to what is read before. A clear one is about
/// the job, or about what it repeats, and no proof that anything would be taken.
pub fn trial_of_read(timed: &Timed) -> Trial {
    match &timed.answer {
        Answer::Reply(reply) if matches!(reply.class(), Class::Success | Class::Refused) => {
            Trial::Unsent
        }
        _ => Trial::NotTaken,
    }
}

/// What it says of its account that a job was put back, unsent.
pub fn trial_put_back(cause: NotSent) -> Trial {
    match cause {
        NotSent::KeyTooOld | NotSent::UnknownOperation => Trial::Unsent,
        _ if cause.is_of_the_network() => Trial::NotTaken,
        _ => Trial::NotNow,
    }
}

/// Jobs that a probe lets through one after another at most, as long as nothing of them is sent. Those whose params are
/// wrong do not count.
pub const TRIALS_OF_PROBE: u32 = 20;

/// Which jobs a probe chooses from for its next trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// All that may be tried (see [`Trials`](trials::Trials)).
    Any,
    /// Those that are parked, the one that was refused last first: it has parked the account, and whatever else there is,
    /// no probe ends without it.
    Parked,
}

/// The trials that a probe has made, of which nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tries {
    /// All of them.
    all: u32,
    /// Those that count.
    counted: u32,
    /// What the next one chooses from.
    pub choice: Choice,
}

impl Tries {
    /// Nothing was tried yet.
    pub const NONE: Tries = Tries {
        all: 0,
        counted: 0,
        choice: Choice::Any,
    };

    /// These and one more, with what came of it, when the first one began so long ago. What all of them have come to, once
    /// there is to be no other. After `time` only the last one begins.
    pub fn after(self, trial: Trial, since: Duration, time: Duration) -> Result<Tries, Trial> {
        let is_last = self.choice == Choice::Parked;
        match trial {
            Trial::Wrong | Trial::Unsent if !is_last => {
                let counted = self.counted + u32::from(trial == Trial::Unsent);
                let goes_on = counted < TRIALS_OF_PROBE && since < time;
                Ok(Tries {
                    all: self.all.saturating_add(1),
                    counted,
                    choice: if goes_on { Choice::Any } else { Choice::Parked },
                })
            }
            Trial::Wrong | Trial::Unsent => Err(Trial::Unsent),
            // None is parked; of the others there may be more.
            Trial::NoJob if is_last => Err(Trial::Unsent),
            // What was tried may be what leaves nothing for another.
            Trial::NotNow if self.all > 0 => Err(Trial::Unsent),
            trial => Err(trial),
        }
    }
}

/// What a probe that found health well comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probed {
    /// The account is resumed: a job has proven that it is well.
    Proven,
    /// The account is resumed by health alone, and its alert ends once it stays well.
    Believed,
    /// The row of probes goes on.
    Wait,
    /// The row of probes stays where it is, for nothing was tried: the next one comes after the shortest distance.
    WaitUnused,
    /// The row of probes goes on; the next job that is due is a reason to probe before its time.
    WaitForJob,
}

/// What follows from a probe that found health well.
///
/// Whether an account is `undelivered`, parked because what the gateway accepted failed at Kaspi, health has
/// said well of it all the time, and so has the answer to each send: then only what was done is proof. A job
/// that was merely taken proves it later, when it is followed to its delivery.
pub fn probed(trial: Trial, undelivered: bool) -> Probed {
    match trial {
        Trial::Done => Probed::Proven,
        Trial::Taken if !undelivered => Probed::Proven,
        Trial::NoJob if !undelivered => Probed::Believed,
        Trial::NoJob => Probed::WaitForJob,
        Trial::Wrong | Trial::Unsent => Probed::WaitUnused,
        Trial::Taken | Trial::NotTaken | Trial::NotNow => Probed::Wait,
    }
}

/// How many requests may be in flight this long after an account was resumed: one at first, then
/// doubling in equal steps up to the full number at the end of the slow start.
pub fn slow_start_limit(
    full: usize,
    since_resume: Option<Duration>,
    rules: &BreakerRules,
) -> usize {
    let Some(elapsed) = since_resume.filter(|elapsed| *elapsed < rules.slow_start) else {
        return full;
    };
    let doublings = usize::BITS - full.max(1).leading_zeros();
    let share = elapsed.as_secs_f64() / rules.slow_start.as_secs_f64();
    let steps = (share * f64::from(doublings)) as u32;
    1_usize
        .checked_shl(steps)
        .map_or(full, |limit| limit.min(full.max(1)))
}

#[cfg(test)]
mod tests;
