//! Watches accepted objects to their end.

mod apart;
mod asking;
mod divide;
mod earlier;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::crash::{self, Point};
use crate::db::DbError;
use crate::db::entry::Entry;
use crate::db::mirrors::{self, DueMirror, Kind, Waiting};
use crate::domain::account::AccountName;
use crate::domain::job::JobName;
use crate::domain::mirror::{InvoiceSeen, InvoiceStatus, RefundSeen, RefundStatus};
use crate::domain::operation::{Resend, Seen};
use crate::domain::outage::Read;
use crate::domain::state::State;
use crate::gateway::wire;
use crate::policy::finding::Subject;
use crate::policy::follow::{
    Crowd, Followed, NextCheck, by_id, follow, has_double, is_overdue, is_to_be_read,
    lives_unexpectedly, next_invoice_check, next_refund_check, proves_delivery,
};
use crate::policy::outage::{Errand, is_absence};
use crate::policy::reconcile::lives_after_all;
use crate::policy::verdict::{Next, Reason};
use crate::telemetry::Chain;
use crate::worker::account::Account;
use crate::worker::accounts::named;
use crate::worker::alerting::{Alert, ToCancel};
use crate::worker::clock::Moment;
use crate::worker::context::Context;
use crate::worker::guard::Guard;
use crate::worker::outcome::{self, Following};
use crate::worker::plan;
use crate::worker::pulse::Step;
use crate::worker::recorder::Outcome;
use crate::worker::room::{self, Work};
use crate::worker::steady::Asked;
use crate::worker::unstored;
use crate::worker::{missing, revived};
use apart::{read_after_refund, read_for_mode, read_whole};
use asking::{end_check, may_ask, may_read, note, put_back};

/// Accounts whose invoices are claimed for a check by one statement.
const CHECKS: usize = 16;

/// Refunds of an account in one round: each invoice of theirs is a request, one after the other, and
/// the next check of the invoices waits for them.
const REFUNDS: usize = 4;

/// Claims what is due to be checked, and hands each account's part to a task of the account. Of an account whose last
/// part is not done yet nothing is claimed.
pub async fn step(ctx: &Arc<Context>) -> Result<Step, DbError> {
    let served = ctx.served();
    let claimed_at = Moment::now();
    let asked = ctx.clock.ask();
    // Neither waits for what fails the other.
    let mut due = Vec::new();
    let mut failed = None;
    for claimed in [
        claim_invoices(ctx, &served).await,
        claim_refunds(ctx, &served).await,
    ] {
        match claimed {
            Ok(claimed) => due.extend(by_expected_clock(asked, claimed)),
            Err(error) => drop(failed.get_or_insert(error)),
        }
    }
    let is_idle = due.is_empty();
    for (name, due) in by(due, |mirror| mirror.account.clone()) {
        let Some(account) = named(&served, &name) else {
            continue;
        };
        // Nobody else takes the place.
        let Some(place) = account.places.take(Work::Follow) else {
            continue;
        };
        let (for_task, owner) = (ctx.clone(), account.clone());
        room::spawn(ctx, account, "follow", async move {
            check_account(&for_task, &owner, due, claimed_at).await;
            drop(place);
            for_task.wake.follow.notify_one();
        });
    }
    match failed {
        Some(error) => Err(error),
        None if is_idle => Ok(Step::Idle),
        None => Ok(Step::Worked),
    }
}

async fn claim_invoices(ctx: &Context, served: &[Arc<Account>]) -> Result<Vec<DueMirror>, DbError> {
    let accounts = readable(ctx, served, Read::Check);
    unstored::claim(ctx, Kind::Invoice, &accounts, |among| {
        mirrors::claim_invoices(
            &ctx.pool,
            &accounts,
            wire::CHECK_IDS,
            ctx.lease,
            ctx.clock.second(),
            CHECKS,
            among,
        )
    })
    .await
}

