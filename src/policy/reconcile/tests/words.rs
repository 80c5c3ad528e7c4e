//! What a person says of a job of which it is not known whether it was done, beside what the gateway shows.

use super::*;

/// A person's word stands for a look-up that found nothing as from when the job was sent, and not before what was sent would be
/// shown.
#[test]
fn a_word_is_no_proof_before_what_was_sent_would_be_shown() {
    let known = Baseline::default();
    let bill = case(create(), clean());
    let by_look_up = |kind| Case {
        protection: Lookup,
        baseline: Some(&known),
        ..case(kind, clean())
    };
    let kinds: [(fn() -> Kind, Finding); 2] = [(create, invoices(&[])), (refund, refunds(&[]))];
    for (kind, nothing) in kinds {
        let waits = "unknown uncertain lookup_absent in 840s absent free";
        for (sent, unproven, expected) in [
            (Some(60), GIVE_UP, waits),
            (None, 60, waits),
            (Some(900), GIVE_UP, PROVEN),
            (None, 900, PROVEN),
        ] {
            let history = History {
                denied_since: Some(NOW - seconds(30)),
                sent_at: sent.map(|ago| NOW - seconds(ago)),
                ..history(1, unproven, Some(GIVE_UP))
            };
            let subject = Case {
                history,
                ..by_look_up(kind())
            };
            check(&subject, &nothing, expected);
        }
    }
    // The same key makes nothing twice.
    let fresh = History {
        denied_since: Some(NOW - seconds(30)),
        ..history(1, 60, Some(GIVE_UP))
    };
    let again = "not_applied queued not_applied in 5s free";
    check(
        &Case {
            history: fresh,
            ..bill
        },
        &invoices(&[]),
        again,
    );
}

/// A person said that nothing was done: what lives with the job's name speaks first, and what is dead was seen to.
#[test]
fn a_person_who_says_that_nothing_was_done_is_believed_unless_something_of_it_lives() {
    let denied = || History {
        denied_since: Some(NOW - seconds(GIVE_UP)),
        ..history(1, GIVE_UP + 1, Some(GIVE_UP))
    };
    let with = |status: &str, amount: &str| {
        invoices(&[Invoice {
            amount: amount.parse().ok(),
            ..own_invoice(status)
        }])
    };
    for (finding, expected) in [
        (invoices(&[]), PROVEN),
        (with("pending", "5001"), "unknown held mismatch free"),
        (with("processing", "5001"), "unknown held mismatch free"),
        (with("cancelled", "5001"), PROVEN),
        (with("error", "5001"), PROVEN),
        (
            with("pending", "5000"),
            "applied succeeded invoice 15 pending free",
        ),
    ] {
        check(&case(create(), denied()), &finding, expected);
    }
}

/// No request is sent on a word alone: where no look-up since has got a clear answer for long, a person is asked again.
#[test]
fn a_word_that_no_look_up_confirms_sends_nothing() {
    let denied_for = |seconds_ago| History {
        denied_since: Some(NOW - seconds(seconds_ago)),
        ..history(1, 2 * GIVE_UP, Some(2 * GIVE_UP))
    };
    let known = Baseline::default();
    let again = "unknown uncertain lookup_unclear in 5s free";
    for kind in [create, refund, cancel] {
        for protection in [Key, Lookup] {
            for answer in [
                reply(502, Body::Broken),
                Answer::Lost(Lost::Timeout),
                Answer::NotSent(NotSent::Connect),
            ] {
                let subject = |denied_for| Case {
                    protection,
                    baseline: Some(&known),
                    ..case(kind(), denied_for)
                };
                let failed = unclear(answer);
                check(
                    &subject(denied_for(GIVE_UP)),
                    &failed,
                    "unknown held unconfirmed free",
                );
                // However old the request is, it is asked about for as long since that was said.
                check(&subject(denied_for(GIVE_UP - 1)), &failed, again);
            }
        }
    }
}
