//! Everything at once: a gateway that fails at random, daemons that are killed, and jobs of every
//! kind. What must always hold is checked at the end of the world.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Daemon, Wish, World, phone};

/// What one in some requests meets, on any route.
fn faults() -> Vec<Value> {
    vec![
        json!({"route": "*", "share": 0.06, "effect": "apply", "answer": {"preset": "502_html"}}),
        json!({"route": "*", "share": 0.06, "answer": {"preset": "504_html"}}),
        json!({"route": "*", "share": 0.05, "cut": "after_effect"}),
        json!({"route": "*", "share": 0.05, "cut": "before_effect"}),
        json!({"route": "*", "share": 0.04, "cut": "mid_body"}),
        json!({"route": "*", "share": 0.03, "effect": "apply", "hang": true}),
        json!({"route": "*", "share": 0.04, "broken_json": true}),
        json!({"route": "*", "share": 0.10, "delay_ms": 200}),
        json!({"route": "*", "share": 0.02, "effect": "late", "after_ms": 700, "answer": {"preset": "504_html"}}),
    ]
}

async fn survive(seed: u64, wish: Wish) {
    let world = World::made(wish).await;
    for (number, mut fault) in faults().into_iter().enumerate() {
        fault["seed"] = json!(seed * 100 + number as u64);
        world.sandbox.fault(fault).await;
    }
    world.enqueue_everything(60).await;
    let mut daemons: [Daemon; 2] = [world.daemon().await, world.daemon().await];
    for round in 0..6 {
        tokio::time::sleep(Duration::from_millis(400 + 130 * (seed + round))).await;
        let victim = &mut daemons[usize::try_from(round).unwrap() % 2];
        victim.kill().await;
        *victim = world.daemon().await;
        // The leases of the dead run out in a moment instead of in twelve seconds; those of the
        // living are left alone.
        world
            .sql(
                "update apipay.jobs set leased_until = now() where state = 'sending'
                    and updated_at < now() - interval '3 seconds'",
            )
            .await;
    }
    world.sandbox.control("DELETE /faults", Value::Null).await;
    world.until_all_done_or_held().await;
    let doubts = world.count("apipay.attempts where kind = 'lookup'").await;
    assert!(doubts > 0, "the storm has harmed nobody: it proves nothing");
    world.end(daemons).await;
}

#[tokio::test]
async fn nothing_happens_twice_and_nothing_is_lost_in_the_first_storm() {
    survive(1, Wish::default()).await;
}

#[tokio::test]
async fn nothing_happens_twice_and_nothing_is_lost_in_the_second_storm() {
    survive(2, Wish::default()).await;
}

/// The gateway ignores keys, and its lists are late: the look-up alone must be enough.
#[tokio::test]
async fn nothing_happens_twice_and_nothing_is_lost_without_keys() {
    let wish = Wish::default()
        .tune("accounts.default.duplicate_protection", "lookup")
        .tune("reconcile.settle", "3s");
    survive_without_keys(3, wish).await;
}

async fn survive_without_keys(seed: u64, wish: Wish) {
    let world = World::made(wish).await;
    world
        .sandbox
        .organisation(json!({"honour_idempotency_key": false, "list_lag_ms": 1500}))
        .await;
    for (number, mut fault) in faults().into_iter().enumerate() {
        fault["route"] = "POST /invoices".into();
        fault["seed"] = json!(seed * 100 + number as u64);
        world.sandbox.fault(fault).await;
    }
    for _ in 0..40 {
        world.bill(phone::UNPAID, 100).await;
    }
    let mut daemon = world.daemon().await;
    world
        .until_true("select count(*) > 15 from apipay.attempts where kind = 'send'")
        .await;
    daemon.kill().await;
    world
        .sql("update apipay.jobs set leased_until = now() where state = 'sending'")
        .await;
    let heir = world.daemon().await;
    world.until_all_done_or_held().await;
    let held = world.count("apipay.jobs where state = 'held'").await;
    assert_eq!(held, 0, "a bill can always be told apart");
    world.end([heir]).await;
}
