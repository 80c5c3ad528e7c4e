//! What is known of an account's requests that got no clear answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

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

/// Requests of one kind in a row that got no clear answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Since the first of them.
    pub since: OffsetDateTime,
    /// What the newest got.
    pub fault: Fault,
    /// When the newest came.
    pub failed_at: OffsetDateTime,
    /// The job of the newest; none for a read that is about many.
    pub job: Option<JobId>,
    /// How many, each job counted once in a row; of those after the slow-down, the trials.
    pub failures: u32,
    /// When the next trial is due; `None` while they have not slowed down.
    pub trial_at: Option<OffsetDateTime>,
}

/// A job that has got no clear answer for long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailingJob {
    /// The job.
    pub id: JobId,
    /// The name of its operation.
    pub operation: String,
    /// Since when.
    pub since: OffsetDateTime,
    /// What the newest of its requests got.
    pub fault: Fault,
    /// What that request was, if it only asked for what is to be known before the job is sent.
    pub asked_first: Option<String>,
    /// Whether that request was answered, and the answer left out what it asked for.
    pub is_left_out: bool,
    /// The read that has to bring an answer before it is tried, if that is one with a course of its own.
    pub waits_for: Option<Read>,
    /// How many more jobs of its account are so.
    pub others: u32,
}

impl FailingJob {
    /// Whether it waits for an answer to a question that is asked for it alone: to be shown what it made before, or what
    /// the jobs made that it repeats.
    pub fn waits_to_be_shown(&self) -> bool {
        self.asked_first.is_some() && self.waits_for.is_none()
    }
}

/// Jobs of an account that are not sent before the gateway answers a question about them, which it did not do last time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToBeShown {
    /// Bills that repeat earlier ones.
    pub bills: u32,
    /// Refunds.
    pub refunds: u32,
    /// How many they are and what they wait for; none where there are none.
    pub in_words: Option<String>,
}

/// A job that the gateway refuses again and again, for a reason of the job's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedJob {
    /// The job.
    pub id: JobId,
    /// The name of its operation.
    pub operation: String,
    /// When it was first sent.
    pub since: OffsetDateTime,
    /// How it was refused last.
    pub fault: Fault,
}

/// How requests of one kind go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// Those in a row that got no clear answer.
    pub failing: Option<Row>,
    /// Since when each one is refused for the account's limit.
    pub refused_since: Option<OffsetDateTime>,
}

impl Course {
    /// Whether one tries at a time.
    pub fn is_slow(&self) -> bool {
        self.trial_at().is_some()
    }

    /// When the next trial is due, of those that have slowed down.
    pub fn trial_at(&self) -> Option<OffsetDateTime> {
        self.failing.as_ref()?.trial_at
    }
}

/// What a read asks for. Each kind has its own path at the gateway, and fails by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Read {
    /// What became of an uncertain job.
    LookUp,
    /// How open invoices are, many at once.
    Check,
    /// Why one invoice failed.
    Code,
    /// How the refunds of an invoice are.
    Refunds,
}

impl Read {
    /// All of them.
    pub const ALL: [Read; 4] = [Read::LookUp, Read::Check, Read::Code, Read::Refunds];

    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Read::LookUp => "look_up",
            Read::Check => "check",
            Read::Code => "code",
            Read::Refunds => "refunds",
        }
    }

    /// The one with this word.
    pub fn parse(word: &str) -> Option<Read> {
        Read::ALL.into_iter().find(|read| read.as_str() == word)
    }
}

/// What of an account waits for a clear answer of the gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Awaited {
    /// Whether something waits to be sent.
    pub sends: bool,
    /// The reads that something waits for.
    pub reads: BTreeSet<Read>,
}

impl Awaited {
    /// From the words for the kinds of requests, `send` for a send.
    pub fn of(kinds: &[String]) -> Awaited {
        Awaited {
            sends: kinds.iter().any(|kind| kind == "send"),
            reads: kinds.iter().filter_map(|kind| Read::parse(kind)).collect(),
        }
    }
}

/// What is known of an account's requests that got no clear answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outage {
    /// Its sends.
    pub sends: Course,
    /// Its reads; those that are not here go well.
    pub reads: BTreeMap<Read, Course>,
}

impl Outage {
    /// Whether one job tries while the others wait.
    pub fn is_slow(&self) -> bool {
        self.sends.is_slow()
    }

    /// How its sends go, or its reads of this kind.
    pub fn course(&self, kind: Option<Read>) -> Course {
        match kind {
            None => self.sends.clone(),
            Some(read) => self.reads.get(&read).cloned().unwrap_or_default(),
        }
    }

    /// Whether a read of this kind may be made: those that have slowed down wait for their trial, which is
    /// never put off for longer than `longest`.
    pub fn may_read(&self, read: Read, now: OffsetDateTime, longest: Duration) -> bool {
        let trial_at = self.reads.get(&read).and_then(Course::trial_at);
        trial_at.is_none_or(|at| at <= now || at > now + longest)
    }

    /// Whether reads of this kind have slowed down.
    pub fn reads_slowly(&self, read: Read) -> bool {
        self.reads.get(&read).is_some_and(Course::is_slow)
    }
}

/// A job that waits after a try of its own got no clear answer, in an account that has got one since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Since when no send of the account had got a clear answer, before one did.
    pub unanswered_since: OffsetDateTime,
    /// When the job's last try got none.
    pub failed_at: OffsetDateTime,
    /// When the job is due.
    pub due_at: OffsetDateTime,
}

/// Something that the gateway accepted has failed at Kaspi, because the account is unwell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// The gateway's code.
    pub code: String,
    /// When it was accepted: what was accepted before an account was resumed says nothing of it since.
    pub accepted_at: OffsetDateTime,
}
