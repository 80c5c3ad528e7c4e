//! Outcomes that the database does not take although it is well: a row that somebody keeps locked, a
//! trigger that raises. They wait in memory and are tried again, while everything else goes on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::crash::{self, Point};
use crate::db::entry::Key;
use crate::db::fault::AtFault;
use crate::db::locks::{self, Blocker, Holder, Locked};
use crate::domain::account::AccountName;
use crate::domain::job::JobId;
use crate::policy::refusals::{Pace, Part, Refusals, Tried};
use crate::policy::rules::Jitter;
use crate::worker::alerting::Alert;
use crate::worker::context::Context;
use crate::worker::jitter::jitter;
use crate::worker::open;
use crate::worker::record::{self, PART_PATIENCE};
use crate::worker::recorder::insist::finished;
use crate::worker::set_aside::{SetAside, Waited};

/// How often one of the outcomes that are refused for the same cause is tried again.
const PACE: Pace = Pace {
    initial: Duration::from_millis(250),
    apart: Duration::from_secs(2),
    longest: Duration::from_secs(10),
};

/// Outcomes that are tried together.
const TOGETHER: usize = 512;

/// How many retries may fail after a cause seems to be mended; each success allows one more.
const IN_VAIN: u32 = 16;

/// Alerts that one round of tries opens at the most.
const TOLD_MOST: usize = 12;

/// The outcomes that are set aside, and the one try that is under way. Of those that are refused for the same
/// cause one is tried, and with it the others ([`refusals`](crate::policy::refusals)); of those that are locked
/// all are looked at, which costs no more.
pub struct Aside {
    /// By their numbers.
    waiting: BTreeMap<u64, SetAside>,
    refusals: Refusals<u64>,
    trying: JoinSet<Attempt>,
    started: Instant,
    is_hurried: bool,
}

/// What became of outcomes that were tried together.
struct Attempt {
    part: Part<u64>,
    refused: Vec<SetAside>,
    took: Duration,
}

impl Default for Aside {
    fn default() -> Aside {
        Aside {
            waiting: BTreeMap::new(),
            refusals: Refusals::new(PACE),
            trying: JoinSet::new(),
            started: Instant::now(),
            is_hurried: false,
        }
    }
}

impl Aside {
    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.trying.is_empty()
    }

    /// Takes outcomes that were refused. Of a job that is followed the latest sight is enough: an earlier one
    /// that comes back from a try does not replace it.
    pub fn put(&mut self, refused: Vec<SetAside>) {
        self.take(refused, Duration::ZERO, jitter());
    }

    fn take(&mut self, refused: Vec<SetAside>, took: Duration, jitter: Jitter) {
        for mut new in refused {
            let is_repeated = |old: &SetAside| new.is_sight() && old.place.key == new.place.key;
            let repeated = self.waiting.values().find(|old| is_repeated(old));
            if let Some(number) = repeated.map(|old| old.message.number)
                && let Some(old) = self.waiting.remove(&number)
            {
                self.refusals.forget(number);
                self.refusals.forget(new.message.number);
                new = old.later(new);
            } else if new.tries == 1 {
                info!(
                    job.id = new.place.key.0.0,
                    sqlstate = new.cause.sqlstate,
                    cause = new.cause.message,
                    "the database does not take an outcome; it waits in memory, and nothing else does"
                );
            }
            let tried = Tried {
                now: self.started.elapsed(),
                took,
                jitter,
            };
            let number = new.message.number;
            self.refusals.refuse(number, &new.cause.case(), tried);
            self.waiting.insert(number, new);
        }
        if self.is_hurried {
            self.hurry();
        }
    }

    /// The daemon stops: what is left is tried once a second.
    pub fn hurry(&mut self) {
        self.is_hurried = true;
        let soon = self.started.elapsed() + Duration::from_secs(1);
        self.refusals.hurry(soon);
    }

    /// Waits for the next try to be due or done, and begins or ends it. Never ends while there is nothing
    /// to wait for. May be dropped and called again.
    pub async fn progress(&mut self, ctx: &Arc<Context>) {
        if let Some(done) = self.trying.join_next().await {
            if let Some(attempt) = finished(done) {
                self.conclude(attempt);
            }
            return;
        }
        match self.refusals.next_due() {
            Some(due) => sleep_until(self.started + due).await,
            None => std::future::pending().await,
        }
        let Some(part) = self.next_part() else {
            return;
        };
        let outcomes = part
            .rows
            .iter()
            .filter_map(|number| self.waiting.remove(number));
        let outcomes: Vec<SetAside> = outcomes.collect();
        let ctx = ctx.clone();
        self.trying.spawn(async move {
            let began = Instant::now();
            let refused = try_again(&ctx, outcomes).await;
            Attempt {
                part,
                refused,
                took: began.elapsed(),
            }
        });
    }

    /// What is tried next.
    fn next_part(&mut self) -> Option<Part<u64>> {
        let turn = self.refusals.due(self.started.elapsed(), 1).pop();
        let Some(number) = turn else {
            return self.refusals.hopeful(TOGETHER);
        };
        let is_locked = |outcome: &SetAside| outcome.fault == AtFault::Lock;
        Some(if self.waiting.get(&number).is_some_and(is_locked) {
            self.refusals.case(number, TOGETHER)
        } else {
            Part::alone(number)
        })
    }

    fn conclude(&mut self, attempt: Attempt) {
        let Attempt {
            mut part,
            refused,
            took,
        } = attempt;
        let is_refused: BTreeSet<u64> = refused.iter().map(|one| one.message.number).collect();
        part.rows.retain(|number| !is_refused.contains(number));
        if is_refused.is_empty() {
            let through = part.rows.clone();
            for number in &through {
                self.refusals.went_through(*number);
            }
            self.refusals.passed(part, &through);
        } else {
            for number in &part.rows {
                self.refusals.forget(*number);
            }
            self.refusals.failed_alone(&part);
        }
        self.take(refused, took, jitter());
    }
}

