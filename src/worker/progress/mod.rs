//! The check from the outside of the machinery: compares what is due with what moved, and says so when
//! something does not; past the database, when that is what fails.
//!
//! It takes no loop's word for it and keeps what it saw in memory; [`crate::policy::progress`] decides.

mod ended;
mod standstills;
mod tell;
mod words;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tracing::warn;

use crate::db::locks::{self, InTheWay, LockedMirror};
use crate::db::mirrors::MirrorKind;
use crate::db::progress::{self, DueWork, Stop, Weight};
use crate::db::{DbError, schema};
use crate::domain::account::AccountName;
use crate::domain::phone::without_phones;
use crate::domain::times::ALIVE_FOR;
use crate::policy::progress::{
    AccountFacts, Concern, FEW, Facts, Failure, Patience, RefusedRequests, Standstill, Stopped,
    Watch,
};
use crate::telemetry::Chain;
use crate::worker::alerting::STUCK;
use crate::worker::clock::Moment;
use crate::worker::context::Context;
use crate::worker::pulse::{Pulse, Step};
use crate::worker::spell::warn_in_spells;
use crate::worker::written::written;
use schema::Defect;
use tell::{Outbox, Over, Teller};

/// Within how long after the database was away each daemon has given a sign of life.
const SIGNS_WITHIN: Duration = Duration::from_secs(30);

/// How many looks share one reading of the schema, and one weighing of what waits.
const SELDOM: u32 = 6;

/// What was seen and told so far.
pub struct Progress {
    started: Moment,
    /// Since when each look was answered by the database.
    answering_since: Option<Moment>,
    /// Since when, besides, sending was not stopped: what a stop keeps from moving is not found under it.
    watching_since: Option<Moment>,
    looks: u32,
    watch: Watch,
    teller: Teller,
    faults: Vec<Defect>,
    snapshot: Snapshot,
}

/// What the database told, as it was last.
#[derive(Default)]
struct Snapshot {
    due: Vec<DueWork>,
    stop: Option<Stop>,
    deliveries: Vec<Failure>,
    /// Of the accounts of which some may be locked, how many due jobs nobody has locked.
    free: BTreeMap<String, u32>,
    /// What waits in all accounts, now and then counted again; none before it could be counted.
    weight: Option<Weight>,
}

/// How often it looks: a tenth of what is waited for, and a little more.
pub fn interval(ctx: &Context) -> Duration {
    (patience(ctx).moving / 18).clamp(Duration::from_secs(1), Duration::from_secs(10))
}

fn patience(ctx: &Context) -> Patience {
    Patience::new(ctx.lease, ctx.rules.follow.max)
}

impl Progress {
    /// Nothing was seen yet.
    pub fn new() -> Progress {
        Progress {
            started: Moment::now(),
            answering_since: None,
            watching_since: None,
            looks: 0,
            watch: Watch::default(),
            teller: Teller::default(),
            faults: Vec::new(),
            snapshot: Snapshot::default(),
        }
    }

