//! The stand-in over real sockets.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails as the test itself does"
)]

mod client;
mod command;
mod control;
mod faults;
mod gateway;
mod limits;
