//! What time has made of jobs is put right account by account: one that has very much of it does not have others wait.

use std::time::Duration;

use serde_json::json;

use crate::world::{Wish, World, phone};

/// Jobs of the account that has very many.
const MANY: i64 = 50_000;

/// Two accounts, of which the first has very many jobs and the other a few, as the columns say.
async fn two_accounts(columns: &str, values: &str) -> World {
    let world = World::made(Wish::default().accounts(&["branch", "clinic"])).await;
    // A daemon makes the accounts.
    let mut daemon = world.daemon().await;
    daemon.stop().await;
    world
        .sql(&format!(
            "set session_replication_role = replica;
             insert into apipay.jobs (token, account, operation, params, {columns})
             select gen_random_uuid(), a.name, 'invoice.create', '{{\"phone_number\": \"{}\", \"amount\": 100}}', {values}
               from (values ('branch', {MANY}), ('clinic', 20)) as a(name, jobs), generate_series(1, a.jobs);
             set session_replication_role = origin",
            phone::UNPAID
        ))
        .await;
    world
}

/// Waits until those of the clinic have moved, and sees that most of the others have not.
async fn expect_the_few_first(world: &World, unmoved: &str) {
    let few = format!(
        "select not exists (select from apipay.jobs where account = 'clinic' and {unmoved})"
    );
    world.until_true(&few).await;
    let others = format!("apipay.jobs where account = 'branch' and {unmoved}");
    let others = world.count(&others).await;
    assert!(others > MANY / 2, "{unmoved}: {others} of {MANY} are left");
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_jobs_of_one_account_do_not_stop_the_payments_of_another() {
    let world = two_accounts(
        "expires_at",
        "case a.name when 'branch' then '-infinity' else now() - interval '1 second' end",
    )
    .await;
    let mut bills = Vec::new();
    for _ in 0..5 {
        let params = json!({"phone_number": phone::UNPAID, "amount": 100});
        let columns = json!({"account": "clinic"});
        bills.push(world.enqueue_with("invoice.create", params, columns).await);
    }
    let mut daemon = world.daemon().await;
    expect_the_few_first(&world, "state = 'queued' and expires_at is not null").await;
    let sent = "select count(*) = 5 from apipay.jobs where account = 'clinic' and expires_at is null and attempts > 0";
    tokio::time::timeout(Duration::from_secs(10), world.until_true(sent))
        .await
        .unwrap();
    daemon.stop().await;
    world.end_unchecked().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_on_of_one_account_does_not_have_another_wait() {
    for (columns, values, unmoved) in [
        (
            "state, reason",
            "'parked', 'session_expired'",
            "state = 'parked'",
        ),
        ("reason", "'waits_for_cap'", "reason = 'waits_for_cap'"),
        (
            "reason, failing_since, run_at",
            "'network', now() - interval '1 minute', now() + interval '1 hour'",
            "failing_since is not null",
        ),
    ] {
        let world = two_accounts(columns, values).await;
        world
            .sql("update apipay.accounts set failing_ended_at = now()")
            .await;
        let mut daemon = world.daemon().await;
        expect_the_few_first(&world, unmoved).await;
        daemon.stop().await;
        world.end_unchecked().await;
    }
}
