//! Which rows a statement over many jobs looks at, and which it would look at.
//!
//! One row may make such a statement fail: by a trigger of the shop's, by what stands in it, by a key that
//! is taken, by a lock that its trigger waits for. Whoever runs the statement then finds out which, and runs
//! it without that row.

use super::{DbError, Pool, Task};
use crate::domain::account::AccountName;
use crate::domain::job::JobId;

/// Which jobs a statement looks at.
#[derive(Clone, Debug, Default)]
pub struct Among {
    /// Not at these.
    pub without: Vec<i64>,
    /// At none but these.
    pub only: Option<Vec<i64>>,
}

impl Among {
    /// Only at these jobs.
    pub fn only(jobs: Vec<i64>) -> Among {
        Among {
            without: Vec::new(),
            only: Some(jobs),
        }
    }
}

/// What jobs are claimed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimedTo {
    /// To be sent.
    Send,
    /// To be sent, as the one trial of an account that has slowed down.
    Try,
    /// To be looked up.
    LookUp,
}

impl ClaimedTo {
    /// The state that such jobs are in.
    pub fn state(self) -> &'static str {
        match self {
            ClaimedTo::Send | ClaimedTo::Try => "queued",
            ClaimedTo::LookUp => "uncertain",
        }
    }

    /// The arm of [`due`] that lists them.
    fn arm(self) -> &'static str {
        match self {
            ClaimedTo::Send => "send",
            ClaimedTo::Try => "try",
            ClaimedTo::LookUp => "look up",
        }
    }
}

/// A job that a claim would move.
#[derive(Clone, Debug)]
pub struct Due {
    /// The job.
    pub id: JobId,
    /// Its account.
    pub account: AccountName,
    /// Its fence.
    pub epoch: i64,
}

/// The jobs of these accounts that a claim would begin with, whether it takes them or has them stand back, but
/// for those set aside. Nothing is changed or locked.
pub async fn due(
    pool: &Pool,
    to: ClaimedTo,
    accounts: &[String],
    without: &[i64],
    most: usize,
) -> Result<Vec<Due>, DbError> {
    let rows = sqlx::query!(
        r#"select d.id as "id!", d.account as "account!", d.epoch as "epoch!"
             from unnest($1::text[]) as a(name)
             cross join lateral (
               select q.id, q.account, q.epoch, row_number() over () as place from (
                 select j.id, j.account, j.epoch from apipay.jobs j
                  where $2 = 'send' and j.account = a.name and j.state = 'queued' and apipay._is_in_turn(j.reason)
                    and j.run_at <= now()
                    and (j.expires_at is null or j.expires_at > now()) and j.id <> all ($3::bigint[])
                  order by j.priority desc, j.run_at, j.id
                  limit $4) q
               union all
               select t.id, t.account, t.epoch,
                      row_number() over (order by t.failing_since is not null, t.priority desc, t.run_at, t.id) from (
                 select j.id, j.account, j.epoch, j.failing_since, j.priority, j.run_at from apipay.jobs j
                  where $2 = 'try' and j.account = a.name and j.state = 'queued' and j.id > 0
                    and apipay._is_in_turn(j.reason) and j.run_at <= now()
                    and (j.expires_at is null or j.expires_at > now()) and j.id <> all ($3)
                  order by j.run_at, j.id
                  limit 100) t
               union all
               select u.id, u.account, u.epoch, row_number() over () from (
                 select j.id, j.account, j.epoch from apipay.jobs j
                  where $2 = 'look up' and j.account = a.name and j.state = 'uncertain' and j.run_at <= now()
                    and j.id <> all ($3)
                  order by j.run_at, j.id
                  limit $4) u) d
            order by d.place
            limit $4"#,
        accounts,
        to.arm(),
        without,
        i64::try_from(most).unwrap_or(i64::MAX),
    )
    .fetch_all(pool)
    .await
    .task("list what is due")?;
    let due = rows.into_iter().filter_map(|row| {
        Some(Due {
            id: JobId(row.id),
            // A name in the database is a proper one, by its check constraint.
            account: AccountName::parse(&row.account)?,
            epoch: row.epoch,
        })
    });
    Ok(due.collect())
}
