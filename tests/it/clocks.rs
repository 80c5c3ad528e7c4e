//! The database's clock is set forward and back, as people, NTP and machines that go on after a pause
//! set it; and stored moments that no clock of ours can have written.

mod carried;
mod strange;

use std::time::{Duration, Instant};

use apipayd::db::bounds;
use apipayd::domain::bounds::Bounds;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use time::OffsetDateTime;
use tokio::time::sleep;

use crate::world::{Daemon, Job, Wish, World, phone};

const HOUR: i64 = 3_600;
const TEN_YEARS: i64 = 3_652 * 24 * HOUR;

/// How soon a jump is noticed and work goes on: a second, what follows from it, and a busy machine.
const SOON: Duration = Duration::from_secs(15);

/// A job is told of as failing after 25 seconds: much longer than it waits for its look-up here, and much shorter than any
/// jump, which must not count as that time.
fn with_clock() -> Wish {
    Wish {
        own_clock: true,
        ..Wish::default()
    }
    .tune("retry.server_error.initial", "5s")
    .tune("retry.server_error.max", "5s")
}

/// Sets the clock, and returns once it was noticed.
async fn set_clock(world: &World, ahead_s: i64) {
    let jumps = "apipay.events where reason = 'clock_jumped'";
    let before = world.count(jumps).await;
    world.database.cluster.set_clock(ahead_s);
    let began = Instant::now();
    world
        .until_true(&format!("select count(*) > {before} from {jumps}"))
        .await;
    assert!(
        began.elapsed() < SOON,
        "noticed after {:?}",
        began.elapsed()
    );
}

/// A bill that is enqueued now goes out now, and what waited before goes on.
async fn expect_work(world: &World, waited: &[Job], when: &str) {
    let began = Instant::now();
    let bill = world.bill(phone::UNPAID, 100).await;
    for job in waited.iter().chain([&bill]) {
        world.until(*job, "succeeded").await;
    }
    assert!(began.elapsed() < SOON, "{when}: {:?}", began.elapsed());
}

