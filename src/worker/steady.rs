//! The steady time: the database's clock as it was when first read, counted on by CLOCK_BOOTTIME.
//!
//! The database's clock may be set back or forward at any time, by an operator, by NTP, by a virtual
//! machine that goes on after a pause. What only counts seconds must not be moved by that: it is given
//! this time. All daemons of a database share it. What they share is the distance of the steady time to
//! the database's clock; a daemon that sees the clock jump corrects the distance by the jump, and the
//! others find that nothing has happened.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::db::clock::{self, Clocks, SteadySecond};
use crate::db::fault::AtFault;
use crate::db::{DbError, Pool};
use crate::policy::clock::{Reading, SpanUs, believed, judge_reading};
use crate::telemetry::Chain;
use crate::worker::alerting;
use crate::worker::clock::Moment;
use crate::worker::spell::warn_in_spells;

/// The steady time of this process.
pub struct SteadyClock {
    /// Names the start of our machine: the time since then is the same for every daemon on it.
    boot: String,
    /// Microseconds by which the steady time is ahead of the time since then.
    ahead_us: AtomicI64,
    last: Mutex<Option<Look>>,
    beginning: Mutex<Beginning>,
}

/// What the first daemon of a machine has to put right: see [`clock::begin_counts`].
#[derive(Default)]
struct Beginning {
    /// Whether all of it is done, or an earlier daemon has done it.
    is_over: bool,
    began: Option<OffsetDateTime>,
    /// Accounts whose window starts again.
    done: BTreeSet<String>,
}

/// What the database's clock should have shown when a statement was sent.
///
/// A jump may be noticed, and what is stored carried along, at any time after that: what the statement
/// read must still be held against the clock that was known before.
#[derive(Clone, Copy)]
pub struct Asked {
    at: Moment,
    expected: OffsetDateTime,
}

impl Asked {
    /// The moment of the statement, which showed this.
    pub fn now(&self, shown: OffsetDateTime) -> OffsetDateTime {
        believed(shown, self.expected + self.at.elapsed())
    }
}

/// A look at the database's clock.
#[derive(Clone, Copy)]
struct Look {
    at_us: i64,
    steady_ahead_us: i64,
    /// Since when every reading was as expected.
    steady_since_us: i64,
    /// Since when another daemon's correction is not what is seen here.
    disputed_at_us: Option<i64>,
}

/// How long after a jump nothing final is decided by the clock: it may be put right by then.
const CALM_US: i64 = 60_000_000;

/// How far the stored time may be from ours before it is stored again.
const STALE_US: i64 = 500_000;

impl SteadyClock {
    /// A clock that knows no time before [`SteadyClock::look`] has read it.
    pub fn new() -> SteadyClock {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        // Without it each daemon starts over, as if the machine had just been started.
        let boot = boot.map_or_else(|_| Uuid::new_v4().to_string(), |id| id.trim().to_owned());
        SteadyClock {
            boot,
            ahead_us: AtomicI64::new(0),
            last: Mutex::default(),
            beginning: Mutex::default(),
        }
    }

    /// The second that it is now.
    pub fn second(&self) -> SteadySecond {
        SteadySecond(self.at(Moment::now().micros()).div_euclid(1_000_000))
    }

    /// What the database's clock should show now. What was measured by it before it was set is measured
    /// by this, until the jump has been noticed and all of that is carried along.
    pub fn expected(&self) -> OffsetDateTime {
        let ahead_us = self.last().map_or(0, |last| last.steady_ahead_us);
        let us = self.at(Moment::now().micros()).saturating_sub(ahead_us);
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(us) * 1_000)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    /// To be called before a statement that reads the database's clock.
    pub fn ask(&self) -> Asked {
        Asked {
            at: Moment::now(),
            expected: self.expected(),
        }
    }

    /// Whether the clock has gone on as it should for so long that what is final may be decided by it.
    pub fn is_calm(&self) -> bool {
        let now_us = Moment::now().micros();
        self.last()
            .is_some_and(|last| now_us.saturating_sub(last.steady_since_us) >= CALM_US)
    }

    fn at(&self, boot_us: i64) -> i64 {
        boot_us.saturating_add(self.ahead_us.load(Ordering::Relaxed))
    }

