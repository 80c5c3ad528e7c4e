//! A schema that was made with psql, and migrations whose text was changed.

use std::path::Path;
use std::time::Duration;

use sqlx::AssertSqlSafe;

use crate::world::{Cluster, Database, ROOT, Wish, World, phone};

/// The files of the migrations, as a client sends them that knows nothing of us: each as one statement, read by the
/// settings of the database, which are hostile.
async fn made_by_hand() -> World {
    let database = Database::empty(Cluster::shared().await).await;
    let world = World::on(database, Wish::default()).await;
    let mut files: Vec<_> = std::fs::read_dir(Path::new(ROOT).join("migrations"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let mut connection = world.pool().acquire().await.unwrap();
    let mut texts = vec![
        "create schema apipay; set statement_timeout = 0; set standard_conforming_strings = off; set backslash_quote = off;
         set escape_string_warning = on; set quote_all_identifiers = on; set transform_null_equals = on; set array_nulls = off"
            .to_owned(),
    ];
    texts.extend(
        files
            .iter()
            .map(|file| std::fs::read_to_string(file).unwrap()),
    );
    for text in texts {
        sqlx::raw_sql(AssertSqlSafe(text))
            .execute(&mut *connection)
            .await
            .unwrap();
    }
    drop(connection.detach());
    world
}

async fn ended(world: &World, command: &str, code: i32) -> String {
    let mut daemon = world.spawn(&[command], &[]);
    let status = daemon.ended(Duration::from_secs(40)).await;
    let said = daemon.log_text();
    assert_eq!(status.code(), Some(code), "{command}: {said}");
    said
}

#[tokio::test]
async fn a_schema_that_psql_made_is_recorded_and_works() {
    let world = made_by_hand().await;
    let said = ended(&world, "run", 78).await;
    assert!(said.contains(" migrate"), "{said}");
    let said = ended(&world, "migrate", 0).await;
    assert!(said.contains("recorded"), "{said}");
    let said = ended(&world, "migrate", 0).await;
    assert!(said.contains("up to date already"), "{said}");
    ended(&world, "check", 0).await;
    let daemon = world.daemon().await;
    let job = world
        .value("select to_jsonb(apipay.create_invoice('+7 (700) 000-00-01', 15000))")
        .await;
    world.until(job.as_i64().unwrap(), "succeeded").await;
    let overview = world
        .rows("select phone, explain from apipay.overview")
        .await;
    assert_eq!(overview[0]["phone"], "8700***0001");
    assert_eq!(
        world.value("select to_jsonb(apipay._tenge(15000))").await,
        "15 000 tenge"
    );
    assert_eq!(
        world
            .value(&format!(
                "select to_jsonb(apipay._mask_phones('call {}'))",
                phone::PAID
            ))
            .await,
        "call 8700***0001"
    );
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_schema_that_is_not_what_the_migrations_make_is_not_recorded() {
    let world = made_by_hand().await;
    for (change, undo, part) in [
        (
            "drop index apipay.jobs_lookup",
            "create index jobs_lookup on apipay.jobs (account, run_at, id) where state = 'uncertain'",
            "index apipay.jobs_lookup",
        ),
        (
            "create function apipay.more() returns int language sql return 1",
            "drop function apipay.more()",
            "function apipay.more()",
        ),
        (
            "alter table apipay.jobs disable trigger refuse_illegal_move",
            "alter table apipay.jobs enable trigger refuse_illegal_move",
            "trigger refuse_illegal_move of apipay.jobs",
        ),
        (
            "create or replace function apipay._tenge(amount numeric) returns text language sql immutable parallel safe return 'free'",
            "",
            "function apipay._tenge(numeric)",
        ),
    ] {
        world.sql(change).await;
        let said = ended(&world, "migrate", 1).await;
        assert!(said.contains(part), "{part}: {said}");
        assert_eq!(
            world
                .count("pg_namespace where nspname like 'apipay%'")
                .await,
            1
        );
        assert_eq!(
            world.count("pg_class where relname = '_migrations'").await,
            0
        );
        world.sql(undo).await;
    }
    world.end_unchecked().await;
}

#[tokio::test]
async fn a_migration_with_another_text_is_noticed() {
    let world = World::made(Wish::default()).await;
    let changed = "20261101090200";
    world
        .sql(&format!(
            "update apipay._migrations set checksum = '\\x00' where version = {changed}"
        ))
        .await;
    for command in ["run", "check", "migrate"] {
        let said = ended(&world, command, 78).await;
        assert!(said.contains(changed), "{command}: {said}");
    }
    world.end_unchecked().await;
}
