//! What somebody said of a job in `apipay.resolve`, against what the gateway has.

use crate::domain::job::{JobName, Stated};
use crate::domain::mirror::RefundList;
use crate::domain::operation::{Progress, Resend, Seen};
use crate::policy::finding::{Finding, Subject, is_of_another_order};
use crate::policy::found::{described, list, order_of, wanted};
use crate::policy::judge::{Circumstances, conclude};
use crate::policy::reconcile::{
    agrees, has_left, is_missing, is_settled, is_word_enough, lives_as_own, look_again,
    wait_to_settle,
};
use crate::policy::verdict::{Effect, Next, Reason, Verdict};

/// The decision about what was said.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// What becomes of the job.
    pub verdict: Verdict,
    /// Where the gateway has it otherwise: what was said, and what the gateway has.
    pub refuted: Option<String>,
}

/// Whether the job's own object has to be looked for before what was said can be decided: an invoice was named that
/// does not carry the job's name, and that would be taken, or is dead, so that another one may be meant.
pub fn needs_own(subject: &Subject<'_>, stated: &Stated, finding: &Finding) -> bool {
    let Finding::Invoice(invoice) = finding else {
        return false;
    };
    let is_bill = subject.plan.resend == Resend::ByProtection;
    let seen = Seen::Invoice(invoice.clone());
    let may_be_taken = || contradiction(subject, stated, &seen).is_none();
    let is_dead = || subject.operation.progress(&seen) == Progress::Failed;
    is_bill && !subject.name.names_invoice(invoice) && (may_be_taken() || is_dead())
}

/// Decides about a job that somebody resolved as applied, once the gateway was asked for the object.
///
/// It is adopted if it exists, belongs to no other job, and shows nothing that contradicts what was asked;
/// what differs is taken all the same if that was said. A cancel must have been done, or be under way.
/// While the gateway gives no clear answer it is asked again, for as long as that takes.
///
/// One that does not carry the job's name is adopted only when nothing that does can live beside it. `own` is what a
/// search by that name brought, of whichever generation, where [`needs_own`] asked for one. What it does not show must
/// be in the list by then, as with any look-up.
pub fn check_stated(
    subject: &Subject<'_>,
    stated: &Stated,
    finding: &Finding,
    own: Option<&Finding>,
    at: Circumstances<'_>,
) -> Checked {
    let (object, found) = match finding {
        Finding::Unclear(timed) if is_missing(timed) => (object_of(subject), None),
        Finding::Unclear(timed) => return Checked::of(look_again(subject.history, timed, at)),
        Finding::Invoice(invoice) => ("invoice", Some(Seen::Invoice(invoice.clone()))),
        Finding::Invoices(invoices) => {
            let named = invoices.iter().find(|invoice| invoice.id == stated.id);
            ("invoice", named.cloned().map(Seen::Invoice))
        }
        Finding::Refunds(list) => {
            let named = list.refunds.iter().find(|refund| refund.id == stated.id);
            ("refund", named.cloned().map(Seen::Refund))
        }
    };
    if let Some(Finding::Unclear(timed)) = own {
        return Checked::of(look_again(subject.history, timed, at));
    }
    let living = own_instead(subject, stated, own.unwrap_or(finding));
    let against = match (&found, living.is_empty()) {
        (_, false) => Some(comes_first(subject, &living, stated)),
        (None, true) => Some(missing(finding)),
        (Some(seen), true) => contradiction(subject, stated, seen),
    };
    match (against, found) {
        (None, Some(seen)) if !is_alone(subject, &seen, at) => {
            Checked::of(wait_to_settle(subject.history, at))
        }
        (None, Some(seen)) => {
            let progress = subject.operation.progress(&seen);
            Checked::of(Verdict {
                effect: Effect::Applied,
                next: conclude(seen, progress),
                counts: false,
                signal: None,
            })
        }
        (against, _) => Checked {
            refuted: Some(format!(
                "{object} {} was named; {}",
                stated.id,
                against.unwrap_or_default()
            )),
            ..Checked::of(Verdict {
                effect: Effect::Unknown,
                next: Next::Held(Reason::NotAsStated),
                counts: false,
                signal: None,
            })
        },
    }
}

