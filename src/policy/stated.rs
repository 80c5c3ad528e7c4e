//! What somebody said of a job in `apipay.resolve`, against what the gateway has.

use crate::domain::job::Stated;
use crate::domain::object::Object;
use crate::domain::operation::Progress;
use crate::policy::finding::{Finding, Subject};
use crate::policy::found::{described, list, named, order_of, wanted};
use crate::policy::judge::{Circumstances, conclude};
use crate::policy::reconcile::{
    has_left, is_missing, is_settled, is_word_unconfirmed, lives_as_own, look_again,
    may_have_successor, until_listed, wait_to_settle,
};
use crate::policy::verdict::{Effect, Next, Reason, Verdict};

/// The decision about what was said.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// What becomes of the job.
    pub verdict: Verdict,
    /// Where the gateway has it otherwise.
    pub refuted: Option<Refuted>,
    /// Which of the findings decided, by its place: the request that brought it is the evidence.
    pub decided_by: usize,
}

/// Why what was said of a job is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refuted {
    /// What was said, and what the gateway has.
    pub words: String,
    /// Whether the object that is meant differs from what was asked for, and is taken if that is said (`anyway`).
    pub is_taken_anyway: bool,
}

/// What speaks against an object, in words, and whether it is taken all the same if that is said.
struct Against {
    words: String,
    is_taken_anyway: bool,
}

impl Against {
    fn all(words: impl Into<String>) -> Against {
        Against {
            words: words.into(),
            is_taken_anyway: false,
        }
    }

    /// Nothing but a difference: the words say how the object is taken.
    fn difference(words: &str) -> Against {
        Against {
            words: format!("{words}{TAKEN}"),
            is_taken_anyway: true,
        }
    }
}

/// Whether the job's own object has to be looked for before what was said can be decided: an invoice was named that
/// does not carry the job's name, and that would be taken, or is dead, so that another one may be meant; or one of the job's
/// own that is dead, while a repeated request may have made another one.
pub fn needs_own(subject: &Subject<'_>, stated: &Stated, finding: &Finding) -> bool {
    let Finding::Read(seen) = finding else {
        return false;
    };
    let is_bill = subject.operation.makes_invoice();
    let may_be_taken = || contradiction(subject, stated, seen).is_none();
    let is_dead = || subject.operation.progress(seen) == Progress::Failed;
    let may_be_another = match subject.name.names(seen) {
        true => may_have_successor(subject, seen),
        false => may_be_taken() || is_dead(),
    };
    is_bill && may_be_another
}

/// The place of what a search by the job's name brought, after what was named.
const OWN: usize = 1;

