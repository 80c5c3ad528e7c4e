//! Each job about which a human has to decide is told, with what holds it now, until it is settled.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{action, as_operator, open, statements, until_ended};
use crate::world::{Daemon, Job, World, phone};

/// Holds a job that was never sent.
async fn hold(world: &World, reason: &str) -> Job {
    let job = world.bill(phone::PAID, 900).await;
    world
        .sql(&format!(
            "update apipay.jobs set state = 'held', reason = '{reason}', epoch = epoch + 1, unproven_since = now() where id = {job}"
        ))
        .await;
    job
}

async fn parked() -> (World, Daemon) {
    let (world, daemon) = World::running().await;
    world
        .sql("select apipay.park('default', 'to have a look')")
        .await;
    (world, daemon)
}

/// Waits until the webhook was told so often that something fires with these words.
pub(super) async fn until_told(world: &World, words: &str, times: usize) {
    world
        .until_holds(&format!("{words:?} is told {times} times"), async || {
            let told = world.alerts.deliveries("firing");
            let of_words = told
                .iter()
                .filter(|delivery| delivery.to_string().contains(words));
            of_words.count() >= times
        })
        .await;
}

fn told(world: &World, words: &str) -> usize {
    let told = world.alerts.deliveries("firing");
    let of_words = told
        .iter()
        .filter(|delivery| delivery.to_string().contains(words));
    of_words.count()
}

