//! Whether the database's clock has kept to its pace.

use time::OffsetDateTime;

/// A span of time with its sign, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpanUs(pub i64);

/// What one reading of the database's clock comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The clock goes on; the steady time follows it by so much.
    Follows(SpanUs),
    /// It was set: forward, or back when negative. The steady time stays as it is.
    Jumped(SpanUs),
    /// Another daemon says that it was set, and that is not what is seen here: it may have been set again.
    Disputed,
    /// So it stays: the machines do not count the same seconds, and one time for all matters most.
    Yields(SpanUs),
}

/// More than this in one go is no drift, and no slewing by NTP.
pub const JUMP: SpanUs = SpanUs(2_000_000);

/// The steady time follows the database's clock by a thousandth of the time that has passed: too
/// little to matter to whoever counts a minute by it.
const FOLLOWING: i64 = 1_000;

/// How long a dispute lasts: whoever else sees the clock set has said so by then.
const DISPUTE: SpanUs = SpanUs(5_000_000);

/// Judges a reading of the database's clock.
///
/// `ahead` is how far it is ahead of what was expected, `uncertain` how far off that may be because
/// the reading took its time, `since` how long ago the reading before was. `disputed` is how long ago
/// another daemon noticed a jump, if no reading since then was as expected.
pub fn judge_reading(
    ahead: SpanUs,
    uncertain: SpanUs,
    since: SpanUs,
    disputed: Option<SpanUs>,
) -> Reading {
    let certain = ahead.0.saturating_abs().saturating_sub(uncertain.0).max(0);
    if certain > JUMP.0 {
        return match disputed {
            None => Reading::Jumped(ahead),
            Some(time) if time < DISPUTE => Reading::Disputed,
            Some(_) => Reading::Yields(ahead),
        };
    }
    let most = since.0.max(0) / FOLLOWING;
    Reading::Follows(SpanUs(certain.min(most) * ahead.0.signum()))
}

/// What to take for the moment at which the database's clock showed this, when it should have shown
/// `expected` or a little less.
///
/// A clock that was set forward is not believed: what is stored would seem to have lasted for longer than
/// it has, and an absence would be proof too early. Set back it is believed, for then all seems younger.
pub fn believed(shown: OffsetDateTime, expected: OffsetDateTime) -> OffsetDateTime {
    if shown - expected > time::Duration::microseconds(JUMP.0) {
        expected
    } else {
        shown
    }
}

/// What a clock shows at least that should show `expected` or a little more, and was not set back.
pub fn at_least(expected: OffsetDateTime) -> OffsetDateTime {
    expected - time::Duration::microseconds(JUMP.0)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const SECOND: i64 = 1_000_000;

    #[test]
    fn only_what_is_certain_is_a_jump() {
        for (ahead, uncertain, expected) in [
            (2 * SECOND, 0, Reading::Follows(SpanUs(1_000))),
            (2 * SECOND + 1, 0, Reading::Jumped(SpanUs(2 * SECOND + 1))),
            (-2 * SECOND - 1, 0, Reading::Jumped(SpanUs(-2 * SECOND - 1))),
            // The answer came three seconds late: the clock may have been right when it was read.
            (3 * SECOND, 3 * SECOND, Reading::Follows(SpanUs(0))),
            (6 * SECOND, 3 * SECOND, Reading::Jumped(SpanUs(6 * SECOND))),
            (i64::MIN, 0, Reading::Jumped(SpanUs(i64::MIN))),
            (i64::MAX, i64::MAX, Reading::Follows(SpanUs(0))),
        ] {
            let reading = judge_reading(SpanUs(ahead), SpanUs(uncertain), SpanUs(SECOND), None);
            assert_eq!(reading, expected, "{ahead} {uncertain}");
        }
    }

    #[test]
    fn who_sees_another_jump_than_the_others_waits_and_then_yields() {
        let hour = SpanUs(3_600 * SECOND);
        for (disputed, expected) in [
            (None, Reading::Jumped(hour)),
            (Some(0), Reading::Disputed),
            (Some(5 * SECOND - 1), Reading::Disputed),
            (Some(5 * SECOND), Reading::Yields(hour)),
        ] {
            let disputed = disputed.map(SpanUs);
            let reading = judge_reading(hour, SpanUs(0), SpanUs(SECOND), disputed);
            assert_eq!(reading, expected, "{disputed:?}");
        }
        let reading = judge_reading(SpanUs(0), SpanUs(0), SpanUs(SECOND), Some(SpanUs(0)));
        assert_eq!(
            reading,
            Reading::Follows(SpanUs(0)),
            "what was seen here too"
        );
    }

    #[test]
    fn a_drift_is_followed_and_never_by_more_than_a_thousandth() {
        for (ahead, uncertain, since, expected) in [
            (500, 0, SECOND, 500),
            (-500, 0, SECOND, -500),
            (500, 400, SECOND, 100),
            (500, 500, SECOND, 0),
            (5_000, 0, SECOND, 1_000),
            (-5_000, 0, SECOND, -1_000),
            (5_000, 0, 3 * SECOND, 3_000),
            (5_000, 0, 0, 0),
            (5_000, 0, -SECOND, 0),
        ] {
            let reading = judge_reading(SpanUs(ahead), SpanUs(uncertain), SpanUs(since), None);
            let expected = Reading::Follows(SpanUs(expected));
            assert_eq!(reading, expected, "{ahead} {uncertain} {since}");
        }
    }

    #[test]
    fn a_clock_that_was_set_forward_is_not_believed() {
        let expected = datetime!(2026-11-26 12:00 UTC);
        for (ahead_s, believed_s) in [
            (0, 0),
            (-1, -1),
            (2, 2),
            (3, 0),
            (18_000, 0),
            (-18_000, -18_000),
        ] {
            let at = |seconds| expected + time::Duration::seconds(seconds);
            assert_eq!(believed(at(ahead_s), expected), at(believed_s), "{ahead_s}");
        }
    }
}
