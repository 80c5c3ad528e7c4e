//! A trigger of the shop's on the table of alerts that swallows each, or refuses it: what they say is logged, once, and they
//! are opened when it is gone.

use std::time::Duration;

use crate::world::{Daemon, Wish, World, phone};

/// A trigger that does this with each alert that is to be opened.
async fn mute(world: &World, how: &str) {
    world
        .sql(&format!(
            "create function public.mute() returns trigger language plpgsql as $$ begin {how}; end $$;
             create trigger mute before insert on apipay.alerts for each row execute function public.mute()"
        ))
        .await;
}

async fn mend(world: &World) {
    world.sql("drop function public.mute cascade").await;
}

fn times(daemon: &Daemon, words: &str) -> usize {
    let log = daemon.log_text();
    log.lines().filter(|line| line.contains(words)).count()
}

#[tokio::test]
async fn a_park_whose_alert_is_swallowed_is_logged_once_and_told_later() {
    let (world, daemon) = World::running().await;
    mute(&world, "return null").await;
    world.sandbox.session("expired").await;
    world.bill(phone::PAID, 1500).await;
    daemon.until_logged("ALERT account_parked").await;
    let named = "the trigger mute returns null";
    assert_eq!(times(&daemon, named), 1, "{}", daemon.log_text());
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(times(&daemon, "ALERT account_parked"), 1);
    // Nothing else of alerts stands still for it.
    assert!(!daemon.was_told("NO PROGRESS"), "{}", daemon.status());
    mend(&world).await;
    world
        .until_holds("the park is told", async || {
            !world.alerts.deliveries("firing").is_empty()
        })
        .await;
    world.sandbox.session("active").await;
    world.until_all_final().await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn an_alert_that_is_refused_is_logged_once_with_what_it_says() {
    let (world, daemon) = World::running().await;
    world
        .sql("create function public.hush() returns trigger language plpgsql as $$ begin raise exception 'the shop is shut'; end $$;
              create trigger hush before update on apipay.jobs for each row when (new.state = 'sending') execute function public.hush()")
        .await;
    mute(&world, "raise exception 'no alerts here'").await;
    world.bill(phone::PAID, 1500).await;
    daemon.until_logged("ALERT job_stuck").await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(
        times(&daemon, "ALERT job_stuck"),
        1,
        "{}",
        daemon.log_text()
    );
    assert!(times(&daemon, "no alerts here") > 0);
    mend(&world).await;
    world
        .until_true("select exists (select from apipay.alerts where kind = 'job_stuck')")
        .await;
    world.sql("drop function public.hush cascade").await;
    world.until_all_final().await;
    world.end([daemon]).await;
}

/// It is told past the database, as when that is away.
#[tokio::test]
async fn what_does_not_move_is_told_although_its_alert_is_swallowed() {
    let wish = Wish::default()
        .tune("http.timeout", "1s")
        .tune("worker.lease", "11100ms");
    let (world, daemon) = World::running_as(wish).await;
    mute(&world, "return null").await;
    world
        .sql(
            "create function apipay.keep() returns trigger language plpgsql as $$ begin return null; end $$;
             create trigger a_keep before update on apipay.jobs
               for each row when (new.state = 'sending') execute function apipay.keep()",
        )
        .await;
    let job = world.bill(phone::PAID, 1500).await;
    world
        .until_holds("it is told", async || {
            let firing = world.alerts.deliveries("firing");
            firing
                .iter()
                .any(|delivery| delivery["commonLabels"]["kind"] == "no_progress")
        })
        .await;
    world.sql("drop trigger a_keep on apipay.jobs").await;
    mend(&world).await;
    world.until(job, "succeeded").await;
    world.end([daemon]).await;
}
