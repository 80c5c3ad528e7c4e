//! One job alone gets no clear answer: it is named, its neighbours go on, and what is told follows what fails.

use std::time::Duration;

use serde_json::json;

use super::fail;
use crate::world::{Wish, World, phone};

/// Whose bills get no clear answer.
const POISON: &str = "87015550666";

const OTHER: &str = "87015550777";

async fn poison(world: &World) {
    poison_of(world, POISON).await;
}

async fn poison_of(world: &World, phone: &str) {
    fail(
        world,
        json!({"route": "POST /invoices", "match": phone, "share": 1.0,
               "answer": {"preset": "502_html"}}),
    )
    .await;
}

async fn until_summary(world: &World, like: &str) {
    let like = like.replace('\'', "''");
    world
        .until_true(&format!(
            "select exists (select from apipay.alerts
                where kind = 'gateway_failing' and resolved_at is null and summary like '{like}')"
        ))
        .await;
}

#[tokio::test]
async fn a_job_that_gets_no_clear_answer_is_named_with_what_tries_it_now_and_so_is_the_next() {
    let (world, daemon) = World::running().await;
    poison(&world).await;
    let first = world.bill(POISON, 666).await;
    until_summary(
        &world,
        &format!("Job {first} (invoice.create) of account default has got no clear answer since %Z (HTTP 502: the answer was not JSON). The account's other payments are tried as usual."),
    )
    .await;
    let other = world.bill(phone::PAID, 100).await;
    world.until(other, "succeeded").await;
    let alert = &world
        .rows("select action, details from apipay.alerts")
        .await[0];
    let action = alert["action"].as_str().unwrap();
    for part in [
        format!("select apipay.retry({first}, 'why');"),
        "contact ApiPay's support".to_owned(),
    ] {
        assert!(action.contains(&part), "{action}");
    }
    assert!(!action.contains("apipay.resume"), "{action}");
    assert_eq!(alert["details"]["job"], json!(first));
    poison_of(&world, OTHER).await;
    let second = world.bill(OTHER, 667).await;
    // Others go on all the while: it is not the account that fails.
    let go_on = async {
        loop {
            world.bill(phone::PAID, 300).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let both = format!("Job {first} %1 more job of the account has got none either.%");
    tokio::select! {
        () = until_summary(&world, &both) => {}
        () = go_on => {}
    }
    // The first gets through, and the second is named.
    world.sandbox.mend().await;
    poison_of(&world, OTHER).await;
    world.until(first, "succeeded").await;
    let one = format!(
        "Job {second} (invoice.create) %). The account's other payments are tried as usual."
    );
    until_summary(&world, &one).await;
    world.sandbox.mend().await;
    world.until(second, "succeeded").await;
    world
        .until_true(&format!(
            "select count(*) = 1 and bool_and(resolution in ('job {second} is accepted now', 'job {second} is succeeded now')) from apipay.alerts"
        ))
        .await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn what_a_job_alone_is_told_of_becomes_the_accounts_when_that_fails() {
    let (world, daemon) = World::running().await;
    poison(&world).await;
    let job = world.bill(POISON, 666).await;
    until_summary(&world, &format!("Job {job} %")).await;
    fail(
        &world,
        json!({"route": "POST /invoices", "share": 1.0,
               "answer": {"status": 502, "json": {"message": "Kaspi API error"}}}),
    )
    .await;
    for amount in 100..104 {
        world.bill(phone::PAID, amount).await;
    }
    until_summary(
        &world,
        "ApiPay fails for account default since %: payments wait.",
    )
    .await;
    assert_eq!(world.count("apipay.alerts").await, 1);
    world.sandbox.mend().await;
    poison(&world).await;
    world
        .until_true("select count(*) = 4 from apipay.jobs where state = 'succeeded'")
        .await;
    // The job by itself again, in its turn.
    until_summary(
        &world,
        &format!("Job {job} %other payments are tried as usual."),
    )
    .await;
    world.sandbox.mend().await;
    world.until_all_final().await;
    world.until_no_alert().await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn an_account_that_is_parked_while_it_fails_is_not_told_to_be_well() {
    let (world, daemon) = World::running().await;
    fail(
        &world,
        json!({"route": "POST /invoices", "share": 1.0, "answer": {"preset": "502_html"}}),
    )
    .await;
    for amount in 100..104 {
        world.bill(phone::PAID, amount).await;
    }
    until_summary(&world, "ApiPay fails for account default since %").await;
    world.sandbox.session("expired").await;
    world.sandbox.mend().await;
    world
        .until_true(
            "select resolution like 'the account is parked now:%' from apipay.alerts where kind = 'gateway_failing'",
        )
        .await;
    world.sandbox.session("active").await;
    world.until_all_final().await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn what_backed_off_goes_on_although_whoever_saw_the_end_of_the_outage_died() {
    let world = World::made(Wish::default()).await;
    let job = world.bill(phone::PAID, 100).await;
    let own_time = world.bill(phone::PAID, 200).await;
    world
        .sql(&format!(
            "update apipay.accounts set failing_ended_at = now();
             update apipay.jobs set failing_since = now() - interval '1 minute', reason = 'network', attempts = 1,
                    run_at = now() + interval '1 hour' where id = {job};
             update apipay.jobs set failing_since = now() + interval '1 minute', reason = 'network', attempts = 1,
                    run_at = now() + interval '1 hour' where id = {own_time};"
        ))
        .await;
    let daemon = world.daemon().await;
    world.until(job, "succeeded").await;
    let left = world.job(own_time).await;
    assert_eq!(
        (&left["state"], &left["reason"]),
        (&json!("queued"), &json!("network"))
    );
    world
        .sql(&format!("select apipay.retry({own_time}, 'test')"))
        .await;
    world.until_all_final().await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_daemon_that_dies_in_a_trial_keeps_the_account_from_the_next_no_longer_than_a_request_takes()
 {
    let wish = Wish::default().tune("worker.lease", "60s");
    let (world, mut daemon) = World::running_as(wish).await;
    fail(
        &world,
        json!({"route": "POST /invoices", "share": 1.0, "answer": {"preset": "502_html"}}),
    )
    .await;
    for amount in 100..106 {
        world.bill(phone::PAID, amount).await;
    }
    super::until_slow(&world).await;
    world
        .until_true("select not exists (select from apipay.jobs where state = 'sending')")
        .await;
    world.sandbox.mend().await;
    fail(
        &world,
        json!({"route": "POST /invoices", "share": 1.0, "effect": "none", "hang": true}),
    )
    .await;
    world
        .until_true("select exists (select from apipay.jobs where state = 'sending')")
        .await;
    daemon.kill().await;
    world.sandbox.mend().await;
    // A look-up that died with it is made again only when its claim has run out.
    world
        .sql("update apipay.jobs set run_at = now() where state = 'uncertain'")
        .await;
    let heir = world.daemon().await;
    // All others are done while the lease of what was under way is still the dead one's.
    world
        .until_true("select bool_and(state in ('succeeded', 'sending')) from apipay.jobs")
        .await;
    assert!(world.count("apipay.jobs where state = 'sending'").await > 0);
    world
        .sql("update apipay.jobs set leased_until = now() where state = 'sending'")
        .await;
    world.until_all_final().await;
    world.end([heir]).await;
}

#[tokio::test]
async fn what_failed_with_all_others_goes_on_with_the_first_that_gets_through() {
    let world = World::made(Wish::default()).await;
    let together = world.bill(phone::PAID, 100).await;
    let first = world.bill(phone::PAID, 200).await;
    let later = world.bill(phone::PAID, 300).await;
    // No send got an answer for five minutes, until a moment ago. The first of these had tried twice in that time.
    world
        .sql(&format!(
            "update apipay.accounts set unanswered_since = now() - interval '5 minutes', answered_at = now() - interval '1 s';
             update apipay.jobs set failing_since = now() - interval '20 minutes', reason = 'network', attempts = 5,
                    updated_at = now() - interval '2 minutes', run_at = now() + interval '4 minutes' where id = {together};
             update apipay.jobs set failing_since = now() - interval '20 minutes', reason = 'network', attempts = 5,
                    updated_at = now() - interval '4 minutes', run_at = now() + interval '4 minutes' where id = {first};
             update apipay.jobs set failing_since = now(), reason = 'network', attempts = 5,
                    updated_at = now(), run_at = now() + interval '10 s' where id = {later};"
        ))
        .await;
    let daemon = world.daemon().await;
    world.until(together, "succeeded").await;
    for own_time in [first, later] {
        let left = world.job(own_time).await;
        assert_eq!(
            (&left["state"], &left["reason"]),
            (&json!("queued"), &json!("network"))
        );
        world
            .sql(&format!("select apipay.retry({own_time}, 'test')"))
            .await;
    }
    world.until_all_final().await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_job_that_failed_alone_for_long_does_not_wait_once_another_gets_through() {
    let wish = Wish::default()
        .tune("retry.server_error.initial", "2s")
        .tune("retry.server_error.max", "1h");
    let (world, daemon) = World::running_as(wish).await;
    fail(
        &world,
        json!({"route": "POST /invoices", "share": 1.0, "effect": "none", "answer": {"preset": "502_html"}}),
    )
    .await;
    let job = world.bill(phone::PAID, 100).await;
    let waits = world
        .until_job(job, "tried three times and waiting", |row| {
            row["state"] == "queued" && row["attempts"].as_i64() >= Some(3)
        })
        .await;
    world.sandbox.mend().await;
    let other = world.bill(phone::PAID, 200).await;
    world.until(other, "succeeded").await;
    world.until(job, "succeeded").await;
    let early = world
        .value(&format!(
            "select to_jsonb(finished_at < '{}'::timestamptz) from apipay.jobs where id = {job}",
            waits["run_at"].as_str().unwrap()
        ))
        .await;
    assert_eq!(early, json!(true), "{waits}");
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_job_that_always_fails_keeps_its_distance_while_others_get_through() {
    let wish = Wish::default()
        .tune("retry.server_error.initial", "300ms")
        .tune("retry.server_error.max", "1h");
    let (world, daemon) = World::running_as(wish).await;
    poison(&world).await;
    let job = world.bill(POISON, 666).await;
    let go_on = async {
        loop {
            world.bill(phone::PAID, 300).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let six =
        format!("select count(*) >= 6 from apipay.attempts where job_id = {job} and kind = 'send'");
    tokio::select! {
        () = world.until_true(&six) => {}
        () = go_on => {}
    }
    // At 0, 0.3, 0.9, 2.1, 4.5 and 9.3 seconds. Where this machine stands still between others the rule lets it go
    // earlier, and never below two fifths of that.
    let apart = format!(
        "select to_jsonb(bool_or(sixth - started_at >= interval '3.5 s')) from (
           select started_at, lead(started_at, 5) over (order by epoch) as sixth from apipay.attempts
            where job_id = {job} and kind = 'send') tries"
    );
    assert_eq!(world.value(&apart).await, json!(true));
    world.sandbox.mend().await;
    world
        .sql(&format!(
            "update apipay.jobs set run_at = now() where id = {job} and state in ('queued', 'uncertain')"
        ))
        .await;
    world.until_all_final().await;
    world.end([daemon]).await;
}
