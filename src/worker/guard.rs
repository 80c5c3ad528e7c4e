//! Which job a record may change: the guard of its statement.

use uuid::Uuid;

use crate::domain::account::AccountName;
use crate::domain::job::{Epoch, JobId};
use crate::domain::state::State;

/// The job that made an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maker {
    /// The job.
    pub id: JobId,
    /// Its token.
    pub token: Uuid,
}

/// The job that a decision is about, as the guard of its record sees it.
#[derive(Clone, Debug)]
pub struct Guard {
    /// Its account.
    pub account: AccountName,
    /// The job.
    pub id: JobId,
    /// Its token.
    pub token: Uuid,
    /// Who claimed it; nobody claims an accepted job.
    pub worker: Option<Uuid>,
    /// The epoch that the decision was made for.
    pub epoch: Epoch,
    /// The state that the decision was made for.
    pub state: State,
}

impl Guard {
    /// The job as the maker of what it made.
    pub fn maker(&self) -> Maker {
        Maker {
            id: self.id,
            token: self.token,
        }
    }
}
