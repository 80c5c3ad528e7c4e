//! A world of its own for each test: a database, a gateway, a sink for alerts, and real daemons.
//!
//! A test makes its world, does one thing to it, waits for what was promised, and calls
//! [`World::end`], which stops the daemons and checks what must hold after every run. A world that
//! is dropped without it fails the test.

mod bait;
mod cluster;
mod daemon;
mod database;
mod door;
mod hostile;
mod http;
mod invariants;
mod load;
mod names;
mod pooler;
mod promises;
mod proxy;
mod sandbox;
mod tls;
mod wire;

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::time::sleep;
use uuid::Uuid;

pub(crate) use bait::Bait;
pub(crate) use cluster::{Cluster, ROOT};
pub(crate) use daemon::Daemon;
use daemon::{Lines, Start};
pub(crate) use database::{Database, WORKER};
pub(crate) use door::{Door, Fault};
pub(crate) use http::Sink;
pub(crate) use invariants::is_send;
pub(crate) use pooler::Pooler;
pub(crate) use proxy::{Proxy, SOCKET};
pub(crate) use sandbox::Sandbox;
pub(crate) use tls::Certificates;
pub(crate) use wire::{Cut, Statement, Wire};

/// Phones whose stories the sandbox knows.
pub(crate) mod phone {
    pub(crate) const UNPAID: &str = "87000000000";
    pub(crate) const PAID: &str = "87000000001";
    pub(crate) const CLIENT_NOT_FOUND: &str = "87000000003";
    pub(crate) const NETWORK_UNAVAILABLE: &str = "87000000004";
    pub(crate) const SESSION_INVALID: &str = "87000000006";
    pub(crate) const HELD: &str = "87000000014";
    pub(crate) const INVOICE_ALREADY_PAID: &str = "87000000007";
    pub(crate) const ERROR_THEN_PENDING: &str = "87000000010";
}

/// How long anything may take before a test gives up on it. Other tests and builds share the machine.
const PATIENCE: Duration = Duration::from_secs(45);

/// The world as a test wants it; [`Wish::default`] is what most want.
#[derive(Clone)]
pub(crate) struct Wish {
    /// Settings of the daemon that differ from [`CONFIG`], as `("worker.lease", "20s")`.
    pub(crate) tuning: Vec<(String, String)>,
    pub(crate) accounts: Vec<String>,
    /// The accounts' `duplicate_protection`.
    pub(crate) protection: &'static str,
    pub(crate) sandbox: apipay_sandbox::Settings,
    /// What the gateway does otherwise than it says: switches of all organizations.
    pub(crate) organizations: Value,
    /// A cluster that the test may stop.
    pub(crate) own_cluster: bool,
    /// A cluster whose clock the test sets.
    pub(crate) own_clock: bool,
    /// The authority that daemons trust instead of the system's, in PEM.
    pub(crate) roots: Option<String>,
    /// Daemons have a hosts file of their own, see [`World::name_host`].
    pub(crate) own_hosts: bool,
}

impl Default for Wish {
    fn default() -> Wish {
        Wish {
            tuning: Vec::new(),
            accounts: vec!["default".to_owned()],
            protection: "key",
            sandbox: apipay_sandbox::Settings {
                // An invoice reaches the customer after 50 ms and is paid 100 ms later.
                speed: 20.0,
                requests_per_minute: 0,
                ..Default::default()
            },
            organizations: Value::Null,
            own_cluster: false,
            own_clock: false,
            roots: None,
            own_hosts: false,
        }
    }
}

