//! Two times: the real one, and the one invoices and refunds live by, which tests can hurry, move or stop.

use std::time::Instant;

use time::macros::datetime;
use time::{Duration, OffsetDateTime};

/// The end of time, far enough from the last date there is to be shown in any offset.
const LATEST: OffsetDateTime = datetime!(9000-01-01 0:00 UTC);

/// One instant in both times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// What the clock of invoices and refunds shows.
    pub(crate) life: OffsetDateTime,
    /// Real time: rate limits, lags of lists, logs.
    pub(crate) real: OffsetDateTime,
}

#[derive(Debug)]
pub(crate) struct Clock {
    // Real time runs on the monotonic clock from one reading of the wall clock, so it never steps back.
    started: Instant,
    started_at: OffsetDateTime,
    from_real: OffsetDateTime,
    from_life: OffsetDateTime,
    speed: f64,
    frozen: bool,
}

impl Clock {
    pub(crate) fn new(speed: f64) -> Self {
        // In this order: should the machine pause between the two, times are late and not early, and no
        // request seems to arrive before what led to it.
        let started = Instant::now();
        let started_at = OffsetDateTime::now_utc();
        Self {
            started,
            started_at,
            from_real: started_at,
            from_life: started_at,
            speed,
            frozen: false,
        }
    }

    pub(crate) fn now(&self) -> Moment {
        let real = self.started_at + self.started.elapsed();
        Moment {
            life: self.life_at(real),
            real,
        }
    }

    pub(crate) fn speed(&self) -> f64 {
        self.speed
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen
    }

    pub(crate) fn set_speed(&mut self, speed: f64) {
        self.rebase();
        self.speed = speed;
    }

    pub(crate) fn set_frozen(&mut self, frozen: bool) {
        self.rebase();
        self.frozen = frozen;
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        self.from_life = self.from_life.saturating_add(by).min(LATEST);
    }

    fn rebase(&mut self) {
        let now = self.now();
        self.from_real = now.real;
        self.from_life = now.life;
    }

    fn life_at(&self, real: OffsetDateTime) -> OffsetDateTime {
        if self.frozen {
            return self.from_life;
        }
        let passed = real - self.from_real;
        self.from_life
            .saturating_add(Duration::saturating_seconds_f64(
                passed.as_seconds_f64() * self.speed,
            ))
            .min(LATEST)
    }
}

/// Reads spans such as `90s`, `1h30m`, `250ms`, `2d`.
pub(crate) fn parse_span(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let count: i64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_len = rest
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(rest.len());
        total = total.checked_add(span_of(count, &rest[..unit_len])?)?;
        rest = &rest[unit_len..];
    }
    Some(total)
}

fn span_of(count: i64, unit: &str) -> Option<Duration> {
    let milliseconds_per_unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    count
        .checked_mul(milliseconds_per_unit)
        .map(Duration::milliseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_numbers_with_units() {
        for (text, expected) in [
            ("1h", Some(Duration::HOUR)),
            ("1h30m", Some(Duration::minutes(90))),
            ("250ms", Some(Duration::milliseconds(250))),
            ("", None),
            ("10", None),
            ("-1s", None),
            ("1w", None),
        ] {
            assert_eq!(parse_span(text), expected, "{text}");
        }
    }

    #[test]
    fn the_clock_ends_before_the_calendar() {
        let mut clock = Clock::new(1e9);
        for _ in 0..3 {
            clock.advance(Duration::MAX);
        }
        assert_eq!(clock.now().life, LATEST);
        assert!(crate::stamp::almaty(clock.now().life).starts_with("9000-01-01"));
    }

    #[test]
    fn a_frozen_clock_moves_only_when_told() {
        let mut clock = Clock::new(1000.0);
        clock.set_frozen(true);
        let before = clock.now().life;
        clock.advance(Duration::HOUR);
        assert_eq!(clock.now().life - before, Duration::HOUR);
    }
}
