//! Invoices that the gateway cannot show: a check that asks about one of them fails for all that it asks about.
//!
//! Once checks of an account fail again and again with an answer to what was asked, they are divided: what failed is
//! asked about by halves until one invoice stands alone, then a part of the others follows, half as large as the last one
//! after each invoice that stood alone and twice as large after each part that was shown. So all that can be shown are
//! seen, and all others are passed over, however many there are and wherever they stand: of up to a hundred, which one
//! check asks about at most, with `k` of `n` that cannot be shown, after at most `k`·log₂(`n`/`k`) + 5·`k` + 24 checks.
//!
//! One that failed by itself is passed over, at a growing distance, and asked about by itself, only if the gateway showed
//! others right before. While it fails for all of them nobody is passed over, and nothing but what a check asks about
//! changes: how often one is made is decided elsewhere (see [`outage`](super::outage)).
//!
//! `now` is the time of a clock that nobody sets.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::policy::checks::left_out_distance;
use crate::policy::outage::Sign;
use crate::policy::rules::Jitter;

/// What is known of the invoices of an account that cannot be shown.
#[derive(Debug, Default)]
pub struct Division {
    /// While checks are divided.
    begun: Option<Begun>,
    /// In how many checks each failed that was not shown since, while they are not divided.
    in_vain: BTreeMap<i64, u32>,
    /// Those that failed by themselves.
    alone: BTreeMap<i64, Alone>,
    /// Whether others were shown since one last failed by itself, or since the division began.
    others_are_shown: bool,
}

/// How far a division has come. What is in none of its sets has not been asked about yet, or has to be once more.
#[derive(Debug)]
struct Begun {
    /// Those that were shown.
    good: BTreeSet<i64>,
    /// Those that failed by themselves while nothing was shown, and something was shown since: all others come first.
    suspects: BTreeSet<i64>,
    /// Sets of which none was shown when it was asked about, the last one first: the gateway cannot show one of each, at
    /// least. No two have an invoice in common.
    failed: Vec<BTreeSet<i64>>,
    /// About how many of the others a check asks.
    size: usize,
    /// Checks that failed in a row.
    failures: u32,
    /// Checks about all in a row, while nothing that failed was due.
    without_failed: u32,
}

/// An invoice that failed by itself.
#[derive(Debug)]
struct Alone {
    /// How often, with others shown before it each time.
    times: u32,
    due: Duration,
}

/// What a check asks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The gateway's ids of the invoices: one at least, where any is due.
    pub ids: Vec<i64>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// All that are due, but those that failed by themselves.
    All,
    /// Some of those that nothing is known of.
    Some,
    /// A part of what failed.
    Part,
    /// Those that were shown, to see whether they still are.
    Good,
    /// One that failed by itself.
    ByItself,
}

/// In so many checks one must have failed before they are divided.
const IN_VAIN: u32 = 3;

/// After so many checks that failed in a row the next one asks for what was shown: it is followed meanwhile, and where it
/// is shown checks go on at their usual distance.
const FAILURES: u32 = 2;

/// What failed and was not due in so many checks is settled, most likely.
const WITHOUT_FAILED: u32 = 1_000;

/// Whether a check failed with an answer, which may be about one of the invoices. No connection, no answer in time, a
/// refusal for the rate and what parks the account are not.
pub fn is_answer_to_content(sign: &Sign) -> bool {
    matches!(sign, Sign::Failing(fault) if fault.status.is_some())
}

impl Division {
    /// About which of these, which are due, the next check asks.
    pub fn to_ask(&self, due: &[i64], now: Duration) -> Question {
        let (alone, others): (Vec<i64>, Vec<i64>) =
            due.iter().partition(|id| self.alone.contains_key(id));
        let question = match &self.begun {
            None => Question::new(Kind::All, others),
            Some(begun) => begun.to_ask(others, self.others_are_shown),
        };
        let by_itself = alone.into_iter().min_by_key(|id| self.due(*id));
        let is_its_turn = |id: &i64| {
            let is_due = self.others_are_shown && self.due(*id).is_some_and(|due| due <= now);
            question.ids.is_empty() || question.kind == Kind::All && is_due
        };
        match by_itself.filter(is_its_turn) {
            Some(id) => Question::new(Kind::ByItself, vec![id]),
            None => question,
        }
    }

