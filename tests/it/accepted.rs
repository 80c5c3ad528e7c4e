//! An accepted job is never lost: what became of it and what ApiPay shows of its object are stored together, and a job
//! whose object is no longer followed is found.

use std::time::Duration;

use apipayd::db::entry::{Entry, InvoiceRow, Transition};
use apipayd::db::record;
use apipayd::domain::state::State;
use rustix::process::Signal;
use serde_json::{Value, json};
use sqlx::{Postgres, Transaction};
use time::OffsetDateTime;
use tokio::time::sleep;
use uuid::Uuid;

use crate::world::{Daemon, Job, Wish, World, phone};

/// A bill that was accepted and is not delivered yet, whose row somebody keeps locked from now on.
async fn locked_bill(world: &World) -> (Job, i64, Transaction<'static, Postgres>) {
    let job = world.bill(phone::HELD, 100).await;
    let invoice = world.until(job, "accepted").await["invoice_id"].as_i64();
    let lock = lock(world, job).await;
    (job, invoice.unwrap(), lock)
}

async fn lock(world: &World, job: Job) -> Transaction<'static, Postgres> {
    let row = format!("select from apipay.jobs where id = {job} for update");
    world.hold(&row).await
}

/// What became of the job waits in the daemon's memory, and a person was told.
async fn until_it_waits(world: &World, job: Job) {
    world
        .until_true(&format!(
            "select exists (select from apipay.alerts where kind = 'job_stuck' and details ->> 'job' = '{job}' and resolved_at is null)"
        ))
        .await;
}

async fn pay(world: &World, invoice: i64) {
    world
        .sandbox
        .set_invoice(invoice, json!({"status": "paid"}))
        .await;
}

/// Another daemon comes, and finishes the job.
async fn inherit(world: World, job: Job) {
    world.expire_promises().await;
    let heir = world.daemon().await;
    world.until(job, "succeeded").await;
    world
        .until_true("select not exists (select from apipay.alerts where kind = 'job_stuck' and resolved_at is null)")
        .await;
    world.end([heir]).await;
}

#[tokio::test]
async fn a_bill_whose_row_was_locked_when_its_daemon_was_killed_is_done() {
    let (world, mut daemon) = World::running().await;
    let (job, invoice, lock) = locked_bill(&world).await;
    pay(&world, invoice).await;
    until_it_waits(&world, job).await;
    assert_eq!(
        world.count("apipay.invoices where settled").await,
        0,
        "it is followed for as long as its job is not moved"
    );
    daemon.kill().await;
    lock.rollback().await.unwrap();
    inherit(world, job).await;
}

#[tokio::test]
async fn a_refund_whose_row_was_locked_when_its_daemon_was_killed_is_done_and_the_next_one_goes_out()
 {
    let mut wish = Wish::default();
    wish.sandbox.speed = 2.0;
    let (world, mut daemon) = World::running_as(wish).await;
    world.two_equal_refunds().await;
    world
        .until_true("select exists (select from apipay.jobs where state = 'accepted')")
        .await;
    let job = world
        .value("select to_jsonb(id) from apipay.jobs where state = 'accepted'")
        .await;
    let row = format!("select from apipay.jobs where id = {job} for update");
    let lock = world.hold(&row).await;
    world
        .until_true("select exists (select from apipay.alerts where kind = 'job_stuck' and resolved_at is null)")
        .await;
    assert_eq!(world.count("apipay.refunds where settled").await, 0);
    daemon.kill().await;
    lock.rollback().await.unwrap();
    world.expire_promises().await;
    let heir = world.daemon().await;
    world.until_all_final().await;
    world
        .until_true("select count(*) = 2 from apipay.jobs where state = 'succeeded'")
        .await;
    world.end([heir]).await;
}

