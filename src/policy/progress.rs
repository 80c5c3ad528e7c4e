//! Whether what is due moves: from what is seen now, what was seen before, and for how long.
//!
//! The net below every other alert. It trusts no loop's word that there was nothing to do: whatever is
//! due has a mark that changes when it moves, and a mark that stands still for too long is a standstill. A
//! backlog behind the quota moves, however slowly; one that nobody can see does not.

mod concern;

use std::collections::BTreeMap;
use std::time::Duration;

pub use concern::Concern;

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
    fn has_open(&self, kind: &str) -> bool {
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
    fn in_words(&self) -> String {
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
pub struct Standstill {
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
    /// The requests that are refused, if that is what was found.
    pub refused: Option<RefusedRequests>,
}

/// With at most this many due jobs that nobody keeps locked, one open `job_stuck` alert explains why none is claimed.
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

/// What may have due jobs wait. (Without a number: a text that changes with each look would be written with each look.)
const EXPIRED_FIRST: &str = "jobs of it that have expired are being ended, and those that stand before the others have to be ended first";

/// The alert that explains why work that needs an active account stands still. Probes and expired leases do not need
/// one, so it does not explain those.
const EXPLAINING_A_PARK: &str = "account_parked";

/// The alert that says already why sends of some operations are refused: what else is due has to move.
const EXPLAINING_REFUSALS: &str = "cap_reached";

/// The alert that says already why nobody serves an account. While another daemon serves it, it explains nothing.
const EXPLAINING_NO_SERVICE: &str = "other_organization";

/// The alert that says already why a few jobs do not move.
const EXPLAINING_JOBS: &str = "job_stuck";

/// The alert that says already why nothing is seen of what was sent.
const EXPLAINING_READS: &str = "gateway_failing reads";

#[derive(Debug)]
struct Sight {
    account: Option<String>,
    concern: Concern,
    what: String,
    accounts: Vec<String>,
    mark: String,
    patience: Duration,
    cause: String,
    refused: Option<RefusedRequests>,
}

impl Sight {
    fn key(&self) -> (Option<&str>, Concern, &str) {
        (self.account.as_deref(), self.concern, &self.what)
    }

    fn is_about(&self, account: &str) -> bool {
        self.account.as_deref() == Some(account) || self.accounts.iter().any(|a| a == account)
    }

    fn shares_an_account(&self, other: &Sight) -> bool {
        let own = self.account.iter().chain(&self.accounts);
        own.into_iter().any(|account| other.is_about(account))
    }
}

/// What was seen before.
#[derive(Debug, Default)]
pub struct Watch {
    marks: Vec<Mark>,
}

/// A sight, and since when it stands still.
#[derive(Debug)]
struct Mark {
    sight: Sight,
    since: Duration,
    /// Whether it has stood still for too long. That lasts until it moves, even where more patience is due meanwhile.
    is_found: bool,
    /// Whether people were told so.
    is_told: bool,
}

impl Mark {
    fn is_of(&self, sight: &Sight) -> bool {
        self.sight.key() == sight.key()
    }

    fn standstill(&self, at: Duration) -> Standstill {
        let sight = &self.sight;
        Standstill {
            account: sight.account.clone(),
            host: match sight.concern {
                Concern::StoppedDaemon | Concern::SilentDaemon => sight.what.clone(),
                _ => String::new(),
            },
            accounts: sight.accounts.clone(),
            concern: sight.concern,
            lasted: at.saturating_sub(self.since),
            cause: sight.cause.clone(),
            refused: sight.refused.clone(),
        }
    }
}

impl Watch {
    /// Compares with what was seen before; `at` is a time that only rises. Whatever was not seen, or has
    /// another mark, has moved. While the database does not tell, what had been found stands as it was. So does what had
    /// been found of an account that is not looked at, because nobody serves it, until that has been found.
    pub fn look(&mut self, at: Duration, facts: &Facts, patience: Patience) -> Vec<Standstill> {
        let before = std::mem::take(&mut self.marks);
        let is_stopped = facts.stopped_for.is_some();
        let mut marks: Vec<Mark> = Vec::new();
        for sight in sights(facts, patience) {
            let mut known = before.iter().filter(|last| last.is_of(&sight));
            let last = known.find(|last| last.sight.mark == sight.mark);
            let last = last.or_else(|| handed_over(&before, &sight));
            let (was_found, is_told) = last.map_or((false, false), |m| (m.is_found, m.is_told));
            if is_stopped && sight.concern.is_kept_by_a_stop() && !was_found {
                // It has its time from when sending is started.
                continue;
            }
            let since = last.map_or(at, |last| last.since);
            // Whoever stops all sending may do so to stop daemons as well.
            let is_excused = is_stopped && sight.concern.is_of_service();
            marks.push(Mark {
                is_found: was_found || (!is_excused && at.saturating_sub(since) >= sight.patience),
                is_told,
                since,
                sight,
            });
        }
        let is_kept = |mark: &Mark| match (&facts.database, &mark.sight.account) {
            (Some(_), _) => true,
            (None, Some(account)) => is_withheld(facts, account) && !is_covered(&marks, account),
            (None, None) => false,
        };
        let unseen = |mark: &Mark| !marks.iter().any(|seen| seen.is_of(&mark.sight));
        let kept: Vec<Mark> = before
            .into_iter()
            .filter(|mark| mark.is_found && unseen(mark) && is_kept(mark))
            .collect();
        let is_new = marks.len();
        marks.extend(kept);
        // What concerns everything explains why nothing of an account moves, and is told once.
        let mut of_all = marks.iter().filter(|mark| mark.sight.concern.stops_all());
        let may_be_told = of_all.next().is_some();
        let is_told = marks[..is_new]
            .iter()
            .any(|mark| mark.is_found && mark.sight.concern.stops_all());
        let (mut standstills, mut of_accounts) = (Vec::new(), Vec::new());
        for (number, mark) in marks.iter_mut().enumerate() {
            let standstill = mark.standstill(at);
            let may_be_explained =
                standstill.account.is_some() && standstill.concern != Concern::Service;
            let is_old = mark.is_told || standstill.lasted >= mark.sight.patience * 2;
            let is_explained = may_be_explained && (is_told || (may_be_told && !is_old));
            // While the database does not tell, nothing new is known of what was found before.
            let is_unknown = number >= is_new && facts.database.is_some();
            if !mark.is_found || is_explained || is_unknown {
                continue;
            }
            mark.is_told = true;
            match may_be_explained {
                true => of_accounts.push(standstill),
                false => standstills.push(standstill),
            }
        }
        self.marks = marks;
        standstills.extend(of_accounts);
        standstills
    }
}

/// What had been found when one concern takes the place of the other: that nobody serves an account is the same incident,
/// whether or not it is known which daemon has stopped.
fn handed_over<'a>(before: &'a [Mark], sight: &Sight) -> Option<&'a Mark> {
    let found = before.iter().filter(|mark| {
        mark.is_found && mark.sight.concern.is_of_service() && sight.concern.is_of_service()
    });
    found
        .filter(|mark| mark.sight.shares_an_account(sight))
        .min_by_key(|mark| mark.since)
}

