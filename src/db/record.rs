//! Recording decisions: guarded by state and epoch, a batch in one statement.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::entry::{Entry, InvoiceRow, Key, RefundRow, Transition};
use super::fate::{Fates, Recorded, Results, why_unmoved};
use super::{DbError, Pool, Task, soundness};
use crate::domain::job::{Epoch, JobId};

/// Records a batch in one statement and tells for each entry with a transition what became of it. All of
/// it or nothing; nobody's lock is waited for longer than `patience`. Of several moves of one job the last one counts.
pub async fn record(
    pool: &Pool,
    entries: &[&Entry],
    patience: Duration,
) -> Result<Results, DbError> {
    let moves = entries.iter().filter_map(|entry| entry.transition.as_ref());
    let transitions = last_of_each(moves);
    let owners = disputes(&transitions);
    let is_taken = |token: Option<Uuid>| token.is_some_and(|token| owners.contains_key(&token));
    let rows = sqlx::query_file!(
        "src/db/record.sql",
        json(&with_owners(&transitions, &owners))?,
        json(&newest_of_each(
            (entries.iter().flat_map(|entry| &entry.invoices)).filter(|row| !is_taken(row.token)),
            |row| ((row.account.as_str(), row.id), row.seen_at)
        ))?,
        json(&newest_of_each(
            (entries.iter().filter_map(|entry| entry.refund.as_ref()))
                .filter(|row| !is_taken(row.token)),
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
        let fate = if row.is_anothers {
            Recorded::NotBelieved
        } else {
            Recorded::Moved
        };
        (key, fate)
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

/// The account, and an invoice or else a refund of it.
type Taken<'a> = (&'a str, Option<i64>, Option<i64>);

/// Of several jobs of a batch that take the same object one has it: who can show that it is their own, or else the first.
/// Returns of the others, by their tokens, which job that is.
fn disputes(transitions: &[&Transition]) -> HashMap<Uuid, i64> {
    let mut taken: HashMap<Taken<'_>, Vec<&Transition>> = HashMap::new();
    for &transition in transitions.iter().filter(|t| t.takes_object()) {
        let invoice = match transition.refund_id {
            Some(_) => None,
            None => transition.invoice_id,
        };
        let key = (transition.account.as_str(), invoice, transition.refund_id);
        taken.entry(key).or_default().push(transition);
    }
    let mut owners = HashMap::new();
    for jobs in taken.into_values().filter(|jobs| jobs.len() > 1) {
        let Some(owner) = jobs.iter().find(|t| t.is_named()).or(jobs.first()) else {
            continue;
        };
        let others = jobs.iter().filter(|t| t.token != owner.token);
        owners.extend(others.map(|t| (t.token, owner.job_id)));
    }
    owners
}

fn with_owners<'a>(
    transitions: &[&'a Transition],
    owners: &HashMap<Uuid, i64>,
) -> Vec<Cow<'a, Transition>> {
    let with_owner = |transition: &&'a Transition| match owners.get(&transition.token) {
        None => Cow::Borrowed(*transition),
        Some(&owner) => Cow::Owned(Transition {
            owner: Some(owner),
            ..(*transition).clone()
        }),
    };
    transitions.iter().map(with_owner).collect()
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
    let bare_invoices = entry.invoices.iter().cloned().map(|row| InvoiceRow {
        external_order_id: None,
        kaspi_invoice_id: None,
        error_message: None,
        ..row
    });
    let bare = Entry {
        transition: entry.transition.as_ref().map(Transition::without_answer),
        invoices: bare_invoices.collect(),
        refund: entry.refund.clone().map(|row| RefundRow {
            external_order_id: None,
            reason: None,
            error_message: None,
            ..row
        }),
    };
    record(pool, &[&bare], patience).await
}

/// One statement must not touch a row twice: of several moves of a job, as an accepted one may have that was seen twice,
/// the last one counts.
fn last_of_each<'a>(moves: impl Iterator<Item = &'a Transition>) -> Vec<&'a Transition> {
    let mut last: HashMap<Key, &Transition> = HashMap::new();
    for transition in moves {
        last.insert(transition.key(), transition);
    }
    last.into_values().collect()
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
