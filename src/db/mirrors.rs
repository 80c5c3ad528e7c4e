//! Claiming what is to be looked at again: invoices and refunds that are not settled.

use std::collections::BTreeMap;
use std::time::Duration;

use rust_decimal::Decimal;
use time::OffsetDateTime;
use uuid::Uuid;

use super::claim::among_others;
use super::clock::SteadySecond;
use super::{ACCOUNT_PATIENCE_MS, DbError, Pool, Task};
use crate::domain::account::AccountName;
use crate::domain::job::{Epoch, History, JobId, JobName};
use crate::domain::object::{InvoiceStatus, RefundStatus};
use crate::domain::operation::Written;

/// A mirror that is due for a check, with the accepted jobs that wait for its object.
#[derive(Clone, Debug)]
pub struct DueMirror {
    /// The account.
    pub account: AccountName,
    /// The gateway's id of the invoice.
    pub invoice_id: i64,
    /// The gateway's id of the refund, when that is what is followed.
    pub refund_id: Option<i64>,
    /// The job that made the object, if it is still there.
    pub made_by: Option<i64>,
    /// Whether that job has come to its end, or waits for another invoice, without this one being its own.
    pub is_superseded: bool,
    /// The token of its job, if that may have other invoices that nobody has searched for yet.
    pub unsought_of: Option<Uuid>,
    /// How long there has been a mirror of it: what its job made before it is as old at least.
    pub mirrored_for: Duration,
    /// Whether it is no job's as far as is known, while a job of the account has ended unseen, whose it may be.
    pub may_be_unseens: bool,
    /// The status at the last check.
    pub status: String,
    /// The amount that was last shown, if any was.
    pub amount: Option<Decimal>,
    /// How long it has been that.
    pub unchanged_for: Duration,
    /// When the gateway last showed it; when the mirror was made, if it never did.
    pub last_shown: OffsetDateTime,
    /// How long its account has been active since it was last resumed; none while it is parked, or if it never was.
    pub resumed_for: Option<Duration>,
    /// The jobs that wait for it.
    pub waiting: Vec<AcceptedJob>,
    /// The database's clock.
    pub now: OffsetDateTime,
}

impl DueMirror {
    /// Whether it was seen failed.
    pub fn has_failed(&self) -> bool {
        let failed = match self.refund_id {
            Some(_) => RefundStatus::Failed.as_str(),
            None => InvoiceStatus::Error.as_str(),
        };
        self.status == failed
    }
}

/// An accepted job that waits for an object.
#[derive(Clone, Debug)]
pub struct AcceptedJob {
    /// The job.
    pub id: JobId,
    /// Its fence.
    pub epoch: Epoch,
    /// The name of its operation.
    pub operation: String,
    /// Its params, unread.
    pub params: Written,
    /// Its name at the gateway.
    pub name: JobName,
    /// What already happened to it.
    pub history: History,
    /// How long it has been accepted.
    pub accepted_for: Duration,
}

struct DueRow {
    account: String,
    invoice_id: i64,
    refund_id: Option<i64>,
    made_by: Option<i64>,
    is_superseded: bool,
    unsought_of: Option<Uuid>,
    mirrored_for_s: f64,
    may_be_unseens: bool,
    status: String,
    amount: Option<Decimal>,
    unchanged_for_s: f64,
    last_shown: OffsetDateTime,
    now: OffsetDateTime,
    job_id: Option<i64>,
    operation: Option<String>,
    params: Option<Vec<u8>>,
    token: Option<Uuid>,
    generation: Option<i16>,
    spared: Option<i16>,
    epoch: Option<i64>,
    attempts: Option<i32>,
    accepted_for_s: Option<f64>,
    resumed_for_s: Option<f64>,
}

impl DueRow {
    fn waiting(&mut self) -> Option<AcceptedJob> {
        let generation = self.generation?;
        Some(AcceptedJob {
            id: JobId(self.job_id?),
            epoch: Epoch(self.epoch?),
            operation: self.operation.take()?,
            params: among_others(self.params.take()),
            name: JobName {
                token: self.token?,
                generation,
            },
            history: History {
                attempts: u32::try_from(self.attempts?).unwrap_or(0),
                generation,
                spared: self
                    .spared
                    .and_then(|spared| u32::try_from(spared).ok())
                    .unwrap_or(0),
                unproven_since: None,
                absent_since: None,
                lookups: 0,
                failing_since: None,
                is_sent_no_more: false,
                is_target_known: true,
                sent_at: None,
                is_repeated: false,
                denied_since: None,
                invoice_id: Some(self.invoice_id),
                is_key_taken: false,
            },
            accepted_for: Duration::try_from_secs_f64(self.accepted_for_s?).unwrap_or_default(),
        })
    }
}

