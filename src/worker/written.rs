//! Moments in sentences.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A moment to the second, as RFC 3339 writes it.
pub fn written(moment: OffsetDateTime) -> String {
    let moment = moment.replace_nanosecond(0).unwrap_or(moment);
    moment.format(&Rfc3339).unwrap_or_default()
}
