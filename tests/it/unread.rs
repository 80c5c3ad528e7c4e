//! Nobody reads what the daemon says, be it the log or what the service manager is told: payments go on, and a stop ends it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[cfg(feature = "crash-points")]
use apipayd::crash::PANIC_VARIABLE;
use rustix::process::Signal;
use serde_json::json;
use tokio::time::timeout;
use uuid::Uuid;

use crate::world::{Daemon, Wish, World, phone};

/// The time that a stop with nothing under way may take: some waits of a second or two for whom nobody reads.
const STOP: Duration = Duration::from_secs(6);

/// What a daemon may write its log to, with no room left, and the end at which nobody reads.
fn full_stream() -> (UnixStream, UnixStream) {
    let (mut full, unread) = UnixStream::pair().unwrap();
    full.set_nonblocking(true).unwrap();
    let filler = [b'\n'; 1024];
    while full.write(&filler).is_ok() {}
    full.set_nonblocking(false).unwrap();
    (full, unread)
}

/// A service manager that listens and reads nothing yet.
struct Deaf {
    path: PathBuf,
    socket: UnixDatagram,
}

impl Deaf {
    fn listening() -> Deaf {
        let path = std::env::temp_dir().join(format!("apipayd-deaf-{}", Uuid::new_v4().simple()));
        let socket = UnixDatagram::bind(&path).unwrap();
        fill(&path);
        Deaf { path, socket }
    }

    /// Reads until it was told each of these, wherever in a line.
    fn reads_until_told(&self, expected: &[&str]) {
        let patience = Duration::from_secs(10);
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let began = Instant::now();
        let mut told = String::new();
        let mut buffer = [0; 65_536];
        while !expected.iter().all(|what| told.contains(what)) {
            assert!(began.elapsed() < patience, "told: {told}");
            let length = self.socket.recv(&mut buffer);
            let length = length.unwrap_or_else(|error| panic!("{error}; told: {told}"));
            told += &String::from_utf8_lossy(&buffer[..length]);
            told += "\n";
        }
    }
}

impl Drop for Deaf {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Until the socket takes no more.
fn fill(path: &Path) {
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"X_FILLER=1", path).is_ok() {}
}

async fn expect_end(daemon: &mut Daemon, code: i32) {
    let status = daemon.ended(STOP).await;
    assert_eq!(status.code(), Some(code), "{}", daemon.log_text());
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_no_payment_and_no_stop() {
    let world = World::made(Wish::default()).await;
    let (full, _unread) = full_stream();
    let mut daemon = world.spawn_with(&["run"], Vec::new(), Some(full));
    daemon.until_told(" in flight").await;
    world.bill(phone::PAID, 100).await;
    world.until_all_final().await;
    daemon.signal(Signal::TERM);
    expect_end(&mut daemon, 0).await;
    world.end([]).await;
}

#[tokio::test]
async fn an_error_that_nobody_reads_does_not_hold_up_the_exit() {
    let world = World::made(Wish::default()).await;
    let (full, _unread) = full_stream();
    let wrong = ("APIPAYD__LOG__LEVEL".to_owned(), "loud".to_owned());
    let mut daemon = world.spawn_with(&["run"], vec![wrong], Some(full));
    expect_end(&mut daemon, 78).await;
    world.end([]).await;
}

#[cfg(feature = "crash-points")]
#[tokio::test]
async fn a_panic_that_nobody_reads_stops_no_payment_and_is_read_later() {
    let world = World::made(Wish::default().accounts(&["default", "clinic"])).await;
    let (full, unread) = full_stream();
    let panics = (PANIC_VARIABLE.to_owned(), "send".to_owned());
    let mut daemon = world.spawn_with(&["run"], vec![panics], Some(full));
    daemon.until_told(" in flight").await;
    let job = world.bill(phone::PAID, 100).await;
    world
        .until_true("select exists (select from apipay.alerts where kind = 'task_panicked')")
        .await;
    let other = world.bill_of("clinic").await;
    world.until(other, "succeeded").await;
    world.expire_lease(job).await;
    world.until(job, "succeeded").await;

    // From the first line on, in order, and the last ones are written before the end.
    let reading = tokio::task::spawn_blocking(move || {
        let lines = BufReader::new(unread).lines().map_while(Result::ok);
        lines.filter(|line| !line.is_empty()).collect::<Vec<_>>()
    });
    daemon.signal(Signal::TERM);
    expect_end(&mut daemon, 0).await;
    let lines = timeout(STOP, reading).await.unwrap().unwrap();
    let expected = [
        "starting",
        "the database is ready",
        "panicked at",
        "told to by",
        "a task of the account panicked",
        "stopping: nothing new is claimed",
        "stopped; everything is recorded",
    ];
    let mut rest = lines.iter();
    for what in expected {
        let found = rest.any(|line| line.contains(what));
        assert!(found, "no {what:?} in its place:\n{}", lines.join("\n"));
    }
    world.end([]).await;
}

#[tokio::test]
async fn a_service_manager_that_reads_nothing_stops_no_payment_and_hears_of_it_later() {
    let world = World::made(Wish::default()).await;
    let manager = Deaf::listening();
    let socket = manager.path.to_str().unwrap().to_owned();
    let variables = vec![("NOTIFY_SOCKET".to_owned(), socket)];
    let mut daemon = world.spawn_in(&["run"], variables);
    world.bill(phone::PAID, 100).await;
    world.until_all_final().await;
    manager.reads_until_told(&["READY=1", "STATUS=all well; 0 in flight", "WATCHDOG=1"]);

    let slow = json!({"route": "POST /invoices", "effect": "apply", "delay_ms": 3000});
    world.sandbox.fault(slow).await;
    let job = world.bill(phone::PAID, 100).await;
    world
        .until_holds("the request is under way", async || {
            world.sandbox.requests_to("POST /invoices").await.len() == 2
        })
        .await;
    fill(&manager.path);
    daemon.signal(Signal::TERM);
    daemon
        .until_logged("stopping: nothing new is claimed")
        .await;
    manager.reads_until_told(&["STOPPING=1", "STATUS=stopping; 1 requests in flight"]);
    fill(&manager.path);
    expect_end(&mut daemon, 0).await;
    let heir = world.daemon().await;
    world.until(job, "succeeded").await;
    world.end([heir]).await;
}
