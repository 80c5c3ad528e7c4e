//! What is said and what is found, for every operation.

use rust_decimal::Decimal;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::domain::account::DuplicateProtection;
use crate::domain::answer::{Answer, Lost};
use crate::domain::job::{History, JobName};
use crate::domain::object::{Invoice, Refund};
use crate::domain::state::State;
use crate::policy::fixtures::*;

const SAID: Stated = Stated {
    id: 15,
    anyway: false,
    owner: None,
};

const ANYWAY: Stated = Stated {
    anyway: true,
    ..SAID
};

const HELD: &str = "unknown held not_as_stated free";

/// A long time ago, with a look-up that found nothing: what is said counts all the same.
fn history() -> History {
    History {
        attempts: 9,
        unproven_since: Some(NOW - seconds(90 * 3600)),
        absent_since: Some(NOW - seconds(80 * 3600)),
        lookups: 1,
        ..clean()
    }
}

/// The words of what is not believed, which name `anyway` where that is what takes the object, and nowhere else.
fn words(refuted: Option<Refuted>) -> Option<String> {
    let Refuted {
        words,
        is_taken_anyway,
    } = refuted?;
    assert_eq!(is_taken_anyway, words.contains("anyway => true"), "{words}");
    Some(words)
}

#[track_caller]
fn check(kind: &Kind, stated: Stated, finding: &Finding, expected: &str, refuted: Option<&str>) {
    let rules = rules();
    let subject = Subject {
        operation: kind.operation,
        plan: &kind.plan,
        name: NAME,
        history: &history(),
        protection: DuplicateProtection::Key,
        baseline: None,
    };
    let own = needs_own(&subject, &stated, finding).then(|| Finding::Listed(Vec::new()));
    let checked = check_stated(&subject, &stated, finding, own.as_ref(), at(&rules));
    let case = format!("{stated:?} {finding:?}");
    assert_eq!(show(&checked.verdict), expected, "{case}");
    let becomes = checked.verdict.next.state();
    assert!(State::Uncertain.may_become(becomes), "{becomes}: {case}");
    assert_eq!(words(checked.refuted).as_deref(), refuted, "{case}");
}

fn invoice(changes: serde_json::Value) -> Finding {
    let mut shown = json!({
        "id": 15, "status": "pending", "amount": "5000.00", "phone_number": "87001234567",
    });
    for (field, value) in changes.as_object().expect("changes are an object") {
        shown[field] = value.clone();
    }
    Finding::read(Invoice::read(&shown).expect("an invoice"))
}

fn refunds(found: &[Refund]) -> Finding {
    Finding::listed(found.to_vec())
}

fn unclear(answer: Answer) -> Finding {
    Finding::Unclear(timed(answer))
}

#[test]
fn an_invoice_that_agrees_is_taken_and_followed() {
    for (status, expected) in [
        ("pending", "applied succeeded invoice 15 pending free"),
        ("paid", "applied succeeded invoice 15 paid free"),
        ("expired", "applied succeeded invoice 15 expired free"),
        (
            "processing",
            "applied accepted under_way invoice 15 processing free",
        ),
    ] {
        let found = invoice(json!({"status": status}));
        check(&create(), SAID, &found, expected, None);
    }
    // A dead one is followed by a new one, so it must be ours, or meant.
    let taken = "applied accepted under_way invoice 15 error free";
    let dead = invoice(json!({"status": "error"}));
    let said = "invoice 15 was named; ApiPay has 5000 tenge to 8700***4567 (status error), without this job's name; the same with anyway => true takes it, although it differs";
    check(&create(), SAID, &dead, HELD, Some(said));
    check(&create(), ANYWAY, &dead, taken, None);
    let ours = invoice(json!({"status": "error", "internal_comment": NAME.mark()}));
    check(&create(), SAID, &ours, taken, None);
    // Made by hand, or by the job itself, in this generation or one before.
    for marks in [
        json!({"internal_comment": "by Aida, at the till", "is_imported": true}),
        json!({"internal_comment": NAME.mark(), "external_order_id": NAME.to_string()}),
        json!({"internal_comment": JobName { generation: 3, ..NAME }.mark()}),
    ] {
        let taken = "applied succeeded invoice 15 pending free";
        check(&create(), SAID, &invoice(marks), taken, None);
    }
}

