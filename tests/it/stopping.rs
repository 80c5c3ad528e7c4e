//! The end of a daemon: nothing new, everything under way recorded.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::world::{Wish, World, phone};

/// Waits until the gateway has got so many requests of this route.
async fn until_under_way(world: &World, route: &str, count: usize) {
    world
        .until_holds(&format!("{count} requests to {route}"), async || {
            world.sandbox.requests_to(route).await.len() >= count
        })
        .await;
}

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
    until_under_way(&world, "POST /invoices", 3).await;
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
    let before = daemon.signs_of_life();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(
        daemon.signs_of_life() >= before + 2,
        "the watchdog would have bitten"
    );
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

#[tokio::test]
async fn a_look_up_that_is_under_way_at_the_end_is_recorded() {
    let (world, mut daemon) = World::running().await;
    let lost =
        json!({"route": "POST /invoices", "effect": "apply", "answer": {"preset": "502_html"}});
    world.sandbox.fault(lost).await;
    let slow = json!({"route": "GET /invoices", "delay_ms": 1000});
    world.sandbox.fault(slow).await;
    let job = world.bill(phone::UNPAID, 100).await;
    until_under_way(&world, "GET /invoices", 1).await;
    daemon.stop().await;
    let row = world.job(job).await;
    assert_ne!(row["state"], "uncertain", "{row}");
    let attempts = world.attempts(job).await;
    let effects: Vec<_> = attempts.iter().map(|attempt| &attempt["effect"]).collect();
    assert_eq!(effects, ["unknown", "applied"]);

    let heir = world.daemon().await;
    world.until(job, "succeeded").await;
    assert_eq!(world.sandbox.requests_to("POST /invoices").await.len(), 1);
    world.end([heir]).await;
}

#[tokio::test]
async fn a_second_signal_does_not_cut_the_end_short() {
    let (world, mut daemon) = World::running().await;
    let slow = json!({"route": "POST /invoices", "effect": "apply", "delay_ms": 1000});
    world.sandbox.fault(slow).await;
    let job = world.bill(phone::PAID, 100).await;
    until_under_way(&world, "POST /invoices", 1).await;
    daemon.signal(Signal::TERM);
    daemon.until_told("STOPPING=1").await;
    for impatient in [Signal::TERM, Signal::INT, Signal::TERM] {
        daemon.signal(impatient);
        daemon.until_logged("stopping already").await;
    }
    let status = daemon.ended(Duration::from_secs(15)).await;
    assert_eq!(status.code(), Some(0), "{}", daemon.log_text());
    let attempts = world.attempts(job).await;
    assert_eq!(attempts.len(), 1, "{attempts:?}");
    assert_eq!(attempts[0]["effect"], "applied", "the answer was recorded");

    let heir = world.daemon().await;
    world.until(job, "succeeded").await;
    assert_eq!(world.sandbox.requests_to("POST /invoices").await.len(), 1);
    world.end([heir]).await;
}

#[tokio::test]
async fn what_cannot_be_recorded_before_the_grace_is_over_is_said_and_looked_up() {
    let wish = Wish {
        own_cluster: true,
        ..Wish::default()
    };
    let (world, mut daemon) = World::running_as(wish).await;
    let slow = json!({"route": "POST /invoices", "effect": "apply", "delay_ms": 1000});
    world.sandbox.fault(slow).await;
    let job = world.bill(phone::PAID, 100).await;
    until_under_way(&world, "POST /invoices", 1).await;
    world.database.cluster.stop("immediate");
    daemon.signal(Signal::TERM);
    daemon.until_told("STOPPING=1").await;
    // Not even an impatient one gets it to forget what it holds.
    daemon.signal(Signal::TERM);
    let status = daemon.ended(Duration::from_secs(15)).await;
    assert_eq!(status.code(), Some(1));
    let said = daemon.log_text();
    assert!(said.contains("not everything is recorded"), "{said}");

    world.database.cluster.restart();
    assert_eq!(world.job(job).await["state"], "sending");
    world.expire_lease(job).await;
    let heir = world.daemon().await;
    world.until(job, "succeeded").await;
    assert_eq!(world.sandbox.requests_to("POST /invoices").await.len(), 1);
    world.end([heir]).await;
}

#[tokio::test]
async fn a_daemon_that_stops_leaves_the_rest_to_the_others_and_nothing_unclear() {
    let world = World::made(Wish::default().tune("accounts.default.concurrency", "2")).await;
    let slow = json!({"route": "POST /invoices", "effect": "apply", "delay_ms": 300, "share": 1, "seed": 1});
    world.sandbox.fault(slow).await;
    for _ in 0..30 {
        world.bill(phone::UNPAID, 100).await;
    }
    let mut first = world.daemon().await;
    let mut second = world.daemon().await;
    let third = world.daemon().await;
    until_under_way(&world, "POST /invoices", 8).await;
    // Both at once, by either signal.
    first.signal(Signal::INT);
    second.signal(Signal::TERM);
    for daemon in [&mut first, &mut second] {
        let status = daemon.ended(Duration::from_secs(15)).await;
        assert_eq!(status.code(), Some(0), "{}", daemon.log_text());
    }
    world.bill(phone::UNPAID, 100).await;
    world.until_all_final().await;
    assert_eq!(world.sandbox.requests_to("POST /invoices").await.len(), 31);
    let doubts = world.count("apipay.attempts where kind = 'lookup'").await;
    assert_eq!(doubts, 0, "a stop left something unclear");
    world.end([third]).await;
}
