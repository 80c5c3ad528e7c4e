//! Cancels: accepted with 202, and done once the invoice is seen cancelled.

use serde_json::json;

use crate::world::{Job, World, phone};

async fn pending_invoice(world: &World, outcome: &str) -> i64 {
    let id = world
        .sandbox
        .invoice(&world.key("default"), json!({"status": "pending"}))
        .await;
    world
        .sandbox
        .set_invoice(id, json!({"cancel_outcome": outcome}))
        .await;
    id
}

async fn expect_mirror(world: &World, invoice: i64, status: &str) {
    let is_so = format!("select status = '{status}' from apipay.invoices where id = {invoice}");
    world.until_true(&is_so).await;
}

async fn cancel(world: &World, invoice: i64) -> Job {
    world
        .enqueue("invoice.cancel", json!({"invoice_id": invoice}))
        .await
}

#[tokio::test]
async fn a_cancel_succeeds_once_the_invoice_is_seen_cancelled() {
    let (world, daemon) = World::running().await;
    let invoice = pending_invoice(&world, "cancelled").await;
    let job = cancel(&world, invoice).await;
    world.until(job, "succeeded").await;
    let sent = world
        .sandbox
        .requests_to("POST /invoices/{id}/cancel")
        .await;
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0]["status"], 202);
    let walked = world
        .rows(&format!("select to_state from apipay.events where job_id = {job} and subject = 'job' order by id"))
        .await;
    let walked: Vec<&str> = walked
        .iter()
        .map(|e| e["to_state"].as_str().unwrap())
        .collect();
    assert_eq!(walked, ["sending", "accepted", "succeeded"]);
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_cancel_that_the_customer_outran_fails_and_the_invoice_is_paid() {
    let (world, daemon) = World::running().await;
    let invoice = pending_invoice(&world, "already_paid").await;
    let job = cancel(&world, invoice).await;
    let row = world.until(job, "failed").await;
    assert_eq!(row["error_code"], "invoice_already_paid");
    expect_mirror(&world, invoice, "paid").await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_cancel_of_a_paid_invoice_fails_as_already_paid() {
    let (world, daemon) = World::running().await;
    let invoice = world
        .sandbox
        .invoice(&world.key("default"), json!({"status": "paid"}))
        .await;
    let job = cancel(&world, invoice).await;
    let row = world.until(job, "failed").await;
    assert_eq!(row["reason"], "already_paid");
    // What was read to decide that is not forgotten.
    expect_mirror(&world, invoice, "paid").await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_cancel_that_somebody_was_faster_with_leaves_a_cancelled_invoice() {
    let (world, daemon) = World::running().await;
    let invoice = pending_invoice(&world, "already_cancelled").await;
    let job = cancel(&world, invoice).await;
    world.until(job, "succeeded").await;
    expect_mirror(&world, invoice, "cancelled").await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_cancel_that_was_silently_dropped_is_asked_for_again_after_ten_minutes() {
    let (world, daemon) = World::running().await;
    let invoice = pending_invoice(&world, "pending").await;
    let job = cancel(&world, invoice).await;
    world.until(job, "accepted").await;
    world
        .until_true(&format!(
            "select status = 'pending' from apipay.invoices where id = {invoice}"
        ))
        .await;
    world
        .sandbox
        .set_invoice(invoice, json!({"cancel_outcome": "cancelled"}))
        .await;
    assert_eq!(
        world
            .sandbox
            .requests_to("POST /invoices/{id}/cancel")
            .await
            .len(),
        1
    );
    world
        .sql(&format!(
            "update apipay.jobs set updated_at = now() - interval '11 minutes' where id = {job}"
        ))
        .await;
    world.until(job, "succeeded").await;
    assert_eq!(
        world
            .sandbox
            .requests_to("POST /invoices/{id}/cancel")
            .await
            .len(),
        2
    );
    world.end([daemon]).await;
}

/// Each time the gateway accepts the cancellation, and the invoice is pending again.
#[tokio::test]
async fn a_cancel_that_is_dropped_again_is_told_until_it_has_ended() {
    let (world, daemon) = World::running().await;
    let invoice = pending_invoice(&world, "pending").await;
    let job = cancel(&world, invoice).await;
    let told = "select count(*) > 0 from apipay.alerts where kind = 'job_overdue'";
    let sent = async || {
        let requests = world.sandbox.requests_to("POST /invoices/{id}/cancel");
        requests.await.len()
    };
    for times in 1..=3 {
        world
            .until_holds("it is sent", async || sent().await == times)
            .await;
        world.until(job, "accepted").await;
        world
            .until_true(&format!(
                "select status = 'pending' from apipay.invoices where id = {invoice}"
            ))
            .await;
        let is_told = world.value(&format!("select to_jsonb(({told}))")).await;
        assert_eq!(is_told, json!(times > 2), "after {times} times");
        let explain = world.explain(job).await;
        assert!(
            explain.contains("which can still be paid")
                && explain.contains("If nothing has come of it "),
            "{explain}"
        );
        world
            .sql(&format!(
                "update apipay.jobs set updated_at = now() - interval '11 minutes' where id = {job}"
            ))
            .await;
    }
    let open = "apipay.alerts where kind = 'job_overdue' and resolved_at is null";
    world
        .until_true(&format!(
            "select exists (select from {open} and summary like 'Job {job} (invoice.cancel) of account default was sent 2 times%invoice {invoice} is pending.')"
        ))
        .await;
    // It is one alert, however often the job is sent meanwhile.
    world
        .until_holds("it is sent once more", async || sent().await == 4)
        .await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(world.count(open).await, 1);
    world
        .sandbox
        .set_invoice(invoice, json!({"status": "cancelled"}))
        .await;
    world.until(job, "succeeded").await;
    world
        .until_true(&format!(
            "select bool_and(resolution = 'job {job} is succeeded now') from apipay.alerts where kind = 'job_overdue'"
        ))
        .await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_bill_can_be_cancelled_by_the_id_that_its_job_brought_back() {
    let (world, daemon) = World::running().await;
    let bill = world.bill(phone::UNPAID, 1200).await;
    let invoice = world.until(bill, "succeeded").await["invoice_id"]
        .as_i64()
        .unwrap();
    let job = cancel(&world, invoice).await;
    world.until(job, "succeeded").await;
    world
        .until_true(&format!("select status = 'cancelled' and job_id = {bill} from apipay.invoices where id = {invoice}"))
        .await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_cancel_of_an_unknown_invoice_fails() {
    let (world, daemon) = World::running().await;
    let job = cancel(&world, 999_999).await;
    let row = world.until(job, "failed").await;
    assert_eq!(row["http_status"], 404);
    world.end([daemon]).await;
}

/// The answer to the cancel was lost, and the next look at its invoice is answered as if there were none.
#[tokio::test]
async fn nobody_believes_that_an_invoice_which_was_seen_does_not_exist() {
    let (world, daemon) = World::running().await;
    let job = world.bill("87015550023", 100).await;
    let invoice = world.until(job, "succeeded").await["invoice_id"]
        .as_i64()
        .unwrap();
    let missing = json!({
        "route": "GET /invoices/{id}",
        "answer": {"status": 404, "json": {"error": "Invoice not found"}},
    });
    world.sandbox.fault(missing).await;
    let cut = json!({"route": "POST /invoices/{id}/cancel", "cut": "after_effect"});
    world.sandbox.fault(cut).await;
    let cancelled = cancel(&world, invoice).await;
    world.until(cancelled, "succeeded").await;
    let looked: Vec<_> = world
        .attempts(cancelled)
        .await
        .iter()
        .map(|attempt| attempt["http_status"].clone())
        .collect();
    assert!(looked.contains(&json!(404)), "{looked:?}");
    expect_mirror(&world, invoice, "cancelled").await;
    world.end([daemon]).await;
}
