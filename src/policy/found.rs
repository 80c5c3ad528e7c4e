//! What a look-up found, in words for people: of an object that is not what was asked for, both sides.

use std::collections::BTreeMap;
use std::fmt::Write;

use rust_decimal::Decimal;

use crate::domain::object::{Expected, Object, Standing};
use crate::domain::operation::Plan;
use crate::policy::finding::{Finding, Subject};
use crate::policy::verdict::{Next, Reason};

/// What to say of a job after the gateway answered clearly what it has of it: what was found, and what it is
/// held against. `None` when the answer was not clear, or when the job's own object says it all.
///
/// Where somebody has said that it was not done, and a human has to decide again, that stands first.
pub fn in_words(subject: &Subject<'_>, finding: &Finding, next: &Next) -> Option<String> {
    let words = of_finding(subject, finding, next)?;
    let is_refused = subject.history.denied_since.is_some() && matches!(next, Next::Held(_));
    Some(if is_refused {
        format!("{DENIED}{words}")
    } else {
        words
    })
}

/// What stands before what was found of a job that was said not to be done.
const DENIED: &str = "it was said that it was not done; ";

/// The one object of a job, among what was found, that a person decides about, and how it stands; none where several live.
/// What is dead counts if the job is held against it.
pub fn to_decide(
    subject: &Subject<'_>,
    findings: &[&Finding],
    next: &Next,
) -> Option<(i64, Standing)> {
    let counts = |object: &&Object| {
        !object.is_dead() || *next == Next::Held(Reason::Mismatch) && subject.name.names(object)
    };
    let ours = own(subject, findings).into_iter().filter(counts);
    let all: BTreeMap<i64, Standing> = ours
        .map(|object| (object.id(), Standing::of(&**object)))
        .collect();
    let mut living = all
        .iter()
        .filter(|(_, standing)| **standing != Standing::Dead);
    let one = match (living.next(), living.next()) {
        (None, _) => all.iter().next_back(),
        (one, None) => one,
        (Some(_), Some(_)) => None,
    };
    one.map(|(id, standing)| (*id, *standing))
}

