//! A throw-away Postgres, shared by all tests that run at the same time.
//!
//! Test runners put tests into one process or into many, so the cluster belongs to none of them:
//! whoever comes first starts it, everybody holds a shared lock while they use it, and a guard
//! process removes it some seconds after the last lock is gone, however its holder ended.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

use super::database::WORKER;

pub(crate) const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// How long the shared cluster outlives the last test.
const IDLE_SECONDS: &str = "5";

pub(crate) struct Cluster {
    directory: PathBuf,
    /// The database that tests are cloned from.
    pub(crate) template: String,
    /// Held for its lock: the guard removes the cluster once nobody has it.
    _in_use: File,
    private: bool,
    clock: Option<Clock>,
}

/// The clock of a private cluster, which a test sets.
struct Clock {
    /// Holds by how many seconds it is ahead of this machine's.
    file: PathBuf,
    environment: Vec<(&'static str, String)>,
}

impl Clock {
    fn of(directory: &Path) -> Clock {
        let file = directory.with_extension("clock");
        let environment = vec![
            ("LD_PRELOAD", faketime()),
            ("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap().to_owned()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            // Only the clock on the wall can be set.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        let clock = Clock { file, environment };
        sweep();
        clock.set(0);
        clock
    }

    fn set(&self, ahead_s: i64) {
        let fresh = self.file.with_extension("clock.new");
        std::fs::write(&fresh, format!("{ahead_s:+}\n")).unwrap();
        std::fs::rename(fresh, &self.file).unwrap();
    }
}

/// Removes what the library left in shared memory of processes that are gone: it names that by their numbers,
/// and cannot be loaded by a process whose number had another user's before.
fn sweep() {
    for entry in std::fs::read_dir("/dev/shm")
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name().into_string().unwrap_or_default();
        let number = ["faketime_shm_", "sem.faketime_sem_"]
            .iter()
            .find_map(|start| name.strip_prefix(start));
        let is_gone = |number: &str| !Path::new("/proc").join(number).exists();
        if number.is_some_and(is_gone) {
            // Another test may be faster, and what is another user's may stay.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// The library that shows a process another time.
fn faketime() -> String {
    let found = std::fs::read_dir("/usr/lib").unwrap().find_map(|entry| {
        let library = entry.unwrap().path().join("faketime/libfaketime.so.1");
        library
            .exists()
            .then(|| library.to_str().unwrap().to_owned())
    });
    found.expect("libfaketime is missing; install the package libfaketime")
}

impl Cluster {
    /// The cluster that all tests share.
    pub(crate) async fn shared() -> Cluster {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
        // Not waited for on this thread: another world of the same test may have it.
        let starting = lock_file(&place.join("cluster.starting"));
        let locked = tokio::task::spawn_blocking(move || starting.lock().map(|()| starting));
        let _starting = locked.await.unwrap().unwrap();
        let in_use = lock_file(&place.join("cluster.lock"));
        in_use.lock_shared().unwrap();

        let note = place.join("cluster.directory");
        let noted = std::fs::read_to_string(&note).unwrap_or_default();
        let directory = if is_alive(&noted) {
            PathBuf::from(noted)
        } else {
            let fresh = start_fresh();
            std::fs::write(&note, fresh.to_str().unwrap()).unwrap();
            fresh
        };
        guard(&directory, &place.join("cluster.lock"), IDLE_SECONDS);
        let template = make_template(&directory).await;
        Cluster {
            directory,
            template,
            _in_use: in_use,
            private: false,
            clock: None,
        }
    }

    /// One of a test's own, for tests that stop it.
    pub(crate) async fn private() -> Cluster {
        Cluster::of_one_test(false).await
    }

    /// One of a test's own, whose clock it sets.
    pub(crate) async fn with_clock() -> Cluster {
        Cluster::of_one_test(true).await
    }

    async fn of_one_test(has_clock: bool) -> Cluster {
        let directory = fresh_directory();
        let clock = has_clock.then(|| Clock::of(&directory));
        start(
            &directory,
            clock.as_ref().map_or(&[], |clock| &clock.environment),
        );
        let lock = directory.with_extension("lock");
        let in_use = lock_file(&lock);
        in_use.lock_shared().unwrap();
        guard(&directory, &lock, "1");
        let template = make_template(&directory).await;
        Cluster {
            directory,
            template,
            _in_use: in_use,
            private: true,
            clock,
        }
    }

    /// Sets the server's clock: so many seconds ahead of this machine's, or behind.
    pub(crate) fn set_clock(&self, ahead_s: i64) {
        self.clock
            .as_ref()
            .expect("this cluster has the machine's clock")
            .set(ahead_s);
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.directory
    }

    /// Stops a private cluster: `fast`, or `immediate` as if it had crashed.
    pub(crate) fn stop(&self, mode: &str) {
        assert!(self.private, "the shared cluster is not one test's to stop");
        script(&["stop", self.directory.to_str().unwrap(), mode]);
    }

    /// Keeps a copy of a stopped private cluster's data.
    pub(crate) fn keep_data(&self) {
        assert!(self.private, "the shared cluster is not one test's to copy");
        run_program("cp", &["--archive", "data", "data.kept"], &self.directory);
    }

    /// Puts the copy back into a stopped private cluster, as a restored backup does, or a failover to a
    /// replica that lagged behind.
    pub(crate) fn put_data_back(&self) {
        run_program("rm", &["--recursive", "data"], &self.directory);
        run_program("mv", &["data.kept", "data"], &self.directory);
    }

    /// Makes a stopped private cluster a replica, which waits for a primary that never comes.
    pub(crate) fn make_replica(&self) {
        std::fs::write(self.directory.join("data/standby.signal"), "").unwrap();
    }

    /// Kills every process of a private cluster, as a machine without memory does.
    pub(crate) fn kill(&self) {
        assert!(self.private, "the shared cluster is not one test's to kill");
        let postmaster = postmaster(&self.directory).expect("the cluster does not run");
        let children =
            std::fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children"))
                .unwrap();
        let children = children.split_whitespace();
        let mut pids: Vec<i32> = children.map(|pid| pid.parse().unwrap()).collect();
        pids.push(postmaster);
        for pid in &pids {
            // A child may have ended by itself.
            let _ = kill_process(Pid::from_raw(*pid).unwrap(), Signal::KILL);
        }
        while pids.iter().any(|pid| is_process(*pid)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        // A server does not start while a process has the number in these, be it a dead one that
        // nobody has buried yet.
        for note in ["data/postmaster.pid", ".s.PGSQL.5432.lock"] {
            std::fs::remove_file(self.directory.join(note)).unwrap();
        }
    }

    pub(crate) fn restart(&self) {
        script(&["restart", self.directory.to_str().unwrap()]);
    }

    /// The same, and keeps nobody waiting who shares this thread.
    pub(crate) async fn revive(&self) {
        let directory = self.directory.to_str().unwrap().to_owned();
        let started = tokio::task::spawn_blocking(move || script(&["restart", &directory]));
        started.await.unwrap();
    }

    pub(crate) fn options(&self, database: &str) -> PgConnectOptions {
        options(&self.directory, database)
    }

    /// A connection that can make and drop databases.
    pub(crate) async fn admin(&self) -> PgConnection {
        PgConnection::connect_with(&self.options("postgres"))
            .await
            .unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.private {
            script(&["remove", self.directory.to_str().unwrap()]);
            for extension in ["lock", "lock.guard", "clock"] {
                let _ = std::fs::remove_file(self.directory.with_extension(extension));
            }
        }
    }
}

fn options(socket: &Path, database: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(socket)
        .username("postgres")
        .database(database)
}

fn lock_file(path: &Path) -> File {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .unwrap()
}

/// Whether the noted cluster still runs.
fn is_alive(directory: &str) -> bool {
    postmaster(Path::new(directory)).is_some_and(is_process)
}

/// The process that the cluster's note names.
fn postmaster(directory: &Path) -> Option<i32> {
    let note = std::fs::read_to_string(directory.join("data/postmaster.pid")).ok()?;
    note.lines().next()?.trim().parse().ok()
}

/// Whether there is such a process, and it is not only waiting to be buried.
fn is_process(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    // The state stands after the name, which may hold anything.
    stat.is_ok_and(|stat| {
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| !rest.starts_with('Z'))
    })
}

/// A socket's path is short, so the cluster is in the system's own place for such things.
fn fresh_directory() -> PathBuf {
    let name = format!("apipayd-it-{}", &Uuid::new_v4().simple().to_string()[..12]);
    std::env::temp_dir().join(name)
}

fn start_fresh() -> PathBuf {
    let directory = fresh_directory();
    start(&directory, &[]);
    directory
}

fn start(directory: &Path, environment: &[(&str, String)]) {
    script_in(&["start", directory.to_str().unwrap()], environment);
}

fn run_program(program: &str, arguments: &[&str], place: &Path) {
    let mut command = Command::new(program);
    let status = command.args(arguments).current_dir(place).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}: {status}");
}

fn script(arguments: &[&str]) {
    script_in(arguments, &[]);
}

fn script_in(arguments: &[&str], environment: &[(&str, String)]) {
    let output = Command::new(Path::new(ROOT).join("scripts/throwaway-postgres"))
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .output()
        .expect("scripts/throwaway-postgres cannot be run");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Starts a guard unless there is one. It must outlive us, so nobody waits for it.
fn guard(directory: &Path, lock: &Path, seconds: &str) {
    use std::os::unix::process::CommandExt;
    let guard = Command::new(Path::new(ROOT).join("scripts/throwaway-postgres"))
        .arg("guard")
        .arg(directory)
        .arg(lock)
        .arg(seconds)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    drop(guard);
}

/// A database with the schema, named after it, so that a changed schema gets another one.
async fn make_template(socket: &Path) -> String {
    let name = template_name();
    let mut admin = PgConnection::connect_with(&options(socket, "postgres"))
        .await
        .unwrap();
    let exists: bool =
        sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
            .bind(&name)
            .fetch_one(&mut admin)
            .await
            .unwrap();
    if !exists {
        // Under another name first: a template whose making was interrupted is never used.
        let draft = format!("{name}_{}", Uuid::new_v4().simple());
        run(&mut admin, format!("create database {draft}")).await;
        let pool = sqlx::PgPool::connect_with(options(socket, &draft))
            .await
            .unwrap();
        apipayd::db::migrate::migrate(&pool).await.unwrap();
        pool.close().await;
        // Another schema's template may have made it.
        run(
            &mut admin,
            format!(
                "do $$ begin create role {WORKER} login in role apipay_worker;
                 exception when duplicate_object then null; end $$"
            ),
        )
        .await;
        run(
            &mut admin,
            format!("alter database {draft} rename to {name}"),
        )
        .await;
    }
    admin.close().await.unwrap();
    name
}

pub(crate) async fn run(connection: &mut PgConnection, statement: String) {
    sqlx::raw_sql(AssertSqlSafe(statement.clone()))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{statement}: {error}"));
}

fn template_name() -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    for migration in sqlx::migrate!().iter() {
        migration.checksum.hash(&mut hasher);
    }
    format!("template_{:016x}", hasher.finish())
}
