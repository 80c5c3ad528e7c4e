//! A local stand-in for the payment gateway ApiPay.kz, for tests of anything that talks to it.
//!
//! It answers as the gateway is documented to, moves invoices and refunds through their lives on a clock that can be
//! hurried, and fails on demand in every way a gateway, a proxy or a network can. What really happened is in a ledger
//! that the client under test cannot see.
//!
//! The way of a request: `server` accepts and `wire` reads bytes; `hub` logs it, checks rate limits (`limits`) and
//! picks a fault (`faults`); `api` applies it to the `world`; `wire` sends the answer, or what the fault leaves of it.
//! `world` and `api` know neither sockets nor clocks: a request and a moment go in, a reply comes out.

mod api;
mod clock;
mod control;
mod envelope;
mod faults;
mod hub;
mod journal;
mod ledger;
mod life;
mod limits;
mod money;
mod presets;
mod server;
mod stamp;
mod wire;
mod world;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::info;

pub use world::Mode;

/// How a stand-in starts; everything else is set through its control API while it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The mode of every organization.
    pub mode: Mode,
    /// How many times faster than real time invoices and refunds live.
    pub speed: f64,
    /// The general limit of each key; 0 lifts all limits per key.
    pub requests_per_minute: u32,
    /// Refuse keys that the control API does not know, instead of founding an organization for each.
    pub strict_keys: bool,
    /// How many requests the log keeps.
    pub request_log: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::Live,
            speed: 1.0,
            requests_per_minute: 200,
            strict_keys: false,
            request_log: 200_000,
        }
    }
}

/// A stand-in that serves. Dropping it stops it too, but waits for nothing.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub addr: SocketAddr,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
}

/// Binds `addr` (port 0 takes a free one) and serves in the background.
///
/// # Errors
///
/// When the address cannot be bound.
pub async fn start(addr: SocketAddr, settings: Settings) -> io::Result<Running> {
    let listener = TcpListener::bind(addr).await?;
    let addr = listener.local_addr()?;
    let (stop, stopped) = watch::channel(false);
    let hub = Arc::new(hub::Hub::new(settings));
    let server = tokio::spawn(server::serve(listener, hub, stopped));
    info!(listen.addr = %addr, "sandbox listens on {addr}");
    Ok(Running { addr, stop, server })
}

impl Running {
    /// The gateway's base URL.
    pub fn base_url(&self) -> String {
        format!("http://{}{}", self.addr, api::PREFIX)
    }

    /// The base URL of the control API.
    pub fn control_url(&self) -> String {
        format!("http://{}{}", self.addr, control::PREFIX)
    }

    /// Stops at once: open connections are dropped, late effects never come.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.server.await {
            tracing::error!(%error, "the server task had failed");
        }
    }
}
