//! Outcomes that the database does not take although it is well: a row that somebody keeps locked, a
//! trigger that raises. They wait in memory and are tried again, while everything else goes on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::db::DbError;
use crate::db::fate::{Key, Recorded};
use crate::db::fault::{Cause, Fault};
use crate::db::locks::{self, Locked};
use crate::domain::account::AccountName;
use crate::domain::job::JobId;
use crate::policy::backoff;
use crate::policy::rules::Curve;
use crate::worker::Context;
use crate::worker::alarm::Alarm;
use crate::worker::recorder::{Message, finished};
use crate::worker::settle::{self, PART_PATIENCE};
use crate::worker::strains;

/// How long a refused outcome waits until it is tried again.
const DISTANCE: Curve = Curve {
    initial: Duration::from_millis(250),
    max: Duration::from_secs(10),
    multiplier: 2.0,
    jitter: 0.2,
    attempts: 0,
};

/// Locks that are held for so long are told to a human; shorter ones are everyday life.
const TOLD_AFTER: Duration = Duration::from_secs(5);

/// Refused outcomes of an account after which none of its jobs is claimed: each is 100 KB at most.
const ACCOUNT_MOST: usize = 500;

/// The same for all accounts together: then an account with any waits.
const MOST: usize = 4_000;

/// Which outcomes are set aside, for the loops that must leave their jobs alone.
#[derive(Default, Debug)]
pub struct Shelf(Mutex<Places>);

#[derive(Default, Debug)]
struct Places {
    /// How many outcomes of each; a job that is followed may have several.
    outcomes: HashMap<Key, usize>,
    accounts: BTreeMap<AccountName, usize>,
}

impl Shelf {
    /// The jobs whose outcomes wait here: a look-up knows less of them.
    pub fn jobs(&self) -> Vec<i64> {
        self.places()
            .outcomes
            .keys()
            .map(|(job, ..)| job.0)
            .collect()
    }

    /// How many outcomes wait.
    pub fn count(&self) -> usize {
        self.places().accounts.values().sum()
    }

    /// Whether so many of an account's outcomes wait that it may not bring more.
    pub fn is_full(&self, account: &AccountName) -> bool {
        let places = self.places();
        let own = places.accounts.get(account).copied().unwrap_or(0);
        own >= ACCOUNT_MOST || (own > 0 && places.accounts.values().sum::<usize>() >= MOST)
    }

    fn put(self: &Arc<Self>, key: Key, account: &AccountName) -> Place {
        let mut places = self.places();
        *places.outcomes.entry(key).or_default() += 1;
        *places.accounts.entry(account.clone()).or_default() += 1;
        Place {
            shelf: self.clone(),
            key,
            account: Some(account.clone()),
        }
    }

    /// Has a job left alone until the answer is dropped: its outcome is on its way, and waits for its account.
    pub(super) fn protect(self: &Arc<Self>, key: Key) -> Place {
        *self.places().outcomes.entry(key).or_default() += 1;
        Place {
            shelf: self.clone(),
            key,
            account: None,
        }
    }

    fn places(&self) -> std::sync::MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One outcome's place on the shelf.
#[derive(Debug)]
pub(super) struct Place {
    shelf: Arc<Shelf>,
    key: Key,
    /// The account, of what was refused; what is only on its way counts for none.
    account: Option<AccountName>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.shelf.places();
        let less = |count: &mut usize| {
            *count -= 1;
            *count == 0
        };
        if places.outcomes.get_mut(&self.key).is_some_and(less) {
            places.outcomes.remove(&self.key);
        }
        if let Some(account) = &self.account
            && places.accounts.get_mut(account).is_some_and(less)
        {
            places.accounts.remove(account);
        }
    }
}

/// An outcome that the database refused when it was alone.
#[derive(Debug)]
pub struct SetAside {
    message: Message,
    place: Place,
    fault: Fault,
    cause: Cause,
    since: Instant,
    tries: u32,
    due: Instant,
    is_told: bool,
}

impl SetAside {
    /// Sets an outcome aside. One that moves no job is let go: what it saw is looked at again.
    pub fn new(ctx: &Context, mut message: Message, error: &DbError) -> Option<SetAside> {
        let cause = error.cause();
        message.tell(Recorded::Waiting);
        let Some(transition) = &message.outcome.entry.transition else {
            warn!(account = %message.outcome.account, cause = cause.message, "what was seen could not be stored; it is looked at again");
            return None;
        };
        let key = transition.key();
        let place = ctx.recorder.shelf().put(key, &message.outcome.account);
        let now = Instant::now();
        Some(SetAside {
            place,
            fault: error.fault(),
            cause,
            since: now,
            tries: 1,
            due: now + backoff::delay(&DISTANCE, 1, ctx.jitter()),
            is_told: false,
            message,
        })
    }