/// One mirror for each object, its waiting jobs gathered.
fn gather(rows: Vec<DueRow>) -> Vec<DueMirror> {
    let mut due: BTreeMap<(String, i64, Option<i64>), DueMirror> = BTreeMap::new();
    for mut row in rows {
        let waiting = row.waiting();
        let Some(account) = AccountName::parse(&row.account) else {
            continue;
        };
        due.entry((row.account, row.invoice_id, row.refund_id))
            .or_insert_with(|| DueMirror {
                account,
                invoice_id: row.invoice_id,
                refund_id: row.refund_id,
                made_by: row.made_by,
                is_superseded: row.is_superseded,
                unsought_of: row.unsought_of,
                mirrored_for: Duration::try_from_secs_f64(row.mirrored_for_s).unwrap_or_default(),
                may_be_unseens: row.may_be_unseens,
                status: row.status,
                amount: row.amount,
                unchanged_for: Duration::try_from_secs_f64(row.unchanged_for_s).unwrap_or_default(),
                last_shown: row.last_shown,
                resumed_for: row
                    .resumed_for_s
                    .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
                waiting: Vec::new(),
                now: row.now,
            })
            .waiting
            .extend(waiting);
    }
    due.into_values().collect()
}

/// What a mirror is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MirrorKind {
    /// An invoice.
    Invoice,
    /// A refund.
    Refund,
}

/// A mirror, by the object that it is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mirror {
    /// What it is of.
    pub kind: MirrorKind,
    /// The account.
    pub account: AccountName,
    /// The gateway's id of the object.
    pub id: i64,
    /// The gateway's id of the invoice: the same, of an invoice.
    pub invoice_id: i64,
}

impl Mirror {
    /// What it is called among others of its kind.
    pub fn key(&self) -> String {
        format!("{} {}", self.account, self.id)
    }
}

/// Which mirrors a claim looks at, by their keys.
#[derive(Clone, Debug, Default)]
pub struct AmongMirrors {
    /// Not at these.
    pub without: Vec<String>,
    /// At none but these.
    pub only: Option<Vec<String>>,
}

/// The mirrors that a claim would begin with, of all accounts together: those due soonest, but for those left out.
/// Nothing is changed or locked.
pub async fn due_soonest(
    pool: &Pool,
    kind: MirrorKind,
    accounts: &[String],
    without: &[String],
) -> Result<Vec<Mirror>, DbError> {
    let rows = sqlx::query!(
        r#"select d.account as "account!", d.id as "id!", d.invoice_id as "invoice_id!"
             from unnest($1::text[]) as a(name)
             cross join lateral (
               (select m.account, m.id, m.id as invoice_id, m.next_check_at from apipay.invoices m
                 where not $2 and m.account = a.name and not m.settled and m.account || ' ' || m.id <> all ($3::text[])
                 order by m.next_check_at limit 100)
               union all
               (select m.account, m.id, m.invoice_id, m.next_check_at from apipay.refunds m
                 where $2 and m.account = a.name and not m.settled and m.account || ' ' || m.id <> all ($3)
                 order by m.next_check_at limit 100)) d
            order by d.next_check_at, d.account, d.id
            limit 2000"#,
        accounts,
        kind == MirrorKind::Refund,
        without,
    )
    .fetch_all(pool)
    .await
    .task("list the mirrors that are due soonest")?;
    let mirrors = rows.into_iter().filter_map(|row| {
        Some(Mirror {
            kind,
            account: AccountName::parse(&row.account)?,
            id: row.id,
            invoice_id: row.invoice_id,
        })
    });
    Ok(mirrors.collect())
}

/// How long a claim waits for what a trigger of the shop's waits for.
const CLAIM_PATIENCE_MS: &str = "1000";

/// Claims the next checks of accounts whose turn it is, each with its quota: of an account up to
/// `per_check` invoices, those due soonest, if at least one of them is due. Until `lease` is over, or
/// [`end_check`] says when, no other worker makes a check of that account.
pub async fn claim_invoices(
    pool: &Pool,
    accounts: &[String],
    per_check: usize,
    lease: Duration,
    second: SteadySecond,
    checks: usize,
    among: AmongMirrors,
) -> Result<Vec<DueMirror>, DbError> {
    sqlx::query_file_as!(
        DueRow,
        "src/db/claim_invoices.sql",
        accounts,
        i64::try_from(per_check).unwrap_or(i64::MAX),
        lease.as_secs_f64(),
        second.0,
        i64::try_from(checks).unwrap_or(i64::MAX),
        &among.without,
        among.only.as_deref() as Option<&[String]>,
        CLAIM_PATIENCE_MS,
    )
    .fetch_all(pool)
    .await
    .task("claim invoices to check")
    .map(gather)
}

