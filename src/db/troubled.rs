//! What people are or must be told of requests that get no clear answer: the alert `gateway_failing`.

use std::collections::BTreeMap;
use std::time::Duration;

use time::OffsetDateTime;

use super::accounts::AlertText;
use super::outage::{Columns, reads};
use super::{ACCOUNT_PATIENCE_MS, DbError, Pool, Task};
use crate::domain::account::AccountName;
use crate::domain::job::{JobId, MOST_COUNTED};
use crate::domain::outage::{Awaited, FailingJob, Fault, Outage, Read, ToBeShown};

/// The kind of the alert.
pub const KIND: &str = "gateway_failing";

/// An account of which something fails, or is told to.
#[derive(Clone, Debug)]
pub struct Troubled {
    /// The account.
    pub account: AccountName,
    /// Whether nothing of it is sent but probes.
    pub is_parked: bool,
    /// How its requests go.
    pub outage: Outage,
    /// What of it waits for a clear answer.
    pub awaited: Awaited,
    /// The job that has got no clear answer for longest, if that is long.
    pub job: Option<FailingJob>,
    /// Its jobs that are not sent before a question about them is answered.
    pub to_be_shown: ToBeShown,
    /// Whether jobs go on with it of which it is not known yet whether they fail by themselves.
    pub is_open_end: bool,
    /// What is told of it now.
    pub told: Option<ToldFailing>,
    /// The machines that serve it.
    pub hosts: Vec<String>,
}

/// An open alert.
#[derive(Clone, Debug)]
pub struct ToldFailing {
    /// What it says that fails: `sends`, `reads` or `job`.
    pub fails: Option<String>,
    /// What it says happened.
    pub summary: String,
    /// What it says to do.
    pub action: String,
    /// The job that it names and its state, in words.
    pub job: Option<String>,
}

/// The accounts of these of which something fails, or is told to. A job counts once it has got no clear
/// answer for `told_after`, by the database's clock but not beyond `expected`, what it should show; what only
/// attempts with the codes of `not_theirs` say is not the gateway's.
pub async fn troubled(
    pool: &Pool,
    accounts: &[String],
    told_after: Duration,
    expected: OffsetDateTime,
    not_theirs: &[String],
) -> Result<Vec<Troubled>, DbError> {
    let rows = sqlx::query_file!(
        "src/db/troubled.sql",
        accounts,
        super::seconds(told_after),
        not_theirs,
        MOST_COUNTED,
        expected,
    )
    .fetch_all(pool)
    .await
    .task("look for what fails")?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut of_reads: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for (account, read, course) in reads(pool, accounts).await? {
        of_reads.entry(account).or_default().push((read, course));
    }
    let troubled = rows.into_iter().filter_map(|row| {
        let sends = Columns {
            since: row.failing_since,
            code: row.failing_code,
            status: row.failing_status,
            message: row.failing_message,
            failed_at: row.failed_at,
            job: row.failing_job,
            requests: row.failing_requests,
            trial_at: row.failing_trial_at,
            refused_since: row.refused_since,
        };
        let job = row
            .job
            .zip(row.job_failing_since)
            .map(|(id, since)| FailingJob {
                id: JobId(id),
                operation: row.operation.unwrap_or_default(),
                since,
                fault: Fault {
                    // Of an answer, the job's own reason says what it was.
                    code: match row.http_status {
                        Some(_) => row.reason.or(row.error_code),
                        None => row.error_code,
                    }
                    .unwrap_or_default(),
                    status: row
                        .http_status
                        .and_then(|status| u16::try_from(status).ok()),
                    said: row.message.filter(|_| row.http_status.is_some()),
                },
                asked_first: row.asked_first,
                is_left_out: row.is_left_out,
                waits_for: row.waits_for.as_deref().and_then(Read::parse),
                others: u32::try_from(row.others).unwrap_or(u32::MAX),
            });
        let told = row.is_open.then(|| ToldFailing {
            fails: row.told,
            summary: row.summary.unwrap_or_default(),
            action: row.action.unwrap_or_default(),
            job: row.told_job,
        });
        Some(Troubled {
            outage: Outage {
                sends: sends.into_course(),
                reads: of_reads
                    .remove(&row.account)
                    .unwrap_or_default()
                    .into_iter()
                    .collect(),
            },
            account: AccountName::parse(&row.account)?,
            is_parked: row.is_parked,
            awaited: Awaited::of(&row.awaited),
            job,
            to_be_shown: ToBeShown {
                bills: u32::try_from(row.bills).unwrap_or(u32::MAX),
                refunds: u32::try_from(row.refunds).unwrap_or(u32::MAX),
                in_words: row.in_words,
            },
            is_open_end: row.is_open_end,
            told,
            hosts: row.hosts,
        })
    });
    Ok(troubled.collect())
}

/// Makes the open alert of this kind say this. Only another cause is news, which is told once more.
pub async fn tell(
    pool: &Pool,
    account: &AccountName,
    kind: &str,
    text: &AlertText,
) -> Result<(), DbError> {
    sqlx::query!(
        "with patience as materialized (select set_config('lock_timeout', $6, true))
         update apipay.alerts l
            set summary = apipay._mask_phones($3), action = $4, details = $5,
                changed_at = case when l.details -> 'fails' is distinct from $5::jsonb -> 'fails' then now() else l.changed_at end
           from patience
          where coalesce(l.account, '') = $1 and l.kind = $2 and l.resolved_at is null
            and (l.summary, l.action) is distinct from (apipay._mask_phones($3), $4)",
        account.as_str(),
        kind,
        text.summary,
        text.action,
        text.details,
        ACCOUNT_PATIENCE_MS,
    )
    .execute(pool)
    .await
    .task("change an alert")
    .map(|_| ())
}
