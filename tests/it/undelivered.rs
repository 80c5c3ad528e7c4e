//! An account whose health is well while what the gateway accepts fails at Kaspi: no payment is used up, few
//! invoices die of it, and a delivered one ends it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::world::{Job, Wish, World, phone};

/// Kaspi decides about everything that was accepted and is not delivered yet. Returns how many were.
async fn kaspi_decides(world: &World, fate: &Value) -> usize {
    let ledger = world.sandbox.ledger().await;
    let mut decided = 0;
    for invoice in ledger["invoices"].as_array().unwrap() {
        if invoice["status"] == "processing" {
            let id = invoice["id"].as_i64().unwrap();
            world.sandbox.set_invoice(id, fate.clone()).await;
            decided += 1;
        }
    }
    decided
}

/// An hour in a quarter of a minute: the distances of a minute to a quarter of an hour, as shipped.
fn hour_in_a_quarter_of_a_minute() -> Wish {
    Wish::default()
        .tune("breaker.probe_initial", "250ms")
        .tune("breaker.probe_max", "3750ms")
        .tune("retry.async_error.initial", "375ms")
        .tune("retry.async_error.max", "750ms")
}

#[tokio::test]
async fn an_outage_behind_a_healthy_account_uses_up_no_payment_and_makes_few_dead_invoices() {
    let world = World::made(hour_in_a_quarter_of_a_minute()).await;
    let daemons = [world.daemon().await, world.daemon().await];
    let mut jobs: Vec<Job> = Vec::new();
    for amount in 1..=4 {
        jobs.push(world.bill(phone::HELD, amount * 100).await);
    }
    world
        .until_true("select count(*) = 4 from apipay.jobs where state = 'accepted'")
        .await;
    let gone = json!({"status": "error", "error_code": "kaspi_session_invalid"});
    let mut dead = kaspi_decides(&world, &gone).await;
    assert_eq!(dead, 4);
    let hour = Instant::now() + Duration::from_secs(15);
    while Instant::now() < hour {
        dead += kaspi_decides(&world, &gone).await;
        sleep(Duration::from_millis(20)).await;
    }
    // Those of before it was known, and one for each probe.
    let probes = world.sandbox.requests_to("GET /account/health").await.len();
    assert!(dead <= 4 + 8, "{dead} invoices died, with {probes} probes");
    assert!(
        dead >= 4 + 3 && probes >= 4,
        "{dead} invoices, {probes} probes: it is tried on"
    );
    let waiting = world
        .rows("select j.state, j.generation, o.explain from apipay.jobs j join apipay.overview o using (id)")
        .await;
    let account = &world.rows("select * from apipay.accounts").await[0];
    assert_eq!(account["delivery_error"], "kaspi_session_invalid");
    for row in &waiting {
        assert!(
            ["queued", "accepted", "sending"].contains(&row["state"].as_str().unwrap()),
            "{row}"
        );
        if row["state"] == "queued" {
            let explain = row["explain"].as_str().unwrap();
            let expected = "invoices that ApiPay accepts fail with kaspi_session_invalid), until one is delivered: \
                            one job is tried with each probe, the next ";
            assert!(explain.contains(expected), "{explain}");
        }
    }
    let alerts = world.rows("select * from apipay.alerts").await;
    assert_eq!(alerts.len(), 1, "one incident: {alerts:?}");
    let summary = alerts[0]["summary"].as_str().unwrap();
    let expected =
        "its health says well, but invoices that ApiPay accepts fail with kaspi_session_invalid";
    assert!(
        alerts[0]["resolved_at"].is_null() && summary.contains(expected),
        "{summary}"
    );

    let back = json!({"status": "pending"});
    let patience = Instant::now() + Duration::from_secs(20);
    while world.count("apipay.jobs where state <> 'succeeded'").await > 0 {
        assert!(Instant::now() < patience, "{}", world.report(None).await);
        kaspi_decides(&world, &back).await;
        sleep(Duration::from_millis(20)).await;
    }
    for job in jobs {
        let effects = world.effects_of(job).await;
        let ledger = world.sandbox.ledger().await;
        let live = |effect: &&Value| {
            ledger["invoices"]
                .as_array()
                .unwrap()
                .iter()
                .any(|invoice| {
                    invoice["id"] == effect["invoice_id"] && invoice["status"] == "pending"
                })
        };
        assert_eq!(effects.iter().filter(live).count(), 1, "{effects:?}");
    }
    world
        .until_holds("the end is told", async || {
            !world.alerts.deliveries("resolved").is_empty()
        })
        .await;
    assert_eq!(world.count("apipay.alerts").await, 1);
    assert_eq!(world.alerts.deliveries("resolved").len(), 1);
    world.end(daemons).await;
}

