//! LISTEN is lost: work goes on by polling, and hints come back by themselves.

use std::time::{Duration, Instant};

use crate::world::{Daemon, Wish, World, phone};

/// So long that a job which is taken up soon was hinted at.
const SELDOM: &str = "20s";
const SOON: Duration = Duration::from_secs(8);

/// Whether a new job is taken up by a hint.
async fn expect_hints(world: &World) {
    let began = Instant::now();
    let job = world.bill(phone::PAID, 100).await;
    world.until(job, "succeeded").await;
    assert!(began.elapsed() < SOON, "polled, not hinted at");
}

fn times_listening_again(daemon: &Daemon) -> usize {
    let log = daemon.log_text();
    log.matches("listening for jobs again").count()
}

async fn until_listening_again(world: &World, daemon: &Daemon, times: usize) {
    let listens = async || times_listening_again(daemon) >= times;
    world.until_holds("it listens again", listens).await;
}

#[tokio::test]
async fn a_killed_listen_session_comes_back_and_loses_no_job() {
    let wish = Wish::default().tune("worker.poll_interval", SELDOM);
    let (world, daemon) = World::running_as(wish).await;
    expect_hints(&world).await;
    world.slow_gateway(100).await;
    for round in 1..=5 {
        world.enqueue_everything(6).await;
        world
            .until_true(
                "select count(pg_terminate_backend(pid)) > 0 from pg_stat_activity
                  where datname = current_database() and application_name = 'apipayd listen'",
            )
            .await;
        until_listening_again(&world, &daemon, round).await;
        expect_hints(&world).await;
    }
    world.until_all_final().await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn without_a_way_to_listen_polling_finds_every_job_and_hints_come_back() {
    let world = World::made(Wish::default()).await;
    let proxy = world.proxy();
    let daemon = world
        .tuned_daemon(&[("database.listen_url", proxy.url(&world.database.name))])
        .await;
    world.slow_gateway(100).await;
    for _ in 0..5 {
        world.enqueue_everything(4).await;
        proxy.cut();
    }
    drop(proxy);
    world.enqueue_everything(10).await;
    daemon
        .until_logged("polling until the database listens again")
        .await;
    world.until_all_final().await;

    let before = times_listening_again(&daemon);
    let _proxy = world.proxy();
    until_listening_again(&world, &daemon, before + 1).await;
    world.end([daemon]).await;
}
