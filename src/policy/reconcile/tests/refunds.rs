//! Refunds: what the list shows of one that may have been sent, before it is sent and after.

use super::*;

/// Without a stored baseline nothing was ever sent: the baseline is stored first.
#[test]
fn a_refund_without_a_baseline_was_never_sent() {
    for (history, expected) in [
        (history(1, 60, None), PROVEN_AT_ONCE),
        (history(1, GIVE_UP, None), PROVEN_AT_ONCE),
        (history(5, 60, None), GAVE_UP),
    ] {
        for protection in [Key, Lookup] {
            let subject = Case {
                protection,
                ..case(refund(), history.clone())
            };
            check(&subject, &refunds(&[]), expected);
            let stranger = refund_row(3, "completed", None);
            check(&subject, &refunds(&[stranger]), expected);
        }
    }
}

#[test]
fn a_refund_that_is_not_found_is_sent_again_only_when_nothing_else_happened() {
    let known = Baseline {
        refund_ids: vec![1, 2],
        is_told_apart: false,
    };
    let old = [
        refund_row(1, "completed", None),
        refund_row(2, "failed", Some("брак")),
    ];
    let other_job = JobName {
        generation: 2,
        ..NAME
    };
    let marked = refund_row(4, "pending", Some(&other_job.mark()));
    let unmarked = refund_row(3, "pending", Some("возврат"));
    let unexplained = refund_row(3, "completed", None);
    for protection in [Key, Lookup] {
        let subject = |history| Case {
            protection,
            baseline: Some(&known),
            ..case(refund(), history)
        };
        for seen in [
            vec![],
            old.to_vec(),
            [&old[..], std::slice::from_ref(&marked)].concat(),
        ] {
            for (history, expected) in [
                (history(1, 60, None), SETTLE),
                (
                    history(1, 1000, Some(899)),
                    "unknown uncertain lookup_absent in 1s absent free",
                ),
                (history(1, 1000, Some(900)), PROVEN),
                (history(5, 1000, Some(900)), GAVE_UP),
                (history(1, GIVE_UP, None), SETTLE),
                (history(1, GIVE_UP, Some(900)), PROVEN),
            ] {
                check(&subject(history), &refunds(&seen), expected);
            }
        }
        for stranger in [&unmarked, &unexplained] {
            for seen in [
                vec![stranger.clone()],
                [&old[..], std::slice::from_ref(stranger)].concat(),
            ] {
                // Its own may be shown beside it by then.
                for (history, expected) in [
                    (history(1, 60, None), SETTLE),
                    (history(1, 1000, Some(900)), HELD),
                    (history(9, GIVE_UP, Some(900)), HELD),
                ] {
                    check(&subject(history), &refunds(&seen), expected);
                }
                // A person has told them apart.
                let told_apart = Baseline {
                    is_told_apart: true,
                    ..known.clone()
                };
                let denied = History {
                    denied_since: Some(NOW - seconds(60)),
                    ..history(1, 1000, Some(GIVE_UP))
                };
                let subject = Case {
                    baseline: Some(&told_apart),
                    ..subject(denied)
                };
                check(&subject, &refunds(&seen), PROVEN);
            }
        }
    }
}

#[test]
fn the_refund_with_the_jobs_name_is_adopted() {
    let known = Baseline {
        refund_ids: vec![1],
        is_told_apart: false,
    };
    let own = |status| refund_row(3, status, Some(&NAME.marked(Some("брак"))));
    let stranger = refund_row(4, "pending", None);
    for baseline in [None, Some(&known)] {
        let subject = Case {
            baseline,
            ..case(refund(), history(9, GIVE_UP, None))
        };
        for (status, expected) in [
            (
                "pending",
                "applied accepted under_way refund 3 pending free",
            ),
            (
                "processing",
                "applied accepted under_way refund 3 processing free",
            ),
            ("completed", "applied succeeded refund 3 completed free"),
            ("failed", "applied accepted under_way refund 3 failed free"),
            ("odd", "applied accepted under_way refund 3 odd free"),
        ] {
            check(&subject, &refunds(&[own(status)]), expected);
            check(
                &subject,
                &refunds(&[stranger.clone(), own(status)]),
                expected,
            );
        }
        let second = Refund {
            id: 5,
            ..own("pending")
        };
        let twice = "unknown held duplicate_detected free";
        check(&subject, &refunds(&[own("pending"), second]), twice);
        let other_amount = Refund {
            amount: Some(Decimal::from(1000)),
            ..own("pending")
        };
        check(
            &subject,
            &refunds(&[other_amount]),
            "unknown held mismatch free",
        );
        let silent = Refund {
            amount: None,
            ..own("pending")
        };
        check(
            &subject,
            &refunds(&[silent]),
            "applied accepted under_way refund 3 pending free",
        );
    }
}

#[test]
fn a_baseline_is_every_refund_of_the_list() {
    let list = [
        refund_row(3, "failed", None),
        refund_row(1, "pending", None),
    ]
    .map(Object::from);
    assert_eq!(
        Baseline::of(&list),
        Baseline {
            refund_ids: vec![3, 1],
            is_told_apart: false,
        }
    );
}

