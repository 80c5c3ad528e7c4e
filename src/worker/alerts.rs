//! Opens the alerts that are missing, resolves those whose cause is gone, and fills the outbox of each channel.

use std::sync::Arc;
use std::time::Duration;

use crate::db::DbError;
use crate::db::accounts;
use crate::db::alerts::{self, About};
use crate::db::cleared::{self, Patience};
use crate::db::fault::AtFault;
use crate::db::outbox;
use crate::domain::account::AccountName;
use crate::worker::alerting;
use crate::worker::clock::Moment;
use crate::worker::context::Context;
use crate::worker::deliver::{LOG, WEBHOOK};
use crate::worker::open;
use crate::worker::pulse::Step;
use crate::worker::unserved::Unserved;
use crate::worker::{held, revived, tell_failing, tell_mode, tell_refused};

/// One round. What fails one part of it, or one account's alert, keeps no other from its turn; when it is the
/// database that fails, the round is over.
pub async fn step(ctx: &Arc<Context>, rounds: &mut Rounds) -> Result<Step, DbError> {
    let done = round(ctx, rounds).await;
    rounds.note(&done);
    done
}

/// What rounds have seen: how long the database has been there without a break, and which accounts nobody has served.
#[derive(Debug, Default)]
pub struct Rounds {
    since: Option<Moment>,
    unserved: Unserved,
}

impl Rounds {
    fn served_for(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn note(&mut self, done: &Result<Step, DbError>) {
        match done {
            Err(error) if error.fault() == AtFault::Database => {
                self.since = None;
                self.unserved.forget();
            }
            _ => {
                self.since.get_or_insert_with(Moment::now);
            }
        }
    }
}

async fn round(ctx: &Arc<Context>, rounds: &mut Rounds) -> Result<Step, DbError> {
    let served_for = rounds.served_for();
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
        round.part(open::say(&ctx.pool, &about, &text).await)?;
    }
    round.part(held::tell_untold(ctx).await)?;
    round.part(accounts::forget_refused_jobs(&ctx.pool, None).await)?;
    let untold = round.part(alerts::untold_parks(&ctx.pool).await)?;
    for park in untold.unwrap_or_default() {
        let Some(account) = AccountName::parse(&park.account) else {
            continue;
        };
        let text = alerting::of_park(&account, &park);
        round.part(open::say_of_park(&ctx.pool, &account, &text).await)?;
    }
    let unserved = round.part(rounds.unserved.step(ctx).await)?;
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
    round.part(cleared::tell_well(&ctx.pool, patience).await)?;
    let refusals = round.part(tell_refused::find(ctx, &accounts).await)?;
    for refused in refusals.unwrap_or_default() {
        round.part(tell_refused::tell(ctx, &refused).await)?;
    }
    round.part(revived::tell_on(ctx).await)?;
    round.part(held::tell_on(ctx).await)?;
    round.part(tell_mode::compare(ctx).await)?;
    let filled = outbox::fill_outbox(&ctx.pool, &channels, ctx.alert_repeat).await;
    if round.part(filled)?.is_some_and(|deliveries| deliveries > 0) {
        ctx.wake.log.notify_one();
        ctx.wake.webhook.notify_one();
    }
    // Only after the outbox was filled: a new channel is told of alerts that are open then, and of none that ended before.
    let resolved = cleared::resolve(&ctx.pool, patience);
    let has_resolved = round.part(resolved.await)?.is_some_and(|alerts| alerts > 0);
    round.end(if has_resolved {
        Step::Worked
    } else {
        Step::Idle
    })
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
            Err(error) if error.fault() == AtFault::Database => Err(error),
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
