//! An alert does not end for the time in which no daemon had the database: nothing could show then whether its cause is gone.

use std::time::Duration;

use serde_json::json;
use tokio::task::block_in_place;

use super::{open, until_ended};
use crate::world::{Wish, World, phone};

#[tokio::test(flavor = "multi_thread")]
async fn a_cap_that_lasts_is_told_once_however_long_the_database_is_away() {
    let wish = Wish {
        own_cluster: true,
        ..Wish::default()
    };
    let wish = wish
        .tune("http.timeout", "5s")
        .tune("worker.lease", "20s")
        .tune("worker.grace", "10s")
        .tune("retry.rate_limited.initial", "6s")
        .tune("retry.rate_limited.max", "12s");
    let (world, daemon) = World::running_as(wish).await;
    let refusal = json!({"status": 429, "json": {
        "error": "tariff_limit_reached", "error_code": "tariff_limit_reached", "message": "100 of 100", "retry_after_seconds": 2,
    }});
    world
        .sandbox
        .fault(
            json!({"route": "POST /invoices", "share": 1.0, "answer": refusal, "delay_ms": 1_500}),
        )
        .await;
    let job = world.bill(phone::PAID, 700).await;
    open(&world, "cap_reached", "true").await;
    block_in_place(|| world.database.cluster.stop("fast"));
    daemon.until_told("database cannot be reached").await;
    // Longer than the cap and the time without one; and rounds of the loop that ends alerts come before the next refusal.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let refused = world.sandbox.requests_to("POST /invoices").await.len();
    block_in_place(|| world.database.cluster.restart());
    world
        .until_holds("it is refused again", async || {
            world.sandbox.requests_to("POST /invoices").await.len() > refused + 1
        })
        .await;
    let told = world
        .rows("select * from apipay.alerts where kind = 'cap_reached'")
        .await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0]["resolved_at"].is_null(), "{told:?}");
    world.sandbox.control("DELETE /faults", json!(null)).await;
    world.until(job, "succeeded").await;
    until_ended(&world, "cap_reached", "true").await;
    world.end([daemon]).await;
}

/// The daemon that has the key could give no sign of life either, and what is sent to an account shows whether it is well.
#[tokio::test]
async fn a_start_ends_no_alert_for_the_time_before_it() {
    let wish = Wish::default().tune("breaker.slow_start", "8s");
    let world = World::made(wish).await;
    world
        .sql(
            "insert into apipay.accounts (name, key_fingerprints, resumed_at, doubted_since)
             values ('elsewhere', '{0011}', now() - interval '1 day', now() - interval '2 days');
             select apipay._open_alert('elsewhere', 'other_organization', 'critical', 'another key', 'look', '{}', 'aabb');
             select apipay._open_alert('elsewhere', 'account_parked', 'critical', 'it is parked', 'look', '{}')",
        )
        .await;
    let daemon = world.daemon().await;
    world
        .until_true("select count(*) >= 2 from apipay.alert_deliveries where channel = 'log'")
        .await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    for kind in ["other_organization", "account_parked"] {
        open(&world, kind, "true").await;
    }
    for kind in ["account_parked", "other_organization"] {
        until_ended(&world, kind, "true").await;
    }
    world.end([daemon]).await;
}
