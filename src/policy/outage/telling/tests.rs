//! What is told of an account, for each combination of what may fail.

use super::*;
use crate::domain::job::JobId;
use crate::domain::outage::Course;
use crate::policy::fixtures::NOW;

/// A moment at which no trial of these is due.
const BEFORE_TRIAL: OffsetDateTime = NOW.saturating_sub(time::Duration::SECOND);

fn fault() -> Fault {
    Fault {
        code: "server_error".into(),
        status: Some(502),
        said: None,
    }
}

/// A course that has failed so often; from the third time on it is slow.
fn failed(failures: u32) -> Course {
    let row = Row {
        since: NOW,
        fault: fault(),
        failed_at: NOW,
        job: None,
        failures,
        trial_at: (failures >= 3).then_some(NOW),
    };
    Course {
        failing: (failures > 0).then_some(row),
        refused_since: None,
    }
}

fn job() -> FailingJob {
    FailingJob {
        id: JobId(7),
        operation: "invoice.create".into(),
        since: NOW,
        fault: fault(),
        asked_first: None,
        is_left_out: false,
        waits_for: None,
        others: 0,
    }
}

/// Something waits for each kind of request.
fn all() -> Awaited {
    Awaited {
        sends: true,
        reads: Read::ALL.into(),
    }
}

#[test]
fn the_worst_is_told_and_what_is_parked_is_told_otherwise() {
    // How often sends and checks have failed, and whether a job has for long.
    for (sends, checks, has_job, expected) in [
        (0, 0, false, None),
        (2, 5, false, None),
        (5, 5, false, None),
        (6, 0, false, Some("sends")),
        (6, 6, true, Some("sends")),
        // Slow, and one has waited for as long as one alone would.
        (3, 6, true, Some("sends")),
        (2, 0, true, Some("job")),
        (2, 6, true, Some("reads")),
        (0, 6, false, Some("reads")),
        (3, 6, false, Some("reads")),
        (0, 5, true, Some("job")),
    ] {
        let outage = Outage {
            sends: failed(sends),
            reads: [(Read::Check, failed(checks))].into(),
        };
        let job = has_job.then(job);
        let told = telling(&outage, false, &all(), job.as_ref(), None, BEFORE_TRIAL);
        let case = format!("{sends} {checks} {has_job}");
        assert_eq!(told.map(|told| told.fails()), expected, "{case}");
        assert_eq!(
            telling(&outage, true, &all(), job.as_ref(), None, BEFORE_TRIAL),
            None,
            "{case}"
        );
    }
}

/// Whether the gateway shows what such a job asks for first says nothing of sends, so what is told of these waits for trials.
#[test]
fn a_job_that_waits_to_be_shown_something_makes_no_slow_account_told() {
    for is_left_out in [false, true] {
        let unseen = FailingJob {
            asked_first: Some("POST /invoices/status/check".into()),
            is_left_out,
            ..job()
        };
        let of_refunds = FailingJob {
            waits_for: Some(Read::Refunds),
            ..unseen.clone()
        };
        for (sends, told, job, expected) in [
            (0, None, &unseen, "job"),
            (3, None, &unseen, "job"),
            (5, Some("job"), &unseen, "job"),
            (3, Some("sends"), &unseen, "sends"),
            (6, None, &unseen, "sends"),
            (3, None, &of_refunds, "sends"),
        ] {
            let outage = Outage {
                sends: failed(sends),
                ..Outage::default()
            };
            let now = BEFORE_TRIAL;
            let telling = telling(&outage, false, &all(), Some(job), told, now);
            let fails = telling.map(|telling| telling.fails());
            assert_eq!(fails, Some(expected), "{sends} {told:?} {job:?}");
        }
    }
}

