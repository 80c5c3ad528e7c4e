//! A gateway that keeps true books and answers as it likes: applies and cuts the line, applies late,
//! refuses, throttles, and lets objects fail and revive. A tape of numbers decides what happens.

use time::OffsetDateTime;

use super::life::Job;
use super::*;
use crate::domain::answer::{Lost, NotSent};
use crate::domain::object::{Invoice, Object};
use crate::domain::operation::Lookup;
use crate::domain::state::State;
use crate::policy::finding::Baseline;

pub(super) struct World {
    job: Job,
    honours_key: bool,
    forgets_reasons: bool,
    /// How long after it was made an object shows up in searches and lists.
    lag: Duration,
    books: Vec<Entry>,
    /// Requests that are still at work, and when they have their effect.
    arriving: Vec<(OffsetDateTime, JobName)>,
    tape: Vec<u16>,
    at: usize,
}

/// An invoice or a refund; without a name it is a cashier's.
struct Entry {
    id: i64,
    name: Option<JobName>,
    status: &'static str,
    code: Option<&'static str>,
    revives_at: Option<OffsetDateTime>,
    shown_from: OffsetDateTime,
}

impl Entry {
    fn new(
        id: usize,
        name: Option<JobName>,
        status: &'static str,
        shown_from: OffsetDateTime,
    ) -> Entry {
        Entry {
            id: i64::try_from(id).expect("a small number"),
            name,
            status,
            code: None,
            revives_at: None,
            shown_from,
        }
    }

    fn is_live(&self) -> bool {
        !matches!(self.status, "error" | "failed")
    }

    /// The key of a dead invoice is released (API, section 3.1).
    fn holds_key(&self) -> bool {
        !matches!(self.status, "error" | "cancelled" | "expired")
    }

    fn invoice(&self) -> Invoice {
        let name = self.name.map(|name| name.to_string());
        Invoice::read(&json!({
            "id": self.id, "status": self.status, "error_code": self.code, "external_order_id": name,
        }))
        .expect("an invoice")
    }
}

/// The invoice that a cancel acts on stands first.
const TARGET: usize = 0;

impl World {
    pub(super) fn new(kind: Kind, honours_key: bool, tape: Vec<u16>) -> World {
        let protection = match honours_key {
            true => DuplicateProtection::Key,
            false => DuplicateProtection::Lookup,
        };
        let books = match kind.plan.lookup {
            Lookup::Invoice { .. } => vec![Entry::new(15, None, "pending", NOW)],
            _ => Vec::new(),
        };
        let first = tape.first().copied().unwrap_or_default();
        let forgets_reasons = first % 4 == 0;
        // Less than the settle time: that is what it is for.
        let lag = seconds(if first % 3 == 0 {
            u64::from(first) % 890
        } else {
            0
        });
        World {
            job: Job::new(kind, protection),
            honours_key,
            forgets_reasons,
            lag,
            books,
            arriving: Vec::new(),
            tape,
            at: 0,
        }
    }

    pub(super) fn run(mut self) {
        while self.at < self.tape.len() && self.step() {
            self.assert_once();
        }
        self.job.now += seconds(120);
        self.arrive();
        self.assert_once();
        self.assert_end();
    }

    /// A number below `choices`; the end of the tape is all noughts.
    fn draw(&mut self, choices: u16) -> u16 {
        let number = self.tape.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        number % choices
    }

    fn is(&self, resend: Resend) -> bool {
        self.job.kind.plan.resend == resend
    }

    fn step(&mut self) -> bool {
        let is_early = self.job.state == State::Accepted && self.draw(4) == 0;
        if is_early {
            // A webhook says that there is something to see.
            self.job.now += seconds(1);
        } else {
            self.job.wait();
        }
        self.arrive();
        self.live();
        match self.job.state {
            State::Parked if self.job.history.unproven_since.is_some() => self.job.release(),
            State::Queued | State::Parked => self.send(),
            State::Uncertain => {
                let finding = self.find();
                self.job.look_up(&finding);
            }
            State::Accepted => {
                let seen = self.job.followed.clone().expect("it is followed");
                let seen = self.show(&seen);
                assert!(self.job.check(&seen), "left alone: {:?}", self.job);
            }
            State::Sending => panic!("left alone: {:?}", self.job),
            State::Held | State::Succeeded | State::Failed | State::Cancelled | State::Expired => {
                return false;
            }
        }
        true
    }

