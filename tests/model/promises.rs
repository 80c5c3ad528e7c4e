//! What must always hold, and what must be reached for the exploration to mean anything.

use stateright::Property;

use crate::gateway::Response;
use crate::protocol::{Flaw, Protocol, State, Step, at_most_one_effect, ends_tell_the_truth};
use crate::setup::{Op, Setup};
use crate::table::{Move, Status, holds};

/// Never twice.
pub(crate) const ONE_EFFECT: &str = "a job has at most one effect";
/// Never a false end.
pub(crate) const TRUE_ENDS: &str = "succeeded has its effect, failed and withdrawn have none";
/// Intent first.
pub(crate) const SENT_UNDER_ATTEMPT: &str =
    "nothing is sent without a committed open attempt and lease";
/// History stays.
pub(crate) const FINAL_STAYS: &str = "final rows never change and epochs only rise";
/// Equal refunds stay apart.
pub(crate) const ONE_OPEN_REFUND: &str = "an invoice has at most one open refund";

/// The properties of a configuration.
pub(crate) fn properties(setup: &Setup) -> Vec<Property<Protocol>> {
    let mut all = vec![
        Property::always(ONE_EFFECT, at_most_one_effect),
        Property::always(TRUE_ENDS, ends_tell_the_truth),
        Property::always(SENT_UNDER_ATTEMPT, |_: &Protocol, state: &State| {
            state.flaw != Some(Flaw::SentWithoutAttempt)
        }),
        Property::always(FINAL_STAYS, |_: &Protocol, state: &State| {
            !matches!(state.flaw, Some(Flaw::FinalChanged | Flaw::EpochFell))
        }),
        Property::always(ONE_OPEN_REFUND, |model: &Protocol, state: &State| {
            model.setup.operation != Op::Refund
                || state.rows.iter().filter(|row| row.is_open_refund()).count() <= 1
        }),
        Property::sometimes("succeeded", |_: &Protocol, state: &State| {
            some_row(state, Status::Succeeded)
        }),
        Property::sometimes("uncertain", |_: &Protocol, state: &State| {
            some_row(state, Status::Uncertain)
        }),
    ];
    all.extend(vec![
        Property::sometimes(
            "queued again after a look-up found nothing",
            |_: &Protocol, state: &State| {
                decided(state, |outcome| {
                    outcome.from == Status::Uncertain && outcome.to == Status::Queued
                })
            },
        ),
        Property::sometimes(
            "a second request under way",
            |_: &Protocol, state: &State| {
                state.rows.iter().zip(0_u8..).any(|(row, job)| {
                    row.status == Status::Sending
                        && row.attempts > 0
                        && state.requests.iter().any(|request| request.job == job)
                })
            },
        ),
        Property::sometimes(
            "a stale outcome is refused",
            |model: &Protocol, state: &State| {
                state.hands.iter().flatten().any(|hand| match &hand.step {
                    Step::Decided(outcome) => !holds(
                        &state.rows[usize::from(hand.job)],
                        hand.epoch,
                        outcome,
                        &model.setup,
                    ),
                    _ => false,
                })
            },
        ),
        Property::sometimes(
            "a paused worker finds its window closed",
            |_: &Protocol, state: &State| {
                decided(state, |outcome| {
                    outcome.closes_send && outcome.to == Status::Queued && !outcome.counts
                })
            },
        ),
        Property::sometimes("failed", |_: &Protocol, state: &State| {
            some_row(state, Status::Failed)
        }),
    ]);
    if setup.give_up.is_some() || !setup.echoes {
        all.push(Property::sometimes(
            "held",
            |_: &Protocol, state: &State| some_row(state, Status::Held),
        ));
    }
    if setup.echoes {
        all.push(Property::sometimes(
            "adopted after a look-up",
            |_: &Protocol, state: &State| {
                decided(state, |outcome| {
                    outcome.from == Status::Uncertain
                        && matches!(outcome.to, Status::Succeeded | Status::Accepted)
                })
            },
        ));
    }
    if setup.may_park {
        all.push(Property::sometimes(
            "parked",
            |_: &Protocol, state: &State| some_row(state, Status::Parked),
        ));
    }
    if setup.operation == Op::Create && setup.honours_key {
        all.push(Property::sometimes(
            "the key stopped a second invoice",
            |_: &Protocol, state: &State| {
                let stopped = |response| matches!(response, Some(Response::Duplicate(_)));
                state
                    .requests
                    .iter()
                    .any(|request| stopped(request.response))
            },
        ));
    }
    all
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