/// Nothing was sent, so nothing becomes uncertain that was not before.
#[test]
fn a_refund_whose_baseline_cannot_be_read() {
    let rules = rules();
    let busy = "not_applied queued server_error in 5s counts";
    let later = "not_applied uncertain server_error in 10s counts";
    let parked = "not_applied parked key_rejected free; park key_rejected";
    for (answer, first, with_unproven) in [
        (
            Answer::NotSent(NotSent::Dns),
            "not_applied queued network in 1s counts",
            "not_applied uncertain network in 2s counts",
        ),
        (
            Answer::Lost(Lost::Timeout),
            "not_applied queued network in 5s counts",
            "not_applied uncertain network in 10s counts",
        ),
        (reply(200, Body::Broken), busy, later),
        (reply(404, Body::Broken), busy, later),
        (coded(502, ""), busy, later),
        (coded(409, "brand_new"), busy, later),
        (coded(404, ""), "rejected failed refused counts", later),
        (
            coded(403, "grant_not_granted"),
            "rejected failed refused counts",
            later,
        ),
        (coded(401, ""), parked, parked),
        (
            reply(503, Body::Broken),
            "not_applied queued server_error in 5s counts; park service_unavailable",
            "not_applied uncertain server_error in 10s counts; park service_unavailable",
        ),
        (
            coded(429, "rate_limited"),
            "not_applied queued retry_after in 60s free; block 60s rate_limited",
            "not_applied uncertain retry_after in 60s free; block 60s rate_limited",
        ),
        (
            coded(429, "trial_daily_limit"),
            "not_applied queued cap_reached in 900s free; block 900s trial_daily_limit capped",
            "not_applied uncertain cap_reached in 900s free; block 900s trial_daily_limit capped",
        ),
        (
            coded(429, "outstanding_recipient_limit"),
            "not_applied queued retry_after in 60s free",
            "not_applied uncertain retry_after in 60s free",
        ),
    ] {
        let decide = |history| {
            show(&without_baseline(
                &history,
                &timed(answer.clone()),
                at(&rules),
            ))
        };
        assert_eq!(decide(clean()), first, "{answer:?}");
        assert_eq!(decide(unproven()), with_unproven, "{answer:?}");
    }
    let last = |answer| {
        show(&without_baseline(
            &attempted(4, clean()),
            &timed(answer),
            at(&rules),
        ))
    };
    assert_eq!(last(coded(502, "")), "not_applied failed gave_up counts");
    assert_eq!(
        last(coded(429, "rate_limited")),
        "not_applied queued retry_after in 60s free; block 60s rate_limited"
    );
}

/// A database that went back knows nothing of a refund that was made; its own name in the list tells.
#[test]
fn a_refund_that_the_list_shows_already_is_adopted_and_never_sent() {
    let first = NAME.marked(Some("torn"));
    let second = JobName {
        generation: 2,
        ..NAME
    };
    let stranger = JobName {
        token: uuid::Uuid::from_u128(8),
        ..NAME
    };
    let row = |id, status: &str, reason: &str| refund_row(id, status, Some(reason));
    let made = |name: JobName, list: &[Refund]| {
        let (kind, history) = (refund(), clean());
        let subject = Subject {
            operation: kind.operation,
            plan: &kind.plan,
            name,
            history: &history,
            protection: Key,
            baseline: None,
        };
        let list: Vec<Object> = list.iter().cloned().map(Object::from).collect();
        made_before(&subject, &list).map(|verdict| show(&verdict))
    };
    let adopted = |id, status: &str| {
        let next = if status == "completed" {
            "succeeded"
        } else {
            "accepted under_way"
        };
        Some(format!("applied {next} refund {id} {status} free"))
    };
    assert_eq!(made(NAME, &[]), None);
    let others = [
        row(1, "completed", "a cashier's"),
        row(2, "completed", &stranger.mark()),
    ];
    assert_eq!(made(NAME, &others), None);
    for status in ["pending", "processing", "completed", "failed"] {
        let list = [others[0].clone(), row(3, status, &first)];
        assert_eq!(made(NAME, &list), adopted(3, status));
    }
    // A later generation, of which the database has forgotten that it began.
    let list = [
        row(3, "failed", &first),
        row(4, "completed", &second.mark()),
    ];
    assert_eq!(made(NAME, &list), adopted(4, "completed"));
    assert_eq!(made(second, &list), adopted(4, "completed"));
    assert_eq!(
        made(second, &list[..1]),
        None,
        "it failed, so there is a second"
    );
    // An earlier one that lives would be one refund too many.
    let list = [row(3, "pending", &first)];
    assert_eq!(made(second, &list), adopted(3, "pending"));
    let twice = Some("unknown held duplicate_detected free".to_owned());
    let list = [row(3, "pending", &first), row(4, "pending", &second.mark())];
    assert_eq!(made(second, &list), twice);
    let other_amount = Refund {
        amount: Some(Decimal::from(5)),
        ..row(3, "completed", &first)
    };
    let mismatch = Some("unknown held mismatch free".to_owned());
    assert_eq!(made(NAME, &[other_amount]), mismatch);
}