    /// One look, with what the loops say of themselves.
    pub async fn step(
        &mut self,
        ctx: &Arc<Context>,
        pulses: &[Arc<Pulse>],
    ) -> Result<Step, DbError> {
        let read = self.read(ctx).await;
        let database = read.as_ref().err().map(words_of);
        let is_answering = read.as_ref().err().is_none_or(DbError::is_answer);
        if database.is_some() {
            // The schema may be why: the next look reads it again.
            self.looks = 0;
            self.answering_since = None;
        } else {
            self.answering_since.get_or_insert_with(Moment::now);
        }
        if database.is_some() || self.snapshot.stop.is_some() {
            self.watching_since = None;
        } else {
            self.watching_since.get_or_insert_with(Moment::now);
        }
        let faults = self.faults.iter().filter(|fault| fault.stops_payments());
        let (numbers, faults): (Vec<_>, Vec<_>) = faults.partition(|fault| fault.is_partial());
        let loops = pulses.iter().filter_map(|pulse| {
            let (since, cause) = pulse.failing()?;
            Some(Failure {
                what: pulse.name.to_owned(),
                mark: format!("{since:?}"),
                cause,
            })
        });
        let facts = Facts {
            accounts: self
                .snapshot
                .due
                .iter()
                .map(|due| account(ctx, due, &self.snapshot.free))
                .collect(),
            database,
            is_answering,
            stopped_for: self
                .snapshot
                .stop
                .as_ref()
                .map(|stop| Duration::try_from_secs_f64(stop.seconds).unwrap_or_default()),
            loops: loops.collect(),
            probes: unclear_probes(ctx),
            outcomes: ctx.recorder.trouble(),
            held_up: held_up(ctx.held_up.list()),
            unchanged: held_up(ctx.held_up.unchanged()),
            deliveries: self.snapshot.deliveries.clone(),
            faults: faults.into_iter().map(failure).collect(),
            numbers: numbers.into_iter().map(failure).collect(),
        };
        let standstills = self.look(ctx, &facts).await;
        let moving = patience(ctx).moving;
        // Whichever of them fails: the one that fills the outbox, or one that empties it.
        let mut delivers = pulses
            .iter()
            .filter(|pulse| pulse.name.starts_with("deliver"));
        let is_deaf = delivers.any(|pulse| {
            let failing = pulse.failing();
            failing.is_some_and(|(since, _)| since.elapsed() >= moving)
        });
        self.tell(
            ctx,
            &facts,
            standstills,
            Outbox {
                is_answering,
                is_deaf,
            },
        )
        .await;
        read.map(|()| Step::Idle)
    }

    /// The database failed before there was any loop.
    pub async fn database_fails(&mut self, ctx: &Context, error: &DbError) {
        let is_answering = error.is_answer();
        let facts = Facts {
            database: Some(words_of(error)),
            is_answering,
            ..Facts::default()
        };
        let standstills = self.look(ctx, &facts).await;
        let is_deaf = true;
        self.tell(
            ctx,
            &facts,
            standstills,
            Outbox {
                is_answering,
                is_deaf,
            },
        )
        .await;
    }

    async fn look(&mut self, ctx: &Context, facts: &Facts) -> Vec<Standstill> {
        self.watch
            .look(self.started.elapsed(), facts, patience(ctx))
    }

    async fn read(&mut self, ctx: &Context) -> Result<(), DbError> {
        let (pool, patience) = (&ctx.lookout, patience(ctx));
        let is_seldom = self.looks.is_multiple_of(SELDOM);
        self.looks = self.looks.wrapping_add(1);
        if is_seldom {
            // First, for it names the cause if one of the others fails.
            let faults = schema::faults(pool).await?;
            for fault in faults.iter().filter(|fault| !self.faults.contains(fault)) {
                warn!(remedy = fault.remedy(), "{fault}");
            }
            self.faults = faults;
        }
        let unstored = progress::Unstored {
            invoices: ctx.unstored.keys(MirrorKind::Invoice),
            refunds: ctx.unstored.keys(MirrorKind::Refund),
        };
        let due = progress::due(pool, patience.moving.max(ALIVE_FOR), &unstored).await?;
        let stop = progress::stop(pool).await?;
        let undelivered = progress::undelivered(pool, ctx.webhook.is_some()).await?;
        let weight = if is_seldom {
            let accounts: Vec<String> = waiting(&due).map(str::to_owned).collect();
            // What waits is told without its number where that cannot be counted.
            let weighed = progress::weigh(pool, &accounts).await;
            weighed.map(Some).unwrap_or_else(|error| {
                warn_in_spells!(""; error = %Chain(&error), "what waits was not counted");
                self.snapshot.weight
            })
        } else {
            self.snapshot.weight
        };
        // Of an account with as many as ten only where an alert may say that they are locked.
        let may_be_locked = due.iter().filter(|due| {
            due.due_jobs > i64::from(FEW) && due.open_alerts.iter().any(|kind| kind == STUCK)
        });
        let may_be_locked: Vec<String> = may_be_locked.map(|due| due.account.clone()).collect();
        let free = match may_be_locked.as_slice() {
            [] => BTreeMap::new(),
            accounts => locks::free_jobs(pool, accounts, FEW + 1).await?,
        };
        self.snapshot = Snapshot {
            due,
            free,
            stop,
            deliveries: undelivered
                .into_iter()
                .map(|deliveries| Failure {
                    // It has moved once one was delivered: then the others are tried at once.
                    mark: deliveries.recovered.to_string(),
                    cause: format!("{}: {}", deliveries.counted(), deliveries.error),
                    what: deliveries.channel,
                })
                .collect(),
            weight,
        };
        Ok(())
    }

