//! What should move by now, as far as no other alert explains why it does not.

use std::collections::BTreeMap;
use std::time::Duration;

use super::concern::Concern;
use super::facts::{AccountFacts, FEW, Facts, Failure, RefusedRequests, Stopped};

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

/// With few requests a minute, sends, look-ups and checks take turns.
const QUOTA_TURNS: Duration = Duration::from_secs(300);

/// How long an account may be kept from its start, or from its probe: whoever keeps its row locked for a moment is told to
/// nobody.
const ROW_PATIENCE: Duration = Duration::from_secs(30);

/// A human stopped all sending, and knows it; after this they may have forgotten.
const STOP_FORGOTTEN: Duration = Duration::from_secs(24 * 3600);

/// Alerts that say already why nothing of an account moves.
pub(super) const EXPLAINING: [&str; 4] = [
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

/// Something that should move, or should not last.
#[derive(Debug)]
pub(super) struct Sight {
    pub(super) account: Option<String>,
    pub(super) concern: Concern,
    pub(super) what: String,
    pub(super) accounts: Vec<String>,
    pub(super) mark: String,
    pub(super) patience: Duration,
    pub(super) cause: String,
    pub(super) refused: Option<RefusedRequests>,
}

impl Sight {
    pub(super) fn key(&self) -> (Option<&str>, Concern, &str) {
        (self.account.as_deref(), self.concern, &self.what)
    }

    pub(super) fn is_about(&self, account: &str) -> bool {
        self.account.as_deref() == Some(account) || self.accounts.iter().any(|a| a == account)
    }

    pub(super) fn shares_an_account(&self, other: &Sight) -> bool {
        let own = self.account.iter().chain(&self.accounts);
        own.into_iter().any(|account| other.is_about(account))
    }
}

/// Whether what the gateway says of it cannot be stored.
pub(super) fn is_unchanged(facts: &Facts, account: &AccountFacts) -> bool {
    let mut unchanged = facts.unchanged.iter();
    unchanged.any(|unchanged| unchanged.what == account.account)
}

pub(super) fn sights(facts: &Facts, patience: Patience) -> Vec<Sight> {
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
pub(super) fn is_missed(facts: &AccountFacts) -> bool {
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
pub(super) fn is_service_told(facts: &AccountFacts) -> bool {
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
