//! Watches accepted objects to their end.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tracing::{info, warn};

use crate::crash::{self, Point};
use crate::db::DbError;
use crate::db::claim::Purpose;
use crate::db::mirrors::{self, DueMirror, Waiting};
use crate::db::record::Entry;
use crate::domain::account::AccountName;
use crate::domain::answer::{Answer, Timed};
use crate::domain::mirror::{InvoiceSeen, InvoiceStatus, RefundSeen};
use crate::domain::operation::Seen;
use crate::gateway::wire;
use crate::policy::follow::{
    Crowd, Followed, NextCheck, check_distance, follow, is_overdue, lives_again,
    next_invoice_check, next_refund_check, proves_delivery,
};
use crate::policy::judge::strain_of;
use crate::policy::verdict::{Reason, Strain};
use crate::telemetry::Chain;
use crate::worker::account::Account;
use crate::worker::alarm::Alarm;
use crate::worker::clock::Moment;
use crate::worker::outcome::{self, Guard};
use crate::worker::plan;
use crate::worker::recorder::Outcome;
use crate::worker::send::SEND_WINDOW;
use crate::worker::steady::Asked;
use crate::worker::{Context, Step};

/// Accounts whose invoices are checked in one round, at the same time: few enough that none of their
/// requests leaves late, and so later than its quota allows.
const CHECKS: usize = 16;

/// Refunds of an account in one round: each invoice of theirs is a request, one after the other, and
/// the next check of the invoices waits for them.
const REFUNDS: usize = 4;

/// Checks what is due.
pub async fn step(ctx: &Arc<Context>) -> Result<Step, DbError> {
    let accounts = ctx.account_names();
    let claimed_at = Moment::now();
    let asked = ctx.clock.ask();
    let invoices = mirrors::claim_invoices(
        &ctx.pool,
        &accounts,
        wire::CHECK_IDS,
        ctx.lease,
        ctx.clock.second(),
        CHECKS,
    )
    .await?;
    let refunds =
        mirrors::claim_refunds(&ctx.pool, &accounts, REFUNDS, ctx.lease, ctx.clock.second())
            .await?;
    let (invoices, refunds) = (
        by_expected_clock(asked, invoices),
        by_expected_clock(asked, refunds),
    );
    if invoices.is_empty() && refunds.is_empty() {
        return Ok(Step::Idle);
    }
    let due = by(invoices.into_iter().chain(refunds), |mirror| {
        mirror.account.clone()
    });
    let checks = due
        .into_iter()
        .map(|(account, due)| check_account(ctx, account, due, claimed_at));
    join_all(checks).await;
    Ok(Step::Worked)
}

/// The database measured how long things have been so: by a clock that was set just now, it did so wrongly.
fn by_expected_clock(asked: Asked, mut due: Vec<DueMirror>) -> Vec<DueMirror> {
    for mirror in &mut due {
        let now = asked.now(mirror.now);
        let ahead = Duration::try_from(mirror.now - now).unwrap_or_default();
        mirror.now = now;
        mirror.unchanged_for = mirror.unchanged_for.saturating_sub(ahead);
        for job in &mut mirror.waiting {
            job.accepted_for = job.accepted_for.saturating_sub(ahead);
        }
    }
    due
}

fn by<K: Ord>(
    due: impl IntoIterator<Item = DueMirror>,
    key: impl Fn(&DueMirror) -> K,
) -> BTreeMap<K, Vec<DueMirror>> {
    let mut groups: BTreeMap<K, Vec<DueMirror>> = BTreeMap::new();
    for mirror in due {
        groups.entry(key(&mirror)).or_default().push(mirror);
    }
    groups
}

async fn check_account(
    ctx: &Arc<Context>,
    name: AccountName,
    due: Vec<DueMirror>,
    claimed_at: Moment,
) {
    tell_overdue(ctx, &name, &due).await;
    let (refunds, invoices): (Vec<_>, Vec<_>) = due
        .into_iter()
        .partition(|mirror| mirror.refund_id.is_some());
    if !invoices.is_empty() {
        check_invoices(ctx, &name, &invoices, claimed_at).await;
    }
    for (invoice_id, due) in by(refunds, |mirror| mirror.invoice_id) {
        check_refunds(ctx, &name, invoice_id, &due, claimed_at).await;
    }
}

/// The account, if a request that was claimed at this moment may still leave.
fn may_ask<'a>(ctx: &'a Context, name: &AccountName, claimed_at: Moment) -> Option<&'a Account> {
    let account = ctx.accounts.get(name)?;
    (account.may_send(claimed_at) && claimed_at.elapsed() <= SEND_WINDOW).then_some(account)
}

/// Nobody was asked: what was claimed is due again.
async fn put_back(ctx: &Context, name: &AccountName, due: &[DueMirror]) {
    if let Err(error) = mirrors::put_back(&ctx.pool, name, due).await {
        warn!(account = %name, error = %Chain(&error), "what was not asked about waits until the promise of its claim is over");
    }
}

