//! The real binary as a child process, with its log and what it tells the service manager.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;
use uuid::Uuid;

/// Lines of the log and of the service manager's socket, shared with the threads that read them.
pub(crate) type Lines = Arc<Mutex<Vec<String>>>;

pub(crate) struct Daemon {
    child: Child,
    /// Standard output and error.
    pub(crate) log: Lines,
    /// What came through NOTIFY_SOCKET, one assignment a line.
    pub(crate) notified: Lines,
}

/// How to start it.
pub(crate) struct Start<'a> {
    pub(crate) arguments: &'a [&'a str],
    pub(crate) config: &'a Path,
    pub(crate) directory: &'a Path,
    pub(crate) environment: &'a [(String, String)],
    /// What it sees as /etc/hosts.
    pub(crate) hosts: Option<&'a Path>,
    /// Its standard error, where that is not to be read as its log.
    pub(crate) stderr: Option<UnixStream>,
}

impl Daemon {
    pub(crate) fn spawn(start: Start<'_>) -> Daemon {
        let socket = start
            .directory
            .join(format!("n{}", Uuid::new_v4().simple()));
        let notified = Lines::default();
        read_notifications(UnixDatagram::bind(&socket).unwrap(), notified.clone());
        let stderr = start.stderr.map(|stream| OwnedFd::from(stream).into());
        let mut child = command(start.hosts)
            .args(start.arguments)
            .arg("--config")
            .arg(start.config)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("NOTIFY_SOCKET", &socket)
            .env("WATCHDOG_USEC", "2000000")
            .env("RUST_BACKTRACE", "1")
            .envs(start.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr.unwrap_or_else(Stdio::piped))
            .spawn()
            .expect("the daemon cannot be started");
        let log = Lines::default();
        read_lines(child.stdout.take().unwrap(), log.clone());
        if let Some(stderr) = child.stderr.take() {
            read_lines(stderr, log.clone());
        }
        Daemon {
            child,
            log,
            notified,
        }
    }

    pub(crate) fn log_text(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Whether the service manager was told this, `READY=1` for instance, or a part of it.
    pub(crate) fn was_told(&self, what: &str) -> bool {
        self.notified
            .lock()
            .unwrap()
            .iter()
            .any(|line| line.contains(what))
    }

    /// The last `STATUS=` line.
    pub(crate) fn status(&self) -> String {
        let notified = self.notified.lock().unwrap();
        let mut statuses = notified
            .iter()
            .filter_map(|line| line.strip_prefix("STATUS="));
        statuses.next_back().unwrap_or_default().to_owned()
    }

    /// The name under which it claims, once it has said it.
    pub(crate) fn worker(&self) -> Option<String> {
        let log = self.log_text();
        let (_, rest) = log.split_once(" worker=")?;
        rest.split_whitespace().next().map(str::to_owned)
    }

    /// How often the service manager was told that it is alive.
    pub(crate) fn signs_of_life(&self) -> usize {
        let told = self.notified.lock().unwrap();
        told.iter().filter(|line| *line == "WATCHDOG=1").count()
    }

    pub(crate) async fn until_told(&self, what: &str) {
        self.until_holds(&format!("the service manager is told {what}"), || {
            self.was_told(what)
        })
        .await;
    }

    pub(crate) async fn until_logged(&self, what: &str) {
        self.until_holds(&format!("the log says {what}"), || {
            self.log_text().contains(what)
        })
        .await;
    }

    async fn until_holds(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !holds() {
            assert!(
                Instant::now() < deadline,
                "never: {what}\ntold: {:?}\nlog:\n{}",
                self.notified.lock().unwrap(),
                self.log_text()
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        // It may have ended by itself.
        let _ = kill_process(pid, signal);
    }

    /// The most memory that it ever had, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kib.unwrap().parse::<u64>().unwrap() * 1024
    }

    /// How many threads it has now.
    pub(crate) fn threads(&self) -> usize {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        threads.count()
    }

    /// How many of them have this name.
    pub(crate) fn threads_named(&self, name: &str) -> usize {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        // One that has ended meanwhile has no name.
        let names = threads
            .filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")).ok());
        names.filter(|found| found.trim_end() == name).count()
    }

    /// Has it see another hosts file from now on. What has opened the one before keeps that.
    pub(crate) fn see_hosts(&self, hosts: &Path) {
        let mut words = Command::new("nsenter");
        words.args(["--target", &self.child.id().to_string(), "--mount"]);
        if !rustix::process::geteuid().is_root() {
            words.args(["--user", "--preserve-credentials"]);
        }
        words.args(["mount", "--bind"]).arg(hosts).arg("/etc/hosts");
        assert!(words.status().unwrap().success());
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self, within: Duration) -> ExitStatus {
        let status = self.ended_within(within).await;
        status.unwrap_or_else(|| panic!("the daemon does not end\nlog:\n{}", self.log_text()))
    }

    /// Waits for its end, but not for ever.
    pub(crate) async fn ended_within(&mut self, within: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                // The readers are a moment behind.
                sleep(Duration::from_millis(50)).await;
                return Some(status);
            }
            sleep(Duration::from_millis(10)).await;
        }
        None
    }

    /// SIGTERM, and a clean end.
    pub(crate) async fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.ended(Duration::from_secs(15)).await;
        assert_eq!(
            status.code(),
            Some(0),
            "{status} after SIGTERM\nlog:\n{}",
            self.log_text()
        );
    }

    /// SIGKILL: as if the machine had lost its power.
    pub(crate) async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.ended(Duration::from_secs(5)).await;
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary; it dies with us, however we end. Each program becomes the next: the process is one.
fn command(hosts: Option<&Path>) -> Command {
    const BIND: &str = r#"mount --bind "$0" /etc/hosts && exec "$@""#;
    let mut words: Vec<&OsStr> = Vec::new();
    if let Some(hosts) = hosts {
        words.extend(["unshare", "--mount"].map(OsStr::new));
        if !rustix::process::geteuid().is_root() {
            words.push(OsStr::new("--map-root-user"));
        }
        words.extend(["sh", "-c", BIND].map(OsStr::new));
        words.push(hosts.as_os_str());
    }
    if Path::new("/usr/bin/setpriv").exists() {
        words.extend(["/usr/bin/setpriv", "--pdeathsig", "KILL", "--"].map(OsStr::new));
    }
    words.push(OsStr::new(env!("CARGO_BIN_EXE_apipayd")));
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command
}

fn read_lines(stream: impl Read + Send + 'static, into: Lines) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            into.lock().unwrap().push(line);
        }
    });
}

fn read_notifications(socket: UnixDatagram, into: Lines) {
    socket
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        // Until nobody else has the lines: a socket of this kind has no end.
        while Arc::strong_count(&into) > 1 {
            // Nothing came for a second.
            let Ok(length) = socket.recv(&mut buffer) else {
                continue;
            };
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            into.lock().unwrap().extend(text.lines().map(str::to_owned));
        }
    });
}
