//! The daemon's own decisions, called with the model's time.
//!
//! Nothing is decided here: the plan is `operation.prepare`, the verdict is `judge`, `reconcile`,
//! `follow` or `without_baseline`, and the row that records it is `worker::outcome`'s. What is
//! around them in worker/send.rs, lookup.rs and follow.rs (which request a look-up makes, which
//! reader takes its answer) is repeated here, because there it stands between awaits.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use apipayd::db::entry::{Entry, Transition};
use apipayd::domain::account::AccountName;
use apipayd::domain::answer::{Answer, Lost, NotSent, Timed};
use apipayd::domain::job::{Epoch, History, JobId, JobName};
use apipayd::domain::object::{Invoice, Object, Refund};
use apipayd::domain::operation::{Lookup, Operation, Plan, Planned, Request, operation};
use apipayd::domain::state::State as Status;
use apipayd::gateway::wire;
use apipayd::policy::finding::{Baseline, Finding, Subject};
use apipayd::policy::follow::{Spans, follow};
use apipayd::policy::judge::{Circumstances, judge};
use apipayd::policy::outage::{Errand, Sign};
use apipayd::policy::reconcile::{reconcile, without_baseline};
use apipayd::policy::rules::{Jitter, Rules};
use apipayd::policy::verdict::{AccountSignal, Verdict};
use apipayd::worker::alerting::{Alert, Known};
use apipayd::worker::guard::Guard;
use apipayd::worker::outcome::{self, AttemptKind, Evidence, Following};
use apipayd::worker::recorder::Signed;
use serde_json::json;
use time::OffsetDateTime;
use time::macros::datetime;
use uuid::Uuid;

use crate::gateway::{Glimpse, Response, TARGET_ID, Writer, id_of, object_of, timed};
use crate::setup::{Op, Setup, Variant};
use crate::table::{Move, Row};
use crate::time::{rules, ticks, whole_ticks};

const NOW: OffsetDateTime = datetime!(2026-11-01 12:00 UTC);

/// What a worker learned and has to decide about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Learned {
    /// The window was closed: nothing is sent.
    WindowClosed,
    /// The end of a send, and after how many ticks.
    Sent(Heard, u8),
    /// The refunds that were there before could not be read: nothing is sent.
    NoBaseline,
    /// What a look-up showed.
    LookedUp(Glimpse),
    /// What a check of an accepted object showed.
    Checked(Glimpse),
}

/// How a send ended for its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Heard {
    /// With an answer; the object in it, if any, is done or not.
    Response(Response, bool),
    /// With a 502 that says nothing of the request.
    BadGateway,
    /// The connection ended.
    Cut,
    /// The time was over.
    Timeout,
    /// No connection: no byte left.
    NoConnection,
}

/// Everything a decision depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Question {
    job: u8,
    attempts: u8,
    unproven: Option<u8>,
    absent: Option<u8>,
    object: Option<u8>,
    baseline: Option<u8>,
    job_of: Vec<u8>,
    learned: Learned,
}

/// The pure part of the daemon, with an account's settings.
pub(crate) struct Daemon {
    setup: Setup,
    operation: &'static dyn Operation,
    plans: Vec<Planned>,
    rules: Rules,
    /// Decisions are pure, so each is made once.
    made: Mutex<HashMap<Question, Option<Move>>>,
}

impl Daemon {
    /// The daemon for a configuration.
    pub(crate) fn new(setup: Setup) -> Daemon {
        let (name, params) = match setup.operation {
            Op::Create => (
                "invoice.create",
                json!({ "phone_number": "87001234567", "amount": 5000 }),
            ),
            Op::Refund => (
                "invoice.refund",
                json!({ "invoice_id": TARGET_ID, "amount": 1000 }),
            ),
            Op::Cancel => ("invoice.cancel", json!({ "invoice_id": TARGET_ID })),
        };
        let operation = operation(name).expect("a known operation");
        let plan = |job| operation.prepare(&params, &self::name(job));
        Daemon {
            setup,
            operation,
            plans: (0..setup.jobs)
                .map(|job| plan(job).expect("valid params"))
                .collect(),
            rules: rules(setup.attempts, setup.give_up),
            made: Mutex::default(),
        }
    }

    /// Decides; none: nothing changes.
    pub(crate) fn decide(
        &self,
        job: u8,
        row: &Row,
        job_of: Vec<u8>,
        learned: &Learned,
    ) -> Option<Move> {
        let question = Question {
            job,
            attempts: row.attempts,
            unproven: row.unproven,
            absent: row.absent,
            object: row.object,
            baseline: row.baseline,
            job_of,
            learned: learned.clone(),
        };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = made.get(&question) {
            return known.clone();
        }
        let fresh = self
            .answer(&question)
            .map(|fresh| self.broken(fresh, learned));
        made.insert(question, fresh.clone());
        fresh
    }

