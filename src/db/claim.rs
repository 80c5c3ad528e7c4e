//! Claiming: nothing is sent before its claim is committed.

use std::time::Duration;

use serde_json::Value;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::clock::SteadySecond;
use super::{ACCOUNT_PATIENCE_MS, Among, DbError, Pool, Task};
use crate::domain::account::AccountName;
use crate::domain::group::Group;
use crate::domain::job::{Epoch, History, JobId, JobName, Stated};
use crate::domain::operation::Written;
use crate::domain::state::State;

/// A job that this worker holds, with everything decisions need.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The job.
    pub id: JobId,
    /// The fence of this claim.
    pub epoch: Epoch,
    /// Its account.
    pub account: AccountName,
    /// The name of its operation.
    pub operation: String,
    /// Its params, unread.
    pub params: Written,
    /// Its name at the gateway.
    pub name: JobName,
    /// What already happened to it.
    pub history: History,
    /// The refunds known before it was first sent; null when they cannot be read.
    pub baseline: Option<Value>,
    /// Whether it repeats another job (`apipay.retry`).
    pub is_copy: bool,
    /// What somebody said of it, to be checked by its look-up.
    pub stated: Option<Stated>,
    /// Whether somebody said that nothing was done and that it is to end cancelled, once its look-up finds nothing alive.
    pub is_unwanted: bool,
    /// The database's clock at the claim, read once the row is locked: a row that was carried along after the
    /// clock was set back is never held against a moment from before.
    pub now: OffsetDateTime,
}

/// Jobs that were claimed to go to the gateway in one request, for which quota was granted. Of one job, so far.
#[derive(Clone, Debug)]
pub struct Granted {
    /// The jobs.
    pub claims: Group<Claim>,
    /// The second whose quota was taken for the request.
    pub taken: SteadySecond,
}

impl Granted {
    fn of_one(claim: Claim, taken: SteadySecond) -> Granted {
        Granted {
            claims: Group::of_one(claim),
            taken,
        }
    }
}

struct ClaimRow {
    id: i64,
    account: String,
    operation: String,
    state: String,
    params: Option<Vec<u8>>,
    token: Uuid,
    generation: i16,
    epoch: i64,
    attempts: i32,
    lookups: i32,
    unproven_since: Option<OffsetDateTime>,
    absent_since: Option<OffsetDateTime>,
    failing_since: Option<OffsetDateTime>,
    is_expired: bool,
    is_target_known: bool,
    sent_at: Option<OffsetDateTime>,
    is_repeated: bool,
    denied_since: Option<OffsetDateTime>,
    invoice_id: Option<i64>,
    is_key_taken: bool,
    baseline: Option<Vec<u8>>,
    stated: Option<Json<Stated>>,
    is_copy: bool,
    is_unwanted: bool,
    now: OffsetDateTime,
}

impl ClaimRow {
    /// Nothing of a row makes this fail: the account is one of those that were asked for, and what
    /// somebody else may have written is read later, each by itself.
    fn into_claim(self) -> Option<Claim> {
        let Some(account) = AccountName::parse(&self.account) else {
            tracing::error!(
                job.id = self.id,
                "claimed for an account without a proper name: its lease will run out"
            );
            return None;
        };
        Some(Claim {
            id: JobId(self.id),
            epoch: Epoch(self.epoch),
            account,
            operation: self.operation,
            params: among_others(self.params),
            name: JobName {
                token: self.token,
                generation: self.generation,
            },
            history: History {
                attempts: u32::try_from(self.attempts).unwrap_or(0),
                generation: self.generation,
                // Asked for where a job is followed, and only there.
                spared: 0,
                unproven_since: self.unproven_since,
                absent_since: self.absent_since,
                failing_since: self.failing_since,
                is_sent_no_more: self.is_expired,
                is_target_known: self.is_target_known,
                sent_at: self.sent_at,
                is_repeated: self.is_repeated,
                denied_since: self.denied_since,
                lookups: u32::try_from(self.lookups).unwrap_or(0),
                invoice_id: self.invoice_id,
                is_key_taken: self.is_key_taken,
            },
            baseline: self
                .baseline
                .map(|written| serde_json::from_slice(&written).unwrap_or(Value::Null)),
            is_copy: self.is_copy,
            stated: self.stated.map(|stated| stated.0),
            is_unwanted: self.is_unwanted,
            now: self.now,
        })
    }
}

/// What a claim did with what it met.
#[derive(Clone, Debug)]
pub enum Met {
    /// They are ours.
    Claimed(Box<Granted>),
    /// A job waits for another job, or for a cap, and no claim looks at it until that has ended.
    StandsBack(JobId),
}

/// What is about jobs.
pub trait OfJobs {
    /// The jobs.
    fn jobs(&self) -> Vec<JobId>;
}

