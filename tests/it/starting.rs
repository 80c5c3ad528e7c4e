//! What a start needs, and what it says when it cannot have it.

use std::borrow::Cow;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use crate::world::{Cluster, Daemon, Database, Wish, World, phone, write_private};

async fn expect_refusal(world: &World, arguments: &[&str], words: &[&str]) -> Daemon {
    let mut daemon = world.spawn(arguments, &[]);
    let status = daemon.ended(Duration::from_secs(15)).await;
    let said = daemon.log_text();
    assert_eq!(status.code(), Some(78), "{status}: {said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    daemon
}

async fn on_empty_database() -> World {
    let database = Database::empty(Cluster::shared().await).await;
    World::on(database, Wish::default()).await
}

#[tokio::test]
async fn a_database_without_the_schema_ends_the_start_with_the_command_to_run() {
    let world = on_empty_database().await;
    expect_refusal(&world, &["run"], &["run: apipayd", " migrate"]).await;
    world.end_unchecked().await;
}

#[tokio::test]
async fn a_schema_that_is_older_or_newer_ends_the_start_with_what_to_do() {
    let world = World::made(Wish::default()).await;
    world
        .sql("insert into apipay._migrations (version, description, success, checksum, execution_time) values (99990101000000, 'from the future', true, '', 0)")
        .await;
    expect_refusal(&world, &["run"], &["newer"]).await;
    world
        .sql("delete from apipay._migrations where version in (select version from apipay._migrations order by version desc limit 2)")
        .await;
    expect_refusal(&world, &["run"], &[" migrate"]).await;
    world.end_unchecked().await;
}

#[tokio::test]
async fn migrate_makes_the_schema_and_may_be_run_again() {
    let world = on_empty_database().await;
    for _ in 0..2 {
        let mut migrate = world.spawn(&["migrate"], &[]);
        let status = migrate.ended(Duration::from_secs(20)).await;
        assert_eq!(status.code(), Some(0), "{}", migrate.log_text());
    }
    let daemon = world.daemon().await;
    assert_eq!(
        world
            .count("apipay.accounts where name = 'default' and requests_per_minute = 6000")
            .await,
        1
    );
    let job = world.bill(phone::PAID, 100).await;
    world.until(job, "succeeded").await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn several_daemons_may_migrate_on_their_start() {
    let database = Database::empty(Cluster::shared().await).await;
    let wish = Wish::default().tune("database.migrate_on_start", "true");
    let world = World::on(database, wish).await;
    let first = world.spawn(&["run"], &[]);
    let second = world.spawn(&["run"], &[]);
    first.until_told(" in flight").await;
    second.until_told(" in flight").await;
    let job = world.bill(phone::PAID, 100).await;
    world.until(job, "succeeded").await;
    world.end([first, second]).await;
}

#[tokio::test]
async fn migrations_of_the_users_own_live_beside_ours() {
    let world = on_empty_database().await;
    let of_the_user = Migrator {
        migrations: Cow::Owned(vec![Migration::new(
            1,
            Cow::Borrowed("orders"),
            MigrationType::Simple,
            sqlx::SqlStr::from_static("create table orders (id bigint primary key)"),
            false,
        )]),
        ..Migrator::DEFAULT
    };
    of_the_user.run(world.pool()).await.unwrap();
    let before = world
        .rows("select version, description, encode(checksum, 'hex') from public._sqlx_migrations")
        .await;

    let mut migrate = world.spawn(&["migrate"], &[]);
    assert_eq!(migrate.ended(Duration::from_secs(20)).await.code(), Some(0));
    let after = world
        .rows("select version, description, encode(checksum, 'hex') from public._sqlx_migrations")
        .await;
    assert_eq!(before, after);
    // And again the other way: neither takes the other's rows for missing ones of its own.
    of_the_user.run(world.pool()).await.unwrap();
    let ours = world.count("apipay._migrations where version = 1").await;
    assert_eq!(ours, 0);
    let daemon = world.daemon().await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_wrong_setting_ends_the_start_with_its_place_and_what_is_allowed() {
    let world = World::made(Wish::default()).await;
    let path = world.config();
    let good = std::fs::read_to_string(&path).unwrap();
    let place = path.to_str().unwrap();
    for (wrong, words) in [
        (
            format!("{good}\n[wroker]\nlease = \"1m\"\n"),
            vec![place, "wroker", "worker"],
        ),
        (
            good.replace("lease = \"12s\"", "lease = \"11s\""),
            vec![place, "worker.lease", "http.timeout"],
        ),
        (
            good.replace("lease = \"12s\"", "lease = \"12 parsecs\""),
            vec![place, "worker.lease"],
        ),
        (
            good.replace("api_key_file = ", "api_key_file = \"/nowhere/key\" # "),
            vec!["/nowhere/key"],
        ),
        (
            good.replace("allow_insecure = true", "allow_insecure = false"),
            vec!["accounts.default.base_url", "https"],
        ),
        (good.replace("[database]", "[database"), vec![place, "line"]),
    ] {
        assert_ne!(wrong, good);
        write_private(&path, &wrong);
        expect_refusal(&world, &["run"], &words).await;
    }
    std::fs::remove_file(&path).unwrap();
    expect_refusal(&world, &["run"], &[place]).await;
    world.end([]).await;
}

#[tokio::test]
async fn check_says_what_is_well_and_what_is_not() {
    let world = World::made(Wish::default()).await;
    let mut check = world.spawn(&["check"], &[]);
    let status = check.ended(Duration::from_secs(20)).await;
    assert_eq!(status.code(), Some(0), "{}", check.log_text());
    let mut check = world.spawn(&["check", "--json"], &[]);
    check.ended(Duration::from_secs(20)).await;
    let lines: serde_json::Value = serde_json::from_str(&check.log_text()).unwrap();
    assert!(
        lines.as_array().is_some_and(|lines| !lines.is_empty()),
        "{lines}"
    );

    world.sandbox.session("expired").await;
    let mut check = world.spawn(&["check"], &[]);
    let status = check.ended(Duration::from_secs(20)).await;
    assert_ne!(status.code(), Some(0), "{}", check.log_text());
    world.sql("drop schema apipay cascade").await;
    expect_refusal(&world, &["check"], &[" migrate"]).await;
    world.end_unchecked().await;
}

#[tokio::test]
async fn a_key_that_the_gateway_refuses_parks_only_its_account() {
    let world = World::made(Wish::default().accounts(&["default", "other"])).await;
    world
        .sandbox
        .organization(json!({"organization": "other", "revoked": true}))
        .await;
    let daemon = world.daemon().await;
    let params = json!({"phone_number": phone::PAID, "amount": 100});
    let refused = world
        .enqueue_with("invoice.create", params, json!({"account": "other"}))
        .await;
    let fine = world.bill(phone::PAID, 100).await;
    assert_eq!(
        world.until(refused, "parked").await["reason"],
        "key_rejected"
    );
    world.until(fine, "succeeded").await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_base_url_that_leads_nowhere_parks_the_account_before_a_payment_fails() {
    let world = World::made(Wish::default().tune("breaker.probe_max", "1s")).await;
    let base_url = world.sandbox.running.base_url();
    let wrong = base_url.trim_end_matches("/api/v1").to_owned();
    let key = "accounts.default.base_url";

    let mut check = world.spawn(&["check"], &[(key, wrong.clone())]);
    assert_ne!(check.ended(Duration::from_secs(15)).await.code(), Some(0));
    let said = check.log_text();
    assert!(
        said.contains("base_url does not lead to ApiPay's API"),
        "{said}"
    );

    // At the start, before there is any job; and those that come meanwhile wait.
    let mut misled = world.tuned_daemon(&[(key, wrong)]).await;
    misled.until_told("PARKED route_not_found").await;
    let job = world.bill(phone::PAID, 700).await;
    let alert = world
        .value("select to_jsonb(l) from apipay.alerts l where resolved_at is null")
        .await;
    assert_eq!(alert["kind"], "account_parked");
    let action = alert["action"].as_str().unwrap();
    let host = world
        .value("select to_jsonb(host) from apipay.daemons")
        .await;
    let there = format!("on {}: correct base_url", host.as_str().unwrap());
    assert!(action.contains(&there), "{action}");
    let explain = world.explain(job).await;
    assert!(explain.contains("correct base_url"), "{explain}");
    misled.stop().await;

    let daemon = world.daemon().await;
    world.until(job, "succeeded").await;
    world
        .until_true("select bool_and(resolved_at is not null) from apipay.alerts")
        .await;
    world.end([misled, daemon]).await;
}

#[tokio::test]
async fn a_command_whose_reader_has_read_enough_ends_as_it_would() {
    let world = World::made(Wish::default()).await;
    for arguments in [&["check"][..], &["check", "--json"], &["migrate"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_apipayd"));
        command.args(arguments).arg("--config").arg(world.config());
        command.stdout(writer).stderr(Stdio::piped());
        let ended = tokio::task::spawn_blocking(move || command.output());
        let ended = ended.await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!((ended.status.code(), said.as_ref()), (Some(0), ""));
    }
    world.end([]).await;
}

#[tokio::test]
async fn check_of_an_account_that_is_served_says_what_stands_in_its_way() {
    let (world, daemon) = World::running().await;
    let said = async || {
        let mut check = world.spawn(&["check"], &[]);
        check.ended(Duration::from_secs(20)).await;
        check.log_text()
    };
    let free = said().await;
    assert!(
        free.contains("account default: neither parked nor told to wait"),
        "{free}"
    );
    world.sql("select apipay.park('default', 'drill')").await;
    let parked = said().await;
    assert!(parked.contains("account default is parked"), "{parked}");
    for text in [free, parked] {
        assert!(!text.contains("no daemon serves"), "{text}");
    }
    world.sql("select apipay.resume('default', 'done')").await;
    world.end([daemon]).await;
}
