//! Whether what is due moves: from what is seen now, what was seen before, and for how long.
//!
//! The net below every other alert. It trusts no loop's word that there was nothing to do: whatever is
//! due has a mark that changes when it moves, and a mark that stands still for too long is a finding. A
//! backlog behind the quota moves, however slowly; one that nobody can see does not.

use std::collections::BTreeMap;
use std::time::Duration;

/// What should move, or should not last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Concern {
    /// Jobs that are due are claimed.
    Claims,
    /// Claimed jobs are sent before their window closes.
    Window,
    /// Look-ups that are due are made.
    LookUps,
    /// Look-ups come to an answer.
    Answers,
    /// What was accepted is followed.
    Checks,
    /// Leases that ran out are recovered.
    Leases,
    /// Jobs that waited for another one go on when it has ended.
    Turns,
    /// A daemon that has the account in its configuration can begin to serve it.
    Start,
    /// What the gateway says of the account is stored.
    Change,
    /// A daemon has the account in its configuration.
    Service,
    /// The daemon that served accounts still runs.
    Daemon,
    /// The database answers.
    Database,
    /// A loop of the daemon gets its work done.
    Loop,
    /// Outcomes are written.
    Outcomes,
    /// Alerts are delivered.
    Deliveries,
    /// The schema is as it was made, and nothing hides its rows.
    Schema,
    /// The numbers that the database gives out are free.
    Numbers,
    /// Sending is not stopped for ever.
    Stop,
    /// Sends get past the account's limit at the gateway.
    Limit,
    /// What asks gets past it.
    AskingLimit,
    /// Parked accounts are probed when that is due.
    Probing,
    /// Probes of parked accounts get clear answers.
    Probes,
}

impl Concern {
    /// Whether it costs payments, rather than what protects or reports them.
    pub fn is_critical(self) -> bool {
        !matches!(self, Concern::Deliveries | Concern::Stop)
    }

    /// Whether a lock that somebody keeps may be why.
    pub fn may_be_a_lock(self) -> bool {
        match self {
            Concern::Claims
            | Concern::Window
            | Concern::LookUps
            | Concern::Answers
            | Concern::Checks
            | Concern::Leases
            | Concern::Turns
            | Concern::Probing
            | Concern::Database
            | Concern::Loop
            | Concern::Outcomes => true,
            // It names the session itself.
            Concern::Start
            | Concern::Change
            | Concern::Service
            | Concern::Daemon
            | Concern::Deliveries
            | Concern::Schema
            | Concern::Numbers
            | Concern::Stop
            | Concern::Limit
            | Concern::AskingLimit
            | Concern::Probes => false,
        }
    }

    /// Whether what was said of it is its cause: another one is another incident.
    pub fn is_said(self) -> bool {
        matches!(
            self,
            Concern::Database
                | Concern::Loop
                | Concern::Outcomes
                | Concern::Schema
                | Concern::Numbers
        )
    }

    /// Whether payments wait because of it: an alert that is not delivered holds none up.
    pub fn holds_payments(self) -> bool {
        self != Concern::Deliveries
    }
}

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
    pub refused_sends: Option<Refused>,
    /// Since when what asks is, while something waits to be asked.
    pub refused_reads: Option<Refused>,
    /// A job that waited for another one, whose turn has come.
    pub turn: Option<String>,
    /// Since when a probe of it is due and not made, in words, while it is parked.
    pub probe: Option<String>,
    /// Whether a living daemon has the account in its configuration.
    pub is_served: bool,
    /// Whether an operator has parked it: then nobody has to serve it.
    pub is_left_alone: bool,
    /// If none has: the daemon that had it last, when that has stopped.
    pub stopped: Option<Stopped>,
    /// Kinds of its open alerts; with what fails, of the one that has several causes.
    pub open_alerts: Vec<String>,
    /// The jobs of its open alerts about stuck ones.
    pub stuck: Vec<String>,
}

/// A daemon that gives no sign of life any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Its machine. Another one, for other accounts, may run there.
    pub host: String,
    /// When it gave its last sign, in words.
    pub seen_at: String,
}

/// Requests that are all refused for the account's limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Since when, in words: another moment is another row of them.
    pub since: String,
    /// The code of the last one.
    pub code: String,
    /// What it said.
    pub said: Option<String>,
}