/// Whether nothing of the account is looked at, although it is due.
fn is_withheld(facts: &Facts, account: &str) -> bool {
    let mut accounts = facts.accounts.iter().filter(|a| a.account == account);
    accounts.any(|a| (is_missed(a) && !is_service_told(a)) || is_unchanged(facts, a))
}

/// Whether what the gateway says of it cannot be stored.
fn is_unchanged(facts: &Facts, account: &AccountFacts) -> bool {
    let mut unchanged = facts.unchanged.iter();
    unchanged.any(|unchanged| unchanged.what == account.account)
}

/// Whether it has been found why it is not looked at.
fn is_covered(marks: &[Mark], account: &str) -> bool {
    marks.iter().any(|mark| {
        mark.is_found && mark.sight.concern.covers_accounts() && mark.sight.is_about(account)
    })
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
        refused: None,
    };
    let lasting = |concern, cause: &String| Sight {
        account: None,
        concern,
        what: String::new(),
        accounts: Vec::new(),
        mark: String::new(),
        patience: patience.moving,
        cause: cause.clone(),
        refused: None,
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
        .filter(|account| !is_unchanged(facts, account))
        .collect();
    sights.extend(stopped(&accounts, patience));
    sights.extend(accounts.iter().flat_map(|a| of_account(a, patience)));
    let probes = facts.probes.iter();
    sights.extend(probes.map(|probe| Sight {
        account: Some(probe.what.clone()),
        what: String::new(),
        ..whole(Concern::Probes, probe, patience.moving)
    }));
    let is_forgotten = facts.stopped_for.is_some_and(|time| time >= STOP_FORGOTTEN);
    if is_forgotten && !facts.accounts.is_empty() {
        sights.push(Sight {
            patience: Duration::ZERO,
            ..lasting(Concern::Stop, &String::new())
        });
    }
    sights
}

