//! A payment worker for ApiPay.kz.

pub mod alert;
pub mod app;
pub mod cli;
pub mod config;
pub mod db;
pub mod domain;
pub mod gateway;
pub mod policy;
pub mod service;
pub mod telemetry;
pub mod worker;
