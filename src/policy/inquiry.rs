//! Which of an account's newest invoices the gateway is asked for by a key that is not known.
//!
//! One that is shown is proof enough, and one that the gateway cannot show fails the whole answer. So after an answer that
//! fails because of what was asked, parts of them are asked about, one right after the other: both halves, the quarters,
//! then single ones, far from each other. When a few of them fail as well there is a pause, as long as is decided elsewhere,
//! and one part is asked about after each: it may be the gateway. What a part does not show is asked about with all others,
//! for of which organization the key is follows from all that is clear.

use std::ops::Range;

use crate::policy::organization::Doubt;

/// What was asked by a key that is not known.
#[derive(Clone, Debug, Default)]
pub struct Inquiry {
    /// What the next question is about.
    next: Next,
    /// Questions about a part, since the first one.
    parts: usize,
    /// How many a clear answer about a part has left out, since the last pause.
    left_out: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Next {
    #[default]
    All,
    Part,
}

/// An answer that is no proof.
#[derive(Clone, Copy, Debug)]
pub struct NoProof<'a> {
    /// The invoices that it was asked for.
    pub asked: &'a [i64],
    /// How many the account has to ask for.
    pub newest: usize,
    /// What it says of the key.
    pub doubt: Doubt,
    /// Whether it may fail because of one of the invoices.
    pub is_about_content: bool,
}

/// So many parts are asked about one right after the other: the halves and the quarters.
const AT_ONCE: usize = 6;

/// Before a pause there are so many questions at most: about all, about the parts, and about all once more.
pub const QUESTIONS: u32 = 8;

impl Inquiry {
    /// Which of the account's newest invoices, the newest first, the next question is about.
    pub fn to_ask(&self, newest: &[i64]) -> Vec<i64> {
        let parts = parts(newest.len());
        match parts.get(self.parts % parts.len().max(1)) {
            Some(part) if self.next == Next::Part => newest[part.clone()].to_vec(),
            _ => newest.to_vec(),
        }
    }

    /// Takes an answer. Returns why the key is in doubt and how many invoices say so, before a pause; `None` while the
    /// next question may be asked at once, [`QUESTIONS`] of them at most.
    pub fn heard(&mut self, answer: NoProof<'_>) -> Option<(Doubt, usize)> {
        let asked = answer.asked.len();
        let is_part = asked < answer.newest;
        self.parts += usize::from(is_part);
        if is_part && answer.doubt == Doubt::NoneShown {
            self.left_out = asked;
            self.next = Next::All;
            return None;
        }
        let left_out = std::mem::take(&mut self.left_out);
        let most = AT_ONCE.min(parts(answer.newest).len());
        self.next = match answer.is_about_content && most > 0 {
            true => Next::Part,
            false => Next::All,
        };
        if self.next == Next::Part && left_out == 0 && self.parts < most {
            return None;
        }
        Some(match answer.doubt {
            Doubt::Unanswered if left_out > 0 => (Doubt::SomeNotShown, left_out),
            doubt => (doubt, asked),
        })
    }
}

