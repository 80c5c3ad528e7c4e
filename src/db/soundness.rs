//! Whether the database that our schema stands in is sound: how it sorts, and whose functions ours call.

use sqlx::AssertSqlSafe;

use super::health::Server;
use super::{DbError, Pool, Task};

/// Which letters a database can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Letters {
    /// All there are.
    All,
    /// Russian ones, but not all Kazakh ones: what has such a letter is stored without the gateway's words.
    Russian,
    /// Any bytes, of whatever encoding: a job whose params are no UTF-8 fails.
    AnyBytes,
    /// Not even Russian ones, which the gateway writes.
    None,
}

/// Which letters a database with this encoding can hold. An allow-list: each of these is tried by a test.
pub fn letters(encoding: &str) -> Letters {
    match encoding {
        "UTF8" => Letters::All,
        "WIN1251" | "KOI8R" | "KOI8U" | "ISO_8859_5" | "WIN866" => Letters::Russian,
        "SQL_ASCII" => Letters::AnyBytes,
        _ => Letters::None,
    }
}

/// A way of sorting that changed under the indexes that were made with it.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct ChangedCollation {
    /// What has it, as SQL names it: `database shop`, or `collation public.kazakh`.
    pub place: String,
    /// The version that it had, as the operating system or ICU counts.
    pub recorded: String,
    /// The version that it has now.
    pub actual: String,
    /// The statement that records the new version, once the indexes are rebuilt.
    pub refresh: String,
}

/// The collations of this database, and of its indexes, that changed since they were recorded.
pub async fn changed_collations(
    pool: &Pool,
    server: &Server,
) -> Result<Vec<ChangedCollation>, DbError> {
    let of_indexes = "
        select 'collation ' || c.oid::regcollation as place, c.collversion as recorded,
               pg_collation_actual_version(c.oid) as actual,
               'alter collation ' || c.oid::regcollation || ' refresh version' as refresh
          from pg_collation c
         where c.collversion <> pg_collation_actual_version(c.oid)
           and exists (select from pg_index i where c.oid = any (i.indcollation))";
    // Version 14 records none for the database itself.
    let of_database = "
        select 'database ' || quote_ident(d.datname), d.datcollversion, pg_database_collation_actual_version(d.oid),
               'alter database ' || quote_ident(d.datname) || ' refresh collation version'
          from pg_database d
         where d.datname = current_database() and d.datcollversion <> pg_database_collation_actual_version(d.oid)";
    let statement = if server.version < 150_000 {
        of_indexes.to_owned()
    } else {
        format!("{of_indexes} union all {of_database}")
    };
    sqlx::query_as(AssertSqlSafe(statement))
        .fetch_all(pool)
        .await
        .task("compare the versions of its collations")
}

/// Something of ours that calls, or is made of, something outside `pg_catalog` and `apipay`.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct OutsideBinding {
    /// What is ours.
    pub ours: String,
    /// What is not.
    pub outside: String,
}

/// What the schema binds outside itself and Postgres: whoever owns that acts with the rights of those who
/// use ours. A migration binds nothing there; one of an earlier version could.
pub async fn outside_bindings(pool: &Pool) -> Result<Vec<OutsideBinding>, DbError> {
    sqlx::query_as(include_str!("outside_bindings.sql"))
        .fetch_all(pool)
        .await
        .task("look what the schema binds")
}

/// A trigger or rule on a table of ours that is not ours and may keep a change of a row from being made, without an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignTrigger {
    /// The table.
    pub relation: String,
    /// What it is and its name, such as `the trigger "audit"`.
    pub name: String,
}

/// The triggers before a change of a row, and the rules, of others on our tables.
pub async fn foreign_triggers(pool: &Pool) -> Result<Vec<ForeignTrigger>, DbError> {
    sqlx::query_as!(
        ForeignTrigger,
        r#"select found.relation as "relation!", found.name as "name!" from (
             select 'apipay.' || c.relname as relation, format('the trigger %I', t.tgname) as name
               from pg_catalog.pg_trigger t
               join pg_catalog.pg_class c on c.oid = t.tgrelid
               join pg_catalog.pg_proc p on p.oid = t.tgfoid
              where c.relnamespace = 'apipay'::regnamespace and not t.tgisinternal and p.pronamespace <> c.relnamespace
                -- For each row, and before it.
                and t.tgtype & 3 = 3 and t.tgenabled <> 'D'
             union all
             select 'apipay.' || c.relname, format('the rule %I', r.rulename)
               from pg_catalog.pg_rewrite r
               join pg_catalog.pg_class c on c.oid = r.ev_class
              where c.relnamespace = 'apipay'::regnamespace and c.relkind in ('r', 'p') and r.ev_enabled <> 'D') found
            order by 1, 2"#
    )
    .fetch_all(pool)
    .await
    .task("look for triggers of others")
}

/// The SQL that binds functions and views of ours to what Postgres has by the same name. For the schema's owner.
pub fn rebinding() -> String {
    let text = include_str!("rebind.sql").lines();
    let code = text.filter(|line| !line.trim_start().starts_with("--"));
    code.map(str::trim).collect::<Vec<_>>().join(" ")
}
