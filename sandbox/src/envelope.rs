//! The shapes of answers: success, and every kind of refusal the gateway documents.

use serde::Serialize;
use serde_json::{Map, Value, json};

/// One answer, ready for the wire but for its length.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn json(status: u16, body: &impl Serialize) -> Self {
        // Only maps with keys that are no texts can fail, and there are none.
        let body = serde_json::to_vec(body).unwrap_or_default();
        Self::with_type(status, "application/json", body)
    }

    pub(crate) fn html(status: u16, body: &str) -> Self {
        Self::with_type(status, "text/html; charset=UTF-8", body.as_bytes().to_vec())
    }

    pub(crate) fn with_type(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        Self {
            status,
            headers: vec![("Content-Type".to_owned(), content_type.to_owned())],
            body,
        }
    }

    pub(crate) fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.set_header(name, value.to_string());
        self
    }

    /// Replaces a header of the same name.
    pub(crate) fn set_header(&mut self, name: &str, value: String) {
        self.headers
            .retain(|(present, _)| !present.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value));
    }

    /// The business envelope: `error`, `error_code`, `message`.
    pub(crate) fn business(status: u16, code: &str, message: &str) -> Self {
        Self::json(
            status,
            &json!({"error": code, "error_code": code, "message": message}),
        )
    }

    /// Some bodies have a word or a sentence in `error` and no `error_code`.
    pub(crate) fn error_only(status: u16, error: &str, message: Option<&str>) -> Self {
        let mut body = json!({"error": error});
        if let (Some(message), Some(map)) = (message, body.as_object_mut()) {
            map.insert("message".to_owned(), message.into());
        }
        Self::json(status, &body)
    }

    pub(crate) fn message_only(status: u16, message: &str) -> Self {
        Self::json(status, &json!({"message": message}))
    }

    /// Validation: a map of fields, with or without a code.
    pub(crate) fn invalid(errors: Map<String, Value>, code: Option<&str>) -> Self {
        let mut body = json!({"message": "Validation failed", "errors": errors});
        if let (Some(code), Some(map)) = (code, body.as_object_mut()) {
            map.insert("error_code".to_owned(), code.into());
        }
        Self::json(422, &body)
    }

    pub(crate) fn invalid_field(field: &str, message: &str, code: Option<&str>) -> Self {
        let mut errors = Map::new();
        errors.insert(field.to_owned(), json!([message]));
        Self::invalid(errors, code)
    }

    /// A refusal of the cart: a code and a sentence, but no map of fields.
    pub(crate) fn refused_cart(code: &str, message: &str) -> Self {
        Self::json(422, &json!({"message": message, "error_code": code}))
    }

    pub(crate) fn session_invalid() -> Self {
        Self::error_only(
            503,
            "kaspi_session_invalid",
            Some("Сессия Kaspi недействительна, войдите заново"),
        )
    }

    pub(crate) fn session_expired() -> Self {
        let message = "Сессия Kaspi истекла, войдите заново";
        Self::json(
            409,
            &json!({"error_code": "kaspi_session_expired", "message": message}),
        )
    }

    pub(crate) fn invoices_disabled() -> Self {
        Self::business(
            503,
            "invoices_disabled",
            "Выставление счетов временно отключено",
        )
    }

    pub(crate) fn tariff_inactive(reason: &str, expires_at: Option<&str>) -> Self {
        let body = json!({
            "success": false,
            "error": "tariff_inactive",
            "error_code": "tariff_inactive",
            "message": "Тариф не активен",
            "expires_at": expires_at,
            "reason": reason,
        });
        Self::json(403, &body)
    }

    pub(crate) fn kyc_limit() -> Self {
        let code = "kyc_daily_limit_reached";
        let body = json!({
            "error": code,
            "error_code": code,
            "message": "Анкета бизнеса не одобрена",
            "retry_after_seconds": 3600,
            "meta": {"mode": "daily", "limit": 0, "used": 0, "reset_at": null, "kyc_status": "none"},
        });
        Self::json(429, &body).header("Retry-After", 3600)
    }

    pub(crate) fn too_many_requests(
        limit: u32,
        wait_seconds: i64,
        reset_unix: i64,
        reset_at: &str,
    ) -> Self {
        let body = json!({
            "message": "Too Many Attempts.",
            "error": "request_rate_limited",
            "error_code": "request_rate_limited",
            "limit": limit,
            "remaining": 0,
            "reset_at": reset_at,
            "retry_after_seconds": wait_seconds,
        });
        Self::json(429, &body)
            .header("Retry-After", wait_seconds)
            .header("X-RateLimit-Limit", limit)
            .header("X-RateLimit-Remaining", 0)
            .header("X-RateLimit-Reset", reset_unix)
    }
}

/// The standard name of a status code.
pub(crate) fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        410 => "Gone",
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Status",
    }
}
