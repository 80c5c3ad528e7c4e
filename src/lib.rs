//! A payment worker for ApiPay.kz.

pub mod config;
pub mod db;
pub mod domain;
pub mod gateway;
pub mod policy;
