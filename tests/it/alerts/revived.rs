//! Invoices that live after their jobs were given up: each has its own alert, which says what helps as it stands.

use serde_json::{Value, json};

use super::{action, as_operator, obey, open, statements, until_ended};
use crate::world::{Daemon, Job, Wish, World, phone};

const KIND: &str = "invoice_revived";

/// A bill whose only invoice failed, and which was given up.
async fn given_up(world: &World) -> (Job, i64) {
    let job = world.bill(phone::NETWORK_UNAVAILABLE, 500).await;
    let row = world.until(job, "failed").await;
    assert_eq!(row["reason"], "gave_up");
    (job, row["invoice_id"].as_i64().unwrap())
}

async fn running() -> (World, Daemon) {
    World::running_as(Wish::default().tune("retry.async_error.attempts", "1")).await
}

async fn revive(world: &World, invoice: i64, status: &str) -> Value {
    let fields = json!({"status": status});
    world.sandbox.set_invoice(invoice, fields).await;
    // It is told just before it is stored.
    world
        .until_true(&format!(
            "select status = '{status}' from apipay.invoices where id = {invoice}"
        ))
        .await;
    open(world, KIND, &format!("subject = 'invoice {invoice}'")).await
}

#[tokio::test]
async fn each_invoice_that_lives_again_is_told_by_itself_and_ends_when_it_is_cancelled() {
    let (world, daemon) = running().await;
    let (first, second) = (given_up(&world).await, given_up(&world).await);
    assert!(world.explain(first.0).await.contains("apipay.retry("));
    for (job, invoice) in [first, second] {
        revive(&world, invoice, "pending").await;
        let explain = world.explain(job).await;
        assert!(
            !explain.contains("apipay.retry(") && explain.contains("the customer may pay it"),
            "{explain}"
        );
        let retry = format!("select apipay.retry({job}, 'why')");
        let refused = as_operator(&world, &retry).await.unwrap_err().to_string();
        assert!(refused.contains("bill the customer twice"), "{refused}");
    }
    world
        .until_holds("both are told", async || {
            world.alerts.deliveries("firing").len() == 2
        })
        .await;
    let prints: Vec<Value> = world
        .alerts
        .deliveries("firing")
        .iter()
        .map(|n| n["alerts"][0]["fingerprint"].clone())
        .collect();
    assert_ne!(prints[0], prints[1], "a receiver shows both");
    for (_, invoice) in [first, second] {
        let subject = format!("subject = 'invoice {invoice}'");
        obey(&world, &open(&world, KIND, &subject).await).await;
        until_ended(&world, KIND, &subject).await;
    }
    world.until_all_final().await;
    assert_eq!(world.count("apipay.alerts").await, 2);
    drop(daemon);
    // Cancelled invoices of jobs that failed stand in the ledger.
    world.end_unchecked().await;
}

/// Of two invoices of one job that live, the one that the job goes by is no trouble: the alert of the other says what helps.
#[tokio::test]
async fn the_one_that_the_job_goes_by_is_not_told_to_be_cancelled() {
    let wish = Wish::default()
        .tune("retry.async_error.initial", "2s")
        .tune("retry.async_error.max", "2s");
    let (world, daemon) = World::running_as(wish).await;
    let job = world.bill(phone::NETWORK_UNAVAILABLE, 500).await;
    let all = format!(
        "select to_jsonb(array(select id from apipay.invoices where job_id = {job} and status = 'error' order by id))"
    );
    world
        .until_true(&format!(
            "select count(*) = 2 from apipay.invoices where job_id = {job} and status = 'error'"
        ))
        .await;
    let made = world.value(&all).await;
    let (first, second) = (made[0].as_i64().unwrap(), made[1].as_i64().unwrap());
    world
        .sandbox
        .set_invoice(first, json!({"status": "pending"}))
        .await;
    world
        .until_job(job, "it goes by the first", |row| {
            row["invoice_id"] == first && row["state"] != "queued"
        })
        .await;
    revive(&world, second, "pending").await;
    let of_first = format!("subject = 'invoice {first}'");
    let open_of_first = format!(
        "select not exists (select from apipay.alerts where resolved_at is null and {of_first})"
    );
    world.until_true(&open_of_first).await;
    let told = open(&world, KIND, &format!("subject = 'invoice {second}'")).await;
    assert!(
        action(&told).contains(&format!("cancel_invoice({second},")),
        "{told}"
    );
    obey(&world, &told).await;
    until_ended(&world, KIND, &format!("subject = 'invoice {second}'")).await;
    world.until_true(&open_of_first).await;
    drop(daemon);
    world.end_unchecked().await;
}

