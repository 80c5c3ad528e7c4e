//! As much HTTP as the harness needs: a client for the sandbox's control API, and a sink for alerts.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

/// Makes one request and returns the status and the JSON of the answer.
pub(crate) async fn call(addr: SocketAddr, call: &str, key: &str, body: &Value) -> (u16, Value) {
    let (method, path) = call.split_once(' ').unwrap();
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: test\r\nX-API-Key: {key}\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .expect("the answer never ends")
        .unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").expect("no HTTP answer");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

/// A server that takes what is posted to it, and may refuse the first few.
pub(crate) struct Sink {
    pub(crate) addr: SocketAddr,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    bodies: Vec<Value>,
    raw: String,
    refusals_left: usize,
    refused: usize,
    /// How long an answer takes.
    delay: Duration,
    /// What holds these words is answered with 400.
    indigestible: Option<&'static str>,
}

impl Sink {
    pub(crate) async fn start() -> Sink {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::<Mutex<State>>::default();
        let shared = state.clone();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        Sink {
            addr,
            state,
            server,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/alerts", self.addr)
    }

    /// Answers the next `count` requests with 500.
    pub(crate) fn refuse(&self, count: usize) {
        self.state.lock().unwrap().refusals_left = count;
    }

    /// Takes so long to answer what it takes.
    pub(crate) fn delay(&self, delay: Duration) {
        self.state.lock().unwrap().delay = delay;
    }

    /// Answers whatever holds these words with 400, for ever.
    pub(crate) fn refuse_words(&self, words: &'static str) {
        self.state.lock().unwrap().indigestible = Some(words);
    }

    pub(crate) fn refused(&self) -> usize {
        self.state.lock().unwrap().refused
    }

    /// What was taken, in order.
    pub(crate) fn bodies(&self) -> Vec<Value> {
        self.state.lock().unwrap().bodies.clone()
    }

    /// Every byte of every body, refused ones included.
    pub(crate) fn raw(&self) -> String {
        self.state.lock().unwrap().raw.clone()
    }

    /// The bodies of deliveries with this status.
    pub(crate) fn deliveries(&self, status: &str) -> Vec<Value> {
        let mut bodies = self.bodies();
        bodies.retain(|body| body["status"] == status);
        bodies
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let mut bytes = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut bytes).await {
        while let Some((body, end)) = whole_request(&bytes) {
            bytes.drain(..end);
            let answer = state.lock().unwrap().take(&body);
            let delay = state.lock().unwrap().delay;
            tokio::time::sleep(delay).await;
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

impl State {
    fn take(&mut self, body: &str) -> &'static str {
        self.raw.push_str(body);
        if self.refusals_left > 0 {
            self.refusals_left -= 1;
            self.refused += 1;
            return "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
        }
        if self.indigestible.is_some_and(|words| body.contains(words)) {
            self.refused += 1;
            return "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
        }
        self.bodies
            .push(serde_json::from_str(body).expect("an alert is not JSON"));
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    }
}

/// The body of the first request and where it ends, once it is there.
fn whole_request(bytes: &[u8]) -> Option<(String, usize)> {
    let text = String::from_utf8_lossy(bytes);
    let head_end = text.find("\r\n\r\n")? + 4;
    let length = text[..head_end]
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, value)| value.trim().parse().unwrap());
    let body = bytes.get(head_end..head_end + length)?;
    Some((
        String::from_utf8_lossy(body).into_owned(),
        head_end + length,
    ))
}