#[test]
fn what_differs_is_held_again_with_both_values_unless_it_is_meant() {
    for (changes, refuted) in [
        (
            json!({"amount": "5001.00"}),
            "invoice 15 was named; 5000 tenge to 8700***4567 was asked for, and ApiPay has 5001 tenge to 8700***4567 (status pending); the same with anyway => true takes it, although it differs",
        ),
        (
            json!({"phone_number": "87009999999", "status": "paid"}),
            "invoice 15 was named; 5000 tenge to 8700***4567 was asked for, and ApiPay has 5000 tenge to 8700***9999 (status paid); the same with anyway => true takes it, although it differs",
        ),
        (
            json!({"external_order_id": "order-9"}),
            "invoice 15 was named; 5000 tenge to 8700***4567 for order 00000000-0000-0000-0000-000000000007 was asked for, \
             and ApiPay has 5000 tenge to 8700***4567 (status pending) for order order-9; the same with anyway => true takes it, although it differs",
        ),
    ] {
        let found = invoice(changes);
        check(&create(), SAID, &found, HELD, Some(refuted));
        let status = if refuted.contains("paid") {
            "paid"
        } else {
            "pending"
        };
        let taken = format!("applied succeeded invoice 15 {status} free");
        check(&create(), ANYWAY, &found, &taken, None);
    }
}

#[test]
fn what_does_not_exist_or_is_another_jobs_is_never_taken() {
    let another = JobName {
        token: Uuid::from_u128(8),
        generation: 1,
    };
    for stated in [SAID, ANYWAY] {
        let missing = unclear(coded(404, "not_found"));
        let said = "invoice 15 was named; ApiPay has none with that number";
        check(&create(), stated, &missing, HELD, Some(said));
        check(&cancel(), stated, &missing, HELD, Some(said));
        let marked = invoice(json!({"internal_comment": another.mark()}));
        let said = "invoice 15 was named; at ApiPay it carries the name of another job";
        check(&create(), stated, &marked, HELD, Some(said));
        let owned = Stated {
            owner: Some(7),
            ..stated
        };
        let said = "invoice 15 was named; it belongs to job 7";
        check(&create(), owned, &invoice(json!({})), HELD, Some(said));

        let none = "refund 15 was named; ApiPay has no refund of that invoice";
        check(&refund(), stated, &refunds(&[]), HELD, Some(none));
        let others = [16, 17].map(|id| refund_row(id, "completed", None));
        let only = "refund 15 was named; ApiPay has only refund 16, 17 of that invoice";
        check(&refund(), stated, &refunds(&others), HELD, Some(only));
        let marked = [refund_row(15, "completed", Some(&another.mark()))];
        let said = "refund 15 was named; at ApiPay it carries the name of another job";
        check(&refund(), stated, &refunds(&marked), HELD, Some(said));
    }
}

#[test]
fn a_refund_is_found_among_those_of_its_invoice() {
    let found = [
        refund_row(14, "completed", None),
        refund_row(15, "processing", Some("by the cashier")),
    ];
    let taken = "applied accepted under_way refund 15 processing free";
    check(&refund(), SAID, &refunds(&found), taken, None);
    let mut other = refund_row(15, "completed", None);
    other.amount = Some(rust_decimal::Decimal::from(9));
    let said = "refund 15 was named; 1000.5 tenge was asked for, and ApiPay has 9 tenge (status completed); the same with anyway => true takes it, although it differs";
    check(
        &refund(),
        SAID,
        &refunds(&[other.clone()]),
        HELD,
        Some(said),
    );
    let taken = "applied succeeded refund 15 completed free";
    check(&refund(), ANYWAY, &refunds(&[other]), taken, None);
    // One that carries the job's own name speaks first, whatever is meant.
    let own = refund_row(16, "completed", Some(&NAME.mark()));
    let found = refunds(&[refund_row(15, "completed", None), own]);
    let said = "refund 15 was named; refund 16 carries this job's name";
    check(&refund(), SAID, &found, HELD, Some(said));
    check(&refund(), ANYWAY, &found, HELD, Some(said));
}

