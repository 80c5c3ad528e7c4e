//! Tells of what does not move: by a row, whose outbox delivers it like any other alert, and from memory
//! while there is no row or nobody empties the outbox.
//!
//! Several daemons each tell from memory: they have no row to agree on. Their deliveries carry the same
//! labels, hence the same fingerprint, and a receiver such as Alertmanager shows one.

use std::collections::BTreeMap;
use std::time::Duration;

use time::OffsetDateTime;
use tracing::warn;

use super::ended::{self, InPlace};
use crate::alert::{Delivery, Status, Waiting};
use crate::db::DbError;
use crate::db::accounts::AlertText;
use crate::db::fault::AtFault;
use crate::db::progress::{self, Stop, Weight};
use crate::domain::times::ALIVE_FOR;
use crate::policy::progress::{Concern, Facts, Patience, explanation, time_to_find};
use crate::telemetry::Chain;
use crate::worker::clock::Moment;
use crate::worker::context::Context;
use crate::worker::deliver::{self, LOG, WEBHOOK};
use crate::worker::open;
use crate::worker::spell::warn_in_spells;

/// The kind of its alerts.
const KIND: &str = "no_progress";

/// One account, or all of them, and why nothing moves.
pub(super) struct Incident {
    pub(super) account: Option<String>,
    /// What it is about, where several may be told at the same time; else empty.
    pub(super) subject: String,
    pub(super) concerns: Vec<Concern>,
    /// The accounts that it explains, besides its own.
    pub(super) accounts: Vec<String>,
    pub(super) severity: &'static str,
    pub(super) text: AlertText,
    /// For how long it was seen.
    pub(super) lasted: Duration,
    /// What waits because of it, if that could be counted.
    pub(super) weight: Option<Weight>,
}

impl Incident {
    fn key(&self) -> Key {
        (self.account.clone(), self.subject.clone())
    }
}

/// Whether rows can be written, and whether they reach anybody.
#[derive(Clone, Copy)]
pub(super) struct Outbox {
    /// The database answers, if only to refuse.
    pub(super) is_answering: bool,
    /// Nobody has emptied it for long.
    pub(super) is_deaf: bool,
}

/// What else is known at the time at which incidents were found.
#[derive(Clone, Copy)]
pub(super) struct Background<'a> {
    pub(super) facts: &'a Facts,
    pub(super) patience: Patience,
    pub(super) stop: Option<&'a Stop>,
    /// Whether daemons had the time to give signs of life.
    pub(super) knows_who_serves: bool,
    pub(super) over: Over,
}

/// Of what is not found any more, what is known to be over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    Nothing,
    /// What this daemon told.
    Ours,
    /// That, and what earlier or other daemons told, as far as this one has watched for long enough to have found it too.
    All {
        watched: Duration,
    },
}

/// What was told past the outbox.
#[derive(Default)]
pub(super) struct Teller {
    told: BTreeMap<Key, Told>,
}

/// An account, or none, and a subject.
type Key = (Option<String>, String);

struct Told {
    since: Moment,
    concerns: Vec<String>,
    severity: &'static str,
    text: AlertText,
    /// When each channel was last told.
    channels: BTreeMap<&'static str, Moment>,
    repeats: u32,
}

impl Teller {
    /// Makes the alerts say what is found now.
    pub(super) async fn tell(
        &mut self,
        ctx: &Context,
        incidents: &[Incident],
        outbox: Outbox,
        background: Background<'_>,
    ) {
        for incident in incidents {
            let told = self.told.entry(incident.key()).or_insert_with(|| Told {
                since: Moment::now().before(incident.lasted),
                concerns: Vec::new(),
                severity: incident.severity,
                text: incident.text.clone(),
                channels: BTreeMap::new(),
                repeats: 0,
            });
            let codes = incident.concerns.iter().map(|concern| concern.code());
            told.concerns = codes.map(str::to_owned).collect();
            told.severity = incident.severity;
            told.text = incident.text.clone();
            let is_written = outbox.is_answering && keep(ctx, &incident.key(), told).await;
            if !is_written || outbox.is_deaf {
                past_the_outbox(ctx, incident, told).await;
            }
            if is_written && outbox.is_deaf {
                // At once: whoever empties the outbox again does not tell it a second time.
                keep(ctx, &incident.key(), told).await;
            }
        }
        if outbox.is_answering && background.over != Over::Nothing {
            self.end(ctx, incidents, background).await;
        }
    }

    /// What is no longer found has ended. Its row, written now if it could not be before, tells so.
    async fn end(&mut self, ctx: &Context, incidents: &[Incident], background: Background<'_>) {
        let is_found = |key: &Key| incidents.iter().any(|incident| incident.key() == *key);
        let told = self.told.keys();
        let ended: Vec<Key> = told.filter(|key| !is_found(key)).cloned().collect();
        for key in ended {
            if let Some(told) = self.told.get(&key)
                && keep(ctx, &key, told).await
                && resolve(ctx, &key, &told.concerns, incidents, background).await
            {
                self.told.remove(&key);
            }
        }
        let Over::All { watched } = background.over else {
            return;
        };
        let is_watched = |(account, _): &Key, concerns: &[String]| {
            let (facts, patience) = (background.facts, background.patience);
            let needed = account.as_ref().map_or(patience.check, |account| {
                time_to_find(account, concerns, facts, patience)
            });
            needed.is_zero() || (watched > needed && background.knows_who_serves)
        };
        match progress::left_open(&ctx.lookout, KIND, ALIVE_FOR).await {
            Ok(open) => {
                for open in open {
                    let key = (open.account, open.subject);
                    if !is_found(&key) && is_watched(&key, &open.concerns) {
                        resolve(ctx, &key, &open.concerns, incidents, background).await;
                    }
                }
            }
            Err(error) => {
                warn_in_spells!(""; error = %Chain(&error), "alerts of earlier daemons were not read")
            }
        }
    }
}

