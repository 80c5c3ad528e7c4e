//! What the gateway accepted is watched to its end, many invoices a request.

use std::time::Duration;

use apipayd::db::entry::{Entry, InvoiceRow};
use apipayd::db::record;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::world::{Wish, World, phone};

#[tokio::test]
async fn open_invoices_are_checked_a_hundred_a_request_and_no_request_goes_half_full() {
    let wish = Wish::default()
        .tune("follow.first", "10m")
        .tune("accounts.default.concurrency", "32");
    let wish = wish.tune("follow.max", "10m");
    let world = World::made(wish).await;
    world
        .sql(&format!(
            r#"insert into apipay.jobs (operation, params)
               select 'invoice.create', '{{"phone_number": "{}", "amount": 100}}' from generate_series(1, 250)"#,
            phone::UNPAID
        ))
        .await;
    let daemon = world.daemon().await;
    world
        .until_true("select count(*) = 250 from apipay.jobs where state = 'accepted'")
        .await;
    world
        .sql("update apipay.invoices set next_check_at = now()")
        .await;
    world.until_all_final().await;
    let checks = world
        .sandbox
        .requests_to("POST /invoices/status/check")
        .await;
    let sizes: Vec<usize> = checks.iter().map(ids).collect();
    assert_eq!(
        sizes,
        [100, 100, 100],
        "filled up with those that are not due"
    );
    world.end([daemon]).await;
}

/// How many invoices a check asks for.
fn ids(check: &Value) -> usize {
    check["body"].as_str().unwrap().matches(',').count() + 1
}

