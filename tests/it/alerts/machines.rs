//! Alerts about the daemon of one machine: named, and ended by that machine's daemon alone.

use std::time::Duration;

use serde_json::json;

use super::{as_operator, obey, open, until_ended};
use crate::world::{Wish, World, phone};

#[tokio::test]
async fn lost_history_of_another_machine_ends_with_no_other_start_but_with_a_persons_word() {
    let world = World::made(Wish::default()).await;
    world
        .sql(
            "select apipay._open_alert(null, 'history_lost', 'critical', 'commits are lost', 'look',
               '{\"host\": \"elsewhere\", \"accounts\": [\"default\"], \"worker\": \"00000000-0000-0000-0000-000000000001\"}', 'elsewhere')",
        )
        .await;
    let daemon = world.daemon().await;
    world
        .until_true("select exists (select from apipay.daemons)")
        .await;
    let host = world
        .value("select to_jsonb(host) from apipay.daemons")
        .await;
    let host = host.as_str().unwrap();
    // Of this machine one is told for these accounts, and one for those of another daemon.
    let told = |subject: &str, accounts: &str| {
        format!(
            "select apipay._open_alert(null, 'history_lost', 'critical', 'commits are lost', 'look', '{{\"accounts\": [\"{accounts}\"]}}', '{subject}')"
        )
    };
    world.sql(&told(host, "default")).await;
    let second = world.daemon().await;
    until_ended(&world, "history_lost", &format!("subject = '{host}'")).await;
    world.sql(&told(host, "clinic")).await;
    let third = world.daemon().await;
    open(&world, "history_lost", &format!("subject = '{host}'")).await;
    let alert = open(&world, "history_lost", "subject = 'elsewhere'").await;

    // As long as that daemon runs, nothing but its restart helps.
    let id = &alert["id"];
    let said = format!("select apipay.acknowledge({id}, 'the machine is gone')");
    world
        .sql("insert into apipay.daemons (worker, host, version, accounts) values ('00000000-0000-0000-0000-000000000001', 'elsewhere', '0', '{}')")
        .await;
    let refused = as_operator(&world, &said).await.unwrap_err().to_string();
    assert!(
        refused.contains("sudo systemctl restart apipayd"),
        "{refused}"
    );
    world
        .sql("update apipay.daemons set seen_at = now() - interval '2 minutes' where host = 'elsewhere'")
        .await;
    as_operator(&world, &said).await.unwrap();
    until_ended(&world, "history_lost", "subject = 'elsewhere'").await;
    world
        .sql(&format!("select apipay.acknowledge(id) from apipay.alerts where subject = '{host}' and resolved_at is null"))
        .await;
    world.end([daemon, second, third]).await;
}

/// Runs `apipayd check` with the configuration of the daemons, and reads what it says.
async fn check(world: &World) -> String {
    let mut check = world.spawn(&["check"], &[]);
    let status = check.ended(Duration::from_secs(30)).await;
    let said = check.log_text();
    assert_eq!(status.code(), Some(0), "{said}");
    said
}

/// What waits for a daemon says that `apipayd check` tells why, and it is run where that daemon was.
#[tokio::test]
async fn check_tells_with_the_configuration_of_a_daemon_that_it_is_gone() {
    let world = World::made(Wish::default()).await;
    world.bill(phone::PAID, 100).await;
    let gone = "the apipayd on";
    let said = check(&world).await;
    assert!(!said.contains(gone), "{said}");

    let mut daemon = world.daemon().await;
    world.until_all_final().await;
    world.sql("select apipay.stop('to have a look')").await;
    world.bill(phone::PAID, 100).await;
    daemon.kill().await;
    world
        .sql("update apipay.daemons set seen_at = now() - interval '3 minutes'")
        .await;
    let said = check(&world).await;
    for part in [
        gone,
        "that served default has given no sign of life since",
        "sudo systemctl start apipayd",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }

    let mut daemon = world.daemon().await;
    world
        .until_true("select exists (select from apipay.daemons where seen_at > now() - interval '1 minute' and accounts <> '{}')")
        .await;
    let said = check(&world).await;
    assert!(!said.contains(gone), "{said}");
    daemon.stop().await;
    let said = check(&world).await;
    assert!(
        said.contains("that served default was stopped at"),
        "{said}"
    );

    let daemon = world.daemon().await;
    world.sql("select apipay.start('seen')").await;
    world.until_all_final().await;
    world.end([daemon]).await;
}

/// With the shortest lease that its cross-check allows: two of them are what is waited for.
fn wish() -> Wish {
    Wish::default()
        .tune("http.timeout", "1s")
        .tune("worker.lease", "11100ms")
}

