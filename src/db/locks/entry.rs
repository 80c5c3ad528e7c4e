//! Who keeps the rows of an entry from being recorded.

use super::holders::{Holder, holders};
use super::in_the_way::{Row, keepers};
use super::jobs::held;
use crate::db::entry::{Entry, Transition};
use crate::db::fault::Cause;
use crate::db::{DbError, Pool, Task};
use crate::domain::account::AccountName;
use crate::domain::job::JobId;

/// Who holds one of the rows that an entry is to change, or its account's row: somebody else before a daemon. A row's
/// `xmax` is the transaction that has it locked; a row that was locked in a savepoint, or that several share, names none.
pub async fn holder(
    pool: &Pool,
    account: &AccountName,
    entry: &Entry,
) -> Result<Option<Holder>, DbError> {
    let transition = entry.transition.as_ref();
    let transactions = sqlx::query_scalar!(
        r#"select distinct l.virtualtransaction as "transaction!"
             from (select xmax as transaction from apipay.jobs where id = $1
                   union all
                   select xmax from apipay.attempts where job_id = $1 and epoch = $2
                   union all
                   select xmax from apipay.invoices where account = $3 and id = any ($4)
                   union all
                   select xmax from apipay.refunds where account = $3 and id = $5
                   union all
                   select xmax from apipay.accounts where name = $3
                   union all
                   select xmax from apipay._quotas where account = $3) r
             join pg_catalog.pg_locks l
               on l.locktype = 'transactionid' and l.transactionid = r.transaction and l.granted"#,
        transition.map(|transition| transition.job_id),
        transition.map(|transition| transition.epoch),
        account.as_str(),
        &entry.invoices.iter().map(|row| row.id).collect::<Vec<_>>(),
        entry.refund.as_ref().map(|row| row.id),
    )
    .fetch_all(pool)
    .await
    .task("see who blocks")?;
    let holders = holders(pool, &transactions).await?;
    let holders = holders.into_values();
    let named = holders.min_by_key(|holder| *holder == Holder::Ours);
    match named {
        Some(holder) => Ok(Some(holder)),
        None => unnamed(pool, account, entry).await,
    }
}

/// The same where no row names its holder: each that may be locked is waited for, until one is.
async fn unnamed(
    pool: &Pool,
    account: &AccountName,
    entry: &Entry,
) -> Result<Option<Holder>, DbError> {
    let account = account.as_str();
    let job = entry.transition.iter();
    let job = job.map(|transition| Row::Job(transition.job_id));
    let refund = entry.refund.iter();
    let refund = refund.map(|row| Row::Refund(account, row.id));
    let invoices = entry.invoices.iter().take(INVOICES);
    let invoices = invoices.map(|row| Row::Invoice(account, row.id));
    let of_account = [Row::Account(account), Row::Quota(account)];
    for row in job.chain(refund).chain(invoices).chain(of_account) {
        let keepers = keepers(pool, row).await?;
        if let Some(blocker) = keepers.into_iter().next() {
            return Ok(Some(Holder::Other(blocker)));
        }
    }
    Ok(None)
}

/// Invoices of one entry that are waited for.
const INVOICES: usize = 3;

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
    Ok(match holder(pool, account, &entry).await? {
        Some(Holder::Other(_)) => true,
        Some(Holder::Ours) => false,
        None => !cause.is_about_a_job() || !held(pool, &[job.0]).await?.is_empty(),
    })
}
