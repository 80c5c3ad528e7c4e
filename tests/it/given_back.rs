//! Refunds of jobs that have ended: each list that shows one has it recorded as that job's, and told.

use std::time::Duration;

use apipayd::crash::{Point, VARIABLE};
use serde_json::{Value, json};

use crate::world::{Job, Wish, World};

const LIST: &str = "GET /invoices/{id}/refunds";

async fn paid_invoice(world: &World) -> i64 {
    let paid = json!({"status": "paid", "amount": "1000.00"});
    world.sandbox.invoice(&world.key("default"), paid).await
}

async fn refund(world: &World, invoice: i64) -> Job {
    let params = json!({"invoice_id": invoice, "amount": 100});
    world.enqueue("invoice.refund", params).await
}

async fn copy_of(world: &World, job: Job) -> Job {
    let copy = format!("select to_jsonb(apipay.retry({job}, 'once more'))");
    world.value(&copy).await.as_i64().unwrap()
}

async fn call_off(world: &World, job: Job) -> Value {
    let said =
        format!("select apipay.resolve({job}, false, null, 'not there', and_cancel => true)");
    world.sql(&said).await;
    world.until(job, "cancelled").await
}

/// A refund that ApiPay makes later, after its job was called off and nothing of it was shown: its invoice and its job.
async fn called_off_before_it_comes(world: &World) -> (i64, Job) {
    let invoice = paid_invoice(world).await;
    let late = json!({"route": "POST /invoices/{id}/refund", "effect": "late", "after_ms": 5000, "times": 1,
                      "answer": {"preset": "504_html"}});
    world.sandbox.fault(late).await;
    let job = refund(world, invoice).await;
    world.hold_unknown(job).await;
    let row = call_off(world, job).await;
    assert_eq!(row["reason"], "called_off", "{row}");
    (invoice, job)
}

/// The refund of a job that ended, once it is there: recorded as that job's, with an event.
async fn until_recorded(world: &World, job: Job) -> Value {
    let made = world.effects_of(job).await[0]["refund_id"].clone();
    world
        .until_true(&format!(
            "select exists (select from apipay.refunds r join apipay.jobs j on j.id = r.job_id and j.token = r.job_token
                             where r.id = {made} and j.id = {job} and r.status = 'completed' and r.amount = 100 and r.settled)"
        ))
        .await;
    let events = format!("apipay.events where subject = 'refund' and subject_id = '{made}'");
    assert!(world.count(&events).await > 0, "an event tells of it");
    made
}

/// The alert of a refund of an ended job, with this in its summary.
async fn until_told(world: &World, refund: &Value, said: &str) {
    world
        .until_true(&format!(
            "select exists (select from apipay.alerts where kind = 'refund_revived' and resolved_at is null
                and subject = 'refund {refund}' and summary like '%{said}%' and action like '%apipay.acknowledge(%')"
        ))
        .await;
}

/// The list of refunds that a copy reads before it is sent says that its original was wrong about itself.
#[tokio::test]
async fn the_refund_of_an_original_that_was_called_off_is_recorded_and_told_when_its_copy_finds_it()
{
    let wish = Wish::default().tune("reconcile.quiet_after_answer", "2s");
    let (world, daemon) = World::running_as(wish).await;
    let (_, job) = called_off_before_it_comes(&world).await;
    assert!(world.effects_of(job).await.is_empty(), "it comes later");
    world
        .until_holds("it has come", async || {
            !world.effects_of(job).await.is_empty()
        })
        .await;
    let copy = copy_of(&world, job).await;
    let row = world.until(copy, "failed").await;
    assert_eq!(row["reason"], "original_lives", "{row}");
    assert!(world.effects_of(copy).await.is_empty());
    let made = until_recorded(&world, job).await;
    until_told(
        &world,
        &made,
        &format!("job {job}, which made it, is cancelled"),
    )
    .await;
    let explained = world.explain(job).await;
    let lives = format!("but its refund {made} was made after all");
    assert!(explained.contains(&lives), "{explained}");
    let explained = world.explain(copy).await;
    let points = format!("What to do about that refund stands in explain of job {job}.");
    assert!(explained.contains(&points), "{explained}");
    world
        .sql("select apipay.acknowledge(id, 'seen') from apipay.alerts where kind = 'refund_revived'")
        .await;
    world.until_no_alert().await;
    drop(daemon);
    // The original was called off, and has its effect.
    world.end_unchecked().await;
}

