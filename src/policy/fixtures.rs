//! What the tests of the policy share: jobs of every operation, answers, and verdicts as one line.

use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::datetime;
use uuid::Uuid;

use crate::domain::answer::{Answer, Body, Limits, Reply, Timed};
use crate::domain::job::{History, JobName};
use crate::domain::object::{Invoice, InvoiceStatus, Object, Refund, RefundStatus};
use crate::domain::operation::{Operation, Plan, operation};
use crate::policy::judge::Circumstances;
use crate::policy::rules::{BreakerRules, Curve, FollowRules, Jitter, Rules};
use crate::policy::verdict::{AccountSignal, Next, Proof, Verdict};

pub(super) const NOW: OffsetDateTime = datetime!(2026-09-06 12:00:00 UTC);

pub(super) const NAME: JobName = JobName {
    token: Uuid::from_u128(7),
    generation: 1,
};

/// How long the request of most tests took.
pub(super) const TOOK: Duration = Duration::from_secs(1);

pub(super) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn rules() -> Rules {
    let curve = |initial, max, attempts| Curve {
        initial: seconds(initial),
        max: seconds(max),
        multiplier: 2.0,
        jitter: 0.2,
        attempts,
    };
    Rules {
        rate_limited: curve(60, 900, 0),
        server_error: curve(5, 900, 5),
        network: curve(1, 300, 30),
        async_error: curve(90, 900, 3),
        quiet_after_timeout: seconds(60),
        quiet_after_answer: seconds(5),
        settle: seconds(900),
        give_up: seconds(20 * 3600),
        request_timeout: seconds(30),
        breaker: BreakerRules {
            probe_initial: seconds(60),
            probe_max: seconds(900),
            slow_start: seconds(60),
        },
        follow: FollowRules {
            first: seconds(5),
            max: seconds(600),
            watch_after_final: seconds(72 * 3600),
        },
    }
}

/// Now, and without randomness.
pub(super) fn at(rules: &Rules) -> Circumstances<'_> {
    Circumstances {
        rules,
        now: NOW,
        jitter: Jitter::NONE,
        refusals: 1,
        is_slow: false,
    }
}

/// A kind of job with what it would send.
pub(super) struct Kind {
    pub operation: &'static dyn Operation,
    pub plan: Plan,
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.operation.name())
    }
}

fn kind(name: &str, params: Value) -> Kind {
    let operation = operation(name).expect("a known operation");
    let plan = operation
        .prepare(&params, &NAME)
        .expect("valid params")
        .plan;
    Kind { operation, plan }
}

pub(super) fn create() -> Kind {
    let params = json!({"phone_number": "87001234567", "amount": 5000});
    kind("invoice.create", params)
}

pub(super) fn cancel() -> Kind {
    kind("invoice.cancel", json!({"invoice_id": 15}))
}

pub(super) fn refund() -> Kind {
    kind(
        "invoice.refund",
        json!({"invoice_id": 15, "amount": "1000.50"}),
    )
}

pub(super) fn kinds() -> [Kind; 3] {
    [create(), cancel(), refund()]
}

/// Nothing was sent before.
pub(super) fn clean() -> History {
    History {
        attempts: 0,
        generation: 1,
        spared: 0,
        unproven_since: None,
        absent_since: None,
        lookups: 0,
        failing_since: None,
        is_sent_no_more: false,
        is_target_known: false,
        sent_at: None,
        denied_since: None,
        invoice_id: None,
        is_key_taken: false,
        is_repeated: false,
    }
}

/// One request, a minute ago, may have had its effect.
pub(super) fn unproven() -> History {
    History {
        attempts: 1,
        unproven_since: Some(NOW - seconds(60)),
        ..clean()
    }
}

pub(super) fn attempted(attempts: u32, history: History) -> History {
    History {
        attempts,
        ..history
    }
}

pub(super) fn reply(status: u16, body: Body) -> Answer {
    Answer::Reply(Reply::new(status, body, Limits::default(), true))
}

pub(super) fn json_reply(status: u16, body: Value) -> Answer {
    reply(status, Body::Json(body))
}

/// The gateway's own error with this code.
pub(super) fn coded(status: u16, code: &str) -> Answer {
    json_reply(
        status,
        json!({"error": code, "error_code": code, "message": "текст"}),
    )
}

