//! History costs nothing: beside years of finished rows, no statement of the daemon, no view with its
//! usual filters and no function for people reads rows that it does not need.
//!
//! Counted are the rows and pages that a statement touches, not its time: before the first `ANALYZE`, as
//! after a restore, and after it; with the plan for its arguments, and with the one for any. And no statement of
//! people seems so long that Postgres compiles it, which would take many times as long as to run it.

mod backlog;
mod people;
mod statements;

use std::fmt::Write;

use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::world::{Wish, World};

/// Something that is run often, with arguments as SQL.
struct Case {
    name: String,
    /// With parameters.
    sql: String,
    arguments: String,
    limit: Limit,
}

/// How much a statement may touch. None of these grows with history.
#[derive(Clone, Copy)]
struct Limit {
    /// Rows of our tables, or entries of our indexes.
    rows: i64,
    /// Pages of these, found in memory or read.
    pages: i64,
    /// Only the plan for its arguments is meant: an index that holds some states cannot serve a state
    /// that is a parameter.
    only_custom: bool,
}

/// About one job, invoice or account, or a page of a listing.
const FEW: Limit = Limit {
    // Once through the accounts, which are no history, is allowed.
    rows: 1_500,
    pages: 1_000,
    only_custom: false,
};

/// Looks at each of a thousand accounts, or at all that is under way.
const ALL: Limit = Limit {
    rows: 6_000,
    pages: 30_000,
    only_custom: false,
};

/// What the planner knows, and what happens before the measure.
const STATISTICS: [(&str, &[&str]); 3] = [
    ("without statistics", &[YEARS, TODAY]),
    // A sample of a huge table sees no job that waits either.
    (
        "with statistics of a quiet night",
        &[NIGHT, "vacuum analyze", TODAY],
    ),
    ("with statistics", &["vacuum analyze"]),
];
/// `jit_above_cost` as Postgres is shipped. Our own sessions switch compilation off.
const COMPILED_ABOVE: f64 = 100_000.0;
const YEARS: &str = include_str!("history/years.sql");
const TODAY: &str = include_str!("history/today.sql");
const NIGHT: &str = "delete from apipay.jobs where finished_at is null";

/// Jobs that are finished. A person may ask for millions, see README.md.
fn finished_jobs() -> i64 {
    let wished = std::env::var("APIPAYD_FINISHED_JOBS").ok();
    wished.map_or(300_000, |number| number.parse().unwrap())
}

/// A cluster where no transaction of another test keeps dead rows in the way of those that are counted.
fn undisturbed() -> Wish {
    Wish {
        own_cluster: true,
        ..Wish::default()
    }
}

#[tokio::test]
async fn no_statement_reads_the_history() {
    let world = World::made(undisturbed()).await;
    let jobs = finished_jobs();
    // One connection each: a session remembers its settings.
    let mut person = world.pool().acquire().await.unwrap();
    let daemon_pool = world.daemon_pool();
    let mut daemon = daemon_pool.connections().acquire().await.unwrap();

    // Counted is what a plan touches: to compile it would only cost the test its time.
    run(&mut person, "set jit = off").await;

    let ours = statements::cases();
    let theirs = people::cases();
    let mut faults = people::without_a_case(&mut person, &theirs).await;
    for (statistics, before) in STATISTICS {
        for sql in before {
            run(&mut person, &sql.replace("{JOBS}", &jobs.to_string())).await;
        }
        for (session, cases, cost) in [
            (&mut daemon, &ours, f64::INFINITY),
            (&mut person, &theirs, COMPILED_ABOVE),
        ] {
            for mode in ["force_custom_plan", "force_generic_plan"] {
                run(session, &format!("set plan_cache_mode = {mode}")).await;
                for case in cases {
                    if case.limit.only_custom && mode == "force_generic_plan" {
                        continue;
                    }
                    let touched = touched(session, case, jobs).await;
                    if std::env::var("APIPAYD_FINISHED_JOBS").is_ok() {
                        println!("{statistics}, {mode}: {}: {}", case.name, touched.told());
                    }
                    if touched.rows > case.limit.rows
                        || touched.pages > case.limit.pages
                        || touched.cost > cost
                    {
                        faults.push(format!(
                            "{}, {statistics}, {mode}: {}\n{}",
                            case.name,
                            touched.told(),
                            touched.plan
                        ));
                    }
                }
            }
        }
    }
    drop((person, daemon));
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    world.end_unchecked().await;
}

