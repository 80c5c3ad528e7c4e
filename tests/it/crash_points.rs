//! The daemon dies at each point that it has a name for (`apipayd::crash`), as if the power had gone
//! just there. Whoever comes after it finishes the work: no job is lost, none has two effects.

mod cases;
mod tap;

use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::time::Duration;

use apipayd::crash::{Point, VARIABLE};
use rustix::process::Signal;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::sleep;

use crate::world::{Daemon, Wish, World, phone};
use cases::{Case, Plight, Task, cases};
use tap::Tap;

/// How long a daemon may take to get to its point. Other tests share the machine.
const PATIENCE: Duration = Duration::from_secs(40);

/// Worlds at once.
const AT_ONCE: usize = 6;

/// From the last moment before the first byte to the record: whoever comes after must not guess.
const MAY_HAVE_LEFT: [Point; 7] = [
    Point::BeforeSend,
    Point::MidBody,
    Point::AfterBody,
    Point::AfterHeaders,
    Point::AfterAnswer,
    Point::BeforeRecord,
    Point::AfterRecord,
];

/// All points are either those, or the others.
fn points(may_have_left: bool) -> impl Iterator<Item = Point> {
    let all = Point::ALL.iter().copied();
    all.filter(move |point| MAY_HAVE_LEFT.contains(point) == may_have_left)
}

#[tokio::test]
async fn a_daemon_may_die_at_any_point_of_a_send_and_its_heir_does_each_job_once() {
    survive(points(true).flat_map(cases)).await;
}

#[tokio::test]
async fn a_daemon_may_die_at_any_other_point_and_its_heir_does_each_job_once() {
    survive(points(false).flat_map(cases)).await;
}

#[tokio::test]
async fn a_daemon_may_die_while_its_request_is_out_although_the_gateway_ignores_keys() {
    let cases = points(true)
        .flat_map(cases)
        .filter(|case| case.task == Task::Create);
    survive(cases.map(|case| Case {
        keyless: true,
        ..case
    }))
    .await;
}

/// The alert is opened first, and the job held with the record: no held job goes untold, and none is
/// told twice.
#[tokio::test]
async fn a_daemon_may_die_between_an_alert_and_the_record_that_holds_its_job() {
    // The first record is of the send, the second one of the wrong invoice, the third one of the look-up.
    for (point, record) in [
        (Point::BeforeRecord, 2),
        (Point::AfterRecord, 2),
        (Point::BeforeRecord, 3),
        (Point::AfterRecord, 3),
    ] {
        let world = World::made(Wish::default()).await;
        let wrong = json!({"wrong_amount": true});
        world.sandbox.organization(wrong).await;
        let cut = json!({"route": Task::Create.route(), "cut": "after_effect"});
        world.sandbox.fault(cut).await;
        Task::Create.enqueue(&world).await;
        let mut daemon = armed(&world, &format!("{}:{record}", point.name()), &[]);
        let status = daemon.ended(PATIENCE).await;
        assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{status}");
        let state = world.value("select to_jsonb(state) from apipay.jobs").await;
        let is_held = (point, record) == (Point::AfterRecord, 3);
        assert_eq!(state, if is_held { "held" } else { "uncertain" });
        let open = "apipay.alerts where kind = 'job_held' and resolved_at is null";
        let told = i64::from(record == 3);
        assert_eq!(world.count(open).await, told, "told before it is held");

        let heir = world.daemon().await;
        // Rounds of the loop that resolves alerts come and go, then the promise of the look-up runs out.
        sleep(Duration::from_secs(3)).await;
        world.expire_promises().await;
        world
            .until_true("select state = 'held' from apipay.jobs")
            .await;
        assert_eq!(world.count(open).await, 1);
        // That the gateway gave no clear answer for so long may be told as well.
        let told = "apipay.alerts where kind = 'job_held'";
        assert_eq!(world.count(told).await, 1, "told once");
        world.end([heir]).await;
    }
}

