//! A gateway that fails for longer than one answer: no payment is lost, one job tries while the others
//! wait, one alert says so with the vendor's own remedy, and all goes on by itself.

mod alone;
mod awaited;
mod beside;
mod doubted;
mod given_up;
mod held_up;
mod lasting;
mod reading;
mod unseen;
mod wrong;

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Wish, World, phone};

const KASPI_ERROR: &str = "Kaspi API error";

async fn fail(world: &World, fault: Value) {
    world.sandbox.fault(fault).await;
}

async fn until_slow(world: &World) {
    world
        .until_true("select failing_trial_at is not null from apipay.accounts")
        .await;
}

#[tokio::test]
async fn while_every_send_fails_one_job_tries_and_the_others_wait_untouched() {
    // Long enough to look at: the trials come at 2, 4 and 8 seconds.
    let wish = Wish::default()
        .tune("retry.server_error.initial", "2s")
        .tune("retry.server_error.max", "8s");
    let (world, mut daemon) = World::running_as(wish).await;
    fail(
        &world,
        json!({"route": "POST /invoices", "share": 1.0,
               "answer": {"status": 502, "json": {"message": KASPI_ERROR}}}),
    )
    .await;
    for amount in 100..104 {
        world.bill(phone::PAID, amount).await;
    }
    until_slow(&world).await;
    let mut late = Vec::new();
    for amount in 200..220 {
        late.push(world.bill(phone::PAID, amount).await);
    }
    // Reads work, and end nothing.
    world
        .until_true("select exists (select from apipay.attempts where kind = 'lookup' and effect is not null)")
        .await;
    let last = late[19];
    let explain = world.explain(last).await;
    for part in [
        "Waiting: ApiPay gives account default no clear answer since ",
        "(HTTP 502: Kaspi API error): one job at a time tries, the next ",
        "the others wait for its answer. Then it goes out.",
    ] {
        assert!(explain.contains(part), "{explain}");
    }
    let status = world
        .value("select to_jsonb(explain) from apipay.account_status")
        .await;
    assert!(
        status
            .as_str()
            .unwrap()
            .starts_with("Hardly anything is sent: ApiPay gives")
    );
    daemon.until_told("NO CLEAR ANSWER server_error").await;
    daemon.stop().await;
    let heir = world.daemon().await;
    world
        .until_true("select exists (select from apipay.alerts where kind = 'gateway_failing' and resolved_at is null)")
        .await;
    let alert = world.rows("select * from apipay.alerts").await;
    assert_eq!(alert.len(), 1, "{alert:?}");
    let (summary, action) = (&alert[0]["summary"], alert[0]["action"].as_str().unwrap());
    let summary = summary.as_str().unwrap();
    assert!(
        summary.starts_with("ApiPay fails for account default since "),
        "{summary}"
    );
    assert!(
        summary.ends_with("(HTTP 502: Kaspi API error): payments wait."),
        "{summary}"
    );
    assert!(
        action.contains("those that are held (alert job_held) wait for a person")
            && !action.contains("lost"),
        "{action}"
    );
    assert!(
        action.contains("if it persists, contact ApiPay's support"),
        "{action}"
    );
    let row = world.job(last).await;
    assert_eq!(
        (&row["state"], &row["attempts"], &row["epoch"]),
        (&json!("queued"), &json!(0), &json!(0)),
        "untouched"
    );
    let sends = world.sandbox.requests_to("POST /invoices").await.len();
    assert!(sends <= 12, "{sends} sends");

    world.sandbox.mend().await;
    world.until_all_final().await;
    assert_eq!(
        world.count("apipay.jobs where state = 'succeeded'").await,
        24
    );
    world
        .until_holds("the end is told", async || {
            !world.alerts.deliveries("resolved").is_empty()
        })
        .await;
    assert_eq!(world.count("apipay.alerts").await, 1);
    world.end([heir]).await;
}

#[tokio::test]
async fn one_job_that_gets_no_answer_slows_nobody_and_is_told_of() {
    let (world, daemon) = World::running().await;
    fail(
        &world,
        json!({"route": "POST /invoices", "match": "87015550666", "share": 1.0,
               "answer": {"preset": "502_html"}}),
    )
    .await;
    let poison = world.bill("87015550666", 666).await;
    let mut others = Vec::new();
    for amount in 100..110 {
        others.push(world.bill(phone::PAID, amount).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for job in others {
        world.until(job, "succeeded").await;
    }
    world
        .until_true("select exists (select from apipay.alerts where kind = 'gateway_failing' and resolved_at is null)")
        .await;
    let late = world.bill(phone::PAID, 300).await;
    world.until(late, "succeeded").await;
    assert_eq!(
        world
            .count("apipay.accounts where failing_trial_at is not null")
            .await,
        0
    );
    world.sandbox.mend().await;
    world.until(poison, "succeeded").await;
    world.until_no_alert().await;
    world.end([daemon]).await;
}

/// What the first probe learns, the open alert says, and once more aloud.
#[tokio::test]
async fn an_open_alert_says_what_a_probe_has_learned() {
    let (world, daemon) = World::running().await;
    fail(
        &world,
        json!({"route": "POST /invoices", "times": 1,
               "answer": {"status": 503, "json": {"message": "Service Unavailable, call +7 700 123 45 67"}}}),
    )
    .await;
    world.sandbox.session("expired").await;
    let job = world.bill(phone::PAID, 500).await;
    world.until(job, "parked").await;
    world
        .until_true("select parked_reason = 'session_expired' from apipay.accounts")
        .await;
    let alerts = world.rows("select * from apipay.alerts").await;
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    let summary = alerts[0]["summary"].as_str().unwrap();
    assert!(summary.contains("the Kaspi session is gone"), "{summary}");
    let explain = world.explain(job).await;
    // What was said of the reason before says nothing of this one.
    assert!(!explain.contains("Service Unavailable"), "{explain}");
    assert!(
        explain.contains("; to do: log the cashier in again"),
        "{explain}"
    );
    world
        .until_holds("the news is told", async || {
            let firing = world.alerts.deliveries("firing");
            firing.len() == 2
                && json!(firing[1])
                    .to_string()
                    .contains("the Kaspi session is gone")
        })
        .await;
    let first = json!(world.alerts.deliveries("firing")[0]).to_string();
    assert!(
        first.contains("ApiPay said: Service Unavailable, call +***)"),
        "{first}"
    );
    world.sandbox.session("active").await;
    world.until(job, "succeeded").await;
    world.end([daemon]).await;
}
