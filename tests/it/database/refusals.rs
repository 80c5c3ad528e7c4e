//! The server lets nobody in, keeps a statement waiting, or stops it.

use std::time::Duration;

use sqlx::Executor;
use tokio::time::sleep;

use super::recovery::{Recovery, expect_silence_after, now_us};
use crate::world::{Wish, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_free_connections_is_waited_for_and_it_is_said() {
    let world = World::made(Wish::default()).await;
    // The limit of a role is met with the same code as that of the server, and harms nobody else.
    let role = format!("worker_of_{}", world.database.name);
    world
        .sql(&format!(
            "create role {role} login connection limit 0; grant apipay_worker to {role}"
        ))
        .await;
    let url = world.database.url_of(&role);
    world.slow_gateway(300).await;
    world.enqueue_everything(40).await;
    let daemon = world.spawn(&["run"], &[("database.url", url)]);
    daemon.until_told("too many connections").await;

    // Fewer than the pool wants: whoever finds none free tries for seconds to open one more.
    world
        .sql(&format!("alter role {role} connection limit 2"))
        .await;
    let began = std::time::Instant::now();
    while world.count("apipay.jobs where state = 'sending'").await < 3 {
        assert!(
            began.elapsed() < Duration::from_secs(120),
            "{}",
            daemon.log_text()
        );
        sleep(Duration::from_millis(20)).await;
    }
    // Each in a transaction of its own: a session that came back before the limit holds would stay.
    world
        .sql(&format!("alter role {role} connection limit 0"))
        .await;
    world
        .sql(&format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role}'"
        ))
        .await;
    let refused_us = now_us();
    world
        .until_holds("the status says why", async || {
            daemon.status().contains("too many connections")
        })
        .await;
    sleep(Duration::from_secs(7)).await;
    let recovery = Recovery::now();
    world
        .sql(&format!("alter role {role} connection limit -1"))
        .await;
    world.until_all_final().await;
    expect_silence_after(&world, refused_us, recovery.up_us).await;
    recovery.end(&world, "no free connections").await;
    world.end([daemon]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_table_is_waited_for_and_it_is_said() {
    let world = World::made(Wish::default()).await;
    world.slow_gateway(300).await;
    world.enqueue_everything(40).await;
    let daemon = world.daemon().await;
    world.until_in_flight(4).await;
    let mut locking = world.pool().begin().await.unwrap();
    locking
        .execute("lock table apipay.jobs in exclusive mode")
        .await
        .unwrap();
    let locked_us = now_us();
    daemon
        .until_told("canceling statement due to lock timeout")
        .await;
    daemon.until_logged("the outcome waits in memory").await;
    let recovery = Recovery::now();
    locking.rollback().await.unwrap();
    world.until_all_final().await;
    expect_silence_after(&world, locked_us, recovery.up_us).await;
    recovery.end(&world, "locked table").await;
    world.end([daemon]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_that_are_cancelled_are_made_again() {
    let world = World::made(Wish::default()).await;
    world.slow_gateway(200).await;
    world.enqueue_everything(60).await;
    let daemon = world.daemon().await;
    let mut cancelled = 0;
    for _ in 0..5 {
        world.until_in_flight(2).await;
        // They wait for the lock, so there is something to cancel.
        let mut locking = world.pool().begin().await.unwrap();
        locking
            .execute("lock table apipay.jobs in exclusive mode")
            .await
            .unwrap();
        sleep(Duration::from_millis(700)).await;
        cancelled += world
            .count(
                "(select pid from pg_stat_activity where datname = current_database()
                    and application_name = 'apipayd' and wait_event_type = 'Lock' offset 0) as waiting
                  where pg_cancel_backend(pid)",
            )
            .await;
        locking.rollback().await.unwrap();
    }
    assert!(
        cancelled >= 5,
        "only {cancelled} were cancelled: it proves nothing"
    );
    assert!(daemon.log_text().contains("due to user request"));
    world.until_all_final().await;
    world.end([daemon]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_takes_for_ever_is_stopped_and_made_again() {
    let world = World::made(Wish::default().tune("worker.lease", "90s")).await;
    world
        .sql(
            "create table public.slow (); grant select on public.slow to public;
             create function public.be_slow() returns trigger language plpgsql as $$
             begin
               if to_regclass('public.slow') is not null then perform pg_sleep(600); end if;
               return new;
             end $$;
             create trigger be_slow before insert on apipay.attempts
               for each row execute function public.be_slow()",
        )
        .await;
    world.enqueue_everything(10).await;
    let daemon = world.daemon().await;
    world
        .until_holds("the status says why", async || {
            daemon
                .status()
                .contains("canceling statement due to statement timeout")
        })
        .await;
    assert_eq!(
        world.sandbox.requests().await.len(),
        0,
        "nothing is sent without its claim"
    );
    let recovery = Recovery::now();
    world.sql("drop table public.slow").await;
    world
        .sql("select pg_cancel_backend(pid) from pg_stat_activity
               where datname = current_database() and application_name = 'apipayd' and wait_event = 'PgSleep'")
        .await;
    world.until_all_final().await;
    recovery.end(&world, "statement timeout").await;
    world.end([daemon]).await;
}