/// What becomes of invoice 15, which is a stranger's and agrees, when a search by the job's name shows this.
fn beside(history: &History, stated: Stated, own: &Finding) -> (String, Option<String>) {
    let rules = rules();
    let kind = create();
    let subject = Subject {
        operation: kind.operation,
        plan: &kind.plan,
        name: NAME,
        history,
        protection: DuplicateProtection::Key,
        baseline: None,
    };
    let named = invoice(json!({}));
    assert!(needs_own(&subject, &stated, &named));
    let checked = check_stated(&subject, &stated, &named, Some(own), at(&rules));
    (show(&checked.verdict), words(checked.refuted))
}

fn own(id: i64, status: &str, generation: i16) -> Invoice {
    Invoice {
        id,
        internal_comment: Some(JobName { generation, ..NAME }.mark()),
        external_order_id: None,
        ..own_invoice(status)
    }
}

#[test]
fn no_strangers_invoice_is_taken_beside_one_of_the_jobs_own_that_lives() {
    let or_cancel = ", or cancel it with apipay.cancel_invoice and name invoice 15 again once ApiPay shows the other one as \
                     cancelled";
    for stated in [SAID, ANYWAY] {
        for (status, then) in [
            ("processing", or_cancel),
            ("pending", or_cancel),
            (
                "cancelling",
                ", or name invoice 15 again once ApiPay shows the other one as cancelled, for it is being cancelled",
            ),
            ("odd", or_cancel),
            ("paid", ""),
            ("partially_refunded", ""),
        ] {
            // Of an earlier generation as well: one that had failed may live again.
            for generation in [1, 2] {
                let found = Finding::listed(vec![own(16, status, generation)]);
                let said = format!(
                    "invoice 15 was named; invoice 16 carries this job's name, and ApiPay has it as 5000 tenge to \
                     8700***4567 (status {status}): name that one{then}"
                );
                let held = (HELD.to_owned(), Some(said));
                assert_eq!(beside(&history(), stated, &found), held);
                // There is nothing to wait for.
                assert_eq!(beside(&unproven(), stated, &found), held);
            }
        }
        let both = Finding::listed(vec![own(16, "pending", 1), own(17, "paid", 2)]);
        let said = "invoice 15 was named; invoice 16 and invoice 17 carry this job's name: cancel all of them but \
                    one with apipay.cancel_invoice, and name that one";
        assert_eq!(
            beside(&history(), stated, &both),
            (HELD.to_owned(), Some(said.to_owned()))
        );
    }
}

#[test]
fn a_strangers_invoice_is_taken_once_none_of_the_jobs_own_can_live() {
    let taken = ("applied succeeded invoice 15 pending free".to_owned(), None);
    let another = JobName {
        token: Uuid::from_u128(8),
        generation: 1,
    };
    let strangers = Invoice {
        internal_comment: Some(another.mark()),
        ..own(18, "pending", 1)
    };
    let imported = Invoice {
        is_imported: true,
        ..own(19, "pending", 1)
    };
    for found in [
        vec![],
        vec![
            own(16, "cancelled", 1),
            own(17, "expired", 2),
            own(20, "error", 1),
        ],
        vec![strangers, imported],
    ] {
        let found = Finding::listed(found);
        assert_eq!(beside(&history(), SAID, &found), taken);
        // Its request may be in no list yet.
        let waits = (
            "unknown uncertain lookup_absent in 900s absent free".to_owned(),
            None,
        );
        assert_eq!(beside(&unproven(), SAID, &found), waits);
    }
    let unclear = unclear(coded(500, "server_error"));
    let again = (
        "unknown uncertain lookup_unclear in 5s free".to_owned(),
        None,
    );
    assert_eq!(beside(&history(), SAID, &unclear), again);
}

