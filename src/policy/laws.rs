//! What holds for every decision, whatever the gateway answers.

mod any;
mod life;
mod world;

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use crate::domain::account::DuplicateProtection;
use crate::domain::answer::{Answer, Body, Limits, Reply, Timed};
use crate::domain::codes::Class;
use crate::domain::job::{History, JobName};
use crate::domain::operation::{Progress, Resend};
use crate::domain::state::State;
use crate::policy::breaker::{health, probe_delay};
use crate::policy::checks::{NextCheck, Sighting, next_check};
use crate::policy::finding::{Finding, Subject};
use crate::policy::fixtures::*;
use crate::policy::follow::{Spans, follow};
use crate::policy::hints;
use crate::policy::judge::{Circumstances, conclude, judge, signal_of};
use crate::policy::reconcile::{is_word_unconfirmed, key_may_be_free, reconcile, without_baseline};
use crate::policy::rules::Jitter;
use crate::policy::verdict::{AccountSignal, Effect, Next, Proof, Reason, Scope, Verdict};

use any::*;

/// No wait is longer: the longest cap, and its jitter.
const WAIT_MAX: Duration = seconds(31 * 24 * 3600 + 60);

fn wait_of(next: &Next) -> Option<Duration> {
    match next {
        Next::Queued { after, .. } | Next::Uncertain { after, .. } => Some(*after),
        _ => None,
    }
}

