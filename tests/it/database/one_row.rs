//! A row that cannot be written waits by itself: everybody else goes on.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{Connection, Executor, PgConnection};
use tokio::time::sleep;

use crate::world::{Daemon, Job, Wish, World, phone};

/// How much longer than the median order the slowest may take while another row is stuck, in milliseconds. On a
/// busy machine all are slow; that a statement waited for the row shows in those that came with it.
const APART_MS: f64 = 2_000.0;

/// Bills of both accounts for some seconds, a few at a time. Returns from which job on.
async fn bill_for(world: &World, seconds: u64) -> Job {
    let first = world.bill(phone::PAID, 200).await;
    for _ in 0..seconds * 5 {
        world
            .sql(
                "insert into apipay.jobs (account, operation, params)
                 select a, 'invoice.create', '{\"phone_number\": \"87000000001\", \"amount\": 100}'
                   from unnest(array['default', 'clinic']) a, generate_series(1, 2)",
            )
            .await;
        sleep(Duration::from_millis(200)).await;
    }
    first
}

/// From the commit of an order to the record of the answer to its request.
async fn expect_quick(world: &World, first: Job, what: &str) {
    world
        .until_true(&format!(
            "select not exists (select from apipay.jobs where id >= {first} and state in ('queued', 'sending'))"
        ))
        .await;
    let times = world
        .value(&format!(
            "select jsonb_build_object('n', count(*),
                      'p50', percentile_cont(0.5) within group (order by ms),
                      'p99', percentile_cont(0.99) within group (order by ms))
               from (select extract(epoch from a.finished_at - j.created_at)::float8 * 1000 as ms
                       from apipay.jobs j join apipay.attempts a on a.job_id = j.id
                      where j.id >= {first}) t"
        ))
        .await;
    println!("{what}: {times}");
    let (p50, p99) = (
        times["p50"].as_f64().unwrap(),
        times["p99"].as_f64().unwrap(),
    );
    assert!(p99 <= APART_MS + 2.0 * p50, "{what}: {times}");
}

/// With time-outs that a busy machine does not meet.
fn wish() -> Wish {
    Wish::default()
        .accounts(&["default", "clinic"])
        .tune("http.timeout", "6s")
        .tune("worker.lease", "20s")
        .tune("worker.grace", "8s")
}

/// A job whose request is under way.
async fn under_way(world: &World) -> Job {
    world.slow_gateway(1_000).await;
    let job = world.bill(phone::PAID, 777).await;
    world.until(job, "sending").await;
    job
}

async fn alert_of(world: &World, job: Job) -> Value {
    let query = format!(
        "select to_jsonb(a) from apipay.alerts a where kind = 'job_stuck' and details ->> 'job' = '{job}'"
    );
    world.until_true(&format!("select exists ({query})")).await;
    world.value(&query).await
}

async fn locked_row(world: &World, daemon: &Daemon, what: &str) {
    let job = under_way(world).await;
    let options = world.database.cluster.options(&world.database.name);
    let mut psql = PgConnection::connect_with(&options.application_name("a forgotten psql"))
        .await
        .unwrap();
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(&mut psql)
        .await
        .unwrap();
    psql.execute("set idle_in_transaction_session_timeout = 0")
        .await
        .unwrap();
    psql.execute("begin").await.unwrap();
    let locking = format!("select from apipay.jobs where id = {job} for update");
    psql.execute(sqlx::AssertSqlSafe(locking)).await.unwrap();
    world.sandbox.mend().await;
    let first = bill_for(world, 9).await;
    expect_quick(world, first, what).await;
    assert_eq!(world.job(job).await["state"], "sending");
    let alert = alert_of(world, job).await;
    assert_eq!(alert["details"]["sqlstate"], "55P03", "{alert}");
    assert_eq!(alert["details"]["blocking_pid"], pid, "{alert}");
    let action = alert["action"].as_str().unwrap();
    assert!(
        action.contains(&format!("pg_terminate_backend({pid})")),
        "{action}"
    );
    assert!(action.contains("a forgotten psql"), "{action}");
    assert!(daemon.status().contains("job_stuck"), "{}", daemon.status());
    assert!(!daemon.log_text().contains("the outcome waits in memory"));

    psql.execute("rollback").await.unwrap();
    world.until(job, "succeeded").await;
    expect_resolved(world).await;
}

async fn expect_resolved(world: &World) {
    world
        .until_true("select not exists (select from apipay.alerts where kind = 'job_stuck' and resolved_at is null)")
        .await;
    world.until_all_final().await;
}