    /// How long one that is not asked about now waits.
    pub fn wait_of(&self, id: i64, now: Duration) -> Duration {
        self.due(id).unwrap_or_default().saturating_sub(now)
    }

    fn due(&self, id: i64) -> Option<Duration> {
        self.alone.get(&id).map(|alone| alone.due)
    }

    /// A check got an answer that shows none of what it asked about; `is_slow` when checks of the account have slowed
    /// down. Returns for how long the one that it was about is passed over, if it is.
    pub fn fail(
        &mut self,
        question: &Question,
        is_slow: bool,
        now: Duration,
        jitter: Jitter,
    ) -> Option<Duration> {
        if question.kind != Kind::ByItself {
            if self.begun.is_none() {
                self.begun = self.begin(&question.ids, is_slow);
            }
            self.begun.as_mut()?.fail(question);
        }
        let [id] = *question.ids else {
            return None;
        };
        let is_proven = std::mem::take(&mut self.others_are_shown);
        let alone = self.alone.entry(id).or_insert(Alone { times: 0, due: now });
        alone.due = now;
        if !is_proven {
            return None;
        }
        alone.times = alone.times.saturating_add(1);
        let wait = left_out_distance(alone.times, jitter);
        alone.due = now + wait;
        Some(wait)
    }

    /// A division, if it is time for one now that these were not shown.
    fn begin(&mut self, ids: &[i64], is_slow: bool) -> Option<Begun> {
        for id in ids {
            *self.in_vain.entry(*id).or_default() += 1;
        }
        let is_time = is_slow || ids.iter().any(|id| self.in_vain[id] >= IN_VAIN);
        is_time.then(|| {
            self.in_vain.clear();
            self.others_are_shown = false;
            Begun {
                good: BTreeSet::new(),
                suspects: BTreeSet::new(),
                failed: Vec::new(),
                size: ids.len(),
                failures: 0,
                without_failed: 0,
            }
        })
    }

    /// A check was answered.
    pub fn shown(&mut self, question: &Question) {
        for id in &question.ids {
            self.in_vain.remove(id);
            self.alone.remove(id);
        }
        self.others_are_shown = true;
        // Of those that failed by themselves while nothing was shown it may have been none: they are asked about again.
        let unproven = self.alone.extract_if(.., |_, alone| alone.times == 0);
        let suspects: BTreeSet<i64> = unproven.map(|(id, _)| id).collect();
        let is_all_known = suspects.is_empty();
        if let Some(begun) = &mut self.begun {
            begun.suspects.extend(suspects);
            if begun.shown(question) && is_all_known {
                self.begun = None;
            }
        }
    }
}

impl Begun {
    /// About which of these the next check asks: about none only if there are none.
    fn to_ask(&self, due: Vec<i64>, others_are_shown: bool) -> Question {
        let of = |set: &BTreeSet<i64>| -> Vec<i64> {
            due.iter().copied().filter(|id| set.contains(id)).collect()
        };
        let good = of(&self.good);
        let failed = self.failed.iter().map(of).find(|part| !part.is_empty());
        let question = match failed {
            Some(mut part) => {
                part.truncate((part.len() / 2).max(1));
                Question::new(Kind::Part, part)
            }
            None => {
                let unknown = due.iter().copied().filter(|id| !self.good.contains(id));
                let (suspects, mut others): (Vec<i64>, Vec<i64>) =
                    unknown.partition(|id| self.suspects.contains(id));
                let is_all = suspects.is_empty() || others.is_empty();
                others.extend(suspects.iter().filter(|_| is_all));
                if is_all && others.len() <= self.size {
                    Question::new(Kind::All, due.clone())
                } else {
                    others.truncate(self.size);
                    Question::new(Kind::Some, others)
                }
            }
        };
        // What fails by itself says something of itself only where others are shown.
        let proves_nothing = question.ids.len() == 1 && !others_are_shown;
        let is_long_in_vain = self.failures >= FAILURES && question.kind != Kind::All;
        let is_all_good = good.len() == due.len();
        if (proves_nothing || is_long_in_vain) && !good.is_empty() && !is_all_good {
            return Question::new(Kind::Good, good);
        }
        question
    }

