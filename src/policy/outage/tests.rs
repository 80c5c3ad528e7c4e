//! What requests say of the gateway, when an account slows down, and an hour of each failure.

use serde_json::json;

use super::*;
use crate::domain::answer::{Body, Lost, NotSent};
use crate::policy::fixtures::*;
use crate::policy::judge::judge;
use crate::policy::reconcile::without_earlier;

/// A row of sends, from the words of their signs: a job's number failed, `+` a clear answer, `t` a failed
/// trial, `s` a trial that proved nothing, `r` one that was refused for the limit.
fn after(words: &str) -> Outage {
    let rules = rules();
    let failing = Sign::Failing(fault(&timed(coded(502, "x"))));
    words
        .split_whitespace()
        .fold(Outage::default(), |known, word| {
            let (errand, job, sign) = match word {
                "+" => (Errand::Send, 99, &Sign::Clear),
                "t" => (Errand::Trial, 98, &failing),
                "s" => (Errand::Trial, 97, &Sign::Silent),
                "r" => (Errand::Trial, 96, &Sign::Refused),
                job => (Errand::Send, job.parse().expect("a number"), &failing),
            };
            known.after(errand, Some(JobId(job)), sign, at(&rules))
        })
}

fn trial_in(outage: &Outage) -> Option<u64> {
    let at = outage.sends.trial_at()?;
    Some(u64::try_from((at - NOW).whole_seconds()).expect("not in the past"))
}

#[test]
fn three_jobs_in_a_row_slow_an_account_and_its_trials_come_ever_later() {
    for (words, trial, tells) in [
        ("1", None, false),
        ("1 2", None, false),
        ("1 2 + 3", None, false),
        ("1 2 3", Some(5), false),
        ("1 2 1", Some(5), false),
        // What was under way is no trial.
        ("1 2 3 4 5 6 7 8", Some(5), false),
        ("1 2 3 t", Some(10), false),
        ("1 2 3 t 4 t", Some(20), false),
        ("1 2 3 t t t", Some(40), true),
        ("1 2 3 t t t t t t t t t", Some(900), true),
        ("1 2 3 t t s", Some(0), false),
        ("1 2 3 t t r", Some(0), false),
        ("1 2 3 t t t s", Some(0), true),
        ("1 2 3 t t t +", None, false),
        ("1 2 3 + 4 5", None, false),
    ] {
        let outage = after(words);
        assert_eq!(trial_in(&outage), trial, "{words}");
        assert_eq!(
            (outage.is_slow(), outage.sends.tells()),
            (trial.is_some(), tells),
            "{words}"
        );
    }
    assert_eq!(after("1 2 3 t +"), Outage::default());
}

#[test]
fn one_job_alone_slows_nobody() {
    let outage = after("7 7 7 7 7 7 7 7 7");
    assert_eq!((outage.is_slow(), outage.sends.tells()), (false, false));
    assert_eq!(outage.sends.failing.map(|row| row.failures), Some(1));
}

/// The seconds to each trial, and whether a human is told, after reads of one kind that all fail.
fn failing_reads(read: Read, job: impl Fn(i64) -> Option<JobId>) -> Vec<(Option<i64>, bool)> {
    let rules = rules();
    let failing = Sign::Failing(fault(&timed(coded(502, "x"))));
    let mut course = Course::default();
    let mut seen = Vec::new();
    for number in 0..12 {
        let errand = Errand::read(read, course.is_slow());
        course = course.after(errand, job(number), &failing, at(&rules));
        let wait = course.trial_at().map(|at| (at - NOW).whole_seconds());
        seen.push((wait, course.tells()));
    }
    seen
}

#[test]
fn reads_slow_down_and_are_told_as_sends_are_and_what_follows_is_asked_as_often_as_ever() {
    let waits = [5, 10, 20, 40, 80, 160, 320, 640, 900, 900];
    for read in Read::ALL {
        let most = if read == Read::LookUp { 900 } else { 600 };
        let slow = waits.iter().map(|wait| Some(*wait.min(&most)));
        let waits = [None, None].into_iter().chain(slow);
        let expected: Vec<_> = waits.enumerate().map(|(n, wait)| (wait, n >= 5)).collect();
        assert_eq!(failing_reads(read, |_| None), expected, "{read:?}");
        assert_eq!(
            failing_reads(read, |n| Some(JobId(n))),
            expected,
            "{read:?}"
        );
        // One job alone backs off by itself, and is told by itself.
        let alone = failing_reads(read, |_| Some(JobId(1)));
        assert_eq!(alone, vec![(None, false); 12], "{read:?}");
    }
}

