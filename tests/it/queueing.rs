//! The queue: what is taken in, what goes first, and how fast.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::world::{Wish, World, phone};

async fn refusal(world: &World, statement: &str) -> String {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(world.pool())
        .await
        .expect_err(statement)
        .to_string()
}

/// The order ids of the bills that reached the gateway, in their order.
async fn order_of_arrival(world: &World) -> Vec<String> {
    let requests = world.sandbox.requests_to("POST /invoices").await;
    let order = |request: &Value| {
        let body: Value = serde_json::from_str(request["body"].as_str().unwrap()).unwrap();
        body["external_order_id"].as_str().unwrap().to_owned()
    };
    requests.iter().map(order).collect()
}

#[tokio::test]
async fn refusals_without_a_hint_are_waited_for_longer_each_time() {
    let (world, daemon) = World::running().await;
    // A clear answer would end the row: that of the look at the account's health, which a start has.
    world
        .until_holds("the start is over", async || {
            let asked = world.sandbox.requests_to("GET /account/health").await;
            !asked.is_empty()
        })
        .await;
    world
        .sandbox
        .fault(json!({"route": "POST /invoices", "times": 2, "answer": {"preset": "429_no_hint"}}))
        .await;
    let job = world.bill(phone::PAID, 700).await;
    let row = world.until(job, "succeeded").await;
    assert_eq!(row["attempts"], 1, "a refusal costs none");
    let requests = world.sandbox.requests_to("POST /invoices").await;
    let at = |n: usize| requests[n]["at_unix_us"].as_i64().unwrap();
    let waits = [at(1) - at(0), at(2) - at(1)];
    assert!(waits[0] >= 1_000_000 && waits[1] >= 2_000_000, "{waits:?}");
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_try_upon_a_persons_word_does_not_lengthen_the_next_wait() {
    let wish = Wish::default()
        .tune("retry.rate_limited.initial", "20s")
        .tune("retry.rate_limited.max", "300s");
    let (world, daemon) = World::running_as(wish).await;
    world
        .sandbox
        .fault(json!({"route": "POST /invoices", "times": 4, "answer": {"preset": "429_no_hint"}}))
        .await;
    let job = world.bill(phone::PAID, 700).await;
    for tries in 1..=4 {
        world
            .until_true(&format!(
                "select count(*) = {tries} from apipay.attempts where http_status = 429"
            ))
            .await;
        world
            .until_true("select blocked_until > now() from apipay.accounts where name = 'default'")
            .await;
        let longer = "apipay.accounts where blocked_until > now() + interval '30 s'";
        assert_eq!(world.count(longer).await, 0, "after {tries} tries");
        world.sql("select apipay.resume('default', 'look')").await;
    }
    world.until(job, "succeeded").await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_by_the_insert() {
    let (world, daemon) = World::running().await;
    let unknown = refusal(
        &world,
        "insert into apipay.jobs (operation, params) values ('invoice.pay', '{}')",
    )
    .await;
    assert!(
        unknown.contains("invoice.cancel, invoice.create, invoice.refund"),
        "{unknown}"
    );
    let account = refusal(
        &world,
        "insert into apipay.jobs (account, operation, params) values ('nobody', 'invoice.create', '{}')",
    )
    .await;
    assert!(account.contains("foreign key"), "{account}");
    world.end([daemon]).await;
}

#[tokio::test]
async fn bad_params_fail_with_a_field_map_and_nothing_is_sent() {
    let (world, daemon) = World::running().await;
    for (operation, params, fields) in [
        (
            "invoice.create",
            json!({"phone_number": "12345", "amount": 1.5}),
            vec!["amount", "phone_number"],
        ),
        ("invoice.create", json!({}), vec!["amount", "phone_number"]),
        (
            "invoice.create",
            json!({"phone_number": phone::PAID, "amount": 10, "tip": 1}),
            vec!["tip"],
        ),
        (
            "invoice.cancel",
            json!({"invoice_id": -1}),
            vec!["invoice_id"],
        ),
        (
            "invoice.refund",
            json!({"invoice_id": 1, "amount": 0.001}),
            vec!["amount"],
        ),
    ] {
        let job = world.enqueue(operation, params.clone()).await;
        let row = world.until(job, "failed").await;
        assert_eq!(row["error_code"], "invalid_params");
        let errors = row["errors"].as_object().unwrap();
        let named: Vec<&str> = errors.keys().map(String::as_str).collect();
        assert_eq!(named, fields, "{params}");
        assert!(
            errors.values().all(|list| list[0].is_string()),
            "{errors:?}"
        );
    }
    assert_eq!(world.sandbox.requests().await.len(), 0);
    world.end([daemon]).await;
}

#[tokio::test]
async fn the_same_business_event_is_enqueued_once() {
    let (world, daemon) = World::running().await;
    let enqueue = format!(
        "select apipay.create_invoice('{}', 500, dedup_key => 'order 7')",
        phone::PAID
    );
    let first = world.value(&format!("select to_jsonb(({enqueue}))")).await;
    let again = world.value(&format!("select to_jsonb(({enqueue}))")).await;
    assert_eq!(first, again);
    let plain = refusal(
        &world,
        "insert into apipay.jobs (operation, params, dedup_key) values ('invoice.create', '{}', 'order 7')",
    )
    .await;
    assert!(plain.contains("jobs_dedup"), "{plain}");
    world.until(first.as_i64().unwrap(), "succeeded").await;
    assert_eq!(world.sandbox.effects().await.len(), 1);
    world.end([daemon]).await;
}

#[tokio::test]
async fn higher_priority_goes_first_and_then_who_came_first() {
    let world = World::made(Wish::default().tune("accounts.default.concurrency", "1")).await;
    for (order, priority) in [("c", 0), ("a", 10), ("d", 0), ("b", 5), ("e", -1)] {
        let params =
            json!({"phone_number": phone::UNPAID, "amount": 100, "external_order_id": order});
        world
            .enqueue_with("invoice.create", params, json!({"priority": priority}))
            .await;
    }
    let daemon = world.daemon().await;
    world.until_all_final().await;
    assert_eq!(order_of_arrival(&world).await, ["a", "b", "c", "d", "e"]);
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_job_is_not_sent_before_its_time_nor_after_its_end() {
    let (world, daemon) = World::running().await;
    let params = json!({"phone_number": phone::UNPAID, "amount": 100});
    let soon = world
        .value("select to_jsonb(now() + interval '1500 milliseconds')")
        .await;
    let past = world
        .value("select to_jsonb(now() - interval '1 second')")
        .await;
    let later = world
        .enqueue_with("invoice.create", params.clone(), json!({"run_at": soon}))
        .await;
    let never = world
        .enqueue_with("invoice.create", params, json!({"expires_at": past}))
        .await;
    let expired = world.until(never, "expired").await;
    assert_eq!(expired["attempts"], 0);
    assert_eq!(world.attempts(never).await.len(), 0);
    world.until(later, "succeeded").await;
    let early = world
        .count(&format!(
            "apipay.attempts a join apipay.jobs j on j.id = {later} and a.job_id = j.id where a.started_at < timestamptz '{}'",
            soon.as_str().unwrap()
        ))
        .await;
    assert_eq!(early, 0);
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_job_that_nobody_sent_can_be_cancelled_and_a_final_one_is_repeated_as_a_copy() {
    let world = World::made(Wish::default()).await;
    let job = world.bill(phone::PAID, 100).await;
    world
        .sql(&format!(
            "select apipay.cancel({job}, 'changed their mind')"
        ))
        .await;
    let daemon = world.daemon().await;
    let copy = world
        .value(&format!("select to_jsonb(apipay.retry({job}, 'again'))"))
        .await;
    let copy = copy.as_i64().unwrap();
    let row = world.until(copy, "succeeded").await;
    assert_eq!(row["retry_of"], job);
    let old = world.job(job).await;
    assert_eq!(old["state"], "cancelled");
    assert_ne!(old["token"], row["token"]);
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_new_job_goes_out_at_once() {
    let (world, daemon) =
        World::running_as(Wish::default().tune("worker.poll_interval", "20s")).await;
    // Let it come to rest first.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let started = Instant::now();
    let job = world.bill(phone::PAID, 100).await;
    world
        .until_job(job, "it is sent", |row| row["epoch"] != 0)
        .await;
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    world.until(job, "succeeded").await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn without_notifications_polling_does_the_work() {
    let world = World::made(Wish::default()).await;
    world
        .sql("do $$ begin execute format('alter database %I set apipay.notify = off', current_database()); end $$")
        .await;
    // The setting is for new connections.
    let fresh = world.fresh_pool().await;
    let daemon = world.daemon().await;
    let job: i64 = sqlx::query_scalar("select apipay.create_invoice($1, 100)")
        .bind(phone::PAID)
        .fetch_one(&fresh)
        .await
        .unwrap();
    fresh.close().await;
    world.until(job, "succeeded").await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_thousand_jobs_of_one_account_do_not_delay_anothers_first() {
    let wish = Wish::default()
        .accounts(&["big", "small"])
        .tune("worker.concurrency", "4");
    let world = World::made(wish).await;
    world
        .sandbox
        .fault(json!({"route": "POST /invoices", "share": 1, "seed": 1, "effect": "apply", "delay_ms": 40}))
        .await;
    world
        .sql(&format!(
            r#"insert into apipay.jobs (account, operation, params)
               select 'big', 'invoice.create', '{{"phone_number": "{}", "amount": 100, "external_order_id": "big"}}'
                 from generate_series(1, 1000)"#,
            phone::UNPAID
        ))
        .await;
    let daemon = world.daemon().await;
    world
        .until_holds("the big one is under way", async || {
            world.sandbox.requests_to("POST /invoices").await.len() > 20
        })
        .await;
    let before = world.sandbox.requests_to("POST /invoices").await.len();
    let params =
        json!({"phone_number": phone::UNPAID, "amount": 100, "external_order_id": "small"});
    let small = world
        .enqueue_with("invoice.create", params, json!({"account": "small"}))
        .await;
    world
        .until_job(small, "it is sent", |row| row["epoch"] != 0)
        .await;
    world
        .until_job(small, "it is done", |row| row["state"] != "sending")
        .await;
    let order = order_of_arrival(&world).await;
    let place = order.iter().position(|order| order == "small").unwrap();
    assert!(
        place < before + 60,
        "{before} before it was enqueued, {place} before it was sent"
    );
    world.sql("select apipay.stop('enough')").await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn two_daemons_on_one_database_send_each_job_once() {
    let world = World::made(Wish::default().tune("accounts.default.concurrency", "16")).await;
    let first = world.spawn(&["run"], &[]);
    let second = world.spawn(&["run"], &[]);
    world
        .until_true("select count(*) = 2 from apipay.daemons where 'default' = any (accounts)")
        .await;
    world
        .sql(&format!(
            r#"insert into apipay.jobs (operation, params)
               select 'invoice.create', '{{"phone_number": "{}", "amount": 100}}' from generate_series(1, 300)"#,
            phone::UNPAID
        ))
        .await;
    world.until_all_final().await;
    assert_eq!(
        world.count("apipay.jobs where state = 'succeeded'").await,
        300
    );
    assert_eq!(world.sandbox.requests_to("POST /invoices").await.len(), 300);
    let workers = world
        .value("select to_jsonb(count(distinct worker)) from apipay.attempts")
        .await;
    assert_eq!(workers, 2, "both took part");
    world.end([first, second]).await;
}

#[tokio::test]
async fn no_sixty_seconds_see_more_requests_than_the_key_allows() {
    let mut wish = Wish::default().tune("accounts.default.requests_per_minute", "12");
    wish.sandbox.requests_per_minute = 12;
    let (world, daemon) = World::running_as(wish).await;
    for _ in 0..30 {
        world.bill(phone::UNPAID, 100).await;
    }
    world
        .until_holds("the quota is used", async || {
            world.sandbox.all_requests().await.len() == 12
        })
        .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let bills = world.sandbox.requests_to("POST /invoices").await.len();
    assert!(
        bills >= 10,
        "{bills} bills: of what was due to ask, a sixth goes first"
    );
    let stats = world.sandbox.control("GET /stats", Value::Null).await;
    assert!(
        stats["max_requests_per_key_60s"].as_u64().unwrap() <= 12,
        "{stats}"
    );
    let limited = world.sandbox.all_requests().await;
    assert!(
        limited.iter().all(|request| request["limited"] == false),
        "a request was over the limit"
    );
    let explain = world
        .rows("select explain from apipay.overview where state = 'queued'")
        .await;
    assert_eq!(explain.len(), 30 - bills);
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_limit_that_others_use_up_is_waited_for_and_costs_no_attempt() {
    let mut wish = Wish::default();
    wish.sandbox.requests_per_minute = 5;
    let (world, daemon) = World::running_as(wish).await;
    for _ in 0..12 {
        world.bill(phone::UNPAID, 100).await;
    }
    world
        .until_true("select quota_left = 0 or blocked_until > now() from apipay.account_status")
        .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let refused = world.sandbox.requests().await;
    let refused = refused
        .iter()
        .filter(|request| request["limited"] == true)
        .count();
    assert!(
        refused <= 16,
        "{refused} requests after the limit: what was in flight, and no more"
    );
    world
        .sandbox
        .organization(json!({"requests_per_minute": 0}))
        .await;
    // A test does not wait for the minute to be over. Those that were refused wait for themselves, too, once that is known.
    world
        .until_true("select not exists (select from apipay.jobs where state = 'sending')")
        .await;
    world
        .sql("select apipay.retry(id, 'the limit was lifted') from apipay.jobs where state = 'queued'")
        .await;
    world.sql("delete from apipay._quotas").await;
    world
        .sql("select apipay.resume('default', 'the limit was lifted')")
        .await;
    world.until_all_final().await;
    assert_eq!(
        world
            .count("apipay.jobs where state = 'succeeded' and attempts = 1")
            .await,
        12
    );
    world.end([daemon]).await;
}
