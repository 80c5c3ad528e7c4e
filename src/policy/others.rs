//! Invoices that a bill may have beside the one that it goes by.
//!
//! A request that got no clear answer may have made an invoice that dies before any list shows it. The gateway releases its
//! key then (API, section 3.1), so the same key, sent again, makes another one. The first may rise all the same (section
//! 5.1), and be paid as well. No look-up has shown it, so it is searched for once it must be listed.

use std::time::Duration;

use crate::domain::job::{History, JobName};
use crate::domain::object::Object;
use crate::domain::operation::{Plan, Resend};
use crate::policy::finding::Finding;
use crate::policy::judge::Circumstances;
use crate::policy::reconcile::until_listed;

/// Whether a bill whose request has just been answered with an invoice may have another one, by what happened before that
/// request.
pub fn after_send(plan: &Plan, history: &History) -> bool {
    plan.resend == Resend::ByProtection && history.unproven_since.is_some()
}

/// Whether a bill for which a look-up has just brought an invoice may have another one: what a repeated request made, or one
/// before it. A search shows all of them, once they must be listed; what is read by its number shows itself only. One that
/// does not carry the job's `name` is taken only after such a search.
pub fn after_look_up(
    plan: &Plan,
    name: JobName,
    history: &History,
    finding: &Finding,
    at: Circumstances<'_>,
) -> bool {
    let may_hide_another = match finding {
        Finding::Read(seen) => name.owns(seen),
        Finding::Listed(_) => until_listed(history, at).is_some(),
        Finding::Unclear(_) => false,
    };
    plan.resend == Resend::ByProtection && history.is_repeated && may_hide_another
}

/// Whether all that was sent before an invoice was mirrored must be listed by now.
pub fn are_listed(mirrored_for: Duration, settle: Duration) -> bool {
    mirrored_for >= settle
}

/// What a search by a job's name shows beside this invoice of it that was made no later, as the generations say, and is not
/// `known` to be the job's. `None` where the search does not show the invoice itself: then it may not show the others either.
pub fn unknown<'a>(
    job: JobName,
    invoice: i64,
    known: &[i64],
    listed: &'a [Object],
) -> Option<Vec<&'a Object>> {
    let own = listed.iter().find(|object| object.id() == invoice)?;
    let last = generation_of(job, own)?;
    let is_unknown = |other: &&Object| {
        let is_no_later = generation_of(job, other).is_some_and(|generation| generation <= last);
        is_no_later && other.id() != invoice && !known.contains(&other.id())
    };
    Some(listed.iter().filter(is_unknown).collect())
}

/// What a search by a job's name shows of the job's own that is not `known` to be.
pub fn unrecorded<'a>(
    job: JobName,
    known: &'a [i64],
    listed: &'a [Object],
) -> impl Iterator<Item = &'a Object> {
    listed
        .iter()
        .filter(move |object| job.owns(object) && !known.contains(&object.id()))
}

/// The generation in the name of this job that an object carries, if it does.
fn generation_of(job: JobName, object: &Object) -> Option<i16> {
    if !job.owns(object) {
        return None;
    }
    let marks = JobName::named_in(object.marked_text().unwrap_or_default());
    let in_order_id = object.order_id().and_then(JobName::parse);
    let mut names = marks.chain(in_order_id);
    let own = names.find(|name| name.token == job.token)?;
    Some(own.generation)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use super::*;
    use crate::domain::object::Invoice;
    use crate::policy::fixtures::*;

    #[test]
    fn only_an_earlier_request_without_a_clear_answer_may_have_made_another() {
        let bill = create();
        let unproven = History {
            unproven_since: Some(datetime!(2026-11-01 12:00 UTC)),
            ..clean()
        };
        assert!(after_send(&bill.plan, &unproven));
        assert!(!after_send(&bill.plan, &clean()));
        assert!(!after_send(&refund().plan, &unproven));

        let sent_at = datetime!(2026-11-01 12:00 UTC);
        let repeated = History {
            is_repeated: true,
            sent_at: Some(sent_at),
            ..unproven.clone()
        };
        let rules = rules();
        let at = |passed| Circumstances {
            now: sent_at + passed,
            ..crate::policy::fixtures::at(&rules)
        };
        let row = json!({"id": 7, "status": "pending", "internal_comment": NAME.mark()});
        let invoice = Invoice::read(&row).expect("an invoice");
        let read = Finding::read(invoice.clone());
        let by_hand = json!({"id": 8, "status": "pending"});
        let by_hand = Finding::read(Invoice::read(&by_hand).expect("an invoice"));
        let settled = at(rules.settle);
        assert!(after_look_up(&bill.plan, NAME, &repeated, &read, settled));
        assert!(!after_look_up(&bill.plan, NAME, &unproven, &read, settled));
        assert!(!after_look_up(
            &bill.plan, NAME, &repeated, &by_hand, settled
        ));
        let listed = Finding::listed([invoice]);
        assert!(!after_look_up(
            &bill.plan, NAME, &repeated, &listed, settled
        ));
        // Until then the list may show one of them and not the other.
        let earlier = at(rules.settle / 2);
        assert!(after_look_up(&bill.plan, NAME, &repeated, &listed, earlier));
        assert!(!after_look_up(
            &bill.plan, NAME, &unproven, &listed, earlier
        ));
    }

    #[test]
    fn what_is_not_known_and_was_made_no_later_is_another() {
        let marked = |id: i64, generation| {
            let mark = JobName { generation, ..NAME }.mark();
            let row = json!({"id": id, "status": "error", "internal_comment": mark});
            Object::from(Invoice::read(&row).expect("an invoice"))
        };
        let stranger = Invoice::read(&json!({"id": 5, "status": "paid"})).expect("an invoice");
        let list = [
            marked(1, 1),
            marked(2, 2),
            marked(3, 2),
            marked(4, 3),
            stranger.into(),
        ];
        let ids = |invoice, known: &[i64]| {
            let found = unknown(NAME, invoice, known, &list)?;
            Some(found.iter().map(|object| object.id()).collect::<Vec<_>>())
        };
        assert_eq!(ids(3, &[3]), Some(vec![1, 2]));
        assert_eq!(ids(3, &[3, 1]), Some(vec![2]));
        assert_eq!(ids(1, &[1]), Some(vec![]));
        // Without it in the list the others may be missing as well.
        assert_eq!(ids(6, &[]), None);
        assert_eq!(ids(5, &[]), None);
    }
}
