//! Ready answers for faults: every refusal the gateway documents, and those of proxies in front of it.

use serde_json::json;
use time::{Duration, OffsetDateTime};

use crate::envelope::Reply;
use crate::stamp;

type Build = fn(OffsetDateTime) -> Reply;

/// Names and answers, by status.
pub(crate) static PRESETS: &[(&str, Build)] = &[
    ("200_html", |_| {
        Reply::html(
            200,
            "<html><body>Please sign in to the network</body></html>",
        )
    }),
    ("201_empty", |_| {
        Reply::with_type(201, "application/json", Vec::new())
    }),
    ("201_no_id", |_| {
        Reply::json(201, &json!({"status": "processing"}))
    }),
    ("400_organization_required", |_| {
        Reply::business(400, "organization_required", "Требуется организация")
    }),
    ("400_organization_not_verified", |_| {
        Reply::error_only(400, "Organization not found or not verified", None)
    }),
    ("400_kaspi_session_not_configured", |_| {
        Reply::business(
            400,
            "kaspi_session_not_configured",
            "Сессия Kaspi не настроена",
        )
    }),
    ("400_sandbox_invoice_limit", |_| {
        Reply::business(
            400,
            "sandbox_invoice_limit",
            "Достигнут лимит счетов песочницы",
        )
    }),
    ("400_cannot_be_cancelled", |_| {
        Reply::error_only(400, "Invoice cannot be cancelled", None)
    }),
    ("400_not_refundable", |_| {
        Reply::error_only(400, "Invoice is not refundable", None)
    }),
    ("400_refund_exceeds", |_| {
        Reply::error_only(400, "Refund amount exceeds available amount", None)
    }),
    ("401", |_| {
        Reply::error_only(
            401,
            "Invalid API key",
            Some("The API key is unknown, expired or deactivated"),
        )
    }),
    ("401_message_only", |_| {
        Reply::message_only(401, "Unauthenticated.")
    }),
    ("403_tariff_inactive", |now| {
        Reply::tariff_inactive("expired", Some(&stamp::almaty(now - Duration::DAY)))
    }),
    ("403_kyc_rejected", |_| {
        Reply::business(403, "kyc_rejected", "Анкета бизнеса отклонена")
    }),
    ("403_organization_archived", |_| {
        Reply::business(403, "organization_archived", "Организация в архиве")
    }),
    ("403_channel_required", |_| {
        Reply::business(403, "channel_required", "Требуется канал")
    }),
    ("403_grant_not_granted", |_| {
        Reply::business(403, "grant_not_granted", "Доступ не выдан")
    }),
    ("403_grant_snapshot_unreadable", |_| {
        Reply::business(403, "grant_snapshot_unreadable", "Доступ не читается")
    }),
    ("404", |_| Reply::error_only(404, "Invoice not found", None)),
    ("404_message", |_| Reply::message_only(404, "Not found")),
    ("409_kaspi_session_expired", |_| Reply::session_expired()),
    ("409_kaspi_session_unavailable", |_| {
        Reply::business(409, "kaspi_session_unavailable", "Сессия Kaspi недоступна")
    }),
    ("409_qr_cancel_unsupported", |_| {
        let code = "qr_cancel_unsupported";
        Reply::json(
            409,
            &json!({"error": code, "error_code": code, "message": "Счёт по QR не отменить", "expires_at": null}),
        )
    }),
    ("409_unknown_code", |_| {
        Reply::business(
            409,
            "sandbox_undocumented_code",
            "Код, которого нет в списках",
        )
    }),
    ("410", |_| {
        Reply::message_only(410, "Срок подтверждения истёк")
    }),
    ("413_html", |_| {
        Reply::html(413, &page("413 Request Entity Too Large"))
    }),
    ("422", |_| {
        Reply::invalid_field(
            "phone_number",
            "The phone number field format is invalid.",
            None,
        )
    }),
    ("422_given_data", |_| {
        Reply::json(
            422,
            &json!({"message": "The given data was invalid.", "errors": {"amount": ["The amount is invalid."]}}),
        )
    }),
    ("422_amount_must_be_whole_tenge", |_| whole_tenge()),
    ("422_description_too_long", |_| {
        Reply::invalid_field("description", "Too long.", Some("description_too_long"))
    }),
    ("422_field_too_long", |_| {
        Reply::invalid_field("internal_comment", "Too long.", Some("field_too_long"))
    }),
    ("422_content_rejected", |_| {
        Reply::business(422, "content_rejected", "Текст отклонён")
    }),
    ("422_connection_ambiguous", |_| {
        Reply::refused_cart("connection_ambiguous", "Укажите kaspi_connection_id")
    }),
    ("422_catalog_not_supported", |_| {
        Reply::refused_cart("catalog_not_supported", "У организации нет каталога")
    }),
    ("422_catalog_item_not_found", |_| {
        Reply::refused_cart("catalog_item_not_found", "Товар не найден в каталоге")
    }),
    ("422_cart_items_mismatch", |_| {
        Reply::refused_cart("cart_items_mismatch", "Позиции не совпадают")
    }),
    ("422_partial_refund_requires_return_items", |_| {
        Reply::refused_cart(
            "partial_refund_requires_return_items",
            "Укажите return_items",
        )
    }),
    ("422_refund_window_expired", |_| {
        Reply::business(422, "refund_window_expired", "Срок возврата истёк")
    }),
    ("429_minute", |now| too_many(now, 17)),
    ("429_no_hint", |_| {
        Reply::message_only(429, "Too Many Attempts.")
    }),
    ("429_legacy", |_| {
        let message = "Too many requests. Please retry after 60 seconds.";
        Reply::json(429, &json!({"message": message, "retry_after": 60}))
    }),
    ("429_html", |_| {
        Reply::html(429, &page("429 Too Many Requests"))
    }),
    ("429_http_date", |now| {
        Reply::message_only(429, "Too Many Requests")
            .header("Retry-After", http_date(now + Duration::seconds(17)))
    }),
    ("429_tariff_limit", |now| {
        cap("tariff_limit_reached", "daily", now + Duration::HOUR)
    }),
    ("429_tariff_limit_monthly", |now| {
        cap("tariff_limit_reached", "monthly", now + Duration::days(9))
    }),
    ("429_trial_daily_limit", |_| {
        short_cap("trial_daily_limit", 3_600)
    }),
    ("429_kyc", |_| Reply::kyc_limit()),
    ("429_outstanding", |_| {
        short_cap("outstanding_recipient_limit", 60)
    }),
    ("429_outstanding_org", |_| {
        short_cap("outstanding_org_limit", 60)
    }),
    ("429_recipient_fanout", |_| {
        short_cap("recipient_fanout_exceeded", 60)
    }),
    ("429_authentication", |_| {
        Reply::business(
            429,
            "too_many_failed_authentications",
            "Слишком много неудачных попыток",
        )
        .header("Retry-After", 60)
    }),
    ("500_json", |_| Reply::message_only(500, "Server Error")),
    ("500_html", |_| {
        Reply::html(500, &page("500 Internal Server Error"))
    }),
    ("502_html", |_| Reply::html(502, &page("502 Bad Gateway"))),
    ("502_kaspi_error", |_| {
        Reply::business(502, "kaspi_error", "Ошибка Kaspi")
    }),
    ("502_empty", |_| {
        Reply::with_type(502, "text/plain", Vec::new())
    }),
    ("503_kaspi_session_invalid", |_| Reply::session_invalid()),
    ("503_invoices_disabled", |_| Reply::invoices_disabled()),
    ("503_maintenance", |_| {
        Reply::invoices_disabled().header("Retry-After", 120)
    }),
    ("503_html", |_| {
        Reply::html(503, &page("503 Service Temporarily Unavailable"))
    }),
    ("504_html", |_| {
        Reply::html(504, &page("504 Gateway Time-out"))
    }),
];

