//! Whether an account is served: from the end of its start to its close, while its key is known to be of its organization.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::answer::NotSent;
use crate::domain::times::KEY_KNOWN;
use crate::worker::clock::Moment;

/// Whether the gateway may be asked anything for an account.
#[derive(Default)]
pub struct Serving {
    /// When the key was last seen to be known, while it serves the account.
    known_at: Mutex<Option<Moment>>,
    has_begun: AtomicBool,
    is_closed: AtomicBool,
}

impl Serving {
    /// The account's row is up to date, and its quota counts from this start on.
    pub fn begin(&self) {
        self.has_begun.store(true, Ordering::Relaxed);
    }

    /// Whether what is done for it once after a start is done; before that it is not served.
    pub fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Relaxed)
    }

    /// Nothing more is claimed, sent or asked for it; what is under way is ended and recorded. There is no way back.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    /// Whether it is closed, or about to be.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Its key is known to be of the account's organization, now. True when that is news.
    pub fn know(&self) -> bool {
        let served = self.serves();
        *self.known_at() = Some(Moment::now());
        !served
    }

    /// Its key is not known any more.
    pub fn doubt_key(&self) {
        *self.known_at() = None;
    }

    /// Whether the gateway may be asked anything for it. Who could not read for a while whether its key is known
    /// asks nothing: another key may have taken its place.
    pub fn serves(&self) -> bool {
        !self.is_closed() && self.known_at().is_some_and(|at| at.elapsed() < KEY_KNOWN)
    }

    /// Why nothing is sent of an account that is not served.
    pub fn unserved(&self) -> NotSent {
        if self.is_closed() {
            NotSent::AccountClosed
        } else {
            NotSent::KeyDoubted
        }
    }

    fn known_at(&self) -> MutexGuard<'_, Option<Moment>> {
        self.known_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_served_from_when_its_key_is_known_until_it_is_closed() {
        let serving = Serving::default();
        assert!(!serving.serves());
        assert!(serving.know(), "it is news");
        assert!(serving.serves());
        assert!(!serving.know(), "no more");
        serving.doubt_key();
        assert!(!serving.serves());
        assert_eq!(serving.unserved(), NotSent::KeyDoubted);
        serving.close();
        serving.know();
        assert!(!serving.serves(), "there is no way back");
        assert_eq!(serving.unserved(), NotSent::AccountClosed);
    }

    #[test]
    fn a_key_that_nobody_could_read_of_for_a_while_is_not_known() {
        let serving = Serving::default();
        *serving.known_at() = Some(Moment::now().before(KEY_KNOWN));
        assert!(!serving.serves());
    }
}
