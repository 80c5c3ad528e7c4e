//! Makes the alert `gateway_failing` of each account say what fails now, and ends it when nothing does.
//!
//! Whatever is told follows from what is stored, whoever stored it: another daemon, or one that has died since.

use std::sync::Arc;

use crate::db::alerts::About;
use crate::db::troubled::{self, Troubled};
use crate::db::{DbError, progress};
use crate::domain::outage::Fault;
use crate::policy::outage::telling::{ending, named, not_theirs, stays, telling};
use crate::policy::outage::told_after;
use crate::policy::verdict::Reason;
use crate::worker::alerting::Alert;
use crate::worker::context::Context;
use crate::worker::open;

/// Those of these accounts of which something fails, or is told to.
pub async fn find(ctx: &Arc<Context>, accounts: &[String]) -> Result<Vec<Troubled>, DbError> {
    let mut found = troubled::troubled(
        &ctx.pool,
        accounts,
        told_after(&ctx.rules),
        ctx.clock.expected(),
        &not_theirs(),
    )
    .await?;
    for job in found
        .iter_mut()
        .filter_map(|troubled| troubled.job.as_mut())
    {
        job.fault = match job.is_left_out {
            true => Fault {
                code: Reason::EarlierUnseen.code().to_owned(),
                ..job.fault.clone()
            },
            false => named(job.fault.clone()),
        };
    }
    // A job that was locked while the clock was set has failed since a moment that was not carried along: by a clock that
    // was set just now nobody can tell for how long.
    if !ctx.clock.is_calm() {
        found.retain(|troubled| troubled.job.is_none());
    }
    Ok(found)
}

/// Brings the alert of one of them up to date. Of an account that this daemon does not serve it is only ended.
pub async fn tell(ctx: &Arc<Context>, troubled: &Troubled) -> Result<(), DbError> {
    let Troubled {
        account,
        is_parked,
        outage,
        awaited,
        job,
        to_be_shown,
        is_open_end,
        told,
        hosts,
    } = troubled;
    let fails = told.as_ref().and_then(|told| told.fails.as_deref());
    let now = ctx.clock.expected();
    let telling = telling(outage, *is_parked, awaited, job.as_ref(), fails, now);
    match (telling, told) {
        (None, None) => Ok(()),
        (telling, Some(_)) if *is_open_end && !is_parked && stays(telling.as_ref(), fails) => {
            Ok(())
        }
        (None, Some(told)) => {
            let how = Alert::end_of_failing(ending(outage, *is_parked, fails), told);
            let name = Some(account.as_str());
            progress::resolve(&ctx.pool, name, troubled::KIND, "", &how).await
        }
        (Some(_), _) if !ctx.has(account) => Ok(()),
        (Some(telling), None) => {
            let Alert {
                kind,
                severity,
                text,
                renews: _,
            } = Alert::failing(account, &telling, to_be_shown, hosts);
            open::once(&ctx.pool, &About::account(account, kind, severity), &text).await
        }
        (Some(telling), Some(told)) => {
            let text = Alert::failing(account, &telling, to_be_shown, hosts).text;
            if (&text.summary, &text.action) == (&told.summary, &told.action) {
                return Ok(());
            }
            troubled::tell(&ctx.pool, account, troubled::KIND, &text).await
        }
    }
}
