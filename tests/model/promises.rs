//! What must always hold, and what must be reached for the exploration to mean anything.

use apipayd::domain::state::State as Status;
use stateright::Property;

use crate::gateway::Response;
use crate::protocol::{Flaw, Protocol, State, Step, at_most_one_effect, ends_tell_the_truth};
use crate::setup::{Op, Setup};
use crate::table::{Move, Row, holds};

/// Never twice.
pub(crate) const ONE_EFFECT: &str = "a job has at most one effect";
/// Never a false end.
pub(crate) const TRUE_ENDS: &str = "succeeded has its effect, failed and cancelled have none";
/// Intent first.
pub(crate) const SENT_UNDER_ATTEMPT: &str =
    "nothing is sent without a committed open attempt and lease";
/// History stays.
pub(crate) const FINAL_STAYS: &str = "final rows never change and epochs only rise";
/// One table.
pub(crate) const LEGAL_MOVES: &str = "a job moves only as the table allows";
/// What the unique index on open attempts would otherwise turn into a claim that fails for ever.
pub(crate) const ATTEMPTS_CLOSE: &str = "only a job that is being sent has an open send attempt";
/// Equal refunds stay apart.
pub(crate) const ONE_OPEN_REFUND: &str = "an invoice has at most one open refund";

/// The properties of a configuration.
pub(crate) fn properties(setup: &Setup) -> Vec<Property<Protocol>> {
    let mut all = vec![
        always(ONE_EFFECT, at_most_one_effect),
        always(TRUE_ENDS, ends_tell_the_truth),
        always(SENT_UNDER_ATTEMPT, |_, state| {
            state.flaw != Some(Flaw::SentWithoutAttempt)
        }),
        always(FINAL_STAYS, |_, state| {
            !matches!(state.flaw, Some(Flaw::FinalChanged | Flaw::EpochFell))
        }),
        always(LEGAL_MOVES, |_, state| {
            state.flaw != Some(Flaw::MovedIllegally)
        }),
        always(ATTEMPTS_CLOSE, |_, state| {
            let sends = |row: &Row| row.status == Status::Sending || row.open_send.is_none();
            state.rows.iter().all(sends)
        }),
        always(ONE_OPEN_REFUND, |model, state| {
            model.setup.operation != Op::Refund
                || state.rows.iter().filter(|row| row.is_open_refund()).count() <= 1
        }),
        sometimes("succeeded", |_, state| some_row(state, Status::Succeeded)),
        sometimes("uncertain", |_, state| some_row(state, Status::Uncertain)),
        sometimes("queued again after a look-up found nothing", |_, state| {
            decided(state, |outcome| {
                outcome.from == Status::Uncertain && outcome.to == Status::Queued
            })
        }),
        sometimes("a second request under way", |_, state| {
            state.rows.iter().zip(0_u8..).any(|(row, job)| {
                row.status == Status::Sending
                    && row.attempts > 0
                    && state.requests.iter().any(|request| request.job == job)
            })
        }),
        sometimes("a stale outcome is refused", |model, state| {
            state.hands.iter().flatten().any(|hand| match &hand.step {
                Step::Decided(outcome) => !holds(
                    &state.rows[usize::from(hand.job)],
                    hand.epoch,
                    outcome,
                    &model.setup,
                ),
                _ => false,
            })
        }),
        sometimes("a paused worker finds its window closed", |_, state| {
            decided(state, |outcome| {
                outcome.closes_send && outcome.to == Status::Queued && !outcome.counts
            })
        }),
        sometimes("failed", |_, state| some_row(state, Status::Failed)),
    ];
    if setup.give_up.is_some() || !setup.echoes {
        all.push(sometimes("held", |_, state| some_row(state, Status::Held)));
    }
    if setup.echoes {
        all.push(sometimes("adopted after a look-up", |_, state| {
            decided(state, |outcome| {
                outcome.from == Status::Uncertain
                    && matches!(outcome.to, Status::Succeeded | Status::Accepted)
            })
        }));
    }
    if setup.may_park {
        all.push(sometimes("parked", |_, state| {
            some_row(state, Status::Parked)
        }));
    }
    if setup.operation == Op::Create && setup.honours_key {
        all.push(sometimes("the key stopped a second invoice", |_, state| {
            let stopped = |response| matches!(response, Some(Response::Duplicate(_)));
            state
                .requests
                .iter()
                .any(|request| stopped(request.response))
        }));
    }
    all
}

type Condition = fn(&Protocol, &State) -> bool;

fn always(name: &'static str, condition: Condition) -> Property<Protocol> {
    Property::always(name, condition)
}

fn sometimes(name: &'static str, condition: Condition) -> Property<Protocol> {
    Property::sometimes(name, condition)
}

fn some_row(state: &State, status: Status) -> bool {
    state.rows.iter().any(|row| row.status == status)
}

fn decided(state: &State, wanted: impl Fn(&Move) -> bool) -> bool {
    state.hands.iter().flatten().any(|hand| match &hand.step {
        Step::Decided(outcome) => wanted(outcome),
        _ => false,
    })
}