#[tokio::test]
async fn a_bill_to_nobody_fails_with_the_gateways_code() {
    let (world, daemon) = World::running().await;
    let job = world.bill(phone::CLIENT_NOT_FOUND, 500).await;
    let row = world.until(job, "failed").await;
    assert_eq!(row["error_code"], "client_not_found");
    assert_eq!(row["reason"], "async_error");
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_bill_that_keeps_failing_at_kaspi_is_resubmitted_as_often_as_allowed() {
    let (world, daemon) = World::running().await;
    let job = world.bill(phone::NETWORK_UNAVAILABLE, 500).await;
    let row = world.until(job, "failed").await;
    assert_eq!(row["reason"], "gave_up");
    assert_eq!(row["generation"], 3);
    // One each, under three names, and all of them dead: the checker at the end looks.
    assert_eq!(world.effects_of(job).await.len(), 3);
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_bill_that_recovers_by_itself_is_not_resubmitted() {
    let (world, daemon) = World::running_as(
        Wish::default()
            .tune("retry.async_error.initial", "600ms")
            .tune("retry.async_error.max", "600ms"),
    )
    .await;
    let job = world.bill(phone::ERROR_THEN_PENDING, 500).await;
    world.until(job, "succeeded").await;
    assert_eq!(world.effects_of(job).await.len(), 1);
    world.end([daemon]).await;
}

/// An invoice that failed at Kaspi may live after all: before the bill is resubmitted the gateway is asked.
#[tokio::test]
async fn a_bill_whose_failed_invoice_lives_after_all_is_not_resubmitted() {
    for status in ["pending", "cancelling", "paid"] {
        let (world, daemon) = World::running_as(
            Wish::default()
                .tune("retry.async_error.initial", "300ms")
                .tune("retry.async_error.max", "300ms"),
        )
        .await;
        let job = world.bill(phone::NETWORK_UNAVAILABLE, 500).await;
        // The next one meets a limit, and waits for longer than it takes the first to come alive.
        let limited = json!({"route": "POST /invoices", "skip": 0, "times": 1,
                             "answer": {"status": 429, "json": {"message": "Too Many Attempts.", "retry_after_seconds": 3}}});
        let first = world
            .until_job(job, "accepted", |row| !row["invoice_id"].is_null())
            .await["invoice_id"]
            .as_i64()
            .unwrap();
        world.sandbox.fault(limited).await;
        world
            .until_job(job, "refused for the rate", |row| {
                row["reason"] == "retry_after"
            })
            .await;
        world
            .sandbox
            .set_invoice(first, json!({"status": status}))
            .await;
        let row = world.until(job, "succeeded").await;
        assert_eq!(row["invoice_id"], first);
        assert_eq!(world.effects_of(job).await.len(), 1, "{status}");
        world.end([daemon]).await;
    }
}

/// What is asked before a bill is resubmitted may take longer than its claim lasts.
#[tokio::test]
async fn a_bill_whose_claim_ran_out_while_its_invoices_were_asked_for_is_not_sent() {
    for delay_ms in [1000, 4000] {
        let (world, daemon) = World::running_as(
            Wish::default()
                .tune("retry.async_error.initial", "300ms")
                .tune("retry.async_error.max", "300ms")
                .tune("retry.async_error.attempts", "2")
                .tune("reconcile.quiet_after_timeout", "7s"),
        )
        .await;
        let slow = json!({"route": "GET /invoices", "times": 1, "delay_ms": delay_ms});
        world.sandbox.fault(slow).await;
        let job = world.bill(phone::NETWORK_UNAVAILABLE, 500).await;
        world
            .until_job(job, "about to be resubmitted", |row| {
                row["state"] == "sending" && row["generation"] == 2
            })
            .await;
        // Its invoices are asked for, and meanwhile its lease runs out.
        world
            .until_holds("its invoices are asked for", async || {
                world.sandbox.requests_to("GET /invoices").await.len() == 1
            })
            .await;
        world
            .sql(&format!(
                "update apipay.jobs set leased_until = now() - interval '1 s' where id = {job} and state = 'sending'"
            ))
            .await;
        world.until(job, "uncertain").await;
        tokio::time::sleep(Duration::from_millis(delay_ms + 1000)).await;
        assert_eq!(
            world.effects_of(job).await.len(),
            1,
            "{delay_ms}: its claim was over"
        );
        world.until(job, "failed").await;
        world.end([daemon]).await;
    }
}

/// And it is not given up while one of its invoices lives.
#[tokio::test]
async fn a_bill_of_which_an_earlier_invoice_lives_is_not_given_up() {
    let (world, daemon) = World::running_as(
        Wish::default()
            .tune("retry.async_error.initial", "600ms")
            .tune("retry.async_error.max", "600ms")
            .tune("retry.async_error.attempts", "2"),
    )
    .await;
    let job = world.bill(phone::NETWORK_UNAVAILABLE, 500).await;
    let first = world
        .until_job(job, "accepted", |row| !row["invoice_id"].is_null())
        .await["invoice_id"]
        .as_i64()
        .unwrap();
    world
        .until_job(job, "resubmitted", |row| {
            row["generation"] == 2 && row["state"] == "accepted"
        })
        .await;
    world
        .sandbox
        .set_invoice(first, json!({"status": "pending"}))
        .await;
    let row = world.until(job, "succeeded").await;
    assert_eq!(row["invoice_id"], first);
    assert_eq!(world.effects_of(job).await.len(), 2);
    // It had been given up for dead, and is the job's own now: nothing is left for a human.
    world.until_no_alert().await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_status_of_nine_thousand_letters_is_no_more_than_one_that_is_not_known() {
    let (world, daemon) = World::running().await;
    let job = world.bill(phone::HELD, 500).await;
    let row = world.until(job, "accepted").await;
    let id = row["invoice_id"].as_i64().unwrap();
    let shown = json!({"shown_status": "ы".repeat(9_000)});
    world.sandbox.set_invoice(id, shown).await;
    // Listeners are told of it, in at most 8000 bytes.
    world
        .until_true("select status like 'ыы%' and octet_length(status) <= 100 from apipay.invoices")
        .await;
    let known = json!({"status": "pending", "shown_status": "pending"});
    world.sandbox.set_invoice(id, known).await;
    world.until(job, "succeeded").await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn what_the_gateway_does_not_finish_is_told_to_a_human_and_followed_on() {
    let wish = Wish::default()
        .tune("reconcile.settle", "500ms")
        .tune("reconcile.give_up", "1500ms");
    let (world, daemon) = World::running_as(wish).await;
    let job = world.bill(phone::HELD, 500).await;
    let invoice = world.until(job, "accepted").await["invoice_id"].clone();
    world
        .until_holds("it is told", async || {
            !world.alerts.deliveries("firing").is_empty()
        })
        .await;
    let alert = &world.rows("select * from apipay.alerts").await[0];
    assert_eq!(
        (&alert["kind"], &alert["details"]),
        (
            &json!("job_overdue"),
            &json!({"job": job, "invoice": invoice})
        )
    );
    let accepted_at = world
        .value(&format!(
            "select to_jsonb(to_char(at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI')) from apipay.events
              where job_id = {job} and subject = 'job' and to_state = 'accepted'"
        ))
        .await;
    let summary = alert["summary"].as_str().unwrap();
    let told = format!(
        "Job {job} (invoice.create) of account default was accepted at {}:",
        accepted_at.as_str().unwrap()
    );
    assert!(summary.starts_with(&told), "{summary}");
    assert_eq!(world.job(job).await["state"], "accepted");
    let delivered = json!({"status": "pending"});
    world
        .sandbox
        .set_invoice(invoice.as_i64().unwrap(), delivered)
        .await;
    world.until(job, "succeeded").await;
    world
        .until_holds("its end is told", async || {
            !world.alerts.deliveries("resolved").is_empty()
        })
        .await;
    assert_eq!(world.count("apipay.alerts").await, 1);
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_bill_that_was_paid_before_is_done() {
    let (world, daemon) = World::running().await;
    let job = world.bill(phone::INVOICE_ALREADY_PAID, 500).await;
    let row = world.until(job, "succeeded").await;
    assert_eq!(row["result"]["status"], "paid");
    assert_eq!(world.effects_of(job).await.len(), 1);
    // The gateway says "error", and its code that the money is in.
    world
        .until_true(&format!(
            "select status = 'paid' and settled and paid_at is not null from apipay.invoices where job_id = {job}"
        ))
        .await;
    world.end([daemon]).await;
}

/// An invoice as the gateway showed it at this moment.
fn seen(status: &str, seen_at: OffsetDateTime) -> Entry {
    Entry {
        invoices: vec![InvoiceRow {
            account: "default".to_owned(),
            shown_to: String::new(),
            id: 7,
            seen_at,
            job_id: None,
            token: None,
            marked_token: None,
            marked_generation: None,
            status: status.to_owned(),
            amount: None,
            total_refunded: None,
            external_order_id: None,
            kaspi_invoice_id: None,
            error_code: None,
            error_message: None,
            is_sandbox: None,
            created_at: None,
            updated_at: None,
            paid_at: None,
            paid: status == "paid",
            check_after_s: 60.0,
            settled: false,
            others_unsought: false,
        }],
        ..Entry::default()
    }
}

/// An answer may have waited for the database in one daemon, while another one stored what it saw later.
#[tokio::test]
async fn a_mirror_shows_what_was_seen_last_whenever_it_was_stored() {
    let world = World::made(Wish::default()).await;
    let pool = world.daemon_pool();
    let now = OffsetDateTime::now_utc();
    let ago = |seconds| now - Duration::from_secs(seconds);
    for (entries, shown) in [
        (vec![seen("pending", ago(60))], "pending"),
        (vec![seen("paid", ago(20))], "paid"),
        (vec![seen("pending", ago(40))], "paid"),
        // In one batch it may come before what is older.
        (
            vec![seen("partially_refunded", ago(5)), seen("paid", ago(10))],
            "partially_refunded",
        ),
        (vec![seen("refunded", ago(0))], "refunded"),
    ] {
        let entries: Vec<&Entry> = entries.iter().collect();
        record::record(&pool, &entries, Duration::from_secs(1))
            .await
            .unwrap();
        let status = world
            .value("select to_jsonb(status) from apipay.invoices where id = 7")
            .await;
        assert_eq!(status, shown);
    }
    // What seems to have been seen later than now was seen before the clock was set back.
    world
        .sql("update apipay.invoices set checked_at = now() + interval '1 hour'")
        .await;
    record::record(&pool, &[&seen("paid", now)], Duration::from_secs(1))
        .await
        .unwrap();
    world
        .until_true("select status = 'paid' and checked_at <= now() from apipay.invoices")
        .await;
    world.end_unchecked().await;
}
