//! The table of what every answer means, for every operation and history.

use serde_json::{Value, json};
use time::Duration as Span;

use super::*;
use crate::domain::answer::Limits;
use crate::domain::codes::caps;
use crate::domain::object::{Invoice, InvoiceStatus};
use crate::policy::fixtures::*;

#[track_caller]
fn check(kind: &Kind, history: &History, answer: &Answer, expected: &str) {
    let rules = rules();
    let timed = timed(answer.clone());
    let verdict = judge(
        kind.operation,
        &kind.plan,
        NAME,
        history,
        &timed,
        at(&rules),
    );
    let name = kind.operation.name();
    assert_eq!(show(&verdict), expected, "{name} {history:?} {answer:?}");
}

#[track_caller]
fn check_all(history: &History, answer: &Answer, expected: &str) {
    for kind in kinds() {
        check(&kind, history, answer, expected);
    }
}

const REFUSED: &str = "rejected failed refused counts";
const LOOK_UP: &str = "not_applied uncertain refused_after_unknown in 29s counts";
const UNREADABLE: &str = "unknown uncertain unreadable_answer in 29s counts";
const UNLISTED: &str = "unknown uncertain unlisted_answer in 29s counts";
const SERVER_ERROR: &str = "unknown uncertain server_error in 29s counts";
const BUSY: &str = "not_applied queued busy in 5s counts";

fn parked(reason: &str) -> String {
    format!("not_applied parked {reason} free; park {reason}")
}

/// For each status: the gateway's own error without a listed code, first for a clean history, then
/// with an unproven request; and a body that is not the gateway's.
#[test]
fn every_status_with_every_body() {
    let key = &parked("key_rejected");
    let denied = &parked("access_denied");
    let unavailable = &parked("service_unavailable");
    let no_route = &parked("route_not_found");
    let throttled = "not_applied queued retry_after in 60s free; block 60s brand_new";
    let throttled_later = "not_applied uncertain retry_after in 60s free; block 60s brand_new";
    let throttled_page = &format!("{UNREADABLE}; block 60s too_many_requests");
    let unavailable_page = &format!("{SERVER_ERROR}; park service_unavailable");
    for (status, clean_history, unproven_history, foreign) in [
        (100, UNLISTED, UNLISTED, UNLISTED),
        (200, UNREADABLE, UNREADABLE, UNREADABLE),
        (201, UNREADABLE, UNREADABLE, UNREADABLE),
        (202, UNREADABLE, UNREADABLE, UNREADABLE),
        (203, UNLISTED, UNLISTED, UNLISTED),
        (204, UNLISTED, UNLISTED, UNLISTED),
        (301, UNLISTED, UNLISTED, UNLISTED),
        (302, UNLISTED, UNLISTED, UNLISTED),
        (304, UNLISTED, UNLISTED, UNLISTED),
        (307, UNLISTED, UNLISTED, UNLISTED),
        (400, REFUSED, LOOK_UP, UNREADABLE),
        (401, key, key, UNREADABLE),
        (402, UNLISTED, UNLISTED, UNLISTED),
        (403, denied, denied, UNREADABLE),
        (404, REFUSED, LOOK_UP, UNREADABLE),
        (405, UNLISTED, UNLISTED, UNLISTED),
        (408, UNLISTED, UNLISTED, UNLISTED),
        (409, UNLISTED, UNLISTED, UNLISTED),
        (410, REFUSED, LOOK_UP, UNREADABLE),
        (413, UNLISTED, UNLISTED, UNLISTED),
        (415, UNLISTED, UNLISTED, UNLISTED),
        (418, UNLISTED, UNLISTED, UNLISTED),
        (422, REFUSED, LOOK_UP, UNREADABLE),
        (423, UNLISTED, UNLISTED, UNLISTED),
        (429, throttled, throttled_later, throttled_page),
        (499, UNLISTED, UNLISTED, UNLISTED),
        (500, SERVER_ERROR, SERVER_ERROR, SERVER_ERROR),
        (501, SERVER_ERROR, SERVER_ERROR, SERVER_ERROR),
        (502, SERVER_ERROR, SERVER_ERROR, SERVER_ERROR),
        (503, unavailable, unavailable, unavailable_page),
        (504, SERVER_ERROR, SERVER_ERROR, SERVER_ERROR),
        (520, SERVER_ERROR, SERVER_ERROR, SERVER_ERROR),
        (599, SERVER_ERROR, SERVER_ERROR, SERVER_ERROR),
        (600, UNLISTED, UNLISTED, UNLISTED),
        (999, UNLISTED, UNLISTED, UNLISTED),
    ] {
        let own = coded(status, "brand_new");
        check_all(&clean(), &own, clean_history);
        check_all(&unproven(), &own, unproven_history);
        for body in foreign_bodies() {
            // A whole 404 of somebody else's: no call of the gateway's was made.
            let is_page = matches!(body, Body::Text(_) | Body::Json(_));
            let foreign = if status == 404 && is_page {
                no_route
            } else {
                foreign
            };
            check_all(&clean(), &reply(status, body.clone()), foreign);
            check_all(&unproven(), &reply(status, body), foreign);
        }
    }
}

