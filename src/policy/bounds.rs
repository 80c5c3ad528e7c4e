//! How far ahead a stored moment may lie: as far as what it is for can ask, and no further.
//!
//! Moments are written as *now, and so long*. A moment that lies further ahead than that was written by a
//! clock that has been put right since, or by hand; obeyed, it would keep its job or account waiting for
//! as long as the clock was wrong.

use std::time::Duration;

use crate::domain::bounds::Bounds;
use crate::domain::codes::caps;
use crate::policy::breaker::{HINT_MAX, PROBE_JITTER};
use crate::policy::hints::{CAP_WAIT_MAX, RATE_WAIT_MAX};
use crate::policy::judge::{CAP_JITTER, UPGRADE_WAIT};
use crate::policy::rules::{Curve, Rules};

/// The bounds that follow from these settings.
pub fn bounds(rules: &Rules, lease: Duration) -> Bounds {
    let longest = |curve: &Curve| curve.max.mul_f64(1.0 + curve.jitter);
    let waits = [
        longest(&rules.server_error),
        longest(&rules.network),
        longest(&rules.async_error),
        rules.settle,
        rules.quiet_after_timeout,
        rules.quiet_after_answer,
        rules.request_timeout,
        UPGRADE_WAIT,
        lease,
    ];
    let checks = [
        // Its spread, too.
        rules.follow.max.mul_f64(1.2),
        longest(&rules.async_error),
        lease,
    ];
    let probe = rules.breaker.probe_max.mul_f64(1.0 + PROBE_JITTER);
    Bounds {
        rate: RATE_WAIT_MAX.mul_f64(1.0 + rules.rate_limited.jitter),
        cap: CAP_WAIT_MAX + CAP_JITTER,
        cap_codes: caps(),
        probe: probe.max(HINT_MAX).max(lease),
        lease: lease * 2,
        wait: waits.into_iter().fold(Duration::ZERO, Duration::max),
        check: checks.into_iter().fold(Duration::ZERO, Duration::max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::backoff;
    use crate::policy::breaker::probe_delay;
    use crate::policy::fixtures::rules;
    use crate::policy::rules::Jitter;

    #[test]
    fn no_wait_that_is_decided_is_beyond_its_bound() {
        let rules = rules();
        let bounds = bounds(&rules, Duration::from_secs(90));
        for attempt in [1, 2, 10, 1_000] {
            for random in [0.0, 0.5, 1.0] {
                let jitter = Jitter::new(random);
                for curve in [&rules.server_error, &rules.network, &rules.async_error] {
                    assert!(backoff::delay(curve, attempt, jitter) <= bounds.wait);
                }
                assert!(backoff::delay(&rules.rate_limited, attempt, jitter) <= bounds.rate);
                for hint in [None, Some(Duration::MAX)] {
                    let delay = probe_delay(&rules.breaker, attempt, hint, jitter);
                    assert!(delay <= bounds.probe);
                }
            }
        }
        assert!(rules.settle <= bounds.wait && rules.follow.max <= bounds.check);
        assert!(bounds.rate >= RATE_WAIT_MAX && bounds.rate < bounds.cap);
        assert_eq!(bounds.lease, Duration::from_secs(180));
    }
}