    async fn tell(
        &mut self,
        ctx: &Context,
        facts: &Facts,
        standstills: Vec<Standstill>,
        outbox: Outbox,
    ) {
        let mut incidents = Vec::new();
        let mut told: BTreeMap<(Option<String>, String), Vec<&Standstill>> = BTreeMap::new();
        for standstill in &standstills {
            let key = (standstill.account.clone(), standstill.host.clone());
            told.entry(key).or_default().push(standstill);
        }
        for ((account, host), standstills) in told {
            let concerned = match &account {
                Some(account) => vec![account.clone()],
                None => standstills
                    .iter()
                    .flat_map(|f| f.accounts.clone())
                    .collect(),
            };
            let weight = if facts.database.is_none() && !concerned.is_empty() {
                let weighed = progress::weigh(&ctx.lookout, &concerned).await;
                weighed.ok().or(self.snapshot.weight)
            } else {
                self.snapshot.weight
            };
            // What was counted before the database was away is told in words that say so, and not as what waits now.
            let waits_now = weight.filter(|_| facts.database.is_none());
            let is_concerned =
                |name: &&str| concerned.is_empty() || concerned.iter().any(|c| c == name);
            let waiting = words::Behind {
                accounts: waiting(&self.snapshot.due).filter(is_concerned).collect(),
                weight,
                is_old: facts.database.is_some(),
            };
            let in_the_way =
                if outbox.is_answering && standstills.iter().any(|f| f.concern.may_be_a_lock()) {
                    in_the_way(ctx, &concerned).await
                } else {
                    Vec::new()
                };
            let mirrors = if outbox.is_answering
                && standstills.iter().any(|f| f.concern == Concern::Checks)
            {
                locked_mirrors(ctx, &concerned).await
            } else {
                Vec::new()
            };
            let is_critical = standstills.iter().any(|f| f.concern.is_critical());
            incidents.push(tell::Incident {
                text: words::text(
                    ctx.worker,
                    &standstills,
                    &waiting,
                    &words::Known {
                        faults: &self.faults,
                        stop: self.snapshot.stop.as_ref(),
                        said: facts.loops.first().map(|failing| failing.cause.as_str()),
                        in_the_way: &in_the_way,
                        mirrors: &mirrors,
                    },
                ),
                concerns: standstills.iter().map(|f| f.concern).collect(),
                accounts: standstills
                    .iter()
                    .flat_map(|f| f.accounts.clone())
                    .collect(),
                severity: if is_critical { "critical" } else { "warning" },
                lasted: standstills
                    .iter()
                    .map(|f| f.lasted)
                    .max()
                    .unwrap_or_default(),
                account,
                subject: host,
                weight: waits_now,
            });
        }
        // Nothing is known to be over while the database does not tell. What others told is, once this daemon has watched
        // for long enough: their signs of life may be old because the database was away.
        let answering = self
            .answering_since
            .map(Moment::elapsed)
            .unwrap_or_default();
        let over = match (&facts.database, self.watching_since) {
            (Some(_), _) => Over::Nothing,
            (None, Some(since)) => Over::All {
                watched: since.elapsed(),
            },
            (None, None) => Over::Ours,
        };
        let background = tell::Background {
            facts,
            patience: patience(ctx),
            stop: self.snapshot.stop.as_ref(),
            knows_who_serves: answering > SIGNS_WITHIN,
            over,
        };
        self.teller.tell(ctx, &incidents, outbox, background).await;
        ctx.stand_still(words::status(&incidents));
    }
}

impl Default for Progress {
    fn default() -> Progress {
        Progress::new()
    }
}

/// Parked accounts whose probes get no clear answer, as far as this daemon made them.
fn unclear_probes(ctx: &Context) -> Vec<Failure> {
    let rooms = ctx.rooms.open().into_iter();
    let unclear = rooms.filter_map(|room| {
        let (since, got) = room.probing.unclear()?;
        let since = written(since);
        Some(Failure {
            what: room.name.to_string(),
            cause: format!("{}, since {since}", without_phones(&got)),
            mark: since,
        })
    });
    unclear.collect()
}