async fn claim_refunds(ctx: &Context, served: &[Arc<Account>]) -> Result<Vec<DueMirror>, DbError> {
    let accounts = readable(ctx, served, Read::Refunds);
    unstored::claim(ctx, Kind::Refund, &accounts, |among| {
        mirrors::claim_refunds(
            &ctx.pool,
            &accounts,
            REFUNDS,
            ctx.lease,
            ctx.clock.second(),
            among,
        )
    })
    .await
}

/// The accounts of which such reads may be made now: where they get no clear answer one asks at a time.
fn readable(ctx: &Context, served: &[Arc<Account>], read: Read) -> Vec<String> {
    let has_place = |account: &&Arc<Account>| account.places.free(Work::Follow) > 0;
    let readable = served.iter().filter(has_place);
    let readable = readable.filter(|account| may_read(ctx, account, read));
    readable.map(|account| account.name.to_string()).collect()
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
    account: &Account,
    due: Vec<DueMirror>,
    claimed_at: Moment,
) {
    tell_overdue(ctx, &account.name, &due).await;
    let (refunds, invoices): (Vec<_>, Vec<_>) = due
        .into_iter()
        .partition(|mirror| mirror.refund_id.is_some());
    if !invoices.is_empty() {
        check_invoices(ctx, account, &invoices, claimed_at).await;
    }
    for (invoice_id, due) in by(refunds, |mirror| mirror.invoice_id) {
        check_refunds(ctx, account, invoice_id, &due, claimed_at).await;
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
            alert: Some(Alert::overdue(mirror, job)),
            ..Outcome::plain(account, Entry::default())
        })
        .await;
}

async fn check_invoices(
    ctx: &Arc<Context>,
    account: &Account,
    due: &[DueMirror],
    claimed_at: Moment,
) {
    let name = &account.name;
    if !may_ask(ctx, account, claimed_at) {
        put_back(ctx, name, due).await;
        end_check(ctx, name).await;
        return;
    }
    let crowd = if due.len() < wire::CHECK_IDS {
        Crowd::OneCheck
    } else {
        Crowd::ManyChecks
    };
    let (question, due) = &divide::take_part(ctx, account, due).await;
    let errand = Errand::read(Read::Check, account.reads_slowly(Read::Check));
    crash::reach(Point::FollowBeforeRequest);
    let timed = account.call(&wire::check_invoices(&question.ids)).await;
    let following = ctx.following(account);
    crash::reach(Point::FollowAfterAnswer);
    end_check(ctx, name).await;
    // Ids that are not the key's are left out without a word (API, section 2.6): all of them, if need be.
    let rows = wire::read_check(&timed);
    note(ctx, account, errand, &timed, rows.is_some(), due).await;
    let Some(rows) = rows else {
        divide::note_failure(ctx, account, &timed, question, due).await;
        return;
    };
    account.division().shown(question);
    let mut shown = by_id(rows);
    let mut left_out = Vec::new();
    for mirror in due {
        // What is not shown stays claimed until that claim runs out, and is asked about again then.
        let Some(invoice) = shown.remove(&mirror.invoice_id) else {
            left_out.push(mirror);
            continue;
        };
        let before = InvoiceStatus::parse(&mirror.status);
        let is_waited_for = !mirror.waiting.is_empty();
        let invoice = if is_to_be_read(&before, &invoice, is_waited_for) {
            // So does what cannot be read now.
            let due = std::slice::from_ref(mirror);
            match read_whole(ctx, account, invoice.id, due, claimed_at).await {
                Some(whole) => whole,
                None => continue,
            }
        } else if is_just_made(mirror) && account.wants_mode() {
            let due = std::slice::from_ref(mirror);
            let whole = read_for_mode(ctx, account, invoice.id, due, claimed_at).await;
            whole.unwrap_or(invoice)
        } else {
            invoice
        };
        let now = invoice.standing();
        let unchanged_for = unchanged_for(mirror, now.as_str());
        let check = next_invoice_check(&now, unchanged_for, crowd, &ctx.rules.follow, ctx.jitter());
        // It is told of before it is stored; else it is seen so once more.
        if !is_waited_for
            && lives_unexpectedly(&before, &now, mirror.is_superseded)
            && let Err(error) = revived::tell(ctx, mirror, &now).await
        {
            warn!(invoice = invoice.id, error = %Chain(&error), "an invoice that no job goes by lives, and could not be told of yet");
            continue;
        }
        let shown = Shown {
            object: &Seen::Invoice(invoice.clone()),
            among: &[],
            unchanged_for,
        };
        let check = settle_waiting(ctx, account, mirror, shown, check, following).await;
        let row = outcome::invoice_row(name, None, &invoice, check, following);
        let entry = Entry {
            invoice: Some(row),
            ..Entry::default()
        };
        ctx.recorder.record(Outcome::plain(name, entry)).await;
    }
    missing::tell(ctx, name, &left_out).await;
}

