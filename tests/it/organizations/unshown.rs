//! Invoices that the gateway cannot show, while a key is not known yet.

use serde_json::{Value, json};
use tokio::time::sleep;

use super::*;

const CHECK: &str = "POST /invoices/status/check";

/// A world with so many open bills, whose daemon has stopped and whose key was renewed; returns the bills' invoices.
async fn renewed(bills: usize) -> (World, Daemon, Vec<i64>) {
    let wish = Wish::default()
        .tune("breaker.probe_initial", "1s")
        .tune("breaker.probe_max", "2s")
        .tune("retry.server_error.initial", "100ms")
        .tune("retry.server_error.max", "200ms")
        .tune("follow.max", "1s");
    let (world, mut earlier) = World::running_as(wish).await;
    let mut invoices = Vec::new();
    for _ in 0..bills {
        let bill = world.bill(phone::UNPAID, 500).await;
        let row = world.until(bill, "succeeded").await;
        invoices.push(row["invoice_id"].as_i64().unwrap());
    }
    let keys = json!({"organization": world.key("default"), "add_key": world.key("renewed")});
    world.sandbox.organization(keys).await;
    earlier.stop().await;
    (world, earlier, invoices)
}

async fn cannot_show(world: &World, invoice: i64) {
    let fault = json!({"route": CHECK, "match": invoice.to_string(), "share": 1.0,
                       "answer": {"preset": "500_json"}});
    world.sandbox.fault(fault).await;
}

#[tokio::test]
async fn a_renewed_key_is_known_after_a_few_questions_although_the_gateway_cannot_show_some_invoices()
 {
    let (world, earlier, invoices) = renewed(12).await;
    for number in [1, 4, 10] {
        cannot_show(&world, invoices[number]).await;
    }
    let before = world.sandbox.requests_to(CHECK).await.len();
    let renewed = with_key(&world, "renewed").await;
    world
        .until_true("select cardinality(key_fingerprints) = 2 from apipay.accounts")
        .await;
    let asked = world.sandbox.requests_to(CHECK).await.len() - before;
    assert!(asked <= 8, "{asked} questions");
    assert_eq!(told(&world).await, Vec::<Value>::new());
    let next = world.bill(phone::PAID, 500).await;
    world.until(next, "succeeded").await;
    world.sandbox.mend().await;
    world.end([earlier, renewed]).await;
}

#[tokio::test]
async fn a_gateway_that_fails_when_asked_for_invoices_is_told_as_what_was_seen() {
    let (world, earlier, _) = renewed(3).await;
    world
        .sandbox
        .fault(json!({"route": CHECK, "share": 1.0, "answer": {"preset": "500_json"}}))
        .await;
    let renewed = with_key(&world, "renewed").await;
    let alert = until_refused(&world).await;
    let (summary, action) = (
        alert["summary"].as_str().unwrap(),
        alert["action"].as_str().unwrap(),
    );
    assert!(summary.contains("failed when asked"), "{summary}");
    assert!(summary.contains("HTTP 500"), "{summary}");
    assert!(!summary.contains("of another organization"), "{summary}");
    assert!(!action.contains("of a second organization"), "{action}");
    // Never so often that it is a burden.
    let checks = async || world.sandbox.requests_to(CHECK).await.len();
    let before = checks().await;
    sleep(Duration::from_secs(5)).await;
    let asked = checks().await - before;
    assert!((1..=4).contains(&asked), "{asked} questions in 5 seconds");
    world.sandbox.mend().await;
    until_accepted(&world).await;
    world.end([earlier, renewed]).await;
}
