//! The claim stays on one partial index that holds claimable rows only, however many rows are
//! finished, due later, or parked.

use serde_json::Value;

use crate::world::{Wish, World};

const CLAIM: &str = include_str!("../../src/db/claim.sql");

const FILL: &str = r"
set session_replication_role = replica;
insert into apipay.jobs (token, account, operation, params, state, finished_at, run_at)
select gen_random_uuid(), 'default', 'invoice.create', '{}', 'succeeded', now(), now() - interval '1 day' from generate_series(1, 1000000);
insert into apipay.jobs (token, account, operation, params, run_at, priority)
select gen_random_uuid(), 'default', 'invoice.create', '{}', now() + make_interval(secs => 3600 + n), n % 3 from generate_series(1, 100000) n;
insert into apipay.jobs (token, account, operation, params, state, reason)
select gen_random_uuid(), 'default', 'invoice.create', '{}', 'parked', 'session_expired' from generate_series(1, 10000);
set session_replication_role = origin;
";

const DUE: &str = "insert into apipay.jobs (account, operation, params, priority, run_at)
  select 'default', 'invoice.create', '{}', 1, now() - make_interval(secs => n) from generate_series(1, 50) n";

#[tokio::test]
async fn the_claim_reads_only_claimable_rows_beside_a_million_finished_ones() {
    let world = World::made(Wish::default()).await;
    world.sql(FILL).await;
    world.sql(DUE).await;

    // Before the planner knows anything of the table, and once it does.
    for statistics in ["", "vacuum analyze apipay.jobs"] {
        if !statistics.is_empty() {
            world.sql(statistics).await;
        }
        let plan = explain(&world).await;
        let mut nodes = Vec::new();
        collect(&plan["Plan"], &mut nodes);
        let on_jobs: Vec<&&Value> = nodes
            .iter()
            .filter(|node| node["Relation Name"] == "jobs")
            .collect();
        assert!(
            on_jobs
                .iter()
                .any(|node| node["Index Name"] == "jobs_claim"),
            "{plan:#}"
        );
        for node in &on_jobs {
            let kind = node["Node Type"].as_str().unwrap();
            let index = node["Index Name"].as_str().unwrap_or_default();
            let is_fine = matches!(
                index,
                "jobs_claim"
                    | "jobs_due"
                    | "jobs_pkey"
                    | "jobs_one_open_refund"
                    | "jobs_account_state"
            ) || kind == "ModifyTable";
            assert!(
                is_fine && kind != "Seq Scan",
                "{kind} with {index:?}: {plan:#}"
            );
            let rows =
                node["Actual Rows"].as_f64().unwrap() * node["Actual Loops"].as_f64().unwrap();
            assert!(rows <= 200.0, "{kind} reads {rows} rows: {plan:#}");
            let removed = node["Rows Removed by Filter"].as_f64().unwrap_or_default();
            assert!(
                removed <= 200.0,
                "{kind} throws away {removed} rows: {plan:#}"
            );
        }
        let pages = plan["Plan"]["Shared Hit Blocks"].as_i64().unwrap()
            + plan["Plan"]["Shared Read Blocks"].as_i64().unwrap();
        assert!(pages < 3_000, "{pages} pages for 8 jobs: {plan:#}");
    }

    // The right rows: the eldest of the due ones.
    let mut connection = world.pool().acquire().await.unwrap();
    let claimed: Vec<i64> = sqlx::query(CLAIM)
        .bind(sqlx::types::Uuid::new_v4())
        .bind(30.0)
        .bind(vec!["default"])
        .bind(vec![8])
        .bind(8_i64)
        .bind(1_800_000_000_i64)
        .bind(Vec::<i64>::new())
        .bind(None::<Vec<i64>>)
        .bind("1s")
        .fetch_all(&mut *connection)
        .await
        .unwrap()
        .iter()
        .map(|row| sqlx::Row::get(row, "id!"))
        .collect();
    drop(connection);
    assert_eq!(claimed.len(), 8);
    let eldest = world
        .rows("select id from apipay.jobs where state in ('queued', 'sending') and run_at <= now() order by run_at limit 8")
        .await;
    let mut eldest: Vec<i64> = eldest
        .iter()
        .map(|row| row["id"].as_i64().unwrap())
        .collect();
    let mut claimed = claimed;
    eldest.sort_unstable();
    claimed.sort_unstable();
    assert_eq!(claimed, eldest);
    world.end_unchecked().await;
}

