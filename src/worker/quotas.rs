//! What recorded outcomes mean for the quotas of their accounts.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::warn;

use crate::db::clock::SteadySecond;
use crate::db::quota;
use crate::domain::account::AccountName;
use crate::policy::hints::Remaining;
use crate::telemetry::Chain;
use crate::worker::context::Context;
use crate::worker::recorder::Message;

/// What recorded outcomes leave to do for an account.
#[derive(Default)]
struct Errand {
    /// The seconds whose quota is given back, one for each request of which no byte left.
    unspent: Vec<SteadySecond>,
    /// The least that the gateway said remains.
    remaining: Option<Remaining>,
}

/// Has the database count what the answers of recorded outcomes said of the quotas, without anybody waiting for it.
pub fn correct(ctx: &Arc<Context>, messages: &[Message]) {
    let mut errands: BTreeMap<&AccountName, Errand> = BTreeMap::new();
    for Message { outcome, .. } in messages {
        let account = &outcome.account;
        if let Some(taken) = outcome.unspent {
            errands.entry(account).or_default().unspent.push(taken);
        }
        // Somebody else may use the key too. Only a low count can bind, so only a low count is looked at.
        let is_low = |told: &Remaining| {
            let known = ctx.rooms.get(account);
            known.is_some_and(|room| told.requests < room.requests_per_minute / 2)
        };
        if let Some(told) = outcome.remaining.filter(is_low) {
            let least = &mut errands.entry(account).or_default().remaining;
            if least.is_none_or(|least| told.requests < least.requests) {
                *least = Some(told);
            }
        }
    }
    for (account, errand) in errands {
        let (ctx, account) = (ctx.clone(), account.clone());
        ctx.recorder.errands.clone().spawn(async move {
            let turn = ctx.recorder.turn(&account);
            let _turn = turn.lock().await;
            run(&ctx, &account, errand).await;
        });
    }
}

/// None of it is worth insisting: quota that is not given back comes back by itself within the minute,
/// and what the gateway said it says again.
async fn run(ctx: &Context, account: &AccountName, errand: Errand) {
    if !errand.unspent.is_empty()
        && let Err(error) =
            quota::return_quota(&ctx.pool, account, &errand.unspent, ctx.clock.second()).await
    {
        warn!(account = %account, error = %Chain(&error), "quota of unsent requests was not given back");
    }
    if let Some(Remaining {
        requests,
        resets_after,
    }) = errand.remaining
        && let Err(error) = quota::correct_quota(
            &ctx.pool,
            account,
            requests,
            resets_after,
            ctx.clock.second(),
        )
        .await
    {
        warn!(account = %account, error = %Chain(&error), "the quota was not corrected");
    }
}
