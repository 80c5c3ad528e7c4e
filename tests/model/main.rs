//! The protocol that keeps the two promises (never twice, never lost), explored exhaustively: every
//! order in which two workers, a database and a gateway can take their steps.
//!
//! # The map
//!
//! - [`setup`]: what is explored: an operation, a gateway, and the protocol or a broken variant.
//! - [`time`]: time in ticks of ten seconds, and the daemon's `Rules` in them.
//! - [`table`]: a job's row and the guarded statements of `src/db`, one pure function for each.
//! - [`gateway`]: its ledger of effects, what its lists show, and its answers as real JSON.
//! - [`daemon`]: the decisions. They are not modelled: `operation.prepare`, `judge`, `reconcile`,
//!   `follow`, the readers of `gateway::wire` and the rows of `worker::outcome` are called as they
//!   are, with the model's time and without jitter.
//! - [`protocol`]: who may do what when: the steps of worker/send.rs, lookup.rs, follow.rs, probe.rs
//!   and recover.rs between their awaits, and everything that can go wrong around them.
//! - [`promises`]: what must always hold, and what must be reached for that to mean anything.
//! - [`explore`]: the walk itself, and the shortest story of a failure. [`words`]: its sentences.
//!
//! # What may happen
//!
//! At any step, as often as it likes: a worker is killed and comes back as another; a worker pauses
//! for any time, while leases, look-ups and accounts move on; a claim or a record is committed and
//! its worker does not hear so. A request is lost, refused, done and its answer lost, done late, or
//! answered 502 whether or not it is done; no connection is made; a look-up fails; a list hides what
//! is new; the account is parked and resumed; the user cancels; the customer pays. Nothing is counted
//! out: the space is finite because ages stop where no decision tells them apart, attempts at their
//! limit, and epochs are only compared.
//!
//! # What is assumed
//!
//! Each of these has a test in [`limits`] that shows what happens without it.
//!
//! - The window check and the first byte are one step: nobody can fence a machine that is suspended
//!   exactly between them.
//! - A request has its effect before the quiet period is over, or never: within its own time limit,
//!   or the quiet time after its answer was lost, whichever is longer.
//! - A list shows an effect within the settle time. Where the key is honoured a list may hide it for
//!   ever, and still no second one is made (but the job may then be given up as failed).
//! - An account set to `key` is at a gateway that honours it, or whose list does not lag.
//! - A key is honoured as long as the list may hide its invoice, and for the give-up time after.
//!
//! # What is not covered
//!
//! Bulk requests, quotas, wrong amounts and two objects of one name (tests of the policy); objects
//! that fail at Kaspi after they were accepted, and so new generations; the human's `resolve` and
//! `retry`, who are believed; evidence in the attempts; a database that loses what it had committed.
//! The triggers that guard moves and epochs are left out, so that the guards in the statements are
//! seen to be enough: no step tries a move that the table of `domain::state` does not have. That the statements do what [`table`] says is the business of the tests
//! against a real database. The broken variants replace one decision or one statement each.
//!
//! Ends are checked as: from every state in reach, steps that happen when nothing goes wrong any more
//! lead every job to its end or to a human with an alert. So no run gets stuck unless something goes
//! wrong for ever.

mod daemon;
mod explore;
mod gateway;
mod promises;
mod protocol;
mod setup;
mod table;
mod time;
mod words;

use apipayd::domain::account::DuplicateProtection;
use promises::{FINAL_STAYS, LEGAL_MOVES, ONE_EFFECT, SENT_UNDER_ATTEMPT, TRUE_ENDS};
use setup::{FOR_EVER, Setup, Variant};

