//! Alerts, from their cause to their end: each kind opens when its cause is there, says what helps in statements that
//! an operator may run, and ends when they were run and the cause is gone.

mod away;
mod channels;
mod held;
mod left;
mod machines;
mod missing;
mod modes;
mod refused;
mod revived;
mod shown;
mod walk;

use serde_json::Value;
use sqlx::AssertSqlSafe;

use crate::world::World;

/// Waits for the open alert of this kind that these words of SQL choose, and returns its row.
async fn open(world: &World, kind: &str, choice: &str) -> Value {
    let of_kind =
        format!("from apipay.alerts where kind = '{kind}' and resolved_at is null and {choice}");
    world
        .until_true(&format!("select exists (select {of_kind})"))
        .await;
    world.rows(&format!("select * {of_kind}")).await.remove(0)
}

/// Waits until no alert of this kind is open that these words choose.
async fn until_ended(world: &World, kind: &str, choice: &str) {
    world
        .until_true(&format!(
            "select not exists (select from apipay.alerts where kind = '{kind}' and resolved_at is null and {choice})"
        ))
        .await;
}

/// What an alert says to do.
fn action(alert: &Value) -> &str {
    alert["action"].as_str().unwrap()
}

/// The statements in it: each from its first word to its semicolon.
fn statements(action: &str) -> Vec<String> {
    let ended = action.split_inclusive(';');
    let statements = ended.filter(|part| part.ends_with(';'));
    statements
        .filter_map(|part| Some(part[part.find("select ")?..].to_owned()))
        .collect()
}

/// Runs a statement as who is on duty.
async fn as_operator(world: &World, statement: &str) -> Result<(), sqlx::Error> {
    let mut transaction = world.pool().begin().await?;
    sqlx::raw_sql("set local role apipay_operator")
        .execute(&mut *transaction)
        .await?;
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}

/// Does all that an alert says in SQL, as who is on duty.
async fn obey(world: &World, alert: &Value) {
    for statement in statements(action(alert)) {
        if let Err(error) = as_operator(world, &statement).await {
            panic!("{}: {statement}: {error}\n{alert}", alert["kind"]);
        }
    }
}

#[test]
fn statements_are_found_among_words() {
    let action = "look; see: select 1; and then: select f('a', 'why'); or wait";
    assert_eq!(statements(action), ["select 1;", "select f('a', 'why');"]);
}