/// Makes mirrors that were claimed due again, now or after a while: nobody was asked about them.
pub async fn put_back(
    pool: &Pool,
    account: &AccountName,
    due: &[DueMirror],
    after: Duration,
) -> Result<(), DbError> {
    let invoices: Vec<i64> = due
        .iter()
        .filter(|mirror| mirror.refund_id.is_none())
        .map(|mirror| mirror.invoice_id)
        .collect();
    let refunds: Vec<i64> = due.iter().filter_map(|mirror| mirror.refund_id).collect();
    sqlx::query!(
        "with patience as materialized (select set_config('lock_timeout', $4, true)),
         invoice as (
           update apipay.invoices set next_check_at = now() + make_interval(secs => $5) from patience
            where account = $1 and id = any ($2) and not settled)
         update apipay.refunds set next_check_at = now() + make_interval(secs => $5) from patience
          where account = $1 and id = any ($3) and not settled",
        account.as_str(),
        &invoices,
        &refunds,
        ACCOUNT_PATIENCE_MS,
        after.as_secs_f64(),
    )
    .execute(pool)
    .await
    .task("put back what was to be checked")
    .map(|_| ())
}

/// The invoices that a job has made so far, the newest first; of very many those.
pub async fn of_job(
    pool: &Pool,
    account: &AccountName,
    job: JobId,
    token: Uuid,
    most: usize,
) -> Result<Vec<i64>, DbError> {
    sqlx::query_scalar!(
        "select m.id from (select id, account from apipay.invoices where job_id = $1 and job_token = $2 offset 0) m
          where m.account = $3 order by m.id desc limit $4",
        job.0,
        token,
        account.as_str(),
        i64::try_from(most).unwrap_or(i64::MAX),
    )
    .fetch_all(pool)
    .await
    .task("find the invoices of a job")
}

/// The other invoices of an invoice's job were searched for: it is followed no longer than any.
pub async fn end_search(pool: &Pool, account: &AccountName, invoice: i64) -> Result<(), DbError> {
    sqlx::query!(
        "update apipay.invoices set others_unsought = false where account = $1 and id = $2",
        account.as_str(),
        invoice,
    )
    .execute(pool)
    .await
    .task("note that the other invoices of a job were searched for")
    .map(|_| ())
}

/// Takes the turn of an account's next check, with its quota: until `lease` is over, or [`end_check`] says when, no
/// other worker makes one. False when it is not the turn of another one.
pub async fn take_check(
    pool: &Pool,
    account: &AccountName,
    lease: Duration,
    second: SteadySecond,
) -> Result<bool, DbError> {
    sqlx::query_scalar!(
        r#"select apipay._take_check($1, make_interval(secs => $2), $3) as "is_ours!""#,
        account.as_str(),
        lease.as_secs_f64(),
        second.0,
    )
    .fetch_one(pool)
    .await
    .task("take the turn of a check")
}

/// The check of an account is no longer under way; the next one may begin after so long.
pub async fn end_check(
    pool: &Pool,
    account: &AccountName,
    distance: Duration,
) -> Result<(), DbError> {
    sqlx::query!(
        "select apipay._end_check($1, make_interval(secs => $2))::text",
        account.as_str(),
        distance.as_secs_f64(),
    )
    .fetch_one(pool)
    .await
    .task("end a check of invoices")
    .map(|_| ())
}

/// Claims refunds that are due, with quota for one request per invoice; until `lease` is over no
/// other worker does.
pub async fn claim_refunds(
    pool: &Pool,
    accounts: &[String],
    most_per_account: usize,
    lease: Duration,
    second: SteadySecond,
    among: AmongMirrors,
) -> Result<Vec<DueMirror>, DbError> {
    sqlx::query_file_as!(
        DueRow,
        "src/db/claim_refunds.sql",
        accounts,
        i64::try_from(most_per_account).unwrap_or(i64::MAX),
        lease.as_secs_f64(),
        second.0,
        &among.without,
        among.only.as_deref() as Option<&[String]>,
        CLAIM_PATIENCE_MS,
    )
    .fetch_all(pool)
    .await
    .task("claim refunds to check")
    .map(gather)
}