macro_rules! holds {
    ($($(#[$note:meta])* $name:ident: $setup:expr;)*) => {$(
        $(#[$note])*
        #[test]
        fn $name() {
            explore::holds(stringify!($name), $setup);
            explore::ends(stringify!($name), $setup);
        }
    )*};
}

macro_rules! fails {
    ($($(#[$note:meta])* $name:ident: $setup:expr, $property:ident in $steps:literal;)*) => {$(
        $(#[$note])*
        #[test]
        fn $name() {
            explore::fails(stringify!($name), $setup, $property, $steps);
        }
    )*};
}

/// The protocol keeps its promises, and every job can end from wherever it got.
mod as_it_is {
    use super::*;

    holds! {
        a_create_where_the_key_is_honoured: Setup::CREATE_BY_KEY;
        a_create_where_the_key_is_ignored: Setup::CREATE_BY_LOOKUP;
        a_create_that_only_the_key_protects: Setup { lag: FOR_EVER, ..Setup::CREATE_BY_KEY };
        a_create_that_only_the_look_up_protects: Setup {
            lag: 0,
            protection: DuplicateProtection::Key,
            ..Setup::CREATE_BY_LOOKUP
        };
        a_create_while_the_account_is_parked: Setup { may_park: true, ..Setup::CREATE_BY_KEY };
        a_create_that_is_given_up: Setup { give_up: Some(5), ..Setup::CREATE_BY_LOOKUP };
        a_refund_whose_name_is_lost: Setup::NAMELESS_REFUND;
        a_cancel_against_a_payment: Setup::CANCEL;
        a_cancel_while_the_account_is_parked: Setup { may_park: true, ..Setup::CANCEL };
    }

    #[test]
    fn two_equal_refunds_of_one_invoice() {
        explore::holds("two equal refunds", Setup::TWO_REFUNDS);
    }

    #[test]
    fn two_equal_refunds_come_to_their_ends() {
        // One attempt is enough for each to stand in the other's way in every state.
        let setup = Setup {
            attempts: 1,
            ..Setup::TWO_REFUNDS
        };
        explore::ends("two equal refunds", setup);
    }
}

/// Each part of the protocol is needed: without it the model finds the way to a broken promise.
mod broken {
    use super::*;

    /// A create, and a gateway that ignores its key.
    const fn without(variant: Variant) -> Setup {
        Setup::CREATE_BY_LOOKUP.broken(variant)
    }

    /// A refund: only before one is anything read.
    const fn refund_without(variant: Variant) -> Setup {
        Setup {
            jobs: 1,
            ..Setup::TWO_REFUNDS
        }
        .broken(variant)
    }

    fails! {
        without_an_intent_row: without(Variant::NoIntentRow), ONE_EFFECT in 6;
        without_an_intent_row_requests_are_uncovered: without(Variant::NoIntentRow), SENT_UNDER_ATTEMPT in 2;
        with_a_rescue_to_the_queue: without(Variant::RescueToQueued), ONE_EFFECT in 10;
        with_a_resend_after_502: without(Variant::ResendWithoutLookup), ONE_EFFECT in 8;
        without_a_quiet_period: without(Variant::NoQuietPeriod), ONE_EFFECT in 18;
        without_a_window_check: without(Variant::NoWindowCheck), ONE_EFFECT in 22;
        without_a_window_check_requests_are_uncovered: without(Variant::NoWindowCheck), SENT_UNDER_ATTEMPT in 5;
        with_a_window_without_a_lease_requests_are_uncovered: refund_without(Variant::WindowWithoutLease), SENT_UNDER_ATTEMPT in 7;
        with_a_window_without_a_lease: refund_without(Variant::WindowWithoutLease), ONE_EFFECT in 20;
        with_an_unguarded_settle: without(Variant::SettleUnguarded), FINAL_STAYS in 5;
        with_an_unguarded_settle_a_job_moves_as_none_may: without(Variant::SettleUnguarded), LEGAL_MOVES in 7;
        with_an_unguarded_settle_a_job_has_two_effects: without(Variant::SettleUnguarded), ONE_EFFECT in 12;
    }
}

/// Each assumption is needed, too. What cannot be kept out is at least known.
mod limits {
    use super::*;

    fails! {
        a_suspend_between_the_check_and_the_first_byte:
            Setup { suspends_after_check: true, ..Setup::CREATE_BY_LOOKUP }, ONE_EFFECT in 24;
        an_effect_after_the_quiet_period:
            Setup { late: 2, ..Setup::CREATE_BY_LOOKUP }, ONE_EFFECT in 19;
        a_list_that_lags_longer_than_the_settle_time:
            Setup { lag: time::SETTLE + 1, ..Setup::CREATE_BY_LOOKUP }, ONE_EFFECT in 19;
        a_refund_list_that_lags_longer_than_the_settle_time:
            Setup { lag: time::SETTLE + 1, jobs: 1, ..Setup::TWO_REFUNDS }, ONE_EFFECT in 21;
        a_list_that_hides_what_is_given_up:
            Setup { lag: time::SETTLE + 1, ..Setup::CREATE_BY_LOOKUP }, TRUE_ENDS in 17;
        an_account_set_to_a_key_that_is_ignored:
            Setup { protection: DuplicateProtection::Key, ..Setup::CREATE_BY_LOOKUP }, ONE_EFFECT in 13;
        an_invoice_that_ends_while_the_list_hides_it:
            Setup { invoice_life: Some(2), ..Setup::CREATE_BY_KEY }, ONE_EFFECT in 14;
    }
}

/// A key that is still in the queue when its invoice ends. Between the decision to send it again and
/// the first byte lies whatever time the record and the queue take: a daemon that is down, an account
/// that is blocked. So the daemon looks at the key's age once more just before it sends.
mod old_keys {
    use super::*;

    const SETUP: Setup = Setup {
        give_up: Some(4),
        invoice_life: Some(9),
        attempts: 2,
        ..Setup::CREATE_BY_KEY
    };

    fails! {
        without_a_look_at_its_age_a_key_is_sent_after_its_invoice: SETUP, ONE_EFFECT in 21;
    }

    #[test]
    fn with_a_look_at_its_age_before_it_is_sent_it_is_not() {
        let setup = Setup {
            checks_key_before_sending: true,
            ..SETUP
        };
        explore::holds("old keys", setup);
        explore::ends("old keys", setup);
    }
}