impl Refused {
    /// What was answered, and since when.
    fn in_words(&self) -> String {
        let said = match &self.said {
            Some(said) => format!(": {said}"),
            None => String::new(),
        };
        format!("HTTP 429, {}{said}, since {}", self.code, self.since)
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
    /// Channels that do not take their notices.
    pub deliveries: Vec<Failure>,
    /// Parked accounts whose probes get no clear answer.
    pub probes: Vec<Failure>,
    /// Faults of the schema that are certain and stop everything.
    pub faults: Vec<Failure>,
    /// Numbers that are given out again: some payments are refused or go the slow way, others move.
    pub numbers: Vec<Failure>,
}

/// How long things may stand still.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// What is due.
    pub moving: Duration,
    /// A check that is due: it may wait for its turn.
    pub check: Duration,
}

impl Patience {
    /// From how long a claim holds a job, within which each request ends, and the longest distance of checks.
    pub fn new(lease: Duration, check_distance: Duration) -> Patience {
        Patience {
            moving: lease * 2,
            check: lease * 2 + check_distance,
        }
    }
}

/// What stands still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The account it concerns; none: all of them.
    pub account: Option<String>,
    /// The machine whose daemon has stopped, if that is what was found; else empty.
    pub host: String,
    /// The accounts that this daemon served.
    pub accounts: Vec<String>,
    /// What should move.
    pub concern: Concern,
    /// For how long it was seen to stand still.
    pub lasted: Duration,
    /// What was said of it; empty when nothing was.
    pub cause: String,
}

/// Due jobs up to which one that is stuck by itself explains why nothing moves.
pub const FEW: u32 = 10;

/// With few requests a minute, sends, look-ups and checks take turns.
const QUOTA_TURNS: Duration = Duration::from_secs(300);

/// How long an account may be kept from its start, or from its probe: whoever keeps its row locked for a moment is told to
/// nobody.
const ROW_PATIENCE: Duration = Duration::from_secs(30);

/// A human stopped all sending, and knows it; after this they may have forgotten.
const STOP_FORGOTTEN: Duration = Duration::from_secs(24 * 3600);

/// Alerts that say already why nothing of an account moves.
const EXPLAINING: [&str; 4] = [
    "history_lost",
    "cap_reached everything",
    "gateway_failing sends",
    "clock_jumped",
];

/// The alert that says already why nothing moves that needs its account to be active: its probes need that not, nor do
/// leases that ran out.
const EXPLAINING_A_PARK: &str = "account_parked";

/// The alert that says already why sends of some operations are refused: what else is due has to move.
const EXPLAINING_REFUSALS: &str = "cap_reached";

/// The alert that says already why nobody serves an account. While another daemon serves it, it explains nothing.
const EXPLAINING_NO_SERVICE: &str = "other_organization";

/// The alert that says already why nothing is seen of what was sent.
const EXPLAINING_READS: &str = "gateway_failing reads";

struct Sight {
    account: Option<String>,
    concern: Concern,
    what: String,
    accounts: Vec<String>,
    mark: String,
    patience: Duration,
    cause: String,
}

/// What was seen before.
#[derive(Debug, Default)]
pub struct Watch {
    marks: BTreeMap<(Option<String>, Concern, String), Mark>,
}

#[derive(Debug)]
struct Mark {
    mark: String,
    since: Duration,
    is_found: bool,
}

impl Watch {
    /// Compares with what was seen before; `at` is a time that only rises. Whatever was not seen, or has
    /// another mark, has moved. While the database does not tell, what had been found stands as it was.
    pub fn look(&mut self, at: Duration, facts: &Facts, patience: Patience) -> Vec<Finding> {
        let sights = sights(facts, patience);
        let mut marks = BTreeMap::new();
        let mut findings = Vec::new();
        let mut waiting = Vec::new();
        for sight in sights {
            let host = match sight.concern {
                Concern::Daemon => sight.what.clone(),
                _ => String::new(),
            };
            let key = (sight.account.clone(), sight.concern, sight.what);
            let since = match self.marks.remove(&key) {
                Some(before) if before.mark == sight.mark => before.since,
                _ => at,
            };
            let lasted = at.saturating_sub(since);
            let is_found = lasted >= sight.patience;
            let mark = sight.mark;
            marks.insert(
                key,
                Mark {
                    mark,
                    since,
                    is_found,
                },
            );
            let finding = Finding {
                account: sight.account,
                host,
                accounts: sight.accounts,
                concern: sight.concern,
                lasted,
                cause: sight.cause,
            };
            let may_be_explained = finding.account.is_some() && finding.concern != Concern::Service;
            if is_found && may_be_explained {
                waiting.push((lasted >= sight.patience * 2, finding));
            } else if is_found {
                findings.push(finding);
            }
        }
        let unseen = std::mem::take(&mut self.marks);
        if facts.database.is_some() {
            marks.extend(unseen.into_iter().filter(|(_, mark)| mark.is_found));
        }
        self.marks = marks;
        // What concerns everything explains why nothing of an account moves, and is told once.
        let stops_all =
            |concern| matches!(concern, Concern::Loop | Concern::Outcomes | Concern::Schema);
        let is_told = findings.iter().any(|finding| stops_all(finding.concern));
        let may_be_told = self.marks.keys().any(|(_, concern, _)| stops_all(*concern));
        let of_accounts = waiting
            .into_iter()
            .filter(|(is_old, _)| !is_told && (!may_be_told || *is_old));
        findings.extend(of_accounts.map(|(_, finding)| finding));
        findings
    }
}

