//! The stand-in over real sockets.

mod client;
mod control;
mod faults;
mod gateway;
mod limits;
