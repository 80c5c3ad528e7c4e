//! A channel is told of what is open when it is first there, and of what comes later.

use std::time::Duration;

use rustix::process::Signal;

use super::{open, until_ended};
use crate::world::{Wish, World};

#[tokio::test]
async fn a_channel_that_is_new_is_told_only_of_what_is_open_and_of_what_comes_later() {
    let world = World::made(Wish::default()).await;
    for kind in ["over", "lasting"] {
        world
            .sql(&format!(
                "select apipay._open_alert('default', '{kind}', 'critical', '{kind} it is', 'look', '{{}}')"
            ))
            .await;
    }
    world
        .sql("select apipay._resolve_alert('default', 'over', 'it is over')")
        .await;
    let daemon = world.daemon().await;
    world
        .until_holds("what is open is told", async || {
            !world.alerts.deliveries("firing").is_empty()
        })
        .await;
    world
        .sql(
            "select apipay._open_alert('default', 'later', 'critical', 'later it is', 'look', '{}');
             select apipay._resolve_alert('default', 'later', 'it was short')",
        )
        .await;
    world
        .sql("select apipay._resolve_alert('default', 'lasting', 'it is over')")
        .await;
    world
        .until_holds("both ends are told", async || {
            world.alerts.deliveries("resolved").len() >= 2
        })
        .await;
    let of = |status: &str| {
        let deliveries = world.alerts.deliveries(status);
        let mut kinds: Vec<String> = deliveries
            .iter()
            .map(|delivery| {
                delivery["commonLabels"]["kind"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect();
        kinds.sort();
        kinds
    };
    assert_eq!(of("firing"), ["lasting", "later"]);
    assert_eq!(of("resolved"), ["lasting", "later"]);
    world.end([daemon]).await;
}

#[tokio::test]
async fn what_a_person_has_seen_to_is_not_told_again_and_ends_with_its_cause() {
    let (world, daemon) = World::running_as(Wish::default().tune("alerts.repeat", "2s")).await;
    world.sql("select apipay.park('default', 'drill')").await;
    let alert = open(&world, "account_parked", "true").await;
    daemon
        .until_logged("ALERT still open: account_parked")
        .await;
    let seen = format!("select apipay.acknowledge({}, 'on it')", alert["id"]);
    super::as_operator(&world, &seen).await.unwrap();
    // A round of the outbox may be under way.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let repeats = "apipay.alert_deliveries where status = 'repeat'";
    let told = world.count(repeats).await;
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    assert_eq!(world.count(repeats).await, told);
    open(&world, "account_parked", "acked_at is not null").await;
    super::as_operator(&world, "select apipay.resume('default', 'done')")
        .await
        .unwrap();
    until_ended(&world, "account_parked", "true").await;
    world.end([daemon]).await;
}

/// Says an alert of a kind that nothing ends, with these details.
async fn say(world: &World, details: &str) {
    let summary = format!("it is about {}", details.replace('"', ""));
    world
        .sql(&format!(
            "select apipay._open_alert('default', 'lasting', 'critical', '{summary}', 'look', '{details}')"
        ))
        .await;
}

/// How often the webhook was told of what holds these words.
fn times_told(world: &World, words: &str) -> usize {
    let deliveries = world.alerts.deliveries("firing");
    deliveries
        .iter()
        .filter(|delivery| delivery["commonAnnotations"].to_string().contains(words))
        .count()
}

#[tokio::test]
async fn what_a_person_has_seen_to_is_told_again_when_it_is_about_something_else() {
    let (world, daemon) = World::running().await;
    let acknowledge =
        "select apipay.acknowledge(id, 'on it') from apipay.alerts where kind = 'lasting'";
    let until_told = async |words: &str| {
        world
            .until_holds(&format!("{words} is told"), async || {
                times_told(&world, words) == 1
            })
            .await;
    };
    let is_acked = async || {
        world.count("apipay.alerts where kind = 'lasting' and acked_at is not null and acked_by is not null").await == 1
    };
    say(
        &world,
        r#"{"job": 1, "sqlstate": "P0001", "message": "order 7"}"#,
    )
    .await;
    until_told("job: 1,").await;
    super::as_operator(&world, acknowledge).await.unwrap();
    // The same incident, with what only counts, and by another daemon.
    say(&world, r#"{"job": 1, "sqlstate": "P0001", "message": "order 8", "others_refused": 3, "worker": "b", "epoch": 5}"#).await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert!(is_acked().await);
    assert_eq!(world.alerts.deliveries("firing").len(), 1);
    // Another job, another cause, another session: each is an incident of its own.
    for (details, words) in [
        (
            r#"{"job": 2, "sqlstate": "P0001", "message": "order 7"}"#,
            "job: 2, sqlstate: P0001",
        ),
        (
            r#"{"job": 2, "sqlstate": "55P03", "blocking_pid": 10}"#,
            "blocking_pid: 10",
        ),
        (
            r#"{"job": 2, "sqlstate": "55P03", "blocking_pid": 11}"#,
            "blocking_pid: 11",
        ),
    ] {
        say(&world, details).await;
        until_told(words).await;
        assert!(!is_acked().await, "{words}");
        super::as_operator(&world, acknowledge).await.unwrap();
        assert!(is_acked().await, "{words}");
    }
    // What was seen to once is, also when something else was told meanwhile.
    say(
        &world,
        r#"{"job": 1, "sqlstate": "P0001", "message": "order 9"}"#,
    )
    .await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert!(is_acked().await);
    assert_eq!(world.alerts.deliveries("firing").len(), 4);
    let seen = "apipay.events where evidence ->> 'kind' = 'lasting' and reason = 'on it'";
    assert_eq!(world.count(seen).await, 4, "each word of a person is kept");
    world
        .sql("select apipay._resolve_alert('default', 'lasting', 'it is over')")
        .await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn the_end_of_an_alert_is_told_however_long_ago_it_was() {
    let (world, mut daemon) = World::running().await;
    world
        .sql("select apipay._open_alert('default', 'lasting', 'critical', 'it is', 'look', '{}')")
        .await;
    world
        .until_holds("it is told", async || {
            !world.alerts.deliveries("firing").is_empty()
        })
        .await;
    daemon.stop().await;
    // It ended an hour after the daemon had stopped, and days before another one starts.
    world
        .sql(
            "select apipay._resolve_alert('default', 'lasting', 'it is over');
             update apipay.alerts set opened_at = opened_at - interval '4 days', resolved_at = resolved_at - interval '3 days';
             update apipay.alert_deliveries set delivered_at = delivered_at - interval '4 days';
             update apipay._channels set filled_at = filled_at - interval '73 hours'",
        )
        .await;
    let daemon = world.daemon().await;
    world
        .until_holds("its end is told", async || {
            !world.alerts.deliveries("resolved").is_empty()
        })
        .await;
    world.end([daemon]).await;
}

/// Both have one fingerprint: told the other way round, a receiver would take the new trouble for ended.
#[tokio::test]
async fn the_end_of_an_alert_is_told_before_the_next_one_of_its_kind_begins() {
    let (world, daemon) = World::running().await;
    let open = "select apipay._open_alert('default', 'again', 'critical', 'it is', 'look', '{}');";
    let end = "select apipay._resolve_alert('default', 'again', 'somebody says so');";
    let told = async |status: &str, times: usize| {
        world
            .until_holds("it is told", async || {
                world.alerts.deliveries(status).len() >= times
            })
            .await;
    };
    world.sql(open).await;
    told("firing", 1).await;
    for round in 1..=5 {
        world.sql(&format!("{end} {open}")).await;
        told("firing", round + 1).await;
        told("resolved", round).await;
    }
    let order = world
        .value(
            "select jsonb_agg(status order by id) from apipay.alert_deliveries where channel = 'webhook'",
        )
        .await;
    let expected: Vec<&str> = ["firing"]
        .into_iter()
        .chain(["resolved", "firing"].repeat(5))
        .collect();
    assert_eq!(order, serde_json::json!(expected));
    world.sql(end).await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn an_alert_is_told_although_what_waits_cannot_be_counted() {
    let (world, daemon) = World::running().await;
    world.bill_of("default").await;
    world.until_all_final().await;
    world.alerts.refuse(10_000);
    world.sql("select apipay.park('default', 'drill')").await;
    world
        .until_true(
            "select exists (select from apipay.alert_deliveries where last_error is not null)",
        )
        .await;
    let locked = world
        .hold("lock table apipay.jobs in access exclusive mode")
        .await;
    world.alerts.refuse(0);
    world
        .until_holds("the park is told", async || {
            !world.alerts.deliveries("firing").is_empty()
        })
        .await;
    let told = &world.alerts.deliveries("firing")[0]["commonAnnotations"];
    assert_eq!(told.get("jobs_waiting"), None, "{told}");
    locked.rollback().await.unwrap();
    world.sql("select apipay.resume('default', 'done')").await;
    world
        .until_holds("its end is told", async || {
            !world.alerts.deliveries("resolved").is_empty()
        })
        .await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn that_nobody_can_empty_the_outbox_is_told_past_it() {
    let (world, daemon) = World::running().await;
    world
        .sql(
            "create function public.no() returns trigger language plpgsql as
               $$ begin raise exception 'deliveries are frozen' using errcode = 'disk_full'; end $$;
             create trigger no before update on apipay.alert_deliveries for each row execute function public.no();
             select apipay.park('default', 'drill')",
        )
        .await;
    world
        .until_holds("it is told", async || {
            let deliveries = world.alerts.deliveries("firing");
            deliveries.iter().any(|delivery| {
                delivery["commonLabels"]["kind"] == "no_progress"
                    && delivery.to_string().contains("deliveries are frozen")
            })
        })
        .await;
    assert!(daemon.log_text().contains("ALERT no_progress"));
    world
        .sql("drop trigger no on apipay.alert_deliveries; select apipay.resume('default', 'done')")
        .await;
    world
        .until_holds("the park and its end are told", async || {
            let deliveries = world.alerts.deliveries("resolved");
            deliveries
                .iter()
                .any(|delivery| delivery["commonLabels"]["kind"] == "account_parked")
        })
        .await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn what_waits_after_failed_tries_is_tried_soon_once_one_is_delivered() {
    let wish = Wish::default()
        .accounts(&["a", "b", "c"])
        .tune("alerts.webhook.timeout", "1s");
    let (world, daemon) = World::running_as(wish).await;
    world.alerts.refuse(usize::MAX);
    world
        .sql("select apipay.park('a', 'drill'), apipay.park('b', 'drill'), apipay.park('c', 'drill')")
        .await;
    let failed = "apipay.alert_deliveries where channel = 'webhook' and delivered_at is null and last_error is not null";
    world
        .until_holds("all have failed", async || world.count(failed).await == 3)
        .await;
    // As after a night without a receiver.
    world
        .sql("update apipay.alert_deliveries set next_try_at = now() + interval '4 minutes' where delivered_at is null")
        .await;
    world.alerts.refuse(0);
    world
        .sql(
            "update apipay.alert_deliveries set next_try_at = now()
              where id = (select min(id) from apipay.alert_deliveries where channel = 'webhook' and delivered_at is null)",
        )
        .await;
    world
        .until_holds("one is delivered", async || world.count(failed).await < 3)
        .await;
    // No sooner than whoever might be making one of them this moment is done.
    world
        .until_true(&format!(
            "select not exists (select from {failed} and next_try_at > now() + interval '40 s')"
        ))
        .await;
    world
        .until_true("select recovered > 0 from apipay._channels where name = 'webhook'")
        .await;
    world.end([daemon]).await;
}

/// A machine may sleep in the middle of its work.
#[tokio::test]
async fn a_daemon_that_was_stopped_does_not_tell_again_what_is_over() {
    let names = ["a", "b", "c", "d", "e"];
    let wish = Wish::default()
        .accounts(&names)
        .tune("alerts.webhook.timeout", "2s");
    let (world, asleep) = World::running_as(wish).await;
    world.alerts.delay(Duration::from_secs(1));
    let all = |what: &str| {
        let calls: Vec<String> = names
            .iter()
            .map(|name| format!("apipay.{what}('{name}', 'drill')"))
            .collect();
        format!("select {}", calls.join(", "))
    };
    world.sql(&all("park")).await;
    world
        .until_holds("one is being told", async || {
            !world.alerts.deliveries("firing").is_empty()
        })
        .await;
    asleep.signal(Signal::STOP);
    let other = world.daemon().await;
    world
        .until_holds("all are told", async || {
            world.alerts.deliveries("firing").len() >= names.len()
        })
        .await;
    world.sql(&all("resume")).await;
    world
        .until_holds("all ends are told", async || {
            world.alerts.deliveries("resolved").len() >= names.len()
        })
        .await;
    asleep.signal(Signal::CONT);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let told = world.alerts.bodies();
    for name in names {
        let of_account = told.iter().rev();
        let last = of_account
            .filter(|delivery| delivery["commonLabels"]["account"] == name)
            .find(|delivery| delivery["commonLabels"]["kind"] == "account_parked");
        assert_eq!(last.unwrap()["status"], "resolved", "{name}: {told:?}");
    }
    world.end([asleep, other]).await;
}
