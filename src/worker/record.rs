//! Makes a batch of outcomes true in one statement, or divides it until what the database does not take
//! stands alone.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, warn};

use crate::crash::{self, Point};
use crate::db::DbError;
use crate::db::entry::{Entry, Key};
use crate::db::fate::Forgotten;
use crate::db::fate::{Recorded, Results};
use crate::db::fault::AtFault;
use crate::db::locks::{self, Locked};
use crate::db::record;
use crate::domain::job::JobId;
use crate::telemetry::Chain;
use crate::worker::context::Context;
use crate::worker::quotas;
use crate::worker::recorder::Message;
use crate::worker::recorder::insist::{Patient, insist};
use crate::worker::set_aside::SetAside;

/// How long a batch waits for somebody else's lock: short, for the others in it wait with the one.
const BATCH_PATIENCE: Duration = Duration::from_millis(300);

/// The same for a part of a batch that is known to hold something that is locked or refused.
pub const PART_PATIENCE: Duration = Duration::from_millis(100);

/// Outcomes that the database did not take together, although it is well.
#[derive(Debug)]
pub struct NotTaken {
    messages: Vec<Message>,
    error: DbError,
    /// Those of them whose job somebody has locked.
    locked: Vec<JobId>,
}

/// Records a batch; waits while it is the database that fails.
pub async fn batch(ctx: &Arc<Context>, messages: Vec<Message>) -> Result<(), NotTaken> {
    crash::reach(Point::BeforeRecord);
    let done = part(ctx, messages, BATCH_PATIENCE).await;
    if done.is_ok() {
        crash::reach(Point::AfterRecord);
    }
    done
}

/// Records outcomes in one statement, which waits so long for somebody else's lock; waits while it is the
/// database that fails.
pub async fn part(
    ctx: &Arc<Context>,
    mut messages: Vec<Message>,
    patience: Duration,
) -> Result<(), NotTaken> {
    // Those whose account was told of them first come later than they were seen.
    messages.sort_by_key(|message| message.number);
    let entries: Vec<&Entry> = messages.iter().map(|m| &m.outcome.entry).collect();
    let mut patient = Patient::new(&ctx.recorder, "record outcomes");
    let (error, locked) = loop {
        let run = || record::record(&ctx.pool, &entries, patience);
        let error = match insist(&ctx.recorder, "record outcomes", run).await {
            Ok(results) => {
                let swallowed = conclude(ctx, messages, &results);
                return refuse_swallowed(ctx, swallowed).await;
            }
            Err(error) if error.fault() != AtFault::Lock => break (error, Vec::new()),
            Err(error) => error,
        };
        let jobs: Vec<i64> = entries
            .iter()
            .filter_map(|entry| entry.transition.as_ref().map(|t| t.job_id))
            .collect();
        let look = || locks::among(&ctx.pool, &jobs, patience);
        match insist(&ctx.recorder, "see what is locked", look).await {
            Ok(Locked::Jobs(jobs)) => break (error, jobs),
            // Whoever locks a table stops everybody, as a database that is away does.
            Ok(Locked::Table) => patient.wait(&error).await,
            Err(_) => break (error, Vec::new()),
        }
    };
    Err(NotTaken {
        messages,
        error,
        locked,
    })
}

/// Records what can be recorded of a batch that was refused as a whole, the largest parts first. Returns the outcomes
/// that were refused alone. `in_vain`, if given, is how many statements may fail; each that succeeds allows one more
/// failure. When none is left, the remaining outcomes are set aside undivided.
pub async fn divide(
    ctx: &Arc<Context>,
    refused: NotTaken,
    mut in_vain: Option<u32>,
) -> Vec<SetAside> {
    let mut aside = Vec::new();
    let mut parts = VecDeque::from([refused]);
    while let Some(refused) = parts.pop_front() {
        if in_vain == Some(0) {
            let NotTaken {
                messages, error, ..
            } = refused;
            let left = messages.into_iter();
            aside.extend(left.filter_map(|message| SetAside::new(&ctx.recorder, message, &error)));
            continue;
        }
        for group in apart(ctx, refused, &mut aside).await {
            let again = part(ctx, group, PART_PATIENCE).await.err();
            in_vain = in_vain.map(|left| match again {
                Some(_) => left.saturating_sub(1),
                None => left + 1,
            });
            parts.extend(again);
        }
    }
    aside
}

/// The parts to try next. Sets aside what stands alone.
async fn apart(
    ctx: &Arc<Context>,
    refused: NotTaken,
    aside: &mut Vec<SetAside>,
) -> Vec<Vec<Message>> {
    let NotTaken {
        mut messages,
        error,
        locked,
    } = refused;
    if !locked.is_empty() {
        let is_locked = |message: &Message| {
            let transition = message.outcome.entry.transition.as_ref();
            transition.is_some_and(|t| locked.contains(&JobId(t.job_id)))
        };
        let (held, free): (Vec<_>, Vec<_>) = messages.into_iter().partition(is_locked);
        aside.extend(
            held.into_iter()
                .filter_map(|message| SetAside::new(&ctx.recorder, message, &error)),
        );
        return if free.is_empty() {
            Vec::new()
        } else {
            vec![free]
        };
    }
    if messages.len() > 1 {
        let rest = messages.split_off(messages.len() / 2);
        return vec![messages, rest];
    }
    if let Some(message) = messages.pop()
        && let Some(message) = without_words(ctx, message, &error).await
    {
        let entry = &message.outcome.entry;
        // A lock that is held for a moment is told to nobody: what was seen is seen again.
        if entry.transition.is_none() && error.fault() != AtFault::Lock {
            ctx.unstored
                .refuse_seen(
                    &ctx.pool,
                    &ctx.wake,
                    &message.outcome.account,
                    entry,
                    &error.cause(),
                )
                .await;
        }
        aside.extend(SetAside::new(&ctx.recorder, message, &error));
    }
    Vec::new()
}

