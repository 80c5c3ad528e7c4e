//! Refunds of one invoice go one after another. However many wait, and however long they are: a claim meets each
//! of them once, nobody else waits for them, and each goes when its turn comes.

use std::time::Duration;

use apipayd::db::Among;
use apipayd::db::claim::{self, Met, Share};
use apipayd::db::clock::SteadySecond;
use apipayd::db::locks;
use apipayd::domain::account::AccountName;
use serde_json::{Value, json};
use sqlx::types::Uuid;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};

use crate::world::{Job, Wish, World, phone};

const LEASE: Duration = Duration::from_secs(30);

fn account(name: &str) -> AccountName {
    AccountName::parse(name).unwrap()
}

/// Claims with eight slots for each account, and returns the jobs that were claimed and how many stand back.
async fn claim(pool: &apipayd::db::Pool, accounts: &[&str]) -> (Vec<Job>, usize) {
    let rooms: Vec<Share> = accounts
        .iter()
        .map(|name| Share {
            account: account(name),
            jobs: 8,
        })
        .collect();
    let met = claim::claim(
        pool,
        Uuid::new_v4(),
        LEASE,
        &rooms,
        16,
        Among::default(),
        SteadySecond(1_800_000_000),
    )
    .await
    .unwrap();
    apart(met)
}

fn apart(met: Vec<Met>) -> (Vec<Job>, usize) {
    let all = met.len();
    let claimed = met.into_iter().filter_map(|met| match met {
        Met::Claimed(granted) => Some(granted.claims.into_iter().map(|claim| claim.id.0)),
        Met::StandsBack(_) => None,
    });
    let claimed: Vec<_> = claimed.collect();
    let stand_back = all - claimed.len();
    let claimed: Vec<Job> = claimed.into_iter().flatten().collect();
    (claimed, stand_back)
}

/// Runs a claim for both accounts in a transaction and undoes it: rows and pages of the jobs that it read, and
/// pages of what is kept apart from them.
async fn read_by_a_claim(pool: &apipayd::db::Pool) -> (i64, i64, i64) {
    let mut session = pool.connections().acquire().await.unwrap();
    let explained = format!(
        "explain (analyze, buffers, format json) {}",
        include_str!("../../src/db/claim.sql")
    );
    let mut transaction = session.begin().await.unwrap();
    let plan: Value = sqlx::query_scalar(AssertSqlSafe(explained))
        .bind(Uuid::new_v4())
        .bind(30.0)
        .bind(vec!["default", "other"])
        .bind(vec![8, 8])
        .bind(16_i64)
        .bind(1_800_000_000_i64)
        .bind(Vec::<i64>::new())
        .bind(None::<Vec<i64>>)
        .bind("1s")
        .fetch_one(&mut *transaction)
        .await
        .unwrap();
    let apart: i64 = sqlx::query_scalar(
        "select pg_stat_get_xact_blocks_fetched(reltoastrelid) from pg_catalog.pg_class where oid = 'apipay.jobs'::regclass",
    )
    .fetch_one(&mut *transaction)
    .await
    .unwrap();
    transaction.rollback().await.unwrap();
    let pages = plan[0]["Plan"]["Shared Hit Blocks"].as_i64().unwrap()
        + plan[0]["Plan"]["Shared Read Blocks"].as_i64().unwrap();
    (rows_of_jobs(&plan[0]["Plan"]), pages, apart)
}

fn rows_of_jobs(node: &Value) -> i64 {
    let below = node["Plans"].as_array().into_iter().flatten();
    let rows: i64 = below.map(rows_of_jobs).sum();
    if node["Relation Name"] != "jobs" || node["Node Type"] == "ModifyTable" {
        return rows;
    }
    let number = |key: &str| node[key].as_f64().unwrap_or_default();
    let each = number("Actual Rows") + number("Rows Removed by Filter");
    rows + (each * number("Actual Loops")) as i64
}

