//! A database that is well, and payments that do not move in it; and others that only move slowly.

use std::time::Duration;

use serde_json::json;

use super::{ordinary_daemon, told, until_told, wish};
use crate::world::{World, phone};

#[tokio::test]
async fn an_account_that_nobody_serves_is_told_and_what_only_waits_is_not() {
    let names = ["default", "slow", "parked", "blocked", "refunds", "answers"];
    let (world, daemon) = World::running_as(wish().accounts(&names)).await;
    world.slow_gateway(700).await;
    world
        .sql(
            "insert into apipay.accounts (name) values ('ghost');
             update apipay.accounts set requests_per_minute = 1 where name = 'slow';
             update apipay.accounts set blocked_until = now() + interval '1 hour', blocked_reason = 'tariff' where name = 'blocked';
             select apipay.park('parked', 'test');
             insert into apipay.jobs (account, operation, params, state, reason)
             values ('refunds', 'invoice.refund', '{\"invoice_id\": 5, \"amount\": 1}', 'held', 'unknown_outcome'),
                    ('refunds', 'invoice.refund', '{\"invoice_id\": 5, \"amount\": 2}', 'queued', null);
             insert into apipay.jobs (account, operation, params, state, reason, run_at, lookups)
             values ('answers', 'invoice.create', '{}', 'uncertain', 'timeout', now() + interval '1 hour', 5);",
        )
        .await;
    for account in ["default", "slow", "parked", "blocked"] {
        for amount in 0..20 {
            let params = json!({"phone_number": phone::PAID, "amount": 100 + amount});
            world
                .enqueue_with("invoice.create", params, json!({"account": account}))
                .await;
        }
    }
    let params = json!({"phone_number": phone::PAID, "amount": 700});
    let ghost = world
        .enqueue_with("invoice.create", params, json!({"account": "ghost"}))
        .await;

    let delivery = until_told(&world, "firing", &["[accounts.ghost]"]).await;
    assert_eq!(delivery["commonLabels"]["account"], "ghost");
    assert_eq!(delivery["commonLabels"]["alertname"], "ApipayNoProgress");
    assert_eq!(delivery["commonAnnotations"]["jobs_waiting"], "1");
    assert_eq!(delivery["commonAnnotations"]["amount_waiting_kzt"], "700");
    // The others have waited for as long, and for longer now.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let told: Vec<_> = told(&world, "firing");
    assert_eq!(told.len(), 2, "{told:?}");
    until_told(
        &world,
        "firing",
        &["of account answers", "nothing comes of it"],
    )
    .await;
    daemon
        .until_told("No running apipayd has account ghost")
        .await;

    world
        .sql(&format!("select apipay.cancel({ghost}, 'nobody sends it')"))
        .await;
    until_told(&world, "resolved", &["ghost"]).await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_claim_that_fails_again_and_again_is_told_in_the_databases_words() {
    let (world, daemon) = World::running_as(wish()).await;
    world
        .sql(
            "create function public.refuse() returns trigger language plpgsql as
               $$ begin raise exception 'the disk of the shop is full'; end $$;
             create trigger refuse before insert on apipay.attempts
               for each statement execute function public.refuse()",
        )
        .await;
    let job = world.bill(phone::PAID, 1500).await;
    until_told(
        &world,
        "firing",
        &["the disk of the shop is full", "1 payment waits, 1500"],
    )
    .await;
    world.sql("drop trigger refuse on apipay.attempts").await;
    world.until(job, "succeeded").await;
    until_told(&world, "resolved", &[]).await;
    assert_eq!(told(&world, "firing").len(), 1);
    world.end([daemon]).await;
}

#[tokio::test]
async fn no_phone_number_leaves_by_what_the_database_says() {
    let (world, daemon) = World::running_as(wish()).await;
    world
        .sql(
            "create table public.audit (kept text check (kept is null));
             grant insert on public.audit to apipay_worker;
             create function public.refuse() returns trigger language plpgsql as
               $$ begin
                 raise warning 'the shop warns of +7 701 234 56 78 and 87012345678';
                 begin
                   insert into public.audit values ('+7 (701) 234-56-78');
                 exception when check_violation then
                   raise exception 'the shop refuses: % {\"to\": \"87012345678\"} +7 701 234 56 78, 7012345678', sqlerrm
                     using detail = 'Failing row contains (+7 (701) 234-56-78).';
                 end;
                 return null;
               end $$;
             create trigger refuse before insert on apipay.attempts
               for each statement execute function public.refuse()",
        )
        .await;
    let job = world.bill(phone::PAID, 1500).await;
    until_told(&world, "firing", &["the shop refuses"]).await;
    world
        .until_holds("the status line says why", async || {
            daemon.status().contains("the shop refuses")
        })
        .await;
    let mut check = world.spawn(&["check"], &[]);
    check.ended(std::time::Duration::from_secs(15)).await;
    for (place, text) in [
        ("the log", daemon.log_text()),
        (
            "the status line",
            daemon.notified.lock().unwrap().join("\n"),
        ),
        ("check", check.log_text()),
        ("a delivery", world.alerts.raw()),
    ] {
        let digits: String = text
            .chars()
            .filter(|letter| !matches!(letter, ' ' | '(' | ')' | '-'))
            .collect();
        assert!(!digits.contains("7012345678"), "{place}: {text}");
    }
    assert!(daemon.log_text().contains("the shop refuses"));
    world.sql("drop trigger refuse on apipay.attempts").await;
    world.until(job, "succeeded").await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn jobs_that_are_all_refused_are_told_by_one_alert_with_their_number() {
    let (world, daemon) = World::running_as(wish()).await;
    world
        .sql(
            "create function public.refuse() returns trigger language plpgsql as
               $$ begin raise exception 'the books are closed'; end $$;
             create trigger a_refuse before update on apipay.jobs
               for each row when (new.state = 'sending') execute function public.refuse();
             insert into apipay.jobs (account, operation, params)
             select 'default', 'invoice.create', jsonb_build_object('phone_number', '87000000001', 'amount', n)
               from generate_series(1, 15) n",
        )
        .await;
    let of_all = async || {
        let firing = world.alerts.deliveries("firing");
        firing.iter().any(|delivery| {
            delivery["commonLabels"]["kind"] == "job_stuck"
                && delivery["commonAnnotations"]["jobs_waiting"] == "15"
                && ["the books are closed", "refuses 14 more"]
                    .iter()
                    .all(|words| delivery["commonAnnotations"].to_string().contains(words))
        })
    };
    world
        .until_holds("one alert tells of all 15 jobs", of_all)
        .await;
    // For longer than what stands still is waited for.
    tokio::time::sleep(Duration::from_secs(28)).await;
    let firing = world.alerts.deliveries("firing");
    assert_eq!(firing.len(), 1, "{firing:?}");
    world.sql("drop trigger a_refuse on apipay.jobs").await;
    world.until_all_final().await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn outcomes_that_the_database_does_not_take_are_told_with_what_it_says() {
    let world = World::made(wish()).await;
    let daemon = ordinary_daemon(&world).await;
    world
        .sql("revoke insert on apipay.invoices from apipay_worker")
        .await;
    let job = world.bill(phone::PAID, 1500).await;
    let words = [
        "does not take what became of payments",
        "permission denied for table invoices",
        "select apipay._grant_roles();",
    ];
    until_told_or_kept(&world, &words).await;
    world.sql("select apipay._grant_roles()").await;
    world.until(job, "succeeded").await;
    until_told(&world, "resolved", &[]).await;
    assert_eq!(told(&world, "firing").len(), 1);
    world.end([daemon]).await;
}

/// The row says more once more is known; its next delivery will.
async fn until_told_or_kept(world: &World, words: &[&str]) {
    world
        .until_holds(&format!("{words:?} is in the alert"), async || {
            let rows = world
                .rows("select summary || action as text from apipay.alerts where kind = 'no_progress'")
                .await;
            rows.iter().any(|row| {
                let text = row["text"].as_str().unwrap();
                words.iter().all(|word| text.contains(word))
            })
        })
        .await;
}

#[tokio::test]
async fn a_claim_that_takes_nothing_without_a_word_is_told() {
    let (world, daemon) = World::running_as(wish()).await;
    // It is not one of somebody else's, of which the claim itself would tell.
    world
        .sql(
            "create function apipay.keep() returns trigger language plpgsql as $$ begin return null; end $$;
             create trigger a_keep before update on apipay.jobs
               for each row when (new.state = 'sending') execute function apipay.keep()",
        )
        .await;
    let job = world.bill(phone::PAID, 1500).await;
    // Nothing that `apipayd check` knows of is found, so it is not promised to name the cause.
    let words = ["are due and none is taken up", "if it names no cause"];
    let delivery = until_told(&world, "firing", &words).await;
    assert_eq!(delivery["commonLabels"]["account"], "default");
    world.sql("drop trigger a_keep on apipay.jobs").await;
    world.until(job, "succeeded").await;
    until_told(&world, "resolved", &["were taken up again"]).await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_refund_whose_turn_has_come_and_that_nobody_lets_go_is_told() {
    let (world, daemon) = World::running_as(wish()).await;
    world
        .sql(
            "create function apipay.keep() returns trigger language plpgsql as $$ begin return null; end $$;
             create trigger a_keep before update on apipay.jobs
               for each row when (old.reason = 'waits_for_refund' and new.reason is null) execute function apipay.keep();
             insert into apipay.jobs (operation, params, reason) values ('invoice.refund', '{\"invoice_id\": 5}', 'waits_for_refund')",
        )
        .await;
    // What moves meanwhile says nothing of it.
    let job = world.bill(phone::PAID, 1500).await;
    world.until(job, "succeeded").await;
    let delivery = until_told(&world, "firing", &["do not go on although it has ended"]).await;
    assert_eq!(delivery["commonLabels"]["account"], "default");
    world.sql("drop trigger a_keep on apipay.jobs").await;
    world.until_all_final().await;
    until_told(&world, "resolved", &[]).await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_stop_that_was_forgotten_is_told_as_a_warning() {
    let (world, daemon) = World::running_as(wish()).await;
    world.sql("select apipay.stop('moving house')").await;
    world.bill(phone::PAID, 1500).await;
    daemon.until_told("ALL SENDING STOPPED").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(told(&world, "firing").len(), 0, "whoever stopped it knows");
    world
        .sql("update apipay._control set changed_at = now() - interval '25 hours'")
        .await;
    let delivery = until_told(
        &world,
        "firing",
        &["moving house", "select apipay.start('why');"],
    )
    .await;
    assert_eq!(delivery["commonLabels"]["severity"], "warning");
    world.sql("select apipay.start('moved')").await;
    world.until_all_final().await;
    until_told(&world, "resolved", &[]).await;
    world
        .until_true("select resolution like 'sending was started again%' from apipay.alerts where kind = 'no_progress'")
        .await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_receiver_that_takes_no_alert_is_told_by_the_log_and_the_status() {
    let (world, daemon) = World::running_as(wish()).await;
    world.alerts.refuse(usize::MAX);
    world.sql("select apipay.park('default', 'test')").await;
    daemon
        .until_logged("ALERT no_progress: Alerts are not delivered")
        .await;
    daemon
        .until_told("NO PROGRESS: Alerts are not delivered")
        .await;
    world.end([daemon]).await;
}

/// Nobody tries what a channel has not taken that is in no configuration any more: nobody is told that it is tried.
#[tokio::test]
async fn a_receiver_that_is_taken_out_of_the_configuration_is_told_of_no_more() {
    let (world, mut daemon) = World::running_as(wish()).await;
    world.alerts.refuse(usize::MAX);
    world.sql("select apipay.park('default', 'test')").await;
    daemon
        .until_logged("ALERT no_progress: Alerts are not delivered")
        .await;
    daemon.stop().await;
    let with = std::fs::read_to_string(world.config()).unwrap();
    let webhook = with.find("[alerts.webhook]").unwrap();
    let end = with[webhook..]
        .find("\n\n")
        .map_or(with.len(), |end| webhook + end);
    let without = format!("{}{}", &with[..webhook], &with[end..]);
    std::fs::write(world.config(), without).unwrap();
    // What a daemon has told is its own for some minutes after its last sign of life.
    world
        .sql("update apipay.daemons set seen_at = now() - interval '6 minutes'")
        .await;
    let mut daemon = world.daemon().await;
    // A daemon ends what an earlier one has told once it has looked for so long that it would tell it itself.
    world
        .until_true("select not exists (select from apipay.alerts where kind = 'no_progress' and resolved_at is null)")
        .await;
    let (_, said) = super::check(&world, &world.database.url()).await;
    assert!(!said.contains("not delivered"), "{said}");
    daemon.stop().await;
    // One that comes back is told what is still open.
    std::fs::write(world.config(), with).unwrap();
    world.alerts.refuse(0);
    let daemon = world.daemon().await;
    world
        .until_holds("the park is told", async || {
            let firing = world.alerts.deliveries("firing");
            firing
                .iter()
                .any(|delivery| delivery["commonLabels"]["kind"] == "account_parked")
        })
        .await;
    world.end([daemon]).await;
}

/// One message that the receiver does not take stops no other, and is told by those that it takes.
#[tokio::test]
async fn an_alert_that_the_receiver_refuses_keeps_no_later_one_from_being_told() {
    let (world, daemon) = World::running_as(wish()).await;
    world.alerts.refuse_words("indigestible");
    let open = async |kind: &str, summary: &str| {
        world
            .sql(&format!(
                "select apipay._open_alert('default', '{kind}', 'critical', {summary}, 'look', '{{}}')"
            ))
            .await;
    };
    open("first", "'indigestible'").await;
    world
        .until_holds("it is refused", async || world.alerts.refused() > 0)
        .await;
    open("second", "repeat('long ', 100000)").await;
    world
        .until_holds("the next one is told", async || {
            let firing = world.alerts.deliveries("firing");
            firing.iter().any(|delivery| {
                let summary = &delivery["commonAnnotations"]["summary"];
                summary.as_str().unwrap().contains("cut short")
            })
        })
        .await;
    until_told(
        &world,
        "firing",
        &["Alerts are not delivered", "answered 400"],
    )
    .await;
    let (_, said) = super::check(&world, &world.database.url()).await;
    assert!(said.contains("answered 400"), "{said}");
    world
        .sql(
            "select apipay._resolve_alert('default', kind, 'it is over') from apipay.alerts where kind in ('first', 'second')",
        )
        .await;
    world.alerts.refuse_words("nothing");
    until_told(&world, "resolved", &[]).await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn an_invoice_that_is_told_not_to_be_stored_is_told_once() {
    let (world, daemon) = World::running_as(wish()).await;
    let job = world.bill(phone::UNPAID, 1500).await;
    world.until(job, "succeeded").await;
    world
        .sql(
            "create function public.hush() returns trigger language plpgsql as $$ begin return null; end $$;
             create trigger hush before update on apipay.invoices for each row execute function public.hush()",
        )
        .await;
    let open = "select kind from apipay.alerts where resolved_at is null order by kind";
    world
        .until_holds("it is told", async || !world.rows(open).await.is_empty())
        .await;
    world
        .until_true(&format!(
            "select explain like '%does not take what ApiPay shows of invoice%' from apipay.overview where id = {job}"
        ))
        .await;
    // Longer than it takes for what stands still to be told.
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(world.rows(open).await, [json!({"kind": "job_stuck"})]);
    world.sql("drop function public.hush cascade").await;
    world.end([daemon]).await;
}