/// Whether the row is there.
async fn keep(ctx: &Context, (account, subject): &Key, told: &Told) -> bool {
    let channels: Vec<String> = told.channels.keys().map(ToString::to_string).collect();
    let incident = progress::Incident {
        account: account.as_deref(),
        subject,
        age: told.since.elapsed(),
        severity: told.severity,
        text: &told.text,
        told: &channels,
        repeats: i32::try_from(told.repeats).unwrap_or(i32::MAX),
    };
    let kept = progress::keep(&ctx.lookout, KIND, &incident).await;
    let of_row = (account.clone(), KIND.to_owned(), subject.clone());
    match &kept {
        Ok(()) => open::written(&of_row),
        // It is told past the outbox besides.
        Err(error) if matches!(error.fault(), AtFault::Rows | AtFault::Words) => {
            open::not_written(&of_row, &told.text, error)
        }
        Err(error) => {
            warn_in_spells!(account.as_deref().unwrap_or_default(); error = %Chain(error), "the alert is not written yet")
        }
    }
    ctx.wake.deliver.notify_one();
    kept.is_ok()
}

async fn resolve(
    ctx: &Context,
    (account, subject): &Key,
    concerns: &[String],
    incidents: &[Incident],
    background: Background<'_>,
) -> bool {
    let how = match account {
        Some(account) => how_of(ctx, account, concerns, incidents, background).await,
        None => Ok(ended::of_all(concerns)),
    };
    let account = account.as_deref();
    let resolved = match how {
        Ok(how) => progress::resolve(&ctx.lookout, account, KIND, subject, &how).await,
        Err(error) => Err(error),
    };
    if let Err(error) = &resolved {
        warn_in_spells!(account.unwrap_or_default(); error = %Chain(error), "the alert is not resolved yet");
    }
    ctx.wake.deliver.notify_one();
    resolved.is_ok()
}

/// How it ended for one account.
async fn how_of(
    ctx: &Context,
    account: &str,
    concerns: &[String],
    incidents: &[Incident],
    background: Background<'_>,
) -> Result<String, DbError> {
    let mut standing = progress::standing(&ctx.lookout, account, ALIVE_FOR, KIND).await?;
    if let Some(standing) = &mut standing {
        standing.is_served |= !background.knows_who_serves;
    }
    let in_place = in_place(account, incidents).or_else(|| {
        let mut accounts = background.facts.accounts.iter();
        let facts = accounts.find(|facts| facts.account == account);
        facts
            .and_then(|facts| explanation(facts, background.patience))
            .map(InPlace::Alert)
    });
    let stop = background.stop;
    Ok(ended::of_account(
        concerns,
        standing.as_ref(),
        stop,
        in_place,
    ))
}

/// Which of these incidents says why nothing of the account moves.
fn in_place<'a>(account: &str, incidents: &'a [Incident]) -> Option<InPlace<'a>> {
    let of_all = incidents
        .iter()
        .filter(|incident| incident.account.is_none());
    let mut explaining = of_all.filter(|incident| {
        incident.concerns.iter().any(|concern| concern.stops_all())
            || incident.accounts.iter().any(|name| name == account)
    });
    let incident = explaining.next()?;
    Some(match incident.subject.as_str() {
        "" => InPlace::All,
        host => InPlace::Daemon(host),
    })
}

async fn past_the_outbox(ctx: &Context, incident: &Incident, told: &mut Told) {
    let mut channels = vec![LOG];
    channels.extend(ctx.webhook.is_some().then_some(WEBHOOK));
    let age = told.since.elapsed();
    for channel in channels {
        let status = match told.channels.get(channel) {
            None => Status::Firing,
            Some(last) if last.elapsed() >= ctx.alert_repeat => Status::StillFiring,
            Some(_) => continue,
        };
        let delivery = Delivery {
            status,
            account: incident.account.clone(),
            kind: KIND.to_owned(),
            subject: incident.subject.clone(),
            severity: incident.severity.to_owned(),
            summary: incident.text.summary.clone(),
            action: incident.text.action.clone(),
            opened_at: OffsetDateTime::now_utc() - age,
            waiting: incident.weight.map(|weight| Waiting {
                jobs: weight.jobs,
                amount: weight.amount,
            }),
        };
        match deliver::carry(ctx, channel, &delivery).await {
            Ok(()) => {
                told.channels.insert(channel, Moment::now());
                let repeats = age.as_secs_f64() / ctx.alert_repeat.as_secs_f64();
                // A float beyond the range saturates.
                told.repeats = repeats as u32;
            }
            Err(reason) => warn!(channel, reason, "an alert was not delivered; trying again"),
        }
    }
}
