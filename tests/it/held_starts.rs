//! Whoever keeps rows locked when a daemon starts holds up one account, and no other.

use serde_json::json;

use crate::world::{Wish, World, phone};

/// Two accounts are served at once, and the third when its row is free.
async fn starts_past(statement: &str, tuning: &[(&str, String)], is_told: bool) {
    let world = World::made(Wish::default().accounts(&["a", "b", "c"])).await;
    // The machine is known from an earlier start.
    let mut before = world.daemon().await;
    let first = world.bill_of("a").await;
    world.until(first, "succeeded").await;
    before.stop().await;

    let held = world.hold(statement).await;
    let daemon = world.tuned_daemon(tuning).await;
    let bills = [world.bill_of("b").await, world.bill_of("c").await];
    for bill in bills {
        world.until(bill, "succeeded").await;
    }
    if is_told {
        world
            .until_true(
                "select exists (select from apipay.alerts where kind = 'no_progress' and resolved_at is null
                    and summary like 'An apipayd cannot begin to serve account a: session % keeps it locked: end that transaction%')",
            )
            .await;
    }
    held.rollback().await.unwrap();
    let late = world.bill_of("a").await;
    world.until(late, "succeeded").await;
    world.until_no_alert().await;
    world.end([before, daemon]).await;
}

#[tokio::test]
async fn a_park_that_is_left_open_holds_up_its_account_alone() {
    starts_past("select apipay.park('a')", &[], false).await;
}

#[tokio::test]
async fn a_row_that_has_to_change_and_is_locked_holds_up_its_account_alone_and_is_told() {
    let limits = ["a", "b", "c"].map(|account| format!("accounts.{account}.requests_per_minute"));
    let tuning = [
        (limits[0].as_str(), "5000".to_owned()),
        (limits[1].as_str(), "5000".to_owned()),
        (limits[2].as_str(), "5000".to_owned()),
    ];
    let locked = "select from apipay.accounts where name = 'a' for update";
    starts_past(locked, &tuning, true).await;
}

#[tokio::test]
async fn a_stop_an_alert_and_a_clock_that_are_locked_hold_up_nobody() {
    let locked = "select from apipay._control for update;
                  update apipay._clocks set ahead_us = ahead_us";
    starts_past(locked, &[], false).await;
}

/// The first start on a machine has the windows of the quota, and what a look-up has missed, start again.
#[tokio::test]
async fn what_starts_again_at_the_first_start_of_a_machine_waits_for_no_lock() {
    let world = World::made(Wish::default().accounts(&["a", "b"])).await;
    let missed = json!({"account": "a", "state": "uncertain", "reason": "lookup_absent", "unproven_since": "2026-01-01T00:00:00Z",
                        "absent_since": "2026-01-01T00:00:00Z", "run_at": "2100-01-01T00:00:00Z"});
    let params = json!({"phone_number": phone::UNPAID, "amount": 100});
    let uncertain = world.enqueue_with("invoice.create", params, missed).await;
    let statement = format!(
        "select from apipay.jobs where id = {uncertain} for update; select from apipay._quotas where account = 'a' for update"
    );
    let held = world.hold(&statement).await;
    let daemon = world.daemon().await;
    let bill = world.bill_of("b").await;
    world.until(bill, "succeeded").await;
    let old = format!("apipay.jobs where id = {uncertain} and absent_since = '2026-01-01Z'");
    assert_eq!(world.count(&old).await, 1);
    held.rollback().await.unwrap();
    world
        .until_true(&format!(
            "select absent_since > now() - interval '5 minutes' from apipay.jobs where id = {uncertain}"
        ))
        .await;
    world
        .sql(&format!(
            "update apipay.jobs set run_at = now() where id = {uncertain}"
        ))
        .await;
    let late = world.bill_of("a").await;
    world.until(late, "succeeded").await;
    world.until(uncertain, "succeeded").await;
    world.end([daemon]).await;
}
