//! Invoices and refunds that the gateway does not show any more, as far as their alerts need it.

use time::OffsetDateTime;

use super::{DbError, Pool, Task};
use crate::domain::account::AccountName;

/// An object that the gateway was asked for and did not show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The gateway's id of the invoice.
    pub invoice: i64,
    /// The gateway's id of the refund, when that is what is missing.
    pub refund: Option<i64>,
    /// The job that made it.
    pub job: Option<i64>,
    /// When it was last shown; when our copy of it was made, if it never was.
    pub last_shown: OffsetDateTime,
    /// What the gateway answered when it was asked for nothing else; none where it left the object out without a word.
    pub answer: Option<String>,
}

/// Those that the open alert of the account names and that were not shown since.
pub async fn told(pool: &Pool, account: &AccountName) -> Result<Vec<Missing>, DbError> {
    sqlx::query_as!(
        Missing,
        r#"with told as materialized (
             select l.account, l.details from apipay.alerts l
              where l.account = $1 and l.kind = 'invoice_missing' and l.resolved_at is null)
           select m.id as "invoice!", null::bigint as refund, j.id as "job?", m.last_shown as "last_shown!",
                  l.details -> 'answers' ->> t.id as answer
             from told l
             cross join lateral jsonb_each_text(l.details -> 'invoices') t (id, shown)
             cross join lateral (
               select i.id, i.job_id, i.job_token, i.settled, coalesce(i.checked_at, i.created_at) as last_shown
                 from apipay.invoices i where i.account = l.account and i.id = t.id::bigint offset 0) m
             left join lateral (
               select k.id from apipay.jobs k where k.id = m.job_id and k.token = m.job_token offset 0) j on true
            where not m.settled and m.last_shown <= t.shown::timestamptz
           union all
           select m.invoice_id, m.id, j.id, m.last_shown, null
             from told l
             cross join lateral jsonb_each_text(l.details -> 'refunds') t (id, shown)
             cross join lateral (
               select r.id, r.invoice_id, r.job_id, r.job_token, r.settled, coalesce(r.checked_at, r.created_at) as last_shown
                 from apipay.refunds r where r.account = l.account and r.id = t.id::bigint offset 0) m
             left join lateral (
               select k.id from apipay.jobs k where k.id = m.job_id and k.token = m.job_token offset 0) j on true
            where not m.settled and m.last_shown <= t.shown::timestamptz"#,
        account.as_str(),
    )
    .fetch_all(pool)
    .await
    .task("read what is told to be missing")
}
