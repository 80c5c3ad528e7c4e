//! Outcomes that the database does not take are told by one alert, and what an earlier daemon told ends with its cause.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::wish;
use crate::world::World;

/// Refuses what becomes of each bill.
async fn refuse(world: &World) {
    world
        .sql(
            "create function public.refuse() returns trigger language plpgsql as
               $$ begin raise exception 'the books are closed'; end $$;
             create trigger refuse before update on apipay.jobs
               for each row when (new.state in ('accepted', 'succeeded')) execute function public.refuse()",
        )
        .await;
}

async fn kinds_open(world: &World) -> Vec<serde_json::Value> {
    world
        .rows("select kind from apipay.alerts where resolved_at is null order by id")
        .await
}

#[tokio::test]
async fn jobs_whose_outcomes_are_refused_for_one_cause_are_told_by_one_alert() {
    let (world, mut daemon) = World::running_as(wish()).await;
    refuse(&world).await;
    world
        .sql("select apipay.create_invoice('87000000001', 100 + n) from generate_series(1, 15) n")
        .await;
    world
        .until_true(
            "select exists (select from apipay.alerts l cross join lateral jsonb_each(l.details -> 'alike') as theirs (worker, jobs)
              where l.kind = 'job_stuck' and l.resolved_at is null and (select count(*) from jsonb_object_keys(theirs.jobs)) = 15)",
        )
        .await;
    // Until the leases have run out, and longer than it takes for what stands still then to be told.
    sleep(Duration::from_secs(42)).await;
    assert_eq!(kinds_open(&world).await, [json!({"kind": "job_stuck"})]);
    world
        .until_true(
            "select explain like '%. 15 jobs wait for the database to take what became of them.' from apipay.account_status where account = 'default'",
        )
        .await;
    // Another daemon looks them up, and is refused what it finds.
    daemon.signal(rustix::process::Signal::TERM);
    let status = daemon.ended(Duration::from_secs(20)).await;
    assert_eq!(status.code(), Some(1), "outcomes are left");
    let daemon = world.daemon().await;
    sleep(Duration::from_secs(32)).await;
    assert_eq!(kinds_open(&world).await, [json!({"kind": "job_stuck"})]);
    world.sql("drop function public.refuse cascade").await;
    world.until_all_final().await;
    world
        .until_holds("all alerts end", async || {
            kinds_open(&world).await.is_empty()
        })
        .await;
    world
        .until_true(
            "select explain like '%. No job waits.' from apipay.account_status where account = 'default'",
        )
        .await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn what_an_earlier_daemon_told_ends_soon_once_nothing_of_the_account_is_due() {
    let world = World::made(wish().tune("follow.max", "5m")).await;
    // It was killed: it did not say that it leaves.
    world
        .sql(
            "insert into apipay.daemons (worker, host, version, accounts, started_at, seen_at)
             values ('00000000-0000-4000-8000-00000000000a', 'till', '0', '{default}', now() - interval '1 h',
                     now() - interval '70 s')",
        )
        .await;
    world
        .sql(
            r#"select apipay._open_alert('default', 'no_progress', 'critical', 'Payments are held.', 'look',
                 '{"worker": "00000000-0000-4000-8000-00000000000a", "concerns": ["leases"]}')"#,
        )
        .await;
    let daemon = world.daemon().await;
    world
        .until_true(
            "select resolution = 'nothing of it is due any more' from apipay.alerts where kind = 'no_progress'",
        )
        .await;
    world.end([daemon]).await;
}
