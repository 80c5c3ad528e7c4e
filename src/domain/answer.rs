//! What came back from the gateway, as a value.

use std::time::Duration;

use serde_json::Value;

use crate::domain::codes::{Class, Said, classify};
use crate::domain::phone::without_phones;

/// The end of one request. A call cannot fail, it can only be unclear.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// An HTTP status came back, with a body that may still be broken.
    Reply(Reply),
    /// No byte of the request left this process.
    NotSent(NotSent),
    /// The request, or a part of it, left; no status came back.
    Lost(Lost),
}

/// An answer with an HTTP status.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The body, as far as it could be read.
    pub body: Body,
    /// What the headers say about limits.
    pub limits: Limits,
    class: Class,
}

/// The body of a reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Complete, valid JSON.
    Json(Value),
    /// Complete, but not JSON: a bounded excerpt of its text.
    Text(String),
    /// Longer than the limit, or of more values than any answer of the gateway has.
    TooLarge,
    /// Cut off or stalled before its end.
    Broken,
}

impl Body {
    /// Reads a body that has come whole. Deep nesting is refused by the parser, and so not JSON.
    pub fn read(bytes: &[u8]) -> Body {
        const EXCERPT_BYTES: usize = 2_048;
        // "0," is two bytes here and a hundred as a value: a small body could fill the memory.
        const VALUES_MAX: usize = 100_000;
        if bytes.iter().filter(|byte| **byte == b',').count() > VALUES_MAX {
            return Body::TooLarge;
        }
        match serde_json::from_slice::<Value>(bytes) {
            Ok(value) => Body::Json(value),
            Err(_) => Body::Text(
                String::from_utf8_lossy(&bytes[..bytes.len().min(EXCERPT_BYTES)]).into_owned(),
            ),
        }
    }
}

/// The headers about rate limits, unjudged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// `Retry-After`, as it was sent: seconds or an HTTP date (RFC 9110, section 10.2.3). A gateway
    /// and a proxy before it may each send one.
    pub retry_after: Vec<String>,
    /// `X-RateLimit-Reset`, unix seconds; the latest.
    pub reset: Option<i64>,
    /// `X-RateLimit-Remaining`; the least.
    pub remaining: Option<u32>,
    /// `Date`, as it was sent: the clock that moments in the answer were written by.
    pub date: Option<String>,
}

/// Why nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// The host name could not be resolved.
    Dns,
    /// So many look-ups of the host name hang that no more is begun before the daemon is started again.
    LookUpsHang,
    /// No connection: refused, unreachable, or not made in time.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// The gateway's certificate is out of date, or this machine's clock is.
    CertificateExpired,
    /// The gateway's certificate is another host's.
    CertificateName,
    /// Nobody that this machine trusts vouches for the gateway's certificate.
    CertificateIssuer,
    /// The address is one the configuration does not allow.
    ForbiddenAddress,
    /// The lease was no longer ours, or too much of it was gone.
    WindowClosed,
    /// The daemon was told to stop.
    Stopping,
    /// The account was parked, or sending stopped, between the claim and the send.
    AccountParked,
    /// An earlier request is unproven for so long that its key may no longer protect.
    KeyTooOld,
    /// The account's limit of requests left none for what had to be read first.
    QuotaSpent,
    /// The database did not take what had to be written first.
    DatabaseFailed,
    /// This version does not know the operation.
    UnknownOperation,
    /// The database has forgotten commits: what it says of other jobs cannot be relied on.
    HistoryLost,
    /// The account's key is not known to be of its organization.
    KeyDoubted,
    /// The account was taken out of the configuration, or is about to be served with other settings.
    AccountClosed,
}

/// How the answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// No complete answer within the time limit.
    Timeout,
    /// The connection ended.
    Cut,
}

impl NotSent {
    /// All of them.
    pub const ALL: [NotSent; 18] = [
        NotSent::Dns,
        NotSent::LookUpsHang,
        NotSent::Connect,
        NotSent::Tls,
        NotSent::CertificateExpired,
        NotSent::CertificateName,
        NotSent::CertificateIssuer,
        NotSent::ForbiddenAddress,
        NotSent::WindowClosed,
        NotSent::Stopping,
        NotSent::AccountParked,
        NotSent::KeyTooOld,
        NotSent::QuotaSpent,
        NotSent::DatabaseFailed,
        NotSent::UnknownOperation,
        NotSent::HistoryLost,
        NotSent::KeyDoubted,
        NotSent::AccountClosed,
    ];