    /// What the broken variants make of a decision.
    fn broken(&self, decided: Move, learned: &Learned) -> Move {
        let waits = decided.to == Status::Uncertain && decided.closes_send;
        let after_502 = matches!(learned, Learned::Sent(Heard::BadGateway, _));
        match self.setup.variant {
            Variant::NoQuietPeriod if waits => Move {
                after: Some(0),
                ..decided
            },
            Variant::ResendWithoutLookup if waits && after_502 => Move {
                to: Status::Queued,
                after: Some(0),
                ..decided
            },
            _ => decided,
        }
    }

    fn answer(&self, question: &Question) -> Option<Move> {
        let history = self.history(question);
        let Planned { request, plan } = &self.plans[usize::from(question.job)];
        let at = Circumstances {
            rules: &self.rules,
            now: NOW,
            jitter: Jitter::NONE,
            refusals: 1,
            is_slow: false,
        };
        match &question.learned {
            // worker/send.rs
            Learned::WindowClosed => {
                let cause = NotSent::WindowClosed;
                let timed = Timed {
                    answer: Answer::NotSent(cause),
                    took: Duration::ZERO,
                };
                let verdict = judge(
                    self.operation,
                    plan,
                    name(question.job),
                    &history,
                    &timed,
                    at,
                );
                let guard = guard(Status::Sending);
                let entry = outcome::not_sent(&guard, cause, &verdict);
                Some(shortened(&guard, entry.transition, &verdict))
            }
            Learned::Sent(heard, took) => {
                let timed = self.heard(*heard, ticks(*took), &question.job_of);
                let verdict = judge(
                    self.operation,
                    plan,
                    name(question.job),
                    &history,
                    &timed,
                    at,
                );
                Some(self.written(AttemptKind::Send, plan, request, &timed, &verdict))
            }
            Learned::NoBaseline => {
                let timed = bad_gateway(Duration::ZERO);
                let verdict = without_baseline(&history, &timed, at);
                let request = wire::list_refunds(TARGET_ID);
                Some(self.written(AttemptKind::Send, plan, &request, &timed, &verdict))
            }
            // worker/lookup.rs
            Learned::LookedUp(glimpse) => {
                let (request, timed, finding) = self.found(question, plan, glimpse);
                let known = question.baseline.map(baseline);
                let subject = Subject {
                    operation: self.operation,
                    plan,
                    name: name(question.job),
                    history: &history,
                    protection: self.setup.protection,
                    baseline: known.as_ref(),
                };
                let verdict = reconcile(&subject, &finding, at);
                Some(self.written(AttemptKind::Lookup, plan, &request, &timed, &verdict))
            }
            // worker/follow.rs
            Learned::Checked(glimpse) => {
                let seen = self.seen(question, glimpse)?;
                let followed = follow(self.operation, plan, &history, &seen, Spans::default(), at);
                let next = followed.next?;
                let guard = guard(Status::Accepted);
                let entry = outcome::followed(
                    &guard,
                    &next,
                    &seen,
                    Entry::default(),
                    Known::nothing_of(self.operation.name()),
                    self.following(),
                );
                Some(Move::of(entry.transition, None))
            }
        }
    }

    fn history(&self, question: &Question) -> History {
        let ago = |age: u8| NOW - ticks(age);
        let invoice_id = match self.setup.operation {
            Op::Create => question.object.map(id_of),
            Op::Refund | Op::Cancel => None,
        };
        History {
            attempts: u32::from(question.attempts),
            generation: 1,
            spared: 0,
            unproven_since: question.unproven.map(ago),
            absent_since: question.absent.map(ago),
            // Only lengthens delays, which are zero.
            lookups: 0,
            failing_since: None,
            is_sent_no_more: false,
            is_target_known: false,
            sent_at: None,
            is_repeated: question.attempts > 1,
            denied_since: None,
            invoice_id,
            // A key that is taken is answered with the number of what has it.
            is_key_taken: false,
        }
    }

