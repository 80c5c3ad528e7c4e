//! The schema's version: what this binary brings, what the database has.

use sqlx::PgPool;
use sqlx::migrate::{MigrateError, Migrator};

use super::{DbError, Pool, Task};

static MIGRATIONS: Migrator = sqlx::migrate!();

/// How the database's schema compares with this binary's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaVersion {
    /// They agree.
    Current,
    /// There is no schema `apipay`, or not one of ours.
    Missing,
    /// The database lacks migrations that this binary has.
    Older,
    /// The database has migrations that this binary does not know.
    Newer,
}

fn migrator() -> Migrator {
    let mut migrator = Migrator {
        migrations: MIGRATIONS.migrations.clone(),
        ..Migrator::DEFAULT
    };
    // Beside the user's own migrations, which keep their own table and their own lock.
    migrator.create_schema("apipay");
    migrator.dangerous_set_table_name("apipay._migrations");
    migrator
}

/// Brings the schema up to date; several daemons may try at once.
pub async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    migrator().run(pool).await
}

/// Compares without changing anything.
pub async fn version(pool: &Pool) -> Result<SchemaVersion, DbError> {
    let known =
        sqlx::query_scalar::<_, Option<String>>("select to_regclass('apipay._migrations')::text")
            .fetch_one(pool)
            .await
            .task("look for the schema")?;
    if known.is_none() {
        return Ok(SchemaVersion::Missing);
    }
    let applied: Vec<i64> = sqlx::query_scalar::<_, i64>(
        "select version from apipay._migrations where success order by version",
    )
    .fetch_all(pool)
    .await
    .task("read the schema's version")?;
    let ours: Vec<i64> = MIGRATIONS
        .iter()
        .map(|migration| migration.version)
        .collect();
    Ok(if applied.iter().any(|version| !ours.contains(version)) {
        SchemaVersion::Newer
    } else if ours.iter().any(|version| !applied.contains(version)) {
        SchemaVersion::Older
    } else {
        SchemaVersion::Current
    })
}
