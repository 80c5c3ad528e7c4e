//! What became of the outcomes that moved no job.

use std::collections::HashMap;

use uuid::Uuid;

use super::entry::{Key, Transition};
use super::{DbError, Pool, Task};
use crate::domain::account::AccountName;
use crate::domain::job::{Epoch, JobId};

/// What became of a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// The job moved: now, or with an earlier try whose answer was lost.
    Moved,
    /// The job moved, but not as was decided: the object that it was to take is another job's.
    NotBelieved,
    /// The job had moved on: the attempt keeps its evidence, the job stays as it is.
    Stale,
    /// The database does not take it now; it waits in memory and is tried again.
    Waiting,
    /// The database took the statement and changed nothing, although the row is as it was: a trigger swallows the change.
    Swallowed,
    /// The database has forgotten the claim that the outcome belongs to. Nothing was written.
    HistoryLost(Lost),
}

/// How it shows that commits were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// There is no job with this number.
    Gone,
    /// The number is another job's.
    Another,
    /// The job is at this epoch, below that of a claim which was committed.
    Behind(Epoch),
    /// The same epoch was given to another worker.
    Reclaimed,
    /// This daemon was given a claim that it has in hand.
    Repeated,
}

/// A claim that the database has forgotten, though it had committed it.
#[derive(Clone, Debug)]
pub struct Forgotten {
    /// The account of the outcome.
    pub account: AccountName,
    /// The number of its job.
    pub job: i64,
    /// The epoch of its claim.
    pub epoch: i64,
    /// What the database has instead.
    pub lost: Lost,
}

/// What became of each transition of a batch.
pub type Fates = HashMap<Key, Recorded>;

/// What came of a batch.
#[derive(Clone, Debug, Default)]
pub struct Results {
    /// What became of its transitions.
    pub fates: Fates,
    /// Whether a job moved of a kind that others wait for.
    pub may_end_waits: bool,
}

/// Decides for each outcome that moved no job whether it is stale, was swallowed by a trigger, was recorded already by
/// an earlier try whose answer was lost, or has a claim that the database has forgotten.
///
/// An epoch belongs to one worker, so nobody else can have made the same move of a claimed job; an accepted
/// one moves the same way whoever follows it.
pub(super) async fn why_unmoved(
    pool: &Pool,
    transitions: &[&Transition],
) -> Result<Fates, DbError> {
    let ids: Vec<i64> = transitions.iter().map(|t| t.job_id).collect();
    let epochs: Vec<i64> = transitions.iter().map(|t| t.epoch).collect();
    let tokens: Vec<Uuid> = transitions.iter().map(|t| t.token).collect();
    let accounts: Vec<String> = transitions.iter().map(|t| t.account.clone()).collect();
    let workers: Vec<Option<Uuid>> = transitions.iter().map(|t| t.worker).collect();
    let from: Vec<String> = transitions
        .iter()
        .map(|t| t.from_state.to_string())
        .collect();
    let to: Vec<String> = transitions.iter().map(|t| t.state.to_string()).collect();
    let rows = sqlx::query!(
        r#"select t.job_id as "job_id!", t.epoch as "epoch!", t.token as "token!",
                  j.epoch as "epoch_now?", coalesce((j.token, j.account) = (t.token, t.account), false) as "is_same!",
                  coalesce(a.worker <> t.worker, false) as "is_anothers!",
                  coalesce(j.state = t.from_state and j.leased_by is not distinct from case when t.from_state = 'sending' then t.worker end,
                           false) as "is_unchanged!",
                  exists (
                    select from apipay.events e
                    where e.job_id = t.job_id and e.account = t.account and e.subject = 'job'
                      and e.from_state = t.from_state and e.to_state = t.state
                      and (e.evidence ->> 'epoch')::bigint = t.epoch) as "is_recorded!"
             from unnest($1::bigint[], $2::bigint[], $3::uuid[], $4::text[], $5::uuid[], $6::text[], $7::text[])
               as t(job_id, epoch, token, account, worker, from_state, state)
             left join lateral (select * from apipay.jobs where id = t.job_id offset 0) j on true
             left join lateral (
               select * from apipay.attempts where job_id = t.job_id and epoch = t.epoch offset 0) a on true"#,
        &ids,
        &epochs,
        &tokens,
        &accounts,
        &workers as &[Option<Uuid>],
        &from,
        &to,
    )
    .fetch_all(pool)
    .await
    .task("look for earlier records")?;
    let fates = rows.into_iter().map(|row| {
        let fate = match row.epoch_now {
            None => Recorded::HistoryLost(Lost::Gone),
            Some(_) if !row.is_same => Recorded::HistoryLost(Lost::Another),
            Some(now) if now < row.epoch => Recorded::HistoryLost(Lost::Behind(Epoch(now))),
            Some(_) if row.is_anothers => Recorded::HistoryLost(Lost::Reclaimed),
            Some(_) if row.is_recorded => Recorded::Moved,
            Some(now) if now == row.epoch && row.is_unchanged => Recorded::Swallowed,
            Some(_) => Recorded::Stale,
        };
        ((JobId(row.job_id), Epoch(row.epoch), row.token), fate)
    });
    Ok(fates.collect())
}