    fn writer(&self) -> Writer<'_> {
        Writer {
            setup: &self.setup,
            plans: &self.plans,
        }
    }

    fn heard(&self, heard: Heard, took: Duration, job_of: &[u8]) -> Timed {
        let answer = match heard {
            Heard::Response(response, done) => {
                return timed(self.writer().response(response, job_of, done), took);
            }
            Heard::BadGateway => return bad_gateway(took),
            Heard::Cut => Answer::Lost(Lost::Cut),
            Heard::Timeout => Answer::Lost(Lost::Timeout),
            Heard::NoConnection => Answer::NotSent(NotSent::Connect),
        };
        Timed { answer, took }
    }

    /// `ask` of worker/lookup.rs: what was asked, the answer, and what the daemon reads in it.
    fn found(
        &self,
        question: &Question,
        plan: &Plan,
        glimpse: &Glimpse,
    ) -> (Request, Timed, Finding) {
        let by_id = match (&plan.lookup, glimpse) {
            (Lookup::Invoice { id }, _) => Some(*id),
            (Lookup::InvoiceByName, Glimpse::One(object, _)) => Some(id_of(*object)),
            (Lookup::InvoiceByName | Lookup::Refunds { .. }, _) => None,
        };
        let request = match (by_id, self.setup.operation) {
            (Some(id), _) => wire::get_invoice(id),
            (None, Op::Refund) => wire::list_refunds(TARGET_ID),
            (None, Op::Create | Op::Cancel) => wire::search_invoices(&name(question.job), 1),
        };
        let answer = match glimpse {
            Glimpse::Nothing => (502, json!({ "message": "Kaspi API error" })),
            Glimpse::Target(target) => (200, Writer::target(*target)),
            Glimpse::One(number, done) => {
                let body = self.writer().object(&question.job_of, *number, *done);
                (200, body)
            }
            Glimpse::List(shown) => self.writer().list(&question.job_of, shown),
        };
        let timed = timed(answer, Duration::ZERO);
        let finding = match (by_id, self.setup.operation) {
            (Some(id), _) => wire::read_invoice(&timed, id).map(Finding::read),
            (None, Op::Refund) => {
                wire::read_refunds(&timed, TARGET_ID).map(|list| Finding::listed(list.refunds))
            }
            (None, Op::Create | Op::Cancel) => wire::read_invoice_page(&timed)
                .filter(|page| page.invoices.len() >= page.total)
                .map(|page| Finding::listed(page.invoices)),
        };
        let finding = finding.unwrap_or_else(|| Finding::Unclear(timed.clone()));
        (request, timed, finding)
    }

    /// The object that a check of an accepted job looks at.
    fn seen(&self, question: &Question, glimpse: &Glimpse) -> Option<Object> {
        match (glimpse, self.setup.operation) {
            (Glimpse::Target(target), _) => {
                Invoice::read(&Writer::target(*target)).map(Object::Invoice)
            }
            (Glimpse::One(number, done), operation) => {
                let row = self.writer().object(&question.job_of, *number, *done);
                match operation {
                    Op::Refund => Refund::read(&row, TARGET_ID).map(Object::Refund),
                    Op::Create | Op::Cancel => Invoice::read(&row).map(Object::Invoice),
                }
            }
            (Glimpse::Nothing | Glimpse::List(_), _) => None,
        }
    }

    /// The row of `apipay.attempts` and the move of the job that `worker::outcome` writes.
    fn written(
        &self,
        kind: AttemptKind,
        plan: &Plan,
        request: &Request,
        timed: &Timed,
        verdict: &Verdict,
    ) -> Move {
        let guard = guard(match kind {
            AttemptKind::Send | AttemptKind::First => Status::Sending,
            AttemptKind::Lookup => Status::Uncertain,
        });
        let evidence = Evidence {
            guard: &guard,
            kind,
            plan,
            request,
            timed,
            now: NOW,
            // What is told of the gateway is no part of the protocol.
            signed: Signed {
                errand: Errand::Send,
                job: Some(guard.id),
                sign: Sign::Silent,
            },
            failing_since: None,
            read: None,
            instead: None,
            may_have_others: false,
            known: Known::nothing_of("invoice.refund"),
        };
        let entry = outcome::entry(&evidence, verdict, self.following());
        shortened(&guard, entry.transition, verdict)
    }

    fn following(&self) -> Following<'_> {
        Following {
            rules: &self.rules.follow,
            jitter: Jitter::NONE,
            key: "",
            seen_at: NOW,
        }
    }
}

impl Move {
    fn of(transition: Option<Transition>, signal: Option<&AccountSignal>) -> Move {
        let transition = transition.expect("a decision moves its job");
        assert!(
            !transition.resubmitted,
            "nothing fails at Kaspi in this model"
        );
        Move {
            closes_send: transition.kind == Some(AttemptKind::Send.as_str()),
            from: transition.from_state,
            to: transition.state,
            after: transition
                .after_s
                .map(|seconds| whole_ticks(Duration::from_secs_f64(seconds))),
            counts: transition.counts,
            unproven: transition.unproven,
            proven: transition.proven,
            absent: transition.absent,
            object: transition
                .refund_id
                .or(transition.invoice_id)
                .and_then(object_of),
            parks: matches!(signal, Some(AccountSignal::Park { .. })),
        }
    }
}

/// The move; one that holds the job must tell a human.
fn shortened(guard: &Guard, transition: Option<Transition>, verdict: &Verdict) -> Move {
    let decided = Move::of(transition, verdict.signal.as_ref());
    let tells = Alert::of(guard, &verdict.next, Known::nothing_of("invoice.refund")).is_some();
    assert_eq!(decided.to == Status::Held, tells, "held without an alert");
    decided
}

/// The model fences with its own epochs; the daemon only carries them.
fn guard(state: Status) -> Guard {
    Guard {
        account: AccountName::parse("default").expect("a name"),
        id: JobId(1),
        token: Uuid::nil(),
        worker: Some(Uuid::nil()),
        epoch: Epoch(1),
        state,
    }
}

fn name(job: u8) -> JobName {
    JobName {
        token: Uuid::from_u128(u128::from(job) + 1),
        generation: 1,
    }
}

fn bad_gateway(took: Duration) -> Timed {
    timed((502, json!({ "message": "Kaspi API error" })), took)
}

fn baseline(known: u8) -> Baseline {
    Baseline {
        refund_ids: (0..8)
            .filter(|object| known & (1 << object) != 0)
            .map(id_of)
            .collect(),
        is_told_apart: false,
    }
}