#[test]
fn a_job_that_is_given_up_with_its_look_up_keeps_the_next_one_waiting_no_longer_than_the_first() {
    let rules = rules();
    let unanswered = timed(coded(502, "x"));
    let verdict = |next| Verdict {
        effect: Effect::Unknown,
        next,
        counts: false,
        signal: None,
    };
    let again = || Next::Uncertain {
        after: seconds(900),
        reason: Reason::LookupUnclear,
        invoice_id: None,
        absent: false,
    };
    let called_off = || Next::CalledOff {
        dead: None,
        is_seen: false,
    };
    let unknown = || Next::Held(Reason::UnknownOutcome);
    let unconfirmed = || Next::Held(Reason::Unconfirmed);
    let after = |course: Course, job, next| {
        let errand = Errand::read(Read::LookUp, course.is_slow());
        let sign = sign_of_lookup(&unanswered, &verdict(next));
        course.after(errand, Some(JobId(job)), &sign, at(&rules))
    };
    let wait = |course: &Course| course.trial_at().map(|at| (at - NOW).whole_seconds());
    let slow = (0..8).fold(Course::default(), |course, job| after(course, job, again()));
    assert_eq!(wait(&slow), Some(160));
    for ended in [unknown(), unconfirmed(), called_off()] {
        let given_up = after(slow.clone(), 8, ended);
        assert_eq!(wait(&given_up), Some(5));
        // It has failed all the same, and a person goes on being told.
        assert!(given_up.tells());
        assert_eq!(wait(&after(given_up, 9, again())), Some(640));
    }
    // Before the slow-down each job is looked up at its own time.
    let first = after(Course::default(), 1, unknown());
    assert_eq!((wait(&first), first.failing.is_some()), (None, true));
    // What was under way when look-ups slowed down says nothing of the next.
    let late = sign_of_lookup(&unanswered, &verdict(unknown()));
    let late = slow.after(
        Errand::Read(Read::LookUp),
        Some(JobId(9)),
        &late,
        at(&rules),
    );
    assert_eq!(wait(&late), Some(160));
}

#[test]
fn what_was_asked_before_the_slow_down_is_no_trial_of_it() {
    let rules = rules();
    let failing = Sign::Failing(fault(&timed(coded(502, "x"))));
    // Eight at once, none of which knew.
    let known = (1..=8).fold(Outage::default(), |known, job| {
        let errand = Errand::Read(Read::LookUp);
        known.after(errand, Some(JobId(job)), &failing, at(&rules))
    });
    let reads = known.course(Some(Read::LookUp));
    assert_eq!(reads.failing.as_ref().map(|row| row.failures), Some(3));
    assert!(reads.is_slow() && !reads.tells());
}

#[test]
fn each_kind_of_request_fails_and_recovers_by_itself() {
    let rules = rules();
    let failing = Sign::Failing(fault(&timed(coded(502, "x"))));
    let errands = [Errand::Send]
        .into_iter()
        .chain(Read::ALL.map(Errand::Read));
    for errand in errands.clone() {
        let mut known = Outage::default();
        for job in 1..=3 {
            known = known.after(errand, Some(JobId(job)), &failing, at(&rules));
        }
        for other in errands.clone().filter(|other| *other != errand) {
            let after = known.clone().after(other, None, &Sign::Clear, at(&rules));
            assert_eq!(after.course(errand.kind()), known.course(errand.kind()));
            assert!(
                !after.course(other.kind()).is_slow(),
                "{errand:?} {other:?}"
            );
        }
        let over = known.after(errand, None, &Sign::Clear, at(&rules));
        assert_eq!(over.course(errand.kind()), Course::default(), "{errand:?}");
    }
}

