//! PgBouncer between the daemon and Postgres.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use tokio::net::UnixStream;
use tokio::time::sleep;

use super::cluster::ROOT;

/// Its port, which is only the name of its socket.
const PORT: u16 = 6432;

pub(crate) struct Pooler {
    directory: PathBuf,
    child: Child,
}

impl Pooler {
    /// Starts it in a directory of its own. Fewer server connections than the daemon has of its own, so
    /// that each of them meets all.
    pub(super) async fn start(parent: &Path, server: &Path, settings: &str) -> Pooler {
        use std::os::unix::fs::PermissionsExt;
        let directory = parent.join("pooler");
        std::fs::create_dir_all(&directory).unwrap();
        // It runs as whoever owns the cluster.
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o777)).unwrap();
        std::fs::write(directory.join("users"), "\"postgres\" \"\"\n").unwrap();
        let file = format!(
            "[databases]\n* = host={server}\n[pgbouncer]\nlisten_addr =\nlisten_port = {PORT}\n\
             unix_socket_dir = {here}\nauth_type = trust\nauth_file = {here}/users\n\
             pool_mode = transaction\ndefault_pool_size = 3\n{settings}\n",
            server = server.display(),
            here = directory.display(),
        );
        std::fs::write(directory.join("pgbouncer.ini"), file).unwrap();
        let child = launch(&directory);
        let mut pooler = Pooler { directory, child };
        pooler.until_up().await;
        pooler
    }

    /// Ends it, with all its connections, and starts it again.
    pub(crate) async fn restart(&mut self) {
        self.stop();
        self.child = launch(&self.directory);
        self.until_up().await;
    }

    fn stop(&mut self) {
        // It may have ended by itself; then `until_up` has said so.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(self.socket());
    }

    async fn until_up(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while let Err(error) = UnixStream::connect(self.socket()).await {
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "PgBouncer does not answer ({error}), {ended:?}: {}",
                std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn socket(&self) -> PathBuf {
        self.directory.join(format!(".s.PGSQL.{PORT}"))
    }

    fn options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.directory)
            .port(PORT)
            .username("postgres")
            .database(database)
            .extra_float_digits(None)
    }

    /// A connection through it, as another program has one.
    pub(crate) async fn connection(&self, database: &str) -> PgConnection {
        PgConnection::connect_with(&self.options(database))
            .await
            .unwrap()
    }

    pub(crate) fn url(&self, database: &str) -> String {
        let socket = self.directory.to_str().unwrap().replace('/', "%2F");
        format!("postgres://postgres@{socket}:{PORT}/{database}")
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        self.stop();
    }
}

fn launch(directory: &Path) -> Child {
    let log = std::fs::File::create(directory.join("log")).unwrap();
    Command::new(Path::new(ROOT).join("scripts/throwaway-postgres"))
        .arg("pooler")
        .arg(directory.join("pgbouncer.ini"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("scripts/throwaway-postgres cannot be run")
}