#[tokio::test]
async fn a_daemon_that_stopped_is_one_alert_however_many_accounts_it_served() {
    let (world, daemon) = World::running_as(wish()).await;
    let names: Vec<String> = (1..=16).map(|n| format!("branch-{n}")).collect();
    world
        .sql(&format!(
            "insert into apipay.accounts (name) select unnest('{{{0}}}'::text[]);
             insert into apipay.daemons (worker, host, version, accounts, seen_at)
             values (gen_random_uuid(), 'kassa-2', '0', '{{{0}}}', now() - interval '3 minutes')",
            names.join(",")
        ))
        .await;
    for account in &names {
        let params = json!({"phone_number": phone::PAID, "amount": 100});
        let columns = json!({"account": account});
        world.enqueue_with("invoice.create", params, columns).await;
    }
    let alert = open(&world, "no_progress", "true").await;
    let summary = alert["summary"].as_str().unwrap();
    for part in [
        "on kassa-2 has given no sign of life since",
        "branch-1, ",
        "and 11 more",
        "16 payments wait, 1600",
    ] {
        assert!(summary.contains(part), "{summary}");
    }
    let action = super::action(&alert);
    assert!(
        action.starts_with("on kassa-2: sudo systemctl start apipayd"),
        "{action}"
    );
    assert_eq!(
        (&alert["account"], &alert["subject"]),
        (&json!(null), &json!("kassa-2"))
    );
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.count("apipay.alerts").await, 1);
    // It was started again.
    world
        .sql("update apipay.daemons set seen_at = now() where host = 'kassa-2'; delete from apipay.jobs")
        .await;
    until_ended(&world, "no_progress", "true").await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_daemon_that_was_killed_beside_another_one_is_one_alert_until_it_was_started_again() {
    let (world, daemon) = World::running_as(wish()).await;
    world
        .until_true("select exists (select from apipay.daemons)")
        .await;
    // Of the same machine: one was killed, and one was started again with fewer accounts.
    world
        .sql(
            "insert into apipay.accounts (name) select unnest('{clinic-1, clinic-2, clinic-3, dropped}'::text[]);
             insert into apipay.daemons (worker, host, version, accounts, seen_at)
             select gen_random_uuid(), d.host, '0', was.accounts::text[], now() - interval '3 minutes'
               from (select host from apipay.daemons limit 1) d,
                    (values ('{clinic-1,clinic-2,clinic-3}'), ('{default,dropped}')) was (accounts)",
        )
        .await;
    let params = json!({"phone_number": phone::PAID, "amount": 100});
    for account in ["clinic-1", "clinic-2", "clinic-3", "dropped"] {
        let columns = json!({"account": account});
        world
            .enqueue_with("invoice.create", params.clone(), columns)
            .await;
    }
    let stopped = open(&world, "no_progress", "account is null").await;
    let summary = stopped["summary"].as_str().unwrap();
    for part in [
        "has given no sign of life since",
        "clinic-1, clinic-2, clinic-3",
        "3 payments wait, 300",
    ] {
        assert!(summary.contains(part), "{summary}");
    }
    assert!(super::action(&stopped).contains("systemctl list-units --all 'apipayd*'"));
    let dropped = open(&world, "no_progress", "account = 'dropped'").await;
    assert!(super::action(&dropped).contains("add [accounts.dropped]"));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.count("apipay.alerts").await, 2);
    // It was started again.
    world
        .sql(
            "insert into apipay.daemons (worker, host, version, accounts)
             select gen_random_uuid(), d.host, '0', '{clinic-1,clinic-2,clinic-3}' from (select host from apipay.daemons limit 1) d;
             delete from apipay.jobs",
        )
        .await;
    until_ended(&world, "no_progress", "true").await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn an_account_that_is_not_to_be_served_any_more_is_left_alone_once_that_is_said() {
    let (world, daemon) = World::running_as(wish()).await;
    world
        .sql(
            "insert into apipay.accounts (name) values ('ghost');
             insert into apipay.invoices (account, id, status) values ('ghost', 5, 'pending')",
        )
        .await;
    let params = json!({"phone_number": phone::PAID, "amount": 100});
    let ghost = world
        .enqueue_with("invoice.create", params, json!({"account": "ghost"}))
        .await;
    let alert = open(&world, "no_progress", "account = 'ghost'").await;
    let check = world.spawn(&["check"], &[]);
    check
        .until_logged("account ghost has something to do")
        .await;
    obey(&world, &alert).await;
    until_ended(&world, "no_progress", "true").await;
    assert_eq!(world.job(ghost).await["state"], "cancelled");
    drop(check);
    world.end([daemon]).await;
}
