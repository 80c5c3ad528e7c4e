//! The shelf: which jobs have outcomes in memory that the database does not have, so that nobody else touches them.

use std::collections::{BTreeMap, HashMap};
use std::mem::discriminant;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::db::entry::{Key, Transition};
use crate::domain::account::AccountName;
use crate::domain::job::JobId;
use crate::domain::state::State;
use crate::worker::alerting::{Others, StuckJob};

/// Refused outcomes of an account after which none of its jobs is claimed: each is 100 KB at most.
const ACCOUNT_MOST: usize = 500;

/// The same for all accounts together: then an account with any waits.
const MOST: usize = 4_000;

/// Which outcomes are set aside, for the loops that must leave their jobs alone.
#[derive(Default, Debug)]
pub struct Shelf(Mutex<Places>);

#[derive(Default, Debug)]
struct Places {
    outcomes: HashMap<Key, Place>,
    accounts: BTreeMap<AccountName, usize>,
    /// What the alerts of an account say of its other jobs, by their causes.
    told: BTreeMap<AccountName, BTreeMap<String, Others>>,
}

/// The outcomes of one job; one that is followed may have several.
#[derive(Debug)]
struct Place {
    count: usize,
    /// From which state they move it.
    state: State,
    /// Of what was refused, the account and what the database said last.
    refused: Option<(AccountName, String)>,
}

impl Shelf {
    /// The jobs whose outcomes wait here, which are not looked up meanwhile: that would show no more.
    pub fn jobs(&self) -> Vec<i64> {
        self.places()
            .outcomes
            .keys()
            .map(|(job, ..)| job.0)
            .collect()
    }

    /// The same, each with what follows if its outcome is lost with this process.
    pub fn if_lost(&self) -> Vec<(JobId, &'static str)> {
        let after = |state: &State| match state {
            State::Accepted => "ApiPay is asked again how its invoice or refund stands",
            _ => "the job will be looked up",
        };
        let places = self.places();
        let outcomes = places.outcomes.iter();
        let jobs = outcomes.map(|((job, ..), place)| (*job, after(&place.state)));
        jobs.collect()
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

    /// What becomes of the jobs of an account beside the one that is told of.
    pub(in crate::worker) fn others(&self, account: &AccountName) -> Others {
        let places = self.places();
        let own = places.accounts.get(account).copied().unwrap_or(0);
        drop(places);
        match own {
            0 | 1 => Others::GoOn,
            own if self.is_full(account) => Others::Wait(own - 1),
            own => Others::Refused(own - 1),
        }
    }

    /// The jobs of an account that are refused for this cause.
    pub(in crate::worker) fn refused(&self, account: &AccountName, cause: &str) -> Vec<StuckJob> {
        let places = self.places();
        let is_so = |place: &Place| {
            let refused = place.refused.as_ref();
            refused.is_some_and(|(of, said)| of == account && said == cause)
        };
        let refused = places.outcomes.iter().filter(|(_, place)| is_so(place));
        let mut jobs: Vec<StuckJob> = refused
            .map(|((id, epoch, _), place)| StuckJob {
                id: *id,
                state: place.state,
                epoch: *epoch,
            })
            .collect();
        drop(places);
        jobs.sort_by_key(|stuck| stuck.id);
        jobs.truncate(ACCOUNT_MOST);
        jobs
    }

    /// Notes of what kind the others are that the alert of a cause tells of; true when it told of another kind before.
    pub(in crate::worker) fn is_told_anew(
        &self,
        account: &AccountName,
        cause: &str,
        others: Others,
    ) -> bool {
        let mut places = self.places();
        let told = places.told.entry(account.clone()).or_default();
        let before = told.insert(cause.to_owned(), others);
        before.is_some_and(|before| discriminant(&before) != discriminant(&others))
    }

    /// Puts an outcome of the account aside that was refused for this cause, until the answer is dropped.
    pub(in crate::worker) fn put(
        self: &Arc<Self>,
        moved: &Transition,
        account: &AccountName,
        cause: String,
    ) -> Shelved {
        let mut places = self.places();
        let key = places.add(moved, Some((account.clone(), cause)));
        *places.accounts.entry(account.clone()).or_default() += 1;
        Shelved {
            shelf: self.clone(),
            key,
            account: Some(account.clone()),
        }
    }

    /// Has a job left alone until the answer is dropped: its outcome is on its way, and waits for its account.
    pub(in crate::worker) fn protect(self: &Arc<Self>, moved: &Transition) -> Shelved {
        let key = self.places().add(moved, None);
        Shelved {
            shelf: self.clone(),
            key,
            account: None,
        }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn add(&mut self, moved: &Transition, refused: Option<(AccountName, String)>) -> Key {
        let key = moved.key();
        let state = moved.from_state;
        let place = self.outcomes.entry(key).or_insert(Place {
            count: 0,
            state,
            refused: None,
        });
        place.count += 1;
        place.state = state;
        place.refused = refused.or(place.refused.take());
        key
    }
}

/// One outcome's place on the shelf.
#[derive(Debug)]
pub(in crate::worker) struct Shelved {
    shelf: Arc<Shelf>,
    pub(in crate::worker) key: Key,
    /// The account, of what was refused; what is only on its way counts for none.
    account: Option<AccountName>,
}

impl Drop for Shelved {
    fn drop(&mut self) {
        let mut places = self.shelf.places();
        let less = |count: &mut usize| {
            *count -= 1;
            *count == 0
        };
        let of_job = places.outcomes.get_mut(&self.key);
        if of_job.is_some_and(|place| less(&mut place.count)) {
            places.outcomes.remove(&self.key);
        }
        if let Some(account) = &self.account
            && places.accounts.get_mut(account).is_some_and(less)
        {
            places.accounts.remove(account);
            places.told.remove(account);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_whose_outcome_waits_for_its_account_is_left_alone_and_is_not_set_aside() {
        let shelf = Arc::new(Shelf::default());
        let moved = Transition {
            job_id: 7,
            from_state: State::Accepted,
            ..Transition::default()
        };
        let place = shelf.protect(&moved);
        assert_eq!((shelf.jobs(), shelf.count()), (vec![7], 0));
        let (_, after) = shelf.if_lost()[0];
        assert!(after.starts_with("ApiPay is asked again"), "{after}");
        drop(place);
        assert!(shelf.jobs().is_empty());
    }

    #[test]
    fn what_is_refused_for_one_cause_is_listed() {
        let shelf = Arc::new(Shelf::default());
        let account = AccountName::parse("shop").unwrap();
        let put = |job_id, cause: &str| {
            let moved = Transition {
                job_id,
                from_state: State::Sending,
                ..Transition::default()
            };
            shelf.put(&moved, &account, cause.to_owned())
        };
        let listed = || {
            let jobs = shelf.refused(&account, "frozen");
            jobs.iter().map(|stuck| stuck.id.0).collect::<Vec<_>>()
        };
        let mut places = vec![put(7, "frozen"), put(9, "frozen"), put(8, "frozen")];
        let _other = put(4, "locked");
        assert_eq!(listed(), [7, 8, 9]);
        // It is refused for something else now.
        let again = put(9, "locked");
        assert_eq!(listed(), [7, 8]);
        drop(again);
        places.pop();
        assert_eq!(listed(), [7]);
    }
}
