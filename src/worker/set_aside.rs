//! An outcome that the database does not take although it is well, and what is known of its tries.

use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use crate::db::DbError;
use crate::db::fate::Recorded;
use crate::db::fault::{AtFault, Cause};
use crate::worker::recorder::shelf::Shelved;
use crate::worker::recorder::{Message, Recorder};

/// Locks that are held for so long are told to a human; shorter ones are everyday life.
const TOLD_AFTER: Duration = Duration::from_secs(5);

/// An outcome that the database refused when it was alone.
#[derive(Debug)]
pub struct SetAside {
    /// The outcome.
    pub(super) message: Message,
    /// Has its job left alone.
    pub(super) place: Shelved,
    /// Whose fault the refusal is.
    pub(super) fault: AtFault,
    /// What the database said.
    pub(super) cause: Cause,
    /// When it was first refused.
    pub(super) since: Instant,
    /// How often it was refused.
    pub(super) tries: u32,
    /// Whether a person was told.
    pub(super) is_told: bool,
    /// Who was told to keep it locked.
    pub(super) named: Option<String>,
}

impl SetAside {
    /// Sets an outcome aside. One that moves no job is let go: what it saw is looked at again.
    pub fn new(recorder: &Recorder, mut message: Message, error: &DbError) -> Option<SetAside> {
        let cause = error.cause();
        message.tell(Recorded::Waiting);
        let Some(transition) = &message.outcome.entry.transition else {
            warn!(account = %message.outcome.account, cause = cause.message, "what was seen could not be stored; it is looked at again");
            return None;
        };
        let account = &message.outcome.account;
        let place = recorder.shelf().put(transition, account, cause.incident());
        message.leave_backlog();
        let now = Instant::now();
        Some(SetAside {
            place,
            fault: error.fault(),
            cause,
            since: now,
            tries: 1,
            is_told: false,
            named: None,
            message,
        })
    }

    /// The same outcome, refused once more.
    pub(super) fn again(self, before: Waited) -> SetAside {
        SetAside {
            since: before.since,
            is_told: before.is_told,
            named: before.named,
            tries: before.tries + 1,
            ..self
        }
    }

    /// Of two sights of one job the later one, which has waited for as long as the earlier.
    pub(super) fn later(self, other: SetAside) -> SetAside {
        let (later, earlier) = if self.message.number > other.message.number {
            (self, other)
        } else {
            (other, self)
        };
        SetAside {
            since: later.since.min(earlier.since),
            tries: later.tries.max(earlier.tries),
            is_told: later.is_told || earlier.is_told,
            named: later.named.or(earlier.named),
            ..later
        }
    }

    /// Whether it is what was seen of an accepted job, which is seen again and again.
    pub(super) fn is_sight(&self) -> bool {
        let transition = self.message.outcome.entry.transition.as_ref();
        transition.is_some_and(|transition| transition.kind.is_none())
    }

    /// Whether a person is to hear of it: a lock that is held for a moment is everyday life.
    pub(super) fn is_due_to_tell(&self) -> bool {
        self.fault != AtFault::Lock || self.since.elapsed() >= TOLD_AFTER
    }
}

/// What is known of an outcome that is tried again.
pub(super) struct Waited {
    /// When it was first refused.
    pub(super) since: Instant,
    /// How often it was refused.
    pub(super) tries: u32,
    /// Whether a person was told.
    pub(super) is_told: bool,
    /// Who was told to keep it locked.
    pub(super) named: Option<String>,
}