/// What holds for every verdict about a send, a look-up or a baseline, of a job in this state.
fn assert_lawful(verdict: &Verdict, from: State) {
    let next = &verdict.next;
    assert!(from.may_become(next.state()), "{from}: {verdict:?}");
    if verdict.effect == Effect::Unknown {
        assert!(
            matches!(next, Next::Uncertain { .. } | Next::Held(_)),
            "{verdict:?}"
        );
    }
    if let Next::Parked(reason) = next {
        let parks = matches!(&verdict.signal, Some(AccountSignal::Park { reason: why, .. }) if why == reason);
        assert!(parks, "a parked job without a parked account: {verdict:?}");
        assert!(!verdict.counts);
    }
    if matches!(next, Next::Succeeded(_) | Next::Accepted { .. }) {
        assert_eq!(verdict.effect, Effect::Applied);
    }
    if let Next::Failed(_) | Next::Queued { .. } = next {
        assert!(
            matches!(verdict.effect, Effect::Rejected | Effect::NotApplied),
            "{verdict:?}"
        );
    }
    assert!(
        !matches!(next, Next::Resubmit(_)),
        "only what is followed is resubmitted"
    );
    assert!(
        wait_of(next).is_none_or(|wait| wait <= WAIT_MAX),
        "{verdict:?}"
    );
    if let Some(AccountSignal::Block { wait, .. }) = &verdict.signal {
        assert!(seconds(1) <= *wait && *wait <= WAIT_MAX, "{verdict:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    /// An effect that is unknown, now or before, is looked up before anything else.
    #[test]
    fn what_is_unproven_is_neither_sent_again_nor_given_up(
        kind in any_kind(), history in any_history(), timed in any_timed(), random in any_jitter(),
    ) {
        let rules = rules();
        let at = Circumstances { jitter: random, ..at(&rules) };
        let verdict = judge(kind.operation, &kind.plan, NAME, &history, &timed, at);
        assert_lawful(&verdict, State::Sending);
        if history.unproven_since.is_some() {
            prop_assert!(!matches!(verdict.next, Next::Queued { .. } | Next::Failed(_)), "{verdict:?}");
        }
        if let Next::Queued { proof, .. } = verdict.next {
            prop_assert_eq!(proof, Proof::Unchanged);
        }
        if verdict.effect == Effect::Unknown {
            let left = rules.request_timeout.saturating_sub(timed.took);
            prop_assert!(verdict.counts);
            prop_assert!(wait_of(&verdict.next).is_none_or(|wait| wait >= left), "{verdict:?}");
        }
    }

    /// Waiting out a limit or a fault of the account is free, and no shorter than was asked for.
    #[test]
    fn a_limit_costs_nothing_and_is_kept(
        kind in any_kind(), history in any_history(), reply in any_reply(), random in any_jitter(),
    ) {
        let rules = rules();
        let at = Circumstances { jitter: random, ..at(&rules) };
        let class = reply.class();
        let hint = hints::wait(&reply, NOW).unwrap_or_default();
        let timed = timed(Answer::Reply(reply));
        for verdict in [
            judge(kind.operation, &kind.plan, NAME, &history, &timed, at),
            without_baseline(&history, &timed, at),
        ] {
            let (floor, most) = match class {
                Class::Throttled | Class::RecipientThrottled => (seconds(1), hints::RATE_WAIT_MAX),
                Class::Capped => (rules.rate_limited.initial, hints::CAP_WAIT_MAX),
                Class::AccountFault(_) => {
                    prop_assert!(matches!(verdict.next, Next::Parked(_)) && !verdict.counts);
                    continue;
                }
                _ => continue,
            };
            let wait = wait_of(&verdict.next).expect("it waits");
            prop_assert!(!verdict.counts);
            let least = hint.min(most).max(floor);
            if let Some(AccountSignal::Block { wait: blocked, scope, .. }) = &verdict.signal {
                prop_assert!(*blocked >= least, "{blocked:?} {hint:?}");
                // What is asked does not wait for the end of a cap of sends.
                let is_asked = history.unproven_since.is_some() && *scope != Scope::Everything;
                prop_assert!(is_asked || *blocked == wait, "{verdict:?}");
            } else {
                prop_assert!(wait >= least, "{wait:?} {hint:?}");
            }
        }
    }

    /// A second hint never shortens what the first one asked for, unless it is of the better kind, or
    /// tells what the first one meant.
    #[test]
    fn a_hint_only_lengthens(reply in any_reply(), more in any_limits()) {
        let rules = rules();
        let wait = |reply: &Reply| match signal_of(reply, None, at(&rules)) {
            Some(AccountSignal::Block { wait, .. }) => wait,
            Some(AccountSignal::Park { hint, .. }) => hint.unwrap_or_default(),
            None => Duration::ZERO,
        };
        let (mut less, mut both) = (reply.clone(), reply);
        less.limits = Limits { date: more.date.clone(), ..Limits::default() };
        both.limits = more;
        let is_better = hints::in_seconds(&less).is_none() && hints::in_seconds(&both).is_some();
        prop_assume!(both.class() == Class::Capped || !is_better);
        if hints::wait(&less, NOW).is_some() {
            prop_assert!(wait(&both) >= wait(&less));
        }
        prop_assert!(hints::wait(&both, NOW) >= hints::wait(&less, NOW));
    }

    #[test]
    fn a_probe_waits_for_the_hint_and_for_its_turn(
        probes in any::<u32>(), hint in prop::option::of(any::<u64>()), random in any_jitter(),
    ) {
        let rules = rules().breaker;
        let plain = probe_delay(&rules, probes.saturating_sub(1), None, random);
        let hinted = probe_delay(&rules, probes.saturating_sub(1), hint.map(seconds), random);
        let day = seconds(24 * 3600);
        prop_assert!(plain >= rules.probe_initial && hinted >= plain);
        prop_assert!(hinted >= hint.map_or(Duration::ZERO, seconds).min(day) && hinted <= day);
    }

    /// Only a look-up lets a job with an unproven request go out again, and only with the protection
    /// that its kind and its account have.
    #[test]
    fn a_look_up_lets_go_only_what_is_protected(
        kind in any_kind(), history in any_history(), finding in any_finding(),
        lookup_only in any::<bool>(), baseline in prop::option::of(any_baseline()), random in any_jitter(),
    ) {
        let rules = rules();
        let at = Circumstances { jitter: random, ..at(&rules) };
        let finding = suited(&kind, finding);
        let protection = match lookup_only {
            true => DuplicateProtection::Lookup,
            false => DuplicateProtection::Key,
        };
        let subject = Subject {
            operation: kind.operation, plan: &kind.plan, name: NAME, history: &history,
            protection, baseline: baseline.as_ref(),
        };
        let verdict = reconcile(&subject, &finding, at);
        assert_lawful(&verdict, State::Uncertain);
        prop_assert!(!verdict.counts);
        // After a person's word that nothing was done, what is dead was seen to.
        let nothing_ours = if history.is_denied() { !shows_ours_alive(&finding) } else { !shows_ours(&finding) };
        let is_unclear = matches!(finding, Finding::Unclear(_));
        // No request is sent on a word alone, however long nobody has told otherwise.
        prop_assert!(!(is_unclear && matches!(verdict.next, Next::Queued { .. })), "{verdict:?}");
        let is_missing = matches!(verdict.next, Next::Failed(Reason::Refused));
        if is_unclear && !is_missing && is_word_unconfirmed(&history, at) {
            prop_assert_eq!(&verdict.next, &Next::Held(Reason::Unconfirmed));
            prop_assert_eq!(verdict.effect, Effect::Unknown);
        }
        // Sent twice with one key, which is free again: what the second made may not be shown yet.
        let may_hide_another = !lookup_only && history.is_repeated && shows_free_key(&finding);
        // A person's word stands for the first look-up that found nothing, as from the last request.
        let settled_since = match history.denied_since {
            Some(denied) => Some(history.sent_at.max(history.unproven_since).unwrap_or(denied)),
            None => history.absent_since,
        };
        let settled = settled_since.is_some_and(|since| NOW - since >= rules.settle);
        match &verdict.next {
            Next::Queued { proof, .. } => match kind.plan.resend {
                Resend::Harmless => {}
                Resend::ByProtection => {
                    prop_assert!(nothing_ours && (settled || !key_may_be_free(&history, at)));
                    prop_assert!(settled || !lookup_only, "one look-up, no key: {verdict:?}");
                    prop_assert_eq!(*proof == Proof::NothingApplied, settled);
                }
                Resend::ByBaseline => {
                    prop_assert!(nothing_ours && *proof == Proof::NothingApplied);
                    if let Some(known) = &baseline {
                        prop_assert!(settled && !shows_stranger(&finding, known), "{verdict:?}");
                    }
                }
            },
            Next::Uncertain { absent: true, .. } => {
                prop_assert!(nothing_ours || may_hide_another && !settled, "{verdict:?}");
                prop_assert!(!matches!(finding, Finding::Unclear(_)));
            }
            Next::Succeeded(_) | Next::Accepted { .. } => {
                prop_assert!(!matches!(finding, Finding::Unclear(_)));
            }
            _ => {}
        }
    }

    /// Nothing that stays accepted is left alone: each answer sets the next look.
    #[test]
    fn an_accepted_job_is_looked_at_again(
        kind in any_kind(), history in any_history(), status in any_status(), code in any_code(),
        unchanged_for in any_span(), accepted_for in any_span(), resumed in proptest::option::of(any_span()), random in any_jitter(),
    ) {
        let rules = rules();
        let at = Circumstances { jitter: random, ..at(&rules) };
        let seen = object(&kind, &status, &code);
        let spans = Spans { unchanged: unchanged_for, accepted: accepted_for, resumed };
        let usual = |unchanged_for| {
            let sighting = Sighting { unchanged_for, is_invoice_read: true, ..Sighting::FIRST };
            next_check(seen.outlook(), sighting, &rules.follow, random)
        };
        let (operation, plan) = (kind.operation, &kind.plan);
        let followed = follow(operation, plan, &history, &seen, spans, at);
        if let None | Some(Next::Accepted { .. }) = followed.next {
            let check = followed.check_after.map_or(usual(unchanged_for), NextCheck::After);
            prop_assert_ne!(check, NextCheck::Settled);
        }
        // An object is stored with its usual check when its job is accepted; a cancel that cannot be
        // done is not.
        let progress = operation.progress(&seen);
        let ends = kind.plan.resend == Resend::Harmless && progress == Progress::Failed;
        let concluded = conclude(seen.clone(), progress);
        if let (Next::Accepted { .. }, false) = (concluded, ends) {
            prop_assert_ne!(usual(Duration::ZERO), NextCheck::Settled);
        }
        let strays = matches!(followed.next, Some(Next::Parked(_) | Next::Held(_) | Next::Uncertain { .. }));
        prop_assert!(!strays);
        let becomes = followed.next.as_ref().map(Next::state);
        prop_assert!(becomes.is_none_or(|to| State::Accepted.may_become(to)), "{becomes:?}");
    }

    /// Whatever a proxy or a newer gateway writes is read without a panic.
    #[test]
    fn any_answer_is_judged(kind in any_kind(), history in any_history(), reply in any_reply()) {
        let rules = rules();
        let answer = Answer::Reply(reply.clone());
        health(&answer);
        signal_of(&reply, None, at(&rules));
        let timed = Timed { answer, took: Duration::MAX };
        assert_lawful(&judge(kind.operation, &kind.plan, NAME, &history, &timed, at(&rules)), State::Sending);
        assert_lawful(&without_baseline(&history, &timed, at(&rules)), State::Sending);
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Attempts are bounded, whatever is answered, found and seen, but for those that die of the account: these
    /// are as many as there are probes.
    #[test]
    fn no_job_is_sent_for_ever(
        kind in any_kind(), protection in any_protection(), facts in prop::collection::vec(any_facts(), 1..60),
    ) {
        let most = life::sends_at_most(&rules());
        let mut job = life::Job::new(kind, protection);
        for facts in facts {
            job.step(&facts);
            prop_assert!(job.history.attempts <= most + job.history.spared, "{job:?}");
        }
    }

    /// A look-up that stays unclear ends with a human, not with patience.
    #[test]
    fn no_job_is_looked_up_for_ever(
        kind in any_kind(), first in any_facts(), unclear in prop::collection::vec(any_timed(), 1..9),
    ) {
        let mut job = life::Job::new(kind, DuplicateProtection::Key);
        job.step(&first);
        for timed in unclear.into_iter().cycle().take(200) {
            job.look_up(&Finding::Unclear(timed));
        }
        prop_assert!(!job.is_uncertain(), "{job:?}");
    }

    /// A gateway that tells the truth about its objects, however it answers requests: there is never
    /// a second bill or a second refund, and what a job ends with is what the gateway's books say.
    #[test]
    fn a_truthful_gateway_never_does_it_twice(
        kind in any_kind(), honours_key in any::<bool>(), tape in prop::collection::vec(any::<u16>(), 40..400),
    ) {
        world::World::new(kind, honours_key, tape).run();
    }
}

/// The laws would be empty if the generators made none of what they are about.
#[test]
fn the_generators_reach_every_class() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = std::collections::BTreeMap::new();
    for _ in 0..3000 {
        let reply = any_reply()
            .new_tree(&mut runner)
            .expect("a reply")
            .current();
        let class = format!("{:?}", reply.class());
        let name = class.split('(').next().expect("a word").to_owned();
        *seen.entry(name).or_insert(0) += 1;
    }
    for class in "Success DuplicateKey Refused StateRefused Throttled RecipientThrottled Capped Busy AccountFault Unknown".split(' ') {
        assert!(seen.get(class).is_some_and(|count| *count > 10), "{class}: {seen:?}");
    }
}