    /// None of these was shown.
    fn fail(&mut self, question: &Question) {
        self.failures = self.failures.saturating_add(1);
        let ids: BTreeSet<i64> = question.ids.iter().copied().collect();
        self.failed.retain(|failed| failed.is_disjoint(&ids));
        if let [id] = *question.ids {
            self.good.remove(&id);
            self.suspects.remove(&id);
            self.size = (self.size / 2).max(1);
            return;
        }
        let unknown: BTreeSet<i64> = ids.difference(&self.good).copied().collect();
        if unknown.is_empty() {
            self.good.retain(|id| !ids.contains(id));
            self.failed.insert(0, ids);
        } else {
            self.failed.insert(0, unknown);
        }
    }

    /// These were shown. True when nothing is left to be divided.
    fn shown(&mut self, question: &Question) -> bool {
        self.failures = 0;
        for failed in &mut self.failed {
            failed.retain(|id| !question.ids.contains(id));
        }
        self.failed.retain(|failed| !failed.is_empty());
        self.suspects.retain(|id| !question.ids.contains(id));
        self.good.extend(&question.ids);
        if matches!(question.kind, Kind::All | Kind::Some) {
            self.size = self.size.saturating_mul(2);
        }
        self.without_failed = match question.kind {
            Kind::All => self.without_failed.saturating_add(1),
            Kind::Some | Kind::Good | Kind::ByItself => self.without_failed,
            Kind::Part => 0,
        };
        question.kind == Kind::All
            && (self.failed.is_empty() || self.without_failed >= WITHOUT_FAILED)
    }
}

