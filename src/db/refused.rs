//! Jobs that the gateway refuses again and again for a reason of their own: the alert `job_refused`.

use std::time::Duration;

use time::OffsetDateTime;

use super::{DbError, Pool, Task};
use crate::domain::account::AccountName;
use crate::domain::job::{JobId, MOST_COUNTED};
use crate::domain::outage::{Fault, RefusedJob};

/// The kind of the alert.
pub const KIND: &str = "job_refused";

/// An open alert.
#[derive(Clone, Debug)]
pub struct ToldRefused {
    /// The account.
    pub account: String,
    /// What it says happened.
    pub summary: String,
    /// What it says to do.
    pub action: String,
    /// The job that it names.
    pub job: Option<i64>,
    /// The state of that job.
    pub state: Option<String>,
    /// All jobs that it is about.
    pub jobs: Vec<i64>,
}

/// The open alerts of these accounts.
pub async fn told(pool: &Pool, accounts: &[String]) -> Result<Vec<ToldRefused>, DbError> {
    sqlx::query_as!(
        ToldRefused,
        r#"select l.account as "account!", l.summary, l.action, (l.details ->> 'job')::bigint as job,
                  (select j.state from apipay.jobs j where j.id = (l.details ->> 'job')::bigint) as "state?",
                  array(select k::bigint from jsonb_array_elements_text(l.details -> 'jobs') as k) as "jobs!"
             from apipay.alerts l
            where l.kind = $2 and l.resolved_at is null and l.account = any ($1)"#,
        accounts,
        KIND,
    )
    .fetch_all(pool)
    .await
    .task("read which refused jobs are told of")
}

/// The jobs of these accounts whose last `tries` were all refused, for at least `lasting`, by the database's clock but not
/// beyond `expected`, what it should show; each with its account. Those that are `told` may be under way, or their account
/// parked.
pub async fn refused(
    pool: &Pool,
    accounts: &[String],
    told: &[i64],
    tries: i64,
    lasting: Duration,
    expected: OffsetDateTime,
) -> Result<Vec<(AccountName, RefusedJob)>, DbError> {
    let rows = sqlx::query_file!(
        "src/db/refused.sql",
        accounts,
        told,
        tries,
        super::seconds(lasting),
        MOST_COUNTED,
        expected,
    )
    .fetch_all(pool)
    .await
    .task("look for jobs that are refused")?;
    let refused = rows.into_iter().filter_map(|row| {
        let job = RefusedJob {
            id: JobId(row.job),
            operation: row.operation,
            since: row.since,
            fault: Fault {
                code: row.error_code.unwrap_or_default(),
                status: row
                    .http_status
                    .and_then(|status| u16::try_from(status).ok()),
                said: row.message,
            },
        };
        Some((AccountName::parse(&row.account)?, job))
    });
    Ok(refused.collect())
}
