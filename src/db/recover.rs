//! Putting right what time alone made wrong.
//!
//! Each is found by one statement and moved by another, so that a job that cannot be moved is moved
//! without its neighbours, and they without it.
//!
//! Of what an account may have very much of, each account has an equal share of every look, so that none waits for
//! what another one has. Leases, and sends that were left open, need no shares: of them there are never more than
//! daemons may send at once.

use std::time::Duration;

use time::OffsetDateTime;

use super::{ACCOUNT_PATIENCE_MS, DbError, Pool, Task};
use crate::domain::account::AccountName;
use crate::domain::job::JobId;
use crate::domain::outage::Wait;
use crate::domain::state::State;

/// What time makes of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// Its lease ran out: it becomes uncertain, and its attempt is closed as unknown.
    Lease,
    /// It is not being sent, and a send of it stands open all the same: somebody has changed the one or the other. That
    /// one may have had its effect: it is closed as unknown, and a job that would be sent becomes uncertain.
    LeftOpen,
    /// It is queued and past its `expires_at`: it expires. One of which a request is unproven becomes uncertain instead:
    /// it is looked up until it is known what became of that, and expires afterwards.
    Expiry,
    /// It is parked and its account is active again: it is put back. So is one that is to be looked up first,
    /// while its account waits for a delivery.
    Release,
    /// It backed off, or was looked up in vain, before its account got clear answers again: it goes on.
    /// Quiet periods and waits for proof last as long as before.
    GoOn,
    /// It backed off, or was looked up in vain, and its account got a clear answer before its time came. Whether that
    /// changes its time, [`DueJob::wait`] says.
    Answered,
    /// It waited for another job and goes next: claims look at it again.
    Turn,
    /// It waited for the end of a cap: claims look at it again.
    Cap,
    /// It is accepted, and what ApiPay shows of its object is not followed any more, or not known at all: that is asked
    /// about again. The job itself stays as it is. So is one that failed at Kaspi because of its account, and waits for it
    /// as if that had not been resumed since.
    Unfollowed,
}

impl Occasion {
    /// All of them.
    pub const ALL: [Occasion; 9] = [
        Occasion::Lease,
        Occasion::LeftOpen,
        Occasion::Expiry,
        Occasion::Release,
        Occasion::GoOn,
        Occasion::Answered,
        Occasion::Turn,
        Occasion::Cap,
        Occasion::Unfollowed,
    ];
}

/// What moving jobs depends on.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// How long nothing is asked about a job whose lease ran out.
    pub quiet: Duration,
    /// Why queued jobs wait that go on.
    pub backed_off: &'a [String],
    /// Why uncertain jobs wait that go on.
    pub looked_up_in_vain: &'a [String],
    /// What accepted jobs fail with at Kaspi because of their account.
    pub account_faults: &'a [String],
    /// How long those wait at the most, from their failure on, once it is resumed.
    pub once_resumed: Duration,
}

/// A job whose time has come.
#[derive(Clone, Debug)]
pub struct DueJob {
    /// The job.
    pub id: JobId,
    /// Its account.
    pub account: AccountName,
    /// Its state.
    pub state: State,
    /// Its epoch.
    pub epoch: i64,
    /// The version of its row, which changes with each change of it.
    pub version: String,
    /// What it waits for, if it is one of [`Occasion::Answered`].
    pub wait: Option<Wait>,
}

/// How far the accounts, the invoices that have waiting refunds, or the accepted jobs were gone through. There may be
/// very many, so a look goes on where the one before ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    account: String,
    /// The invoice, or the job; 0, if only accounts are gone through.
    number: i64,
}

impl Cursor {
    /// Whether a look starts over.
    pub fn is_at_start(&self) -> bool {
        *self == Cursor::default()
    }
}

/// What a look has found.
#[derive(Debug)]
pub struct Found {
    /// The jobs.
    pub jobs: Vec<DueJob>,
    /// Whether there may be more of them.
    pub is_full: bool,
}

struct Row {
    id: i64,
    account: String,
    state: String,
    epoch: i64,
    version: String,
    /// How many jobs of each account were looked for.
    share: i64,
}

