//! What one look sees of what is due, before anything is said of it.

use std::time::Duration;

/// With at most this many due jobs that nobody keeps locked, one open `job_stuck` alert explains why none is claimed.
pub const FEW: u32 = 10;

/// What is due in an account.
#[derive(Clone, Debug, Default)]
pub struct AccountFacts {
    /// The account.
    pub account: String,
    /// Jobs that could be claimed now; more than [`FEW`] are not counted.
    pub due_jobs: u32,
    /// Changes with each claim, whoever makes it.
    pub claimed: String,
    /// Whether the quota may be what the jobs wait for.
    pub is_quota_tight: bool,
    /// Of those that a claim meets first, the ones that nobody keeps locked, where that was looked for; more than [`FEW`]
    /// are not counted.
    pub free_jobs: Option<u32>,
    /// Jobs that this daemon leaves out, because the database refuses to have them claimed.
    pub refused_jobs: u32,
    /// Whether this daemon's last claims were all too old to be sent.
    pub is_late: bool,
    /// The look-up that is due first: its job, and what changes when it moves.
    pub lookup: Option<String>,
    /// A job that was looked up often and to no answer at all.
    pub undecided: Option<String>,
    /// The check that is due first.
    pub check: Option<String>,
    /// A lease that ran out: its job, and what changes when it moves.
    pub lease: Option<String>,
    /// Since when sends are refused for the account's limit, each of them, while jobs wait.
    pub refused_sends: Option<RefusedRequests>,
    /// Since when what asks is, while something waits to be asked.
    pub refused_reads: Option<RefusedRequests>,
    /// A job that waited for another one, whose turn has come.
    pub turn: Option<String>,
    /// Whether expired jobs of it have not been ended for a while.
    pub has_expired: bool,
    /// Since when a probe of it is due and not made, in words, while it is parked.
    pub probe: Option<String>,
    /// Whether a living daemon has the account in its configuration.
    pub is_served: bool,
    /// Since when none of those gives a sign of life, in words, if that is longer than one may be silent: they may be gone.
    pub silent_since: Option<String>,
    /// Whether an operator has parked it: then nobody has to serve it.
    pub is_left_alone: bool,
    /// If none has: the daemon that had it last, unless that one was started again without it.
    pub stopped: Option<Stopped>,
    /// Kinds of its open alerts; with what fails, of the one that has several causes.
    pub open_alerts: Vec<String>,
    /// The jobs of its open alerts about stuck ones.
    pub stuck: Vec<String>,
}

impl AccountFacts {
    pub(super) fn has_open(&self, kind: &str) -> bool {
        self.open_alerts.iter().any(|open| open == kind)
    }
}

/// A daemon that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Its machine. Another one, for other accounts, may run there.
    pub host: String,
    /// When it gave its last sign, in words.
    pub seen_at: String,
    /// Whether it was stopped and had recorded all that it did; otherwise it fell silent.
    pub is_proper: bool,
}

/// Requests that are all refused for the account's limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRequests {
    /// Since when, in words: another moment is another row of them.
    pub since: String,
    /// The code of the last one; empty once it is forgotten.
    pub code: String,
    /// What it said.
    pub said: Option<String>,
    /// Until when the account waits, in words, where that is long.
    pub until: Option<String>,
}

impl RefusedRequests {
    /// What was answered, and since when.
    pub(super) fn in_words(&self) -> String {
        let code = if self.code.is_empty() { "" } else { ", " };
        let said = match &self.said {
            Some(said) => format!(": {said}"),
            None => String::new(),
        };
        format!("HTTP 429{code}{}{said}, since {}", self.code, self.since)
    }
}

/// A failure that goes on.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What fails: a loop, a channel, a fault of the schema.
    pub what: String,
    /// Changes when it is another failure than before.
    pub mark: String,
    /// What was said of it.
    pub cause: String,
}

/// Everything that one look sees.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Accounts in which something is due.
    pub accounts: Vec<AccountFacts>,
    /// Why the database did not tell; then `accounts`, `stopped_for` and `deliveries` say nothing.
    pub database: Option<String>,
    /// Whether it answered all the same, if only to refuse.
    pub is_answering: bool,
    /// How long all sending is stopped, if it is.
    pub stopped_for: Option<Duration>,
    /// Loops that fail.
    pub loops: Vec<Failure>,
    /// Why outcomes wait in memory, if they do.
    pub outcomes: Option<String>,
    /// Accounts that this daemon cannot begin to serve, as `what`, and why.
    pub held_up: Vec<Failure>,
    /// Accounts that cannot be changed as the gateway asks for, and why: nothing of them is sent before.
    pub unchanged: Vec<Failure>,
    /// Channels that do not take their deliveries.
    pub deliveries: Vec<Failure>,
    /// Parked accounts whose probes get no clear answer.
    pub probes: Vec<Failure>,
    /// Faults of the schema that are certain and stop everything.
    pub faults: Vec<Failure>,
    /// Numbers that are given out again: some payments are refused or go the slow way, others move.
    pub numbers: Vec<Failure>,
}
