//! What a person says of a held job is checked at the gateway before anybody believes it.

use serde_json::{Value, json};
use sqlx::Connection;

use crate::world::{Daemon, Job, Wish, World, phone};

const PHONE: &str = "87015550044";

/// A bill, and a refund of this invoice: the route of each, its operation and its params.
fn bill_and_refund(paid: i64) -> [(&'static str, &'static str, Value); 2] {
    [
        (
            "POST /invoices",
            "invoice.create",
            json!({"phone_number": PHONE, "amount": 900}),
        ),
        (
            "POST /invoices/{id}/refund",
            "invoice.refund",
            json!({"invoice_id": paid, "amount": 400}),
        ),
    ]
}

/// Holds a job, as one whose outcome nobody can tell, and waits until people are told.
async fn hold(world: &World, job: Job, from: &str) {
    world.until(job, from).await;
    world
        .sql(&format!(
            "update apipay.jobs set state = 'held', reason = 'unknown_outcome', epoch = epoch + 1, unproven_since = now()
              where id = {job} and state = '{from}'"
        ))
        .await;
    world.until(job, "held").await;
    world
        .until_true("select exists (select from apipay.alerts where kind = 'job_held' and resolved_at is null)")
        .await;
}

/// A job that was never sent, and is held all the same.
async fn held(world: &World, operation: &str, params: Value) -> Job {
    let later = json!({"run_at": "2100-01-01T00:00:00Z"});
    let job = world.enqueue_with(operation, params, later).await;
    hold(world, job, "queued").await;
    job
}

/// A bill whose answer was lost, held before it was looked up.
async fn held_bill() -> (World, Daemon, Job) {
    let (world, daemon) = World::running().await;
    let cut = json!({"route": "POST /invoices", "cut": "after_effect"});
    world.sandbox.fault(cut).await;
    let job = world.bill(PHONE, 900).await;
    hold(&world, job, "uncertain").await;
    (world, daemon, job)
}

async fn resolve(world: &World, job: Job, how: &str) {
    world
        .sql(&format!("select apipay.resolve({job}, true, {how})"))
        .await;
}

/// Waits until what was said is refuted, and both values stand where people look.
async fn until_refuted(world: &World, job: Job, both: &str) {
    let row = world
        .until_job(job, &format!("held again: {both}"), |row| {
            row["state"] == "held"
                && row["error_message"]
                    .as_str()
                    .is_some_and(|m| m.contains(both))
        })
        .await;
    assert_eq!(row["reason"], "not_as_stated");
    assert!(row["stated_id"].is_null(), "{row}");
    let overview = world.explain(job).await;
    let explain = overview;
    assert!(
        explain.starts_with("Held (not_as_stated) since ") && explain.contains(both),
        "{explain}"
    );
    let alerts = world
        .rows(&format!(
            "select summary, details from apipay.alerts where resolved_at is null and kind = 'job_held' and details -> 'job' = '{job}'"
        ))
        .await;
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert!(
        alerts[0]["summary"].as_str().unwrap().contains(both),
        "{alerts:?}"
    );
    assert_eq!(
        alerts[0]["details"],
        json!({"job": job, "reason": "not_as_stated"})
    );
}

async fn until_alerts_end(world: &World) {
    world.until_no_alert().await;
}

#[tokio::test]
async fn an_invoice_that_does_not_exist_is_not_believed() {
    let (world, daemon, job) = held_bill().await;
    resolve(&world, job, "123, 'saw it'").await;
    until_refuted(
        &world,
        job,
        "invoice 123 was named; ApiPay has none with that number",
    )
    .await;
    // The alert was told before, and is told again with what is known now.
    world
        .until_holds("both values are told", async || {
            let told = json!(world.alerts.deliveries("firing")).to_string();
            told.contains("invoice 123 was named")
        })
        .await;
    let steps = world
        .rows(&format!(
            "select from_state, to_state, reason, (evidence ->> 'stated_id')::int as stated from apipay.events
              where job_id = {job} and subject = 'job' order by id desc limit 2"
        ))
        .await;
    assert_eq!(
        steps,
        [
            json!({"from_state": "uncertain", "to_state": "held", "reason": "not_as_stated", "stated": 123}),
            json!({"from_state": "held", "to_state": "uncertain", "reason": "saw it", "stated": 123}),
        ]
    );
    assert_eq!(world.count("apipay.invoices").await, 0);

    // The one that is there.
    let invoice = world.effects_of(job).await[0]["invoice_id"].clone();
    resolve(&world, job, &format!("{invoice}, 'now I see'")).await;
    world.until(job, "succeeded").await;
    world
        .until_true(&format!(
            "select job_id = {job} from apipay.invoices where id = {invoice}"
        ))
        .await;
    until_alerts_end(&world).await;
    assert_eq!(world.sandbox.requests_to("POST /invoices").await.len(), 1);
    world.end([daemon]).await;
}

