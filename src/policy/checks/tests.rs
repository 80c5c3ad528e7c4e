//! When accepted objects are looked at again, and what a look shows.

use super::*;
use crate::domain::object::ObjectKind;
use crate::policy::fixtures::*;

const WATCH: u64 = 72 * 3600;

#[test]
fn of_an_invoice_that_is_shown_twice_and_not_the_same_nothing_is_believed() {
    let row = |id: i64, status: &str| {
        Invoice::read(&serde_json::json!({"id": id, "status": status})).unwrap()
    };
    let shown = by_id(vec![
        row(7, "pending"),
        row(8, "paid"),
        row(7, "paid"),
        row(9, "paid"),
        row(7, "pending"),
        row(9, "paid"),
    ]);
    let mut ids: Vec<i64> = shown.into_keys().collect();
    ids.sort_unstable();
    assert_eq!(ids, [8, 9]);
}

fn after(seconds: f64) -> NextCheck {
    NextCheck::After(Duration::from_secs_f64(seconds))
}

#[test]
fn an_invoice_is_watched_until_nothing_can_change() {
    let rules = rules().follow;
    let check = |status: &str, unchanged_for, crowd| {
        let outlook = Invoice::bare(15, InvoiceStatus::parse(status)).outlook();
        let sighting = Sighting {
            unchanged_for: seconds(unchanged_for),
            crowd,
            ..Sighting::FIRST
        };
        next_check(outlook, sighting, &rules, Jitter::NONE)
    };
    const MINUTES: u64 = 60;
    const HOURS: u64 = 3600;
    for status in "processing pending cancelling odd".split(' ') {
        for (unchanged_for, of_few, of_many) in [
            (0, 5.0, 5.0),
            (79, 5.0, 5.0),
            (160, 5.0, 10.0),
            (8 * MINUTES, 5.0, 30.0),
            (15 * MINUTES - 1, 5.0, 899.0 / 16.0),
            (15 * MINUTES, 30.0, 56.25),
            (2 * HOURS - 1, 30.0, 7199.0 / 16.0),
            (2 * HOURS, 450.0, 450.0),
            (9600, 600.0, 600.0),
            (23 * HOURS, 600.0, 600.0),
            (WATCH * 2, 600.0, 600.0),
        ] {
            let case = format!("{status} {unchanged_for}");
            let few = check(status, unchanged_for, Crowd::OneCheck);
            assert_eq!(few, after(of_few), "{case}");
            let many = check(status, unchanged_for, Crowd::ManyChecks);
            assert_eq!(many, after(of_many), "{case}");
        }
    }
    for crowd in [Crowd::OneCheck, Crowd::ManyChecks] {
        for status in "cancelled expired error".split(' ') {
            for (unchanged_for, expected) in [
                (0, 5.0),
                (9, 5.0),
                (12, 6.0),
                (600, 300.0),
                (1200, 600.0),
                (WATCH - 1, 600.0),
            ] {
                let case = format!("{status} {unchanged_for}");
                assert_eq!(
                    check(status, unchanged_for, crowd),
                    after(expected),
                    "{case}"
                );
            }
            assert_eq!(check(status, WATCH, crowd), NextCheck::Settled);
        }
        for status in "paid partially_refunded".split(' ') {
            assert_eq!(check(status, 0, crowd), NextCheck::Settled);
        }
    }
}

#[test]
fn a_refund_is_watched_to_its_end() {
    let rules = rules().follow;
    for (status, unchanged_for, expected) in [
        ("pending", 0, after(5.0)),
        ("processing", 1200, after(600.0)),
        ("odd", WATCH * 9, after(600.0)),
        ("completed", 600, NextCheck::Settled),
        ("completed", 0, NextCheck::Settled),
        ("failed", 0, after(5.0)),
        ("failed", 4, after(5.0)),
        ("failed", 5, NextCheck::Settled),
        ("failed", 600, NextCheck::Settled),
    ] {
        let check = |is_invoice_read| {
            let outlook = refund_row(3, status, None).outlook();
            let sighting = Sighting {
                unchanged_for: seconds(unchanged_for),
                is_invoice_read,
                ..Sighting::FIRST
            };
            next_check(outlook, sighting, &rules, Jitter::NONE)
        };
        assert_eq!(check(true), expected, "{status} {unchanged_for}");
        // The books are behind until its invoice was read after it.
        let unread = match (status, unchanged_for) {
            ("completed", 0) => after(5.0),
            ("completed", _) => after(300.0),
            _ => expected,
        };
        assert_eq!(check(false), unread, "{status} {unchanged_for}");
    }
}

