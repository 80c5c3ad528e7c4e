//! What waited for a clear answer ends without one: nothing waits any more, and nothing says that something does.

use serde_json::json;

use crate::world::{Wish, World, phone};

const ENDED: &str =
    "nothing waits for it any more; the next payment will show whether ApiPay answers";

fn quick() -> Wish {
    Wish::default()
        .tune("retry.server_error.initial", "100ms")
        .tune("retry.server_error.max", "1s")
        .tune("follow.max", "1s")
}

async fn fail(world: &World, route: &str, preset: &str) {
    let rule = json!({"route": route, "share": 1.0, "answer": {"preset": preset}});
    world.sandbox.fault(rule).await;
}

async fn until_told(world: &World, fails: &str) {
    let query = format!(
        "select exists (select from apipay.alerts where kind = 'gateway_failing' and resolved_at is null
            and details ->> 'fails' = '{fails}')"
    );
    world.until_true(&query).await;
}

async fn until_ended(world: &World) {
    let query = format!(
        "select not exists (select from apipay.alerts where kind = 'gateway_failing' and resolved_at is null)
            and exists (select from apipay.alerts where kind = 'gateway_failing' and resolution = '{ENDED}')"
    );
    world.until_true(&query).await;
}

async fn status(world: &World) -> String {
    let query = "select to_jsonb(explain) from apipay.account_status";
    world.value(query).await.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_was_told_of_sends_ends_when_no_job_waits_and_begins_with_the_next_one() {
    let (world, daemon) = World::running_as(quick()).await;
    fail(&world, "POST /invoices", "500_json").await;
    for amount in 100..105 {
        world.bill(phone::PAID, amount).await;
    }
    until_told(&world, "sends").await;
    // One that is uncertain is queued again once it is looked up.
    let query = "select (select count(*) from apipay.cancel_jobs(array(select id from apipay.jobs where state = 'queued'), 'why')) >= 0
                    and not exists (select from apipay.jobs where state in ('queued', 'sending', 'uncertain'))";
    world.until_true(query).await;
    until_ended(&world).await;
    daemon.until_told("and nothing waits for one").await;
    let says = status(&world).await;
    assert!(
        says.starts_with(
            "Nothing waits to be sent; the last that was got no clear answer from ApiPay, since "
        ) && says.ends_with(": the next payment will show whether it answers. No job waits."),
        "{says}"
    );
    // What is known stays: the next one is a trial, and is told of while it waits.
    world.bill(phone::PAID, 200).await;
    until_told(&world, "sends").await;
    world.sandbox.mend().await;
    world.until_all_final().await;
    world.until_no_alert().await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn what_was_told_of_refunds_ends_when_all_of_them_have_expired() {
    let (world, daemon) = World::running_as(quick()).await;
    fail(&world, "GET /invoices/{id}/refunds", "500_json").await;
    let paid = json!({"status": "paid"});
    for _ in 0..4 {
        let invoice = world
            .sandbox
            .invoice(&world.key("default"), paid.clone())
            .await;
        let refund = json!({"invoice_id": invoice, "amount": 100});
        let soon = world
            .value("select to_jsonb(now() + interval '8 seconds')")
            .await;
        world
            .enqueue_with("invoice.refund", refund, json!({"expires_at": soon}))
            .await;
    }
    until_told(&world, "reads").await;
    world.until_all_final().await;
    assert_eq!(world.count("apipay.jobs where state = 'expired'").await, 4);
    until_ended(&world).await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn what_was_told_of_look_ups_ends_when_all_of_them_are_held() {
    let wish = quick().tune("reconcile.give_up", "10s");
    let (world, daemon) = World::running_as(wish).await;
    fail(&world, "GET /invoices", "500_json").await;
    let unclear = json!({"route": "POST /invoices", "times": 2, "effect": "apply", "answer": {"preset": "504_html"}});
    world.sandbox.fault(unclear).await;
    for amount in [700, 800] {
        world.bill(phone::UNPAID, amount).await;
    }
    until_told(&world, "reads").await;
    world
        .until_true("select count(*) = 2 from apipay.jobs where state = 'held'")
        .await;
    until_ended(&world).await;
    daemon.until_told("no clear answer to look_up").await;
    world.sandbox.mend().await;
    world
        .sql("select apipay.resolve(id, false, null, 'look again') from apipay.jobs")
        .await;
    world.until_all_final().await;
    world.end([daemon]).await;
}

/// It asks for nothing: what it got before is no news, however long it waits.
#[tokio::test]
async fn a_refund_that_waits_for_another_one_is_not_told_of_for_what_it_got_before() {
    let (world, daemon) = World::running_as(quick()).await;
    let bill = world.bill(phone::PAID, 1000).await;
    let invoice = world.until(bill, "succeeded").await["invoice_id"].clone();
    let refund = |amount: i64, reason: &str| {
        let params = json!({"invoice_id": invoice, "amount": amount, "reason": reason});
        world.enqueue("invoice.refund", params)
    };
    let first = refund(100, "sandbox:stuck").await;
    world.until(first, "accepted").await;
    let second = refund(200, "later").await;
    let waits = format!("select reason = 'waits_for_refund' from apipay.jobs where id = {second}");
    world.until_true(&waits).await;
    let failed = "now() - interval '10 minutes'";
    world
        .sql(&format!(
            "update apipay.jobs set failing_since = {failed}, updated_at = now() where id = {second}"
        ))
        .await;
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    let told = "apipay.alerts where kind = 'gateway_failing'";
    assert_eq!(world.count(told).await, 0);
    drop(daemon);
    world.end_unchecked().await;
}
