//! The table of answers: whatever the gateway or the network does to a request, the job ends as it
//! should, with at most one effect.
//!
//! Each case has an account of its own, so all of them run side by side in one world.

mod cases;
mod throttles;
mod trial;
mod unreadable;

use std::fmt::Write;

use serde_json::json;

use cases::Then::{Fails, ParksFor};
use cases::{Case, SENT_AGAIN, answered};
use trial::{Books, Trial};

use crate::world::{Bait, Certificates, Job, Wish, World};

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_answered_to_a_create_it_ends_as_it_should() {
    let elsewhere = Bait::lay().await;
    let mut cases = cases::all(elsewhere.addr);
    // Nothing is asked for by its number, and no document lists a 404 of this call: only the path can be missing.
    cases.push(answered("404_message", ParksFor("route_not_found")));
    check(Operation::Create, Protection::Key, cases).await;
    elsewhere.expect_nobody();
}

/// The key protects nobody: look-ups alone must tell what was done.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_gateway_without_keys_answers_to_a_create_it_ends_as_it_should() {
    let elsewhere = Bait::lay().await;
    check(
        Operation::Create,
        Protection::Lookup,
        cases::unclear(elsewhere.addr),
    )
    .await;
    elsewhere.expect_nobody();
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_answered_to_a_cancel_it_ends_as_it_should() {
    let elsewhere = Bait::lay().await;
    let mut cases = cases::all(elsewhere.addr);
    // What the invoice is, decides: it is still there, so it is cancelled again.
    cases.push(answered("400_cannot_be_cancelled", SENT_AGAIN));
    cases.push(answered("404_message", Fails { status: 404 }));
    check(Operation::Cancel, Protection::Key, cases).await;
    elsewhere.expect_nobody();
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_answered_to_a_refund_it_ends_as_it_should() {
    let elsewhere = Bait::lay().await;
    let mut cases = cases::all(elsewhere.addr);
    cases.push(answered("404_message", Fails { status: 404 }));
    cases.push(answered("400_not_refundable", Fails { status: 400 }));
    cases.push(answered("400_refund_exceeds", Fails { status: 400 }));
    cases.push(answered("422_refund_window_expired", Fails { status: 422 }));
    check(Operation::Refund, Protection::Key, cases).await;
    elsewhere.expect_nobody();
}

/// Nothing is refunded before the refunds that there are already are known.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_answered_to_the_reading_before_a_refund_it_is_read_again() {
    let elsewhere = Bait::lay().await;
    let cases = cases::of_a_reading(elsewhere.addr);
    check(Operation::Baseline, Protection::Key, cases).await;
    elsewhere.expect_nobody();
}

/// An error is not a "no": the invoice is there, and it is found in the end.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_answered_to_a_look_up_it_is_looked_up_again() {
    let elsewhere = Bait::lay().await;
    let cases = cases::of_a_reading(elsewhere.addr);
    check(Operation::Search, Protection::Key, cases).await;
    elsewhere.expect_nobody();
}

/// What keeps a gateway from doing a create twice.
#[derive(Clone, Copy, PartialEq)]
enum Protection {
    Key,
    Lookup,
}

#[derive(Clone, Copy)]
enum Operation {
    Create,
    Cancel,
    Refund,
    /// A refund whose reading of what was refunded before meets the fault.
    Baseline,
    /// A create whose answer is lost, and whose look-up meets the fault.
    Search,
}

impl Operation {
    /// Where it is sent.
    fn route(self) -> &'static str {
        match self {
            Operation::Create | Operation::Search => "POST /invoices",
            Operation::Cancel => "POST /invoices/{id}/cancel",
            Operation::Refund | Operation::Baseline => "POST /invoices/{id}/refund",
        }
    }

    /// Where the fault is.
    fn faulted(self) -> &'static str {
        match self {
            Operation::Baseline => "GET /invoices/{id}/refunds",
            Operation::Search => "GET /invoices",
            _ => self.route(),
        }
    }

    async fn enqueue(self, world: &World, account: &str) -> Job {
        let key = world.key(account);
        let (operation, params) = match self {
            Operation::Create | Operation::Search => {
                let params = json!({"phone_number": "87015550011", "amount": 700});
                ("invoice.create", params)
            }
            Operation::Cancel => {
                let id = world
                    .sandbox
                    .invoice(&key, json!({"status": "pending"}))
                    .await;
                ("invoice.cancel", json!({"invoice_id": id}))
            }
            Operation::Refund | Operation::Baseline => {
                let id = world.sandbox.invoice(&key, json!({"status": "paid"})).await;
                ("invoice.refund", json!({"invoice_id": id, "amount": 100}))
            }
        };
        world
            .enqueue_with(operation, params, json!({"account": account}))
            .await
    }
}

