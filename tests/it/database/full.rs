//! A server that cannot write some rows for want of room: what it could not be told waits in memory.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use crate::world::{World, phone};

/// While the table `public.full` is there, this change finds no room for a temporary file: as on a full disk,
/// it is the server that refuses, not a function that raises.
async fn make_full(world: &World, change: &str) {
    world
        .sql(&format!(
            "create table public.full ();
             create function public.refuse() returns trigger language plpgsql security definer
               set work_mem = '64kB' set temp_file_limit = 0 as $$
             begin
               if to_regclass('public.full') is not null then
                 perform g from generate_series(1, 100000) g order by random() offset 99999;
               end if;
               return new;
             end $$;
             create trigger refuse before {change} execute function public.refuse()"
        ))
        .await;
}

#[tokio::test]
async fn an_outcome_in_memory_outlives_its_lease_and_is_not_looked_up() {
    let world = World::made(Default::default()).await;
    make_full(&world, "insert on apipay.invoices for each row").await;
    let daemon = world.daemon().await;
    let job = world.bill(phone::PAID, 100).await;
    daemon.until_logged("the outcome waits in memory").await;
    // The lease is twelve seconds.
    sleep(Duration::from_secs(14)).await;
    let row = world.job(job).await;
    assert_eq!(row["state"], "sending", "{row}");
    let status = daemon.status();
    assert!(
        status.contains("outcomes, which wait in memory"),
        "{status}"
    );
    world.sql("drop table public.full").await;
    world.until(job, "succeeded").await;
    let attempts = world.attempts(job).await;
    assert_eq!(attempts.len(), 1, "{attempts:?}");
    assert_eq!(attempts[0]["effect"], "applied");
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_refund_whose_baseline_cannot_be_stored_goes_back_unsent() {
    let world = World::made(Default::default()).await;
    make_full(
        &world,
        "update on apipay.jobs for each row when (new.baseline is distinct from old.baseline)",
    )
    .await;
    let daemon = world.daemon().await;
    let invoice = world
        .sandbox
        .invoice(&world.key("default"), json!({"status": "paid"}))
        .await;
    let job = world
        .enqueue(
            "invoice.refund",
            json!({"invoice_id": invoice, "amount": 100}),
        )
        .await;
    let row = world
        .until_job(job, "it is put back", |row| {
            row["state"] == "queued" && row["epoch"] != 0
        })
        .await;
    assert_eq!(row["reason"], "database_failed", "{row}");
    assert_eq!(row["attempts"], 0, "it costs no attempt: {row}");
    world.sql("drop table public.full").await;
    world.until(job, "succeeded").await;
    let lookups = world.count("apipay.attempts where kind = 'lookup'").await;
    assert_eq!(lookups, 0);
    world.end([daemon]).await;
}
