//! Alerts: opened, changed, counted. `db::cleared` ends those whose cause is gone.

use std::time::Duration;

use uuid::Uuid;

use super::accounts::AlertText;
use super::{ACCOUNT_PATIENCE_MS, DbError, Pool, Task};
use crate::domain::account::AccountName;

/// Opens an alert unless one of its kind is open about the same. False when it is not there all the same:
/// [`why_not_written`] says why.
pub async fn open(pool: &Pool, about: &About<'_>, text: &AlertText) -> Result<bool, DbError> {
    sqlx::query_scalar!(
        r#"with patience as materialized (select set_config('lock_timeout', $8, true))
           select apipay._open_alert($1, $2, $3, $4, $5, $6, $7) as "id?" from patience"#,
        about.account.map(AccountName::as_str),
        about.kind,
        about.severity,
        text.summary,
        text.action,
        text.details,
        about.subject,
        ACCOUNT_PATIENCE_MS,
    )
    .fetch_one(pool)
    .await
    .task("open an alert")
    .map(|id| id.is_some())
}

/// Why an alert is not there although the statement that opens it succeeded: an error, if triggers or rules that are not of
/// the schema may be why.
pub async fn why_not_written(pool: &Pool) -> Result<(), DbError> {
    sqlx::query_scalar!(r#"select apipay._all_changed('apipay.alerts', 1, 0) as "nothing!""#)
        .fetch_one(pool)
        .await
        .task("open an alert")
        .map(|_| ())
}

/// The open alert of the account, this kind and this subject says this from now on, and is told once more. True when that is
/// news.
pub async fn change(
    pool: &Pool,
    account: &AccountName,
    kind: &str,
    subject: &str,
    text: &AlertText,
) -> Result<bool, DbError> {
    sqlx::query_scalar!(
        r#"with patience as materialized (select set_config('lock_timeout', $7, true))
           select apipay._change_alert($1, $2, $3, $4, $5, $6) as "news!" from patience"#,
        account.as_str(),
        kind,
        text.summary,
        text.action,
        text.details,
        subject,
        ACCOUNT_PATIENCE_MS,
    )
    .fetch_one(pool)
    .await
    .task("change an alert")
}

/// Opens the alert of a job that is stuck, unless one is open about it or about its case; with `renew` that one says this
/// from now on. Beyond ten of an account they are counted by one alert. False as with [`open`].
pub async fn tell_stuck(
    pool: &Pool,
    account: &AccountName,
    severity: &str,
    text: &AlertText,
    renew: bool,
) -> Result<bool, DbError> {
    sqlx::query_scalar!(
        r#"with patience as materialized (select set_config('lock_timeout', $7, true))
           select apipay._tell_stuck($1, $2, $3, $4, $5, $6) as "id?" from patience"#,
        account.as_str(),
        severity,
        text.summary,
        text.action,
        text.details,
        renew,
        ACCOUNT_PATIENCE_MS,
    )
    .fetch_one(pool)
    .await
    .task("tell of a stuck job")
    .map(|id| id.is_some())
}

/// Opens the alert of a held job, or has its open one, whatever its kind, say this from now on; when that is news it is
/// told again. Beyond ten of an account they are counted by one alert. False as with [`open`].
pub async fn tell_held(
    pool: &Pool,
    account: &AccountName,
    kind: &str,
    severity: &str,
    text: &AlertText,
) -> Result<bool, DbError> {
    sqlx::query_scalar!(
        r#"with patience as materialized (select set_config('lock_timeout', $7, true))
           select apipay._tell_held($1, $2, $3, $4, $5, $6) as "id?" from patience"#,
        account.as_str(),
        kind,
        severity,
        text.summary,
        text.action,
        text.details,
        ACCOUNT_PATIENCE_MS,
    )
    .fetch_one(pool)
    .await
    .task("tell of a held job")
    .map(|id| id.is_some())
}

/// One alert among those of its kind.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The account; none: the whole daemon.
    pub account: Option<&'a AccountName>,
    /// Its kind.
    pub kind: &'a str,
    /// What it is about, where several of its kind may be open; else empty.
    pub subject: &'a str,
    /// `critical` or `warning`.
    pub severity: &'a str,
}