/// Some errors of the gateway have no code, some only a code, some only the fields.
#[test]
fn every_envelope_of_an_error_is_the_gateways_word() {
    for body in [
        json!({"message": "Validation failed", "errors": {"phone_number": ["wrong"]}}),
        json!({"errors": {"amount": ["wrong"]}}),
        json!({"error": "Invoice not found"}),
        json!({"message": "Not found"}),
        json!({"error_code": "content_rejected"}),
    ] {
        check_all(&clean(), &json_reply(422, body.clone()), REFUSED);
        check_all(&unproven(), &json_reply(404, body), LOOK_UP);
    }
}

/// A new bill asks for nothing by its number, so nothing but the path can be missing; a cancel of an invoice that is not
/// there fails by itself.
#[test]
fn a_404_that_says_only_not_found_is_about_the_path_of_a_new_bill() {
    for body in [
        json!({"message": "Not Found"}),
        json!({"error": "Not found"}),
    ] {
        let reply = |names_object| {
            Answer::Reply(Reply::new(
                404,
                Body::Json(body.clone()),
                Limits::default(),
                names_object,
            ))
        };
        check(
            &create(),
            &clean(),
            &reply(false),
            &parked("route_not_found"),
        );
        check(&cancel(), &clean(), &reply(true), REFUSED);
    }
}

/// API, sections 2.1, 2.5, 2.8, 4.1 and 4.2: every code that a send of ours may meet.
#[test]
fn every_documented_code() {
    let capped =
        |code| format!("not_applied queued cap_reached in 900s free; block 900s {code} capped");
    let throttled = |code| format!("not_applied queued retry_after in 60s free; block 60s {code}");
    for (status, codes, expected) in [
        (
            400,
            "organization_required organization_not_verified",
            parked("organization_not_ready"),
        ),
        (
            400,
            "kaspi_session_not_configured",
            parked("session_expired"),
        ),
        (
            400,
            "sandbox_invoice_limit sandbox_subscription_limit",
            REFUSED.to_owned(),
        ),
        (403, "tariff_inactive", parked("tariff_inactive")),
        (
            403,
            "kyc_rejected organization_archived channel_required",
            parked("organization_not_ready"),
        ),
        (403, "grant_snapshot_unreadable", parked("access_denied")),
        (
            403,
            "grant_not_granted not_sandbox static_qr_disabled",
            REFUSED.to_owned(),
        ),
        (409, "kaspi_session_expired", parked("session_expired")),
        (
            409,
            "kaspi_session_unavailable subscription_busy catalog_busy",
            BUSY.to_owned(),
        ),
        (
            409,
            "qr_cancel_unsupported test_organization",
            REFUSED.to_owned(),
        ),
        (
            409,
            "idempotency_conflict receipt_not_available_for_status skip_period_changed \
             subscription_not_active subscription_cycles_exhausted custom_tariff_locked superseded",
            UNLISTED.to_owned(),
        ),
        (
            422,
            "amount_must_be_whole_tenge description_too_long field_too_long content_rejected \
             connection_ambiguous catalog_requires_cart_items catalog_not_supported \
             catalog_item_not_found cart_items_mismatch partial_refund_requires_return_items \
             operation_not_returnable refund_amount_exceeds_available refund_window_expired \
             refund_insufficient_funds",
            REFUSED.to_owned(),
        ),
        (500, "qr_render_failed", SERVER_ERROR.to_owned()),
        (
            502,
            "kaspi_error qr_refund_activation_failed",
            SERVER_ERROR.to_owned(),
        ),
        (503, "kaspi_session_invalid", parked("session_expired")),
        (503, "invoices_disabled", parked("invoices_disabled")),
        (
            503,
            "receipt_unavailable qr_refund_temporarily_unavailable qr_refund_execution_disabled",
            parked("service_unavailable"),
        ),
    ] {
        for code in codes.split_whitespace() {
            check_all(&clean(), &coded(status, code), &expected);
        }
    }
    for code in [
        "kyc_daily_limit_reached",
        "kyc_limit_reached",
        "tariff_limit_reached",
        "trial_daily_limit",
        "outstanding_org_limit",
        "recipient_fanout_exceeded",
    ] {
        check_all(&clean(), &coded(429, code), &capped(code));
    }
    for code in [
        "request_rate_limited",
        "qr_rate_limit",
        "receipt_rate_limited",
        "rate_limited",
    ] {
        check_all(&clean(), &coded(429, code), &throttled(code));
    }
    // Only this recipient has too many unpaid invoices: the account goes on.
    let recipient = coded(429, "outstanding_recipient_limit");
    check_all(
        &clean(),
        &recipient,
        "not_applied queued retry_after in 60s free",
    );
    check_all(
        &unproven(),
        &recipient,
        "not_applied uncertain retry_after in 60s free",
    );
}