#[tokio::test]
async fn a_claim_costs_the_same_with_every_priority_there_is() {
    let world = World::made(Wish::default()).await;
    let claim = async |what: &str| {
        let plan = explain(&world).await;
        let mut nodes = Vec::new();
        collect(&plan["Plan"], &mut nodes);
        let read: f64 = nodes
            .iter()
            .filter(|node| node["Relation Name"] == "jobs")
            .map(|node| {
                let each = node["Actual Rows"].as_f64().unwrap()
                    + node["Rows Removed by Filter"].as_f64().unwrap_or_default();
                each * node["Actual Loops"].as_f64().unwrap()
            })
            .sum();
        assert!(read < 500.0, "{what}: {read} rows are read for 8: {plan:#}");
        let claimed = nodes
            .iter()
            .find(|node| node["Subplan Name"] == "CTE claimed")
            .unwrap()["Actual Rows"]
            .as_f64();
        assert_eq!(claimed, Some(8.0), "{what}");
    };
    world
        .sql(
            "set session_replication_role = replica;
             insert into apipay.jobs (token, account, operation, params, priority, run_at)
             select gen_random_uuid(), 'default', 'invoice.create', '{}', n - 32768, now() - make_interval(secs => n) from generate_series(0, 65535) n;
             set session_replication_role = origin",
        )
        .await;
    claim("one due job of each priority").await;
    world
        .sql("update apipay.jobs set run_at = now() + interval '1 hour' where priority > -32760")
        .await;
    world.sql("vacuum analyze apipay.jobs").await;
    claim("due ones below all others").await;
    world
        .sql(
            "update apipay.jobs set expires_at = now() - interval '1 minute', run_at = now() - interval '1 day', priority = 7
              where priority > 20000;
             update apipay.jobs set priority = 0 where priority < -32759",
        )
        .await;
    world.sql("vacuum analyze apipay.jobs").await;
    // What has expired takes the places of a claim until it is ended, and is not read through.
    let plan = explain(&world).await;
    let pages = plan["Plan"]["Shared Hit Blocks"].as_i64().unwrap()
        + plan["Plan"]["Shared Read Blocks"].as_i64().unwrap();
    assert!(pages < 1_000, "{pages} pages: {plan:#}");
    world.end_unchecked().await;
}

#[tokio::test]
async fn a_claim_passes_over_some_hundred_expired_jobs() {
    let world = World::made(Wish::default()).await;
    world
        .sql(
            "insert into apipay.jobs (account, operation, params, run_at, expires_at)
             select 'default', 'invoice.create', '{}', now() - interval '1 day', '-infinity' from generate_series(1, 400)",
        )
        .await;
    world.sql(DUE).await;
    world.sql("update apipay.jobs set priority = 0").await;
    let plan = explain(&world).await;
    let mut nodes = Vec::new();
    collect(&plan["Plan"], &mut nodes);
    let claimed = nodes
        .iter()
        .find(|node| node["Subplan Name"] == "CTE claimed")
        .unwrap();
    assert_eq!(claimed["Actual Rows"].as_f64(), Some(8.0));
    world.end_unchecked().await;
}

/// Explains and runs the very text that the daemon runs, as a prepared statement, and undoes it.
async fn explain(world: &World) -> Value {
    let mut transaction = world.pool().begin().await.unwrap();
    let explained = format!("explain (analyze, buffers, format json) {CLAIM}");
    let plan: Value = sqlx::query_scalar(sqlx::AssertSqlSafe(explained))
        .bind(sqlx::types::Uuid::new_v4())
        .bind(30.0)
        .bind(vec!["default"])
        .bind(vec![8])
        .bind(8_i64)
        .bind(1_800_000_000_i64)
        .bind(Vec::<i64>::new())
        .bind(None::<Vec<i64>>)
        .bind("1s")
        .fetch_one(&mut *transaction)
        .await
        .unwrap();
    transaction.rollback().await.unwrap();
    plan[0].clone()
}

fn collect<'a>(node: &'a Value, into: &mut Vec<&'a Value>) {
    into.push(node);
    for child in node["Plans"].as_array().into_iter().flatten() {
        collect(child, into);
    }
}
