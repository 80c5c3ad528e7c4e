//! What copies repeat (`apipay.retry`).

use uuid::Uuid;

use super::{DbError, Pool, Task};
use crate::domain::job::{JobId, JobName};

/// A job that a copy repeats, itself or by way of copies in between.
#[derive(Clone, Debug)]
pub struct Original {
    /// The job.
    pub id: JobId,
    /// Its token.
    pub token: Uuid,
    /// The invoices that it made, the newest first; of very many those.
    pub invoices: Vec<i64>,
    /// The refunds that it made, or that a person named as its own.
    pub refunds: Vec<i64>,
    /// Whether a request of it got no clear answer. What that made may be known by the job's name alone.
    pub may_have_made_more: bool,
}

impl Original {
    /// Its first name at the gateway.
    pub fn name(&self) -> JobName {
        JobName {
            token: self.token,
            generation: 1,
        }
    }
}

/// How many copies of copies are gone through.
const MOST_COPIES: i32 = 100;

/// The jobs that a copy repeats, the one that was copied last first. A job that has only the number of one is none of them:
/// a copy has the params of what it repeats.
pub async fn of(pool: &Pool, copy: JobId, most_invoices: usize) -> Result<Vec<Original>, DbError> {
    let rows = sqlx::query!(
        r#"with recursive original as (
             select j.account, j.operation, j.params, j.invoice_id, j.retry_of, 0 as step, null::bigint as id, null::uuid as token
               from apipay.jobs j where j.id = $1
             union all
             select c.account, c.operation, c.params, c.invoice_id, o.retry_of, c.step + 1, o.id, o.token
               from original c
               cross join lateral (
                 select id, token, account, operation, params, retry_of from apipay.jobs where id = c.retry_of offset 0) o
              where o.account = c.account and o.operation = c.operation and o.params = c.params and c.step < $2)
           select o.id as "id!", o.token as "token!",
                  array(select m.id from (select id, account from apipay.invoices where job_id = o.id and job_token = o.token offset 0) m
                         where m.account = o.account order by m.id desc limit $3) as "invoices!",
                  array(select m.id from (select id, job_id, job_token from apipay.refunds where account = o.account and invoice_id = o.invoice_id offset 0) m
                         where m.job_id = o.id and m.job_token = o.token) as "refunds!",
                  exists (select from apipay.attempts a
                           where a.job_id = o.id and a.kind = 'send' and (a.finished_at is null or a.effect = 'unknown')) as "may_have_made_more!"
             from (select account, id, token, step, invoice_id from original where step > 0
                   union all
                   -- One whose row was deleted: its invoices and refunds still name it.
                   select c.account, c.retry_of, gone.token, c.step + 1, c.invoice_id
                     from original c
                     cross join lateral (
                       select m.job_token as token
                         from (select account, job_token from apipay.invoices where job_id = c.retry_of offset 0) m
                        where m.account = c.account and m.job_token is not null
                       union
                       select m.job_token
                         from (select job_id, job_token from apipay.refunds where account = c.account and invoice_id = c.invoice_id offset 0) m
                        where m.job_id = c.retry_of) gone
                    where not exists (select from apipay.jobs k where k.id = c.retry_of)) o
            order by o.step"#,
        copy.0,
        MOST_COPIES,
        i64::try_from(most_invoices).unwrap_or(i64::MAX),
    )
    .fetch_all(pool)
    .await
    .task("find what a copy repeats")?;
    let originals = rows.into_iter().map(|row| Original {
        id: JobId(row.id),
        token: row.token,
        invoices: row.invoices,
        refunds: row.refunds,
        may_have_made_more: row.may_have_made_more,
    });
    Ok(originals.collect())
}
