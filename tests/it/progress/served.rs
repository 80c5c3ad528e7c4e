//! Who serves an account, and which daemon has stopped when nobody does.

use std::time::Duration;

use apipayd::db::progress::{DueWork, Unstored, due};

use super::{told, until_told, wish};
use crate::world::{Wish, World};

const ALIVE_FOR: Duration = Duration::from_secs(60);

/// What a daemon has told of itself: its machine, its accounts, how many seconds ago it came and was last seen, and whether
/// it has left.
type Told = (&'static str, &'static str, u32, u32, bool);

/// What is seen of account b1 with these daemons, if anything is.
async fn found(world: &World, daemons: &[Told]) -> Option<DueWork> {
    world.sql("truncate apipay.daemons").await;
    for (host, accounts, came, seen, has_left) in daemons {
        tell(world, host, accounts, *came, *seen, *has_left).await;
    }
    let all = due(&world.daemon_pool(), ALIVE_FOR, &Unstored::default()).await;
    all.unwrap().into_iter().find(|due| due.account == "b1")
}

/// The same, of which a job is due.
async fn seen(world: &World, daemons: &[Told]) -> DueWork {
    found(world, daemons).await.unwrap()
}

async fn tell(world: &World, host: &str, accounts: &str, came: u32, seen: u32, has_left: bool) {
    world
        .sql(&format!(
            "insert into apipay.daemons (worker, host, version, accounts, started_at, seen_at, has_left)
             values (gen_random_uuid(), '{host}', '0', '{{{accounts}}}', now() - interval '{came} s',
                     now() - interval '{seen} s', {has_left})"
        ))
        .await;
}

async fn stopped(world: &World, daemons: &[Told]) -> Option<String> {
    let due = seen(world, daemons).await;
    assert_eq!(due.served_by, 0, "{daemons:?}");
    due.stopped_host
}

async fn world() -> World {
    let world = World::made(Wish::default().accounts(&["b1"])).await;
    world.bill_of("b1").await;
    world
}

#[tokio::test]
async fn what_the_daemon_has_parked_is_missed_once_it_is_in_no_configuration() {
    let world = world().await;
    let park = |who: &str| {
        format!(
            "select apipay._resume('b1', 'over', 'postgres');
             select apipay._park('b1', 'key_rejected', '{who}', interval '10 minutes', 'It is.', 'Look.', '{{}}')"
        )
    };
    let seen = async |daemons: &[Told]| found(&world, daemons).await;
    let other = [("h2", "b2", 500, 1, false)];
    world.sql(&park("apipayd")).await;
    let missed = seen(&other).await.unwrap();
    assert_eq!((missed.served_by, missed.is_left_alone), (0, false));
    // Its probe lies ahead, and whoever serves it makes that.
    assert!(seen(&[("h2", "b1", 500, 1, false)]).await.is_none());
    // A person who has parked it needs nobody to serve it.
    world.sql(&park("aida")).await;
    assert!(seen(&other).await.is_none());
    world.end_unchecked().await;
}

/// What a cap, or a block, has wait is not due, and who is to send it once that is over is missed before that.
#[tokio::test]
async fn an_account_behind_a_cap_or_a_block_misses_its_daemon_as_without_it() {
    let world = world().await;
    let seen = async |daemons: &[Told]| found(&world, daemons).await;
    let died = [("h1", "b1", 5_000, 300, false), ("h2", "b2", 500, 1, false)];
    for behind in [
        "capped_until = now() + interval '1 hour', capped_operations = '{invoice.create}', capped_reason = 'kyc_limit_reached'",
        "capped_until = null, capped_operations = null, capped_reason = null, blocked_until = now() + interval '1 hour', blocked_reason = 'retry_after'",
    ] {
        world
            .sql(&format!(
                "update apipay.accounts set {behind} where name = 'b1'"
            ))
            .await;
        let missed = seen(&died).await.unwrap();
        assert_eq!((missed.served_by, missed.due_jobs), (0, 0), "{behind}");
        assert_eq!(missed.stopped_host.as_deref(), Some("h1"), "{behind}");
        // Whoever serves it has nothing to do now.
        assert!(
            seen(&[("h2", "b1", 500, 1, false)]).await.is_none(),
            "{behind}"
        );
    }
    // Nothing waits for one.
    world
        .sql("select apipay.cancel(id, 'why') from apipay.jobs")
        .await;
    assert!(seen(&died).await.is_none());
    world.end_unchecked().await;
}