/// Whether the job that made an invoice still waits for it.
fn is_just_made(mirror: &DueMirror) -> bool {
    let made_by = |job: &Waiting| Some(job.id.0) == mirror.made_by;
    mirror.waiting.iter().any(made_by)
}

async fn check_refunds(
    ctx: &Arc<Context>,
    account: &Account,
    invoice_id: i64,
    due: &[DueMirror],
    claimed_at: Moment,
) {
    let name = &account.name;
    if !may_ask(ctx, account, claimed_at) || !may_read(ctx, account, Read::Refunds) {
        put_back(ctx, name, due).await;
        return;
    }
    let errand = Errand::read(Read::Refunds, account.reads_slowly(Read::Refunds));
    crash::reach(Point::RefundsBeforeRequest);
    let timed = account.call(&wire::list_refunds(invoice_id)).await;
    let following = ctx.following(account);
    crash::reach(Point::RefundsAfterAnswer);
    let list = wire::read_refunds(&timed, invoice_id);
    note(ctx, account, errand, &timed, list.is_some(), due).await;
    let Some(list) = list else {
        // An invoice that is not there has no refunds that are.
        if is_absence(&timed) {
            missing::tell(ctx, name, &due.iter().collect::<Vec<_>>()).await;
        }
        return;
    };
    let is_done = |mirror: &&DueMirror| {
        let shown = list.refunds.iter().find(|r| Some(r.id) == mirror.refund_id);
        shown.is_some_and(|refund| refund.status == RefundStatus::Completed)
    };
    let after = if due.iter().any(|mirror| is_done(&mirror)) {
        read_after_refund(ctx, account, invoice_id, &list, due, claimed_at).await
    } else {
        None
    };
    let mut left_out = Vec::new();
    for mirror in due {
        let Some(refund) = list.refunds.iter().find(|r| Some(r.id) == mirror.refund_id) else {
            left_out.push(mirror);
            continue;
        };
        let unchanged_for = unchanged_for(mirror, refund.status.as_str());
        let check = next_refund_check(
            &refund.status,
            unchanged_for,
            after.is_some(),
            &ctx.rules.follow,
            ctx.jitter(),
        );
        let shown = Shown {
            object: &Seen::Refund(refund.clone()),
            among: &list.refunds,
            unchanged_for,
        };
        let check = settle_waiting(ctx, account, mirror, shown, check, following).await;
        record_refund(ctx, name, refund, after.as_ref(), check, following).await;
    }
    missing::tell(ctx, name, &left_out).await;
    // What people gave back counts in the invoice's total, so it is shown beside it.
    let is_ours = |refund: &&RefundSeen| {
        let is_due = due.iter().any(|mirror| mirror.refund_id == Some(refund.id));
        is_due || refund.reason.as_deref().is_some_and(JobName::is_marked)
    };
    for refund in list
        .refunds
        .iter()
        .filter(|refund| after.is_some() && !is_ours(refund))
    {
        let (rules, jitter) = (&ctx.rules.follow, ctx.jitter());
        let check = next_refund_check(&refund.status, Duration::ZERO, true, rules, jitter);
        record_refund(ctx, name, refund, after.as_ref(), check, following).await;
    }
}

