//! Fields of the gateway's objects, as they can be stored.

use rust_decimal::Decimal;
use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

use crate::domain::answer::beginning;

/// A positive id under a key, written as a number or as digits.
pub fn id(object: &Value, key: &str) -> Option<i64> {
    let value = object.get(key)?;
    let digits = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| text.parse().ok())?
    };
    let id = value.as_i64().or_else(|| digits(value.as_str()?))?;
    (id > 0).then_some(id)
}

/// Postgres can store any text but one with NUL, and a stored answer must not fail for that. None
/// of the gateway's texts is as long as the most that is kept (API, section 1).
pub(crate) fn storable(text: &str) -> String {
    const BYTES: usize = 4_000;
    beginning(text, BYTES).replace('\0', "\u{fffd}")
}

/// An unknown status: it is told in notifications, which take 8000 bytes.
pub(super) fn short(text: &str) -> String {
    storable(beginning(text, 100))
}

/// A text under a key.
pub(super) fn text(object: &Value, key: &str) -> Option<String> {
    object.get(key)?.as_str().map(storable)
}

/// The same, where the gateway writes a number now and then.
pub(super) fn text_or_number(object: &Value, key: &str) -> Option<String> {
    match object.get(key)? {
        Value::String(text) => Some(storable(text)),
        Value::Number(number) => Some(storable(number.as_str())),
        _ => None,
    }
}

/// Amounts come as strings or as numbers, depending on the field and the document's age.
pub(super) fn decimal(object: &Value, key: &str) -> Option<Decimal> {
    let written = text_or_number(object, key)?;
    let amount = Decimal::from_str_exact(&written).ok()?;
    // The most that the mirror's columns hold, numeric(12, 2); a fraction above would round up.
    (amount.abs() <= Decimal::new(999_999_999_999, 2)).then_some(amount)
}

/// A moment under a key, in UTC. What the database could not store is as good as not shown: it has no year 0, and no
/// offset from UTC of sixteen hours or more.
pub(super) fn moment(object: &Value, key: &str) -> Option<OffsetDateTime> {
    let written = object.get(key)?.as_str()?;
    // Samples show both "T" and a blank between date and time.
    let moment = OffsetDateTime::parse(&written.replacen(' ', "T", 1), &Rfc3339).ok()?;
    let moment = moment.checked_to_offset(UtcOffset::UTC)?;
    (moment.year() >= 1).then_some(moment)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_moment_is_one_that_the_database_can_store() {
        let read = |written: &str| moment(&json!({"at": written}), "at").map(|at| at.to_string());
        let shown = |written: &str| Some(written.to_owned());
        assert_eq!(
            read("2026-09-06 15:00:00+05:00"),
            shown("2026-09-06 10:00:00.0 +00:00:00")
        );
        assert_eq!(
            read("9999-12-31T23:59:59Z"),
            shown("9999-12-31 23:59:59.0 +00:00:00")
        );
        assert_eq!(
            read("2026-01-01T00:00:00+23:59"),
            shown("2025-12-31 0:01:00.0 +00:00:00")
        );
        for written in [
            "0000-01-01T00:00:00Z",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "0000-01-01T00:00:00+23:59",
            "today",
        ] {
            assert_eq!(read(written), None, "{written}");
        }
    }
}
