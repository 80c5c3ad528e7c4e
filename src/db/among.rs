//! Which rows a statement over many jobs looks at, and which it would look at.
//!
//! One row may make such a statement fail: by a trigger of the shop's, by what stands in it, by a key that
//! is taken, by a lock that its trigger waits for. Whoever runs the statement then finds out which, and runs
//! it without that row.

use std::time::Duration;

use super::{DbError, Pool, Task};
use crate::domain::account::AccountName;
use crate::domain::job::JobId;
use crate::domain::state::State;

/// Which jobs a statement looks at.
#[derive(Clone, Debug)]
pub struct Among {
    /// Not at these.
    pub without: Vec<i64>,
    /// At none but these.
    pub only: Option<Vec<i64>>,
    /// How long it waits for what somebody has locked.
    pub patience: Duration,
}

/// Whatever of the shop's is locked in a trigger stops everybody's claims: not for long.
const PATIENCE: Duration = Duration::from_secs(1);

impl Default for Among {
    fn default() -> Among {
        Among {
            without: Vec::new(),
            only: None,
            patience: PATIENCE,
        }
    }
}

impl Among {
    /// Only at these jobs.
    pub fn only(jobs: Vec<i64>) -> Among {
        Among {
            only: Some(jobs),
            ..Among::default()
        }
    }

    /// How long it waits for a lock, as a setting.
    pub(super) fn lock_timeout(&self) -> String {
        self.patience.as_millis().to_string()
    }
}

/// What jobs are claimed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimedTo {
    /// To be sent.
    Send,
    /// To be sent, as the one trial of an account that has slowed down.
    Try,
    /// To be sent, as the one job that a probe lets through.
    Probe,
    /// To be looked up.
    LookUp,
}

impl ClaimedTo {
    /// The states that such jobs are in.
    pub fn states(self) -> &'static [State] {
        match self {
            ClaimedTo::Send | ClaimedTo::Try => &[State::Queued],
            ClaimedTo::Probe => &[State::Parked, State::Queued],
            ClaimedTo::LookUp => &[State::Uncertain],
        }
    }

    /// What [`due`] calls it.
    fn as_str(self) -> &'static str {
        match self {
            ClaimedTo::Send => "send",
            ClaimedTo::Try => "try",
            ClaimedTo::Probe => "probe",
            ClaimedTo::LookUp => "look up",
        }
    }
}

/// A job that a claim would move.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The job.
    pub id: JobId,
    /// Its account.
    pub account: AccountName,
    /// Its state.
    pub state: State,
    /// Its fence.
    pub epoch: i64,
    /// The version of its row, which changes with each change of it.
    pub version: String,
}

/// The jobs of these accounts that a claim would begin with, whether it takes them or has them stand back, but
/// for those set aside. Nothing is changed or locked.
pub async fn due(
    pool: &Pool,
    to: ClaimedTo,
    accounts: &[String],
    without: &[i64],
    most: usize,
) -> Result<Vec<Candidate>, DbError> {
    sqlx::query_as!(
        DueRow,
        r#"select d.id as "id!", d.account as "account!", d.state as "state!", d.epoch as "epoch!", d.version as "version!"
             from unnest($1::text[]) as a(name)
             cross join lateral (
               select q.id, q.account, q.state, q.epoch, q.version, row_number() over () as place from (
                 select j.id, j.account, j.state, j.epoch, j.xmin::text as version from apipay.jobs j
                  where $2 = 'send' and j.account = a.name and j.state = 'queued' and apipay._is_in_turn(j.reason)
                    and j.run_at <= now()
                    and (j.expires_at is null or j.expires_at > now()) and j.id <> all ($3::bigint[])
                  order by j.priority desc, j.run_at, j.id
                  limit $4) q
               union all
               select t.id, t.account, t.state, t.epoch, t.version,
                      row_number() over (order by t.failing_since is not null, t.priority desc, t.run_at, t.id) from (
                 select j.id, j.account, j.state, j.epoch, j.xmin::text as version, j.failing_since, j.priority, j.run_at from apipay.jobs j
                  where $2 = 'try' and j.account = a.name and j.state = 'queued' and j.id > 0
                    and apipay._is_in_turn(j.reason) and j.run_at <= now()
                    and (j.expires_at is null or j.expires_at > now()) and j.id <> all ($3)
                  order by j.run_at, j.id
                  limit 100) t
               union all
               select u.id, u.account, u.state, u.epoch, u.version, row_number() over () from (
                 select j.id, j.account, j.state, j.epoch, j.xmin::text as version from apipay.jobs j
                  where $2 = 'look up' and j.account = a.name and j.state = 'uncertain' and j.run_at <= now()
                    and j.id <> all ($3)
                  order by j.run_at, j.id
                  limit $4) u) d
            order by d.place
            limit $4"#,
        accounts,
        to.as_str(),
        without,
        i64::try_from(most).unwrap_or(i64::MAX),
    )
    .fetch_all(pool)
    .await
    .task("list what is due")
    .map(listed)
}

/// The jobs of these operations that a probe of a parked account may let through, the first choice first, but for
/// those set aside. Refunds do not wait for those that are passed over. Nothing is changed or locked.
pub async fn due_for_probe(
    pool: &Pool,
    account: &AccountName,
    operations: &[String],
    without: &[i64],
    passed_over: &[i64],
) -> Result<Vec<Candidate>, DbError> {
    sqlx::query_file_as!(
        DueRow,
        "src/db/trials_of_park.sql",
        account.as_str(),
        operations,
        without,
        passed_over,
    )
    .fetch_all(pool)
    .await
    .task("list what a probe may let through")
    .map(listed)
}

struct DueRow {
    id: i64,
    account: String,
    state: String,
    epoch: i64,
    version: String,
}

fn listed(rows: Vec<DueRow>) -> Vec<Candidate> {
    let due = rows.into_iter().filter_map(|row| {
        Some(Candidate {
            id: JobId(row.id),
            // A name and a state in the database are proper ones, by their check constraints.
            account: AccountName::parse(&row.account)?,
            state: State::parse(&row.state)?,
            epoch: row.epoch,
            version: row.version,
        })
    });
    due.collect()
}

/// Those of the jobs whose rows are no longer of these versions, with the present one; none when the job is
/// gone, or in another state than these. An operator's `apipay.retry` changes the row, and so does whoever mends it.
pub async fn changed(
    pool: &Pool,
    states: Option<&[State]>,
    jobs: &[i64],
    versions: &[String],
) -> Result<Vec<(i64, Option<String>)>, DbError> {
    let states: Option<Vec<String>> =
        states.map(|states| states.iter().map(State::to_string).collect());
    let rows = sqlx::query!(
        r#"select k.id as "id!", j.version as "version?"
             from unnest($1::bigint[], $2::text[]) as k(id, version)
             left join lateral (select xmin::text as version from apipay.jobs
                                 where id = k.id and ($3::text[] is null or state = any ($3)) offset 0) j on true
            where j.version is distinct from k.version"#,
        jobs,
        versions,
        states.as_deref() as Option<&[String]>,
    )
    .fetch_all(pool)
    .await
    .task("see which refused jobs have changed")?;
    Ok(rows.into_iter().map(|row| (row.id, row.version)).collect())
}