/// Records a refund as it was seen, and its invoice as it stands after it, if that was read.
async fn record_refund(
    ctx: &Arc<Context>,
    name: &AccountName,
    refund: &RefundSeen,
    after: Option<&InvoiceSeen>,
    check: NextCheck,
    following: Following<'_>,
) {
    let entry = Entry {
        invoice: after.map(|invoice| outcome::first_row(name, None, invoice, following)),
        refund: Some(outcome::refund_row(
            name,
            None,
            refund,
            after,
            check,
            following.seen_at,
        )),
        ..Entry::default()
    };
    ctx.recorder.record(Outcome::plain(name, entry)).await;
}

/// An object as the gateway has just shown it.
#[derive(Clone, Copy)]
struct Shown<'a> {
    object: &'a Seen,
    /// The refunds of its invoice, if it is one of them.
    among: &'a [RefundSeen],
    /// For how long it has been shown with this status.
    unchanged_for: Duration,
}

/// Decides about the jobs that wait for an object; returns when to look again.
async fn settle_waiting(
    ctx: &Arc<Context>,
    account: &Account,
    mirror: &DueMirror,
    shown: Shown<'_>,
    usual: NextCheck,
    following: Following<'_>,
) -> NextCheck {
    let mut check = usual;
    for job in &mirror.waiting {
        let followed = match has_double(job.name, shown.object, shown.among) {
            true => Some(Followed::doubled()),
            false => decide(ctx, account, mirror, job, shown).await,
        };
        let Some(followed) = followed else {
            continue;
        };
        if let Some(after) = followed.check_after {
            check = NextCheck::After(after);
        }
        if followed.next.is_none() && followed.signal.is_none() {
            continue;
        }
        let guard = Guard {
            account: mirror.account.clone(),
            id: job.id,
            token: job.name.token,
            worker: None,
            epoch: job.epoch,
            state: State::Accepted,
            taken: None,
        };
        let found = followed.found.as_deref();
        let entry = match &followed.next {
            Some(next) => {
                info!(job.id = %job.id, next = next.state().as_str(), reason = next.reason().map(Reason::code), "followed");
                outcome::followed(&guard, next, shown.object, found, following)
            }
            None => Entry::default(),
        };
        // Nearly always nobody waits for that, and it costs nothing.
        let is_proof = account.waits_for_delivery() && proves_delivery(followed.next.as_ref());
        ctx.recorder
            .record(Outcome {
                signal: followed.signal,
                alert: (followed.next.as_ref())
                    .and_then(|next| Alert::of(&guard, next, found, ToCancel::of(&job.operation))),
                delivered: is_proof.then(|| mirror.now - job.accepted_for),
                ..Outcome::plain(&mirror.account, entry)
            })
            .await;
        ctx.wake.dispatch.notify_one();
    }
    check
}

async fn decide(
    ctx: &Arc<Context>,
    account: &Account,
    mirror: &DueMirror,
    job: &Waiting,
    shown: Shown<'_>,
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
    let at = ctx.circumstances(account, mirror.now);
    let followed = follow(
        operation,
        &plan,
        &job.history,
        shown.object,
        shown.unchanged_for,
        job.accepted_for,
        at,
    );
    let is_given_up = followed.next == Some(Next::Failed(Reason::GaveUp));
    if !is_given_up || plan.resend != Resend::ByProtection {
        return Some(followed);
    }
    let subject = Subject {
        operation,
        plan: &plan,
        name: job.name,
        history: &job.history,
        protection: account.protection,
        baseline: None,
    };
    let earlier = earlier::look_back(ctx, account, mirror, job).await?;
    let living = lives_after_all(&subject, &earlier.known, &earlier.named);
    Some(living.map_or(followed, Followed::living))
}

fn unchanged_for(mirror: &DueMirror, status: &str) -> Duration {
    if mirror.status == status {
        mirror.unchanged_for
    } else {
        Duration::ZERO
    }
}
