//! A trigger of the shop's that returns null has a statement succeed and change nothing: it is told like one that raises,
//! with its name, and whatever is not its row's goes on.

use serde_json::{Value, json};

use crate::world::{Job, World, phone};

/// A trigger of the shop's that returns null for such rows.
async fn hush(world: &World, timing: &str, rows: &str) {
    world
        .sql(&format!(
            "create function public.hush() returns trigger language plpgsql as $$
             begin
               return case when {rows} then null else new end;
             end $$;
             create trigger hush before {timing} for each row execute function public.hush()"
        ))
        .await;
}

async fn mend(world: &World) {
    world.sql("drop function public.hush cascade").await;
    world
        .until_holds("it has ended", async || open(world).await.is_empty())
        .await;
}

/// A bill of this amount, by which the triggers know its rows.
async fn bill_of(world: &World, payer: &str, amount: u32) -> Job {
    let params = json!({"phone_number": payer, "amount": amount});
    let metadata = json!({"metadata": {"amount": amount}});
    world.enqueue_with("invoice.create", params, metadata).await
}

async fn open(world: &World) -> Vec<Value> {
    world
        .rows("select * from apipay.alerts where kind = 'job_stuck' and resolved_at is null")
        .await
}

/// The one alert, once it is open; it names the trigger.
async fn told(world: &World) -> Value {
    world
        .until_holds("it is told", async || open(world).await.len() == 1)
        .await;
    let told = open(world).await.remove(0);
    let summary = told["summary"].as_str().unwrap();
    assert!(
        summary.contains("swallowed without an error: the trigger hush returns null"),
        "{summary}"
    );
    told
}

/// What is not the row's of the trigger goes on.
async fn others_go_on(world: &World) {
    let other = bill_of(world, phone::PAID, 100).await;
    world.until(other, "succeeded").await;
    world
        .until_true(&format!(
            "select exists (select from apipay.invoices where job_id = {other} and status = 'paid')"
        ))
        .await;
}

const OUR_JOB: &str = "new.metadata ->> 'amount' = '488'";

#[tokio::test]
async fn an_outcome_that_a_trigger_swallows_is_told_with_its_name_and_waits() {
    let (world, daemon) = World::running().await;
    let swallows = format!("old.state = 'sending' and {OUR_JOB}");
    hush(&world, "update on apipay.jobs", &swallows).await;
    let job = bill_of(&world, phone::UNPAID, 488).await;
    others_go_on(&world).await;
    assert_eq!(told(&world).await["details"]["job"], job);
    assert_eq!(world.job(job).await["state"], "sending");
    let mut check = world.spawn(&["check"], &[]);
    check.ended(std::time::Duration::from_secs(20)).await;
    let said = check.log_text();
    assert!(said.contains("the trigger hush on apipay.jobs"), "{said}");
    mend(&world).await;
    world.until(job, "succeeded").await;
    assert_eq!(world.effects_of(job).await.len(), 1);
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_job_whose_claim_or_attempt_is_swallowed_is_not_sent_and_is_told() {
    let (world, daemon) = World::running().await;
    for (timing, when) in [
        (
            "update on apipay.jobs",
            format!("new.state = 'sending' and {OUR_JOB}"),
        ),
        (
            "insert on apipay.attempts",
            "(select metadata ->> 'amount' from apipay.jobs where id = new.job_id) = '488'"
                .to_owned(),
        ),
    ] {
        hush(&world, timing, &when).await;
        let job = bill_of(&world, phone::UNPAID, 488).await;
        others_go_on(&world).await;
        assert_eq!(told(&world).await["details"]["job"], job, "{timing}");
        assert_eq!(world.job(job).await["state"], "queued", "{timing}");
        assert!(world.effects_of(job).await.is_empty(), "{timing}");
        mend(&world).await;
        world.until(job, "succeeded").await;
        assert_eq!(world.effects_of(job).await.len(), 1, "{timing}");
    }
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_lease_that_cannot_run_out_and_a_lookup_that_cannot_be_claimed_are_told() {
    let (world, mut daemon) = World::running().await;
    let lost = json!({"route": "POST /invoices", "effect": "apply", "times": 1, "hang": true});
    for when in ["new.reason = 'lease_expired'", "new.lookups > old.lookups"] {
        hush(
            &world,
            "update on apipay.jobs",
            &format!("{when} and {OUR_JOB}"),
        )
        .await;
        world.sandbox.fault(lost.clone()).await;
        let job = bill_of(&world, phone::UNPAID, 488).await;
        world.until(job, "sending").await;
        daemon.kill().await;
        world.expire_lease(job).await;
        daemon = world.daemon().await;
        assert_eq!(told(&world).await["details"]["job"], job, "{when}");
        others_go_on(&world).await;
        mend(&world).await;
        world.until(job, "succeeded").await;
        assert_eq!(world.effects_of(job).await.len(), 1, "{when}");
    }
    world.end([daemon]).await;
}

#[tokio::test]
async fn an_invoice_that_cannot_be_stored_or_claimed_is_told_and_followed_later() {
    let (world, daemon) = World::running().await;
    for (timing, when) in [
        ("insert on apipay.invoices", "new.amount = 488"),
        (
            "insert or update on apipay.invoices",
            "new.amount = 488 and new.status = 'paid'",
        ),
        ("update on apipay.invoices", "old.amount = 488"),
    ] {
        let is_first = !timing.contains("update");
        if is_first {
            hush(&world, timing, when).await;
        }
        let job = bill_of(&world, phone::UNPAID, 488).await;
        if !is_first {
            world.until(job, "succeeded").await;
            hush(&world, timing, when).await;
            let invoice = world.job(job).await["invoice_id"].as_i64().unwrap();
            let paid = json!({"status": "paid"});
            world.sandbox.set_invoice(invoice, paid).await;
        }
        told(&world).await;
        others_go_on(&world).await;
        mend(&world).await;
        world.until(job, "succeeded").await;
        let expected = if is_first { "pending" } else { "paid" };
        world
            .until_true(&format!(
                "select status = '{expected}' from apipay.invoices where job_id = {job}"
            ))
            .await;
        assert_eq!(world.effects_of(job).await.len(), 1, "{timing}");
        world.sql("update apipay.invoices set settled = true").await;
    }
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_refund_that_cannot_be_stored_or_claimed_is_told_and_followed_later() {
    let (world, daemon) = World::running().await;
    for (timing, when) in [
        ("insert on apipay.refunds", "new.amount = 488"),
        ("update on apipay.refunds", "old.amount = 488"),
    ] {
        let bill = bill_of(&world, phone::PAID, 600).await;
        let invoice = world.until(bill, "succeeded").await["invoice_id"].clone();
        world
            .until_true(&format!(
                "select status = 'paid' from apipay.invoices where id = {invoice}"
            ))
            .await;
        hush(&world, timing, when).await;
        let params = json!({"invoice_id": invoice, "amount": 488});
        let job = world.enqueue("invoice.refund", params).await;
        told(&world).await;
        others_go_on(&world).await;
        mend(&world).await;
        world.until(job, "succeeded").await;
        world
            .until_true(&format!(
                "select status = 'completed' from apipay.refunds where job_id = {job}"
            ))
            .await;
        assert_eq!(world.effects_of(job).await.len(), 1, "{timing}");
    }
    world.end([daemon]).await;
}
