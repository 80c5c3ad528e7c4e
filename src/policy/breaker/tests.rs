//! When a parked account is probed, what health says, and how fast it starts again.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::domain::answer::{Body, Lost, NotSent};
use crate::policy::fixtures::*;
use crate::policy::judge::judge;

#[test]
fn probes_come_ever_later_and_never_before_the_hint() {
    let rules = rules().breaker;
    let hour = 3600;
    for (probes, hint, expected) in [
        (0, None, 60),
        (1, None, 120),
        (2, None, 240),
        (3, None, 480),
        (4, None, 900),
        (999, None, 900),
        (u32::MAX - 1, None, 900),
        (0, Some(30), 60),
        (0, Some(1800), 1800),
        (9, Some(1800), 1800),
        (0, Some(24 * hour), 24 * hour),
        (0, Some(24 * hour + 1), 24 * hour),
        (0, Some(u64::MAX), 24 * hour),
    ] {
        let delay = probe_delay(&rules, probes, hint.map(seconds), Jitter::NONE);
        assert_eq!(delay, seconds(expected), "{probes} {hint:?}");
    }
    assert_eq!(probe_delay(&rules, 0, None, Jitter::new(1.0)), seconds(66));
}

#[track_caller]
fn check(answer: &Answer, expected: &Health) {
    assert_eq!(health(answer), *expected, "{answer:?}");
}

#[test]
fn the_health_of_an_account() {
    let session = Health::Unwell(Reason::SessionExpired);
    let tariff = Health::Unwell(Reason::TariffInactive);
    let connection = |fields: Value| json!({"connection": fields});
    let status = |status: Value| json!({"tariff": {"status": status}});
    for (body, expected) in [
        (json!({}), Health::Well),
        (json!({"connection": null, "tariff": 5}), Health::Well),
        (connection(json!({"kaspi_connected": true})), Health::Well),
        (connection(json!({"kaspi_connected": null})), Health::Well),
        (
            connection(json!({"kaspi_connected": "false"})),
            Health::Well,
        ),
        (
            connection(json!({"kaspi_connected": false})),
            session.clone(),
        ),
        (connection(json!({"needs_reauth": false})), Health::Well),
        (connection(json!({"needs_reauth": true})), session.clone()),
        (
            connection(json!({"session_status": "active"})),
            Health::Well,
        ),
        (connection(json!({"session_status": null})), Health::Well),
        (
            connection(json!({"session_status": "expired"})),
            session.clone(),
        ),
        (
            connection(json!({"session_status": "error"})),
            session.clone(),
        ),
        (status(json!("active")), Health::Well),
        (status(json!("trial")), Health::Well),
        (status(json!("none")), tariff.clone()),
        (status(json!("frozen")), tariff.clone()),
        (status(json!("expired")), tariff),
        (
            json!({"connection": {"needs_reauth": true}, "tariff": {"status": "expired"}}),
            session,
        ),
        // Accepted and held by the gateway: that is its promise to keep.
        (json!({"invoicing": {"accumulating": true}}), Health::Well),
    ] {
        check(&json_reply(200, body), &expected);
    }
}

#[test]
fn a_probe_without_health() {
    let not_ready = Health::Unwell(Reason::OrganizationNotReady);
    for (answer, expected) in [
        (coded(404, "x"), Health::Unwell(Reason::RouteNotFound)),
        (coded(422, "x"), not_ready.clone()),
        (coded(410, "x"), not_ready.clone()),
        (coded(400, "organization_required"), not_ready),
        (coded(401, "x"), Health::Unwell(Reason::KeyRejected)),
        (
            coded(403, "tariff_inactive"),
            Health::Unwell(Reason::TariffInactive),
        ),
        (
            coded(503, "invoices_disabled"),
            Health::Unwell(Reason::InvoicesDisabled),
        ),
        (coded(429, "request_rate_limited"), Health::Unclear),
        (coded(409, "kaspi_session_unavailable"), Health::Unclear),
        (coded(500, "x"), Health::Unclear),
        (
            reply(404, Body::Text("Not Found".to_owned())),
            Health::Unwell(Reason::RouteNotFound),
        ),
        (reply(503, Body::Broken), Health::Unclear),
        (json_reply(200, json!([])), Health::Unclear),
        (reply(200, Body::Text("ok".to_owned())), Health::Unclear),
        (Answer::NotSent(NotSent::Dns), Health::Unclear),
        (Answer::Lost(Lost::Timeout), Health::Unclear),
    ] {
        check(&answer, &expected);
    }
}