/// A job in each kind of wait: put off, uncertain, accepted.
async fn waiting_jobs(world: &World) -> Vec<Job> {
    let busy = json!({"route": "POST /invoices", "effect": "none",
        "answer": {"status": 429, "headers": {"Retry-After": "2"}, "json": {"message": "Too Many Attempts."}}});
    let lost = json!({"route": "POST /invoices", "effect": "apply", "hang": true});
    let mut jobs = Vec::new();
    for (fault, state) in [
        (Some(lost), "uncertain"),
        (None, "accepted"),
        (Some(busy), "queued"),
    ] {
        if let Some(fault) = fault {
            world.sandbox.fault(fault).await;
        }
        let job = world.bill(phone::UNPAID, 100).await;
        let what = format!("job {job} was tried and is {state}");
        world
            .until_job(job, &what, |row| {
                row["epoch"] != 0 && (row["state"] == state || row["state"] == "succeeded")
            })
            .await;
        jobs.push(job);
    }
    jobs
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_databases_clock_does_work_goes_on_and_it_is_told() {
    let (world, daemon) = World::running_as(with_clock()).await;
    for (ahead, when) in [
        (5 * HOUR, "five hours ahead"),
        (0, "put right"),
        (-HOUR, "an hour behind"),
        (TEN_YEARS, "ten years ahead"),
        (0, "put right at last"),
    ] {
        let waited = waiting_jobs(&world).await;
        set_clock(&world, ahead).await;
        expect_work(&world, &waited, when).await;
        let far = world
            .rows("select id, state, explain from apipay.overview where explain ~ 'in [0-9]+ (h|days)'")
            .await;
        assert!(far.is_empty(), "{when}: {far:?}");
        assert!(
            !daemon.status().contains("PARKED"),
            "{when}: {}",
            daemon.status()
        );
    }
    let seconds = world
        .rows("select (evidence ->> 'seconds')::float8::int as seconds from apipay.events where reason = 'clock_jumped' order by id")
        .await;
    let seconds: Vec<i64> = seconds
        .iter()
        .map(|row| (row["seconds"].as_i64().unwrap() + 30) / 60)
        .collect();
    let minutes = [300, -300, -60, TEN_YEARS / 60 + 60, -TEN_YEARS / 60];
    for (found, expected) in seconds.iter().zip(minutes) {
        assert!((found - expected).abs() <= 1, "{seconds:?}");
    }
    assert_eq!(seconds.len(), minutes.len(), "{seconds:?}");
    expect_alert(&world).await;
    world.end([daemon]).await;
}

/// One alert for all of it, which speaks of the last jump, and ends by itself.
async fn expect_alert(world: &World) {
    let alerts = world.rows("select * from apipay.alerts").await;
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    let summary = alerts[0]["summary"].as_str().unwrap();
    assert!(
        alerts[0]["kind"] == "clock_jumped" && summary.contains("set back by 3652 days"),
        "{summary}"
    );
    world
        .until_holds("the alert is posted", async || {
            world.alerts.raw().contains("clock_jumped")
        })
        .await;
    world
        .sql("update apipay.alerts set details = details || '{\"steady_second\": 0}'")
        .await;
    world
        .until_true("select resolution = 'the clock has been steady since' from apipay.alerts")
        .await;
}

/// Whoever has seen to one jump knows nothing of the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_jump_is_told_although_a_person_has_seen_to_the_one_before() {
    let (world, daemon) = World::running_as(with_clock()).await;
    set_clock(&world, HOUR).await;
    let told = async |way: &str| {
        world
            .until_holds(&format!("a jump {way} is told"), async || {
                let raw = world.alerts.raw();
                raw.contains(&format!("was set {way} by 60 min"))
            })
            .await;
    };
    told("forward").await;
    world
        .sql("select apipay.acknowledge(id, 'an exercise') from apipay.alerts where kind = 'clock_jumped'")
        .await;
    set_clock(&world, 0).await;
    told("back").await;
    let alerts = world
        .rows("select acked_at, summary from apipay.alerts")
        .await;
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert!(alerts[0]["acked_at"].is_null(), "{alerts:?}");
    world.end([daemon]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_clock_gives_a_key_more_requests_than_its_limit() {
    let mut wish = with_clock().tune("accounts.default.requests_per_minute", "12");
    wish.sandbox.requests_per_minute = 12;
    let (world, mut daemon) = World::running_as(wish).await;
    for _ in 0..30 {
        world.bill(phone::UNPAID, 100).await;
    }
    // Two of the twelve are kept for look-ups and checks.
    world
        .until_holds("the quota is used", async || {
            world.sandbox.requests().await.len() >= 10
        })
        .await;
    for ahead in [HOUR, 0, -HOUR, TEN_YEARS, HOUR] {
        set_clock(&world, ahead).await;
    }
    // One that was not there when the clock was set knows it all the same.
    daemon.kill().await;
    world.database.cluster.set_clock(2 * HOUR);
    let heir = world.daemon().await;
    sleep(Duration::from_secs(3)).await;
    let stats = world.sandbox.control("GET /stats", Value::Null).await;
    assert!(
        stats["max_requests_per_key_60s"].as_u64().unwrap() <= 12,
        "{stats}"
    );
    let limited = world.sandbox.requests().await;
    assert!(limited.iter().all(|request| request["limited"] == false));

    let explain = world
        .value("select to_jsonb(explain) from apipay.account_status")
        .await;
    let explain = explain.as_str().unwrap();
    assert!(
        explain.starts_with("Sending: ") && explain.contains(" of 12 requests"),
        "{explain}"
    );
    let off = world
        .value(
            "select to_jsonb(abs(q.newest - (extract(epoch from now()) + c.steady_ahead_us / 1e6)) < 90)
               from apipay._quotas q, apipay._control c",
        )
        .await;
    assert_eq!(off, true, "the window is counted by the steady time");
    world.end([heir]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_forward_proves_no_absence() {
    let wish = with_clock().without_keys().tune("reconcile.settle", "6s");
    let (world, daemon) = World::running_as(wish).await;
    let fault = json!({"route": "POST /invoices", "effect": "none", "hang": true});
    world.sandbox.fault(fault).await;
    let job = world.bill(phone::UNPAID, 100).await;
    world
        .until_true(&format!(
            "select absent_since is not null from apipay.jobs where id = {job}"
        ))
        .await;
    set_clock(&world, HOUR).await;
    world.until(job, "succeeded").await;
    let at = |requests: &[Value], place: usize| requests[place]["at_unix_us"].as_i64().unwrap();
    let lookups = world.sandbox.requests_to("GET /invoices").await;
    let sends = world.sandbox.requests_to("POST /invoices").await;
    assert_eq!(sends.len(), 2);
    let waited_ms = (at(&sends, 1) - at(&lookups, 0)) / 1_000;
    assert!(
        waited_ms >= 5_900,
        "sent again {waited_ms} ms after nothing was found"
    );
    world.end([daemon]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_nothing_waits_for_nothing_after_the_clock_was_set() {
    let wish = with_clock().without_keys();
    let (world, daemon) = World::running_as(wish).await;
    let fault = json!({"route": "POST /invoices", "effect": "none", "hang": true});
    world.sandbox.fault(fault).await;
    let fault = json!({"route": "GET /invoices", "times": 1000,
        "answer": {"status": 502, "json": {"message": "Kaspi API error"}}});
    world.sandbox.fault(fault).await;
    let job = world.bill(phone::UNPAID, 100).await;
    world.until(job, "uncertain").await;
    let unset = format!(
        "select a.probe_at is null and a.capped_until is null and a.blocked_until is null and a.trial_from is null
                and a.parked_at is null and a.doubted_since is null and a.refused_since is null
                and j.absent_since is null and j.quiet_until is null
           from apipay.accounts a join apipay.jobs j on j.account = a.name where j.id = {job}"
    );
    // A moment too far ahead is brought back without the others of its row.
    world
        .sql(&format!(
            "update apipay.accounts set resumed_at = now() + interval '10 years';
             update apipay.jobs set unproven_since = now() + interval '10 years' where id = {job}"
        ))
        .await;
    for condition in [
        "select resumed_at <= now() from apipay.accounts".to_owned(),
        format!("select unproven_since <= now() from apipay.jobs where id = {job}"),
        unset.clone(),
    ] {
        world.until_true(&condition).await;
    }
    for ahead in [5 * HOUR, 0, -HOUR] {
        set_clock(&world, ahead).await;
        let is_unset = world.value(&format!("select to_jsonb(({unset}))")).await;
        assert_eq!(is_unset, true, "set to {ahead} s");
    }
    world.end([daemon]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_ends_by_a_clock_that_was_just_set() {
    let (world, daemon) = World::running_as(with_clock()).await;
    world.sql("select apipay.stop('no sends')").await;
    let params = json!({"phone_number": phone::UNPAID, "amount": 100});
    let expires_at = world
        .value("select to_jsonb(now() + interval '2 hours')")
        .await;
    let job = world
        .enqueue_with("invoice.create", params, json!({"expires_at": expires_at}))
        .await;
    set_clock(&world, 5 * HOUR).await;
    sleep(Duration::from_secs(4)).await;
    assert_eq!(world.job(job).await["state"], "queued");
    set_clock(&world, 0).await;
    world.sql("select apipay.start('go on')").await;
    world.until(job, "succeeded").await;
    world.end([daemon]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_living_workers_lease_outlives_a_jump_and_a_dead_ones_does_not() {
    let (world, mut daemon) = World::running_as(with_clock()).await;
    let slow = json!({"route": "POST /invoices", "effect": "apply", "delay_ms": 1300});
    world.sandbox.fault(slow).await;
    let job = world.bill(phone::UNPAID, 100).await;
    world.until(job, "sending").await;
    world.database.cluster.set_clock(-HOUR);
    world.until(job, "succeeded").await;

    let hang = json!({"route": "POST /invoices", "effect": "apply", "hang": true});
    world.sandbox.fault(hang).await;
    let job = world.bill(phone::UNPAID, 100).await;
    world.until(job, "sending").await;
    daemon.kill().await;
    world.database.cluster.set_clock(-3 * HOUR);
    let heir = world.daemon().await;
    world
        .until_true(&format!(
            "select state <> 'sending' or leased_until <= now() + interval '12 s' from apipay.jobs where id = {job}"
        ))
        .await;
    world.until(job, "succeeded").await;
    world.end([heir]).await;
}

#[tokio::test]
async fn a_moment_too_far_ahead_is_brought_back_and_the_users_own_is_not() {
    let (world, daemon) = World::running().await;
    let done = world.bill(phone::UNPAID, 100).await;
    world.until(done, "succeeded").await;
    world.sql("select apipay.stop('no sends')").await;
    let tried = world.bill(phone::UNPAID, 100).await;
    let params = json!({"phone_number": phone::UNPAID, "amount": 100});
    let wishes = [
        ("2036-01-01T00:00:00Z", "Due at 2036-01-01"),
        ("infinity", "Due never, as asked."),
    ];
    let mut wished = Vec::new();
    for (run_at, _) in wishes {
        let columns = json!({"run_at": run_at});
        wished.push(
            world
                .enqueue_with("invoice.create", params.clone(), columns)
                .await,
        );
    }
    world
        .sql(&format!(
            "update apipay.jobs set reason = 'network', attempts = 1, run_at = now() + interval '10 years' where id = {tried};
             update apipay.accounts set blocked_until = now() + interval '10 years', blocked_reason = 'request_rate_limited',
                                        capped_until = now() + interval '10 years', capped_operations = '{{invoice.refund}}',
                                        capped_reason = 'tariff_limit_reached', resumed_at = now() + interval '1 hour';
             update apipay.invoices set next_check_at = now() + interval '10 years';
             insert into apipay.alerts (kind, summary, action, opened_at) values ('test', 's', 'a', now() + interval '10 years');
             select apipay.start('go on')"
        ))
        .await;
    let began = Instant::now();
    for query in [
        "select blocked_until <= now() + interval '2 hours' and capped_until <= now() + interval '32 days' and resumed_at <= now() from apipay.accounts".to_owned(),
        format!("select run_at < now() + interval '1 hour' from apipay.jobs where id = {tried}"),
        "select bool_and(next_check_at < now() + interval '5 minutes') from apipay.invoices".to_owned(),
        "select bool_and(opened_at <= now()) from apipay.alerts where kind = 'test'".to_owned(),
    ] {
        world.until_true(&query).await;
    }
    assert!(
        began.elapsed() < SOON + Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    for (job, (_, expected)) in wished.into_iter().zip(wishes) {
        let explain = world
            .value(&format!(
                "select to_jsonb(apipay._explain(j, jsonb_populate_record(a, '{{\"blocked_until\": null}}'), c, null, null, null, null, null, null, 'infinity', null, null))
                   from apipay.jobs j join apipay.accounts a on a.name = j.account, apipay._control c where j.id = {job}"
            ))
            .await;
        assert!(explain.as_str().unwrap().starts_with(expected), "{explain}");
    }
    world.end([daemon]).await;
}

/// A clock that was set back and is not noticed yet makes nothing lie ahead: what is measured by it is carried along when
/// it is, and would be moved twice.
#[tokio::test]
async fn nothing_is_brought_back_by_a_clock_that_was_just_set_back() {
    let world = World::made(Wish::default()).await;
    world.sql("select apipay.stop('no sends')").await;
    let job = world.bill(phone::UNPAID, 100).await;
    let held = world.bill(phone::UNPAID, 100).await;
    world
        .sql(&format!(
            "update apipay.jobs set state = 'uncertain', unproven_since = now() + interval '1 hour' where id = {job};
             update apipay.jobs set state = 'uncertain', unproven_since = now() where id = {held};
             update apipay.jobs set state = 'held', quiet_until = now() + interval '1 hour' where id = {held};
             update apipay.accounts set resumed_at = now() + interval '1 hour'"
        ))
        .await;
    let second = Duration::from_secs(1);
    let bounds = Bounds {
        cap: second,
        rate: second,
        probe: second,
        lease: second,
        wait: second,
        check: second,
        cap_codes: Vec::new(),
    };
    let pool = world.daemon_pool();
    let now = OffsetDateTime::now_utc();
    let (set_back, right) = (
        now + Duration::from_secs(3_600),
        now - Duration::from_secs(2),
    );
    assert_eq!(bounds::keep(&pool, &bounds, set_back).await.unwrap(), 0);
    assert_eq!(bounds::keep(&pool, &bounds, right).await.unwrap(), 3);
    let ahead = "apipay.jobs where unproven_since > now() or quiet_until > now() + interval '2 s'";
    assert_eq!(world.count(ahead).await, 0);
    world.end_unchecked().await;
}

/// What takes infinity: the user's wishes, the gateway's own words, and a turn that has never been.
const INFINITE: [&str; 9] = [
    "_quotas.check_from",
    "invoices.gateway_created_at",
    "invoices.gateway_updated_at",
    "invoices.paid_at",
    "jobs.expires_at",
    "jobs.run_at",
    "refunds.gateway_created_at",
    "subscriptions.gateway_created_at",
    "subscriptions.next_billing_at",
];

const VIEWS: [&str; 6] = [
    "overview",
    "waiting",
    "uncertain",
    "parked",
    "daily",
    "account_status",
];

#[tokio::test]
async fn no_moment_that_can_be_stored_stops_the_daemon_or_a_view() {
    let (world, daemon) = World::running().await;
    fill(&world, &daemon).await;
    let columns = world
        .rows(
            "select c.relname || '.' || a.attname as name, c.relname as relation, a.attname as column
               from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
              where c.relnamespace = 'apipay'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
                and a.atttypid = 'timestamptz'::regtype and c.relname <> '_migrations'
              order by name",
        )
        .await;
    assert!(columns.len() > 40, "{}", columns.len());
    let mut taken = Vec::new();
    for column in &columns {
        let name = column["name"].as_str().unwrap();
        let (relation, column) = (&column["relation"], &column["column"]);
        let (relation, column) = (relation.as_str().unwrap(), column.as_str().unwrap());
        for value in ["infinity", "-infinity", "20000-01-01"] {
            // As a restored dump would have them, whatever state the rows are in.
            let with = match name {
                "jobs.leased_until" => {
                    ", state = 'sending', leased_by = gen_random_uuid(), finished_at = null"
                }
                "jobs.finished_at" => ", state = 'failed', leased_by = null, leased_until = null",
                "accounts.parked_at" => ", state = 'parked', parked_reason = 'x'",
                _ => "",
            };
            let statement = format!(
                "set session_replication_role = replica; update apipay.{relation} set {column} = '{value}'{with}"
            );
            let mut connection = world.pool().acquire().await.unwrap().detach();
            let done = sqlx::raw_sql(AssertSqlSafe(statement))
                .execute(&mut connection)
                .await;
            match done {
                Ok(done) => {
                    assert!(done.rows_affected() > 0, "{name}: nothing to set");
                    if taken.last() != Some(&name) {
                        taken.push(name);
                    }
                    for view in VIEWS {
                        world.rows(&format!("select * from apipay.{view}")).await;
                    }
                }
                Err(error) => {
                    let error = error.as_database_error().unwrap();
                    let bound = format!("{relation}_moments");
                    assert_eq!(error.constraint(), Some(bound.as_str()), "{name}: {error}");
                }
            }
        }
    }
    assert_eq!(taken, INFINITE);
    let last = world.bill(phone::UNPAID, 100).await;
    world.until(last, "succeeded").await;
    assert!(!world.said().contains("panicked"));
    assert!(!daemon.status().contains("database"), "{}", daemon.status());
    world.end_unchecked().await;
    drop(daemon);
}

/// A row in every table, and every kind of job.
async fn fill(world: &World, daemon: &Daemon) {
    daemon.until_told("in flight").await;
    let done = world.bill(phone::UNPAID, 100).await;
    world.until(done, "succeeded").await;
    world
        .sql(
            "insert into apipay.subscriptions (account, id, status, settled) values ('default', 1, 'active', true);
             insert into apipay.refunds (account, id, invoice_id, status, settled) values ('default', 1, 1, 'completed', true);
             insert into apipay.webhooks (account, event, dedup_key, body) values ('default', 'e', 'k', '{}');
             insert into apipay._reads (account, kind) values ('default', 'check');
             insert into apipay.alerts (account, kind, summary, action) values ('default', 'test', 's', 'a');
             insert into apipay.jobs (operation, params, run_at) select 'invoice.create', '{}', now() + interval '1 day'",
        )
        .await;
    world
        .until_true("select exists (select from apipay.alert_deliveries)")
        .await;
}
