//! What look-ups, checks and probes read, from the bytes to the verdict.

use std::time::Duration;

use apipayd::domain::account::DuplicateProtection;
use apipayd::domain::answer::{Answer, Body, Limits, Reply, Timed};
use apipayd::domain::object::{Invoice, InvoiceStatus, RefundStatus};
use apipayd::domain::operation::{Lookup, Planned, Resend};
use apipayd::gateway::wire;
use apipayd::policy::breaker::health;
use apipayd::policy::finding::{Baseline, Finding, Subject};
use apipayd::policy::reconcile::reconcile;
use apipayd::policy::verdict::{Next, Proof};
use rust_decimal::Decimal;

use crate::jobs::{INVOICE, NAME, NOW, assert_adoptable, assert_lawful, at, history, job};
use crate::seeds::{Seeds, Tape, tapes};

#[test]
fn whatever_bytes_answer_a_look_up_nothing_is_adopted_or_sent_again_without_proof() {
    let answers = Seeds::of("answers");
    answers.each(looked_up);
    bolero::check!()
        .with_generator(tapes())
        .for_each(|input: &Vec<u8>| {
            let mut tape = Tape(input);
            let body = answers.mutated(&mut tape);
            looked_up(&mut tape, &body);
        });
}

fn timed(tape: &mut Tape<'_>, bytes: &[u8]) -> Timed {
    Timed {
        answer: Answer::Reply(Reply::new(
            tape.pick(&[200, 200, 200, 200, 201, 404, 410, 429, 500, 503]),
            Body::read(bytes),
            Limits::default(),
            tape.below(2) == 1,
        )),
        took: Duration::from_millis(u64::from(tape.byte())),
    }
}

fn looked_up(tape: &mut Tape<'_>, bytes: &[u8]) {
    let (operation, Planned { plan, .. }) = job(tape);
    let timed = timed(tape, bytes);
    health(&timed.answer);
    for invoice in wire::read_check(&timed).unwrap_or_default() {
        assert_readable(&invoice);
    }
    let found = match plan.lookup {
        Lookup::InvoiceByName => wire::read_invoice_page(&timed).map(|page| {
            page.invoices.iter().for_each(assert_readable);
            Finding::listed(page.invoices)
        }),
        Lookup::Invoice { id } => wire::read_invoice(&timed, id).map(|invoice| {
            assert_eq!(invoice.id, INVOICE);
            Finding::read(invoice)
        }),
        Lookup::Refunds { invoice_id } => wire::read_refunds(&timed, invoice_id).map(|list| {
            assert!(
                list.refunds
                    .iter()
                    .all(|refund| refund.invoice_id == INVOICE)
            );
            Finding::listed(list.refunds)
        }),
    };
    let (history, at) = (history(tape), at(tape));
    let known = Baseline {
        refund_ids: (0..3).filter(|_| tape.coin()).collect(),
        is_told_apart: tape.coin(),
    };
    let finding = found.unwrap_or(Finding::Unclear(timed));
    let subject = Subject {
        operation,
        plan: &plan,
        name: NAME,
        history: &history,
        protection: tape.pick(&[DuplicateProtection::Key, DuplicateProtection::Lookup]),
        baseline: tape.coin().then_some(&known),
    };
    let verdict = reconcile(&subject, &finding, at);
    assert_lawful(&verdict);
    assert_adoptable(&verdict.next, &plan);
    assert!(!verdict.counts, "{verdict:?}");
    match verdict.next {
        Next::Succeeded(_) | Next::Accepted { .. } => {
            assert!(!matches!(finding, Finding::Unclear(_)), "{finding:?}");
        }
        Next::Queued { proof, .. } => {
            assert!(!matches!(finding, Finding::Unclear(_)), "{finding:?}");
            let settled = history
                .absent_since
                .is_some_and(|since| NOW - since >= at.rules.settle);
            let by_key = plan.resend == Resend::ByProtection
                && subject.protection == DuplicateProtection::Key
                && proof == Proof::Unchanged;
            let never_sent = subject.baseline.is_none() && plan.resend == Resend::ByBaseline;
            assert!(
                settled || by_key || never_sent || plan.resend == Resend::Harmless,
                "{finding:?} {history:?}"
            );
        }
        _ => {}
    }
}

/// What is read of an object can be stored, and what is printed of it reads the same.
fn assert_readable(invoice: &Invoice) {
    assert!(invoice.id > 0);
    let most = Decimal::new(999_999_999_999, 2);
    for amount in [invoice.amount, invoice.total_refunded]
        .into_iter()
        .flatten()
    {
        assert!(amount.abs() <= most, "{amount}");
    }
    let word = invoice.status.as_str();
    assert_eq!(InvoiceStatus::parse(word), invoice.status);
    assert_eq!(RefundStatus::parse(word).as_str(), word);
    let texts = [
        &invoice.external_order_id,
        &invoice.internal_comment,
        &invoice.kaspi_invoice_id,
        &invoice.error_code,
        &invoice.error_message,
    ];
    for text in texts
        .into_iter()
        .flatten()
        .map(String::as_str)
        .chain([word])
    {
        assert!(text.len() <= 12_000 && !text.contains('\0'), "{text}");
    }
    assert!(word.len() <= 300, "{word}");
}
