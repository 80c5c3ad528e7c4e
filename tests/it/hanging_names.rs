//! Nameservers that do not answer: the system's look-ups go on for long after whoever wanted them has given up, or for ever.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, UnixStream};
use tokio::time::sleep;

use crate::world::{SOCKET, Wish, World, phone};

/// How the threads are named that look names up.
const LOOK_UP: &str = "look-up";

#[tokio::test]
async fn names_that_hang_cost_a_thread_an_account_and_hold_up_neither_another_account_nor_the_end()
{
    let lost = ["lost1", "lost2", "lost3"];
    let accounts = [lost.as_slice(), &["well"]].concat();
    let mut wish = Wish {
        own_hosts: true,
        ..Wish::default().accounts(&accounts)
    }
    // Alerts go to a name as well, and a delivery that is under way is waited for.
    .tune("alerts.webhook.url", "http://alerts.example/hook")
    .tune("worker.grace", "10s");
    for name in lost {
        let url = format!("http://{name}.example/api/v1");
        wish = wish.tune(&format!("accounts.{name}.base_url"), &url);
    }
    let world = World::made(wish).await;
    world.hang_names();
    let mut daemon = world.daemon().await;
    let before = daemon.threads();
    for name in lost {
        for amount in 100..110 {
            let bill = json!({"phone_number": phone::PAID, "amount": amount});
            world
                .enqueue_with("invoice.create", bill, json!({"account": name}))
                .await;
        }
    }
    let tried = "select count(*) >= 30 from apipay.attempts where error_code = 'connect_failed'";
    world.until_true(tried).await;
    let bill = json!({"phone_number": phone::PAID, "amount": 100});
    let job = world
        .enqueue_with("invoice.create", bill, json!({"account": "well"}))
        .await;
    world.until(job, "succeeded").await;
    assert_eq!(world.attempts(job).await.len(), 1);
    let more = daemon.threads() - before;
    // Those of the alerts' name are some too.
    assert!(more < 20, "{more} threads");
    daemon.signal(Signal::TERM);
    daemon.until_logged("everything is recorded").await;
    let recorded = Instant::now();
    // Without waiting for look-ups.
    let status = daemon.ended(Duration::from_secs(5)).await;
    assert_eq!(status.code(), Some(0));
    assert!(
        recorded.elapsed() < Duration::from_secs(1),
        "{:?}",
        recorded.elapsed()
    );
    world.end([]).await;
}

#[tokio::test]
async fn payments_go_on_once_names_are_found_again_although_a_look_up_hangs_for_ever() {
    let wish = Wish {
        own_hosts: true,
        ..Wish::default()
    };
    let world = World::made(wish).await;
    world.hang_names();
    let gateway = world.sandbox.running.addr.port();
    let url = format!("http://gateway.example:{gateway}/api/v1");
    let daemon = world
        .tuned_daemon(&[("accounts.default.base_url", url)])
        .await;
    let job = world.bill(phone::PAID, 500).await;
    let tried = "select count(*) >= 3 from apipay.attempts where error_code = 'connect_failed'";
    world.until_true(tried).await;
    world.mend_names(&daemon, &["gateway.example"]);
    world.until(job, "succeeded").await;
    assert_eq!(world.effects_of(job).await.len(), 1);
    // The one that hangs is left where it is.
    assert!(daemon.threads_named(LOOK_UP) > 0);
    world.end([daemon]).await;
}

#[tokio::test]
async fn alerts_whose_receivers_name_hangs_take_no_thread_of_the_runtime_and_go_out_once_it_is_found()
 {
    let wish = Wish {
        own_hosts: true,
        ..Wish::default().accounts(&["shop", "clinic", "kiosk", "depot"])
    }
    .tune("alerts.webhook.timeout", "200ms");
    let world = World::made(wish).await;
    world.hang_names();
    let receiver = world.alerts.addr.port();
    let url = format!("http://alerts.example:{receiver}/hook");
    let daemon = world.tuned_daemon(&[("alerts.webhook.url", url)]).await;
    let of_runtime = || daemon.threads() - daemon.threads_named(LOOK_UP);
    let before = of_runtime();
    for account in ["shop", "clinic", "kiosk", "depot"] {
        let park = format!(
            "select apipay._park('{account}', 'service_unavailable', 'apipayd', interval '0', 'It is unwell.', 'wait', '{{}}')"
        );
        world.sql(&park).await;
    }
    let tried =
        "select count(*) >= 4 from apipay.alert_deliveries where channel = 'webhook' and tries > 0";
    world.until_true(tried).await;
    assert_eq!(of_runtime(), before);
    world.mend_names(&daemon, &["alerts.example"]);
    let told = "select bool_and(delivered_at is not null) from apipay.alert_deliveries where channel = 'webhook'";
    world.until_true(told).await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_database_whose_name_hangs_takes_no_thread_of_the_runtime_and_is_reached_once_it_is_found()
 {
    let wish = Wish {
        own_hosts: true,
        ..Wish::default()
    };
    let world = World::made(wish).await;
    world.hang_names();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let socket = world.database.cluster.socket().join(SOCKET);
    let bridge = tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = UnixStream::connect(&socket).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await.ok() });
        }
    });
    let url = world.database.url_at(&format!("db.example:{port}"));
    let daemon = world.spawn(&["run"], &[("database.url", url)]);
    daemon.until_told("the database cannot be reached").await;
    let of_runtime = || daemon.threads() - daemon.threads_named(LOOK_UP);
    let before = of_runtime();
    sleep(Duration::from_secs(12)).await;
    assert_eq!(of_runtime(), before);
    assert!(daemon.status().contains("name"), "{}", daemon.status());
    world.mend_names(&daemon, &["db.example"]);
    let job = world.bill(phone::PAID, 500).await;
    world.until(job, "succeeded").await;
    world.end([daemon]).await;
    bridge.abort();
}