impl Question {
    fn new(kind: Kind, ids: Vec<i64>) -> Question {
        Question { ids, kind }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::collection::btree_set;
    use proptest::prelude::*;

    use super::*;
    use crate::domain::outage::Fault;

    const SECOND: Duration = Duration::from_secs(1);

    /// The checks of an account, one a second.
    #[derive(Default)]
    struct Checks {
        division: Division,
        now: Duration,
        /// How many failed in a row.
        failures: u32,
        /// What each asked about, and for how long what it was about is passed over.
        made: Vec<(Question, Option<Duration>)>,
    }

    impl Checks {
        /// One check of these, which are due. Returns what was shown.
        fn one(&mut self, due: &[i64], is_bad: impl Fn(i64) -> bool) -> Vec<i64> {
            self.now += SECOND;
            let question = self.division.to_ask(due, self.now);
            assert!(!question.ids.is_empty());
            assert!(question.ids.iter().all(|id| due.contains(id)));
            let fails = question.ids.iter().any(|id| is_bad(*id));
            let (mut wait, mut shown) = (None, Vec::new());
            if fails {
                self.failures += 1;
                let is_slow = self.failures >= 3;
                wait = (self.division).fail(&question, is_slow, self.now, Jitter::NONE);
            } else {
                self.failures = 0;
                self.division.shown(&question);
                shown.clone_from(&question.ids);
            }
            self.made.push((question, wait));
            shown
        }

        fn many(&mut self, count: usize, due: &[i64], is_bad: impl Fn(i64) -> bool) {
            for _ in 0..count {
                self.one(due, &is_bad);
            }
        }

        fn asked(&self) -> Vec<&[i64]> {
            let asked = self.made.iter().map(|(question, _)| &*question.ids);
            asked.collect()
        }

        /// Makes checks of these until the division is over, and returns how many, without those about one that stood
        /// alone before. At the end all but the bad ones were shown, and these are passed over.
        fn until_over(&mut self, open: &[i64], bad: &BTreeSet<i64>) -> usize {
            let mut unseen: BTreeSet<i64> = open.iter().copied().collect();
            while unseen.len() > bad.len() || self.division.begun.is_some() {
                for id in self.one(open, |id| bad.contains(&id)) {
                    unseen.remove(&id);
                }
                assert!(self.made.len() < 2_000, "{bad:?}: {:?}", self.division);
            }
            assert_eq!(unseen, *bad);
            let alone = &self.division.alone;
            assert!(alone.keys().eq(bad), "{bad:?}: {alone:?}");
            let is_passed_over = |alone: &Alone| alone.times > 0;
            assert!(alone.values().all(is_passed_over), "{bad:?}: {alone:?}");
            let is_first = |(question, _): &&(Question, _)| question.kind != Kind::ByItself;
            self.made.iter().filter(is_first).count()
        }
    }

    fn numbered(count: i64) -> Vec<i64> {
        (1..=count).collect()
    }

    fn most(open: usize, bad: usize) -> f64 {
        let [n, k] = [open, bad].map(|count| f64::from(u32::try_from(count).unwrap()));
        k * (n / k).log2() + 5.0 * k + 24.0
    }

    /// So many of these: the first, the last, and some spread over all.
    fn extremes(open: &[i64], bad: i64) -> [BTreeSet<i64>; 3] {
        let count = i64::try_from(open.len()).unwrap();
        let first = numbered(bad);
        let last = open.iter().rev().copied().take(first.len()).collect();
        let spread = first.iter().map(|id| id * count / bad).collect();
        [first.into_iter().collect(), last, spread]
    }

    #[test]
    fn few_checks_show_all_others_however_many_cannot_be_shown_first_last_or_spread() {
        for count in [2, 3, 7, 40, 100] {
            let open = numbered(count);
            for bad in 1..count {
                for bad in extremes(&open, bad) {
                    let made = Checks::default().until_over(&open, &bad);
                    let most = most(open.len(), bad.len());
                    assert!(made as f64 <= most, "{made} for {bad:?} of {count}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn few_checks_show_all_others_whatever_cannot_be_shown(
            count in 2..=100i64, chosen in btree_set(0..100i64, 1..99), clustered in any::<bool>()
        ) {
            let open = numbered(count);
            let of = |number: i64| if clustered { number / 3 % count } else { number % count } + 1;
            let bad: BTreeSet<i64> = chosen.into_iter().map(of).collect();
            prop_assume!(bad.len() < open.len());
            let made = Checks::default().until_over(&open, &bad);
            prop_assert!(made as f64 <= most(open.len(), bad.len()), "{made} for {bad:?} of {count}");
            let made = until_shown(&open, &bad);
            prop_assert!(made as f64 <= most(open.len(), bad.len()), "{made} for {bad:?} of {count}");
        }

        #[test]
        fn whatever_becomes_of_them_meanwhile_all_others_are_shown_in_the_end(
            earlier in btree_set(1..=60i64, 0..60), later in btree_set(1..=60i64, 0..59), after in 0..150usize
        ) {
            let mut checks = Checks::default();
            checks.many(after, &numbered(60), |id| earlier.contains(&id));
            let mut unseen: BTreeSet<i64> = (1..=60).collect();
            for _ in 0..600 {
                for id in checks.one(&numbered(60), |id| later.contains(&id)) {
                    unseen.remove(&id);
                }
            }
            prop_assert_eq!(unseen, later);
        }
    }

    /// How many checks are made until all but the bad ones were shown, where what was shown is not due any more.
    fn until_shown(open: &[i64], bad: &BTreeSet<i64>) -> usize {
        let mut checks = Checks::default();
        let mut due = open.to_vec();
        while due.len() > bad.len() {
            let shown = checks.one(&due, |id| bad.contains(&id));
            due.retain(|id| !shown.contains(id));
            assert!(checks.made.len() < 2_000, "{bad:?}: {:?}", checks.division);
        }
        checks.made.len()
    }

    #[test]
    fn few_checks_show_all_others_that_are_paid_when_they_are_shown() {
        for count in [2, 3, 7, 40, 100] {
            let open = numbered(count);
            for bad in 1..count {
                for bad in extremes(&open, bad) {
                    let made = until_shown(&open, &bad);
                    let most = most(open.len(), bad.len());
                    assert!(made as f64 <= most, "{made} for {bad:?} of {count}");
                }
            }
        }
    }

    #[test]
    fn one_that_cannot_be_shown_is_found_wherever_it_stands_and_the_others_are_shown() {
        let open = numbered(100);
        for bad in open.clone() {
            let mut checks = Checks::default();
            checks.many(60, &open, |id| id == bad);
            let asked = checks.asked();
            assert_eq!(asked[..3], [&*open; 3], "as usual at first");
            assert_eq!(asked[3], numbered(50));
            let rest: Vec<i64> = open.iter().copied().filter(|id| *id != bad).collect();
            // Then most checks ask for all others, and the rest for it alone.
            let last = &asked[25..];
            let is_usual = |asked: &&[i64]| **asked == rest || **asked == [bad];
            assert!(last.iter().all(is_usual), "{bad}: {last:?}");
            let others = last.iter().filter(|asked| **asked == rest).count();
            assert!(others > last.len() / 2, "{bad}: {others} of {}", last.len());
            let waits: Vec<u64> = (checks.made.iter().filter_map(|made| made.1))
                .map(|wait| wait.as_secs())
                .collect();
            assert_eq!(waits[..3], [5, 10, 20], "{bad}");
            // Shown again, it is one of all.
            checks.many(60, &open, |_| false);
            assert_eq!(checks.asked()[119], open);
        }
    }

    #[test]
    fn of_more_than_one_check_can_ask_about_all_others_are_shown_again_and_again() {
        let bad = [1, 2, 3, 4, 5, 6, 7, 8, 250, 333, 500];
        let mut checks = Checks::default();
        let mut queue: VecDeque<i64> = numbered(500).into();
        let mut seen: BTreeMap<i64, u32> = BTreeMap::new();
        for check in 0..600 {
            let waits = |id: &i64| checks.division.wait_of(*id, checks.now) > Duration::ZERO;
            let due: Vec<i64> = (queue.iter().copied().filter(|id| !waits(id)).take(100)).collect();
            let shown = checks.one(&due, |id| bad.contains(&id));
            // Whether they were shown or not, others come first.
            queue.retain(|id| !due.contains(id));
            queue.extend(due);
            for id in shown.into_iter().filter(|_| check >= 300) {
                *seen.entry(id).or_default() += 1;
            }
        }
        assert_eq!(seen.len(), 500 - bad.len(), "{:?}", checks.division);
        assert!(seen.values().all(|times| *times > 20), "{seen:?}");
    }

    #[test]
    fn of_a_gateway_that_fails_for_all_nobody_is_passed_over() {
        let open = numbered(100);
        let mut checks = Checks::default();
        checks.many(500, &open, |_| true);
        assert!(checks.made.iter().all(|(_, wait)| wait.is_none()));
        // Once it is well, all are asked about soon.
        checks.many(10, &open, |_| false);
        assert_eq!(checks.asked()[509], open);
    }

    #[test]
    fn a_gateway_that_fails_for_all_meanwhile_has_nobody_but_one_passed_over() {
        let open = numbered(100);
        let mut checks = Checks::default();
        checks.many(30, &open, |id| id % 10 == 0);
        let passed_over =
            |checks: &Checks| checks.made.iter().filter(|made| made.1.is_some()).count();
        let before = passed_over(&checks);
        checks.many(300, &open, |_| true);
        assert!(passed_over(&checks) <= before + 1);
    }

    #[test]
    fn one_invoice_alone_is_asked_about_as_before() {
        let mut checks = Checks::default();
        checks.many(9, &[7], |_| true);
        assert_eq!(checks.asked(), [[7]; 9]);
        assert_eq!(checks.division.wait_of(7, checks.now), Duration::ZERO);
    }

    #[test]
    fn only_an_answer_is_about_what_was_asked() {
        let failing = |status| {
            Sign::Failing(Fault {
                code: String::new(),
                status,
                said: None,
            })
        };
        assert!(is_answer_to_content(&failing(Some(500))));
        for sign in [
            failing(None),
            Sign::Clear,
            Sign::Refused,
            Sign::Capped,
            Sign::Silent,
        ] {
            assert!(!is_answer_to_content(&sign), "{sign:?}");
        }
    }
}