/// Tries outcomes again, all that are not locked any more in one statement at first. Returns those that
/// are refused again, and tells of them.
async fn try_again(ctx: &Arc<Context>, due: Vec<SetAside>) -> Vec<SetAside> {
    crash::reach(Point::BeforeAside);
    let jobs: Vec<i64> = due.iter().map(|outcome| outcome.place.key.0.0).collect();
    let held = match locks::among(&ctx.pool, &jobs, PART_PATIENCE).await {
        Ok(Locked::Jobs(held)) => held,
        // The database, or a whole table: this is for another time.
        Ok(Locked::Table) | Err(_) => jobs.iter().map(|job| JobId(*job)).collect(),
    };
    let (mut refused, free): (Vec<_>, Vec<_>) = due
        .into_iter()
        .partition(|outcome| held.contains(&outcome.place.key.0));
    for outcome in &mut refused {
        outcome.tries += 1;
    }
    let mut waited: HashMap<Key, Waited> = HashMap::new();
    let mut places = Vec::new();
    let mut messages = Vec::new();
    for outcome in free {
        let known = Waited {
            since: outcome.since,
            tries: outcome.tries,
            is_told: outcome.is_told,
            named: outcome.named,
        };
        waited.insert(outcome.place.key, known);
        // Their places are kept until they are recorded or on the shelf again.
        places.push(outcome.place);
        messages.push(outcome.message);
    }
    if !messages.is_empty() {
        let again = match record::part(ctx, messages, PART_PATIENCE).await {
            Ok(()) => Vec::new(),
            Err(again) => record::divide(ctx, again, Some(IN_VAIN)).await,
        };
        for outcome in again {
            refused.push(match waited.remove(&outcome.place.key) {
                Some(before) => outcome.again(before),
                None => outcome,
            });
        }
        if !waited.is_empty() {
            info!(outcomes = waited.len(), "outcomes that waited are recorded");
            ctx.wake.deliver.notify_one();
        }
    }
    drop(places);
    tell(ctx, &mut refused).await;
    refused
}

