//! Recording decisions: guarded by state and epoch, a batch in one statement.

use std::collections::HashMap;
use std::time::Duration;

use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::clock::SteadySecond;
use super::fate::{Fates, Key, Recorded, Results, why_unmoved};
use super::{ACCOUNT_PATIENCE_MS, DbError, Pool, Task, soundness};
use crate::domain::account::AccountName;
use crate::domain::job::{Epoch, JobId};
use crate::domain::state::State;

/// A job's move from one state to the next, with the evidence of the attempt that caused it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Transition {
    /// The job's number.
    pub job_id: i64,
    /// The job's token: numbers come again after commits that were lost.
    pub token: Uuid,
    /// The job's account.
    pub account: String,
    /// Who claimed it; none for an accepted job, which nobody claims.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<Uuid>,
    /// The epoch that the decision was made for.
    pub epoch: i64,
    /// The state that the decision was made for.
    pub from_state: State,
    /// `send` or `lookup`, when an attempt is to be closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// What the request did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<&'static str>,
    /// HTTP status of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<i16>,
    /// The gateway's code, or the fault's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// The gateway's text, or what happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Errors by field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<Value>,
    /// The wait that the gateway asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<f64>,
    /// The bounded body of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<Value>,
    /// Method, path and body of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Value>,
    /// SHA-256 of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_sha256: Option<String>,
    /// How long the request took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<i32>,
    /// The state to move to.
    pub state: State,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// Not before this many seconds from now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_s: Option<f64>,
    /// Counts against the limit of attempts.
    #[serde(skip_serializing_if = "is_false")]
    pub counts: bool,
    /// The request may have had its effect.
    #[serde(skip_serializing_if = "is_false")]
    pub unproven: bool,
    /// Every request so far is proven to have had none.
    #[serde(skip_serializing_if = "is_false")]
    pub proven: bool,
    /// A complete look-up found nothing.
    #[serde(skip_serializing_if = "is_false")]
    pub absent: bool,
    /// The request got no clear answer.
    #[serde(skip_serializing_if = "is_false")]
    pub failing: bool,
    /// The send got a clear answer.
    #[serde(skip_serializing_if = "is_false")]
    pub answered: bool,
    /// The attempt's answer says nothing of why the job is where it is: its last answer stays.
    #[serde(skip_serializing_if = "is_false")]
    pub keeps_cause: bool,
    /// Begins a new generation.
    #[serde(skip_serializing_if = "is_false")]
    pub anew: bool,
    /// The generation that died does not count against the limit.
    #[serde(skip_serializing_if = "is_false")]
    pub spared: bool,
    /// The gateway's id of the invoice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invoice_id: Option<i64>,
    /// The gateway's id of the refund.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refund_id: Option<i64>,
    /// The gateway's object, when succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl Transition {
    /// Which one it is.
    pub fn key(&self) -> Key {
        (JobId(self.job_id), Epoch(self.epoch), self.token)
    }

    /// Without what the gateway wrote, for a database that cannot store it.
    fn without_answer(&self) -> Transition {
        Transition {
            answer: None,
            result: None,
            errors: None,
            retry_after_s: None,
            message: Some("the database cannot store what the gateway wrote".to_owned()),
            ..self.clone()
        }
    }
}

/// An invoice as last seen, for its mirror.
#[derive(Clone, Debug, Serialize)]
pub struct InvoiceRow {
    /// The account.
    pub account: String,
    /// The fingerprint of the key to which the gateway showed it.
    pub shown_to: String,
    /// The gateway's id.
    pub id: i64,
    /// When the gateway showed it so, by the database's clock; what it showed later stays.
    #[serde(with = "time::serde::rfc3339")]
    pub seen_at: OffsetDateTime,
    /// The job that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<i64>,
    /// That job's token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Uuid>,
    /// Its status.
    pub status: String,
    /// Amount in tenge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount: Option<Decimal>,
    /// Refunded so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_refunded: Option<Decimal>,
    /// The merchant's order id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_order_id: Option<String>,
    /// Kaspi's own id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kaspi_invoice_id: Option<String>,
    /// Why it is in error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// The text for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    /// Whether it exists in the sandbox only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_sandbox: Option<bool>,
    /// When the gateway created it.
    #[serde(
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub created_at: Option<OffsetDateTime>,
    /// When the gateway last changed it.
    #[serde(
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub updated_at: Option<OffsetDateTime>,
    /// When it was paid, if the gateway says.
    #[serde(
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub paid_at: Option<OffsetDateTime>,
    /// Whether it is paid.
    pub paid: bool,
    /// When to look again, in seconds.
    pub check_after_s: f64,
    /// No longer followed.
    pub settled: bool,
}

