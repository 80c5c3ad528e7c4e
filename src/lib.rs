//! A payment worker for ApiPay.kz.

pub mod alert;
pub mod app;
pub mod cli;
pub mod config;
pub mod db;
pub mod domain;
pub mod policy;
pub mod telemetry;
