//! What a wait is measured from is carried along when the clock is set.

use serde_json::json;

use super::{HOUR, set_clock, with_clock};
use crate::world::{World, phone};

/// Moments that say when something happened: nothing is measured from them, so they stay as they were written.
const HISTORY: [&str; 30] = [
    // A longer time than it was, or none, finds nothing that is not to be told.
    "_channels.filled_at",
    "_clocks.started_at",
    "_control.changed_at",
    "_migrations.installed_on",
    // Which of two failures was the later one is a matter of words.
    "_reads.failed_at",
    "accounts.failed_at",
    // Only asked whether it changes.
    "_quotas.claimed_at",
    "accounts.created_at",
    // What was made before it has to stay before it, so it is never carried back.
    "accounts.organization_since",
    "accounts.updated_at",
    "alert_deliveries.created_at",
    "alert_deliveries.delivered_at",
    "alerts.acked_at",
    "alerts.changed_at",
    "alerts.resolved_at",
    "attempts.finished_at",
    "attempts.started_at",
    "daemons.started_at",
    "events.at",
    "invoices.checked_at",
    "invoices.gateway_created_at",
    "invoices.gateway_updated_at",
    "invoices.paid_at",
    "jobs.created_at",
    "jobs.finished_at",
    // Of a job that is done; the waits of the others have their own tests.
    "jobs.run_at",
    "jobs.updated_at",
    "refunds.checked_at",
    "refunds.completed_at",
    "refunds.gateway_created_at",
];

/// Columns of moments in which a row has one from before the clock was set forward.
async fn left_behind(world: &World) -> Vec<String> {
    let columns = world
        .rows(
            "select c.table_name::text as \"table\", c.column_name::text as \"column\"
               from information_schema.columns c join information_schema.tables t using (table_schema, table_name)
              where c.table_schema = 'apipay' and t.table_type = 'BASE TABLE'
                and c.data_type = 'timestamp with time zone' order by 1, 2",
        )
        .await;
    assert!(columns.len() > HISTORY.len() + 20, "{columns:?}");
    let mut behind = Vec::new();
    for name in columns {
        let (table, column) = (
            name["table"].as_str().unwrap(),
            name["column"].as_str().unwrap(),
        );
        let old = format!("apipay.{table} where {column} < now() - interval '1 hour'");
        if !HISTORY.contains(&format!("{table}.{column}").as_str()) && world.count(&old).await > 0 {
            behind.push(format!("{table}.{column}"));
        }
    }
    behind
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_wait_is_measured_from_is_carried_along() {
    let (world, daemon) = World::running_as(with_clock()).await;
    let open = world.bill(phone::UNPAID, 100).await;
    world.until(open, "succeeded").await;
    // What is sent, looked up and checked gets no clear answer.
    for route in ["POST /invoices", "GET /invoices"] {
        let broken = json!({"route": route, "effect": "none", "times": 1000,
            "answer": {"status": 502, "json": {"message": "Kaspi API error"}}});
        world.sandbox.fault(broken).await;
    }
    let failing = world.bill(phone::UNPAID, 100).await;
    for condition in [
        format!("select failing_since is not null from apipay.jobs where id = {failing}"),
        "select failing_since is not null from apipay.accounts".to_owned(),
        "select count(*) > 0 from apipay._reads where failing_since is not null".to_owned(),
    ] {
        world.until_true(&condition).await;
    }
    world
        .sql(
            "update apipay.accounts set failing_ended_at = now(), unanswered_since = now(), answered_at = now(),
                    refused_since = now(), doubted_since = now(), resumed_at = now();
             update apipay._reads set refused_since = now()",
        )
        .await;
    set_clock(&world, 5 * HOUR).await;
    let behind = left_behind(&world).await;
    assert!(
        behind.is_empty(),
        "measured from before the clock was set: {behind:?}"
    );
    world.end([daemon]).await;
}

/// The last request of a job that a person decides about may still be at work: no clock ends that.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_may_be_at_work_for_as_long_whatever_the_clock_shows() {
    let (world, daemon) = World::running_as(with_clock()).await;
    let fault = json!({"route": "POST /invoices", "effect": "none", "hang": true});
    world.sandbox.fault(fault).await;
    let job = world.bill(phone::UNPAID, 100).await;
    world.until(job, "uncertain").await;
    world
        .sql(&format!(
            "update apipay.jobs set state = 'held', reason = 'not_as_stated', quiet_until = now() + interval '50 s' where id = {job}"
        ))
        .await;
    let at_work = format!(
        "select to_jsonb(quiet_until - now() between interval '10 s' and interval '50 s') from apipay.jobs where id = {job}"
    );
    for ahead in [5 * HOUR, 0] {
        set_clock(&world, ahead).await;
        assert_eq!(world.value(&at_work).await, true, "set to {ahead} s");
    }
    world.end([daemon]).await;
}