/// The jobs whose time has come, but for those to leave alone. What ends a job for good goes by the
/// database's clock, but not beyond `expected`, what it should show. But for leases and open sends, it is looked from
/// `place` on.
pub async fn find(
    pool: &Pool,
    due: Occasion,
    expected: OffsetDateTime,
    place: &mut Cursor,
    most: usize,
    except: &[i64],
    terms: Terms<'_>,
) -> Result<Found, DbError> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let rows = match due {
        Occasion::Lease => {
            sqlx::query_as!(
                Row,
                r#"select id, account, state, epoch, xmin::text as "version!", $1::bigint as "share!" from apipay.jobs
                  where state = 'sending' and leased_until < now() and id <> all ($2)
                  order by leased_until limit $1"#,
                most,
                except,
            )
            .fetch_all(pool)
            .await
        }
        Occasion::LeftOpen => {
            sqlx::query_as!(
                Row,
                r#"select j.id, j.account, j.state, j.epoch, j.version as "version!", $1::bigint as "share!"
                     from (select job_id from apipay.attempts where kind = 'send' and finished_at is null) t
                    cross join lateral (
                      select id, account, state, epoch, xmin::text as version from apipay.jobs where id = t.job_id
                      offset 0) j
                    where j.state <> 'sending' and j.id <> all ($2)
                    limit $1"#,
                most,
                except,
            )
            .fetch_all(pool)
            .await
        }
        Occasion::Expiry => {
            sqlx::query_file_as!(
                Row,
                "src/db/expired.sql",
                most,
                except,
                place.account,
                expected
            )
            .fetch_all(pool)
            .await
        }
        Occasion::Release => {
            sqlx::query_file_as!(Row, "src/db/released.sql", most, except, place.account)
                .fetch_all(pool)
                .await
        }
        Occasion::GoOn => {
            sqlx::query_file_as!(
                Row,
                "src/db/going_on.sql",
                most,
                except,
                place.account,
                terms.backed_off,
                terms.looked_up_in_vain
            )
            .fetch_all(pool)
            .await
        }
        Occasion::Answered => return answered(pool, place, most, except).await,
        Occasion::Turn => in_turn(pool, place, most, except).await,
        Occasion::Unfollowed => unfollowed(pool, place, most, except, terms).await,
        Occasion::Cap => {
            sqlx::query_file_as!(Row, "src/db/uncapped.sql", most, except, place.account)
                .fetch_all(pool)
                .await
        }
    };
    let rows = rows.task("find the jobs whose time has come")?;
    let is_full = match due {
        Occasion::Lease
        | Occasion::LeftOpen
        | Occasion::Answered
        | Occasion::Turn
        | Occasion::Unfollowed => is(rows.len(), most),
        Occasion::Expiry | Occasion::Release | Occasion::GoOn | Occasion::Cap => {
            *place = after(&rows, most);
            !place.is_at_start() || is_a_share_full(&rows)
        }
    };
    let jobs = rows.into_iter().filter_map(|row| {
        Some(DueJob {
            id: JobId(row.id),
            account: AccountName::parse(&row.account)?,
            state: State::parse(&row.state)?,
            epoch: row.epoch,
            version: row.version,
            wait: None,
        })
    });
    Ok(Found {
        jobs: jobs.collect(),
        is_full,
    })
}

/// Where the next look begins: after the last account, if there were so many of them that not each had its share.
fn after(rows: &[Row], most: i64) -> Cursor {
    let is_cut = |last: &&Row| last.share == 1 && is(rows.len(), most);
    let last = rows.last().filter(is_cut);
    last.map_or_else(Cursor::default, |last| Cursor {
        account: last.account.clone(),
        number: 0,
    })
}

/// Whether an account has so many that it may have more.
fn is_a_share_full(rows: &[Row]) -> bool {
    // Account by account, as they are read.
    let mut accounts = rows.chunk_by(|one, next| one.account == next.account);
    accounts.any(|jobs| jobs.first().is_some_and(|job| is(jobs.len(), job.share)))
}

fn is(len: usize, most: i64) -> bool {
    i64::try_from(len).is_ok_and(|len| len >= most)
}

/// Jobs that wait although a send of their account got a clear answer after their last try got none. Many of them may wait
/// rightly, so they are gone through account by account.
async fn answered(
    pool: &Pool,
    place: &mut Cursor,
    most: i64,
    except: &[i64],
) -> Result<Found, DbError> {
    let rows = sqlx::query!(
        r#"select p.id, p.account, p.state, p.epoch, p.version as "version!", p.updated_at, p.run_at,
                  a.unanswered_since as "unanswered_since!"
             from apipay.accounts a
             cross join lateral (
               select j.id, j.account, j.state, j.epoch, j.xmin::text as version, j.updated_at, j.run_at
                 from apipay.jobs j
                where j.account = a.name and j.failing_since <= a.answered_at
                  and j.state in ('queued', 'uncertain') and j.updated_at <= a.answered_at and j.run_at > now()
                  and j.id <> all ($2)
                order by j.failing_since limit $1) p
            where a.name > $3 and a.answered_at <= now() and a.unanswered_since <= p.updated_at
            order by a.name
            limit $1"#,
        most,
        except,
        place.account,
    )
    .fetch_all(pool)
    .await
    .task("find the jobs whose account was answered")?;
    let is_full = is(rows.len(), most);
    let last = rows.last().filter(|_| is_full);
    *place = last.map_or_else(Cursor::default, |last| Cursor {
        account: last.account.clone(),
        number: 0,
    });
    let jobs = rows.into_iter().filter_map(|row| {
        Some(DueJob {
            id: JobId(row.id),
            account: AccountName::parse(&row.account)?,
            state: State::parse(&row.state)?,
            epoch: row.epoch,
            version: row.version,
            wait: Some(Wait {
                unanswered_since: row.unanswered_since,
                failed_at: row.updated_at,
                due_at: row.run_at,
            }),
        })
    });
    Ok(Found {
        jobs: jobs.collect(),
        is_full,
    })
}

