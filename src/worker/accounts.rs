//! The accounts that this daemon serves. They come and go while it runs: one that is closed is asked nothing more, and
//! stays until nobody has it in hand, so that the answer to its last request still finds it.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::domain::account::AccountName;
use crate::worker::account::Account;

type ByName = BTreeMap<AccountName, Arc<Account>>;

/// The accounts by name, those that are being closed included.
#[derive(Default)]
pub struct Accounts(RwLock<ByName>);

impl Accounts {
    /// The account of this name, even while it is being closed.
    pub fn get(&self, name: &AccountName) -> Option<Arc<Account>> {
        self.read().get(name).cloned()
    }

    /// The accounts that are not being closed. Whoever claims for them keeps what this returns until the claim has come
    /// and each job of it is in the hands of its account: none of them is removed meanwhile.
    pub fn open(&self) -> Vec<Arc<Account>> {
        let all = self.read();
        let open = all.values().filter(|account| !account.is_closed());
        open.cloned().collect()
    }

    /// Adds an account of which nothing is known yet. False when there is one of its name, if only one that is being
    /// closed: answers to that one would be taken for answers to this one.
    pub fn add(&self, account: Arc<Account>) -> bool {
        let mut all = self.write();
        let is_new = !all.contains_key(&account.name);
        if is_new {
            all.insert(account.name.clone(), account);
        }
        is_new
    }

    /// Removes an account, unless somebody has it in hand. False when it is still there.
    pub fn remove(&self, name: &AccountName) -> bool {
        let mut all = self.write();
        let is_in_hand = |account: &Arc<Account>| Arc::strong_count(account) > 1;
        let is_free = all.get(name).is_none_or(|account| !is_in_hand(account));
        if is_free {
            all.remove(name);
        }
        is_free
    }

    fn read(&self) -> RwLockReadGuard<'_, ByName> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, ByName> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The account of this name among these.
pub fn named<'a>(accounts: &'a [Arc<Account>], name: &AccountName) -> Option<&'a Arc<Account>> {
    accounts.iter().find(|account| account.name == *name)
}
