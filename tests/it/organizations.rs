//! An account is one organisation: what another one's key does not find proves nothing.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tokio::time::sleep;

use crate::world::{Daemon, Job, Wish, World, phone, write_private};

const OPEN: &str = "from apipay.alerts where kind = 'other_organization' and resolved_at is null";

/// A request that is done and gets no clear answer.
fn unclear() -> Value {
    json!({"route": "POST /invoices", "effect": "apply", "answer": {"status": 502, "json": {"message": "bad gateway"}}})
}

/// A daemon of the same account with another key.
async fn with_key(world: &World, key: &str) -> Daemon {
    let file = world.key_file(key);
    write_private(&file, &world.key(key));
    let setting = (
        "accounts.default.api_key_file",
        file.to_str().unwrap().to_owned(),
    );
    world.tuned_daemon(&[setting]).await
}

async fn until_refused(world: &World) -> Value {
    world
        .until_true(&format!("select exists (select {OPEN})"))
        .await;
    let row = world.rows(&format!("select * {OPEN}")).await.remove(0);
    assert_eq!(row["severity"], "critical", "{row}");
    row
}

async fn until_accepted(world: &World) {
    world
        .until_true(&format!("select not exists (select {OPEN})"))
        .await;
}

/// Invoices are as many as these jobs, each once, whoever has them.
async fn expect_one_effect_each(world: &World, jobs: &[Job]) {
    for job in jobs {
        let effects = world.effects_of(*job).await;
        assert_eq!(effects.len(), 1, "{effects:?}");
    }
    let mut made = world.sandbox.effects().await;
    made.retain(|effect| effect["kind"] == "invoice.create");
    assert_eq!(made.len(), jobs.len(), "{made:?}");
}

/// Routes of requests with another key than the one that the first request had.
async fn foreign_routes(world: &World) -> Vec<String> {
    let requests = world.sandbox.all_requests().await;
    let own = &requests[0]["key"];
    let foreign = requests.iter().filter(|request| request["key"] != *own);
    foreign
        .map(|request| request["route"].as_str().unwrap().to_owned())
        .collect()
}

async fn acknowledge(world: &World) -> Result<(), sqlx::Error> {
    let statement = format!("select apipay.acknowledge(id, 'it is right') {OPEN}");
    let mut transaction = world.pool().begin().await?;
    sqlx::raw_sql("set local role apipay_operator")
        .execute(&mut *transaction)
        .await?;
    sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}

#[tokio::test]
async fn a_second_daemon_with_the_key_of_another_organisation_serves_nothing() {
    let (world, own) = World::running().await;
    let mut jobs = vec![world.bill(phone::PAID, 500).await];
    world.until(jobs[0], "succeeded").await;
    let mut other = with_key(&world, "other").await;
    let alert = until_refused(&world).await;
    assert!(
        alert["summary"]
            .as_str()
            .unwrap()
            .contains("shows it none of the 1 newest invoices"),
        "{alert}"
    );
    let mut fault = unclear();
    fault["times"] = 8.into();
    world.sandbox.fault(fault).await;
    for _ in 0..12 {
        jobs.push(world.bill(phone::PAID, 500).await);
    }
    world.until_all_final().await;
    expect_one_effect_each(&world, &jobs).await;
    let foreign = foreign_routes(&world).await;
    assert!(
        !foreign.is_empty()
            && foreign
                .iter()
                .all(|route| route == "POST /invoices/status/check"),
        "{foreign:?}"
    );
    let refusal = acknowledge(&world).await.unwrap_err().to_string();
    assert!(refusal.contains("serves it with another key"), "{refusal}");
    other.stop().await;
    until_accepted(&world).await;
    world.end([own, other]).await;
}