#[test]
fn sends_that_cannot_be_tried_are_told_with_what_reads_get_since() {
    let timeout = Fault {
        code: "timeout".into(),
        status: None,
        said: None,
    };
    let second = std::time::Duration::from_secs(1);
    // When the look-up failed; the next send is due at `NOW`.
    for (failed_at, expected) in [
        (NOW - second, fault()),
        (NOW, fault()),
        (NOW + second, timeout.clone()),
    ] {
        let mut look_ups = failed(6);
        let row = look_ups.failing.as_mut().unwrap();
        (row.failed_at, row.fault) = (failed_at, timeout.clone());
        let outage = Outage {
            sends: failed(6),
            reads: [(Read::LookUp, look_ups)].into(),
        };
        let sends = failed(6).failing.unwrap();
        assert_eq!(
            telling(&outage, false, &all(), None, None, BEFORE_TRIAL),
            Some(Telling::Sends(&sends, &expected))
        );
    }
}

/// Nothing has waited for the account since its outage, and it may be over.
#[test]
fn that_sends_fail_is_no_news_while_their_trial_is_due() {
    let outage = Outage {
        sends: failed(6),
        ..Outage::default()
    };
    let after = NOW + time::Duration::SECOND;
    for job in [None, Some(job())] {
        let fails = |told, now| {
            let told = telling(&outage, false, &all(), job.as_ref(), told, now);
            told.map(|told| told.fails())
        };
        assert_eq!(fails(None, BEFORE_TRIAL), Some("sends"));
        assert_eq!(fails(None, after), None);
        for told in ["sends", "reads", "job"] {
            assert_eq!(fails(Some(told), after), Some("sends"));
        }
    }
}

#[test]
fn each_kind_of_reads_that_fails_is_told_with_what_the_first_of_them_gets() {
    for read in Read::ALL {
        let outage = Outage {
            sends: Course::default(),
            reads: [(read, failed(6))].into(),
        };
        let row = failed(6).failing.unwrap();
        assert_eq!(
            telling(&outage, false, &all(), None, None, BEFORE_TRIAL),
            Some(Telling::Reads(vec![read], &row, None))
        );
    }
    let mut older = failed(9);
    let row = older.failing.as_mut().unwrap();
    (row.since, row.fault.status) = (NOW - std::time::Duration::from_secs(60), Some(504));
    let outage = Outage {
        sends: Course::default(),
        reads: [
            (Read::LookUp, failed(6)),
            (Read::Check, failed(5)),
            (Read::Refunds, older.clone()),
        ]
        .into(),
    };
    let expected = Telling::Reads(
        vec![Read::LookUp, Read::Refunds],
        older.failing.as_ref().unwrap(),
        None,
    );
    assert_eq!(
        telling(&outage, false, &all(), None, None, BEFORE_TRIAL),
        Some(expected)
    );
}

/// What waits for those reads is told of with them.
#[test]
fn a_job_that_gets_no_clear_answer_is_told_beside_the_reads_that_fail() {
    let outage = Outage {
        sends: Course::default(),
        reads: [(Read::Check, failed(6)), (Read::LookUp, failed(6))].into(),
    };
    let row = failed(6).failing.unwrap();
    for (waits_for, is_named) in [
        (None, true),
        (Some(Read::Refunds), true),
        (Some(Read::LookUp), false),
    ] {
        let job = FailingJob { waits_for, ..job() };
        let reads = vec![Read::LookUp, Read::Check];
        let expected = Telling::Reads(reads, &row, is_named.then_some(&job));
        assert_eq!(
            telling(&outage, false, &all(), Some(&job), None, BEFORE_TRIAL),
            Some(expected)
        );
    }
}

