//! An answer that shows another job's invoice proves nothing.

use serde_json::{Value, json};

use crate::world::{Job, Wish, World, phone};

const PHONE: &str = "87015550081";

async fn invoice_of(world: &World, job: Job) -> i64 {
    world.until(job, "succeeded").await["invoice_id"]
        .as_i64()
        .expect("a number")
}

/// The answer to a bill is a number and a status: somebody in the gateway's place gave the one of before.
fn answers_with(invoice: i64, times: usize) -> Value {
    json!({"route": "POST /invoices", "effect": "apply", "times": times,
           "answer": {"status": 201, "json": {"id": invoice, "status": "processing"}}})
}

/// Its own invoice is found by the job's name, and followed; that of the other job stays what it is.
#[tokio::test]
async fn a_bill_does_not_go_by_the_invoice_of_another_job() {
    let (world, daemon) = World::running().await;
    let first = world.bill(PHONE, 900).await;
    let invoice = invoice_of(&world, first).await;
    world.sandbox.fault(answers_with(invoice, 1)).await;
    let second = world.bill(PHONE, 900).await;
    let own = invoice_of(&world, second).await;
    assert_ne!(own, invoice);
    assert_eq!(own, world.effects_of(second).await[0]["invoice_id"]);
    let attempts = world.attempts(second).await;
    let send = attempts.iter().find(|a| a["kind"] == "send").unwrap();
    let said = format!(
        "ApiPay showed invoice {invoice} as this job's, and here it is that of job {first}"
    );
    assert_eq!(
        (&send["effect"], &send["http_status"], &send["message"]),
        (&json!("unknown"), &json!(201), &json!(said)),
    );
    let reasons = format!(
        "select exists (select from apipay.events where job_id = {second} and to_state = 'uncertain' and reason = 'anothers_object')"
    );
    world.until_true(&reasons).await;
    for (job, invoice) in [(first, invoice), (second, own)] {
        let is_its = format!("apipay.invoices where id = {invoice} and job_id = {job}");
        assert_eq!(world.count(&is_its).await, 1);
    }
    world.end([daemon]).await;
}

/// A cache in the gateway's place answers all of them with one: of those that hear it at the same moment one at most has it.
#[tokio::test]
async fn of_many_bills_with_one_answer_each_ends_with_its_own_invoice() {
    let (world, daemon) = World::running().await;
    let invoice = invoice_of(&world, world.bill(PHONE, 100).await).await + 1;
    world.sandbox.fault(answers_with(invoice, 20)).await;
    let mut jobs = vec![world.bill(PHONE, 200).await];
    // Its invoice is the one that all answers name: a later one would not be told apart from it by a number.
    world
        .until_holds("it is made", async || {
            world.sandbox.effects().await.len() == 2
        })
        .await;
    for amount in 1..20 {
        jobs.push(world.bill(PHONE, 200 + amount).await);
    }
    for job in jobs {
        let own = invoice_of(&world, job).await;
        assert_eq!(own, world.effects_of(job).await[0]["invoice_id"], "{job}");
    }
    let shared =
        "(select invoice_id from apipay.jobs group by invoice_id having count(*) > 1) shared";
    assert_eq!(world.count(shared).await, 0);
    world.end([daemon]).await;
}

/// The gateway says that it has an invoice for the job's key, and names another job's.
#[tokio::test]
async fn a_key_that_is_answered_with_another_jobs_invoice_is_looked_up_by_name() {
    let wish = Wish::default()
        .tune("retry.server_error.initial", "200ms")
        .tune("reconcile.settle", "1s");
    let (world, daemon) = World::running_as(wish).await;
    let first = world.bill(PHONE, 900).await;
    let invoice = invoice_of(&world, first).await;
    let taken = json!({"route": "POST /invoices", "effect": "apply", "times": 1,
                       "answer": {"status": 409, "json": {"error_code": "duplicate_idempotency_key", "invoice_id": invoice}}});
    world.sandbox.fault(taken).await;
    let second = world.bill(PHONE, 900).await;
    let own = invoice_of(&world, second).await;
    assert_eq!(own, world.effects_of(second).await[0]["invoice_id"]);
    world.end([daemon]).await;
}

