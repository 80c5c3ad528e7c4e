//! Invoices that the gateway cannot show: a check that asks about one of them fails for all that it asks about.
//!
//! Once checks of an account fail again and again with an answer to what was asked, each further one asks about half of
//! the last, until one invoice stands alone. It is passed over at a growing distance, and asked about by itself, once the
//! gateway has shown others in between. While it fails for all of them nobody is passed over, and nothing but what a
//! check asks about changes: how often one is made is decided elsewhere (see [`outage`](super::outage)).
//!
//! `now` is the time of a clock that nobody sets.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::policy::follow::left_out_distance;
use crate::policy::outage::Sign;
use crate::policy::rules::Jitter;

/// What is known of the invoices of an account that cannot be shown.
#[derive(Debug, Default)]
pub struct Division {
    /// Whether checks are divided.
    is_begun: bool,
    /// What the last check that failed asked about and was not shown since.
    among: BTreeSet<i64>,
    /// About how many of them the next check asks.
    next: usize,
    /// Those that failed by themselves.
    alone: BTreeMap<i64, Alone>,
    /// Whether others were shown since one last failed by itself, or since the division began.
    others_are_shown: bool,
}

/// An invoice that failed by itself.
#[derive(Debug)]
struct Alone {
    /// How often, with others shown before it each time.
    times: u32,
    due: Duration,
}

/// So many that failed by themselves are remembered while nothing is shown: then it is most likely none of them.
const UNPROVEN: usize = 4;

/// Whether a check failed with an answer, which may be about one of the invoices. No connection, no answer in time, a
/// refusal for the rate and what parks the account are not.
pub fn is_answer_to_content(sign: &Sign) -> bool {
    matches!(sign, Sign::Failing(fault) if fault.status.is_some())
}

impl Division {
    /// About which of these, which are due, the next check asks: about at least one.
    pub fn to_ask(&self, due: &[i64], now: Duration) -> Vec<i64> {
        let (alone, free): (Vec<i64>, Vec<i64>) =
            due.iter().partition(|id| self.alone.contains_key(id));
        let by_itself = alone.into_iter().min_by_key(|id| self.due(*id));
        let is_its_turn = |id: &i64| {
            free.is_empty() || self.others_are_shown && self.due(*id).is_some_and(|due| due <= now)
        };
        if let Some(id) = by_itself.filter(is_its_turn) {
            return vec![id];
        }
        let mut among = free.clone();
        among.retain(|id| self.among.contains(id));
        if !self.is_begun || among.is_empty() {
            return free;
        }
        among.truncate(self.next.max(1));
        among
    }

    /// How long one that is not asked about now waits.
    pub fn wait_of(&self, id: i64, now: Duration) -> Duration {
        self.due(id).unwrap_or_default().saturating_sub(now)
    }

    fn due(&self, id: i64) -> Option<Duration> {
        self.alone.get(&id).map(|alone| alone.due)
    }

    /// A check about these got an answer that shows none of them; `is_slow` when checks of the account have slowed down.
    /// Returns for how long the one that it was about is passed over, if it is.
    pub fn fail(
        &mut self,
        asked: &[i64],
        is_slow: bool,
        now: Duration,
        jitter: Jitter,
    ) -> Option<Duration> {
        let is_known = asked.iter().any(|id| self.alone.contains_key(id));
        if !self.is_begun && !is_slow && !is_known {
            return None;
        }
        if !self.is_begun && !is_known {
            self.is_begun = true;
            self.others_are_shown = false;
        }
        let [id] = *asked else {
            self.among = asked.iter().copied().collect();
            self.next = asked.len() / 2;
            return None;
        };
        self.among.remove(&id);
        self.next = self.among.len();
        let is_proven = std::mem::take(&mut self.others_are_shown);
        let alone = self.alone.entry(id).or_insert(Alone { times: 0, due: now });
        alone.due = now;
        if is_proven {
            alone.times = alone.times.saturating_add(1);
            let wait = left_out_distance(alone.times, jitter);
            alone.due = now + wait;
            return Some(wait);
        }
        let unproven = self.alone.iter().filter(|(_, alone)| alone.times == 0);
        let oldest = unproven.clone().min_by_key(|(_, alone)| alone.due);
        if let Some((id, _)) = oldest.filter(|_| unproven.count() > UNPROVEN) {
            self.alone.remove(&id.clone());
        }
        None
    }

