//! Copies of final jobs, and what becomes of what they repeat before they are sent.

use serde_json::json;

use crate::world::{Job, Wish, World, phone};

async fn copy_of(world: &World, job: Job) -> Job {
    let copy = format!("select to_jsonb(apipay.retry({job}, 'once more'))");
    world.value(&copy).await.as_i64().unwrap()
}

async fn stopped(world: &World) {
    world.sql("select apipay.stop('look first')").await;
}

async fn started(world: &World) {
    world.sql("select apipay.start('seen')").await;
}

/// An invoice in error may be delivered after all. The database does not know it yet when the copy's turn comes.
#[tokio::test]
async fn a_copy_is_not_sent_once_an_invoice_of_its_original_lives() {
    for status in ["pending", "paid"] {
        let (world, daemon) = World::running().await;
        let job = world.bill(phone::CLIENT_NOT_FOUND, 500).await;
        let invoice = world.until(job, "failed").await["invoice_id"].clone();
        stopped(&world).await;
        let copy = copy_of(&world, job).await;
        let lives = json!({"status": status, "error_code": null});
        world
            .sandbox
            .set_invoice(invoice.as_i64().unwrap(), lives)
            .await;
        started(&world).await;
        let row = world.until(copy, "failed").await;
        assert_eq!(row["reason"], "original_lives", "{row}");
        assert!(row["failing_since"].is_null(), "ApiPay has answered");
        let explained = world.explain(copy).await;
        let shown = format!(
            "Nothing was sent: what it repeats was done after all: the gateway shows invoice {invoice}: 500 tenge (status {status}). "
        );
        assert!(explained.starts_with(&shown), "{explained}");
        assert_eq!(world.effects_of(job).await.len(), 1);
        assert!(world.effects_of(copy).await.is_empty());
        drop(daemon);
        // The original has failed, and lives.
        world.end_unchecked().await;
    }
}

/// What a check leaves out may live, and what it shows unasked says nothing.
#[tokio::test]
async fn a_copy_waits_until_the_invoices_of_its_original_are_shown() {
    let wish = Wish::default()
        .tune("retry.server_error.initial", "300ms")
        .tune("retry.server_error.max", "300ms");
    let (world, daemon) = World::running_as(wish).await;
    let job = world.bill(phone::CLIENT_NOT_FOUND, 500).await;
    let invoice = world.until(job, "failed").await["invoice_id"].clone();
    let checks = "POST /invoices/status/check";
    let other = json!({"invoices": [{"id": 1, "status": "paid", "amount": "1.00"}]});
    let answer = json!({"status": 200, "json": other});
    world
        .sandbox
        .fault(json!({"route": checks, "match": invoice.to_string(), "share": 1, "answer": answer}))
        .await;
    let copy = copy_of(&world, job).await;
    let asked = format!(
        "select count(*) >= 3 from apipay.attempts where job_id = {copy} and request ->> 'path' = '/invoices/status/check'"
    );
    world.until_true(&asked).await;
    assert!(world.effects_of(copy).await.is_empty());
    world.sandbox.mend().await;
    // It is shown dead, so the copy goes out.
    let row = world.until(copy, "failed").await;
    assert_eq!(row["reason"], "async_error", "{row}");
    assert_eq!(world.effects_of(copy).await.len(), 1);
    world.end([daemon]).await;
}

/// Its invoices name an original whose row was deleted.
#[tokio::test]
async fn a_copy_looks_at_an_original_that_was_deleted() {
    let (world, daemon) = World::running().await;
    let job = world.bill(phone::CLIENT_NOT_FOUND, 500).await;
    let invoice = world.until(job, "failed").await["invoice_id"].clone();
    stopped(&world).await;
    let copy = copy_of(&world, job).await;
    world
        .sql(&format!("delete from apipay.jobs where id = {job}"))
        .await;
    let lives = json!({"status": "pending", "error_code": null});
    world
        .sandbox
        .set_invoice(invoice.as_i64().unwrap(), lives)
        .await;
    started(&world).await;
    let row = world.until(copy, "failed").await;
    assert_eq!(row["reason"], "original_lives", "{row}");
    assert!(world.effects_of(copy).await.is_empty());
    drop(daemon);
    // The gateway has what no job explains any more.
    world.end_unchecked().await;
}

