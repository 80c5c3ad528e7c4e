//! Makes the alert `job_refused` of each account name the jobs that the gateway refuses again and again for a reason of
//! their own, and ends it when they have moved on.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::db::alerts::About;
use crate::db::refused::{self, ToldRefused};
use crate::db::{DbError, progress, troubled};
use crate::domain::account::AccountName;
use crate::domain::outage::RefusedJob;
use crate::policy::outage::{REFUSALS_TOLD, told_after};
use crate::worker::alerting::Alert;
use crate::worker::context::Context;
use crate::worker::open;

/// An account of which jobs are refused, or told to be.
pub struct Refusals {
    account: AccountName,
    jobs: Vec<RefusedJob>,
    told: Option<ToldRefused>,
}

/// Those of these accounts that are such.
pub async fn find(ctx: &Arc<Context>, accounts: &[String]) -> Result<Vec<Refusals>, DbError> {
    let told = refused::told(&ctx.pool, accounts).await?;
    let jobs: Vec<i64> = told.iter().flat_map(|told| told.jobs.clone()).collect();
    let found = refused::refused(
        &ctx.pool,
        accounts,
        &jobs,
        REFUSALS_TOLD,
        told_after(&ctx.rules),
        ctx.clock.expected(),
    )
    .await?;
    let mut refusals: BTreeMap<AccountName, Refusals> = BTreeMap::new();
    let of = |account: &AccountName| Refusals {
        account: account.clone(),
        jobs: Vec::new(),
        told: None,
    };
    for (account, job) in found {
        let entry = refusals
            .entry(account.clone())
            .or_insert_with(|| of(&account));
        entry.jobs.push(job);
    }
    for told in told {
        if let Some(account) = AccountName::parse(&told.account) {
            refusals
                .entry(account.clone())
                .or_insert_with(|| of(&account))
                .told = Some(told);
        }
    }
    Ok(refusals.into_values().collect())
}

/// Brings the alert of one of them up to date. Of an account that this daemon does not serve it is only ended.
pub async fn tell(ctx: &Arc<Context>, refusals: &Refusals) -> Result<(), DbError> {
    let Refusals {
        account,
        jobs,
        told,
    } = refusals;
    match (jobs.split_first(), told) {
        (None, None) => Ok(()),
        (None, Some(told)) => {
            let how = Alert::end_of_refusals(told);
            progress::resolve(&ctx.pool, Some(account.as_str()), refused::KIND, "", &how).await
        }
        (Some(_), _) if !ctx.has(account) => Ok(()),
        (Some((job, others)), None) => {
            let Alert {
                kind,
                severity,
                text,
                renews: _,
            } = Alert::refused(account, job, others);
            open::once(&ctx.pool, &About::account(account, kind, severity), &text).await
        }
        (Some((job, others)), Some(told)) => {
            let text = Alert::refused(account, job, others).text;
            if (&text.summary, &text.action) == (&told.summary, &told.action) {
                return Ok(());
            }
            troubled::tell(&ctx.pool, account, refused::KIND, &text).await
        }
    }
}
