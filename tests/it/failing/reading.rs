//! Asking fails while sending works, or while there is nothing to send: what became of payments is not seen,
//! one alert says so, asking slows down, and all goes on with the first clear answer.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Wish, World, phone};

/// Each kind of read: its word, the route that fails, what else must happen before, and what the alert says.
const READS: [(&str, &str, &str); 4] = [
    (
        "look_up",
        "GET /invoices",
        "whether uncertain payments were made",
    ),
    (
        "check",
        "POST /invoices/status/check",
        "whether bills were delivered and paid",
    ),
    ("code", "GET /invoices/{id}", "why bills failed"),
    (
        "refunds",
        "GET /invoices/{id}/refunds",
        "whether refunds were made",
    ),
];

/// What lasts, and what the alert quotes of it.
fn faults() -> Vec<(Value, &'static str, &'static str)> {
    let support = "contact ApiPay's support";
    vec![
        (
            json!({"answer": {"status": 502, "json": {"message": "Kaspi API error"}}}),
            "HTTP 502: Kaspi API error",
            support,
        ),
        (
            json!({"effect": "none", "hang": true}),
            "timeout",
            "apipayd check",
        ),
        (
            json!({"answer": {"preset": "200_html"}}),
            "HTTP 200",
            "base_url",
        ),
        // Well written, and of other things than what was asked about.
        (
            json!({"answer": {"status": 200, "json": {"data": [], "invoices": []}}}),
            "HTTP 200",
            "base_url",
        ),
        (json!({"answer": {"preset": "404"}}), "HTTP 404", "base_url"),
        (
            json!({"answer": {"preset": "403_grant_not_granted"}}),
            "denies the account's key an answer",
            "ask ApiPay's support why",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_in_look_ups_is_told_with_what_is_not_seen() {
    expect_told("look_up").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_in_checks_is_told_with_what_is_not_seen() {
    expect_told("check").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_in_reading_codes_is_told_with_what_is_not_seen() {
    expect_told("code").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_in_lists_of_refunds_is_told_with_what_is_not_seen() {
    expect_told("refunds").await;
}

async fn expect_told(read: &str) {
    let mut cases = Vec::new();
    for (kind, route, unseen) in READS.into_iter().filter(|(kind, ..)| *kind == read) {
        for (number, (fault, says, to_do)) in faults().into_iter().enumerate() {
            // A search or a check that shows nothing is an answer, and so is an invoice or list that is not there.
            let is_answer = match kind {
                "look_up" | "check" => number == 3,
                _ => number == 4,
            };
            if !is_answer {
                cases.push((
                    format!("{kind}{number}"),
                    kind,
                    route,
                    unseen,
                    fault,
                    says,
                    to_do,
                ));
            }
        }
    }
    let names: Vec<&String> = cases.iter().map(|case| &case.0).collect();
    let wish = Wish::default()
        .accounts(&names)
        .tune("retry.server_error.initial", "100ms")
        .tune("retry.server_error.max", "1s")
        .tune("follow.max", "1s");
    let (world, daemon) = World::running_as(wish).await;
    for (account, kind, route, _, fault, ..) in &cases {
        let mut rule = fault.clone();
        rule["route"] = json!(route);
        rule["organization"] = json!(account);
        // A refund reads the list before it is sent.
        rule["skip"] = json!(usize::from(*kind == "refunds"));
        rule["times"] = json!(100_000);
        world.sandbox.fault(rule).await;
        let job = json!({"account": account});
        match *kind {
            "look_up" => {
                let unclear = json!({"route": "POST /invoices", "organization": account, "times": 2,
                                     "effect": "apply", "answer": {"preset": "502_html"}});
                world.sandbox.fault(unclear).await;
                for amount in [700, 800] {
                    let bill = json!({"phone_number": phone::UNPAID, "amount": amount});
                    world
                        .enqueue_with("invoice.create", bill, job.clone())
                        .await;
                }
            }
            "refunds" => {
                let paid = json!({"status": "paid"});
                let invoice = world.sandbox.invoice(&world.key(account), paid).await;
                let refund = json!({"invoice_id": invoice, "amount": 100});
                world.enqueue_with("invoice.refund", refund, job).await;
            }
            kind => {
                let to = if kind == "code" {
                    phone::CLIENT_NOT_FOUND
                } else {
                    phone::UNPAID
                };
                let bill = json!({"phone_number": to, "amount": 700});
                world.enqueue_with("invoice.create", bill, job).await;
            }
        }
    }
    world
        .until_holds("each is told", async || {
            let told = "apipay.alerts where resolved_at is null and details ->> 'fails' = 'reads'";
            world.count(told).await == i64::try_from(cases.len()).unwrap()
        })
        .await;
    if read == "check" {
        daemon.until_told("NO CLEAR ANSWER to check").await;
    }
    let mut wrong = String::new();
    for (account, kind, _, unseen, _, says, to_do) in &cases {
        let alerts = world
            .rows(&format!(
                "select kind, summary, action, explain from apipay.alerts l, apipay.overview o
                  where l.account = '{account}' and o.account = l.account"
            ))
            .await;
        let text = alerts[0].to_string();
        let parts = [
            "when asked about payments of account",
            "gateway_failing",
            says,
            unseen,
            to_do,
        ];
        for part in parts.into_iter().filter(|part| !text.contains(part)) {
            writeln!(wrong, "{account}: nothing says {part:?}: {text}").unwrap();
        }
        let waits = if *kind == "look_up" { "2" } else { "1" };
        let is_told = || {
            world
                .alerts
                .deliveries("firing")
                .into_iter()
                .any(|delivery| {
                    delivery["commonLabels"]["account"] == json!(account)
                        && delivery["commonAnnotations"]["jobs_waiting"] == waits
                })
        };
        world
            .until_holds(&format!("{account} is told with what waits"), async || {
                is_told()
            })
            .await;
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    world.sandbox.mend().await;
    world.until_all_final().await;
    world.until_no_alert().await;
    let odd = world
        .rows(
            "select account, kind, resolution from apipay.alerts
              where kind <> 'gateway_failing'
                -- Of two jobs that were looked up in vain one may be the last.
                or not (resolution = 'ApiPay gives clear answers again' or resolution like 'job % is succeeded now')",
        )
        .await;
    assert_eq!(odd, Vec::<Value>::new());
    world.end([daemon]).await;
}

#[tokio::test]
async fn checks_that_fail_are_asked_ever_less_often_by_all_daemons_together_and_bills_go_out() {
    let wish = Wish::default()
        .tune("retry.server_error.initial", "1s")
        .tune("retry.server_error.max", "1m")
        .tune("follow.max", "4s");
    let (world, daemon) = World::running_as(wish).await;
    let second = world.daemon().await;
    world
        .sandbox
        .fault(json!({"route": "POST /invoices/status/check", "share": 1.0,
                   "answer": {"status": 502, "json": {"message": "Kaspi API error"}}}))
        .await;
    let checks = async || {
        let route = "POST /invoices/status/check";
        world.sandbox.requests_to(route).await.len()
    };
    for amount in 100..110 {
        world.bill(phone::PAID, amount).await;
    }
    // At 1, 2, 4, 4, … seconds.
    world
        .until_true("select trial_at is not null from apipay._reads where kind = 'check'")
        .await;
    let before = checks().await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    let asked = checks().await - before;
    assert!((3..=10).contains(&asked), "{asked} checks in 12 seconds");
    let explain = "select explain like '%It is asked again at %' from apipay.overview where state = 'accepted' limit 1";
    world.until_true(explain).await;
    // None of it keeps a bill from going out.
    let late = world.bill(phone::PAID, 300).await;
    world.until(late, "accepted").await;
    world
        .sql("select apipay.resume('default', 'it is well again')")
        .await;
    let is_due = "select exists (select from apipay._reads where kind = 'check' and trial_at <= now() + interval '5 seconds')";
    world.until_true(is_due).await;
    world.sandbox.mend().await;
    world.until_all_final().await;
    world
        .until_true("select not exists (select from apipay._reads where failing_since is not null)")
        .await;
    world.end([daemon, second]).await;
}

#[tokio::test]
async fn what_fails_is_told_for_what_it_is_when_sends_fail_as_well_and_recover_first() {
    let wish = Wish::default()
        .tune("retry.server_error.initial", "100ms")
        .tune("retry.server_error.max", "1s");
    let (world, daemon) = World::running_as(wish).await;
    let broken = json!({"status": 502, "json": {"message": "Kaspi API error"}});
    let fail = async |route: &str| {
        let rule = json!({"route": route, "share": 1.0, "name": route, "answer": broken});
        world.sandbox.fault(rule).await;
    };
    let says = async |fails: &str, words: &str| {
        world
            .until_true(&format!(
                "select exists (select from apipay.alerts where resolved_at is null
                    and details ->> 'fails' = '{fails}' and summary like '%{words}%')"
            ))
            .await;
    };
    fail("POST /invoices/status/check").await;
    world.bill(phone::PAID, 100).await;
    says("reads", "whether bills were delivered and paid").await;
    fail("POST /invoices").await;
    for amount in 200..204 {
        world.bill(phone::PAID, amount).await;
    }
    says("sends", "ApiPay fails for account default since").await;
    assert_eq!(
        world.count("apipay.alerts").await,
        1,
        "told by the same alert"
    );
    world
        .until_true("select exists (select from apipay.alert_deliveries where status = 'repeat')")
        .await;
    world.sandbox.mend().await;
    fail("POST /invoices/status/check").await;
    says("reads", "whether bills were delivered and paid").await;
    world.sandbox.mend().await;
    world.until_all_final().await;
    world.until_no_alert().await;
    world.end([daemon]).await;
}

/// Where the gateway shows an invoice as it was before a refund, a check says what has changed: it is one like others.
#[tokio::test]
async fn checks_that_fail_are_not_made_for_refunds_out_of_their_turn() {
    let wish = Wish::default()
        .tune("retry.server_error.initial", "1s")
        .tune("retry.server_error.max", "1m")
        .tune("follow.max", "4s");
    let (world, daemon) = World::running_as(wish).await;
    world
        .sandbox
        .organization(json!({"cached_terminal_ms": 3_600_000, "refund_outcome": "stuck"}))
        .await;
    let mut refunds = Vec::new();
    for _ in 0..6 {
        let paid = json!({"status": "paid", "amount": "1000.00"});
        let invoice = world.sandbox.invoice(&world.key("default"), paid).await;
        let params = json!({"invoice_id": invoice, "amount": 100});
        refunds.push(world.enqueue("invoice.refund", params).await);
        // What it shows of it from now on is what it shows now.
        world
            .sandbox
            .show_invoice(&world.key("default"), invoice)
            .await;
    }
    world
        .until_true("select count(*) = 6 from apipay.jobs where state = 'accepted'")
        .await;
    world
        .sandbox
        .fault(json!({"route": "POST /invoices/status/check", "share": 1.0,
                   "answer": {"status": 502, "json": {"message": "Kaspi API error"}}}))
        .await;
    let bill = world.bill(phone::PAID, 100).await;
    world
        .until_true("select trial_at is not null from apipay._reads where kind = 'check'")
        .await;
    for job in refunds {
        let refund = world.job(job).await["refund_id"].as_i64().unwrap();
        let done = json!({"status": "completed"});
        world
            .sandbox
            .control(&format!("POST /refunds/{refund}"), done)
            .await;
    }
    let checks = async || {
        let route = "POST /invoices/status/check";
        world.sandbox.requests_to(route).await.len()
    };
    let before = checks().await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    let asked = checks().await - before;
    assert!((2..=8).contains(&asked), "{asked} checks in 12 seconds");
    world.sandbox.mend().await;
    world.until(bill, "succeeded").await;
    world.until_all_final().await;
    world
        .until_true("select not exists (select from apipay.refunds where not settled)")
        .await;
    world.end([daemon]).await;
}

/// As behind a proxy that chokes on a byte in one row.
#[tokio::test]
async fn an_invoice_that_cannot_be_shown_is_found_and_passed_over_and_the_others_are_seen() {
    let wish = Wish::default()
        .tune("retry.server_error.initial", "100ms")
        .tune("retry.server_error.max", "200ms")
        .tune("follow.max", "1s");
    let (world, daemon) = World::running_as(wish).await;
    let bad = world.bill(phone::UNPAID, 666).await;
    let invoice = world
        .until_job(bad, "it is accepted", |row| !row["invoice_id"].is_null())
        .await["invoice_id"]
        .clone();
    let route = "POST /invoices/status/check";
    world
        .sandbox
        .fault(
            json!({"route": route, "match": invoice.to_string(), "share": 1.0,
                      "answer": {"preset": "500_json"}}),
        )
        .await;
    let mut jobs = Vec::new();
    for amount in 100..130 {
        jobs.push(world.bill(phone::PAID, amount).await);
    }
    let others = "select count(*) = 30 from apipay.invoices where status = 'paid'";
    world.until_true(others).await;
    for job in jobs {
        world.until(job, "succeeded").await;
    }
    // Once it was not shown for long, it is told by its number, and nothing else is.
    world
        .sql(&format!(
            "update apipay.invoices set created_at = now() - interval '20 minutes', checked_at = now() - interval '20 minutes',
                    next_check_at = now() where id = {invoice}"
        ))
        .await;
    let late = world.bill(phone::PAID, 300).await;
    world.until(late, "succeeded").await;
    let named = format!(
        "select count(*) = 1 from apipay.alerts where kind = 'invoice_missing' and resolved_at is null
            and details -> 'invoices' ? '{invoice}'
            and summary like '%invoice {invoice} (job {bad}, asked for by itself: HTTP 500: %'"
    );
    world.until_true(&named).await;
    world.sandbox.mend().await;
    world
        .sandbox
        .control(
            &format!("POST /invoices/{invoice}"),
            json!({"status": "paid"}),
        )
        .await;
    world.until(bad, "succeeded").await;
    world.until_no_alert().await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn many_invoices_that_cannot_be_shown_keep_none_of_the_others_from_being_seen() {
    let wish = Wish::default()
        .tune("retry.server_error.initial", "100ms")
        .tune("retry.server_error.max", "200ms")
        .tune("follow.max", "1s");
    let (world, daemon) = World::running_as(wish).await;
    let route = "POST /invoices/status/check";
    let mut bad = Vec::new();
    for _ in 0..9 {
        let job = world.bill(phone::UNPAID, 666).await;
        let row = world
            .until_job(job, "it is accepted", |row| !row["invoice_id"].is_null())
            .await;
        bad.push(row["invoice_id"].clone());
    }
    for invoice in &bad {
        let fault = json!({"route": route, "match": invoice.to_string(), "share": 1.0,
                           "answer": {"preset": "500_json"}});
        world.sandbox.fault(fault).await;
    }
    for amount in 100..120 {
        world.bill(phone::PAID, amount).await;
    }
    for amount in 200..203 {
        world.bill(phone::UNPAID, amount).await;
    }
    world
        .until_true("select count(*) = 20 from apipay.invoices where status = 'paid'")
        .await;
    // All of them are one alert, which names a few and counts the rest.
    let mut ids = Vec::from_iter(bad.iter().map(Value::to_string));
    ids.sort();
    world
        .sql(&format!(
            "update apipay.invoices set created_at = now() - interval '20 minutes', checked_at = now() - interval '20 minutes'
              where id in ({})",
            ids.join(", ")
        ))
        .await;
    world
        .until_true(
            "select exists (select from apipay.alerts where kind = 'invoice_missing' and resolved_at is null
                             and (select count(*) from jsonb_object_keys(details -> 'invoices')) = 9
                             and summary like '%, and 4 more;%')",
        )
        .await;
    assert_eq!(
        world
            .count("apipay.alerts where kind = 'invoice_missing'")
            .await,
        1
    );
    world.sandbox.mend().await;
    world
        .sql("update apipay.invoices set next_check_at = now() where not settled")
        .await;
    world.until_no_alert().await;
    world.until_all_final().await;
    world.end([daemon]).await;
}
