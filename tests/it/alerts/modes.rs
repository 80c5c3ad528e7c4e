//! An account whose organization moves between sandbox and live.

use serde_json::json;

use super::{as_operator, obey, open, until_ended};
use crate::world::{Daemon, World, phone};

const KIND: &str = "mode_mismatch";

async fn turn(world: &World, mode: &str) {
    let switches = json!({"organization": world.key("default"), "name": "default", "mode": mode});
    world.sandbox.organization(switches).await;
}

/// A new daemon believes nothing that it has not seen itself.
async fn heir(world: &World, mut daemon: Daemon) -> Daemon {
    daemon.stop().await;
    world.daemon().await
}

/// Bills that do nothing but succeed, and of which no answer shows a mode by itself.
async fn bill(world: &World) {
    let job = world.bill(phone::PAID, 500).await;
    world.until(job, "succeeded").await;
}

#[tokio::test]
async fn another_mode_is_told_of_bills_that_succeed_and_ends_when_it_is_right_again() {
    let (world, daemon) = World::running().await;
    bill(&world).await;
    world
        .until_true("select mode = 'live' from apipay.accounts")
        .await;
    turn(&world, "sandbox").await;
    let daemon = heir(&world, daemon).await;
    bill(&world).await;
    let alert = open(&world, KIND, "account = 'default'").await;
    assert!(
        alert["summary"]
            .as_str()
            .unwrap()
            .contains("was live, and its newest invoices are sandbox"),
        "{alert}"
    );
    turn(&world, "live").await;
    // While it is disputed a new invoice is looked at every ten seconds.
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    bill(&world).await;
    until_ended(&world, KIND, "true").await;
    assert_eq!(world.count("apipay.alerts").await, 1);
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_mode_that_a_person_accepts_is_the_right_one_and_older_invoices_say_nothing() {
    let (world, daemon) = World::running().await;
    bill(&world).await;
    world
        .until_true("select mode = 'live' from apipay.accounts")
        .await;
    turn(&world, "sandbox").await;
    let daemon = heir(&world, daemon).await;
    bill(&world).await;
    let alert = open(&world, KIND, "true").await;
    obey(&world, &alert).await;
    until_ended(&world, KIND, "true").await;
    world
        .until_true("select mode = 'sandbox' from apipay.accounts")
        .await;
    // Read again after a refund, an invoice of before shows what it was.
    let old = "select to_jsonb(min(id)) from apipay.invoices";
    let old = world.value(old).await;
    let refund = world
        .enqueue("invoice.refund", json!({"invoice_id": old}))
        .await;
    world.until(refund, "succeeded").await;
    world
        .until_true(&format!(
            "select total_refunded > 0 from apipay.invoices where id = {old}"
        ))
        .await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    until_ended(&world, KIND, "true").await;
    assert_eq!(world.count("apipay.alerts").await, 1);
    as_operator(&world, "select mode from apipay.account_status")
        .await
        .unwrap();
    world.end([daemon]).await;
}

/// The log is read by people: a row that somebody keeps locked for minutes is one line, and not one each second.
#[tokio::test]
async fn that_the_mode_cannot_be_compared_is_logged_once_for_as_long_as_the_row_is_locked() {
    let (world, daemon) = World::running().await;
    bill(&world).await;
    world
        .until_true("select mode = 'live' from apipay.accounts")
        .await;
    turn(&world, "sandbox").await;
    let daemon = heir(&world, daemon).await;
    let locked = world
        .hold("select from apipay.accounts where name = 'default' for no key update")
        .await;
    world.bill(phone::PAID, 500).await;
    let words = "the account's mode was not compared yet";
    let lines = || daemon.log_text().matches(words).count();
    world
        .until_holds("it is logged", async || lines() > 0)
        .await;
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    assert_eq!(lines(), 1, "{}", daemon.log_text());
    locked.rollback().await.unwrap();
    open(&world, KIND, "account = 'default'").await;
    world.end([daemon]).await;
}
