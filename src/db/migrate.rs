//! The schema's version: what this binary brings, what the database has.

use std::time::Duration;

use sqlx::migrate::{Migrate, MigrateError, Migrator};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};

use super::locks::{self, Blocker};
use super::soundness::{self, Letters};
use super::{DbError, Pool, Task, by_hand, settings};

static MIGRATIONS: Migrator = sqlx::migrate!();

/// Beside the user's own migrations, which have a table of their own.
const TABLE: &str = "apipay._migrations";

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
    /// A migration of this number ran with another text than this binary has.
    Changed(i64),
}

fn migrator() -> Migrator {
    let mut migrator = Migrator {
        migrations: MIGRATIONS.migrations.clone(),
        ..Migrator::DEFAULT
    };
    migrator.dangerous_set_table_name(TABLE);
    // Its own is an advisory lock, which whoever may connect can take and keep: see `alone`.
    migrator.set_locking(false);
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
    /// It was made with psql, and differs from what the migrations make.
    #[error(
        "there is a schema apipay already that is not recorded in apipay._migrations and is not what this apipayd \
         makes: {part} is missing, differs or is too many; install the apipayd whose files made it, or drop it, \
         with its jobs, and migrate again"
    )]
    Different {
        /// Such as `function apipay.stop(text)`.
        part: String,
    },
    /// What the gateway writes could not be stored.
    #[error(
        "the encoding of this database is {encoding}, which has no Russian letters: what the gateway answers could \
         not be stored. Nothing was made. Use a database with the encoding UTF8, which has all letters (or with \
         WIN1251, KOI8R, KOI8U, ISO_8859_5, WIN866 or SQL_ASCII)"
    )]
    Encoding {
        /// As Postgres calls it.
        encoding: String,
    },
    /// What a statement needs is kept locked, and it was waited for in vain.
    #[error("what the migration needs is kept locked by {}", by.join("; by "))]
    Locked {
        /// By whom, and what is to be done.
        by: Vec<String>,
        /// What the database said.
        #[source]
        source: MigrateError,
    },
    /// A statement failed.
    #[error(transparent)]
    Failed(#[from] MigrateError),
}

/// What a migration did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Migrated {
    /// It made the schema, or brought it up to date.
    Made,
    /// The schema was there, made with psql out of the same files: it is recorded from now on.
    Recorded,
}

/// Brings the schema up to date; several daemons may try at once. What it makes binds no name outside
/// `pg_catalog` and `apipay`, whatever the database's `search_path`.
pub async fn migrate(pool: &PgPool) -> Result<Migrated, MigrationError> {
    let mut connection = pool.acquire().await.map_err(MigrateError::from)?;
    // It is set to what nobody else asked for.
    connection.close_on_drop();
    settings::set_for_migration(&mut connection)
        .await
        .map_err(MigrateError::from)?;
    let encoding: String = sqlx::query_scalar("select current_setting('server_encoding')")
        .fetch_one(&mut *connection)
        .await
        .map_err(MigrateError::from)?;
    if soundness::letters(&encoding) == Letters::None {
        return Err(MigrationError::Encoding { encoding });
    }
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(&mut *connection)
        .await
        .map_err(MigrateError::from)?;
    let mut migrating = std::pin::pin!(async {
        loop {
            if let Some(migrated) = in_one_transaction(&mut connection).await? {
                return Ok(migrated);
            }
        }
    });
    // Who keeps it waiting is seen only as long as it waits.
    let mut by = Vec::new();
    loop {
        if let Ok(done) = tokio::time::timeout(LOOKED_AFTER, &mut migrating).await {
            return done.map_err(|error| named(error, by));
        }
        // It need not be known.
        if let Ok(blockers) = blockers(pool, pid).await {
            by = blockers.iter().map(Blocker::with_remedy).collect();
        }
    }
}

/// How often it is seen whom a migration waits for.
const LOOKED_AFTER: Duration = Duration::from_secs(2);

/// Looks by a connection of its own: the pool of a migration has a single one.
async fn blockers(pool: &PgPool, pid: i32) -> Result<Vec<Blocker>, DbError> {
    let task = "look whom the migration waits for";
    let mut connection = pool.connect_options().connect().await.task(task)?;
    let blockers = locks::awaited_by(&mut connection, pid).await?;
    connection.close().await.task(task)?;
    Ok(blockers)
}

/// Names those that were waited for in vain.
fn named(error: MigrationError, by: Vec<String>) -> MigrationError {
    match error {
        MigrationError::Failed(source) if !by.is_empty() && is_lock_timeout(&source) => {
            MigrationError::Locked { by, source }
        }
        error => error,
    }
}

fn is_lock_timeout(error: &MigrateError) -> bool {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else {
        return false;
    };
    let code = error.as_database_error().and_then(|error| error.code());
    // lock_not_available.
    code.as_deref() == Some("55P03")
}