/// Opens the alerts of what there is to tell: of each cause one names one of the account's jobs.
async fn tell(ctx: &Context, refused: &mut [SetAside]) {
    let mut told: BTreeSet<(AccountName, String)> = BTreeSet::new();
    refused.sort_by_key(|outcome| outcome.is_told);
    for outcome in refused
        .iter_mut()
        .filter(|outcome| outcome.is_due_to_tell())
    {
        let Some(transition) = &outcome.message.outcome.entry.transition else {
            continue;
        };
        let account = &outcome.message.outcome.account;
        let is_lock = outcome.fault == AtFault::Lock;
        // Of those that are locked each may be by another session.
        let case = if is_lock {
            transition.job_id.to_string()
        } else {
            outcome.cause.incident()
        };
        let case = (account.clone(), case);
        let job = JobId(transition.job_id);
        // What a statement of ours has is free soon, and then it is tried again.
        if is_lock
            && locks::is_of_others(&ctx.pool, account, job, &outcome.cause)
                .await
                .is_ok_and(|is| !is)
        {
            continue;
        }
        let is_too_much = told.len() == TOLD_MOST && !told.contains(&case);
        if is_too_much {
            // The next round begins with it.
            continue;
        }
        if told.insert(case) {
            let blocking = match outcome.fault {
                AtFault::Lock => {
                    locks::holder(&ctx.pool, account, &outcome.message.outcome.entry).await
                }
                _ => Ok(None),
            };
            let blocking = match blocking {
                Ok(holder) => holder.and_then(Holder::other),
                Err(_) => None,
            };
            let (cause, blocking) = (&outcome.cause, blocking.as_ref());
            let incident = cause.incident();
            let shelf = ctx.recorder.shelf();
            let others = shelf.others(account);
            let alike = shelf.refused(account, &incident);
            let worker = ctx.worker;
            let alert = Alert::stuck(account, transition, cause, blocking, others, &alike, worker);
            // One that is open counts them from now on, and lists them.
            open::try_to_open(&ctx.pool, &ctx.wake, account, &alert).await;
            let named = blocking.map(Blocker::name);
            // It may be open since there were few, or name somebody who has gone.
            let is_another = outcome.is_told && outcome.named != named;
            outcome.named = named;
            if shelf.is_told_anew(account, &incident, others) || is_another {
                open::try_to_change(&ctx.pool, &ctx.wake, account, &alert).await;
            }
        }
        if !outcome.is_told {
            outcome.is_told = true;
            warn!(
                job.id = transition.job_id,
                sqlstate = outcome.cause.sqlstate,
                cause = outcome.cause.message,
                place = outcome.cause.place,
                waited_s = outcome.since.elapsed().as_secs(),
                "the database does not take the outcome of a job"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::entry::{Entry, Transition};
    use crate::db::fault::Cause;
    use crate::domain::state::State;
    use crate::worker::recorder::shelf::Shelf;
    use crate::worker::recorder::{Message, Outcome};

    /// What was seen of one accepted job, as the outcome with this number: it is to end in this state.
    fn sight(shelf: &Arc<Shelf>, number: u64, state: State, tries: u32) -> SetAside {
        let account = AccountName::parse("shop").unwrap();
        let moved = Transition {
            job_id: 7,
            from_state: State::Accepted,
            state,
            ..Transition::default()
        };
        let place = shelf.put(&moved, &account, "locked".to_owned());
        let entry = Entry {
            transition: Some(moved),
            ..Entry::default()
        };
        let now = Instant::now();
        SetAside {
            place,
            message: Message::new(Outcome::plain(&account, entry), number, None),
            fault: AtFault::Lock,
            cause: Cause {
                sqlstate: Some("55P03".into()),
                message: "canceling statement due to lock timeout".into(),
                place: None,
            },
            since: now - Duration::from_secs(u64::from(tries)),
            tries,
            is_told: tries > 3,
            named: None,
        }
    }

    #[test]
    fn an_earlier_sight_that_comes_back_does_not_replace_the_later() {
        let shelf = Arc::new(Shelf::default());
        for order in [[1, 2], [2, 1]] {
            let mut aside = Aside::default();
            for number in order {
                let sight = if number == 1 {
                    sight(&shelf, 1, State::Queued, 5)
                } else {
                    sight(&shelf, 2, State::Succeeded, 1)
                };
                aside.take(vec![sight], Duration::ZERO, Jitter::NONE);
            }
            let kept: Vec<&SetAside> = aside.waiting.values().collect();
            let [kept] = kept.as_slice() else {
                panic!("{order:?}: {:?}", aside.waiting);
            };
            let entry = &kept.message.outcome.entry;
            let state = entry.transition.as_ref().map(|moved| moved.state);
            assert_eq!(state, Some(State::Succeeded), "{order:?}");
            // It has waited for as long as the earlier.
            assert_eq!((kept.tries, kept.is_told), (5, true), "{order:?}");
            assert!(kept.since.elapsed() >= Duration::from_secs(5), "{order:?}");
            assert_eq!(shelf.count(), 1, "{order:?}");
        }
    }
}
