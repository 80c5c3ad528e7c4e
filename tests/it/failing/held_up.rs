//! One job or one row that somebody keeps from moving holds up neither the trials of slow accounts nor the
//! end of an outage.

use serde_json::json;

use super::fail;
use crate::world::{Wish, World, phone};

async fn slow(world: &World) {
    fail(
        world,
        json!({"route": "POST /invoices", "share": 1.0,
               "answer": {"status": 502, "json": {"message": "Kaspi API error"}}}),
    )
    .await;
}

async fn bill(world: &World, account: &str, order: &str, priority: i64) -> i64 {
    let params = json!({"phone_number": phone::PAID, "amount": 700, "external_order_id": order});
    let options = json!({"account": account, "priority": priority});
    world.enqueue_with("invoice.create", params, options).await
}

#[tokio::test]
async fn neither_a_bad_job_nor_a_locked_one_nor_a_locked_account_keeps_trials_from_others() {
    let wish = Wish::default()
        .accounts(&["cursed", "locked", "parked", "free"])
        .tune("retry.server_error.initial", "1s")
        .tune("retry.server_error.max", "2s");
    let (world, daemon) = World::running_as(wish).await;
    world
        .sql(
            "create function public.audit() returns trigger language plpgsql as $$
             begin
               if new.params ->> 'external_order_id' = 'cursed' then
                 raise exception 'locked by accounting';
               end if;
               return new;
             end $$;
             create trigger audit before update on apipay.jobs for each row execute function public.audit()",
        )
        .await;
    slow(&world).await;
    let mut jobs = Vec::new();
    for account in ["cursed", "locked", "parked"] {
        for _ in 0..4 {
            jobs.push((account, bill(&world, account, "usual", 0).await));
        }
    }
    world
        .until_true("select count(*) = 3 from apipay.accounts where failing_trial_at is not null")
        .await;
    // Of these two each is the first candidate: it has a high priority and has never failed.
    let cursed = bill(&world, "cursed", "cursed", 100).await;
    let mut open = world.pool().begin().await.unwrap();
    let (locked,): (i64,) = sqlx::query_as(
        "insert into apipay.jobs (account, operation, params, priority, run_at)
         values ('locked', 'invoice.create', $1, 100, now() + interval '1 second') returning id",
    )
    .bind(json!({"phone_number": phone::PAID, "amount": 700}))
    .fetch_one(world.pool())
    .await
    .unwrap();
    sqlx::query("select from apipay.jobs where id = $1 for update")
        .bind(locked)
        .execute(&mut *open)
        .await
        .unwrap();
    sqlx::query("select from apipay.accounts where name = 'parked' for update")
        .execute(&mut *open)
        .await
        .unwrap();
    world.sandbox.mend().await;
    let healthy = bill(&world, "free", "usual", 0).await;
    world.until(healthy, "succeeded").await;
    for (account, job) in &jobs {
        if *account != "parked" {
            world.until(*job, "succeeded").await;
        }
    }
    assert_eq!(world.job(cursed).await["state"], "queued");
    open.rollback().await.unwrap();
    world.sql("drop trigger audit on apipay.jobs").await;
    world.until_all_final().await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn an_outage_ends_while_somebody_keeps_one_of_its_jobs_locked() {
    let wish = Wish::default()
        .tune("retry.server_error.initial", "1s")
        .tune("retry.server_error.max", "2s");
    let (world, daemon) = World::running_as(wish).await;
    slow(&world).await;
    for _ in 0..5 {
        bill(&world, "default", "usual", 0).await;
    }
    // The account is told before its jobs are recorded.
    world
        .until_true(
            "select failing_trial_at is not null
                    and exists (select from apipay.jobs where failing_since is not null and state in ('queued', 'uncertain'))
               from apipay.accounts",
        )
        .await;
    let failing = "select id from apipay.jobs where failing_since is not null and state in ('queued', 'uncertain')
                   order by id limit 1 for update";
    let mut open = world.pool().begin().await.unwrap();
    let (held,): (i64,) = sqlx::query_as(failing).fetch_one(&mut *open).await.unwrap();
    world.sandbox.mend().await;
    world
        .until_true(
            "select failing_trial_at is null and failing_since is null from apipay.accounts",
        )
        .await;
    world
        .until_true(&format!(
            "select not exists (select from apipay.jobs where id <> {held} and state <> 'succeeded')"
        ))
        .await;
    open.rollback().await.unwrap();
    world.until_all_final().await;
    world.end([daemon]).await;
}
