//! What is seen of one invoice or refund and cannot be stored costs little, and keeps no other from being followed.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::{mend, refuse, refuse_what_is_due, told};
use crate::world::{World, phone};

async fn open_invoice(world: &World) -> i64 {
    let job = world.bill(phone::UNPAID, 488).await;
    let row = world.until(job, "succeeded").await;
    row["invoice_id"].as_i64().unwrap()
}

async fn until_paid(world: &World, invoice: i64) {
    world
        .until_true(&format!(
            "select status = 'paid' from apipay.invoices where id = {invoice}"
        ))
        .await;
}

async fn is_told(world: &World, object: &str) {
    world
        .until_true(&format!(
            "select exists (select from apipay.alerts where kind = 'job_stuck' and resolved_at is null
                             and summary like '%of {object} of account default%frozen by accounting%')"
        ))
        .await;
}

async fn until_it_is_not_told(world: &World) {
    world
        .until_true(
            "select not exists (select from apipay.alerts where kind = 'job_stuck' and resolved_at is null)",
        )
        .await;
}

/// How often this invoice was asked about: by itself, and among others.
async fn asked(world: &World, invoice: i64) -> usize {
    let number = invoice.to_string();
    let requests = world.sandbox.all_requests().await;
    let is_about = |request: &&Value| {
        let text = request.to_string();
        text.contains(&number) && !text.contains("POST /invoices\"")
    };
    requests.iter().filter(is_about).count()
}

#[tokio::test]
async fn an_invoice_that_cannot_be_stored_is_asked_about_ever_less_often() {
    let (world, daemon) = World::running().await;
    let invoice = open_invoice(&world).await;
    let other = open_invoice(&world).await;
    refuse(
        &world,
        "invoices",
        &format!("old.id = {invoice} and new.status = 'partially_refunded'"),
    )
    .await;
    // It is read by itself, beside others that are checked all the while.
    let refunded = json!({"status": "partially_refunded"});
    world.sandbox.set_invoice(invoice, refunded).await;
    is_told(&world, &format!("invoice {invoice}")).await;
    let before = asked(&world, invoice).await;
    for _ in 0..40 {
        sleep(Duration::from_millis(400)).await;
        world
            .sql(&format!(
                "update apipay.invoices set next_check_at = now() where id = {other}"
            ))
            .await;
    }
    let asked = asked(&world, invoice).await - before;
    assert!(asked <= 6, "{asked} requests in sixteen seconds");

    world
        .sandbox
        .set_invoice(other, json!({"status": "paid"}))
        .await;
    until_paid(&world, other).await;
    mend(&world, "invoices").await;
    world
        .until_true(&format!(
            "select status = 'partially_refunded' from apipay.invoices where id = {invoice}"
        ))
        .await;
    until_it_is_not_told(&world).await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn an_invoice_that_cannot_even_be_claimed_keeps_no_other_from_being_followed() {
    let (world, daemon) = World::running().await;
    let invoice = open_invoice(&world).await;
    let other = open_invoice(&world).await;
    refuse_what_is_due(&world, "invoices", &format!("old.id = {invoice}")).await;
    for id in [invoice, other] {
        world
            .sandbox
            .set_invoice(id, json!({"status": "paid"}))
            .await;
    }
    until_paid(&world, other).await;
    is_told(&world, &format!("invoice {invoice}")).await;
    let later = world.bill(phone::PAID, 300).await;
    world.until(later, "succeeded").await;
    mend(&world, "invoices").await;
    until_paid(&world, invoice).await;
    until_it_is_not_told(&world).await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_refund_that_cannot_even_be_claimed_keeps_no_other_from_being_followed() {
    let (world, daemon) = World::running().await;
    world
        .sandbox
        .organization(json!({"refund_outcome": "stuck"}))
        .await;
    let mut jobs = Vec::new();
    for _ in 0..2 {
        let paid = json!({"status": "paid", "amount": "1000.00"});
        let invoice = world.sandbox.invoice(&world.key("default"), paid).await;
        let params = json!({"invoice_id": invoice, "amount": 10});
        jobs.push(world.enqueue("invoice.refund", params).await);
    }
    let mut refunds = Vec::new();
    for job in &jobs {
        let row = world.until(*job, "accepted").await;
        refunds.push(row["refund_id"].as_i64().unwrap());
    }
    refuse_what_is_due(&world, "refunds", &format!("old.id = {}", refunds[0])).await;
    is_told(&world, &format!("refund {}", refunds[0])).await;
    for refund in &refunds {
        world
            .sandbox
            .control(
                &format!("POST /refunds/{refund}"),
                json!({"status": "completed"}),
            )
            .await;
    }
    world.until(jobs[1], "succeeded").await;
    mend(&world, "refunds").await;
    world.until(jobs[0], "succeeded").await;
    until_it_is_not_told(&world).await;
    world.end([daemon]).await;
}

/// Neither hides the other: each is told, and ends by itself.
#[tokio::test]
async fn a_job_that_is_refused_is_told_although_an_invoice_cannot_be_stored() {
    let (world, daemon) = World::running().await;
    let invoice = open_invoice(&world).await;
    refuse(&world, "invoices", &format!("old.id = {invoice}")).await;
    let paid = json!({"status": "paid"});
    world.sandbox.set_invoice(invoice, paid).await;
    is_told(&world, &format!("invoice {invoice}")).await;
    world
        .sql(
            "create trigger hold_back before update on apipay.jobs for each row
               when (new.state = 'sending') execute function public.hold_back()",
        )
        .await;
    let job = world.bill(phone::PAID, 300).await;
    assert!(told(&world, job).await["resolved_at"].is_null());
    mend(&world, "jobs").await;
    world.until(job, "succeeded").await;
    is_told(&world, &format!("invoice {invoice}")).await;
    mend(&world, "invoices").await;
    until_paid(&world, invoice).await;
    until_it_is_not_told(&world).await;
    world.end([daemon]).await;
}