#[tokio::test]
async fn a_bill_that_dies_of_the_session_each_time_keeps_no_other_from_being_delivered() {
    let (world, daemon) = World::running().await;
    let odd = world.bill(phone::SESSION_INVALID, 500).await;
    world
        .until_true("select delivery_error = 'kaspi_session_invalid' from apipay.accounts where name = 'default'")
        .await;
    let others = [
        world.bill(phone::PAID, 600).await,
        world.bill(phone::PAID, 700).await,
    ];
    for job in others {
        world.until(job, "succeeded").await;
    }
    // More often than a payment may fail for reasons of its own.
    let row = world
        .until_job(odd, "it is tried again and again", |row| {
            row["generation"].as_i64() > Some(4)
        })
        .await;
    assert!(row["finished_at"].is_null(), "{row}");
    world.end([daemon]).await;
}

#[tokio::test]
async fn what_parked_the_account_goes_out_again_soon_after_it_is_resumed() {
    let wish = Wish::default()
        .tune("breaker.probe_initial", "1h")
        .tune("breaker.probe_max", "1h")
        .tune("retry.async_error.initial", "2s")
        .tune("retry.async_error.multiplier", "100")
        .tune("retry.async_error.max", "10m");
    let (world, daemon) = World::running_as(wish).await;
    let job = world.bill(phone::HELD, 500).await;
    let gone = json!({"status": "error", "error_code": "kaspi_session_expired"});
    for generation in 1..=2 {
        let what = "it is accepted";
        world
            .until_job(job, what, |row| {
                row["state"] == "accepted" && row["generation"] == generation
            })
            .await;
        kaspi_decides(&world, &gone).await;
        world
            .until_true("select state = 'parked' from apipay.accounts where name = 'default'")
            .await;
        world
            .until_job(job, "it failed", |row| row["reason"] == "async_retry")
            .await;
        if generation == 2 {
            // It has failed twice, and the next back-off is some minutes.
            world
                .until_true(
                    "select exists (select from apipay.invoices i join apipay.jobs j on j.invoice_id = i.id
                                     where i.next_check_at > now() + interval '2 min')",
                )
                .await;
            let status = &world
                .rows("select explain from apipay.account_status")
                .await[0];
            let says = status["explain"].as_str().unwrap();
            assert!(
                says.ends_with(". 1 job waits that failed at Kaspi."),
                "{says}"
            );
            // No check of another invoice takes it along.
            world
                .sql(
                    "update apipay.invoices i set settled = true
                      where not exists (select from apipay.jobs j where j.invoice_id = i.id)",
                )
                .await;
        }
        world
            .sql("select apipay.resume('default', 'logged in')")
            .await;
    }
    world
        .until_job(job, "it is sent again", |row| {
            row["state"] == "accepted" && row["generation"] == 3
        })
        .await;
    daemon.until_logged("has been resumed since").await;
    let log = daemon.log_text();
    assert!(!log.contains("nobody followed"), "{log}");
    let back = json!({"status": "pending"});
    kaspi_decides(&world, &back).await;
    world.until(job, "succeeded").await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn what_died_before_an_operator_resumed_the_account_does_not_park_it_again() {
    let wish = Wish::default()
        .tune("breaker.probe_initial", "1h")
        .tune("breaker.probe_max", "1h")
        .tune("retry.async_error.initial", "2s")
        .tune("retry.async_error.max", "2s");
    let (world, daemon) = World::running_as(wish).await;
    let job = world.bill(phone::HELD, 500).await;
    world.until(job, "accepted").await;
    let gone = json!({"status": "error", "error_code": "kaspi_session_expired"});
    kaspi_decides(&world, &gone).await;
    world
        .until_true("select state = 'parked' from apipay.accounts where name = 'default'")
        .await;
    world
        .sql("select apipay.resume('default', 'logged in')")
        .await;
    let other = world.bill(phone::PAID, 600).await;
    world.until(other, "succeeded").await;
    world
        .until_job(job, "it is resubmitted", |row| row["generation"] == 2)
        .await;
    let parks = "apipay.events where subject = 'account' and to_state = 'parked'";
    assert_eq!(world.count(parks).await, 1);
    let back = json!({"status": "pending"});
    world
        .until_holds("it is delivered", async || {
            kaspi_decides(&world, &back).await > 0
        })
        .await;
    world.until(job, "succeeded").await;
    world.end([daemon]).await;
}

/// Each operation has its turn: bills that fail at Kaspi each time keep no refund from being the trial.
#[tokio::test]
async fn bills_that_die_of_the_session_each_time_keep_no_refund_from_being_tried() {
    let (world, daemon) = World::running().await;
    let odd = world.bill(phone::SESSION_INVALID, 500).await;
    world
        .until_true("select delivery_error = 'kaspi_session_invalid' from apipay.accounts where name = 'default'")
        .await;
    for amount in 600..620 {
        world.bill(phone::SESSION_INVALID, amount).await;
    }
    let paid = json!({"status": "paid", "amount": "1000.00"});
    let invoice = world.sandbox.invoice(&world.key("default"), paid).await;
    let params = json!({"invoice_id": invoice, "amount": 100});
    let refund = world.enqueue("invoice.refund", params).await;
    world.until(refund, "succeeded").await;
    let row = world.job(odd).await;
    assert!(row["finished_at"].is_null(), "{row}");
    drop(daemon);
    world.end_unchecked().await;
}
