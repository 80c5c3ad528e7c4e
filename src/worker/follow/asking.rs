//! What every read of an accepted object begins and ends with: whether it may be made, and what becomes of what it was to
//! show.

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use crate::db::entry::Entry;
use crate::db::mirrors::{self, DueMirror};
use crate::domain::account::AccountName;
use crate::domain::answer::{Answer, Timed};
use crate::domain::outage::Read;
use crate::policy::follow::check_distance;
use crate::policy::judge::signal_of;
use crate::policy::outage::{Errand, Sign, is_absence, sign_of_read};
use crate::telemetry::Chain;
use crate::worker::account::Account;
use crate::worker::clock::Moment;
use crate::worker::context::Context;
use crate::worker::failing;
use crate::worker::recorder::{Outcome, Signed};
use crate::worker::send::SEND_WINDOW;

pub(super) fn may_read(ctx: &Context, account: &Account, read: Read) -> bool {
    account.may_read(read, ctx.clock.expected(), ctx.longest_trial())
}

/// Whether a request that was claimed at this moment may still leave. A stop waits for one that is under way, and for
/// none after it.
pub(super) fn may_ask(ctx: &Context, account: &Account, claimed_at: Moment) -> bool {
    let is_young = claimed_at.elapsed() <= SEND_WINDOW;
    is_young && account.may_send(claimed_at) && !ctx.stop.is_cancelled()
}

/// Nobody was asked: what was claimed is due again.
pub(super) async fn put_back(ctx: &Context, name: &AccountName, due: &[DueMirror]) {
    put_back_for(ctx, name, due, Duration::ZERO).await;
}

/// Nobody was asked: what was claimed is due again after a while.
pub(super) async fn put_back_for(
    ctx: &Context,
    name: &AccountName,
    due: &[DueMirror],
    after: Duration,
) {
    if let Err(error) = mirrors::put_back(&ctx.pool, name, due, after).await {
        warn!(account = %name, error = %Chain(&error), "what was not asked about is due again only when its claim runs out");
    }
}

/// The next check of the account's invoices may begin, at its distance.
pub(super) async fn end_check(ctx: &Context, name: &AccountName) {
    let distance = check_distance(&ctx.rules.follow);
    if let Err(error) = mirrors::end_check(&ctx.pool, name, distance).await {
        warn!(account = %name, error = %Chain(&error), "the next check waits until the lease of this one is over");
    }
}

/// Notes what a read says of the gateway, and for the account if it brought nothing: then what it asked
/// about is due again, and the distance of such reads says when. Returns whether it brought something.
pub(super) async fn note(
    ctx: &Arc<Context>,
    account: &Account,
    errand: Errand,
    timed: &Timed,
    is_usable: bool,
    due: &[DueMirror],
) -> bool {
    // A check is about many, and leaves out what is not there.
    let is_check = matches!(
        errand,
        Errand::Read(Read::Check) | Errand::ReadTrial(Read::Check)
    );
    let is_absent = !is_check && is_absence(timed);
    let signed = Signed {
        errand,
        job: None,
        sign: match is_absent {
            true => Sign::Clear,
            false => sign_of_read(timed, is_usable),
        },
    };
    let signal = match (&timed.answer, due.first()) {
        (Answer::Reply(reply), Some(mirror)) if !is_usable => {
            signal_of(reply, None, ctx.circumstances(account, mirror.now))
        }
        _ => None,
    };
    account.heed(signal.as_ref());
    if signal.is_some() || failing::is_news(account, &signed) {
        let outcome = Outcome {
            signal,
            signed: Some(signed),
            ..Outcome::plain(&account.name, Entry::default())
        };
        // Known before the next one is claimed.
        ctx.recorder.record_now(outcome).await;
    }
    // What is not there stays claimed until that claim runs out: others are asked about first.
    if !is_usable && !is_absent {
        put_back(ctx, &account.name, due).await;
    }
    is_usable
}
