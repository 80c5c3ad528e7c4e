//! Of some operations one job at a time may be open for each invoice. That is part of their description, and the database
//! has it by name where it is held to: in a unique index, in the order of those that wait, and in the claims.

use std::collections::BTreeSet;
use std::path::Path;

use apipayd::domain::operation::OPERATIONS;
use sqlx::{AssertSqlSafe, Row};

use crate::world::{Cluster, Database, ROOT};

/// The operations whose description says it.
fn described() -> BTreeSet<&'static str> {
    let described = OPERATIONS.iter().filter(|it| it.is_one_at_a_time());
    described.map(|it| it.name()).collect()
}

/// The operations that are named in a piece of SQL.
fn named_in(sql: &str) -> BTreeSet<&'static str> {
    let names = OPERATIONS.iter().map(|it| it.name());
    names
        .filter(|name| sql.contains(&format!("'{name}'")))
        .collect()
}

/// What the database does by itself: the index that refuses a second one, and whose turn it is.
#[tokio::test]
async fn the_database_serialises_the_operations_that_say_so() {
    let database = Database::migrated(Cluster::shared().await).await;
    for definition in [
        "select pg_get_indexdef('apipay.jobs_one_open_refund'::regclass)",
        "select pg_get_indexdef('apipay.jobs_next_refund'::regclass)",
        "select pg_get_functiondef(oid) from pg_proc where pronamespace = 'apipay'::regnamespace and proname = '_is_behind_refund'",
        "select pg_get_functiondef(oid) from pg_proc where pronamespace = 'apipay'::regnamespace and proname = '_refund_in_turn'",
    ] {
        let row = sqlx::query(definition).fetch_one(&database.pool).await;
        let sql: String = row.unwrap().get(0);
        assert_eq!(named_in(&sql), described(), "{sql}");
    }

    sqlx::query("insert into apipay.accounts (name) values ('default')")
        .execute(&database.pool)
        .await
        .unwrap();
    for operation in OPERATIONS {
        let fields = operation.fields().fields;
        if !fields.iter().any(|field| field.name == "invoice_id") {
            continue;
        }
        let open = format!(
            "insert into apipay.jobs (operation, params) values ('{}', '{{\"invoice_id\": 15}}') returning id",
            operation.name()
        );
        let mut refused = false;
        for _ in 0..2 {
            let row = sqlx::query(AssertSqlSafe(open.clone())).fetch_one(&database.pool);
            let id: i64 = row.await.unwrap().get(0);
            let send = "update apipay.jobs set state = 'sending', epoch = epoch + 1, leased_by = gen_random_uuid(), \
                        leased_until = now() + interval '1 minute' where id = $1";
            let sent = sqlx::query(send).bind(id).execute(&database.pool).await;
            refused = match sent {
                Ok(_) => false,
                Err(error) => {
                    let error = error.as_database_error().unwrap();
                    assert_eq!(error.constraint(), Some("jobs_one_open_refund"), "{error}");
                    true
                }
            };
        }
        assert_eq!(
            refused,
            operation.is_one_at_a_time(),
            "{}",
            operation.name()
        );
    }
    database.drop_database().await;
}

/// What the daemon's own statements do: whoever asks whether a job waits for another one asks it of these operations.
#[test]
fn the_statements_ask_whose_turn_it_is_of_the_operations_that_say_so() {
    let mut asked = 0;
    for entry in std::fs::read_dir(Path::new(ROOT).join("src/db")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "sql") {
            continue;
        }
        let sql = std::fs::read_to_string(&path).unwrap();
        let pieces: Vec<&str> = sql.split("apipay._is_behind_refund(").collect();
        for before in &pieces[..pieces.len() - 1] {
            let condition = &before[before.rfind("operation = ").unwrap_or_default()..];
            assert_eq!(
                named_in(condition),
                described(),
                "{}: {condition}",
                path.display()
            );
            asked += 1;
        }
        for line in sql.lines().filter(|line| line.contains("as one_at_a_time")) {
            assert_eq!(named_in(line), described(), "{}: {line}", path.display());
        }
    }
    assert!(asked > 0, "nothing asks whose turn it is");
}
