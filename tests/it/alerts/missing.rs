//! What ApiPay leaves out of its answers is told: nobody sees whether it is paid.

use serde_json::{Value, json};

use super::{obey, open, until_ended};
use crate::world::{Wish, World, phone};

const KIND: &str = "invoice_missing";

async fn leave_out(world: &World, route: &str, body: Value) {
    let answer = json!({"status": 200, "json": body});
    world
        .sandbox
        .fault(json!({"route": route, "times": 100_000, "answer": answer}))
        .await;
}

/// As if they had been asked for in vain for so long.
async fn pass(world: &World, table: &str, minutes: u32) {
    world
        .sql(&format!(
            "update apipay.{table} set created_at = now() - interval '{minutes} minutes', checked_at = checked_at - interval '{minutes} minutes',
                    next_check_at = now() where not settled"
        ))
        .await;
}

#[tokio::test]
async fn invoices_that_apipay_does_not_show_are_one_alert_until_it_shows_all_of_them() {
    let (world, daemon) = World::running_as(Wish::default()).await;
    let mut jobs = Vec::new();
    for _ in 0..2 {
        let job = world.bill(phone::UNPAID, 500).await;
        let row = world.until(job, "succeeded").await;
        jobs.push((job, row["invoice_id"].as_i64().unwrap()));
    }
    let is_open = format!("apipay.alerts where kind = '{KIND}'");
    leave_out(
        &world,
        "POST /invoices/status/check",
        json!({"invoices": []}),
    )
    .await;
    // Not for minutes.
    let asked = world
        .sandbox
        .requests_to("POST /invoices/status/check")
        .await
        .len();
    pass(&world, "invoices", 10).await;
    world
        .until_holds("they are asked for", async || {
            let checks = world
                .sandbox
                .requests_to("POST /invoices/status/check")
                .await;
            checks.len() > asked
        })
        .await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(world.count(&is_open).await, 0);
    let (first, second) = (jobs[0], jobs[1]);
    world
        .sql(&format!(
            "update apipay.invoices set checked_at = now() - interval '16 minutes', next_check_at = now() where id = {}",
            first.1
        ))
        .await;
    let alert = open(&world, KIND, "severity = 'critical'").await;
    let summary = alert["summary"].as_str().unwrap();
    let named = format!("invoice {} (job {})", first.1, first.0);
    assert!(summary.contains(&named), "{summary}");
    assert!(!summary.contains(&second.1.to_string()), "{summary}");
    obey(&world, &alert).await;
    let said = format!("ApiPay has not shown invoice {} since", first.1);
    assert!(world.explain(first.0).await.contains(&said));
    assert!(!world.explain(second.0).await.contains("has not shown"));

    // A second one is added to it.
    pass(&world, "invoices", 30).await;
    let both = format!(
        "details -> 'invoices' ?& array['{}', '{}']",
        first.1, second.1
    );
    let alert = open(&world, KIND, &both).await;
    let named = format!("invoice {} (job {})", second.1, second.0);
    let summary = alert["summary"].as_str().unwrap();
    assert!(summary.contains(&named), "{summary}");

    // While one of them is missing it goes on.
    let shown = |id: i64| format!("update apipay.invoices set checked_at = now() where id = {id}");
    world.sql(&shown(first.1)).await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    open(&world, KIND, "true").await;
    world.sandbox.mend().await;
    world
        .sql("update apipay.invoices set next_check_at = now()")
        .await;
    until_ended(&world, KIND, "true").await;
    assert_eq!(world.count(&is_open).await, 1);
    assert!(!world.explain(second.0).await.contains("has not shown"));
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_refund_that_apipay_does_not_show_is_told() {
    let (world, daemon) = World::running_as(Wish::default()).await;
    let bill = world.bill(phone::PAID, 500).await;
    let invoice = world.until(bill, "succeeded").await["invoice_id"].clone();
    world
        .until_true("select exists (select from apipay.invoices where status = 'paid')")
        .await;
    let route = "GET /invoices/{id}/refunds";
    let job = world
        .enqueue("invoice.refund", json!({"invoice_id": invoice}))
        .await;
    world.until(job, "succeeded").await;
    world
        .until_true("select exists (select from apipay.refunds where status = 'completed')")
        .await;
    leave_out(&world, route, json!({"refunds": []})).await;
    world.sql("update apipay.refunds set settled = false").await;
    pass(&world, "refunds", 20).await;
    let alert = open(&world, KIND, "details -> 'refunds' <> '{}'").await;
    let summary = alert["summary"].as_str().unwrap();
    let words = format!("of invoice {invoice} (job {job})");
    assert!(summary.contains(&words), "{summary}");
    assert!(
        world
            .explain(job)
            .await
            .contains("ApiPay has not shown refund")
    );
    world.sandbox.mend().await;
    world
        .sql("update apipay.refunds set next_check_at = now()")
        .await;
    until_ended(&world, KIND, "true").await;
    world.end([daemon]).await;
}
