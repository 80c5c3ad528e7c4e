//! Time in ticks, and the settings under which the protocol is explored.
//!
//! A tick is ten seconds. Every duration is as short as it can be without losing its place in the
//! order of durations: window < request < lease, and late effects end before the quiet period, list
//! lag before the settle time. Nothing forces a step before a tick, so a worker that is slow, paused
//! or suspended is one that does not move while ticks pass.

use std::time::Duration;

use apipayd::domain::times::SEND_WINDOW;
use apipayd::policy::rules::{BreakerRules, Curve, FollowRules, Rules};

/// The length of a tick.
const TICK: Duration = Duration::from_secs(10);

/// The time limit of a request.
pub(crate) const REQUEST: u8 = 1;
/// Before the look-up after a lost answer. After an unclear answer it is zero: the rest of the
/// request's own time limit is all that protects then.
pub(crate) const QUIET: u8 = 2;
/// Between two look-ups that find nothing.
pub(crate) const SETTLE: u8 = 2;
/// A lease is over once this many ticks have begun after the claim.
pub(crate) const LEASE: u8 = 3;
/// What `worker.lease` says: longer than request, window and margin together, as the settings
/// demand, and over within the third tick.
const LEASE_SETTING: Duration = Duration::from_secs(25);

/// A number of ticks as a duration.
pub(crate) fn ticks(count: u8) -> Duration {
    TICK * u32::from(count)
}

/// A duration as ticks: until it is over for certain.
pub(crate) fn whole_ticks(duration: Duration) -> u8 {
    u8::try_from(duration.as_millis().div_ceil(TICK.as_millis())).unwrap_or(u8::MAX)
}

/// Whether a claim of this age is too old to be sent (`window` in worker/send.rs).
pub(crate) fn is_window_closed(age: u8) -> bool {
    ticks(age) > SEND_WINDOW
}

/// Whether a lease of this age ran out (`leased_until < now()` in recover.sql).
pub(crate) fn is_lease_over(age: u8) -> bool {
    ticks(age) > LEASE_SETTING
}

/// The daemon's settings. Delays between attempts are zero: a delay only takes orders of events
/// away.
pub(crate) fn rules(attempts: u8, give_up: Option<u8>) -> Rules {
    let at_once = Curve {
        initial: Duration::ZERO,
        max: Duration::ZERO,
        multiplier: 1.0,
        jitter: 0.0,
        attempts: u32::from(attempts),
    };
    Rules {
        rate_limited: at_once,
        server_error: at_once,
        network: at_once,
        async_error: at_once,
        quiet_after_timeout: ticks(QUIET),
        quiet_after_answer: Duration::ZERO,
        settle: ticks(SETTLE),
        give_up: give_up.map_or(Duration::from_secs(20 * 3600), ticks),
        request_timeout: ticks(REQUEST),
        breaker: BreakerRules {
            probe_initial: Duration::ZERO,
            probe_max: Duration::ZERO,
            slow_start: Duration::ZERO,
        },
        follow: FollowRules {
            first: Duration::ZERO,
            max: Duration::ZERO,
            watch_after_final: Duration::ZERO,
        },
    }
}