#[test]
fn the_jobs_own_is_looked_for_where_a_stranger_would_be_taken_or_a_dead_one_was_named() {
    let history = unproven();
    let needs = |kind: &Kind, stated: Stated, finding: &Finding| {
        let subject = Subject {
            operation: kind.operation,
            plan: &kind.plan,
            name: NAME,
            history: &history,
            protection: DuplicateProtection::Key,
            baseline: None,
        };
        needs_own(&subject, &stated, finding)
    };
    assert!(needs(&create(), SAID, &invoice(json!({}))));
    let earlier = json!({"internal_comment": JobName { generation: 3, ..NAME }.mark()});
    assert!(needs(&create(), SAID, &invoice(earlier)));
    let differs = invoice(json!({"amount": "1.00"}));
    assert!(!needs(&create(), SAID, &differs));
    assert!(needs(&create(), ANYWAY, &differs));
    let named = json!({"internal_comment": NAME.mark()});
    assert!(!needs(&create(), SAID, &invoice(named)));
    assert!(!needs(&create(), SAID, &unclear(coded(404, "not_found"))));
    let gone = invoice(json!({"status": "cancelled"}));
    assert!(!needs(&cancel(), SAID, &gone));
    // A dead one is hardly meant when another lives.
    let dead =
        json!({"status": "error", "internal_comment": JobName { generation: 3, ..NAME }.mark()});
    assert!(needs(&create(), SAID, &invoice(dead)));
}

#[test]
fn who_names_a_dead_invoice_is_told_which_one_of_the_job_lives() {
    let rules = rules();
    let kind = create();
    let history = history();
    let subject = Subject {
        operation: kind.operation,
        plan: &kind.plan,
        name: NAME,
        history: &history,
        protection: DuplicateProtection::Key,
        baseline: None,
    };
    let earlier = JobName {
        generation: 3,
        ..NAME
    }
    .mark();
    let dead = invoice(json!({"status": "error", "internal_comment": earlier}));
    let refuted = |found: Vec<Invoice>| {
        let own = Finding::listed(found);
        let checked = check_stated(&subject, &SAID, &dead, Some(&own), at(&rules));
        assert_eq!(show(&checked.verdict), HELD);
        words(checked.refuted).unwrap()
    };
    let said = refuted(vec![own(16, "pending", 2)]);
    assert!(
        said.contains("invoice 16 carries this job's name"),
        "{said}"
    );
    let said = refuted(Vec::new());
    assert!(
        said.ends_with(
            "(status error), of an earlier try of this job; the same with anyway => true takes it, although it differs"
        ),
        "{said}"
    );
}

#[test]
fn a_refund_without_the_jobs_name_is_taken_once_none_of_its_own_can_come_to_light() {
    let rules = rules();
    let kind = refund();
    let decide = |history: &History, found: &[Refund]| {
        let subject = Subject {
            operation: kind.operation,
            plan: &kind.plan,
            name: NAME,
            history,
            protection: DuplicateProtection::Key,
            baseline: None,
        };
        let checked = check_stated(&subject, &SAID, &refunds(found), None, at(&rules));
        (show(&checked.verdict), words(checked.refuted))
    };
    let mark = |generation| Some(JobName { generation, ..NAME }.mark());
    let stranger = refund_row(15, "completed", None);
    let taken = (
        "applied succeeded refund 15 completed free".to_owned(),
        None,
    );
    let waits = (
        "unknown uncertain lookup_absent in 900s absent free".to_owned(),
        None,
    );
    for other in [
        refund_row(16, "completed", Some("by the cashier")),
        refund_row(16, "failed", mark(1).as_deref()),
        refund_row(16, "failed", mark(2).as_deref()),
    ] {
        let found = [stranger.clone(), other];
        assert_eq!(decide(&history(), &found), taken);
        assert_eq!(decide(&unproven(), &found), waits);
    }
    let found = [stranger, refund_row(16, "pending", mark(2).as_deref())];
    let said = "refund 15 was named; refund 16 carries this job's name".to_owned();
    assert_eq!(decide(&history(), &found), (HELD.to_owned(), Some(said)));
    // Its own are two, and none can be taken back: a person says which counts.
    let twice = [
        refund_row(15, "completed", mark(1).as_deref()),
        refund_row(16, "completed", mark(1).as_deref()),
    ];
    assert_eq!(decide(&unproven(), &twice), taken);
}

