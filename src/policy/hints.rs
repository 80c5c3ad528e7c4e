//! How long the gateway asks to wait.

use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};

use crate::domain::answer::Reply;

/// A rate limit clears within its window: a longer hint is a mistake of somebody's.
pub const RATE_WAIT_MAX: Duration = Duration::from_secs(3600);

/// A cap clears at the latest with its month.
pub const CAP_WAIT_MAX: Duration = Duration::from_secs(31 * 24 * 3600);

/// What the gateway says is left of the quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remaining {
    /// Requests that may still be made.
    pub requests: u32,
    /// When the gateway forgets those that were made, if it says so: at most [`RATE_WINDOW`].
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
    let reset = reply
        .limits
        .reset
        .and_then(|unix| OffsetDateTime::from_unix_timestamp(unix).ok());
    Some(Remaining {
        requests,
        resets_after: reset.map(|moment| until(moment, now).min(RATE_WINDOW)),
    })
}

/// The longest of all hints in headers and body (API, section 4.3); `None` when there is none.
///
/// Moments in the past and negative numbers ask for no wait; what cannot be read is no hint.
pub fn wait(reply: &Reply, now: OffsetDateTime) -> Option<Duration> {
    let headers = reply.limits.retry_after.iter();
    let header = headers
        .filter_map(|written| retry_after(written, now))
        .max();
    let reset = reply
        .limits
        .reset
        .and_then(|unix| OffsetDateTime::from_unix_timestamp(unix).ok());
    let body = reply.object();
    let field = |key| body.and_then(|object| object.get(key));
    let meta = field("meta").and_then(|meta| meta.get("reset_at"));
    [
        header,
        reset.map(|moment| until(moment, now)),
        field("retry_after_seconds").and_then(seconds),
        field("retry_after").and_then(seconds),
        meta.and_then(|written| moment(written, now)),
        field("reset_at").and_then(|written| moment(written, now)),
    ]
    .into_iter()
    .flatten()
    .max()
}

/// `Retry-After`: seconds, or an HTTP date (RFC 9110, section 10.2.3).
fn retry_after(written: &str, now: OffsetDateTime) -> Option<Duration> {
    let written = written.trim();
    match written.parse::<f64>() {
        Ok(number) => from_seconds(number),
        // RFC 2822 differs from the HTTP date in the name of the zone only.
        Err(_) => OffsetDateTime::parse(&written.replace("GMT", "+0000"), &Rfc2822)
            .ok()
            .map(|moment| until(moment, now)),
    }
}

fn seconds(value: &Value) -> Option<Duration> {
    let number = value
        .as_f64()
        .or_else(|| value.as_str()?.trim().parse().ok())?;
    from_seconds(number)
}

fn from_seconds(number: f64) -> Option<Duration> {
    if number.is_nan() {
        return None;
    }
    Some(Duration::try_from_secs_f64(number.max(0.0)).unwrap_or(Duration::MAX))
}

fn moment(value: &Value, now: OffsetDateTime) -> Option<Duration> {
    let written = value.as_str()?.replacen(' ', "T", 1);
    OffsetDateTime::parse(&written, &Rfc3339)
        .ok()
        .map(|moment| until(moment, now))
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
            remaining: None,
        };
        Reply {
            status: 429,
            body: Body::Json(body),
            limits,
        }
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
