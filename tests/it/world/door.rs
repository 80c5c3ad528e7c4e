//! A way to the gateway by TLS, with something wrong with it until it is mended.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::tls::Certificates;

/// What is wrong with the way, always before a byte of a request can go it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// Nobody listens.
    Refused,
    /// What is sent to open a connection is not answered.
    Unanswered,
    /// A connection, and never a byte.
    Silent,
    /// Cut once the handshake has begun.
    Cut,
    /// HTTP without TLS.
    Plain,
    /// Bytes that are no protocol.
    Noise,
    /// The certificate is out of date.
    Expired,
    /// It is not valid yet.
    OfTomorrow,
    /// It is another host's.
    WrongName,
    /// Nobody known vouches for it.
    Unknown,
    /// Its signature is wrong.
    Forged,
}

pub(crate) struct Door {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
    /// Not listening yet.
    closed: Mutex<Option<TcpSocket>>,
    /// Listening, with nobody behind it and no room before it.
    full: Mutex<Option<(TcpListener, Vec<TcpStream>)>>,
    server: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    fault: Mutex<Option<Fault>>,
    to: SocketAddr,
    certificates: Certificates,
    good: Arc<ServerConfig>,
}

impl Door {
    /// Nothing is wrong; the certificate and the protocol are these.
    pub(crate) async fn good(to: SocketAddr, own: Arc<ServerConfig>, all: &Certificates) -> Door {
        let door = Door::closed(None, to, own, all);
        door.open();
        door
    }

    pub(crate) async fn faulty(fault: Fault, to: SocketAddr, all: &Certificates) -> Door {
        let door = Door::closed(Some(fault), to, all.good.clone(), all);
        match fault {
            Fault::Refused => {}
            Fault::Unanswered => door.fill().await,
            _ => door.open(),
        }
        door
    }

    fn closed(
        fault: Option<Fault>,
        to: SocketAddr,
        good: Arc<ServerConfig>,
        all: &Certificates,
    ) -> Door {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Door {
            addr: socket.local_addr().unwrap(),
            shared: Arc::new(Shared {
                fault: Mutex::new(fault),
                to,
                certificates: all.clone(),
                good,
            }),
            closed: Mutex::new(Some(socket)),
            full: Mutex::default(),
            server: Mutex::default(),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}/api/v1", self.addr.port())
    }

    /// From now on nothing is wrong.
    pub(crate) fn mend(&self) {
        *self.shared.fault.lock().unwrap() = None;
        self.open();
    }

    /// Begins to serve, unless it does already.
    fn open(&self) {
        let closed = self.closed.lock().unwrap().take();
        let full = self.full.lock().unwrap().take();
        let listener = match (closed, full) {
            (Some(socket), _) => socket.listen(64).unwrap(),
            (None, Some((listener, _fillers))) => listener,
            (None, None) => return,
        };
        let shared = self.shared.clone();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        *self.server.lock().unwrap() = Some(server);
    }

    /// Connects until no more connections are taken.
    async fn fill(&self) {
        let socket = self.closed.lock().unwrap().take().unwrap();
        let listener = socket.listen(1).unwrap();
        let mut fillers = Vec::new();
        while let Ok(filler) =
            timeout(Duration::from_millis(300), TcpStream::connect(self.addr)).await
        {
            fillers.push(filler.unwrap());
            assert!(fillers.len() < 16, "the queue of connections is never full");
        }
        *self.full.lock().unwrap() = Some((listener, fillers));
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(server) = self.server.lock().unwrap().take() {
            server.abort();
        }
    }
}

/// What a client does wrong, or does not like, is its own affair: then nothing is served.
async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let fault = *shared.fault.lock().unwrap();
    let own = &shared.certificates;
    let config = match fault {
        None | Some(Fault::Refused | Fault::Unanswered) => &shared.good,
        Some(Fault::Expired) => &own.expired,
        Some(Fault::OfTomorrow) => &own.of_tomorrow,
        Some(Fault::WrongName) => &own.wrong_name,
        Some(Fault::Unknown) => &own.unknown,
        Some(Fault::Forged) => &own.forged,
        Some(Fault::Silent) => {
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes).await;
            return;
        }
        Some(Fault::Cut) => {
            let _ = stream.read_u8().await;
            return;
        }
        Some(Fault::Plain) => {
            return say(
                stream,
                b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
            )
            .await;
        }
        Some(Fault::Noise) => return say(stream, &[0x15, 3, 3, 0xff, 0xff, 0, 1, 2, 3]).await,
    };
    // A client that does not trust the certificate ends it here.
    let Ok(mut client) = TlsAcceptor::from(config.clone()).accept(stream).await else {
        return;
    };
    let mut gateway = TcpStream::connect(shared.to).await.unwrap();
    let _ = copy_bidirectional(&mut client, &mut gateway).await;
}

/// Answers the first bytes with these, whatever they are.
async fn say(mut stream: TcpStream, answer: &[u8]) {
    let _ = stream.read_u8().await;
    let _ = stream.write_all(answer).await;
    let mut rest = Vec::new();
    let _ = timeout(Duration::from_secs(2), stream.read_to_end(&mut rest)).await;
}