#[test]
fn a_cancel_must_have_been_done_or_be_under_way() {
    // What a cancel acts on carries the name of the job that billed it, if it was billed from here.
    let bill = JobName {
        token: Uuid::from_u128(9),
        generation: 1,
    };
    let billed_here = bill.mark();
    let comments = [None, Some(billed_here.as_str())];
    for (status, expected) in [
        ("cancelled", "applied succeeded invoice 15 cancelled free"),
        ("expired", "applied succeeded invoice 15 expired free"),
        (
            "cancelling",
            "applied accepted under_way invoice 15 cancelling free",
        ),
    ] {
        for comment in comments {
            let found = invoice(json!({"status": status, "internal_comment": comment}));
            check(&cancel(), SAID, &found, expected, None);
        }
    }
    for status in [
        "pending",
        "processing",
        "paid",
        "partially_refunded",
        "error",
    ] {
        let said =
            format!("invoice 15 was named; ApiPay has 5000 tenge to 8700***4567 (status {status})");
        for (stated, comment) in [SAID, ANYWAY].into_iter().zip(comments) {
            let found = invoice(json!({"status": status, "internal_comment": comment}));
            check(&cancel(), stated, &found, HELD, Some(&said));
        }
    }
}

#[test]
fn no_clear_answer_is_asked_for_again_however_long_that_takes() {
    for kind in kinds() {
        for answer in [
            Answer::Lost(Lost::Timeout),
            coded(500, "server_error"),
            json_reply(200, json!({"nothing": "of it"})),
        ] {
            let again = "unknown uncertain lookup_unclear in 5s free";
            check(&kind, SAID, &unclear(answer), again, None);
        }
        let parks = "unknown uncertain lookup_unclear in 5s free; park session_expired";
        check(
            &kind,
            SAID,
            &unclear(coded(503, "kaspi_session_invalid")),
            parks,
            None,
        );
    }
}

/// What becomes of a job that is to end because nothing was done, after these were found.
fn ended(kind: &Kind, history: &History, found: &[Finding]) -> (Verdict, Option<String>) {
    let rules = rules();
    let subject = Subject {
        operation: kind.operation,
        plan: &kind.plan,
        name: NAME,
        history,
        protection: DuplicateProtection::Key,
        baseline: None,
    };
    let found: Vec<&Finding> = found.iter().collect();
    let checked = call_off(&subject, &found, at(&rules));
    (checked.verdict, words(checked.refuted))
}

/// A long time ago it was sent, and a person says now that nothing was done.
fn denied() -> History {
    History {
        denied_since: Some(NOW - seconds(60)),
        ..history()
    }
}

/// What was sent a moment ago may not be shown yet, whatever a person says.
#[test]
fn a_job_that_is_to_end_waits_until_what_was_sent_would_be_shown() {
    for (kind, nothing) in [
        (create(), Finding::Listed(Vec::new())),
        (refund(), refund_list(Vec::new())),
    ] {
        for (sent, unproven, expected) in [
            (Some(60), 90 * 3600, Some(840)),
            (None, 60, Some(840)),
            (Some(899), 899, Some(1)),
            (Some(900), 900, None),
            (None, 900, None),
        ] {
            let history = History {
                sent_at: sent.map(|ago| NOW - seconds(ago)),
                unproven_since: Some(NOW - seconds(unproven)),
                ..denied()
            };
            let (verdict, _) = ended(&kind, &history, std::slice::from_ref(&nothing));
            match expected {
                Some(waits) => {
                    let Next::Uncertain { after, .. } = verdict.next else {
                        panic!("{verdict:?}");
                    };
                    assert_eq!(after, seconds(waits));
                }
                None => assert_eq!(verdict.next, called_off(true)),
            }
        }
    }
}

