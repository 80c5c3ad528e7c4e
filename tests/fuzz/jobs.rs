//! Jobs, histories and settings that answers are judged with, and what holds for every verdict.

use std::sync::LazyLock;
use std::time::Duration;

use apipayd::config::{Environment, Settings, Sources};
use apipayd::domain::job::{History, JobName};
use apipayd::domain::object::Object;
use apipayd::domain::operation::{OPERATIONS, Operation, Plan, Planned};
use apipayd::policy::judge::Circumstances;
use apipayd::policy::rules::{Jitter, Rules};
use apipayd::policy::verdict::{AccountSignal, Effect, Next, Verdict};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::datetime;
use uuid::Uuid;

use crate::seeds::Tape;
use crate::settings::{DATABASE, file};

pub(crate) const NOW: OffsetDateTime = datetime!(2026-09-06 12:00:00 UTC);

pub(crate) const NAME: JobName = JobName {
    token: Uuid::from_u128(7),
    generation: 1,
};

/// The invoice that cancels and refunds act on.
pub(crate) const INVOICE: i64 = 15;

/// No wait is longer: the longest cap, and its jitter.
const WAIT_MAX: Duration = seconds(31 * 24 * 3600 + 60);

pub(crate) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// As shipped.
static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let path = file("rules", DATABASE);
    let settings = Settings::read(&Sources {
        file: Some(path.clone()),
        environment: Environment::from([]),
    });
    std::fs::remove_file(path).unwrap();
    settings.unwrap().rules()
});

pub(crate) fn at(tape: &mut Tape<'_>) -> Circumstances<'static> {
    Circumstances {
        rules: &RULES,
        now: NOW,
        jitter: Jitter::new(f64::from(tape.byte()) / 255.0),
        refusals: u32::from(tape.byte()),
        is_slow: tape.coin(),
    }
}

pub(crate) fn params_of(operation: &dyn Operation) -> Value {
    match operation.name() {
        "invoice.create" => json!({"phone_number": "87001234567", "amount": 5000}),
        "invoice.cancel" => json!({"invoice_id": INVOICE}),
        _ => json!({"invoice_id": INVOICE, "amount": "1000.50"}),
    }
}

pub(crate) fn job(tape: &mut Tape<'_>) -> (&'static dyn Operation, Planned) {
    let operation = tape.pick(OPERATIONS);
    let planned = operation.prepare(&params_of(operation), &NAME).unwrap();
    (operation, planned)
}

pub(crate) fn history(tape: &mut Tape<'_>) -> History {
    let past = |tape: &mut Tape<'_>| {
        let span = seconds(u64::from(tape.number()) >> tape.below(32));
        tape.coin().then(|| NOW - span)
    };
    History {
        attempts: u32::from(tape.byte()),
        generation: 1,
        spared: 0,
        unproven_since: past(tape),
        absent_since: past(tape),
        lookups: u32::from(tape.byte()),
        failing_since: past(tape),
        invoice_id: tape.coin().then_some(INVOICE),
        is_sent_no_more: tape.coin(),
        is_target_known: tape.coin(),
        sent_at: past(tape),
        is_repeated: tape.coin(),
        denied_since: past(tape),
        is_key_taken: tape.coin(),
    }
}

fn wait_of(next: &Next) -> Option<Duration> {
    match next {
        Next::Queued { after, .. } | Next::Uncertain { after, .. } => Some(*after),
        _ => None,
    }
}

/// What holds for every verdict about a send or a look-up.
pub(crate) fn assert_lawful(verdict: &Verdict) {
    let next = &verdict.next;
    if verdict.effect == Effect::Unknown {
        let is_asked = matches!(next, Next::Uncertain { .. } | Next::Held(_));
        assert!(is_asked, "an unknown effect is forgotten: {verdict:?}");
    }
    match next {
        Next::Succeeded(_) | Next::Accepted { .. } => assert_eq!(verdict.effect, Effect::Applied),
        Next::Queued { .. } | Next::Failed(_) => {
            let is_proven = matches!(verdict.effect, Effect::Rejected | Effect::NotApplied);
            assert!(is_proven, "{verdict:?}");
        }
        Next::Parked(reason) => {
            let parks = matches!(&verdict.signal, Some(AccountSignal::Park { reason: why, .. }) if why == reason);
            assert!(parks && !verdict.counts, "{verdict:?}");
        }
        Next::Uncertain { .. } | Next::Held(_) => {}
        Next::CalledOff { .. } => panic!("nobody has said that it is to end: {verdict:?}"),
        Next::Resubmit(_) => panic!("only what is followed is resubmitted: {verdict:?}"),
    }
    let wait = wait_of(next).unwrap_or_default();
    assert!(wait <= WAIT_MAX, "{verdict:?}");
    if let Some(AccountSignal::Block { wait, code, .. }) = &verdict.signal {
        assert!(seconds(1) <= *wait && *wait <= WAIT_MAX, "{verdict:?}");
        assert!(code.len() <= 800 && !code.contains('\0'), "{code}");
    }
}

/// What is adopted can be asked for again, and was shown by the answer.
pub(crate) fn assert_adoptable(next: &Next, plan: &Plan) {
    let (Next::Succeeded(seen) | Next::Accepted { seen, .. }) = next else {
        return;
    };
    assert!(seen.id() > 0 && seen.agrees(&plan.expected));
    if let Object::Refund(refund) = seen {
        assert_eq!(refund.invoice_id, INVOICE);
    }
}
