//! What is done to the first request of a job, and what must become of the job.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{throttles, unreadable};

/// What is done to the first request, and what must become of the job.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) fault: Value,
    pub(super) then: Then,
}

pub(super) enum Then {
    /// It succeeds by its first answer: no look-up, no second send.
    AtOnce,
    /// It succeeds, with so many sends and one effect.
    Succeeds { sends: usize },
    /// It is sent again a second later or more, so often, and only the last send counts.
    ThrottledFor { refusals: usize },
    /// It fails at once, with nothing done.
    Fails { status: u16 },
    /// Its account is parked for this reason; after a probe it is sent once more and succeeds.
    ParksFor(&'static str),
    /// It waits for this reason, nothing done and no attempt spent, and so does its account.
    Waits {
        reason: &'static str,
        at_least_s: i64,
        at_most_s: i64,
    },
    /// Only the job waits.
    WaitsAlone { reason: &'static str },
}

use Then::{AtOnce, Fails, ParksFor, Succeeds};

pub(super) const WELL: Then = Succeeds { sends: 1 };
pub(super) const SENT_AGAIN: Then = Succeeds { sends: 2 };

pub(super) fn case(name: impl Into<String>, fault: Value, then: Then) -> Case {
    let name = name.into();
    Case { name, fault, then }
}

pub(super) fn answered(preset: &str, then: Then) -> Case {
    case(preset, json!({"answer": {"preset": preset}}), then)
}

/// The effect is there; the answer is the fault's.
pub(super) fn applied(name: &str, answer: Value) -> Case {
    case(name, json!({"effect": "apply", "answer": answer}), WELL)
}

/// The effect is there, the answer is lost.
fn lost_replies() -> Vec<Case> {
    vec![
        applied("502 applied", json!({"preset": "502_html"})),
        applied("500 applied", json!({"preset": "500_json"})),
        applied("504 applied", json!({"preset": "504_html"})),
        applied("empty 502 applied", json!({"preset": "502_empty"})),
        applied("an HTML page as 200 applied", json!({"preset": "200_html"})),
        applied("an empty 201 applied", json!({"preset": "201_empty"})),
        applied("a 201 without id applied", json!({"preset": "201_no_id"})),
        applied("204 applied", json!({"status": 204})),
        applied(
            "408 applied",
            json!({"status": 408, "json": {"message": "Request Timeout"}}),
        ),
        applied(
            "a list as 201 applied",
            json!({"status": 201, "json": [1, 2, 3]}),
        ),
        applied(
            "a number as 200 applied",
            json!({"status": 200, "text": "1e400"}),
        ),
        case(
            "hang applied",
            json!({"effect": "apply", "hang": true}),
            WELL,
        ),
        case("cut after the effect", json!({"cut": "after_effect"}), WELL),
        case(
            "cut within the headers",
            json!({"cut": "mid_headers"}),
            WELL,
        ),
        case("cut within the body", json!({"cut": "mid_body"}), WELL),
        case("broken JSON", json!({"broken_json": true}), WELL),
        case("a huge body", json!({"body_bytes": 400_000}), WELL),
        case(
            "a body in drops",
            json!({"drip": {"bytes": 1, "every_ms": 50}}),
            WELL,
        ),
        case("endless headers", json!({"endless_headers": true}), WELL),
        case("an endless body", json!({"endless_body": true}), WELL),
        case("endless 100s", json!({"interim": {"status": 100}}), WELL),
        case("endless 103s", json!({"interim": {"status": 103}}), WELL),
        case("a gzip bomb", json!({"gzip_bomb": true}), WELL),
        case(
            "504 and applied a second later",
            json!({"effect": "late", "after_ms": 1000, "answer": {"preset": "504_html"}}),
            WELL,
        ),
        case(
            "hang and applied a second later",
            json!({"effect": "late", "after_ms": 1000, "hang": true}),
            WELL,
        ),
        case(
            "cut and applied a second later",
            json!({"effect": "late", "after_ms": 1000, "hang_ms": 100}),
            WELL,
        ),
    ]
}

/// The answer is there, behind what a proxy may put before it.
fn odd_but_good() -> Vec<Case> {
    vec![
        case(
            "a hundred 100s first",
            json!({"interim": {"status": 100, "times": 100}}),
            AtOnce,
        ),
        case(
            "early hints first",
            json!({"interim": {"status": 103, "times": 3}}),
            AtOnce,
        ),
        case(
            "slowly, but in time",
            json!({"drip": {"bytes": 200, "every_ms": 50}}),
            AtOnce,
        ),
        case("padded", json!({"body_bytes": 100_000}), AtOnce),
    ]
}

/// Nobody goes where the gateway, or somebody in its place, sends them: the key would go along.
fn redirects(elsewhere: SocketAddr) -> Vec<Case> {
    let mut cases = Vec::new();
    for status in [301, 302, 303, 307, 308] {
        let redirect = |effect| {
            json!({"redirect_to": format!("http://{elsewhere}/elsewhere"),
                   "answer": {"status": status}, "effect": effect})
        };
        cases.push(case(format!("{status}"), redirect("none"), SENT_AGAIN));
        cases.push(case(format!("{status} applied"), redirect("apply"), WELL));
    }
    cases
}

/// Nothing was done, and nobody can tell from the answer.
fn lost_requests() -> Vec<Case> {
    vec![
        answered("502_html", SENT_AGAIN),
        answered("502_kaspi_error", SENT_AGAIN),
        answered("502_empty", SENT_AGAIN),
        answered("500_json", SENT_AGAIN),
        answered("500_html", SENT_AGAIN),
        answered("504_html", SENT_AGAIN),
        answered("413_html", SENT_AGAIN),
        answered("409_unknown_code", SENT_AGAIN),
        answered("200_html", SENT_AGAIN),
        answered("429_html", SENT_AGAIN),
        case(
            "408",
            json!({"answer": {"status": 408, "json": {"message": "Request Timeout"}}}),
            SENT_AGAIN,
        ),
        case(
            "an HTML page as 422",
            json!({"answer": {"status": 422, "text": "<html>no</html>"}}),
            SENT_AGAIN,
        ),
        case(
            "599",
            json!({"answer": {"status": 599, "json": {"message": "?"}}}),
            SENT_AGAIN,
        ),
        case("hang", json!({"effect": "none", "hang": true}), SENT_AGAIN),
        case(
            "cut before the effect",
            json!({"cut": "before_effect"}),
            SENT_AGAIN,
        ),
        // The gateway says that nothing was done: no look-up, the same request again.
        answered("409_kaspi_session_unavailable", SENT_AGAIN),
        // An HTML 503 is a proxy's: the account is parked, and the job looked up after a probe.
        answered("503_html", SENT_AGAIN),
    ]
}

/// The gateway refuses for good.
fn refusals() -> Vec<Case> {
    vec![
        answered("422", Fails { status: 422 }),
        answered("422_given_data", Fails { status: 422 }),
        answered("422_content_rejected", Fails { status: 422 }),
        answered("422_connection_ambiguous", Fails { status: 422 }),
        answered("422_amount_must_be_whole_tenge", Fails { status: 422 }),
        answered("410", Fails { status: 410 }),
        answered("404", Fails { status: 404 }),
        answered("403_grant_not_granted", Fails { status: 403 }),
        answered("409_qr_cancel_unsupported", Fails { status: 409 }),
        answered("400_sandbox_invoice_limit", Fails { status: 400 }),
    ]
}

/// The account is unwell.
fn account_faults() -> Vec<Case> {
    vec![
        answered("503_kaspi_session_invalid", ParksFor("session_expired")),
        answered("503_invoices_disabled", ParksFor("invoices_disabled")),
        answered("409_kaspi_session_expired", ParksFor("session_expired")),
        case(
            "a page of somebody else's as 404",
            json!({"answer": {"status": 404, "text": "<html>not here</html>"}}),
            ParksFor("route_not_found"),
        ),
        case(
            "a path that the gateway does not know",
            json!({"answer": {"status": 404, "json": {"message": "The requested route could not be found."}}}),
            ParksFor("route_not_found"),
        ),
        answered(
            "400_kaspi_session_not_configured",
            ParksFor("session_expired"),
        ),
        answered(
            "400_organization_required",
            ParksFor("organization_not_ready"),
        ),
        answered(
            "400_organization_not_verified",
            ParksFor("organization_not_ready"),
        ),
        answered("401", ParksFor("key_rejected")),
        answered("401_message_only", ParksFor("key_rejected")),
        answered("403_tariff_inactive", ParksFor("tariff_inactive")),
        answered("403_kyc_rejected", ParksFor("organization_not_ready")),
        answered(
            "403_organization_archived",
            ParksFor("organization_not_ready"),
        ),
        answered("403_channel_required", ParksFor("organization_not_ready")),
        answered("403_grant_snapshot_unreadable", ParksFor("access_denied")),
        case(
            "503 with a code of its own",
            json!({"answer": {"status": 503, "json": {"error_code": "maintenance", "message": "later"}}}),
            ParksFor("service_unavailable"),
        ),
    ]
}

/// What may or may not have had its effect: the cases in which the protection from duplicates counts.
pub(super) fn unclear(elsewhere: SocketAddr) -> Vec<Case> {
    let mut cases = lost_replies();
    cases.extend(unreadable::replies());
    cases.extend(lost_requests());
    cases.extend(redirects(elsewhere));
    cases
}

/// The same, met by a request that only reads: it is made again, and the job is sent once.
pub(super) fn of_a_reading(elsewhere: SocketAddr) -> Vec<Case> {
    let cases = unclear(elsewhere).into_iter();
    cases.map(|case| Case { then: WELL, ..case }).collect()
}

/// Every case that fits every operation.
pub(super) fn all(elsewhere: SocketAddr) -> Vec<Case> {
    let mut cases = throttles::throttles();
    cases.extend(throttles::absurd_hints());
    cases.extend(unclear(elsewhere));
    cases.extend(odd_but_good());
    cases.extend(refusals());
    cases.extend(account_faults());
    cases
}