    /// The same outcome, refused once more.
    fn again(self, before: &Waited, ctx: &Context) -> SetAside {
        let tries = before.tries + 1;
        SetAside {
            since: before.since,
            is_told: before.is_told,
            tries,
            due: Instant::now() + backoff::delay(&DISTANCE, tries, ctx.jitter()),
            ..self
        }
    }

    /// Of two sights of one job the later one, which has waited for as long as the earlier.
    fn later(self, other: SetAside) -> SetAside {
        let (later, earlier) = if self.message.number > other.message.number {
            (self, other)
        } else {
            (other, self)
        };
        SetAside {
            since: later.since.min(earlier.since),
            tries: later.tries.max(earlier.tries),
            due: later.due.max(earlier.due),
            is_told: later.is_told || earlier.is_told,
            ..later
        }
    }

    /// Whether it is what was seen of an accepted job, which is seen again and again.
    fn is_sight(&self) -> bool {
        let transition = self.message.outcome.entry.transition.as_ref();
        transition.is_some_and(|transition| transition.kind.is_none())
    }

    fn is_due_to_tell(&self) -> bool {
        self.fault != Fault::Lock || self.since.elapsed() >= TOLD_AFTER
    }
}

/// What is known of an outcome that is tried again.
struct Waited {
    since: Instant,
    tries: u32,
    is_told: bool,
}

/// The outcomes that are set aside, and the one try that is under way.
#[derive(Default)]
pub struct Aside {
    waiting: Vec<SetAside>,
    trying: JoinSet<Vec<SetAside>>,
    is_hurried: bool,
}

impl Aside {
    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.trying.is_empty()
    }

    /// Takes outcomes that were refused, for the first time or once more. Of a job that is followed the
    /// latest sight is enough: an earlier one that comes back from a try does not replace it.
    pub fn put(&mut self, refused: Vec<SetAside>) {
        for new in refused {
            let is_repeated = |old: &SetAside| new.is_sight() && old.place.key == new.place.key;
            if let Some(place) = self.waiting.iter().position(is_repeated) {
                let old = self.waiting.swap_remove(place);
                self.waiting.push(old.later(new));
                continue;
            }
            if new.tries == 1 {
                info!(
                    job.id = new.place.key.0.0,
                    sqlstate = new.cause.sqlstate,
                    cause = new.cause.message,
                    "the database does not take an outcome; it waits in memory, and nothing else does"
                );
            }
            self.waiting.push(new);
        }
        if self.is_hurried {
            self.hurry();
        }
    }

    /// The daemon stops: what is left is tried once a second.
    pub fn hurry(&mut self) {
        self.is_hurried = true;
        let soon = Instant::now() + Duration::from_secs(1);
        for outcome in &mut self.waiting {
            outcome.due = outcome.due.min(soon);
        }
    }

    /// Waits for the next try to be due or done, and begins or ends it. Never ends while there is nothing
    /// to wait for. May be dropped and called again.
    pub async fn progress(&mut self, ctx: &Arc<Context>) {
        if let Some(done) = self.trying.join_next().await {
            let refused = finished(done).unwrap_or_default();
            self.put(refused);
            return;
        }
        match self.waiting.iter().map(|outcome| outcome.due).min() {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
        let now = Instant::now();
        let all = std::mem::take(&mut self.waiting);
        let (due, later) = all.into_iter().partition(|outcome| outcome.due <= now);
        self.waiting = later;
        let ctx = ctx.clone();
        self.trying.spawn(async move { try_again(&ctx, due).await });
    }
}

