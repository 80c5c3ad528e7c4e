//! Who keeps the rows of an entry from being recorded.

use super::jobs::held;
use super::session::{Blocker, Session};
use crate::db::entry::{Entry, Transition};
use crate::db::fault::Cause;
use crate::db::{APPLICATION, DbError, Pool, Task};
use crate::domain::account::AccountName;
use crate::domain::job::JobId;

/// Who holds a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Somebody's session.
    Session(Blocker),
    /// A statement of a daemon's, which ends by itself: a trigger may make it slow.
    Ours,
}

/// Who holds one of the rows that an entry is to change, or its account's row. A row's `xmax` is the transaction that has
/// it locked; of a row that several share, none is named.
pub async fn blocker(
    pool: &Pool,
    account: &AccountName,
    entry: &Entry,
) -> Result<Option<Holder>, DbError> {
    let transition = entry.transition.as_ref();
    let held = sqlx::query!(
        // A daemon's transaction that is older than any statement of its may be is one that was left open.
        r#"select coalesce(s.application_name = $6 and s.xact_start > now() - interval '40 s', false) as "is_ours!", l.pid as "pid!", s.usename::text as "user?", s.application_name as "application?",
                  s.xact_start as "since?", s.state as "state?", left(s.query, 200) as "query?"
             from (select xmax as transaction from apipay.jobs where id = $1
                   union all
                   select xmax from apipay.attempts where job_id = $1 and epoch = $2
                   union all
                   select xmax from apipay.invoices where account = $3 and id = $4
                   union all
                   select xmax from apipay.refunds where account = $3 and id = $5
                   union all
                   select xmax from apipay.accounts where name = $3
                   union all
                   select xmax from apipay._quotas where account = $3) r
             join pg_catalog.pg_locks l
               on l.locktype = 'transactionid' and l.transactionid = r.transaction and l.granted
             left join pg_catalog.pg_stat_activity s on s.pid = l.pid
            where l.pid <> pg_backend_pid()
            order by 1
            limit 1"#,
        transition.map(|transition| transition.job_id),
        transition.map(|transition| transition.epoch),
        account.as_str(),
        entry.invoice.as_ref().map(|row| row.id),
        entry.refund.as_ref().map(|row| row.id),
        APPLICATION,
    )
    .fetch_optional(pool)
    .await
    .task("see who blocks")?;
    Ok(held.map(|held| {
        if held.is_ours {
            return Holder::Ours;
        }
        Holder::Session(Blocker::from(Session {
            pid: held.pid,
            user: held.user,
            application: held.application,
            since: held.since,
            state: held.state,
            query: held.query,
        }))
    }))
}

/// Whether it is still somebody else who keeps this job from being changed, after a wait for a lock in vain: not where a
/// statement of a daemon's had its row, or has it now, as one that a trigger makes slow.
pub async fn is_of_others(
    pool: &Pool,
    account: &AccountName,
    job: JobId,
    cause: &Cause,
) -> Result<bool, DbError> {
    let entry = Entry {
        transition: Some(Transition {
            job_id: job.0,
            ..Transition::default()
        }),
        ..Entry::default()
    };
    Ok(match blocker(pool, account, &entry).await? {
        Some(Holder::Session(_)) => true,
        Some(Holder::Ours) => false,
        None => !cause.is_about_a_job() || !held(pool, &[job.0]).await?.is_empty(),
    })
}
