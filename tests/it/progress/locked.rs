//! What another session keeps locked: the alert names that session and what ends it, whichever lock it is.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection};
use tokio::time::sleep;

use super::{check, told, until_told, wish};
use crate::world::{World, phone};

/// A session of somebody else's, as the owner of the tables, that names itself.
async fn stranger(world: &World, name: &str) -> (PgConnection, i32) {
    session(&world.database.url_of("postgres"), name).await
}

pub(super) async fn session(url: &str, name: &str) -> (PgConnection, i32) {
    let options: PgConnectOptions = url.parse().unwrap();
    let mut session = PgConnection::connect_with(&options.application_name(name))
        .await
        .unwrap();
    sqlx::raw_sql("set idle_in_transaction_session_timeout = 0; set lock_timeout = 0; set statement_timeout = 0")
        .execute(&mut session)
        .await
        .unwrap();
    let pid = sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(&mut session)
        .await
        .unwrap();
    (session, pid)
}

pub(super) async fn run(session: &mut PgConnection, statements: &str) {
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))
        .execute(session)
        .await
        .unwrap();
}

/// Waits for the delivery about a table. Each statement of the daemon waits ten seconds for the lock first, and so would the
/// report of a test that fails.
pub(super) async fn until_named(world: &World, words: &[&str]) -> Value {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let named = told(world, "firing").into_iter().find(|delivery| {
            let text = delivery["commonAnnotations"].to_string();
            words.iter().all(|word| text.contains(word))
        });
        if let Some(delivery) = named {
            return delivery;
        }
        assert!(
            Instant::now() < deadline,
            "never told: {words:?}\n{}",
            world.said()
        );
        sleep(Duration::from_millis(100)).await;
    }
}

