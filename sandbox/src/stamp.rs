//! Times as the gateway writes and reads them.

use time::format_description::FormatItem;
use time::macros::{format_description, offset};
use time::{Date, Duration, OffsetDateTime, PrimitiveDateTime, UtcOffset};

const ALMATY: UtcOffset = offset!(+5);

const STAMP: &[FormatItem<'_>] = format_description!(
    "[year]-[month]-[day]T[hour]:[minute]:[second][offset_hour sign:mandatory]:[offset_minute]"
);
const MILLIS: &[FormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
const MICROS: &[FormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
const DAY: &[FormatItem<'_>] = format_description!("[year]-[month]-[day]");
const LOCAL: &[FormatItem<'_>] = format_description!(
    version = 2,
    "[year]-[month]-[day][first [T] [ ]][hour]:[minute][optional [:[second]]]"
);
const ZONED: &[FormatItem<'_>] = format_description!(
    version = 2,
    "[year]-[month]-[day][first [T] [ ]][hour]:[minute][optional [:[second]]][first [Z] [[offset_hour sign:mandatory]:[offset_minute]]]"
);

/// Invoices and refunds: seconds, `+00:00`.
pub(crate) fn utc(at: OffsetDateTime) -> String {
    at.to_offset(UtcOffset::UTC)
        .format(STAMP)
        .unwrap_or_default()
}

/// Account answers: seconds, `+05:00`.
pub(crate) fn almaty(at: OffsetDateTime) -> String {
    at.to_offset(ALMATY).format(STAMP).unwrap_or_default()
}

pub(crate) fn millis(at: OffsetDateTime) -> String {
    at.to_offset(UtcOffset::UTC)
        .format(MILLIS)
        .unwrap_or_default()
}

pub(crate) fn micros(at: OffsetDateTime) -> String {
    at.to_offset(UtcOffset::UTC)
        .format(MICROS)
        .unwrap_or_default()
}

/// Which end of a filter window a text stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    From,
    To,
}

/// Reads one end of a filter window: a bare date is the whole Almaty day, anything with an hour is that instant.
pub(crate) fn parse_bound(text: &str, bound: Bound) -> Option<OffsetDateTime> {
    if let Ok(day) = Date::parse(text, DAY) {
        let midnight = day.midnight().assume_offset(ALMATY);
        return match bound {
            Bound::From => Some(midnight),
            Bound::To => midnight.checked_add(Duration::DAY - Duration::NANOSECOND),
        };
    }
    if let Ok(local) = PrimitiveDateTime::parse(text, LOCAL) {
        return Some(local.assume_offset(ALMATY));
    }
    let zoned = text
        .strip_suffix('Z')
        .map_or_else(|| text.to_owned(), |rest| format!("{rest}+00:00"));
    OffsetDateTime::parse(&zoned, ZONED).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn bounds_are_read_in_almaty() {
        for (text, bound, expected) in [
            (
                "2026-09-06",
                Bound::From,
                Some(datetime!(2026-09-05 19:00 UTC)),
            ),
            (
                "2026-09-06",
                Bound::To,
                Some(datetime!(2026-09-06 18:59:59.999_999_999 UTC)),
            ),
            (
                "2026-09-06T10:00",
                Bound::From,
                Some(datetime!(2026-09-06 05:00 UTC)),
            ),
            (
                "2026-09-06 10:00:30",
                Bound::To,
                Some(datetime!(2026-09-06 05:00:30 UTC)),
            ),
            (
                "2026-09-06T10:00:00Z",
                Bound::From,
                Some(datetime!(2026-09-06 10:00 UTC)),
            ),
            (
                "2026-09-06T10:00:00+06:00",
                Bound::From,
                Some(datetime!(2026-09-06 04:00 UTC)),
            ),
            // A plus sign that was not percent-encoded arrives as a space.
            ("2026-09-06T10:00:00 05:00", Bound::From, None),
            ("yesterday", Bound::From, None),
        ] {
            assert_eq!(parse_bound(text, bound), expected, "{text}");
        }
    }

    #[test]
    fn stamps_have_the_documented_offsets() {
        let at = datetime!(2026-09-06 10:00:00.5 UTC);
        assert_eq!(utc(at), "2026-09-06T10:00:00+00:00");
        assert_eq!(almaty(at), "2026-09-06T15:00:00+05:00");
        assert_eq!(millis(at), "2026-09-06T10:00:00.500Z");
    }
}
