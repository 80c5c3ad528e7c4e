//! Jobs whose outcome nobody can find out by `reconcile.give_up`: a person decides about all of them soon after it, although
//! one at a time is asked about.

use std::time::Duration;

use serde_json::json;

use super::fail;
use crate::world::{Wish, World, phone};

const BILLS: usize = 6;

#[tokio::test]
async fn of_many_that_are_given_up_none_waits_long_for_the_others() {
    // The trials come at 1, 2, 4, 8 and 16 seconds, so the first one after the time is over comes late.
    let wish = Wish::default()
        .tune("retry.server_error.initial", "1s")
        .tune("retry.server_error.max", "16s")
        .tune("reconcile.give_up", "6s");
    let (world, daemon) = World::running_as(wish).await;
    fail(
        &world,
        json!({"route": "POST /invoices", "effect": "none", "hang": true, "times": BILLS}),
    )
    .await;
    fail(
        &world,
        json!({"route": "GET /invoices", "share": 1.0, "answer": {"preset": "502_html"}}),
    )
    .await;
    for amount in 0..BILLS {
        world
            .bill(phone::PAID, 100 + i64::try_from(amount).expect("few"))
            .await;
    }
    world
        .until_true(&format!(
            "select count(*) = {BILLS} from apipay.jobs where state = 'uncertain'"
        ))
        .await;
    world
        .until_true("select count(*) >= 1 from apipay.jobs where state = 'held'")
        .await;
    let all = format!(
        "select count(*) = {BILLS} from apipay.jobs where state = 'held' and reason = 'unknown_outcome'"
    );
    let soon = tokio::time::timeout(Duration::from_secs(20), world.until_true(&all)).await;
    assert!(soon.is_ok(), "{}", world.report(None).await);
    world.sandbox.mend().await;
    world
        .sql("select apipay.resolve(id, false, null, 'none is there') from apipay.jobs")
        .await;
    world.until_all_final().await;
    world.end([daemon]).await;
}
