//! What our statements' meaning depends on is set, not hoped for: a database and a role may have any
//! setting as their default, for reasons that have nothing to do with us.
//!
//! Not set, on purpose:
//! - `default_transaction_read_only`: who makes a database read-only means it. The daemon says so and waits.
//! - costs, memory, workers, `lc_*`, XML and text search: no statement of ours means another thing by them.
//! - `session_replication_role`: `replica` switches our triggers off, and only a superuser may set it. So a
//!   start is refused, by [`super::health::Server`].

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Error, Postgres, SqlSafeStr, SqlStr};

/// What each of our sessions, or transactions behind a pooler, is set to; written as the server shows it.
pub(super) const SETTINGS: [(&str, &str); 35] = [
    // What is sent after a commit must stand in the database whatever dies. `off` forgets the last
    // half second, and with it that something was sent.
    ("synchronous_commit", "on"),
    // Statements see and lock the newest rows; other levels raise an error instead.
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_deferrable", "off"),
    // No name is looked up where somebody else may create one. (Otherwise a list is shown in quotes.)
    ("quote_all_identifiers", "off"),
    ("search_path", "pg_catalog, pg_temp"),
    // Rows that a policy hides would be jobs that nobody sends: an error instead.
    ("row_security", "off"),
    // No statement of ours takes this long on a healthy database. Shorter ones would be stopped for nothing.
    ("statement_timeout", "30s"),
    ("lock_timeout", "10s"),
    ("idle_in_transaction_session_timeout", "30s"),
    // Connections wait for work, and for hints, as long as it takes.
    ("idle_session_timeout", "0"),
    // An error is an answer, not the end of the session.
    ("exit_on_error", "off"),
    // How the text of a statement, of a function's body and of a value is read.
    ("client_encoding", "UTF8"),
    ("standard_conforming_strings", "on"),
    ("backslash_quote", "safe_encoding"),
    ("transform_null_equals", "off"),
    ("array_nulls", "on"),
    ("plpgsql.extra_errors", "none"),
    // How moments, spans, numbers and bytes become text and are read from it.
    ("TimeZone", "UTC"),
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
    // Short statements, run often: compiling or planning each again costs more than running it.
    ("jit", "off"),
    ("plan_cache_mode", "force_generic_plan"),
    // Each touches a handful of rows by their index. A plan that was made while a table was
    // small, and reads all of it, would be kept when it is large.
    ("enable_seqscan", "off"),
    // What is read in order comes from an index in that order. Such a plan would sort all of it.
    ("enable_bitmapscan", "off"),
    // Every look-up of ours is for another row: a cache of rows costs and never hits.
    ("enable_memoize", "off"),
    // The ways that are left to the planner.
    ("enable_indexscan", "on"),
    ("enable_indexonlyscan", "on"),
    ("enable_nestloop", "on"),
    ("enable_hashjoin", "on"),
    ("enable_sort", "on"),
    ("enable_hashagg", "on"),
    ("enable_material", "on"),
    ("enable_partition_pruning", "on"),
];

/// The same for settings that not every server knows: from which `server_version_num` on.
const NEWER: [(i32, &str, &str); 1] = [
    // The time-outs above stop what hangs; this one would also stop what works.
    (170_000, "transaction_timeout", "0"),
];

/// Begins a transaction with the settings, behind a pooler.
pub(super) fn begin() -> SqlStr {
    // A default of the session does not reach the transaction that sets it.
    let begin = "begin isolation level read committed, not deferrable";
    AssertSqlSafe(format!("{begin}; {}", statements("set local", true))).into_sql_str()
}

/// Sets a session that was opened without them, and lets its statements take the time that a migration takes.
pub(super) async fn set_for_migration(connection: &mut PgConnection) -> Result<(), Error> {
    let sql = statements("set", false) + "; set statement_timeout = 0";
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(connection)
        .await
        .map(drop)
}

/// Sets what could not be given at the start of a direct session.
pub(super) async fn complete(connection: &mut PgConnection) -> Result<(), Error> {
    sqlx::raw_sql(AssertSqlSafe(newer(false)))
        .execute(connection)
        .await
        .map(drop)
}

/// Whether the session, or transaction, is set to all of them: behind a pooler that we were not told of it is not.
pub(super) async fn are_set<'c>(
    executor: impl sqlx::Executor<'c, Database = Postgres>,
) -> Result<bool, Error> {
    let (names, values): (Vec<_>, Vec<_>) = SETTINGS.into_iter().unzip();
    sqlx::query_scalar::<_, bool>(
        "select bool_and(current_setting(s.name, true) is not distinct from s.value)
           from unnest($1::text[], $2::text[]) as s (name, value)",
    )
    .bind(names)
    .bind(values)
    .fetch_one(executor)
    .await
}

fn statements(set: &str, is_local: bool) -> String {
    let mut sql = String::new();
    for (name, value) in SETTINGS {
        // A list is written as a list.
        let value = value.replace(", ", "', '");
        sql += &format!("{set} {name} = '{value}'; ");
    }
    sql + &newer(is_local)
}

fn newer(is_local: bool) -> String {
    let set = NEWER.map(|(from, name, value)| {
        format!(
            "select set_config('{name}', '{value}', {is_local}) where current_setting('server_version_num')::int >= {from}"
        )
    });
    set.join("; ")
}