pub(crate) fn find(name: &str) -> Option<Build> {
    PRESETS
        .iter()
        .find(|(present, _)| *present == name)
        .map(|(_, build)| *build)
}

fn page(title: &str) -> String {
    format!(
        "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    )
}

fn whole_tenge() -> Reply {
    let message = "The amount must be a whole number of tenge.";
    Reply::invalid_field("amount", message, Some("amount_must_be_whole_tenge"))
}

fn too_many(now: OffsetDateTime, wait_seconds: i64) -> Reply {
    let reset = now + Duration::seconds(wait_seconds);
    Reply::too_many_requests(
        200,
        wait_seconds,
        reset.unix_timestamp(),
        &stamp::utc(reset),
    )
}

fn cap(code: &str, mode: &str, reset: OffsetDateTime) -> Reply {
    let body = json!({
        "error": code,
        "error_code": code,
        "message": "Лимит тарифа исчерпан",
        "retry_after_seconds": 60,
        "meta": {"mode": mode, "limit": 100, "used": 100, "reset_at": stamp::utc(reset)},
    });
    Reply::json(429, &body).header("Retry-After", 60)
}

fn short_cap(code: &str, wait_seconds: u32) -> Reply {
    let message = "Слишком много неоплаченных счетов";
    let body = json!({"error": code, "error_code": code, "message": message, "retry_after_seconds": wait_seconds});
    Reply::json(429, &body).header("Retry-After", wait_seconds)
}

fn http_date(at: OffsetDateTime) -> String {
    let format = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    at.format(format).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn a_preset_is_named_by_its_status() {
        let now = datetime!(2026-09-06 10:00 UTC);
        for (name, build) in PRESETS {
            assert_eq!(&name[..3], build(now).status.to_string(), "{name}");
        }
    }

    #[test]
    fn the_readme_names_every_preset_story_and_route() {
        let readme = include_str!("../README.md");
        let presets = PRESETS.iter().map(|(name, _)| format!("`{name}`"));
        let stories = crate::life::STORIES.iter().map(|story| {
            format!(
                "| `8700000{}` | `{}` | {} |",
                story.digits, story.name, story.summary
            )
        });
        let routes = crate::api::ROUTES
            .iter()
            .map(|route| format!("`{}`", route.template));
        for expected in presets.chain(stories).chain(routes) {
            assert!(readme.contains(&expected), "README.md lacks {expected}");
        }
    }
}
