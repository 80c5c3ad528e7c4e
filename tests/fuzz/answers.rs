//! The answer to a send, from its bytes to the verdict and the evidence that is stored.

use std::time::Duration;

use apipayd::domain::answer::{Answer, Body, Limits, Reply, Timed};
use apipayd::domain::codes::Class;
use apipayd::domain::job::{Epoch, JobId};
use apipayd::domain::operation::Planned;
use apipayd::policy::judge::{judge, signal_of};
use apipayd::policy::outage::{Errand, sign_of_send};
use apipayd::policy::reconcile::without_baseline;
use apipayd::policy::rules::Jitter;
use apipayd::policy::verdict::Next;
use apipayd::worker::alerting::Known;
use apipayd::worker::guard::Guard;
use apipayd::worker::outcome::{self, AttemptKind, Evidence, Following};
use apipayd::worker::recorder::Signed;

use crate::jobs::{NAME, NOW, assert_adoptable, assert_lawful, at, history, job, seconds};
use crate::seeds::{Seeds, Tape, tapes};

/// Documented ones, and others.
const STATUSES: [u16; 22] = [
    200, 201, 202, 204, 302, 400, 401, 403, 404, 408, 409, 410, 413, 422, 429, 500, 502, 503, 504,
    418, 599, 999,
];

/// A whole row of evidence in JSON. The beginning of an answer is kept, and each of its bytes may
/// be written as six.
const EVIDENCE_MAX: usize = 250_000;

#[test]
fn whatever_bytes_answer_a_send_the_verdict_is_lawful_and_the_evidence_small() {
    let (answers, hints) = (Seeds::of("answers"), Seeds::of("hints"));
    answers.each(|tape, body| judged(tape, body, &hints));
    bolero::check!()
        .with_generator(tapes())
        .for_each(|input: &Vec<u8>| {
            let mut tape = Tape(input);
            let body = answers.mutated(&mut tape);
            judged(&mut tape, &body, &hints);
        });
}

pub(crate) fn limits(tape: &mut Tape<'_>, hints: &Seeds) -> Limits {
    let count = tape.below(3);
    let mut written = || {
        let mut bytes = hints.mutated(tape);
        // A head of hundreds of kilobytes is no answer: the client refuses it.
        bytes.truncate(8_000);
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Limits {
        retry_after: (0..count).map(|_| written()).collect(),
        reset: tape
            .coin()
            .then(|| i64::from(tape.number()) << tape.below(32)),
        remaining: tape.coin().then(|| tape.number()),
        date: tape.coin().then(|| {
            let bytes = hints.mutated(tape);
            String::from_utf8_lossy(&bytes).chars().take(100).collect()
        }),
    }
}

fn judged(tape: &mut Tape<'_>, bytes: &[u8], hints: &Seeds) {
    let (operation, Planned { request, plan }) = job(tape);
    let (history, at) = (history(tape), at(tape));
    let reply = Reply::new(
        tape.pick(&STATUSES),
        match tape.below(32) {
            31 => Body::TooLarge,
            30 => Body::Broken,
            _ => Body::read(bytes),
        },
        limits(tape, hints),
        tape.below(2) == 1,
    );
    let class = reply.class();
    let timed = Timed {
        answer: Answer::Reply(reply.clone()),
        took: Duration::from_millis(u64::from(tape.number())),
    };
    let verdict = judge(operation, &plan, NAME, &history, &timed, at);
    assert_lawful(&verdict);
    assert_adoptable(&verdict.next, &plan);
    let signal = signal_of(&reply, Some(operation), at);
    assert_eq!(verdict.signal, signal, "{reply:?}");
    match &verdict.next {
        Next::Succeeded(_) | Next::Accepted { .. } => {
            assert!((200..=202).contains(&reply.status) && reply.object().is_some());
        }
        Next::Queued { .. } => {
            let says_so = matches!(
                class,
                Class::Throttled | Class::Capped | Class::RecipientThrottled | Class::Busy
            );
            assert!(
                says_so && reply.is_gateway_error(),
                "sent again blindly: {reply:?}"
            );
            assert_eq!(history.unproven_since, None);
        }
        Next::Failed(_) => {
            assert!(reply.is_gateway_error(), "{reply:?}");
            assert_eq!(history.unproven_since, None);
        }
        Next::Parked(_) => assert!(matches!(class, Class::AccountFault(_)), "{reply:?}"),
        Next::Uncertain { .. } | Next::Held(_) | Next::Resubmit(_) => {}
        Next::CalledOff { .. } => panic!("nobody has said that it is to end: {verdict:?}"),
    }
    assert_lawful(&without_baseline(&history, &timed, at));

    let guard = Guard {
        account: apipayd::domain::account::AccountName::parse("default").unwrap(),
        id: JobId(1),
        token: uuid::Uuid::nil(),
        worker: Some(uuid::Uuid::nil()),
        epoch: Epoch(1),
        state: apipayd::domain::state::State::Sending,
    };
    let evidence = Evidence {
        guard: &guard,
        kind: AttemptKind::Send,
        plan: &plan,
        request: &request,
        timed: &timed,
        now: NOW,
        signed: Signed {
            errand: Errand::Send,
            job: Some(JobId(1)),
            sign: sign_of_send(&timed, &verdict, false),
        },
        failing_since: None,
        read: None,
        instead: None,
        may_have_others: false,
        known: Known::nothing_of(operation.name()),
    };
    let following = Following {
        rules: &at.rules.follow,
        jitter: Jitter::NONE,
        key: "",
        seen_at: NOW,
    };
    let entry = outcome::entry(&evidence, &verdict, following);
    let rows = [
        serde_json::to_string(&entry.transition).unwrap(),
        serde_json::to_string(&entry.invoices).unwrap(),
        serde_json::to_string(&entry.refund).unwrap(),
    ];
    for row in rows {
        assert!(row.len() < EVIDENCE_MAX, "{} bytes of evidence", row.len());
    }
    let wait = entry.transition.and_then(|transition| transition.after_s);
    assert!(wait.is_none_or(|wait| wait <= seconds(32 * 24 * 3600).as_secs_f64()));
}