/// Nobody asks for the list of an invoice's refunds again once the job that waits for it is done.
#[tokio::test]
async fn a_daemon_may_die_between_the_records_of_a_refund_and_of_one_that_a_cashier_made() {
    for point in [Point::BeforeRecord, Point::AfterRecord] {
        let world = World::made(Wish::default()).await;
        let key = world.key("default");
        let paid = json!({"status": "paid", "amount": "1000.00"});
        let invoice = world.sandbox.invoice(&key, paid).await;
        let by_hand =
            json!({"invoice_id": invoice, "amount": "100.00", "reason": "by the cashier"});
        world.sandbox.control("POST /refunds", by_hand).await;
        let params = json!({"invoice_id": invoice, "amount": 250});
        let job = world.enqueue("invoice.refund", params).await;
        // The first record is of the send, the second one of the list, or of its beginning.
        let mut daemon = armed(&world, &format!("{}:2", point.name()), &[]);
        let status = daemon.ended(PATIENCE).await;
        assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{status}");

        world.expire_promises().await;
        let heir = world.daemon().await;
        world.until(job, "succeeded").await;
        world
            .until_true("select array_agg(amount::int order by amount) = '{100,250}' and bool_and(settled) from apipay.refunds")
            .await;
        assert_eq!(world.effects_of(job).await.len(), 1);
        world.end([heir]).await;
    }
}

/// Such an answer proves nothing, so whoever comes after finds the job's own invoice by its name.
#[tokio::test]
async fn a_daemon_may_die_around_an_answer_that_shows_another_jobs_invoice() {
    let at = [
        (Point::AfterAnswer, 1),
        (Point::BeforeRecord, 1),
        (Point::AfterRecord, 1),
        (Point::LookupBeforeRequest, 1),
        (Point::LookupAfterAnswer, 1),
        // The record of the look-up.
        (Point::BeforeRecord, 2),
        (Point::AfterRecord, 2),
    ];
    for (point, time) in at {
        let (world, mut earlier) = World::running().await;
        let first = world.bill(phone::PAID, 100).await;
        let invoice = world.until(first, "succeeded").await["invoice_id"].clone();
        let settled = "select bool_and(settled) from apipay.invoices";
        world.until_true(settled).await;
        earlier.kill().await;
        let answer = json!({"status": 201, "json": {"id": invoice, "status": "processing"}});
        let fault =
            json!({"route": Task::Create.route(), "effect": "apply", "times": 1, "answer": answer});
        world.sandbox.fault(fault).await;
        let second = world.bill(phone::PAID, 100).await;
        let mut daemon = armed(&world, &format!("{}:{time}", point.name()), &[]);
        let status = daemon.ended(PATIENCE).await;
        assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{status}");

        world.expire_promises().await;
        let heir = world.daemon().await;
        let row = world.until(second, "succeeded").await;
        let effects = world.effects_of(second).await;
        assert_eq!(effects.len(), 1, "{point:?}");
        assert_eq!(row["invoice_id"], effects[0]["invoice_id"], "{point:?}");
        let is_kept = format!("apipay.invoices where id = {invoice} and job_id = {first}");
        assert_eq!(world.count(&is_kept).await, 1, "{point:?}");
        world.end([heir]).await;
    }
}

/// What a copy repeats is asked for again before the copy goes out, by whoever comes after.
#[tokio::test]
async fn a_daemon_may_die_between_a_look_at_the_original_and_the_record_of_its_copy() {
    for point in [
        Point::EarlierBeforeRequest,
        Point::EarlierAfterAnswer,
        Point::BeforeSend,
        Point::AfterAnswer,
        Point::BeforeRecord,
    ] {
        let (world, mut earlier) = World::running().await;
        let first = world.bill(phone::CLIENT_NOT_FOUND, 100).await;
        world.until(first, "failed").await;
        earlier.kill().await;
        let copy = format!("select to_jsonb(apipay.retry({first}, 'once more'))");
        let copy = world.value(&copy).await.as_i64().unwrap();
        let mut daemon = armed(&world, point.name(), &[]);
        let status = daemon.ended(PATIENCE).await;
        assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{status}");

        world.expire_promises().await;
        let heir = world.daemon().await;
        let row = world.until(copy, "failed").await;
        assert_eq!(row["reason"], "async_error", "{point:?}: {row}");
        assert_eq!(world.effects_of(copy).await.len(), 1, "{point:?}");
        world.end([heir]).await;
    }
}

