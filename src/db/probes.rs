//! Probes of parked accounts: when they are due, and who makes them.

use std::time::Duration;

use super::{ACCOUNT_PATIENCE_MS, DbError, Pool, Task};
use crate::domain::account::AccountName;

/// A parked account whose probe this worker makes.
#[derive(Clone, Debug)]
pub struct DueProbe {
    /// The account.
    pub account: String,
    /// Probes so far, without this one.
    pub probes: i32,
    /// Why it is parked.
    pub reason: String,
    /// What accepted invoices fail with, when that is why.
    pub delivery_error: Option<String>,
}

/// Claims probes that are due, or that wait for a job which is; until `lease` is over no other worker probes the account. A stop of
/// all sending stops probes too. The quota for its requests is taken one by one. An account whose row
/// another session holds is left for later, and keeps no other account waiting; so is one of which a job is being tried.
pub async fn claim(
    pool: &Pool,
    accounts: &[String],
    lease: Duration,
) -> Result<Vec<DueProbe>, DbError> {
    sqlx::query_as!(
        DueProbe,
        r#"with due as materialized (
             select p.name from apipay.accounts p
              where p.name = any ($1) and p.state = 'parked'
                and (p.probe_at <= now() or (p.trial_from <= now() and exists (
                       select from apipay.jobs j
                        where j.account = p.name and j.state = 'queued' and apipay._is_in_turn(j.reason) and j.id > 0
                          and j.run_at <= now() and j.operation <> all (apipay._capped(p)))))
                and not exists (
                       select from apipay.jobs t
                        where t.account = p.name and t.state = 'sending' and t.reason = 'probe' and t.leased_until > now())
                and not (select stopped from apipay._control)
                for no key update skip locked),
           claimed as (
             update apipay.accounts a
                set probe_at = now() + make_interval(secs => $2), probes = a.probes + 1, trial_from = null
              where a.name = any (array(select name from due))
             returning a.name, a.probes, a.parked_reason, a.delivery_error, a.probe_at),
           -- A trigger may have had another row stored: it would be probed again and again.
           taken as (select * from claimed where probe_at > now())
           select name as "account!", probes - 1 as "probes!", parked_reason as "reason!", delivery_error from taken
            -- Those of which it is not so keep the others from nothing.
            where (select case when exists (select from taken) then true
                               else apipay._all_changed('apipay.accounts', (select count(*) from due), (select count(*) from claimed), 0) end)"#,
        accounts,
        lease.as_secs_f64(),
    )
    .fetch_all(pool)
    .await
    .task("claim probes")
}

/// When an account is probed next.
#[derive(Clone, Copy, Debug)]
pub enum NextProbe {
    /// After this time.
    After(Duration),
    /// After this time, or, after the shorter one, as soon as a job is due.
    ForJob(Duration, Duration),
    /// After this time. The probe before it counts for nothing.
    Again(Duration),
    /// After this time, should the present one have come to nothing by then: nobody else probes the account before.
    Held(Duration),
}

/// Sets when the account is probed next; where a probe is named, only if no other was claimed since. False when nothing was
/// set.
pub async fn schedule(
    pool: &Pool,
    account: &AccountName,
    next: NextProbe,
    probe: Option<&DueProbe>,
) -> Result<bool, DbError> {
    let (after, for_job, is_again) = match next {
        NextProbe::After(after) | NextProbe::Held(after) => (after, None, false),
        NextProbe::ForJob(after, for_job) => (after, Some(for_job), false),
        NextProbe::Again(after) => (after, None, true),
    };
    sqlx::query!(
        "with patience as materialized (select set_config('lock_timeout', $3, true))
         update apipay.accounts
            set probe_at = now() + make_interval(secs => $2), trial_from = now() + make_interval(secs => $4),
                probes = case when $5 then greatest(probes - 1, 0) else probes end, updated_at = now()
           from patience
          where name = $1 and state = 'parked' and parked_by = 'apipayd' and ($6::int is null or probes = $6)",
        account.as_str(),
        super::seconds(after),
        ACCOUNT_PATIENCE_MS,
        for_job.map(super::seconds),
        is_again,
        probe.map(|probe| probe.probes.saturating_add(1)),
    )
    .execute(pool)
    .await
    .task("schedule a probe")
    .map(|done| done.rows_affected() > 0)
}

/// Has the accounts that a daemon has parked probed now: whoever starts one may have mended why, by another key or
/// address. Not where what is accepted fails at Kaspi: each probe lets a payment through there, and may cost it.
/// Returns those accounts.
pub async fn make_due(pool: &Pool, accounts: &[String]) -> Result<Vec<String>, DbError> {
    sqlx::query_scalar!(
        "update apipay.accounts
            set probe_at = least(probe_at, now()), updated_at = now()
          where name = any (array(
            select p.name from apipay.accounts p
             where p.name = any ($1) and p.state = 'parked' and p.parked_by = 'apipayd' and p.delivery_error is null
             for no key update skip locked))
        returning name",
        accounts,
    )
    .fetch_all(pool)
    .await
    .task("have parked accounts probed")
}

/// How many probes of a parked account were made.
pub async fn made(pool: &Pool, account: &AccountName) -> Result<u32, DbError> {
    let probes = sqlx::query_scalar!(
        "select probes from apipay.accounts where name = $1 and state = 'parked'",
        account.as_str(),
    )
    .fetch_optional(pool)
    .await
    .task("read how often the account was probed")?;
    Ok(probes
        .and_then(|probes| u32::try_from(probes).ok())
        .unwrap_or(0))
}