/// A cap is about bills, and about whatever else is answered with it; what is only asked concerns everything.
#[test]
fn what_waits_behind_every_cap() {
    let rules = rules();
    let scope =
        |reply: &Reply, sent: Option<&dyn Operation>| match signal_of(reply, sent, at(&rules)) {
            Some(AccountSignal::Block { scope, said, .. }) => (scope, said),
            other => panic!("{other:?}"),
        };
    for code in caps() {
        let body = json!({"error_code": code, "message": "100 of 100"});
        let Answer::Reply(reply) = json_reply(429, body) else {
            panic!("a reply");
        };
        for (kind, waits) in [
            (create(), vec!["invoice.create"]),
            (cancel(), vec!["invoice.cancel", "invoice.create"]),
            (refund(), vec!["invoice.create", "invoice.refund"]),
        ] {
            let said = Some("100 of 100".to_owned());
            let found = scope(&reply, Some(kind.operation));
            assert_eq!(found, (Scope::Sends(waits), said), "{code}");
        }
        assert_eq!(scope(&reply, None).0, Scope::Everything, "{code}");
    }
    for code in ["request_rate_limited", "brand_new"] {
        let Answer::Reply(reply) = coded(429, code) else {
            panic!("a reply");
        };
        for kind in kinds() {
            assert_eq!(scope(&reply, Some(kind.operation)).0, Scope::Everything);
        }
    }
}

/// Several bodies carry only `error`, and some of these are sentences.
#[test]
fn every_sentence_that_stands_for_a_code() {
    let sentence = |status, text: &str| json_reply(status, json!({"error": text}));
    for (status, text, expected) in [
        (
            400,
            "Organization not found or not verified",
            parked("organization_not_ready"),
        ),
        (400, "Invoice is not refundable", REFUSED.to_owned()),
        (
            400,
            "Refund amount exceeds available amount",
            REFUSED.to_owned(),
        ),
        (401, "Invalid API key", parked("key_rejected")),
        (
            403,
            "Organization not verified",
            parked("organization_not_ready"),
        ),
        (503, "Kaspi session expired", parked("session_expired")),
        (503, "Kaspi session unavailable", parked("session_expired")),
    ] {
        check_all(&clean(), &sentence(status, text), &expected);
    }
}

/// What the invoice's state is decides; for anything but a cancel it is a refusal like others.
#[test]
fn a_refused_cancel_is_looked_up_at_once() {
    let answer = json_reply(400, json!({"error": "Invoice cannot be cancelled"}));
    for history in [clean(), unproven(), attempted(9, clean())] {
        let expected = "not_applied uncertain state_refused in 0ns counts";
        check(&cancel(), &history, &answer, expected);
    }
    for kind in [create(), refund()] {
        check(&kind, &clean(), &answer, REFUSED);
        check(&kind, &unproven(), &answer, LOOK_UP);
    }
}