/// The gateway says that it has an invoice for the job's key, and not which.
#[tokio::test]
async fn a_key_that_is_taken_by_an_unnamed_invoice_is_looked_up_by_name_and_never_sent_again() {
    let wish = Wish::default()
        .tune("retry.server_error.initial", "200ms")
        .tune("reconcile.settle", "2s");
    let (world, daemon) = World::running_as(wish).await;
    let sends = async || world.sandbox.requests_to("POST /invoices").await.len();
    let taken = |effect: &str, body: Value| {
        json!({"route": "POST /invoices", "effect": effect, "times": 1,
               "answer": {"status": 409, "json": body}})
    };
    let unnamed = json!({"error_code": "duplicate_idempotency_key", "invoice_id": "abc"});
    world.sandbox.fault(taken("apply", unnamed)).await;
    let first = world.bill(PHONE, 900).await;
    let own = invoice_of(&world, first).await;
    assert_eq!(own, world.effects_of(first).await[0]["invoice_id"]);
    assert_eq!(sends().await, 1);
    // It is not there: a human finds what has the key.
    let unnamed = json!({"error_code": "duplicate_idempotency_key"});
    world.sandbox.fault(taken("none", unnamed)).await;
    let second = world.bill(PHONE, 901).await;
    let row = world.until(second, "held").await;
    assert_eq!(row["reason"], "unknown_outcome", "{row}");
    let looked_up = format!("apipay.attempts where job_id = {second} and kind = 'lookup'");
    assert_eq!(world.count(&looked_up).await, 2);
    assert_eq!(sends().await, 2);
    world
        .sql(&format!(
            "select apipay.resolve({second}, false, null, 'it is not there')"
        ))
        .await;
    world.until_all_final().await;
    world.end([daemon]).await;
}

/// The other job went by it first, and it bears this one's name: nobody but a human can set both right.
#[tokio::test]
async fn an_own_invoice_that_another_job_goes_by_is_a_humans_to_decide() {
    let (world, daemon) =
        World::running_as(Wish::default().tune("reconcile.quiet_after_timeout", "2s")).await;
    let first = world.bill(PHONE, 900).await;
    invoice_of(&world, first).await;
    let cut = json!({"route": "POST /invoices", "cut": "after_effect"});
    world.sandbox.fault(cut).await;
    let second = world.bill(PHONE, 900).await;
    world.until(second, "uncertain").await;
    let own = world.effects_of(second).await[0]["invoice_id"].clone();
    world
        .sql(&format!(
            "insert into apipay.invoices (account, id, job_id, job_token, status, settled)
             select 'default', {own}, id, token, 'pending', true from apipay.jobs where id = {first}"
        ))
        .await;
    let row = world.until(second, "held").await;
    assert_eq!(row["reason"], "mismatch", "{row}");
    world
        .until_true(&format!(
            "select exists (select from apipay.alerts where kind = 'job_held' and resolved_at is null
                and summary like '%invoice {own} as this job''s, and here it is that of job {first}%')"
        ))
        .await;
    // As the alert says, where it is that one: at ApiPay it carries the name of this job.
    world
        .sql(&format!(
            "select apipay.resolve({second}, true, {own}, 'seen there', anyway => true)"
        ))
        .await;
    let row = world
        .until_job(second, "it goes by its own", |row| {
            row["state"] == "accepted" || row["state"] == "succeeded"
        })
        .await;
    assert_eq!(row["invoice_id"], own, "{row}");
    world.end([daemon]).await;
}

/// An answer named a number that became another job's invoice: once that is read, it says whose it is.
#[tokio::test]
async fn a_job_that_goes_by_an_invoice_with_another_jobs_name_is_held_once_that_is_read() {
    let (world, daemon) =
        World::running_as(Wish::default().tune("reconcile.quiet_after_timeout", "2s")).await;
    let next = invoice_of(&world, world.bill(PHONE, 100).await).await + 1;
    let answer = json!({"status": 201, "json": {"id": next, "status": "processing"}});
    world
        .sandbox
        .fault(json!({"route": "POST /invoices", "effect": "none", "times": 1, "answer": answer}))
        .await;
    let first = world.bill(PHONE, 900).await;
    world.until(first, "accepted").await;
    // It fails at Kaspi, and is read for the code of that.
    let second = world.bill(phone::CLIENT_NOT_FOUND, 901).await;
    let row = world.until(first, "held").await;
    assert_eq!(row["reason"], "mismatch", "{row}");
    let told = format!(
        "select exists (select from apipay.alerts where kind = 'job_held' and resolved_at is null
            and summary like '%invoice {next} carries the name of another job at ApiPay%' and action not like '%cancel_invoice%')
            and exists (select from apipay.overview where id = {first} and explain not like '%cancel_invoice%')"
    );
    world.until_true(&told).await;
    assert_eq!(world.effects_of(second).await[0]["invoice_id"], next);
    // Nothing of it is there: it is sent, and goes by its own.
    world
        .sql(&format!(
            "select apipay.resolve({first}, false, null, 'not there')"
        ))
        .await;
    let own = invoice_of(&world, first).await;
    assert_ne!(own, next);
    assert_eq!(world.effects_of(first).await.len(), 1);
    // The other job's invoice was taken by then, so a human hears of that job, too.
    let told = format!(
        "select exists (select from apipay.alerts where kind = 'job_held' and resolved_at is null and details -> 'job' = '{second}')"
    );
    world.until_true(&told).await;
    world.end([daemon]).await;
}