#[tokio::test]
async fn one_that_is_paid_is_not_to_be_cancelled_and_ends_when_a_person_has_seen_to_it() {
    let (world, daemon) = running().await;
    let (job, invoice) = given_up(&world).await;
    let pending = revive(&world, invoice, "pending").await;
    assert!(action(&pending).contains("cancel_invoice("), "{pending}");
    revive(&world, invoice, "paid").await;
    let paid = open(&world, KIND, "details ->> 'status' = 'paid'").await;
    assert_eq!(paid["id"], pending["id"]);
    assert!(!action(&paid).contains("cancel_invoice("), "{paid}");
    assert!(action(&paid).contains("deliver what was ordered"), "{paid}");
    let explain = world.explain(job).await;
    assert!(
        !explain.contains("apipay.retry(")
            && explain.contains("was paid by the customer after all"),
        "{explain}"
    );
    tokio::time::sleep(std::time::Duration::from_secs(11)).await;
    open(&world, KIND, "true").await;
    assert_eq!(statements(action(&paid)).len(), 1);
    obey(&world, &paid).await;
    until_ended(&world, KIND, "true").await;
    let ended = &world.rows("select * from apipay.alerts").await[0];
    let how = ended["resolution"].as_str().unwrap();
    assert!(how.starts_with("acknowledged by "), "{how}");
    let events = "apipay.events where evidence ->> 'kind' = 'invoice_revived' and reason = 'why'";
    assert_eq!(world.count(events).await, 1);
    drop(daemon);
    world.end_unchecked().await;
}

/// The shop was told for good that its bill is cancelled: what comes after that is told.
#[tokio::test]
async fn a_bill_that_a_job_cancelled_and_that_is_paid_after_that_is_told_in_the_order_that_was_seen()
 {
    let (world, daemon) = World::running().await;
    let job = world.bill(phone::UNPAID, 500).await;
    let invoice = world.until(job, "succeeded").await["invoice_id"]
        .as_i64()
        .unwrap();
    let cancel = world
        .enqueue("invoice.cancel", json!({"invoice_id": invoice}))
        .await;
    world.until(cancel, "succeeded").await;
    world
        .until_true(&format!(
            "select status = 'cancelled' from apipay.invoices where id = {invoice}"
        ))
        .await;
    let paid = revive(&world, invoice, "paid").await;
    let summary = paid["summary"].as_str().unwrap();
    assert_eq!(
        summary,
        format!(
            "Invoice {invoice} of account default was seen cancelled, by job {cancel}, which succeeded, and after that paid; \
             job {job}, for which it was made, is succeeded."
        )
    );
    assert!(action(&paid).contains("deliver what was ordered"), "{paid}");
    let explain = world.explain(cancel).await;
    assert!(
        explain.contains("was seen cancelled, and after that paid"),
        "{explain}"
    );
    // It is not the bill's job that ends it, but a person.
    tokio::time::sleep(std::time::Duration::from_secs(11)).await;
    obey(&world, &open(&world, KIND, "true").await).await;
    until_ended(&world, KIND, "true").await;
    drop(daemon);
    world.end_unchecked().await;
}

/// Two of one job, as a request that was forgotten leaves them: the job goes by one, and the other is told.
#[tokio::test]
async fn one_that_lives_beside_the_jobs_own_is_told() {
    let (world, daemon) = World::running().await;
    let job = world.bill(phone::UNPAID, 500).await;
    let own = world.until(job, "succeeded").await["invoice_id"].clone();
    let fields = json!({"status": "pending", "amount": "500.00"});
    let second = world.sandbox.invoice(&world.key("default"), fields).await;
    world
        .sql(&format!(
            "insert into apipay.invoices (account, id, job_id, job_token, status, amount, next_check_at)
             select 'default', {second}, id, token, 'processing', 500, now() from apipay.jobs where id = {job}"
        ))
        .await;
    let told = open(&world, KIND, &format!("subject = 'invoice {second}'")).await;
    let summary = told["summary"].as_str().unwrap();
    assert!(
        summary.contains(&format!(
            "invoice {own} of the same job {job} is pending too"
        )),
        "{summary}"
    );
    obey(&world, &told).await;
    until_ended(&world, KIND, "true").await;
    assert_eq!(world.count("apipay.alerts").await, 1, "its own is none");
    drop(daemon);
    // The second one was made by hand, under no name of the job's.
    world.end_unchecked().await;
}

/// What can be paid may yet be paid twice: a person's word silences it, and the payment is told.
#[tokio::test]
async fn one_that_can_still_be_paid_is_not_ended_by_a_word_and_its_payment_is_told() {
    let (world, daemon) = running().await;
    let (_, invoice) = given_up(&world).await;
    let pending = revive(&world, invoice, "pending").await;
    let seen = format!("select apipay.acknowledge({}, 'seen')", pending["id"]);
    as_operator(&world, &seen).await.unwrap();
    let open_still = open(&world, KIND, "acked_at is not null").await;
    assert_eq!(open_still["id"], pending["id"]);
    world
        .until_holds("the first is told", async || {
            !world.alerts.deliveries("firing").is_empty()
        })
        .await;
    revive(&world, invoice, "paid").await;
    world
        .until_holds("the payment is told", async || {
            let deliveries = world.alerts.deliveries("firing");
            let texts = deliveries
                .iter()
                .map(|delivery| delivery["commonAnnotations"].to_string());
            texts
                .into_iter()
                .any(|text| text.contains("deliver what was ordered"))
        })
        .await;
    as_operator(&world, &seen).await.unwrap();
    until_ended(&world, KIND, "true").await;
    drop(daemon);
    world.end_unchecked().await;
}

#[tokio::test]
async fn one_whose_money_is_given_back_ends_with_the_refund() {
    let (world, daemon) = running().await;
    let (_, invoice) = given_up(&world).await;
    revive(&world, invoice, "paid").await;
    let refund = world
        .enqueue("invoice.refund", json!({"invoice_id": invoice}))
        .await;
    world.until(refund, "succeeded").await;
    until_ended(&world, KIND, "true").await;
    drop(daemon);
    world.end_unchecked().await;
}