/// A refusal of a repeat proves nothing about the first request (API, section 3.1).
#[test]
fn after_an_unproven_request_nothing_is_final_and_nothing_is_sent() {
    for (answer, expected) in [
        (coded(422, "field_too_long"), LOOK_UP.to_owned()),
        (coded(403, "not_sandbox"), LOOK_UP.to_owned()),
        (coded(409, "qr_cancel_unsupported"), LOOK_UP.to_owned()),
        (
            coded(409, "kaspi_session_unavailable"),
            "not_applied uncertain busy in 10s counts".to_owned(),
        ),
        (
            coded(429, "request_rate_limited"),
            "not_applied uncertain retry_after in 60s free; block 60s request_rate_limited"
                .to_owned(),
        ),
        (
            coded(429, "tariff_limit_reached"),
            // Asking is not what a cap is about.
            "not_applied uncertain cap_reached in 29s free; block 900s tariff_limit_reached capped"
                .to_owned(),
        ),
        // A parked job with an unproven request is looked up when its account is resumed.
        (coded(403, "tariff_inactive"), parked("tariff_inactive")),
        (
            coded(503, "kaspi_session_invalid"),
            parked("session_expired"),
        ),
        (
            Answer::NotSent(NotSent::Connect),
            "not_applied uncertain network in 2s counts".to_owned(),
        ),
        (
            Answer::NotSent(NotSent::WindowClosed),
            "not_applied uncertain window_closed in 0ns free".to_owned(),
        ),
        (coded(500, ""), SERVER_ERROR.to_owned()),
    ] {
        check_all(&unproven(), &answer, &expected);
    }
}

#[test]
fn a_key_that_is_taken_leads_to_the_invoice() {
    let found = "applied uncertain duplicate_key in 0ns invoice 12345 counts";
    let conflict = |fields: Value| {
        let mut body = json!({"error": "duplicate_idempotency_key", "message": "x"});
        for (field, value) in fields.as_object().expect("fields") {
            body[field] = value.clone();
        }
        json_reply(409, body)
    };
    for history in [clean(), unproven(), attempted(9, unproven())] {
        for fields in [
            json!({"invoice_id": 12345, "status": "pending"}),
            json!({"invoice_id": "12345"}),
            json!({"id": 12345}),
            json!({"invoice_id": 12345, "id": 1}),
            json!({"invoice_id": null, "id": 12345}),
            json!({"error": "x", "error_code": "duplicate_idempotency_key", "invoice_id": 12345}),
        ] {
            check_all(&history, &conflict(fields), found);
        }
        for fields in [
            json!({}),
            json!({"invoice_id": 0}),
            json!({"invoice_id": "x", "id": -1}),
        ] {
            let looked_up = "applied uncertain duplicate_key in 0ns counts";
            check_all(&history, &conflict(fields), looked_up);
        }
    }
}

#[test]
fn a_success_of_the_expected_shape_is_adopted() {
    let invoice = |status: &str| json!({"id": 20, "status": status, "amount": "5000.00"});
    let refund_of = |status: &str, amount: &str| json!({"refund": {"id": 3, "invoice_id": 15, "amount": amount, "status": status}});
    for history in [clean(), unproven(), attempted(9, unproven())] {
        for (kind, status, body, expected) in [
            (
                create(),
                201,
                invoice("processing"),
                "applied accepted under_way invoice 20 processing counts",
            ),
            (
                create(),
                202,
                invoice("odd"),
                "applied accepted under_way invoice 20 odd counts",
            ),
            (
                create(),
                200,
                invoice("pending"),
                "applied succeeded invoice 20 pending counts",
            ),
            (
                create(),
                201,
                invoice("error"),
                "applied accepted under_way invoice 20 error counts",
            ),
            (
                create(),
                201,
                json!({"id": 20, "status": "pending", "amount": "5001.00"}),
                UNREADABLE,
            ),
            (create(), 201, json!({"id": 20}), UNREADABLE),
            (
                cancel(),
                202,
                json!({"message": "Invoice cancellation queued", "invoice_id": 15}),
                "applied accepted under_way invoice 15 cancelling counts",
            ),
            (
                cancel(),
                200,
                json!({"invoice": {"id": 15, "status": "cancelled"}}),
                "applied succeeded invoice 15 cancelled counts",
            ),
            (
                cancel(),
                200,
                json!({"invoice": {"id": 15, "status": "pending"}}),
                UNREADABLE,
            ),
            (
                cancel(),
                200,
                json!({"invoice": {"id": 15, "status": "paid"}}),
                UNREADABLE,
            ),
            (cancel(), 202, json!({"invoice_id": 16}), UNREADABLE),
            (
                refund(),
                201,
                refund_of("pending", "1000.50"),
                "applied accepted under_way refund 3 pending counts",
            ),
            (
                refund(),
                201,
                refund_of("completed", "1000.50"),
                "applied succeeded refund 3 completed counts",
            ),
            (
                refund(),
                201,
                refund_of("failed", "1000.50"),
                "applied accepted under_way refund 3 failed counts",
            ),
            (refund(), 201, refund_of("pending", "1000.00"), UNREADABLE),
        ] {
            check(&kind, &history, &json_reply(status, body), expected);
        }
    }
}

