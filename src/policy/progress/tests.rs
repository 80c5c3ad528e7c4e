use std::collections::BTreeMap;

use proptest::prelude::*;

use super::sights::EXPLAINING;
use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_secs(10);

fn patience() -> Patience {
    Patience::new(Duration::from_secs(90), 10 * MINUTE)
}

fn waiting(claimed: &str) -> AccountFacts {
    AccountFacts {
        account: "shop".into(),
        due_jobs: FEW + 1,
        claimed: claimed.into(),
        is_served: true,
        ..AccountFacts::default()
    }
}

fn facts(account: AccountFacts) -> Facts {
    Facts {
        accounts: vec![account],
        ..Facts::default()
    }
}

fn failing(what: &str) -> Failure {
    Failure {
        what: what.into(),
        mark: "1".into(),
        cause: "permission denied".into(),
    }
}

/// Looks every ten seconds for so long; when each concern was first found.
fn watch(length: Duration, see: impl Fn(Duration) -> Facts) -> BTreeMap<Concern, Duration> {
    let mut watch = Watch::default();
    let mut found = BTreeMap::new();
    let mut at = Duration::ZERO;
    while at <= length {
        for standstill in watch.look(at, &see(at), patience()) {
            found.entry(standstill.concern).or_insert(at);
        }
        at += LOOK;
    }
    found
}

