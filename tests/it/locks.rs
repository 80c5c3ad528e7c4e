//! Who keeps something locked is found however it was locked: in a savepoint, by several at once, or at the end of a chain
//! of those who wait.

use std::time::Duration;

use apipayd::db::entry::Entry;
use apipayd::db::locks::{self, Blocker, Holder};
use apipayd::db::{Connect, Pool, progress};
use apipayd::domain::account::AccountName;
use apipayd::domain::times::ALIVE_FOR;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::world::{Job, Wish, World, phone};

const DEFAULT: &str = "default";

/// Who waits for a lock and who looks whom that waits for have a connection each.
fn pool(world: &World) -> Pool {
    let options = world.database.cluster.options(&world.database.name);
    Connect::new(options, None, 4).pool()
}

/// A session of somebody's, and its process.
async fn session(world: &World) -> (PgConnection, i32) {
    let options = world.database.cluster.options(&world.database.name);
    let options = options.application_name("psql");
    let mut session = PgConnection::connect_with(&options).await.unwrap();
    let unlimited = "set idle_in_transaction_session_timeout = 0; set lock_timeout = 0; set statement_timeout = 0";
    run(&mut session, unlimited).await;
    let pid = sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(&mut session)
        .await
        .unwrap();
    (session, pid)
}

async fn run(session: &mut PgConnection, statements: &str) {
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))
        .execute(session)
        .await
        .unwrap();
}

/// The due jobs that are locked, each with the process that keeps it.
async fn locked(world: &World) -> Vec<(Job, Option<i32>)> {
    let pool = pool(world);
    let locked = locks::due_jobs(&pool, &[DEFAULT.to_owned()], Duration::ZERO).await;
    locked
        .unwrap()
        .into_iter()
        .map(|job| (job.id.0, job.blocker.as_ref().and_then(Blocker::pid)))
        .collect()
}

#[tokio::test]
async fn who_locks_jobs_in_a_savepoint_is_named() {
    let world = World::made(Wish::default()).await;
    let mut jobs = Vec::new();
    for amount in 1..=4 {
        jobs.push(world.bill(phone::PAID, amount * 100).await);
    }
    let [one, two, three, four] = jobs[..] else {
        unreachable!()
    };
    for statements in [
        format!("select * from apipay.cancel_jobs(array[{one}, {two}])"),
        format!(
            "savepoint a; select from apipay.jobs where id = {one} for update; release a;
             savepoint b; select from apipay.jobs where id = {two} for update; release b"
        ),
    ] {
        let (mut canceller, first) = session(&world).await;
        run(&mut canceller, &format!("begin; {statements}")).await;
        let of_first = [(one, Some(first)), (two, Some(first))];
        assert_eq!(locked(&world).await, of_first, "{statements}");
        // Another one that locks others, which it does not name either.
        let (mut other, second) = session(&world).await;
        let others = format!("begin; select * from apipay.cancel_jobs(array[{three}])");
        run(&mut other, &others).await;
        let of_both = [
            (one, Some(first)),
            (two, Some(first)),
            (three, Some(second)),
        ];
        assert_eq!(locked(&world).await, of_both, "{statements}");
        // What others do meanwhile with other jobs puts nobody in doubt.
        run(&mut canceller, "rollback").await;
        assert_eq!(locked(&world).await, [(three, Some(second))]);
        run(&mut other, "rollback").await;
        assert_eq!(locked(&world).await, []);
        canceller.close().await.unwrap();
        other.close().await.unwrap();
    }
    // Several share it: one of them is named.
    let (mut reader, pid) = session(&world).await;
    let (mut reader_too, pid_too) = session(&world).await;
    for reader in [&mut reader, &mut reader_too] {
        let shared = format!("begin; select from apipay.jobs where id = {four} for share");
        run(reader, &shared).await;
    }
    let shared = locked(&world).await;
    let [(job, Some(by))] = shared[..] else {
        panic!("{shared:?}")
    };
    assert_eq!(job, four);
    assert!([pid, pid_too].contains(&by), "{by}");
    run(&mut reader, "rollback").await;
    run(&mut reader_too, "rollback").await;
    world.end_unchecked().await;
}

#[tokio::test]
async fn who_locks_an_account_or_an_invoice_in_a_savepoint_is_named() {
    let (world, mut daemon) = World::running().await;
    let job = world.bill(phone::UNPAID, 1500).await;
    world.until(job, "succeeded").await;
    daemon.stop().await;
    world
        .sql("update apipay.invoices set next_check_at = now() - interval '1 minute'")
        .await;
    let pool = pool(&world);
    let account = AccountName::parse(DEFAULT).unwrap();
    let accounts = [DEFAULT.to_owned()];
    let (mut psql, pid) = session(&world).await;
    run(
        &mut psql,
        "begin; savepoint a; select from apipay.invoices for update; release a;
         savepoint b; select from apipay.accounts for update; release b",
    )
    .await;
    let mirrors = locks::due_mirrors(&pool, &accounts, Duration::ZERO).await;
    let mirrors = mirrors.unwrap().into_iter();
    let by: Vec<_> = mirrors
        .map(|mirror| mirror.blocker.as_ref().and_then(Blocker::pid))
        .collect();
    assert_eq!(by, [Some(pid)]);
    let holder = locks::holder(&pool, &account, &Entry::default()).await;
    let Some(Holder::Other(blocker)) = holder.unwrap() else {
        panic!("the account is locked")
    };
    assert_eq!(blocker.pid(), Some(pid));
    let ways = locks::in_the_way(&pool, &accounts).await.unwrap();
    let by: Vec<_> = ways.iter().map(|way| way.blocker.pid()).collect();
    assert_eq!(by, [Some(pid)]);
    run(&mut psql, "rollback").await;
    let holder = locks::holder(&pool, &account, &Entry::default()).await;
    assert_eq!(holder.unwrap(), None);
    world.end([daemon]).await;
}

