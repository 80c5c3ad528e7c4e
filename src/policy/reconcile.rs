//! What a look-up found about a job whose request may have had its effect.

use std::time::Duration;

use time::OffsetDateTime;

use crate::domain::account::DuplicateProtection;
use crate::domain::answer::{Answer, Timed};
use crate::domain::codes::Class;
use crate::domain::job::{History, JobName};
use crate::domain::object::{Invoice, Object};
use crate::domain::operation::{Progress, Resend};
use crate::policy::backoff;
use crate::policy::finding::{Baseline, Finding, Subject};
use crate::policy::found::shown;
use crate::policy::judge::{
    Circumstances, back_off, conclude, not_now, not_sent, signal_of, wait_for,
};
use crate::policy::verdict::{Effect, Next, Proof, Reason, Verdict, why_failed};

/// Decides about an uncertain job: adopt what was found, send again, look again, or hold.
///
/// Sending again needs the account's protection: with a key that the gateway honours one complete
/// look-up that finds nothing is enough, because the same key is used; without it, two with the
/// settle time between them. Two are proof, however old the request is, and are waited for as well where
/// nothing is sent again before they can be had, as with a job that is past its `expires_at`. After a person's word that
/// nothing was done, one is enough once the settle time has passed since the job was sent, and what lives with the job's name
/// still speaks first. Where the gateway has said that it has
/// something with the key, two that find nothing are no proof: a human looks for it. That word alone sends nothing:
/// where no look-up has got a clear answer for `reconcile.give_up` since, the job is held again. Where a request was
/// repeated by its key, two are needed as well before a dead object counts as all there is.
pub fn reconcile(subject: &Subject<'_>, finding: &Finding, at: Circumstances<'_>) -> Verdict {
    match finding {
        Finding::Unclear(timed) => unclear(subject, timed, at),
        Finding::Read(object) => read(subject, object, at),
        Finding::Listed(objects) => {
            let ours: Vec<Object> = objects
                .iter()
                .filter(|object| subject.name.names(object))
                .cloned()
                .collect();
            let has_stranger = |known: &Baseline| !known.strangers_in(objects).is_empty();
            if ours.is_empty() && subject.baseline.is_some_and(has_stranger) {
                // Its own may be in the list by then, so that nobody has to tell them apart.
                return match is_settled(subject.history, at) {
                    true => held(Reason::UnknownOutcome),
                    false => wait_to_settle(subject.history, at),
                };
            }
            one_of(subject, ours, at)
        }
    }
}

fn one_of(subject: &Subject<'_>, mut ours: Vec<Object>, at: Circumstances<'_>) -> Verdict {
    // A dead object that differs from the request is left out where a person has said that nothing was done, or another
    // one lives: they have dealt with it. One that was as asked for has had its effect.
    if subject.history.is_denied() || ours.iter().any(|seen| !seen.is_dead()) {
        ours.retain(|seen| !seen.is_dead() || seen.agrees(&subject.plan.expected));
    }
    match <[Object; 1]>::try_from(ours) {
        Ok([seen]) if may_have_successor(subject, &seen) && !is_settled(subject.history, at) => {
            wait_to_settle(subject.history, at)
        }
        Ok([seen]) => adopt(subject, seen),
        Err(ours) if ours.is_empty() => nothing_found(subject, at),
        Err(_) => held(Reason::DuplicateDetected),
    }
}

/// Whether a repeated request may have made another invoice, which the list does not show yet: this
/// one's key was free again.
pub(super) fn may_have_successor(subject: &Subject<'_>, seen: &Object) -> bool {
    subject.history.is_repeated && seen.frees_key() && is_sent_again_by_key(subject)
}

fn is_sent_again_by_key(subject: &Subject<'_>) -> bool {
    subject.plan.resend == Resend::ByProtection && subject.protection == DuplicateProtection::Key
}

/// Whether everything that was sent must be in the list by now.
pub(super) fn is_settled(history: &History, at: Circumstances<'_>) -> bool {
    let since = settling_since(history);
    since.is_some_and(|since| at.now - since >= at.rules.settle)
}

