//! What was told ends with its cause, and with words that are true.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::{told, until_told, wish};
use crate::world::{Daemon, Wish, World, phone};

/// A daemon of which every bill is refused for its limit, and is told to be.
async fn refused(wish: Wish) -> (World, Daemon) {
    let (world, daemon) = World::running_as(wish).await;
    let answer = json!({"status": 429, "headers": {"Retry-After": "1"}, "json": {"message": "Too Many Attempts."}});
    world
        .sandbox
        .fault(json!({"route": "POST /invoices", "times": 100_000, "answer": answer}))
        .await;
    for amount in [700, 800] {
        world.bill(phone::PAID, amount).await;
    }
    until_told(
        &world,
        "firing",
        &["refuses every payment of account default"],
    )
    .await;
    (world, daemon)
}

/// Lets them through, and waits until that is told.
async fn let_through(world: &World) -> String {
    assert_eq!(told(world, "resolved").len(), 0, "nothing was let through");
    world.sandbox.mend().await;
    until_told(world, "resolved", &["account default"]).await;
    let how = world
        .value("select to_jsonb(resolution) from apipay.alerts where kind = 'no_progress' and account = 'default' order by id desc limit 1")
        .await;
    how.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_stop_takes_back_nothing_that_was_told() {
    let (world, daemon) = refused(wish()).await;
    world.sql("select apipay.stop('looking')").await;
    sleep(Duration::from_secs(5)).await;
    world.sql("select apipay.start('looked')").await;
    sleep(Duration::from_secs(3)).await;
    let how = let_through(&world).await;
    assert!(!how.contains("serves") && !how.contains("stopped"), "{how}");
    assert_eq!(told(&world, "firing").len(), 1);
    world.until_all_final().await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn an_account_that_is_taken_out_is_told_all_the_while_and_in_the_end_for_that() {
    let (world, daemon) = refused(wish().accounts(&["default", "other"])).await;
    world.configure(&["other"]);
    daemon.signal(rustix::process::Signal::HUP);
    until_open(&world, "add [accounts.default] to a configuration").await;
    assert_eq!(told(&world, "resolved").len(), 0);
    let of_default = "apipay.alerts where kind = 'no_progress' and account = 'default'";
    assert_eq!(world.count(of_default).await, 1);
    world.configure(&["default", "other"]);
    daemon.signal(rustix::process::Signal::HUP);
    world
        .until_true(&format!(
            "select exists (select from {of_default} and resolution = 'an apipayd serves it again')"
        ))
        .await;
    world.sandbox.mend().await;
    world.until_all_final().await;
    world.end([daemon]).await;
}

async fn until_open(world: &World, action: &str) {
    world
        .until_true(&format!(
            "select exists (select from apipay.alerts where resolved_at is null and action like '%{action}%')"
        ))
        .await;
}