    fn send(&mut self) {
        if key_may_be_free(
            &self.job.history,
            Circumstances {
                now: self.job.now,
                ..at(&rules())
            },
        ) {
            let is_unproven = self.job.history.unproven_since.is_some();
            assert!(is_unproven, "nothing was sent with a key too old");
            return self.job.send(&timed(Answer::NotSent(NotSent::KeyTooOld)));
        }
        if self.job.baseline.is_none() {
            let refund_ids = self.shown().map(|entry| entry.id).collect();
            self.job.baseline = Some(Baseline {
                refund_ids,
                is_told_apart: false,
            });
        }
        match self.draw(8) {
            0 => self.job.send(&timed(Answer::NotSent(NotSent::Dns))),
            1 => {
                let refusals = [
                    coded(429, "request_rate_limited"),
                    coded(503, "kaspi_session_invalid"),
                    coded(409, "kaspi_session_unavailable"),
                    coded(429, "tariff_limit_reached"),
                ];
                let answer = refusals[usize::from(self.draw(4))].clone();
                self.job.send(&timed(answer));
            }
            2 => self.job.send(&timed(coded(422, "content_rejected"))),
            3 => {
                let answer = self.apply(self.job.name);
                self.job.send(&timed(answer));
            }
            4 => {
                self.apply(self.job.name);
                self.answer_unclearly();
            }
            5 => {
                self.apply_late();
                self.answer_unclearly();
            }
            6 => self.answer_unclearly(),
            _ => {
                if self.draw(2) == 0 {
                    self.apply_late();
                }
                self.job.lose();
            }
        }
    }

    /// The answer says nothing, and comes before the request's time limit is over.
    fn answer_unclearly(&mut self) {
        let took = seconds(u64::from(self.draw(31)));
        let (answer, took) = match self.draw(5) {
            0 => (Answer::Lost(Lost::Timeout), rules().request_timeout),
            1 => (Answer::Lost(Lost::Cut), took),
            2 => (reply(502, Body::Text("<html>".to_owned())), took),
            3 => (reply(201, Body::Broken), took),
            _ => (coded(500, "x"), took),
        };
        let started = self.job.now;
        self.job.now = started + took;
        self.job.run_at = self.job.now;
        self.arrive();
        self.job.send(&Timed { answer, took });
    }

    /// The request is at work for as long as its own time limit, at the most.
    fn apply_late(&mut self) {
        let after = seconds(u64::from(self.draw(31)));
        self.arriving.push((self.job.now + after, self.job.name));
    }

    fn arrive(&mut self) {
        let now = self.job.now;
        let (due, rest) = std::mem::take(&mut self.arriving)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.arriving = rest;
        let due: Vec<(OffsetDateTime, JobName)> = due;
        for (_, name) in due {
            self.apply(name);
        }
    }

    /// The request has its effect. Returns what is answered, if the answer arrives.
    fn apply(&mut self, name: JobName) -> Answer {
        let id = self.books.len() + 20;
        let shown_from = self.job.now + self.lag;
        if self.is(Resend::Harmless) {
            let target = &mut self.books[TARGET];
            if !matches!(target.status, "pending" | "processing") {
                return json_reply(400, json!({"error": "Invoice cannot be cancelled"}));
            }
            (target.status, target.name) = ("cancelling", Some(name));
            return json_reply(202, json!({"invoice_id": 15}));
        }
        if self.is(Resend::ByBaseline) {
            self.books
                .push(Entry::new(id, Some(name), "pending", shown_from));
            let refund = json!({"id": id, "invoice_id": 15, "status": "pending"});
            return json_reply(201, json!({"refund": refund}));
        }
        let mut of_key = self.books.iter().filter(|entry| entry.name == Some(name));
        if let Some(first) = of_key.find(|entry| self.honours_key && entry.holds_key()) {
            let body = json!({"error": "duplicate_idempotency_key", "invoice_id": first.id});
            return json_reply(409, body);
        }
        self.books
            .push(Entry::new(id, Some(name), "processing", shown_from));
        json_reply(201, json!({"id": id, "status": "processing"}))
    }

    /// A complete look-up tells the truth; now and then there is none.
    fn find(&mut self) -> Finding {
        if self.draw(4) == 0 {
            return Finding::Unclear(timed(coded(500, "x")));
        }
        match (&self.job.kind.plan.lookup, self.job.history.invoice_id) {
            (Lookup::Invoice { .. }, _) => Finding::read(self.books[TARGET].invoice()),
            (Lookup::InvoiceByName, None) => Finding::listed(self.shown().map(Entry::invoice)),
            (Lookup::InvoiceByName, Some(id)) => {
                let entry = self.books.iter().find(|entry| entry.id == id);
                Finding::read(entry.expect("an invoice of the gateway's").invoice())
            }
            (Lookup::Refunds { .. }, _) => {
                Finding::listed(self.shown().map(|entry| self.refund(entry)))
            }
        }
    }