/// The next check of the account's invoices may begin, at its distance.
async fn end_check(ctx: &Context, name: &AccountName) {
    let distance = check_distance(&ctx.rules.follow);
    if let Err(error) = mirrors::end_check(&ctx.pool, name, distance).await {
        warn!(account = %name, error = %Chain(&error), "the next check waits until the promise of this one is over");
    }
}

/// Opens an alert about the job that has been accepted for longest, if that is too long. By a clock that was
/// set just now nobody can tell: what was written meanwhile may not have been carried along.
async fn tell_overdue(ctx: &Arc<Context>, account: &AccountName, due: &[DueMirror]) {
    if !ctx.clock.is_calm() {
        return;
    }
    let waiting = due
        .iter()
        .flat_map(|mirror| mirror.waiting.iter().map(move |job| (mirror, job)));
    let longest = waiting.max_by_key(|(_, job)| job.accepted_for);
    let Some((mirror, job)) = longest.filter(|(_, job)| is_overdue(job.accepted_for, &ctx.rules))
    else {
        return;
    };
    ctx.recorder
        .record(Outcome {
            alert: Some(Alarm::overdue(mirror, job)),
            ..Outcome::plain(account, Entry::default())
        })
        .await;
}

async fn check_invoices(
    ctx: &Arc<Context>,
    name: &AccountName,
    due: &[DueMirror],
    claimed_at: Moment,
) {
    let Some(account) = may_ask(ctx, name, claimed_at) else {
        put_back(ctx, name, due).await;
        end_check(ctx, name).await;
        return;
    };
    let ids: Vec<i64> = due.iter().map(|mirror| mirror.invoice_id).collect();
    crash::reach(Point::FollowBeforeRequest);
    let timed = account.call(&wire::check_invoices(&ids)).await;
    crash::reach(Point::FollowAfterAnswer);
    let crowd = if due.len() < wire::CHECK_IDS {
        Crowd::OneCheck
    } else {
        Crowd::ManyChecks
    };
    end_check(ctx, name).await;
    let Some(rows) = wire::read_check(&timed) else {
        unreadable(ctx, account, &timed, due).await;
        return;
    };
    let mut shown: HashMap<i64, InvoiceSeen> = rows
        .into_iter()
        .map(|invoice| (invoice.id, invoice))
        .collect();
    for mirror in due {
        // What is not shown keeps the promise of its claim, and is asked about again.
        let Some(invoice) = shown.remove(&mirror.invoice_id) else {
            continue;
        };
        let Some(invoice) = with_code(ctx, account, mirror, invoice).await else {
            continue;
        };
        let unchanged_for = unchanged_for(mirror, invoice.status.as_str());
        let check = next_invoice_check(
            &invoice.status,
            unchanged_for,
            crowd,
            &ctx.rules.follow,
            ctx.jitter(),
        );
        let before = InvoiceStatus::parse(&mirror.status);
        let alert = (mirror.waiting.is_empty()
            && mirror.made_by.is_some()
            && lives_again(&before, &invoice.status))
        .then(|| Alarm::revived(mirror, &invoice.status));
        let seen = Seen::Invoice(invoice.clone());
        let check = settle_waiting(ctx, mirror, &seen, unchanged_for, check).await;
        let row = outcome::invoice_row(name, None, &invoice, check);
        let entry = Entry {
            invoice: Some(row),
            ..Entry::default()
        };
        ctx.recorder
            .record(Outcome {
                alert,
                ..Outcome::plain(name, entry)
            })
            .await;
    }
}

/// A check does not show why an invoice failed (API, section 2.6), and the code decides what
/// follows: a failed invoice is read by itself. `None` when that is not possible now; then it keeps
/// the promise of its claim, and is asked about again.
async fn with_code(
    ctx: &Arc<Context>,
    account: &Account,
    mirror: &DueMirror,
    shown: InvoiceSeen,
) -> Option<InvoiceSeen> {
    let is_known = shown.status != InvoiceStatus::Error || shown.error_code.is_some();
    if is_known || mirror.waiting.is_empty() {
        return Some(shown);
    }
    match ctx.take_one(&account.name, Purpose::Follow).await {
        Ok(true) => {}
        Ok(false) => return None,
        Err(error) => {
            warn!(error = %Chain(&error), "no quota could be taken; the invoice is read later");
            return None;
        }
    }
    crash::reach(Point::CodeBeforeRequest);
    let timed = account.call(&wire::get_invoice(shown.id)).await;
    crash::reach(Point::CodeAfterAnswer);
    let read = wire::read_invoice(&timed, shown.id);
    if read.is_none() {
        unreadable(ctx, account, &timed, std::slice::from_ref(mirror)).await;
    }
    read
}