/// Nobody has to say what became of a job whose params no daemon would have sent.
#[tokio::test]
async fn a_daemon_may_die_with_wrong_params_in_its_hands_and_their_jobs_end_by_themselves() {
    let (world, mut earlier) =
        World::running_as(Wish::default().tune("reconcile.settle", "500ms")).await;
    earlier.kill().await;
    let mut jobs = Vec::new();
    for (operation, params) in [
        (
            "invoice.create",
            json!({"phone_number": "12345", "amount": 10}),
        ),
        ("invoice.cancel", json!({"invoice_id": -15})),
        ("invoice.refund", json!({"invoice_id": 0, "amount": 10})),
    ] {
        jobs.push(world.enqueue(operation, params).await);
    }
    let invoice = world
        .sandbox
        .invoice(&world.key("default"), json!({"status": "paid"}))
        .await;
    let params = json!({"invoice_id": invoice, "amount": -10});
    jobs.push(world.enqueue("invoice.refund", params).await);
    let mut daemon = armed(&world, Point::AfterClaim.name(), &[]);
    let status = daemon.ended(PATIENCE).await;
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{status}");
    world.expire_promises().await;
    let heir = world.daemon().await;
    for job in jobs {
        let row = world.until(job, "failed").await;
        assert_eq!(row["error_code"], "invalid_params", "{row}");
        let held = format!("apipay.events where job_id = {job} and to_state = 'held'");
        assert_eq!(world.count(&held).await, 0, "{row}");
    }
    world.end([heir]).await;
}

/// The refunds that there were are stored before a refund is sent, so that nothing of this one was: an invoice that does not
/// exist ends it.
#[tokio::test]
async fn a_daemon_may_die_with_a_refund_of_no_invoice_in_its_hands() {
    let (world, mut earlier) = World::running().await;
    earlier.kill().await;
    let params = json!({"invoice_id": 777_777, "amount": 5});
    let job = world.enqueue("invoice.refund", params).await;
    let mut daemon = armed(&world, Point::AfterClaim.name(), &[]);
    let status = daemon.ended(PATIENCE).await;
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{status}");
    world.expire_promises().await;
    let heir = world.daemon().await;
    let row = world.until(job, "failed").await;
    assert_eq!(row["reason"], "refused", "{row}");
    world.end([heir]).await;
}

/// A version that takes less than the one that sent a bill finds it all the same, and follows it.
#[tokio::test]
async fn a_bill_whose_params_are_not_taken_any_more_is_found_by_its_name() {
    let wish = Wish::default().tune("reconcile.settle", "500ms");
    let (world, mut earlier) = World::running_as(wish).await;
    let hangs = json!({"route": "POST /invoices", "effect": "apply", "hang": true});
    world.sandbox.fault(hangs).await;
    let job = world.bill(phone::PAID, 100).await;
    world
        .until_holds("the request is under way", async || {
            !world.sandbox.requests_to("POST /invoices").await.is_empty()
        })
        .await;
    earlier.kill().await;
    world.sandbox.mend().await;
    world
        .sql(&format!(
            "set session_replication_role = replica;
             update apipay.jobs set params = params || '{{\"tip\": 1}}' where id = {job};
             set session_replication_role = origin"
        ))
        .await;
    world.expire_promises().await;
    let heir = world.daemon().await;
    let row = world.until(job, "succeeded").await;
    let effects = world.effects_of(job).await;
    assert_eq!(effects.len(), 1, "{effects:?}");
    assert_eq!(row["invoice_id"], effects[0]["invoice_id"], "{row}");
    world
        .until_true(&format!(
            "select exists (select from apipay.invoices where job_id = {job} and status = 'paid')"
        ))
        .await;
    world.end([heir]).await;
}

