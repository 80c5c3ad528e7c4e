//! What a prepared transaction keeps locked, which no session has any more: it is told with its name and what ends it.

use serde_json::Value;

use super::locked::{run, session};
use super::{check, until_told, wish};
use crate::world::{Daemon, Wish, World, phone};

/// Prepared transactions are switched on by a restart of the server.
async fn running() -> (World, Daemon) {
    let wish = Wish {
        own_cluster: true,
        ..wish().accounts(&["default", "clinic"])
    };
    let world = World::made(wish).await;
    world
        .sql("alter system set max_prepared_transactions = 10")
        .await;
    world.database.cluster.stop("fast");
    world.database.cluster.restart();
    let daemon = world.daemon().await;
    (world, daemon)
}

/// Leaves a transaction of the owner's to a later decision.
async fn prepare(world: &World, statements: &str, gid: &str) {
    let (mut session, _) = session(&world.database.url_of("postgres"), "an XA manager").await;
    run(
        &mut session,
        &format!("begin; {statements}; prepare transaction '{gid}'"),
    )
    .await;
}

async fn roll_back(world: &World, gid: &str) {
    world.sql(&format!("rollback prepared '{gid}'")).await;
}

/// What has to be said of it: where it is ended, as whom and by what.
fn expect_named(said: &str, world: &World, gid: &str) {
    let database = &world.database.name;
    for part in [
        format!("repared transaction '{gid}' ("),
        "prepared since ".to_owned(),
        format!(
            "in the database {database}, as postgres or a superuser: rollback prepared '{gid}'; or commit prepared '{gid}';"
        ),
    ] {
        assert!(said.contains(&part), "{part} is not in {said}");
    }
}

fn words(delivery: &Value) -> String {
    let (summary, action) = (
        &delivery["commonAnnotations"]["summary"],
        &delivery["commonAnnotations"]["action"],
    );
    format!("{summary} {action}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_that_keeps_a_quota_is_named_and_so_it_is_by_check() {
    let (world, daemon) = running().await;
    let first = world.bill(phone::PAID, 1500).await;
    world.until(first, "succeeded").await;
    prepare(
        &world,
        "select from apipay._quotas where account = 'default' for update",
        "quota",
    )
    .await;
    let job = world.bill(phone::PAID, 1500).await;
    let delivery = until_told(&world, "firing", &["none is taken up", "quota"]).await;
    expect_named(&words(&delivery), &world, "quota");
    let (_, said) = check(&world, &world.database.url()).await;
    let lock = "the row of account default in apipay._quotas is kept locked by prepared transaction 'quota'";
    assert!(said.contains(lock), "{said}");
    expect_named(&said, &world, "quota");
    roll_back(&world, "quota").await;
    world.until(job, "succeeded").await;
    until_told(&world, "resolved", &[]).await;
    world.end([daemon]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_that_keeps_a_job_is_named() {
    let (world, daemon) = running().await;
    world.sql("select apipay.stop('while it is locked')").await;
    let job = world.bill(phone::PAID, 1500).await;
    let locked = format!("select apipay.retry({job}, 'at once')");
    prepare(&world, &locked, "job").await;
    world.sql("select apipay.start('it is locked')").await;
    let alert = format!(
        "apipay.alerts where kind = 'job_stuck' and details ->> 'job' = '{job}' and resolved_at is null"
    );
    world
        .until_true(&format!("select exists (select from {alert})"))
        .await;
    let told = world
        .value(&format!(
            "select to_jsonb(summary || ' ' || action) from {alert}"
        ))
        .await;
    expect_named(&told.to_string(), &world, "job");
    assert!(
        told.to_string()
            .contains("a prepared transaction keeps it locked"),
        "{told}"
    );
    let (_, said) = check(&world, &world.database.url()).await;
    let lock = format!("job {job} of account default is due (queued) and kept locked by prepared");
    assert!(said.contains(&lock), "{said}");
    roll_back(&world, "job").await;
    world.until(job, "succeeded").await;
    world
        .until_true(&format!("select not exists (select from {alert})"))
        .await;
    world.end([daemon]).await;
}

/// What somebody else has of another account is nobody's business here.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_not_named_for_what_a_prepared_transaction_keeps() {
    let (world, daemon) = running().await;
    for account in ["default", "clinic"] {
        let first = world.bill_of(account).await;
        world.until(first, "succeeded").await;
    }
    prepare(
        &world,
        "select apipay.park('clinic', 'moving'), apipay.resume('clinic', 'moved')",
        "moving",
    )
    .await;
    let (mut session, pid) = session(&world.database.url(), "report of the month").await;
    run(
        &mut session,
        "begin; select from apipay._quotas where account = 'default' for update",
    )
    .await;
    // Whoever keeps a row for a moment is not told.
    tokio::time::sleep(std::time::Duration::from_secs(16)).await;
    let (_, said) = check(&world, &world.database.url()).await;
    let kept = |account: &str, table: &str, by: String| {
        format!("the row of account {account} in apipay.{table} is kept locked by {by}")
    };
    for (account, table, by) in [
        (
            "clinic",
            "accounts",
            "prepared transaction 'moving' (".to_owned(),
        ),
        ("default", "_quotas", format!("session {pid} (")),
    ] {
        assert!(said.contains(&kept(account, table, by)), "{said}");
    }
    assert!(
        !said.contains(&kept("clinic", "accounts", format!("session {pid}"))),
        "{said}"
    );
    run(&mut session, "rollback").await;
    roll_back(&world, "moving").await;
    world.end([daemon]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_that_keeps_a_table_is_named() {
    let (world, daemon) = running().await;
    prepare(
        &world,
        "lock table apipay.jobs in access exclusive mode",
        "table",
    )
    .await;
    let delivery = super::locked::until_named(&world, &["keeps apipay.jobs locked"]).await;
    expect_named(&words(&delivery), &world, "table");
    roll_back(&world, "table").await;
    until_told(&world, "resolved", &[]).await;
    world.end([daemon]).await;
}
