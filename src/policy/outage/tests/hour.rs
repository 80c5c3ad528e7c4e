//! An hour in which every request of an account gets the same answer, on a clock that only counts.

use time::OffsetDateTime;

use super::*;
use crate::domain::account::DuplicateProtection;
use crate::domain::state::State;
use crate::policy::finding::{Baseline, Finding, Subject};
use crate::policy::reconcile::reconcile;
use crate::policy::rules::Rules;
use crate::policy::verdict::{AccountSignal, Proof};

const JOBS: usize = 40;
const HOUR: Duration = seconds(3600);

struct Job {
    state: State,
    run_at: OffsetDateTime,
    history: crate::domain::job::History,
}

struct Hour<'a> {
    kind: Kind,
    protection: DuplicateProtection,
    rules: &'a Rules,
    answer: Answer,
    reads_work: bool,
    now: OffsetDateTime,
    jobs: Vec<Job>,
    outage: Outage,
    blocked_until: OffsetDateTime,
    is_parked: bool,
    sends: Vec<OffsetDateTime>,
    lookups: u32,
}

impl Hour<'_> {
    fn at(&self) -> Circumstances<'_> {
        Circumstances {
            now: self.now,
            is_slow: self.outage.is_slow(),
            ..at(self.rules)
        }
    }

    /// Goes to the next thing that is due within the hour, and does it.
    fn step(&mut self) -> bool {
        if self.is_parked {
            return false;
        }
        let trial_at = self.outage.sends.trial_at();
        let look_up_at = self.outage.course(Some(Read::LookUp)).trial_at();
        let due = |(index, job): (usize, &Job)| {
            let gate = match job.state {
                State::Queued => trial_at,
                State::Uncertain => look_up_at,
                _ => return None,
            };
            let gate = gate.unwrap_or(NOW).max(self.blocked_until);
            // Of those that are due, one that has not failed yet.
            Some((
                job.run_at.max(gate),
                job.history.failing_since.is_some(),
                index,
            ))
        };
        let Some((when, _, index)) = self.jobs.iter().enumerate().filter_map(due).min() else {
            return false;
        };
        if when > NOW + HOUR {
            return false;
        }
        self.now = self.now.max(when);
        match self.jobs[index].state {
            State::Queued => self.send(index, trial_at.is_some()),
            _ => self.look_up(index),
        }
        true
    }

    fn send(&mut self, index: usize, is_trial: bool) {
        self.sends.push(self.now);
        let timed = timed(self.answer.clone());
        let history = self.jobs[index].history.clone();
        let verdict = judge(
            self.kind.operation,
            &self.kind.plan,
            NAME,
            &history,
            &timed,
            self.at(),
        );
        let errand = match is_trial {
            true => Errand::Trial,
            false => Errand::Send,
        };
        let sign = sign_of_send(&timed, &verdict, false);
        self.settle(index, errand, &sign, &verdict);
    }

    fn look_up(&mut self, index: usize) {
        self.lookups += 1;
        let timed = timed(self.answer.clone());
        let finding = match (self.reads_work, self.kind.operation.name()) {
            (false, _) => Finding::Unclear(timed.clone()),
            (true, "invoice.create") => Finding::Listed(Vec::new()),
            (true, "invoice.cancel") => Finding::read(own_invoice("pending")),
            (true, _) => Finding::Listed(Vec::new()),
        };
        self.jobs[index].history.lookups += 1;
        let history = self.jobs[index].history.clone();
        let subject = Subject {
            operation: self.kind.operation,
            plan: &self.kind.plan,
            name: NAME,
            history: &history,
            protection: self.protection,
            baseline: Some(&Baseline::default()),
        };
        let verdict = reconcile(&subject, &finding, self.at());
        let sign = match self.reads_work {
            true => Sign::Clear,
            false => sign_of_lookup(&timed, &verdict),
        };
        let errand = Errand::read(Read::LookUp, self.outage.reads_slowly(Read::LookUp));
        self.settle(index, errand, &sign, &verdict);
    }

    fn settle(&mut self, index: usize, errand: Errand, sign: &Sign, verdict: &Verdict) {
        let (now, at) = (self.now, self.at());
        let outage = self
            .outage
            .clone()
            .after(errand, Some(JobId(index as i64)), sign, at);
        let job = &mut self.jobs[index];
        let (history, was) = (&mut job.history, job.state);
        history.attempts += u32::from(verdict.counts);
        if matches!(sign, Sign::Failing(_)) {
            history.failing_since.get_or_insert(now);
        }
        if was == State::Queued && verdict.effect == Effect::Unknown {
            history.unproven_since.get_or_insert(now);
        }
        let absent_since = history.absent_since.take();
        job.state = verdict.next.state();
        match &verdict.next {
            Next::Queued { after, proof, .. } => {
                job.run_at = now + *after;
                if *proof == Proof::NothingApplied {
                    history.unproven_since = None;
                }
            }
            Next::Uncertain { after, absent, .. } => {
                job.run_at = now + *after;
                if was == State::Uncertain {
                    history.absent_since = absent_since.or(absent.then_some(now));
                }
            }
            _ => {}
        }
        match &verdict.signal {
            Some(AccountSignal::Park { .. }) => self.is_parked = true,
            Some(AccountSignal::Block { wait, .. }) => self.blocked_until = now + *wait,
            None => {}
        }
        self.outage = outage;
    }
}

