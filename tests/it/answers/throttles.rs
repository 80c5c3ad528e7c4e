//! 429: documented limits, and hints that no document knows.

use serde_json::{Value, json};

use super::cases::Then::{self, ThrottledFor, Waits, WaitsAlone};
use super::cases::{Case, answered, case};

/// Too many requests, in every shape that the gateway has for it.
pub(super) fn throttles() -> Vec<Case> {
    let waits = |reason, at_least_s, at_most_s| Waits {
        reason,
        at_least_s,
        at_most_s,
    };
    vec![
        answered("429_minute", waits("retry_after", 16, 22)),
        answered("429_http_date", waits("retry_after", 16, 22)),
        answered("429_legacy", waits("retry_after", 59, 75)),
        answered("429_authentication", waits("retry_after", 59, 75)),
        answered("429_tariff_limit", waits("cap_reached", 3599, 3665)),
        answered(
            "429_tariff_limit_monthly",
            waits("cap_reached", 770_000, 780_000),
        ),
        answered("429_trial_daily_limit", waits("cap_reached", 3599, 3665)),
        answered("429_outstanding_org", waits("cap_reached", 59, 125)),
        answered("429_recipient_fanout", waits("cap_reached", 59, 125)),
        answered(
            "429_outstanding",
            WaitsAlone {
                reason: "retry_after",
            },
        ),
        // Without a hint it is the configured second.
        answered("429_no_hint", ThrottledFor { refusals: 1 }),
    ]
}

/// 429 with hints that no document knows: never longer than a rate limit can last, never a loop.
pub(super) fn absurd_hints() -> Vec<Case> {
    const HOUR: Then = Waits {
        reason: "retry_after",
        at_least_s: 3600,
        at_most_s: 4400,
    };
    const A_SECOND: Then = ThrottledFor { refusals: 1 };
    let too_many = |headers: Value, body: Value| json!({"answer": {"status": 429, "headers": headers, "json": body}});
    let words = || json!({"message": "Too Many Requests"});
    let after = |written: &str, then| {
        let fault = too_many(json!({"Retry-After": written}), words());
        case(format!("Retry-After: {written}"), fault, then)
    };
    let mut cases = vec![
        after("1", A_SECOND),
        after("-1", A_SECOND),
        after("0", A_SECOND),
        after("0.001", A_SECOND),
        after("soon", A_SECOND),
        after("", A_SECOND),
        after("NaN", A_SECOND),
        after("Thu, 01 Jan 1970 00:00:00 GMT", A_SECOND),
        after("1000000000", HOUR),
        after("1e400", HOUR),
        after("18446744073709551616", HOUR),
        after("Thu, 01 Jan 2099 00:00:00 GMT", HOUR),
        case(
            "milliseconds as X-RateLimit-Reset",
            too_many(json!({"X-RateLimit-Reset": "4070908800000"}), words()),
            A_SECOND,
        ),
        case(
            "two headers that disagree",
            json!({"raw": "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 5\r\nRetry-After: 900\r\n\
                           Content-Length: 22\r\n\r\n{\"message\":\"Too Many\"}"}),
            Waits {
                reason: "retry_after",
                at_least_s: 900,
                at_most_s: 1100,
            },
        ),
        // Each of several refusals costs a second and nothing else.
        case(
            "five times Retry-After: 0",
            json!({"times": 5, "answer": {"status": 429, "headers": {"Retry-After": "0"}, "json": words()}}),
            ThrottledFor { refusals: 5 },
        ),
    ];
    for (field, written, then) in [
        ("retry_after", json!(-1), A_SECOND),
        ("retry_after", json!([60]), A_SECOND),
        ("retry_after_seconds", json!("1e9"), HOUR),
        ("reset_at", json!(4_070_908_800_i64), A_SECOND),
        ("reset_at", json!("4070908800"), A_SECOND),
        ("reset_at", json!("tomorrow"), A_SECOND),
        ("reset_at", json!("2099-01-01T00:00:00Z"), HOUR),
        ("meta", json!({"reset_at": {"in": 60}}), A_SECOND),
    ] {
        let name = format!("{field}: {written}");
        let mut body = words();
        body[field] = written;
        cases.push(case(name, too_many(json!({}), body), then));
    }
    // A code that no column and no delivery is made for.
    for (name, code) in [
        ("a code with a NUL", "slow\0down".to_owned()),
        ("a code of 60 kB", "x".repeat(60_000)),
    ] {
        let body = json!({"error_code": code, "message": "Too Many Requests"});
        cases.push(case(name, too_many(json!({}), body), A_SECOND));
    }
    cases
}