/// The delivery names the session, what it calls itself, how it stands and what ends it.
fn expect_named(delivery: &Value, pid: i32, name: &str, words: &[&str]) {
    let text = delivery["commonAnnotations"].to_string();
    let end = format!("select pg_terminate_backend({pid});");
    for part in [&format!("session {pid} "), name, &end]
        .into_iter()
        .map(|part: &str| part)
        .chain(words.iter().copied())
    {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(!text.contains("7001234567"), "{text}");
}

#[tokio::test]
async fn who_keeps_an_account_locked_is_named() {
    let (world, daemon) = World::running_as(wish()).await;
    // Its row is made with the first claim.
    let first = world.bill(phone::PAID, 1500).await;
    world.until(first, "succeeded").await;
    // Of its own user's sessions a role may see what they run.
    let (mut session, pid) = session(&world.database.url(), "report of the month").await;
    run(
        &mut session,
        "begin; select from apipay._quotas where account = 'default' and '+77001234567' <> '' for update",
    )
    .await;
    let job = world.bill(phone::PAID, 1500).await;
    let delivery = until_told(
        &world,
        "firing",
        &["report of the month", "none is taken up"],
    )
    .await;
    expect_named(
        &delivery,
        pid,
        "report of the month",
        &["idle in transaction", "select from apipay._quotas where"],
    );
    run(&mut session, "rollback").await;
    world.until(job, "succeeded").await;
    until_told(&world, "resolved", &[]).await;
    world.end([daemon]).await;
}

/// Two sessions keep a row of one account each, and `check` waits for both rows while the daemon looks.
#[tokio::test]
async fn whoever_keeps_only_rows_of_another_account_is_not_named() {
    let (world, daemon) = World::running_as(wish().accounts(&["default", "clinic"])).await;
    for account in ["default", "clinic"] {
        let first = world.bill_of(account).await;
        world.until(first, "succeeded").await;
    }
    let (mut report, reporter) = session(&world.database.url(), "report of the month").await;
    run(
        &mut report,
        "begin; select from apipay._quotas where account = 'default' for update",
    )
    .await;
    let (mut operator, parker) = stranger(&world, "psql of aida").await;
    run(
        &mut operator,
        "begin; select apipay.park('clinic', 'moving'), apipay.resume('clinic', 'moved')",
    )
    .await;
    let job = world.bill(phone::PAID, 1500).await;
    until_told(&world, "firing", &["report of the month"]).await;
    let told = "select to_jsonb(summary || ' ' || action) from apipay.alerts
                 where kind = 'no_progress' and account = 'default' and resolved_at is null";
    for _ in 0..8 {
        let (_, said) = check(&world, &world.database.url()).await;
        for (account, table, keeper, other) in [
            ("default", "_quotas", reporter, parker),
            ("clinic", "accounts", parker, reporter),
        ] {
            let kept =
                format!("the row of account {account} in apipay.{table} is kept locked by session");
            assert!(said.contains(&format!("{kept} {keeper} ")), "{said}");
            assert!(!said.contains(&format!("{kept} {other} ")), "{said}");
        }
        let told = world.value(told).await.to_string();
        assert!(told.contains(&format!("session {reporter} ")), "{told}");
        assert!(!told.contains(&format!("session {parker} ")), "{told}");
    }
    for session in [&mut report, &mut operator] {
        run(session, "rollback").await;
    }
    world.until(job, "succeeded").await;
    until_told(&world, "resolved", &[]).await;
    world.end([daemon]).await;
}

/// What a request means for its account is written first, and waits for the account's row.
#[tokio::test]
async fn who_keeps_an_account_from_being_told_what_its_requests_got_is_named() {
    let (world, daemon) = World::running_as(wish()).await;
    let busy = json!({"route": "POST /invoices", "times": 1, "answer": {"preset": "429_minute"}});
    world.sandbox.fault(busy).await;
    let (mut session, pid) = stranger(&world, "an audit").await;
    run(
        &mut session,
        "begin; select from apipay.accounts where name = 'default' for no key update",
    )
    .await;
    let job = world.bill(phone::PAID, 1500).await;
    let delivery = until_told(&world, "firing", &["an audit"]).await;
    expect_named(
        &delivery,
        pid,
        "an audit",
        &["the row of account default in apipay.accounts"],
    );
    run(&mut session, "rollback").await;
    world.sql("select apipay.resume('default', 'now')").await;
    world.until(job, "succeeded").await;
    until_told(&world, "resolved", &[]).await;
    world.end([daemon]).await;
}

/// The open alert of its park explains what waits for the account, and not that nobody probes it.
#[tokio::test]
async fn who_keeps_a_parked_account_from_its_probes_is_named() {
    let (world, daemon) = World::running_as(wish()).await;
    world.sandbox.session("expired").await;
    let job = world.bill(phone::PAID, 1500).await;
    world.until(job, "parked").await;
    let (mut session, pid) = stranger(&world, "psql of aida").await;
    run(
        &mut session,
        // The database's default isolation would have it refused beside a daemon that probes so often.
        "begin isolation level read committed; select apipay.resume('default', 'the cashier logged in')",
    )
    .await;
    world.sandbox.session("active").await;
    let delivery = until_told(&world, "firing", &["psql of aida"]).await;
    expect_named(
        &delivery,
        pid,
        "psql of aida",
        &[
            "the row of account default in apipay.accounts",
            "no daemon asks ApiPay whether it is well again",
        ],
    );
    let explained = [
        format!("select to_jsonb(explain) from apipay.overview where id = {job}"),
        "select to_jsonb(explain) from apipay.account_status".to_owned(),
    ];
    for sentence in explained {
        let sentence = world.value(&sentence).await.to_string();
        assert!(sentence.contains("a probe is due since"), "{sentence}");
        assert!(!sentence.contains("probed next"), "{sentence}");
    }
    let mut check = world.spawn(&["check"], &[]);
    check.ended(Duration::from_secs(60)).await;
    let said = check.log_text();
    let line =
        format!("the row of account default in apipay.accounts is kept locked by session {pid} ");
    assert!(said.contains(&line), "{said}");
    run(&mut session, "rollback").await;
    world.until(job, "succeeded").await;
    until_told(&world, "resolved", &[]).await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn who_keeps_an_invoice_from_being_checked_is_named_with_it() {
    let (world, daemon) = World::running_as(wish()).await;
    let job = world.bill(phone::UNPAID, 1500).await;
    world.until(job, "succeeded").await;
    let invoice = world.job(job).await["invoice_id"].as_i64().unwrap();
    let (mut session, pid) = stranger(&world, "reconciliation").await;
    run(
        &mut session,
        &format!("begin; select from apipay.invoices where id = {invoice} for update"),
    )
    .await;
    let named = format!("Invoice {invoice} of account default is due to be checked");
    let delivery = until_told(&world, "firing", &[&named]).await;
    expect_named(&delivery, pid, "reconciliation", &["keeps its row locked"]);
    assert!(!delivery.to_string().contains("What ApiPay accepted"));
    let mut check = world.spawn(&["check"], &[]);
    check.ended(Duration::from_secs(60)).await;
    let said = check.log_text();
    let line = format!(
        "invoice {invoice} of account default is due to be checked and kept locked by session {pid} "
    );
    assert!(said.contains(&line), "{said}");
    run(&mut session, "rollback").await;
    until_told(&world, "resolved", &[]).await;
    world.end([daemon]).await;
}

/// Nothing can be read either, and the outbox cannot be emptied: it is told from memory.
#[tokio::test]
async fn who_keeps_a_table_locked_is_named_while_nothing_can_be_read() {
    let (world, daemon) = World::running_as(wish()).await;
    let (mut session, pid) = stranger(&world, "migration of the shop").await;
    run(
        &mut session,
        "begin; lock table apipay.jobs in access exclusive mode",
    )
    .await;
    let delivery = until_named(&world, &["migration of the shop"]).await;
    expect_named(
        &delivery,
        pid,
        "migration of the shop",
        &["keeps apipay.jobs locked"],
    );
    // The database can be reached, and the status line says who is in the way.
    let status = "the database is locked; nothing is sent: NO PROGRESS: ";
    daemon.until_told(status).await;
    daemon.until_told(&format!("Session {pid} ")).await;
    assert!(!daemon.was_told("the database cannot be reached"));
    run(&mut session, "rollback").await;
    let job = world.bill(phone::PAID, 1500).await;
    world.until(job, "succeeded").await;
    until_told(&world, "resolved", &[]).await;
    world.end([daemon]).await;
}

/// A lock that is only waited for keeps everybody out who comes after it.
#[tokio::test]
async fn who_waits_for_a_table_behind_a_long_transaction_is_named_with_that() {
    let (world, daemon) = World::running_as(wish()).await;
    let (mut reading, reader) = stranger(&world, "long report").await;
    run(&mut reading, "begin; select count(*) from apipay.jobs").await;
    let (mut altering, alterer) = stranger(&world, "deployment").await;
    let waiting = tokio::spawn(async move {
        run(
            &mut altering,
            "begin; alter table apipay.jobs add column mine text; rollback",
        )
        .await;
    });
    let delivery = until_named(&world, &["deployment", "waits"]).await;
    expect_named(
        &delivery,
        alterer,
        "deployment",
        &["waits to lock apipay.jobs"],
    );
    expect_named(&delivery, reader, "long report", &["it waits for session"]);
    run(&mut reading, "rollback").await;
    waiting.await.unwrap();
    let job = world.bill(phone::PAID, 1500).await;
    world.until(job, "succeeded").await;
    until_told(&world, "resolved", &[]).await;
    world.end([daemon]).await;
}