#[test]
fn failures_of_the_network_are_told_apart() {
    for cause in [
        NotSent::Dns,
        NotSent::LookUpsHang,
        NotSent::Connect,
        NotSent::Tls,
        NotSent::CertificateExpired,
        NotSent::CertificateName,
        NotSent::CertificateIssuer,
        NotSent::ForbiddenAddress,
    ] {
        let answer = Answer::NotSent(cause);
        check_all(&clean(), &answer, "not_applied queued network in 1s counts");
        let fourth = attempted(3, clean());
        check_all(&fourth, &answer, "not_applied queued network in 8s counts");
        let seventh = attempted(6, clean());
        check_all(
            &seventh,
            &answer,
            "not_applied queued network in 64s counts",
        );
        let eighth = attempted(7, clean());
        check_all(
            &eighth,
            &answer,
            "not_applied queued network in 128s counts",
        );
    }
    for (cause, why) in [
        (NotSent::WindowClosed, "window_closed in 0ns"),
        (NotSent::Stopping, "stopping in 0ns"),
        (NotSent::AccountParked, "account_parked in 0ns"),
        (NotSent::QuotaSpent, "quota_spent in 1s"),
        (NotSent::DatabaseFailed, "database_failed in 1s"),
        (NotSent::UnknownOperation, "unknown_operation in 60s"),
        (NotSent::HistoryLost, "history_lost in 0ns"),
        (NotSent::KeyDoubted, "key_doubted in 0ns"),
        (NotSent::AccountClosed, "account_closed in 0ns"),
    ] {
        let answer = Answer::NotSent(cause);
        let expected = format!("not_applied queued {why} free");
        check_all(&clean(), &answer, &expected);
        check_all(&attempted(99, clean()), &answer, &expected);
        let expected = format!("not_applied uncertain {why} free");
        check_all(&unproven(), &answer, &expected);
    }
    let stale = Answer::NotSent(NotSent::KeyTooOld);
    let expected = "not_applied uncertain unknown_outcome in 0ns free";
    check_all(&attempted(99, unproven()), &stale, expected);
    for history in [clean(), unproven(), attempted(99, unproven())] {
        for (lost, expected) in [
            (Lost::Timeout, "unknown uncertain timeout in 60s counts"),
            (Lost::Cut, "unknown uncertain connection_cut in 60s counts"),
        ] {
            check_all(&history, &Answer::Lost(lost), expected);
        }
    }
}

#[test]
fn used_up_attempts_end_a_job_of_which_nothing_was_done() {
    let network = Answer::NotSent(NotSent::Dns);
    let busy = coded(409, "catalog_busy");
    let gave_up = "not_applied failed gave_up counts";
    for (attempts, answer, expected) in [
        (28, &network, "not_applied queued network in 300s counts"),
        (29, &network, gave_up),
        (30, &network, gave_up),
        (3, &busy, "not_applied queued busy in 40s counts"),
        (4, &busy, gave_up),
    ] {
        check_all(&attempted(attempts, clean()), answer, expected);
    }
    // What is unproven is looked up even then.
    let looked_up = "not_applied uncertain network in 300s counts";
    check_all(&attempted(29, unproven()), &network, looked_up);
    let looked_up = "not_applied uncertain busy in 80s counts";
    check_all(&attempted(4, unproven()), &busy, looked_up);
    // A limit costs nothing and ends nothing.
    let blocked = "not_applied queued retry_after in 60s free; block 60s rate_limited";
    check_all(
        &attempted(99, clean()),
        &coded(429, "rate_limited"),
        blocked,
    );
    check_all(
        &attempted(99, clean()),
        &coded(401, ""),
        &parked("key_rejected"),
    );
}

