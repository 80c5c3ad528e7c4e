//! Bringing stored moments back to at most their purpose from now.
//!
//! Each statement reads only what lies beyond its bound, and passes over rows that others hold.

use time::OffsetDateTime;

use super::seconds;
use super::{DbError, Pool, Task};
use crate::domain::bounds::Bounds;

/// Rows of one statement.
const MOST: i64 = 1_000;

/// Brings every moment back that lies too far ahead. Returns how many rows did; there may be more.
///
/// A clock that shows less than `at_least` was set back and nobody has noticed: what is measured by it is carried along
/// then, and would be moved twice.
pub async fn keep(pool: &Pool, bounds: &Bounds, at_least: OffsetDateTime) -> Result<u64, DbError> {
    Ok(accounts(pool, bounds, at_least).await?
        + leases(pool, bounds, at_least).await?
        + lookups(pool, bounds, at_least).await?
        + held(pool, bounds, at_least).await?
        + put_off(pool, bounds, at_least).await?
        + invoices(pool, bounds, at_least).await?
        + refunds(pool, bounds, at_least).await?
        + deliveries(pool, at_least).await?)
}

async fn accounts(pool: &Pool, bounds: &Bounds, at_least: OffsetDateTime) -> Result<u64, DbError> {
    sqlx::query!(
        "update apipay.accounts a
            set blocked_until = apipay._at_most(a.blocked_until,
                  now() + make_interval(secs => case when a.blocked_reason = any ($1) then $2::float8 else $3::float8 end)),
                capped_until = apipay._at_most(a.capped_until, now() + make_interval(secs => $2)),
                probe_at = apipay._at_most(a.probe_at, now() + make_interval(secs => $4)),
                resumed_at = apipay._at_most(a.resumed_at, now())
          where a.name = any (array(
            select b.name from apipay.accounts b
            where now() >= $5 and (b.blocked_until > now() + make_interval(secs => case when b.blocked_reason = any ($1) then $2::float8 else $3::float8 end)
               or b.capped_until > now() + make_interval(secs => $2)
               or b.probe_at > now() + make_interval(secs => $4) or b.resumed_at > now())
            for no key update skip locked))",
        &bounds.cap_codes,
        seconds(bounds.cap),
        seconds(bounds.rate),
        seconds(bounds.probe),
        at_least,
    )
    .execute(pool)
    .await
    .task("bound the waits of accounts")
    .map(|done| done.rows_affected())
}

async fn leases(pool: &Pool, bounds: &Bounds, at_least: OffsetDateTime) -> Result<u64, DbError> {
    sqlx::query!(
        "update apipay.jobs
            set leased_until = now() + make_interval(secs => $1)
          where id = any (array(
            select id from apipay.jobs
            where now() >= $3 and state = 'sending' and leased_until > now() + make_interval(secs => $1)
            limit $2
            for no key update skip locked))",
        seconds(bounds.lease),
        MOST,
        at_least,
    )
    .execute(pool)
    .await
    .task("bound the leases")
    .map(|done| done.rows_affected())
}

/// An absence that was seen in the future was seen just now, at the latest.
async fn lookups(pool: &Pool, bounds: &Bounds, at_least: OffsetDateTime) -> Result<u64, DbError> {
    sqlx::query!(
        "update apipay.jobs
            set run_at = apipay._at_most(run_at, now() + make_interval(secs => case reason when 'cap_reached' then $1::float8
                                                                      when 'retry_after' then $2::float8 else $3::float8 end)),
                absent_since = apipay._at_most(absent_since, now()), unproven_since = apipay._at_most(unproven_since, now()),
                quiet_until = apipay._at_most(quiet_until, now() + make_interval(secs => $3::float8))
          where id = any (array(
            select id from apipay.jobs
            where now() >= $5 and state = 'uncertain'
              and (run_at > now() + make_interval(secs => case reason when 'cap_reached' then $1::float8
                                                           when 'retry_after' then $2::float8 else $3::float8 end)
                   or absent_since > now() or unproven_since > now()
                   or quiet_until > now() + make_interval(secs => $3::float8))
            limit $4
            for no key update skip locked))",
        seconds(bounds.cap),
        seconds(bounds.rate),
        seconds(bounds.wait),
        MOST,
        at_least,
    )
    .execute(pool)
    .await
    .task("bound the waits for look-ups")
    .map(|done| done.rows_affected())
}

