//! The database refuses jobs, then what refused them is mended: all that waited go on within seconds, however many
//! they are and however long it took.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::sleep;

use crate::world::{Daemon, Wish, World, phone};

/// Longer than that nothing waits after the mend, on a busy machine.
const SOON: Duration = Duration::from_secs(8);

/// Until tries are as far apart as they get to be.
const LONG: Duration = Duration::from_secs(16);

/// Refuses each update of a job for which this holds, unless its number stands in `public.mended`.
async fn refuse(world: &World, when: &str) {
    world
        .sql(&format!(
            "create table public.mended (job bigint primary key);
             grant select on public.mended to public;
             create function public.hold_order() returns trigger language plpgsql as $$
             begin
               if not exists (select from public.mended where job = new.id) then
                 raise exception 'order % is frozen', new.id;
               end if;
               return new;
             end $$;
             create trigger hold_order before update on apipay.jobs for each row when ({when}) execute function public.hold_order()"
        ))
        .await;
}

async fn mend(world: &World) {
    world.sql("drop trigger hold_order on apipay.jobs").await;
}

/// With time-outs that a busy machine does not meet.
fn patient() -> Wish {
    Wish::default()
        .tune("http.timeout", "6s")
        .tune("worker.lease", "20s")
        .tune("worker.grace", "8s")
}

async fn bills(world: &World, number: usize) {
    world
        .sql(&format!(
            r#"insert into apipay.jobs (operation, params)
               select 'invoice.create', '{{"phone_number": "{}", "amount": 100}}' from generate_series(1, {number})"#,
            phone::PAID
        ))
        .await;
}

/// Waits until this counts none, and says how long that took.
async fn until_none(world: &World, of: &str, most: Duration) {
    let began = Instant::now();
    loop {
        let left = world.count(of).await;
        if left == 0 {
            println!("{of}: none after {:?}", began.elapsed());
            return;
        }
        assert!(
            began.elapsed() < most,
            "{left} left\n{}",
            world.report(None).await
        );
        sleep(Duration::from_millis(50)).await;
    }
}

async fn refused_claims(number: usize) -> (World, Daemon) {
    let world = World::made(patient()).await;
    refuse(&world, "old.state = 'queued' and new.state = 'sending'").await;
    bills(&world, number).await;
    let daemon = world.daemon().await;
    daemon.until_logged("the database refuses a job").await;
    sleep(LONG).await;
    // With so many, those that were not refused yet wait as well.
    let all_wait = "more of this account, at the least: no other of it goes out";
    if number >= 100 {
        let told = format!(
            "select action like '%{all_wait}%' from apipay.alerts where resolved_at is null"
        );
        world.until_true(&told).await;
    }
    let alerts = world
        .rows("select * from apipay.alerts where resolved_at is null")
        .await;
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert_eq!(alerts[0]["kind"], "job_stuck", "{alerts:?}");
    let action = alerts[0]["action"].as_str().unwrap();
    assert_eq!(action.contains(all_wait), number >= 100, "{action}");
    mend(&world).await;
    // Of many the first ones: the others were never tried, and go out as fast as ever.
    until_none(
        &world,
        "apipay.jobs where id <= 100 and state = 'queued'",
        SOON,
    )
    .await;
    until_none(
        &world,
        "apipay.alerts where kind = 'job_stuck' and resolved_at is null",
        SOON,
    )
    .await;
    (world, daemon)
}

#[tokio::test]
async fn one_job_that_was_refused_goes_out_soon_after_the_mend() {
    let (world, daemon) = refused_claims(1).await;
    world.until_all_final().await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_hundred_jobs_that_were_refused_go_out_soon_after_the_mend() {
    let (world, daemon) = refused_claims(100).await;
    world.until_all_final().await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn five_thousand_jobs_that_were_refused_go_out_soon_after_the_mend() {
    // To compare them all with the ledger would take minutes.
    let (world, mut daemon) = refused_claims(5_000).await;
    daemon.stop().await;
    world.end_unchecked().await;
}

#[tokio::test]
async fn a_refused_job_that_an_operator_retries_is_tried_at_once() {
    let (world, daemon) = World::running().await;
    refuse(&world, "old.state = 'queued' and new.state = 'sending'").await;
    bills(&world, 40).await;
    daemon.until_logged("the database refuses a job").await;
    sleep(LONG).await;
    world
        .sql("insert into public.mended values (33); select apipay.retry(33, 'unfrozen')")
        .await;
    until_none(
        &world,
        "apipay.jobs where id = 33 and state = 'queued'",
        Duration::from_secs(4),
    )
    .await;
    assert_eq!(world.count("apipay.jobs where state = 'queued'").await, 39);
    mend(&world).await;
    until_none(&world, "apipay.jobs where state = 'queued'", SOON).await;
    world.until_all_final().await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn outcomes_that_were_refused_are_written_soon_after_the_mend() {
    let (world, daemon) = World::running_as(patient()).await;
    refuse(&world, "old.state = 'sending'").await;
    bills(&world, 300).await;
    daemon
        .until_logged("the database does not take an outcome")
        .await;
    sleep(LONG).await;
    mend(&world).await;
    until_none(
        &world,
        "apipay.jobs where state = 'sending' and updated_at < now() - interval '8 s'",
        Duration::from_secs(6),
    )
    .await;
    until_none(
        &world,
        "apipay.alerts where kind = 'job_stuck' and resolved_at is null",
        SOON,
    )
    .await;
    world.until_all_final().await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn jobs_that_could_not_move_do_so_soon_after_the_mend() {
    let (world, daemon) = World::running().await;
    refuse(&world, "new.state = 'expired'").await;
    let params = json!({"phone_number": phone::PAID, "amount": 100});
    world
        .sql(&format!(
            "insert into apipay.jobs (operation, params, expires_at)
             select 'invoice.create', '{params}', now() - interval '1 s' from generate_series(1, 700)"
        ))
        .await;
    daemon
        .until_logged("the database does not let a job move")
        .await;
    sleep(Duration::from_secs(6)).await;
    mend(&world).await;
    until_none(
        &world,
        "apipay.jobs where state = 'queued'",
        Duration::from_secs(6),
    )
    .await;
    until_none(
        &world,
        "apipay.alerts where kind = 'job_stuck' and resolved_at is null",
        SOON,
    )
    .await;
    world.end([daemon]).await;
}