fn limited(code: &str, limits: Limits, mut body: Value) -> Answer {
    body["error_code"] = json!(code);
    Answer::Reply(Reply::new(429, Body::Json(body), limits, false))
}

fn header(retry_after: &str) -> Limits {
    Limits {
        retry_after: vec![retry_after.to_owned()],
        ..Limits::default()
    }
}

/// Where a 429 says how long to wait, and for how long a rate and a cap then wait.
#[test]
fn every_shape_of_a_429() {
    let none = Limits::default;
    let moment = |seconds: i64| {
        let format = &time::format_description::well_known::Rfc3339;
        (NOW + Span::seconds(seconds))
            .format(format)
            .expect("a moment")
    };
    let reset = |seconds: i64| Limits {
        reset: Some(NOW.unix_timestamp() + seconds),
        ..Limits::default()
    };
    let month = 31 * 24 * 3600;
    for (limits, body, rate, cap) in [
        (none(), json!({}), 60, 900),
        (header("17"), json!({}), 17, 60),
        (header("170"), json!({}), 170, 170),
        (header("Sun, 06 Sep 2026 12:02:00 GMT"), json!({}), 120, 120),
        (header("Sun, 06 Sep 2026 11:00:00 GMT"), json!({}), 1, 60),
        (header("soon"), json!({}), 60, 900),
        (header("0"), json!({}), 1, 60),
        (header("-5"), json!({}), 1, 60),
        (header("3600"), json!({}), 3600, 3600),
        (header("3601"), json!({}), 3600, 3601),
        (header("99999999999"), json!({}), 3600, month),
        (header("1e400"), json!({}), 3600, month),
        (header("NaN"), json!({}), 60, 900),
        (header("70"), json!({"retry_after_seconds": 90}), 90, 90),
        (header("90"), json!({"retry_after_seconds": 70}), 90, 90),
        (none(), json!({"retry_after": 100}), 100, 100),
        (none(), json!({"retry_after": "100"}), 100, 100),
        (none(), json!({"retry_after": -1}), 1, 60),
        (none(), json!({"retry_after": null}), 60, 900),
        (none(), json!({"retry_after": [100]}), 60, 900),
        (
            none(),
            json!({"meta": {"reset_at": moment(7200)}}),
            3600,
            7200,
        ),
        (none(), json!({"meta": {"reset_at": null}}), 60, 900),
        (none(), json!({"meta": "daily"}), 60, 900),
        (none(), json!({"reset_at": moment(300)}), 300, 300),
        (none(), json!({"reset_at": moment(-300)}), 1, 60),
        (
            none(),
            json!({"reset_at": moment(365 * 24 * 3600)}),
            3600,
            month,
        ),
        (reset(240), json!({}), 240, 240),
        (reset(-240), json!({}), 1, 60),
    ] {
        let expected =
            format!("not_applied queued retry_after in {rate}s free; block {rate}s rate_limited");
        check_all(
            &clean(),
            &limited("rate_limited", limits.clone(), body.clone()),
            &expected,
        );

        let code = "tariff_limit_reached";
        let expected =
            format!("not_applied queued cap_reached in {cap}s free; block {cap}s {code} capped");
        check_all(
            &clean(),
            &limited(code, limits.clone(), body.clone()),
            &expected,
        );

        let expected = format!("not_applied queued retry_after in {rate}s free");
        let recipient = limited("outstanding_recipient_limit", limits, body);
        check_all(&clean(), &recipient, &expected);
    }
}

#[test]
fn who_is_refused_again_and_again_without_a_hint_waits_longer_each_time() {
    let rules = rules();
    let kind = create();
    let wait = |refusals, limits| {
        let at = Circumstances {
            refusals,
            ..at(&rules)
        };
        let answer = limited("rate_limited", limits, json!({}));
        let verdict = judge(
            kind.operation,
            &kind.plan,
            NAME,
            &clean(),
            &timed(answer),
            at,
        );
        show(&verdict)
    };
    let blocked = |wait| {
        format!("not_applied queued retry_after in {wait}s free; block {wait}s rate_limited")
    };
    for (refusals, seconds) in [(0, 60), (1, 60), (2, 120), (3, 240), (5, 900), (99, 900)] {
        assert_eq!(wait(refusals, Limits::default()), blocked(seconds));
    }
    assert_eq!(wait(99, header("30")), blocked(30), "as told");
}

