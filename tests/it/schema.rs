//! The rules of the schema, told in SQL: every file of `tests/sql` runs in a database of its own.

use std::path::Path;

use sqlx::AssertSqlSafe;

use crate::world::{Cluster, Database, ROOT};

#[tokio::test]
async fn every_file_of_sql_tests_holds() {
    let mut files: Vec<_> = std::fs::read_dir(Path::new(ROOT).join("tests/sql"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .collect();
    files.sort();
    assert!(files.len() >= 8, "{files:?}");
    let mut broken = Vec::new();
    for file in files {
        let database = Database::migrated(Cluster::shared().await).await;
        let text = std::fs::read_to_string(&file).unwrap();
        // A connection of its own, for what the file sets and creates for its session.
        let mut connection = database.pool.acquire().await.unwrap();
        if let Err(error) = sqlx::raw_sql(AssertSqlSafe(text))
            .execute(&mut *connection)
            .await
        {
            broken.push(format!("{}: {error}", file.display()));
        }
        drop(connection.detach());
        database.drop_database().await;
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}
