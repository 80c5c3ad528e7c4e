//! Accounts: made from the configuration, blocked, parked and resumed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;

use super::outage::{Columns, reads};
use super::{ACCOUNT_PATIENCE_MS, DbError, Pool, Task};
use crate::domain::account::AccountName;
use crate::domain::job::JobId;
use crate::domain::outage::{Awaited, Course, Outage, Read, Undelivered};

/// An account's row, as far as the daemon acts on it.
#[derive(Clone, Debug)]
pub struct AccountRow {
    /// The account.
    pub name: String,
    /// Whether it is parked, and why.
    pub parked_reason: Option<String>,
    /// Since when it is parked.
    pub parked_at: Option<OffsetDateTime>,
    /// What accepted invoices fail with, when that is why it is parked.
    pub delivery_error: Option<String>,
    /// Whether it is parked and its health is asked for from time to time.
    pub is_probed: bool,
    /// Nothing is sent or asked before this.
    pub blocked_until: Option<OffsetDateTime>,
    /// Some operations are not sent before this, for a cap is reached.
    pub capped_until: Option<OffsetDateTime>,
    /// The code of that cap.
    pub capped_reason: Option<String>,
    /// Whether its health alone has ended its last park, and nothing was sent with success since.
    pub is_doubted: bool,
    /// How long ago it was resumed, in seconds.
    pub resumed_for_s: Option<f64>,
    /// `live` or `sandbox`, once seen.
    pub mode: Option<String>,
    /// What is known of its requests that got no clear answer.
    pub outage: Outage,
    /// What waits for a clear answer, while requests of some kind get none.
    pub awaited: Awaited,
}

/// Makes the account's row, or brings its limit up to date, and puts back an operator's park that a restore of the data
/// has lost.
pub async fn ensure(
    pool: &Pool,
    account: &AccountName,
    requests_per_minute: u32,
) -> Result<(), DbError> {
    sqlx::query!(
        // Nothing waits for a row that somebody has locked unless there is something to change: an insert that meets the
        // row would wait for whoever is changing it.
        "with patience as materialized (select set_config('lock_timeout', $3, true)),
         made as (
           insert into apipay.accounts (name, requests_per_minute)
           select $1, $2 from patience where not exists (select from apipay.accounts where name = $1)
           on conflict do nothing)
         update apipay.accounts
            set requests_per_minute = $2, updated_at = now()
           from patience
          where name = $1 and requests_per_minute <> $2",
        account.as_str(),
        i32::try_from(requests_per_minute).unwrap_or(i32::MAX),
        ACCOUNT_PATIENCE_MS,
    )
    .execute(pool)
    .await
    .task("store the account")?;
    sqlx::query_scalar!(
        r#"with patience as materialized (select set_config('lock_timeout', $2, true))
           select apipay._recall_park($1) as "parked!" from patience"#,
        account.as_str(),
        ACCOUNT_PATIENCE_MS,
    )
    .fetch_one(pool)
    .await
    .task("look whether a park was lost")
    .map(|_| ())
}

/// All accounts.
pub async fn list(pool: &Pool) -> Result<Vec<AccountRow>, DbError> {
    let rows = sqlx::query!(
        r#"select name, parked_reason, parked_at, delivery_error, blocked_until, mode,
                  capped_until, capped_reason, doubted_since is not null as "is_doubted!",
                  extract(epoch from now() - resumed_at)::float8 as resumed_for_s, probe_at is not null as "is_probed!",
                  failing_since, failing_code, failing_status, failing_message, failed_at, failing_job, failing_requests,
                  failing_trial_at, refused_since,
                  case when failing_since is not null
                         or exists (select from apipay._reads r where r.account = name and r.failing_since is not null)
                       then apipay._awaited(name) else '{}' end as "awaited!"
             from apipay.accounts order by name"#
    )
    .fetch_all(pool)
    .await
    .task("read the accounts")?;
    let names: Vec<String> = rows.iter().map(|row| row.name.clone()).collect();
    let mut of_reads: BTreeMap<String, BTreeMap<Read, Course>> = BTreeMap::new();
    for (account, read, course) in reads(pool, &names).await? {
        of_reads.entry(account).or_default().insert(read, course);
    }
    let accounts = rows.into_iter().map(|row| AccountRow {
        outage: Outage {
            reads: of_reads.remove(&row.name).unwrap_or_default(),
            sends: Columns {
                since: row.failing_since,
                code: row.failing_code,
                status: row.failing_status,
                message: row.failing_message,
                failed_at: row.failed_at,
                job: row.failing_job,
                requests: row.failing_requests,
                trial_at: row.failing_trial_at,
                refused_since: row.refused_since,
            }
            .into_course(),
        },
        awaited: Awaited::of(&row.awaited),
        name: row.name,
        parked_reason: row.parked_reason,
        parked_at: row.parked_at,
        delivery_error: row.delivery_error,
        is_probed: row.is_probed,
        blocked_until: row.blocked_until,
        capped_until: row.capped_until,
        capped_reason: row.capped_reason,
        is_doubted: row.is_doubted,
        resumed_for_s: row.resumed_for_s,
        mode: row.mode,
    });
    Ok(accounts.collect())
}

