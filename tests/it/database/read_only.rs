//! A server that takes no writes: refused at the start, waited for at run time.

use std::time::Duration;

use sqlx::{Connection, Executor};
use tokio::task::block_in_place;

use super::recovery::{Recovery, expect_silence_after, now_us};
use crate::world::{Wish, World, phone};

fn own_cluster() -> Wish {
    Wish {
        own_cluster: true,
        ..Wish::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_ends_the_start_with_one_clear_line_until_it_is_promoted() {
    let world = World::made(own_cluster()).await;
    let job = world.bill(phone::PAID, 100).await;
    let cluster = &world.database.cluster;
    block_in_place(|| {
        cluster.stop("fast");
        cluster.make_replica();
        cluster.restart();
    });
    for (command, line) in [
        (
            "run",
            "apipayd: the database is read-only: it is a replica, or set so; database.url must lead to the primary",
        ),
        (
            "check",
            "it takes no writes: a replica, or set to read-only; let database.url lead to the primary",
        ),
    ] {
        let mut daemon = world.spawn(&[command], &[]);
        let status = daemon.ended(Duration::from_secs(20)).await;
        assert_eq!(status.code(), Some(1), "{}", daemon.log_text());
        assert_eq!(
            daemon.log_text().matches(line).count(),
            1,
            "{}",
            daemon.log_text()
        );
    }
    world.sql("select pg_promote()").await;
    let daemon = world.daemon().await;
    world.until(job, "succeeded").await;
    world.end([daemon]).await;
}

/// Jobs in flight while the server begins to refuse writes; waits until the daemon has said so.
async fn begin_to_refuse(world: &World, statement: &str) -> i64 {
    let mut admin = world.database.cluster.admin().await;
    world.until_in_flight(4).await;
    for statement in statement.split(';') {
        admin
            .execute(sqlx::AssertSqlSafe(statement.to_owned()))
            .await
            .unwrap();
    }
    admin.close().await.unwrap();
    // The postmaster hands a reload on to the sessions by and by, and until then one may commit a claim.
    tokio::time::sleep(Duration::from_millis(500)).await;
    now_us()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_becomes_read_only_is_waited_for_and_it_is_said() {
    let world = World::made(own_cluster()).await;
    world.slow_gateway(300).await;
    world.enqueue_everything(40).await;
    let daemon = world.daemon().await;
    let refused_us = begin_to_refuse(
        &world,
        "alter system set default_transaction_read_only = on; select pg_reload_conf()",
    )
    .await;
    daemon.until_told("read-only transaction").await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert!(
        daemon.status().contains("read-only transaction"),
        "{}",
        daemon.status()
    );
    let mut admin = world.database.cluster.admin().await;
    admin
        .execute("alter system reset default_transaction_read_only")
        .await
        .unwrap();
    let recovery = Recovery::now();
    admin.execute("select pg_reload_conf()").await.unwrap();
    admin.close().await.unwrap();

    world.until_all_final().await;
    expect_silence_after(&world, refused_us, recovery.up_us).await;
    recovery.end(&world, "read-only primary").await;
    world.end([daemon]).await;
}

/// A session that began on a server without writes keeps that: it has to be left for a new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_stay_read_only_are_left_for_new_ones() {
    let world = World::made(Wish::default()).await;
    world.slow_gateway(300).await;
    world.enqueue_everything(30).await;
    let daemon = world.daemon().await;
    let name = &world.database.name;
    begin_to_refuse(
        &world,
        &format!(
            "alter database {name} set default_transaction_read_only = on;
             select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}' and application_name = 'apipayd'"
        ),
    )
    .await;
    daemon.until_told("read-only transaction").await;
    let mut admin = world.database.cluster.admin().await;
    let recovery = Recovery::now();
    admin
        .execute(sqlx::AssertSqlSafe(format!(
            "alter database {name} reset default_transaction_read_only"
        )))
        .await
        .unwrap();
    admin.close().await.unwrap();
    world.until_all_final().await;
    recovery.end(&world, "read-only sessions").await;
    world.end([daemon]).await;
}
