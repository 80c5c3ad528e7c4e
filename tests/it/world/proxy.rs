//! A way to the database that can be cut.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

pub(crate) const SOCKET: &str = ".s.PGSQL.5432";

pub(crate) struct Proxy {
    directory: PathBuf,
    cut: Arc<Notify>,
    server: JoinHandle<()>,
}

impl Proxy {
    /// Listens in `directory` as Postgres would, and leads to the server whose socket is in `to`.
    pub(crate) fn start(directory: &Path, to: &Path) -> Proxy {
        // Of one that was here before.
        let _ = std::fs::remove_file(directory.join(SOCKET));
        let listener = UnixListener::bind(directory.join(SOCKET)).unwrap();
        let cut = Arc::new(Notify::new());
        let (target, signal) = (to.join(SOCKET), cut.clone());
        let server = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (target, signal) = (target.clone(), signal.clone());
                tokio::spawn(async move {
                    let Ok(mut server) = UnixStream::connect(target).await else {
                        return;
                    };
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        () = signal.notified() => {}
                    }
                });
            }
        });
        Proxy {
            directory: directory.to_owned(),
            cut,
            server,
        }
    }

    /// Cuts every connection, wherever it stands.
    pub(crate) fn cut(&self) {
        self.cut.notify_waiters();
    }

    pub(crate) fn url(&self, database: &str) -> String {
        let socket = self.directory.to_str().unwrap().replace('/', "%2F");
        format!("postgres://postgres@{socket}/{database}")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}
