//! HTTP/1.1 by hand, because the faults need every byte.

mod read;
mod write;

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::api::Request;
use crate::envelope::Reply;
use crate::faults::{Drip, Interim, Manner};

const IDLE: Duration = Duration::from_secs(75);
const LARGEST_HEAD: usize = 64 * 1024;
const LARGEST_BODY: usize = 4 * 1024 * 1024;
const READ_STEP: usize = 16 * 1024;
const ENDLESS_STEP: Duration = Duration::from_millis(1);

/// What came in.
pub(crate) enum Received {
    Request {
        request: Request,
        keep_alive: bool,
    },
    /// Not HTTP, or too much of it; the connection ends with this reply.
    Refused(Reply),
    Closed,
}

/// Whether the connection can carry another request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Whole,
    Broken,
}

pub(crate) struct Connection {
    stream: TcpStream,
    /// Bytes that were read and not yet used.
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            buffer: Vec::with_capacity(READ_STEP),
        }
    }

    pub(crate) async fn receive(&mut self) -> io::Result<Received> {
        loop {
            match read::parse(&self.buffer) {
                read::Parsed::Whole {
                    request,
                    keep_alive,
                    length,
                } => {
                    self.buffer.drain(..length);
                    return Ok(Received::Request {
                        request,
                        keep_alive,
                    });
                }
                read::Parsed::Bad(reply) => return Ok(Received::Refused(reply)),
                read::Parsed::Partial => {}
            }
            let more = tokio::time::timeout(IDLE, self.stream.read_buf(&mut self.buffer)).await;
            let Ok(count) = more else {
                return Ok(Received::Closed);
            };
            if count? == 0 {
                return Ok(Received::Closed);
            }
        }
    }

    /// Waits, `None` for ever; false when the client hung up meanwhile.
    pub(crate) async fn hold(&mut self, span: Option<Duration>) -> bool {
        match span {
            Some(Duration::ZERO) => true,
            Some(span) => self.hold_for(tokio::time::sleep(span)).await.is_some(),
            None => self.hold_for(std::future::pending::<()>()).await.is_some(),
        }
    }

    /// Waits for something; `None` when the client hung up meanwhile.
    pub(crate) async fn hold_for<T>(&mut self, event: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            outcome = event => Some(outcome),
            () = self.hung_up() => None,
        }
    }

    /// Sends an answer in the given manner.
    pub(crate) async fn send(
        &mut self,
        reply: &Reply,
        manner: Manner<'_>,
        keep_alive: bool,
    ) -> io::Result<Sent> {
        let whole = write::serialize(reply, keep_alive);
        match manner {
            Manner::Whole => {
                self.stream.write_all(&whole.bytes).await?;
                return Ok(Sent::Whole);
            }
            Manner::Drip(drip) => {
                self.drip(&whole.bytes, drip).await?;
                return Ok(Sent::Whole);
            }
            Manner::Never => {
                self.hold(None).await;
            }
            Manner::CloseAfter(span) => {
                self.hold(Some(span)).await;
            }
            Manner::MidHeaders => {
                self.stream
                    .write_all(&whole.bytes[..whole.head_len / 2])
                    .await?
            }
            Manner::MidBody => {
                let body_len = whole.bytes.len() - whole.head_len;
                self.stream
                    .write_all(&whole.bytes[..whole.head_len + body_len / 2])
                    .await?;
            }
            Manner::EndlessHeaders => self.send_headers_for_ever(reply).await?,
            Manner::EndlessBody => self.send_a_body_for_ever(reply).await?,
            Manner::Interim(interim) => {
                self.send_interim(interim).await?;
                self.stream.write_all(&whole.bytes).await?;
                return Ok(Sent::Whole);
            }
            Manner::Raw(bytes) => self.stream.write_all(bytes).await?,
        }
        Ok(Sent::Broken)
    }

    async fn drip(&mut self, bytes: &[u8], drip: Drip) -> io::Result<()> {
        for drop in bytes.chunks(drip.bytes) {
            self.stream.write_all(drop).await?;
            tokio::time::sleep(Duration::from_millis(drip.every_ms)).await;
        }
        Ok(())
    }

    async fn send_headers_for_ever(&mut self, reply: &Reply) -> io::Result<()> {
        self.stream
            .write_all(write::status_line(reply.status).as_bytes())
            .await?;
        let mut number = 0_u64;
        loop {
            number += 1;
            let header = format!("X-Endless-{number}: {}\r\n", "x".repeat(1_000));
            self.stream.write_all(header.as_bytes()).await?;
            tokio::time::sleep(ENDLESS_STEP).await;
        }
    }

    /// Blanks before a JSON value that never comes, so that no part of it is a whole body.
    async fn send_a_body_for_ever(&mut self, reply: &Reply) -> io::Result<()> {
        let head = format!(
            "{}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
            write::status_line(reply.status)
        );
        self.stream.write_all(head.as_bytes()).await?;
        let chunk = format!("{READ_STEP:x}\r\n{}\r\n", " ".repeat(READ_STEP));
        loop {
            self.stream.write_all(chunk.as_bytes()).await?;
            tokio::time::sleep(ENDLESS_STEP).await;
        }
    }

    async fn send_interim(&mut self, interim: Interim) -> io::Result<()> {
        let answer = format!("HTTP/1.1 {} Interim\r\n\r\n", interim.status);
        let mut left = interim.times;
        while left != Some(0) {
            self.stream.write_all(answer.as_bytes()).await?;
            // One that never ends must not take the machine from everybody else.
            match &mut left {
                Some(left) => *left -= 1,
                None => tokio::time::sleep(ENDLESS_STEP).await,
            }
        }
        Ok(())
    }

    /// Completes when the client closes; what it sends before is kept for the next request.
    async fn hung_up(&mut self) {
        while self.buffer.len() < LARGEST_HEAD + LARGEST_BODY {
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        std::future::pending().await
    }
}