fn sights(facts: &Facts, patience: Patience) -> Vec<Sight> {
    let whole = |concern, failure: &Failure, patience| Sight {
        account: None,
        concern,
        what: failure.what.clone(),
        accounts: Vec::new(),
        mark: failure.mark.clone(),
        patience,
        cause: failure.cause.clone(),
    };
    let lasting = |concern, cause: &String| Sight {
        account: None,
        concern,
        what: String::new(),
        accounts: Vec::new(),
        mark: String::new(),
        patience: patience.moving,
        cause: cause.clone(),
    };
    let mut sights = Vec::new();
    let faults = facts.faults.iter();
    sights.extend(faults.map(|fault| whole(Concern::Schema, fault, Duration::ZERO)));
    let numbers = facts.numbers.iter();
    sights.extend(numbers.map(|taken| whole(Concern::Numbers, taken, Duration::ZERO)));
    let outcomes = facts.outcomes.iter();
    sights.extend(outcomes.map(|cause| lasting(Concern::Outcomes, cause)));
    if let Some(cause) = &facts.database {
        // The loops say the same. What refuses them is known when the schema is at fault.
        if !facts.is_answering || facts.faults.is_empty() {
            sights.push(lasting(Concern::Database, cause));
        }
        return sights;
    }
    let loops = facts.loops.iter();
    sights.extend(loops.map(|failing| whole(Concern::Loop, failing, patience.moving)));
    let deliveries = facts.deliveries.iter();
    sights.extend(deliveries.map(|failing| whole(Concern::Deliveries, failing, patience.moving)));
    let held_up = facts.held_up.iter();
    sights.extend(held_up.map(|held_up| Sight {
        accounts: vec![held_up.what.clone()],
        ..whole(Concern::Start, held_up, ROW_PATIENCE)
    }));
    let unchanged = facts.unchanged.iter();
    sights.extend(unchanged.map(|unchanged| Sight {
        accounts: vec![unchanged.what.clone()],
        ..whole(Concern::Change, unchanged, ROW_PATIENCE)
    }));
    // Nobody serves it, or its outcomes wait, and why is known.
    let is_held_up = |account: &str| facts.held_up.iter().any(|held_up| held_up.what == account);
    let accounts = facts.accounts.iter();
    let accounts: Vec<&AccountFacts> = accounts
        .filter(|account| account.is_served || !is_held_up(&account.account))
        .filter(|account| {
            !facts
                .unchanged
                .iter()
                .any(|unchanged| unchanged.what == account.account)
        })
        .collect();
    match facts.stopped_for {
        None => {
            sights.extend(stopped(&accounts, patience));
            sights.extend(accounts.iter().flat_map(|a| of_account(a, patience)));
            let probes = facts.probes.iter();
            sights.extend(probes.map(|probe| Sight {
                account: Some(probe.what.clone()),
                what: String::new(),
                ..whole(Concern::Probes, probe, patience.moving)
            }));
        }
        Some(time) if time >= STOP_FORGOTTEN && !facts.accounts.is_empty() => {
            sights.push(Sight {
                patience: Duration::ZERO,
                ..lasting(Concern::Stop, &String::new())
            });
        }
        Some(_) => {}
    }
    sights
}