/// So many refunds that wait for one that a human has to decide about, of the account `default`, and behind them
/// a bill; and a bill of the account `other`.
async fn wait_behind_one(world: &World, refunds: i64, reason: &str) -> (Job, Job, Job) {
    let held = world
        .enqueue_with(
            "invoice.refund",
            json!({"invoice_id": 5, "amount": 1}),
            json!({"state": "held", "reason": "unknown_outcome"}),
        )
        .await;
    world
        .sql(&format!(
            "set session_replication_role = replica;
             insert into apipay.jobs (token, operation, params, invoice_id, run_at)
             select gen_random_uuid(), 'invoice.refund', jsonb_build_object('invoice_id', 5, 'amount', 1, 'reason', {reason}), 5,
                    now() - interval '1 day' + make_interval(secs => n) from generate_series(1, {refunds}) n;
             set session_replication_role = origin"
        ))
        .await;
    let behind = world.bill(phone::PAID, 700).await;
    let params = json!({"phone_number": phone::PAID, "amount": 800});
    let others = world
        .enqueue_with("invoice.create", params, json!({"account": "other"}))
        .await;
    (held, behind, others)
}

#[tokio::test]
async fn a_hundred_thousand_refunds_behind_one_are_met_once_and_delay_nobody() {
    let world = World::made(Wish::default().accounts(&["default", "other"])).await;
    // The planner has seen a table in which nothing waits.
    world
        .sql(
            "set session_replication_role = replica;
             insert into apipay.jobs (token, operation, params, state, finished_at, invoice_id)
             select gen_random_uuid(), 'invoice.create', '{}', 'succeeded', now(), n from generate_series(1, 5000) n;
             set session_replication_role = origin",
        )
        .await;
    world.sql("vacuum analyze apipay.jobs").await;
    let many = 100_000;
    let (_, behind, others) = wait_behind_one(&world, many, "'torn'").await;
    let pool = world.daemon_pool();
    for statistics in ["", "vacuum analyze apipay.jobs"] {
        world.sql(statistics).await;
        let (rows, _, _) = read_by_a_claim(&pool).await;
        assert!(rows < 3_000, "{rows} rows are read of {many}");
    }
    // What follows is the same for each five hundred of them.
    let refunds = 10_000;
    world
        .sql(&format!(
            "set session_replication_role = replica;
             delete from apipay.jobs where id in (
               select id from apipay.jobs where operation = 'invoice.refund' and state = 'queued' order by id offset {refunds});
             set session_replication_role = origin"
        ))
        .await;

    let (claimed, first) = claim(&pool, &["default", "other"]).await;
    assert_eq!(claimed, [others]);
    assert!(first >= 500, "{first}");
    // What stands back is counted by its own index, and is met once.
    let mut met = first as i64;
    let mut claims = 1;
    loop {
        let (claimed, stand_back) = claim(&pool, &["default", "other"]).await;
        met += stand_back as i64;
        claims += 1;
        assert!(claims <= refunds / 500 + 2, "{claims} claims");
        if !claimed.is_empty() {
            assert_eq!(claimed, [behind]);
            break;
        }
        assert!(stand_back > 0, "the bill behind them is never claimed");
    }
    assert_eq!(met, refunds);
    assert_eq!(
        world
            .count("apipay.jobs where state = 'queued' and reason = 'waits_for_refund'")
            .await,
        refunds
    );
    world.sql("vacuum apipay.jobs").await;
    let (rows, pages, _) = read_by_a_claim(&pool).await;
    assert!(rows < 10 && pages < 200, "{rows} rows, {pages} pages");
    world.end_unchecked().await;
}