    /// Looks at the database's clock. Returns by how much it was set since the last look, if nobody
    /// else has noticed it before.
    pub async fn look(&self, pool: &Pool, lease: Duration) -> Result<Option<SpanUs>, DbError> {
        let asked = Moment::now().micros();
        let clocks = clock::read(pool, &self.boot).await?;
        let took = Moment::now().micros() - asked;
        // The server read its clock somewhere between.
        let middle = asked + took / 2;
        let last = self.last();
        if last.is_none() {
            self.take_up(clocks, middle);
        }
        let shown = clocks.database_us.saturating_add(clocks.steady_ahead_us);
        let ahead = SpanUs(shown.saturating_sub(self.at(middle)));
        let since = SpanUs(last.map_or(0, |last| middle - last.at_us));
        let disputed_at_us = last.and_then(|last| {
            let is_corrected = last.steady_ahead_us != clocks.steady_ahead_us;
            last.disputed_at_us.or(is_corrected.then_some(middle))
        });
        let disputed = disputed_at_us.map(|at_us| SpanUs(middle - at_us));
        let mut steady_ahead_us = clocks.steady_ahead_us;
        let mut set = None;
        let reading = judge_reading(ahead, SpanUs(took / 2), since, disputed);
        match reading {
            Reading::Follows(SpanUs(by)) => self.move_by(by),
            Reading::Yields(SpanUs(by)) => {
                warn!(
                    by_s = by / 1_000_000,
                    "this machine and that of another daemon do not count the same seconds; the other's are taken"
                );
                self.move_by(by);
            }
            Reading::Disputed => {}
            Reading::Jumped(by) => {
                let corrected = steady_ahead_us.saturating_sub(by.0);
                // If not, another daemon was faster: the next look shows what it did.
                let text = alerting::clock_jumped(by, self.second());
                match clock::store_jump(pool, steady_ahead_us, corrected, lease, &text).await {
                    Ok(true) => {
                        steady_ahead_us = corrected;
                        set = Some(by);
                    }
                    Ok(false) => {}
                    // Somebody keeps the row locked: the next look sees the jump again.
                    Err(error) if error.fault() == AtFault::Lock => {
                        warn_in_spells!(""; error = %Chain(&error), "that the database's clock was set is not stored yet");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        self.keep(pool, clocks.boot_ahead_us).await?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Look {
            at_us: middle,
            steady_ahead_us,
            steady_since_us: match reading {
                Reading::Follows(_) => last.map_or(i64::MIN, |last| last.steady_since_us),
                Reading::Jumped(_) | Reading::Disputed | Reading::Yields(_) => middle,
            },
            disputed_at_us: disputed_at_us.filter(|_| reading == Reading::Disputed),
        });
        Ok(set)
    }

    /// Takes up the time where an earlier daemon of this machine has left it; the first one begins
    /// where the database is.
    fn take_up(&self, clocks: Clocks, middle: i64) {
        let ahead_us = clocks
            .boot_ahead_us
            .unwrap_or(clocks.database_us + clocks.steady_ahead_us - middle);
        self.ahead_us.store(ahead_us, Ordering::Relaxed);
        self.beginning().is_over = clocks.boot_ahead_us.is_some();
    }

    /// Has what was counted before the machine was started count from now, once. Returns the accounts of which somebody
    /// has something locked: until it could be done, none of them may be served.
    pub async fn begin(&self, pool: &Pool) -> Result<Vec<String>, DbError> {
        let (done, began) = {
            let beginning = self.beginning();
            if beginning.is_over {
                return Ok(Vec::new());
            }
            (
                beginning.done.iter().cloned().collect::<Vec<_>>(),
                beginning.began,
            )
        };
        let begun = clock::begin_counts(pool, self.second(), &done, began).await?;
        {
            let mut beginning = self.beginning();
            beginning.began.get_or_insert(begun.now);
            beginning.done.extend(begun.windows);
        }
        if begun.locked.is_empty() {
            let ours = self.ahead_us.load(Ordering::Relaxed);
            clock::begin_boot(pool, &self.boot, ours).await?;
            self.beginning().is_over = true;
            debug!("the first daemon of this machine counts the time of quotas from here");
        }
        Ok(begun.locked)
    }

    /// Whether nothing of [`begin`] is left to do.
    ///
    /// [`begin`]: SteadyClock::begin
    pub fn has_begun(&self) -> bool {
        self.beginning().is_over
    }

    fn beginning(&self) -> std::sync::MutexGuard<'_, Beginning> {
        self.beginning
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores our time for the next daemon of this machine, if the stored one is stale.
    async fn keep(&self, pool: &Pool, stored: Option<i64>) -> Result<(), DbError> {
        let ours = self.ahead_us.load(Ordering::Relaxed);
        match stored {
            Some(stored) if stored.abs_diff(ours) > STALE_US.unsigned_abs() => {
                match clock::store_boot(pool, &self.boot, ours).await {
                    // The next look stores it.
                    Err(error) if error.fault() == AtFault::Lock => Ok(()),
                    done => done,
                }
            }
            _ => Ok(()),
        }
    }

    fn move_by(&self, us: i64) {
        self.ahead_us.fetch_add(us, Ordering::Relaxed);
    }

    fn last(&self) -> Option<Look> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for SteadyClock {
    fn default() -> SteadyClock {
        SteadyClock::new()
    }
}
