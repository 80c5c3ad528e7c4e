//! A schema that somebody made with psql, out of the files of the migrations: is it what they make?

use std::collections::BTreeSet;

use sqlx::migrate::Migrator;
use sqlx::{Connection, PgConnection};

/// The first part in which the schema differs from a fresh one; none when they are the same, word for word.
///
/// Makes the fresh one beside it, in a transaction that is taken back.
pub(super) async fn difference(
    connection: &mut PgConnection,
    migrator: &Migrator,
) -> Result<Option<String>, sqlx::Error> {
    let mut aside = connection.begin().await?;
    let found = definitions(&mut aside).await?;
    sqlx::raw_sql("alter schema apipay rename to apipay_made_by_hand; create schema apipay")
        .execute(&mut *aside)
        .await?;
    for migration in migrator.iter() {
        sqlx::raw_sql(migration.sql.clone())
            .execute(&mut *aside)
            .await?;
    }
    let fresh = definitions(&mut aside).await?;
    aside.rollback().await?;
    let mut differences = found.symmetric_difference(&fresh);
    Ok(differences.next().map(|(part, _)| part.clone()))
}

async fn definitions(
    connection: &mut PgConnection,
) -> Result<BTreeSet<(String, String)>, sqlx::Error> {
    let parts = sqlx::query_as(include_str!("definitions.sql"))
        .fetch_all(connection)
        .await?;
    Ok(parts.into_iter().collect())
}