#[test]
fn a_read_of_a_slow_kind_waits_for_its_trial_and_never_longer_than_the_longest() {
    let rules = rules();
    let mut known = Outage::default();
    for job in 1..=3 {
        let failing = Sign::Failing(fault(&timed(coded(502, "x"))));
        known = known.after(
            Errand::Read(Read::Check),
            Some(JobId(job)),
            &failing,
            at(&rules),
        );
    }
    let longest = longest(&rules);
    for (read, after, may) in [
        (Read::Check, 0, false),
        (Read::Check, 4, false),
        (Read::Check, 5, true),
        (Read::Check, 900, true),
        // The clock was wrong when it was stored.
        (Read::Check, -5_000, true),
        (Read::Refunds, 0, true),
    ] {
        let now = NOW + time::Duration::seconds(after);
        assert_eq!(known.may_read(read, now, longest), may, "{read:?} {after}");
    }
    assert!(known.reads_slowly(Read::Check) && !known.reads_slowly(Read::Refunds));
}

#[test]
fn what_is_refused_for_the_limit_is_noted_until_one_is_not() {
    let rules = rules();
    let failing = Sign::Failing(fault(&timed(coded(502, "x"))));
    for errand in [Errand::Send, Errand::Read(Read::Check)] {
        let refused = |known: Course| known.after(errand, None, &Sign::Refused, at(&rules));
        let first = refused(Course::default());
        assert_eq!(first.refused_since, Some(NOW));
        assert!(first.failing.is_none());
        let later = Circumstances {
            now: NOW + seconds(60),
            ..at(&rules)
        };
        let again = first.clone().after(errand, None, &Sign::Refused, later);
        assert_eq!(again, first);
        assert_eq!(
            first.clone().after(errand, None, &Sign::Silent, later),
            first
        );
        for sign in [&Sign::Clear, &failing] {
            let through = first.clone().after(errand, None, sign, later);
            assert_eq!(through.refused_since, None, "{sign:?}");
        }
        // Failing goes on being known while the limit lets nothing through.
        let known = Course::default().after(errand, None, &failing, at(&rules));
        assert_eq!(refused(known.clone()).failing, known.failing);
    }
}

/// The alert of the cap tells of those.
#[test]
fn what_a_cap_refused_before_is_not_counted_as_refused_for_the_limit() {
    let rules = rules();
    let send = |known: Course, code, after| {
        let [sign, _] = signs(&coded(429, code));
        let now = NOW + seconds(after);
        let later = Circumstances { now, ..at(&rules) };
        known.after(Errand::Send, None, &sign, later)
    };
    let capped = send(Course::default(), "tariff_limit_reached", 0);
    let limited = send(capped, "request_rate_limited", 60);
    assert_eq!(limited.refused_since, Some(NOW + seconds(60)));
    let again = send(limited.clone(), "request_rate_limited", 90);
    assert_eq!(again, limited);
    assert_eq!(send(again, "trial_daily_limit", 120).refused_since, None);
    // A trial that a cap refuses proves nothing: the next one is due.
    let failing = Sign::Failing(fault(&timed(coded(502, "x"))));
    let trial = |known: Course, sign: &Sign| known.after(Errand::Trial, None, sign, at(&rules));
    let slow = (0..4).fold(Course::default(), |known, _| trial(known, &failing));
    let [capped, _] = signs(&coded(429, "tariff_limit_reached"));
    assert_eq!(trial(slow.clone(), &capped).trial_at(), Some(NOW));
    assert!(slow.trial_at() > Some(NOW));
}

#[test]
fn a_fault_of_the_network_has_its_own_distances() {
    let rules = rules();
    let mut known = Outage::default();
    for job in 1..=3 {
        let answer = Answer::NotSent(NotSent::Dns);
        let sign = Sign::Failing(fault(&timed(answer)));
        known = known.after(Errand::Send, Some(JobId(job)), &sign, at(&rules));
    }
    assert_eq!(trial_in(&known), Some(1));
}

