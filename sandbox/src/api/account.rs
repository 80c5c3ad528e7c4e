//! `GET /status` and `GET /account/health`.

use serde_json::json;
use time::Duration;

use super::{Answer, Call};
use crate::clock::Moment;
use crate::envelope::Reply;
use crate::stamp;
use crate::world::{Session, Tariff};

pub(super) fn status(now: Moment) -> Reply {
    Reply::json(
        200,
        &json!({"status": "ok", "timestamp": stamp::utc(now.life)}),
    )
}

pub(super) fn health(call: &mut Call<'_>) -> Answer {
    let organization = call.organization();
    let switches = &organization.switches;
    let lost = switches.session != Session::Active;
    let runs = switches.tariff.refusal_reason().is_none();
    let expires_at =
        call.origin
            .now
            .life
            .saturating_add(Duration::days(if runs { 30 } else { -1 }));
    let expires_at = (switches.tariff != Tariff::None).then(|| stamp::almaty(expires_at));
    let body = json!({
        "api": {"status": "ok"},
        "connection": {
            "kaspi_connected": !lost,
            "session_status": switches.session,
            "session_error_at": organization.session_error_at.map(stamp::almaty),
            "needs_reauth": lost,
            "last_used_at": organization.last_used_at.map(stamp::almaty),
        },
        "tariff": {
            "status": switches.tariff,
            "expires_at": expires_at,
            "days_remaining": if runs { 30 } else { 0 },
        },
        "invoicing": {
            "accumulating": switches.accumulating,
            "held_since": organization.held_since.map(stamp::almaty),
        },
    });
    Ok(Reply::json(200, &body))
}
