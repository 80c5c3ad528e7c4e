//! Carries alerts out: each channel empties its part of the outbox in a loop of its own, so that one that hangs delays no
//! other.

use std::time::Duration;

use tracing::{error, info, warn};

use crate::alert::{Delivery, Status, Waiting, Webhook, log_line, retry_after};
use crate::crash::{self, Point};
use crate::db::DbError;
use crate::db::outbox::{self, AtStake, DueDelivery};
use crate::heart;
use crate::telemetry::{self, Chain};
use crate::worker::clock::Moment;
use crate::worker::context::Context;
use crate::worker::pulse::Step;

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
            None
        }
        Err(_) => {
            warn!(
                alert.delivery = due.id,
                "counting what waits for an alert takes too long"
            );
            None
        }
    };
    if claimed_at.elapsed() > CARRY_WITHIN {
        // The machine slept, or the database did: another daemon may have carried it since.
        return Ok(Step::Worked);
    }
    deliver(ctx, due, waiting, lease).await?;
    Ok(Step::Worked)
}

async fn deliver(
    ctx: &Context,
    due: DueDelivery,
    waiting: Option<AtStake>,
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

/// A row of the outbox as what is told, with what waits for it, if that was counted.
fn delivery_of(due: &DueDelivery, waiting: Option<AtStake>) -> Delivery {
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
        waiting: waiting.map(|waiting| Waiting {
            jobs: waiting.jobs,
            amount: waiting.amount,
        }),
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
        let alert = delivery_of(&due("firing"), None);
        tracing::subscriber::with_default(subscriber, || {
            assert!(log(&alert).is_err());
        });
    }

    #[test]
    fn a_row_becomes_a_delivery() {
        let status = |status| delivery_of(&due(status), None).status;
        assert_eq!(status("firing"), Status::Firing);
        assert_eq!(status("repeat"), Status::StillFiring);
        let resolved = Status::Resolved {
            at: datetime!(2026-11-01 16:07:03 UTC),
            how: "the gateway is well again".into(),
        };
        assert_eq!(status("resolved"), resolved);
    }
}