fn signs(answer: &Answer) -> [Sign; 2] {
    let (kind, rules, timed) = (create(), rules(), timed(answer.clone()));
    let verdict = judge(
        kind.operation,
        &kind.plan,
        NAME,
        &clean(),
        &timed,
        at(&rules),
    );
    [false, true].map(|read_first| sign_of_send(&timed, &verdict, read_first))
}

/// Whatever it is answered, a question before the send is not answered by a refusal.
#[test]
fn a_refusal_of_what_is_asked_before_a_bill_is_sent_is_no_answer() {
    let rules = rules();
    let sign = |answer: Answer, attempts| {
        let timed = timed(answer);
        let history = attempted(attempts, clean());
        let verdict = without_earlier(&history, &timed, at(&rules));
        sign_of_send(&timed, &verdict, true)
    };
    for attempts in [0, 4] {
        for unclear in [coded(404, "x"), coded(422, "x"), coded(409, "x")] {
            let sign = sign(unclear, attempts);
            assert!(matches!(sign, Sign::Failing(_)), "{sign:?}");
        }
        assert_eq!(sign(coded(401, "x"), attempts), Sign::Silent);
        assert_eq!(sign(reply(503, Body::Broken), attempts), Sign::Silent);
    }
}

/// Whether what is asked for first is not answered, or left out: it keeps one bill from being sent, and says nothing of others.
#[test]
fn a_question_before_a_bill_is_sent_says_nothing_of_sends_but_that_the_limit_is_reached() {
    let rules = rules();
    let left_out = json_reply(200, json!({"invoices": []}));
    let refused = coded(429, "request_rate_limited");
    for (answer, expected) in [
        (left_out, Sign::Silent),
        (coded(404, "x"), Sign::Silent),
        (coded(500, "x"), Sign::Silent),
        (reply(502, Body::Broken), Sign::Silent),
        (reply(200, Body::Broken), Sign::Silent),
        (Answer::Lost(Lost::Timeout), Sign::Silent),
        (Answer::NotSent(NotSent::Dns), Sign::Silent),
        (coded(401, "x"), Sign::Silent),
        (refused, Sign::Refused),
    ] {
        let timed = timed(answer);
        let verdict = without_earlier(&clean(), &timed, at(&rules));
        let of_bill = sign_of_send(&timed, &verdict, true);
        let of_sends = sign_of_question(&of_bill);
        assert_eq!(of_sends, expected, "{timed:?}");
        // However many bills ask in vain, and also where one of them is the trial of a slow account.
        let mut known = Outage::default();
        for job in 1..=6 {
            known = known.after(Errand::Send, Some(JobId(job)), &of_sends, at(&rules));
        }
        assert_eq!(known.sends.failing, None, "{timed:?}");
        let slow = after("1 2 3 t");
        let next = slow.after(Errand::Trial, Some(JobId(9)), &of_sends, at(&rules));
        assert_eq!(
            (trial_in(&next), next.sends.failing.map(|row| row.failures)),
            (Some(0), Some(4))
        );
    }
    for sign in [Sign::Clear, Sign::Capped] {
        assert_eq!(sign_of_question(&sign), Sign::Silent);
    }
}

