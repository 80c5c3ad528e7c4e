//! Whatever invoice of its job a decision has seen is followed, although the job does not go by it: it may rise and be paid.

use std::time::Duration;

use serde_json::json;

use crate::world::{Job, Wish, World, phone};

/// A bill whose first request made this and got no clear answer; what it made dies at once. Its job, and that.
async fn lost(world: &World, times: u32) -> (Job, i64) {
    let fault = json!({"route": "POST /invoices", "effect": "apply", "times": times,
                       "answer": {"preset": "502_html"}});
    world.sandbox.fault(fault).await;
    let job = world.bill(phone::UNPAID, 700).await;
    (job, dead(world, job, 0).await)
}

/// What this request of the job made, as soon as it did: dead from then on.
async fn dead(world: &World, job: Job, number: usize) -> i64 {
    world
        .until_holds("it is made", async || {
            world.effects_of(job).await.len() > number
        })
        .await;
    let made = world.effects_of(job).await[number]["invoice_id"]
        .as_i64()
        .unwrap();
    let dead = json!({"status": "error", "error_code": "network_unavailable"});
    world.sandbox.set_invoice(made, dead).await;
    made
}

/// It is followed as the job's: once it is paid that is told.
async fn expect_watched(world: &World, job: Job, invoice: i64) {
    let followed = format!(
        "apipay.invoices i join apipay.jobs j on j.id = i.job_id and j.token = i.job_token
          where i.id = {invoice} and j.id = {job} and j.invoice_id is distinct from i.id"
    );
    assert_eq!(world.count(&followed).await, 1, "invoice {invoice}");
    let paid = json!({"status": "paid"});
    world.sandbox.set_invoice(invoice, paid).await;
    world
        .until_true(&format!(
            "select exists (select from apipay.alerts where kind = 'invoice_revived' and subject = 'invoice {invoice}')"
        ))
        .await;
}

#[tokio::test]
async fn of_a_job_that_is_called_off_every_dead_invoice_is_watched() {
    let wish = Wish::default()
        .late_lists(Duration::from_secs(3))
        .tune("follow.first", "300ms")
        .tune("follow.max", "500ms")
        .tune("reconcile.quiet_after_answer", "1s");
    let (world, daemon) = World::running_as(wish).await;
    let (job, first) = lost(&world, 2).await;
    dead(&world, job, 1).await;
    // Its last request is no longer at work by then.
    world
        .until_job(job, "a look-up has shown nothing alive", |row| {
            row["reason"] == "lookup_absent"
        })
        .await;
    world
        .sql(&format!(
            "select apipay.resolve({job}, false, null, 'nothing there', and_cancel => true)"
        ))
        .await;
    world.until(job, "cancelled").await;
    expect_watched(&world, job, first).await;
    drop(daemon);
    world.end_unchecked().await;
}

#[tokio::test]
async fn beside_an_invoice_that_a_person_made_the_jobs_own_is_watched() {
    let (world, daemon) = World::running().await;
    let by_hand = json!({"phone": phone::UNPAID, "amount": "700.00", "status": "pending"});
    let by_hand = world.sandbox.invoice(&world.key("default"), by_hand).await;
    let broken = json!({"route": "GET /invoices", "effect": "none",
                        "answer": {"status": 500, "json": {"message": "Server Error"}}});
    world.sandbox.fault(broken).await;
    let (job, own) = lost(&world, 1).await;
    world.until(job, "uncertain").await;
    world
        .sql(&format!(
            "select apipay.resolve({job}, true, {by_hand}, 'billed by hand')"
        ))
        .await;
    world.sandbox.mend().await;
    let row = world.until(job, "succeeded").await;
    assert_eq!(row["invoice_id"], by_hand, "{row}");
    expect_watched(&world, job, own).await;
    drop(daemon);
    world.end_unchecked().await;
}

#[tokio::test]
async fn of_a_job_that_is_sent_again_the_wrong_invoice_is_watched() {
    let wish = Wish::default()
        .without_keys()
        .tune("reconcile.quiet_after_answer", "2s");
    let (world, daemon) = World::running_as(wish).await;
    world
        .sandbox
        .organization(json!({"wrong_amount": true}))
        .await;
    let (job, wrong) = lost(&world, 1).await;
    world
        .sandbox
        .organization(json!({"wrong_amount": false}))
        .await;
    world.until(job, "uncertain").await;
    world
        .sql(&format!(
            "select apipay.resolve({job}, false, null, 'not done')"
        ))
        .await;
    world.until(job, "succeeded").await;
    expect_watched(&world, job, wrong).await;
    drop(daemon);
    world.end_unchecked().await;
}