/// Once the jobs are deleted their numbers are given out again: what was made for the job that had one is not of the next.
#[tokio::test]
async fn a_job_with_the_number_of_an_earlier_one_has_nothing_of_its_invoices() {
    let (world, daemon) = World::running().await;
    let first = world.bill(phone::PAID, 500).await;
    let paid = invoice_of(&world, first).await;
    world
        .until_true("select bool_and(settled) from apipay.invoices")
        .await;
    world.sql("truncate apipay.jobs restart identity").await;
    let second = world.bill(phone::NETWORK_UNAVAILABLE, 500).await;
    assert_eq!(second, first);
    let row = world.until(second, "failed").await;
    assert_eq!(
        (&row["reason"], &row["generation"]),
        (&json!("gave_up"), &json!(3)),
        "{row}"
    );
    assert_ne!(row["invoice_id"], paid);
    assert_eq!(world.effects_of(second).await.len(), 3);
    let explained = world.explain(second).await;
    assert!(explained.starts_with("Given up: "), "{explained}");
    // Nothing of this job can be paid, so it may be repeated.
    let copy = world
        .value(&format!(
            "select to_jsonb(apipay.retry({second}, 'once more'))"
        ))
        .await;
    assert_ne!(copy, second);
    world.until_true("select count(*) = 0 from apipay.alerts where kind in ('duplicate_detected', 'invoice_revived')").await;
    drop(daemon);
    // The gateway has what no job explains any more.
    world.end_unchecked().await;
}

/// What is open of the earlier job is closed, and the job with its number is looked up above the attempts of that one.
#[tokio::test]
async fn a_job_with_the_number_of_one_whose_request_was_under_way_goes_out() {
    let wish = Wish::default()
        .tune("reconcile.settle", "1s")
        .tune("retry.server_error.initial", "100ms");
    let (world, mut daemon) = World::running_as(wish).await;
    for fault in [
        json!({"route": "POST /invoices", "times": 1, "effect": "none", "answer": {"preset": "502_html"}}),
        json!({"route": "POST /invoices", "times": 1, "effect": "none", "hang": true}),
    ] {
        world.sandbox.fault(fault).await;
    }
    let first = world.bill(phone::PAID, 100).await;
    world
        .until_holds("it is sent a second time", async || {
            world.sandbox.requests_to("POST /invoices").await.len() == 2
        })
        .await;
    daemon.kill().await;
    world.sql("truncate apipay.jobs restart identity").await;
    let second = world.bill(phone::PAID, 200).await;
    assert_eq!(second, first);
    world.expire_promises().await;
    let heir = world.daemon().await;
    world.until(second, "succeeded").await;
    assert_eq!(world.effects_of(second).await.len(), 1);
    world.end([heir]).await;
}

/// Look-ups take no such invoice, and no more is known of it here.
#[tokio::test]
async fn a_check_that_shows_another_amount_than_was_billed_is_for_a_person() {
    let (world, daemon) = World::running().await;
    let job = world.bill(phone::HELD, 900).await;
    let invoice = world.until(job, "accepted").await["invoice_id"]
        .as_i64()
        .unwrap();
    let other = json!({"invoices": [{"id": invoice, "status": "pending", "amount": "9.00"}]});
    world
        .sandbox
        .fault(
            json!({"route": "POST /invoices/status/check", "effect": "apply", "times": 1000,
                   "answer": {"status": 200, "json": other}}),
        )
        .await;
    let row = world.until(job, "held").await;
    assert_eq!(row["reason"], "mismatch");
    let said = format!(
        "900 tenge to 8700***0014 was asked for, and ApiPay has invoice {invoice}: 9 tenge (status pending)"
    );
    assert_eq!(row["error_message"], said);
    world.sandbox.mend().await;
    let delivered = json!({"status": "pending"});
    world.sandbox.set_invoice(invoice, delivered).await;
    world
        .sql(&format!(
            "select apipay.resolve({job}, true, {invoice}, 'the dashboard shows 900')"
        ))
        .await;
    world.until(job, "succeeded").await;
    world.end([daemon]).await;
}

/// A person who has seen it may mean it all the same, and is asked once.
#[tokio::test]
async fn another_amount_that_a_person_has_meant_is_not_held_again() {
    let (world, daemon) = World::running().await;
    let dearer = json!({"wrong_amount": true});
    world.sandbox.organization(dearer).await;
    let job = world.bill(phone::HELD, 900).await;
    world.until(job, "held").await;
    let invoice = &world.effects_of(job).await[0]["invoice_id"];
    world
        .sql(&format!(
            "select apipay.resolve({job}, true, {invoice}, 'agreed by phone', anyway => true)"
        ))
        .await;
    world.until(job, "accepted").await;
    let route = "POST /invoices/status/check";
    let before = world.sandbox.requests_to(route).await.len();
    world
        .until_holds("it is checked more than once", async || {
            world.sandbox.requests_to(route).await.len() > before + 2
        })
        .await;
    assert_eq!(world.job(job).await["state"], "accepted");
    let delivered = json!({"status": "pending"});
    let invoice = invoice.as_i64().unwrap();
    world.sandbox.set_invoice(invoice, delivered).await;
    world.until(job, "succeeded").await;
    drop(daemon);
    // Its invoice is not what it asked for.
    world.end_unchecked().await;
}