#[track_caller]
fn expect(see: impl Fn(Duration) -> Facts, expected: &[(Concern, u64)]) {
    let found: Vec<_> = watch(60 * MINUTE, see)
        .into_iter()
        .map(|(concern, at)| (concern, at.as_secs()))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn due_jobs_that_nobody_claims_are_found_after_two_leases() {
    expect(|_| facts(waiting("never")), &[(Concern::Claims, 180)]);
}

#[test]
fn what_stands_still_since_its_daemon_fell_silent_is_told_with_that() {
    let account = AccountFacts {
        silent_since: Some("12:00".into()),
        has_expired: true,
        lookup: Some("1 1".into()),
        turn: Some("2 5".into()),
        check: Some("12:00".into()),
        ..waiting("never")
    };
    let mut watch = Watch::default();
    watch.look(Duration::ZERO, &facts(account.clone()), patience());
    let found = watch.look(20 * MINUTE, &facts(account), patience());
    let cause = "the apipayd that serves it has given no sign of life since 12:00";
    let expected = [
        (Concern::Claims, cause),
        (Concern::LookUps, cause),
        (Concern::Turns, cause),
        (Concern::Checks, cause),
    ];
    let found: Vec<_> = found
        .iter()
        .map(|f| (f.concern, f.cause.as_str()))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn expired_jobs_that_are_not_ended_are_said_to_stand_before_what_is_due() {
    for has_expired in [false, true] {
        let account = AccountFacts {
            has_expired,
            ..waiting("never")
        };
        let mut watch = Watch::default();
        watch.look(Duration::ZERO, &facts(account.clone()), patience());
        let found = watch.look(10 * MINUTE, &facts(account), patience());
        let [claims] = found.as_slice() else {
            panic!("{found:?}");
        };
        assert_eq!(claims.cause.contains("expired"), has_expired);
    }
}

#[test]
fn a_backlog_that_drains_by_one_a_minute_moves() {
    expect(|at| facts(waiting(&(at.as_secs() / 66).to_string())), &[]);
    let tight = |at: Duration| AccountFacts {
        is_quota_tight: true,
        ..waiting(&(at.as_secs() / 400).to_string())
    };
    expect(|at| facts(tight(at)), &[]);
    let full_for_ever = AccountFacts {
        is_quota_tight: true,
        lookup: Some("1".into()),
        check: Some("1".into()),
        ..waiting("never")
    };
    expect(
        |_| facts(full_for_ever.clone()),
        &[
            (Concern::Claims, 480),
            (Concern::LookUps, 480),
            (Concern::Checks, 1080),
        ],
    );
}

#[test]
fn what_is_claimed_and_always_too_late_does_not_move() {
    let late = |at: Duration| AccountFacts {
        is_late: true,
        ..waiting(&at.as_secs().to_string())
    };
    expect(|at| facts(late(at)), &[(Concern::Window, 180)]);
}

#[test]
fn nothing_due_is_nothing_found() {
    expect(|_| Facts::default(), &[]);
    let idle = AccountFacts {
        due_jobs: 0,
        ..waiting("never")
    };
    expect(|_| facts(idle.clone()), &[]);
    // It is empty now and then: something moved that was never seen to.
    let emptied = |at: Duration| {
        if at.as_secs().is_multiple_of(120) {
            Facts::default()
        } else {
            facts(waiting("never"))
        }
    };
    expect(emptied, &[]);
}

fn refused(since: &str) -> Option<RefusedRequests> {
    Some(RefusedRequests {
        said: None,
        since: since.into(),
        code: "request_rate_limited".into(),
        until: None,
    })
}

#[test]
fn a_limit_that_lets_nothing_through_is_found_and_moves_with_the_first_that_gets_through() {
    let of_sends = |since: &str| AccountFacts {
        due_jobs: 0,
        refused_sends: refused(since),
        ..waiting("never")
    };
    expect(|_| facts(of_sends("12:00")), &[(Concern::Limit, 180)]);
    let found = Watch::default().look(
        MINUTE,
        &facts(of_sends("12:00")),
        Patience::new(Duration::ZERO, MINUTE),
    );
    assert_eq!(
        found[0].cause,
        "HTTP 429, request_rate_limited, since 12:00"
    );
    // One gets through every two minutes.
    expect(|at| facts(of_sends(&(at.as_secs() / 120).to_string())), &[]);
    let of_reads = AccountFacts {
        due_jobs: 0,
        refused_reads: refused("12:00"),
        ..waiting("never")
    };
    expect(|_| facts(of_reads.clone()), &[(Concern::AskingLimit, 180)]);
    let both = AccountFacts {
        refused_sends: refused("12:00"),
        ..of_reads
    };
    let expected = [(Concern::Limit, 180), (Concern::AskingLimit, 180)];
    expect(|_| facts(both.clone()), &expected);
    // A cap that has been told, with when it ends: of some operations, or of what is asked too.
    let told = |alert: &str| AccountFacts {
        open_alerts: vec![alert.into()],
        due_jobs: 1,
        claimed: "never".into(),
        ..both.clone()
    };
    let expected = [(Concern::Claims, 180), (Concern::AskingLimit, 180)];
    expect(|_| facts(told("cap_reached")), &expected);
    expect(|_| facts(told("cap_reached everything")), &[]);
}

#[test]
fn what_is_told_of_a_part_of_an_account_explains_no_more_than_that() {
    let all = |open: &str| AccountFacts {
        open_alerts: vec![open.into()],
        refused_sends: refused("1"),
        refused_reads: refused("1"),
        lookup: Some("1".into()),
        check: Some("1".into()),
        ..waiting("never")
    };
    let (claims, limit) = ((Concern::Claims, 180), (Concern::Limit, 180));
    let reads = [
        (Concern::LookUps, 180),
        (Concern::Checks, 780),
        (Concern::AskingLimit, 180),
    ];
    let everything = [claims, reads[0], reads[1], limit, reads[2]];
    expect(|_| facts(all("gateway_failing sends")), &[]);
    expect(|_| facts(all("gateway_failing reads")), &[claims, limit]);
    expect(|_| facts(all("gateway_failing job")), &everything);
}

#[test]
fn an_alert_that_says_why_is_enough() {
    for kind in EXPLAINING {
        let told = AccountFacts {
            open_alerts: vec![kind.into()],
            undecided: Some("7".into()),
            ..waiting("never")
        };
        expect(|_| facts(told.clone()), &[]);
    }
    let one_stuck = |due_jobs| AccountFacts {
        open_alerts: vec!["job_stuck".into()],
        due_jobs,
        ..waiting("never")
    };
    expect(|_| facts(one_stuck(1)), &[]);
    expect(|_| facts(one_stuck(FEW + 1)), &[(Concern::Claims, 180)]);
    let all_refused = AccountFacts {
        refused_jobs: FEW + 1,
        ..one_stuck(FEW + 1)
    };
    expect(|_| facts(all_refused.clone()), &[]);
    let locked = |free| AccountFacts {
        free_jobs: Some(free),
        ..one_stuck(FEW + 1)
    };
    expect(|_| facts(locked(0)), &[]);
    expect(|_| facts(locked(FEW)), &[]);
    expect(|_| facts(locked(FEW + 1)), &[(Concern::Claims, 180)]);
    let not_told = AccountFacts {
        open_alerts: Vec::new(),
        ..all_refused
    };
    expect(|_| facts(not_told.clone()), &[(Concern::Claims, 180)]);
    let held = AccountFacts {
        open_alerts: vec!["job_held".into(), "no_progress".into()],
        ..waiting("never")
    };
    expect(|_| facts(held.clone()), &[(Concern::Claims, 180)]);
}

#[test]
fn a_stuck_job_explains_what_stands_still_with_it_alone() {
    let stuck = |job: &str| AccountFacts {
        open_alerts: vec!["job_stuck".into()],
        stuck: vec![job.into()],
        due_jobs: 1,
        lookup: Some("7 2".into()),
        undecided: Some("7".into()),
        lease: Some("7 2".into()),
        ..waiting("never")
    };
    expect(|_| facts(stuck("7")), &[]);
    let others = [
        (Concern::LookUps, 180),
        (Concern::Answers, 180),
        (Concern::Leases, 180),
    ];
    expect(|_| facts(stuck("70")), &others);
}

#[test]
fn an_account_that_nobody_serves_is_found_whatever_else_is_told_of_it() {
    let alone = AccountFacts {
        is_served: false,
        open_alerts: vec!["account_parked".into()],
        ..waiting("never")
    };
    let with_loop = Facts {
        loops: vec![failing("follow")],
        ..facts(alone)
    };
    expect(
        |_| with_loop.clone(),
        &[(Concern::Service, 180), (Concern::Loop, 180)],
    );
}

#[test]
fn each_mark_that_stands_still_is_found() {
    let mark = || Some("1".to_owned());
    let cases = [
        (
            AccountFacts {
                lookup: mark(),
                ..waiting("")
            },
            Concern::LookUps,
            180,
        ),
        (
            AccountFacts {
                undecided: mark(),
                ..waiting("")
            },
            Concern::Answers,
            180,
        ),
        (
            AccountFacts {
                lease: mark(),
                ..waiting("")
            },
            Concern::Leases,
            180,
        ),
        (
            AccountFacts {
                check: mark(),
                ..waiting("")
            },
            Concern::Checks,
            780,
        ),
    ];
    for (account, concern, after) in cases {
        let account = AccountFacts {
            due_jobs: 0,
            ..account
        };
        expect(|_| facts(account.clone()), &[(concern, after)]);
    }
}

#[test]
fn what_stops_everything_is_told_once_and_not_for_each_account() {
    let dispatch = Facts {
        loops: vec![failing("dispatch")],
        ..facts(waiting("never"))
    };
    expect(|_| dispatch.clone(), &[(Concern::Loop, 180)]);
    let fault = Facts {
        faults: vec![failing("apipay.jobs")],
        ..facts(waiting("never"))
    };
    expect(|_| fault.clone(), &[(Concern::Schema, 0)]);
    let refused = Facts {
        database: Some("permission denied".into()),
        is_answering: true,
        ..fault.clone()
    };
    expect(|_| refused.clone(), &[(Concern::Schema, 0)]);
    let gone = Facts {
        is_answering: false,
        ..refused
    };
    expect(
        |_| gone.clone(),
        &[(Concern::Database, 180), (Concern::Schema, 0)],
    );
    // What only makes it slow explains no standstill.
    let slow = Facts {
        numbers: vec![failing("apipay.jobs_id_seq")],
        ..facts(waiting("never"))
    };
    expect(
        |_| slow.clone(),
        &[(Concern::Claims, 180), (Concern::Numbers, 0)],
    );
    let unwritten = Facts {
        outcomes: Some("disk full".into()),
        ..facts(waiting("never"))
    };
    expect(|_| unwritten.clone(), &[(Concern::Outcomes, 180)]);
    // A loop that fails now and then hides nothing for long.
    let flapping = |at: Duration| Facts {
        loops: vec![Failure {
            mark: at.as_secs().to_string(),
            ..failing("dispatch")
        }],
        ..facts(waiting("never"))
    };
    expect(flapping, &[(Concern::Claims, 360)]);
}

#[test]
fn a_database_that_does_not_answer_is_found_and_its_accounts_are_seen_anew_afterwards() {
    let away = |at: Duration| {
        if at < 10 * MINUTE {
            Facts {
                database: Some("connection refused".into()),
                loops: vec![failing("dispatch")],
                ..Facts::default()
            }
        } else {
            facts(waiting("never"))
        }
    };
    expect(away, &[(Concern::Claims, 780), (Concern::Database, 180)]);
}

#[test]
fn a_stop_is_a_humans_and_told_after_a_day_if_anything_waits() {
    let stopped = |hours: u64, account: Option<AccountFacts>| Facts {
        stopped_for: Some(Duration::from_secs(hours * 3600)),
        accounts: account.into_iter().collect(),
        ..Facts::default()
    };
    expect(|_| stopped(23, Some(waiting("never"))), &[]);
    expect(
        |_| stopped(24, Some(waiting("never"))),
        &[(Concern::Stop, 0)],
    );
    expect(|_| stopped(48, None), &[]);
    assert!(!Concern::Stop.is_critical());
}

#[test]
fn a_channel_that_takes_nothing_is_found() {
    let deaf = Facts {
        deliveries: vec![failing("webhook")],
        ..Facts::default()
    };
    expect(|_| deaf.clone(), &[(Concern::Deliveries, 180)]);
}

proptest! {
    #[test]
    fn what_moves_in_time_is_never_found_and_what_stands_still_always_is(
        moves in proptest::collection::vec(1_u64..17, 1..40),
    ) {
        // Claims at most 170 s apart, then none.
        let mut watch = Watch::default();
        let mut at = Duration::ZERO;
        for (number, looks) in moves.iter().enumerate() {
            for _ in 0..*looks {
                let found = watch.look(at, &facts(waiting(&number.to_string())), patience());
                prop_assert!(found.is_empty(), "{found:?}");
                at += LOOK;
            }
        }
        let end = at;
        let mut found = Vec::new();
        while found.is_empty() {
            found = watch.look(at, &facts(waiting("last")), patience());
            at += LOOK;
            prop_assert!(at - end <= patience().moving + LOOK * 2);
        }
        prop_assert!(found[0].lasted >= patience().moving);
    }
}

fn stopped(account: &str, seen_at: &str) -> AccountFacts {
    AccountFacts {
        account: account.into(),
        is_served: false,
        stopped: Some(Stopped {
            host: "kassa-2".into(),
            seen_at: seen_at.into(),
            is_proper: false,
        }),
        ..waiting("never")
    }
}

#[test]
fn a_daemon_that_stopped_is_found_once_with_all_accounts_that_it_served() {
    let mut unknown = stopped("ghost", "");
    unknown.stopped = None;
    let facts = Facts {
        accounts: vec![
            stopped("clinic", "2026-11-01T14:02:03Z"),
            stopped("shop", "2026-11-01T14:02:05Z"),
            unknown,
        ],
        ..Facts::default()
    };
    let mut watch = Watch::default();
    watch.look(Duration::ZERO, &facts, patience());
    let found = watch.look(3 * MINUTE, &facts, patience());
    let [daemon, ghost] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!(
        (daemon.concern, &daemon.account, daemon.host.as_str()),
        (Concern::SilentDaemon, &None, "kassa-2")
    );
    assert_eq!(daemon.accounts, ["clinic", "shop"]);
    assert_eq!(daemon.cause, "2026-11-01T14:02:05Z", "its last sign");
    assert_eq!(
        (ghost.concern, ghost.account.as_deref()),
        (Concern::Service, Some("ghost"))
    );
}

/// A machine with two units: each way to end is told for itself, and what was stopped is not said to be silent.
#[test]
fn daemons_of_a_machine_that_were_stopped_and_that_fell_silent_are_told_apart() {
    let mut properly = stopped("till", "2026-11-01T14:05:00Z");
    properly.stopped.as_mut().unwrap().is_proper = true;
    let facts = Facts {
        accounts: vec![stopped("clinic", "2026-11-01T14:02:03Z"), properly],
        ..Facts::default()
    };
    let mut watch = Watch::default();
    watch.look(Duration::ZERO, &facts, patience());
    let found = watch.look(3 * MINUTE, &facts, patience());
    let found: Vec<_> = found
        .iter()
        .map(|f| {
            (
                f.concern,
                f.host.as_str(),
                f.accounts.join(" "),
                f.cause.as_str(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            (
                Concern::StoppedDaemon,
                "kassa-2",
                "till".to_owned(),
                "2026-11-01T14:05:00Z"
            ),
            (
                Concern::SilentDaemon,
                "kassa-2",
                "clinic".to_owned(),
                "2026-11-01T14:02:03Z"
            ),
        ]
    );
}

#[test]
fn what_nobody_serves_and_an_operator_has_parked_is_left_alone() {
    let parked = |mut facts: AccountFacts| {
        facts.is_left_alone = true;
        facts
    };
    let mut unknown = stopped("ghost", "");
    unknown.stopped = None;
    for facts_of_one in [stopped("shop", "2026-11-01T14:02:03Z"), unknown] {
        expect(|_| facts(parked(facts_of_one.clone())), &[]);
    }
}

#[test]
fn what_nobody_serves_for_its_key_is_told_by_that_alert_alone() {
    let mut refused = stopped("shop", "");
    refused.stopped = None;
    expect(|_| facts(refused.clone()), &[(Concern::Service, 180)]);
    let open = vec!["other_organization".to_owned()];
    let told = AccountFacts {
        open_alerts: open.clone(),
        ..refused
    };
    expect(|_| facts(told.clone()), &[]);
    // Where another daemon serves the account, that alert explains nothing.
    let served = AccountFacts {
        open_alerts: open,
        ..waiting("never")
    };
    expect(|_| facts(served.clone()), &[(Concern::Claims, 180)]);
}

#[test]
fn a_database_that_does_not_tell_for_a_moment_ends_nothing_that_was_found() {
    let away = || Facts {
        database: Some("connection refused".into()),
        ..Facts::default()
    };
    let sees = |blip_at: u64| {
        let mut watch = Watch::default();
        let mut found = Vec::new();
        for second in (0..=400).step_by(10) {
            let facts = if second == blip_at {
                away()
            } else {
                facts(waiting("never"))
            };
            let at = Duration::from_secs(second);
            if !watch.look(at, &facts, patience()).is_empty() {
                found.push(second);
            }
        }
        found
    };
    // Found after three minutes, it is found again in the look after the blip.
    let expected: Vec<u64> = (180..=400).step_by(10).filter(|at| *at != 300).collect();
    assert_eq!(sees(300), expected);
    // What had not been found has its time from the start: the daemon could not do anything either.
    assert_eq!(sees(100).first(), Some(&290));
}

#[test]
fn a_park_explains_neither_that_nobody_probes_it_nor_that_a_lease_stays() {
    let parked = |probe: Option<&str>| AccountFacts {
        due_jobs: 0,
        probe: probe.map(str::to_owned),
        open_alerts: vec!["account_parked".into(), "gateway_failing sends".into()],
        ..waiting("never")
    };
    expect(|_| facts(parked(None)), &[]);
    expect(
        |_| facts(parked(Some("2026-11-01T14:02:03Z"))),
        &[(Concern::Probing, 30)],
    );
    let with_lease = AccountFacts {
        open_alerts: vec!["account_parked".into()],
        lease: Some("7 2".into()),
        check: Some("1".into()),
        ..waiting("never")
    };
    expect(|_| facts(with_lease.clone()), &[(Concern::Leases, 180)]);
}

/// What is found in each look, every ten seconds from the start, as seconds and concerns.
fn looks(length: u64, see: impl Fn(u64) -> Facts) -> Vec<(u64, Vec<Concern>)> {
    let mut watch = Watch::default();
    let seconds = (0..=length).step_by(10);
    let look = |second| {
        let found = watch.look(Duration::from_secs(second), &see(second), patience());
        (second, found.into_iter().map(|f| f.concern).collect())
    };
    seconds.map(look).collect()
}

/// In which looks of the given seconds exactly this is found.
#[track_caller]
fn expect_in(
    looks: &[(u64, Vec<Concern>)],
    seconds: std::ops::RangeInclusive<u64>,
    expected: &[Concern],
) {
    for (second, found) in looks.iter().filter(|(second, _)| seconds.contains(second)) {
        assert_eq!(found, expected, "after {second} s");
    }
}

fn under_a_stop(facts: Facts) -> Facts {
    Facts {
        stopped_for: Some(MINUTE),
        ..facts
    }
}

#[test]
fn a_stop_ends_nothing_that_was_found_and_begins_nothing_but_a_wait() {
    let limited = || AccountFacts {
        due_jobs: 0,
        refused_sends: refused("12:00"),
        ..waiting("never")
    };
    let found = looks(900, |second| match second {
        300..600 => under_a_stop(facts(limited())),
        _ => facts(limited()),
    });
    expect_in(&found, 180..=900, &[Concern::Limit]);
    // What the stop itself keeps from moving has its time from the start.
    let found = looks(900, |second| match second {
        100..600 => under_a_stop(facts(waiting("never"))),
        _ => facts(waiting("never")),
    });
    expect_in(&found, 0..=770, &[]);
    expect_in(&found, 780..=900, &[Concern::Claims]);
    // It is over when it moves, or nothing is due.
    let found = looks(900, |second| match second {
        300..400 => under_a_stop(facts(waiting("never"))),
        400.. => under_a_stop(Facts::default()),
        _ => facts(waiting("never")),
    });
    expect_in(&found, 180..=390, &[Concern::Claims]);
    expect_in(&found, 400..=900, &[]);
}

#[test]
fn a_daemon_that_is_missing_under_a_stop_is_found_when_sending_is_started() {
    let unknown = || AccountFacts {
        stopped: None,
        ..stopped("ghost", "")
    };
    for (account, concern) in [
        (stopped("shop", "12:00"), Concern::SilentDaemon),
        (unknown(), Concern::Service),
    ] {
        let found = looks(700, |second| match second {
            100..600 => under_a_stop(facts(account.clone())),
            _ => facts(account.clone()),
        });
        expect_in(&found, 0..=590, &[]);
        expect_in(&found, 600..=700, &[concern]);
        // What was told before the stop goes on through it.
        let found = looks(700, |second| match second {
            300..600 => under_a_stop(facts(account.clone())),
            _ => facts(account.clone()),
        });
        expect_in(&found, 180..=700, &[concern]);
    }
}

#[test]
fn what_was_told_of_an_account_is_not_taken_back_for_a_loop_that_fails_for_a_moment() {
    let found = looks(350, |second| Facts {
        loops: match second {
            250..300 => vec![failing("dispatch")],
            _ => Vec::new(),
        },
        ..facts(waiting("never"))
    });
    expect_in(&found, 180..=350, &[Concern::Claims]);
}

#[test]
fn what_was_found_lasts_when_more_patience_is_due() {
    let found = looks(400, |second| {
        facts(AccountFacts {
            is_quota_tight: second >= 200,
            ..waiting("never")
        })
    });
    expect_in(&found, 180..=400, &[Concern::Claims]);
}

#[test]
fn what_was_found_of_an_account_lasts_until_it_is_found_that_nobody_serves_it() {
    let unserved = |account: &AccountFacts| AccountFacts {
        stopped: None,
        ..account.clone()
    };
    let gone = AccountFacts {
        account: "shop".into(),
        ..stopped("shop", "12:00")
    };
    for (after, concern) in [
        (unserved(&gone), Concern::Service),
        (gone.clone(), Concern::SilentDaemon),
    ] {
        let found = looks(600, |second| match second {
            300.. => facts(after.clone()),
            _ => facts(waiting("never")),
        });
        expect_in(&found, 180..=470, &[Concern::Claims]);
        expect_in(&found, 480..=600, &[concern]);
    }
    // It was not told before: it has its time.
    let found = looks(600, |second| match second {
        100.. => facts(unserved(&gone)),
        _ => facts(waiting("never")),
    });
    expect_in(&found, 0..=270, &[]);
    expect_in(&found, 280..=600, &[Concern::Service]);
    // An operator has parked it, or it is told why nobody serves it.
    let told = AccountFacts {
        open_alerts: vec!["other_organization".into()],
        ..unserved(&gone)
    };
    let parked = AccountFacts {
        is_left_alone: true,
        ..gone
    };
    for after in [told, parked] {
        let found = looks(600, |second| match second {
            300.. => facts(after.clone()),
            _ => facts(waiting("never")),
        });
        expect_in(&found, 180..=290, &[Concern::Claims]);
        expect_in(&found, 300..=600, &[]);
    }
}

#[test]
fn what_was_found_lasts_until_it_is_found_why_nothing_can_be_stored() {
    let found = looks(600, |second| Facts {
        unchanged: match second {
            300.. => vec![failing("shop")],
            _ => Vec::new(),
        },
        ..facts(waiting("never"))
    });
    expect_in(&found, 180..=320, &[Concern::Claims]);
    expect_in(&found, 330..=600, &[Concern::Change]);
}

#[test]
fn that_nobody_serves_an_account_is_one_incident_whether_or_not_the_daemon_is_known() {
    let unknown = AccountFacts {
        stopped: None,
        ..stopped("shop", "")
    };
    let known = stopped("shop", "12:00");
    for (first, then, concerns) in [
        (&unknown, &known, [Concern::Service, Concern::SilentDaemon]),
        (&known, &unknown, [Concern::SilentDaemon, Concern::Service]),
    ] {
        let found = looks(600, |second| match second {
            300.. => facts(then.clone()),
            _ => facts(first.clone()),
        });
        expect_in(&found, 180..=290, &concerns[..1]);
        expect_in(&found, 300..=600, &concerns[1..]);
    }
}

#[test]
fn the_alert_that_explains_a_standstill_is_the_one_without_which_it_would_be_found() {
    let with = |alert: &str| AccountFacts {
        open_alerts: vec!["job_held".into(), alert.into()],
        due_jobs: 1,
        ..waiting("never")
    };
    for (alert, kind) in [
        ("job_stuck", Some("job_stuck")),
        ("cap_reached everything", Some("cap_reached")),
        ("gateway_failing sends", Some("gateway_failing")),
        ("account_parked", Some("account_parked")),
        // It explains none of what is due here.
        ("gateway_failing reads", None),
        ("other_organization", None),
    ] {
        assert_eq!(explanation(&with(alert), patience()), kind, "{alert}");
    }
    let unserved = AccountFacts {
        is_served: false,
        ..with("other_organization")
    };
    assert_eq!(
        explanation(&unserved, patience()),
        Some("other_organization")
    );
    let idle = AccountFacts {
        due_jobs: 0,
        ..with("job_stuck")
    };
    assert_eq!(explanation(&idle, patience()), None);
}

#[test]
fn a_refusal_whose_code_is_forgotten_leaves_no_gap() {
    let forgotten = RefusedRequests {
        code: String::new(),
        ..refused("12:00").unwrap()
    };
    assert_eq!(forgotten.in_words(), "HTTP 429, since 12:00");
    let said = RefusedRequests {
        said: Some("slow down".into()),
        ..forgotten
    };
    assert_eq!(said.in_words(), "HTTP 429: slow down, since 12:00");
}

#[test]
fn what_another_daemon_told_is_over_at_once_where_nothing_is_due_and_else_when_it_would_be_found() {
    let time = |account: AccountFacts, concern: Concern| {
        let concerns = [concern.code().to_owned()];
        time_to_find("shop", &concerns, &facts(account), patience())
    };
    let idle = AccountFacts {
        due_jobs: 0,
        ..waiting("never")
    };
    let leased = AccountFacts {
        lease: Some("7 1".into()),
        ..idle.clone()
    };
    let checked = AccountFacts {
        check: Some("1".into()),
        ..idle.clone()
    };
    let stuck = AccountFacts {
        stuck: vec!["7".into()],
        ..leased.clone()
    };
    let of_another = AccountFacts {
        account: "other".into(),
        ..leased.clone()
    };
    for (account, expected) in [
        (idle.clone(), Duration::ZERO),
        (leased, patience().moving),
        (checked, patience().check),
        (stuck, Duration::ZERO),
        (of_another, Duration::ZERO),
    ] {
        assert_eq!(
            time(account.clone(), Concern::Leases),
            expected,
            "{account:?}"
        );
    }
    // The answers to probes stand in no row.
    assert_eq!(time(idle, Concern::Probes), patience().check);
}
