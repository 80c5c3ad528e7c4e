//! Carries alerts out: opens what is missing, resolves what has cleared, fills the outbox; and each channel empties its
//! part of it in a loop of its own, so that one that hangs delays no other.

use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

use crate::alert::{Delivery, Status, Webhook, log_line, retry_after};
use crate::crash::{self, Point};
use crate::db::DbError;
use crate::db::alerts::{self, About, Patience};
use crate::db::fault::Fault;
use crate::db::outbox::{self, AtStake, DueDelivery};
use crate::domain::account::AccountName;
use crate::heart;
use crate::telemetry::{self, Chain};
use crate::worker::alerting::{self, Alert, HeldJob, Known};
use crate::worker::clock::Moment;
use crate::worker::context::Context;
use crate::worker::open;
use crate::worker::pulse::Step;
use crate::worker::unserved::Unserved;
use crate::worker::{revived, tell_failing, tell_mode, tell_refused};

/// The channel that is always there: a line in the log.
pub const LOG: &str = "log";

/// The channel of `[alerts.webhook]`.
pub const WEBHOOK: &str = "webhook";

/// How old a claim may be when the delivery is made, by a clock that counts the time a machine slept.
const CARRY_WITHIN: Duration = Duration::from_secs(15);

/// How much longer than that and the time limit of a delivery no other daemon makes one that this one has claimed.
const MARGIN: Duration = Duration::from_secs(15);

/// How long it may take to count what waits.
const COUNT: Duration = Duration::from_secs(3);

/// One round. What fails one part of it, or one account's alert, keeps no other from its turn; when it is the
/// database that fails, the round is over.
pub async fn step(ctx: &Arc<Context>, standing: &mut Standing) -> Result<Step, DbError> {
    let done = round(ctx, standing).await;
    standing.note(&done);
    done
}

/// What rounds have seen: how long the database has been there without a break, and which accounts nobody has served.
#[derive(Debug, Default)]
pub struct Standing {
    since: Option<Moment>,
    unserved: Unserved,
}

