//! What somebody locks in a transaction that is left open stops one account at the most.

use crate::world::{Wish, World};

/// Bills two accounts, the first of which is locked, and waits for the second.
async fn others_go_on(world: &World) {
    for _ in 0..3 {
        world.bill_of("clinic").await;
        let other = world.bill_of("shop").await;
        world.until(other, "succeeded").await;
    }
}

#[tokio::test]
async fn a_park_in_an_open_transaction_stops_no_account_and_a_resume_no_probe() {
    let (world, daemon) = World::running_as(Wish::default().accounts(&["clinic", "shop"])).await;
    let held = world.hold("select apipay.park('clinic')").await;
    others_go_on(&world).await;
    // It is not parked before the transaction ends.
    world.until_all_final().await;
    held.rollback().await.unwrap();

    // Both are unwell, and the first is being resumed by somebody who does not come to an end.
    world.sandbox.session("expired").await;
    world.bill_of("clinic").await;
    world.bill_of("shop").await;
    world
        .until_true("select count(*) = 2 from apipay.accounts where state = 'parked'")
        .await;
    let held = world.hold("select apipay.resume('clinic')").await;
    world.sandbox.session("active").await;
    world
        .until_true("select state = 'active' from apipay.accounts where name = 'shop'")
        .await;
    held.rollback().await.unwrap();
    world.until_all_final().await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_quota_that_somebody_holds_stops_its_own_account_only() {
    let (world, daemon) = World::running_as(Wish::default().accounts(&["clinic", "shop"])).await;
    let first = world.bill_of("clinic").await;
    world.until(first, "succeeded").await;
    let held = world
        .hold("select from apipay._quotas where account = 'clinic' for update")
        .await;
    others_go_on(&world).await;
    let waiting = "apipay.jobs where account = 'clinic' and state = 'queued'";
    assert_eq!(world.count(waiting).await, 3);
    held.rollback().await.unwrap();
    world.until_all_final().await;
    world.end([daemon]).await;
}