impl OfJobs for Claim {
    fn jobs(&self) -> Vec<JobId> {
        vec![self.id]
    }
}

impl OfJobs for Met {
    fn jobs(&self) -> Vec<JobId> {
        match self {
            Met::Claimed(granted) => granted.claims.iter().map(|claim| claim.id).collect(),
            Met::StandsBack(job) => vec![*job],
        }
    }
}

fn met(rows: Vec<ClaimRow>, taken: SteadySecond) -> Vec<Met> {
    let met = |row: ClaimRow| match State::parse(&row.state) {
        Some(State::Queued) => Some(Met::StandsBack(JobId(row.id))),
        _ => {
            let claim = row.into_claim()?;
            Some(Met::Claimed(Box::new(Granted::of_one(claim, taken))))
        }
    };
    rows.into_iter().filter_map(met).collect()
}

fn claims(rows: Vec<ClaimRow>) -> Vec<Claim> {
    rows.into_iter().filter_map(ClaimRow::into_claim).collect()
}

/// Most bytes of one job's params that come together with others': a batch is bounded in bytes as it is in
/// rows. What is longer was cut, or left out.
const AMONG_OTHERS: usize = 4096;

/// Params as a statement over many rows returns them.
pub(super) fn among_others(params: Option<Vec<u8>>) -> Written {
    params
        .filter(|written| written.len() <= AMONG_OTHERS)
        .map_or(Written::Apart, Written::Here)
}

/// Reads the params of one job, at most [`PARAMS_MAX`](crate::domain::operation::PARAMS_MAX) of them.
pub async fn read_params(pool: &Pool, id: JobId) -> Result<Written, DbError> {
    let read = sqlx::query_scalar!(
        "select apipay._params_alone(params) from apipay.jobs where id = $1",
        id.0
    )
    .fetch_one(pool)
    .await
    .task("read a job's params");
    match read {
        Ok(Some(written)) => Ok(Written::Here(written)),
        Ok(None) => Ok(Written::Excessive),
        // Cancelled by hand, or out of time on a busy machine: that says nothing of the row.
        Err(error) if error.is_about_rows() && !error.is_cancelled() => Ok(Written::Broken),
        Err(error) => Err(error),
    }
}

/// An account's share of a claim: how many of its jobs this daemon can take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The account.
    pub account: AccountName,
    /// Jobs.
    pub jobs: usize,
}

/// The columns of an array of these.
fn columns(shares: &[Share]) -> (Vec<String>, Vec<i32>) {
    let jobs = |share: &Share| i32::try_from(share.jobs).unwrap_or(i32::MAX);
    let column = |share: &Share| (share.account.to_string(), jobs(share));
    shares.iter().map(column).unzip()
}

/// Claims due jobs and opens their attempts, within quota, shares and fairness. Where it met a job that stands back,
/// there may be more to claim, although it claimed none.
///
/// When this returns the claims are committed. When it fails they may be too: then their leases run
/// out and the jobs become uncertain, which costs a look-up and never a second effect.
pub async fn claim(
    pool: &Pool,
    worker: Uuid,
    lease: Duration,
    shares: &[Share],
    jobs: usize,
    among: Among,
    second: SteadySecond,
) -> Result<Vec<Met>, DbError> {
    let (names, free) = columns(shares);
    sqlx::query_file_as!(
        ClaimRow,
        "src/db/claim.sql",
        worker,
        lease.as_secs_f64(),
        &names,
        &free,
        i64::try_from(jobs).unwrap_or(i64::MAX),
        second.0,
        &among.without,
        among.only.as_deref() as Option<&[i64]>,
        among.lock_timeout(),
    )
    .fetch_all(pool)
    .await
    .task("claim jobs")
    .map(|rows| met(rows, second))
}

/// Claims a due job for each account that has slowed down and whose trial is due; until `trial` is over no
/// other worker makes one. None is put off for more than `longest`. As with [`claim`], jobs may stand back.
#[expect(
    clippy::too_many_arguments,
    reason = "what the statement takes, each once"
)]
pub async fn claim_trials(
    pool: &Pool,
    worker: Uuid,
    lease: Duration,
    accounts: &[String],
    jobs: usize,
    among: Among,
    second: SteadySecond,
    longest: Duration,
    trial: Duration,
) -> Result<Vec<Met>, DbError> {
    sqlx::query_file_as!(
        ClaimRow,
        "src/db/claim_trials.sql",
        worker,
        lease.as_secs_f64(),
        accounts,
        i64::try_from(jobs).unwrap_or(i64::MAX),
        second.0,
        longest.as_secs_f64(),
        &among.without,
        among.only.as_deref() as Option<&[i64]>,
        trial.as_secs_f64(),
        among.lock_timeout(),
    )
    .fetch_all(pool)
    .await
    .task("claim trials")
    .map(|rows| met(rows, second))
}

