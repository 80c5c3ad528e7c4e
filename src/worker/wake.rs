//! What wakes the loops before their timers.

use std::sync::atomic::AtomicBool;

use tokio::sync::Notify;

/// One signal for each loop that is worth waking.
#[derive(Default)]
pub struct Wake {
    /// There may be due jobs, or free slots.
    pub dispatch: Notify,
    /// The next trial of an account that has slowed down may be due: nothing of the last one was sent.
    pub trials: Notify,
    /// Uncertain jobs may be looked up: an account is served from now on.
    pub lookup: Notify,
    /// What was accepted may be asked for: an account has done its last part.
    pub follow: Notify,
    /// Jobs may have to be moved: one has ended that others wait for, or an outage.
    pub recover: Notify,
    /// There may be a delivery to deliver.
    pub deliver: Notify,
    /// There may be one for the log.
    pub log: Notify,
    /// There may be one for the webhook.
    pub webhook: Notify,
    /// Whether the last claim could have taken more with more free slots: then the next send that ends wakes it.
    pub wants_slots: AtomicBool,
}