/// Decides about a job that somebody resolved as applied, once the gateway was asked for the object.
///
/// It is adopted if it exists, belongs to no other job, and shows nothing that contradicts what was asked;
/// what differs is taken all the same if that was said. A cancel must have been done, or be under way.
/// While the gateway gives no clear answer it is asked again, for as long as that takes. So it is about a refund that is not
/// in the list, until whatever was sent must be there.
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
    let found = match finding {
        Finding::Unclear(timed) if is_missing(timed) => None,
        Finding::Unclear(timed) => return Checked::of(look_again(subject.history, timed, at)),
        Finding::Read(object) => Some(object),
        Finding::Listed(objects) => objects.iter().find(|object| object.id() == stated.id),
    };
    if let Some(Finding::Unclear(timed)) = own {
        return Checked::of(look_again(subject.history, timed, at)).decided_by(OWN);
    }
    // What the search by its name shows, or does not show.
    let by_name = usize::from(own.is_some()) * OWN;
    let living = own_instead(subject, stated, own.unwrap_or(finding));
    let against = match (found, living.is_empty()) {
        (_, false) => Some(comes_first(subject, &living, stated)),
        (None, true) => Some(Against::all(missing(subject, finding))),
        (Some(seen), true) => contradiction(subject, stated, seen),
    };
    // A list may not show yet what was named.
    let hidden_for = match (found, finding) {
        (None, Finding::Listed(_)) if living.is_empty() => until_listed(subject.history, at),
        _ => None,
    };
    if let Some(after) = hidden_for {
        return Checked::of(Verdict {
            effect: Effect::Unknown,
            next: Next::Uncertain {
                after,
                reason: Reason::LookupAbsent,
                invoice_id: None,
                absent: false,
            },
            counts: false,
            signal: None,
        });
    }
    match (against, found) {
        (None, Some(seen)) if !is_alone(subject, seen, at) => {
            Checked::of(wait_to_settle(subject.history, at)).decided_by(by_name)
        }
        (None, Some(seen)) => {
            let progress = subject.operation.progress(seen);
            Checked::of(Verdict {
                effect: Effect::Applied,
                next: conclude(seen.clone(), progress),
                counts: false,
                signal: None,
            })
        }
        (against, _) => Checked {
            decided_by: if living.is_empty() { 0 } else { by_name },
            refuted: Some(Refuted {
                is_taken_anyway: (against.as_ref()).is_some_and(|against| against.is_taken_anyway),
                words: format!(
                    "{} {} was named; {}",
                    subject.plan.lookup.noun(),
                    stated.id,
                    against.map(|against| against.words).unwrap_or_default()
                ),
            }),
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
/// is to be sent again, one clear answer is enough after that word, once what was sent would be shown. Since nothing is sent of it, that word alone ends it
/// once all look-ups have been in vain for `reconcile.give_up`, unless it is the account that keeps the gateway from
/// telling.
pub fn call_off(subject: &Subject<'_>, found: &[&Finding], at: Circumstances<'_>) -> Checked {
    let seen = || found.iter().flat_map(|finding| finding.objects());
    let living: Vec<Object> = seen()
        .filter(|seen| lives(subject, seen))
        .cloned()
        .collect();
    if !living.is_empty() {
        let shows_it =
            |finding: &&Finding| finding.objects().iter().any(|seen| lives(subject, seen));
        return Checked {
            decided_by: found.iter().position(shows_it).unwrap_or_default(),
            refuted: Some(Refuted {
                words: format!(
                    "it was said that nothing was made and that the job is to end; ApiPay has {}{}",
                    list(&living),
                    how_it_ends(subject, &living)
                ),
                is_taken_anyway: matches!(&living[..], [own] if differs(subject, own)),
            }),
            ..Checked::of(Verdict {
                effect: Effect::Unknown,
                next: Next::Held(Reason::NotAsStated),
                counts: false,
                signal: None,
            })
        };
    }
    let is_search = subject.plan.lookup.is_search();
    let unclear = found.iter().enumerate().find_map(|it| match it {
        // What was asked for by a number may be missing. A search that is missing shows nothing.
        (place, Finding::Unclear(timed)) if place == 0 && is_search || !is_missing(timed) => {
            Some((place, timed))
        }
        _ => None,
    });
    if let Some((place, timed)) = unclear {
        let again = look_again(subject.history, timed, at);
        if again.signal.is_some() || !is_word_unconfirmed(subject.history, at) || !has_left(timed) {
            return Checked::of(again).decided_by(place);
        }
    }
    // What was sent just now may not be shown yet.
    if unclear.is_none() && !is_settled(subject.history, at) {
        return Checked::of(wait_to_settle(subject.history, at));
    }
    let own = seen().filter(|seen| subject.name.owns(seen));
    Checked::of(Verdict {
        effect: match unclear {
            Some(_) => Effect::Unknown,
            None => Effect::NotApplied,
        },
        next: Next::CalledOff {
            dead: own.max_by_key(|seen| seen.id()).cloned(),
            is_seen: unclear.is_none(),
        },
        counts: false,
        signal: None,
    })
    .decided_by(unclear.map_or(0, |(place, _)| place))
}

/// Whether an object is the job's own and not dead: by its name, or because it answered to the job's key and shows
/// nothing that contradicts what was asked.
fn lives(subject: &Subject<'_>, seen: &Object) -> bool {
    let answered_to_key = subject.is_answer_to_key(seen)
        && !seen.is_dead()
        && !subject.is_denied_by(seen)
        && seen.agrees(&subject.plan.expected);
    answered_to_key || lives_as_own(subject.name, seen)
}

/// What a person does about what lives of a job that is to end.
fn how_it_ends(subject: &Subject<'_>, living: &[Object]) -> String {
    match living {
        [own] => {
            let or_cancel = match own.taken_back_by() {
                Some(_) if own.is_being_taken_back() => {
                    ", or say the same again once ApiPay shows it as cancelled, for it is being cancelled".to_owned()
                }
                Some(function) if !own.is_paid() => format!(
                    ", or cancel it with {function} and say the same again once ApiPay shows it as cancelled"
                ),
                _ => String::new(),
            };
            format!(": name it{}{or_cancel}", taken(subject, own))
        }
        _ => match living.first().and_then(|own| own.taken_back_by()) {
            Some(function) => format!(
                ": cancel the invoices that are not paid with {function}, and name what is left"
            ),
            None => ": name one of them".to_owned(),
        },
    }
}

/// What has to be said besides its number so that an object is taken, where it is the job's own and differs from what was
/// asked for.
fn taken(subject: &Subject<'_>, seen: &Object) -> &'static str {
    match differs(subject, seen) {
        true => " with anyway => true, since it differs from what was asked for",
        false => "",
    }
}

impl Checked {
    /// A decision that speaks against nothing that was said, and that the first finding made.
    pub fn of(verdict: Verdict) -> Checked {
        Checked {
            verdict,
            refuted: None,
            decided_by: 0,
        }
    }

    fn decided_by(self, place: usize) -> Checked {
        Checked {
            decided_by: place,
            ..self
        }
    }
}

/// Objects that carry a name of the job, and live, among what was listed: they speak first, whatever was said.
fn own_instead(subject: &Subject<'_>, stated: &Stated, finding: &Finding) -> Vec<Object> {
    let Finding::Listed(all) = finding else {
        return Vec::new();
    };
    // A refund cannot be cancelled, so if there are several, a person can only choose which one counts.
    let is_chosen = all.iter().any(|seen| {
        seen.taken_back_by().is_none() && seen.id() == stated.id && subject.name.owns(seen)
    });
    let is_instead =
        |seen: &&Object| !is_chosen && seen.id() != stated.id && lives_as_own(subject.name, seen);
    all.iter().filter(is_instead).cloned().collect()
}

/// Whether nothing of the job's own can come to light beside an object that is about to be taken.
fn is_alone(subject: &Subject<'_>, seen: &Object, at: Circumstances<'_>) -> bool {
    (subject.name.names(seen) && !may_have_successor(subject, seen))
        || subject.plan.lookup.acts_on_object()
        || is_settled(subject.history, at)
}

/// What lives of the job's own beside what was named, and how a person ends that.
fn comes_first(subject: &Subject<'_>, living: &[Object], stated: &Stated) -> Against {
    let numbers = living.iter().take(TOLD).map(named);
    let numbers = numbers.collect::<Vec<_>>().join(" and ");
    let taken_back_by = living.first().and_then(|own| own.taken_back_by());
    let words = match (living, taken_back_by) {
        ([own], Some(_)) if own.is_paid() => format!(
            "{numbers} carries this job's name, and ApiPay has it as {}: name that one{}",
            described(own),
            taken(subject, own)
        ),
        ([own], Some(function)) => format!(
            "{numbers} carries this job's name, and ApiPay has it as {}: name that one{}, or {}",
            described(own),
            taken(subject, own),
            name_again(own, function, stated)
        ),
        ([_], None) => format!("{numbers} carries this job's name"),
        (_, Some(function)) => format!(
            "{numbers} carry this job's name: cancel all of them but one with {function}, and name that one"
        ),
        (_, None) => format!("{numbers} carry this job's name: name one of them"),
    };
    Against {
        words,
        is_taken_anyway: matches!(living, [own] if taken_back_by.is_some() && differs(subject, own)),
    }
}

/// How what was named is taken although an object of the job's own lives, which can be taken back by this function.
fn name_again(own: &Object, function: &str, stated: &Stated) -> String {
    let again = format!(
        "name {} {} again once ApiPay shows the other one as cancelled",
        own.noun(),
        stated.id
    );
    match own.is_being_taken_back() {
        true => format!("{again}, for it is being cancelled"),
        false => format!("cancel it with {function} and {again}"),
    }
}

/// What the gateway has instead of what was named.
fn missing(subject: &Subject<'_>, finding: &Finding) -> String {
    match finding {
        // What is read as a list, although a number was named, are all objects of an invoice.
        Finding::Listed(list) => {
            format!(
                "ApiPay has {} of that invoice",
                others(subject.plan.lookup.noun(), list)
            )
        }
        Finding::Read(_) | Finding::Unclear(_) => "ApiPay has none with that number".to_owned(),
    }
}

/// Objects that are told by their numbers: more than that nobody reads.
const TOLD: usize = 10;

fn others(noun: &str, list: &[Object]) -> String {
    if list.is_empty() {
        return format!("no {noun}");
    }
    let ids = list.iter().take(TOLD);
    let ids: Vec<String> = ids.map(|object| object.id().to_string()).collect();
    let more = if list.len() > TOLD { " and more" } else { "" };
    format!("only {noun} {}{more}", ids.join(", "))
}

/// How a person has that object taken which was named, where nothing but a difference speaks against it.
const TAKEN: &str = "; the same with anyway => true takes it, although it differs";

/// What speaks against the object that was named.
fn contradiction(subject: &Subject<'_>, stated: &Stated, seen: &Object) -> Option<Against> {
    let expected = &subject.plan.expected;
    if let Some(owner) = stated.owner.filter(|_| !subject.name.names(seen)) {
        return Some(Against::all(format!("it belongs to job {owner}")));
    }
    // What it acts on carries the name of the job that made it, and only its status tells what the job did.
    if subject.plan.lookup.acts_on_object() {
        let progress = subject.operation.progress(seen);
        let is_done = matches!(progress, Progress::Done | Progress::UnderWay);
        return (!is_done).then(|| Against::all(format!("ApiPay has {}", described(seen))));
    }
    if subject.name.is_another_in(seen) {
        return Some(Against::all("at ApiPay it carries the name of another job"));
    }
    // To adopt a dead invoice would make a new bill, although the job's own invoice may still be alive.
    let is_dead_strangers = subject.operation.makes_invoice()
        && !subject.name.names(seen)
        && subject.operation.progress(seen) == Progress::Failed;
    if is_dead_strangers && !stated.anyway {
        let whose = if subject.name.has_mark_in(seen) {
            "of an earlier try of this job"
        } else {
            "without this job's name"
        };
        let words = format!("ApiPay has {}, {whose}", described(seen));
        return Some(Against::difference(&words));
    }
    (differs(subject, seen) && !stated.anyway).then(|| {
        let order = subject.is_denied_by(seen).then_some(seen);
        Against::difference(&format!(
            "{} was asked for, and ApiPay has {}{}",
            wanted(expected, order),
            described(seen),
            order.map_or_else(String::new, order_of)
        ))
    })
}

/// Whether the object shows something else than was asked for.
fn differs(subject: &Subject<'_>, seen: &Object) -> bool {
    !seen.agrees(&subject.plan.expected) || subject.is_denied_by(seen)
}

#[cfg(test)]
mod tests;
