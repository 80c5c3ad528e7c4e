//! The connection is cut in the middle of a statement: before the server has it, or after it is committed
//! and before its answer is there. What it did or did not do, nothing is lost and nothing happens twice.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::world::{Cut, Daemon, Statement, Wire, Wish, World, phone};

const CUTS: usize = 10;

const CLAIM: Statement = Statement {
    text: "Claims due jobs within every limit",
    parameters: "",
};
const LOOKUP_CLAIM: Statement = Statement {
    text: "Claims uncertain jobs",
    parameters: "",
};

/// The record of a decision about a job in this state.
const fn record_of(parameters: &'static str) -> Statement {
    Statement {
        text: "Records decisions",
        parameters,
    }
}
const SEND_RECORD: Statement = record_of("\"from_state\":\"sending\"");
const LOOKUP_RECORD: Statement = record_of("\"from_state\":\"uncertain\"");
const FOLLOW_RECORD: Statement = record_of("\"from_state\":\"accepted\"");

/// A world whose daemon reaches the database by a wire.
async fn wired() -> (World, Wire, Daemon) {
    let world = World::made(Wish::default()).await;
    let wire = world.wire();
    let daemon = world
        .tuned_daemon(&[("database.url", wire.url(&world.database.name))])
        .await;
    (world, wire, daemon)
}

/// The gateway is slow enough for jobs to be in flight at any time.
async fn wired_and_slow() -> (World, Wire, Daemon) {
    let (world, wire, daemon) = wired().await;
    world.slow_gateway(200).await;
    (world, wire, daemon)
}

/// The gateway loses answers, so that there are jobs to be looked up.
async fn wired_and_lossy() -> (World, Wire, Daemon) {
    let (world, wire, daemon) = wired().await;
    world
        .sandbox
        .fault(json!({"route": "POST /invoices", "share": 0.6, "seed": 3, "cut": "after_effect"}))
        .await;
    (world, wire, daemon)
}

/// Keeps jobs coming until so many statements were cut.
async fn suffer(world: &World, wire: &Wire, statement: Statement, cut: Cut) {
    wire.cut(statement, cut, CUTS);
    let deadline = Instant::now() + Duration::from_secs(60);
    while wire.cuts() < CUTS {
        assert!(
            Instant::now() < deadline,
            "{} cuts of {statement:?}",
            wire.cuts()
        );
        world.enqueue_everything(2).await;
        world.bill(phone::UNPAID, 100).await;
        sleep(Duration::from_millis(150)).await;
    }
}

async fn end(world: World, daemon: Daemon) {
    world.sandbox.mend().await;
    world.until_all_final().await;
    let failed = world.count("apipay.jobs where state <> 'succeeded'").await;
    assert_eq!(failed, 0, "{}", world.report(None).await);
    assert!(
        !world.said().contains("stale outcome"),
        "a record that was made twice is taken for a stale one:\n{}",
        world.said()
    );
    world.end([daemon]).await;
}

/// What became of jobs was never in doubt.
async fn expect_no_doubt(world: &World) {
    let lookups = world
        .rows("select * from apipay.attempts where kind = 'lookup' or error_code = 'lease_expired'")
        .await;
    assert_eq!(lookups, Vec::<Value>::new());
}

#[tokio::test]
async fn a_claim_that_never_reached_the_server_costs_nothing() {
    let (world, wire, daemon) = wired_and_slow().await;
    suffer(&world, &wire, CLAIM, Cut::Before).await;
    world.sandbox.mend().await;
    world.until_all_final().await;
    expect_no_doubt(&world).await;
    end(world, daemon).await;
}

#[tokio::test]
async fn a_claim_whose_answer_is_lost_is_looked_up_once_its_lease_is_over() {
    let (world, wire, daemon) = wired_and_slow().await;
    // Not each of them has found a job.
    for _ in 0..2 {
        suffer(&world, &wire, CLAIM, Cut::After).await;
    }
    world.sandbox.mend().await;
    world.until_all_final().await;
    let forgotten = world
        .rows(
            "select a.job_id, exists (select from apipay.attempts l where l.job_id = a.job_id and l.kind = 'lookup') as looked_up
               from apipay.attempts a where a.kind = 'send' and a.error_code = 'lease_expired'",
        )
        .await;
    assert!(forgotten.len() >= CUTS, "{forgotten:?}");
    assert!(
        forgotten.iter().all(|job| job["looked_up"] == true),
        "{forgotten:?}"
    );
    end(world, daemon).await;
}

#[tokio::test]
async fn a_record_of_a_send_is_written_once_however_often_its_answer_is_lost() {
    let (world, wire, daemon) = wired_and_slow().await;
    suffer(&world, &wire, SEND_RECORD, Cut::Before).await;
    suffer(&world, &wire, SEND_RECORD, Cut::After).await;
    world.sandbox.mend().await;
    world.until_all_final().await;
    expect_no_doubt(&world).await;
    end(world, daemon).await;
}

#[tokio::test]
async fn a_cut_in_the_middle_of_claiming_look_ups_only_delays_them() {
    let (world, wire, daemon) = wired_and_lossy().await;
    suffer(&world, &wire, LOOKUP_CLAIM, Cut::Before).await;
    suffer(&world, &wire, LOOKUP_CLAIM, Cut::After).await;
    end(world, daemon).await;
}

#[tokio::test]
async fn a_record_of_a_look_up_is_written_once_however_often_its_answer_is_lost() {
    let (world, wire, daemon) = wired_and_lossy().await;
    suffer(&world, &wire, LOOKUP_RECORD, Cut::Before).await;
    suffer(&world, &wire, LOOKUP_RECORD, Cut::After).await;
    end(world, daemon).await;
}

#[tokio::test]
async fn a_record_of_what_is_followed_is_written_once_however_often_its_answer_is_lost() {
    let (world, wire, daemon) = wired_and_slow().await;
    suffer(&world, &wire, FOLLOW_RECORD, Cut::Before).await;
    suffer(&world, &wire, FOLLOW_RECORD, Cut::After).await;
    world.sandbox.mend().await;
    world.until_all_final().await;
    expect_no_doubt(&world).await;
    end(world, daemon).await;
}