    /// Whether it lies on the way to the gateway, not with us.
    pub fn is_of_the_network(self) -> bool {
        match self {
            NotSent::Dns
            | NotSent::LookUpsHang
            | NotSent::Connect
            | NotSent::Tls
            | NotSent::CertificateExpired
            | NotSent::CertificateName
            | NotSent::CertificateIssuer
            | NotSent::ForbiddenAddress => true,
            NotSent::WindowClosed
            | NotSent::Stopping
            | NotSent::AccountParked
            | NotSent::KeyTooOld
            | NotSent::QuotaSpent
            | NotSent::DatabaseFailed
            | NotSent::UnknownOperation
            | NotSent::HistoryLost
            | NotSent::KeyDoubted
            | NotSent::AccountClosed => false,
        }
    }

    /// A stable code for `apipay.attempts.error_code`.
    pub fn code(self) -> &'static str {
        match self {
            NotSent::Dns => "dns_failed",
            NotSent::LookUpsHang => "look_ups_hang",
            NotSent::Connect => "connect_failed",
            NotSent::Tls => "tls_failed",
            NotSent::CertificateExpired => "certificate_expired",
            NotSent::CertificateName => "certificate_name",
            NotSent::CertificateIssuer => "certificate_issuer",
            NotSent::ForbiddenAddress => "forbidden_address",
            NotSent::WindowClosed => "window_closed",
            NotSent::Stopping => "stopping",
            NotSent::AccountParked => "account_parked",
            NotSent::KeyTooOld => "key_too_old",
            NotSent::QuotaSpent => "quota_spent",
            NotSent::DatabaseFailed => "database_failed",
            NotSent::UnknownOperation => "unknown_operation",
            NotSent::HistoryLost => "history_lost",
            NotSent::KeyDoubted => "key_doubted",
            NotSent::AccountClosed => "account_closed",
        }
    }
}

impl Lost {
    /// A stable code for `apipay.attempts.error_code`.
    pub fn code(self) -> &'static str {
        match self {
            Lost::Timeout => "timeout",
            Lost::Cut => "connection_cut",
        }
    }
}

impl Reply {
    /// An answer, read once: what it means is its class from now on. `names_object` when the path of its request named an
    /// object, which a 404 may be about.
    pub fn new(status: u16, body: Body, limits: Limits, names_object: bool) -> Reply {
        let mut reply = Reply {
            status,
            body,
            limits,
            class: Class::Success,
        };
        reply.class = classify(status, reply.words(names_object));
        reply
    }

    /// What it means, before the history of the job is looked at.
    pub fn class(&self) -> Class {
        self.class
    }