impl Standing {
    fn served_for(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn note(&mut self, done: &Result<Step, DbError>) {
        match done {
            Err(error) if error.fault() == Fault::Database => {
                self.since = None;
                self.unserved.forget();
            }
            _ => {
                self.since.get_or_insert_with(Moment::now);
            }
        }
    }
}

async fn round(ctx: &Arc<Context>, standing: &mut Standing) -> Result<Step, DbError> {
    let served_for = standing.served_for();
    let mut channels = vec![LOG.to_owned()];
    channels.extend(ctx.webhook.is_some().then(|| WEBHOOK.to_owned()));
    let mut round = Round::default();
    if let Some(forgotten) = ctx.recorder.forgotten() {
        let accounts = ctx.account_names();
        let text = alerting::history_lost(forgotten, ctx.worker, &ctx.host, &accounts);
        let about = About {
            account: None,
            kind: alerting::HISTORY,
            subject: &ctx.host,
            severity: "critical",
        };
        round.part(alerts::say(&ctx.pool, &about, &text).await)?;
    }
    let untold = round.part(alerts::untold(&ctx.pool).await)?;
    for held in untold.unwrap_or_default() {
        let alert = Alert::held(HeldJob {
            account: &held.account,
            id: held.job,
            reason: &held.reason,
            known: Known {
                found: held.found.as_deref(),
                is_taken_anyway: held.error_code.as_deref() == Some(alerting::DIFFERS),
                is_anothers: held.error_code.as_deref() == Some(alerting::ANOTHERS),
                denied_since: held.denied_at,
                ..Known::nothing_of(&held.operation)
            },
        });
        open::try_to_open(&ctx.pool, &ctx.wake, &held.account, &alert).await;
    }
    let untold = round.part(alerts::untold_parks(&ctx.pool).await)?;
    for park in untold.unwrap_or_default() {
        let Some(account) = AccountName::parse(&park.account) else {
            continue;
        };
        let about = About::account(&account, "account_parked", "critical");
        round.part(alerts::say(&ctx.pool, &about, &alerting::of_park(&account, &park)).await)?;
    }
    let unserved = round.part(standing.unserved.step(ctx).await)?;
    // Whatever is told of those, any daemon ends.
    let mut accounts = ctx.account_names();
    accounts.extend(unserved.unwrap_or_default());
    let overdue_after = ctx.rules.give_up;
    round.part(alerts::count_overdue(&ctx.pool, &accounts, overdue_after).await)?;
    round.part(alerts::count_held(&ctx.pool, &accounts).await)?;
    // What was refused may be asked for again only so much later.
    let patience = Patience {
        well_for: ctx.rules.breaker.slow_start.max(ctx.longest_trial()),
        unblocked_for: ctx.rules.rate_limited.initial,
        served_for,
    };
    for troubled in round
        .part(tell_failing::find(ctx, &accounts).await)?
        .unwrap_or_default()
    {
        round.part(tell_failing::tell(ctx, &troubled).await)?;
    }
    round.part(alerts::tell_well(&ctx.pool, patience).await)?;
    let refusals = round.part(tell_refused::find(ctx, &accounts).await)?;
    for refused in refusals.unwrap_or_default() {
        round.part(tell_refused::tell(ctx, &refused).await)?;
    }
    round.part(revived::tell_on(ctx).await)?;
    round.part(tell_mode::compare(ctx).await)?;
    let filled = outbox::fill_outbox(&ctx.pool, &channels, ctx.alert_repeat).await;
    if round.part(filled)?.is_some_and(|deliveries| deliveries > 0) {
        ctx.wake.log.notify_one();
        ctx.wake.webhook.notify_one();
    }
    // Only after the outbox was filled: a new channel is told of alerts that are open then, and of none that ended before.
    let resolved = alerts::resolve_cleared(&ctx.pool, patience);
    let has_resolved = round.part(resolved.await)?.is_some_and(|alerts| alerts > 0);
    round.end(if has_resolved {
        Step::Worked
    } else {
        Step::Idle
    })
}

/// Makes the oldest delivery of one channel that is due. Each is claimed by itself, just before it is made: of a batch
/// the last would be told when it is long over, and somebody else has told its end.
pub async fn empty(ctx: &Context, channel: &str) -> Result<Step, DbError> {
    let claimed_at = Moment::now();
    let patience = ctx
        .webhook
        .as_ref()
        .map_or(Duration::ZERO, Webhook::timeout);
    let lease = CARRY_WITHIN + patience + MARGIN;
    let claimed = outbox::claim_delivery(&ctx.pool, channel, lease).await?;
    let Some(due) = claimed else {
        return Ok(Step::Idle);
    };
    let counted = tokio::time::timeout(COUNT, outbox::waiting(&ctx.pool, &due)).await;
    let waiting = match counted {
        Ok(Ok(waiting)) => waiting,
        // A number is not worth waiting for.
        Ok(Err(error)) => {
            warn!(alert.delivery = due.id, error = %Chain(&error), "what waits for an alert was not counted");
            AtStake::default()
        }
        Err(_) => {
            warn!(
                alert.delivery = due.id,
                "counting what waits for an alert takes too long"
            );
            AtStake::default()
        }
    };
    if claimed_at.elapsed() > CARRY_WITHIN {
        // The machine slept, or the database did: another daemon may have carried it since.
        return Ok(Step::Worked);
    }
    deliver(ctx, due, waiting, lease).await?;
    Ok(Step::Worked)
}

/// What failed first in a round that went on.
#[derive(Default)]
struct Round {
    failed: Option<DbError>,
}

impl Round {
    /// What a part brought; `None` when it failed by itself. An error is the database's own.
    fn part<T>(&mut self, done: Result<T, DbError>) -> Result<Option<T>, DbError> {
        match done {
            Ok(done) => Ok(Some(done)),
            Err(error) if error.fault() == Fault::Database => Err(error),
            Err(error) => {
                self.failed.get_or_insert(error);
                Ok(None)
            }
        }
    }