/// From when the settle time counts: from the first look-up that found nothing, for by then whatever was sent was made, if
/// ever. A person's word stands for that look-up, as from when the job was sent.
fn settling_since(history: &History) -> Option<OffsetDateTime> {
    match history.denied_since {
        Some(denied) => Some(last_sent(history).unwrap_or(denied)),
        None => history.absent_since,
    }
}

/// When the last request of a job was sent that is unproven, at the latest.
fn last_sent(history: &History) -> Option<OffsetDateTime> {
    history.sent_at.max(history.unproven_since)
}

/// How long it is until whatever was sent must be in the list; `None` when it must be by now.
pub(super) fn until_listed(history: &History, at: Circumstances<'_>) -> Option<Duration> {
    let left = at.rules.settle.saturating_sub(age(last_sent(history)?, at));
    (!left.is_zero()).then_some(left)
}

/// What was looked for is not there; it is looked for once more when it must be in the list.
pub(super) fn wait_to_settle(history: &History, at: Circumstances<'_>) -> Verdict {
    Verdict {
        effect: Effect::Unknown,
        next: Next::Uncertain {
            after: remaining_settle(history, at),
            reason: Reason::LookupAbsent,
            invoice_id: None,
            absent: true,
        },
        counts: false,
        signal: None,
    }
}

/// The object that the job acts on, or that answered to its key.
fn read(subject: &Subject<'_>, seen: &Object, at: Circumstances<'_>) -> Verdict {
    let history = subject.history;
    match (subject.plan.resend, subject.operation.progress(seen)) {
        (Resend::Harmless, Progress::NotStarted)
            if at.rules.server_error.is_exhausted_by(history.attempts) =>
        {
            not_applied(Next::Failed(Reason::GaveUp))
        }
        (Resend::Harmless, Progress::NotStarted) => not_applied(Next::Queued {
            after: backoff::delay(&at.rules.server_error, history.attempts, at.jitter),
            reason: Reason::NotApplied,
            proof: Proof::NothingApplied,
        }),
        (Resend::Harmless, Progress::Failed) => Verdict {
            effect: Effect::Rejected,
            next: Next::Failed(why_failed(seen, Reason::Refused)),
            counts: false,
            signal: None,
        },
        _ if subject.is_denied_by(seen) => held(Reason::Mismatch),
        _ => adopt(subject, seen.clone()),
    }
}

/// Takes an object for the job's own, once amount and payer agree.
fn adopt(subject: &Subject<'_>, seen: Object) -> Verdict {
    if !seen.agrees(&subject.plan.expected) {
        return held(Reason::Mismatch);
    }
    let progress = subject.operation.progress(&seen);
    Verdict {
        effect: Effect::Applied,
        next: conclude(seen, progress),
        counts: false,
        signal: None,
    }
}

fn nothing_found(subject: &Subject<'_>, at: Circumstances<'_>) -> Verdict {
    let history = subject.history;
    let exhausted = at.rules.server_error.is_exhausted_by(history.attempts);
    let settled = is_settled(history, at);
    let never_sent = is_never_sent(subject);
    let delay = backoff::delay(&at.rules.server_error, history.attempts, at.jitter);
    let is_due_soon = !at.is_slow && delay < at.rules.settle;
    let queued = |proof| {
        // The time already spent waiting for the proof is subtracted from the back-off.
        let waited = match proof {
            Proof::NothingApplied => absent_for(history, at),
            Proof::Unchanged => Duration::ZERO,
        };
        not_applied(Next::Queued {
            after: delay.saturating_sub(waited),
            reason: Reason::NotApplied,
            proof,
        })
    };
    match () {
        // What has its key is there, and cannot be found.
        () if history.is_key_taken && !history.is_denied() && settled => {
            held(Reason::UnknownOutcome)
        }
        () if history.is_key_taken && !history.is_denied() => wait_to_settle(history, at),
        () if (settled || never_sent) && exhausted => not_applied(Next::Failed(Reason::GaveUp)),
        () if settled || never_sent => queued(Proof::NothingApplied),
        () if is_sent_again_by_key(subject)
            && !history.is_sent_no_more
            && is_due_soon
            && !exhausted
            && !key_may_be_free(history, at) =>
        {
            queued(Proof::Unchanged)
        }
        () => wait_to_settle(history, at),
    }
}