#[test]
fn an_account_starts_again_slowly() {
    let rules = rules().breaker;
    let limit = |full, elapsed| slow_start_limit(full, Some(seconds(elapsed)), &rules);
    let limits =
        |full| [0, 14, 15, 29, 30, 44, 45, 59, 60, 600].map(|elapsed| limit(full, elapsed));
    assert_eq!(limits(8), [1, 1, 2, 2, 4, 4, 8, 8, 8, 8]);
    assert_eq!(limits(10), [1, 1, 2, 2, 4, 4, 8, 8, 10, 10]);
    assert_eq!(limits(1), [1; 10]);
    assert_eq!(slow_start_limit(8, None, &rules), 8);
    let at_once = BreakerRules {
        slow_start: Duration::ZERO,
        ..rules
    };
    assert_eq!(slow_start_limit(8, Some(Duration::ZERO), &at_once), 8);
}

proptest! {
    #[test]
    fn a_slow_start_only_grows(full in 1_usize.., one in 0_u64..70_000, two in 0_u64..70_000) {
        let rules = rules().breaker;
        let limit = |ms| slow_start_limit(full, Some(Duration::from_millis(ms)), &rules);
        let (early, late) = (limit(one.min(two)), limit(one.max(two)));
        prop_assert!(1 <= early && early <= late && late <= full);
    }
}

#[test]
fn a_job_proves_an_account_well_by_an_answer_that_takes_it_for_what_it_is() {
    let answered = |status, body| timed(json_reply(status, body));
    let kind = create();
    let rules = rules();
    let proves = |timed: &Timed| {
        let verdict = judge(
            kind.operation,
            &kind.plan,
            NAME,
            &clean(),
            timed,
            at(&rules),
        );
        trial(timed, &verdict)
    };
    let accepted = json!({"id": 15, "status": "processing", "amount": "5000.00"});
    for (timed, expected) in [
        (answered(201, accepted), Trial::Taken),
        (
            answered(422, json!({"message": "amount: too much"})),
            Trial::Taken,
        ),
        // It would lift the wait that this asks for.
        (
            answered(429, json!({"message": "Too Many Attempts."})),
            Trial::NotTaken,
        ),
        (
            answered(503, json!({"message": "Service Unavailable"})),
            Trial::NotTaken,
        ),
        (answered(502, json!({})), Trial::NotTaken),
        (timed(Answer::Lost(Lost::Timeout)), Trial::NotTaken),
        (timed(Answer::NotSent(NotSent::Connect)), Trial::NotTaken),
    ] {
        assert_eq!(proves(&timed), expected, "{timed:?}");
    }
}

/// A clear answer to it is about the job; what none of its kind gets is no reason to try the next.
#[test]
fn what_is_read_before_a_send_proves_nothing_of_the_account() {
    let answered = |status, body| timed(json_reply(status, body));
    for (timed, expected) in [
        (answered(200, json!({"invoices": []})), Trial::Unsent),
        (
            answered(404, json!({"message": "Invoice not found"})),
            Trial::Unsent,
        ),
        (
            answered(429, json!({"message": "Too Many Attempts."})),
            Trial::NotTaken,
        ),
        (
            answered(403, json!({"error_code": "tariff_inactive"})),
            Trial::NotTaken,
        ),
        (answered(500, json!({})), Trial::NotTaken),
        (answered(503, json!({})), Trial::NotTaken),
        (timed(Answer::Lost(Lost::Timeout)), Trial::NotTaken),
        (timed(Answer::NotSent(NotSent::Connect)), Trial::NotTaken),
    ] {
        assert_eq!(trial_of_read(&timed), expected, "{timed:?}");
    }
}

#[test]
fn a_job_is_put_back_for_a_reason_of_its_own_or_for_one_of_the_daemon() {
    for cause in NotSent::ALL {
        let expected = match cause {
            NotSent::KeyTooOld | NotSent::UnknownOperation => Trial::Unsent,
            cause if cause.is_of_the_network() => Trial::NotTaken,
            _ => Trial::NotNow,
        };
        assert_eq!(trial_put_back(cause), expected, "{cause:?}");
    }
}