async fn check(operation: Operation, protection: Protection, cases: Vec<Case>) {
    let names: Vec<String> = (0..cases.len()).map(|n| format!("case{n}")).collect();
    // So many at once are slow on a small machine: what was answered late must not count as lost.
    let mut wish = Wish::default()
        .accounts(&names)
        .tune("http.timeout", "5s")
        .tune("http.max_body_bytes", "262144")
        .tune("worker.lease", "20s")
        .tune("worker.grace", "10s");
    if protection == Protection::Lookup {
        wish = wish.without_keys();
    }
    // Each account reads the authorities, and the system has many: here that is most of the start.
    wish.roots = Some(Certificates::made().authority);
    let world = World::made(wish).await;
    let mut trials = Vec::new();
    for (case, account) in cases.iter().zip(&names) {
        let mut fault = case.fault.clone();
        fault["route"] = operation.faulted().into();
        fault["organization"] = account.as_str().into();
        fault["name"] = case.name.as_str().into();
        world.sandbox.fault(fault).await;
        if matches!(operation, Operation::Search) {
            let lost =
                json!({"route": operation.route(), "organization": account, "cut": "after_effect"});
            world.sandbox.fault(lost).await;
        }
        trials.push(Trial {
            world: &world,
            operation,
            case,
            account,
            job: operation.enqueue(&world, account).await,
        });
    }
    let daemon = world.daemon().await;
    // First those that wait for long: they are looked at before their wait is over.
    let (waiting, others): (Vec<_>, Vec<_>) = trials.into_iter().partition(Trial::waits);
    let mut wrong = examine(&world, &waiting).await;
    wrong += &examine(&world, &others).await;
    assert!(wrong.is_empty(), "\n{wrong}");
    expect_notices(&world, &cases).await;
    for trial in &waiting {
        trial.expect_return().await;
    }
    let peak = daemon.peak_memory();
    assert!(peak < MEMORY, "{} MiB at the most", peak >> 20);
    world.end([daemon]).await;
}

/// What a debug build may take, whatever is sent to it. It starts with less than half of that.
const MEMORY: u64 = 80 << 20;

/// What is wrong, a line for each case.
async fn examine(world: &World, trials: &[Trial<'_>]) -> String {
    let mut settled = Vec::new();
    for trial in trials {
        settled.push(trial.settle().await);
    }
    let books = Books::read(world).await;
    let mut wrong = String::new();
    for (trial, settled) in trials.iter().zip(settled) {
        let checked = match settled {
            Ok(row) => trial.check(&row, &books).await,
            Err(problem) => Err(problem),
        };
        if let Err(problem) = checked {
            let row = world.job(trial.job).await;
            let (name, state, reason) = (&trial.case.name, &row["state"], &row["reason"]);
            let (status, code) = (&row["http_status"], &row["error_code"]);
            writeln!(
                wrong,
                "{name}: {problem}; the job is {state} ({reason}), {status} {code}"
            )
            .unwrap();
        }
    }
    wrong
}

/// Each park that ended was told of once when it began and once when it ended.
async fn expect_notices(world: &World, cases: &[Case]) {
    // Without a job as proof a park's alert ends a little later.
    world
        .until_true(
            "select not exists (select from apipay.alert_deliveries where delivered_at is null)
               and not exists (select from apipay.alerts where kind = 'account_parked' and resolved_at is null)
               and not exists (
                 select from apipay.alerts l where l.kind = 'account_parked' and not exists (
                   select from apipay.alert_deliveries d
                   where d.alert_id = l.id and d.channel = 'webhook' and d.status = 'resolved' and d.delivered_at is not null))",
        )
        .await;
    let parks = cases
        .iter()
        .filter(|case| matches!(case.then, ParksFor(_)) || case.name == "503_html")
        .count();
    let mut resolved = world.alerts.deliveries("resolved");
    resolved.retain(|delivery| delivery["alerts"][0]["labels"]["kind"] == "account_parked");
    assert_eq!(resolved.len(), parks, "{resolved:?}");
}