/// The objects among what was found that are the job's own: by their name, or because the gateway named one for the job's
/// key.
pub fn own<'a>(subject: &Subject<'_>, findings: &[&'a Finding]) -> Vec<&'a Object> {
    let all = findings
        .iter()
        .flat_map(|finding: &&'a Finding| finding.objects());
    let is_own = |object: &&Object| subject.is_answer_to_key(object) || subject.name.owns(object);
    all.filter(is_own).collect()
}

/// The invoices of a job to follow from now on besides the one that it goes by, if any, whatever becomes of it: those that
/// are not dead may be paid, so may those that are dead and rise, and a person must hear of that. That one counts which the
/// gateway named for the job's key only where it is known to be the job's, or is one of several.
pub fn to_watch<'a>(
    subject: &Subject<'_>,
    findings: &[&'a Finding],
    next: &Next,
) -> Vec<&'a Object> {
    if !subject.operation.makes_invoice() {
        return Vec::new();
    }
    let goes_by = match next {
        Next::Accepted { seen, .. } | Next::Succeeded(seen) => Some(seen.id()),
        Next::CalledOff { dead, .. } => dead.as_ref().map(|seen| seen.id()),
        _ => None,
    };
    let are_several = *next == Next::Held(Reason::DuplicateDetected);
    let seen = own(subject, findings).into_iter();
    let others = seen.filter(|object| {
        goes_by != Some(object.id()) && (are_several || subject.name.owns(object))
    });
    let each: BTreeMap<i64, &Object> = others.map(|object| (object.id(), object)).collect();
    each.into_values().collect()
}

fn of_finding(subject: &Subject<'_>, finding: &Finding, next: &Next) -> Option<String> {
    let ours: Vec<Object> = match finding {
        Finding::Unclear(_) => return None,
        Finding::Read(object) => vec![object.clone()],
        Finding::Listed(objects) => {
            let ours = objects.iter().filter(|object| subject.name.owns(object));
            ours.cloned().collect()
        }
    };
    match next {
        Next::Succeeded(_) | Next::Accepted { .. } => None,
        Next::Held(Reason::Mismatch) => {
            // Beside one that lives no other counts that differs.
            let living = ours.iter().find(|seen| !seen.is_dead());
            living
                .or(ours.first())
                .map(|seen| against_subject(subject, seen) + &until_taken_back(subject, seen))
        }
        Next::Held(Reason::UnknownOutcome) if ours.is_empty() => Some(strangers(subject, finding)),
        _ if ours.is_empty() => Some(NOTHING.to_owned()),
        _ => Some(shown(&ours)),
    }
}

/// What the gateway shows of a job.
pub(super) fn shown(objects: &[Object]) -> String {
    format!("the gateway shows {}", list(objects))
}

fn against_subject(subject: &Subject<'_>, seen: &Object) -> String {
    let order = subject.is_denied_by(seen).then_some(seen);
    against(subject.plan, seen, order)
}

/// When it helps to say that a job was not done whose object is being taken back: until then that object holds it again.
fn until_taken_back(subject: &Subject<'_>, seen: &Object) -> String {
    if !seen.is_being_taken_back() {
        return String::new();
    }
    let what = match subject.history.is_denied() {
        true => "the same again",
        false => "that it was not done",
    };
    format!("; it is being cancelled: say {what} once ApiPay shows it as cancelled")
}

/// An object that is taken for the job's own, and is not what was asked for: its order too, if that is what differs.
pub(super) fn against(plan: &Plan, seen: &Object, order: Option<&Object>) -> String {
    format!(
        "{} was asked for, and ApiPay has {}{}",
        wanted(&plan.expected, order),
        numbered(seen),
        order.map_or_else(String::new, order_of)
    )
}

/// What is new and does not say whose it is.
fn strangers(subject: &Subject<'_>, finding: &Finding) -> String {
    let (Some(known), Finding::Listed(all)) = (subject.baseline, finding) else {
        return NOTHING.to_owned();
    };
    format!(
        "{} was asked for, and the gateway shows {}, of which it cannot be told whether that is it",
        wanted(&subject.plan.expected, None),
        list(&known.strangers_in(all))
    )
}

/// What is said when nothing of the job's was found.
const NOTHING: &str = "the gateway shows nothing with this job's name";

/// Objects that are told one by one: more than that nobody reads.
const TOLD: usize = 5;

pub(super) fn list(objects: &[Object]) -> String {
    let mut text = objects
        .iter()
        .take(TOLD)
        .map(numbered)
        .collect::<Vec<_>>()
        .join(", and ");
    if objects.len() > TOLD {
        text.push_str(", and more");
    }
    text
}

/// Which object it is, and what it shows.
fn numbered(seen: &Object) -> String {
    format!("{}: {}", named(seen), described(seen))
}

/// Which object it is.
pub(super) fn named(seen: &Object) -> String {
    format!("{} {}", seen.noun(), seen.id())
}

/// What was asked for; its order too, if that is what differs.
pub(super) fn wanted(expected: &Expected, order: Option<&Object>) -> String {
    let mut text = expected.amount.map_or_else(
        || "any amount".to_owned(),
        |amount| format!("{amount} tenge"),
    );
    // Writing to a String cannot fail.
    if let Some(phone) = &expected.phone {
        let _ = write!(text, " to {phone}");
    }
    if let (Some(_), Some(id)) = (order, &expected.order_id) {
        let _ = write!(text, " for order {id}");
    }
    text
}

fn tenge(amount: Decimal) -> String {
    format!("{} tenge", amount.normalize())
}

/// What an object shows.
pub fn described(seen: &Object) -> String {
    let mut text = seen.amount().map_or_else(|| "it".to_owned(), tenge);
    // Writing to a String cannot fail.
    if let Some(phone) = seen.payer() {
        let _ = write!(text, " to {phone}");
    }
    let _ = write!(text, " (status {})", seen.status());
    text
}

/// The order that an object shows, if it shows one.
pub(super) fn order_of(seen: &Object) -> String {
    let order = seen.order_id();
    order.map_or_else(String::new, |id| format!(" for order {id}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use time::macros::datetime;

    use crate::domain::account::DuplicateProtection;
    use crate::domain::job::History;
    use crate::domain::object::{Invoice, RefundList};
    use crate::policy::finding::Baseline;
    use crate::policy::fixtures::*;

    fn refunds(list: &serde_json::Value) -> Finding {
        let read = RefundList::read(&json!({ "refunds": list }), 15);
        Finding::listed(read.expect("a list").refunds)
    }

    #[test]
    fn nothing_strangers_and_several_are_told_apart() {
        let kind = refund();
        let history = clean();
        let known = Baseline {
            refund_ids: vec![1],
            is_told_apart: false,
        };
        let subject = Subject {
            operation: kind.operation,
            plan: &kind.plan,
            name: NAME,
            history: &history,
            protection: DuplicateProtection::Key,
            baseline: Some(&known),
        };
        let held = |reason| Next::Held(reason);
        let old = json!({"id": 1, "invoice_id": 15, "status": "completed", "amount": "5.00"});
        let new = json!({"id": 2, "invoice_id": 15, "status": "completed", "amount": "5.00"});
        let own = |id| json!({"id": id, "invoice_id": 15, "status": "pending", "amount": "7.00", "reason": NAME.mark()});
        let words = |list, next: &Next| in_words(&subject, &refunds(&list), next).expect("words");

        let nothing = words(json!([old]), &held(Reason::GaveUp));
        assert_eq!(nothing, "the gateway shows nothing with this job's name");
        let stranger = words(json!([old, new]), &held(Reason::UnknownOutcome));
        assert!(
            stranger.contains("shows refund 2: 5 tenge (status completed), of which"),
            "{stranger}"
        );
        let several = words(json!([own(3), own(4)]), &held(Reason::DuplicateDetected));
        assert_eq!(
            several,
            "the gateway shows refund 3: 7 tenge (status pending), and refund 4: 7 tenge (status pending)"
        );

        let denied = History {
            denied_since: Some(datetime!(2026-11-01 12:00 UTC)),
            ..clean()
        };
        let subject = Subject {
            history: &denied,
            ..subject
        };
        let finding = refunds(&json!([own(3), own(4)]));
        let held_again = in_words(&subject, &finding, &held(Reason::DuplicateDetected));
        let held_again = held_again.expect("words");
        assert_eq!(
            held_again,
            format!("it was said that it was not done; {several}")
        );
    }

    #[test]
    fn of_a_wrong_invoice_that_is_being_cancelled_it_is_said_when_to_say_so() {
        let kind = create();
        let words = |history: &History, status: &str| {
            let subject = Subject {
                operation: kind.operation,
                plan: &kind.plan,
                name: NAME,
                history,
                protection: DuplicateProtection::Key,
                baseline: None,
            };
            let wrong = json!({"id": 1, "status": status, "amount": "5.00", "internal_comment": NAME.mark()});
            let found = Finding::listed([Invoice::read(&wrong).expect("an invoice")]);
            in_words(&subject, &found, &Next::Held(Reason::Mismatch)).expect("words")
        };
        let denied = History {
            denied_since: Some(datetime!(2026-11-01 12:00 UTC)),
            ..clean()
        };
        let again = words(&denied, "cancelling");
        assert!(
            again.starts_with("it was said that it was not done; ")
                && again.ends_with(
                    "ApiPay has invoice 1: 5 tenge (status cancelling); it is being cancelled: say the same again once \
                     ApiPay shows it as cancelled"
                ),
            "{again}"
        );
        let first = words(&clean(), "cancelling");
        assert!(
            first.ends_with(
                "; it is being cancelled: say that it was not done once ApiPay shows it as cancelled"
            ),
            "{first}"
        );
        let pending = words(&denied, "pending");
        assert!(pending.ends_with("(status pending)"), "{pending}");
    }

    #[test]
    fn a_person_decides_about_the_one_own_invoice_that_lives_or_was_held_against() {
        let kind = create();
        let history = History {
            invoice_id: Some(9),
            ..clean()
        };
        let subject = Subject {
            operation: kind.operation,
            plan: &kind.plan,
            name: NAME,
            history: &history,
            protection: DuplicateProtection::Key,
            baseline: None,
        };
        let invoice = |id: i64, status: &str, comment: Option<String>| {
            let object =
                json!({"id": id, "status": status, "amount": "5.00", "internal_comment": comment});
            Invoice::read(&object).expect("an invoice")
        };
        let own = |id, status| invoice(id, status, Some(NAME.mark()));
        let mismatch = Next::Held(Reason::Mismatch);
        let one = |invoices: Vec<Invoice>, next: &Next| {
            to_decide(&subject, &[&Finding::listed(invoices)], next)
        };
        for (status, standing) in [
            ("pending", Standing::Open),
            ("cancelling", Standing::BeingTakenBack),
            ("paid", Standing::Paid),
        ] {
            let seen = vec![
                own(1, status),
                own(3, "cancelled"),
                invoice(4, "pending", None),
            ];
            assert_eq!(one(seen, &mismatch), Some((1, standing)));
        }
        let dead = || vec![own(1, "error"), own(3, "cancelled")];
        assert_eq!(one(dead(), &mismatch), Some((3, Standing::Dead)));
        assert_eq!(one(dead(), &Next::Held(Reason::NotAsStated)), None);
        assert_eq!(
            one(vec![own(1, "pending"), own(2, "paid")], &mismatch),
            None
        );
        let named = Finding::read(invoice(9, "processing", None));
        let seen = to_decide(&subject, &[&named, &named], &mismatch);
        assert_eq!(seen, Some((9, Standing::Open)));
        assert_eq!(
            to_decide(&subject, &[&refunds(&json!([]))], &mismatch),
            None
        );
    }
}