    fn end(self, step: Step) -> Result<Step, DbError> {
        self.failed.map_or(Ok(step), Err)
    }
}

async fn deliver(
    ctx: &Context,
    due: DueDelivery,
    waiting: AtStake,
    lease: Duration,
) -> Result<(), DbError> {
    match carry(ctx, &due.channel, &delivery_of(&due, waiting)).await {
        Ok(()) => outbox::delivered(&ctx.pool, due.id, lease).await,
        Err(reason) => {
            warn!(
                alert.delivery = due.id,
                channel = due.channel,
                reason,
                "an alert was not delivered; trying again"
            );
            let tries = u32::try_from(due.tries).unwrap_or(0) + 1;
            outbox::not_delivered(&ctx.pool, due.id, retry_after(tries), &reason).await
        }
    }
}

/// A row of the outbox as what is told, with what waits for it.
fn delivery_of(due: &DueDelivery, waiting: AtStake) -> Delivery {
    let status = match (due.status.as_str(), due.resolved_at) {
        ("resolved", at) => Status::Resolved {
            at: at.unwrap_or(due.opened_at),
            how: due.resolution.clone().unwrap_or_default(),
        },
        ("repeat", _) => Status::StillFiring,
        _ => Status::Firing,
    };
    Delivery {
        status,
        account: due.account.clone(),
        kind: due.kind.clone(),
        subject: due.subject.clone(),
        severity: due.severity.clone(),
        summary: due.summary.clone(),
        action: due.action.clone(),
        opened_at: due.opened_at,
        jobs_waiting: waiting.jobs,
        amount_waiting: waiting.amount,
    }
}

/// Carries a delivery to a channel, once. What went wrong is words.
pub async fn carry(ctx: &Context, channel: &str, delivery: &Delivery) -> Result<(), String> {
    match (channel, &ctx.webhook) {
        (WEBHOOK, Some(webhook)) => {
            crash::reach(Point::DeliverBeforePost);
            let sent = webhook.send(delivery).await;
            heart::beat();
            crash::reach(Point::DeliverAfterPost);
            sent.map_err(|error| Chain(&error).to_string())
        }
        (WEBHOOK, None) => Err("no webhook is configured".to_owned()),
        _ => log(delivery),
    }
}

/// An alert that the log loses, since nobody reads it, is told again later.
fn log(delivery: &Delivery) -> Result<(), String> {
    let lost = telemetry::lost();
    let account = delivery.account.as_deref();
    if matches!(delivery.status, Status::Resolved { .. }) {
        info!(
            alert.kind = delivery.kind,
            account,
            "{}",
            log_line(delivery)
        );
    } else {
        error!(
            alert.kind = delivery.kind,
            account,
            "{}",
            log_line(delivery)
        );
    }
    match telemetry::lost() {
        now if now == lost => Ok(()),
        _ => Err("the reader of the log does not take its lines, and some are lost".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn due(status: &str) -> DueDelivery {
        DueDelivery {
            id: 1,
            channel: "log".into(),
            status: status.into(),
            tries: 0,
            alert_id: 2,
            account: None,
            kind: "job_held".into(),
            subject: String::new(),
            severity: "warning".into(),
            summary: "s".into(),
            action: "a".into(),
            details: serde_json::Value::Null,
            opened_at: datetime!(2026-11-01 14:02:03 UTC),
            resolved_at: Some(datetime!(2026-11-01 16:07:03 UTC)),
            resolution: Some("the gateway is well again".into()),
        }
    }

    #[test]
    fn an_alert_that_the_log_loses_is_not_delivered() {
        let (subscriber, _reader) = telemetry::losing();
        let alert = delivery_of(&due("firing"), AtStake::default());
        tracing::subscriber::with_default(subscriber, || {
            assert!(log(&alert).is_err());
        });
    }

    #[test]
    fn a_row_becomes_a_notice() {
        let status = |status| delivery_of(&due(status), AtStake::default()).status;
        assert_eq!(status("firing"), Status::Firing);
        assert_eq!(status("repeat"), Status::StillFiring);
        let resolved = Status::Resolved {
            at: datetime!(2026-11-01 16:07:03 UTC),
            how: "the gateway is well again".into(),
        };
        assert_eq!(status("resolved"), resolved);
    }
}