/// Records an outcome without what the gateway wrote, when that is what the database cannot store.
/// Returns the outcome if it was not recorded.
async fn without_words(ctx: &Arc<Context>, message: Message, error: &DbError) -> Option<Message> {
    if error.fault() != AtFault::Words {
        return Some(message);
    }
    let run = || record::record_without_answer(&ctx.pool, &message.outcome.entry, PART_PATIENCE);
    match insist(&ctx.recorder, "record an outcome", run).await {
        Ok(results) => {
            warn!(error = %Chain(error), "an outcome could not be stored as it was; it is stored without the gateway's words");
            conclude(ctx, vec![message], &results).pop()
        }
        Err(_) => Some(message),
    }
}

/// Outcomes that a trigger swallows are refused by their rows, like those that one raises for.
async fn refuse_swallowed(ctx: &Arc<Context>, messages: Vec<Message>) -> Result<(), NotTaken> {
    if messages.is_empty() {
        return Ok(());
    }
    let look = || record::swallowed(&ctx.pool);
    let error = match insist(&ctx.recorder, "see what swallows an outcome", look).await {
        Ok(swallowed) => swallowed,
        Err(error) => error,
    };
    Err(NotTaken {
        messages,
        error,
        locked: Vec::new(),
    })
}

/// Of each job that they move the number of the last outcome that does: no other was recorded.
fn last_moves(messages: &[Message]) -> HashMap<Key, u64> {
    let mut last: HashMap<Key, u64> = HashMap::new();
    for message in messages {
        if let Some(transition) = &message.outcome.entry.transition {
            let number = last.entry(transition.key()).or_default();
            *number = message.number.max(*number);
        }
    }
    last
}

/// What was recorded is told to those who wait for it, and then to the accounts. Returns what was swallowed.
fn conclude(ctx: &Arc<Context>, messages: Vec<Message>, results: &Results) -> Vec<Message> {
    let is_swallowed = |message: &Message| {
        let transition = message.outcome.entry.transition.as_ref();
        let fate = transition.and_then(|transition| results.fates.get(&transition.key()));
        fate == Some(&Recorded::Swallowed)
    };
    let (swallowed, mut messages): (Vec<_>, Vec<_>) = messages.into_iter().partition(is_swallowed);
    if results.may_end_waits {
        ctx.wake.recover.notify_one();
    }
    let last = last_moves(&messages);
    for message in &mut messages {
        ctx.unstored
            .stored(&message.outcome.account, &message.outcome.entry);
        let Some(transition) = &message.outcome.entry.transition else {
            message.tell(Recorded::Moved);
            continue;
        };
        if last.get(&transition.key()) != Some(&message.number) {
            debug!(
                job.id = transition.job_id,
                "an outcome was not recorded: a later one of the same job came with it"
            );
            message.tell(Recorded::Stale);
            continue;
        }
        let recorded = results.fates.get(&transition.key()).copied();
        let recorded = recorded.unwrap_or(Recorded::Stale);
        match recorded {
            Recorded::Moved | Recorded::Waiting | Recorded::Swallowed => {}
            Recorded::NotBelieved => {
                warn!(
                    job.id = transition.job_id, account = %message.outcome.account,
                    "the gateway showed an object as this job's that is another job's here; it is not believed"
                );
            }
            Recorded::Stale => {
                warn!(
                    job.id = transition.job_id,
                    job.epoch = transition.epoch,
                    "a stale outcome was refused: the job had moved on"
                );
            }
            Recorded::HistoryLost(lost) => {
                ctx.recorder.forget(Forgotten {
                    account: message.outcome.account.clone(),
                    job: transition.job_id,
                    epoch: transition.epoch,
                    lost,
                });
                ctx.wake.deliver.notify_one();
            }
        }
        message.tell(recorded);
    }
    quotas::correct(ctx, &messages);
    swallowed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::entry::Transition;
    use crate::domain::account::AccountName;
    use crate::worker::recorder::Outcome;

    #[test]
    fn of_two_moves_of_a_job_only_the_later_is_told_as_recorded() {
        let account = AccountName::parse("shop").unwrap();
        let message = |number: u64, job: Option<i64>| {
            let transition = job.map(|job_id| Transition {
                job_id,
                ..Transition::default()
            });
            let entry = Entry {
                transition,
                ..Entry::default()
            };
            Message::new(Outcome::plain(&account, entry), number, None)
        };
        let messages = [
            message(4, Some(7)),
            message(1, Some(8)),
            message(3, Some(7)),
            message(2, None),
        ];
        let mut last: Vec<(i64, u64)> = last_moves(&messages)
            .into_iter()
            .map(|((job, ..), number)| (job.0, number))
            .collect();
        last.sort_unstable();
        assert_eq!(last, [(7, 4), (8, 1)]);
    }
}