/// Trials that end so one after another, each so long after the first began: what each next one chooses from, and what
/// they come to.
fn tries(trials: &[(Trial, u64)], time: u64) -> (Vec<Choice>, Option<Trial>) {
    let mut tries = Tries::NONE;
    let mut choices = Vec::new();
    for (trial, since) in trials {
        match tries.after(*trial, seconds(*since), seconds(time)) {
            Ok(so_far) => tries = so_far,
            Err(trial) => return (choices, Some(trial)),
        }
        choices.push(tries.choice);
    }
    (choices, None)
}

#[test]
fn a_probe_tries_the_next_job_only_after_one_of_which_nothing_was_sent() {
    for trial in TRIALS {
        let (choices, come_to) = tries(&[(trial, 29)], 30);
        if matches!(trial, Trial::Wrong | Trial::Unsent) {
            assert_eq!((choices, come_to), (vec![Choice::Any], None));
        } else {
            assert_eq!((choices, come_to), (vec![], Some(trial)));
            let later = match trial {
                Trial::NotNow => Trial::Unsent,
                trial => trial,
            };
            for before in [Trial::Wrong, Trial::Unsent] {
                let (_, come_to) = tries(&[(before, 1), (trial, 29)], 30);
                assert_eq!(come_to, Some(later));
            }
        }
    }
}

#[test]
fn after_twenty_jobs_or_its_time_a_probe_tries_the_parked_ones_and_wrong_ones_do_not_count() {
    let unsent = [(Trial::Unsent, 1); 20];
    let (choices, come_to) = tries(&unsent, 30);
    assert_eq!((choices[18], choices[19]), (Choice::Any, Choice::Parked));
    assert_eq!(come_to, None);
    for trial in [Trial::Wrong, Trial::Unsent] {
        let (choices, _) = tries(&[(trial, 29), (trial, 30)], 30);
        assert_eq!(choices, [Choice::Any, Choice::Parked]);
    }
    let (choices, come_to) = tries(&[(Trial::Wrong, 29); 1000], 30);
    assert!(choices.iter().all(|choice| *choice == Choice::Any));
    assert_eq!(come_to, None);
}

/// Where none is parked, or the parked one is not sent either, it is as if nothing had been tried.
#[test]
fn what_the_last_trial_of_a_probe_comes_to() {
    for trial in TRIALS {
        let (choices, come_to) = tries(&[(Trial::Unsent, 30), (trial, 60)], 30);
        let expected = match trial {
            Trial::Done | Trial::Taken | Trial::NotTaken => trial,
            Trial::Wrong | Trial::Unsent | Trial::NoJob | Trial::NotNow => Trial::Unsent,
        };
        assert_eq!(
            (choices, come_to),
            (vec![Choice::Parked], Some(expected)),
            "{trial:?}"
        );
    }
}

const TRIALS: [Trial; 7] = [
    Trial::Done,
    Trial::Taken,
    Trial::Wrong,
    Trial::Unsent,
    Trial::NotTaken,
    Trial::NoJob,
    Trial::NotNow,
];

#[test]
fn a_job_that_is_taken_proves_an_account_well_unless_what_was_taken_failed_at_kaspi() {
    let expected = |undelivered| TRIALS.map(|trial| probed(trial, undelivered));
    use Probed::{Believed, Proven, Wait, WaitForJob, WaitUnused};
    let taken = [Proven, Proven, WaitUnused, WaitUnused, Wait, Believed, Wait];
    assert_eq!(expected(false), taken);
    let delivered = [Proven, Wait, WaitUnused, WaitUnused, Wait, WaitForJob, Wait];
    assert_eq!(expected(true), delivered);
}

/// As shipped: a minute, then ever longer, to a quarter of an hour.
#[test]
fn an_account_whose_invoices_die_makes_seven_of_them_in_the_first_hour_and_four_in_each_later_one()
{
    let rules = BreakerRules {
        probe_initial: seconds(60),
        probe_max: seconds(900),
        slow_start: seconds(60),
    };
    for jitter in [0.0, 0.5, 1.0] {
        let mut at = Duration::ZERO;
        let mut dead = [0_u32; 6];
        let mut probes = 0;
        loop {
            at += probe_delay(&rules, probes, None, Jitter::new(jitter));
            let Some(hour) = dead.get_mut(at.as_secs() as usize / 3600) else {
                break;
            };
            // Health says well each time, and the gateway takes the job.
            assert_eq!(probed(Trial::Taken, true), Probed::Wait);
            *hour += 1;
            probes += 1;
        }
        assert!((6..=7).contains(&dead[0]), "{jitter} {dead:?}");
        assert!(dead[1..].iter().all(|hour| *hour <= 4), "{jitter} {dead:?}");
    }
}