#[test]
fn a_refusal_for_the_rate_is_told_from_other_answers() {
    let page = |status| reply(status, Body::Text("slow down".to_owned()));
    for (answer, expected) in [
        (coded(429, "request_rate_limited"), Some(true)),
        (json_reply(429, json!({"message": "slow"})), Some(true)),
        (page(429), Some(true)),
        // A cap is no matter of pace, and neither is one recipient's limit.
        (coded(429, "tariff_limit_reached"), Some(false)),
        (coded(429, "outstanding_recipient_limit"), Some(false)),
        (coded(422, "content_rejected"), Some(false)),
        (coded(503, "kaspi_session_invalid"), Some(false)),
        (page(502), None),
        (Answer::Lost(Lost::Timeout), None),
        (Answer::NotSent(NotSent::Dns), None),
    ] {
        assert_eq!(is_refused_for_rate(&answer), expected, "{answer:?}");
    }
}

/// The forms that older gateways and other routes use: without a code, or without a text.
#[test]
fn a_429_without_a_code_is_a_rate() {
    for (body, wait) in [
        (json!({"message": "Too Many Attempts."}), 60),
        (
            json!({"message": "Too many requests. Please retry after 60 seconds.", "retry_after": 60}),
            60,
        ),
        (
            json!({"error": "Too many requests", "message": "x", "retry_after": 42, "scope": "minute"}),
            42,
        ),
    ] {
        let expected = format!(
            "not_applied queued retry_after in {wait}s free; block {wait}s too_many_requests"
        );
        check_all(&clean(), &json_reply(429, body), &expected);
    }
    // A proxy's page proves nothing, but its wish to be left alone is granted.
    let page = Answer::Reply(Reply::new(
        429,
        Body::Text("slow down".to_owned()),
        header("120"),
        false,
    ));
    check_all(
        &clean(),
        &page,
        &format!("{UNREADABLE}; block 120s too_many_requests"),
    );
}

#[test]
fn a_park_carries_the_gateways_hint() {
    let maintenance = |body| Answer::Reply(Reply::new(503, body, header("1800"), false));
    let own = Body::Json(json!({"error": "invoices_disabled"}));
    let expected = "not_applied parked invoices_disabled free; park invoices_disabled hint 1800s";
    check_all(&clean(), &maintenance(own), expected);
    let expected = format!("{SERVER_ERROR}; park service_unavailable hint 1800s");
    check_all(&clean(), &maintenance(Body::Broken), &expected);
}

#[test]
fn a_job_whose_answer_is_not_believed_of_its_account_backs_off_by_itself() {
    let rules = rules();
    let page = reply(503, Body::Text("<html>".to_owned()));
    for kind in kinds() {
        for (answer, history, expected) in [
            (
                coded(403, "brand_new"),
                clean(),
                "not_applied queued access_denied in 5s counts",
            ),
            (
                coded(503, "kaspi_session_invalid"),
                attempted(1, clean()),
                "not_applied queued session_expired in 10s counts",
            ),
            (
                coded(401, "brand_new"),
                unproven(),
                "not_applied uncertain key_rejected in 10s counts",
            ),
            // What may have been done is looked up.
            (page.clone(), clean(), SERVER_ERROR),
            (coded(409, "catalog_busy"), clean(), BUSY),
        ] {
            let timed = timed(answer);
            let at = at(&rules);
            let verdict = judge(kind.operation, &kind.plan, NAME, &history, &timed, at);
            assert_eq!(show(&alone(verdict, &history, at)), expected, "{timed:?}");
        }
    }
}

#[test]
fn randomness_only_lengthens() {
    let rules = rules();
    let whole = Circumstances {
        jitter: Jitter::new(1.0),
        ..at(&rules)
    };
    let kind = create();
    for (answer, expected) in [
        (
            limited("rate_limited", header("100"), json!({})),
            "not_applied queued retry_after in 120s free; block 120s rate_limited",
        ),
        (
            limited("trial_daily_limit", header("86400"), json!({})),
            "not_applied queued cap_reached in 86460s free; block 86460s trial_daily_limit capped",
        ),
        (
            Answer::NotSent(NotSent::Tls),
            "not_applied queued network in 1.2s counts",
        ),
    ] {
        let verdict = judge(
            kind.operation,
            &kind.plan,
            NAME,
            &clean(),
            &timed(answer),
            whole,
        );
        assert_eq!(show(&verdict), expected);
    }
}

