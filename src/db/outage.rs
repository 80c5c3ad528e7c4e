//! What is known of an account's requests that got no clear answer; shared by all daemons.

use time::OffsetDateTime;

use super::{ACCOUNT_PATIENCE_MS, DbError, Pool, Task};
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
        ACCOUNT_PATIENCE_MS,
    )
    .fetch_one(pool)
    .await
    .task("store what fails")
}

/// Jobs of an account that got no clear answer, above this number and so many at most.
pub async fn failing_jobs(
    pool: &Pool,
    account: &AccountName,
    above: i64,
    most: i64,
) -> Result<Vec<i64>, DbError> {
    sqlx::query_scalar!(
        "select id from apipay.jobs
          where account = $1 and failing_since is not null and state in ('queued', 'sending', 'uncertain') and id > $2
          order by id limit $3",
        account.as_str(),
        above,
        most,
    )
    .fetch_all(pool)
    .await
    .task("find the jobs that got no clear answer")
}

/// Lets those of the jobs go on at once that backed off for one of the reasons, all or none, but for what
/// somebody has locked. Quiet periods and waits for proof stay as they are.
pub async fn release(
    pool: &Pool,
    jobs: &[i64],
    queued: &[String],
    uncertain: &[String],
) -> Result<(), DbError> {
    sqlx::query!(
        "with patience as materialized (select set_config('lock_timeout', $4, true)),
         free as materialized (
           select j.id from patience, apipay.jobs j
            where j.id = any ($1) and j.failing_since is not null and j.state in ('queued', 'sending', 'uncertain')
            order by j.id
            for no key update of j skip locked)
         update apipay.jobs j
            set failing_since = null,
                run_at = case when (j.state = 'queued' and j.reason = any ($2))
                                or (j.state = 'uncertain' and j.reason = any ($3))
                              then least(j.run_at, now()) else j.run_at end
          where j.id = any (array(select id from free))",
        jobs,
        queued,
        uncertain,
        ACCOUNT_PATIENCE_MS,
    )
    .execute(pool)
    .await
    .task("let jobs go on")
    .map(|_| ())
}
