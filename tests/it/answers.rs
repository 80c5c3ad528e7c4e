//! The table of answers: whatever the gateway or the network does to a request, the job ends as it
//! should, with at most one effect.
//!
//! Each case has an account of its own, so all of them run side by side in one world.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::world::{Job, Wish, World};

/// What is done to the first request, and what must become of the job.
struct Case {
    name: &'static str,
    fault: Value,
    then: Then,
}

enum Then {
    /// It succeeds, with so many sends and one effect.
    Succeeds { sends: usize },
    /// It fails at once, with nothing done.
    Fails { status: u16 },
    /// Its account is parked for this reason; after a probe it is sent once more and succeeds.
    ParksFor(&'static str),
    /// It waits for this reason, nothing done and no attempt spent, and so does its account.
    Waits {
        reason: &'static str,
        at_least_s: i64,
        at_most_s: i64,
    },
    /// Only the job waits.
    WaitsAlone { reason: &'static str },
}

use Then::{Fails, ParksFor, Succeeds, Waits, WaitsAlone};

const WELL: Then = Succeeds { sends: 1 };
const SENT_AGAIN: Then = Succeeds { sends: 2 };

fn case(name: &'static str, fault: Value, then: Then) -> Case {
    Case { name, fault, then }
}

fn answered(preset: &'static str, then: Then) -> Case {
    case(preset, json!({"answer": {"preset": preset}}), then)
}

/// The effect is there, the answer is lost.
fn lost_replies() -> Vec<Case> {
    let applied =
        |name, answer: Value| case(name, json!({"effect": "apply", "answer": answer}), WELL);
    vec![
        applied("502 applied", json!({"preset": "502_html"})),
        applied("500 applied", json!({"preset": "500_json"})),
        applied("504 applied", json!({"preset": "504_html"})),
        applied("empty 502 applied", json!({"preset": "502_empty"})),
        applied("an HTML page as 200 applied", json!({"preset": "200_html"})),
        applied("an empty 201 applied", json!({"preset": "201_empty"})),
        applied("a 201 without id applied", json!({"preset": "201_no_id"})),
        applied("204 applied", json!({"status": 204})),
        applied(
            "408 applied",
            json!({"status": 408, "json": {"message": "Request Timeout"}}),
        ),
        applied(
            "a list as 201 applied",
            json!({"status": 201, "json": [1, 2, 3]}),
        ),
        applied(
            "a number as 200 applied",
            json!({"status": 200, "text": "1e400"}),
        ),
        case(
            "hang applied",
            json!({"effect": "apply", "hang": true}),
            WELL,
        ),
        case("cut after the effect", json!({"cut": "after_effect"}), WELL),
        case(
            "cut within the headers",
            json!({"cut": "mid_headers"}),
            WELL,
        ),
        case("cut within the body", json!({"cut": "mid_body"}), WELL),
        case("broken JSON", json!({"broken_json": true}), WELL),
        case("a huge body", json!({"body_bytes": 200_000}), WELL),
        case(
            "a body in drops",
            json!({"drip": {"bytes": 1, "every_ms": 50}}),
            WELL,
        ),
        case("endless headers", json!({"endless_headers": true}), WELL),
        case("a gzip bomb", json!({"gzip_bomb": true}), WELL),
        case(
            "504 and applied a second later",
            json!({"effect": "late", "after_ms": 1000, "answer": {"preset": "504_html"}}),
            WELL,
        ),
    ]
}

/// Nothing was done, and nobody can tell from the answer.
fn lost_requests() -> Vec<Case> {
    vec![
        answered("502_html", SENT_AGAIN),
        answered("502_kaspi_error", SENT_AGAIN),
        answered("502_empty", SENT_AGAIN),
        answered("500_json", SENT_AGAIN),
        answered("500_html", SENT_AGAIN),
        answered("504_html", SENT_AGAIN),
        answered("413_html", SENT_AGAIN),
        answered("409_unknown_code", SENT_AGAIN),
        answered("200_html", SENT_AGAIN),
        answered("429_html", SENT_AGAIN),
        case(
            "408",
            json!({"answer": {"status": 408, "json": {"message": "Request Timeout"}}}),
            SENT_AGAIN,
        ),
        case(
            "an HTML page as 404",
            json!({"answer": {"status": 404, "text": "<html>not here</html>"}}),
            SENT_AGAIN,
        ),
        case(
            "an HTML page as 422",
            json!({"answer": {"status": 422, "text": "<html>no</html>"}}),
            SENT_AGAIN,
        ),
        case(
            "599",
            json!({"answer": {"status": 599, "json": {"message": "?"}}}),
            SENT_AGAIN,
        ),
        case("hang", json!({"effect": "none", "hang": true}), SENT_AGAIN),
        case(
            "cut before the effect",
            json!({"cut": "before_effect"}),
            SENT_AGAIN,
        ),
        case(
            "a redirect",
            json!({"redirect_to": "http://127.0.0.1:9/elsewhere"}),
            SENT_AGAIN,
        ),
        // The gateway says that nothing was done: no look-up, the same request again.
        answered("409_kaspi_session_unavailable", SENT_AGAIN),
        // An HTML 503 is a proxy's: the account is parked, and the job looked up after a probe.
        answered("503_html", SENT_AGAIN),
    ]
}

/// The gateway refuses for good.
fn refusals() -> Vec<Case> {
    vec![
        answered("422", Fails { status: 422 }),
        answered("422_given_data", Fails { status: 422 }),
        answered("422_content_rejected", Fails { status: 422 }),
        answered("422_connection_ambiguous", Fails { status: 422 }),
        answered("422_amount_must_be_whole_tenge", Fails { status: 422 }),
        answered("410", Fails { status: 410 }),
        answered("404", Fails { status: 404 }),
        answered("404_message", Fails { status: 404 }),
        answered("403_grant_not_granted", Fails { status: 403 }),
        answered("409_qr_cancel_unsupported", Fails { status: 409 }),
        answered("400_sandbox_invoice_limit", Fails { status: 400 }),
    ]
}

/// The account is unwell.
fn account_faults() -> Vec<Case> {
    vec![
        answered("503_kaspi_session_invalid", ParksFor("session_expired")),
        answered("503_invoices_disabled", ParksFor("invoices_disabled")),
        answered("409_kaspi_session_expired", ParksFor("session_expired")),
        answered(
            "400_kaspi_session_not_configured",
            ParksFor("session_expired"),
        ),
        answered(
            "400_organization_required",
            ParksFor("organization_not_ready"),
        ),
        answered(
            "400_organization_not_verified",
            ParksFor("organization_not_ready"),
        ),
        answered("401", ParksFor("key_rejected")),
        answered("401_message_only", ParksFor("key_rejected")),
        answered("403_tariff_inactive", ParksFor("tariff_inactive")),
        answered("403_kyc_rejected", ParksFor("organization_not_ready")),
        answered(
            "403_organization_archived",
            ParksFor("organization_not_ready"),
        ),
        answered("403_channel_required", ParksFor("organization_not_ready")),
        answered("403_grant_snapshot_unreadable", ParksFor("access_denied")),
        case(
            "503 with a code of its own",
            json!({"answer": {"status": 503, "json": {"error_code": "maintenance", "message": "later"}}}),
            ParksFor("service_unavailable"),
        ),
    ]
}

/// Too many requests, in every shape that the gateway has for it.
fn throttles() -> Vec<Case> {
    let waits = |reason, at_least_s, at_most_s| Waits {
        reason,
        at_least_s,
        at_most_s,
    };
    vec![
        answered("429_minute", waits("retry_after", 16, 22)),
        answered("429_http_date", waits("retry_after", 16, 22)),
        answered("429_legacy", waits("retry_after", 59, 75)),
        answered("429_authentication", waits("retry_after", 59, 75)),
        answered("429_tariff_limit", waits("cap_reached", 3599, 3665)),
        answered(
            "429_tariff_limit_monthly",
            waits("cap_reached", 770_000, 780_000),
        ),
        answered("429_trial_daily_limit", waits("cap_reached", 3599, 3665)),
        answered("429_outstanding_org", waits("cap_reached", 59, 125)),
        answered("429_recipient_fanout", waits("cap_reached", 59, 125)),
        answered(
            "429_outstanding",
            WaitsAlone {
                reason: "retry_after",
            },
        ),
        // Without a hint it is the configured second.
        answered("429_no_hint", SENT_AGAIN),
        case(
            "429 with a second to wait",
            json!({"answer": {"status": 429, "headers": {"Retry-After": "1"}, "json": {"message": "Too Many Requests"}}}),
            SENT_AGAIN,
        ),
    ]
}

fn all() -> Vec<Case> {
    // Those that wait come first: they are looked at before their wait is over.
    let mut cases = throttles();
    cases.extend(lost_replies());
    cases.extend(lost_requests());
    cases.extend(refusals());
    cases.extend(account_faults());
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_answered_to_a_create_it_ends_as_it_should() {
    check(Operation::Create, all()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_answered_to_a_cancel_it_ends_as_it_should() {
    let mut cases = all();
    // What the invoice is, decides: it is still there, so it is cancelled again.
    cases.push(answered("400_cannot_be_cancelled", SENT_AGAIN));
    check(Operation::Cancel, cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_answered_to_a_refund_it_ends_as_it_should() {
    let mut cases = all();
    cases.push(answered("400_not_refundable", Fails { status: 400 }));
    cases.push(answered("400_refund_exceeds", Fails { status: 400 }));
    cases.push(answered("422_refund_window_expired", Fails { status: 422 }));
    check(Operation::Refund, cases).await;
}

#[derive(Clone, Copy)]
enum Operation {
    Create,
    Cancel,
    Refund,
}

impl Operation {
    fn route(self) -> &'static str {
        match self {
            Operation::Create => "POST /invoices",
            Operation::Cancel => "POST /invoices/{id}/cancel",
            Operation::Refund => "POST /invoices/{id}/refund",
        }
    }

    async fn enqueue(self, world: &World, account: &str) -> Job {
        let key = world.key(account);
        let (operation, params) = match self {
            Operation::Create => {
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
            Operation::Refund => {
                let id = world.sandbox.invoice(&key, json!({"status": "paid"})).await;
                ("invoice.refund", json!({"invoice_id": id, "amount": 100}))
            }
        };
        world
            .enqueue_with(operation, params, json!({"account": account}))
            .await
    }
}

async fn check(operation: Operation, cases: Vec<Case>) {
    let names: Vec<String> = (0..cases.len()).map(|n| format!("case{n}")).collect();
    // So many at once are slow on a small machine: what was answered late must not count as lost.
    let wish = Wish::default()
        .accounts(&names)
        .tune("http.timeout", "5s")
        .tune("worker.lease", "20s")
        .tune("worker.grace", "10s");
    let world = World::made(wish).await;
    let mut jobs = Vec::new();
    for (case, account) in cases.iter().zip(&names) {
        let mut fault = case.fault.clone();
        fault["route"] = operation.route().into();
        fault["organisation"] = account.as_str().into();
        fault["name"] = case.name.into();
        world.sandbox.fault(fault).await;
        jobs.push(operation.enqueue(&world, account).await);
    }
    let daemon = world.daemon().await;
    let mut wrong = String::new();
    for ((case, account), job) in cases.iter().zip(&names).zip(jobs) {
        if let Err(problem) = check_case(&world, operation, case, account, job).await {
            let row = world.job(job).await;
            writeln!(
                wrong,
                "{}: {problem}; the job is {} ({}), {} {}",
                case.name, row["state"], row["reason"], row["http_status"], row["error_code"]
            )
            .unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    // Each park that ended was told of once when it began and once when it ended.
    world
        .until_true(
            "select not exists (select from apipay.alert_deliveries where delivered_at is null)",
        )
        .await;
    let parks = cases
        .iter()
        .filter(|case| matches!(case.then, ParksFor(_)) || case.name == "503_html")
        .count();
    let resolved = world.alerts.notices("resolved");
    assert_eq!(resolved.len(), parks, "{resolved:?}");
    world.end([daemon]).await;
}

/// The job's row once it is as the case wants it, or what is wrong.
async fn check_case(
    world: &World,
    operation: Operation,
    case: &Case,
    account: &str,
    job: Job,
) -> Result<(), String> {
    match &case.then {
        Succeeds { sends } => {
            settled(world, job, "succeeded").await?;
            expect_sends(world, operation, account, *sends, 1).await
        }
        Fails { status } => {
            let row = settled(world, job, "failed").await?;
            expect(
                row["http_status"] == *status,
                &format!("http_status is not {status}"),
            )?;
            expect(row["reason"] == "refused", "reason is not refused")?;
            let why = ["error_code", "error_message", "errors"];
            let is_told = why.iter().any(|column| !row[column].is_null());
            expect(is_told, "it does not say why")?;
            expect_sends(world, operation, account, 1, 0).await
        }
        ParksFor(reason) => {
            settled(world, job, "succeeded").await?;
            expect_sends(world, operation, account, 2, 1).await?;
            expect_park(world, account, reason).await
        }
        Waits {
            reason,
            at_least_s,
            at_most_s,
        } => {
            let row = settled(world, job, "queued").await?;
            expect(row["reason"] == *reason, &format!("reason is not {reason}"))?;
            expect(row["attempts"] == 0, "it costs an attempt")?;
            let wait = world
                .value(&format!(
                    "select to_jsonb(extract(epoch from a.blocked_until - t.finished_at)::bigint) \
                     from apipay.accounts a, apipay.attempts t where a.name = '{account}' and t.job_id = {job}"
                ))
                .await;
            let is_right = wait
                .as_i64()
                .is_some_and(|s| (*at_least_s..=*at_most_s).contains(&s));
            expect(is_right, &format!("the account waits for {wait} s"))?;
            expect_alert(world, account, "cap_reached", *reason == "cap_reached").await?;
            expect_sends(world, operation, account, 1, 0).await
        }
        WaitsAlone { reason } => {
            let row = settled(world, job, "queued").await?;
            expect(row["reason"] == *reason, &format!("reason is not {reason}"))?;
            let blocked = world
                .count(&format!(
                    "apipay.accounts where name = '{account}' and blocked_until is not null"
                ))
                .await;
            expect(blocked == 0, "the account is blocked")?;
            expect_sends(world, operation, account, 1, 0).await
        }
    }
}

/// Waits for a state after the first answer.
async fn settled(world: &World, job: Job, state: &str) -> Result<Value, String> {
    for _ in 0..600 {
        let attempts = world.attempts(job).await;
        let row = world.job(job).await;
        let answered = attempts
            .first()
            .is_some_and(|attempt| !attempt["finished_at"].is_null());
        if row["state"] == state && answered {
            return Ok(row);
        }
        if !row["finished_at"].is_null() {
            return Err(format!("it ended otherwise than {state}"));
        }
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    }
    Err(format!("it is never {state}"))
}

async fn expect_sends(
    world: &World,
    operation: Operation,
    account: &str,
    sends: usize,
    effects: usize,
) -> Result<(), String> {
    let mut requests = world.sandbox.requests_to(operation.route()).await;
    requests.retain(|request| request["key"] == account);
    let sent = requests.len();
    expect(sent == sends, &format!("{sent} requests, not {sends}"))?;
    let mut done = world.sandbox.effects().await;
    done.retain(|effect| effect["organisation"] == account);
    let done = done.len();
    expect(done == effects, &format!("{done} effects, not {effects}"))
}

async fn expect_park(world: &World, account: &str, reason: &str) -> Result<(), String> {
    let parked = world
        .count(&format!(
            "apipay.events where subject = 'account' and subject_id = '{account}' and to_state = 'parked' and reason = '{reason}'"
        ))
        .await;
    expect(parked == 1, &format!("parked {parked} times for {reason}"))?;
    let told = world
        .count(&format!("apipay.alerts where account = '{account}' and kind = 'account_parked' and resolved_at is not null"))
        .await;
    expect(
        told == 1,
        &format!("{told} alerts were opened and resolved"),
    )
}

async fn expect_alert(
    world: &World,
    account: &str,
    kind: &str,
    wanted: bool,
) -> Result<(), String> {
    let open = world
        .count(&format!(
            "apipay.alerts where account = '{account}' and kind = '{kind}' and resolved_at is null"
        ))
        .await;
    expect(
        open == i64::from(wanted),
        &format!("{open} open alerts of kind {kind}"),
    )
}

fn expect(holds: bool, otherwise: &str) -> Result<(), String> {
    holds.then_some(()).ok_or_else(|| otherwise.to_owned())
}