fn called_off(is_seen: bool) -> Next {
    Next::CalledOff {
        dead: None,
        is_seen,
    }
}

fn refund_list(refunds: Vec<Refund>) -> Finding {
    Finding::listed(refunds)
}

#[test]
fn a_job_that_is_to_end_does_so_when_nothing_of_it_lives() {
    let ends = |kind: &Kind, found: &[Finding]| {
        let (verdict, refuted) = ended(kind, &denied(), found);
        assert_eq!(
            (verdict.effect, refuted),
            (Effect::NotApplied, None),
            "{found:?}"
        );
        let Next::CalledOff {
            dead,
            is_seen: true,
        } = verdict.next
        else {
            panic!("{verdict:?}");
        };
        dead.map(|seen| seen.id())
    };
    assert_eq!(ends(&create(), &[Finding::Listed(Vec::new())]), None);
    // Another's, whatever it shows, and what is dead; that one is watched.
    let stranger = Invoice {
        external_order_id: None,
        internal_comment: Some("by hand".into()),
        ..own_invoice("pending")
    };
    assert_eq!(ends(&create(), &[Finding::listed(vec![stranger])]), None);
    let dead = own_invoice("error");
    assert_eq!(ends(&create(), &[Finding::listed(vec![dead])]), Some(15));
    // A search that is not there shows nothing of a bill.
    let (verdict, _) = ended(&create(), &denied(), &[unclear(coded(404, "not_found"))]);
    assert!(
        matches!(verdict.next, Next::Uncertain { .. }),
        "{verdict:?}"
    );
    // The invoice of a refund does not exist.
    assert_eq!(ends(&refund(), &[unclear(coded(404, "not_found"))]), None);
    let failed = refund_row(7, "failed", Some(&NAME.mark()));
    let stranger = refund_row(8, "completed", None);
    assert_eq!(
        ends(&refund(), &[refund_list(vec![failed, stranger])]),
        Some(7)
    );
}

#[test]
fn a_job_that_is_to_end_is_held_with_both_facts_while_anything_of_it_lives() {
    let held = |kind: &Kind, history: &History, found: &[Finding]| {
        let (verdict, refuted) = ended(kind, history, found);
        assert_eq!(show(&verdict), HELD, "{found:?}");
        refuted.expect("both facts")
    };
    let bill = |seen: Invoice| held(&create(), &denied(), &[Finding::listed(vec![seen])]);
    let words = bill(own_invoice("pending"));
    assert!(
        words.starts_with(
            "it was said that nothing was made and that the job is to end; ApiPay has invoice 15: "
        ) && words.ends_with(
            ": name it, or cancel it with apipay.cancel_invoice and say the same again once ApiPay shows it as cancelled"
        ),
        "{words}"
    );
    let cancelling = bill(own_invoice("cancelling"));
    assert!(
        cancelling.ends_with(
            ": name it, or say the same again once ApiPay shows it as cancelled, for it is being cancelled"
        ),
        "{cancelling}"
    );
    let paid = bill(own_invoice("paid"));
    assert!(paid.ends_with(": name it"), "{paid}");
    // Named as it is, it would be held once more for what differs.
    let differs = bill(Invoice {
        amount: Some(Decimal::ONE),
        ..own_invoice("paid")
    });
    assert!(
        differs
            .ends_with(": name it with anyway => true, since it differs from what was asked for"),
        "{differs}"
    );
    // Of another amount, or of an earlier generation, it can be paid all the same.
    let earlier = JobName {
        generation: 3,
        ..NAME
    };
    bill(Invoice {
        amount: None,
        external_order_id: None,
        internal_comment: Some(earlier.mark()),
        ..own_invoice("pending")
    });
    // What answered to the key, though nothing in it says whose it is, and the list shows nothing.
    let by_key = History {
        invoice_id: Some(15),
        ..denied()
    };
    let nothing = Finding::Listed(Vec::new());
    held(&create(), &by_key, &[nothing.clone(), invoice(json!({}))]);
    let differs = [nothing, invoice(json!({"amount": "1.00"}))];
    let (verdict, _) = ended(&create(), &by_key, &differs);
    assert_eq!(verdict.next, called_off(true), "another's");
    let made = refund_row(7, "completed", Some(&NAME.mark()));
    held(&refund(), &denied(), &[refund_list(vec![made])]);
}

