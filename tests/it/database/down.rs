//! Postgres is stopped, killed, or away for long, and comes back.
//!
//! What is asserted of the time between: a request may leave within the window of a claim that was
//! committed before, and nothing else; what was answered is written when the database is back, from
//! memory, not found out again.

use std::time::Duration;

use rustix::process::Signal;
use tokio::task::block_in_place;
use tokio::time::sleep;

use super::recovery::{Recovery, expect_silence_after, literal, now_us};
use crate::world::{Cluster, Wish, World};

async fn survive(fault: &str, take_down: impl FnOnce(&Cluster), absence: Duration) {
    let world = World::made(Wish {
        own_cluster: true,
        ..Wish::default()
    })
    .await;
    world.slow_gateway(700).await;
    world.enqueue_everything(60).await;
    let daemon = world.daemon().await;
    world
        .until_holds("bills are in flight", async || {
            let bills = world.sandbox.requests_to("POST /invoices").await;
            bills
                .iter()
                .filter(|bill| bill["duration_ms"].is_null())
                .count()
                >= 2
        })
        .await;

    block_in_place(|| take_down(&world.database.cluster));
    let down_us = now_us();
    daemon.until_told("database cannot be reached").await;
    sleep(absence).await;
    assert!(
        daemon.status().contains("nothing is sent"),
        "{}",
        daemon.status()
    );
    // Nor of a loop that waits for something else meanwhile.
    let log = daemon.log_text();
    assert!(!log.contains("it fails no more"), "{log}");
    let recovery = Recovery::begin(&world, || world.database.cluster.restart()).await;

    world.sandbox.mend().await;
    world.until_all_final().await;
    expect_silence_after(&world, down_us, recovery.up_us).await;
    expect_answers_kept(&world, down_us, recovery.up_us).await;
    recovery.end(&world, fault).await;
    world.end([daemon]).await;
}

/// What was answered while the database was away stands as it was answered: nothing of it was looked up.
async fn expect_answers_kept(world: &World, down_us: i64, up_us: i64) {
    let mut kept = 0;
    for request in world.sandbox.requests_to("POST /invoices").await {
        let answered_us = request["at_unix_us"].as_i64().unwrap()
            + (request["duration_ms"].as_f64().unwrap() * 1e3) as i64;
        if answered_us <= down_us || answered_us >= up_us {
            continue;
        }
        let attempts = world
            .rows(&format!(
                "select a.kind, a.effect, extract(epoch from a.finished_at) * 1e6 >= {up_us} as later
                   from apipay.attempts a join apipay.jobs j on j.id = a.job_id
                  where position(j.token::text in {}) > 0",
                literal(&request["body"])
            ))
            .await;
        assert_eq!(attempts.len(), 1, "{attempts:?} of {request}");
        assert_eq!(attempts[0]["effect"], "applied", "{request}");
        assert_eq!(attempts[0]["later"], true, "{request}");
        kept += 1;
    }
    assert!(
        kept > 0,
        "nothing was answered while the database was away: this proves nothing"
    );
}

const MOMENT: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fast_stop_of_postgres_loses_nothing_and_sends_nothing_new() {
    survive("fast stop", |cluster| cluster.stop("fast"), MOMENT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_immediate_stop_of_postgres_loses_nothing_and_sends_nothing_new() {
    survive(
        "immediate stop",
        |cluster| cluster.stop("immediate"),
        MOMENT,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_of_postgres_loses_nothing_and_sends_nothing_new() {
    survive("SIGKILL of all processes", Cluster::kill, MOMENT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absence_of_postgres_of_half_a_minute_loses_nothing_and_sends_nothing_new() {
    survive(
        "absence of 30 s",
        |cluster| cluster.stop("immediate"),
        Duration::from_secs(30),
    )
    .await;
}

/// A statement without an answer is given up after 35 s; idle connections are found out one after the other.
const SILENT_MS: i64 = 60_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_falls_silent_is_given_up_and_found_again() {
    let world = World::made(Wish::default()).await;
    let wire = world.wire();
    world.slow_gateway(300).await;
    world.enqueue_everything(40).await;
    // As in production, where a stop has the time to give up a statement.
    let mut daemon = world
        .tuned_daemon(&[
            ("database.url", wire.url(&world.database.name)),
            ("worker.grace", "40s".to_owned()),
        ])
        .await;
    world.until_in_flight(4).await;
    let recovery = Recovery::now();
    wire.silence();
    world
        .until_holds("work goes on", async || {
            world.count("apipay.jobs where state = 'succeeded'").await > 20
        })
        .await;
    world.sandbox.mend().await;
    world.until_all_final().await;
    recovery
        .end_within(SILENT_MS, &world, "silent server")
        .await;
    daemon.signal(Signal::TERM);
    let status = daemon.ended(Duration::from_secs(45)).await;
    assert_eq!(status.code(), Some(0), "{}", daemon.log_text());
    world.end([]).await;
}