/// What may last, and what its longest distance is; `None` where the account waits otherwise.
fn lasting() -> Vec<(Answer, Option<u64>)> {
    let page = json_reply(502, json!({"message": "Kaspi API error"}));
    vec![
        (page, Some(900)),
        (coded(500, "x"), Some(900)),
        (reply(504, Body::Broken), Some(900)),
        (reply(200, Body::TooLarge), Some(900)),
        (reply(404, Body::Broken), Some(900)),
        (reply(302, Body::Broken), Some(900)),
        (coded(409, "kaspi_session_unavailable"), Some(900)),
        (Answer::Lost(Lost::Timeout), Some(900)),
        (Answer::Lost(Lost::Cut), Some(900)),
        (Answer::NotSent(NotSent::Dns), Some(300)),
        (Answer::NotSent(NotSent::Tls), Some(300)),
        (coded(429, "request_rate_limited"), None),
        (coded(429, "tariff_limit_reached"), None),
        (coded(401, "x"), None),
        (coded(403, "x"), None),
        (coded(503, "x"), None),
        (reply(503, Body::Broken), None),
        (coded(409, "kaspi_session_expired"), None),
    ]
}

#[test]
fn an_hour_of_any_answer_costs_no_job_and_few_requests() {
    let mut rules = rules();
    (rules.server_error.attempts, rules.network.attempts) = (0, 0);
    for (answer, longest) in lasting() {
        for kind in kinds() {
            for protection in [DuplicateProtection::Key, DuplicateProtection::Lookup] {
                for reads_work in [true, false] {
                    let kind = Kind {
                        operation: kind.operation,
                        plan: kind.plan.clone(),
                    };
                    let case = format!(
                        "{} {protection:?} {reads_work} {answer:?}",
                        kind.operation.name()
                    );
                    let mut hour = Hour {
                        kind,
                        protection,
                        rules: &rules,
                        answer: answer.clone(),
                        reads_work,
                        now: NOW,
                        jobs: (0..JOBS).map(|_| new_job()).collect(),
                        outage: Outage::default(),
                        blocked_until: NOW,
                        is_parked: false,
                        sends: Vec::new(),
                        lookups: 0,
                    };
                    while hour.step() {}
                    hour.check(longest, &case);
                }
            }
        }
    }
}

fn new_job() -> Job {
    Job {
        state: State::Queued,
        run_at: NOW,
        history: clean(),
    }
}

impl Hour<'_> {
    fn check(self, longest: Option<u64>, case: &str) {
        let waits =
            |job: &Job| matches!(job.state, State::Queued | State::Uncertain | State::Parked);
        assert!(self.jobs.iter().all(waits), "{case}");
        let requests = self.sends.len() + self.lookups as usize;
        assert!(requests <= 64, "{requests} requests: {case}");
        let untouched = self.jobs.iter().filter(|job| job.history == clean());
        assert!(untouched.count() >= JOBS / 3, "{case}");
        let Some(longest) = longest else {
            assert!(!self.outage.is_slow(), "{case}");
            return assert!(self.is_parked || self.blocked_until > self.now, "{case}");
        };
        assert!(self.outage.is_slow() && self.outage.sends.tells(), "{case}");
        let row = self.outage.sends.failing.clone().expect("a row");
        let trial_at = row.trial_at.expect("a trial");
        let last = *self.sends.last().expect("a send");
        assert_eq!(
            (trial_at - last).whole_seconds().unsigned_abs(),
            longest,
            "{case}"
        );
        let at = self.at();
        let over = self
            .outage
            .clone()
            .after(Errand::Trial, Some(JobId(1)), &Sign::Clear, at);
        assert_eq!(over.sends, Course::default(), "{case}");
    }
}
