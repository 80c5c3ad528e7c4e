//! How long the gateway asks to wait.

use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};

use crate::domain::answer::Reply;
use crate::domain::codes::Class;

/// A rate limit clears within its window: a longer hint is a mistake of somebody's.
pub const RATE_WAIT_MAX: Duration = Duration::from_secs(3600);

/// A cap clears at the latest with its month.
pub const CAP_WAIT_MAX: Duration = Duration::from_secs(31 * 24 * 3600);

/// What the gateway says is left of the quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remaining {
    /// Requests that may still be made.
    pub requests: u32,
    /// When the gateway forgets those that were made, if it says so: at most the window of its limit, a minute.
    pub resets_after: Option<Duration>,
}

/// The window of the gateway's limit (API, section 1.1).
const RATE_WINDOW: Duration = Duration::from_secs(60);

/// What is left of the quota (API, section 1.1); `None` when the reply does not tell.
///
/// A refusal for the rate says how long to wait, and that is all of it: nothing remains until then,
/// and everything is there again afterwards.
pub fn remaining(reply: &Reply, now: OffsetDateTime) -> Option<Remaining> {
    let requests = reply.limits.remaining.filter(|_| reply.status != 429)?;
    let now = its_clock(reply, now);
    Some(Remaining {
        requests,
        resets_after: reset(reply).map(|moment| until(moment, now).min(RATE_WINDOW)),
    })
}

/// What the hints in headers and body ask for (API, section 4.3); `None` when there is none.
///
/// A number of seconds means the same by every clock; a moment is worth no more than the clock that it is
/// held against, so it counts only where no number is given. But for a cap: its number is when to ask
/// again, its moment when it ends. Of several the longest counts. Moments in the past and negative
/// numbers ask for no wait; what cannot be read is no hint.
pub fn wait(reply: &Reply, now: OffsetDateTime) -> Option<Duration> {
    let seconds = in_seconds(reply);
    if reply.class() == Class::Capped {
        seconds.max(until_moments(reply, now))
    } else {
        seconds.or_else(|| until_moments(reply, now))
    }
}

/// The longest wait that is given as a number of seconds.
pub(super) fn in_seconds(reply: &Reply) -> Option<Duration> {
    let headers = reply.limits.retry_after.iter();
    let headers = headers.filter_map(|written| from_seconds(written.trim().parse().ok()?));
    let fields = ["retry_after_seconds", "retry_after"];
    let fields = fields
        .iter()
        .filter_map(|key| seconds(reply.object()?.get(key)?));
    headers.chain(fields).max()
}

/// The longest wait that is given as a moment.
fn until_moments(reply: &Reply, now: OffsetDateTime) -> Option<Duration> {
    let now = its_clock(reply, now);
    let headers = reply.limits.retry_after.iter();
    let headers = headers.filter_map(|written| http_date(written));
    let fields = ["/meta/reset_at", "/reset_at"];
    let fields = fields
        .iter()
        .filter_map(|place| moment(reply.object()?.pointer(place)?));
    let moments = headers.chain(reset(reply)).chain(fields);
    moments.map(|moment| until(moment, now)).max()
}

/// The clock that moments in a reply were written by: its own date, or `now` where it has none.
fn its_clock(reply: &Reply, now: OffsetDateTime) -> OffsetDateTime {
    let date = reply.limits.date.as_deref();
    date.and_then(http_date).unwrap_or(now)
}

/// `X-RateLimit-Reset`.
fn reset(reply: &Reply) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(reply.limits.reset?).ok()
}

/// A moment as HTTP writes it (RFC 9110, section 5.6.7).
fn http_date(written: &str) -> Option<OffsetDateTime> {
    // RFC 2822 differs in the name of the zone only.
    OffsetDateTime::parse(&written.trim().replace("GMT", "+0000"), &Rfc2822).ok()
}

fn seconds(value: &Value) -> Option<Duration> {
    // As it was written: one beyond what a float holds asks for ever, in whichever way it is written.
    let written = match value {
        Value::Number(number) => number.as_str(),
        _ => value.as_str()?.trim(),
    };
    from_seconds(written.parse().ok()?)
}

fn from_seconds(number: f64) -> Option<Duration> {
    if number.is_nan() {
        return None;
    }
    Some(Duration::try_from_secs_f64(number.max(0.0)).unwrap_or(Duration::MAX))
}

fn moment(value: &Value) -> Option<OffsetDateTime> {
    let written = value.as_str()?.replacen(' ', "T", 1);
    OffsetDateTime::parse(&written, &Rfc3339).ok()
}