/// Decides about a job of which somebody said that nothing was done and that it is to end cancelled, from what was
/// `found`: what a search by its name brought, and the invoice that the gateway once named for it, if it did.
///
/// What lives of it speaks first: the job is held again with both facts, for a customer may pay that invoice. As when it
/// is to be sent again, one clear answer is enough after that word, and none once all have been in vain for
/// `reconcile.give_up`.
pub fn call_off(subject: &Subject<'_>, found: &[Finding], at: Circumstances<'_>) -> Checked {
    let seen: Vec<Seen> = found.iter().flat_map(objects).collect();
    let living: Vec<Seen> = seen
        .iter()
        .filter(|seen| lives(subject, seen))
        .cloned()
        .collect();
    if !living.is_empty() {
        return Checked {
            refuted: Some(format!(
                "it was said that nothing was made and that the job is to end; ApiPay has {}{}",
                list(&living),
                how_it_ends(subject, &living)
            )),
            ..Checked::of(Verdict {
                effect: Effect::Unknown,
                next: Next::Held(Reason::NotAsStated),
                counts: false,
                signal: None,
            })
        };
    }
    let unclear = found.iter().find_map(|finding| match finding {
        Finding::Unclear(timed) if !is_missing(timed) => Some(timed),
        _ => None,
    });
    if let Some(timed) = unclear {
        let again = look_again(subject.history, timed, at);
        if again.signal.is_some() || !is_word_enough(subject.history, at) || !has_left(timed) {
            return Checked::of(again);
        }
    }
    let own = seen.into_iter().filter(|seen| subject.name.owns(seen));
    Checked::of(Verdict {
        effect: Effect::NotApplied,
        next: Next::CalledOff(own.max_by_key(id_of)),
        counts: false,
        signal: None,
    })
}

/// What a look-up brought, one by one.
fn objects(finding: &Finding) -> Vec<Seen> {
    match finding {
        Finding::Invoices(invoices) => invoices.iter().cloned().map(Seen::Invoice).collect(),
        Finding::Refunds(list) => list.refunds.iter().cloned().map(Seen::Refund).collect(),
        Finding::Invoice(invoice) => vec![Seen::Invoice(invoice.clone())],
        Finding::Unclear(_) => Vec::new(),
    }
}

/// Whether an object is the job's own and not dead: by its name, or because it answered to the job's key and shows
/// nothing that contradicts what was asked.
fn lives(subject: &Subject<'_>, seen: &Seen) -> bool {
    let answered_to_key = matches!(seen, Seen::Invoice(invoice)
        if subject.history.invoice_id == Some(invoice.id)
            && !invoice.standing().releases_key()
            && !is_of_another_order(subject, invoice)
            && !is_marked_for_another(subject.name, seen)
            && agrees(&subject.plan.expected, seen));
    answered_to_key || lives_as_own(subject.name, seen)
}

/// What a person does about what lives of a job that is to end.
fn how_it_ends(subject: &Subject<'_>, living: &[Seen]) -> String {
    match living {
        [one] => {
            let or_cancel = match one {
                Seen::Invoice(invoice) if !invoice.standing().is_paid() => {
                    ", or cancel it with apipay.cancel_invoice and say the same again"
                }
                Seen::Invoice(_) | Seen::Refund(_) => "",
            };
            format!(": name it{}{or_cancel}", taken(subject, one))
        }
        _ => ": cancel the invoices that are not paid with apipay.cancel_invoice, and name what is left"
            .to_owned(),
    }
}