impl<'a> About<'a> {
    /// The only one of its kind of an account.
    pub fn account(account: &'a AccountName, kind: &'a str, severity: &'a str) -> About<'a> {
        About {
            account: Some(account),
            kind,
            subject: "",
            severity,
        }
    }
}

/// Opens this very alert, or has it say this from now on. False as with [`open`].
pub async fn say(pool: &Pool, about: &About<'_>, text: &AlertText) -> Result<bool, DbError> {
    sqlx::query_scalar!(
        r#"with patience as materialized (select set_config('lock_timeout', $8, true)),
         opened as materialized (
           select apipay._open_alert($1, $2, $3, $4, $5, $6, $7) as id from patience),
         changed as materialized (
           select apipay._change_alert($1, $2, $4, $5, $6, $7) from opened where id is not null)
         -- Where none was opened there is none to change.
         select opened.id as "id?" from opened left join changed on true"#,
        about.account.map(AccountName::as_str),
        about.kind,
        about.severity,
        text.summary,
        text.action,
        text.details,
        about.subject,
        ACCOUNT_PATIENCE_MS,
    )
    .fetch_one(pool)
    .await
    .task("open an alert")
    .map(|id| id.is_some())
}

/// Says of a parked account's alert, as [`say`], unless the account is parked no more or is being resumed now: its alert
/// ends with the park, in one transaction, and is not opened after that.
pub async fn say_of_park(
    pool: &Pool,
    account: &AccountName,
    text: &AlertText,
) -> Result<bool, DbError> {
    sqlx::query_scalar!(
        r#"with patience as materialized (select set_config('lock_timeout', $5, true)),
         parked as materialized (
           select a.name from patience cross join apipay.accounts a
            where a.name = $1 and a.state = 'parked' for share of a skip locked),
         opened as materialized (
           select apipay._open_alert(name, 'account_parked', 'critical', $2, $3, $4) as id from parked),
         changed as materialized (
           select apipay._change_alert($1, 'account_parked', $2, $3, $4) from opened where id is not null)
         select not exists (select from opened where id is null) and (select count(*) from changed) >= 0 as "is_written!""#,
        account.as_str(),
        text.summary,
        text.action,
        text.details,
        ACCOUNT_PATIENCE_MS,
    )
    .fetch_one(pool)
    .await
    .task("say why an account is parked")
}

/// Resolves what a daemon of this machine and these accounts has told of commits that the database lost: whoever
/// starts it again has read it. Of two on one machine each has its own accounts.
///
/// One that another session has locked is left for later. Returns how many are.
pub async fn end_history_lost(
    pool: &Pool,
    host: &str,
    accounts: &[String],
    worker: Uuid,
) -> Result<i64, DbError> {
    sqlx::query_scalar!(
        // One of this daemon's own is for its next start to end.
        r#"with told as materialized (
             select l.id from apipay.alerts l
              where l.kind = 'history_lost' and l.resolved_at is null and l.subject = $1
                and l.details -> 'accounts' ?| $2::text[] and l.details ->> 'worker' is distinct from $3::uuid::text),
           ended as (
             update apipay.alerts l
                set resolved_at = now(), resolution = 'apipayd was started again on ' || l.subject
              where l.id = any (array(
                select f.id from apipay.alerts f where f.id in (select id from told) for no key update skip locked))
             returning l.id)
           select (select count(*) from told) - (select count(*) from ended) as "left!""#,
        host,
        accounts,
        worker,
    )
    .fetch_one(pool)
    .await
    .task("resolve an alert")
}

/// An open alert.
#[derive(Clone, Debug)]
pub struct Open {
    /// Its kind.
    pub kind: String,
    /// What happened.
    pub summary: String,
    /// What to do.
    pub action: String,
    /// How many are open, with those that are not read.
    pub all_open: i64,
}

/// The alerts that are open, critical ones and then the newest first, of these accounts or of the whole daemon; so many at the most.
pub async fn open_now(pool: &Pool, accounts: &[String], most: i64) -> Result<Vec<Open>, DbError> {
    sqlx::query_as!(
        Open,
        r#"select kind, summary, action, count(*) over () as "all_open!" from apipay.alerts
            where resolved_at is null and (account is null or account = any ($1))
            order by severity = 'critical' desc, id desc limit $2"#,
        accounts,
        most,
    )
    .fetch_all(pool)
    .await
    .task("read the open alerts")
}

/// A parked account whose alert does not say so.
#[derive(Clone, Debug)]
pub struct UntoldPark {
    /// The account.
    pub account: String,
    /// Who parked it: the daemon, or a role.
    pub parked_by: String,
    /// Why.
    pub reason: String,
    /// What the gateway said, or that role.
    pub said: Option<String>,
    /// What a human can do.
    pub remedy: Option<String>,
    /// The job whose refusal may be all that is refused.
    pub job: Option<i64>,
    /// Its operation.
    pub operation: Option<String>,
    /// What accepted invoices fail with, when that is why.
    pub delivery_error: Option<String>,
    /// When an operator took it over from the daemon, and why that had parked it.
    pub taken_over: Option<String>,
}