    fn words(&self, names_object: bool) -> Said<'_> {
        if self.is_of_no_route(names_object) {
            Said::NoRoute
        } else if self.is_gateway_error() {
            Said::Error {
                code: self.error_code(),
                message: self.message(),
            }
        } else {
            Said::Nothing
        }
    }

    /// The body, when it is a JSON object.
    pub fn object(&self) -> Option<&Value> {
        match &self.body {
            Body::Json(value) if value.is_object() => Some(value),
            _ => None,
        }
    }

    /// Whether the gateway itself wrote this error, not a proxy before it: a JSON object with at
    /// least one of the documented fields of an error, and in the documented type (API, section 1,
    /// "Error envelopes").
    pub fn is_gateway_error(&self) -> bool {
        self.object().is_some_and(|object| {
            let texts = ["error_code", "error", "message"];
            texts
                .iter()
                .any(|field| object.get(field).is_some_and(Value::is_string))
                || object.get("errors").is_some_and(Value::is_object)
        })
    }

    /// Whether nothing of the gateway's was called: a whole 404 that is not in its words, or that says itself
    /// that there is no such path. A 404 about an object names the object, or is in the fields of an error; where the
    /// request named none, "Not found" alone is about the path.
    fn is_of_no_route(&self, names_object: bool) -> bool {
        self.status == 404
            && match &self.body {
                Body::Text(_) => true,
                Body::Json(_) if !self.is_gateway_error() => true,
                Body::Json(_) if names_object => {
                    self.error_code().is_none() && self.message().is_some_and(says_no_route)
                }
                Body::Json(object) => {
                    let texts = ["error_code", "error", "message"].map(|field| object.get(field));
                    let mut texts = texts.into_iter().flatten().filter_map(Value::as_str);
                    object.get("errors").is_none_or(Value::is_null)
                        && texts.all(|text| says_no_route(text) || says_only_not_found(text))
                }
                Body::TooLarge | Body::Broken => false,
            }
    }

    /// The error's code: `error_code`, else `error`, which may be a sentence. Of a longer one its
    /// beginning: it goes into deliveries and columns.
    pub fn error_code(&self) -> Option<&str> {
        const BYTES: usize = 200;
        let object = self.object()?;
        ["error_code", "error"]
            .iter()
            .find_map(|field| object.get(field)?.as_str())
            .map(|code| beginning(code, BYTES))
    }

    /// The error's code as programs compare it: letters, digits and underscores. Where the gateway writes a
    /// sentence in its place its words are joined, so that `Invoice not found` is `invoice_not_found`.
    pub fn stable_code(&self) -> Option<String> {
        // A sentence may name the payer.
        let said = without_phones(self.error_code()?);
        let words = said
            .split(|letter: char| !letter.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty());
        let code = words.collect::<Vec<_>>().join("_").to_lowercase();
        (!code.is_empty()).then_some(code)
    }

    /// What the error says to people: its text, else the sentence that stands where its code should.
    pub fn said(&self) -> Option<&str> {
        let sentence = || self.error_code().filter(|code| code.contains(' '));
        self.message().or_else(sentence)
    }

    /// The error's text for people, or its beginning.
    pub fn message(&self) -> Option<&str> {
        const BYTES: usize = 2_000;
        let message = self.object()?.get("message")?.as_str()?;
        Some(beginning(message, BYTES))
    }
}

/// What web frameworks say of a path that they do not know; some say nothing.
fn says_no_route(message: &str) -> bool {
    let said = message.trim().to_lowercase();
    let is_missing = ["not be found", "not found", "no route"];
    said.is_empty()
        || (said.contains("route") && is_missing.iter().any(|words| said.contains(words)))
}

/// Whether it says that something was not found, and not what.
fn says_only_not_found(text: &str) -> bool {
    const EMPTY: [&str; 14] = [
        "404",
        "not",
        "found",
        "page",
        "resource",
        "requested",
        "the",
        "url",
        "uri",
        "path",
        "was",
        "be",
        "could",
        "error",
    ];
    let said = text.to_lowercase();
    let mut words = said
        .split(|letter: char| !letter.is_alphanumeric())
        .filter(|word| !word.is_empty());
    said.contains("found") && words.all(|word| EMPTY.contains(&word))
}