    /// A check about these was answered.
    pub fn shown(&mut self, asked: &[i64]) {
        for id in asked {
            self.among.remove(id);
            self.alone.remove(id);
        }
        self.next = self.among.len();
        self.is_begun &= !self.among.is_empty();
        self.others_are_shown = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::outage::Fault;

    const MINUTE: Duration = Duration::from_secs(60);

    /// So many checks of these invoices, a minute apart from this one on; returns what each asked about.
    fn checks(
        division: &mut Division,
        from: u32,
        open: &[i64],
        is_bad: impl Fn(i64) -> bool,
        count: usize,
    ) -> Vec<Vec<i64>> {
        let mut failures = 0;
        let mut all = Vec::new();
        for minute in (from..).take(count) {
            let now = MINUTE * minute;
            let asked = division.to_ask(open, now);
            assert!(!asked.is_empty());
            if asked.iter().any(|id| is_bad(*id)) {
                failures += 1;
                division.fail(&asked, failures >= 3, now, Jitter::NONE);
            } else {
                failures = 0;
                division.shown(&asked);
            }
            all.push(asked);
        }
        all
    }

    fn open() -> Vec<i64> {
        (1..=100).collect()
    }

    #[test]
    fn one_that_cannot_be_shown_is_found_wherever_it_stands_and_the_others_are_shown() {
        for bad in open() {
            let mut division = Division::default();
            let made = checks(&mut division, 0, &open(), |id| id == bad, 40);
            assert_eq!(made[..3], [open(), open(), open()], "as usual at first");
            assert_eq!(made[3], (1..=50).collect::<Vec<_>>());
            let rest: Vec<i64> = open().into_iter().filter(|id| *id != bad).collect();
            assert!(made.contains(&rest), "{bad}: {made:?}");
            assert!(division.alone[&bad].times > 1, "{bad}: {division:?}");
            assert_eq!(division.alone.len(), 1, "{bad}: {division:?}");
            // From then on most checks ask for all others, and the rest for it alone.
            let last = &made[25..];
            assert!(
                last.iter().all(|asked| *asked == rest || *asked == [bad]),
                "{bad}: {last:?}"
            );
            let others = last.iter().filter(|asked| **asked == rest).count();
            assert!(others > last.len() / 2, "{bad}: {others} of {}", last.len());
            // Shown again, it is one of all.
            let made = checks(&mut division, 60, &open(), |_| false, 10);
            assert_eq!(made[9], open());
        }
    }

    #[test]
    fn several_that_cannot_be_shown_are_found() {
        let bad = [1, 2, 60];
        let mut division = Division::default();
        let made = checks(&mut division, 0, &open(), |id| bad.contains(&id), 120);
        let rest: Vec<i64> = open().into_iter().filter(|id| !bad.contains(id)).collect();
        assert!(made[60..].contains(&rest), "{made:?}");
        assert!(
            bad.iter().all(|id| division.alone[id].times > 0),
            "{division:?}"
        );
    }

    #[test]
    fn of_a_gateway_that_fails_for_all_nobody_is_passed_over() {
        let mut division = Division::default();
        checks(&mut division, 0, &open(), |_| true, 500);
        assert!(division.alone.values().all(|alone| alone.times == 0));
        assert!(division.alone.len() <= UNPROVEN, "{division:?}");
        let made = checks(&mut division, 500, &open(), |_| false, 20);
        assert_eq!(made[19], open());
    }

    #[test]
    fn one_invoice_alone_is_asked_about_as_before() {
        let mut division = Division::default();
        assert_eq!(
            checks(&mut division, 0, &[7], |_| true, 9),
            vec![vec![7]; 9]
        );
        let now = MINUTE * 10;
        assert_eq!(division.wait_of(7, now), Duration::ZERO);
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
        for sign in [failing(None), Sign::Clear, Sign::Refused, Sign::Silent] {
            assert!(!is_answer_to_content(&sign), "{sign:?}");
        }
    }
}
