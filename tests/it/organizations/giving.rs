//! While an account is being given to another organization, and after: no key of the earlier one is believed.

use std::time::Duration;

use sqlx::AssertSqlSafe;
use tokio::time::sleep;

use super::{
    OPEN, acknowledge, expect_one_effect_each, unclear, until_accepted, until_refused, with_key,
};
use crate::world::{Wish, World, phone};

#[tokio::test]
async fn no_daemon_serves_while_its_account_is_being_given_to_another_organization() {
    let (world, mut own) = World::running().await;
    let first = world.bill(phone::PAID, 500).await;
    world.until(first, "succeeded").await;
    own.stop().await;
    let mut other = with_key(&world, "other").await;
    until_refused(&world).await;
    let statement = format!("select apipay.acknowledge(id, 'it is right') {OPEN}");
    let mut open = world.pool().begin().await.unwrap();
    sqlx::raw_sql("set local role apipay_operator")
        .execute(&mut *open)
        .await
        .unwrap();
    sqlx::raw_sql(AssertSqlSafe(statement.clone()))
        .execute(&mut *open)
        .await
        .unwrap();
    // Its key is the stored one until the commit.
    world.sandbox.fault(unclear()).await;
    let own = world.daemon().await;
    let second = world.bill(phone::PAID, 500).await;
    world
        .until_true("select exists (select from apipay.daemons where cardinality(accounts) = 1 and not has_left)")
        .await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(world.job(second).await["state"], "queued");
    assert_eq!(world.effects_of(second).await.len(), 0);
    let refusal = open.commit().await.unwrap_err().to_string();
    assert!(
        refusal.contains("serves it with another key") && refusal.contains("in one step"),
        "{refusal}"
    );
    // Nothing was changed.
    until_refused(&world).await;
    world.until(second, "succeeded").await;
    expect_one_effect_each(&world, &[first, second]).await;
    // One that does not see what happens meanwhile is no use.
    let mut blind = world.pool().begin().await.unwrap();
    sqlx::raw_sql(
        "set transaction isolation level repeatable read; set local role apipay_operator",
    )
    .execute(&mut *blind)
    .await
    .unwrap();
    let refusal = sqlx::raw_sql(AssertSqlSafe(statement.clone()))
        .execute(&mut *blind)
        .await
        .unwrap_err()
        .to_string();
    assert!(refusal.contains("repeatable read"), "{refusal}");
    blind.rollback().await.unwrap();
    other.stop().await;
    until_accepted(&world).await;
    world.end([own, other]).await;
}

#[tokio::test]
async fn a_daemon_that_starts_after_the_last_look_of_a_change_serves_nothing() {
    let (world, mut own) = World::running().await;
    let first = world.bill(phone::PAID, 500).await;
    world.until(first, "succeeded").await;
    own.stop().await;
    let other = with_key(&world, "other").await;
    until_refused(&world).await;
    let mut open = world.pool().begin().await.unwrap();
    for statement in [
        "set local role apipay_operator".to_owned(),
        format!("select apipay.acknowledge(id, 'it is right') {OPEN}"),
        // As at the commit, which may wait for a standby.
        "set constraints all immediate".to_owned(),
    ] {
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut *open)
            .await
            .unwrap();
    }
    let mut own = world.daemon().await;
    world
        .until_true("select exists (select from apipay.daemons where cardinality(accounts) = 1 and not has_left)")
        .await;
    let second = world.bill(phone::PAID, 500).await;
    let before = world.sandbox.all_requests().await.len();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(world.sandbox.all_requests().await.len(), before);
    open.commit().await.unwrap();
    world.until(second, "succeeded").await;
    until_refused(&world).await;
    let made = [
        world.effects_of(first).await.remove(0),
        world.effects_of(second).await.remove(0),
    ];
    assert_ne!(made[0]["organization"], made[1]["organization"], "{made:?}");
    expect_one_effect_each(&world, &[first, second]).await;
    own.stop().await;
    until_accepted(&world).await;
    world.end([own, other]).await;
}

/// Sets the database's clock, and returns once it was noticed.
async fn set_clock(world: &World, ahead_s: i64) {
    let jumps = "apipay.events where reason = 'clock_jumped'";
    let before = world.count(jumps).await;
    world.database.cluster.set_clock(ahead_s);
    world
        .until_true(&format!("select count(*) > {before} from {jumps}"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_earlier_key_is_not_believed_again_after_the_clock_was_put_right() {
    let wish = Wish {
        own_clock: true,
        ..Wish::default()
    };
    let (world, mut earlier) = World::running_as(wish).await;
    let theirs = world.bill(phone::PAID, 500).await;
    world.until(theirs, "succeeded").await;
    earlier.stop().await;
    let mut now = with_key(&world, "other").await;
    until_refused(&world).await;
    set_clock(&world, 24 * 3_600).await;
    // The jump may end the alert for a moment.
    world
        .until_holds("a person has said so", async || {
            acknowledge(&world).await.unwrap();
            world
                .count("apipay.accounts where organization_since is not null")
                .await
                == 1
        })
        .await;
    until_accepted(&world).await;
    set_clock(&world, 0).await;
    let ours = world.bill(phone::PAID, 500).await;
    world.until(ours, "succeeded").await;
    now.stop().await;
    let mut earlier = world.daemon().await;
    let alert = until_refused(&world).await;
    let summary = alert["summary"].as_str().unwrap();
    // What the present organization was shown since is asked for, whatever the clock says.
    assert!(summary.contains("ApiPay shows it none of the"), "{alert}");
    let next = world.bill(phone::PAID, 500).await;
    sleep(Duration::from_secs(4)).await;
    assert_eq!(world.job(next).await["state"], "queued");
    earlier.stop().await;
    let now = with_key(&world, "other").await;
    world.until(next, "succeeded").await;
    until_accepted(&world).await;
    expect_one_effect_each(&world, &[theirs, ours, next]).await;
    world.end([now, earlier]).await;
}