/// What a statement touched.
struct Touched {
    rows: i64,
    /// Tables and indexes of which it read something.
    of: String,
    pages: i64,
    ms: f64,
    /// What the planner expected.
    cost: f64,
    plan: String,
}

impl Touched {
    fn told(&self) -> String {
        format!(
            "{} rows, {} pages, {:.1} ms, cost {:.0} ({})",
            self.rows, self.pages, self.ms, self.cost, self.of
        )
    }
}

/// Counts of this session's: what functions and triggers read as well.
const COUNTERS: &str = "select c.relname, c.relkind = 'r' as is_table, \
     pg_stat_get_xact_tuples_returned(c.oid) as returned, pg_stat_get_xact_tuples_fetched(c.oid) as fetched, \
     pg_stat_get_xact_blocks_fetched(c.oid) as pages \
     from pg_catalog.pg_class c where c.relnamespace = 'apipay'::regnamespace and c.relkind in ('r', 'i') order by c.oid";

/// Runs the statement for real, and undoes it.
async fn touched(session: &mut PgConnection, case: &Case, jobs: i64) -> Touched {
    let arguments = case.arguments.replace("{JOBS}", &jobs.to_string());
    let run_it = if arguments.is_empty() {
        "explain (analyze, format json) execute case_".to_owned()
    } else {
        format!("explain (analyze, format json) execute case_({arguments})")
    };
    run(session, &format!("begin; prepare case_ as {}", case.sql)).await;
    let before = counters(session).await;
    let explained: Value = sqlx::raw_sql(AssertSqlSafe(run_it))
        .fetch_one(&mut *session)
        .await
        .unwrap_or_else(|error| panic!("{}: {error}", case.name))
        .get(0);
    let after = counters(session).await;
    run(session, "rollback; deallocate case_").await;

    let mut of = String::new();
    let (mut of_tables, mut of_indexes, mut pages) = (0, 0, 0);
    for (before, after) in before.into_iter().zip(after) {
        pages += after.pages - before.pages;
        let rows = after.rows - before.rows;
        if rows > 0 {
            *(if after.is_table {
                &mut of_tables
            } else {
                &mut of_indexes
            }) += rows;
            // Writing to a String cannot fail.
            write!(of, "{} {rows}, ", after.relation).unwrap();
        }
    }
    Touched {
        rows: of_tables.max(of_indexes),
        of: of.trim_end_matches(", ").to_owned(),
        pages,
        ms: explained[0]["Execution Time"].as_f64().unwrap(),
        cost: explained[0]["Plan"]["Total Cost"].as_f64().unwrap(),
        plan: outline(&explained[0]["Plan"], 1),
    }
}

/// What was read of a table or an index so far.
struct Counter {
    relation: String,
    is_table: bool,
    /// Of a table: rows of sequential scans, and rows by an index. Of an index: its entries.
    rows: i64,
    pages: i64,
}

async fn counters(session: &mut PgConnection) -> Vec<Counter> {
    let rows = sqlx::raw_sql(COUNTERS).fetch_all(session).await.unwrap();
    let counters = rows.into_iter().map(|row| {
        let is_table: bool = row.get("is_table");
        let (returned, fetched): (i64, i64) = (row.get("returned"), row.get("fetched"));
        Counter {
            relation: row.get("relname"),
            is_table,
            rows: if is_table {
                returned + fetched
            } else {
                returned
            },
            pages: row.get("pages"),
        }
    });
    counters.collect()
}

/// The scans of a plan, one a line.
fn outline(node: &Value, depth: usize) -> String {
    let mut text = String::new();
    if let Some(relation) = node["Relation Name"]
        .as_str()
        .or(node["Index Name"].as_str())
    {
        let said = |key: &str| node[key].as_str().unwrap_or_default().to_owned();
        text = format!(
            "{}{} {relation} {} [{}] [{}] × {}\n",
            "  ".repeat(depth),
            said("Node Type"),
            said("Index Name"),
            said("Index Cond"),
            said("Filter"),
            node["Actual Loops"]
        );
    }
    for child in node["Plans"].as_array().into_iter().flatten() {
        text += &outline(child, depth + 1);
    }
    text
}

async fn run(session: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(session)
        .await
        .unwrap_or_else(|error| panic!("{error}: {:.200}", sql));
}