/// As much of a text as fits.
pub(crate) fn beginning(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// The answer together with how long it took.
#[derive(Clone, Debug, PartialEq)]
pub struct Timed {
    /// The answer.
    pub answer: Answer,
    /// From the first attempt to connect to the end of the answer.
    pub took: Duration,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::reason::Reason;

    fn reply(body: Value) -> Reply {
        Reply::new(400, Body::Json(body), Limits::default(), true)
    }

    #[test]
    fn the_gateways_own_errors_are_told_from_a_proxys() {
        for body in [
            json!({"message": "Validation failed", "errors": {"amount": ["wrong"]}}),
            json!({"errors": {}}),
            json!({"error": "Invoice not found"}),
            json!({"error_code": "tariff_inactive", "success": false}),
            json!({"message": "Too Many Attempts."}),
        ] {
            assert!(reply(body.clone()).is_gateway_error(), "{body}");
        }
        for body in [
            json!({}),
            json!([]),
            json!("error"),
            json!({"error": {"code": 502}}),
            json!({"message": null}),
            json!({"status": 502, "title": "Bad Gateway"}),
        ] {
            assert!(!reply(body.clone()).is_gateway_error(), "{body}");
        }
        for body in [
            Body::Text("<html>".to_owned()),
            Body::TooLarge,
            Body::Broken,
        ] {
            let reply = Reply::new(502, body, Limits::default(), true);
            assert!(
                !reply.is_gateway_error()
                    && reply.error_code().is_none()
                    && reply.message().is_none()
            );
        }
    }

    #[test]
    fn a_404_of_a_path_is_told_from_that_of_an_object() {
        let of_request = |names_object, status, body| {
            let reply = Reply::new(status, body, Limits::default(), names_object);
            reply.class() == Class::AccountFault(Reason::RouteNotFound)
        };
        let of_no_route = |status, body| of_request(true, status, body);
        for body in [
            Body::Text("<html>404 Not Found</html>".to_owned()),
            Body::Text(String::new()),
            Body::Json(json!({})),
            Body::Json(json!("Not Found")),
            Body::Json(json!({"status": 404, "title": "Not Found"})),
            Body::Json(json!({"message": ""})),
            Body::Json(json!({"message": "The requested route could not be found."})),
            Body::Json(json!({"message": "The route v1/invoices could not be found."})),
            Body::Json(json!({"message": "no Route matched with those values"})),
        ] {
            assert!(of_no_route(404, body.clone()), "{body:?}");
            assert!(of_request(false, 404, body.clone()), "{body:?}");
            assert!(!of_no_route(400, body.clone()), "{body:?}");
            assert!(!of_request(false, 400, body.clone()), "{body:?}");
        }
        // Of an invoice that is not there they tell; where nothing was asked for by its number, nothing else can be missing.
        for body in [
            json!({"message": "Not Found"}),
            json!({"error": "Not found"}),
            json!({"message": "404: page not found."}),
            json!({"error": "Not Found", "message": "The requested URL was not found", "status": 404}),
        ] {
            let body = Body::Json(body);
            assert!(!of_no_route(404, body.clone()), "{body:?}");
            assert!(of_request(false, 404, body.clone()), "{body:?}");
        }
        for body in [
            json!({"error_code": "catalog_item_not_found"}),
            json!({"error": "Invoice not found"}),
            json!({"message": "Not found", "error_code": "catalog_item_not_found"}),
            json!({"message": "Not found", "errors": {"kaspi_connection_id": ["unknown"]}}),
        ] {
            let body = Body::Json(body);
            assert!(!of_request(false, 404, body.clone()), "{body:?}");
        }
        for body in [
            Body::Json(json!({"error": "Invoice not found"})),
            Body::Json(json!({"message": "Not found"})),
            Body::Json(json!({"message": "Invoice could not be found."})),
            Body::Json(json!({"error": "x", "message": "The route could not be found."})),
            Body::Broken,
            Body::TooLarge,
        ] {
            assert!(!of_no_route(404, body.clone()), "{body:?}");
        }
    }

    #[test]
    fn the_code_is_error_code_else_error() {
        for (body, code) in [
            (
                json!({"error": "a sentence", "error_code": "a_code"}),
                Some("a_code"),
            ),
            (
                json!({"error": "a sentence", "error_code": null}),
                Some("a sentence"),
            ),
            (
                json!({"error": "kaspi_session_invalid", "message": "text"}),
                Some("kaspi_session_invalid"),
            ),
            (json!({"message": "text"}), None),
            (json!({"error": 5}), None),
        ] {
            assert_eq!(reply(body.clone()).error_code(), code, "{body}");
        }
        assert_eq!(reply(json!({"message": "text"})).message(), Some("text"));
    }

    #[test]
    fn a_sentence_in_place_of_a_code_is_a_code_and_said() {
        for (body, code, said) in [
            (
                json!({"error": "Invoice not found"}),
                Some("invoice_not_found"),
                Some("Invoice not found"),
            ),
            (
                json!({"error": "Organization not found or not verified", "message": "Нет"}),
                Some("organization_not_found_or_not_verified"),
                Some("Нет"),
            ),
            (
                json!({"error_code": "kyc_required"}),
                Some("kyc_required"),
                None,
            ),
            (
                json!({"error": "Счёт не найден"}),
                None,
                Some("Счёт не найден"),
            ),
            (json!({"message": "Not found"}), None, Some("Not found")),
        ] {
            let reply = reply(body.clone());
            assert_eq!(reply.stable_code().as_deref(), code, "{body}");
            assert_eq!(reply.said(), said, "{body}");
        }
    }

    #[test]
    fn of_a_long_text_its_beginning_is_enough() {
        let long = reply(json!({"error_code": "ы".repeat(1_000), "message": "ы".repeat(9_000)}));
        assert_eq!(long.error_code(), Some("ы".repeat(100).as_str()));
        assert_eq!(long.message(), Some("ы".repeat(1_000).as_str()));
        assert_eq!(beginning("ыы", 3), "ы");
        assert_eq!(beginning("ыы", 4), "ыы");
    }
}
