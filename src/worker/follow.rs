//! Watches accepted objects to their end.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::crash::{self, Point};
use crate::db::DbError;
use crate::db::claim::Purpose;
use crate::db::mirrors::{self, DueMirror, Waiting};
use crate::db::record::Entry;
use crate::domain::account::AccountName;
use crate::domain::answer::{Answer, Timed};
use crate::domain::mirror::{InvoiceSeen, InvoiceStatus, RefundSeen};
use crate::domain::operation::{Seen, operation};
use crate::gateway::wire;
use crate::policy::follow::{
    Crowd, Followed, NextCheck, check_distance, follow, is_overdue, lives_again,
    next_invoice_check, next_refund_check,
};
use crate::policy::judge::strain_of;
use crate::policy::verdict::{Reason, Strain};
use crate::telemetry::Chain;
use crate::worker::account::Account;
use crate::worker::alarm::Alarm;
use crate::worker::clock::Moment;
use crate::worker::outcome::{self, Guard};
use crate::worker::recorder::Outcome;
use crate::worker::{Context, Step};

/// Refunds of an account in one round: each invoice of theirs is a request, one after the other, and
/// the next check of the invoices waits for them.
const REFUNDS: usize = 4;

/// Checks what is due.
pub async fn step(ctx: &Arc<Context>) -> Result<Step, DbError> {
    let accounts = ctx.account_names();
    let claimed_at = Moment::now();
    let invoices = mirrors::claim_invoices(
        &ctx.pool,
        &accounts,
        wire::CHECK_IDS,
        ctx.lease,
        ctx.clock.second(),
    )
    .await?;
    let refunds =
        mirrors::claim_refunds(&ctx.pool, &accounts, REFUNDS, ctx.lease, ctx.clock.second())
            .await?;
    if invoices.is_empty() && refunds.is_empty() {
        return Ok(Step::Idle);
    }
    for (account, due) in by(invoices, |mirror| mirror.account.clone()) {
        tell_overdue(ctx, &account, &due).await;
        check_invoices(ctx, &account, &due, claimed_at).await;
    }
    for ((account, invoice_id), due) in by(refunds, |mirror| {
        (mirror.account.clone(), mirror.invoice_id)
    }) {
        tell_overdue(ctx, &account, &due).await;
        check_refunds(ctx, &account, invoice_id, &due, claimed_at).await;
    }
    Ok(Step::Worked)
}

fn by<K: Ord>(due: Vec<DueMirror>, key: impl Fn(&DueMirror) -> K) -> BTreeMap<K, Vec<DueMirror>> {
    let mut groups: BTreeMap<K, Vec<DueMirror>> = BTreeMap::new();
    for mirror in due {
        groups.entry(key(&mirror)).or_default().push(mirror);
    }
    groups
}

/// Opens an alert about the job that has been accepted for longest, if that is too long.
async fn tell_overdue(ctx: &Arc<Context>, account: &AccountName, due: &[DueMirror]) {
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
    let Some(account) = ctx
        .accounts
        .get(name)
        .filter(|account| account.may_send(claimed_at))
    else {
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
    let distance = check_distance(&ctx.rules.follow);
    if let Err(error) = mirrors::end_check(&ctx.pool, name, distance).await {
        warn!(account = %name, error = %Chain(&error), "the next check waits until the promise of this one is over");
    }
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
        let row = outcome::invoice_row(name, mirror.made_by, &invoice, check);
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
    let Some(account) = ctx
        .accounts
        .get(name)
        .filter(|account| account.may_send(claimed_at))
    else {
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
        let row = outcome::refund_row(name, mirror.made_by, &refund, check);
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
        let Some(followed) = decide(ctx, mirror, job, seen, unchanged_for) else {
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
            epoch: job.epoch,
            state: "accepted",
        };
        let entry = match &followed.next {
            Some(next) => {
                info!(job.id = %job.id, next = next.state(), reason = next.reason().map(Reason::code), "followed");
                outcome::followed(&guard, next, seen)
            }
            None => Entry::default(),
        };
        ctx.recorder
            .record(Outcome {
                strain: followed.strain,
                ..Outcome::plain(&mirror.account, entry)
            })
            .await;
    }
    ctx.wake.dispatch.notify_one();
    check
}

fn decide(
    ctx: &Context,
    mirror: &DueMirror,
    job: &Waiting,
    seen: &Seen,
    unchanged_for: Duration,
) -> Option<Followed> {
    let operation = operation(&job.operation)?;
    let plan = operation.prepare(&job.params, &job.name).ok()?;
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
    let outcome = Outcome {
        strain,
        ..Outcome::plain(&account.name, Entry::default())
    };
    ctx.recorder.record(outcome).await;
}