/// What a person may say of a held job only once its last request cannot be at work any more.
async fn held(pool: &Pool, bounds: &Bounds, at_least: OffsetDateTime) -> Result<u64, DbError> {
    sqlx::query!(
        "update apipay.jobs
            set quiet_until = now() + make_interval(secs => $1)
          where id = any (array(
            select id from apipay.jobs
            where now() >= $3 and state = 'held' and quiet_until > now() + make_interval(secs => $1)
            limit $2
            for no key update skip locked))",
        seconds(bounds.wait),
        MOST,
        at_least,
    )
    .execute(pool)
    .await
    .task("bound the quiet periods of held jobs")
    .map(|done| done.rows_affected())
}

/// Not the user's own `run_at` of a job that was never tried: such a job has no reason.
async fn put_off(pool: &Pool, bounds: &Bounds, at_least: OffsetDateTime) -> Result<u64, DbError> {
    sqlx::query!(
        "update apipay.jobs
            set run_at = now() + make_interval(secs => case reason when 'cap_reached' then $1::float8
                                                       when 'retry_after' then $2::float8 else $3::float8 end)
          where id = any (array(
            select id from apipay.jobs
            where now() >= $5 and state = 'queued' and reason is not null and apipay._is_in_turn(reason)
              and run_at > now() + make_interval(secs => $3)
              and run_at > now() + make_interval(secs => case reason when 'cap_reached' then $1::float8
                                                         when 'retry_after' then $2::float8 else $3::float8 end)
            limit $4
            for no key update skip locked))",
        seconds(bounds.cap),
        seconds(bounds.rate),
        seconds(bounds.wait),
        MOST,
        at_least,
    )
    .execute(pool)
    .await
    .task("bound the waits of jobs")
    .map(|done| done.rows_affected())
}

/// Spread over a minute: they were all written at their own times.
async fn invoices(pool: &Pool, bounds: &Bounds, at_least: OffsetDateTime) -> Result<u64, DbError> {
    sqlx::query!(
        "update apipay.invoices m
            set next_check_at = now() + random() * interval '1 minute', changed_at = apipay._at_most(m.changed_at, now())
          where m.ctid = any (array(
            select d.ctid from apipay.accounts a cross join lateral (
              select ctid from apipay.invoices i
              where now() >= $3 and i.account = a.name and not i.settled and i.next_check_at > now() + make_interval(secs => $1)
              limit $2
              for no key update skip locked) d))",
        seconds(bounds.check),
        MOST,
        at_least,
    )
    .execute(pool)
    .await
    .task("bound the checks of invoices")
    .map(|done| done.rows_affected())
}

async fn refunds(pool: &Pool, bounds: &Bounds, at_least: OffsetDateTime) -> Result<u64, DbError> {
    sqlx::query!(
        "update apipay.refunds m
            set next_check_at = now() + random() * interval '1 minute', changed_at = apipay._at_most(m.changed_at, now())
          where m.ctid = any (array(
            select d.ctid from apipay.accounts a cross join lateral (
              select ctid from apipay.refunds r
              where now() >= $3 and r.account = a.name and not r.settled and r.next_check_at > now() + make_interval(secs => $1)
              limit $2
              for no key update skip locked) d))",
        seconds(bounds.check),
        MOST,
        at_least,
    )
    .execute(pool)
    .await
    .task("bound the checks of refunds")
    .map(|done| done.rows_affected())
}

/// A delivery waits for minutes at most; an alert that opened in the future would not be told again.
async fn deliveries(pool: &Pool, at_least: OffsetDateTime) -> Result<u64, DbError> {
    sqlx::query!(
        "with opened as (
           update apipay.alerts set opened_at = now()
            where id = any (array(
              select id from apipay.alerts where now() >= $1 and resolved_at is null and opened_at > now() for no key update skip locked)))
         update apipay.alert_deliveries
            set next_try_at = now()
          where id = any (array(
            select id from apipay.alert_deliveries
            where now() >= $1 and delivered_at is null and next_try_at > now() + interval '1 hour'
            for no key update skip locked))",
        at_least,
    )
    .execute(pool)
    .await
    .task("bound the deliveries of alerts")
    .map(|done| done.rows_affected())
}