    fn shown(&self) -> impl Iterator<Item = &Entry> {
        self.books
            .iter()
            .filter(|entry| entry.shown_from <= self.job.now)
    }

    fn refund(&self, entry: &Entry) -> crate::domain::object::Refund {
        let mark = entry
            .name
            .filter(|_| !self.forgets_reasons)
            .map(|name| name.mark());
        let mut seen = refund_row(entry.id, entry.status, mark.as_deref());
        seen.error_code = entry.code.map(str::to_owned);
        seen
    }

    fn show(&self, seen: &Object) -> Object {
        let entry = |id| {
            self.books
                .iter()
                .find(|entry| entry.id == id)
                .expect("in the books")
        };
        match seen {
            Object::Invoice(invoice) => Object::Invoice(entry(invoice.id).invoice()),
            Object::Refund(refund) => Object::Refund(self.refund(entry(refund.id))),
        }
    }

    /// Objects go their way, and a cashier may give money back.
    fn live(&mut self) {
        let now = self.job.now;
        for index in 0..self.books.len() {
            let (turn, code) = (self.draw(6), self.draw(3));
            let after = seconds(u64::from(self.draw(85)));
            let has_successor = self.has_successor(index);
            let entry = &mut self.books[index];
            // An invoice that dies unseen frees its key unseen: no look-up and no key helps then.
            if now < entry.shown_from {
                continue;
            }
            // Nor does anything help when it rises after its key made another (ARCHITECTURE, limits).
            if entry.revives_at.is_some_and(|at| at <= now) && !has_successor {
                (entry.status, entry.revives_at) = ("pending", None);
            }
            let is_refund = self.job.kind.plan.resend == Resend::ByBaseline;
            entry.status = match (entry.status, turn) {
                ("pending", 0 | 1) if is_refund => "completed",
                ("pending", 2) if is_refund => "failed",
                ("processing", 0) => "pending",
                ("processing", 1 | 2) => "error",
                ("pending", 1) => "paid",
                ("pending", 2) => "cancelled",
                ("pending", 3) => "expired",
                ("cancelling", 0) => "cancelled",
                ("cancelling", 1) => {
                    entry.name = None;
                    "pending"
                }
                (status, _) => status,
            };
            if matches!(entry.status, "error" | "failed") && entry.code.is_none() {
                let codes = [
                    "client_not_found",
                    "network_unavailable",
                    "kaspi_session_expired",
                ];
                entry.code = Some(codes[usize::from(code)]);
                // What failed for the moment may be delivered after all, before the back-off is over.
                let is_doubtful = code != 0;
                entry.revives_at = (turn == 1 && is_doubtful).then(|| now + after);
            }
        }
        if self.is(Resend::ByBaseline) && self.draw(12) == 0 {
            let id = self.books.len() + 20;
            self.books
                .push(Entry::new(id, None, "completed", now + self.lag));
        }
    }

    /// Whether its key, or its name, was taken for another one.
    fn has_successor(&self, index: usize) -> bool {
        let name = self.books[index].name;
        name.is_some()
            && self.books[index + 1..]
                .iter()
                .any(|later| later.name == name)
    }

    fn live_ones(&self) -> usize {
        self.books
            .iter()
            .filter(|entry| entry.name.is_some() && entry.is_live())
            .count()
    }

    fn assert_once(&self) {
        assert!(self.live_ones() <= 1, "twice: {:?}", self.job);
        let most = life::sends_at_most(&rules());
        assert!(self.job.history.attempts <= most, "{:?}", self.job);
    }

    /// What the job ended with is what the books say.
    fn assert_end(&self) {
        let (is_done, is_ours) = if self.is(Resend::Harmless) {
            let target = &self.books[TARGET];
            let is_cancelled = target.status == "cancelled";
            // An invoice that expires needs no cancel, and a cashier may be first.
            let is_gone = is_cancelled || target.status == "expired";
            (is_gone, is_cancelled && target.name.is_some())
        } else {
            (self.live_ones() == 1, self.live_ones() == 1)
        };
        match self.job.state {
            State::Succeeded => assert!(is_done, "lost: {:?}", self.job),
            State::Failed => assert!(!is_ours, "done, and called failed: {:?}", self.job),
            _ => {}
        }
    }
}
