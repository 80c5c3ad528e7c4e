//! Our copies of what is at the gateway agree with it after what we did and saw, and every sight of them is told.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::postgres::PgListener;
use tokio::time::timeout;

use crate::world::{Job, World, phone};

async fn refund(world: &World, params: Value) -> Job {
    world.enqueue("invoice.refund", params).await
}

/// Waits until the mirror of an invoice shows this, and is settled.
async fn until_books(world: &World, invoice: i64, status: &str, refunded: i64) {
    world
        .until_true(&format!(
            "select settled and status = '{status}' and total_refunded = {refunded} from apipay.invoices where id = {invoice}"
        ))
        .await;
}

/// Count and tenge of a kind of rows of `apipay.daily`, and of the mirrors.
async fn sums(world: &World, day_of: &str, mirrors: &str) -> (Value, Value) {
    let sum = "select jsonb_build_array(count(*), sum(amount))";
    let daily = format!(
        "select jsonb_build_array(sum(jobs), sum(amount)) from apipay.daily
          where day_of = '{day_of}' and state = '{day_of}' and day = (now() at time zone 'Asia/Almaty')::date"
    );
    (
        world.value(&daily).await,
        world.value(&format!("{sum} from {mirrors}")).await,
    )
}

#[tokio::test]
async fn what_was_refunded_by_us_stands_in_the_invoice_and_is_told() {
    let (world, daemon) = World::running().await;
    let bill = world.bill(phone::PAID, 1000).await;
    let invoice = world.until(bill, "succeeded").await["invoice_id"]
        .as_i64()
        .unwrap();
    world
        .until_true("select settled and status = 'paid' from apipay.invoices")
        .await;
    let part = refund(&world, json!({"invoice_id": invoice, "amount": 300})).await;
    world.until(part, "succeeded").await;
    until_books(&world, invoice, "partially_refunded", 300).await;
    let rest = refund(&world, json!({"invoice_id": invoice})).await;
    world.until(rest, "succeeded").await;
    until_books(&world, invoice, "partially_refunded", 1000).await;
    world
        .until_true("select bool_and(settled) from apipay.refunds")
        .await;

    let whole = world.bill(phone::PAID, 500).await;
    let other = world.until(whole, "succeeded").await["invoice_id"]
        .as_i64()
        .unwrap();
    world
        .until_true(&format!(
            "select settled and status = 'paid' from apipay.invoices where id = {other}"
        ))
        .await;
    let all = refund(&world, json!({"invoice_id": other})).await;
    world.until(all, "succeeded").await;
    until_books(&world, other, "paid", 500).await;
    let told = world
        .rows(&format!(
            "select from_state, to_state, (evidence ->> 'total_refunded')::numeric::int as refunded from apipay.events
              where subject = 'invoice' and subject_id = '{other}' order by id desc limit 1"
        ))
        .await;
    assert_eq!(
        told,
        [json!({"from_state": "paid", "to_state": "paid", "refunded": 500})]
    );
    for (day_of, mirrors) in [
        ("paid", "apipay.invoices where status <> 'pending'"),
        ("refunded", "apipay.refunds where status = 'completed'"),
    ] {
        let (daily, mirrors) = sums(&world, day_of, mirrors).await;
        assert_eq!(daily, mirrors, "{day_of}");
    }
    world.end([daemon]).await;
}

/// A bill of the till, of which a cashier has given a part back by hand.
#[tokio::test]
async fn an_invoice_that_nobody_knew_is_copied_with_all_its_refunds() {
    let (world, daemon) = World::running().await;
    let fields = json!({"status": "paid", "amount": "1000.00", "external_order_id": "till-7"});
    let invoice = world.sandbox.invoice(&world.key("default"), fields).await;
    let by_hand = json!({"invoice_id": invoice, "amount": "100.00", "reason": "by the cashier"});
    world.sandbox.control("POST /refunds", by_hand).await;
    let job = refund(&world, json!({"invoice_id": invoice, "amount": 250})).await;
    world.until(job, "succeeded").await;
    until_books(&world, invoice, "partially_refunded", 350).await;
    let refunds = world
        .rows("select job_id, amount::int, status, settled, external_order_id from apipay.refunds order by amount")
        .await;
    let row = |job: Option<Job>, amount| json!({"job_id": job, "amount": amount, "status": "completed", "settled": true, "external_order_id": "till-7"});
    assert_eq!(refunds, [row(None, 100), row(Some(job), 250)]);
    world
        .until_true(
            "select paid_at is not null and job_id is null and amount = 1000 from apipay.invoices",
        )
        .await;
    let (daily, mirrors) = sums(&world, "refunded", "apipay.refunds").await;
    assert_eq!(daily, mirrors);
    world.end([daemon]).await;
}

#[tokio::test]
async fn an_answer_of_yesterday_does_not_hide_a_refund() {
    let (world, daemon) = World::running().await;
    let invoice = world
        .sandbox
        .invoice(&world.key("default"), json!({"status": "paid"}))
        .await;
    world
        .sandbox
        .organization(json!({"cached_terminal_ms": 600_000}))
        .await;
    // Reads the invoice, and the gateway remembers what it answered.
    let cancel = world
        .enqueue("invoice.cancel", json!({"invoice_id": invoice}))
        .await;
    world.until(cancel, "failed").await;
    let job = refund(&world, json!({"invoice_id": invoice, "amount": 300})).await;
    world.until(job, "succeeded").await;
    until_books(&world, invoice, "partially_refunded", 300).await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_refund_that_is_done_is_asked_about_until_its_invoice_could_be_read() {
    let (world, daemon) = World::running().await;
    let fields = json!({"status": "paid", "amount": "1000.00"});
    let invoice = world.sandbox.invoice(&world.key("default"), fields).await;
    let broken =
        json!({"route": "GET /invoices/{id}", "share": 1.0, "answer": {"preset": "500_json"}});
    world.sandbox.fault(broken).await;
    let job = refund(&world, json!({"invoice_id": invoice})).await;
    // The books may be late; the job is not.
    world.until(job, "succeeded").await;
    world
        .until_true("select status = 'completed' and not settled from apipay.refunds")
        .await;
    world.sandbox.mend().await;
    until_books(&world, invoice, "paid", 1000).await;
    world.until_true("select settled from apipay.refunds").await;
    world.end([daemon]).await;
}

/// Its answer was lost, and it was paid before it was found.
#[tokio::test]
async fn an_invoice_that_is_paid_at_first_sight_is_told_like_a_change() {
    let (world, daemon) = World::running().await;
    let mut listener = PgListener::connect_with(world.pool()).await.unwrap();
    listener.listen("apipay_outcomes").await.unwrap();
    let cut = json!({"route": "POST /invoices", "cut": "after_effect"});
    world.sandbox.fault(cut).await;
    let job = world.bill(phone::PAID, 700).await;
    let invoice = world.until(job, "succeeded").await["invoice_id"].clone();
    let wanted = json!({"invoice": invoice, "account": "default", "job": job, "status": "paid"});
    let heard = async {
        loop {
            let notification = listener.recv().await.unwrap();
            let payload: Value = serde_json::from_str(notification.payload()).unwrap();
            if payload == wanted {
                break;
            }
        }
    };
    timeout(Duration::from_secs(20), heard)
        .await
        .unwrap_or_else(|_| panic!("nobody was told: {wanted}"));
    drop(listener);
    let told = world
        .rows("select from_state, to_state, job_id from apipay.events where subject = 'invoice'")
        .await;
    assert_eq!(
        told,
        [json!({"from_state": null, "to_state": "paid", "job_id": job})]
    );
    world.end([daemon]).await;
}
