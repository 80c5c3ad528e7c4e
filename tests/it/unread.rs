//! Nobody reads what the service manager is told: payments go on, and a stop ends the daemon.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use uuid::Uuid;

use crate::world::{Daemon, Wish, World, phone};

/// The time that a stop with nothing under way may take: some waits of a second or two for whom nobody reads.
const STOP: Duration = Duration::from_secs(6);

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
        let patience = Some(Duration::from_secs(10));
        self.socket.set_read_timeout(patience).unwrap();
        let mut told = String::new();
        let mut buffer = [0; 65_536];
        while !expected.iter().all(|what| told.contains(what)) {
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
