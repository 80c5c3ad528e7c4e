//! The sign of life that systemd waits for comes whatever the network does, and stays away when the daemon itself
//! is stuck.

use std::time::{Duration, Instant};

#[cfg(feature = "crash-points")]
use apipayd::crash::WEDGE_VARIABLE;
use rustix::process::Signal;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, UnixListener};
use tokio::time::sleep;
use uuid::Uuid;

use crate::world::{Daemon, Wish, World};

/// The unit lets thirty seconds pass; ten are the most that may.
const LONGEST: Duration = Duration::from_secs(10);

/// A request, a statement and a delivery are each given up well within this time.
const LONG: Duration = Duration::from_secs(45);

/// The longest time without a sign of life while this time passes.
async fn longest_silence(daemon: &Daemon, time: Duration) -> Duration {
    let began = Instant::now();
    let (mut longest, mut last, mut signs) =
        (Duration::ZERO, Instant::now(), daemon.signs_of_life());
    while began.elapsed() < time {
        sleep(Duration::from_millis(50)).await;
        let now = daemon.signs_of_life();
        if now > signs {
            (last, signs) = (Instant::now(), now);
        }
        longest = longest.max(last.elapsed());
    }
    longest
}

async fn expect_signs(daemon: &Daemon, scene: &str) {
    let silence = longest_silence(daemon, LONG).await;
    assert!(silence <= LONGEST, "{scene}: {silence:?} of silence");
}

/// Ten accounts of a shop, with the time limits as shipped.
fn ten_accounts() -> Wish {
    let names: Vec<String> = (0..10).map(|n| format!("shop-{n}")).collect();
    Wish::default()
        .accounts(&names)
        .tune("http.timeout", "30s")
        .tune("worker.lease", "90s")
        .tune("worker.grace", "40s")
}

/// An address that accepts and never answers.
pub(crate) async fn black_hole() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            open.push(socket);
        }
    });
    format!("http://{address}/alerts")
}

/// Two open invoices of each account, and then a gateway that answers nothing more.
async fn hang_the_gateway(world: &World, wish: &Wish) {
    for account in &wish.accounts {
        for _ in 0..2 {
            world.bill_of(account).await;
        }
    }
    world
        .until_true("select count(*) = 20 from apipay.jobs where invoice_id is not null")
        .await;
    for route in [
        "POST /invoices/status/check",
        "POST /invoices",
        "GET /invoices",
        "GET /account/health",
    ] {
        let hang = json!({"route": route, "effect": "none", "hang": true, "times": 10_000});
        world.sandbox.fault(hang).await;
    }
    for account in &wish.accounts {
        world.bill_of(account).await;
    }
}

/// What becomes of a daemon that was killed in the middle of everything is shown elsewhere.
async fn end(world: World) {
    world.end_unchecked().await;
}

async fn open_alerts(world: &World) {
    world
        .sql(
            "insert into apipay.alerts (kind, subject, summary, action)
             select 'test', n::text, 's', 'a' from generate_series(1, 25) n",
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_never_answers_keeps_no_sign_of_life_from_coming() {
    let wish = ten_accounts();
    let accounts = ten_accounts();
    let (world, mut daemon) = World::running_as(wish).await;
    hang_the_gateway(&world, &accounts).await;
    expect_signs(&daemon, "gateways").await;
    // A stop waits for what is under way, and begins nothing more.
    daemon.signal(Signal::TERM);
    let status = daemon.ended(Duration::from_secs(35)).await;
    assert_eq!(status.code(), Some(0), "{}", daemon.log_text());
    world.end([]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_does_all_that_it_asks_at_once() {
    let wish = ten_accounts();
    let accounts = ten_accounts();
    let world = World::made(wish).await;
    let wire = world.wire();
    let mut daemon = world
        .tuned_daemon(&[
            ("database.url", wire.url(&world.database.name)),
            ("alerts.webhook.url", black_hole().await),
        ])
        .await;
    open_alerts(&world).await;
    expect_signs(&daemon, "a receiver of alerts").await;
    hang_the_gateway(&world, &accounts).await;
    wire.silence();
    expect_signs(
        &daemon,
        "a receiver, gateways, and a database in the middle of a statement",
    )
    .await;
    daemon.kill().await;
    end(world).await;
}

#[tokio::test]
async fn nor_does_a_database_that_accepts_and_says_nothing_at_the_start() {
    let world = World::made(Wish::default()).await;
    let directory = std::env::temp_dir().join(format!("apipayd-hole-{}", Uuid::new_v4().simple()));
    std::fs::create_dir(&directory).unwrap();
    let listener = UnixListener::bind(directory.join(".s.PGSQL.5432")).unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut ignored = Vec::new();
                let _ = socket.read_to_end(&mut ignored).await;
            });
        }
    });
    let path = directory.to_str().unwrap().replace('/', "%2F");
    let url = format!("postgres://postgres@{path}/shop?sslmode=disable");
    let mut daemon = world.spawn(&["run"], &[("database.url", url)]);
    daemon.until_told("READY=1").await;
    expect_signs(&daemon, "a start").await;
    daemon.kill().await;
    std::fs::remove_dir_all(&directory).unwrap();
    end(world).await;
}

#[cfg(feature = "crash-points")]
#[tokio::test(flavor = "multi_thread")]
async fn a_loop_that_is_stuck_keeps_it_from_coming() {
    let world = World::made(Wish::default()).await;
    let wedged = (WEDGE_VARIABLE.to_owned(), "lookup".to_owned());
    let mut daemon = world.spawn_in(&["run"], vec![wedged]);
    let told = "a part of apipayd is stuck";
    let began = Instant::now();
    while !daemon.log_text().contains(told) {
        assert!(
            began.elapsed() < Duration::from_secs(90),
            "{}",
            daemon.log_text()
        );
        sleep(Duration::from_millis(200)).await;
    }
    assert!(daemon.log_text().contains("task=\"lookup\""));
    let silence = longest_silence(&daemon, LONGEST).await;
    assert!(silence >= Duration::from_secs(8), "{silence:?}");
    daemon.kill().await;
    end(world).await;
}