/// All that is missing in one transaction, so that nothing stays half done; none when another daemon has just made the
/// schema or its table, so that it is to be looked at again.
async fn in_one_transaction(
    connection: &mut PgConnection,
) -> Result<Option<Migrated>, MigrationError> {
    let mut transaction = connection.begin().await.map_err(MigrateError::from)?;
    let unrecorded = unrecorded(&mut transaction)
        .await
        .map_err(MigrateError::from)?;
    if let Some(Unrecorded { owner, .. }) = unrecorded.as_ref().filter(|found| !found.is_ours) {
        let owner = owner.clone();
        return Err(MigrationError::Foreign { owner });
    }
    if let Err(error) = alone(&mut transaction).await {
        if !is_made_by_another(&error) {
            return Err(error.into());
        }
        transaction.rollback().await.map_err(MigrateError::from)?;
        return Ok(None);
    }
    let migrated = if unrecorded.is_some() {
        record(&mut transaction).await?;
        Migrated::Recorded
    } else {
        migrator().run(&mut *transaction).await?;
        Migrated::Made
    };
    transaction.commit().await.map_err(MigrateError::from)?;
    Ok(Some(migrated))
}

/// Keeps other migrations of this schema out until the end of the transaction, by a lock that needs more than the right
/// to connect: on the table of the migrations, which may still be read. Whoever makes it is alone until the commit.
async fn alone(connection: &mut PgConnection) -> Result<(), MigrateError> {
    let is_there: bool = sqlx::query_scalar("select to_regnamespace('apipay') is not null")
        .fetch_one(&mut *connection)
        .await?;
    if !is_there {
        sqlx::raw_sql("create schema apipay")
            .execute(&mut *connection)
            .await?;
    }
    connection.ensure_migrations_table(TABLE).await?;
    sqlx::raw_sql("lock table apipay._migrations in share row exclusive mode")
        .execute(connection)
        .await?;
    Ok(())
}

/// Whether what was to be made is there since a moment ago: it is waited for whoever makes the same.
fn is_made_by_another(error: &MigrateError) -> bool {
    let MigrateError::Execute(sqlx::Error::Database(error)) = error else {
        return false;
    };
    // unique_violation, duplicate_schema, duplicate_table.
    matches!(error.code().as_deref(), Some("23505" | "42P06" | "42P07"))
}

/// Records a schema that was made with psql, if it is what the migrations make.
async fn record(connection: &mut PgConnection) -> Result<(), MigrationError> {
    let migrator = migrator();
    if let Some(part) = by_hand::difference(connection, &migrator)
        .await
        .map_err(MigrateError::from)?
    {
        return Err(MigrationError::Different { part });
    }
    migrator.skip(&mut *connection, None).await?;
    // Reading the table of the migrations is one of the worker's rights.
    sqlx::query("select apipay._grant_roles()")
        .execute(connection)
        .await
        .map_err(MigrateError::from)?;
    Ok(())
}

/// A schema `apipay` of which no migration is recorded.
#[derive(sqlx::FromRow)]
struct Unrecorded {
    owner: String,
    is_ours: bool,
}

/// Looks for one that is somebody else's, or has something in it.
async fn unrecorded(connection: &mut PgConnection) -> Result<Option<Unrecorded>, sqlx::Error> {
    sqlx::query_as(
        "select n.nspowner::regrole::text as owner, n.nspowner = current_user::regrole as is_ours from pg_namespace n
          where n.nspname = 'apipay' and to_regclass('apipay._migrations') is null
            and (n.nspowner <> current_user::regrole
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
    let applied: Vec<(i64, Vec<u8>)> = sqlx::query_as(
        "select version, checksum from apipay._migrations where success order by version",
    )
    .fetch_all(pool)
    .await
    .task("read the schema's version")?;
    let ours: Vec<(i64, &[u8])> = MIGRATIONS
        .iter()
        .map(|migration| (migration.version, &*migration.checksum))
        .collect();
    Ok(compare(&applied, &ours))
}

/// A newer program may have changed what it likes, so that is looked at first.
fn compare(applied: &[(i64, Vec<u8>)], ours: &[(i64, &[u8])]) -> SchemaVersion {
    let text_of = |wanted: i64| ours.iter().find(|(version, _)| *version == wanted);
    if applied
        .iter()
        .any(|(version, _)| text_of(*version).is_none())
    {
        return SchemaVersion::Newer;
    }
    let changed = applied
        .iter()
        .find(|(version, text)| text_of(*version).is_some_and(|(_, ours)| ours != text));
    match changed {
        Some((version, _)) => SchemaVersion::Changed(*version),
        None if applied.len() < ours.len() => SchemaVersion::Older,
        None => SchemaVersion::Current,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_as_old_as_its_migrations_and_their_texts_say() {
        let ours: [(i64, &[u8]); 2] = [(1, b"a"), (2, b"b")];
        let check = |applied: &[(i64, &[u8])], version| {
            let applied: Vec<(i64, Vec<u8>)> = applied
                .iter()
                .map(|(v, text)| (*v, text.to_vec()))
                .collect();
            assert_eq!(compare(&applied, &ours), version);
        };
        check(&ours, SchemaVersion::Current);
        check(&[], SchemaVersion::Older);
        check(&[(1, b"a")], SchemaVersion::Older);
        check(&[(1, b"a"), (2, b"c")], SchemaVersion::Changed(2));
        check(&[(1, b"")], SchemaVersion::Changed(1));
        check(&[(1, b"a"), (2, b"b"), (3, b"c")], SchemaVersion::Newer);
        check(&[(1, b"x"), (3, b"c")], SchemaVersion::Newer);
    }
}
