//! A backend is killed just after its commits, as a machine without memory does: what the daemon was told
//! is written, however the database's defaults say to commit, and nothing is sent a second time.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use crate::world::{Wish, World, phone};

const TRIES: usize = 4;

/// No key at the gateway and no own mark stands between a forgotten claim and a second effect.
async fn world() -> World {
    let world = World::made(Wish {
        own_cluster: true,
        ..Wish::default().without_keys()
    })
    .await;
    // What is not written when it is committed is not written for long.
    world.sql("alter system set wal_writer_delay = '10s'").await;
    world.sql("select pg_reload_conf()").await;
    assert_eq!(
        world
            .rows(&format!(
                "select true as hasty from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase
                  where d.datname = '{}' and s.setconfig @> array['synchronous_commit=off']",
                world.database.name
            ))
            .await
            .len(),
        1,
        "the database keeps its promises by itself: this proves nothing"
    );
    world.slow_gateway(400).await;
    world
}

/// Kills one backend of the daemon while requests are under way; the server ends all others with it.
async fn lose_a_backend(world: &World) {
    for _ in 0..4 {
        world.two_equal_refunds().await;
        world.bill(phone::PAID, 100).await;
    }
    let sent = async || {
        let requests = world.sandbox.requests().await;
        let sends = requests.iter().filter(|it| crate::world::is_send(it));
        sends.filter(|it| it["duration_ms"].is_null()).count()
    };
    world
        .until_holds("requests are under way", async || sent().await >= 3)
        .await;
    let pid = world
        .value(
            "select to_jsonb(min(pid)) from pg_stat_activity
              where datname = current_database() and application_name = 'apipayd'",
        )
        .await;
    let pid = Pid::from_raw(pid.as_i64().unwrap() as i32).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
}

/// The server starts again by itself; then outcomes come back from memory, before anything else is claimed.
async fn until_recorded(world: &World) {
    for _ in 0..400 {
        // Each connection of the test's is found to be broken once.
        let open: Result<i64, _> =
            sqlx::query_scalar("select count(*) from apipay.jobs where state = 'sending'")
                .fetch_one(world.pool())
                .await;
        if matches!(open, Ok(0)) {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("the daemon did not go on\n{}", world.report(None).await);
}

async fn survive(is_pooled: bool) {
    let world = world().await;
    let pooler = world.pooler("server_login_retry = 1").await;
    let mut settings = Vec::new();
    if is_pooled {
        settings.push(("database.url", pooler.url(&world.database.name)));
        settings.push(("database.listen_url", world.database.url()));
    }
    let daemon = world.tuned_daemon(&settings).await;
    for _ in 0..TRIES {
        lose_a_backend(&world).await;
        until_recorded(&world).await;
    }
    world.sandbox.mend().await;
    world.until_all_done_or_held().await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_killed_backend_makes_nothing_forgotten_that_was_sent() {
    survive(false).await;
}

#[tokio::test]
async fn a_killed_backend_makes_nothing_forgotten_behind_pgbouncer() {
    survive(true).await;
}
