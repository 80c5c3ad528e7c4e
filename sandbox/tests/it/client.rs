//! A stand-in of one's own for each test, and a client that sees every byte.

use std::time::Duration;

use apipay_sandbox::{Running, Settings, start};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

pub(crate) const KEY: &str = "key-of-the-shop";
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .into_iter()
            .find(|(present, _)| present.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

pub(crate) struct Bench {
    pub(crate) running: Running,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        Self {
            running: start("127.0.0.1:0".parse().unwrap(), settings)
                .await
                .unwrap(),
        }
    }

    /// A call of the gateway's API that must be answered.
    pub(crate) async fn api(&self, call: &str, body: Value) -> Answer {
        self.api_as(KEY, call, body).await
    }

    pub(crate) async fn api_as(&self, key: &str, call: &str, body: Value) -> Answer {
        let bytes = self.send(&request(key, "/api/v1", call, &body)).await;
        parse(&bytes)
            .unwrap_or_else(|| panic!("{call} was answered {:?}", String::from_utf8_lossy(&bytes)))
    }

    /// A call of the control API that must succeed.
    pub(crate) async fn control(&self, call: &str, body: Value) -> Value {
        let answer = self.control_answer(call, body).await;
        assert_eq!(answer.status, 200, "{call}: {}", answer.body);
        answer.body
    }

    pub(crate) async fn control_answer(&self, call: &str, body: Value) -> Answer {
        parse(&self.send(&request("", "/_sandbox", call, &body)).await).unwrap()
    }

    pub(crate) async fn fault(&self, rule: Value) {
        self.control("POST /faults", rule).await;
    }

    pub(crate) async fn effects(&self) -> Vec<Value> {
        let ledger = self.control("GET /ledger", Value::Null).await;
        ledger["effects"].as_array().unwrap().clone()
    }

    pub(crate) async fn requests(&self) -> Vec<Value> {
        let log = self.control("GET /requests", Value::Null).await;
        log["requests"].as_array().unwrap().clone()
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.running.addr).await.unwrap()
    }

    /// Sends bytes and returns all that comes back until the connection closes.
    pub(crate) async fn send(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        timeout(PATIENCE, read_all(&mut stream))
            .await
            .expect("the connection stays open")
    }

    pub(crate) async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        for _ in 0..500 {
            if holds().await {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("never: {what}");
    }
}

pub(crate) async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset is as good as a close: what came before it counts.
    while let Ok(1..) = stream.read_buf(&mut bytes).await {}
    bytes
}

pub(crate) fn request(key: &str, prefix: &str, call: &str, body: &Value) -> Vec<u8> {
    let (method, path) = call.split_once(' ').unwrap();
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let length = body.len();
    format!(
        "{method} {prefix}{path} HTTP/1.1\r\nHost: sandbox\r\nX-API-Key: {key}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// The API request that [`Bench::api`] would send.
pub(crate) fn api_request(call: &str, body: &Value) -> Vec<u8> {
    request(KEY, "/api/v1", call, body)
}

/// A whole answer with a JSON body, or nothing.
pub(crate) fn parse(bytes: &[u8]) -> Option<Answer> {
    let text = String::from_utf8(bytes.to_vec()).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = serde_json::from_str(body).unwrap_or(Value::String(body.to_owned()));
    Some(Answer {
        status,
        head: head.to_owned(),
        body,
    })
}
