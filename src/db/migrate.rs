//! The schema's version: what this binary brings, what the database has.

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{PgConnection, PgPool};

use super::{DbError, Pool, Task, settings};

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

/// Why the schema was not brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// Whoever owns a schema may put functions into it that would run with the rights of its users.
    #[error(
        "there is a schema apipay already that no migration of apipayd made, owned by {owner}: look what it is, \
         then drop or rename it; an empty one may be filled by its owner"
    )]
    Foreign {
        /// The role that owns it.
        owner: String,
    },
    /// A statement failed.
    #[error(transparent)]
    Failed(#[from] MigrateError),
}

/// Brings the schema up to date; several daemons may try at once. What it makes binds no name outside
/// `pg_catalog` and `apipay`, whatever the database's `search_path`.
pub async fn migrate(pool: &PgPool) -> Result<(), MigrationError> {
    let mut connection = pool.acquire().await.map_err(MigrateError::from)?;
    // It is set to what nobody else asked for.
    connection.close_on_drop();
    settings::set_for_migration(&mut connection)
        .await
        .map_err(MigrateError::from)?;
    if let Some(owner) = foreign_owner(&mut connection)
        .await
        .map_err(MigrateError::from)?
    {
        return Err(MigrationError::Foreign { owner });
    }
    migrator().run(&mut *connection).await?;
    Ok(())
}

/// Who owns a schema `apipay` that we may not fill: somebody else's, or one with something in it that is not ours.
async fn foreign_owner(connection: &mut PgConnection) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(
        "select n.nspowner::regrole::text from pg_namespace n
          where n.nspname = 'apipay' and to_regclass('apipay._migrations') is null
            and (n.nspowner <> (select r.oid from pg_roles r where r.rolname = current_user)
                 or exists (select from pg_class c where c.relnamespace = n.oid)
                 or exists (select from pg_proc p where p.pronamespace = n.oid)
                 or exists (select from pg_operator o where o.oprnamespace = n.oid)
                 or exists (select from pg_type t where t.typnamespace = n.oid))",
    )
    .fetch_optional(connection)
    .await
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
