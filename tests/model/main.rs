//! The protocol, explored exhaustively.

mod daemon;
mod explore;
mod gateway;
mod promises;
mod protocol;
mod setup;
mod table;
mod time;

use apipayd::domain::account::DuplicateProtection;
use promises::{FINAL_STAYS, ONE_EFFECT, SENT_UNDER_ATTEMPT, TRUE_ENDS};
use setup::{FOR_EVER, Setup, Variant};

macro_rules! holds {
    ($($(#[$doc:meta])* $name:ident: $setup:expr;)*) => {$(
        $(#[$doc])*
        #[test]
        fn $name() {
            explore::holds(stringify!($name), $setup);
            explore::ends(stringify!($name), $setup);
        }
    )*};
}

holds! {
    create_with_a_key_that_the_gateway_honours: Setup::CREATE_BY_KEY;
    create_with_a_key_that_the_gateway_ignores: Setup::CREATE_BY_LOOKUP;
    the_key_alone_is_enough: Setup { lag: FOR_EVER, ..Setup::CREATE_BY_KEY };
    a_look_up_alone_is_enough: Setup { lag: 0, protection: DuplicateProtection::Key, ..Setup::CREATE_BY_LOOKUP };
    two_equal_refunds: Setup::TWO_REFUNDS;
    refunds_whose_reason_is_lost: Setup { echoes: false, ..Setup::TWO_REFUNDS };
    cancel: Setup::CANCEL;
    parked: Setup { may_park: true, ..Setup::CREATE_BY_LOOKUP };
    parked_by_key: Setup { may_park: true, ..Setup::CREATE_BY_KEY };
    parked_cancel: Setup { may_park: true, ..Setup::CANCEL };
    give_up: Setup { give_up: Some(5), ..Setup::CREATE_BY_LOOKUP };
}

macro_rules! fails {
    ($($name:ident: $setup:expr, $property:expr;)*) => {$(
        #[test]
        fn $name() {
            explore::fails(stringify!($name), $setup, $property);
        }
    )*};
}

fails! {
    no_intent: Setup::CREATE_BY_LOOKUP.broken(Variant::NoIntentRow), ONE_EFFECT;
    no_intent_attempt: Setup::CREATE_BY_LOOKUP.broken(Variant::NoIntentRow), SENT_UNDER_ATTEMPT;
    rescue: Setup::CREATE_BY_LOOKUP.broken(Variant::RescueToQueued), ONE_EFFECT;
    resend: Setup::CREATE_BY_LOOKUP.broken(Variant::ResendWithoutLookup), ONE_EFFECT;
    no_quiet: Setup::CREATE_BY_LOOKUP.broken(Variant::NoQuietPeriod), ONE_EFFECT;
    no_window: Setup::CREATE_BY_LOOKUP.broken(Variant::NoWindowCheck), ONE_EFFECT;
    no_window_attempt: Setup::CREATE_BY_LOOKUP.broken(Variant::NoWindowCheck), SENT_UNDER_ATTEMPT;
    unguarded: Setup::CREATE_BY_LOOKUP.broken(Variant::SettleUnguarded), FINAL_STAYS;
    unguarded_effect: Setup::CREATE_BY_LOOKUP.broken(Variant::SettleUnguarded), ONE_EFFECT;
    limit_suspend: Setup { suspends_after_check: true, ..Setup::CREATE_BY_LOOKUP }, ONE_EFFECT;
    limit_lag: Setup { lag: time::SETTLE + 1, ..Setup::CREATE_BY_LOOKUP }, ONE_EFFECT;
    limit_lag_failed: Setup { lag: time::SETTLE + 1, ..Setup::CREATE_BY_LOOKUP }, TRUE_ENDS;
    limit_late: Setup { late: 2, ..Setup::CREATE_BY_LOOKUP }, ONE_EFFECT;
    limit_life: Setup { give_up: Some(4), invoice_life: Some(9), ..Setup::CREATE_BY_KEY }, ONE_EFFECT;
}
