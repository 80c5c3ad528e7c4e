//! Alerts on their way to people: what a delivery says, and the channels that carry it.
//!
//! Alerts are rows first (`db::alerts`); this module knows neither the database nor the loop that delivers. A delivery
//! holds no phone number and no secret, because its row holds none.

mod delivery;
mod webhook;

pub use delivery::{Delivery, Status, Waiting, log_line};
pub use webhook::{SendError, Webhook};

use std::time::Duration;

use crate::policy::backoff;
use crate::policy::rules::{Curve, Jitter};

/// How long after a failed delivery the next one is due; `tries` counts the failed one too.
pub fn retry_after(tries: u32) -> Duration {
    let curve = Curve {
        initial: Duration::from_secs(5),
        max: Duration::from_secs(300),
        multiplier: 2.0,
        jitter: 0.0,
        attempts: 0,
    };
    backoff::delay(&curve, tries, Jitter::NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deliveries_are_tried_again_after_five_seconds_doubling_to_five_minutes() {
        let seconds: Vec<u64> = (0..=8).map(|tries| retry_after(tries).as_secs()).collect();
        assert_eq!(seconds, [5, 5, 10, 20, 40, 80, 160, 300, 300]);
    }
}