#[tokio::test]
async fn a_stop_says_that_the_object_of_an_accepted_job_will_be_asked_about_again() {
    let (world, mut daemon) = World::running().await;
    let (job, invoice, lock) = locked_bill(&world).await;
    pay(&world, invoice).await;
    until_it_waits(&world, job).await;
    daemon.signal(Signal::TERM);
    let status = daemon.ended(Duration::from_secs(15)).await;
    assert_eq!(status.code(), Some(1));
    let said = daemon.log_text();
    assert!(
        said.contains("ApiPay is asked again how its invoice or refund stands"),
        "{said}"
    );
    assert!(!said.contains("will be looked up"), "{said}");

    // Nobody has it in memory any more, and the lock is told again by whoever meets it.
    let heir = world.daemon().await;
    world
        .sql("update apipay.daemons set seen_at = now() - interval '2 minutes' where has_left or seen_at < now() - interval '1 s'")
        .await;
    let first = "apipay.alerts where kind = 'job_stuck' and resolution like '%has ended%'";
    world
        .until_true(&format!("select exists (select from {first})"))
        .await;
    lock.rollback().await.unwrap();
    world.until(job, "succeeded").await;
    world
        .until_true("select not exists (select from apipay.alerts where kind = 'job_stuck' and resolved_at is null)")
        .await;
    world.end([heir]).await;
}

/// The account of a job is told of it first, and waits for its row.
#[tokio::test]
async fn an_invoice_is_not_shown_as_it_stands_before_its_account_is_told() {
    let (world, mut daemon) = World::running().await;
    let job = world.bill(phone::HELD, 100).await;
    let row = world.until(job, "accepted").await;
    let invoice = row["invoice_id"].as_i64().unwrap();
    let lock = world.hold("select from apipay.accounts for update").await;
    let gone = json!({"status": "error", "error_code": "kaspi_session_invalid"});
    world.sandbox.set_invoice(invoice, gone).await;
    daemon.until_logged("a row of the account is locked").await;
    let status = world
        .value("select to_jsonb(status) from apipay.invoices")
        .await;
    assert_ne!(status, "error", "stored with the move of its job");
    daemon.kill().await;
    lock.rollback().await.unwrap();
    world.expire_promises().await;
    let heir = world.daemon().await;
    world
        .until_true("select reason = 'session_expired' from apipay.jobs")
        .await;
    world.end([heir]).await;
}

/// The daemon's own records, of what it may see of one invoice.
struct Sights {
    world: World,
    daemon: Daemon,
    bill: Job,
    cancel: Job,
    invoice: i64,
}

impl Sights {
    /// A bill and the cancel of its invoice, both accepted, and nobody who follows them.
    async fn new() -> Sights {
        let (world, mut daemon) = World::running().await;
        let bill = world.bill(phone::HELD, 100).await;
        let row = world.until(bill, "accepted").await;
        let invoice = row["invoice_id"].as_i64().unwrap();
        // What is delivered can be cancelled, and the bill is done as soon as it is seen so.
        world
            .until_holds("nobody looks at it", async || {
                world
                    .sql("update apipay.invoices set next_check_at = now() + interval '1 hour'")
                    .await;
                sleep(Duration::from_millis(500)).await;
                world
                    .count("apipay.invoices where next_check_at > now() + interval '30 min'")
                    .await
                    == 1
            })
            .await;
        let lasting = json!({"status": "pending", "cancel_outcome": "stuck"});
        world.sandbox.set_invoice(invoice, lasting).await;
        let cancel = world
            .enqueue("invoice.cancel", json!({"invoice_id": invoice}))
            .await;
        world.until(cancel, "accepted").await;
        daemon.kill().await;
        Sights {
            world,
            daemon,
            bill,
            cancel,
            invoice,
        }
    }

    async fn entry(&self, job: Job, state: State, reason: Option<&'static str>) -> Entry {
        let row = self.world.job(job).await;
        let token = row["token"].as_str().unwrap();
        Entry {
            transition: Some(Transition {
                job_id: row["id"].as_i64().unwrap(),
                token: Uuid::parse_str(token).unwrap(),
                account: "default".to_owned(),
                epoch: row["epoch"].as_i64().unwrap(),
                from_state: State::Accepted,
                state,
                reason,
                result: (state == State::Succeeded).then(|| json!({})),
                ..Transition::default()
            }),
            invoices: vec![self.paid()],
            ..Entry::default()
        }
    }

    fn paid(&self) -> InvoiceRow {
        InvoiceRow {
            account: "default".to_owned(),
            shown_to: String::new(),
            id: self.invoice,
            seen_at: OffsetDateTime::now_utc(),
            job_id: None,
            token: None,
            marked_token: None,
            marked_generation: None,
            status: "paid".to_owned(),
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
            paid: true,
            check_after_s: 60.0,
            settled: true,
            others_unsought: false,
        }
    }