/// A copy of a copy repeats the first one, too; and where all of it is dead it is sent.
#[tokio::test]
async fn a_copy_of_a_copy_looks_at_all_that_it_repeats() {
    let (world, daemon) = World::running().await;
    let job = world.bill(phone::CLIENT_NOT_FOUND, 500).await;
    let invoice = world.until(job, "failed").await["invoice_id"].clone();
    let copy = copy_of(&world, job).await;
    world.until(copy, "failed").await;
    assert_eq!(world.effects_of(copy).await.len(), 1);
    stopped(&world).await;
    let second = copy_of(&world, copy).await;
    let lives = json!({"status": "pending", "error_code": null});
    world
        .sandbox
        .set_invoice(invoice.as_i64().unwrap(), lives)
        .await;
    started(&world).await;
    let row = world.until(second, "failed").await;
    assert_eq!(row["reason"], "original_lives", "{row}");
    assert!(world.effects_of(second).await.is_empty());
    drop(daemon);
    // The original has failed, and lives.
    world.end_unchecked().await;
}

/// The list of refunds that is read before each refund shows that of the job that it repeats.
#[tokio::test]
async fn a_copy_of_a_refund_is_not_sent_once_that_was_made_after_all() {
    let (world, daemon) = World::running().await;
    let bill = world.bill(phone::PAID, 1000).await;
    let invoice = world.until(bill, "succeeded").await["invoice_id"].clone();
    let key = world.key("default");
    let outcome = |outcome: &str| json!({"organization": key, "refund_outcome": outcome});
    world
        .sandbox
        .organization(outcome("refund_rejected_by_kaspi"))
        .await;
    let params = json!({"invoice_id": invoice, "amount": 333});
    let refund = world.enqueue("invoice.refund", params).await;
    let made = world.until(refund, "failed").await["refund_id"].clone();
    world.sandbox.organization(outcome("completed")).await;
    stopped(&world).await;
    let copy = copy_of(&world, refund).await;
    world
        .sandbox
        .control(
            &format!("POST /refunds/{made}"),
            json!({"status": "completed", "error_code": null}),
        )
        .await;
    started(&world).await;
    let row = world.until(copy, "failed").await;
    assert_eq!(row["reason"], "original_lives", "{row}");
    assert_eq!(world.effects_of(refund).await.len(), 1);
    assert!(world.effects_of(copy).await.is_empty());
    drop(daemon);
    // The original has failed, and lives.
    world.end_unchecked().await;
}

/// The bill that was repeated, since its invoice had expired, and the copy can both be paid.
#[tokio::test]
async fn an_invoice_that_lives_beside_that_of_a_copy_is_told() {
    for revived_last in ["original", "copy"] {
        let (world, daemon) = World::running().await;
        let job = world.bill(phone::UNPAID, 500).await;
        let first = invoice_of(&world, job).await;
        set(&world, first, "expired").await;
        let copy = copy_of(&world, job).await;
        let second = invoice_of(&world, copy).await;
        let revived = match revived_last {
            "original" => first,
            _ => {
                set(&world, second, "expired").await;
                set(&world, first, "pending").await;
                second
            }
        };
        world
            .sandbox
            .set_invoice(revived, json!({"status": "paid"}))
            .await;
        let (other, of) = if revived == first {
            (second, copy)
        } else {
            (first, job)
        };
        let told = format!(
            "select exists (select from apipay.alerts where kind = 'invoice_revived' and resolved_at is null
                and subject = 'invoice {revived}'
                and summary like '%invoice {other} of job {of} (of these two jobs one repeats the other) is pending: the customer may pay once more.')"
        );
        world.until_true(&told).await;
        set(&world, other, "cancelled").await;
        world.until_no_alert().await;
        world.end([daemon]).await;
    }
}

async fn invoice_of(world: &World, job: Job) -> i64 {
    world.until(job, "succeeded").await["invoice_id"]
        .as_i64()
        .unwrap()
}

/// Has an invoice become so, and waits until that is seen.
async fn set(world: &World, invoice: i64, status: &str) {
    world
        .sandbox
        .set_invoice(invoice, json!({"status": status}))
        .await;
    world
        .until_true(&format!(
            "select status = '{status}' from apipay.invoices where id = {invoice}"
        ))
        .await;
}
