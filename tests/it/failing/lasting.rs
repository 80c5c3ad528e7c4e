//! Every class of answer lasts: the job lives, exactly the right alert is open, and the sentence is true.
//! Among them every body of the vendor's error page, with what the operator reads.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Certificates, Job, Wish, World};

/// An answer that lasts, the alert that is open then, and what it and the job's sentence say.
struct Lasting {
    fault: Value,
    alert: &'static str,
    says: &'static str,
    to_do: &'static str,
}

fn said(status: u16, message: &str) -> Value {
    json!({"answer": {"status": status, "json": {"message": message}}})
}

fn lasting() -> Vec<Lasting> {
    let failing = |fault, says, to_do| Lasting {
        fault,
        alert: "gateway_failing",
        says,
        to_do,
    };
    let parked = |fault, says, to_do| Lasting {
        fault,
        alert: "account_parked",
        says,
        to_do,
    };
    let preset = |name: &str| json!({"answer": {"preset": name}});
    let support = "contact ApiPay's support";
    let reconnect = "contact ApiPay's support to reconnect the Kaspi Business session";
    let cashier = "log the cashier in again";
    let key = "check the key in the ApiPay dashboard, Settings, Connection";
    let whats_app = "contact ApiPay's support by WhatsApp, who connect the organization";
    vec![
        failing(
            said(502, "Kaspi API error"),
            "HTTP 502: Kaspi API error",
            support,
        ),
        failing(preset("502_html"), "HTTP 502", support),
        failing(preset("500_json"), "HTTP 500: Server Error", support),
        parked(preset("503_html"), "ApiPay is out of service", support),
        failing(preset("504_html"), "HTTP 504", support),
        failing(preset("200_html"), "HTTP 200", "base_url"),
        failing(preset("409_kaspi_session_unavailable"), "HTTP 409", support),
        failing(
            json!({"cut": "before_effect"}),
            "connection_cut",
            "apipayd check",
        ),
        failing(
            json!({"effect": "none", "hang": true}),
            "timeout",
            "apipayd check",
        ),
        parked(
            said(401, "Invalid API key"),
            "the API key is not accepted",
            key,
        ),
        parked(
            said(403, "Organization not verified"),
            "not verified",
            whats_app,
        ),
        parked(
            said(503, "Kaspi session expired"),
            "the Kaspi session is gone",
            reconnect,
        ),
        parked(
            said(503, "Service Unavailable"),
            "ApiPay is out of service",
            support,
        ),
        parked(
            preset("503_kaspi_session_invalid"),
            "the Kaspi session is gone",
            reconnect,
        ),
        parked(
            preset("503_invoices_disabled"),
            "ApiPay takes no invoices now",
            support,
        ),
        parked(
            preset("409_kaspi_session_expired"),
            "the Kaspi session is gone",
            cashier,
        ),
        parked(
            preset("400_kaspi_session_not_configured"),
            "the Kaspi session is gone",
            reconnect,
        ),
        parked(
            preset("400_organization_required"),
            "not verified",
            whats_app,
        ),
        parked(
            preset("400_organization_not_verified"),
            "not verified",
            whats_app,
        ),
        parked(preset("401"), "the API key is not accepted", key),
        parked(preset("403_kyc_rejected"), "not verified", "business form"),
        parked(
            preset("403_organization_archived"),
            "not verified",
            whats_app,
        ),
        parked(preset("403_channel_required"), "not verified", whats_app),
        parked(
            preset("403_tariff_inactive"),
            "the tariff is not paid",
            "pay it",
        ),
        parked(
            preset("403_grant_snapshot_unreadable"),
            "ApiPay denies access",
            "ask ApiPay's support",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_lasts_no_bill_dies_and_the_right_alert_is_open() {
    check("invoice.create", "POST /invoices").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_lasts_no_cancel_dies_and_the_right_alert_is_open() {
    check("invoice.cancel", "POST /invoices/{id}/cancel").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_lasts_no_refund_dies_and_the_right_alert_is_open() {
    check("invoice.refund", "POST /invoices/{id}/refund").await;
}

/// Jobs of each account: more than slow it down.
const JOBS: usize = 5;

async fn check(operation: &str, route: &str) {
    let cases = lasting();
    let names: Vec<String> = (0..cases.len()).map(|n| format!("case{n}")).collect();
    let mut wish = Wish::default()
        .accounts(&names)
        // An hour in seconds: the longest distances are over many times.
        .tune("retry.server_error.initial", "100ms")
        .tune("retry.server_error.max", "1s")
        .tune("retry.network.max", "1s")
        .tune("breaker.probe_max", "1s")
        // A job of which a request is unproven cannot be the proof that a parked account is well: its health,
        // which is well here, lets it go again and again, and the alert outlasts that.
        .tune("breaker.slow_start", "5s");
    wish.roots = Some(Certificates::made().authority);
    let (world, daemon) = World::running_as(wish).await;
    for (case, account) in cases.iter().zip(&names) {
        let mut fault = case.fault.clone();
        fault["route"] = route.into();
        fault["organization"] = account.as_str().into();
        fault["share"] = json!(1.0);
        world.sandbox.fault(fault).await;
        for _ in 0..JOBS {
            enqueue(&world, account, operation).await;
        }
    }
    world
        .until_true(&format!(
            "select count(*) = {} from apipay.alerts where resolved_at is null",
            cases.len()
        ))
        .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut wrong = String::new();
    for (case, account) in cases.iter().zip(&names) {
        // An account whose health is well goes on for a moment between its parks, and its alert says that then.
        let mut found = problems(&world, case, account).await;
        for _ in 0..40 {
            if found.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
            found = problems(&world, case, account).await;
        }
        for problem in found {
            writeln!(wrong, "{account} {}: {problem}", case.fault).unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    world.sandbox.mend().await;
    world.until_all_final().await;
    let failed = "apipay.jobs where state <> 'succeeded'";
    assert_eq!(world.count(failed).await, 0);
    world.until_no_alert().await;
    let twice = world
        .rows(
            "select account, kind, opened_at, resolved_at, resolution, summary from apipay.alerts
              where account in (select account from apipay.alerts group by account having count(*) > 1)
              order by account, id",
        )
        .await;
    assert_eq!(twice, Vec::<Value>::new(), "each was told once");
    world.end([daemon]).await;
}

async fn enqueue(world: &World, account: &str, operation: &str) -> Job {
    let key = world.key(account);
    let invoice = async |status| world.sandbox.invoice(&key, json!({"status": status})).await;
    let params = match operation {
        "invoice.create" => json!({"phone_number": "87015550044", "amount": 700}),
        "invoice.cancel" => json!({"invoice_id": invoice("pending").await}),
        _ => json!({"invoice_id": invoice("paid").await, "amount": 100}),
    };
    world
        .enqueue_with(operation, params, json!({"account": account}))
        .await
}

async fn problems(world: &World, case: &Lasting, account: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let of = format!("where account = '{account}'");
    let jobs = world
        .rows(&format!(
            "select state, attempts, explain from apipay.overview {of} order by id"
        ))
        .await;
    let states = jobs.iter().map(|job| job["state"].as_str().unwrap());
    for state in states.filter(|state| ["failed", "held", "expired"].contains(state)) {
        problems.push(format!("a job is {state}"));
    }
    let alerts = world
        .rows(&format!(
            "select kind, summary, action from apipay.alerts {of} and resolved_at is null"
        ))
        .await;
    let [alert] = alerts.as_slice() else {
        return vec![format!("open alerts: {alerts:?}")];
    };
    let text = |field: &str| alert[field].as_str().unwrap().to_owned();
    if alert["kind"] != case.alert {
        problems.push(format!("the alert is {alert}"));
    }
    if !text("summary").contains(case.says) || !text("action").contains(case.to_do) {
        problems.push(format!("the alert says {alert}"));
    }
    let explains = |part: &str| {
        jobs.iter()
            .any(|job| job["explain"].as_str().unwrap().contains(part))
    };
    let parts = match case.alert {
        // Some wait untouched, or all were tried by now.
        "gateway_failing" => {
            let status = world
                .value(&format!(
                    "select to_jsonb(explain) from apipay.account_status {of}"
                ))
                .await;
            let status = status.as_str().unwrap();
            if !status.contains("no clear answer since") || !status.contains(case.says) {
                problems.push(format!("the account says {status}"));
            }
            vec![]
        }
        // What is uncertain speaks of its own request, however the account is.
        _ if case.fault["answer"]["preset"] == "503_html" => vec![],
        _ => vec!["is parked since", case.to_do],
    };
    let message = case.fault["answer"]["json"]["message"].as_str();
    let message = message.filter(|_| case.alert != "gateway_failing");
    for part in parts.into_iter().chain(message) {
        if !explains(part) {
            problems.push(format!("nothing explains {part:?}: {jobs:?}"));
        }
    }
    problems
}
