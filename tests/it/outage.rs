//! The database goes away: the daemon waits, says so, and loses nothing.

use std::time::Duration;

use serde_json::json;

use crate::world::{Wish, World, phone};

fn own_cluster() -> Wish {
    Wish {
        own_cluster: true,
        ..Wish::default()
    }
}

#[tokio::test]
async fn a_database_that_is_down_at_the_start_is_waited_for() {
    let world = World::made(own_cluster()).await;
    let job = world.bill(phone::PAID, 100).await;
    world.database.cluster.stop("fast");
    let daemon = world.spawn(&["run"], &[]);
    daemon.until_told("database cannot be reached").await;
    assert!(daemon.was_told("READY=1"), "systemd must not give up on it");
    world.database.cluster.restart();
    world.until(job, "succeeded").await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_daemon_that_waits_for_its_database_can_be_stopped() {
    let world = World::made(own_cluster()).await;
    world.database.cluster.stop("fast");
    let mut daemon = world.spawn(&["run"], &[]);
    daemon.until_told("database cannot be reached").await;
    daemon.stop().await;
    world.database.cluster.restart();
    world.end([]).await;
}

#[tokio::test]
async fn an_answer_that_comes_while_the_database_is_down_is_recorded_when_it_is_back() {
    let world = World::made(own_cluster()).await;
    let daemon = world.daemon().await;
    world
        .sandbox
        .fault(json!({"route": "POST /invoices", "effect": "apply", "delay_ms": 700}))
        .await;
    let job = world.bill(phone::PAID, 100).await;
    world
        .until_holds("the request is in flight", async || {
            !world.sandbox.requests_to("POST /invoices").await.is_empty()
        })
        .await;
    world.database.cluster.stop("immediate");
    daemon.until_told("database cannot be reached").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.database.cluster.restart();
    world.until(job, "succeeded").await;
    let attempts = world.attempts(job).await;
    assert_eq!(
        attempts.len(),
        1,
        "the answer itself was recorded: {attempts:?}"
    );
    assert_eq!(world.sandbox.requests_to("POST /invoices").await.len(), 1);

    let next = world.bill(phone::PAID, 200).await;
    world.until(next, "succeeded").await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_database_that_restarts_again_and_again_costs_no_job() {
    let world = World::made(own_cluster()).await;
    let daemon = world.daemon().await;
    for round in 0..3 {
        for _ in 0..10 {
            world.bill(phone::UNPAID, 100 + round).await;
        }
        world.database.cluster.stop("immediate");
        world.database.cluster.restart();
    }
    // What was claimed and not yet sent when the database went is settled by its lease.
    world.sql("update apipay.jobs set leased_until = now() + interval '1 second' where state = 'sending'").await;
    world.until_all_final().await;
    assert_eq!(
        world.count("apipay.jobs where state = 'succeeded'").await,
        30
    );
    world.end([daemon]).await;
}

#[tokio::test]
async fn connections_that_are_cut_anywhere_cost_no_job() {
    let world = World::made(Wish::default()).await;
    let proxy = world.proxy();
    let daemon = world
        .tuned_daemon(&[("database.url", proxy.url(&world.database.name))])
        .await;
    for round in 0..60 {
        world.bill(phone::UNPAID, 100 + round).await;
        tokio::time::sleep(Duration::from_millis(11)).await;
        if round % 3 == 0 {
            proxy.cut();
        }
    }
    world.until_all_final().await;
    assert_eq!(
        world.count("apipay.jobs where state = 'succeeded'").await,
        60
    );
    world.end([daemon]).await;
}