/// Claims one of these jobs of an account that the daemon has parked, if it can be claimed; its quota was taken in
/// this second. An error of the kind [`AtFault::Lock`](super::fault::AtFault::Lock): somebody holds the account's
/// row, or something that a trigger waits for.
pub async fn claim_trial_of_park(
    pool: &Pool,
    worker: Uuid,
    lease: Duration,
    account: &AccountName,
    among: Among,
    taken: SteadySecond,
) -> Result<Option<Granted>, DbError> {
    sqlx::query_file_as!(
        ClaimRow,
        "src/db/claim_trial_of_park.sql",
        worker,
        lease.as_secs_f64(),
        account.as_str(),
        &among.without,
        among.only.as_deref() as Option<&[i64]>,
        among.lock_timeout(),
    )
    .fetch_optional(pool)
    .await
    .task("claim a job for a probe")
    .map(|row| {
        let claim = row.and_then(ClaimRow::into_claim);
        claim.map(|claim| Granted::of_one(claim, taken))
    })
}

/// Which look-ups are claimed.
#[derive(Clone, Copy, Debug)]
pub struct Lookups<'a> {
    /// Of these accounts, so many of each at most.
    pub shares: &'a [Share],
    /// Until this is over no other worker makes them.
    pub lease: Duration,
    /// No account whose look-ups fail is put off for more than this.
    pub longest: Duration,
    /// Until this is over nobody else asks for an account whose look-ups fail.
    pub trial: Duration,
}

/// Claims uncertain jobs that are due for a look-up.
pub async fn claim_lookups(
    pool: &Pool,
    worker: Uuid,
    lookups: Lookups<'_>,
    among: Among,
    second: SteadySecond,
) -> Result<Vec<Claim>, DbError> {
    let (accounts, most) = columns(lookups.shares);
    sqlx::query_file_as!(
        ClaimRow,
        "src/db/claim_lookups.sql",
        worker,
        &accounts,
        &most,
        lookups.lease.as_secs_f64(),
        second.0,
        &among.without,
        among.only.as_deref() as Option<&[i64]>,
        lookups.longest.as_secs_f64(),
        lookups.trial.as_secs_f64(),
        among.lock_timeout(),
    )
    .fetch_all(pool)
    .await
    .task("claim look-ups")
    .map(claims)
}

/// Renews the lease of a claim that still holds, and stores the refunds that were known before a refund is first sent, if
/// any are given. False when the lease ran out and somebody else may have the job.
pub async fn renew(
    pool: &Pool,
    worker: Uuid,
    claim: &Claim,
    baseline: Option<&Value>,
    lease: Duration,
) -> Result<bool, DbError> {
    sqlx::query_scalar!(
        r#"with patience as materialized (select set_config('lock_timeout', $8, true)),
           ours as materialized (
             select j.id from patience cross join apipay.jobs j
              where j.id = $1 and j.token = $5 and j.account = $6 and j.epoch = $2 and j.state = 'sending'
                and j.leased_by = $7 and j.leased_until > now()
                for no key update of j),
           held as (
             update apipay.jobs
                set baseline = coalesce(baseline, $3), leased_until = now() + make_interval(secs => $4)
              where id = any (array(select id from ours))
             returning leased_until >= now() + make_interval(secs => $4) and (baseline is not null or $3::jsonb is null) as is_so)
           select apipay._all_changed('apipay.jobs', (select count(*) from ours), count(*), count(*) filter (where is_so))
                  and count(*) = 1 as "is_held!"
             from held"#,
        claim.id.0,
        claim.epoch.0,
        baseline,
        lease.as_secs_f64(),
        claim.name.token,
        claim.account.as_str(),
        worker,
        ACCOUNT_PATIENCE_MS,
    )
    .fetch_one(pool)
    .await
    .task("renew a claim")
}

/// Takes one more request from an account's quota.
pub async fn take_one(
    pool: &Pool,
    account: &AccountName,
    purpose: Purpose,
    second: SteadySecond,
) -> Result<bool, DbError> {
    sqlx::query_scalar!(
        r#"select apipay._take_quota($1, 1, $2, $3) = 1 as "granted!""#,
        account.as_str(),
        purpose.as_str(),
        second.0,
    )
    .fetch_one(pool)
    .await
    .task("take quota")
}

/// What a request is for. Bills come first: `apipay._quota_room` has the shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Reading what is known before a refund, which is a part of sending it.
    Send,
    /// Looking up an uncertain job.
    Lookup,
    /// Following an accepted job.
    Follow,
    /// Asking whether an account is well.
    Probe,
}

impl Purpose {
    fn as_str(self) -> &'static str {
        match self {
            Purpose::Send => "send",
            Purpose::Lookup => "lookup",
            Purpose::Follow => "follow",
            Purpose::Probe => "probe",
        }
    }
}