#[test]
fn nothing_is_settled_before_the_other_invoices_of_its_job_were_searched_for() {
    let rules = rules().follow;
    let check = |status: &str, has_unsought| {
        let outlook = Invoice::bare(15, InvoiceStatus::parse(status)).outlook();
        let sighting = Sighting {
            unchanged_for: seconds(WATCH),
            has_unsought,
            ..Sighting::FIRST
        };
        next_check(outlook, sighting, &rules, Jitter::NONE)
    };
    for status in ["paid", "cancelled", "expired", "error"] {
        assert_eq!(check(status, false), NextCheck::Settled, "{status}");
        let longest = NextCheck::After(rules.max);
        assert_eq!(check(status, true), longest, "{status}");
    }
}

#[test]
fn checks_are_spread_by_a_tenth() {
    let rules = rules().follow;
    let random = Jitter::new(1.0);
    let sighting = Sighting {
        unchanged_for: seconds(1600),
        ..Sighting::FIRST
    };
    let check = next_check(Outlook::OpenAmongMany, sighting, &rules, random);
    assert_eq!(check, after(110.0));
    // A first check behind the longest distance is a setting that contradicts itself, no panic.
    let odd = FollowRules {
        first: seconds(700),
        ..rules
    };
    let check = next_check(Outlook::OpenByItself, Sighting::FIRST, &odd, Jitter::NONE);
    assert_eq!(check, after(600.0));
}

#[test]
fn what_a_check_does_not_show_is_read() {
    let all = "processing pending cancelling paid partially_refunded cancelled expired error odd";
    for before in all.split(' ').map(InvoiceStatus::parse) {
        for shown in all.split(' ') {
            let mut invoice = Invoice::bare(15, InvoiceStatus::parse(shown));
            let expected = match shown {
                "partially_refunded" => [true, true],
                "paid" => [before.is_paid(); 2],
                "error" => [before != InvoiceStatus::Error, true],
                _ => [false, false],
            };
            let is_read = [false, true].map(|waits| is_to_be_read(&before, &invoice, waits));
            assert_eq!(is_read, expected, "{before} {shown}");
            invoice.error_code = Some("kaspi_error".to_owned());
            let expected = shown == "partially_refunded" || (shown == "paid" && before.is_paid());
            assert_eq!(
                is_to_be_read(&before, &invoice, true),
                expected,
                "{before} {shown}"
            );
        }
    }
}

#[test]
fn checks_keep_their_distance_however_many_invoices_are_due() {
    for (first, expected) in [(1, 1), (3, 3), (5, 3), (600, 3)] {
        let rules = FollowRules {
            first: seconds(first),
            ..rules().follow
        };
        assert_eq!(check_distance(&rules), seconds(expected), "{first}");
    }
}

#[test]
fn a_living_invoice_is_unexpected_after_its_death_and_beside_another_one() {
    let all = "processing pending cancelling paid partially_refunded cancelled expired error odd";
    let is_dead = |status| matches!(status, "cancelled" | "expired" | "error");
    for before in all.split(' ') {
        for now in all.split(' ') {
            let (was, is) = (InvoiceStatus::parse(before), InvoiceStatus::parse(now));
            let alone = lives_unexpectedly(&was, &is, false);
            assert_eq!(alone, is_dead(before) && !is_dead(now), "{before} {now}");
            let beside = lives_unexpectedly(&was, &is, true);
            assert_eq!(beside, !is_dead(now), "{before} {now}");
        }
    }
}
