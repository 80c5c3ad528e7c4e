//! What is known of an account's requests that got no clear answer; shared by all daemons.

use time::OffsetDateTime;

use super::{ACCOUNT_PATIENCE_MS, DbError, Pool, Task};
use crate::domain::account::AccountName;
use crate::domain::job::JobId;
use crate::domain::outage::{Course, Fault, Outage, Read, Row};

/// The columns that hold how requests of one kind go.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    pub(super) since: Option<OffsetDateTime>,
    pub(super) code: Option<String>,
    pub(super) status: Option<i16>,
    pub(super) message: Option<String>,
    pub(super) failed_at: Option<OffsetDateTime>,
    pub(super) job: Option<i64>,
    pub(super) requests: i32,
    pub(super) trial_at: Option<OffsetDateTime>,
    pub(super) refused_since: Option<OffsetDateTime>,
}

impl Columns {
    pub(super) fn into_course(self) -> Course {
        let fault = Fault {
            code: self.code.unwrap_or_default(),
            status: self.status.and_then(|status| u16::try_from(status).ok()),
            said: self.message,
        };
        Course {
            failing: self.since.map(|since| Row {
                since,
                fault,
                failed_at: self.failed_at.unwrap_or(since),
                job: self.job.map(JobId),
                failures: u32::try_from(self.requests).unwrap_or_default(),
                trial_at: self.trial_at,
            }),
            refused_since: self.refused_since,
        }
    }

    fn of(course: &Course) -> Columns {
        let row = course.failing.as_ref();
        let count = |row: &Row| i32::try_from(row.failures).unwrap_or(i32::MAX);
        Columns {
            since: row.map(|row| row.since),
            code: row.map(|row| row.fault.code.clone()),
            status: row.and_then(|row| i16::try_from(row.fault.status?).ok()),
            message: row.and_then(|row| row.fault.said.clone()),
            failed_at: row.map(|row| row.failed_at),
            job: row.and_then(|row| row.job).map(|job| job.0),
            requests: row.map_or(0, count),
            trial_at: course.trial_at(),
            refused_since: course.refused_since,
        }
    }
}

/// What is known of an account, and the database's clock; `None` when it has no row.
pub async fn read(
    pool: &Pool,
    account: &AccountName,
) -> Result<Option<(Outage, OffsetDateTime)>, DbError> {
    let row = sqlx::query!(
        r#"select failing_since, failing_code, failing_status, failing_message, failed_at, failing_job, failing_requests,
                  failing_trial_at, refused_since, least(now(), clock_timestamp()) as "now!"
             from apipay.accounts where name = $1"#,
        account.as_str()
    )
    .fetch_optional(pool)
    .await
    .task("read what fails")?;
    let Some(row) = row else {
        return Ok(None);
    };
    let columns = Columns {
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
    let reads = reads(pool, &[account.to_string()]).await?;
    let outage = Outage {
        sends: columns.into_course(),
        reads: reads
            .into_iter()
            .map(|(_, read, course)| (read, course))
            .collect(),
    };
    Ok(Some((outage, row.now)))
}

/// How the reads of these accounts go, of each kind that does not go well.
pub async fn reads(
    pool: &Pool,
    accounts: &[String],
) -> Result<Vec<(String, Read, Course)>, DbError> {
    let rows = sqlx::query!(
        "select account, kind, failing_since, code, status, message, failed_at, job, requests, trial_at, refused_since
           from apipay._reads
          where account = any ($1) and (failing_since is not null or refused_since is not null)",
        accounts
    )
    .fetch_all(pool)
    .await
    .task("read what fails of reads")?;
    let reads = rows.into_iter().filter_map(|row| {
        let columns = Columns {
            since: row.failing_since,
            code: row.code,
            status: row.status,
            message: row.message,
            failed_at: row.failed_at,
            job: row.job,
            requests: row.requests,
            trial_at: row.trial_at,
            refused_since: row.refused_since,
        };
        Some((row.account, Read::parse(&row.kind)?, columns.into_course()))
    });
    Ok(reads.collect())
}

/// Stores how the account's sends go now, unless somebody else has stored something since `before` was read:
/// then nothing changes, and the answer is false. The end of a slow-down lets go on what has backed off.
pub async fn store_sends(
    pool: &Pool,
    account: &AccountName,
    before: &Course,
    after: &Course,
) -> Result<bool, DbError> {
    let (old, new) = (Columns::of(before), Columns::of(after));
    sqlx::query_file_scalar!(
        "src/db/outage.sql",
        account.as_str(),
        old.since,
        old.requests,
        old.trial_at,
        old.refused_since,
        new.since,
        new.code,
        new.status,
        new.message,
        new.failed_at,
        new.job,
        new.requests,
        new.trial_at,
        new.refused_since,
        before.is_slow() && !after.is_slow(),
        ACCOUNT_PATIENCE_MS,
    )
    .fetch_one(pool)
    .await
    .task("store what fails")
}

/// Stores how the account's reads of one kind go now, like [`store_sends`].
pub async fn store_reads(
    pool: &Pool,
    account: &AccountName,
    read: Read,
    before: &Course,
    after: &Course,
) -> Result<bool, DbError> {
    let (old, new) = (Columns::of(before), Columns::of(after));
    sqlx::query_file_scalar!(
        "src/db/outage_of_reads.sql",
        account.as_str(),
        read.as_str(),
        old.since,
        old.requests,
        old.refused_since,
        new.since,
        new.code,
        new.status,
        new.message,
        new.failed_at,
        new.job,
        new.requests,
        new.trial_at,
        new.refused_since,
        ACCOUNT_PATIENCE_MS,
    )
    .fetch_one(pool)
    .await
    .task("store what fails of reads")
}