/// Daemons that have stopped, each once, however many accounts it served.
fn stopped(accounts: &[&AccountFacts], patience: Patience) -> Vec<Sight> {
    let mut hosts: BTreeMap<&str, Sight> = BTreeMap::new();
    for facts in accounts.iter().filter(|facts| is_missed(facts)) {
        let Some(Stopped { host, seen_at }) = &facts.stopped else {
            continue;
        };
        let sight = hosts.entry(host).or_insert_with(|| Sight {
            account: None,
            concern: Concern::Daemon,
            what: host.clone(),
            accounts: Vec::new(),
            mark: String::new(),
            patience: patience.moving,
            cause: String::new(),
        });
        sight.accounts.push(facts.account.clone());
        // As it is written, the later one is the greater.
        sight.cause = sight.cause.clone().max(seen_at.clone());
    }
    hosts.into_values().collect()
}

/// Whether nobody serves an account that somebody should. What the daemon has parked needs one too, for its probes.
fn is_missed(facts: &AccountFacts) -> bool {
    !facts.is_served && !facts.is_left_alone
}

fn of_account(facts: &AccountFacts, patience: Patience) -> Vec<Sight> {
    let sight = |concern, mark: &str, patience| Sight {
        account: Some(facts.account.clone()),
        concern,
        what: String::new(),
        accounts: Vec::new(),
        mark: mark.to_owned(),
        patience,
        cause: String::new(),
    };
    let has_open = |kind: &str| facts.open_alerts.iter().any(|open| open == kind);
    if !facts.is_served {
        let is_told =
            facts.stopped.is_some() || !is_missed(facts) || has_open(EXPLAINING_NO_SERVICE);
        let told = (!is_told).then(|| sight(Concern::Service, "", patience.moving));
        return told.into_iter().collect();
    }
    let mut sights = Vec::new();
    if let Some(due_since) = &facts.probe {
        sights.push(Sight {
            cause: format!("due since {due_since}"),
            ..sight(Concern::Probing, due_since, ROW_PATIENCE)
        });
    }
    if EXPLAINING.iter().any(|kind| has_open(kind)) {
        return sights;
    }
    // A stuck job explains what stands still with it, and of no other job.
    let is_stuck = |mark: &str| {
        let job = mark.split(' ').next().unwrap_or_default();
        facts.stuck.iter().any(|stuck| stuck == job)
    };
    let lease = facts.lease.as_ref().filter(|mark| !is_stuck(mark));
    sights.extend(lease.map(|mark| sight(Concern::Leases, mark, patience.moving)));
    if has_open(EXPLAINING_A_PARK) {
        return sights;
    }
    let is_read_told = has_open(EXPLAINING_READS);
    let refused = [
        (
            Concern::Limit,
            &facts.refused_sends,
            has_open(EXPLAINING_REFUSALS),
        ),
        (Concern::AskingLimit, &facts.refused_reads, is_read_told),
    ];
    for (concern, refused, is_told) in refused {
        if let Some(refused) = refused.as_ref().filter(|_| !is_told) {
            sights.push(Sight {
                cause: refused.in_words(),
                ..sight(concern, &refused.since, patience.moving)
            });
        }
    }
    let turns = if facts.is_quota_tight {
        QUOTA_TURNS
    } else {
        Duration::ZERO
    };
    let moving = patience.moving + turns;
    let is_single = has_open("job_stuck");
    // One job that is stuck explains a few, or as many as are known to be refused as it is.
    let is_told = is_single && facts.due_jobs <= FEW.max(facts.refused_jobs);
    if facts.due_jobs > 0 && !is_told {
        sights.push(sight(Concern::Claims, &facts.claimed, moving));
        if facts.is_late {
            sights.push(sight(Concern::Window, "", moving));
        }
    }
    let single = [
        (Concern::LookUps, &facts.lookup, moving),
        (Concern::Answers, &facts.undecided, patience.moving),
        (Concern::Turns, &facts.turn, patience.moving),
    ];
    for (concern, mark, patience) in single {
        let is_told = is_read_told && concern == Concern::LookUps;
        if let Some(mark) = mark.as_ref().filter(|mark| !is_stuck(mark) && !is_told) {
            sights.push(sight(concern, mark, patience));
        }
    }
    if let Some(mark) = facts.check.as_ref().filter(|_| !is_read_told) {
        sights.push(sight(Concern::Checks, mark, patience.check + turns));
    }
    sights
}

#[cfg(test)]
mod tests;