/// The parts of so many, in the order in which they are asked about; none of one.
fn parts(count: usize) -> Vec<Range<usize>> {
    if count < 2 {
        return Vec::new();
    }
    let of =
        |parts: usize| (0..parts).map(move |part| part * count / parts..(part + 1) * count / parts);
    // Each single one lies in the middle between two before it.
    let bits = count.next_power_of_two().trailing_zeros();
    let spread = (0..1_usize << bits).map(|number| number.reverse_bits() >> (usize::BITS - bits));
    let single = spread
        .filter(|place| *place < count)
        .map(|place| place..place + 1);
    let mut parts: Vec<Range<usize>> = Vec::new();
    for part in of(2).chain(of(4)).chain(single) {
        if !part.is_empty() && !parts.contains(&part) {
            parts.push(part);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::btree_set;
    use proptest::prelude::*;

    use super::*;

    /// How many questions are asked before one is shown, by a key of the account's organization.
    fn questions(newest: &[i64], is_bad: impl Fn(i64) -> bool) -> Option<usize> {
        let mut inquiry = Inquiry::default();
        for question in 1..=1_000 {
            let asked = inquiry.to_ask(newest);
            assert!(!asked.is_empty());
            if !asked.iter().any(|id| is_bad(*id)) {
                return Some(question);
            }
            inquiry.heard(failed(&asked, newest.len()));
        }
        None
    }

    fn failed(asked: &[i64], newest: usize) -> NoProof<'_> {
        NoProof {
            asked,
            newest,
            doubt: Doubt::Unanswered,
            is_about_content: true,
        }
    }

    fn newest(count: i64) -> Vec<i64> {
        (1..=count).rev().collect()
    }

    #[test]
    fn up_to_three_that_cannot_be_shown_cost_seven_questions_at_most() {
        for count in [4, 5, 12, 100] {
            let newest = newest(count);
            for (one, two, three) in [(1, 2, 3), (1, 2, count), (1, count / 2, count)] {
                let bad = [one, two, three];
                let asked = questions(&newest, |id| bad.contains(&id)).unwrap();
                assert!(asked <= 1 + AT_ONCE, "{asked} of {count} without {bad:?}");
            }
            assert!(questions(&newest, |id| id == count).unwrap() <= 3);
        }
        assert_eq!(questions(&newest(100), |_| false), Some(1));
        assert_eq!(questions(&newest(1), |_| true), None);
    }

    proptest! {
        #[test]
        fn one_that_can_be_shown_is_asked_about_however_many_cannot(
            count in 2..=100i64, bad in btree_set(1..=100i64, 0..100)
        ) {
            let newest = newest(count);
            prop_assume!(newest.iter().any(|id| !bad.contains(id)));
            let asked = questions(&newest, |id| bad.contains(&id)).unwrap();
            prop_assert!(asked <= 107, "{asked}");
        }
    }

    #[test]
    fn after_a_few_questions_there_is_a_pause_before_each_of_the_others() {
        let newest = newest(100);
        let mut inquiry = Inquiry::default();
        let mut singles = BTreeSet::new();
        for question in 0..107 {
            let asked = inquiry.to_ask(&newest);
            assert_eq!(asked.len() == 100, question == 0);
            if let [id] = *asked {
                singles.insert(id);
            }
            let doubt = inquiry.heard(failed(&asked, 100));
            let expected = (question >= AT_ONCE).then_some((Doubt::Unanswered, asked.len()));
            assert_eq!(doubt, expected, "{question}");
        }
        assert_eq!(singles.len(), 100);
    }

    #[test]
    fn what_says_something_of_the_key_or_of_the_network_is_no_reason_to_ask_about_parts() {
        let newest = newest(10);
        for doubt in [Doubt::NoneShown, Doubt::Unanswered] {
            let answer = NoProof {
                doubt,
                is_about_content: false,
                ..failed(&newest, 10)
            };
            let mut inquiry = Inquiry::default();
            assert_eq!(inquiry.heard(answer), Some((doubt, 10)));
            assert_eq!(inquiry.to_ask(&newest), newest);
        }
    }

    #[test]
    fn what_a_part_does_not_show_is_asked_about_with_all_others() {
        let newest = newest(8);
        let mut inquiry = Inquiry::default();
        assert_eq!(inquiry.heard(failed(&newest, 8)), None);
        let part = inquiry.to_ask(&newest);
        let none_shown = NoProof {
            doubt: Doubt::NoneShown,
            is_about_content: false,
            ..failed(&part, 8)
        };
        assert_eq!(inquiry.heard(none_shown), None);
        assert_eq!(inquiry.to_ask(&newest), newest);
        let mut other = inquiry.clone();
        let fails = inquiry.heard(failed(&newest, 8));
        assert_eq!(fails, Some((Doubt::SomeNotShown, 4)));
        let none_shown = other.heard(NoProof {
            asked: &newest,
            ..none_shown
        });
        assert_eq!(none_shown, Some((Doubt::NoneShown, 8)));
    }
}
