//! One job that the database does not let be claimed: the others go on, a human is told which and why, and it
//! goes on once that is mended.

use serde_json::{Value, json};

use crate::world::{Wish, World, phone};

async fn open_alert(world: &World, kind: &str) -> Value {
    world
        .until_true(&format!(
            "select exists (select from apipay.alerts where kind = '{kind}' and resolved_at is null)"
        ))
        .await;
    world
        .rows(&format!(
            "select * from apipay.alerts where kind = '{kind}' and resolved_at is null"
        ))
        .await
        .remove(0)
}

#[tokio::test]
async fn a_trigger_that_raises_for_one_job_stops_only_that_one() {
    let world = World::made(Wish::default().accounts(&["default", "other"])).await;
    world
        .sql(
            "create function public.audit() returns trigger language plpgsql as $$
             begin
               if new.params ->> 'external_order_id' = 'cursed' then
                 raise exception 'order of +77001234567 is locked by accounting';
               end if;
               return new;
             end $$;
             create trigger audit before update on apipay.jobs for each row execute function public.audit()",
        )
        .await;
    let bill = json!({"phone_number": phone::PAID, "amount": 700});
    let mut cursed = bill.clone();
    cursed["external_order_id"] = "cursed".into();
    for _ in 0..5 {
        world.bill(phone::PAID, 700).await;
    }
    let stuck = world.enqueue("invoice.create", cursed).await;
    for account in ["default", "other"] {
        for _ in 0..5 {
            world
                .enqueue_with("invoice.create", bill.clone(), json!({"account": account}))
                .await;
        }
    }
    let daemon = world.daemon().await;
    world
        .until_true("select count(*) = 15 from apipay.jobs where state = 'succeeded'")
        .await;
    let alert = open_alert(&world, "job_stuck").await;
    let summary = alert["summary"].as_str().unwrap();
    assert!(
        summary.contains(&format!("job {stuck} of account default"))
            && summary.contains("is locked by accounting")
            && summary.contains("P0001")
            && !summary.contains("7001234567"),
        "{summary}"
    );
    assert_eq!(world.job(stuck).await["state"], "queued");
    // It stays so while others come and go.
    let later = world.bill(phone::PAID, 700).await;
    world.until(later, "succeeded").await;
    world.sql("drop trigger audit on apipay.jobs").await;
    world.until(stuck, "succeeded").await;
    world
        .until_true("select not exists (select from apipay.alerts where kind = 'job_stuck' and resolved_at is null)")
        .await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_lock_that_a_trigger_waits_for_stops_only_its_job() {
    let world = World::made(Wish::default().accounts(&["default", "other"])).await;
    world
        .sql(
            "create table public.orders (id bigint primary key, state text);
             insert into public.orders values (7), (8);
             grant select, update on public.orders to apipay_worker;
             create function public.mark() returns trigger language plpgsql as $$
             begin
               update public.orders set state = new.state where id::text = new.params ->> 'external_order_id';
               return new;
             end $$;
             create trigger mark before update on apipay.jobs for each row execute function public.mark()",
        )
        .await;
    let mut open = world.pool().begin().await.unwrap();
    sqlx::query("select from public.orders where id = 7 for update")
        .execute(&mut *open)
        .await
        .unwrap();
    let bill = |order: &str| json!({"phone_number": phone::PAID, "amount": 700, "external_order_id": order});
    let waits = world.enqueue("invoice.create", bill("7")).await;
    let mut others = vec![world.enqueue("invoice.create", bill("8")).await];
    for account in ["default", "other", "other"] {
        let account = json!({"account": account});
        others.push(
            world
                .enqueue_with("invoice.create", bill("9"), account)
                .await,
        );
    }
    let daemon = world.daemon().await;
    for job in others {
        world.until(job, "succeeded").await;
    }
    assert_eq!(world.job(waits).await["state"], "queued");
    open.rollback().await.unwrap();
    world.until(waits, "succeeded").await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_number_that_an_earlier_job_had_is_claimed_above_its_attempts() {
    let world = World::made(Wish::default()).await;
    world
        .sql(
            "insert into apipay.attempts (job_id, epoch, account, kind, worker, finished_at, effect)
             select n, epoch, 'default', 'send', gen_random_uuid(), now(), 'applied'
               from generate_series(1, 3) n, generate_series(1, 2) epoch",
        )
        .await;
    for _ in 0..5 {
        world.bill(phone::PAID, 700).await;
    }
    let daemon = world.daemon().await;
    world
        .until_true("select count(*) = 5 from apipay.jobs where state = 'succeeded'")
        .await;
    let epochs = world
        .value("select jsonb_agg(epoch order by id) from apipay.jobs")
        .await;
    assert_eq!(epochs, json!([3, 3, 3, 1, 1]));
    drop(daemon);
    world.end_unchecked().await;
}

#[tokio::test]
async fn a_job_that_somebody_keeps_locked_is_told_with_the_session() {
    let world = World::made(Wish::default()).await;
    let locked = world.bill(phone::PAID, 700).await;
    let free = world.bill(phone::PAID, 700).await;
    let mut open = world.pool().begin().await.unwrap();
    sqlx::query("set application_name = 'left open'")
        .execute(&mut *open)
        .await
        .unwrap();
    sqlx::query("select from apipay.jobs where id = $1 for update")
        .bind(locked)
        .execute(&mut *open)
        .await
        .unwrap();
    let daemon = world.daemon().await;
    world.until(free, "succeeded").await;
    let alert = open_alert(&world, "job_stuck").await;
    let action = alert["action"].as_str().unwrap();
    assert!(
        alert["details"]["job"] == locked
            && action.contains("left open")
            && action.contains("pg_terminate_backend"),
        "{alert}"
    );
    // Its end is the lock's end, not the job's: an account that waits keeps nobody accused.
    world
        .sql("update apipay.accounts set blocked_until = now() + interval '1 hour', blocked_reason = 'daily_cap_reached'")
        .await;
    open.rollback().await.unwrap();
    world
        .until_true("select not exists (select from apipay.alerts where kind = 'job_stuck' and resolved_at is null)")
        .await;
    assert_eq!(world.job(locked).await["state"], "queued");
    world
        .sql("select apipay.resume('default', 'the test goes on')")
        .await;
    world.until(locked, "succeeded").await;
    world.end([daemon]).await;
}
