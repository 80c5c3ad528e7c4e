//! The states of a job and the moves between them: one table, in the daemon, in the database and in the documentation.

use std::collections::BTreeSet;
use std::path::Path;

use apipayd::domain::state::State;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool, Row};

use crate::world::{Cluster, Database, ROOT, WORKER};

/// Every two states, in both directions, and each with itself.
fn pairs() -> impl Iterator<Item = (State, State)> {
    State::ALL
        .into_iter()
        .flat_map(|from| State::ALL.into_iter().map(move |to| (from, to)))
}

/// The only column of the only row.
async fn value<T>(pool: &PgPool, sql: &str) -> T
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    let row = sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_one(pool);
    row.await.unwrap().get(0)
}

/// The states that a check constraint of the table names.
async fn named_in(pool: &PgPool, constraint: &str) -> BTreeSet<State> {
    let sql = format!(
        "select pg_get_constraintdef(oid) from pg_constraint where conname = '{constraint}'"
    );
    let definition: String = value(pool, &sql).await;
    let words = definition.split('\'').skip(1).step_by(2);
    words
        .map(|word| State::parse(word).unwrap_or_else(|| panic!("{word}: {definition}")))
        .collect()
}

#[tokio::test]
async fn the_database_has_the_states_and_the_moves_of_the_daemon() {
    let database = Database::migrated(Cluster::shared().await).await;
    let pool = &database.pool;
    let all = BTreeSet::from(State::ALL);
    assert_eq!(named_in(pool, "jobs_state_known").await, all);
    let ends = all.into_iter().filter(|state| state.is_final()).collect();
    assert_eq!(named_in(pool, "jobs_finished_when_final").await, ends);

    for from in State::ALL {
        let next: Vec<String> = value(pool, &format!("select apipay._next_states('{from}')")).await;
        let next: Vec<State> = next.iter().filter_map(|word| State::parse(word)).collect();
        for to in State::ALL {
            assert_eq!(next.contains(&to), from.may_become(to), "{from} → {to}");
        }
    }
    let of_none: Option<Vec<String>> = value(pool, "select apipay._next_states('done')").await;
    assert_eq!(of_none, None);

    for unproven_since in [None, Some("2026-01-01Z")] {
        let moment = unproven_since.map_or("null".to_owned(), |since| format!("'{since}'"));
        let back: String = value(pool, &format!("select apipay._back_to({moment})")).await;
        assert_eq!(State::parse(&back), Some(State::back_to(unproven_since)));
    }
    database.drop_database().await;
}

/// What the columns say that depend on the state.
fn columns_of(state: State) -> [(&'static str, &'static str); 4] {
    let (leased_by, leased_until) = match state {
        State::Sending => ("gen_random_uuid()", "now() + interval '1 minute'"),
        _ => ("null", "null"),
    };
    let finished_at = if state.is_final() { "now()" } else { "null" };
    [
        ("leased_by", leased_by),
        ("leased_until", leased_until),
        ("finished_at", finished_at),
        ("reason", "'moved'"),
    ]
}

async fn job_in(pool: &PgPool, state: State) -> i64 {
    let (names, values): (Vec<_>, Vec<_>) = columns_of(state).into_iter().unzip();
    let sql = format!(
        "insert into apipay.jobs (operation, params, state, {}) values ('invoice.create', '{{}}', '{state}', {}) returning id",
        names.join(", "),
        values.join(", ")
    );
    value(pool, &sql).await
}

/// Why the database refuses the move; none if it takes it.
async fn refusal(pool: &PgPool, job: i64, to: State) -> Option<(String, String)> {
    let columns = columns_of(to).map(|(name, value)| format!("{name} = {value}"));
    let columns = columns.join(", ");
    let sql = format!("update apipay.jobs set state = '{to}', {columns} where id = {job}");
    match sqlx::query(AssertSqlSafe(sql)).execute(pool).await {
        Ok(done) => {
            assert_eq!(done.rows_affected(), 1, "{job}: {to}");
            None
        }
        Err(sqlx::Error::Database(error)) => Some((
            error.code().unwrap_or_default().into_owned(),
            error.message().to_owned(),
        )),
        Err(error) => panic!("{job}: {to}: {error}"),
    }
}