/// Whether the key of an unproven request may protect no longer: the gateway releases it once the
/// first invoice is dead (API, section 3.1).
///
/// A job that waited so long to be sent again, behind a cap or a park, is looked up first.
pub fn key_may_be_free(history: &History, at: Circumstances<'_>) -> bool {
    history
        .unproven_since
        .is_some_and(|since| at.now - since >= at.rules.give_up)
}

/// Whether a request that got no clear answer has left at all.
pub(super) fn has_left(timed: &Timed) -> bool {
    !matches!(timed.answer, Answer::NotSent(_))
}

/// Whether every look-up since a person's word that nothing was done has been in vain for `reconcile.give_up`. How old the
/// request is says nothing of that.
pub fn is_word_unconfirmed(history: &History, at: Circumstances<'_>) -> bool {
    history
        .denied_since
        .is_some_and(|since| at.now - since >= at.rules.give_up)
}

fn remaining_settle(history: &History, at: Circumstances<'_>) -> Duration {
    at.rules.settle.saturating_sub(absent_for(history, at))
}

fn absent_for(history: &History, at: Circumstances<'_>) -> Duration {
    settling_since(history).map_or(Duration::ZERO, |since| age(since, at))
}

fn age(since: OffsetDateTime, at: Circumstances<'_>) -> Duration {
    Duration::try_from(at.now - since).unwrap_or_default()
}

/// Whether nothing of it was ever sent: the baseline of a refund is stored before.
fn is_never_sent(subject: &Subject<'_>) -> bool {
    subject.plan.resend == Resend::ByBaseline && subject.baseline.is_none()
}

fn unclear(subject: &Subject<'_>, timed: &Timed, at: Circumstances<'_>) -> Verdict {
    let history = subject.history;
    let cannot_be_done = match subject.plan.resend {
        Resend::Harmless => !history.is_target_known,
        Resend::ByBaseline => is_never_sent(subject),
        Resend::ByProtection => false,
    };
    if cannot_be_done && is_missing(timed) {
        return not_applied(Next::Failed(Reason::Refused));
    }
    let held_for = match (history.is_denied(), history.unproven_since) {
        // The word is asked about for as long as the request was, and it is never a reason to send.
        (true, _) => is_word_unconfirmed(history, at).then_some(Reason::Unconfirmed),
        (false, Some(_)) => key_may_be_free(history, at).then_some(Reason::UnknownOutcome),
        (false, None) => (history.lookups >= UNCLEAR_MAX).then_some(Reason::UnknownOutcome),
    };
    let again = look_again(history, timed, at);
    match held_for {
        Some(reason) => Verdict {
            next: Next::Held(reason),
            ..again
        },
        None => again,
    }
}

/// A look-up that brought nothing is made again later.
pub(super) fn look_again(history: &History, timed: &Timed, at: Circumstances<'_>) -> Verdict {
    Verdict {
        effect: Effect::Unknown,
        next: Next::Uncertain {
            after: asked_later(history, at),
            reason: Reason::LookupUnclear,
            invoice_id: None,
            absent: false,
        },
        counts: false,
        signal: match &timed.answer {
            Answer::Reply(reply) => signal_of(reply, None, at),
            Answer::NotSent(_) | Answer::Lost(_) => None,
        },
    }
}

/// How long it is until the next look-up, where one has not decided.
pub fn asked_later(history: &History, at: Circumstances<'_>) -> Duration {
    backoff::delay(&at.rules.server_error, history.lookups, at.jitter)
}

/// With no unproven request to set a term, a human is asked after so many look-ups: a day of them at
/// the longest usual distance.
const UNCLEAR_MAX: u32 = 100;