#[test]
fn what_each_answer_says_of_the_gateway() {
    let created = json_reply(201, json!({"id": 5, "status": "processing"}));
    for clear in [
        created,
        coded(422, "content_rejected"),
        coded(404, "x"),
        coded(409, "duplicate_idempotency_key"),
        coded(400, "Invoice cannot be cancelled"),
        coded(429, "outstanding_recipient_limit"),
        coded(401, "x"),
        coded(503, "x"),
        reply(503, Body::Broken),
    ] {
        assert_eq!(signs(&clear), [Sign::Clear, Sign::Silent], "{clear:?}");
    }
    let capped = coded(429, "tariff_limit_reached");
    assert_eq!(signs(&capped), [Sign::Capped, Sign::Refused]);
    for refused in [coded(429, "request_rate_limited"), reply(429, Body::Broken)] {
        assert_eq!(
            signs(&refused),
            [Sign::Refused, Sign::Refused],
            "{refused:?}"
        );
    }
    for silent in [
        Answer::NotSent(NotSent::Stopping),
        Answer::NotSent(NotSent::QuotaSpent),
        Answer::NotSent(NotSent::KeyTooOld),
    ] {
        assert_eq!(signs(&silent), [Sign::Silent, Sign::Silent], "{silent:?}");
    }
    let said = Some("Kaspi API error".to_owned());
    let page = json_reply(502, json!({"message": "Kaspi API error"}));
    for (failing, code, status, said) in [
        (page, "server_error", Some(502), said),
        (reply(504, Body::Broken), "server_error", Some(504), None),
        (
            reply(200, Body::Broken),
            "unreadable_answer",
            Some(200),
            None,
        ),
        (
            json_reply(201, json!([])),
            "unreadable_answer",
            Some(201),
            None,
        ),
        (reply(302, Body::Broken), "unlisted_answer", Some(302), None),
        (
            coded(409, "kaspi_session_unavailable"),
            "busy",
            Some(409),
            Some("текст".to_owned()),
        ),
        (Answer::Lost(Lost::Timeout), "timeout", None, None),
        (Answer::Lost(Lost::Cut), "connection_cut", None, None),
        (Answer::NotSent(NotSent::Dns), "dns_failed", None, None),
    ] {
        let fault = Fault {
            code: code.to_owned(),
            status,
            said,
        };
        let is_of_the_network = code == "dns_failed";
        assert_eq!(fault.is_of_the_network(), is_of_the_network, "{code}");
        let expected = Sign::Failing(fault);
        assert_eq!(signs(&failing), [expected.clone(), expected], "{failing:?}");
    }
}

#[test]
fn a_job_is_told_of_once_its_first_tries_would_be_over() {
    assert_eq!(told_after(&rules()), seconds(5 + 10 + 20 + 40 + 80));
}

#[test]
fn what_each_answer_to_a_read_says() {
    let read = |answer: Answer, is_usable| sign_of_read(&timed(answer), is_usable);
    for usable in [coded(200, "x"), coded(502, "x"), coded(429, "x")] {
        assert_eq!(read(usable, true), Sign::Clear);
    }
    for parking in [coded(503, "x"), reply(503, Body::Broken), coded(401, "x")] {
        assert_eq!(read(parking, false), Sign::Clear);
    }
    assert_eq!(
        read(coded(429, "request_rate_limited"), false),
        Sign::Refused
    );
    assert_eq!(
        read(Answer::NotSent(NotSent::Stopping), false),
        Sign::Silent
    );
    for unclear in [
        coded(502, "x"),
        coded(404, "x"),
        coded(422, "x"),
        reply(200, Body::Broken),
        json_reply(200, json!([])),
        Answer::Lost(Lost::Timeout),
        Answer::NotSent(NotSent::Dns),
    ] {
        assert!(
            matches!(read(unclear.clone(), false), Sign::Failing(_)),
            "{unclear:?}"
        );
    }
}

mod hour;

#[test]
fn a_job_that_failed_with_all_others_goes_on_early_and_one_that_fails_by_itself_does_not() {
    let rules = rules();
    // A curve that doubles: when it failed, how often so far, and how long it waits now.
    let mut failed_at = NOW;
    for attempt in 1..=20 {
        let delay = backoff::delay(&rules.server_error, attempt, Jitter::NONE);
        let wait = |unanswered_since| Wait {
            unanswered_since,
            failed_at,
            due_at: failed_at + delay,
        };
        // Nothing got through since its first try, or since the one before this.
        assert_eq!(
            goes_on_early(&wait(NOW), &rules),
            attempt > 1,
            "attempt {attempt}"
        );
        if attempt > 1 {
            let before = backoff::delay(&rules.server_error, attempt - 1, Jitter::NONE);
            assert!(
                goes_on_early(&wait(failed_at - before), &rules),
                "attempt {attempt}"
            );
        }
        // Another got through just before it, or a little earlier.
        assert!(
            !goes_on_early(&wait(failed_at), &rules),
            "attempt {attempt}"
        );
        assert!(
            !goes_on_early(&wait(failed_at - delay / 3), &rules),
            "attempt {attempt}"
        );
        // It has not failed in that time at all.
        assert!(!goes_on_early(&wait(failed_at + seconds(1)), &rules));
        failed_at += delay;
    }
}
