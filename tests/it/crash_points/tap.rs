//! A way to the gateway that remembers what went to it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What each connection carried to the gateway.
type Seen = Arc<Mutex<Vec<Vec<u8>>>>;

pub(super) struct Tap {
    addr: SocketAddr,
    seen: Seen,
    server: JoinHandle<()>,
}

impl Tap {
    pub(super) async fn start(to: SocketAddr) -> Tap {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Seen::default();
        let noted = seen.clone();
        let server = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, to, noted.clone()));
            }
        });
        Tap { addr, seen, server }
    }

    pub(super) fn base_url(&self) -> String {
        format!("http://{}/api/v1", self.addr)
    }

    /// Whether some connection ended with a request of which only a part of the body had come.
    pub(super) fn saw_half_a_body(&self) -> bool {
        self.seen.lock().unwrap().iter().any(|bytes| {
            let text = String::from_utf8_lossy(bytes).to_lowercase();
            // The last request of the connection.
            let Some((head, body)) = text.rsplit_once("\r\n\r\n") else {
                return false;
            };
            let (_, head) = head.rsplit_once("post ").unwrap_or_default();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            length.is_some_and(|length| (1..length.parse().unwrap()).contains(&body.len()))
        })
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn carry(client: TcpStream, to: SocketAddr, seen: Seen) {
    let Ok(server) = TcpStream::connect(to).await else {
        return;
    };
    let place = {
        let mut seen = seen.lock().unwrap();
        seen.push(Vec::new());
        seen.len() - 1
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    // A daemon that is gone takes no answer.
    let back = async move {
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
    };
    let forth = async move {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            seen.lock().unwrap()[place].extend(&buffer[..count]);
            if to_server.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
    };
    tokio::join!(back, forth);
}
