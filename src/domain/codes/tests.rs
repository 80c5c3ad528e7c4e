//! Every line of the tables, and what falls outside of them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::domain::answer::{Body, Limits, Reply};
use Class::*;

fn json_reply(status: u16, body: Value) -> Reply {
    Reply::new(status, Body::Json(body), Limits::default(), true)
}

/// The gateway's own error with this code.
fn coded(status: u16, code: &str) -> Reply {
    json_reply(
        status,
        json!({"error": code, "error_code": code, "message": "текст"}),
    )
}

const NOT_READY: Class = AccountFault(Reason::OrganizationNotReady);
const EXPIRED: Class = AccountFault(Reason::SessionExpired);

/// API, section 4.2, and the sentences of section 1 that stand for codes.
const DOCUMENTED: &[(u16, &str, Class)] = &[
    (400, "organization_required", NOT_READY),
    (400, "organization_not_verified", NOT_READY),
    (400, "Organization not found or not verified", NOT_READY),
    (400, "kaspi_session_not_configured", EXPIRED),
    (400, "Invoice cannot be cancelled", StateRefused),
    (401, "Invalid API key", AccountFault(Reason::KeyRejected)),
    (403, "Organization not verified", NOT_READY),
    (403, "kyc_required", NOT_READY),
    (403, "tariff_inactive", AccountFault(Reason::TariffInactive)),
    (403, "kyc_rejected", NOT_READY),
    (403, "organization_archived", NOT_READY),
    (403, "channel_required", NOT_READY),
    (
        403,
        "grant_snapshot_unreadable",
        AccountFault(Reason::AccessDenied),
    ),
    (403, "grant_not_granted", Refused),
    (403, "not_sandbox", Refused),
    (403, "static_qr_disabled", Refused),
    (409, "duplicate_idempotency_key", DuplicateKey),
    (409, "kaspi_session_expired", EXPIRED),
    (409, "kaspi_session_unavailable", Busy),
    (409, "subscription_busy", Busy),
    (409, "catalog_busy", Busy),
    (409, "qr_cancel_unsupported", Refused),
    (409, "test_organization", Refused),
    (429, "kyc_daily_limit_reached", Capped),
    (429, "kyc_limit_reached", Capped),
    (429, "tariff_limit_reached", Capped),
    (429, "trial_daily_limit", Capped),
    (429, "outstanding_org_limit", Capped),
    (429, "recipient_fanout_exceeded", Capped),
    (429, "outstanding_recipient_limit", RecipientThrottled),
    (503, "kaspi_session_invalid", EXPIRED),
    (503, "Kaspi session expired", EXPIRED),
    (503, "Kaspi session unavailable", EXPIRED),
    (
        503,
        "invoices_disabled",
        AccountFault(Reason::InvoicesDisabled),
    ),
];

#[test]
fn every_code_has_its_class_in_either_field() {
    for &(status, code, expected) in DOCUMENTED {
        assert_eq!(coded(status, code).class(), expected, "{status} {code}");
        let bare = json_reply(status, json!({"error": code}));
        assert_eq!(bare.class(), expected, "{status} {code}");
        let with_sentence = json!({"error": "a sentence", "error_code": code});
        assert_eq!(
            json_reply(status, with_sentence).class(),
            expected,
            "{status} {code}"
        );
    }
    for &(status, sentence, expected) in DOCUMENTED {
        let written = format!("  {} ", sentence.to_uppercase());
        let alone = json_reply(status, json!({"message": written}));
        assert_eq!(alone.class(), expected, "{status} {sentence}");
    }
    let lines = |table: &[(u16, &'static str, Class)]| -> BTreeSet<(u16, &'static str)> {
        table
            .iter()
            .map(|(status, code, _)| (*status, *code))
            .collect()
    };
    assert_eq!(lines(CODES), lines(DOCUMENTED), "a line without a test");
    assert_eq!(lines(CODES).len(), CODES.len(), "a code stands twice");
}

/// A sentence speaks only where there is no code, and only as a whole.
#[test]
fn a_message_beside_a_code_or_with_more_words_says_nothing() {
    let unavailable = AccountFault(Reason::ServiceUnavailable);
    for body in [
        json!({"message": "Kaspi session expired", "error": "maintenance"}),
        json!({"message": "Kaspi session expired", "error_code": "maintenance"}),
        json!({"message": "Kaspi session expired, or not"}),
        json!({"message": ""}),
        json!({"message": "ошибка"}),
    ] {
        assert_eq!(json_reply(503, body.clone()).class(), unavailable, "{body}");
    }
    // Where the effect is open, no sentence closes it.
    for status in [500, 502, 504] {
        let said = json_reply(status, json!({"message": "Kaspi API error"}));
        assert_eq!(said.class(), Unknown(Reason::ServerError));
        let odd = json_reply(status, json!({"message": "Invoice cannot be cancelled"}));
        assert_eq!(odd.class(), Unknown(Reason::ServerError));
    }
}

/// A code means something with its own status only; all others go by the status.
#[test]
fn a_code_with_another_status_is_unlisted() {
    for &(own, code, _) in DOCUMENTED {
        for (status, expected) in [
            (400, Refused),
            (401, AccountFault(Reason::KeyRejected)),
            (403, AccountFault(Reason::AccessDenied)),
            (404, Refused),
            (408, Unknown(Reason::UnlistedAnswer)),
            (409, Unknown(Reason::UnlistedAnswer)),
            (410, Refused),
            (422, Refused),
            (429, Throttled),
            (500, Unknown(Reason::ServerError)),
            (502, Unknown(Reason::ServerError)),
            (503, AccountFault(Reason::ServiceUnavailable)),
            (504, Unknown(Reason::ServerError)),
        ] {
            if status != own {
                assert_eq!(coded(status, code).class(), expected, "{status} {code}");
            }
        }
    }
}
