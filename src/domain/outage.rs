//! What is known of an account's requests that got no clear answer.

use time::OffsetDateTime;

use crate::domain::answer::Lost;
use crate::domain::job::JobId;

/// What came in place of a clear answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// A stable code: of the network, or of what the answer was.
    pub code: String,
    /// The HTTP status, when there was one.
    pub status: Option<u16>,
    /// The gateway's own words, as it wrote them, or the beginning.
    pub said: Option<String>,
}

impl Fault {
    /// Whether it is of this machine's network rather than of the gateway: nothing was sent.
    pub fn is_of_the_network(&self) -> bool {
        let lost = [Lost::Timeout, Lost::Cut];
        self.status.is_none() && !lost.iter().any(|lost| lost.code() == self.code)
    }
}

/// Sends of an account in a row that got no clear answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Since the first of them.
    pub since: OffsetDateTime,
    /// What the newest got.
    pub fault: Fault,
    /// The job of the newest.
    pub job: JobId,
    /// How many, each job counted once in a row; of those after the slow-down, the trials.
    pub failures: u32,
    /// When the next trial is due; `None` while the account has not slowed down.
    pub trial_at: Option<OffsetDateTime>,
}

/// Look-ups of an account in a row that got no clear answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// How many.
    pub failures: u32,
    /// Before this the account looks nothing up, and then one job; `None` while it has not slowed down.
    pub next_at: Option<OffsetDateTime>,
}

/// What is known of an account's requests that got no clear answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outage {
    /// Its sends.
    pub sends: Option<Row>,
    /// Its look-ups.
    pub reads: Reads,
}

impl Outage {
    /// Whether one job tries while the others wait.
    pub fn is_slow(&self) -> bool {
        self.sends
            .as_ref()
            .is_some_and(|row| row.trial_at.is_some())
    }

    /// Whether nothing of it is worth keeping.
    pub fn is_over(&self) -> bool {
        *self == Outage::default()
    }
}

/// Something that the gateway accepted has failed at Kaspi, because the account is unwell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// The gateway's code.
    pub code: String,
    /// When it was accepted: what was accepted before an account was resumed says nothing of it since.
    pub accepted_at: OffsetDateTime,
}
