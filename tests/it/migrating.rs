//! Migrations beside others: those of other daemons, and whoever may connect and means no good.

use std::time::Duration;

use sqlx::migrate::Migrate;
use sqlx::{Connection, PgConnection};

use crate::world::{Cluster, Database, Wish, World};

async fn on_empty() -> World {
    let database = Database::empty(Cluster::shared().await).await;
    let wish = Wish::default().tune("database.migrate_on_start", "true");
    World::on(database, wish).await
}

/// The exit code of `migrate`, and what it said.
async fn migrate(world: &World) -> (Option<i32>, String) {
    let mut migrate = world.spawn(&["migrate"], &[]);
    let status = migrate.ended(Duration::from_secs(60)).await;
    (status.code(), migrate.log_text())
}

#[tokio::test]
async fn whoever_may_only_connect_keeps_no_migration_from_running() {
    let world = on_empty().await;
    let role = format!("stranger_of_{}", world.database.name);
    world.sql(&format!("create role {role} login")).await;
    let options = world.database.options().username(&role);
    let mut stranger = PgConnection::connect_with(&options).await.unwrap();
    // An advisory lock, whose number follows from the name of the database.
    stranger.lock().await.unwrap();
    let (code, said) = migrate(&world).await;
    assert_eq!(code, Some(0), "{said}");
    let daemon = world.daemon().await;
    stranger.close().await.unwrap();
    world.end([daemon]).await;
}

#[tokio::test]
async fn of_many_migrations_at_once_one_is_done_and_none_fails() {
    let world = on_empty().await;
    let mut all: Vec<_> = (0..6).map(|_| world.spawn(&["migrate"], &[])).collect();
    for migrate in &mut all {
        let status = migrate.ended(Duration::from_secs(60)).await;
        assert_eq!(status.code(), Some(0), "{}", migrate.log_text());
    }
    let daemon = world.daemon().await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_migration_that_fails_leaves_nothing_behind() {
    let world = on_empty().await;
    world
        .sql(
            "create function public.refuse() returns event_trigger language plpgsql as
               $$ begin raise exception 'no views here'; end $$;
             create event trigger refuse on ddl_command_start when tag in ('CREATE VIEW') execute function public.refuse()",
        )
        .await;
    let (code, said) = migrate(&world).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no views here"), "{said}");
    assert_eq!(
        world.count("pg_namespace where nspname = 'apipay'").await,
        0
    );
    world.sql("drop event trigger refuse").await;
    let (code, said) = migrate(&world).await;
    assert_eq!(code, Some(0), "{said}");
    world.end_unchecked().await;
}

#[tokio::test]
async fn who_keeps_a_migration_waiting_is_named() {
    let world = on_empty().await;
    let mut other = world.pool().begin().await.unwrap();
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(&mut *other)
        .await
        .unwrap();
    sqlx::query("create schema apipay")
        .execute(&mut *other)
        .await
        .unwrap();
    let (code, said) = migrate(&world).await;
    assert_eq!(code, Some(1), "{said}");
    let named = format!("kept locked by session {pid} (user postgres): end that transaction");
    assert!(said.contains(&named), "{said}");
    other.rollback().await.unwrap();
    let (code, said) = migrate(&world).await;
    assert_eq!(code, Some(0), "{said}");
    world.end_unchecked().await;
}
