//! Refunds of jobs that have ended, as far as a list of refunds shows them.

use uuid::Uuid;

use super::{DbError, Pool, Task};
use crate::domain::account::AccountName;
use crate::domain::job::JobId;
use crate::domain::state::State;

/// A refund that is listed, of a job that has ended otherwise than with success, or with another refund.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfEnded {
    /// The gateway's id of the refund.
    pub refund: i64,
    /// The job.
    pub job: JobId,
    /// Its token.
    pub token: Uuid,
    /// Its state.
    pub state: State,
    /// The status that was last shown, if the refund is known to be that job's.
    pub known: Option<String>,
    /// Another refund that has not failed, of the job itself, of one that repeats it or that it repeats; and whose it is.
    pub other: Option<(JobId, i64)>,
}

/// Of refunds of an invoice, each with the job's token whose mark it bears, those of jobs that have ended otherwise than with
/// success, or that go by another refund. A refund that is known to be a job's is that job's, whatever it bears.
pub async fn of_ended(
    pool: &Pool,
    account: &AccountName,
    invoice: i64,
    refunds: &[i64],
    marks: &[Option<Uuid>],
) -> Result<Vec<OfEnded>, DbError> {
    let rows = sqlx::query!(
        r#"with recursive own as materialized (
             select k.id, k.token, k.state, k.retry_of, k.refund_id
               from (select id, token, state, retry_of, refund_id, account, operation from apipay.jobs where invoice_id = $2 offset 0) k
              where k.account = $1 and k.operation = 'invoice.refund'),
           mirror as materialized (
             select m.id, m.job_id, m.job_token, m.status from apipay.refunds m where m.account = $1 and m.invoice_id = $2),
           shown as materialized (
             select s.id as refund, m.status as known, j.id, j.token, j.state
               from unnest($3::bigint[], $4::uuid[]) as s(id, mark)
               left join mirror m on m.id = s.id and m.job_token is not null
               join own j on j.token = coalesce(m.job_token, s.mark) and j.id = coalesce(m.job_id, j.id)
              where j.state in ('failed', 'cancelled', 'expired') or (j.state = 'succeeded' and j.refund_id <> s.id)),
           related as (
             select s.id as of, s.id from shown s
             union
             select r.of, o.id from related r
               join own here on here.id = r.id
               join own o on o.retry_of = here.id or o.id = here.retry_of)
           select s.refund as "refund!", s.known as "known?", s.id as "job!", s.token as "token!", s.state as "state!",
                  other.job as "other_job?", other.refund as "other?"
             from shown s
             left join lateral (
               select o.id as job, m.id as refund
                 from related r join own o on o.id = r.id join mirror m on m.job_id = o.id and m.job_token = o.token
                where r.of = s.id and m.id <> s.refund and m.status <> 'failed'
                order by m.id desc limit 1) other on true
            order by s.refund"#,
        account.as_str(),
        invoice,
        refunds,
        marks as &[Option<Uuid>],
    )
    .fetch_all(pool)
    .await
    .task("find the refunds of ended jobs")?;
    let found = rows.into_iter().filter_map(|row| {
        Some(OfEnded {
            refund: row.refund,
            job: JobId(row.job),
            token: row.token,
            // A state in the database is one of these, by its check constraint.
            state: State::parse(&row.state)?,
            known: row.known,
            other: row.other_job.map(JobId).zip(row.other),
        })
    });
    Ok(found.collect())
}
