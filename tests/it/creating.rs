//! A bill: created once, delivered, followed to its end.

use serde_json::json;

use crate::world::{World, phone};

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