/// A refund as last seen, for its mirror.
#[derive(Clone, Debug, Serialize)]
pub struct RefundRow {
    /// The account.
    pub account: String,
    /// The gateway's id.
    pub id: i64,
    /// When the gateway showed it so, by the database's clock; what it showed later stays.
    #[serde(with = "time::serde::rfc3339")]
    pub seen_at: OffsetDateTime,
    /// The job that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<i64>,
    /// That job's token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Uuid>,
    /// The refunded invoice.
    pub invoice_id: i64,
    /// Its status.
    pub status: String,
    /// Amount in tenge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount: Option<Decimal>,
    /// The order id of its invoice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_order_id: Option<String>,
    /// The reason as the gateway has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// The text for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    /// When the gateway created it.
    #[serde(
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub created_at: Option<OffsetDateTime>,
    /// When to look again, in seconds.
    pub check_after_s: f64,
    /// No longer followed.
    pub settled: bool,
}

/// Everything that one decision makes true; recorded whole or not at all.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// The job's move.
    pub transition: Option<Transition>,
    /// The invoice that was seen.
    pub invoice: Option<InvoiceRow>,
    /// The refund that was seen.
    pub refund: Option<RefundRow>,
    /// The second whose quota was taken for a request of which no byte left.
    pub unspent: Option<SteadySecond>,
}

/// Records a batch in one statement and tells for each entry with a transition what became of it. All of
/// it or nothing; nobody's lock is waited for longer than `patience`.
pub async fn record(
    pool: &Pool,
    entries: &[&Entry],
    patience: Duration,
) -> Result<Results, DbError> {
    let transitions: Vec<&Transition> = entries
        .iter()
        .filter_map(|entry| entry.transition.as_ref())
        .collect();
    let rows = sqlx::query_file!(
        "src/db/record.sql",
        json(&transitions)?,
        json(&newest_of_each(
            entries.iter().filter_map(|entry| entry.invoice.as_ref()),
            |row| ((row.account.as_str(), row.id), row.seen_at)
        ))?,
        json(&newest_of_each(
            entries.iter().filter_map(|entry| entry.refund.as_ref()),
            |row| ((row.account.as_str(), row.id), row.seen_at)
        ))?,
        patience.as_millis().to_string(),
    )
    .fetch_all(pool)
    .await
    .task("record outcomes")?;
    let may_end_waits = rows.iter().any(|row| row.may_be_waited_for);
    let moved = rows.into_iter().map(|row| {
        let key = (JobId(row.id), Epoch(row.epoch), row.token);
        (key, Recorded::Moved)
    });
    let mut fates: Fates = moved.collect();
    let unmoved: Vec<&Transition> = transitions
        .iter()
        .copied()
        .filter(|transition| !fates.contains_key(&transition.key()))
        .collect();
    if !unmoved.is_empty() {
        fates.extend(why_unmoved(pool, &unmoved).await?);
    }
    Ok(Results {
        fates,
        may_end_waits,
    })
}

/// What may have swallowed a change of a job, as an error of its row: the triggers before an update that are not ours.
pub async fn swallowed(pool: &Pool) -> Result<DbError, DbError> {
    let triggers = soundness::foreign_triggers(pool).await?;
    let triggers = triggers.iter().filter(|it| it.relation == "apipay.jobs");
    let names: Vec<&str> = triggers.map(|it| it.name.as_str()).collect();
    Ok(DbError::swallowed("record outcomes", &names))
}

