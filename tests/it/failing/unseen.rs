//! What is asked for before bills are sent is not shown, or not answered: those bills wait, each for itself, and are told of.
//! Of the account's sends that says nothing, and other bills go out as ever.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Wish, World, phone};

/// Twice as many as slow an account down.
const COPIES: i64 = 6;

/// So long it is watched that what is told stays.
const WATCHED: Duration = Duration::from_secs(5);

/// Copies of bills that failed, where a check that asks for what one of them made is answered so.
async fn copies_of_unseen(answer: &Value) -> (World, crate::world::Daemon) {
    // A person is told after nine seconds.
    let wish = Wish::default()
        .tune("retry.server_error.initial", "1s")
        .tune("retry.server_error.max", "2s")
        .tune("follow.watch_after_final", "1s");
    let (world, daemon) = World::running_as(wish).await;
    let mut failed = Vec::new();
    for amount in 500..500 + COPIES {
        failed.push(world.bill(phone::CLIENT_NOT_FOUND, amount).await);
    }
    // Nobody else asks for what those made any more.
    let settled = format!("select count(*) = {COPIES} from apipay.invoices where settled");
    world.until_true(&settled).await;
    for job in failed {
        let invoice = world.job(job).await["invoice_id"].clone();
        let fault = json!({"route": "POST /invoices/status/check", "match": invoice.to_string(), "share": 1, "answer": answer});
        world.sandbox.fault(fault).await;
        world
            .sql(&format!("select apipay.retry({job}, 'once more')"))
            .await;
    }
    (world, daemon)
}