#[tokio::test]
async fn a_daemon_that_served_it_last_and_runs_on_hides_one_that_died_before() {
    let world = world().await;
    let died = ("h1", "b1", 5_000, 300, false);
    assert_eq!(stopped(&world, &[died]).await.as_deref(), Some("h1"));
    world
        .sql(
            "insert into apipay.daemons (worker, host, version, accounts, dropped)
             values (gen_random_uuid(), 'h2', '0', '{}', jsonb_build_object('b1', now() - interval '100 s'))",
        )
        .await;
    let all = due(&world.daemon_pool(), ALIVE_FOR, &Unstored::default()).await;
    let of_b1 = all.unwrap().into_iter().find(|due| due.account == "b1");
    assert_eq!(of_b1.unwrap().stopped_host, None);
    world.end_unchecked().await;
}

#[tokio::test]
async fn a_daemon_that_left_serves_nothing_from_then_on() {
    let world = world().await;
    assert_eq!(
        seen(&world, &[("h2", "b1", 500, 1, false)]).await.served_by,
        1
    );
    let left = &[("h2", "b1", 500, 1, true)];
    assert_eq!(stopped(&world, left).await.as_deref(), Some("h2"));
    world.end_unchecked().await;
}

#[tokio::test]
async fn a_daemon_that_died_is_named_although_another_one_shares_one_of_its_accounts() {
    let world = world().await;
    let died = ("h2", "b1,b2,b3,b4", 5_000, 300, false);
    for host in ["h2", "h3"] {
        // It ran beside the other, and so did its predecessor.
        let beside = &[died, (host, "b4", 4_000, 1, false)];
        assert_eq!(stopped(&world, beside).await.as_deref(), Some("h2"));
        let again = &[
            died,
            (host, "b4", 4_000, 290, false),
            (host, "b4", 280, 1, false),
        ];
        assert_eq!(stopped(&world, again).await.as_deref(), Some("h2"));
    }
    world.end_unchecked().await;
}

#[tokio::test]
async fn a_daemon_that_was_started_again_without_an_account_has_not_stopped() {
    let world = world().await;
    let before = ("h2", "b1,b2,b3,b4", 5_000, 300, false);
    let again = ("h2", "b2,b3,b4", 290, 1, false);
    assert_eq!(stopped(&world, &[before, again]).await, None);
    // And once more.
    let once_more = ("h2", "b2,b3,b4", 100, 1, false);
    let was = ("h2", "b2,b3,b4", 290, 110, true);
    assert_eq!(stopped(&world, &[before, was, once_more]).await, None);
    // It reads its configuration again: its row has the account no more.
    assert_eq!(
        stopped(&world, &[("h2", "b2", 5_000, 1, false)]).await,
        None
    );
    // It left, and came again without the account.
    let left = ("h2", "b1,b2", 5_000, 300, true);
    assert_eq!(
        stopped(&world, &[left, ("h2", "b2", 290, 1, false)]).await,
        None
    );
    world.end_unchecked().await;
}

/// A stop is no proof that nobody is to serve an account any more: a unit that does not come up again has stopped so as well.
#[tokio::test]
async fn a_daemon_that_was_stopped_properly_is_named_although_another_one_goes_on_there() {
    let world = world().await;
    let left = ("h2", "b1,b2", 5_000, 300, true);
    for beside in [
        ("h2", "c", 4_000, 1, false),
        ("h2", "c", 4_000, 20, true),
        ("h2", "b2,c", 4_000, 1, false),
    ] {
        let host = stopped(&world, &[left, beside]).await;
        assert_eq!(host.as_deref(), Some("h2"), "{beside:?}");
    }
    world.end_unchecked().await;
}

/// Two units of one machine, of which one is stopped properly: one alert says so, and how it is started.
#[tokio::test]
async fn a_unit_that_was_stopped_beside_another_one_is_told_once_with_how_it_is_started() {
    let world = World::made(wish().accounts(&["a", "b", "c", "d"])).await;
    world.configure(&["a", "b"]);
    let other = world.daemon().await;
    world.configure(&["c", "d"]);
    let mut stopped = world.daemon().await;
    world
        .until_true("select count(*) = 2 from apipay.daemons where cardinality(accounts) = 2")
        .await;
    stopped.stop().await;
    for account in ["c", "d"] {
        world.bill_of(account).await;
    }
    let delivery = until_told(&world, "firing", &["accounts c, d", " was stopped at "]).await;
    let text = delivery["commonAnnotations"].to_string();
    for part in [
        "sudo systemctl start apipayd",
        "systemctl list-units",
        "journalctl",
        "state in ('queued', 'parked')",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("has account"), "{text}");
    assert_eq!(told(&world, "firing").len(), 1);
    let again = world.daemon().await;
    world.until_all_final().await;
    until_told(&world, "resolved", &[" was stopped at "]).await;
    world.end([other, again]).await;
}
