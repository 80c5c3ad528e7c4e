//! Fields of the gateway's objects, as they can be stored.

use rust_decimal::Decimal;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

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

/// A moment under a key.
pub(super) fn moment(object: &Value, key: &str) -> Option<OffsetDateTime> {
    let written = object.get(key)?.as_str()?;
    // Samples show both "T" and a blank between date and time.
    OffsetDateTime::parse(&written.replacen(' ', "T", 1), &Rfc3339).ok()
}