/// What the refusal of a move must say.
fn expected(job: i64, from: State, to: State) -> String {
    if from.is_final() {
        return format!(
            "job {job} is {from} and final: it never changes; apipay.retry({job}) enqueues a copy"
        );
    }
    let allowed = from.moves().iter().map(|state| state.as_str());
    let allowed = allowed.collect::<Vec<_>>().join(", ");
    format!("job {job} is {from}: it cannot become {to}; from there it may only become {allowed}")
}

/// A superuser's session obeys like the daemon's.
#[tokio::test]
async fn every_illegal_move_is_refused_and_every_legal_one_is_taken() {
    let database = Database::migrated(Cluster::shared().await).await;
    let owner = &database.pool;
    let daemon = PgPoolOptions::new()
        .max_connections(1)
        .connect_with(database.options().username(WORKER))
        .await
        .unwrap();
    let (is_super, is_plain): (bool, bool) = (
        value(owner, "select current_setting('is_superuser') = 'on'").await,
        value(&daemon, "select current_setting('is_superuser') = 'off'").await,
    );
    assert!(is_super && is_plain);
    sqlx::query("insert into apipay.accounts (name) values ('default')")
        .execute(owner)
        .await
        .unwrap();
    for (from, to) in pairs() {
        for who in [owner, &daemon] {
            let job = job_in(owner, from).await;
            let refused = refusal(who, job, to).await;
            let expected =
                (!from.may_become(to)).then(|| ("23000".to_owned(), expected(job, from, to)));
            assert_eq!(refused, expected, "{from} → {to}");
            let state: String = value(
                owner,
                &format!("select state from apipay.jobs where id = {job}"),
            )
            .await;
            let is = if refused.is_none() { to } else { from };
            assert_eq!(State::parse(&state), Some(is), "{from} → {to}");
        }
    }
    daemon.close().await;
    database.drop_database().await;
}

/// One statement over many rows is refused for the one that may not move.
#[tokio::test]
async fn one_illegal_move_among_many_changes_none() {
    let database = Database::migrated(Cluster::shared().await).await;
    let pool = &database.pool;
    sqlx::query("insert into apipay.accounts (name) values ('default')")
        .execute(pool)
        .await
        .unwrap();
    let queued = job_in(pool, State::Queued).await;
    let held = job_in(pool, State::Held).await;
    let parked = job_in(pool, State::Parked).await;
    let expire = "update apipay.jobs set state = 'expired', finished_at = now()";
    let error = sqlx::query(expire).execute(pool).await.unwrap_err();
    let error = error.into_database_error().unwrap();
    let refusals = [held, parked]
        .map(|job| {
            (
                job,
                if job == held {
                    State::Held
                } else {
                    State::Parked
                },
            )
        })
        .map(|(job, from)| expected(job, from, State::Expired));
    assert!(refusals.contains(&error.message().to_owned()), "{error}");
    let count = format!(
        "select count(*) from apipay.jobs where id in ({queued}, {held}, {parked}) and state = 'expired'"
    );
    assert_eq!(value::<i64>(pool, &count).await, 0);
    database.drop_database().await;
}

/// The words in backticks.
fn words(cell: &str) -> Vec<State> {
    let quoted = cell.split('`').skip(1).step_by(2);
    quoted
        .map(|word| State::parse(word).unwrap_or_else(|| panic!("{word} is no state: {cell}")))
        .collect()
}

#[test]
fn the_table_in_the_documentation_is_the_daemons() {
    let text = std::fs::read_to_string(Path::new(ROOT).join("ARCHITECTURE.md")).unwrap();
    let section = text
        .split("\n## ")
        .find(|it| it.starts_with("The states of a job\n"));
    let rows = section
        .unwrap()
        .lines()
        .filter(|line| line.starts_with("| `"));
    let documented: Vec<(Vec<State>, Vec<State>)> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').collect();
            (words(cells[1]), words(cells[2]))
        })
        .collect();
    let expected: Vec<(Vec<State>, Vec<State>)> = State::ALL
        .into_iter()
        .filter(|state| !state.is_final())
        .map(|state| (vec![state], state.moves().to_vec()))
        .collect();
    assert_eq!(documented, expected);
}
