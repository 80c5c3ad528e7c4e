//! The randomness of decisions.

use uuid::Uuid;

use crate::policy::rules::Jitter;

/// A fresh random number for a decision.
pub fn jitter() -> Jitter {
    // The upper 53 bits of a random UUID's 64: what a float between 0 and 1 can hold.
    let random = Uuid::new_v4().as_u64_pair().0 >> 11;
    Jitter::new(random as f64 / (1_u64 << 53) as f64)
}