/// The object that the job acts on does not exist: there is nothing it could have changed. Other
/// refusals are about the look-up.
pub(super) fn is_missing(timed: &Timed) -> bool {
    match &timed.answer {
        Answer::Reply(reply) => {
            matches!(reply.status, 404 | 410) && reply.class() == Class::Refused
        }
        Answer::NotSent(_) | Answer::Lost(_) => false,
    }
}

fn held(reason: Reason) -> Verdict {
    Verdict {
        effect: Effect::Unknown,
        next: Next::Held(reason),
        counts: false,
        signal: None,
    }
}

fn not_applied(next: Next) -> Verdict {
    Verdict {
        effect: Effect::NotApplied,
        next,
        counts: false,
        signal: None,
    }
}

/// Decides about a refund that is about to be sent and that the list shows already: the database has
/// forgotten that it was. It is adopted as after a look-up. `None` when the list shows no such refund.
///
/// A later generation counts as well, for its beginning may be forgotten too; an earlier one unless it
/// is dead, which is why there is a later.
pub fn made_before(subject: &Subject<'_>, list: &[Object]) -> Option<Verdict> {
    let named: Vec<(&Object, i16)> = list
        .iter()
        .filter_map(|object| {
            let names = JobName::named_in(object.marked_text()?);
            let mut own = names.filter(|name| name.token == subject.name.token);
            Some((object, own.next()?.generation))
        })
        .collect();
    let pick = |wanted: &dyn Fn(&Object, i16) -> bool| -> Vec<&Object> {
        let named = named
            .iter()
            .filter(|(object, generation)| wanted(object, *generation));
        named.map(|(object, _)| *object).collect()
    };
    let living = pick(&|object, _| !object.is_dead());
    let found = if living.is_empty() {
        pick(&|_, generation| generation >= subject.name.generation)
    } else {
        living
    };
    match found[..] {
        [] => None,
        [object] => Some(adopt(subject, object.clone())),
        _ => Some(held(Reason::DuplicateDetected)),
    }
}

/// A bill that is not resubmitted, and not given up, because of what lives of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Living {
    /// What becomes of its job instead.
    pub verdict: Verdict,
    /// What lives, in words.
    pub found: String,
}

/// Decides about a bill that is about to be resubmitted or given up, from what its invoices look like now: those that are
/// `known` to be its own, where one in error may turn pending after all (API, section 4.4), and those that a search by
/// its name showed. One that lives is adopted: whatever is not dead may still be paid, one that is being cancelled too
/// (API, section 5.1). `None` when none lives.
pub fn lives_after_all(
    subject: &Subject<'_>,
    known: &[Object],
    named: &[Object],
) -> Option<Living> {
    // Of what is known the check says how it is; the list may say it later.
    let is_unknown = |object: &&Object| {
        let is_known = known.iter().any(|known| known.id() == object.id());
        !is_known && lives_as_own(subject.name, object)
    };
    let unknown = named.iter().filter(is_unknown);
    let known = known.iter().filter(|object| !object.is_dead());
    let living: Vec<Object> = known.chain(unknown).cloned().collect();
    let verdict = match &living[..] {
        [] => return None,
        // A newer one may live besides, of which nothing is known yet.
        [object] if subject.history.unproven_since.is_some() && !subject.name.names(object) => {
            held(Reason::UnknownOutcome)
        }
        [object] => adopt(subject, object.clone()),
        _ => held(Reason::DuplicateDetected),
    };
    Some(Living {
        verdict,
        found: shown(&living),
    })
}

/// Of what a check showed, the invoices that were asked for. `None` when one of them is missing: what the gateway does not
/// show may live (API, section 2.6).
pub fn asked_for(ids: &[i64], shown: Vec<Invoice>) -> Option<Vec<Invoice>> {
    let is_complete = left_out(ids, &shown).is_empty();
    let asked = shown
        .into_iter()
        .filter(|invoice| ids.contains(&invoice.id));
    is_complete.then(|| asked.collect())
}