#[tokio::test]
async fn refunds_of_a_megabyte_behind_one_are_not_read_and_end_in_turn() {
    let world = World::made(Wish::default().accounts(&["default", "other"])).await;
    let refunds = 300;
    let (held, behind, others) = wait_behind_one(&world, refunds, "repeat('x', 1000000)").await;
    let pool = world.daemon_pool();
    let (rows, _, apart) = read_by_a_claim(&pool).await;
    assert_eq!(apart, 0, "pages of long params are read");
    assert!(rows < 3_000, "{rows}");
    let daemon = world.daemon().await;
    world.until(others, "succeeded").await;
    world.until(behind, "succeeded").await;
    world
        .until_true(&format!(
            "select count(*) = {refunds} from apipay.jobs where state = 'queued' and reason = 'waits_for_refund'"
        ))
        .await;
    // Each of them ends where it would be sent, for its params are too long, and lets the next one go.
    world
        .sql(&format!(
            "update apipay.jobs set state = 'cancelled', finished_at = now() where id = {held}"
        ))
        .await;
    world
        .until_true("select not exists (select from apipay.jobs where state = 'queued')")
        .await;
    let out_of_turn = world
        .count(
            "(select id, lag(id) over (order by finished_at) as before from apipay.jobs
               where operation = 'invoice.refund' and error_code = 'invalid_params') ended where id < before",
        )
        .await;
    assert_eq!(out_of_turn, 0);
    // The last look at everything is spared the megabytes.
    world
        .sql(
            "set session_replication_role = replica;
             update apipay.jobs set params = '{\"invoice_id\": 5, \"reason\": 1}' where error_code = 'invalid_params';
             set session_replication_role = origin",
        )
        .await;
    world.end([daemon]).await;
}

/// A paid invoice at the gateway.
async fn paid_invoice(world: &World) -> i64 {
    world
        .sandbox
        .invoice(
            &world.key("default"),
            json!({"status": "paid", "amount": "1000.00"}),
        )
        .await
}

async fn refund(world: &World, invoice: i64, columns: Value) -> Job {
    let params = json!({"invoice_id": invoice, "amount": 10});
    world.enqueue_with("invoice.refund", params, columns).await
}

/// The refunds in the order in which they were first sent.
async fn order_of_sends(world: &World) -> Vec<Job> {
    let rows = world
        .rows(
            "select e.job_id from apipay.events e join apipay.jobs j on j.id = e.job_id
              where e.to_state = 'sending' and j.operation = 'invoice.refund'
              group by e.job_id order by min(e.id)",
        )
        .await;
    rows.iter()
        .map(|row| row["job_id"].as_i64().unwrap())
        .collect()
}

async fn explained(world: &World, job: Job) -> String {
    let said = world.explain(job).await;
    said.to_owned()
}

#[tokio::test]
async fn the_urgent_go_first_then_the_eldest_and_what_ends_meanwhile_is_passed_over() {
    let (world, daemon) = World::running().await;
    let invoice = paid_invoice(&world).await;
    let held = refund(
        &world,
        invoice,
        json!({"state": "held", "reason": "unknown_outcome", "unproven_since": "2026-01-01T00:00:00Z"}),
    )
    .await;
    let at = |minute: u32| format!("2026-01-01T00:{minute:02}:00Z");
    let waiting = [
        json!({"run_at": at(2)}),
        json!({"run_at": at(3), "priority": 5}),
        json!({"run_at": at(1)}),
        json!({"run_at": at(4), "priority": -3}),
        json!({"run_at": at(5)}),
        json!({"run_at": at(0), "priority": 9}),
        json!({"run_at": at(0), "priority": 8}),
    ];
    let mut jobs = Vec::new();
    for mut columns in waiting {
        columns["state"] = "queued".into();
        jobs.push(refund(&world, invoice, columns).await);
    }
    for job in &jobs {
        let row = world
            .until_job(*job, "it waits", |row| row["reason"] == "waits_for_refund")
            .await;
        assert_eq!(row["state"], "queued");
        assert_eq!(row["attempts"], 0);
    }
    let said = explained(&world, jobs[0]).await;
    let sentence = format!("It waits for refund job {held} of the same invoice");
    assert!(said.starts_with(&sentence), "{said}");
    let causes = world
        .rows("select distinct cause from apipay.waiting where state = 'queued'")
        .await;
    assert_eq!(causes, [json!({"cause": "other_refund"})]);

    // As any other queued job.
    world
        .sql(&format!(
            "select apipay.cancel({}, 'not that one')",
            jobs[5]
        ))
        .await;
    world
        .sql(&format!(
            "update apipay.jobs set expires_at = now() where id = {}",
            jobs[6]
        ))
        .await;
    world.until(jobs[6], "expired").await;
    world
        .sql(&format!("select apipay.retry({}, 'now')", jobs[4]))
        .await;
    world
        .until_job(jobs[4], "it waits again", |row| {
            row["reason"] == "waits_for_refund"
        })
        .await;

    world
        .sql(&format!(
            "select apipay.resolve({held}, false, null, 'it was not made')"
        ))
        .await;
    world.until_all_final().await;
    // The held one is due again, since now.
    let expected = [jobs[1], jobs[2], jobs[0], jobs[4], held, jobs[3]];
    assert_eq!(order_of_sends(&world).await, expected);
    assert_eq!(world.job(jobs[5]).await["state"], "cancelled");
    for job in expected {
        assert_eq!(world.job(job).await["state"], "succeeded");
    }
    world.end([daemon]).await;
}

