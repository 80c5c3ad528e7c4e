//! Jobs about which a person decides, as far as their alerts need them.

use time::OffsetDateTime;

use super::accounts::AlertText;
use super::{ACCOUNT_PATIENCE_MS, DbError, Pool, Task};
use crate::domain::account::AccountName;
use crate::domain::job::JobId;
use crate::domain::object::Standing;

/// A held job.
#[derive(Clone, Debug)]
pub struct Held {
    /// The account.
    pub account: AccountName,
    /// The job.
    pub job: JobId,
    /// Its operation.
    pub operation: String,
    /// Why it is held.
    pub reason: String,
    /// What the gateway was found to have, if that is why.
    pub found: Option<String>,
    /// The code of its last error.
    pub error_code: Option<String>,
    /// Whether its last answer was that the account's key may not ask (HTTP 403).
    pub is_refused: bool,
    /// When somebody last said that nothing was done.
    pub denied_at: Option<OffsetDateTime>,
    /// The one invoice of a bill that a person decides about, if it is one, and how it stands where that is known.
    pub one: Option<(i64, Option<Standing>)>,
    /// What the gateway has shown since of what was found, in words, where that has changed.
    pub since: Option<String>,
}

/// A row of both statements.
struct Row {
    account: String,
    id: i64,
    operation: String,
    reason: String,
    found: Option<String>,
    error_code: Option<String>,
    http_status: Option<i16>,
    denied_at: Option<OffsetDateTime>,
    invoice: Option<i64>,
    standing: Option<String>,
    since: Option<String>,
}

impl Row {
    fn held(self) -> Option<Held> {
        let standing = self.standing.as_deref().and_then(Standing::parse);
        Some(Held {
            account: AccountName::parse(&self.account)?,
            job: JobId(self.id),
            operation: self.operation,
            reason: self.reason,
            found: self.found,
            error_code: self.error_code,
            is_refused: self.http_status == Some(403),
            denied_at: self.denied_at,
            one: self.invoice.map(|invoice| (invoice, standing)),
            since: self.since,
        })
    }
}

/// Held jobs that no open alert names or counts: an alert may have been resolved between its opening and the record that
/// it was about. As many of each account as are told one by one, and one more, which begins to count the others.
pub async fn untold(pool: &Pool) -> Result<Vec<Held>, DbError> {
    let rows = sqlx::query_as!(
        Row,
        r#"select a.name as "account!", h.id as "id!", h.operation as "operation!", h.reason as "reason!", h.found as "found?",
                  h.error_code as "error_code?", h.http_status as "http_status?", apipay._past(h.denied_at) as "denied_at?",
                  shown.invoice as "invoice?", shown.standing as "standing?", shown.since as "since?"
             from apipay.accounts a
             cross join lateral (select apipay._told_held(a.name) as jobs offset 0) told
             cross join lateral (
               select j.id, j.operation, coalesce(j.reason, '') as reason, j.error_code, j.http_status, j.denied_at, j as job,
                      case when j.reason in ('not_as_stated', 'mismatch', 'duplicate_detected') then j.error_message end as found
                 from apipay.jobs j
                where j.account = a.name and j.state = 'held' and j.id <> all (told.jobs)
                order by j.id
                limit greatest(11 - cardinality(told.jobs), 1)) h
             cross join lateral apipay._shown_of_held(h.job) shown
            where not exists (select from apipay.alerts l
                               where coalesce(l.account, '') = a.name and l.kind = 'job_held' and l.subject = 'others'
                                 and l.resolved_at is null)
            order by a.name, h.id"#
    )
    .fetch_all(pool)
    .await
    .task("find held jobs without an alert")?;
    Ok(rows.into_iter().filter_map(Row::held).collect())
}

/// Held jobs whose open alerts do not say what the gateway has shown since of their invoices.
pub async fn changed(pool: &Pool) -> Result<Vec<Held>, DbError> {
    let rows = sqlx::query_as!(
        Row,
        r#"select l.account as "account!", h.id as "id!", h.operation as "operation!", h.reason as "reason!", h.found as "found?",
                  h.error_code as "error_code?", h.http_status as "http_status?", apipay._past(h.denied_at) as "denied_at?",
                  shown.invoice as "invoice?", shown.standing as "standing?", shown.since as "since?"
             from apipay.alerts l
             cross join lateral (
               select j.id, j.operation, j.account, j.state, coalesce(j.reason, '') as reason, j.error_code, j.http_status, j.denied_at, j as job,
                      case when j.reason in ('not_as_stated', 'mismatch', 'duplicate_detected') then j.error_message end as found
                 from apipay.jobs j where j.id = (l.details ->> 'job')::bigint
                offset 0) h
             cross join lateral apipay._shown_of_held(h.job) shown
            where l.kind in ('job_held', 'duplicate_detected') and l.resolved_at is null and not l.details ? 'answered_at'
              and h.account = l.account and h.state = 'held' and l.details ->> 'reason' = h.reason
              and shown.since is distinct from l.details ->> 'since'
            order by l.id"#
    )
    .fetch_all(pool)
    .await
    .task("read what was shown since of held jobs")?;
    Ok(rows.into_iter().filter_map(Row::held).collect())
}

/// Has the open alert of a held job say this from now on, and be told once more; nothing where none is open, or its job is
/// being asked about.
pub async fn tell_on(
    pool: &Pool,
    account: &AccountName,
    job: JobId,
    kind: &str,
    text: &AlertText,
) -> Result<(), DbError> {
    sqlx::query_scalar!(
        r#"with patience as materialized (select set_config('lock_timeout', $7, true)),
         told as materialized (
           select l.id from patience cross join apipay.alerts l
            where l.account = $1 and l.kind = $3 and l.details -> 'job' = to_jsonb($2::bigint) and l.resolved_at is null
              and not l.details ? 'answered_at'
              for no key update of l skip locked)
         select apipay._tell_held($1, $3, 'critical', $4, $5, $6) as "id?" from told"#,
        account.as_str(),
        job.0,
        kind,
        text.summary,
        text.action,
        text.details,
        ACCOUNT_PATIENCE_MS,
    )
    .fetch_optional(pool)
    .await
    .task("tell on of a held job")
    .map(|_| ())
}