/// Nobody asks for it any more, but other refunds of its invoice have their lists read.
#[tokio::test]
async fn a_refund_that_ended_unseen_is_told_once_any_list_shows_it() {
    let wish = Wish::default()
        .tune("http.timeout", "1s")
        .tune("reconcile.settle", "500ms")
        .tune("reconcile.quiet_after_timeout", "100ms")
        .tune("reconcile.give_up", "1500ms");
    let (world, daemon) = World::running_as(wish).await;
    let invoice = paid_invoice(&world).await;
    let hangs =
        json!({"route": "POST /invoices/{id}/refund", "effect": "apply", "hang": true, "times": 1});
    world.sandbox.fault(hangs).await;
    let fails = json!({"route": LIST, "skip": 1, "share": 1, "answer": {"preset": "500_json"}});
    world.sandbox.fault(fails).await;
    let job = refund(&world, invoice).await;
    world.until(job, "held").await;
    let row = call_off(&world, job).await;
    assert_eq!(row["reason"], "called_off_unseen", "{row}");
    let held = format!("from apipay.alerts where kind = 'job_held' and subject = '{job}'");
    world
        .until_true(&format!(
            "select exists (select {held} and resolved_at is null)"
        ))
        .await;
    world.sandbox.mend().await;
    let next = refund(&world, invoice).await;
    world.until(next, "succeeded").await;
    let made = until_recorded(&world, job).await;
    until_told(
        &world,
        &made,
        &format!("job {job}, which made it, is cancelled"),
    )
    .await;
    world
        .until_true(&format!(
            "select resolution = 'ApiPay shows what it has of it: refund {made} is completed' {held}"
        ))
        .await;
    let explained = world.explain(job).await;
    let lives = format!("but its refund {made} was made after all");
    assert!(
        explained.contains(&lives) && !explained.contains("is not known"),
        "{explained}"
    );
    drop(daemon);
    world.end_unchecked().await;
}

/// The copy was sent before the refund of its original came: the customer may have the money twice.
#[tokio::test]
async fn a_refund_that_comes_after_its_copy_was_made_is_told_with_that_of_the_copy() {
    let wish = Wish::default().tune("reconcile.quiet_after_answer", "500ms");
    let (world, daemon) = World::running_as(wish).await;
    let (invoice, job) = called_off_before_it_comes(&world).await;
    let copy = copy_of(&world, job).await;
    let second = world.until(copy, "succeeded").await["refund_id"].clone();
    world
        .until_holds("it has come", async || {
            !world.effects_of(job).await.is_empty()
        })
        .await;
    let next = refund(&world, invoice).await;
    world.until(next, "succeeded").await;
    let made = until_recorded(&world, job).await;
    let twice =
        format!("job {copy} (of these two jobs one repeats the other) has refund {second} as well");
    until_told(&world, &made, &twice).await;
    drop(daemon);
    world.end_unchecked().await;
}

/// A person named another refund, which was taken while the job's own was not shown: the money was given back twice.
#[tokio::test]
async fn the_own_refund_of_a_job_that_goes_by_another_one_is_told_once_a_list_shows_it() {
    let (world, daemon) = World::running().await;
    let invoice = paid_invoice(&world).await;
    let cut = json!({"route": "POST /invoices/{id}/refund", "cut": "after_effect"});
    world.sandbox.fault(cut).await;
    let by_hand = json!({"id": 4711, "invoice_id": invoice, "amount": "100.00", "status": "completed", "reason": null});
    let hides = json!({"route": LIST, "skip": 1, "share": 1, "answer": {"status": 200, "json": {
        "invoice": {"id": invoice}, "refunds": [by_hand], "total": 1}}});
    world.sandbox.fault(hides).await;
    let job = refund(&world, invoice).await;
    let row = world.until(job, "held").await;
    assert_eq!(row["reason"], "unknown_outcome", "{row}");
    world
        .sql(&format!(
            "select apipay.resolve({job}, true, 4711, 'it is this one')"
        ))
        .await;
    world.until(job, "succeeded").await;
    world.sandbox.mend().await;
    let next = refund(&world, invoice).await;
    world.until(next, "succeeded").await;
    let made = until_recorded(&world, job).await;
    let twice = format!(
        "job {job}, which made it, counts on refund 4711; the money may be given back twice"
    );
    until_told(&world, &made, &twice).await;
    drop(daemon);
    world.end_unchecked().await;
}

/// It is told before it is recorded: where the daemon dies in between, its heir finds it once more and tells it no second time.
#[tokio::test]
async fn a_daemon_may_die_between_the_alert_of_a_refund_and_its_record() {
    for point in [Point::BeforeRecord, Point::AfterRecord] {
        let (world, mut earlier) = World::running().await;
        let (invoice, job) = called_off_before_it_comes(&world).await;
        earlier.kill().await;
        world
            .until_holds("it has come", async || {
                !world.effects_of(job).await.is_empty()
            })
            .await;
        let next = refund(&world, invoice).await;
        let armed = (VARIABLE.to_owned(), format!("{}:1", point.name()));
        let mut daemon = world.spawn_in(&["run"], vec![armed]);
        let status = daemon.ended(Duration::from_secs(40)).await;
        assert!(!status.success(), "{status}");

        world.expire_promises().await;
        let heir = world.daemon().await;
        world.until(next, "succeeded").await;
        let made = until_recorded(&world, job).await;
        let cancelled = format!("job {job}, which made it, is cancelled");
        until_told(&world, &made, &cancelled).await;
        let told = "apipay.alerts where kind = 'refund_revived'";
        assert_eq!(world.count(told).await, 1, "{point:?}");
        drop(heir);
        world.end_unchecked().await;
    }
}