fn until(moment: OffsetDateTime, now: OffsetDateTime) -> Duration {
    Duration::try_from(moment - now).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::answer::{Body, Limits};
    use serde_json::json;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-09-06 12:00:00 UTC);

    fn reply(retry_after: Option<&str>, reset: Option<i64>, body: Value) -> Reply {
        let limits = Limits {
            retry_after: retry_after.map(str::to_owned).into_iter().collect(),
            reset,
            ..Limits::default()
        };
        Reply::new(429, Body::Json(body), limits, false)
    }

    #[test]
    fn every_documented_place_of_a_hint_is_read() {
        let unix = NOW.unix_timestamp();
        for (case, seconds) in [
            (reply(Some("17"), None, json!({})), Some(17)),
            (reply(Some(" 17 "), None, json!({})), Some(17)),
            (
                reply(Some("Sun, 06 Sep 2026 12:00:42 GMT"), None, json!({})),
                Some(42),
            ),
            (reply(None, Some(unix + 5), json!({})), Some(5)),
            (
                reply(None, None, json!({"retry_after_seconds": 60})),
                Some(60),
            ),
            (reply(None, None, json!({"retry_after": 42})), Some(42)),
            (reply(None, None, json!({"retry_after": "42"})), Some(42)),
            (
                reply(None, None, json!({"reset_at": "2026-09-06T12:01:00+00:00"})),
                Some(60),
            ),
            (
                reply(
                    None,
                    None,
                    json!({"meta": {"reset_at": "2026-09-06T17:02:00+05:00"}}),
                ),
                Some(120),
            ),
            (
                reply(None, None, json!({"message": "Too Many Attempts."})),
                None,
            ),
            (
                reply(None, None, json!({"reset_at": null, "retry_after": null})),
                None,
            ),
        ] {
            assert_eq!(
                wait(&case, NOW),
                seconds.map(Duration::from_secs),
                "{case:?}"
            );
        }
    }

    #[test]
    fn what_remains_is_told_by_an_answer_and_not_by_a_refusal_for_the_rate() {
        let unix = NOW.unix_timestamp();
        let seconds = Duration::from_secs;
        for (status, left, reset, expected) in [
            (201, Some(3), None, Some((3, None))),
            (201, Some(0), Some(unix + 5), Some((0, Some(seconds(5))))),
            (422, Some(0), Some(unix - 5), Some((0, Some(seconds(0))))),
            (
                200,
                Some(7),
                Some(unix + 5_000),
                Some((7, Some(seconds(60)))),
            ),
            (200, Some(7), Some(i64::MAX), Some((7, None))),
            (200, None, Some(unix + 5), None),
            // The wait is what it asks for: afterwards the whole quota is there again.
            (429, Some(0), Some(unix + 5), None),
            (429, Some(0), None, None),
        ] {
            let mut case = reply(None, reset, json!({}));
            (case.status, case.limits.remaining) = (status, left);
            let told = remaining(&case, NOW).map(|told| (told.requests, told.resets_after));
            assert_eq!(told, expected, "{status} {left:?} {reset:?}");
        }
    }

    #[test]
    fn the_longest_hint_counts() {
        let both = reply(
            Some("5"),
            None,
            json!({"retry_after_seconds": 30, "retry_after": 7}),
        );
        assert_eq!(wait(&both, NOW), Some(Duration::from_secs(30)));
        let mut twice = reply(Some("5"), None, json!({}));
        twice.limits.retry_after.push("900".to_owned());
        assert_eq!(wait(&twice, NOW), Some(Duration::from_secs(900)));
        twice.limits.retry_after.reverse();
        assert_eq!(wait(&twice, NOW), Some(Duration::from_secs(900)));
    }

    #[test]
    fn a_number_of_seconds_is_worth_more_than_a_moment() {
        let both = |body| reply(Some("2"), Some(NOW.unix_timestamp() + 1_800), body);
        let rate = both(json!({"error_code": "request_rate_limited"}));
        assert_eq!(wait(&rate, NOW), Some(Duration::from_secs(2)));
        let body = json!({"meta": {"reset_at": "2026-09-06T14:00:00Z"}, "retry_after_seconds": 60});
        let fault = reply(None, None, body.clone());
        assert_eq!(wait(&fault, NOW), Some(Duration::from_secs(60)));
        let mut cap = body;
        cap["error_code"] = json!("tariff_limit_reached");
        let cap = reply(None, None, cap);
        assert_eq!(wait(&cap, NOW), Some(Duration::from_secs(7_200)));
    }

    #[test]
    fn a_moment_is_held_against_the_clock_that_wrote_it() {
        let reset_at = json!({"reset_at": "2026-09-06T12:01:00Z"});
        for (written, unix, body) in [
            (None, Some(NOW.unix_timestamp() + 60), json!({})),
            (Some("Sun, 06 Sep 2026 12:01:00 GMT"), None, json!({})),
            (None, None, reset_at.clone()),
            (None, None, json!({"meta": reset_at})),
        ] {
            let mut reply = reply(written, unix, body);
            reply.limits.date = Some("Sun, 06 Sep 2026 12:00:00 GMT".to_owned());
            for ours in [-86_400, -1_800, 0, 1_800, 86_400] {
                let ours = NOW + time::Duration::seconds(ours);
                assert_eq!(wait(&reply, ours), Some(Duration::from_secs(60)), "{ours}");
            }
            reply.limits.date = Some("yesterday".to_owned());
            assert_eq!(wait(&reply, NOW), Some(Duration::from_secs(60)));
        }
    }

    #[test]
    fn absurd_hints_are_harmless() {
        for (written, expected) in [
            ("-5", Some(Duration::ZERO)),
            ("1e400", Some(Duration::MAX)),
            ("NaN", None),
            ("soon", None),
            ("", None),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(Duration::ZERO)),
        ] {
            assert_eq!(
                wait(&reply(Some(written), None, json!({})), NOW),
                expected,
                "{written:?}"
            );
        }
        assert_eq!(wait(&reply(None, Some(i64::MAX), json!({})), NOW), None);
    }
}
