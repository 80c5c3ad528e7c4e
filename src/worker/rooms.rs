//! The rooms of the accounts that this daemon serves. They come and go while it runs: one that is closed is asked nothing more, and
//! stays until nobody has it in hand, so that the answer to its last request still finds it.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::domain::account::AccountName;
use crate::worker::room::Room;

type ByName = BTreeMap<AccountName, Arc<Room>>;

/// The rooms by their accounts, those that are being closed included.
#[derive(Default)]
pub struct Rooms(RwLock<ByName>);

impl Rooms {
    /// The room of this account, even while it is being closed.
    pub fn get(&self, name: &AccountName) -> Option<Arc<Room>> {
        self.read().get(name).cloned()
    }

    /// The rooms that are not being closed. Whoever claims for them keeps what this returns until the claim has come
    /// and each job of it is in the hands of its account: none of them is removed meanwhile.
    pub fn open(&self) -> Vec<Arc<Room>> {
        let all = self.read();
        let open = all.values().filter(|room| !room.client.serving.is_closed());
        open.cloned().collect()
    }

    /// Adds the room of an account of which nothing is known yet. False when there is one of its name, if only one that is being
    /// closed: answers to that one would be taken for answers to this one.
    pub fn add(&self, room: Arc<Room>) -> bool {
        let mut all = self.write();
        let is_new = !all.contains_key(&room.name);
        if is_new {
            all.insert(room.name.clone(), room);
        }
        is_new
    }

    /// Removes the room of an account, unless somebody has it in hand. False when it is still there.
    pub fn remove(&self, name: &AccountName) -> bool {
        let mut all = self.write();
        let is_in_hand = |room: &Arc<Room>| Arc::strong_count(room) > 1;
        let is_free = all.get(name).is_none_or(|room| !is_in_hand(room));
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

/// The room of this account among these.
pub fn named<'a>(rooms: &'a [Arc<Room>], name: &AccountName) -> Option<&'a Arc<Room>> {
    rooms.iter().find(|room| room.name == *name)
}