#[tokio::test]
async fn a_bill_without_a_clear_answer_is_not_looked_up_with_the_key_of_another_organisation() {
    let wish = Wish::default().tune("reconcile.quiet_after_answer", "2s");
    let (world, mut own) = World::running_as(wish).await;
    world.sandbox.fault(unclear()).await;
    let job = world.bill(phone::PAID, 500).await;
    world.until(job, "uncertain").await;
    own.stop().await;
    let mut other = with_key(&world, "other").await;
    let alert = until_refused(&world).await;
    assert!(
        alert["summary"]
            .as_str()
            .unwrap()
            .contains("there is no invoice yet"),
        "{alert}"
    );
    sleep(Duration::from_secs(4)).await;
    assert_eq!(world.job(job).await["state"], "uncertain");
    let file = world.key_file("other").to_str().unwrap().to_owned();
    let mut check = world.spawn(&["check"], &[("accounts.default.api_key_file", file)]);
    check.ended(Duration::from_secs(15)).await;
    let said = check.log_text();
    assert!(said.contains("does not know this key"), "{said}");
    let mut foreign = foreign_routes(&world).await;
    // As `check` does.
    foreign.retain(|route| route != "GET /account/health");
    assert_eq!(foreign, [""; 0]);
    other.stop().await;
    let own = world.daemon().await;
    world.until(job, "succeeded").await;
    until_accepted(&world).await;
    expect_one_effect_each(&world, &[job]).await;
    world.end([own]).await;
}

#[tokio::test]
async fn another_key_of_the_same_organisation_goes_on_after_one_question() {
    let (world, mut earlier) = World::running().await;
    let first = world.bill(phone::PAID, 500).await;
    world.until(first, "succeeded").await;
    world
        .sandbox
        .organisation(
            json!({"organisation": world.key("default"), "add_key": world.key("renewed")}),
        )
        .await;
    earlier.stop().await;
    let renewed = with_key(&world, "renewed").await;
    let second = world.bill(phone::PAID, 500).await;
    world.until(second, "succeeded").await;
    // Both are known from now on, and neither takes the place of the other.
    let earlier = world.daemon().await;
    let third = world.bill(phone::PAID, 500).await;
    world.until(third, "succeeded").await;
    sleep(Duration::from_secs(3)).await;
    world
        .until_true("select cardinality(key_fingerprints) = 2 from apipay.accounts")
        .await;
    assert_eq!(world.count("apipay.alerts").await, 0);
    expect_one_effect_each(&world, &[first, second, third]).await;
    world.end([renewed, earlier]).await;
}

#[tokio::test]
async fn an_account_for_which_nothing_was_sent_takes_another_key_at_once() {
    let (world, mut mistaken) = World::running().await;
    world
        .until_true("select cardinality(key_fingerprints) = 1 from apipay.accounts")
        .await;
    mistaken.stop().await;
    let right = with_key(&world, "other").await;
    let job = world.bill(phone::PAID, 500).await;
    world.until(job, "succeeded").await;
    assert_eq!(world.count("apipay.alerts").await, 0);
    expect_one_effect_each(&world, &[job]).await;
    world.end([right]).await;
}

#[tokio::test]
async fn an_account_is_for_another_organisation_once_a_person_has_said_so() {
    let wish = Wish::default().tune("reconcile.quiet_after_answer", "2s");
    let (world, mut earlier) = World::running_as(wish).await;
    let paid = world.bill(phone::PAID, 500).await;
    world.until(paid, "succeeded").await;
    world.sandbox.fault(unclear()).await;
    let open = world.bill(phone::PAID, 500).await;
    world.until(open, "uncertain").await;
    earlier.stop().await;
    let now = with_key(&world, "other").await;
    until_refused(&world).await;
    acknowledge(&world).await.unwrap();
    // It may have been sent to the other organisation, where nobody looks any more.
    world.until(open, "held").await;
    let next = world.bill(phone::PAID, 500).await;
    world.until(next, "succeeded").await;
    expect_one_effect_each(&world, &[paid, open, next]).await;
    assert_eq!(
        world
            .count("apipay.events where subject = 'account' and reason = 'it is right'")
            .await,
        1
    );
    // The earlier key is not believed any more, although its organisation has invoices of the account.
    let mut earlier = world.daemon().await;
    let alert = until_refused(&world).await;
    assert!(
        alert["summary"].as_str().unwrap().contains("1 newest"),
        "{alert}"
    );
    earlier.stop().await;
    until_accepted(&world).await;
    world
        .until_true("select exists (select from apipay.alerts where kind = 'job_held' and resolved_at is null)")
        .await;
    world.end([now, earlier]).await;
}