#[test]
fn what_nothing_waits_for_is_not_told_and_ends_for_that() {
    let reads = |awaited: &[Read]| Awaited {
        sends: false,
        reads: awaited.iter().copied().collect(),
    };
    let both = Outage {
        sends: failed(6),
        reads: [(Read::LookUp, failed(7)), (Read::Check, failed(6))].into(),
    };
    let told = |awaited: &Awaited| telling(&both, false, awaited, None, None, BEFORE_TRIAL);
    assert_eq!(told(&reads(&[])), None);
    assert_eq!(told(&reads(&[Read::Code, Read::Refunds])), None);
    let check = failed(6).failing.unwrap();
    let expected = Telling::Reads(vec![Read::Check], &check, None);
    assert_eq!(told(&reads(&[Read::Check])), Some(expected));
    for (fails, outage, expected) in [
        ("sends", &both, Ending::NothingWaits),
        ("reads", &both, Ending::NothingWaits),
        ("job", &both, Ending::Answered),
        ("sends", &Outage::default(), Ending::Answered),
        ("reads", &Outage::default(), Ending::Answered),
    ] {
        assert_eq!(ending(outage, false, Some(fails)), expected, "{fails}");
        assert_eq!(ending(outage, true, Some(fails)), Ending::Parked, "{fails}");
    }
}

/// The job that had waited for longest is over, and others wait for the next trial.
#[test]
fn what_is_told_of_a_slow_account_stays_while_others_wait() {
    let outage = Outage {
        sends: failed(4),
        ..Outage::default()
    };
    let told = |before| {
        telling(&outage, false, &all(), None, before, BEFORE_TRIAL).map(|told| told.fails())
    };
    assert_eq!(told(None), None);
    assert_eq!(told(Some("job")), None);
    assert_eq!(told(Some("sends")), Some("sends"));
}

#[test]
fn what_an_attempt_kept_is_named_as_it_was_when_it_came() {
    for (status, kept, code) in [
        (Some(502), "lookup_unclear", "server_error"),
        (Some(500), "not_applied", "server_error"),
        (Some(409), "busy", "busy"),
        (Some(409), "lookup_unclear", "unlisted_answer"),
        (Some(302), "not_applied", "unlisted_answer"),
        (Some(403), "access_denied", "access_denied"),
        (Some(503), "session_expired", "session_expired"),
        (Some(503), "service_unavailable", "server_error"),
        (Some(200), "lookup_unclear", "unreadable_answer"),
        (Some(299), "lookup_unclear", "unreadable_answer"),
        (None, "dns_failed", "dns_failed"),
        (None, "timeout", "timeout"),
    ] {
        let fault = named(Fault {
            code: kept.into(),
            status,
            said: Some("x".into()),
        });
        assert_eq!(
            (fault.code.as_str(), fault.status),
            (code, status),
            "{kept}"
        );
        assert_eq!(fault.said.as_deref(), Some("x"));
    }
}

#[test]
fn what_is_not_sent_for_a_cause_of_ours_says_nothing_of_the_gateway() {
    let codes = not_theirs();
    for ours in ["stopping", "window_closed", "quota_spent", "lease_expired"] {
        assert!(codes.iter().any(|code| code == ours), "{ours}: {codes:?}");
    }
    for theirs in ["dns_failed", "connect_failed", "timeout", "connection_cut"] {
        assert!(!codes.iter().any(|code| code == theirs), "{theirs}");
    }
}

#[test]
fn what_is_told_stays_while_the_jobs_that_failed_go_on_and_nothing_worse_is_known() {
    let (job, known) = (job(), failed(6));
    let row = known.failing.as_ref().expect("it fails");
    let sends = Telling::Sends(row, &row.fault);
    let reads = Telling::Reads(vec![Read::LookUp], row, None);
    for (telling, told, is_kept) in [
        (None, Some(SENDS), true),
        (None, Some("job"), true),
        (Some(Telling::Job(&job)), Some(SENDS), true),
        (Some(sends), Some("job"), false),
        (Some(reads), Some(SENDS), false),
        (None, Some(READS), false),
    ] {
        assert_eq!(
            stays(telling.as_ref(), told),
            is_kept,
            "{telling:?} {told:?}"
        );
    }
}