async fn check_refunds(
    ctx: &Arc<Context>,
    name: &AccountName,
    invoice_id: i64,
    due: &[DueMirror],
    claimed_at: Moment,
) {
    let Some(account) = may_ask(ctx, name, claimed_at) else {
        put_back(ctx, name, due).await;
        return;
    };
    crash::reach(Point::RefundsBeforeRequest);
    let timed = account.call(&wire::list_refunds(invoice_id)).await;
    crash::reach(Point::RefundsAfterAnswer);
    let Some(list) = wire::read_refunds(&timed, invoice_id) else {
        unreadable(ctx, account, &timed, due).await;
        return;
    };
    let mut shown: HashMap<i64, RefundSeen> = list
        .refunds
        .into_iter()
        .map(|refund| (refund.id, refund))
        .collect();
    for mirror in due {
        let Some(refund) = mirror.refund_id.and_then(|id| shown.remove(&id)) else {
            continue;
        };
        let unchanged_for = unchanged_for(mirror, refund.status.as_str());
        let check = next_refund_check(
            &refund.status,
            unchanged_for,
            &ctx.rules.follow,
            ctx.jitter(),
        );
        let seen = Seen::Refund(refund.clone());
        let check = settle_waiting(ctx, mirror, &seen, unchanged_for, check).await;
        let row = outcome::refund_row(name, None, &refund, check);
        ctx.recorder
            .record(Outcome::plain(
                name,
                Entry {
                    refund: Some(row),
                    ..Entry::default()
                },
            ))
            .await;
    }
}

/// Decides about the jobs that wait for an object; returns when to look again.
async fn settle_waiting(
    ctx: &Arc<Context>,
    mirror: &DueMirror,
    seen: &Seen,
    unchanged_for: Duration,
    usual: NextCheck,
) -> NextCheck {
    let mut check = usual;
    for job in &mirror.waiting {
        let Some(followed) = decide(ctx, mirror, job, seen, unchanged_for).await else {
            continue;
        };
        if let Some(after) = followed.check_after {
            check = NextCheck::After(after);
        }
        if followed.next.is_none() && followed.strain.is_none() {
            continue;
        }
        let guard = Guard {
            account: mirror.account.clone(),
            id: job.id,
            token: job.name.token,
            worker: None,
            epoch: job.epoch,
            state: "accepted",
            taken: None,
        };
        let entry = match &followed.next {
            Some(next) => {
                info!(job.id = %job.id, next = next.state(), reason = next.reason().map(Reason::code), "followed");
                outcome::followed(&guard, next, seen)
            }
            None => Entry::default(),
        };
        // Nearly always nobody waits for that, and it costs nothing.
        let account = ctx.accounts.get(&mirror.account);
        let is_proof = account.is_some_and(|account| account.waits_for_delivery())
            && proves_delivery(followed.next.as_ref());
        ctx.recorder
            .record(Outcome {
                strain: followed.strain,
                delivered: is_proof.then(|| mirror.now - job.accepted_for),
                ..Outcome::plain(&mirror.account, entry)
            })
            .await;
        ctx.wake.dispatch.notify_one();
    }
    check
}

async fn decide(
    ctx: &Context,
    mirror: &DueMirror,
    job: &Waiting,
    seen: &Seen,
    unchanged_for: Duration,
) -> Option<Followed> {
    let planned = plan::plan(ctx, job.id, &job.name, &job.operation, &job.params);
    let (operation, plan) = match planned.await {
        Ok(planned) => planned,
        // It stays accepted, and the alert of overdue jobs tells of it.
        Err(why) => {
            warn!(job.id = %job.id, ?why, "an accepted job cannot be read; it is followed later");
            return None;
        }
    };
    let at = ctx.circumstances(&mirror.account, mirror.now);
    Some(follow(
        operation,
        &plan,
        &job.history,
        seen,
        unchanged_for,
        job.accepted_for,
        at,
    ))
}

fn unchanged_for(mirror: &DueMirror, status: &str) -> Duration {
    if mirror.status == status {
        mirror.unchanged_for
    } else {
        Duration::ZERO
    }
}

/// A check that brought nothing: what it means for the account is all there is to record.
async fn unreadable(ctx: &Arc<Context>, account: &Account, timed: &Timed, due: &[DueMirror]) {
    let Answer::Reply(reply) = &timed.answer else {
        return;
    };
    let Some(now) = due.first().map(|mirror| mirror.now) else {
        return;
    };
    let at = ctx.circumstances(&account.name, now);
    let strain = strain_of(reply, at);
    if matches!(strain, Some(Strain::Park { .. })) {
        account.park();
    }
    let is_for_the_rate = matches!(strain, Some(Strain::Block { .. }));
    let outcome = Outcome {
        strain,
        ..Outcome::plain(&account.name, Entry::default())
    };
    if is_for_the_rate {
        // The account waits as long as it was asked to; what it asked about need not wait for longer.
        ctx.recorder.record_now(outcome).await;
        put_back(ctx, &account.name, due).await;
    } else {
        ctx.recorder.record(outcome).await;
    }
}
