//! What requests say of the gateway, when an account slows down, and an hour of each failure.

use serde_json::json;

use super::*;
use crate::domain::answer::{Body, Lost, NotSent};
use crate::policy::fixtures::*;
use crate::policy::judge::judge;

/// A row of sends, from the words of their signs: a job's number failed, `+` a clear answer, `t` a failed
/// trial, `s` a trial that proved nothing.
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
                job => (Errand::Send, job.parse().expect("a number"), &failing),
            };
            known.after(errand, JobId(job), sign, at(&rules))
        })
}

fn trial_in(outage: &Outage) -> Option<u64> {
    let at = outage.sends.as_ref()?.trial_at?;
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
        ("1 2 3 t t t +", None, false),
        ("1 2 3 + 4 5", None, false),
    ] {
        let outage = after(words);
        assert_eq!(trial_in(&outage), trial, "{words}");
        assert_eq!(
            (outage.is_slow(), outage.tells()),
            (trial.is_some(), tells),
            "{words}"
        );
    }
    assert!(after("1 2 3 t +").is_over());
}

#[test]
fn one_job_alone_slows_nobody() {
    let outage = after("7 7 7 7 7 7 7 7 7");
    assert_eq!((outage.is_slow(), outage.tells()), (false, false));
    assert_eq!(outage.sends.map(|row| row.failures), Some(1));
}

#[test]
fn look_ups_end_nothing_and_slow_down_by_themselves() {
    let rules = rules();
    let failing = Sign::Failing(fault(&timed(coded(502, "x"))));
    let slow = after("1 2 3");
    let looked = slow
        .clone()
        .after(Errand::Lookup, JobId(1), &Sign::Clear, at(&rules));
    assert_eq!(looked, slow);
    let mut reads = slow.clone();
    let mut waits = Vec::new();
    for _ in 0..12 {
        reads = reads.after(Errand::Lookup, JobId(1), &failing, at(&rules));
        waits.push(reads.reads.next_at.map(|at| (at - NOW).whole_seconds()));
    }
    let expected = [5, 10, 20, 40, 80, 160, 320, 640, 900, 900].map(Some);
    assert_eq!(waits[..2], [None, None]);
    assert_eq!(waits[2..], expected);
    assert_eq!(reads.sends, slow.sends);
    let silent = reads
        .clone()
        .after(Errand::Lookup, JobId(1), &Sign::Silent, at(&rules));
    assert_eq!(silent, reads);
    let over = reads.after(Errand::Lookup, JobId(1), &Sign::Clear, at(&rules));
    assert_eq!(over, slow);
}

#[test]
fn a_fault_of_the_network_has_its_own_distances() {
    let rules = rules();
    let mut known = Outage::default();
    for job in 1..=3 {
        let answer = Answer::NotSent(NotSent::Dns);
        let sign = Sign::Failing(fault(&timed(answer)));
        known = known.after(Errand::Send, JobId(job), &sign, at(&rules));
    }
    assert_eq!(trial_in(&known), Some(1));
}

fn signs(answer: &Answer) -> [Sign; 2] {
    let (kind, rules, timed) = (create(), rules(), timed(answer.clone()));
    let verdict = judge(kind.operation, &kind.plan, &clean(), &timed, at(&rules));
    [false, true].map(|read_first| sign_of_send(&timed, &verdict, read_first))
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
    for silent in [
        coded(429, "request_rate_limited"),
        coded(429, "tariff_limit_reached"),
        reply(429, Body::Broken),
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
    let rules = rules();
    assert_eq!(told_after(&rules), seconds(5 + 10 + 20 + 40 + 80));
    for (since, expected) in [
        (None, false),
        (Some(NOW), false),
        (Some(NOW - seconds(154)), false),
        (Some(NOW - seconds(155)), true),
    ] {
        assert_eq!(tells_of_job(since, NOW, &rules), expected);
    }
}

mod hour;
