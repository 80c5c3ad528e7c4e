//! A job as its row in the database: decisions move it, and time passes until it is due.

use time::OffsetDateTime;

use super::*;
use crate::domain::object::Object;
use crate::domain::state::State;
use crate::policy::finding::Baseline;
use crate::policy::rules::Rules;

/// Sends that count, at the most: those of the longest curve, and one for each later generation.
pub(super) fn sends_at_most(rules: &Rules) -> u32 {
    rules.network.attempts + rules.async_error.attempts - 1
}

pub(super) struct Job {
    pub kind: Kind,
    pub protection: DuplicateProtection,
    pub name: JobName,
    pub state: State,
    /// The followed object, of an accepted job.
    pub followed: Option<Box<Object>>,
    pub history: History,
    pub baseline: Option<Baseline>,
    pub now: OffsetDateTime,
    pub run_at: OffsetDateTime,
    pub accepted_at: OffsetDateTime,
    /// Since when the followed object has had this status.
    pub mirror: Option<(String, OffsetDateTime)>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, state) = (self.kind.operation.name(), &self.state);
        write!(f, "{name} {state:?} {:?} at {}", self.history, self.now)
    }
}

impl Job {
    pub(super) fn new(kind: Kind, protection: DuplicateProtection) -> Job {
        Job {
            kind,
            protection,
            name: NAME,
            state: State::Queued,
            followed: None,
            history: clean(),
            baseline: None,
            now: NOW,
            run_at: NOW,
            accepted_at: NOW,
            mirror: None,
        }
    }

    pub(super) fn is_uncertain(&self) -> bool {
        self.state == State::Uncertain
    }

    /// Only as the table of moves allows.
    fn moves_to(&mut self, to: State) {
        assert!(self.state.may_become(to), "{to}: {self:?}");
        self.state = to;
    }

    /// The account is well again.
    pub(super) fn release(&mut self) {
        self.moves_to(State::back_to(self.history.unproven_since));
    }

    /// Whatever its state is, the next thing happens.
    pub(super) fn step(&mut self, facts: &Facts) {
        self.now += facts.later;
        match self.state {
            State::Queued | State::Parked => self.send(&facts.timed),
            State::Uncertain => self.look_up(&suited(&self.kind, facts.finding.clone())),
            State::Accepted => {
                let seen = object(&self.kind, &facts.status, &facts.code);
                self.check(&seen);
            }
            State::Sending => panic!("left alone: {self:?}"),
            State::Held | State::Succeeded | State::Failed | State::Cancelled | State::Expired => {}
        }
    }

    /// A send got this answer. The baseline of a refund was stored before it.
    pub(super) fn send(&mut self, timed: &Timed) {
        self.wait();
        if self.state == State::Parked && self.history.unproven_since.is_some() {
            self.release();
            return;
        }
        self.moves_to(State::Sending);
        self.baseline.get_or_insert_default();
        let rules = rules();
        let at = self.at(&rules);
        let verdict = judge(
            self.kind.operation,
            &self.kind.plan,
            NAME,
            &self.history,
            timed,
            at,
        );
        let undecided = matches!(verdict.next, Next::Uncertain { .. } | Next::Held(_));
        let noted = undecided && matches!(verdict.effect, Effect::Unknown | Effect::Applied);
        self.history.attempts += u32::from(verdict.counts);
        self.history.is_repeated |= noted && self.history.unproven_since.is_some();
        self.settle(verdict.next, noted);
    }

    /// The worker died after the send: its lease runs out.
    pub(super) fn lose(&mut self) {
        self.wait();
        self.moves_to(State::Sending);
        self.baseline.get_or_insert_default();
        self.now += seconds(90);
        self.history.attempts += 1;
        self.history.is_repeated |= self.history.unproven_since.is_some();
        let next = Next::Uncertain {
            after: seconds(60),
            reason: crate::policy::verdict::Reason::Timeout,
            invoice_id: None,
            absent: false,
        };
        self.settle(next, true);
    }

