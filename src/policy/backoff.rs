//! The one module that knows the crate `backoff`: the n-th delay of a curve.
//!
//! Delays are stored as `run_at`, so nothing here sleeps; the crate only computes the curve. It is
//! no longer maintained (RUSTSEC-2025-0012): to replace it, replace [`delay`].

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;

use crate::policy::rules::{Curve, Jitter};

/// The delay after the attempt with this number (from 1).
///
/// Never shorter than `initial`, never longer than `max` and its jitter; grows with the number.
pub fn delay(curve: &Curve, attempt: u32, jitter: Jitter) -> Duration {
    let mut steps = ExponentialBackoff {
        current_interval: curve.initial,
        // Ours is an argument, so that a test and a replay get the same delay.
        randomization_factor: 0.0,
        multiplier: curve.multiplier.max(1.0),
        max_interval: curve.max,
        ..ExponentialBackoff::default()
    };
    let mut step = curve.initial;
    for _ in 0..attempt.clamp(1, STEPS_MAX) {
        step = steps.next_backoff().unwrap_or(curve.max);
        // It grows no more, and each step of the crate's draws a random number.
        if step >= curve.max || curve.multiplier <= 1.0 {
            break;
        }
    }
    jitter.lengthen(
        step.clamp(curve.initial.min(curve.max), curve.max),
        curve.jitter,
    )
}

/// By then every curve that grows at all has reached any maximum worth configuring.
const STEPS_MAX: u32 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn curve(initial_ms: u64, max_ms: u64, multiplier: f64, jitter: f64) -> Curve {
        Curve {
            initial: Duration::from_millis(initial_ms),
            max: Duration::from_millis(max_ms),
            multiplier,
            jitter,
            attempts: 0,
        }
    }

    #[test]
    fn delays_double_up_to_the_maximum() {
        let curve = curve(1_000, 10_000, 2.0, 0.0);
        let seconds: Vec<u64> = (1..=6)
            .map(|attempt| delay(&curve, attempt, Jitter::NONE).as_secs())
            .collect();
        assert_eq!(seconds, [1, 2, 4, 8, 10, 10]);
    }

    #[test]
    fn jitter_adds_its_share_and_no_more() {
        let curve = curve(1_000, 10_000, 2.0, 0.5);
        assert_eq!(
            delay(&curve, 1, Jitter::new(1.0)),
            Duration::from_millis(1_500)
        );
        assert_eq!(delay(&curve, 9, Jitter::new(1.0)), Duration::from_secs(15));
    }

    proptest! {
        #[test]
        fn every_delay_lies_between_initial_and_max_with_jitter(
            initial in 1u64..100_000, more in 0u64..1_000_000, multiplier in 1.0f64..10.0,
            share in 0.0f64..1.0, attempt in 0u32..10_000, random in 0.0f64..1.0,
        ) {
            let curve = curve(initial, initial + more, multiplier, share);
            let got = delay(&curve, attempt, Jitter::new(random));
            prop_assert!(got >= curve.initial);
            prop_assert!(got <= curve.max.mul_f64(1.0 + share) + Duration::from_nanos(1));
        }

        #[test]
        fn a_later_attempt_never_waits_less(initial in 1u64..10_000, attempt in 1u32..60) {
            let curve = curve(initial, initial * 500, 1.7, 0.0);
            prop_assert!(delay(&curve, attempt + 1, Jitter::NONE) >= delay(&curve, attempt, Jitter::NONE));
        }
    }
}
