//! Invoices that live although their job goes by another one or by none, as far as their alerts need it.

use super::{DbError, Pool, Task};
use crate::domain::account::AccountName;
use crate::domain::job::JobId;
use crate::domain::object::InvoiceStatus;
use crate::domain::state::State;

/// A bill of which an invoice lives against expectation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bill {
    /// The state of its job.
    pub state: State,
    /// Another invoice of it, of what it repeats, or of its copies that may be paid, or was; and whose that is.
    pub other: Option<(JobId, i64, InvoiceStatus)>,
    /// The job that cancelled this one, by which it was seen cancelled.
    pub cancelled_by: Option<JobId>,
}

/// The job of an invoice that lives unexpectedly, its other living invoice, and the job that cancelled this one. `None`
/// when there is nothing to tell: there is no such job, or it goes by this invoice, no job has cancelled that, and no other
/// bill's lives. Another one of the same job that lives is told by itself.
pub async fn bill(pool: &Pool, job: JobId, invoice: i64) -> Result<Option<Bill>, DbError> {
    let row = sqlx::query!(
        r#"select j.state, o.job_id as "other_job?", o.id as "other?", o.status as "other_status?", c.id as "cancelled_by?"
             from apipay.jobs j
             left join lateral (
               select (living.invoice).job_id, (living.invoice).id, (living.invoice).status
                 from (select apipay._other_living(j.id, $2) as invoice offset 0) living) o on true
             left join lateral (
               select k.id from (select c.id, c.account, c.operation, c.state from apipay.jobs c where c.invoice_id = $2 offset 0) k
                where k.account = j.account and k.operation = 'invoice.cancel' and k.state = 'succeeded'
                order by k.id desc limit 1) c on true
            where j.id = $1
              and not (j.state in ('accepted', 'succeeded') and j.invoice_id is not distinct from $2
                       and (o.id is null or o.job_id = j.id) and c.id is null)"#,
        job.0,
        invoice,
    )
    .fetch_optional(pool)
    .await
    .task("read what became of a job")?;
    Ok(row.and_then(|row| {
        Some(Bill {
            // A state in the database is one of these, by its check constraint.
            state: State::parse(&row.state)?,
            other: (row.other_job.zip(row.other).zip(row.other_status))
                .map(|((job, id), status)| (JobId(job), id, InvoiceStatus::parse(&status))),
            cancelled_by: row.cancelled_by.map(JobId),
        })
    }))
}

/// An invoice of which an open alert says that it lives, as it stands now.
#[derive(Clone, Debug)]
pub struct Revived {
    /// The account.
    pub account: AccountName,
    /// The invoice.
    pub invoice: i64,
    /// The job that made it.
    pub job: JobId,
    /// Its status.
    pub status: InvoiceStatus,
}

/// Those of which alerts are open, and that live. One is told of just before its new status is stored.
pub async fn told(pool: &Pool) -> Result<Vec<Revived>, DbError> {
    let rows = sqlx::query!(
        r#"select i.account as "account!", i.id as "id!", j.id as "job!", i.status as "status!"
             from apipay.alerts l
             cross join lateral (
               select m.account, m.id, m.job_id, m.job_token, m.status from apipay.invoices m
                where m.account = l.account and m.id = (l.details ->> 'invoice')::bigint
                offset 0) i
             cross join lateral (
               select k.id from apipay.jobs k where k.id = i.job_id and k.token = i.job_token
                offset 0) j
            where l.kind = 'invoice_revived' and l.resolved_at is null
              and i.status not in ('cancelled', 'expired', 'error')
            order by l.id"#
    )
    .fetch_all(pool)
    .await
    .task("read the invoices that live again")?;
    let revived = rows.into_iter().filter_map(|row| {
        Some(Revived {
            account: AccountName::parse(&row.account)?,
            invoice: row.id,
            job: JobId(row.job),
            status: InvoiceStatus::parse(&row.status),
        })
    });
    Ok(revived.collect())
}