pub(super) fn timed(answer: Answer) -> Timed {
    Timed { answer, took: TOOK }
}

/// Every body that is not the gateway's own error.
pub(super) fn foreign_bodies() -> Vec<Body> {
    let mut bodies = vec![
        Body::Text("<html><h1>Bad Gateway</h1></html>".to_owned()),
        Body::Text(String::new()),
        Body::TooLarge,
        Body::Broken,
    ];
    bodies.extend(
        [
            json!(null),
            json!([]),
            json!([{"error_code": "tariff_inactive", "message": "x"}]),
            json!("kaspi_session_expired"),
            json!(5),
            json!(true),
            json!({}),
            json!({"status": 502, "title": "Bad Gateway"}),
            json!({"error": {"code": "tariff_inactive"}}),
            json!({"message": null, "errors": []}),
            json!({"id": 99, "invoice_id": 99}),
        ]
        .map(Body::Json),
    );
    bodies
}

/// The job's own invoice, as a search would show it.
pub(super) fn own_invoice(status: &str) -> Invoice {
    Invoice::read(&json!({
        "id": 15, "status": status, "amount": "5000.00", "phone": "87001234567",
        "external_order_id": NAME.to_string(), "internal_comment": NAME.mark(),
    }))
    .expect("an invoice")
}

/// An invoice in error, with this code.
pub(super) fn failed_invoice(code: &str) -> Object {
    Object::Invoice(Invoice {
        error_code: Some(code.to_owned()),
        ..Invoice::bare(15, InvoiceStatus::Error)
    })
}

/// A refund of the job's invoice; its amount is what the job asks for.
pub(super) fn refund_row(id: i64, status: &str, reason: Option<&str>) -> Refund {
    Refund {
        status: RefundStatus::parse(status),
        reason: reason.map(str::to_owned),
        ..Refund::read(
            &json!({"id": id, "status": "pending", "amount": "1000.50"}),
            15,
        )
        .expect("a refund")
    }
}

/// A verdict as a line: effect, next state, reason, wait, what else is noted; `free` when it costs
/// no attempt; then what it means for the account.
pub(super) fn show(verdict: &Verdict) -> String {
    let counts = if verdict.counts { "counts" } else { "free" };
    format!(
        "{} {} {counts}{}",
        verdict.effect.as_str(),
        show_next(&verdict.next),
        show_strain(verdict.signal.as_ref())
    )
}

pub(super) fn show_next(next: &Next) -> String {
    let mut words = vec![next.state().to_string()];
    words.extend(next.reason().map(|reason| reason.code().to_owned()));
    match next {
        Next::Succeeded(seen) | Next::Accepted { seen, .. } => words.push(show_seen(seen)),
        Next::Queued { after, proof, .. } => {
            words.push(format!("in {after:?}"));
            words.extend((*proof == Proof::NothingApplied).then(|| "proven".to_owned()));
        }
        Next::Uncertain {
            after,
            invoice_id,
            absent,
            ..
        } => {
            words.push(format!("in {after:?}"));
            words.extend(invoice_id.map(|id| format!("invoice {id}")));
            words.extend(absent.then(|| "absent".to_owned()));
        }
        Next::Resubmit(_) => words.push("resubmitted".to_owned()),
        Next::Failed(_) | Next::Parked(_) | Next::Held(_) | Next::CalledOff { .. } => {}
    }
    words.join(" ")
}

fn show_seen(seen: &Object) -> String {
    format!("{} {} {}", seen.noun(), seen.id(), seen.status())
}

pub(super) fn show_strain(signal: Option<&AccountSignal>) -> String {
    match signal {
        None => String::new(),
        Some(AccountSignal::Block {
            wait, code, capped, ..
        }) => {
            let capped = if *capped { " capped" } else { "" };
            format!("; block {wait:?} {code}{capped}")
        }
        Some(AccountSignal::Park {
            reason,
            hint,
            undelivered,
            ..
        }) => {
            let hint = hint.map_or(String::new(), |hint| format!(" hint {hint:?}"));
            let proof = undelivered.as_ref();
            let proof = proof.map_or(String::new(), |it| {
                format!(" until delivered ({})", it.code)
            });
            format!("; park {}{hint}{proof}", reason.code())
        }
    }
}
