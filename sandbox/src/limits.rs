//! Rate limits: sliding windows of 60 real seconds, one set per key.

use std::collections::{HashMap, VecDeque};

use time::OffsetDateTime;

use crate::envelope::Reply;
use crate::stamp;

const WINDOW_US: i64 = 60_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bucket {
    General,
    /// `GET /invoices/{id}`, instead of the general one.
    InvoiceReads,
    Simulations,
    StatusByAddress,
}

/// What is left of the most depleted bucket of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowance {
    pub(crate) limit: u32,
    pub(crate) remaining: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Limits {
    windows: HashMap<String, [VecDeque<i64>; 4]>,
}

impl Limits {
    /// Counts a request, or refuses it uncounted. A `general` limit of 0 lifts all limits of the key.
    pub(crate) fn take(
        &mut self,
        owner: &str,
        buckets: &[Bucket],
        general: u32,
        now: OffsetDateTime,
    ) -> Result<Option<Allowance>, Reply> {
        if general == 0 {
            return Ok(None);
        }
        if !self.windows.contains_key(owner) {
            self.windows.insert(owner.to_owned(), Default::default());
        }
        let Some(windows) = self.windows.get_mut(owner) else {
            return Ok(None);
        };
        let now_us = unix_us(now);
        for bucket in buckets {
            let (window, limit) = (&mut windows[*bucket as usize], bucket.limit(general));
            while window
                .front()
                .is_some_and(|seen| *seen <= now_us - WINDOW_US)
            {
                window.pop_front();
            }
            if window.len() >= limit as usize {
                return Err(refuse(
                    limit,
                    window.front().copied().unwrap_or(now_us),
                    now_us,
                ));
            }
        }
        let mut tightest: Option<Allowance> = None;
        for bucket in buckets {
            let (window, limit) = (&mut windows[*bucket as usize], bucket.limit(general));
            window.push_back(now_us);
            let remaining = limit.saturating_sub(u32::try_from(window.len()).unwrap_or(u32::MAX));
            if tightest.is_none_or(|allowance| remaining < allowance.remaining) {
                tightest = Some(Allowance { limit, remaining });
            }
        }
        Ok(tightest)
    }
}

impl Bucket {
    fn limit(self, general: u32) -> u32 {
        match self {
            Self::General => general,
            Self::InvoiceReads => 1_000,
            Self::Simulations | Self::StatusByAddress => 60,
        }
    }
}

impl Allowance {
    pub(crate) fn show_on(self, reply: &mut Reply) {
        reply.set_header("X-RateLimit-Limit", self.limit.to_string());
        reply.set_header("X-RateLimit-Remaining", self.remaining.to_string());
    }
}

fn refuse(limit: u32, oldest_us: i64, now_us: i64) -> Reply {
    let reset_us = oldest_us + WINDOW_US;
    let wait_seconds = ceil_seconds(reset_us - now_us).max(1);
    let reset_unix = ceil_seconds(reset_us);
    let reset_at = OffsetDateTime::from_unix_timestamp(reset_unix)
        .map(stamp::utc)
        .unwrap_or_default();
    Reply::too_many_requests(limit, wait_seconds, reset_unix, &reset_at)
}

fn ceil_seconds(us: i64) -> i64 {
    us.div_euclid(1_000_000) + i64::from(us.rem_euclid(1_000_000) > 0)
}

/// Microseconds since 1970.
pub(crate) fn unix_us(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::Duration;
    use time::macros::datetime;

    #[test]
    fn the_window_slides() {
        let start = datetime!(2026-09-06 10:00 UTC);
        let mut limits = Limits::default();
        let mut take = |seconds| {
            limits.take(
                "key",
                &[Bucket::General],
                2,
                start + Duration::seconds(seconds),
            )
        };
        assert_eq!(
            take(0),
            Ok(Some(Allowance {
                limit: 2,
                remaining: 1
            }))
        );
        assert_eq!(
            take(30),
            Ok(Some(Allowance {
                limit: 2,
                remaining: 0
            }))
        );
        let refused = take(43).unwrap_err();
        assert_eq!(refused.status, 429);
        assert!(
            refused
                .headers
                .contains(&("Retry-After".to_owned(), "17".to_owned()))
        );
        assert!(take(60).is_ok());
        assert!(take(89).is_err());
        assert!(take(90).is_ok());
    }

    #[test]
    fn the_headers_tell_of_the_tightest_bucket() {
        let now = datetime!(2026-09-06 10:00 UTC);
        let mut limits = Limits::default();
        let both = [Bucket::General, Bucket::Simulations];
        assert_eq!(
            limits.take("key", &both, 200, now),
            Ok(Some(Allowance {
                limit: 60,
                remaining: 59
            }))
        );
        assert_eq!(limits.take("other", &both, 0, now), Ok(None));
    }
}