/// The invoices that were asked for, and that a check did not show.
pub fn left_out(ids: &[i64], shown: &[Invoice]) -> Vec<i64> {
    let is_left_out = |id: &&i64| shown.iter().all(|invoice| invoice.id != **id);
    ids.iter().filter(is_left_out).copied().collect()
}

/// Decides about a copy that is about to be sent, from what there is now of the jobs that it repeats (`originals`): the
/// objects that are `known` to be theirs, and what a list shows with one of their names. Whatever is not dead can still be
/// paid, was paid, or gives money back, and the copy would do it once more. `None` when nothing of it lives.
pub fn original_lives(
    history: &History,
    originals: &[JobName],
    known: &[Object],
    listed: &[Object],
) -> Option<Living> {
    let is_theirs = |object: &&Object| originals.iter().any(|name| lives_as_own(*name, object));
    let is_known = |object: &&Object| known.iter().any(|known| known.id() == object.id());
    let named = listed.iter().filter(is_theirs).filter(|o| !is_known(o));
    let known = known.iter().filter(|object| !object.is_dead());
    let living: Vec<Object> = known.chain(named).cloned().collect();
    let verdict = match history.unproven_since {
        _ if living.is_empty() => return None,
        None => not_applied(Next::Failed(Reason::OriginalLives)),
        // One of its own may live besides.
        Some(_) => held(Reason::OriginalLives),
    };
    Some(Living {
        verdict,
        found: format!("what it repeats was done after all: {}", shown(&living)),
    })
}

/// Whether an object is the job's own, of whichever generation, and not dead: it can still be paid, was paid, or
/// gives money back.
pub fn lives_as_own(name: JobName, seen: &Object) -> bool {
    !seen.is_dead() && name.owns(seen)
}

/// Decides about a bill of which it could not be seen whether an earlier invoice of it, or of what it repeats, lives, so that
/// nothing was sent. Whatever was answered is about the question, and never a refusal of the bill. It is asked again ever
/// less often, as often as tries are allowed; none of these counts as a request of the bill.
pub fn without_earlier(history: &History, timed: &Timed, at: Circumstances<'_>) -> Verdict {
    let (curve, signal) = match &timed.answer {
        Answer::NotSent(cause) if !cause.is_of_the_network() => {
            return not_sent(*cause, history, at);
        }
        Answer::NotSent(_) => (&at.rules.network, None),
        Answer::Lost(_) => (&at.rules.server_error, None),
        Answer::Reply(reply) => match reply.class() {
            Class::Throttled
            | Class::Capped
            | Class::RecipientThrottled
            | Class::AccountFault(_) => return not_now(history, reply, None, at),
            _ => (&at.rules.server_error, signal_of(reply, None, at)),
        },
    };
    let looks = history.lookups + 1;
    let is_last = curve.is_exhausted_by(history.attempts + looks);
    let next = if is_last && history.unproven_since.is_none() {
        Next::Failed(Reason::GaveUp)
    } else {
        let wait = backoff::delay(curve, looks, at.jitter);
        wait_for(history, wait, Reason::EarlierUnseen)
    };
    Verdict {
        signal,
        ..not_applied(next)
    }
}

/// Decides about a refund whose baseline could not be read, so that nothing was sent.
pub fn without_baseline(history: &History, timed: &Timed, at: Circumstances<'_>) -> Verdict {
    let reply = match &timed.answer {
        Answer::NotSent(cause) => return not_sent(*cause, history, at),
        Answer::Lost(_) => return back_off(history, Reason::Network, at),
        Answer::Reply(reply) => reply,
    };
    match reply.class() {
        Class::Refused if history.unproven_since.is_none() => Verdict {
            effect: Effect::Rejected,
            next: Next::Failed(Reason::Refused),
            counts: true,
            signal: None,
        },
        Class::Throttled | Class::Capped | Class::RecipientThrottled | Class::AccountFault(_) => {
            not_now(history, reply, None, at)
        }
        _ => Verdict {
            signal: signal_of(reply, None, at),
            ..back_off(history, Reason::ServerError, at)
        },
    }
}

#[cfg(test)]
mod tests;
