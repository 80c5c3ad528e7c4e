//! Whether an account's gateway answers, and says that the account is well.

use super::result::CheckResult;
use crate::config::AccountSettings;
use crate::domain::answer::{Answer, Body};
use crate::domain::codes::Class;
use crate::domain::http::HttpLimits;
use crate::domain::phone::without_phones;
use crate::gateway::client::{Gateway, GatewayError};
use crate::gateway::wire;
use crate::policy::breaker::{self, Health};
use crate::policy::remedy;
use crate::policy::verdict::Reason;
use crate::telemetry::Chain;

/// Asks for the account's health: reading, and answered by every gateway that takes the key.
pub(super) async fn ask(
    account: &AccountSettings,
    limits: HttpLimits,
) -> Result<Answer, GatewayError> {
    let gateway = Gateway::new(
        &account.base_url,
        &account.api_key,
        account.allow_insecure,
        limits,
    )?;
    Ok(gateway.call(&wire::account_health()).await.answer)
}

pub(super) fn results(account: &str, asked: Result<Answer, GatewayError>) -> Vec<CheckResult> {
    let answer = match asked {
        Ok(answer) => answer,
        Err(error) => {
            let error = Chain(&error);
            return vec![CheckResult::misconfigured(
                "gateway",
                format_args!("account {account}: {error}"),
            )];
        }
    };
    let seen = seen(&answer);
    let reached = match &answer {
        Answer::Reply(reply) if reply.status == 404 => {
            let remedy = remedy::of_park(Reason::RouteNotFound);
            return vec![CheckResult::failed(
                "gateway",
                format_args!(
                    "account {account}: {seen}: {}; {}",
                    remedy.what, remedy.action
                ),
            )];
        }
        // Any other answer of the gateway's own shows that base_url leads to it; so do words of its own about the account.
        Answer::Reply(reply)
            if matches!(reply.body, Body::Json(_))
                && (reply.status < 500 || matches!(reply.class(), Class::AccountFault(_))) =>
        {
            CheckResult::ok("gateway", format_args!("account {account}: it answers"))
        }
        _ => {
            let by = match &answer {
                Answer::Reply(reply) if reply.status == 429 => format!(
                    ": something between here and ApiPay, as a proxy or a firewall, says in its own words that it is asked \
                     too often; have its limit of requests raised, or lower accounts.{account}.requests_per_minute, and \
                     check again in a minute"
                ),
                _ => String::new(),
            };
            return vec![CheckResult::failed(
                "gateway",
                format_args!(
                    "account {account}: {seen}{by}; is accounts.{account}.base_url right?"
                ),
            )];
        }
    };
    let health = match breaker::health(&answer) {
        Health::Well => CheckResult::ok(
            "account",
            format_args!("account {account}: ApiPay says that it is well"),
        ),
        Health::Unwell(reason) => {
            let code = reason.code();
            CheckResult::failed(
                "account",
                format_args!("account {account}: would be parked, {code} ({seen})"),
            )
        }
        Health::Unclear => CheckResult::warning(
            "account",
            format_args!("account {account}: not clear ({seen})"),
        ),
    };
    vec![reached, health]
}

/// What came back, without anything of its body but a code.
fn seen(answer: &Answer) -> String {
    match answer {
        Answer::Reply(reply) => match (reply.error_code(), &reply.body) {
            (Some(code), _) => format!("HTTP {} {}", reply.status, without_phones(code)),
            (None, Body::Json(_)) => format!("HTTP {}", reply.status),
            (None, _) => format!("HTTP {}, not the gateway's JSON", reply.status),
        },
        Answer::NotSent(cause) => format!("not reached, {}", cause.code()),
        Answer::Lost(cause) => format!("no answer, {}", cause.code()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::print::Row;
    use crate::domain::answer::{Limits, NotSent, Reply};

    fn reply(status: u16, body: Body) -> Answer {
        Answer::Reply(Reply::new(status, body, Limits::default(), false))
    }

    fn lines(answer: Answer) -> Vec<String> {
        results("shop", Ok(answer))
            .iter()
            .map(|result| result.line(false))
            .collect()
    }

    #[test]
    fn the_gateway_must_answer_and_the_account_be_well() {
        let well = json!({ "connection": { "kaspi_connected": true } });
        assert_eq!(
            lines(reply(200, Body::Json(well))),
            [
                "ok       gateway       account shop: it answers",
                "ok       account       account shop: ApiPay says that it is well"
            ]
        );
        assert_eq!(
            lines(reply(502, Body::Text("<html>".into()))),
            [
                "failed   gateway       account shop: HTTP 502, not the gateway's JSON; is \
              accounts.shop.base_url right?"
            ]
        );
        // Whoever answers so is asked on the way to ApiPay.
        assert_eq!(
            lines(reply(429, Body::Text("<html>".into()))),
            [
                "failed   gateway       account shop: HTTP 429, not the gateway's JSON: something between here and ApiPay, as a \
              proxy or a firewall, says in its own words that it is asked too often; have its limit of requests raised, or \
              lower accounts.shop.requests_per_minute, and check again in a minute; is accounts.shop.base_url right?"
            ]
        );
        // Its own words: it leads to ApiPay.
        assert_eq!(
            lines(reply(
                503,
                Body::Json(json!({ "error_code": "invoices_disabled" }))
            )),
            [
                "ok       gateway       account shop: it answers",
                "failed   account       account shop: would be parked, invoices_disabled (HTTP 503 invoices_disabled)"
            ]
        );
        assert_eq!(
            lines(Answer::NotSent(NotSent::Dns)),
            [
                "failed   gateway       account shop: not reached, dns_failed; is accounts.shop.base_url right?"
            ]
        );
        assert_eq!(
            lines(reply(
                401,
                Body::Json(json!({ "error_code": "invalid_api_key" }))
            )),
            [
                "ok       gateway       account shop: it answers",
                "failed   account       account shop: would be parked, key_rejected (HTTP 401 invalid_api_key)"
            ]
        );
        assert_eq!(
            lines(reply(
                429,
                Body::Json(json!({ "error_code": "request_rate_limited" }))
            ))[1],
            "warning  account       account shop: not clear (HTTP 429 request_rate_limited)"
        );
    }
}
