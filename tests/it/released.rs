//! A key that the gateway has released protects no more: what was made with it before is found, and told when it lives.

use std::time::Duration;

use apipayd::crash::{Point, VARIABLE};
use serde_json::{Value, json};

use crate::world::{Daemon, Job, Wish, World, phone};

/// Lists show what is new so much later.
const LAG: Duration = Duration::from_secs(3);

fn late() -> Wish {
    // Time for the first one to die before it is looked up.
    Wish::default()
        .late_lists(LAG)
        .tune("reconcile.quiet_after_answer", "1s")
}

/// A bill whose first request gets no clear answer; what that made dies at once. Its job, and that.
async fn lost(world: &World, phone: &str) -> (Job, i64) {
    lost_so_often(world, phone, 1).await
}

/// The same with so many requests without a clear answer.
async fn lost_so_often(world: &World, phone: &str, times: u32) -> (Job, i64) {
    let fault = json!({"route": "POST /invoices", "effect": "apply", "times": times,
                       "answer": {"preset": "502_html"}});
    world.sandbox.fault(fault).await;
    let job = world.bill(phone, 700).await;
    world
        .until_holds("the first is made", async || {
            !world.effects_of(job).await.is_empty()
        })
        .await;
    let first = world.effects_of(job).await[0]["invoice_id"]
        .as_i64()
        .unwrap();
    let dead = json!({"status": "error", "error_code": "network_unavailable"});
    world.sandbox.set_invoice(first, dead).await;
    (job, first)
}

/// A bill of which two requests got no clear answer, and what the first one made is dead. Its job, and what both made.
async fn lost_twice(world: &World) -> (Job, i64, i64) {
    let (job, first) = lost_so_often(world, phone::UNPAID, 2).await;
    world
        .until_holds("the second is made", async || {
            world.effects_of(job).await.len() == 2
        })
        .await;
    let second = world.effects_of(job).await[1]["invoice_id"]
        .as_i64()
        .unwrap();
    (job, first, second)
}

/// The job goes by what a repeated request made, and nobody knows of the first one yet.
async fn goes_by_another(world: &World, job: Job, first: i64) -> i64 {
    world
        .until_true(&format!(
            "select exists (select from apipay.invoices where job_id = {job} and others_unsought)"
        ))
        .await;
    assert_eq!(world.effects_of(job).await.len(), 2, "the key was free");
    let known = format!("apipay.invoices where id = {first}");
    assert_eq!(world.count(&known).await, 0, "no list has shown it");
    let own = format!("select to_jsonb(invoice_id) from apipay.jobs where id = {job}");
    world.value(&own).await.as_i64().unwrap()
}

async fn until_found(world: &World, job: Job, first: i64) {
    world
        .until_true(&format!(
            "select exists (select from apipay.invoices i join apipay.jobs j on j.id = i.job_id and j.token = i.job_token
                             where i.id = {first} and j.id = {job})
                and not exists (select from apipay.invoices where others_unsought)"
        ))
        .await;
}

async fn told(world: &World, first: i64) -> Value {
    world
        .until_true(&format!(
            "select exists (select from apipay.alerts where kind = 'invoice_revived' and subject = 'invoice {first}')"
        ))
        .await;
    let all = "apipay.alerts where kind = 'invoice_revived'";
    assert_eq!(world.count(all).await, 1);
    world
        .value(&format!(
            "select to_jsonb(a) from {all}",
            all = "apipay.alerts a where a.kind = 'invoice_revived'"
        ))
        .await
}

async fn running() -> (World, Daemon) {
    World::running_as(late()).await
}

#[tokio::test]
async fn what_a_lost_request_made_is_found_and_told_when_it_rises() {
    let (world, daemon) = running().await;
    let (job, first) = lost(&world, phone::UNPAID).await;
    let second = goes_by_another(&world, job, first).await;
    until_found(&world, job, first).await;
    let told_of = "apipay.alerts where kind = 'invoice_revived'";
    assert_eq!(world.count(told_of).await, 0, "it is dead");
    world
        .sandbox
        .set_invoice(first, json!({"status": "paid"}))
        .await;
    let alert = told(&world, first).await;
    let summary = alert["summary"].as_str().unwrap();
    assert!(summary.contains(&format!("invoice {second}")), "{summary}");
    drop(daemon);
    // Two invoices of one job stand in the ledger.
    world.end_unchecked().await;
}

/// The second one is settled soon, and so is the first when it is found.
#[tokio::test]
async fn what_was_paid_before_it_was_found_is_told() {
    let (world, daemon) = running().await;
    let (job, first) = lost(&world, phone::PAID).await;
    let second = goes_by_another(&world, job, first).await;
    world
        .sandbox
        .set_invoice(first, json!({"status": "paid"}))
        .await;
    world
        .until_true(&format!(
            "select status = 'paid' and not settled from apipay.invoices where id = {second}"
        ))
        .await;
    let alert = told(&world, first).await;
    let summary = alert["summary"].as_str().unwrap();
    assert!(summary.contains("the customer has paid twice"), "{summary}");
    until_found(&world, job, first).await;
    world
        .until_true("select bool_and(settled) from apipay.invoices")
        .await;
    drop(daemon);
    world.end_unchecked().await;
}

