//! What a database is made of and set to: the daemon works, or says what is wrong.
//!
//! The databases of all tests have hostile defaults; here are those that cannot be had everywhere.

use std::time::Duration;

use crate::world::{Cluster, Database, Wish, World, phone};

/// Migrates, lives through one bill, and tells what `check` says meanwhile.
async fn live_on(words: &str) -> (World, String) {
    let database = Database::of_kind(Cluster::shared().await, words).await;
    let world = World::on(database, Wish::default()).await;
    let mut migrate = world.spawn(&["migrate"], &[]);
    let status = migrate.ended(Duration::from_secs(20)).await;
    assert_eq!(status.code(), Some(0), "{}", migrate.log_text());
    let daemon = world.daemon().await;
    let job = world.bill(phone::PAID, 100).await;
    world.until(job, "succeeded").await;
    let mut daemon = daemon;
    daemon.stop().await;
    let said = check(&world, 0).await;
    (world, said)
}

async fn check(world: &World, code: i32) -> String {
    let mut check = world.spawn(&["check"], &[]);
    let status = check.ended(Duration::from_secs(20)).await;
    let said = check.log_text();
    assert_eq!(status.code(), Some(code), "{said}");
    said
}

#[tokio::test]
async fn a_database_with_usual_defaults_is_as_good() {
    let world = World::made(Wish::default()).await;
    world.database.be_plain().await;
    let daemon = world.daemon().await;
    world.enqueue_everything(10).await;
    world.until_all_final().await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn another_encoding_is_lived_with_and_told() {
    let (world, said) = live_on("encoding 'WIN1251' lc_collate 'C' lc_ctype 'C'").await;
    assert!(
        said.contains("the database's encoding is WIN1251"),
        "{said}"
    );
    world.end([]).await;
}

#[tokio::test]
async fn a_collation_that_changed_is_told_with_what_to_run() {
    let (world, said) = live_on("locale_provider icu icu_locale 'tr-TR'").await;
    assert!(said.contains("ok       collations"), "{said}");
    world
        .sql("update pg_database set datcollversion = '1.2.3' where datname = current_database()")
        .await;
    let said = check(&world, 0).await;
    let advice = format!(
        "alter database {} refresh collation version;",
        world.database.name
    );
    assert!(said.contains("was 1.2.3"), "{said}");
    assert!(said.contains(&advice), "{said}");
    world.sql(&advice).await;
    let said = check(&world, 0).await;
    assert!(said.contains("ok       collations"), "{said}");
    world.end([]).await;
}

#[tokio::test]
async fn triggers_that_are_switched_off_end_the_start_with_who_mends_it() {
    let world = World::made(Wish::default()).await;
    let name = world.database.name.clone();
    world
        .sql(&format!(
            "alter database {name} set session_replication_role = replica"
        ))
        .await;
    for command in ["run", "check"] {
        let mut daemon = world.spawn(&[command], &[]);
        let status = daemon.ended(Duration::from_secs(20)).await;
        let said = daemon.log_text();
        assert_eq!(status.code(), Some(78), "{said}");
        assert!(
            said.contains("switches the triggers of the schema apipay off"),
            "{said}"
        );
    }
    world
        .sql(&format!(
            "alter database {name} reset session_replication_role"
        ))
        .await;
    let daemon = world.daemon().await;
    daemon
        .until_logged("fsync or full_page_writes is off")
        .await;
    world.end([daemon]).await;
}
