//! What was told of an account ends when no daemon serves it any more: nothing of it is asked, so nothing is seen of it.

use rustix::process::Signal;
use serde_json::json;

use super::{obey, open, until_ended};
use crate::world::{Daemon, Job, Wish, World};

/// Payers whose bills get no clear answer, are refused for a reason of their own, and are accepted.
const FAILING: &str = "87015550031";
const REFUSED: &str = "87015550032";

/// With the shortest lease that its cross-check allows: what is told of accounts that nobody serves waits for some of them.
fn quick() -> Wish {
    Wish::default()
        .accounts(&["default", "other"])
        .tune("http.timeout", "1s")
        .tune("worker.lease", "11100ms")
        .tune("retry.server_error.initial", "100ms")
        .tune("retry.server_error.max", "1s")
}

async fn bill(world: &World, payer: &str) -> Job {
    let params = json!({"phone_number": payer, "amount": 700});
    world.enqueue("invoice.create", params).await
}

/// A daemon with two alerts of one of its accounts: a job that gets no clear answer, and one that is refused.
async fn told() -> (World, Daemon) {
    let (world, daemon) = World::running_as(quick()).await;
    let refusal = json!({"status": 429, "json": {"error": "outstanding_recipient_limit", "retry_after_seconds": 1,
        "error_code": "outstanding_recipient_limit", "message": "Too many unpaid invoices"}});
    for (payer, answer) in [(FAILING, json!({"preset": "502_html"})), (REFUSED, refusal)] {
        world
            .sandbox
            .fault(
                json!({"route": "POST /invoices", "match": payer, "share": 1.0, "answer": answer}),
            )
            .await;
        bill(&world, payer).await;
    }
    open(&world, "gateway_failing", "details ->> 'fails' = 'job'").await;
    open(&world, "job_refused", "true").await;
    (world, daemon)
}

/// Takes the account out of the configuration.
async fn take_out(world: &World, daemon: &Daemon) {
    world.configure(&["other"]);
    daemon.signal(Signal::HUP);
    world
        .until_true("select accounts = '{other}' from apipay.daemons")
        .await;
}

async fn resolution(world: &World, kind: &str) -> String {
    let query = format!("select to_jsonb(resolution) from apipay.alerts where kind = '{kind}'");
    world.value(&query).await.as_str().unwrap().to_owned()
}

/// The statements that the alert `no_progress` gives end what waits, and every alert that was about it.
#[tokio::test]
async fn what_was_told_of_an_account_ends_when_nobody_is_to_serve_it_any_more() {
    let (world, daemon) = told().await;
    take_out(&world, &daemon).await;
    let alert = open(&world, "no_progress", "account = 'default'").await;
    obey(&world, &alert).await;
    for kind in ["gateway_failing", "job_refused", "no_progress"] {
        until_ended(&world, kind, "true").await;
    }
    // What may have been sent is left to a daemon.
    let unsent = "apipay.jobs where state in ('queued', 'parked') and unproven_since is null";
    assert_eq!(world.count(unsent).await, 0);
    // The one that is left says how it is told no more.
    let parked = open(&world, "account_parked", "true").await;
    let silence = parked["action"].as_str().unwrap();
    let silence = &silence[silence.find("select apipay.acknowledge").unwrap()..];
    world.sql(silence).await;
    open(&world, "account_parked", "acked_at is not null").await;
    world.sandbox.mend().await;
    world.configure(&["default", "other"]);
    daemon.signal(Signal::HUP);
    world
        .sql("select apipay.resume('default', 'back again')")
        .await;
    world.until_all_final().await;
    world.end([daemon]).await;
}

/// Nothing is said in the present tense of what nobody asks.
#[tokio::test]
async fn what_nobody_sees_any_more_is_not_told_again_and_comes_back_with_its_daemon() {
    let (world, daemon) = told().await;
    take_out(&world, &daemon).await;
    open(&world, "no_progress", "account = 'default'").await;
    for kind in ["gateway_failing", "job_refused"] {
        until_ended(&world, kind, "true").await;
        let how = resolution(&world, kind).await;
        assert!(
            how.starts_with("no running apipayd serves it any more"),
            "{how}"
        );
    }
    world.configure(&["default", "other"]);
    daemon.signal(Signal::HUP);
    for kind in ["gateway_failing", "job_refused"] {
        open(&world, kind, "true").await;
    }
    world.sandbox.mend().await;
    world.until_all_final().await;
    world.until_no_alert().await;
    world.end([daemon]).await;
}