/// The alert names a copy, with these words and what helps, for as long as it is watched.
async fn expect_copy_told(world: &World, words: &str) {
    let told = format!(
        "details ->> 'fails' = 'job' and summary like 'Job % (invoice.create) of account default {words}'
         and summary like '%other payments are tried as usual.'
         and action like '%dashboard%select apipay.cancel(%enqueue a new job%'"
    );
    let open = "apipay.alerts where kind = 'gateway_failing'";
    world
        .until_true(&format!("select exists (select from {open} and {told})"))
        .await;
    let until = tokio::time::Instant::now() + WATCHED;
    while tokio::time::Instant::now() < until {
        let alerts = world
            .rows(&format!(
                "select summary, action, details, resolved_at, {told} as is_told, changed_at from {open}"
            ))
            .await;
        assert_eq!(alerts.len(), 1, "{alerts:?}");
        let is_so = alerts[0]["is_told"] == json!(true) && alerts[0]["resolved_at"].is_null();
        assert!(is_so, "{alerts:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The account has not slowed down, and each copy says what it waits for.
async fn expect_sends_well(world: &World) {
    let account = world
        .rows("select failing_since, failing_ended_at, failing_trial_at from apipay.accounts")
        .await;
    let none = json!({"failing_since": null, "failing_ended_at": null, "failing_trial_at": null});
    assert_eq!(account, [none]);
    let waiting = format!(
        "select count(*) = {COPIES} from apipay.overview
          where state = 'queued' and explain like 'Not sent so far: it could not be seen whether invoice % of job %'
            and explain like '%select apipay.cancel(%'"
    );
    world.until_true(&waiting).await;
}

/// What the alert says to do, up to the next semicolon, of which this is the beginning.
async fn advised(world: &World, beginning: &str) -> String {
    let alerts = world
        .rows("select action from apipay.alerts where kind = 'gateway_failing' and resolved_at is null")
        .await;
    let action = alerts[0]["action"].as_str().unwrap();
    let at = action.find(beginning);
    let at = at.unwrap_or_else(|| panic!("{beginning:?} is not advised: {action}"));
    let statement = action[at..].split(';').next();
    statement.unwrap().to_owned()
}

/// All copies are found by what the alert names, not only the one that it tells of, and so is what is done with many at once.
async fn expect_all_found(world: &World) {
    let lists = advised(world, "select id, explain from apipay.overview").await;
    let counted = format!("select count(*) = {COPIES} from ({lists}) as listed");
    world.until_true(&counted).await;
    let tries = advised(world, "select * from apipay.retry_jobs(").await;
    let tried = world.rows(&tries).await;
    assert!(!tried.is_empty(), "{tries}");
    for row in tried {
        // One of which it is being asked just now needs no other try.
        let why_not = row["why_not"].as_str();
        let is_tried = why_not.is_none_or(|why_not| why_not.contains(" is sending: "));
        assert!(is_tried, "{row}");
    }
    advised(world, "select * from apipay.cancel_jobs(array[").await;
}

async fn expect_bills_go_on(answer: Value, words: &str) {
    let (world, daemon) = copies_of_unseen(&answer).await;
    let asked = format!(
        "select count(*) = {COPIES} from apipay.jobs where state in ('queued', 'sending') and lookups >= 2"
    );
    world.until_true(&asked).await;
    let bill = world.bill(phone::PAID, 1500).await;
    world.until(bill, "succeeded").await;
    expect_sends_well(&world).await;
    expect_copy_told(&world, words).await;
    expect_all_found(&world).await;
    expect_sends_well(&world).await;
    world.sandbox.mend().await;
    world.until_all_done_or_held().await;
    world.until_no_alert().await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn copies_whose_originals_are_left_out_slow_no_other_bill() {
    let empty = json!({"status": 200, "json": {"invoices": []}});
    let words = "is not sent, since %: it could not be seen whether invoice %: ApiPay left out invoice %5 more jobs of the account wait so, or have got no clear answer.%";
    expect_bills_go_on(empty, words).await;
}

#[tokio::test]
async fn copies_of_whose_originals_nothing_clear_is_said_slow_no_other_bill() {
    let words = "has got no clear answer since %(HTTP 500: it could not be seen whether invoice %It is not sent before ApiPay \
                 answers POST /invoices/status/check. 5 more jobs of the account have got none either.%";
    expect_bills_go_on(json!({"preset": "500_json"}), words).await;
}

/// While all checks fail, the account's open bills are told of; so are the copies that wait with them, how many they are, where
/// they stand, and what has all of them tried.
#[tokio::test]
async fn copies_that_wait_while_all_checks_fail_are_counted_listed_and_tried_by_what_the_alert_names()
 {
    let wish = Wish::default()
        .tune("retry.server_error.initial", "100ms")
        .tune("retry.server_error.max", "300ms")
        .tune("follow.max", "1s");
    let (world, daemon) = World::running_as(wish).await;
    let mut failed = Vec::new();
    for amount in 500..500 + COPIES {
        failed.push(world.bill(phone::CLIENT_NOT_FOUND, amount).await);
    }
    world.until_all_final().await;
    // It is checked until it is paid.
    let open = world.bill(phone::UNPAID, 500).await;
    world.until(open, "succeeded").await;
    world
        .sandbox
        .fault(json!({"route": "POST /invoices/status/check", "share": 1, "answer": {"preset": "500_json"}}))
        .await;
    world
        .sql(&format!(
            "select * from apipay.retry_jobs(array{failed:?}, 'once more')"
        ))
        .await;
    let told = format!(
        "select exists (select from apipay.alerts where kind = 'gateway_failing' and resolved_at is null and details ->> 'fails' = 'reads'
            and summary like '%. {COPIES} bills that repeat earlier ones are not sent before ApiPay shows that nothing of those lives (new bills do not wait for that).%Other payments are tried as usual.')"
    );
    world.until_true(&told).await;
    let status = format!(
        "select explain like 'Sending: %; but {COPIES} bills that repeat earlier ones are not sent before ApiPay shows %' from apipay.account_status"
    );
    world.until_true(&status).await;
    // The bills that are open are no part of it.
    let lists = advised(&world, "select * from apipay.overview").await;
    let counted = format!(
        "select count(*) = {COPIES} from ({lists}) as listed where state in ('queued', 'sending') and retry_of is not null"
    );
    world.until_true(&counted).await;
    // Those that are being asked about are counted, too.
    assert!(lists.contains("'sending'"), "{lists}");
    // They are asked about ever less often.
    let far = format!(
        "with far as (update apipay.jobs set run_at = now() + interval '1 hour' where state = 'queued' and reason = 'earlier_unseen' returning 1)
         select to_jsonb(count(*) = {COPIES}) from far"
    );
    world
        .until_holds("all copies wait for long", async || {
            world.value(&far).await == json!(true)
        })
        .await;
    world.sandbox.mend().await;
    let resumes = advised(&world, "select apipay.resume(").await;
    let counted = world.value(&format!("select to_jsonb(({resumes}))")).await;
    assert_eq!(counted, json!(COPIES));
    world.until_all_final().await;
    world.until_no_alert().await;
    world.end([daemon]).await;
}
