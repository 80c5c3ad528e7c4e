//! What somebody said of a job in `apipay.resolve`, against what the gateway has.

use crate::domain::job::{JobName, Stated};
use crate::domain::mirror::RefundList;
use crate::domain::operation::{Progress, Resend, Seen};
use crate::policy::found::{described, order_of, wanted};
use crate::policy::judge::{Circumstances, conclude};
use crate::policy::reconcile::{
    Finding, Subject, agrees, is_missing, is_of_another_order, look_again,
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

/// Decides about a job that somebody resolved as applied, once the gateway was asked for the object.
///
/// It is adopted if it exists, belongs to no other job, and shows nothing that contradicts what was asked;
/// what differs is taken all the same if that was said. A cancel must have been done, or be under way.
/// While the gateway gives no clear answer it is asked again, for as long as that takes.
pub fn check_stated(
    subject: &Subject<'_>,
    stated: &Stated,
    finding: &Finding,
    at: Circumstances<'_>,
) -> Checked {
    let (object, found) = match finding {
        Finding::Unclear(timed) if is_missing(timed) => (object_of(subject), None),
        Finding::Unclear(timed) => {
            return Checked {
                verdict: look_again(subject.history, timed, at),
                refuted: None,
            };
        }
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
    let said = format!("{object} {} was named", stated.id);
    let against = match (&found, own_instead(subject, stated, finding)) {
        (_, Some(own)) => Some(format!("refund {own} carries this job's name")),
        (None, None) => Some(missing(finding)),
        (Some(seen), None) => contradiction(subject, stated, seen),
    };
    match (against, found) {
        (None, Some(seen)) => {
            let progress = subject.operation.progress(&seen);
            let verdict = Verdict {
                effect: Effect::Applied,
                next: conclude(seen, progress),
                counts: false,
                strain: None,
            };
            Checked {
                verdict,
                refuted: None,
            }
        }
        (against, _) => Checked {
            verdict: Verdict {
                effect: Effect::Unknown,
                next: Next::Held(Reason::NotAsStated),
                counts: false,
                strain: None,
            },
            refuted: Some(format!("{said}; {}", against.unwrap_or_default())),
        },
    }
}

/// Another refund in the same list that carries this job's own name: it speaks first, whatever was said.
fn own_instead(subject: &Subject<'_>, stated: &Stated, finding: &Finding) -> Option<i64> {
    let Finding::Refunds(list) = finding else {
        return None;
    };
    let mut others = list.refunds.iter().filter(|refund| refund.id != stated.id);
    let own = others.find(|refund| subject.name.names_refund(refund));
    own.map(|refund| refund.id)
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
        return Some(format!(
            "ApiPay has {}, without this job's name",
            described(seen)
        ));
    }
    let is_anothers_order =
        matches!(seen, Seen::Invoice(invoice) if is_of_another_order(subject, invoice));
    let agrees = agrees(expected, seen) && !is_anothers_order;
    (!agrees && !stated.anyway).then(|| {
        let order = is_anothers_order.then_some(seen);
        format!(
            "{} was asked for, and ApiPay has {}{}",
            wanted(expected, order),
            described(seen),
            order.map_or_else(String::new, order_of)
        )
    })
}

/// Whether the object carries a mark of ours that is another job's. An earlier generation is the job's own.
fn is_marked_for_another(name: JobName, seen: &Seen) -> bool {
    let text = match seen {
        Seen::Invoice(invoice) => &invoice.internal_comment,
        Seen::Refund(refund) => &refund.reason,
    };
    let mut names = JobName::named_in(text.as_deref().unwrap_or_default()).peekable();
    names.peek().is_some() && !names.any(|other| other.token == name.token)
}

#[cfg(test)]
mod tests;