/// What has to be said besides its number so that an object is taken, where it is the job's own and differs from what was
/// asked for.
fn taken(subject: &Subject<'_>, seen: &Seen) -> &'static str {
    match differs(subject, seen) {
        true => " with anyway => true, since it differs from what was asked for",
        false => "",
    }
}

/// Whether these words name the argument with which an object is taken that differs.
pub fn says_anyway(words: &str) -> bool {
    words.contains("anyway => true")
}

impl Checked {
    /// A decision that speaks against nothing that was said.
    fn of(verdict: Verdict) -> Checked {
        Checked {
            verdict,
            refuted: None,
        }
    }
}

/// Objects that carry a name of the job, and live, among what was found: they speak first, whatever was said.
fn own_instead(subject: &Subject<'_>, stated: &Stated, finding: &Finding) -> Vec<Seen> {
    let all = match finding {
        Finding::Invoices(_) | Finding::Refunds(_) => objects(finding),
        Finding::Invoice(_) | Finding::Unclear(_) => Vec::new(),
    };
    // No refund can be taken back: of several of its own a person can only say which is to count.
    let is_chosen = all.iter().any(|seen| {
        matches!(seen, Seen::Refund(refund) if refund.id == stated.id) && subject.name.owns(seen)
    });
    let is_instead =
        |seen: &Seen| !is_chosen && id_of(seen) != stated.id && lives_as_own(subject.name, seen);
    all.into_iter().filter(is_instead).collect()
}

/// Whether nothing of the job's own can come to light beside an object that is about to be taken.
fn is_alone(subject: &Subject<'_>, seen: &Seen, at: Circumstances<'_>) -> bool {
    let is_named = match seen {
        Seen::Invoice(invoice) => subject.name.names_invoice(invoice),
        Seen::Refund(refund) => subject.name.names_refund(refund),
    };
    // A cancel makes nothing.
    is_named || subject.plan.resend == Resend::Harmless || is_settled(subject.history, at)
}

fn id_of(seen: &Seen) -> i64 {
    match seen {
        Seen::Invoice(invoice) => invoice.id,
        Seen::Refund(refund) => refund.id,
    }
}

/// What lives of the job's own beside what was named, and how a person ends that.
fn comes_first(subject: &Subject<'_>, living: &[Seen], stated: &Stated) -> String {
    let numbers = living.iter().take(TOLD).map(|seen| match seen {
        Seen::Invoice(invoice) => format!("invoice {}", invoice.id),
        Seen::Refund(refund) => format!("refund {}", refund.id),
    });
    let numbers = numbers.collect::<Vec<_>>().join(" and ");
    match living {
        [own @ Seen::Invoice(invoice)] if invoice.standing().is_paid() => format!(
            "{numbers} carries this job's name, and ApiPay has it as {}: name that one{}",
            described(own),
            taken(subject, own)
        ),
        [own @ Seen::Invoice(_)] => format!(
            "{numbers} carries this job's name, and ApiPay has it as {}: name that one{}, or cancel it with \
             apipay.cancel_invoice and then name invoice {} again",
            described(own),
            taken(subject, own),
            stated.id
        ),
        [_] => format!("{numbers} carries this job's name"),
        [Seen::Invoice(_), ..] => format!(
            "{numbers} carry this job's name: cancel all of them but one with apipay.cancel_invoice, and name that one"
        ),
        _ => format!("{numbers} carry this job's name: name one of them"),
    }
}

/// What an id names of a job of this kind.
fn object_of(subject: &Subject<'_>) -> &'static str {
    match subject.plan.resend {
        Resend::ByBaseline => "refund",
        Resend::ByProtection | Resend::Harmless => "invoice",
    }
}

fn missing(finding: &Finding) -> String {
    match finding {
        Finding::Refunds(list) => format!("ApiPay has {} of that invoice", others(list)),
        Finding::Invoice(_) | Finding::Invoices(_) | Finding::Unclear(_) => {
            "ApiPay has none with that number".to_owned()
        }
    }
}

/// Refunds that are told by their numbers: more than that nobody reads.
const TOLD: usize = 10;

fn others(list: &RefundList) -> String {
    if list.refunds.is_empty() {
        return "no refund".to_owned();
    }
    let ids = list.refunds.iter().take(TOLD);
    let ids: Vec<String> = ids.map(|refund| refund.id.to_string()).collect();
    let more = if list.refunds.len() > TOLD {
        " and more"
    } else {
        ""
    };
    format!("only refund {}{more}", ids.join(", "))
}

/// How a person has that object taken which was named, where nothing but a difference speaks against it.
const TAKEN: &str = "; the same with anyway => true takes it, although it differs";

/// What speaks against the object that was named.
fn contradiction(subject: &Subject<'_>, stated: &Stated, seen: &Seen) -> Option<String> {
    let expected = &subject.plan.expected;
    if let Some(owner) = stated.owner {
        return Some(format!("it belongs to job {owner}"));
    }
    if is_marked_for_another(subject.name, seen) {
        return Some("at ApiPay it carries the name of another job".to_owned());
    }
    if subject.plan.resend == Resend::Harmless {
        let progress = subject.operation.progress(seen);
        let is_done = matches!(progress, Progress::Done | Progress::UnderWay);
        return (!is_done).then(|| format!("ApiPay has {}", described(seen)));
    }
    // A new invoice would follow a dead one, while our own, of which nothing is known, may live.
    let is_dead_strangers = matches!(seen, Seen::Invoice(invoice) if !subject.name.names_invoice(invoice))
        && subject.operation.progress(seen) == Progress::Failed;
    if is_dead_strangers && !stated.anyway {
        let whose = if carries_token(subject.name, seen) {
            "of an earlier try of this job"
        } else {
            "without this job's name"
        };
        return Some(format!("ApiPay has {}, {whose}{TAKEN}", described(seen)));
    }
    (differs(subject, seen) && !stated.anyway).then(|| {
        let order = is_anothers_order(subject, seen).then_some(seen);
        format!(
            "{} was asked for, and ApiPay has {}{}{TAKEN}",
            wanted(expected, order),
            described(seen),
            order.map_or_else(String::new, order_of)
        )
    })
}

/// Whether the object shows something else than was asked for.
fn differs(subject: &Subject<'_>, seen: &Seen) -> bool {
    !agrees(&subject.plan.expected, seen) || is_anothers_order(subject, seen)
}

fn is_anothers_order(subject: &Subject<'_>, seen: &Seen) -> bool {
    matches!(seen, Seen::Invoice(invoice) if is_of_another_order(subject, invoice))
}

/// Whether the object carries a mark of ours that is another job's. An earlier generation is the job's own.
fn is_marked_for_another(name: JobName, seen: &Seen) -> bool {
    JobName::named_in(mark_of(seen)).next().is_some() && !carries_token(name, seen)
}

/// Whether the object carries the name of this job, of whichever generation.
fn carries_token(name: JobName, seen: &Seen) -> bool {
    JobName::named_in(mark_of(seen)).any(|other| other.token == name.token)
}

/// Where our mark stands in an object.
fn mark_of(seen: &Seen) -> &str {
    let text = match seen {
        Seen::Invoice(invoice) => &invoice.internal_comment,
        Seen::Refund(refund) => &refund.reason,
    };
    text.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests;