/// Who keeps locked what these accounts need, or all where none is named.
async fn in_the_way(ctx: &Context, concerned: &[String]) -> Vec<InTheWay> {
    let found = if concerned.is_empty() {
        locks::in_the_way(&ctx.lookout, &ctx.account_names()).await
    } else {
        locks::in_the_way(&ctx.lookout, concerned).await
    };
    found.unwrap_or_else(|error| {
        warn_in_spells!(""; error = %Chain(&error), "who keeps what locked is not known");
        Vec::new()
    })
}

/// What of these accounts cannot be checked because somebody keeps its row locked.
async fn locked_mirrors(ctx: &Context, concerned: &[String]) -> Vec<LockedMirror> {
    let found = locks::due_mirrors(&ctx.lookout, concerned, ctx.lease).await;
    found.unwrap_or_else(|error| {
        warn_in_spells!(""; error = %Chain(&error), "which invoices are locked is not known");
        Vec::new()
    })
}

/// The accounts of which something is due to be sent or looked up.
fn waiting(due: &[DueWork]) -> impl Iterator<Item = &str> {
    let waits = |due: &&DueWork| due.due_jobs > 0 || due.lookup.is_some();
    due.iter().filter(waits).map(|due| due.account.as_str())
}

/// The accounts that are held up so, each once.
fn held_up(causes: Vec<(AccountName, String)>) -> Vec<Failure> {
    let causes: BTreeMap<_, _> = causes.into_iter().collect();
    let failures = causes.into_iter().map(|(account, cause)| Failure {
        what: account.to_string(),
        mark: String::new(),
        cause,
    });
    failures.collect()
}

fn failure(fault: &Defect) -> Failure {
    Failure {
        what: fault.to_string(),
        mark: String::new(),
        cause: fault.to_string(),
    }
}

fn refused(due: &DueWork, since: OffsetDateTime) -> RefusedRequests {
    RefusedRequests {
        since: written(since),
        code: due.blocked_reason.clone().unwrap_or_default(),
        said: due.blocked_message.clone(),
        until: due.blocked_until.map(written),
    }
}

fn account(ctx: &Context, due: &DueWork, free: &BTreeMap<String, u32>) -> AccountFacts {
    let ours = AccountName::parse(&due.account).and_then(|name| ctx.rooms.get(&name));
    AccountFacts {
        account: due.account.clone(),
        due_jobs: u32::try_from(due.due_jobs).unwrap_or(u32::MAX),
        // What we hold ourselves we know. Quota that was taken and brought no job would look like a claim.
        claimed: match &ours {
            Some(room) if due.served_by == 1 => room.jobs.claims().to_string(),
            _ => due.claimed.clone(),
        },
        is_quota_tight: due.is_quota_tight,
        free_jobs: free.get(&due.account).copied(),
        refused_jobs: ours.as_ref().map_or(0, |room| room.jobs.refused()),
        is_late: ours.is_some_and(|room| room.jobs.is_late()),
        lookup: due.lookup.clone(),
        undecided: due.undecided.map(|job| job.to_string()),
        check: due.check.clone(),
        lease: due.lease.clone(),
        refused_sends: due.refused_sends.map(|since| refused(due, since)),
        refused_reads: due.refused_reads.map(|since| refused(due, since)),
        turn: due.turn.clone(),
        has_expired: due.has_expired,
        probe: due.probe.map(written),
        is_served: due.served_by > 0,
        silent_since: due.silent_since.map(written),
        is_left_alone: due.is_left_alone,
        stopped: due.stopped_host.clone().map(|host| Stopped {
            host,
            seen_at: due.stopped_at.map(written).unwrap_or_default(),
            is_proper: due.was_stopped_properly,
        }),
        open_alerts: due.open_alerts.clone(),
        stuck: due.stuck.clone(),
    }
}

/// What the database said, or that it cannot be reached, without which of our statements met it: that would send a
/// reader the wrong way.
fn words_of(error: &DbError) -> String {
    if error.is_answer() {
        return error.cause().message;
    }
    let source = std::error::Error::source(error);
    source.map_or_else(
        || Chain(error).to_string(),
        |source| Chain(source).to_string(),
    )
}
