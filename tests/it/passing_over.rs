//! A row that the database does not let anybody change, or that somebody keeps locked, holds up no other: probes,
//! refunds of the same invoice and checks pass over it, a human is told of it, and it goes on once that is over.

mod mirrors;
mod probes;
mod refunds;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::world::{Job, World};

/// A trigger of the shop's that raises when a row of this table is updated and the condition holds.
async fn refuse(world: &World, table: &str, condition: &str) {
    world.sql(&trigger(table, condition)).await;
}

fn trigger(table: &str, condition: &str) -> String {
    format!(
        "create function public.hold_back() returns trigger language plpgsql as
           $$ begin raise exception 'frozen by accounting'; end $$;
         create trigger hold_back before update on apipay.{table} for each row when ({condition})
           execute function public.hold_back()"
    )
}

/// The same of a mirror's table, of which everything is due to be asked about at this moment.
async fn refuse_what_is_due(world: &World, table: &str, condition: &str) {
    let due = format!(
        "update apipay.{table} set next_check_at = now() - interval '1 minute' where not settled"
    );
    world
        .sql(&format!("{due}; {}", trigger(table, condition)))
        .await;
}

async fn mend(world: &World, table: &str) {
    world
        .sql(&format!("drop trigger hold_back on apipay.{table}"))
        .await;
}

/// A session of somebody's that keeps a job locked until it is closed.
async fn keep_locked(world: &World, job: Job) -> PgConnection {
    let options = world.database.cluster.options(&world.database.name);
    let mut psql = PgConnection::connect_with(&options.application_name("a forgotten psql"))
        .await
        .unwrap();
    let locking = format!(
        "set idle_in_transaction_session_timeout = 0; begin; select from apipay.jobs where id = {job} for update"
    );
    psql.execute(sqlx::raw_sql(AssertSqlSafe(locking)))
        .await
        .unwrap();
    psql
}

/// The alert that tells of this job.
async fn told(world: &World, job: Job) -> serde_json::Value {
    let alert = format!(
        "select to_jsonb(l) from apipay.alerts l where kind = 'job_stuck' and details ->> 'job' = '{job}'"
    );
    world.until_true(&format!("select exists ({alert})")).await;
    world.value(&alert).await
}

async fn until_nothing_is_stuck(world: &World) {
    world
        .until_true(
            "select not exists (select from apipay.alerts where kind = 'job_stuck' and resolved_at is null)",
        )
        .await;
}