/// The answer to the repeated request names what has the key, and that is read by its number.
#[tokio::test]
async fn what_was_made_before_a_key_was_taken_is_found_too() {
    let (world, daemon) = running().await;
    let (job, first) = lost(&world, phone::UNPAID).await;
    let second = first + 1;
    let taken = json!({"error": "duplicate_idempotency_key", "message": "taken", "invoice_id": second, "status": "pending"});
    let fault = json!({"route": "POST /invoices", "effect": "apply", "times": 1,
                       "answer": {"status": 409, "json": taken}});
    world.sandbox.fault(fault).await;
    assert_eq!(goes_by_another(&world, job, first).await, second);
    until_found(&world, job, first).await;
    drop(daemon);
    world.end_unchecked().await;
}

#[tokio::test]
async fn a_daemon_may_die_between_the_alert_and_the_record_of_what_it_found() {
    for point in [Point::OthersBeforeRecord, Point::OthersAfterRecord] {
        let world = World::made(late()).await;
        let armed = (VARIABLE.to_owned(), point.name().to_owned());
        let mut doomed = world.spawn_in(&["run"], vec![armed]);
        let (job, first) = lost(&world, phone::PAID).await;
        goes_by_another(&world, job, first).await;
        world
            .sandbox
            .set_invoice(first, json!({"status": "paid"}))
            .await;
        let status = doomed.ended(Duration::from_secs(40)).await;
        assert!(!status.success(), "{status}");
        world.expire_promises().await;
        let daemon = world.daemon().await;
        until_found(&world, job, first).await;
        told(&world, first).await;
        drop(daemon);
        world.end_unchecked().await;
    }
}

/// A search that does not get an answer, or does not show what is known, is made again.
#[tokio::test]
async fn a_search_that_brings_nothing_is_made_again() {
    let (world, daemon) = running().await;
    let (job, first) = lost(&world, phone::PAID).await;
    goes_by_another(&world, job, first).await;
    let broken = json!({"route": "GET /invoices", "effect": "none", "times": 2,
                        "answer": {"status": 500, "json": {"message": "Server Error"}}});
    world.sandbox.fault(broken).await;
    until_found(&world, job, first).await;
    drop(daemon);
    world.end_unchecked().await;
}

/// A job that somebody has deleted has no others: what it made is settled like any other.
#[tokio::test]
async fn of_a_job_that_is_gone_nothing_is_searched_for() {
    let (world, daemon) = running().await;
    let (job, first) = lost(&world, phone::PAID).await;
    goes_by_another(&world, job, first).await;
    world.until(job, "succeeded").await;
    world
        .sql(&format!(
            "set session_replication_role = replica; delete from apipay.jobs where id = {job};
             set session_replication_role = origin"
        ))
        .await;
    world
        .until_true("select bool_and(settled and not others_unsought) from apipay.invoices")
        .await;
    drop(daemon);
    world.end_unchecked().await;
}

/// Nobody searches for others where the key has protected all requests.
#[tokio::test]
async fn a_bill_with_one_request_is_not_searched_for() {
    let (world, daemon) = running().await;
    let job = world.bill(phone::PAID, 700).await;
    world.until(job, "succeeded").await;
    world
        .until_true("select bool_and(settled) from apipay.invoices")
        .await;
    assert!(world.sandbox.requests_to("GET /invoices").await.is_empty());
    world.end([daemon]).await;
}

/// The list shows what the first request made, and not yet what the second did.
#[tokio::test]
async fn what_a_list_does_not_show_yet_is_found_too() {
    let (world, daemon) = running().await;
    let (job, first, second) = lost_twice(&world).await;
    world
        .sandbox
        .set_invoice(first, json!({"status": "pending", "error_code": null}))
        .await;
    let row = world
        .until_job(job, "it goes by the first", |row| {
            row["invoice_id"] == first
        })
        .await;
    assert_ne!(row["state"], "held", "{row}");
    until_found(&world, job, second).await;
    let alert = told(&world, second).await;
    let summary = alert["summary"].as_str().unwrap();
    assert!(summary.contains(&format!("invoice {first}")), "{summary}");
    drop(daemon);
    world.end_unchecked().await;
}

/// Whatever a person says, what is dead is not all that there is before the rest must be listed.
#[tokio::test]
async fn no_word_about_the_dead_one_makes_a_third() {
    tokio::join!(
        after_a_word("true, {first}, 'I see it at ApiPay'"),
        after_a_word("false, null, 'the only one that I see is dead'"),
    );
}

async fn after_a_word(word: &str) {
    // The second is made so much later that there is time for a word while only the first is listed.
    let wish = Wish::default()
        .late_lists(Duration::from_secs(6))
        .tune("follow.first", "300ms")
        .tune("follow.max", "500ms")
        .tune("reconcile.quiet_after_answer", "4s");
    let (world, daemon) = World::running_as(wish).await;
    let (job, first, second) = lost_twice(&world).await;
    world.until(job, "uncertain").await;
    // Held, and its attempts forgotten, as after any slip.
    world
        .sql(&format!(
            "select apipay.resolve({job}, true, 99999999, 'a slip')"
        ))
        .await;
    world.until(job, "held").await;
    let word = word.replace("{first}", &first.to_string());
    world
        .sql(&format!("select apipay.resolve({job}, {word})"))
        .await;
    let row = world
        .until_job(job, "the second has come to light", |row| {
            row["state"] == "held" || row["invoice_id"].as_i64() > Some(first)
        })
        .await;
    assert_eq!(world.effects_of(job).await.len(), 2, "{row}");
    let is_second = row["invoice_id"] == second || row["state"] == "held";
    assert!(is_second, "{row}");
    drop(daemon);
    world.end_unchecked().await;
}