/// Tries outcomes again, all that are not locked any more in one statement at first. Returns those that
/// are refused again, and tells of them.
async fn try_again(ctx: &Arc<Context>, due: Vec<SetAside>) -> Vec<SetAside> {
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
        outcome.due = Instant::now() + backoff::delay(&DISTANCE, outcome.tries, ctx.jitter());
    }
    let mut waited: HashMap<Key, Waited> = HashMap::new();
    let mut places = Vec::new();
    let mut messages = Vec::new();
    for outcome in free {
        let known = Waited {
            since: outcome.since,
            tries: outcome.tries,
            is_told: outcome.is_told,
        };
        waited.insert(outcome.place.key, known);
        // Their places are kept until they are recorded or on the shelf again.
        places.push(outcome.place);
        messages.push(outcome.message);
    }
    if !messages.is_empty() {
        let again = match settle::part(ctx, messages, PART_PATIENCE).await {
            Ok(()) => Vec::new(),
            Err(again) => settle::divide(ctx, again).await,
        };
        for outcome in again {
            refused.push(match waited.remove(&outcome.place.key) {
                Some(before) => outcome.again(&before, ctx),
                None => outcome,
            });
        }
        let told: Vec<&Key> = waited
            .iter()
            .filter(|(_, known)| known.is_told)
            .map(|(key, _)| key)
            .collect();
        if !told.is_empty() {
            info!(outcomes = told.len(), "outcomes that waited are recorded");
            ctx.wake.deliver.notify_one();
        }
    }
    drop(places);
    tell(ctx, &mut refused).await;
    refused
}

/// Opens the alert of each account that has something to tell; it names one of its jobs.
async fn tell(ctx: &Context, refused: &mut [SetAside]) {
    let mut told: BTreeSet<AccountName> = BTreeSet::new();
    for outcome in refused
        .iter_mut()
        .filter(|outcome| outcome.is_due_to_tell())
    {
        let Some(transition) = &outcome.message.outcome.entry.transition else {
            continue;
        };
        let account = &outcome.message.outcome.account;
        if told.insert(account.clone()) {
            let blocking = match outcome.fault {
                Fault::Lock => {
                    locks::blocker(&ctx.pool, account, &outcome.message.outcome.entry).await
                }
                _ => Ok(None),
            };
            let blocking = blocking.unwrap_or_default();
            let alarm = Alarm::stuck(account, transition, &outcome.cause, blocking.as_ref());
            strains::try_to_open(ctx, account, &alarm).await;
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
    use uuid::Uuid;

    use super::*;
    use crate::db::record::{Entry, Transition};
    use crate::domain::job::Epoch;
    use crate::worker::recorder::Outcome;

    /// What was seen of one accepted job, as the outcome with this number: it is to end in this state.
    fn sight(shelf: &Arc<Shelf>, number: u64, state: &'static str, tries: u32) -> SetAside {
        let account = AccountName::parse("shop").unwrap();
        let entry = Entry {
            transition: Some(Transition {
                job_id: 7,
                from_state: "accepted",
                state,
                ..Transition::default()
            }),
            ..Entry::default()
        };
        let now = Instant::now();
        SetAside {
            place: shelf.put((JobId(7), Epoch(1), Uuid::nil()), &account),
            message: Message::new(Outcome::plain(&account, entry), number, None),
            fault: Fault::Lock,
            cause: Cause {
                sqlstate: Some("55P03".into()),
                message: "canceling statement due to lock timeout".into(),
                place: None,
            },
            since: now - Duration::from_secs(u64::from(tries)),
            tries,
            due: now + Duration::from_secs(u64::from(tries)),
            is_told: tries > 3,
        }
    }

    #[test]
    fn an_earlier_sight_that_comes_back_does_not_replace_the_later() {
        let shelf = Arc::new(Shelf::default());
        for order in [[1, 2], [2, 1]] {
            let mut aside = Aside::default();
            for number in order {
                aside.put(vec![if number == 1 {
                    sight(&shelf, 1, "queued", 5)
                } else {
                    sight(&shelf, 2, "succeeded", 1)
                }]);
            }
            let [kept] = aside.waiting.as_slice() else {
                panic!("{order:?}: {:?}", aside.waiting);
            };
            let entry = &kept.message.outcome.entry;
            let state = entry.transition.as_ref().map(|moved| moved.state);
            assert_eq!(state, Some("succeeded"), "{order:?}");
            // It has waited for as long as the earlier.
            assert_eq!((kept.tries, kept.is_told), (5, true), "{order:?}");
            assert!(kept.since.elapsed() >= Duration::from_secs(5), "{order:?}");
            assert_eq!(shelf.count(), 1, "{order:?}");
        }
    }

    #[test]
    fn a_job_whose_outcome_waits_for_its_account_is_left_alone_and_is_not_set_aside() {
        let shelf = Arc::new(Shelf::default());
        let place = shelf.protect((JobId(7), Epoch(1), Uuid::nil()));
        assert_eq!((shelf.jobs(), shelf.count()), (vec![7], 0));
        drop(place);
        assert!(shelf.jobs().is_empty());
    }
}