/// A request may be at work for as long as its own time limit, whatever is configured.
#[test]
fn no_look_up_before_the_requests_own_time_limit() {
    let rules = Rules {
        quiet_after_timeout: seconds(20),
        ..rules()
    };
    let kind = refund();
    for (answer, took, quiet) in [
        (coded(502, ""), 0, 30),
        (coded(502, ""), 24, 6),
        (coded(502, ""), 25, 5),
        (coded(502, ""), 40, 5),
        (Answer::Lost(Lost::Timeout), 30, 20),
        (Answer::Lost(Lost::Cut), 3, 27),
    ] {
        let timed = Timed {
            answer,
            took: seconds(took),
        };
        let verdict = judge(
            kind.operation,
            &kind.plan,
            NAME,
            &clean(),
            &timed,
            at(&rules),
        );
        let Next::Uncertain { after, .. } = verdict.next else {
            panic!("{verdict:?}")
        };
        assert_eq!(after, seconds(quiet), "{timed:?}");
    }
}

/// A proxy may answer with what it has.
#[test]
fn a_success_that_shows_another_jobs_object_is_looked_up() {
    let other = JobName {
        token: uuid::Uuid::from_u128(8),
        generation: 1,
    };
    let bill = |order: &str, comment: String| {
        json_reply(
            201,
            json!({"id": 15, "status": "pending", "amount": "5000.00", "external_order_id": order, "internal_comment": comment}),
        )
    };
    let refund = |reason: String| {
        json_reply(
            201,
            json!({"refund": {"id": 7, "status": "pending", "amount": "1000.50", "reason": reason}}),
        )
    };
    let (ours, own) = (NAME.to_string(), NAME.mark());
    for (answer, is_ours) in [
        (bill(&ours, own.clone()), true),
        (bill(&ours, "edited".to_owned()), true),
        (bill("order-77", own.clone()), true),
        (bill("order-77", "edited".to_owned()), false),
        (bill(&ours, other.mark()), false),
    ] {
        let expected = match is_ours {
            true => "applied succeeded invoice 15 pending counts",
            false => UNREADABLE,
        };
        check(&create(), &clean(), &answer, expected);
    }
    let accepted = "applied accepted under_way refund 7 pending counts";
    check(&self::refund(), &clean(), &refund(own), accepted);
    check(&self::refund(), &clean(), &refund(other.mark()), UNREADABLE);
}

/// What the database has as another job's is not this job's because an answer names its number.
#[test]
fn what_an_answer_names_is_no_proof_where_it_is_another_jobs() {
    let after = seconds(7);
    let unnamed = Object::Invoice(Invoice::bare(15, InvoiceStatus::Pending));
    let named = Object::Invoice(own_invoice("pending"));
    let kind = create();
    let instead = |next: &Next| if_anothers(&kind.plan, NAME, next, after);
    let looked_up = |after| look_up_soon(Reason::AnothersObject, after);
    for seen in [&unnamed, &named] {
        let expected = match seen == &named {
            // It bears the name of this job, and the other one goes by it: a human has to see to both.
            true => Next::Held(Reason::Mismatch),
            false => looked_up(after),
        };
        let accepted = Next::Accepted {
            seen: seen.clone(),
            reason: Reason::UnderWay,
        };
        assert_eq!(
            instead(&Next::Succeeded(seen.clone())),
            Some(expected.clone())
        );
        assert_eq!(instead(&accepted), Some(expected));
    }
    // The key was answered with another job's number: the look-up is by name.
    let by_key = |invoice_id| Next::Uncertain {
        after: Duration::ZERO,
        reason: Reason::DuplicateKey,
        invoice_id,
        absent: false,
    };
    assert_eq!(instead(&by_key(Some(15))), Some(looked_up(Duration::ZERO)));
    assert_eq!(instead(&by_key(None)), None);
    assert_eq!(instead(&Next::Failed(Reason::Refused)), None);
    // A cancel acts on what another job has made.
    let done = Next::Succeeded(unnamed);
    assert_eq!(if_anothers(&cancel().plan, NAME, &done, after), None);
}
