//! What an operation may be given is described once in the daemon and once in the database, and both take the same.

mod any;
mod same;

use apipayd::domain::operation::OPERATIONS;
use apipayd::domain::operation::fields::{Field, FieldKind, Fields};
use serde::Serialize;
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};

use crate::world::{Cluster, Database};

/// The only column of the only row.
async fn value<T>(pool: &PgPool, sql: &str) -> T
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
{
    let row = sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(pool);
    row.await.unwrap()
}

fn json(value: &impl Serialize) -> String {
    let json = serde_json::to_string(value).unwrap();
    json.replace("\":", "\": ").replace(",\"", ", \"")
}

/// The description of an object as it stands in the migration, without the brackets around it.
fn described(fields: &Fields, indent: &str) -> String {
    let each: Vec<String> = fields
        .fields
        .iter()
        .map(|field| format!("{indent}  {}", described_field(field, indent)))
        .collect();
    format!(
        "{indent}\"fields\": [\n{}],\n{indent}\"reserved\": {}, \"rules\": {}",
        each.join(",\n"),
        json(&fields.reserved),
        json(&fields.rules)
    )
}

fn described_field(field: &Field, indent: &str) -> String {
    let FieldKind::Items(item) = field.kind else {
        return json(field);
    };
    format!(
        "{{\"name\": {}, \"kind\": \"items\", \"need\": {}, \"allowed\": {},\n{}}}",
        json(&field.name),
        json(&field.need),
        json(&field.allowed),
        described(item, &format!("{indent}    "))
    )
}

/// The body of `apipay._fields`.
fn cases() -> String {
    let cases = OPERATIONS.iter().map(|operation| {
        let description = described(operation.fields(), "    ").replace('\'', "''");
        format!(
            "  when '{}' then jsonb '{{\n{description}}}'",
            operation.name()
        )
    });
    cases.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn the_database_describes_each_operation_as_the_daemon_does() {
    let database = Database::migrated(Cluster::shared().await).await;
    let known: Vec<String> = value(&database.pool, "select apipay._operations()").await;
    let names: Vec<&str> = OPERATIONS
        .iter()
        .map(|operation| operation.name())
        .collect();
    assert_eq!(known, names, "apipay._operations() and OPERATIONS");
    for operation in OPERATIONS {
        let sql = format!("select apipay._fields('{}')", operation.name());
        let described: Option<Value> = value(&database.pool, &sql).await;
        let expected = serde_json::to_value(operation.fields()).unwrap();
        assert!(
            described == Some(expected),
            "{}: apipay._fields must be, in the migration that makes it:\n\n{}\n",
            operation.name(),
            cases()
        );
    }
    let unknown: Option<Value> = value(&database.pool, "select apipay._fields('none')").await;
    assert_eq!(unknown, None);
    database.drop_database().await;
}