/// Parked accounts of which nobody is told, or something else than why they are parked: somebody kept their alert locked
/// meanwhile, or it was being resolved.
pub async fn untold_parks(pool: &Pool) -> Result<Vec<UntoldPark>, DbError> {
    sqlx::query_as!(
        UntoldPark,
        r#"select a.name as "account!", coalesce(a.parked_by, '') as "parked_by!", a.parked_reason as "reason!",
                  a.parked_message as said, a.parked_remedy as remedy, a.delivery_error, a.taken_over,
                  a.parked_job as job, j.operation as "operation?"
             from apipay.accounts a
             left join apipay.jobs j on j.id = a.parked_job and j.account = a.name
             left join apipay.alerts l
               on l.kind = 'account_parked' and l.resolved_at is null and l.subject = '' and coalesce(l.account, '') = a.name
            where a.state = 'parked'
              and (l.id is null
                   -- Or says that it is well.
                   or l.details ? 'well_since'
                   or case when a.parked_by = 'apipayd'
                           then l.details ->> 'reason' is distinct from a.parked_reason
                             or (a.delivery_error is not null and l.details ->> 'delivery_error' is distinct from a.delivery_error)
                             -- It advises to cancel one that is over.
                             or l.details ->> 'job' is distinct from a.parked_job::text
                           else l.summary not like 'Account "%" was parked by %' end)
            order by a.name"#
    )
    .fetch_all(pool)
    .await
    .task("find parked accounts without an alert")
}

/// Jobs that are counted beside those that alerts name.
const MOST_OTHERS: i64 = 1000;

/// That more jobs are held is told again, but not more often than this.
const MORE_TOLD_EVERY: Duration = Duration::from_secs(300);

/// Has the alert of overdue jobs, which names one job of an account, say how many more there are: what only counts is no
/// news. A job is overdue after so long.
pub async fn count_overdue(
    pool: &Pool,
    accounts: &[String],
    overdue_after: Duration,
) -> Result<(), DbError> {
    sqlx::query!(
        "with patience as materialized (select set_config('lock_timeout', $4, true)),
         said as materialized (
           select l.id, regexp_replace(l.summary, ' [0-9]+[+]? more (is|are) so: select .*$', '')
                    || case when others.jobs > 0 then format(' %s%s more %s so: select * from apipay.overview where account = ''%s'' and state = ''accepted'';',
                         others.jobs, case when others.jobs >= $3 then '+' end, case when others.jobs = 1 then 'is' else 'are' end, l.account)
                       else '' end as summary
             from patience, apipay.alerts l
             cross join lateral (
               select count(*) as jobs from (
                 select from apipay.jobs j
                  where j.account = l.account and j.state = 'accepted'
                    and j.id <> (l.details ->> 'job')::bigint
                    and j.updated_at <= now() - make_interval(secs => $2)
                  order by j.id limit $3) j) others
            where l.kind = 'job_overdue' and l.resolved_at is null and l.account = any ($1))
         update apipay.alerts l set summary = said.summary
           from said where l.id = said.id and l.resolved_at is null and l.summary <> said.summary",
        accounts,
        overdue_after.as_secs_f64(),
        MOST_OTHERS,
        ACCOUNT_PATIENCE_MS,
    )
    .execute(pool)
    .await
    .task("count overdue jobs")
    .map(|_| ())
}

/// Has the alert of held jobs that have none of their own say how many they are. That they are more than when it was last
/// told is told again, every few minutes at the most.
pub async fn count_held(pool: &Pool, accounts: &[String]) -> Result<(), DbError> {
    sqlx::query!(
        "with patience as materialized (select set_config('lock_timeout', $4, true)),
         counted as materialized (
           select l.id, others.jobs, (l.details ->> 'jobs')::bigint as told,
                  format('%s%s more %s of account %s %s held, besides those that are told one by one.',
                    others.jobs, case when others.jobs >= $2 then '+' end, case when others.jobs = 1 then 'job' else 'jobs' end,
                    l.account, case when others.jobs = 1 then 'is' else 'are' end) as summary,
                  coalesce(l.changed_at, l.opened_at) <= now() - make_interval(secs => $3) as may_be_told
             from patience, apipay.alerts l
             cross join lateral (select apipay._told_held(l.account) as jobs offset 0) own
             cross join lateral (
               select count(*) as jobs from (
                 select from apipay.jobs j
                  where j.account = l.account and j.state = 'held' and j.id <> all (own.jobs)
                  order by j.id limit $2) j) others
            where l.kind = 'job_held' and l.subject = 'others' and l.resolved_at is null and l.account = any ($1))
         update apipay.alerts l
            set summary = c.summary,
                details = l.details || case when c.jobs < c.told or (c.jobs > c.told and c.may_be_told)
                                            then jsonb_build_object('jobs', c.jobs) else '{}' end,
                changed_at = case when c.jobs > c.told and c.may_be_told then now() else l.changed_at end,
                incidents = l.incidents + (c.jobs > c.told and c.may_be_told)::int
           from counted c
          where l.id = c.id and l.resolved_at is null and c.jobs > 0
            and (l.summary <> c.summary or c.jobs < c.told or (c.jobs > c.told and c.may_be_told))",
        accounts,
        MOST_OTHERS,
        MORE_TOLD_EVERY.as_secs_f64(),
        ACCOUNT_PATIENCE_MS,
    )
    .execute(pool)
    .await
    .task("count held jobs")
    .map(|_| ())
}
