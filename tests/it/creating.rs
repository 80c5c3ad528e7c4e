//! A bill: created once, delivered, followed to its end.

use serde_json::json;

use crate::world::{Wish, World, phone};

#[tokio::test]
async fn a_bill_is_created_once_and_followed_until_it_is_paid() {
    let (world, daemon) = World::running().await;
    let job = world
        .enqueue(
            "invoice.create",
            json!({"phone_number": phone::PAID, "amount": 15000, "external_order_id": "order-1",
                   "internal_comment": "two coats"}),
        )
        .await;

    let row = world.until(job, "succeeded").await;
    assert_eq!(row["result"]["id"], row["invoice_id"]);
    world
        .until_true(&format!(
            "select status = 'paid' and settled and paid_at is not null from apipay.invoices where job_id = {job}"
        ))
        .await;

    let effects = world.effects_of(job).await;
    assert_eq!(effects.len(), 1, "{effects:?}");
    assert_eq!(effects[0]["amount"], "15000.00");
    assert_eq!(effects[0]["external_order_id"], "order-1");
    assert_eq!(effects[0]["idempotency_key"], row["token"]);
    let comment = effects[0]["internal_comment"].as_str().unwrap();
    assert!(comment.starts_with("two coats [apipayd "), "{comment}");
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_bill_that_kaspi_has_not_delivered_yet_is_accepted_and_waited_for() {
    let (world, daemon) = World::running().await;
    let job = world.bill(phone::HELD, 4000).await;
    let row = world.until(job, "accepted").await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(world.job(job).await["state"], "accepted");
    let invoice = row["invoice_id"].as_i64().unwrap();
    world
        .sandbox
        .set_invoice(invoice, json!({"status": "pending"}))
        .await;
    world.until(job, "succeeded").await;
    assert_eq!(world.sandbox.requests_to("POST /invoices").await.len(), 1);
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_phone_number_may_be_written_as_people_write_it() {
    let (world, daemon) = World::running().await;
    let params = json!({"phone_number": "+7 (701) 555-00-77", "amount": 100});
    let job = world.enqueue("invoice.create", params).await;
    world.until(job, "succeeded").await;
    assert_eq!(world.effects_of(job).await[0]["phone"], "87015550077");
    world.end([daemon]).await;
}

/// Nothing listens at the first address; at the second, nobody speaks TLS.
#[tokio::test]
async fn a_gateway_that_cannot_be_reached_is_tried_again_and_then_given_up_without_a_doubt() {
    let world = World::made(Wish::default().tune("retry.network.attempts", "3")).await;
    let sandbox = world.sandbox.running.addr;
    for base in [
        "http://127.0.0.1:1/api/v1".to_owned(),
        format!("https://{sandbox}/api/v1"),
    ] {
        let mut daemon = world
            .tuned_daemon(&[("accounts.default.base_url", base)])
            .await;
        let job = world.bill(phone::PAID, 100).await;
        let row = world.until(job, "failed").await;
        assert_eq!(row["reason"], "gave_up");
        assert_eq!(row["attempts"], 3);
        let attempts = world.attempts(job).await;
        assert!(
            attempts
                .iter()
                .all(|attempt| attempt["kind"] == "send" && attempt["effect"] == "not_applied"),
            "{attempts:?}"
        );
        daemon.stop().await;
    }
    assert_eq!(world.sandbox.requests().await.len(), 0);
    world.end([]).await;
}
