//! A clock that counts the time a machine was suspended.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A moment on CLOCK_BOOTTIME. `std::time::Instant` is CLOCK_MONOTONIC, which stops while the
/// machine sleeps, as leases in the database do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// Now.
    pub fn now() -> Moment {
        let time = clock_gettime(ClockId::Boottime);
        Moment(Duration::new(
            u64::try_from(time.tv_sec).unwrap_or(0),
            u32::try_from(time.tv_nsec).unwrap_or(0),
        ))
    }

    /// Microseconds since the machine was started.
    pub fn micros(self) -> i64 {
        i64::try_from(self.0.as_micros()).unwrap_or(i64::MAX)
    }

    /// The moment this long before.
    pub fn before(self, span: Duration) -> Moment {
        Moment(self.0.saturating_sub(span))
    }

    /// The moment this long after.
    pub fn after(self, span: Duration) -> Moment {
        Moment(self.0.saturating_add(span))
    }

    /// How long the machine had been up.
    pub fn since_boot(self) -> Duration {
        self.0
    }

    /// How long ago it was.
    pub fn elapsed(self) -> Duration {
        Moment::now().0.saturating_sub(self.0)
    }
}
