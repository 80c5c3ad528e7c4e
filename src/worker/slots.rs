//! Slots for the requests of sends: so many may be under way at once, of an account and of the daemon.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A request holds one of the daemon's slots for at most this long. After that it counts as slow and holds only its
/// account's slot; otherwise a few accounts whose gateways hang would take all slots.
const BRISK: Duration = Duration::from_secs(2);

/// The slots of the daemon: so many requests may be under way at once, beside those that are slow.
#[derive(Clone)]
pub struct Slots {
    brisk: Arc<Semaphore>,
    slow: Arc<Semaphore>,
}

impl Slots {
    /// There are never more slow requests than this: each takes memory.
    const MOST_SLOW: usize = 512;

    /// So many slots for requests that are not slow.
    pub fn new(concurrency: usize) -> Slots {
        Slots {
            brisk: Arc::new(Semaphore::new(concurrency)),
            slow: Arc::new(Semaphore::new(Slots::MOST_SLOW)),
        }
    }

    /// Waits for a slot of these, and of the account's own first, so that a job that waits for its account's slot holds
    /// none of the daemon's. The semaphores are never closed.
    pub async fn take(self, of_account: &Arc<Semaphore>) -> Slot {
        let account = of_account.clone().acquire_owned().await.ok();
        let daemon = self.brisk.clone().acquire_owned().await.ok();
        Slot {
            _account: account,
            daemon,
            slots: self,
            is_slow: false,
        }
    }

    /// How many requests are slow.
    pub fn slow(&self) -> usize {
        Slots::MOST_SLOW.saturating_sub(self.slow.available_permits())
    }
}

/// A slot for the requests of a job, of its account and of the daemon; free again when it is dropped.
pub struct Slot {
    _account: Option<OwnedSemaphorePermit>,
    daemon: Option<OwnedSemaphorePermit>,
    slots: Slots,
    is_slow: bool,
}

impl Slot {
    /// Waits for what a request brings. When that takes long, the daemon's slot goes to others.
    pub async fn wait<F: Future>(&mut self, answer: F) -> F::Output {
        let mut answer = pin!(answer);
        tokio::select! {
            answer = &mut answer => return answer,
            () = tokio::time::sleep(BRISK), if !self.is_slow => {}
        }
        if let Ok(slow) = self.slots.slow.clone().try_acquire_owned() {
            self.daemon = Some(slow);
        }
        self.is_slow = true;
        answer.await
    }

    /// Whether each request so far was answered soon.
    pub fn is_brisk(&self) -> bool {
        !self.is_slow
    }
}
