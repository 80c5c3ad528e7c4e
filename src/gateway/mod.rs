//! The only place that speaks to ApiPay.
//!
//! [`client`] makes one request and turns whatever happens into an
//! [`Answer`](crate::domain::answer::Answer); it judges nothing and never tries again. [`wire`]
//! builds and reads the calls that belong to no single operation. `gateway` knows neither `db` nor
//! `policy`.

pub mod client;
mod fault;
#[cfg(feature = "crash-points")]
mod halves;
pub mod wire;