    pub(super) fn look_up(&mut self, finding: &Finding) {
        if !self.is_uncertain() {
            return;
        }
        self.wait();
        self.history.lookups += 1;
        let rules = rules();
        let subject = Subject {
            operation: self.kind.operation,
            plan: &self.kind.plan,
            name: self.name,
            history: &self.history,
            protection: self.protection,
            baseline: self.baseline.as_ref(),
        };
        let verdict = reconcile(&subject, finding, self.at(&rules));
        self.settle(verdict.next, false);
    }

    /// The followed object looks like this. Returns false if nobody would ever look again.
    pub(super) fn check(&mut self, seen: &Object) -> bool {
        let rules = rules();
        let status = seen.status().to_owned();
        let since = match self.mirror.take() {
            Some((before, since)) if before == status => since,
            _ => self.now,
        };
        self.mirror = Some((status, since));
        let span = |since| Duration::try_from(self.now - since).unwrap_or_default();
        let followed = follow(
            self.kind.operation,
            &self.kind.plan,
            &self.history,
            seen,
            Spans {
                unchanged: span(since),
                accepted: span(self.accepted_at),
                resumed: None,
            },
            self.at(&rules),
        );
        let usual = usual_check(seen, span(since), &rules);
        let check = followed.check_after.map_or(usual, NextCheck::After);
        if let Some(next) = followed.next {
            self.settle(next, false);
        }
        match (self.state, check) {
            (State::Accepted, NextCheck::After(after)) => {
                self.run_at = self.now + after;
                true
            }
            (State::Accepted, NextCheck::Settled) => false,
            _ => true,
        }
    }

    fn at<'a>(&self, rules: &'a Rules) -> Circumstances<'a> {
        Circumstances {
            now: self.now,
            ..at(rules)
        }
    }

    pub(super) fn wait(&mut self) {
        self.now = self.now.max(self.run_at);
    }

    fn settle(&mut self, next: Next, unproven: bool) {
        let was = self.state;
        self.moves_to(next.state());
        let stays_uncertain = was == State::Uncertain && self.is_uncertain();
        if unproven {
            self.history.unproven_since.get_or_insert(self.now);
        }
        if let Some(after) = wait_of(&next) {
            self.run_at = self.now + after;
        }
        let absent_since = self.history.absent_since.take();
        let history = &mut self.history;
        match next {
            Next::Succeeded(_) | Next::Failed(_) | Next::Held(_) | Next::Parked(_) => {}
            Next::CalledOff { .. } => panic!("nobody has said that it is to end"),
            Next::Queued { proof, .. } => {
                if proof == Proof::NothingApplied {
                    history.unproven_since = None;
                    self.baseline = None;
                }
            }
            Next::Resubmit(_) => {
                history.spared += u32::from(next.is_spared());
                history.generation += 1;
                self.name.generation += 1;
                history.unproven_since = None;
                history.invoice_id = None;
                self.baseline = None;
                self.mirror = None;
            }
            Next::Accepted { seen, .. } => {
                history.unproven_since = None;
                self.accepted_at = self.now;
                if was != State::Accepted {
                    self.mirror = Some((seen.status().to_owned(), self.now));
                    let usual = usual_check(&seen, Duration::ZERO, &rules());
                    assert!(matches!(usual, NextCheck::After(_)), "left alone: {seen:?}");
                }
                self.followed = Some(Box::new(seen));
            }
            Next::Uncertain {
                invoice_id, absent, ..
            } => {
                history.invoice_id = invoice_id.or(history.invoice_id);
                if was == State::Uncertain {
                    history.absent_since = absent_since.or(absent.then_some(self.now));
                }
            }
        }
        if !stays_uncertain {
            self.history.lookups = 0;
        }
    }
}

fn usual_check(seen: &Object, unchanged_for: Duration, rules: &Rules) -> NextCheck {
    let sighting = Sighting {
        unchanged_for,
        is_invoice_read: true,
        ..Sighting::FIRST
    };
    next_check(seen.outlook(), sighting, &rules.follow, Jitter::NONE)
}
