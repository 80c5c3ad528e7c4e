//! A place that nobody should ever come to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(crate) struct Bait {
    pub(crate) addr: SocketAddr,
    visitors: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl Bait {
    pub(crate) async fn lay() -> Bait {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let visitors = Arc::<AtomicUsize>::default();
        let seen = visitors.clone();
        let server = tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                seen.fetch_add(1, Ordering::Relaxed);
            }
        });
        Bait {
            addr,
            visitors,
            server,
        }
    }

    pub(crate) fn expect_nobody(&self) {
        assert_eq!(self.visitors.load(Ordering::Relaxed), 0, "somebody came");
    }
}

impl Drop for Bait {
    fn drop(&mut self) {
        self.server.abort();
    }
}
