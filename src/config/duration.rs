//! Durations as people write them: a whole number and one unit.

use std::time::Duration;

/// From the longest unit to the shortest.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Longer ones are typing errors.
const MAX: Duration = Duration::from_secs(366 * 86_400);

/// What [`parse`] accepts, for error messages.
pub(super) const ALLOWED: &str =
    r#"a whole number and a unit (ms, s, m, h or d), such as "30s", at most 366d"#;

/// Reads `250ms`, `30s`, `5m`, `24h`, `2d`.
pub(super) fn parse(written: &str) -> Option<Duration> {
    let digits = written.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = written.split_at(digits);
    let (_, unit_ms) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let number: u64 = number.parse().ok()?;
    let duration = Duration::from_millis(number.checked_mul(*unit_ms)?);
    (duration <= MAX).then_some(duration)
}

/// Writes a duration in the way it would be configured.
pub(super) fn show(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    // 90s is easier to compare than "1.5m", and 60s is what people write for a minute.
    UNITS
        .iter()
        .find(|(_, unit_ms)| ms >= 2 * unit_ms && ms % unit_ms == 0)
        .map_or_else(
            || format!("{ms}ms"),
            |(name, unit_ms)| format!("{}{name}", ms / unit_ms),
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_unit_is_read() {
        let ms = |written| parse(written).map(|d| d.as_millis());
        assert_eq!(ms("250ms"), Some(250));
        assert_eq!(ms("30s"), Some(30_000));
        assert_eq!(ms("5m"), Some(300_000));
        assert_eq!(ms("24h"), Some(86_400_000));
        assert_eq!(ms("2d"), Some(172_800_000));
        assert_eq!(ms("0s"), Some(0));
    }

    #[test]
    fn anything_else_is_refused() {
        for written in [
            "",
            "30",
            "s",
            "-1s",
            "+1s",
            "1.5s",
            "1 s",
            " 1s",
            "1s ",
            "1S",
            "1h30m",
            "1w",
            "367d",
            "99999999999999999999s",
            "9999999999999999d",
            "١s",
        ] {
            assert_eq!(parse(written), None, "{written:?}");
        }
    }

    #[test]
    fn durations_are_shown_as_people_write_them() {
        let shown = |written: &str| show(parse(written).unwrap());
        assert_eq!(shown("60s"), "60s");
        assert_eq!(shown("90s"), "90s");
        assert_eq!(shown("15m"), "15m");
        assert_eq!(shown("24h"), "24h");
        assert_eq!(shown("72h"), "3d");
        assert_eq!(shown("1500ms"), "1500ms");
        assert_eq!(shown("1ms"), "1ms");
        assert_eq!(shown("0s"), "0ms");
    }

    proptest! {
        #[test]
        fn what_is_shown_can_be_read_again(ms in 0u64..=31_622_400_000) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse(&show(duration)), Some(duration));
        }

        #[test]
        fn no_text_makes_it_panic(written in "\\PC*") {
            parse(&written);
        }
    }
}