#[tokio::test]
async fn two_daemons_of_which_one_dies_send_many_refunds_of_some_invoices_in_turn() {
    let world = World::made(Wish::default()).await;
    let mut queues = Vec::new();
    for _ in 0..4 {
        let invoice = paid_invoice(&world).await;
        let mut queue = Vec::new();
        for _ in 0..8 {
            queue.push(refund(&world, invoice, json!({"state": "queued"})).await);
        }
        queues.push(queue);
    }
    let mut first = world.spawn(&["run"], &[]);
    let second = world.spawn(&["run"], &[]);
    world
        .until_true("select count(*) >= 6 from apipay.jobs where state = 'succeeded'")
        .await;
    first.kill().await;
    let third = world.spawn(&["run"], &[]);
    world.until_true(
        "select not exists (select from apipay.jobs where state = 'sending' and leased_until > now() + interval '1 hour')",
    )
    .await;
    world.expire_promises().await;
    world.until_all_final().await;
    let sends = order_of_sends(&world).await;
    for queue in queues {
        let of_queue: Vec<Job> = sends
            .iter()
            .copied()
            .filter(|job| queue.contains(job))
            .collect();
        assert_eq!(of_queue, queue);
        for job in queue {
            assert_eq!(world.job(job).await["state"], "succeeded");
            assert_eq!(world.effects_of(job).await.len(), 1);
        }
    }
    world.end([second, third]).await;
}

#[tokio::test]
async fn a_refund_that_ends_while_a_claim_finds_another_behind_it_leaves_that_one_waiting_for_nobody()
 {
    let world = World::made(Wish::default()).await;
    let invoice = paid_invoice(&world).await;
    let open = refund(&world, invoice, json!({"state": "held"})).await;
    let next = refund(&world, invoice, json!({"state": "queued"})).await;
    let pool = world.daemon_pool();
    let mut session = pool.connections().acquire().await.unwrap();
    let mut claiming = session.begin().await.unwrap();
    let rows = sqlx::query(include_str!("../../src/db/claim.sql"))
        .bind(Uuid::new_v4())
        .bind(30.0)
        .bind(vec!["default"])
        .bind(vec![8])
        .bind(8_i64)
        .bind(1_800_000_000_i64)
        .bind(Vec::<i64>::new())
        .bind(None::<Vec<i64>>)
        .bind("1s")
        .fetch_all(&mut *claiming)
        .await
        .unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].get::<&str, _>("state!"), "queued");
    world
        .sql(&format!(
            "update apipay.jobs set state = 'cancelled', finished_at = now() where id = {open}"
        ))
        .await;
    claiming.commit().await.unwrap();
    drop(session);
    assert_eq!(world.job(next).await["reason"], "waits_for_refund");
    let daemon = world.daemon().await;
    world.until(next, "succeeded").await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_younger_refund_does_not_overtake_those_that_wait() {
    let world = World::made(Wish::default()).await;
    let invoice = paid_invoice(&world).await;
    let open = refund(&world, invoice, json!({"state": "held"})).await;
    let elder = refund(&world, invoice, json!({"state": "queued"})).await;
    let pool = world.daemon_pool();
    assert_eq!(claim(&pool, &["default"]).await, (vec![], 1));
    world
        .sql(&format!(
            "update apipay.jobs set state = 'cancelled', finished_at = now() where id = {open}"
        ))
        .await;
    let younger = refund(&world, invoice, json!({"state": "queued"})).await;
    let urgent = refund(&world, invoice, json!({"state": "queued", "priority": 1})).await;
    assert_eq!(claim(&pool, &["default"]).await, (vec![urgent], 1));
    assert_eq!(world.job(elder).await["reason"], "waits_for_refund");
    assert_eq!(world.job(younger).await["reason"], "waits_for_refund");
    world.end_unchecked().await;
}

