//! How fast the sends of an account are answered, and how many jobs are claimed ahead of free slots for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many jobs of an account to claim ahead of free slots: as many as were answered soon in the last tenth of a second. So
/// they wait about that long for their slot, and of an account whose gateway is slow none is claimed ahead.
#[derive(Default)]
pub struct Pace {
    /// Sends since the start that were answered soon.
    brisk: AtomicU64,
    measured: Mutex<Measured>,
}

#[derive(Default)]
struct Measured {
    last: Option<(Instant, u64)>,
    ahead: usize,
}

impl Pace {
    const SPAN: Duration = Duration::from_millis(100);

    /// A send was answered soon.
    pub fn count_brisk(&self) {
        self.brisk.fetch_add(1, Ordering::Relaxed);
    }

    /// How many to claim ahead of free slots, at this moment.
    pub fn ahead(&self, now: Instant) -> usize {
        let brisk = self.brisk.load(Ordering::Relaxed);
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, before) = *measured.last.get_or_insert((now, brisk));
        let elapsed = now.duration_since(since);
        if elapsed >= Pace::SPAN {
            let share = Pace::SPAN.as_secs_f64() / elapsed.as_secs_f64();
            measured.ahead = (brisk.saturating_sub(before) as f64 * share) as usize;
            measured.last = Some((now, brisk));
        }
        measured.ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_gateway_has_jobs_claimed_ahead_and_a_slow_one_none() {
        let start = Instant::now();
        let pace = Pace::default();
        let ahead = |brisk, ms| {
            pace.brisk.store(brisk, Ordering::Relaxed);
            pace.ahead(start + Duration::from_millis(ms))
        };
        assert_eq!(ahead(0, 0), 0);
        assert_eq!(ahead(400, 50), 0, "too early to tell");
        assert_eq!(ahead(800, 100), 800);
        assert_eq!(ahead(1_000, 150), 800, "kept until the next measure");
        assert_eq!(ahead(802, 10_100), 0);
    }
}
