//! What a look-up found, in words for people: of an object that is not what was asked for, both sides.

use std::collections::BTreeSet;
use std::fmt::Write;

use rust_decimal::Decimal;

use crate::domain::job::JobName;
use crate::domain::mirror::InvoiceSeen;
use crate::domain::operation::{Expected, Seen};
use crate::policy::finding::{Finding, Subject, is_of_another_order};
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

/// Whether these words are of a job that is held again after somebody said that it was not done.
pub fn says_denied(words: &str) -> bool {
    words.starts_with(DENIED)
}

/// The invoices of a bill, among what was found, that can be cancelled: alive, unpaid, and its own.
pub fn unpaid(subject: &Subject<'_>, findings: &[&Finding]) -> BTreeSet<i64> {
    let can_be_cancelled = |invoice: &&InvoiceSeen| {
        let status = invoice.standing();
        !status.is_paid() && !status.releases_key()
    };
    let ours = own(subject, findings).into_iter();
    let ours = ours.filter(can_be_cancelled);
    ours.map(|invoice| invoice.id).collect()
}

/// The invoices among what was found that are the job's own: by their name, or because the gateway named one for the job's
/// key.
pub fn own<'a>(subject: &Subject<'_>, findings: &[&'a Finding]) -> Vec<&'a InvoiceSeen> {
    let all = findings
        .iter()
        .flat_map(|finding: &&'a Finding| match *finding {
            Finding::Invoices(invoices) => invoices.as_slice(),
            Finding::Invoice(invoice) => std::slice::from_ref(invoice),
            Finding::Refunds(_) | Finding::Unclear(_) => &[],
        });
    let is_own = |invoice: &&InvoiceSeen| {
        subject.history.invoice_id == Some(invoice.id)
            || subject.name.owns(&Seen::Invoice((*invoice).clone()))
    };
    all.filter(is_own).collect()
}

fn of_finding(subject: &Subject<'_>, finding: &Finding, next: &Next) -> Option<String> {
    let ours = match finding {
        Finding::Unclear(_) => return None,
        Finding::Invoice(invoice) => vec![Seen::Invoice(invoice.clone())],
        Finding::Invoices(invoices) => {
            let named = invoices
                .iter()
                .filter(|invoice| subject.name.names_invoice(invoice));
            named.cloned().map(Seen::Invoice).collect()
        }
        Finding::Refunds(list) => {
            let all = list.refunds.iter().cloned().map(Seen::Refund);
            all.filter(|refund| subject.name.owns(refund)).collect()
        }
    };
    match next {
        Next::Succeeded(_) | Next::Accepted { .. } => None,
        Next::Held(Reason::Mismatch) => ours.first().map(|seen| against(subject, seen)),
        Next::Held(Reason::UnknownOutcome) if ours.is_empty() => Some(strangers(subject, finding)),
        _ if ours.is_empty() => Some("the gateway shows nothing with this job's name".to_owned()),
        _ => Some(shown(&ours)),
    }
}

/// What the gateway shows of a job.
pub(super) fn shown(objects: &[Seen]) -> String {
    format!("the gateway shows {}", list(objects))
}

/// An object that is taken for the job's own, and is not what was asked for.
fn against(subject: &Subject<'_>, seen: &Seen) -> String {
    let order = match seen {
        Seen::Invoice(invoice) if is_of_another_order(subject, invoice) => Some(seen),
        Seen::Invoice(_) | Seen::Refund(_) => None,
    };
    format!(
        "{} was asked for, and ApiPay has {}{}",
        wanted(&subject.plan.expected, order),
        numbered(seen),
        order.map_or_else(String::new, order_of)
    )
}

/// Refunds that are new and do not say whose they are.
fn strangers(subject: &Subject<'_>, finding: &Finding) -> String {
    let Finding::Refunds(all) = finding else {
        return "the gateway shows nothing with this job's name".to_owned();
    };
    let is_new = |id: i64| {
        subject
            .baseline
            .is_some_and(|known| !known.refund_ids.contains(&id))
    };
    let new: Vec<Seen> = all
        .refunds
        .iter()
        .filter(|refund| is_new(refund.id))
        .filter(|refund| !refund.reason.as_deref().is_some_and(JobName::is_marked))
        .cloned()
        .map(Seen::Refund)
        .collect();
    format!(
        "{} was asked for, and the gateway shows {}, of which it cannot be told whether that is it",
        wanted(&subject.plan.expected, None),
        list(&new)
    )
}

/// Objects that are told one by one: more than that nobody reads.
const TOLD: usize = 5;

pub(super) fn list(objects: &[Seen]) -> String {
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
fn numbered(seen: &Seen) -> String {
    let what = match seen {
        Seen::Invoice(invoice) => format!("invoice {}", invoice.id),
        Seen::Refund(refund) => format!("refund {}", refund.id),
    };
    format!("{what}: {}", described(seen))
}

/// What was asked for; its order too, if that is what differs.
pub(super) fn wanted(expected: &Expected, order: Option<&Seen>) -> String {
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

pub(super) fn described(seen: &Seen) -> String {
    let (amount, phone, status) = match seen {
        Seen::Invoice(InvoiceSeen {
            amount,
            phone,
            status,
            ..
        }) => (amount, phone.as_ref(), status.as_str()),
        Seen::Refund(refund) => (&refund.amount, None, refund.status.as_str()),
    };
    let mut text = amount.map_or_else(|| "it".to_owned(), tenge);
    if let Some(phone) = phone {
        let _ = write!(text, " to {phone}");
    }
    let _ = write!(text, " (status {status})");
    text
}

pub(super) fn order_of(seen: &Seen) -> String {
    match seen {
        Seen::Invoice(InvoiceSeen {
            external_order_id: Some(id),
            ..
        }) => format!(" for order {id}"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use time::macros::datetime;

    use crate::domain::account::DuplicateProtection;
    use crate::domain::job::History;
    use crate::domain::mirror::RefundList;
    use crate::policy::finding::Baseline;
    use crate::policy::fixtures::*;

    fn refunds(list: &serde_json::Value) -> Finding {
        let read = RefundList::read(&json!({ "refunds": list }), 15);
        Finding::Refunds(read.expect("a list"))
    }

    #[test]
    fn nothing_strangers_and_several_are_told_apart() {
        let kind = refund();
        let history = clean();
        let known = Baseline {
            refund_ids: vec![1],
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
        assert!(says_denied(&held_again) && !says_denied(&several));
    }

    #[test]
    fn only_an_own_invoice_that_lives_and_is_not_paid_can_be_cancelled() {
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
            InvoiceSeen::read(&object).expect("an invoice")
        };
        let own = Some(NAME.mark());
        let found = Finding::Invoices(vec![
            invoice(1, "pending", own.clone()),
            invoice(2, "paid", own.clone()),
            invoice(3, "cancelled", own),
            invoice(4, "pending", None),
        ]);
        let named = Finding::Invoice(invoice(9, "processing", None));
        let ids =
            |findings: &[&Finding]| unpaid(&subject, findings).into_iter().collect::<Vec<_>>();
        assert_eq!(ids(&[&found, &named]), [1, 9]);
        assert_eq!(ids(&[&found, &found]), [1]);
        assert_eq!(ids(&[&refunds(&json!([]))]), Vec::<i64>::new());
    }
}