async fn in_turn(
    pool: &Pool,
    place: &mut Cursor,
    most: i64,
    except: &[i64],
) -> Result<Vec<Row>, sqlx::Error> {
    let mut invoices = sqlx::query_file!(
        "src/db/in_turn.sql",
        place.account,
        place.number,
        most,
        except
    )
    .fetch_all(pool)
    .await?;
    let last = invoices.last().filter(|last| last.nth == most);
    *place = last.map_or_else(Cursor::default, |last| Cursor {
        account: last.account.clone(),
        number: last.invoice_id,
    });
    let due = invoices.drain(..).filter_map(|invoice| {
        Some(Row {
            id: invoice.job?,
            account: invoice.account,
            state: State::Queued.to_string(),
            epoch: invoice.epoch?,
            version: invoice.version?,
            share: most,
        })
    });
    Ok(due.collect())
}

async fn unfollowed(
    pool: &Pool,
    place: &mut Cursor,
    most: i64,
    except: &[i64],
    terms: Terms<'_>,
) -> Result<Vec<Row>, sqlx::Error> {
    let mut jobs = sqlx::query_file!(
        "src/db/unfollowed.sql",
        place.account,
        place.number,
        most,
        except,
        terms.account_faults,
        terms.once_resumed.as_secs_f64()
    )
    .fetch_all(pool)
    .await?;
    let last = jobs.last().filter(|last| last.nth == most);
    *place = last.map_or_else(Cursor::default, |last| Cursor {
        account: last.account.clone(),
        number: last.id,
    });
    jobs.retain(|job| job.is_unfollowed);
    let due = jobs.into_iter().map(|job| Row {
        id: job.id,
        account: job.account,
        state: State::Accepted.to_string(),
        epoch: job.epoch,
        version: job.version,
        share: most,
    });
    Ok(due.collect())
}

/// Moves those of the jobs that [`find`] found whose time has still come and that nobody has locked, all
/// or none. Returns which.
pub async fn advance(
    pool: &Pool,
    due: Occasion,
    jobs: &[i64],
    terms: Terms<'_>,
) -> Result<Vec<i64>, DbError> {
    let moved = match due {
        Occasion::Lease => {
            sqlx::query_file_scalar!("src/db/recover.sql", terms.quiet.as_secs_f64(), jobs)
                .fetch_all(pool)
                .await
        }
        Occasion::LeftOpen => {
            sqlx::query_file_scalar!("src/db/left_open.sql", terms.quiet.as_secs_f64(), jobs)
                .fetch_all(pool)
                .await
        }
        Occasion::Expiry => {
            sqlx::query_file_scalar!("src/db/expire.sql", jobs)
                .fetch_all(pool)
                .await
        }
        Occasion::Release => {
            sqlx::query_file_scalar!("src/db/release.sql", jobs)
                .fetch_all(pool)
                .await
        }
        Occasion::GoOn => {
            sqlx::query_file_scalar!(
                "src/db/go_on.sql",
                jobs,
                terms.backed_off,
                terms.looked_up_in_vain
            )
            .fetch_all(pool)
            .await
        }
        Occasion::Answered => {
            sqlx::query_file_scalar!(
                "src/db/go_on_early.sql",
                jobs,
                terms.backed_off,
                terms.looked_up_in_vain
            )
            .fetch_all(pool)
            .await
        }
        Occasion::Turn | Occasion::Cap => {
            sqlx::query_file_scalar!("src/db/put_in_turn.sql", jobs)
                .fetch_all(pool)
                .await
        }
        Occasion::Unfollowed => {
            sqlx::query_file_scalar!(
                "src/db/follow_again.sql",
                jobs,
                ACCOUNT_PATIENCE_MS,
                terms.account_faults,
                terms.once_resumed.as_secs_f64()
            )
            .fetch_all(pool)
            .await
        }
    };
    moved.task("move the jobs whose time has come")
}
