//! A request whose outcome is unknown: looked up, adopted or proven absent, never blindly repeated.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::world::{Daemon, Job, Wish, World, phone};

const PHONE: &str = "87015550022";

/// Waits until the gateway has got a request of this route.
async fn until_requested(world: &World, route: &str, count: usize) {
    world
        .until_holds(&format!("{count} requests to {route}"), async || {
            world.sandbox.requests_to(route).await.len() >= count
        })
        .await;
}

async fn expect_sends_and_effects(world: &World, job: Job, sends: usize) {
    let requests = world.sandbox.requests_to("POST /invoices").await;
    assert_eq!(requests.len(), sends, "{requests:?}");
    let effects = world.effects_of(job).await;
    assert_eq!(effects.len(), 1, "{effects:?}");
}

/// Whatever is said of the last answer is of one answer: where none came, there is no status of an earlier one.
#[tokio::test]
async fn a_look_up_without_an_answer_leaves_nothing_of_the_answer_before_it() {
    let (world, daemon) = World::running().await;
    let unclear = json!({"route": "POST /invoices", "times": 1, "answer": {"preset": "502_html"}});
    world.sandbox.fault(unclear).await;
    let hang = json!({"route": "GET /invoices", "share": 1.0, "hang": true});
    world.sandbox.fault(hang).await;
    let job = world.bill(phone::PAID, 700).await;
    let row = world
        .until_job(job, "a look-up of it timed out", |row| {
            row["state"] == "uncertain" && row["error_code"] == "timeout"
        })
        .await;
    assert_eq!(row["http_status"], Value::Null, "{row}");
    let explain = world.explain(job).await;
    assert!(explain.contains("(last: timeout: "), "{explain}");
    world.sandbox.mend().await;
    world.until(job, "succeeded").await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_worker_killed_after_the_effect_leaves_a_job_that_is_looked_up_and_adopted() {
    let (world, mut daemon) = World::running().await;
    let fault = json!({"route": "POST /invoices", "effect": "apply", "hang": true});
    world.sandbox.fault(fault).await;
    let job = world.bill(PHONE, 900).await;
    until_requested(&world, "POST /invoices", 1).await;
    daemon.kill().await;
    assert_eq!(world.job(job).await["state"], "sending");

    let heir = world.daemon().await;
    world.expire_lease(job).await;
    let row = world.until(job, "succeeded").await;
    expect_sends_and_effects(&world, job, 1).await;
    let attempts = world.attempts(job).await;
    assert_eq!(attempts[0]["effect"], "unknown");
    assert_eq!(attempts[0]["error_code"], "lease_expired");
    assert_eq!(attempts[1]["kind"], "lookup");
    assert!(row["epoch"].as_i64() > attempts[0]["epoch"].as_i64());
    world.end([heir]).await;
}

#[tokio::test]
async fn a_worker_killed_before_the_effect_leaves_a_job_that_is_looked_up_and_sent_again() {
    let (world, mut daemon) = World::running().await;
    let fault = json!({"route": "POST /invoices", "effect": "none", "hang": true});
    world.sandbox.fault(fault).await;
    let job = world.bill(PHONE, 900).await;
    until_requested(&world, "POST /invoices", 1).await;
    daemon.kill().await;

    let heir = world.daemon().await;
    world.expire_lease(job).await;
    world.until(job, "succeeded").await;
    expect_sends_and_effects(&world, job, 2).await;
    world.end([heir]).await;
}

#[tokio::test]
async fn a_look_up_that_finds_nothing_leaves_the_cause_as_it_is() {
    let (world, daemon) = World::running_as(
        Wish::default()
            .tune("retry.server_error.max", "30s")
            .tune("retry.server_error.initial", "20s"),
    )
    .await;
    let failing = json!({"route": "POST /invoices", "effect": "none",
                         "answer": {"status": 500, "json": {"message": "the sky fell"}}});
    world.sandbox.fault(failing).await;
    let job = world.bill(PHONE, 900).await;
    let row = world
        .until_job(job, "looked up and found absent", |row| {
            ["lookup_absent", "not_applied"].contains(&row["reason"].as_str().unwrap_or_default())
        })
        .await;
    assert_eq!(row["http_status"], 500, "{row}");
    assert_eq!(row["error_message"], "the sky fell");
    let attempts = world.attempts(job).await;
    let lookup = attempts.iter().find(|attempt| attempt["kind"] == "lookup");
    assert_eq!(
        lookup.unwrap()["message"],
        "the gateway shows nothing with this job's name"
    );
    let explain = format!("select to_jsonb(explain) from apipay.overview where id = {job}");
    let explain = world.value(&explain).await;
    assert!(
        explain.as_str().unwrap().contains("HTTP 500") && !explain.to_string().contains("HTTP 200"),
        "{explain}"
    );
    world
        .sql(&format!(
            "select apipay.retry({job}) from apipay.jobs where id = {job} and state = 'queued'"
        ))
        .await;
    world
        .sql(&format!(
            "update apipay.jobs set run_at = now() where id = {job} and state = 'uncertain'"
        ))
        .await;
    world.until(job, "succeeded").await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_lease_runs_out_by_itself() {
    let (world, mut daemon) =
        World::running_as(Wish::default().tune("worker.lease", "11600ms")).await;
    let fault = json!({"route": "POST /invoices", "effect": "apply", "hang": true});
    world.sandbox.fault(fault).await;
    let job = world.bill(PHONE, 900).await;
    until_requested(&world, "POST /invoices", 1).await;
    daemon.kill().await;
    let heir = world.daemon().await;
    world.until(job, "succeeded").await;
    expect_sends_and_effects(&world, job, 1).await;
    world.end([heir]).await;
}

#[tokio::test]
async fn a_worker_that_wakes_up_too_late_changes_nothing() {
    let (world, sleeper) = World::running().await;
    let fault = json!({"route": "POST /invoices", "effect": "apply", "delay_ms": 700});
    world.sandbox.fault(fault).await;
    let job = world.bill(PHONE, 900).await;
    until_requested(&world, "POST /invoices", 1).await;
    sleeper.signal(Signal::STOP);
    let heir = world.daemon().await;
    world.expire_lease(job).await;
    expect_too_late(&world, &sleeper, job).await;
    world.end([sleeper, heir]).await;
}

/// Wakes a worker up once another one is done with its job: it finds its answer, or that its time is
/// over, and either way it is too late to say so.
async fn expect_too_late(world: &World, sleeper: &Daemon, job: Job) {
    let before = world.until(job, "succeeded").await;
    sleeper.signal(Signal::CONT);
    sleeper.until_logged("a stale outcome was refused").await;
    assert_eq!(world.job(job).await, before);
    expect_sends_and_effects(world, job, 1).await;
}

#[tokio::test]
async fn a_worker_that_wakes_up_too_late_from_a_look_up_changes_nothing() {
    let (world, sleeper) = World::running().await;
    let lost =
        json!({"route": "POST /invoices", "effect": "apply", "answer": {"preset": "502_html"}});
    world.sandbox.fault(lost).await;
    let slow = json!({"route": "GET /invoices", "delay_ms": 700});
    world.sandbox.fault(slow).await;
    let job = world.bill(PHONE, 900).await;
    until_requested(&world, "GET /invoices", 1).await;
    sleeper.signal(Signal::STOP);
    // Its promise runs out, and another one asks.
    world
        .sql(&format!(
            "update apipay.jobs set run_at = now() where id = {job} and state = 'uncertain'"
        ))
        .await;
    let heir = world.daemon().await;
    expect_too_late(&world, &sleeper, job).await;
    world.end([sleeper, heir]).await;
}

#[tokio::test]
async fn what_the_list_does_not_show_yet_is_found_through_its_key() {
    let (world, daemon) = World::running().await;
    world
        .sandbox
        .organization(json!({"list_lag_ms": 600_000}))
        .await;
    let fault =
        json!({"route": "POST /invoices", "effect": "apply", "answer": {"preset": "502_html"}});
    world.sandbox.fault(fault).await;
    let job = world.bill(PHONE, 900).await;
    world.until(job, "succeeded").await;
    // The second request is answered 409 duplicate_idempotency_key, which is our own success.
    expect_sends_and_effects(&world, job, 2).await;
    let statuses: Vec<Value> = world
        .sandbox
        .requests_to("POST /invoices")
        .await
        .iter()
        .map(|request| request["status"].clone())
        .collect();
    assert_eq!(statuses, [502, 409]);
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_search_that_finds_nothing_at_all_does_no_harm() {
    let (world, daemon) = World::running().await;
    world.sandbox.organization(json!({"search": "lost"})).await;
    let fault = json!({"route": "POST /invoices", "cut": "after_effect"});
    world.sandbox.fault(fault).await;
    let job = world.bill(PHONE, 900).await;
    world.until(job, "succeeded").await;
    expect_sends_and_effects(&world, job, 2).await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_gateway_without_keys_is_asked_twice_before_anything_is_sent_again() {
    let (world, daemon) = World::running_as(Wish::default().without_keys()).await;
    world
        .sandbox
        .fault(json!({"route": "POST /invoices", "answer": {"preset": "502_html"}}))
        .await;
    let job = world.bill(PHONE, 900).await;
    world.until(job, "succeeded").await;
    expect_sends_and_effects(&world, job, 2).await;
    let attempts = world.attempts(job).await;
    let kinds: Vec<&str> = attempts
        .iter()
        .map(|a| a["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["send", "lookup", "lookup", "send"]);
    let settled = world
        .value(&format!(
            "select to_jsonb(max(started_at) - min(started_at) >= interval '1 second')
               from apipay.attempts where job_id = {job} and kind = 'lookup'"
        ))
        .await;
    assert_eq!(settled, true, "the settle time lies between the look-ups");
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_gateway_without_keys_and_with_a_late_list_still_gets_one_invoice() {
    let wish = Wish::default()
        .without_keys()
        .late_lists(Duration::from_secs(2));
    let (world, daemon) = World::running_as(wish).await;
    world
        .sandbox
        .fault(json!({"route": "POST /invoices", "cut": "after_effect"}))
        .await;
    let job = world.bill(PHONE, 900).await;
    world.until(job, "succeeded").await;
    expect_sends_and_effects(&world, job, 1).await;
    world.end([daemon]).await;
}

/// A bill whose only invoice has another amount.
async fn held_for_a_mismatch() -> (World, Daemon, Job) {
    let (world, daemon) = World::running().await;
    world
        .sandbox
        .organization(json!({"wrong_amount": true}))
        .await;
    let fault = json!({"route": "POST /invoices", "cut": "after_effect"});
    world.sandbox.fault(fault).await;
    let job = world.bill(PHONE, 900).await;
    let row = world.until(job, "held").await;
    assert_eq!(row["reason"], "mismatch");
    (world, daemon, job)
}

#[tokio::test]
async fn an_invoice_with_another_amount_is_not_adopted_but_held_until_a_human_decides() {
    let (world, daemon, job) = held_for_a_mismatch().await;
    let held = "select * from apipay.alerts where kind = 'job_held'";
    let alert = &world.rows(held).await[0];
    assert!(
        alert["action"]
            .as_str()
            .unwrap()
            .contains(&format!("apipay.resolve({job},"))
    );

    let invoice = world.effects_of(job).await[0]["invoice_id"].clone();
    // Both sides stand wherever people look.
    let both =
        format!("900 tenge to 8701***0022 was asked for, and ApiPay has invoice {invoice}: ");
    let said = world.job(job).await["error_message"].clone();
    assert!(said.as_str().unwrap().starts_with(&both), "{said}");
    let summary = alert["summary"].as_str().unwrap();
    assert!(summary.contains(&both), "{summary}");
    let explain = world.explain(job).await;
    assert!(
        explain.starts_with("Held (mismatch) since ")
            && explain.contains(&both)
            && explain.contains("the same with anyway => true"),
        "{explain}"
    );
    world
        .sql(&format!(
            "select apipay.resolve({job}, true, {invoice}, 'it is ours', anyway => true)"
        ))
        .await;
    world.until(job, "succeeded").await;
    world
        .until_true("select count(*) = 1 and bool_and(resolved_at is not null) from apipay.alerts where kind = 'job_held'")
        .await;
    expect_sends_and_effects(&world, job, 1).await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn two_objects_with_one_name_are_held_with_an_alert_of_their_own() {
    let (world, daemon) = World::running().await;
    let fault = json!({"route": "POST /invoices", "effect": "apply", "hang": true});
    world.sandbox.fault(fault).await;
    let job = world.bill(PHONE, 900).await;
    until_requested(&world, "POST /invoices", 1).await;
    let token = world.job(job).await["token"].as_str().unwrap().to_owned();
    world
        .sandbox
        .invoice(
            &world.key("default"),
            json!({"phone": PHONE, "amount": "900.00", "status": "pending",
                   "internal_comment": format!("[apipayd {token}]")}),
        )
        .await;
    let row = world.until(job, "held").await;
    assert_eq!(row["reason"], "duplicate_detected");
    let said = row["error_message"].as_str().unwrap();
    assert!(
        said.starts_with("the gateway shows invoice ") && said.contains(", and invoice "),
        "{said}"
    );
    world.until_true("select exists (select from apipay.alerts where kind = 'duplicate_detected' and resolved_at is null)").await;
    expect_sends_and_effects(&world, job, 1).await;
    world.end([daemon]).await;
}

/// A person names one of them and leaves the other one as it is.
#[tokio::test]
async fn of_two_invoices_of_a_job_the_one_that_it_does_not_go_by_is_told_while_it_can_be_paid() {
    let (world, daemon) = World::running().await;
    let fault = json!({"route": "POST /invoices", "effect": "apply", "hang": true});
    world.sandbox.fault(fault).await;
    let job = world.bill(phone::UNPAID, 900).await;
    until_requested(&world, "POST /invoices", 1).await;
    let token = world.job(job).await["token"].as_str().unwrap().to_owned();
    let other = world
        .sandbox
        .invoice(
            &world.key("default"),
            json!({"phone": phone::UNPAID, "amount": "900.00", "status": "pending",
                   "internal_comment": format!("[apipayd {token}]")}),
        )
        .await;
    world.until(job, "held").await;
    world
        .until_true(&format!(
            "select count(*) = 2 from apipay.invoices where job_id = {job}"
        ))
        .await;
    world
        .sql(&format!(
            "select apipay.resolve({job}, true, (select id from apipay.invoices where job_id = {job} and id <> {other}), 'the first')"
        ))
        .await;
    world.until(job, "succeeded").await;
    let told = format!(
        "select exists (select from apipay.alerts where kind = 'invoice_revived' and subject like '%{other}' and resolved_at is null)"
    );
    world.until_true(&told).await;
    world
        .sandbox
        .set_invoice(other, json!({"status": "cancelled"}))
        .await;
    world.until_true(&format!("select not ({told})")).await;
    expect_sends_and_effects(&world, job, 1).await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_gateway_that_gives_no_clear_answer_for_long_is_told_of_until_it_does() {
    let (world, daemon) = World::running().await;
    for route in ["POST /invoices", "GET /invoices"] {
        let failing = json!({"route": route, "share": 1.0, "answer": {"preset": "502_html"}});
        world.sandbox.fault(failing).await;
    }
    let job = world.bill(PHONE, 900).await;
    world
        .until_true(
            "select exists (select from apipay.alerts where kind = 'gateway_failing'
                and details @> '{\"fails\": \"job\", \"code\": \"server_error\", \"http_status\": 502}')",
        )
        .await;
    // Rounds of the loop that resolves alerts come and go.
    world
        .until_true(&format!(
            "select lookups >= 15 from apipay.jobs where id = {job}"
        ))
        .await;
    let open = "apipay.alerts where resolved_at is null";
    assert_eq!(world.count(open).await, 1);
    world.sandbox.mend().await;
    world.until(job, "succeeded").await;
    world
        .until_holds("its end is told", async || world.count(open).await == 0)
        .await;
    assert_eq!(world.count("apipay.alerts").await, 1, "told once");
    expect_sends_and_effects(&world, job, 2).await;
    world.end([daemon]).await;
}

/// An alert is opened just before the answer that it is about is recorded.
#[tokio::test]
async fn an_alert_about_a_job_is_not_resolved_while_its_answer_is_not_recorded() {
    let wish = Wish::default()
        .tune("http.timeout", "5s")
        .tune("worker.lease", "20s")
        .tune("worker.grace", "10s");
    let (world, daemon) = World::running_as(wish).await;
    // Longer than the distance of two rounds of alerts.
    let slow = json!({"route": "POST /invoices", "delay_ms": 3_500});
    world.sandbox.fault(slow).await;
    let job = world.bill(PHONE, 900).await;
    until_requested(&world, "POST /invoices", 1).await;
    world
        .sql(&format!(
            "select apipay._open_alert('default', 'job_held', 'critical', 'held', 'decide', '{{\"job\": {job}}}')"
        ))
        .await;
    world.until(job, "succeeded").await;
    world
        .until_true(&format!(
            "select l.resolved_at >= a.finished_at from apipay.alerts l, apipay.attempts a where a.job_id = {job}"
        ))
        .await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn no_job_stays_held_without_an_open_alert() {
    let (world, daemon, job) = held_for_a_mismatch().await;
    world
        .sql("update apipay.alerts set resolved_at = now(), resolution = 'by mistake'")
        .await;
    world
        .until_true(&format!(
            "select exists (select from apipay.alerts where resolved_at is null and kind = 'job_held'
                and details = '{{\"job\": {job}, \"reason\": \"mismatch\"}}')"
        ))
        .await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn what_cannot_be_looked_up_for_too_long_is_held_and_not_sent_again_on_a_word_alone() {
    let wish = Wish::default()
        .tune("reconcile.settle", "500ms")
        .tune("reconcile.give_up", "1500ms");
    let (world, daemon) = World::running_as(wish).await;
    world
        .sandbox
        .fault(json!({"route": "POST /invoices", "cut": "before_effect"}))
        .await;
    world
        .sandbox
        .fault(json!({"route": "GET /invoices", "share": 1, "seed": 1, "answer": {"preset": "500_json"}}))
        .await;
    let job = world.bill(PHONE, 900).await;
    let row = world.until(job, "held").await;
    assert_eq!(row["reason"], "unknown_outcome");
    let refusal = sqlx::query("select apipay.retry($1, 'impatient')")
        .bind(job)
        .execute(world.pool())
        .await
        .unwrap_err()
        .to_string();
    assert!(refusal.contains("apipay.resolve"), "{refusal}");
    assert_eq!(world.sandbox.requests_to("POST /invoices").await.len(), 1);

    let not_there = format!("select apipay.resolve({job}, false, null, 'not in the dashboard')");
    world.sql(&not_there).await;
    world
        .until_job(job, "held again, for nobody has confirmed it", |row| {
            row["state"] == "held" && row["reason"] == "unconfirmed"
        })
        .await;
    assert_eq!(world.sandbox.requests_to("POST /invoices").await.len(), 1);
    // Once ApiPay shows clearly that nothing of it is there, it goes out.
    world.sandbox.mend().await;
    world.sql(&not_there).await;
    world.until(job, "succeeded").await;
    expect_sends_and_effects(&world, job, 2).await;
    world.end([daemon]).await;
}

/// A job whose time ends while a request of it is unproven is settled, and not forgotten.
#[tokio::test]
async fn a_job_that_expires_while_its_request_is_unproven_is_looked_up_and_then_ends() {
    let (world, daemon) = World::running_as(
        Wish::default()
            .tune("retry.server_error.initial", "2s")
            .tune("retry.server_error.max", "2s")
            .tune("reconcile.settle", "4s"),
    )
    .await;
    let bill = async |nth: usize, rule: Value| {
        world.sandbox.fault(rule).await;
        let soon = world
            .value("select to_jsonb(now() + interval '1500 milliseconds')")
            .await;
        let params = json!({"phone_number": PHONE, "amount": 700});
        let job = world
            .enqueue_with("invoice.create", params, json!({"expires_at": soon}))
            .await;
        until_requested(&world, "POST /invoices", nth).await;
        job
    };
    let answer = json!({"status": 502, "json": {"message": "Kaspi API error"}});
    let undone = json!({"route": "POST /invoices", "times": 1, "effect": "none", "answer": answer});
    let undone = bill(1, undone).await;
    let done = json!({"route": "POST /invoices", "times": 1, "effect": "apply", "answer": answer});
    let done = bill(2, done).await;
    world.until(undone, "expired").await;
    assert_eq!(world.effects_of(undone).await.len(), 0);
    let row = world.until(done, "succeeded").await;
    assert!(!row["invoice_id"].is_null());
    assert_eq!(world.effects_of(done).await.len(), 1);
    world.end([daemon]).await;
}

/// Whoever says of a bill that nothing was done, while an invoice with its name lives, is not believed.
#[tokio::test]
async fn a_held_bill_is_looked_up_before_it_is_sent_again() {
    let (world, daemon, job) = held_for_a_mismatch().await;
    world
        .sandbox
        .organization(json!({"wrong_amount": false}))
        .await;
    let denied = format!("select apipay.resolve({job}, false, null, 'the amount is wrong')");
    let epoch = world.job(job).await["epoch"].as_i64();
    world.sql(&denied).await;
    world
        .until_job(job, "held again", |row| {
            row["state"] == "held" && row["epoch"].as_i64() > epoch
        })
        .await;
    let effects = world.effects_of(job).await;
    assert_eq!(effects.len(), 1, "{effects:?}");
    // Once that one is dead, it goes out.
    let invoice = effects[0]["invoice_id"].as_i64().unwrap();
    world
        .sandbox
        .set_invoice(invoice, json!({"status": "cancelled"}))
        .await;
    world.sql(&denied).await;
    let row = world.until(job, "succeeded").await;
    assert_ne!(row["invoice_id"], invoice);
    assert_eq!(world.effects_of(job).await.len(), 2);
    drop(daemon);
    // Both bear the job's name, and the first is dead.
    world.end_unchecked().await;
}
