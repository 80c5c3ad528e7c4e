//! The rules of the schema, told in SQL: every file of `tests/sql` runs in a database of its own.

use std::path::Path;

use sqlx::AssertSqlSafe;

use crate::world::{Cluster, Database, ROOT};

/// Reads each column of each view, of every job that there is, as each role that may.
const READ_ALL_AS_EACH_ROLE: &str = r#"
do $$
declare
  reader text;
  shown regclass;
begin
  for reader, shown in
    select role, c.oid from unnest(apipay._roles()) as role, pg_class c
     where c.relnamespace = 'apipay'::regnamespace and c.relkind = 'v' and has_table_privilege(role, c.oid, 'select')
  loop
    begin
      execute format('set local role %I', reader);
      execute format('select count(all_of::text) from %s all_of', shown);
      reset role;
    exception when others then
      raise exception '% reads %: % %', reader, shown, sqlstate, sqlerrm;
    end;
  end loop;
end $$"#;

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
        // The views are read of whatever jobs it leaves.
        for text in [text.as_str(), READ_ALL_AS_EACH_ROLE] {
            // A connection of its own, for what the file sets and creates for its session.
            let mut connection = database.pool.acquire().await.unwrap();
            if let Err(error) = sqlx::raw_sql(AssertSqlSafe(text))
                .execute(&mut *connection)
                .await
            {
                broken.push(format!("{}: {error}", file.display()));
            }
            drop(connection.detach());
        }
        database.drop_database().await;
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}
