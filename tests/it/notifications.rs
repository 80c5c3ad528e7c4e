//! A notification is a hint, and costs nobody their transaction: neither one that is prepared for a commit in two
//! phases, nor any while the server's queue is filling.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::world::{Wish, World, phone};

async fn session(world: &World) -> PgConnection {
    PgConnection::connect_with(&world.database.options())
        .await
        .unwrap()
}

async fn execute(session: &mut PgConnection, statements: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))
        .execute(session)
        .await
        .map(drop)
}

async fn check_says(world: &World, word: &str) {
    let mut check = world.spawn(&["check"], &[]);
    let status = check.ended(Duration::from_secs(20)).await;
    let said = check.log_text();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains(word), "{word:?} is not in: {said}");
}

async fn is_notifying(world: &World) -> bool {
    world
        .value("select to_jsonb(apipay._is_notifying())")
        .await
        .as_bool()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_with_a_job_can_be_prepared() {
    let wish = Wish {
        own_cluster: true,
        ..Wish::default()
    };
    let world = World::made(wish).await;
    assert!(is_notifying(&world).await);
    world.sql("create table orders (id bigint)").await;
    world
        .sql("alter system set max_prepared_transactions = 10")
        .await;
    world.database.cluster.stop("fast");
    world.database.cluster.restart();

    let mut shop = session(&world).await;
    let order = format!(
        "insert into orders values (1);
         select apipay.create_invoice('{}', 700, dedup_key => 'order-1');",
        phone::PAID
    );
    let prepared = format!("begin; {order} prepare transaction 'order-1'");
    execute(&mut shop, &prepared).await.unwrap();
    execute(&mut shop, "commit prepared 'order-1'")
        .await
        .unwrap();
    let daemon = world.daemon().await;
    world.until(1, "succeeded").await;
    check_says(&world, "max_prepared_transactions").await;

    // What else moves a job may stand in such a transaction as well.
    let more = "begin; select apipay.stop('drill'); insert into apipay.jobs (operation, params) values ('invoice.create', '{}');
                select apipay.cancel(id, 'drill') from apipay.jobs where state = 'queued'; select apipay.start('drill');
                prepare transaction 'cancelled'";
    execute(&mut shop, more).await.unwrap();
    execute(&mut shop, "commit prepared 'cancelled'")
        .await
        .unwrap();

    // Whoever prepares none says so, and is told at once; the same transaction then cannot be prepared.
    let notified = prepared
        .replace("order-1", "order-2")
        .replace("begin;", "begin; set local apipay.notify = on;");
    let refused = execute(&mut shop, &notified).await.unwrap_err().to_string();
    assert!(refused.contains("NOTIFY"), "{refused}");
    execute(&mut shop, "rollback").await.unwrap();
    // One that is prepared in a database where the setting is on switches it off for itself.
    world
        .sql("do $$ begin execute format('alter database %I set apipay.notify = on', current_database()); end $$")
        .await;
    let mut shop = session(&world).await;
    let silent = notified.replace("notify = on", "notify = off");
    execute(&mut shop, &silent).await.unwrap();
    execute(&mut shop, "commit prepared 'order-2'")
        .await
        .unwrap();
    check_says(&world, "told at once").await;
    world.until_all_final().await;
    world.end([daemon]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_added_to_a_queue_that_is_filling() {
    let wish = Wish {
        own_cluster: true,
        ..Wish::default()
    };
    let world = World::made(wish).await;
    // The queue holds 8 GiB and cannot be made smaller on every server: what counts as filling can.
    world
        .sql("create or replace function apipay._most_of_queue() returns double precision language sql immutable parallel safe return 5e-6")
        .await;
    let daemon = world.daemon().await;
    let mut listener = session(&world).await;
    for statement in ["listen elsewhere", "begin; select 1"] {
        execute(&mut listener, statement).await.unwrap();
    }
    let usage = "select to_jsonb(pg_notification_queue_usage())";
    world
        .sql("select pg_notify('elsewhere', n || repeat('x', 7000)) from generate_series(1, 20) as n")
        .await;
    let filled = world.value(usage).await;
    assert!(filled.as_f64().unwrap() > 5e-6, "{filled}");
    assert!(!is_notifying(&world).await);
    // Each of these would be a notification, some hundred to a page.
    world
        .sql("insert into apipay.jobs (operation, params) select 'invoice.create', '{}' from generate_series(1, 1000)")
        .await;
    let job = world.bill(phone::PAID, 700).await;
    world.until(job, "succeeded").await;
    world.until_all_final().await;
    assert_eq!(world.value(usage).await, filled);
    // Nor does the setting force one in.
    world.sql("set apipay.notify = on; do $$ begin assert not apipay._is_notifying(); end $$; reset apipay.notify").await;
    check_says(&world, "the server's queue of notifications is").await;

    drop(listener);
    world.until_true("select apipay._is_notifying()").await;
    world.end([daemon]).await;
}