#[tokio::test]
async fn an_invoice_of_another_amount_payer_or_job_is_held_with_both_values() {
    let (world, daemon) = World::running().await;
    let bill = json!({"phone_number": PHONE, "amount": 900});
    let job = held(&world, "invoice.create", bill).await;
    let stranger = "[apipayd 6b1f7c1e-0000-4000-8000-000000000000]";
    for (fields, both) in [
        (
            json!({"phone": PHONE, "amount": "901.00"}),
            "900 tenge to 8701***0044 was asked for, and ApiPay has 901 tenge to 8701***0044 (status pending); the same with anyway => true takes it, although it differs",
        ),
        (
            json!({"phone": "87015550099", "amount": "900.00"}),
            "900 tenge to 8701***0044 was asked for, and ApiPay has 900 tenge to 8701***0099 (status pending); the same with anyway => true takes it, although it differs",
        ),
        (
            json!({"phone": PHONE, "amount": "900.00", "internal_comment": stranger}),
            "at ApiPay it carries the name of another job",
        ),
    ] {
        let mut fields = fields;
        fields["status"] = "pending".into();
        let invoice = world.sandbox.invoice(&world.key("default"), fields).await;
        resolve(&world, job, &format!("{invoice}, 'this one'")).await;
        until_refuted(&world, job, &format!("invoice {invoice} was named; ")).await;
        until_refuted(&world, job, both).await;
    }
    assert_eq!(world.sandbox.requests_to("POST /invoices").await.len(), 0);
    assert_eq!(world.count("apipay.invoices").await, 0);
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_refund_and_a_cancel_are_checked_as_well() {
    let (world, daemon) = World::running().await;
    let key = world.key("default");
    let open = world
        .sandbox
        .invoice(&key, json!({"status": "pending"}))
        .await;
    let cancel = held(&world, "invoice.cancel", json!({"invoice_id": open})).await;
    resolve(&world, cancel, "null, 'it is gone'").await;
    until_refuted(
        &world,
        cancel,
        "ApiPay has 1000 tenge to 8701***2233 (status pending)",
    )
    .await;
    world
        .sandbox
        .set_invoice(open, json!({"status": "cancelled"}))
        .await;
    resolve(&world, cancel, "null, 'it is gone'").await;
    world.until(cancel, "succeeded").await;
    until_alerts_end(&world).await;

    let paid = world.sandbox.invoice(&key, json!({"status": "paid"})).await;
    let cut = json!({"route": "POST /invoices/{id}/refund", "cut": "after_effect"});
    world.sandbox.fault(cut).await;
    let params = json!({"invoice_id": paid, "amount": 400});
    let refund = world.enqueue("invoice.refund", params).await;
    hold(&world, refund, "uncertain").await;
    let id = world.effects_of(refund).await[0]["refund_id"].clone();
    resolve(&world, refund, "99, 'made'").await;
    until_refuted(
        &world,
        refund,
        &format!("refund {id} carries this job's name"),
    )
    .await;
    resolve(&world, refund, &format!("{id}, 'made'")).await;
    let row = world.until(refund, "succeeded").await;
    assert_eq!(row["refund_id"], id);
    world.end([daemon]).await;
}

/// ApiPay shows the name of the job that billed it in it: the cancel acts on what another job made.
#[tokio::test]
async fn a_cancel_of_an_invoice_that_was_billed_here_is_checked_by_its_status_alone() {
    let (world, daemon) = World::running().await;
    let bill = world.bill(phone::UNPAID, 900).await;
    let row = world.until(bill, "succeeded").await;
    let invoice = row["invoice_id"].as_i64().unwrap();
    let cancel = held(&world, "invoice.cancel", json!({"invoice_id": invoice})).await;
    resolve(&world, cancel, "null, 'it is gone'").await;
    until_refuted(
        &world,
        cancel,
        &format!("invoice {invoice} was named; ApiPay has 900 tenge"),
    )
    .await;
    assert!(world.explain(cancel).await.contains("(status pending)"));
    world
        .sandbox
        .set_invoice(invoice, json!({"status": "cancelled"}))
        .await;
    resolve(&world, cancel, "null, 'it is gone'").await;
    world.until(cancel, "succeeded").await;
    until_alerts_end(&world).await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn what_was_said_waits_in_sight_while_it_cannot_be_checked() {
    let (world, daemon, job) = held_bill().await;
    let invoice = world.effects_of(job).await[0]["invoice_id"].clone();
    world.sql("select apipay.park('default', 'a pause')").await;
    resolve(&world, job, &format!("{invoice}, 'seen'")).await;
    let explain = format!("select explain from apipay.overview where id = {job}");
    let waits = format!(
        "select ({explain}) like 'Somebody said that % was done: invoice {invoice}. ApiPay is asked whether that is so now, once this is over: account default is parked %'"
    );
    world.until_true(&waits).await;
    // Rounds of the loop that ends alerts come and go.
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    assert_eq!(world.job(job).await["state"], "uncertain");
    world.until_true(&waits).await;
    let open = "apipay.alerts where kind = 'job_held' and resolved_at is null";
    assert_eq!(world.count(open).await, 1, "nobody believes it yet");

    // Well again, but the gateway gives no clear answer.
    let broken =
        json!({"route": "GET /invoices/{id}", "share": 1.0, "answer": {"preset": "502_html"}});
    world.sandbox.fault(broken).await;
    world.sql("select apipay.resume('default', 'go on')").await;
    world
        .until_job(job, "it was asked several times", |row| {
            row["lookups"].as_i64() >= Some(4)
        })
        .await;
    assert_eq!(world.job(job).await["state"], "uncertain");
    assert_eq!(world.count(open).await, 1);
    world.sandbox.mend().await;
    world.until(job, "succeeded").await;
    until_alerts_end(&world).await;
    assert_eq!(world.sandbox.requests_to("POST /invoices").await.len(), 1);
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_resolve_that_is_not_committed_keeps_nobody_waiting() {
    let (world, daemon) = World::running().await;
    let bill = json!({"phone_number": PHONE, "amount": 900});
    let one = held(&world, "invoice.create", bill.clone()).await;
    let other = held(&world, "invoice.create", bill).await;
    let mut person = world.fresh_pool().await.acquire().await.unwrap();
    let mut open = person.begin().await.unwrap();
    sqlx::query("select apipay.resolve($1, true, 123, 'let me look again')")
        .bind(one)
        .execute(&mut *open)
        .await
        .unwrap();
    // Bills go on, and so does what another person says.
    let job = world.bill(PHONE, 100).await;
    world.until(job, "succeeded").await;
    resolve(&world, other, "124, 'that one'").await;
    until_refuted(&world, other, "invoice 124 was named; ApiPay has none").await;
    assert_eq!(world.job(one).await["state"], "held");
    open.rollback().await.unwrap();
    drop(person);
    world.end([daemon]).await;
}

/// A person says too early that nothing was done: the request is still at work at the gateway.
#[tokio::test]
async fn that_nothing_was_done_is_looked_up_before_anything_is_sent_again() {
    for wish in [Wish::default(), Wish::default().without_keys()] {
        let (world, daemon) = World::running_as(wish).await;
        let paid = world
            .sandbox
            .invoice(&world.key("default"), json!({"status": "paid"}))
            .await;
        let late = |route: &str| {
            json!({"route": route, "effect": "late", "after_ms": 800, "times": 1,
                   "answer": {"preset": "504_html"}})
        };
        for (route, operation, params) in bill_and_refund(paid) {
            world.sandbox.fault(late(route)).await;
            let job = world.enqueue(operation, params).await;
            world.until(job, "uncertain").await;
            world
                .sql(&format!(
                    "select apipay.resolve({job}, false, null, 'it is not in the dashboard')"
                ))
                .await;
            world.until(job, "succeeded").await;
            assert_eq!(world.effects_of(job).await.len(), 1, "{operation}");
        }
        world.end([daemon]).await;
    }
}

/// Naming a wrong object first makes no difference to that: the request is given its time all the same.
#[tokio::test]
async fn a_wrong_number_and_then_none_does_not_cut_short_what_a_request_may_take() {
    let wish = Wish::default()
        .without_keys()
        .tune("reconcile.quiet_after_timeout", "8s")
        .tune("reconcile.quiet_after_answer", "8s");
    let (world, daemon) = World::running_as(wish).await;
    let paid = world
        .sandbox
        .invoice(&world.key("default"), json!({"status": "paid"}))
        .await;
    for (route, operation, params) in bill_and_refund(paid) {
        let late = json!({"route": route, "effect": "late", "after_ms": 5000, "times": 1,
                          "answer": {"preset": "504_html"}});
        world.sandbox.fault(late).await;
        let job = world.enqueue(operation, params).await;
        world.until(job, "uncertain").await;
        world
            .sql(&format!(
                "select apipay.resolve({job}, true, 999999, 'a slip')"
            ))
            .await;
        world.until(job, "held").await;
        let ended =
            format!("select apipay.resolve({job}, false, null, 'not there', and_cancel => true)");
        let error = sqlx::query(sqlx::AssertSqlSafe(ended))
            .execute(world.pool())
            .await;
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("its request may still be at work; wait until"),
            "{error}"
        );
        world
            .sql(&format!(
                "select apipay.resolve({job}, false, null, 'not there')"
            ))
            .await;
        world.until(job, "succeeded").await;
        assert_eq!(world.effects_of(job).await.len(), 1, "{operation}");
    }
    world.end([daemon]).await;
}

/// And where nothing was done, one look-up that finds nothing is enough after that, once what was sent would be shown.
#[tokio::test]
async fn that_nothing_was_done_spares_the_second_look_up() {
    let wish = Wish::default()
        .without_keys()
        .tune("reconcile.settle", "10m");
    let (world, daemon) = World::running_as(wish).await;
    world
        .sandbox
        .fault(
            json!({"route": "POST /invoices", "effect": "none", "answer": {"preset": "504_html"}}),
        )
        .await;
    let job = world.bill(PHONE, 900).await;
    world
        .until_job(job, "looked up once in vain", |row| {
            row["reason"] == "lookup_absent"
        })
        .await;
    world
        .sql(&format!(
            "set session_replication_role = replica;
             update apipay.attempts set started_at = started_at - interval '10 minutes' where job_id = {job};
             update apipay.jobs set unproven_since = unproven_since - interval '10 minutes' where id = {job};
             set session_replication_role = origin;
             select apipay.resolve({job}, false, null, 'why')"
        ))
        .await;
    world.until(job, "succeeded").await;
    assert_eq!(world.effects_of(job).await.len(), 1);
    world.end([daemon]).await;
}

/// Money was given back twice under one job's name, whoever did that: nobody but a human can settle it.
#[tokio::test]
async fn a_refund_that_the_gateway_has_twice_holds_its_job_with_an_alert() {
    let (world, daemon) = World::running().await;
    let key = world.key("default");
    let paid = world.sandbox.invoice(&key, json!({"status": "paid"})).await;
    world
        .sandbox
        .organization(json!({"organization": key, "refund_outcome": "stuck"}))
        .await;
    let job = world
        .enqueue("invoice.refund", json!({"invoice_id": paid, "amount": 400}))
        .await;
    let row = world.until(job, "accepted").await;
    let token = row["token"].as_str().unwrap();
    let mark = format!("[apipayd {token}]");
    let double = json!({"invoice_id": paid, "amount": 400, "reason": mark});
    world.sandbox.control("POST /refunds", double).await;
    let row = world.until(job, "held").await;
    assert_eq!(row["reason"], "duplicate_detected");
    world
        .until_true("select exists (select from apipay.alerts where kind = 'duplicate_detected' and resolved_at is null)")
        .await;
    world.end_unchecked().await;
    drop(daemon);
}

/// Two people name one invoice for two jobs at the same moment.
#[tokio::test]
async fn an_invoice_that_is_named_for_two_jobs_at_once_is_refused_for_the_second_with_a_sentence() {
    let (world, daemon) = World::running().await;
    world.sql("select apipay.park('default', 'a pause')").await;
    let bill = json!({"phone_number": PHONE, "amount": 900});
    let one = held(&world, "invoice.create", bill.clone()).await;
    let other = held(&world, "invoice.create", bill).await;
    let mut person = world.fresh_pool().await.acquire().await.unwrap();
    let mut open = person.begin().await.unwrap();
    sqlx::query("select apipay.resolve($1, true, 123, 'that one')")
        .bind(one)
        .execute(&mut *open)
        .await
        .unwrap();
    let second = tokio::spawn({
        let pool = world.fresh_pool().await;
        async move {
            sqlx::query("select apipay.resolve($1, true, 123, 'that one')")
                .bind(other)
                .execute(&pool)
                .await
        }
    });
    world
        .until_true(
            "select exists (select from pg_stat_activity where datname = current_database()
                and wait_event_type = 'Lock' and query like 'select apipay.resolve%')",
        )
        .await;
    open.commit().await.unwrap();
    let refused = second.await.unwrap().unwrap_err();
    let refused = refused.as_database_error().unwrap();
    let said = format!(
        "job {other} is held: it cannot be resolved so; invoice 123 belongs to another job ({one}); if it carries this job's own name at ApiPay, add anyway => true, and ApiPay is asked"
    );
    assert_eq!(refused.message(), said);
    let refused = refused.downcast_ref::<sqlx::postgres::PgDatabaseError>();
    let context = refused.r#where().unwrap();
    assert_eq!(context.lines().count(), 1, "{context}");
    drop(person);
    // The daemon's next round tells of the one that is still held.
    world
        .until_true(&format!(
            "select exists (select from apipay.alerts where kind = 'job_held' and resolved_at is null and details ->> 'job' = '{other}')"
        ))
        .await;
    world.end([daemon]).await;
}
