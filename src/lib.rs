//! A payment worker for ApiPay.kz.