/// Machines whose daemons have ended, each once for those that were stopped and once for those that fell silent, however
/// many accounts they served.
fn stopped(accounts: &[&AccountFacts], patience: Patience) -> Vec<Sight> {
    let mut hosts: BTreeMap<(&str, Concern), Sight> = BTreeMap::new();
    for facts in accounts.iter().filter(|facts| is_missed(facts)) {
        let Some(Stopped {
            host,
            seen_at,
            is_proper,
        }) = &facts.stopped
        else {
            continue;
        };
        let concern = match is_proper {
            true => Concern::StoppedDaemon,
            false => Concern::SilentDaemon,
        };
        let sight = hosts.entry((host, concern)).or_insert_with(|| Sight {
            account: None,
            concern,
            what: host.clone(),
            accounts: Vec::new(),
            mark: String::new(),
            patience: patience.moving,
            cause: String::new(),
            refused: None,
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

/// For how long a daemon has to watch an account until what another one told of it is over, unless it has found that too: as
/// long as what is due in it may stand still. Where nothing is due, nothing stands still.
pub fn time_to_find(
    account: &str,
    concerns: &[String],
    facts: &Facts,
    patience: Patience,
) -> Duration {
    // Whoever probes it anew knows nothing of the answers to earlier probes.
    if concerns.iter().any(|code| code == Concern::Probes.code()) {
        return patience.check;
    }
    let sights = sights(facts, patience).into_iter();
    let of_it = sights.filter(|sight| sight.is_about(account));
    of_it
        .map(|sight| sight.patience)
        .max()
        .unwrap_or(Duration::ZERO)
}

/// The kind of the open alert that says why nothing of an account is told here, although something is due.
pub fn explanation(facts: &AccountFacts, patience: Patience) -> Option<&'static str> {
    let is_quiet = |facts: &AccountFacts| of_account(facts, patience).is_empty();
    if facts.stopped.is_some() || facts.is_left_alone || !is_quiet(facts) {
        return None;
    }
    let others = [
        EXPLAINING_A_PARK,
        EXPLAINING_REFUSALS,
        EXPLAINING_NO_SERVICE,
        EXPLAINING_READS,
        EXPLAINING_JOBS,
    ];
    let kind = EXPLAINING.into_iter().chain(others).find(|kind| {
        let mut without = facts.clone();
        without.open_alerts.retain(|open| open != kind);
        if *kind == EXPLAINING_JOBS {
            without.stuck.clear();
        }
        facts.has_open(kind) && !is_quiet(&without)
    })?;
    kind.split(' ').next()
}

/// Whether another alert says why nobody serves it.
fn is_service_told(facts: &AccountFacts) -> bool {
    facts.has_open(EXPLAINING_NO_SERVICE)
}

fn of_account(facts: &AccountFacts, patience: Patience) -> Vec<Sight> {
    // Until it counts as gone nobody is missed, but why nothing moves is known.
    let silent = facts
        .silent_since
        .as_ref()
        .map_or_else(String::new, |since| {
            format!("the apipayd that serves it has given no sign of life since {since}")
        });
    let sight = |concern, mark: &str, patience| Sight {
        account: Some(facts.account.clone()),
        concern,
        what: String::new(),
        accounts: Vec::new(),
        mark: mark.to_owned(),
        patience,
        cause: String::new(),
        refused: None,
    };
    let has_open = |kind: &str| facts.has_open(kind);
    if !facts.is_served {
        let is_told = facts.stopped.is_some() || !is_missed(facts) || is_service_told(facts);
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
                refused: Some(refused.clone()),
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
    let is_single = has_open(EXPLAINING_JOBS);
    // One job that is stuck explains a few, or as many as are known to be refused as it is, or all that are locked.
    let may_go = facts.free_jobs.unwrap_or(facts.due_jobs);
    let is_told = is_single && may_go.min(facts.due_jobs) <= FEW.max(facts.refused_jobs);
    if facts.due_jobs > 0 && !is_told {
        sights.push(Sight {
            cause: match facts.has_expired && silent.is_empty() {
                true => EXPIRED_FIRST.to_owned(),
                false => silent.clone(),
            },
            ..sight(Concern::Claims, &facts.claimed, moving)
        });
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
            sights.push(Sight {
                cause: silent.clone(),
                ..sight(concern, mark, patience)
            });
        }
    }
    if let Some(mark) = facts.check.as_ref().filter(|_| !is_read_told) {
        sights.push(Sight {
            cause: silent,
            ..sight(Concern::Checks, mark, patience.check + turns)
        });
    }
    sights
}

#[cfg(test)]
mod tests;
