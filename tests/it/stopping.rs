//! The end of a daemon: nothing new, everything under way recorded.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::world::{Wish, World, phone};

#[tokio::test]
async fn on_sigterm_nothing_new_is_claimed_and_what_is_in_flight_is_recorded() {
    let world = World::made(Wish::default().tune("accounts.default.concurrency", "3")).await;
    for _ in 0..3 {
        world
            .sandbox
            .fault(json!({"route": "POST /invoices", "effect": "apply", "delay_ms": 1000}))
            .await;
    }
    for _ in 0..10 {
        world.bill(phone::PAID, 100).await;
    }
    let mut daemon = world.daemon().await;
    world
        .until_holds("three requests are in flight", async || {
            world.sandbox.requests_to("POST /invoices").await.len() == 3
        })
        .await;
    let started = Instant::now();
    daemon.signal(Signal::TERM);
    daemon.until_told("STOPPING=1").await;
    let status = daemon.ended(Duration::from_secs(6)).await;
    assert_eq!(status.code(), Some(0));
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(world.sandbox.requests_to("POST /invoices").await.len(), 3);
    assert_eq!(
        world
            .count("apipay.jobs where state in ('accepted', 'succeeded')")
            .await,
        3
    );
    assert_eq!(world.count("apipay.jobs where state = 'queued'").await, 7);
    assert_eq!(
        world
            .count("apipay.attempts where finished_at is null")
            .await,
        0
    );

    let heir = world.daemon().await;
    world.until_all_final().await;
    world.end([heir]).await;
}

#[tokio::test]
async fn a_request_that_hangs_at_the_end_is_recorded_as_unknown() {
    let (world, mut daemon) = World::running().await;
    world
        .sandbox
        .fault(json!({"route": "POST /invoices", "effect": "apply", "hang": true}))
        .await;
    let job = world.bill(phone::PAID, 100).await;
    // What has not left yet is put back instead.
    world
        .until_holds("the request is in flight", async || {
            !world.sandbox.requests_to("POST /invoices").await.is_empty()
        })
        .await;
    daemon.stop().await;
    assert_eq!(world.job(job).await["state"], "uncertain");
    let heir = world.daemon().await;
    world.until(job, "succeeded").await;
    world.end([heir]).await;
}

#[tokio::test]
async fn the_service_manager_hears_of_start_life_and_end() {
    let (world, mut daemon) = World::running().await;
    assert!(daemon.was_told("READY=1"));
    assert!(!daemon.status().is_empty());
    let signs = || {
        let told = daemon.notified.lock().unwrap();
        told.iter().filter(|line| *line == "WATCHDOG=1").count()
    };
    let before = signs();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(signs() >= before + 2, "the watchdog would have bitten");
    daemon.stop().await;
    assert!(daemon.was_told("STOPPING=1"));
    world.end([]).await;
}

#[tokio::test]
async fn an_idle_daemon_stops_within_a_second() {
    let (world, mut daemon) =
        World::running_as(Wish::default().tune("worker.poll_interval", "30s")).await;
    let started = Instant::now();
    daemon.stop().await;
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
    world.end([]).await;
}
