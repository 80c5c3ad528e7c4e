//! What README.md tells people to do works as it stands there, with the rights that it gives them.

use std::path::Path;

use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use uuid::Uuid;

use crate::world::{Cluster, Database, ROOT};

/// Who runs a block of SQL: its first line says so when it is not a program.
const OPERATOR: &str = "-- as apipay_operator\n";

/// A new user who tries it: where the README names a role, one that nobody else has.
struct Reader {
    readme: String,
    database: Database,
    program: String,
    operator: String,
    daemon: String,
}

impl Reader {
    /// Has made the database and granted what the README says.
    async fn prepared() -> Reader {
        let unique = Uuid::new_v4().simple().to_string();
        let readme = std::fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
        let reader = Reader {
            readme,
            database: Database::migrated(Cluster::shared().await).await,
            program: format!("program_{unique}"),
            operator: format!("operator_{unique}"),
            daemon: format!("daemon_{unique}"),
        };
        for role in [&reader.program, &reader.operator, &reader.daemon] {
            reader.as_owner(&format!("create role {role} login")).await;
        }
        let grants = reader.grants();
        assert_eq!(grants.len(), 3, "{grants:?}");
        for grant in grants {
            reader.as_owner(&grant).await;
        }
        reader
            .as_owner(&format!(
                "insert into apipay.accounts (name) values ('default'); \
                 create table public.orders (id bigint, total numeric); grant insert on public.orders to {}; \
                 insert into apipay.jobs (id, operation, params) overriding system value \
                 values (42, 'invoice.create', '{{\"phone_number\": \"87001234567\", \"amount\": 100}}')",
                reader.program
            ))
            .await;
        reader
    }

    /// The statements that the owner is told to run to give rights, about roles of this test.
    fn grants(&self) -> Vec<String> {
        let commands = self.readme.split("psql shop -c '").skip(1);
        let statements = commands.map(|rest| rest.split('\'').next().unwrap());
        let grants = statements.filter(|statement| statement.starts_with("grant "));
        grants
            .map(|grant| {
                grant
                    .replace("YOUR_PROGRAM", &self.program)
                    .replace("YOUR_OPERATOR", &self.operator)
                    .replace("to apipayd", &format!("to {}", self.daemon))
            })
            .collect()
    }

    async fn as_owner(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&self.database.pool)
            .await
            .unwrap();
    }

    async fn connect(&self, role: &str) -> PgConnection {
        let options = self.database.options().username(role);
        PgConnection::connect_with(&options).await.unwrap()
    }

    async fn leave(self) {
        self.database.drop_database().await;
        let mut admin = Cluster::shared().await.admin().await;
        for role in [self.program, self.operator, self.daemon] {
            let drop = format!("drop role {role}");
            let dropped = sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut admin);
            dropped.await.unwrap();
        }
    }
}

/// Fenced blocks of a language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let opening = format!("```{language}\n");
    let blocks = text.split(&opening).skip(1);
    blocks
        .map(|rest| rest.split("```").next().unwrap())
        .collect()
}

#[tokio::test]
async fn every_statement_runs_with_the_rights_that_are_granted() {
    let reader = Reader::prepared().await;
    let blocks = blocks(&reader.readme, "sql");
    assert!(blocks.len() >= 3, "{blocks:?}");
    let mut refused = Vec::new();
    for block in blocks {
        let is_operators = block.starts_with(OPERATOR);
        let role = if is_operators {
            &reader.operator
        } else {
            &reader.program
        };
        let mut session = reader.connect(role).await;
        let run = sqlx::raw_sql(AssertSqlSafe(block.to_owned()))
            .execute(&mut session)
            .await;
        refused.extend(
            run.err()
                .map(|error| format!("{role}: {error}, in:\n{block}")),
        );
        session.close().await.unwrap();
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    reader.leave().await;
}

#[tokio::test]
async fn every_name_of_the_schema_exists() {
    let reader = Reader::prepared().await;
    let mut unknown = Vec::new();
    for file in [
        "README.md",
        "ARCHITECTURE.md",
        "config/default.toml",
        "config/apipayd.example.toml",
    ] {
        let text = std::fs::read_to_string(Path::new(ROOT).join(file)).unwrap();
        for rest in text.split("apipay.").skip(1) {
            let is_of_name = |letter: &char| letter.is_ascii_lowercase() || *letter == '_';
            let name: String = rest.chars().take_while(is_of_name).collect();
            // The address of ApiPay, and the settings of sessions.
            if ["", "kz", "notify", "cause"].contains(&name.as_str()) {
                continue;
            }
            let exists: bool = sqlx::query(
                "select exists (select from pg_catalog.pg_class where relnamespace = 'apipay'::regnamespace and relname = $1)
                     or exists (select from pg_catalog.pg_proc where pronamespace = 'apipay'::regnamespace and proname = $1)",
            )
            .bind(&name)
            .fetch_one(&reader.database.pool)
            .await
            .unwrap()
            .get(0);
            if !exists {
                unknown.push(format!("{file}: apipay.{name}"));
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:?}");
    reader.leave().await;
}

#[tokio::test]
async fn every_view_and_function_that_is_listed_may_be_used_by_an_operator() {
    let reader = Reader::prepared().await;
    let mut session = reader.connect(&reader.operator).await;
    let rows = reader
        .readme
        .lines()
        .filter(|line| line.starts_with("| `apipay."));
    let mut seen = 0;
    for row in rows {
        let names = row.split("| ").nth(1).unwrap();
        for name in names.split('`').filter(|part| part.starts_with("apipay.")) {
            let may = match name.split_once('(') {
                Some((function, _)) => {
                    format!(
                        "select bool_and(pg_catalog.has_function_privilege(p.oid, 'execute')) from pg_catalog.pg_proc p \
                         where p.pronamespace = 'apipay'::regnamespace and 'apipay.' || p.proname = '{function}'"
                    )
                }
                None => format!(
                    "select true from (select from {name} limit 1) as readable right join (select) as one on true"
                ),
            };
            let may: Option<bool> = sqlx::query(AssertSqlSafe(may))
                .fetch_one(&mut session)
                .await
                .unwrap_or_else(|error| panic!("{name}: {error}"))
                .get(0);
            assert_eq!(may, Some(true), "{name}");
            seen += 1;
        }
    }
    assert!(seen >= 13, "{seen}");
    session.close().await.unwrap();
    reader.leave().await;
}
