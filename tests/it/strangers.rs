//! Rows are strangers: whoever may insert may insert anything that jsonb takes. What cannot be read is its
//! own job's failure, and its neighbours never notice.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::world::{Cluster, Database, Job, Wish, World, phone};

/// How long neighbours may take, on a busy machine.
const SECONDS: Duration = Duration::from_secs(20);

/// Params, as SQL, that no operation takes, and the word that their errors hold.
fn strange_params() -> Vec<(String, &'static str)> {
    let bill = |amount: &str| {
        format!(
            r#"'{{"phone_number": "{}", "amount": {amount}}}'"#,
            phone::PAID
        )
    };
    vec![
        (bill(&format!("{}1{}", "[".repeat(200), "]".repeat(200))), "recursion"),
        (bill(&format!("{}1{}", "[".repeat(3000), "]".repeat(3000))), "recursion"),
        (bill(r#"{"$serde_json::private::Number": "x"}"#), "$serde_json"),
        (bill(r#"{"$serde_json::private::Number": "5000"}"#), "$serde_json"),
        (bill(r#"{"$serde_json::private::RawValue": "5000"}"#), "$serde_json"),
        (bill(&"9".repeat(100_000)), "64 KiB"),
        (bill("1e131071"), "64 KiB"),
        (bill("-1e131071"), "64 KiB"),
        (bill("1e-16000"), "allowed"),
        (bill("[1e131071, 1e131071]"), "64 KiB"),
        (bill(r#""NaN""#), "allowed"),
        (bill(r#""\u0001""#), "allowed"),
        (bill("null"), "missing"),
        (bill(r#"5000, "amount": "5001", "cart_items": []"#), "allowed"),
        (bill(r#"5000, "description": "a\u2028\u0000b""#).replace("\\u0000", "\\u0007"), "control"),
        ("jsonb_build_object('phone_number', repeat('8', 70000))".to_owned(), "64 KiB"),
        ("jsonb_build_object('phone_number', repeat(md5('x'), 100000), 'amount', 5)".to_owned(), "64 KiB"),
        ("jsonb_build_object('a', array(select '1e131071'::jsonb from generate_series(1, 10000)))".to_owned(), "64 KiB"),
        ("jsonb_build_object('a', array(select n from generate_series(1, 3000) n))".to_owned(), "known field"),
        ("(select jsonb_object_agg('field' || n, n) from generate_series(1, 2000) n)".to_owned(), "known field"),
        ("jsonb_build_object('cart_items', array(select jsonb_build_object('x' || n % 9, n) from generate_series(1, 100) n))".to_owned(), "missing"),
        ("'{}'".to_owned(), "missing"),
        ("'{\"\": 1}'".to_owned(), "name"),
    ]
}

/// Other columns that a user may write, at their edges. The job itself is well.
fn strange_columns() -> Vec<(&'static str, &'static str)> {
    vec![
        ("dedup_key", "repeat('ы', 255)"),
        ("dedup_key", "E'\\x01\\x7f\"\\\\'"),
        ("priority", "32767"),
        ("priority", "-32768"),
        ("run_at", "'-infinity'"),
        ("run_at", "'4713-01-01 BC'"),
        ("expires_at", "'infinity'"),
        ("expires_at", "'294276-12-31'"),
        ("traceparent", "repeat('x', 100000)"),
        ("traceparent", "''"),
        (
            "metadata",
            "'{\"a\": {\"$serde_json::private::Number\": \"x\"}}'",
        ),
        (
            "metadata",
            "jsonb_build_object('a', repeat(md5('x'), 100000))",
        ),
        (
            "metadata",
            "('{\"a\":' || repeat('[', 1000) || repeat(']', 1000) || '}')::jsonb",
        ),
    ]
}

async fn insert(world: &World, account: &str, params: &str, more: Option<(&str, &str)>) -> Job {
    let (column, value) = more.map_or_else(Default::default, |(c, v)| {
        (format!(", {c}"), format!(", {v}"))
    });
    let statement = format!(
        "insert into apipay.jobs (account, operation, params{column})
         values ('{account}', 'invoice.create', {params}{value}) returning id"
    );
    let mut transaction = world.pool().begin().await.unwrap();
    sqlx::query("set local role apipay_enqueuer")
        .execute(&mut *transaction)
        .await
        .unwrap();
    let job = sqlx::query_scalar(AssertSqlSafe(statement.clone()))
        .fetch_one(&mut *transaction)
        .await
        .unwrap_or_else(|error| panic!("{statement:.200}: {error}"));
    transaction.commit().await.unwrap();
    job
}

#[tokio::test]
async fn what_cannot_be_read_fails_by_itself_and_its_neighbours_never_notice() {
    let world = World::made(Wish::default().accounts(&["default", "other"])).await;
    let good = format!(r#"'{{"phone_number": "{}", "amount": 700}}'"#, phone::PAID);
    let mut bad = Vec::new();
    let mut fine = Vec::new();
    for (params, word) in strange_params() {
        bad.push((insert(&world, "default", &params, None).await, params, word));
        fine.push(insert(&world, "default", &good, None).await);
        fine.push(insert(&world, "other", &good, None).await);
    }
    for column in strange_columns() {
        fine.push(insert(&world, "default", &good, Some(column)).await);
    }
    let begun = Instant::now();
    let daemon = world.daemon().await;
    for job in fine {
        world
            .until_true(&format!(
                "select state = 'succeeded' and attempts = 1 from apipay.jobs where id = {job}"
            ))
            .await;
    }
    assert!(begun.elapsed() < SECONDS, "{:?}", begun.elapsed());
    for (job, params, word) in bad {
        let row = world
            .rows(&format!(
                "select state, error_code, errors, attempts from apipay.jobs where id = {job}"
            ))
            .await
            .remove(0);
        let expected = ("failed".into(), "invalid_params".into());
        assert_eq!(
            (row["state"].clone(), row["error_code"].clone()),
            expected,
            "{params:.200}"
        );
        let errors = row["errors"].to_string();
        assert!(errors.contains(word), "{errors:.300} of {params:.200}");
        assert!(errors.len() < 20_000, "{} bytes of errors", errors.len());
    }
    assert_eq!(
        world
            .count("apipay.alerts where kind <> 'no_progress'")
            .await,
        0
    );
    assert!(!daemon.was_told("the database failed"), "no loop failed");
    // The check of all rows reads them whole, and its own parser is no better.
    drop_the_strange(&world).await;
    world.end([daemon]).await;
}

/// A test's own parser reads no better than the daemon's.
async fn drop_the_strange(world: &World) {
    for table in ["attempts", "events"] {
        world
            .sql(&format!(
                "set session_replication_role = replica;
                 delete from apipay.{table} where job_id in (select id from apipay.jobs where error_code = 'invalid_params')"
            ))
            .await;
    }
    world
        .sql(
            "set session_replication_role = replica;
             delete from apipay.jobs where error_code = 'invalid_params';
             update apipay.jobs set metadata = '{}', run_at = least(greatest(run_at, '2000-01-01'), now()),
               expires_at = null, traceparent = null;
             set session_replication_role = origin;",
        )
        .await;
}

#[tokio::test]
async fn what_may_have_been_sent_and_cannot_be_read_is_looked_up_and_hurts_no_look_up() {
    let wish = Wish::default().tune("reconcile.settle", "500ms");
    let world = World::made(wish).await;
    let deep = format!(
        r#"'{{"phone_number": "{}", "amount": {}1{}}}'"#,
        phone::PAID,
        "[".repeat(200),
        "]".repeat(200)
    );
    for state in ["uncertain", "queued"] {
        world
            .sql(&format!(
                "insert into apipay.jobs (operation, params, state, unproven_since) values ('invoice.create', {deep}, '{state}', now())"
            ))
            .await;
    }
    world
        .sql(&format!(
            r#"insert into apipay.jobs (operation, params, state, unproven_since)
               select 'invoice.create', '{{"phone_number": "{}", "amount": 700}}', 'uncertain', now() - interval '1 minute'
                 from generate_series(1, 3)"#,
            phone::PAID
        ))
        .await;
    let daemon = world.daemon().await;
    world
        .until_true("select count(*) = 2 from apipay.jobs where state = 'failed' and error_code = 'invalid_params'")
        .await;
    world
        .until_true("select count(*) = 3 from apipay.jobs where state = 'succeeded'")
        .await;
    let held = "apipay.alerts where kind = 'job_held'";
    assert_eq!(world.count(held).await, 0, "nobody has to decide");
    drop(daemon);
    world.end_unchecked().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_any_size_do_not_fill_the_memory() {
    /// What a debug build may take. It starts with about a third of that.
    const MEMORY: u64 = 100 << 20;
    // Rows like these take the database long, whoever reads them.
    let wish = Wish::default()
        .accounts(&["default", "other"])
        .tune("worker.lease", "60s");
    let world = World::made(wish).await;
    world
        .sql(
            "insert into apipay.jobs (operation, params)
             select 'invoice.create', jsonb_build_object('description', repeat(md5(n::text), 1500000)) from generate_series(1, 2) n;
             insert into apipay.jobs (operation, params)
             select 'invoice.create', jsonb_build_object('description', repeat('x', 48000000)) from generate_series(1, 6) n;
             insert into apipay.jobs (operation, params)
             select 'invoice.create', jsonb_build_object('description', array(select 0 from generate_series(1, 5000))) from generate_series(1, 100) n",
        )
        .await;
    let good = format!(r#"'{{"phone_number": "{}", "amount": 700}}'"#, phone::PAID);
    let neighbour = insert(&world, "other", &good, None).await;
    let daemon = world.daemon().await;
    world.until(neighbour, "succeeded").await;
    world
        .until_true("select not exists (select from apipay.jobs where account = 'default' and error_code is distinct from 'invalid_params')")
        .await;
    let peak = daemon.peak_memory();
    assert!(peak < MEMORY, "{} MiB at the most", peak >> 20);
    drop(daemon);
    world.end_unchecked().await;
}

#[tokio::test]
async fn bytes_that_are_no_text_are_their_own_jobs_failure() {
    let cluster = Cluster::shared().await;
    let database =
        Database::of_kind(cluster, "encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C'").await;
    let world = World::on(database, Wish::default().accounts(&["default", "other"])).await;
    let mut migrate = world.spawn(&["migrate"], &[]);
    let status = migrate.ended(Duration::from_secs(40)).await;
    assert_eq!(status.code(), Some(0), "{}", migrate.log_text());
    let daemon = world.daemon().await;
    let bad: Job = sqlx::query_scalar(AssertSqlSafe(format!(
        "insert into apipay.jobs (operation, params)
         values ('invoice.create', jsonb_build_object('phone_number', '{}', 'amount', 700, 'description', E'\\xcf\\xf0\\xe8')) returning id",
        phone::PAID
    )))
    .fetch_one(world.pool())
    .await
    .unwrap();
    let good = format!(
        r#"'{{"phone_number": "{}", "amount": 700, "description": "Заказ"}}'"#,
        phone::PAID
    );
    for account in ["default", "other"] {
        let job: Job = sqlx::query_scalar(AssertSqlSafe(format!(
            "insert into apipay.jobs (account, operation, params) values ('{account}', 'invoice.create', {good}) returning id"
        )))
        .fetch_one(world.pool())
        .await
        .unwrap();
        world
            .until_true(&format!(
                "select state = 'succeeded' from apipay.jobs where id = {job}"
            ))
            .await;
    }
    world
        .until_true(&format!(
            "select state = 'failed' and errors = '{{\"params\": [\"must be UTF-8\"]}}' from apipay.jobs where id = {bad}"
        ))
        .await;
    let sent = world.sandbox.requests_to("POST /invoices").await;
    let sent: Vec<Value> = sent
        .iter()
        .map(|request| serde_json::from_str(request["body"].as_str().unwrap()).unwrap())
        .collect();
    assert!(
        sent.iter().all(|body| body["description"] == "Заказ"),
        "{sent:?}"
    );
    assert_eq!(sent.len(), 2);
    drop(daemon);
    world.end_unchecked().await;
}

#[tokio::test]
async fn one_invoice_however_it_is_written_has_one_refund_at_a_time() {
    let world = World::made(Wish::default().tune("accounts.default.concurrency", "16")).await;
    let paid = world
        .sandbox
        .invoice(
            &world.key("default"),
            json!({"status": "paid", "amount": 1000}),
        )
        .await;
    for written in [
        format!("{paid}"),
        format!("\"{paid}\""),
        format!("\"0{paid}\""),
        format!("{paid}.0"),
        format!("{paid}e0"),
    ] {
        world
            .sql(&format!(
                r#"insert into apipay.jobs (operation, params) values ('invoice.refund', '{{"invoice_id": {written}, "amount": 10}}')"#
            ))
            .await;
    }
    let daemon = world.daemon().await;
    world.until_all_final().await;
    let overlapping = world
        .count(
            "(select (e.evidence ->> 'epoch') as epoch, e.id, e.job_id, e.to_state,
                     sum(case when e.to_state = 'sending' then 1 when e.to_state in ('succeeded', 'failed', 'queued') then -1 else 0 end)
                       over (order by e.id) as open
                from apipay.events e where e.subject = 'job' and e.to_state in ('sending', 'succeeded', 'failed', 'queued')) q
             where open > 1",
        )
        .await;
    assert_eq!(overlapping, 0, "never two at once");
    assert_eq!(
        world.count("apipay.jobs where state = 'succeeded'").await,
        5
    );
    world.end([daemon]).await;
}

/// Every program may read the tokens of jobs, and choose its order ids.
#[tokio::test]
async fn an_order_id_that_is_another_jobs_name_takes_nothing_from_that_job() {
    let (world, daemon) = World::running().await;
    world
        .sandbox
        .fault(json!({"route": "POST /invoices", "match": "first bill", "answer": {"preset": "502_html"}}))
        .await;
    let bill = |description: &str| json!({"phone_number": phone::UNPAID, "amount": 5000, "description": description});
    let first = world.enqueue("invoice.create", bill("first bill")).await;
    let mut second = bill("second bill");
    second["external_order_id"] = world.job(first).await["token"].clone();
    let second = world.enqueue("invoice.create", second).await;
    let mut invoices = Vec::new();
    for job in [first, second] {
        invoices.push(world.until(job, "succeeded").await["invoice_id"].clone());
        assert_eq!(world.effects_of(job).await.len(), 1, "job {job}");
    }
    assert_ne!(invoices[0], invoices[1]);
    world.end([daemon]).await;
}

/// A proxy that answers with what it has: nothing was done, or something else was.
#[tokio::test]
async fn a_success_that_shows_another_jobs_object_is_looked_up() {
    let (world, daemon) = World::running().await;
    let bill = |description: &str| json!({"phone_number": phone::PAID, "amount": 5555, "description": description});
    let original = world.enqueue("invoice.create", bill("original")).await;
    let row = world.until(original, "succeeded").await;
    let invoice = row["invoice_id"].as_i64().unwrap();
    let token = row["token"].as_str().unwrap();
    let shown = json!({"id": invoice, "status": "pending", "amount": "5555.00", "phone": phone::PAID,
        "external_order_id": token, "internal_comment": format!("[apipayd {token}]")});
    world
        .sandbox
        .fault(json!({"route": "POST /invoices", "match": "swapped", "effect": "apply", "answer": {"status": 201, "json": shown}}))
        .await;
    let swapped = world.enqueue("invoice.create", bill("swapped")).await;
    let row = world.until(swapped, "succeeded").await;
    assert_ne!(row["invoice_id"], invoice);
    assert_eq!(world.effects_of(swapped).await.len(), 1);

    let refund = |reason: &str| json!({"invoice_id": invoice, "amount": 100, "reason": reason});
    world
        .until_true(&format!(
            "select status = 'paid' from apipay.invoices where id = {invoice}"
        ))
        .await;
    let first = world.enqueue("invoice.refund", refund("first")).await;
    let row = world.until(first, "succeeded").await;
    let (made, token) = (row["refund_id"].clone(), row["token"].as_str().unwrap());
    let shown = json!({"refund": {"id": made, "invoice_id": invoice, "amount": "100.00", "status": "pending",
        "reason": format!("first [apipayd {token}]")}});
    world
        .sandbox
        .fault(json!({"route": "POST /invoices/{id}/refund", "match": "second", "effect": "none", "answer": {"status": 201, "json": shown}}))
        .await;
    let second = world.enqueue("invoice.refund", refund("second")).await;
    let row = world.until(second, "succeeded").await;
    assert_ne!(row["refund_id"], made);
    assert_eq!(world.effects_of(second).await.len(), 1);
    world.end([daemon]).await;
}
