//! Carries alerts out: opens what is missing, resolves what has cleared, fills the outbox, empties it.

use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

use crate::alert::{Notice, Status, log_line, retry_after};
use crate::crash::{self, Point};
use crate::db::DbError;
use crate::db::alerts::{self, DueNotice};
use crate::policy::outage::told_after;
use crate::telemetry::Chain;
use crate::worker::alarm::Alarm;
use crate::worker::strains;
use crate::worker::{Context, Step};

/// The channel that is always there: a line in the log.
pub const LOG: &str = "log";

/// The channel of `[alerts.webhook]`.
pub const WEBHOOK: &str = "webhook";

/// How long another daemon waits before it delivers a notice that this one has claimed.
const PROMISE: Duration = Duration::from_secs(60);

/// One round.
pub async fn step(ctx: &Arc<Context>) -> Result<Step, DbError> {
    let mut channels = vec![LOG.to_owned()];
    channels.extend(ctx.webhook.is_some().then(|| WEBHOOK.to_owned()));
    if let Some(forgotten) = ctx.recorder.forgotten() {
        let alarm = Alarm::history_lost(forgotten);
        alerts::open(&ctx.pool, None, alarm.kind, alarm.severity, &alarm.text).await?;
    }
    for held in alerts::untold(&ctx.pool).await? {
        let alarm = Alarm::held(&held.account, held.job, &held.reason);
        strains::try_to_open(ctx, &held.account, &alarm).await;
    }
    alerts::resolve_cleared(
        &ctx.pool,
        told_after(&ctx.rules),
        ctx.rules.breaker.slow_start,
    )
    .await?;
    alerts::fill_outbox(&ctx.pool, &channels, ctx.alert_repeat).await?;
    let due = alerts::claim_notices(&ctx.pool, &channels, PROMISE).await?;
    let step = if due.is_empty() {
        Step::Idle
    } else {
        Step::Worked
    };
    for notice in due {
        deliver(ctx, notice).await?;
    }
    Ok(step)
}

async fn deliver(ctx: &Context, due: DueNotice) -> Result<(), DbError> {
    match carry(ctx, &due.channel, &Notice::from(&due)).await {
        Ok(()) => alerts::delivered(&ctx.pool, due.id).await,
        Err(reason) => {
            warn!(
                alert.delivery = due.id,
                channel = due.channel,
                reason,
                "an alert was not delivered; trying again"
            );
            let tries = u32::try_from(due.tries).unwrap_or(0) + 1;
            alerts::not_delivered(&ctx.pool, due.id, retry_after(tries), &reason).await
        }
    }
}

/// Carries a notice to a channel, once. What went wrong is words.
pub async fn carry(ctx: &Context, channel: &str, notice: &Notice) -> Result<(), String> {
    match (channel, &ctx.webhook) {
        (WEBHOOK, Some(webhook)) => {
            crash::reach(Point::DeliverBeforePost);
            let sent = webhook.send(notice).await;
            crash::reach(Point::DeliverAfterPost);
            sent.map_err(|error| Chain(&error).to_string())
        }
        (WEBHOOK, None) => Err("no webhook is configured".to_owned()),
        _ => {
            log(notice);
            Ok(())
        }
    }
}

fn log(notice: &Notice) {
    if matches!(notice.status, Status::Resolved { .. }) {
        info!(alert = %log_line(notice), "alert resolved");
    } else {
        error!(alert = %log_line(notice), "alert");
    }
}