#[tokio::test]
async fn each_of_two_jobs_with_several_objects_is_told() {
    let (world, daemon) = parked().await;
    let jobs = [
        hold(&world, "duplicate_detected").await,
        hold(&world, "duplicate_detected").await,
    ];
    for job in jobs {
        open(
            &world,
            "duplicate_detected",
            &format!("subject = '{job}' and details -> 'job' = '{job}'"),
        )
        .await;
        until_told(
            &world,
            &format!("Job {job} of account default is held: more than one"),
            1,
        )
        .await;
    }
    world
        .sql("select apipay.resolve(id, false, null, 'none is there', and_cancel => true) from apipay.jobs")
        .await;
    world.sql("select apipay.resume('default', 'seen')").await;
    until_ended(&world, "duplicate_detected", "true").await;
    world.until_all_final().await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn ten_held_jobs_are_told_one_by_one_and_more_by_one_alert_that_is_told_again_as_they_become_more()
 {
    let (world, daemon) = parked().await;
    for _ in 0..12 {
        hold(&world, "unknown_outcome").await;
    }
    let others = "subject = 'others'";
    let more = |jobs: u32| {
        format!(
            "{jobs} more jobs of account default are held, besides those that are told one by one."
        )
    };
    open(
        &world,
        "job_held",
        &format!("{others} and summary = '{}'", more(2)),
    )
    .await;
    world
        .until_true("select count(*) = 10 from apipay.alerts where kind = 'job_held' and details ? 'job' and resolved_at is null")
        .await;
    until_told(&world, &more(2), 1).await;
    // Every few minutes at the most.
    let old = "update apipay.alerts set opened_at = opened_at - interval '6 min', changed_at = changed_at - interval '6 min' where subject = 'others'";
    hold(&world, "unknown_outcome").await;
    hold(&world, "unknown_outcome").await;
    let alert = open(
        &world,
        "job_held",
        &format!("{others} and summary = '{}'", more(4)),
    )
    .await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(told(&world, &more(4)), 0);
    world.sql(old).await;
    until_told(&world, &more(4), 1).await;
    // The same number is no news.
    world.sql(old).await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(told(&world, &more(4)), 1);
    for statement in statements(action(&alert)) {
        as_operator(&world, &statement).await.unwrap();
    }
    world
        .sql("select apipay.resolve(id, false, null, 'it is not there', and_cancel => true) from apipay.jobs")
        .await;
    world.sql("select apipay.resume('default', 'seen')").await;
    until_ended(&world, "job_held", "true").await;
    world.until_all_final().await;
    world.end([daemon]).await;
}

/// The alert of a job, which is the only one about it.
pub(super) async fn only(world: &World, job: Job) -> Value {
    let mut alerts = world
        .rows(&format!(
            "select * from apipay.alerts where kind in ('job_held', 'duplicate_detected') and resolved_at is null
                and details -> 'job' = '{job}'"
        ))
        .await;
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    alerts.remove(0)
}

pub(super) async fn say_not_done(world: &World, job: Job) {
    let statement = format!("select apipay.resolve({job}, false, null, 'I do not see it')");
    as_operator(world, &statement).await.unwrap();
}

/// Says so, and waits until the job is held again.
pub(super) async fn not_done(world: &World, job: Job) -> Value {
    let epoch = world.job(job).await["epoch"].as_i64();
    say_not_done(world, job).await;
    let is_held_again = |row: &Value| {
        row["state"] == "held" && row["epoch"].as_i64() > epoch.map(|epoch| epoch + 1)
    };
    world.until_job(job, "held again", is_held_again).await
}

/// A bill that the gateway has with another amount, and that invoice.
pub(super) async fn mismatched() -> (World, Daemon, Job, i64) {
    let (world, daemon) = World::running().await;
    world
        .sandbox
        .organization(json!({"wrong_amount": true}))
        .await;
    world
        .sandbox
        .fault(json!({"route": "POST /invoices", "cut": "after_effect"}))
        .await;
    let job = world.bill(phone::UNPAID, 900).await;
    let row = world.until(job, "held").await;
    assert_eq!(row["reason"], "mismatch");
    let own = &world.effects_of(job).await[0]["invoice_id"];
    let own = own.as_i64().unwrap();
    until_told(
        &world,
        &format!("Job {job} of account default is held: "),
        1,
    )
    .await;
    world
        .sandbox
        .organization(json!({"wrong_amount": false}))
        .await;
    (world, daemon, job, own)
}

#[tokio::test]
async fn that_a_job_was_not_done_is_refused_aloud_each_time_until_what_lives_is_cancelled() {
    let (world, daemon, job, own) = mismatched().await;
    let again = format!(
        "Job {job} of account default is held again: the object with its name or key does not fit: \
         it was said that it was not done; "
    );
    let cancel = format!("select apipay.cancel_invoice({own}, account => 'default');");
    for times in 1..=2 {
        let row = not_done(&world, job).await;
        assert_eq!(row["reason"], "mismatch");
        until_told(&world, &again, times).await;
        let alert = only(&world, job).await;
        let summary = alert["summary"].as_str().unwrap();
        assert!(
            summary.starts_with(&again)
                && summary.contains(&format!("and ApiPay has invoice {own}: ")),
            "{summary}"
        );
        assert!(statements(action(&alert)).contains(&cancel), "{alert}");
        // At once it would be held again: ApiPay cancels by and by.
        let wait = format!("{cancel} wait until ApiPay shows it as cancelled; then, or ");
        assert!(action(&alert).contains(&wait), "{alert}");
    }
    let explain = format!("select to_jsonb(explain) from apipay.overview where id = {job}");
    let explain = world.value(&explain).await.to_string();
    for part in [
        "it was said that it was not done; ",
        "first select apipay.cancel_invoice(",
        ", and wait until ApiPay shows it as cancelled, or it holds the job again",
    ] {
        assert!(explain.contains(part), "{explain}");
    }
    as_operator(&world, &cancel).await.unwrap();
    world
        .until_true(
            "select state = 'succeeded' from apipay.jobs where operation = 'invoice.cancel'",
        )
        .await;
    say_not_done(&world, job).await;
    world.until(job, "succeeded").await;
    until_ended(&world, "job_held", "true").await;
    drop(daemon);
    // An invoice that nobody asked for was at the gateway.
    world.end_unchecked().await;
}

#[tokio::test]
async fn a_job_that_is_held_for_another_reason_now_has_one_alert_which_says_that() {
    let (world, daemon, job, _) = mismatched().await;
    let token = world.job(job).await["token"].as_str().unwrap().to_owned();
    let fields = json!({"phone": phone::UNPAID, "amount": "900.00", "status": "pending",
                        "internal_comment": format!("[apipayd {token}]")});
    world.sandbox.invoice(&world.key("default"), fields).await;
    let row = not_done(&world, job).await;
    assert_eq!(row["reason"], "duplicate_detected");
    let twice = format!(
        "Job {job} of account default is held again: more than one object at ApiPay carries its name: it was said"
    );
    until_told(&world, &twice, 1).await;
    let alert = only(&world, job).await;
    let summary = alert["summary"].as_str().unwrap();
    assert!(summary.starts_with(&twice), "{summary}");
    let action = action(&alert);
    assert!(
        action.contains(" in the dashboard); see in the ApiPay dashboard which"),
        "{action}"
    );
    drop(daemon);
    // An invoice that nobody asked for is at the gateway.
    world.end_unchecked().await;
}

/// Each time the bill was made with another amount: what was cancelled of it, as told, is no second one.
#[tokio::test]
async fn an_invoice_that_was_cancelled_as_told_is_no_duplicate_of_the_next_one() {
    let (world, daemon, job, own) = mismatched().await;
    world
        .sandbox
        .set_invoice(own, json!({"status": "cancelled"}))
        .await;
    world
        .sandbox
        .organization(json!({"wrong_amount": true}))
        .await;
    world
        .sandbox
        .fault(json!({"route": "POST /invoices", "cut": "after_effect"}))
        .await;
    say_not_done(&world, job).await;
    world
        .until_holds("it is sent again", async || {
            world.effects_of(job).await.len() == 2
        })
        .await;
    let row = world.until(job, "held").await;
    assert_eq!(row["reason"], "mismatch");
    let effects = world.effects_of(job).await;
    let next = effects
        .iter()
        .filter_map(|effect| effect["invoice_id"].as_i64());
    let next = next.max().unwrap();
    assert_ne!(next, own);
    let words = format!("and ApiPay has invoice {next}: ");
    until_told(&world, &words, 1).await;
    let alert = only(&world, job).await;
    assert_eq!(alert["kind"], "job_held");
    let cancel = format!("select apipay.cancel_invoice({next}, account => 'default');");
    let to_do = action(&alert);
    assert!(
        statements(to_do).contains(&cancel) && to_do.contains("the same with anyway => true"),
        "{alert}"
    );
    // What was cancelled may be paid all the same: it is watched.
    world
        .until_true(&format!(
            "select exists (select from apipay.invoices where id = {own} and job_id = {job} and status = 'cancelled')"
        ))
        .await;
    let statement =
        format!("select apipay.resolve({job}, true, {next}, 'so be it', anyway => true)");
    as_operator(&world, &statement).await.unwrap();
    world.until(job, "succeeded").await;
    drop(daemon);
    // Two invoices were made, and one was not as asked for.
    world.end_unchecked().await;
}

/// What a person looks for in the dashboard is in the alert, which may be all that they have.
#[tokio::test]
async fn the_alert_says_which_payment_to_look_up() {
    let (world, daemon) = parked().await;
    let job = hold(&world, "unknown_outcome").await;
    open(
        &world,
        "job_held",
        &format!("subject = '{job}' and details -> 'job' = '{job}'"),
    )
    .await;
    let told = only(&world, job).await;
    let to_do = told["action"].as_str().unwrap();
    let token = world.job(job).await["token"].as_str().unwrap().to_owned();
    let masked = format!("{}***{}", &phone::PAID[..4], &phone::PAID[7..]);
    let which = format!(
        "the job asks for the invoice of 900 tenge to {masked} (look for {token} in the dashboard); look the payment up"
    );
    assert!(to_do.starts_with(&which), "{to_do} instead of {which}");
    assert!(!told.to_string().contains(phone::PAID), "{told}");
    // The same as where people look next.
    assert!(world.explain(job).await.contains(&token));
    world
        .sql(&format!(
            "select apipay.resolve({job}, false, null, 'none', and_cancel => true); select apipay.resume('default', 'seen')"
        ))
        .await;
    until_ended(&world, "job_held", "true").await;
    world.end([daemon]).await;
}

/// The calls that a text names, but for those that say the same with `and_cancel`, and what ApiPay has to show before a job is
/// sent again.
pub(super) fn ways_out(text: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let calls = text.split("apipay.").skip(1).filter_map(|rest| {
        let is_way_out = rest.starts_with("resolve(") || rest.starts_with("cancel_invoice(");
        let call = rest.split(')').next()?;
        (is_way_out && !call.contains("and_cancel")).then(|| call.to_owned())
    });
    let shown = text.split("once ApiPay shows ").skip(1).filter_map(|rest| {
        let shown = rest.split([',', '.', ';']).next()?;
        Some(shown.to_owned())
    });
    (calls.collect(), shown.collect())
}

#[tokio::test]
async fn what_settles_a_held_job_is_the_same_in_its_alert_and_in_its_explain() {
    const REASONS: [&str; 7] = [
        "unknown_outcome",
        "not_as_stated",
        "mismatch",
        "duplicate_detected",
        "unconfirmed",
        "original_lives",
        "other_organization",
    ];
    let (world, daemon) = parked().await;
    for (operation, named) in [
        ("invoice.create", "INVOICE_ID"),
        ("invoice.cancel", "null"),
        ("invoice.refund", "REFUND_ID"),
    ] {
        for (reason, invoice) in REASONS.into_iter().zip(100..) {
            let params = match operation {
                "invoice.create" => json!({"phone_number": phone::PAID, "amount": 900}),
                _ => json!({"invoice_id": invoice}),
            };
            let job = world.enqueue(operation, params).await;
            world
                .sql(&format!(
                    "update apipay.jobs set state = 'held', reason = '{reason}', epoch = epoch + 1, unproven_since = now() where id = {job}"
                ))
                .await;
            let kind = match reason {
                "duplicate_detected" => reason,
                _ => "job_held",
            };
            open(&world, kind, &format!("details -> 'job' = '{job}'")).await;
            let alert = only(&world, job).await;
            let (told, explain) = (action(&alert), world.explain(job).await);
            assert_eq!(ways_out(told), ways_out(&explain), "{told}\n{explain}");
            let call = format!("resolve({job}, true, {named}, 'why'");
            assert!(told.contains(&call), "{call}: {told}");
        }
        world.sql("delete from apipay.jobs").await;
        until_ended(&world, "job_held", "true").await;
        until_ended(&world, "duplicate_detected", "true").await;
    }
    world.sql("select apipay.resume('default', 'seen')").await;
    world.end([daemon]).await;
}

/// Past its time a job is not sent again, whatever is said of it.
#[tokio::test]
async fn a_held_job_whose_time_is_over_is_told_to_end_expired_and_does() {
    let (world, daemon) = parked().await;
    let mut jobs = Vec::new();
    for (expires_at, told) in [
        (
            "now() - interval '1 hour'",
            "Z, is over, so that it is not sent again",
        ),
        (
            "now() + interval '1 hour'",
            "; it is sent again only before its expires_at, ",
        ),
    ] {
        let job = world.bill(phone::PAID, 900).await;
        world
            .sql(&format!(
                "update apipay.jobs set state = 'held', reason = 'unknown_outcome', epoch = epoch + 1, unproven_since = now(),
                        expires_at = {expires_at} where id = {job}"
            ))
            .await;
        open(&world, "job_held", &format!("details -> 'job' = '{job}'")).await;
        let alert = only(&world, job).await;
        for part in [told, &format!("apipay.retry({job}, 'why') makes a copy")] {
            assert!(action(&alert).contains(part), "{part}: {alert}");
        }
        // Only one of the two is promised.
        let is_over = jobs.is_empty();
        for (promise, is_made) in [
            (
                format!("select apipay.resolve({job}, false, null, 'why'); sends it again once"),
                !is_over,
            ),
            (
                format!("select apipay.resolve({job}, false, null, 'why'); ends it expired once"),
                is_over,
            ),
        ] {
            assert_eq!(
                action(&alert).contains(&promise),
                is_made,
                "{promise}: {alert}"
            );
        }
        jobs.push(job);
    }
    world.sql("select apipay.resume('default', 'seen')").await;
    for job in &jobs {
        say_not_done(&world, *job).await;
    }
    world.until(jobs[0], "expired").await;
    world.until(jobs[1], "succeeded").await;
    let explain = world.explain(jobs[0]).await;
    assert!(
        !explain.contains("Nothing was sent")
            && explain.contains(&format!("select apipay.retry({}, 'why')", jobs[0])),
        "{explain}"
    );
    until_ended(&world, "job_held", "true").await;
    world.end([daemon]).await;
}

/// Its invoice is there all the while, and carries the name of the job that billed it.
#[tokio::test]
async fn the_alert_of_a_cancel_that_is_sent_again_ends_with_what_was_shown_of_its_invoice() {
    let (world, daemon) = World::running().await;
    let bill = world.bill(phone::UNPAID, 900).await;
    let invoice = world.until(bill, "succeeded").await["invoice_id"].clone();
    world
        .sql("select apipay.park('default', 'to have a look')")
        .await;
    let cancel = world
        .enqueue("invoice.cancel", json!({"invoice_id": invoice}))
        .await;
    world
        .sql(&format!(
            "update apipay.jobs set state = 'held', reason = 'unknown_outcome', epoch = epoch + 1, unproven_since = now() where id = {cancel}"
        ))
        .await;
    open(
        &world,
        "job_held",
        &format!("details -> 'job' = '{cancel}'"),
    )
    .await;
    say_not_done(&world, cancel).await;
    // It could end while the job waits in the queue, and would not say then what came of that.
    let mut reader = world.pool().begin().await.unwrap();
    sqlx::raw_sql("select from apipay.alerts where kind = 'job_held' for update")
        .execute(&mut *reader)
        .await
        .unwrap();
    world.sql("select apipay.resume('default', 'seen')").await;
    world.until(cancel, "succeeded").await;
    reader.rollback().await.unwrap();
    until_ended(&world, "job_held", "true").await;
    let said = world
        .value("select to_jsonb(resolution) from apipay.alerts where kind = 'job_held'")
        .await;
    assert_eq!(
        said,
        "ApiPay showed that invoice as not cancelled, so it was sent again, and the job is succeeded now"
    );
    world.end([daemon]).await;
}