/// Waits until a session waits for a lock.
async fn until_waiting(world: &World, pid: i32) {
    world
        .until_true(&format!("select cardinality(pg_blocking_pids({pid})) > 0"))
        .await;
}

#[tokio::test]
async fn of_those_who_wait_for_each_other_the_last_one_is_named_too() {
    let world = World::made(Wish::default()).await;
    world
        .sql("insert into apipay.accounts (name) values ('shop') on conflict do nothing")
        .await;
    let (mut root, of_root) = session(&world).await;
    run(
        &mut root,
        "begin; select from apipay.accounts where name = 'shop' for update",
    )
    .await;
    let (mut next, of_next) = session(&world).await;
    let bill = "select apipay.create_invoice('+77000000001', 100, account => 'shop')";
    let next = tokio::spawn(async move { run(&mut next, bill).await });
    until_waiting(&world, of_next).await;
    let (mut last, of_last) = session(&world).await;
    let alter = "begin; lock table apipay.jobs in access exclusive mode; rollback";
    let last = tokio::spawn(async move { run(&mut last, alter).await });
    until_waiting(&world, of_last).await;

    let pool = pool(&world);
    let ways = locks::in_the_way(&pool, &[]).await.unwrap();
    let pid = |blocker: &Option<Blocker>| blocker.as_ref().and_then(Blocker::pid);
    let named: Vec<_> = ways
        .iter()
        .map(|way| (way.blocker.pid(), pid(&way.behind), pid(&way.root)))
        .collect();
    assert_eq!(named, [(Some(of_last), Some(of_next), Some(of_root))]);

    // Nothing can be read, and who is to be ended is said all the same.
    let mut check = world.spawn(&["check"], &[]);
    check.ended(Duration::from_secs(100)).await;
    let said = check.log_text();
    let chain = format!(
        "the table apipay.jobs is kept locked by session {of_last}, which waits for session {of_next}, which waits for \
         session {of_root} ("
    );
    assert!(said.contains(&chain), "{said}");
    run(&mut root, "rollback").await;
    next.await.unwrap();
    last.await.unwrap();
    world.end_unchecked().await;
}

/// Whoever has many due jobs locked is told of once, and nobody is told to restart the daemon.
#[tokio::test]
async fn what_is_locked_explains_that_nothing_is_claimed() {
    let wish = Wish::default().tune("http.timeout", "1s");
    let (world, daemon) = World::running_as(wish.tune("worker.lease", "20s")).await;
    world
        .sql("select apipay.stop('while they are locked')")
        .await;
    world
        .sql("select apipay.create_invoice('+77000000001', 100 + n) from generate_series(1, 40) n")
        .await;
    let (mut psql, pid) = session(&world).await;
    run(
        &mut psql,
        "begin; select count(*) from apipay.cancel_jobs(array(select id from apipay.jobs))",
    )
    .await;
    world.sql("select apipay.start('they are locked')").await;
    world
        .until_true(&format!(
            "select count(*) = 11 and count(*) filter (where details ->> 'blocker' = 'session {pid}') = 10
                    and bool_or(summary like 'The database lets at least 30 jobs more of account default not go on%')
               from apipay.alerts where kind = 'job_stuck' and resolved_at is null"
        ))
        .await;
    // Two leases, and some looks.
    tokio::time::sleep(Duration::from_secs(35)).await;
    let told = world
        .rows("select to_jsonb(l) from apipay.alerts l where kind = 'no_progress'")
        .await;
    assert!(told.is_empty(), "{told:?}");
    run(&mut psql, "rollback").await;
    world.until_all_final().await;
    world.until_no_alert().await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_daemon_that_has_left_remembers_nothing() {
    let world = World::made(Wish::default()).await;
    world
        .sql(
            "insert into apipay.daemons (worker, host, version, accounts) values
               ('00000000-0000-0000-0000-000000000001', 'kassa', '1', '{default}');
             insert into apipay.alerts (account, kind, severity, summary, action, details) values
               ('default', 'no_progress', 'critical', 'It is.', 'Look.',
                '{\"worker\": \"00000000-0000-0000-0000-000000000001\"}')",
        )
        .await;
    let pool = pool(&world);
    let left = async || {
        let left = progress::left_open(&pool, "no_progress", ALIVE_FOR).await;
        left.unwrap().len()
    };
    assert_eq!(left().await, 0);
    world.sql("update apipay.daemons set has_left = true").await;
    assert_eq!(left().await, 1);
    world.end_unchecked().await;
}
