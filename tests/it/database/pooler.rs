//! PgBouncer in transaction mode: whatever it hands from one client to the next, the daemon lives.

use std::time::Duration;

use serde_json::json;
use tokio::task::block_in_place;
use tokio::time::sleep;

use super::recovery::Recovery;
use crate::world::{Daemon, Pooler, Wish, World, phone};

/// What an operator sets for a daemon behind a pooler.
fn behind(pooler: &Pooler, world: &World) -> [(&'static str, String); 2] {
    [
        ("database.url", pooler.url(&world.database.name)),
        ("database.listen_url", world.database.url()),
    ]
}

/// What goes wrong when a pooler tears a statement or a session apart.
fn expect_whole_statements(world: &World) {
    let said = world.said();
    for words in ["prepared statement", "bind message", "startup parameter"] {
        assert!(!said.contains(words), "{words:?} is in the log:\n{said}");
    }
}

#[tokio::test]
async fn a_whole_life_goes_on_behind_pgbouncer() {
    let world = World::made(Wish::default()).await;
    let pooler = world.pooler("").await;
    let settings = behind(&pooler, &world);
    let mut check = world.spawn(&["check"], &settings);
    let status = check.ended(Duration::from_secs(20)).await;
    assert_eq!(status.code(), Some(0), "{}", check.log_text());

    // Two daemons, so that the same statements of different clients meet on the same servers.
    let mut first = world.tuned_daemon(&settings).await;
    let second = world.tuned_daemon(&settings).await;
    // Look-ups, a park and a probe, besides what every job goes through.
    world
        .sandbox
        .fault(json!({"route": "*", "share": 0.15, "seed": 5, "cut": "after_effect"}))
        .await;
    world.enqueue_everything(40).await;
    world
        .until_true("select count(*) > 15 from apipay.attempts where finished_at is not null")
        .await;
    world.sandbox.session("expired").await;
    world.bill(phone::PAID, 100).await;
    first.until_told("PARKED session_expired").await;
    world.sandbox.session("active").await;
    world
        .until_true("select state = 'active' from apipay.accounts")
        .await;
    world.slow_gateway(300).await;
    world.enqueue_everything(20).await;
    world.until_in_flight(4).await;
    first.kill().await;
    world
        .sql("update apipay.jobs set leased_until = now() where state = 'sending'")
        .await;
    world.sandbox.mend().await;
    let heir = world.tuned_daemon(&settings).await;
    world.until_all_done_or_held().await;
    let alerts = world
        .count("apipay.alerts where kind = 'account_parked'")
        .await;
    assert_eq!(alerts, 1);
    world
        .until_holds("the alert is posted", async || {
            !world.alerts.bodies().is_empty()
        })
        .await;
    expect_whole_statements(&world);
    expect_clean_servers(&pooler, &world).await;
    world.end([second, heir]).await;
}

/// The next client of a server connection finds no name and no setting of ours.
async fn expect_clean_servers(pooler: &Pooler, world: &World) {
    let mut others = Vec::new();
    for _ in 0..3 {
        let mut connection = pooler.connection(&world.database.name).await;
        // Held open, so that the next one meets another server.
        sqlx::raw_sql("begin")
            .execute(&mut connection)
            .await
            .unwrap();
        let left = sqlx::raw_sql(
            "select 1 where exists (select from pg_prepared_statements)
                or current_setting('enable_seqscan') = 'off' or current_setting('plan_cache_mode') = 'force_generic_plan'",
        );
        assert!(
            left.fetch_optional(&mut connection)
                .await
                .unwrap()
                .is_none()
        );
        others.push(connection);
    }
}

#[tokio::test]
async fn a_pooler_that_restarts_and_loses_its_servers_costs_no_job() {
    let world = World::made(Wish::default()).await;
    let mut pooler = world.pooler("").await;
    let daemon = world.tuned_daemon(&behind(&pooler, &world)).await;
    world.slow_gateway(200).await;
    for round in 0..6 {
        world.enqueue_everything(12).await;
        world.until_in_flight(3).await;
        if round % 2 == 0 {
            world
                .sql(
                    "select pg_terminate_backend(pid) from pg_stat_activity
                      where datname = current_database() and application_name = 'apipayd'",
                )
                .await;
        } else {
            pooler.restart().await;
        }
    }
    world.until_all_final().await;
    expect_whole_statements(&world);
    world.end([daemon]).await;
}

/// PgBouncer keeps its clients waiting meanwhile, and tries its server again every 15 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_behind_its_pooler_costs_no_job() {
    let world = World::made(Wish {
        own_cluster: true,
        ..Wish::default()
    })
    .await;
    let pooler = world.pooler("").await;
    world.slow_gateway(300).await;
    world.enqueue_everything(40).await;
    let daemon = world.tuned_daemon(&behind(&pooler, &world)).await;
    world.until_in_flight(4).await;
    block_in_place(|| world.database.cluster.stop("immediate"));
    daemon.until_told("nothing is sent").await;
    sleep(Duration::from_secs(5)).await;
    let recovery = Recovery::begin(&world, || world.database.cluster.restart()).await;
    world.sandbox.mend().await;
    world.until_all_final().await;
    recovery
        .end_within(25_000, &world, "immediate stop behind PgBouncer")
        .await;
    expect_whole_statements(&world);
    world.end([daemon]).await;
}

async fn expect_refusal(mut daemon: Daemon, words: &str) {
    let status = daemon.ended(Duration::from_secs(20)).await;
    let said = daemon.log_text();
    assert_eq!(status.code(), Some(78), "{said}");
    assert!(said.contains(words), "{said}");
}

#[tokio::test]
async fn a_pooler_that_the_configuration_does_not_know_of_ends_the_start_with_what_to_set() {
    let world = World::made(Wish::default()).await;
    // As it comes, and with start-up parameters dropped in silence.
    for settings in ["", "ignore_startup_parameters = extra_float_digits,options"] {
        let pooler = world.pooler(settings).await;
        let url = [("database.url", pooler.url(&world.database.name))];
        for command in ["run", "check"] {
            expect_refusal(world.spawn(&[command], &url), "set database.listen_url").await;
        }
        // `listen_url` leads through it as well: a check fails, a daemon works by polling and says so.
        let twice = [
            ("database.url", pooler.url(&world.database.name)),
            ("database.listen_url", pooler.url(&world.database.name)),
        ];
        expect_refusal(world.spawn(&["check"], &twice), "leads to a pooler too").await;
        let daemon = world.tuned_daemon(&twice).await;
        let job = world.bill(phone::PAID, 100).await;
        world.until(job, "succeeded").await;
        daemon.until_logged("no hints of new jobs").await;
        let mut daemon = daemon;
        daemon.stop().await;
    }
    world.end([]).await;
}