#[test]
fn a_job_that_is_to_end_is_looked_up_again_until_the_answer_is_clear() {
    let unclear = [unclear(coded(500, "server_error"))];
    let recent = History {
        unproven_since: Some(NOW - seconds(60)),
        ..history()
    };
    let (verdict, refuted) = ended(&create(), &recent, &unclear);
    assert!(
        matches!(verdict.next, Next::Uncertain { .. }),
        "{verdict:?}"
    );
    assert_eq!(refuted, None);
    // However old the request is, look-ups must have been in vain for long since that was said.
    let (verdict, _) = ended(&create(), &history(), &unclear);
    assert!(
        matches!(verdict.next, Next::Uncertain { .. }),
        "{verdict:?}"
    );
    // Nobody else can tell any more.
    let long_ago = History {
        denied_since: Some(NOW - rules().give_up),
        ..history()
    };
    let (verdict, _) = ended(&create(), &long_ago, &unclear);
    assert_eq!(verdict.next, called_off(false));
    // What the look-up that failed has seen is nothing.
    assert_eq!(verdict.effect, Effect::Unknown);
}

/// Where several requests were made, the evidence is of the one that decided.
#[test]
fn the_request_that_decided_is_told() {
    let rules = rules();
    let history = History {
        invoice_id: Some(15),
        ..unproven()
    };
    let kind = create();
    let subject = Subject {
        operation: kind.operation,
        plan: &kind.plan,
        name: NAME,
        history: &history,
        protection: DuplicateProtection::Lookup,
        baseline: None,
    };
    let nothing = Finding::Listed(Vec::new());
    let failed = unclear(coded(502, "server_error"));
    let lives = Finding::read(own_invoice("pending"));
    let decided_by = |first: &Finding, second: &Finding| {
        call_off(&subject, &[first, second], at(&rules)).decided_by
    };
    assert_eq!(decided_by(&nothing, &nothing), 0);
    assert_eq!(decided_by(&failed, &nothing), 0);
    assert_eq!(decided_by(&nothing, &failed), 1);
    assert_eq!(decided_by(&failed, &lives), 1);
    assert_eq!(decided_by(&lives, &failed), 0);

    let unnamed = invoice(json!({}));
    let decided_by =
        |own: Option<&Finding>| check_stated(&subject, &SAID, &unnamed, own, at(&rules)).decided_by;
    let another = Finding::listed(vec![Invoice {
        id: 16,
        ..own_invoice("pending")
    }]);
    assert_eq!(decided_by(None), 0);
    assert_eq!(decided_by(Some(&failed)), 1);
    assert_eq!(decided_by(Some(&another)), 1);
    assert_eq!(
        decided_by(Some(&nothing)),
        1,
        "what it does not show is waited for"
    );
}

/// A refund is read from a list, which may show it late.
#[test]
fn a_refund_that_is_named_before_its_list_can_show_it_is_looked_for_again() {
    let sent = |ago| History {
        sent_at: Some(NOW - seconds(ago)),
        ..history()
    };
    let nothing = refund_list(Vec::new());
    let rules = rules();
    let decide = |history: &History| {
        let kind = refund();
        let subject = Subject {
            operation: kind.operation,
            plan: &kind.plan,
            name: NAME,
            history,
            protection: DuplicateProtection::Key,
            baseline: None,
        };
        check_stated(&subject, &SAID, &nothing, None, at(&rules))
            .verdict
            .next
    };
    let Next::Uncertain { after, .. } = decide(&sent(60)) else {
        panic!("it is believed that it is not there");
    };
    assert_eq!(after, seconds(840));
    assert_eq!(decide(&sent(900)), Next::Held(Reason::NotAsStated));
}
