//! The words of the trade as types: no I/O, no clock, no randomness.
//!
//! Everything here is a value that can be built in a test by hand. `domain` knows no other module
//! of the crate.

pub mod account;
pub mod answer;
pub mod bounds;
pub mod codes;
pub mod errors;
pub mod fields;
pub mod group;
pub mod http;
pub mod job;
pub mod object;
pub mod operation;
pub mod outage;
pub mod phone;
pub mod reason;
pub mod state;
pub mod statement;
pub mod times;