/// Records an entry that the database refused as it was: without the gateway's own words, which are
/// the only part of it that we did not make.
pub async fn record_without_answer(
    pool: &Pool,
    entry: &Entry,
    patience: Duration,
) -> Result<Results, DbError> {
    let bare = Entry {
        transition: entry.transition.as_ref().map(Transition::without_answer),
        invoice: entry.invoice.clone().map(|row| InvoiceRow {
            external_order_id: None,
            kaspi_invoice_id: None,
            error_message: None,
            ..row
        }),
        refund: entry.refund.clone().map(|row| RefundRow {
            external_order_id: None,
            reason: None,
            error_message: None,
            ..row
        }),
        unspent: None,
    };
    record(pool, &[&bare], patience).await
}

/// One statement must not touch a row twice: of several sightings the newest stays, of those of one moment the last.
fn newest_of_each<'a, T, K: std::hash::Hash + Eq>(
    rows: impl Iterator<Item = &'a T>,
    key: impl Fn(&'a T) -> (K, OffsetDateTime),
) -> Vec<&'a T> {
    let mut newest: HashMap<K, (OffsetDateTime, &'a T)> = HashMap::new();
    for row in rows {
        let (key, seen_at) = key(row);
        match newest.get(&key) {
            Some((known, _)) if *known > seen_at => {}
            _ => drop(newest.insert(key, (seen_at, row))),
        }
    }
    newest.into_values().map(|(_, row)| row).collect()
}

/// JSON for a parameter, without the one character that Postgres cannot store.
fn json(rows: &impl Serialize) -> Result<String, DbError> {
    let text = serde_json::to_string(rows)
        .map_err(|error| sqlx::Error::Encode(error.into()))
        .task("encode outcomes")?;
    Ok(if text.contains("\\u0000") {
        without_nul(&text)?
    } else {
        text
    })
}

fn without_nul(text: &str) -> Result<String, DbError> {
    let mut value: Value = serde_json::from_str(text)
        .map_err(|error| sqlx::Error::Encode(error.into()))
        .task("encode outcomes")?;
    remove_nul(&mut value);
    Ok(value.to_string())
}

fn remove_nul(value: &mut Value) {
    match value {
        Value::String(text) if text.contains('\0') => *text = text.replace('\0', "\u{fffd}"),
        Value::Array(items) => items.iter_mut().for_each(remove_nul),
        Value::Object(fields) => {
            if fields.keys().any(|key| key.contains('\0')) {
                *fields = std::mem::take(fields)
                    .into_iter()
                    .map(|(key, item)| (key.replace('\0', "\u{fffd}"), item))
                    .collect();
            }
            fields.values_mut().for_each(remove_nul);
        }
        _ => {}
    }
}

/// Gives back quota that was taken for requests of which no byte left: the second in which it was, of each.
pub async fn return_quota(
    pool: &Pool,
    account: &AccountName,
    taken: &[SteadySecond],
    second: SteadySecond,
) -> Result<(), DbError> {
    let taken: Vec<i64> = taken.iter().map(|taken| taken.0).collect();
    sqlx::query!(
        "with patience as materialized (select set_config('lock_timeout', $4, true))
         select apipay._return_quota($1, $2, $3)::text from patience",
        account.as_str(),
        &taken,
        second.0,
        ACCOUNT_PATIENCE_MS,
    )
    .fetch_one(pool)
    .await
    .task("return quota")
    .map(|_| ())
}

/// Counts as used what the gateway says is no longer there: until it is reset, or, when that is not
/// known, less and less of it over the next minute.
pub async fn correct_quota(
    pool: &Pool,
    account: &AccountName,
    remaining: u32,
    resets_after: Option<Duration>,
    second: SteadySecond,
) -> Result<(), DbError> {
    let resets_after_s =
        resets_after.map(|time| i32::try_from(time.as_secs() + 1).unwrap_or(i32::MAX));
    sqlx::query!(
        "with patience as materialized (select set_config('lock_timeout', $5, true))
         select apipay._correct_quota($1, $2, $3, $4)::text from patience",
        account.as_str(),
        i32::try_from(remaining).unwrap_or(i32::MAX),
        resets_after_s,
        second.0,
        ACCOUNT_PATIENCE_MS,
    )
    .fetch_one(pool)
    .await
    .task("correct the quota")
    .map(|_| ())
}
