//! The settings that decisions depend on.

use std::time::Duration;

/// Everything configurable about decisions: `[retry.*]`, `[reconcile]`, `[breaker]`, `[follow]` and
/// the time limit of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// 429 without a hint.
    pub rate_limited: Curve,
    /// Sending again after a 5xx that is proven to have had no effect.
    pub server_error: Curve,
    /// Sending again when nothing had been sent.
    pub network: Curve,
    /// A new invoice or refund after one that failed at Kaspi.
    pub async_error: Curve,
    /// Before the first look-up after a lost answer.
    pub quiet_after_timeout: Duration,
    /// Before the first look-up after an unclear answer.
    pub quiet_after_answer: Duration,
    /// Between two look-ups that find nothing, before this counts as proof.
    pub settle: Duration,
    /// After this the outcome of a request is a human's to find.
    pub give_up: Duration,
    /// The time limit of a whole request, `http.timeout`.
    pub request_timeout: Duration,
    /// Probing of parked accounts.
    pub breaker: BreakerRules,
    /// Following of accepted objects.
    pub follow: FollowRules,
}

/// An exponential curve of delays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Curve {
    /// The first delay.
    pub initial: Duration,
    /// No delay is longer, before jitter.
    pub max: Duration,
    /// Each delay is this times the one before; at least 1.
    pub multiplier: f64,
    /// Up to this share is added at random, 0 to 1.
    pub jitter: f64,
    /// Attempts in all; 0 means without limit.
    pub attempts: u32,
}

impl Curve {
    /// Whether the attempt with this number (from 1) was the last one allowed.
    pub fn is_exhausted_by(&self, attempt: u32) -> bool {
        self.attempts > 0 && attempt >= self.attempts
    }
}

/// Randomness as an argument: a number from 0 (inclusive) to 1 (exclusive).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Jitter(f64);

impl Jitter {
    /// No randomness: every delay at its shortest.
    pub const NONE: Jitter = Jitter(0.0);

    /// From any number; what lies outside is clamped.
    pub fn new(number: f64) -> Jitter {
        Jitter(if number.is_finite() {
            number.clamp(0.0, 1.0)
        } else {
            0.0
        })
    }

    /// The same for the same number, and spread over all numbers: for a moment that is not to move each time it is computed.
    pub fn of_number(number: i64) -> Jitter {
        // Neighbours are far apart, and no few of them near each other.
        const GOLDEN: f64 = 0.618_033_988_749_894_8;
        Jitter::new((number.rem_euclid(1 << 20) as f64 * GOLDEN).fract())
    }

    /// The delay, lengthened by up to the share.
    pub fn lengthen(self, delay: Duration, share: f64) -> Duration {
        delay.saturating_add(self.of(delay.mul_f64(share.clamp(0.0, 1.0))))
    }

    /// A random part of the span.
    pub fn of(self, span: Duration) -> Duration {
        span.mul_f64(self.0)
    }
}

/// `[breaker]`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerRules {
    /// Before the first probe.
    pub probe_initial: Duration,
    /// The longest distance of probes.
    pub probe_max: Duration,
    /// How long it takes from one request at a time to full concurrency after a park.
    pub slow_start: Duration,
}

/// `[follow]`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FollowRules {
    /// Before the first check of an accepted object.
    pub first: Duration,
    /// The longest distance of checks.
    pub max: Duration,
    /// How long an invoice is watched after cancelled, expired or error: it may still be paid.
    pub watch_after_final: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_jitter_of_a_number_is_always_the_same_and_that_of_the_next_ones_is_spread() {
        let of = |number| Jitter::of_number(number).of(MINUTE).as_secs();
        assert_eq!(of(100_001), of(100_001));
        for first in [0, 100_001, i64::MAX - 59, i64::MIN] {
            let mut quarters = [0; 4];
            for number in first..first + 40 {
                quarters[of(number) as usize / 15] += 1;
            }
            assert!(
                quarters.iter().all(|jobs| (8..=12).contains(jobs)),
                "{quarters:?}"
            );
        }
    }

    #[test]
    fn attempts_are_used_up_by_the_last_one_allowed() {
        let curve = |attempts| Curve {
            initial: MINUTE,
            max: MINUTE,
            multiplier: 2.0,
            jitter: 0.0,
            attempts,
        };
        for (attempts, attempt, expected) in [
            (0, 0, false),
            (0, u32::MAX, false),
            (1, 0, false),
            (1, 1, true),
            (3, 2, false),
            (3, 3, true),
            (3, 4, true),
        ] {
            let is_exhausted = curve(attempts).is_exhausted_by(attempt);
            assert_eq!(is_exhausted, expected, "{attempts} {attempt}");
        }
    }

    #[test]
    fn randomness_is_a_part_of_the_share_and_never_a_cut() {
        for (random, share, expected) in [
            (0.0, 0.5, 60),
            (0.5, 0.5, 75),
            (1.0, 0.5, 90),
            (1.0, 0.0, 60),
            (1.0, 7.0, 120),
            (1.0, -1.0, 60),
            (9.0, 0.5, 90),
            (-9.0, 0.5, 60),
            (f64::NAN, 0.5, 60),
            (f64::INFINITY, 0.5, 60),
        ] {
            let longer = Jitter::new(random).lengthen(MINUTE, share);
            assert_eq!(longer, Duration::from_secs(expected), "{random} {share}");
        }
        assert_eq!(Jitter::new(0.25).of(MINUTE), Duration::from_secs(15));
        assert_eq!(Jitter::NONE.of(MINUTE), Duration::ZERO);
    }
}