#[tokio::test]
async fn a_locked_job_waits_by_itself() {
    let (world, daemon) = World::running_as(wish()).await;
    locked_row(&world, &daemon, "a locked row").await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_locked_job_waits_by_itself_behind_a_pooler() {
    let world = World::made(wish()).await;
    let pooler = world.pooler("").await;
    let tuning = [
        ("database.url", pooler.url(&world.database.name)),
        ("database.listen_url", world.database.url()),
    ];
    let daemon = world.tuned_daemon(&tuning).await;
    locked_row(&world, &daemon, "a locked row behind a pooler").await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn whoever_has_the_lock_next_is_named_in_place_of_a_session_that_is_gone() {
    let (world, daemon) = World::running_as(wish()).await;
    let job = under_way(&world).await;
    let locking = format!("select from apipay.jobs where id = {job} for update");
    let mut first = world.pool().begin().await.unwrap();
    let gone: i32 = sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(&mut *first)
        .await
        .unwrap();
    first
        .execute(sqlx::AssertSqlSafe(locking.clone()))
        .await
        .unwrap();
    let told = alert_of(&world, job).await;
    assert_eq!(told["details"]["blocking_pid"], gone, "{told}");
    // It waits for the row, and has it as soon as the first has let go.
    let mut next = world.pool().begin().await.unwrap();
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(&mut *next)
        .await
        .unwrap();
    let waiting = tokio::spawn(async move {
        next.execute(sqlx::AssertSqlSafe(locking)).await.unwrap();
        next
    });
    sleep(Duration::from_secs(1)).await;
    first.rollback().await.unwrap();
    let next = waiting.await.unwrap();
    world
        .until_true(&format!(
            "select exists (select from apipay.alerts where kind = 'job_stuck' and resolved_at is null and details ->> 'job' = '{job}'
                               and details ->> 'blocking_pid' = '{pid}' and action like '%pg_terminate_backend({pid})%'
                               and action not like '%session {gone} %')"
        ))
        .await;
    assert_eq!(
        world.count("apipay.alerts where kind = 'job_stuck'").await,
        1
    );
    next.rollback().await.unwrap();
    world.until(job, "succeeded").await;
    expect_resolved(&world).await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_job_that_a_trigger_refuses_waits_by_itself() {
    let (world, daemon) = World::running_as(wish()).await;
    let job = under_way(&world).await;
    // Together with others in one statement.
    for _ in 0..20 {
        world.bill(phone::PAID, 300).await;
    }
    world
        .sql(&format!(
            "create function public.hold_back() returns trigger language plpgsql as $$
             begin
               raise exception 'order of +77001234567 is frozen' using errcode = '57P03';
             end $$;
             create trigger hold_back before update on apipay.jobs for each row
               when (old.id = {job} and new.state <> 'sending') execute function public.hold_back()"
        ))
        .await;
    world.sandbox.mend().await;
    let first = bill_for(&world, 3).await;
    expect_quick(&world, first, "a raising trigger").await;
    let alert = alert_of(&world, job).await;
    assert_eq!(alert["details"]["sqlstate"], "57P03", "{alert}");
    let summary = alert["summary"].as_str().unwrap();
    assert!(
        summary.contains("is frozen") && summary.contains("public.hold_back()"),
        "{summary}"
    );
    assert!(!summary.contains("7001234567"), "{summary}");
    // Nobody takes it for lost while its outcome waits.
    world.expire_lease(job).await;
    sleep(Duration::from_secs(2)).await;
    let row = world.job(job).await;
    assert_eq!(
        (&row["state"], &row["epoch"]),
        (&json!("sending"), &json!(1))
    );

    world.sql("drop trigger hold_back on apipay.jobs").await;
    world.until(job, "succeeded").await;
    expect_resolved(&world).await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_job_that_cannot_be_recovered_keeps_no_other_from_it() {
    let (world, mut dead) = World::running_as(wish()).await;
    world.slow_gateway(1_000).await;
    let refused = world.bill(phone::PAID, 100).await;
    let other = world.bill(phone::PAID, 200).await;
    world.until_in_flight(2).await;
    dead.kill().await;
    world.sandbox.mend().await;
    world
        .sql(&format!(
            "create function public.hold_back() returns trigger language plpgsql as $$
             begin raise exception 'frozen'; end $$;
             create trigger hold_back before update on apipay.jobs for each row
               when (old.id = {refused} and new.state <> 'sending') execute function public.hold_back()"
        ))
        .await;
    world.expire_lease(refused).await;
    world.expire_lease(other).await;
    let daemon = world.daemon().await;
    world.until(other, "succeeded").await;
    let alert = alert_of(&world, refused).await;
    assert_eq!(alert["details"]["sqlstate"], "P0001", "{alert}");
    world.sql("drop trigger hold_back on apipay.jobs").await;
    world.until(refused, "succeeded").await;
    expect_resolved(&world).await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn an_account_whose_row_is_locked_keeps_no_other_account_waiting() {
    let (world, daemon) = World::running_as(wish()).await;
    let expired = json!({
        "route": "POST /invoices", "organization": world.key("clinic"), "effect": "none", "delay_ms": 1000,
        "answer": {"preset": "503_kaspi_session_invalid"},
    });
    world.sandbox.fault(expired).await;
    let params = json!({"phone_number": phone::PAID, "amount": 100});
    let clinic = json!({"account": "clinic"});
    let job = world.enqueue_with("invoice.create", params, clinic).await;
    world.until(job, "sending").await;
    let mut psql = world.pool().begin().await.unwrap();
    psql.execute("update apipay.accounts set updated_at = now() where name = 'clinic'")
        .await
        .unwrap();
    daemon.until_logged("a row of the account is locked").await;
    let first = world.bill(phone::PAID, 100).await;
    for _ in 0..40 {
        world.bill(phone::PAID, 100).await;
        sleep(Duration::from_millis(50)).await;
    }
    expect_quick(&world, first, "a locked account").await;
    assert_eq!(
        world.job(job).await["state"],
        "sending",
        "parked before its account"
    );

    psql.rollback().await.unwrap();
    world
        .until_true("select exists (select from apipay.events where account = 'clinic' and to_state = 'parked' and subject = 'account')")
        .await;
    world.until(job, "succeeded").await;
    world.until_all_final().await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn an_alert_whose_row_is_locked_keeps_no_other_from_being_told() {
    let world = World::made(wish()).await;
    let open = |account: &str| {
        format!(
            "select apipay._open_alert('{account}', 'cap_reached', 'critical', 'It is.', 'Look.', '{{}}')"
        )
    };
    world.sql("insert into apipay.accounts (name, requests_per_minute) values ('default', 60), ('clinic', 60) on conflict do nothing").await;
    world.sql(&open("clinic")).await;
    let mut psql = world.pool().begin().await.unwrap();
    psql.execute("select from apipay.alerts where account = 'clinic' for update")
        .await
        .unwrap();
    let daemon = world.daemon().await;
    world.sql(&open("default")).await;
    let told = |account: &str| {
        format!(
            "select count(*) = 2 from apipay.alert_deliveries d join apipay.alerts l on l.id = d.alert_id
              where l.account = '{account}' and d.channel = 'webhook' and d.status in ('firing', 'resolved')
                and d.delivered_at is not null"
        )
    };
    world.until_true(&told("default")).await;
    psql.rollback().await.unwrap();
    world.until_true(&told("clinic")).await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_stop_with_an_outcome_that_is_not_taken_ends_with_the_grace_and_says_so() {
    let (world, mut daemon) = World::running_as(wish()).await;
    let job = under_way(&world).await;
    let mut psql = world.pool().begin().await.unwrap();
    let locking = format!("select from apipay.jobs where id = {job} for update");
    psql.execute(sqlx::AssertSqlSafe(locking)).await.unwrap();
    daemon
        .until_logged("the database does not take an outcome")
        .await;
    daemon.signal(rustix::process::Signal::TERM);
    let status = daemon.ended(Duration::from_secs(20)).await;
    assert_eq!(status.code(), Some(1));
    assert!(
        daemon
            .log_text()
            .contains("its outcome is not taken by the database")
    );
    psql.rollback().await.unwrap();
    world.sandbox.mend().await;
    world.expire_lease(job).await;
    let heir = world.daemon().await;
    world.until(job, "succeeded").await;
    world.end([heir]).await;
}

/// What was seen of an invoice has no job to wait for it, and whether the customer paid stands nowhere else.
#[tokio::test]
async fn what_is_seen_and_not_taken_is_told_until_it_is_stored() {
    let (world, daemon) = World::running_as(wish()).await;
    world
        .sql(
            "create function public.close_books() returns trigger language plpgsql as $$
             begin
               raise exception 'bookkeeping is closed';
             end $$;
             create trigger close_books before insert or update on apipay.invoices
               for each row when (new.amount = 488 and new.status = 'paid') execute function public.close_books()",
        )
        .await;
    // Delivered first, so that its job is done and nothing but the invoice is left to be stored.
    let job = world.bill(phone::HELD, 488).await;
    let invoice = world.until(job, "accepted").await["invoice_id"].as_i64();
    let delivered = json!({"status": "pending"});
    world.sandbox.set_invoice(invoice.unwrap(), delivered).await;
    world.until(job, "succeeded").await;
    let paid = json!({"status": "paid"});
    world.sandbox.set_invoice(invoice.unwrap(), paid).await;
    world
        .until_true("select exists (select from apipay.alerts where kind = 'job_stuck' and resolved_at is null)")
        .await;
    let alert = world
        .value("select to_jsonb(l) from apipay.alerts l where kind = 'job_stuck'")
        .await;
    let summary = alert["summary"].as_str().unwrap();
    assert!(
        summary.contains("of invoice 100001 of account default")
            && summary.contains("bookkeeping is closed"),
        "{summary}"
    );
    // It stays while the cause does, and others go on.
    let other = world.bill(phone::PAID, 100).await;
    world.until(other, "succeeded").await;
    sleep(Duration::from_secs(2)).await;
    let open = "apipay.alerts where kind = 'job_stuck' and resolved_at is null";
    assert_eq!(world.count(open).await, 1);

    world
        .sql("drop trigger close_books on apipay.invoices")
        .await;
    world
        .until_true(&format!(
            "select status = 'paid' from apipay.invoices where job_id = {job}"
        ))
        .await;
    expect_resolved(&world).await;
    world.end([daemon]).await;
}
