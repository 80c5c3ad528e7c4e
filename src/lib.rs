//! A payment worker for ApiPay.kz.

pub mod domain;
pub mod db;
pub mod policy;