#[tokio::test]
async fn trials_of_a_slow_account_meet_waiting_refunds_once() {
    let world = World::made(Wish::default().accounts(&["default", "other"])).await;
    let (_, behind, _) = wait_behind_one(&world, 250, "'torn'").await;
    world
        .sql(
            "update apipay.accounts set failing_since = now(), failing_trial_at = now() - interval '1 s' where name = 'default'",
        )
        .await;
    let pool = world.daemon_pool();
    let mut met = 0;
    let claimed = loop {
        let trials = claim::claim_trials(
            &pool,
            Uuid::new_v4(),
            LEASE,
            &["default".to_owned()],
            8,
            Among::default(),
            SteadySecond(1_800_000_000),
            Duration::from_secs(600),
            LEASE,
        )
        .await
        .unwrap();
        let (claimed, stand_back) = apart(trials);
        met += stand_back;
        assert!(met <= 250, "the same refunds are met again");
        if !claimed.is_empty() {
            break claimed;
        }
        assert!(stand_back > 0, "no trial is ever made");
    };
    assert_eq!((claimed, met), (vec![behind], 250));
    world.end_unchecked().await;
}

#[tokio::test]
async fn a_waiting_refund_that_the_database_does_not_let_stand_back_stops_nobody() {
    let (world, daemon) = World::running().await;
    world
        .sql(
            "create function public.refuse() returns trigger language plpgsql as
               $$ begin raise exception 'the books are closed'; end $$;
             create trigger a_refuse before update on apipay.jobs for each row
               when (new.reason = 'waits_for_refund' and new.metadata ? 'cursed') execute function public.refuse()",
        )
        .await;
    refund(
        &world,
        5,
        json!({"state": "held", "reason": "unknown_outcome"}),
    )
    .await;
    let mut cursed = 0;
    for metadata in [json!({}), json!({"cursed": true}), json!({})] {
        let job = refund(
            &world,
            5,
            json!({"state": "queued", "priority": 1, "metadata": metadata}),
        )
        .await;
        if metadata["cursed"] == true {
            cursed = job;
        }
    }
    let bill = world.bill(phone::PAID, 700).await;
    world.until(bill, "succeeded").await;
    world
        .until_true(&format!(
            "select exists (select from apipay.alerts where kind = 'job_stuck' and details ->> 'job' = '{cursed}')"
        ))
        .await;
    assert_eq!(
        world
            .count("apipay.jobs where reason = 'waits_for_refund'")
            .await,
        2
    );
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_session_of_the_daemon_is_never_told_to_keep_a_job_locked() {
    let world = World::made(Wish::default()).await;
    let job = world.bill(phone::PAID, 700).await;
    let pool = world.daemon_pool();
    let options = world.database.cluster.options(&world.database.name);
    for (application, is_told) in [("apipayd", false), ("psql", true)] {
        let options = options.clone().application_name(application);
        let mut holder = PgConnection::connect_with(&options).await.unwrap();
        let lock = format!("begin; select from apipay.jobs where id = {job} for no key update");
        holder
            .execute(sqlx::raw_sql(AssertSqlSafe(lock)))
            .await
            .unwrap();
        let locked = locks::due_jobs(&pool, &["default".to_owned()], Duration::ZERO)
            .await
            .unwrap();
        let told: Vec<Job> = locked.iter().map(|locked| locked.id.0).collect();
        assert_eq!(
            told,
            if is_told { vec![job] } else { vec![] },
            "{application}"
        );
        holder.close().await.unwrap();
    }
    world.end_unchecked().await;
}