#[tokio::test]
async fn a_daemon_whose_environment_names_no_point_passes_them_all() {
    let (world, daemon) = World::running().await;
    Task::Create.enqueue(&world).await;
    Task::Refunds.enqueue(&world).await;
    world.until_all_final().await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_point_that_does_not_exist_ends_the_start_with_the_names_of_those_that_do() {
    let world = World::made(Wish::default()).await;
    for wrong in ["after_lunch", "", "after_claim:0", "after_claim:soon"] {
        let mut daemon = armed(&world, wrong, &[]);
        let status = daemon.ended(PATIENCE).await;
        let said = daemon.log_text();
        assert_eq!(status.code(), Some(78), "{status}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(&format!("{VARIABLE}: '{wrong}'")), "{said}");
        for point in Point::ALL {
            assert!(said.contains(point.name()), "{point:?} is not in: {said}");
        }
    }
    world.end([]).await;
}

/// Goes through all cases, some at a time, and fails with the names of those that went wrong.
async fn survive(cases: impl Iterator<Item = Case>) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let tasks = LocalSet::new();
    let mut running = JoinSet::new();
    let mut names = std::collections::HashMap::new();
    for case in cases {
        let (room, name) = (room.clone(), format!("{case:?}"));
        let handle = running.spawn_local_on(
            async move {
                let _place = room.acquire().await.unwrap();
                crash_and_recover(&case).await;
            },
            &tasks,
        );
        names.insert(handle.id(), name);
    }
    let failed = tasks
        .run_until(async {
            let mut failed = Vec::new();
            while let Some(done) = running.join_next_with_id().await {
                if let Err(error) = done {
                    failed.push(names[&error.id()].clone());
                }
            }
            failed
        })
        .await;
    assert!(!names.is_empty(), "there are no cases");
    assert!(
        failed.is_empty(),
        "of {} cases these went wrong, as said above:\n{}",
        names.len(),
        failed.join("\n")
    );
}

async fn crash_and_recover(case: &Case) {
    let world = world_for(case).await;
    if case.plight == Plight::Orphaned {
        orphan(&world, case.task).await;
    } else {
        case.task.enqueue(&world).await;
    }
    let tap = Tap::start(world.sandbox.running.addr).await;
    let at = format!("{}:{}", case.point.name(), case.time);
    let mut daemon = armed(
        &world,
        &at,
        &[("APIPAYD__ACCOUNTS__DEFAULT__BASE_URL", tap.base_url())],
    );
    if case.plight == Plight::Parked {
        world
            .until_true("select state = 'parked' from apipay.accounts")
            .await;
        world.sandbox.session("active").await;
    }
    let status = daemon.ended_within(PATIENCE).await;
    let status = status.unwrap_or_else(|| {
        panic!(
            "the crash point {} was never reached: {case:?}\n{}",
            case.point.name(),
            daemon.log_text()
        )
    });
    assert_eq!(
        status.signal(),
        Some(Signal::ABORT.as_raw()),
        "{case:?}: {status}\n{}",
        daemon.log_text()
    );
    assert!(
        daemon
            .log_text()
            .contains(&format!("crash point {}", case.point.name())),
        "{case:?} died elsewhere:\n{}",
        daemon.log_text()
    );
    expect_scene(&world, case, &tap).await;
    if case.plight == Plight::Frozen {
        world.sql("drop function public.stand_still cascade").await;
    }

    world.expire_promises().await;
    let heir = world.daemon().await;
    world.until_all_final().await;
    let wanted = match case.task {
        Task::CreateForNobody | Task::CreateResubmitted => "failed",
        _ => "succeeded",
    };
    let others = world
        .rows(&format!(
            "select id, state, reason from apipay.jobs where state <> '{wanted}'"
        ))
        .await;
    assert!(others.is_empty(), "{case:?}: {others:?}");
    if case.plight == Plight::Parked {
        world
            .until_holds("both deliveries are posted", async || {
                !world.alerts.deliveries("firing").is_empty()
                    && !world.alerts.deliveries("resolved").is_empty()
            })
            .await;
    }
    world.end([heir]).await;
}

async fn world_for(case: &Case) -> World {
    let mut wish = Wish::default();
    if case.keyless {
        wish = wish.without_keys().late_lists(Duration::from_millis(2500));
    }
    if case.task == Task::CreateResubmitted {
        wish = wish.tune("retry.async_error.attempts", "2");
    }
    let world = World::made(wish).await;
    match &case.plight {
        Plight::Fault(fault) => {
            let mut fault = fault.clone();
            fault["route"] = case.task.route().into();
            world.sandbox.fault(fault).await;
        }
        Plight::Parked => world.sandbox.session("expired").await,
        Plight::Frozen => {
            world
                .sql(
                    "create function public.stand_still() returns trigger language plpgsql as $$
                     begin
                       raise exception 'frozen';
                     end $$;
                     create trigger stand_still before update on apipay.jobs
                       for each row when (old.state = 'accepted') execute function public.stand_still()",
                )
                .await;
        }
        Plight::Calm | Plight::Orphaned => {}
    }
    world
}

/// A daemon that is to die at a point.
fn armed(world: &World, at: &str, variables: &[(&str, String)]) -> Daemon {
    let own = |(name, value): &(&str, String)| ((*name).to_owned(), value.clone());
    let variables = variables.iter().map(own);
    let armed = (VARIABLE.to_owned(), at.to_owned());
    world.spawn_in(&["run"], variables.chain([armed]).collect())
}

/// Leaves a job whose daemon died while its request was under way, with a lease that has run out.
async fn orphan(world: &World, task: Task) {
    world
        .sandbox
        .fault(json!({"route": task.route(), "effect": "apply", "hang": true}))
        .await;
    task.enqueue(world).await;
    let mut daemon = world.daemon().await;
    world
        .until_holds("the request is under way", async || {
            !world.sandbox.requests_to(task.route()).await.is_empty()
        })
        .await;
    daemon.kill().await;
    world.expire_promises().await;
}

/// What the death left behind shows that it came where it was to come.
async fn expect_scene(world: &World, case: &Case, tap: &Tap) {
    let what = format!("the scene of {case:?}");
    // What was on the wire may still be on its way.
    world
        .until_holds(&what, async || is_scene(world, case, tap).await)
        .await;
}

async fn is_scene(world: &World, case: &Case, tap: &Tap) -> bool {
    let sends = world.sandbox.requests_to(case.task.route()).await;
    let of_jobs = |condition: &str| format!("apipay.jobs where {condition}");
    let sending = world.count(&of_jobs("state = 'sending'")).await;
    let queued = world.count(&of_jobs("state = 'queued'")).await;
    let others = i64::from(case.task == Task::Refunds);
    match case.point {
        Point::BeforeClaim => queued == 1 + others && sends.is_empty(),
        Point::AfterClaim | Point::BeforeSend => sending == 1 && sends.is_empty(),
        Point::EarlierBeforeRequest | Point::EarlierAfterAnswer => sending == 1 && sends.len() == 1,
        Point::BeforeBaseline => world.count(&of_jobs("baseline is not null")).await == 0,
        Point::AfterBaseline => world.count(&of_jobs("baseline is not null")).await == 1,
        Point::MidBody => sending == 1 && sends.is_empty() && tap.saw_half_a_body(),
        Point::AfterBody => sending == 1 && sends.len() == 1 && sends[0]["status"].is_null(),
        Point::AfterHeaders | Point::AfterAnswer => sending == 1 && sends.len() == 1,
        Point::BeforeRecord => sending == 1 && sends.len() == 1,
        Point::AfterRecord => sending == 0 && sends.len() == 1 && queued == others,
        Point::LookupBeforeRequest | Point::LookupAfterAnswer => {
            let open = "apipay.attempts where kind = 'lookup' and finished_at is null";
            world.count(open).await == 1
        }
        Point::FollowBeforeRequest
        | Point::FollowAfterAnswer
        | Point::CodeBeforeRequest
        | Point::CodeAfterAnswer
        | Point::RefundsBeforeRequest
        | Point::RefundsAfterAnswer => world.count(&of_jobs("state = 'accepted'")).await == 1,
        Point::BeforeAside => {
            let settled = "(select settled from apipay.invoices union all select settled from apipay.refunds) as mirror where settled";
            world.count(&of_jobs("state = 'accepted'")).await == 1
                && world.count(settled).await == 0
        }
        Point::DeliverBeforePost => world.alerts.bodies().is_empty(),
        Point::DeliverAfterPost => world.alerts.bodies().len() == 1,
        Point::ProbeBeforeRequest | Point::ProbeAfterAnswer => {
            world.count(&of_jobs("state = 'parked'")).await == 1
        }
        Point::TrialOfParkClaimed => sending == 1 && sends.len() == 1,
        Point::TrialOfParkDone => {
            sends.len() == 2 && world.count("apipay.accounts where state = 'parked'").await == 1
        }
        Point::OthersBeforeRecord | Point::OthersAfterRecord => unreachable!("it has no cases"),
        Point::RecoverBefore => sending == 1 && sends.len() == 1,
        Point::RecoverAfter => world.count(&of_jobs("state = 'uncertain'")).await == 1,
    }
}