    async fn record(&self, entries: &[Entry]) {
        let entries: Vec<&Entry> = entries.iter().collect();
        let pool = self.world.daemon_pool();
        record::record(&pool, &entries, Duration::from_secs(1))
            .await
            .unwrap();
    }

    async fn is_settled(&self) -> Value {
        self.world
            .value("select to_jsonb(settled) from apipay.invoices")
            .await
    }
}

#[tokio::test]
async fn an_invoice_is_followed_until_all_jobs_that_wait_for_it_have_moved() {
    let sights = Sights::new().await;
    let read_beside = Entry {
        invoices: vec![sights.paid()],
        ..Entry::default()
    };
    sights.record(&[read_beside]).await;
    assert_eq!(sights.is_settled().await, false, "two wait");
    let bill = sights.entry(sights.bill, State::Succeeded, None).await;
    sights.record(&[bill]).await;
    assert_eq!(sights.is_settled().await, false, "one waits");
    let cancel = sights
        .entry(sights.cancel, State::Failed, Some("already_paid"))
        .await;
    sights.record(&[cancel]).await;
    assert_eq!(sights.is_settled().await, true);
    drop(sights.daemon);
    sights.world.end_unchecked().await;
}

#[tokio::test]
async fn both_jobs_of_an_invoice_may_move_in_one_statement() {
    let sights = Sights::new().await;
    let bill = sights.entry(sights.bill, State::Succeeded, None).await;
    let cancel = sights
        .entry(sights.cancel, State::Failed, Some("already_paid"))
        .await;
    sights.record(&[bill, cancel]).await;
    assert_eq!(sights.is_settled().await, true);
    drop(sights.daemon);
    sights.world.end_unchecked().await;
}

#[tokio::test]
async fn of_two_moves_of_a_job_in_one_statement_the_later_counts() {
    let sights = Sights::new().await;
    let retry = sights
        .entry(sights.bill, State::Accepted, Some("async_retry"))
        .await;
    let paid = sights.entry(sights.bill, State::Succeeded, None).await;
    sights.record(&[retry, paid]).await;
    let row = sights.world.job(sights.bill).await;
    assert_eq!(row["state"], "succeeded");
    drop(sights.daemon);
    sights.world.end_unchecked().await;
}

/// Whoever has left it so: an earlier version, a trigger, a person with psql.
#[tokio::test]
async fn an_accepted_job_whose_invoice_is_no_longer_followed_is_found() {
    for spoil in [
        "update apipay.invoices set settled = true, status = 'paid'",
        "delete from apipay.invoices",
    ] {
        let (world, mut daemon) = World::running().await;
        let job = world.bill(phone::HELD, 100).await;
        let row = world.until(job, "accepted").await;
        daemon.kill().await;
        world.sql(spoil).await;
        pay(&world, row["invoice_id"].as_i64().unwrap()).await;
        let heir = world.daemon().await;
        world.until(job, "succeeded").await;
        heir.until_logged("nobody followed the invoices or refunds")
            .await;
        let log = heir.log_text();
        let mut lines = log.lines();
        let line = lines.find(|line| line.contains("nobody followed")).unwrap();
        assert!(line.contains("WARN"), "{line}");
        assert!(!log.contains("has been resumed since"), "{log}");
        world
            .until_true(
                "select count(*) = 1 from apipay.invoices where status = 'paid' and settled",
            )
            .await;
        world.end([heir]).await;
    }
}

#[tokio::test]
async fn an_accepted_refund_that_is_no_longer_followed_is_found() {
    for spoil in [
        "update apipay.refunds set settled = true, status = 'completed'",
        "update apipay.refunds set job_id = null, job_token = null",
        "delete from apipay.refunds",
    ] {
        let mut wish = Wish::default();
        wish.sandbox.speed = 2.0;
        let (world, mut daemon) = World::running_as(wish).await;
        world.two_equal_refunds().await;
        world
            .until_true("select exists (select from apipay.jobs where state = 'accepted')")
            .await;
        daemon.kill().await;
        world.sql(spoil).await;
        let heir = world.daemon().await;
        world.until_all_final().await;
        world
            .until_true("select count(*) = 2 from apipay.jobs where state = 'succeeded'")
            .await;
        world.end([heir]).await;
    }
}
