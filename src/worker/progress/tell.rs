//! Tells of what does not move: by a row, whose outbox delivers it like any other alert, and from memory
//! while there is no row or nobody empties the outbox.
//!
//! Several daemons each tell from memory: they have no row to agree on. Their notices carry the same
//! labels, hence the same fingerprint, and a receiver such as Alertmanager shows one.

use std::collections::BTreeMap;
use std::time::Duration;

use time::OffsetDateTime;
use tracing::warn;

use super::KIND;
use crate::alert::{Notice, Status};
use crate::db::accounts::AlertText;
use crate::db::progress::{self, Weight};
use crate::telemetry::Chain;
use crate::worker::Context;
use crate::worker::clock::Moment;
use crate::worker::deliver::{self, LOG, WEBHOOK};

/// One account, or all of them, and why nothing moves.
pub(super) struct Incident {
    pub(super) account: Option<String>,
    pub(super) severity: &'static str,
    pub(super) text: AlertText,
    /// For how long it was seen.
    pub(super) lasted: Duration,
    pub(super) weight: Weight,
}

/// Whether rows can be written, and whether they reach anybody.
#[derive(Clone, Copy)]
pub(super) struct Outbox {
    /// The database answers, if only to refuse.
    pub(super) is_answering: bool,
    /// Nobody has emptied it for long.
    pub(super) is_deaf: bool,
}

/// What was told past the outbox.
#[derive(Default)]
pub(super) struct Teller {
    told: BTreeMap<Option<String>, Told>,
}

struct Told {
    since: Moment,
    severity: &'static str,
    text: AlertText,
    /// When each channel was last told.
    channels: BTreeMap<&'static str, Moment>,
    repeats: u32,
}

impl Told {
    fn row(&self, account: Option<&str>) -> (Vec<String>, Duration, i32, Option<String>) {
        let channels = self.channels.keys().map(ToString::to_string).collect();
        let repeats = i32::try_from(self.repeats).unwrap_or(i32::MAX);
        (
            channels,
            self.since.elapsed(),
            repeats,
            account.map(str::to_owned),
        )
    }
}

impl Teller {
    /// Makes the alerts say what is found now.
    pub(super) async fn tell(
        &mut self,
        ctx: &Context,
        incidents: &[Incident],
        outbox: Outbox,
        may_resolve_others: bool,
    ) {
        for incident in incidents {
            let told = self
                .told
                .entry(incident.account.clone())
                .or_insert_with(|| Told {
                    since: Moment::now().before(incident.lasted),
                    severity: incident.severity,
                    text: incident.text.clone(),
                    channels: BTreeMap::new(),
                    repeats: 0,
                });
            told.severity = incident.severity;
            told.text = incident.text.clone();
            let is_written = outbox.is_answering && keep(ctx, &incident.account, told).await;
            if !is_written || outbox.is_deaf {
                past_the_outbox(ctx, incident, told).await;
            }
            if is_written && outbox.is_deaf {
                // At once: whoever empties the outbox again does not tell it a second time.
                keep(ctx, &incident.account, told).await;
            }
        }
        if outbox.is_answering {
            self.end(ctx, incidents, may_resolve_others).await;
        }
    }

    /// What is no longer found has ended. Its row, written now if it could not be before, tells so.
    async fn end(&mut self, ctx: &Context, incidents: &[Incident], may_resolve_others: bool) {
        let is_found = |account: &Option<String>| incidents.iter().any(|i| i.account == *account);
        let over: Vec<Option<String>> = self
            .told
            .keys()
            .filter(|account| !is_found(account))
            .cloned()
            .collect();
        for account in over {
            if let Some(told) = self.told.get(&account)
                && keep(ctx, &account, told).await
                && resolve(ctx, account.as_deref()).await
            {
                self.told.remove(&account);
            }
        }
        if !may_resolve_others {
            return;
        }
        match progress::left_open(&ctx.pool, KIND).await {
            Ok(open) => {
                for account in open.iter().filter(|account| !is_found(account)) {
                    resolve(ctx, account.as_deref()).await;
                }
            }
            Err(error) => warn!(error = %Chain(&error), "alerts of earlier daemons were not read"),
        }
    }
}

/// Whether the row is there.
async fn keep(ctx: &Context, account: &Option<String>, told: &Told) -> bool {
    let (channels, age, repeats, account) = told.row(account.as_deref());
    let incident = progress::Incident {
        account: account.as_deref(),
        age,
        severity: told.severity,
        text: &told.text,
        told: &channels,
        repeats,
    };
    let kept = progress::keep(&ctx.pool, KIND, &incident).await;
    if let Err(error) = &kept {
        warn!(error = %Chain(error), "the alert is not written yet");
    }
    ctx.wake.deliver.notify_one();
    kept.is_ok()
}

async fn resolve(ctx: &Context, account: Option<&str>) -> bool {
    let resolved = progress::resolve(&ctx.pool, account, KIND, "it moves again").await;
    if let Err(error) = &resolved {
        warn!(error = %Chain(error), "the alert is not resolved yet");
    }
    ctx.wake.deliver.notify_one();
    resolved.is_ok()
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
        let notice = Notice {
            status,
            account: incident.account.clone(),
            kind: KIND.to_owned(),
            severity: incident.severity.to_owned(),
            summary: incident.text.summary.clone(),
            action: incident.text.action.clone(),
            opened_at: OffsetDateTime::now_utc() - age,
            jobs_waiting: incident.weight.jobs,
            amount_waiting: incident.weight.amount,
        };
        match deliver::carry(ctx, channel, &notice).await {
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