impl Wish {
    pub(crate) fn tune(mut self, key: &str, value: &str) -> Wish {
        self.tuning.push((key.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn accounts<T: ToString>(mut self, names: &[T]) -> Wish {
        self.accounts = names.iter().map(ToString::to_string).collect();
        self
    }

    /// The gateway ignores keys, as the accounts are told: nothing but looking up keeps a request
    /// from being made twice.
    pub(crate) fn without_keys(mut self) -> Wish {
        self.protection = "lookup";
        self.organizations["honour_idempotency_key"] = false.into();
        self
    }

    /// Lists show what is new only so much later, and the settings leave twice the time.
    pub(crate) fn late_lists(mut self, lag: Duration) -> Wish {
        self.organizations["list_lag_ms"] = json!(lag.as_millis());
        let ms = |time: Duration| format!("{}ms", time.as_millis());
        // What the list does not show yet is asked about again a lease later.
        let follow = ms(lag + Duration::from_millis(500));
        self.tune("reconcile.settle", &ms(lag * 2))
            .tune("follow.first", &follow)
            .tune("follow.max", &follow)
    }
}

/// Everything that takes minutes in production takes a fraction of a second here. The cross-checks
/// of the configuration hold: the lease is longer than the time-out by more than ten seconds.
const CONFIG: &str = r#"
[worker]
poll_interval = "200ms"
lease = "12s"
grace = "4s"

[http]
connect_timeout = "500ms"
timeout = "1500ms"
max_body_bytes = 65536

[retry.rate_limited]
initial = "1s"
max = "2s"

[retry.server_error]
initial = "50ms"
max = "200ms"

[retry.network]
initial = "50ms"
max = "200ms"

[retry.async_error]
initial = "300ms"
max = "500ms"

[reconcile]
quiet_after_timeout = "200ms"
quiet_after_answer = "50ms"
settle = "1s"
give_up = "30m"

[breaker]
probe_initial = "300ms"
probe_max = "600ms"
slow_start = "200ms"

[follow]
first = "50ms"
max = "300ms"
watch_after_final = "1h"

[log]
level = "debug"
"#;

/// A job, by its number.
pub(crate) type Job = i64;

pub(crate) struct World {
    pub(crate) database: Database,
    pub(crate) sandbox: Sandbox,
    pub(crate) alerts: Sink,
    pub(crate) wish: Wish,
    directory: PathBuf,
    /// What all daemons of this world said, also those that are gone.
    logs: Mutex<Vec<Lines>>,
    /// Part of every API key, so that a key in the wrong place is found.
    canary: String,
    ended: bool,
}

impl World {
    /// With a daemon that is ready.
    pub(crate) async fn running() -> (World, Daemon) {
        World::running_as(Wish::default()).await
    }

    pub(crate) async fn running_as(wish: Wish) -> (World, Daemon) {
        let world = World::made(wish).await;
        let daemon = world.daemon().await;
        // Its status line comes before it serves.
        let accounts = world.wish.accounts.len();
        world
            .until_true(&format!(
                "select exists (select from apipay.daemons where cardinality(accounts) = {accounts})"
            ))
            .await;
        (world, daemon)
    }

    /// Without a daemon yet. The accounts have their rows, so jobs can be enqueued.
    pub(crate) async fn made(wish: Wish) -> World {
        let cluster = if wish.own_clock {
            Cluster::with_clock().await
        } else if wish.own_cluster {
            Cluster::private().await
        } else {
            Cluster::shared().await
        };
        let world = World::on(Database::migrated(cluster).await, wish).await;
        for account in &world.wish.accounts {
            sqlx::query(
                "insert into apipay.accounts (name, requests_per_minute) values ($1, 6000)",
            )
            .bind(account)
            .execute(world.pool())
            .await
            .unwrap();
        }
        world
    }

    /// On a database as it is.
    pub(crate) async fn on(database: Database, wish: Wish) -> World {
        let directory = std::env::temp_dir().join(format!(
            "apipayd-w{}",
            &Uuid::new_v4().simple().to_string()[..12]
        ));
        std::fs::create_dir(&directory).unwrap();
        let world = World {
            database,
            sandbox: Sandbox::start(wish.sandbox.clone()).await,
            alerts: Sink::start().await,
            wish,
            directory,
            logs: Mutex::default(),
            canary: format!("canary{}", Uuid::new_v4().simple()),
            ended: false,
        };
        if !world.wish.organizations.is_null() {
            let switches = world.wish.organizations.clone();
            world.sandbox.organization(switches).await;
        }
        for account in &world.wish.accounts {
            let key = world.key(account);
            world
                .sandbox
                .organization(json!({"organization": key, "name": account}))
                .await;
        }
        world.write_config();
        world
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.database.pool
    }

    /// The API key of an account.
    pub(crate) fn key(&self, account: &str) -> String {
        format!("{}{account}", self.canary)
    }

    /// The file that holds it.
    pub(crate) fn key_file(&self, account: &str) -> PathBuf {
        self.directory.join(format!("{account}.key"))
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.directory.join("apipayd.toml")
    }

    fn roots(&self) -> PathBuf {
        self.directory.join("roots.pem")
    }

    fn write_config(&self) {
        self.configure(&self.wish.accounts);
        if let Some(roots) = &self.wish.roots {
            write_private(&self.roots(), roots);
        }
        if self.wish.own_hosts {
            write_private(&self.hosts(), "127.0.0.1 localhost\n");
        }
    }

    /// Writes the configuration with these accounts, each with the key of its name.
    pub(crate) fn configure<T: AsRef<str>>(&self, accounts: &[T]) {
        use std::os::unix::fs::PermissionsExt;
        let mut text = CONFIG.to_owned();
        text += &format!("\n[database]\nurl = {:?}\n", self.database.url());
        text += &format!("\n[alerts.webhook]\nurl = {:?}\n", self.alerts.url());
        for account in accounts {
            let account = account.as_ref();
            let key_file = self.key_file(account);
            write_private(&key_file, &self.key(account));
            text += &format!(
                "\n[accounts.{account}]\nbase_url = {:?}\napi_key_file = {key_file:?}\n\
                 duplicate_protection = {:?}\nrequests_per_minute = 6000\nallow_insecure = true\n",
                self.sandbox.running.base_url(),
                self.wish.protection
            );
        }
        write_private(&self.config(), &text);
        let mode = std::fs::metadata(self.config()).unwrap().permissions();
        assert_eq!(mode.mode() & 0o077, 0, "the configuration holds a password");
    }

    /// A way to the database for one daemon, which the test can cut.
    pub(crate) fn proxy(&self) -> Proxy {
        Proxy::start(&self.directory, self.database.cluster.socket())
    }

    /// A way to the database that can be cut at a certain statement.
    pub(crate) fn wire(&self) -> Wire {
        Wire::start(&self.directory, self.database.cluster.socket())
    }

    /// PgBouncer in transaction mode before the database, with these lines in its configuration.
    pub(crate) async fn pooler(&self, settings: &str) -> Pooler {
        Pooler::start(&self.directory, self.database.cluster.socket(), settings).await
    }

    /// Starts another daemon and waits until it is ready.
    pub(crate) async fn daemon(&self) -> Daemon {
        self.tuned_daemon(&[]).await
    }

    /// Starts another daemon with settings of its own.
    pub(crate) async fn tuned_daemon(&self, tuning: &[(&str, String)]) -> Daemon {
        let daemon = self.spawn(&["run"], tuning);
        // It is ready before the database is; then the status line counts what is in flight.
        daemon.until_told(" in flight").await;
        daemon
    }

    /// Starts the binary with these arguments and waits for nothing.
    pub(crate) fn spawn(&self, arguments: &[&str], tuning: &[(&str, String)]) -> Daemon {
        let tuning = tuning
            .iter()
            .map(|(key, value)| (variable(key), value.clone()));
        self.spawn_in(arguments, tuning.collect())
    }

    /// Starts the binary with further variables in its environment.
    pub(crate) fn spawn_in(&self, arguments: &[&str], variables: Vec<(String, String)>) -> Daemon {
        self.spawn_with(arguments, variables, None)
    }

    /// Starts the binary with a standard error that is not read as its log.
    pub(crate) fn spawn_with(
        &self,
        arguments: &[&str],
        variables: Vec<(String, String)>,
        stderr: Option<UnixStream>,
    ) -> Daemon {
        let tuning = self.wish.tuning.iter();
        let mut environment: Vec<(String, String)> = tuning
            .map(|(key, value)| (variable(key), value.clone()))
            .chain(variables)
            .collect();
        if self.wish.roots.is_some() {
            let roots = self.roots().to_str().unwrap().to_owned();
            environment.push(("SSL_CERT_DIR".to_owned(), format!("{roots}.none")));
            environment.push(("SSL_CERT_FILE".to_owned(), roots));
        }
        let hosts = self.hosts();
        let daemon = Daemon::spawn(Start {
            arguments,
            config: &self.config(),
            directory: &self.directory,
            environment: &environment,
            hosts: self.wish.own_hosts.then_some(hosts.as_path()),
            stderr,
        });
        self.logs.lock().unwrap().push(daemon.log.clone());
        daemon
    }

    // Jobs.

    /// The sentence that `apipay.overview` has of a job.
    pub(crate) async fn explain(&self, job: Job) -> String {
        let query = format!("select to_jsonb(explain) from apipay.overview where id = {job}");
        let explain = self.value(&query).await;
        explain.as_str().unwrap().to_owned()
    }

    /// Waits until no alert is open.
    pub(crate) async fn until_no_alert(&self) {
        self.until_true("select not exists (select from apipay.alerts where resolved_at is null)")
            .await;
    }

    /// A whole row.
    pub(crate) async fn job(&self, job: Job) -> Value {
        self.value(&format!(
            "select to_jsonb(j) from apipay.jobs j where id = {job}"
        ))
        .await
    }

    /// The attempts of a job, oldest first.
    pub(crate) async fn attempts(&self, job: Job) -> Vec<Value> {
        self.rows(&format!(
            "select * from apipay.attempts where job_id = {job} order by epoch"
        ))
        .await
    }

    /// The one JSON value of a query.
    pub(crate) async fn value(&self, query: &str) -> Value {
        sqlx::query_scalar(AssertSqlSafe(query.to_owned()))
            .fetch_one(self.pool())
            .await
            .unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// The rows of a query as objects.
    pub(crate) async fn rows(&self, query: &str) -> Vec<Value> {
        let wrapped = format!("select coalesce(jsonb_agg(to_jsonb(q)), '[]') from ({query}) as q");
        let Value::Array(rows) = self.value(&wrapped).await else {
            unreachable!("jsonb_agg makes an array");
        };
        rows
    }

    pub(crate) async fn count(&self, query: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(format!("select count(*) from {query}")))
            .fetch_one(self.pool())
            .await
            .unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// Runs a statement of an operator's, or of a test that turns a clock.
    pub(crate) async fn sql(&self, statement: &str) {
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
            .execute(self.pool())
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    // Waiting.

    /// Waits until the job is in this state, and returns its row.
    pub(crate) async fn until(&self, job: Job, state: &str) -> Value {
        self.until_job(job, &format!("job {job} is {state}"), |row| {
            row["state"] == state
        })
        .await
    }

    /// Waits until the job's row is as wanted, and returns it.
    pub(crate) async fn until_job(
        &self,
        job: Job,
        what: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let row = self.job(job).await;
            if holds(&row) {
                return row;
            }
            if Instant::now() >= deadline {
                panic!("never: {what}\n{}", self.report(Some(job)).await);
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a boolean query is true.
    pub(crate) async fn until_true(&self, query: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self
            .value(&format!("select to_jsonb(coalesce(({query}), false))"))
            .await
            != true
        {
            if Instant::now() >= deadline {
                panic!("never: {query}\n{}", self.report(None).await);
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until something outside the database holds.
    pub(crate) async fn until_holds(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds().await {
            if Instant::now() >= deadline {
                panic!("never: {what}\n{}", self.report(None).await);
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until every job is final.
    pub(crate) async fn until_all_final(&self) {
        self.until_true("select not exists (select from apipay.jobs where finished_at is null)")
            .await;
    }

    /// Waits until every job is final, or a human's to decide.
    pub(crate) async fn until_all_done_or_held(&self) {
        self.until_true("select not exists (select from apipay.jobs where finished_at is null and state <> 'held')")
            .await;
    }

    /// The effects of a job at the gateway.
    pub(crate) async fn effects_of(&self, job: Job) -> Vec<Value> {
        let row = self.job(job).await;
        let mut effects = self.sandbox.effects().await;
        effects.retain(|effect| invariants::is_effect_of(effect, &row));
        effects
    }

    /// All that helps to understand a failure.
    pub(crate) async fn report(&self, job: Option<Job>) -> String {
        let only = job.map_or_else(String::new, |job| format!("where id = {job}"));
        let of_job = job.map_or_else(String::new, |job| format!("where job_id = {job}"));
        let mut text = String::new();
        for (title, query) in [
            ("jobs", format!("select * from apipay.jobs {only} order by finished_at is not null, id desc limit 8")),
            ("attempts", format!("select * from apipay.attempts {of_job} order by started_at desc limit 12")),
            ("accounts", "select name, state, parked_reason, parked_by, probe_at, probes, blocked_until, blocked_reason from apipay.accounts".to_owned()),
            ("alerts", "select * from apipay.alerts order by id desc limit 8".to_owned()),
            ("events", format!("select * from apipay.events {of_job} order by id desc limit 20")),
        ] {
            text += &format!("--- {title}\n");
            for row in self.rows(&query).await {
                text += &format!("{}\n", without_nulls(&row));
            }
        }
        text += "--- requests\n";
        let requests = self.sandbox.all_requests().await;
        for request in requests.iter().rev().take(20).rev() {
            text += &format!("{}\n", without_nulls(request));
        }
        text += "--- log\n";
        text += &self.log_tail(40);
        text
    }

    fn log_tail(&self, lines: usize) -> String {
        let logs = self.logs.lock().unwrap();
        let mut text = String::new();
        for (number, log) in logs.iter().enumerate() {
            let log = log.lock().unwrap();
            let skipped = log.len().saturating_sub(lines);
            text += &format!("daemon {}:\n{}\n", number + 1, log[skipped..].join("\n"));
        }
        text
    }

    /// Stops the daemons with SIGTERM, then checks everything that must hold after every run.
    pub(crate) async fn end<const N: usize>(self, daemons: [Daemon; N]) {
        for mut daemon in daemons {
            daemon.stop().await;
        }
        let violations = invariants::check(&self).await;
        if !violations.is_empty() {
            panic!(
                "what must always hold does not:\n- {}\n{}",
                violations.join("\n- "),
                self.report(None).await
            );
        }
        self.end_unchecked().await;
    }

    /// For worlds whose database was taken apart on purpose.
    pub(crate) async fn end_unchecked(mut self) {
        self.ended = true;
        self.database.drop_database().await;
    }

    /// The database as a daemon sees it, by one connection.
    pub(crate) fn daemon_pool(&self) -> apipayd::db::Pool {
        let options = self.database.cluster.options(&self.database.name);
        apipayd::db::Connect::new(options, None, 1).pool()
    }

    /// New connections, which see what was set for the database meanwhile.
    pub(crate) async fn fresh_pool(&self) -> PgPool {
        PgPool::connect_with(self.database.options()).await.unwrap()
    }

    /// Everything that every daemon of this world said.
    pub(crate) fn said(&self) -> String {
        self.log_tail(usize::MAX)
    }
}

impl Drop for World {
    #[expect(
        clippy::print_stderr,
        reason = "the test runner shows it with the failure"
    )]
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail(60));
        } else {
            assert!(self.ended, "the test did not call World::end");
        }
    }
}

fn variable(key: &str) -> String {
    format!("APIPAYD__{}", key.to_uppercase().replace('.', "__"))
}

pub(crate) fn write_private(path: &Path, text: &str) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn without_nulls(row: &Value) -> Value {
    let mut row = row.clone();
    if let Some(fields) = row.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    row
}