/// Blocks an account: nothing is sent or asked before the wait is over. A longer block stays.
pub async fn block(
    pool: &Pool,
    account: &AccountName,
    wait: Duration,
    code: &str,
    said: Option<&str>,
) -> Result<(), DbError> {
    sqlx::query!(
        "with patience as materialized (select set_config('lock_timeout', $4, true)),
         to_block as materialized (
           select name from patience cross join apipay.accounts
            where name = $1 and (blocked_until is null or blocked_until < now() + make_interval(secs => $2))
            for no key update of accounts),
         blocked as (
           update apipay.accounts a
              set blocked_until = now() + make_interval(secs => $2), blocked_reason = $3,
                  blocked_message = apipay._mask_phones(left($5, 300)), updated_at = now()
             from to_block
            where a.name = to_block.name
           returning a.blocked_until)
         select apipay._all_changed('apipay.accounts', (select count(*) from to_block), count(*),
                                    count(*) filter (where blocked_until > now()))
           from blocked",
        account.as_str(),
        super::seconds(wait),
        code,
        ACCOUNT_PATIENCE_MS,
        said,
    )
    .fetch_one(pool)
    .await
    .task("block the account")
    .map(|_| ())
}

/// Stores that a cap is reached: none of its operations is sent before the wait is over. A longer one stays,
/// unless the new one is about more.
pub async fn cap(
    pool: &Pool,
    account: &AccountName,
    wait: Duration,
    code: &str,
    said: Option<&str>,
    operations: &[&'static str],
) -> Result<(), DbError> {
    let operations: Vec<String> = operations.iter().map(ToString::to_string).collect();
    sqlx::query!(
        "with patience as materialized (select set_config('lock_timeout', $6, true)),
         to_cap as materialized (
           select name from patience cross join apipay.accounts
            where name = $1
              and (capped_until is null or capped_until < now() + make_interval(secs => $2) or not $5 <@ capped_operations)
            for no key update of accounts),
         capped as (
           update apipay.accounts a
              set capped_until = now() + make_interval(secs => $2), capped_reason = $3,
                  capped_message = apipay._mask_phones(left($4, 300)),
                  -- A longer one is about what it says. What a shorter one was about besides may be tried: if that is over
                  -- too soon, the gateway says so again.
                  capped_operations = array(select unnest($5::text[]) order by 1),
                  updated_at = now()
             from to_cap
            where a.name = to_cap.name
           returning a.capped_until, a.capped_operations)
         select apipay._all_changed('apipay.accounts', (select count(*) from to_cap), count(*),
                                    count(*) filter (where capped_until > now() and $5 <@ capped_operations))
           from capped",
        account.as_str(),
        super::seconds(wait),
        code,
        said,
        &operations,
        ACCOUNT_PATIENCE_MS,
    )
    .fetch_one(pool)
    .await
    .task("store that a cap is reached")
    .map(|_| ())
}

/// What an alert tells a human.
#[derive(Clone, Debug)]
pub struct AlertText {
    /// What happened, in one sentence.
    pub summary: String,
    /// What to do, with the exact command.
    pub action: String,
    /// Codes and ids; no phone number, no secret.
    pub details: Value,
}

/// Why an account is parked, and what is told about it.
#[derive(Clone, Debug)]
pub struct Park {
    /// A stable code.
    pub reason: &'static str,
    /// What the gateway said.
    pub said: Option<String>,
    /// What a human can do.
    pub remedy: String,
    /// The job whose refusal parks it, and what ends the park if ApiPay refuses nothing else.
    pub alone: Option<Alone>,
    /// What accepted jobs failed with at Kaspi, when that is why: then only a delivery resumes it.
    pub undelivered: Option<Undelivered>,
    /// What its alert says.
    pub text: AlertText,
}

/// A job that may be all that the gateway refuses of a parked account.
#[derive(Clone, Debug)]
pub struct Alone {
    /// The job.
    pub job: JobId,
    /// What ends the park then, as a part of a sentence.
    pub remedy: String,
}

/// Parks an account and opens its alert, both or neither. True when it was active before. What was
/// accepted before the account was last resumed, and failed at Kaspi, parks nothing. A park whose end its health alone
/// had told, mistakenly, goes on, and so does the number of its [probes](super::probes::made).
pub async fn park(
    pool: &Pool,
    account: &AccountName,
    park: &Park,
    probe_after: Duration,
) -> Result<bool, DbError> {
    sqlx::query_scalar!(
        r#"with patience as materialized (select set_config('lock_timeout', $9, true))
           select apipay._park($1, $2, 'apipayd', make_interval(secs => $3), $4, $5, $6, $7, $8,
                               $10, $11, $12, $13) as "parked!" from patience"#,
        account.as_str(),
        park.reason,
        super::seconds(probe_after),
        park.text.summary,
        park.text.action,
        park.text.details,
        park.said,
        park.remedy,
        ACCOUNT_PATIENCE_MS,
        park.undelivered.as_ref().map(|failed| failed.code.as_str()),
        park.undelivered.as_ref().map(|failed| failed.accepted_at),
        park.alone.as_ref().map(|alone| alone.job.0),
        park.alone.as_ref().map(|alone| alone.remedy.as_str()),
    )
    .fetch_one(pool)
    .await
    .task("park the account")
}

/// What is wrong with an account that this daemon or another has parked is known better now: its row and
/// its open alert say so. True when that is news.
pub async fn learn_of_park(
    pool: &Pool,
    account: &AccountName,
    park: &Park,
) -> Result<bool, DbError> {
    sqlx::query_scalar!(
        r#"with patience as materialized (select set_config('lock_timeout', $8, true))
           select apipay._learn_of_park($1, $2, $3, $4, $5, $6, $7, $9, $10, $11) as "news!" from patience"#,
        account.as_str(),
        park.reason,
        park.text.summary,
        park.text.action,
        park.text.details,
        park.said,
        park.remedy,
        ACCOUNT_PATIENCE_MS,
        park.undelivered.as_ref().map(|failed| failed.code.as_str()),
        park.alone.as_ref().map(|alone| alone.job.0),
        park.alone.as_ref().map(|alone| alone.remedy.as_str()),
    )
    .fetch_one(pool)
    .await
    .task("store why the account is parked")
}

/// Has parked accounts advise no more to cancel a job that cannot be cancelled, or whose refusal is that of everything:
/// a probe of the account `unwell` was told that this is unwell. Where that job has ended unsent (a person has cancelled it,
/// as advised), the account is probed at once. Their alerts are changed after that (see
/// [`untold_parks`](super::alerts::untold_parks)). An account whose row another session holds is left for later.
pub async fn forget_refused_jobs(pool: &Pool, unwell: Option<&AccountName>) -> Result<(), DbError> {
    sqlx::query!(
        "update apipay.accounts a
            set parked_job = null, parked_job_remedy = null, updated_at = now(),
                probe_at = case when exists (
                             select from apipay.jobs j
                              where j.id = a.parked_job and j.account = a.name and j.state in ('cancelled', 'expired'))
                           then least(a.probe_at, now()) else a.probe_at end
          where a.name = any (array(
            select p.name from apipay.accounts p
             where p.parked_job is not null
               and (p.name = $1 or not exists (
                     select from apipay.jobs j
                      where j.id = p.parked_job and j.account = p.name
                        -- As apipay._why_not_cancel has it, but for the moment of a trial.
                        and (j.state = 'sending' or (j.state in ('queued', 'parked') and j.unproven_since is null))))
             for no key update skip locked))",
        unwell.map(AccountName::as_str),
    )
    .execute(pool)
    .await
    .task("forget the jobs that accounts were parked for")
    .map(|_| ())
}

/// Resumes an account that the daemon has parked, after a probe: its parked jobs go on. Its alert is resolved
/// with this text; without one it stays open until the account has been active for a while. A block that
/// the gateway has asked for meanwhile stays, and so does a cap. Parks of one reason that follow each other within
/// `slow_start` share one alert. Returns how many jobs; `None` when an operator has resumed the account, or taken it
/// over: then nothing is done.
pub async fn resume(
    pool: &Pool,
    account: &AccountName,
    resolution: Option<&str>,
    slow_start: Duration,
) -> Result<Option<i32>, DbError> {
    sqlx::query_scalar!(
        "with patience as materialized (select set_config('lock_timeout', $3, true))
         select apipay._resume($1, $2, 'apipayd', make_interval(secs => $4)) from patience",
        account.as_str(),
        resolution,
        ACCOUNT_PATIENCE_MS,
        slow_start.as_secs_f64(),
    )
    .fetch_one(pool)
    .await
    .task("resume the account")
}

/// Kaspi has delivered what the gateway accepted at this moment: an account that was parked before because
/// that failed is resumed, and its alert resolved with this text, as by [`resume`]. Returns how many parked jobs go on;
/// `None` when it is not parked for that.
pub async fn delivered(
    pool: &Pool,
    account: &AccountName,
    accepted_at: OffsetDateTime,
    resolution: &str,
    slow_start: Duration,
) -> Result<Option<i32>, DbError> {
    sqlx::query_scalar!(
        "with patience as materialized (select set_config('lock_timeout', $4, true))
         select apipay._delivered($1, $2, $3, make_interval(secs => $5)) from patience",
        account.as_str(),
        accepted_at,
        resolution,
        ACCOUNT_PATIENCE_MS,
        slow_start.as_secs_f64(),
    )
    .fetch_one(pool)
    .await
    .task("resume an account that is delivered for")
}

/// Something was sent with success since the account's health alone ended its last park: that park is over, and the next
/// one is another.
pub async fn got_through(pool: &Pool, account: &AccountName) -> Result<(), DbError> {
    sqlx::query!(
        "with patience as materialized (select set_config('lock_timeout', $2, true))
         update apipay.accounts
            set doubted_since = null, probes = 0, updated_at = now()
           from patience
          where name = $1 and state = 'active' and doubted_since is not null",
        account.as_str(),
        ACCOUNT_PATIENCE_MS,
    )
    .execute(pool)
    .await
    .task("store that something got through")
    .map(|_| ())
}

/// Stores in which mode this invoice shows the account to be, if none was known. Returns the mode that is stored
/// then; none when a newer invoice has shown one.
pub async fn saw_mode(
    pool: &Pool,
    account: &AccountName,
    mode: &str,
    invoice: i64,
) -> Result<Option<String>, DbError> {
    sqlx::query_scalar!(
        r#"with patience as materialized (select set_config('lock_timeout', $4, true))
           update apipay.accounts
              set mode = coalesce(mode, $2), mode_invoice = $3, updated_at = now()
             from patience
            where name = $1 and (mode_invoice is null or mode_invoice <= $3)
           returning mode as "mode!""#,
        account.as_str(),
        mode,
        invoice,
        ACCOUNT_PATIENCE_MS,
    )
    .fetch_optional(pool)
    .await
    .task("store the account's mode")
}

/// What keeps an account from sending, as far as the database knows.
#[derive(Clone, Debug)]
pub struct Obstacle {
    /// The account.
    pub account: String,
    /// Whether the daemon has parked it, and not an operator.
    pub is_unwell: bool,
    /// Why nothing of it is sent, or hardly anything, and until when, in words; none when nothing stands in the way.
    pub why: Option<String>,
}

/// What keeps these accounts from sending, but for a stop of all sending and that no daemon may run.
pub async fn obstacles(pool: &Pool, accounts: &[String]) -> Result<Vec<Obstacle>, DbError> {
    sqlx::query_as!(
        Obstacle,
        r#"select a.name as "account!", a.state = 'parked' and a.parked_by = 'apipayd' as "is_unwell!",
                  coalesce(apipay._obstacle(a, jsonb_populate_record(c, '{"stopped": false}'), 'infinity'),
                           apipay._cap_of(a, a.capped_operations),
                           case when a.failing_trial_at is null then null
                                when 'send' = any (apipay._awaited(a.name)) then apipay._slowness(a) end) as "why?"
             from apipay.accounts a cross join apipay._control c
            where a.name = any ($1)
            order by a.name"#,
        accounts,
    )
    .fetch_all(pool)
    .await
    .task("read what keeps the accounts from sending")
}
