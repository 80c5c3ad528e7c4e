//! The one job that a probe lets through is one that can be claimed.

use serde_json::json;

use super::{keep_locked, mend, refuse, told, until_nothing_is_stuck};
use crate::world::{Daemon, Job, World, phone};

async fn bill(world: &World, order: &str, priority: i64) -> Job {
    let params = json!({"phone_number": phone::PAID, "amount": 700, "external_order_id": order});
    world
        .enqueue_with("invoice.create", params, json!({"priority": priority}))
        .await
}

/// Parked for good, as far as health and what is sent say nothing of it: what was accepted fails at Kaspi.
async fn undelivered() -> (World, Daemon, Job) {
    let (world, daemon) = World::running().await;
    let odd = world.bill(phone::SESSION_INVALID, 500).await;
    world
        .until_true("select delivery_error is not null from apipay.accounts where name = 'default'")
        .await;
    (world, daemon, odd)
}

/// The account is parked, and this job of it too.
async fn parked() -> (World, Daemon, Job) {
    let (world, daemon) = World::running().await;
    world.sandbox.session("expired").await;
    let job = bill(&world, "first", 0).await;
    world.until(job, "parked").await;
    (world, daemon, job)
}

const PROBED: &str = "select exists (select from apipay.events
                       where subject = 'job' and to_state = 'sending' and job_id <> ";

#[tokio::test]
async fn a_job_that_a_trigger_refuses_does_not_keep_an_account_waiting_for_a_delivery() {
    let (world, daemon, _) = undelivered().await;
    refuse(
        &world,
        "jobs",
        "old.params ->> 'external_order_id' = 'cursed'",
    )
    .await;
    let cursed = [
        bill(&world, "cursed", 9).await,
        bill(&world, "cursed", 8).await,
    ];
    let other = bill(&world, "usual", 0).await;
    world.until(other, "succeeded").await;
    let stuck = world.until_holds("one of them is told", async || {
        let stuck =
            "apipay.alerts where kind = 'job_stuck' and summary like '%frozen by accounting%'";
        world.count(stuck).await > 0
    });
    stuck.await;
    for job in cursed {
        assert_eq!(world.job(job).await["state"], "queued");
    }
    mend(&world, "jobs").await;
    for job in cursed {
        world.until(job, "succeeded").await;
    }
    until_nothing_is_stuck(&world).await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_job_that_somebody_keeps_locked_does_not_keep_an_account_waiting_for_a_delivery() {
    let (world, daemon, _) = undelivered().await;
    world
        .sql("update apipay.accounts set probe_at = now() + interval '1 hour', trial_from = null")
        .await;
    let locked = bill(&world, "locked", 9).await;
    let psql = keep_locked(&world, locked).await;
    world
        .sql("update apipay.accounts set probe_at = now()")
        .await;
    let other = bill(&world, "usual", 0).await;
    world.until(other, "succeeded").await;
    assert_eq!(world.job(locked).await["state"], "queued");
    drop(psql);
    world.until(locked, "succeeded").await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_parked_job_that_a_trigger_refuses_leaves_the_probe_to_the_next() {
    let (world, daemon, cursed) = parked().await;
    refuse(&world, "jobs", &format!("old.id = {cursed}")).await;
    let other = bill(&world, "usual", 0).await;
    world.sandbox.session("active").await;
    world.until(other, "succeeded").await;
    world
        .until_true(&format!("{PROBED}{cursed} and reason = 'probe')"))
        .await;
    // Proven, and not only believed.
    world
        .until_true("select exists (select from apipay.alerts where kind = 'account_parked' and resolution = 'a probe succeeded')")
        .await;
    let alert = told(&world, cursed).await;
    let summary = alert["summary"].as_str().unwrap();
    assert!(
        summary.contains("frozen by accounting") && summary.contains("leave the state parked"),
        "{summary}"
    );
    mend(&world, "jobs").await;
    world.until(cursed, "succeeded").await;
    until_nothing_is_stuck(&world).await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_job_that_a_trigger_refuses_does_not_keep_its_account_from_being_resumed() {
    let (world, daemon, first) = parked().await;
    let bill = json!({"phone_number": phone::PAID, "amount": 700});
    let told_to_wait =
        json!({"state": "queued", "reason": "retry_after", "run_at": "2100-01-01T00:00:00Z"});
    let cursed = world
        .enqueue_with("invoice.create", bill.clone(), told_to_wait.clone())
        .await;
    let waits = world
        .enqueue_with("invoice.create", bill, told_to_wait)
        .await;
    refuse(&world, "jobs", &format!("old.id = {cursed}")).await;
    world.sandbox.session("active").await;
    world.until(first, "succeeded").await;
    // What it was told to wait for is over with the park, for all that can be changed.
    world.until(waits, "succeeded").await;
    assert_eq!(world.job(cursed).await["state"], "queued");
    mend(&world, "jobs").await;
    world
        .sql(&format!("select apipay.retry({cursed}, 'mended')"))
        .await;
    world.until(cursed, "succeeded").await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_parked_job_that_somebody_keeps_locked_leaves_the_probe_to_the_next_and_is_told() {
    let (world, daemon, locked) = parked().await;
    let psql = keep_locked(&world, locked).await;
    let other = bill(&world, "usual", 0).await;
    world.sandbox.session("active").await;
    world.until(other, "succeeded").await;
    world
        .until_true(&format!("{PROBED}{locked} and reason = 'probe')"))
        .await;
    // The account is well, and the job is not put back: that is told with the session.
    let alert = told(&world, locked).await;
    let action = alert["action"].as_str().unwrap();
    assert!(
        action.contains("a forgotten psql") && action.contains("pg_terminate_backend"),
        "{action}"
    );
    drop(psql);
    world.until(locked, "succeeded").await;
    until_nothing_is_stuck(&world).await;
    world.end([daemon]).await;
}
