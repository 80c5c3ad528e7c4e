//! Held jobs: told if nobody is told of them, and told on as their invoices come to stand otherwise.

use std::sync::Arc;

use crate::db::DbError;
use crate::db::held::{self, Held};
use crate::worker::alerting::{self, Alert, HeldJob, Known, ToCancel};
use crate::worker::context::Context;
use crate::worker::open;

/// Opens the alerts that are missing.
pub async fn tell_untold(ctx: &Arc<Context>) -> Result<(), DbError> {
    for held in held::untold(&ctx.pool).await? {
        open::try_to_open(&ctx.pool, &ctx.wake, &held.account, &alert(&held)).await;
    }
    Ok(())
}

/// Brings the open ones up to date: what helped before an invoice was paid or cancelled is refused afterwards.
pub async fn tell_on(ctx: &Arc<Context>) -> Result<(), DbError> {
    for held in held::changed(&ctx.pool).await? {
        let Alert { kind, text, .. } = alert(&held);
        held::tell_on(&ctx.pool, &held.account, held.job, kind, &text).await?;
        ctx.wake.deliver.notify_one();
    }
    Ok(())
}

fn alert(held: &Held) -> Alert {
    let to_cancel = match held.one {
        Some((invoice, standing)) => ToCancel::of_one(&held.operation, invoice, standing),
        None => ToCancel::of(&held.operation),
    };
    Alert::held(HeldJob {
        account: &held.account,
        id: held.job,
        reason: &held.reason,
        known: Known {
            found: held.found.as_deref(),
            since: held.since.as_deref(),
            is_taken_anyway: held.error_code.as_deref() == Some(alerting::DIFFERS),
            is_anothers: held.error_code.as_deref() == Some(alerting::ANOTHERS),
            denied_since: held.denied_at,
            is_refused: held.is_refused,
            to_cancel,
            ..Known::nothing_of(&held.operation)
        },
    })
}
