//! What is known of an account's requests that got no clear answer; shared by all daemons.

use time::OffsetDateTime;

use super::{DbError, Pool, Task};
use crate::domain::account::AccountName;
use crate::domain::job::JobId;
use crate::domain::outage::{Fault, Outage, Reads, Row};

/// The columns of an account that hold it.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    pub(super) since: Option<OffsetDateTime>,
    pub(super) code: Option<String>,
    pub(super) status: Option<i16>,
    pub(super) message: Option<String>,
    pub(super) job: Option<i64>,
    pub(super) requests: i32,
    pub(super) trial_at: Option<OffsetDateTime>,
    pub(super) reads: i32,
    pub(super) read_at: Option<OffsetDateTime>,
}

impl Columns {
    pub(super) fn into_outage(self) -> Outage {
        let fault = Fault {
            code: self.code.unwrap_or_default(),
            status: self.status.and_then(|status| u16::try_from(status).ok()),
            said: self.message,
        };
        Outage {
            sends: self.since.map(|since| Row {
                since,
                fault,
                job: JobId(self.job.unwrap_or_default()),
                failures: u32::try_from(self.requests).unwrap_or_default(),
                trial_at: self.trial_at,
            }),
            reads: Reads {
                failures: u32::try_from(self.reads).unwrap_or_default(),
                next_at: self.read_at,
            },
        }
    }

    fn of(outage: &Outage) -> Columns {
        let row = outage.sends.as_ref();
        Columns {
            since: row.map(|row| row.since),
            code: row.map(|row| row.fault.code.clone()),
            status: row.and_then(|row| i16::try_from(row.fault.status?).ok()),
            message: row.and_then(|row| row.fault.said.clone()),
            job: row.map(|row| row.job.0),
            requests: count(row.map_or(0, |row| row.failures)),
            trial_at: row.and_then(|row| row.trial_at),
            reads: count(outage.reads.failures),
            read_at: outage.reads.next_at,
        }
    }
}

fn count(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// What is known of an account, and the database's clock; `None` when it has no row.
pub async fn read(
    pool: &Pool,
    account: &AccountName,
) -> Result<Option<(Outage, OffsetDateTime)>, DbError> {
    let row = sqlx::query!(
        r#"select failing_since, failing_code, failing_status, failing_message, failing_job, failing_requests,
                  failing_trial_at, failing_reads, failing_read_at, now() as "now!"
             from apipay.accounts where name = $1"#,
        account.as_str()
    )
    .fetch_optional(pool)
    .await
    .task("read what fails")?;
    Ok(row.map(|row| {
        let columns = Columns {
            since: row.failing_since,
            code: row.failing_code,
            status: row.failing_status,
            message: row.failing_message,
            job: row.failing_job,
            requests: row.failing_requests,
            trial_at: row.failing_trial_at,
            reads: row.failing_reads,
            read_at: row.failing_read_at,
        };
        (columns.into_outage(), row.now)
    }))
}

/// Stores what is known now, unless somebody else has stored something since `before` was read: then
/// nothing changes, and the answer is false.
pub async fn store(
    pool: &Pool,
    account: &AccountName,
    before: &Outage,
    after: &Outage,
) -> Result<bool, DbError> {
    let (old, new) = (Columns::of(before), Columns::of(after));
    sqlx::query_file_scalar!(
        "src/db/outage.sql",
        account.as_str(),
        old.since,
        old.requests,
        old.trial_at,
        old.reads,
        new.since,
        new.code,
        new.status,
        new.message,
        new.job,
        new.requests,
        new.trial_at,
        new.reads,
        new.read_at,
        before.is_slow() && !after.is_slow(),
    )
    .fetch_one(pool)
    .await
    .task("store what fails")
}
