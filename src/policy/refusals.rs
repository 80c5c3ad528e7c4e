//! Rows that the database refuses, although it is well: which of them is tried again, and when.
//!
//! Rows that are refused for the same cause are one case. One of them at a time is tried, at a distance; when
//! it goes through, the cause is mended, and the others are tried at once, all together first. So a case costs
//! as much as one row, and its rows wait no longer than one.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::policy::backoff;
use crate::policy::rules::{Curve, Jitter};

/// How often a case is tried.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Before the first time.
    pub initial: Duration,
    /// The distance that it grows to, of a single case; of several, that of any two tries.
    pub apart: Duration,
    /// No case waits for longer, however many there are and however long a try took: what made one take long, as a pool
    /// that had no connection free, may be over with the next.
    pub longest: Duration,
}

impl Pace {
    /// How long a case waits after so many failures in a row, among so many cases. Trying takes no more than a
    /// twentieth of the time: who makes us wait is met less often.
    fn distance(&self, failures: u32, cases: usize, took: Duration, jitter: Jitter) -> Duration {
        let cases = u32::try_from(cases).unwrap_or(u32::MAX).max(1);
        let max = self.apart.saturating_mul(cases).min(self.longest);
        let curve = Curve {
            initial: self.initial.min(max),
            max,
            multiplier: 2.0,
            jitter: 0.2,
            attempts: 0,
        };
        let spared = took.saturating_mul(20).min(self.longest);
        backoff::delay(&curve, failures, jitter).max(spared)
    }
}

/// A try that failed.
#[derive(Clone, Copy, Debug)]
pub struct Tried {
    /// When it ended, by any clock that only goes on.
    pub now: Duration,
    /// How long it took.
    pub took: Duration,
    /// Randomness.
    pub jitter: Jitter,
}

/// Rows of one case that are tried together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part<K> {
    cause: String,
    /// The rows.
    pub rows: Vec<K>,
}

impl<K> Part<K> {
    /// A row by itself, whose turn it is.
    pub fn alone(row: K) -> Part<K> {
        Part {
            cause: String::new(),
            rows: vec![row],
        }
    }
}

/// The rows that are refused.
#[derive(Debug)]
pub struct Refusals<K> {
    pace: Pace,
    /// Those about which somebody has done something.
    asked: VecDeque<K>,
    causes: BTreeMap<K, String>,
    cases: BTreeMap<String, Case<K>>,
}

#[derive(Debug)]
struct Case<K> {
    /// Whose turn it is stands first.
    rows: VecDeque<K>,
    failures: u32,
    due: Duration,
    /// The try that was counted last: one of several rows counts once.
    counted: Option<Duration>,
    hope: Option<Hope<K>>,
}

/// A row of the case has gone through.
#[derive(Debug)]
struct Hope<K> {
    parts: VecDeque<Vec<K>>,
    passed: u32,
    failed: u32,
}

/// Parts that fail before a mended cause is taken to be mended for some rows only: enough to find one bad row
/// among ten thousand. Each part that passes allows one more.
const IN_VAIN: u32 = 16;

impl<K: Ord + Copy> Refusals<K> {
    /// None yet.
    pub fn new(pace: Pace) -> Refusals<K> {
        Refusals {
            pace,
            asked: VecDeque::new(),
            causes: BTreeMap::new(),
            cases: BTreeMap::new(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.causes.is_empty()
    }

    /// Whether this row is.
    pub fn knows(&self, row: K) -> bool {
        self.causes.contains_key(&row)
    }

    /// How often in a row its case was refused.
    pub fn failures(&self, row: K) -> u32 {
        let case = self
            .causes
            .get(&row)
            .and_then(|cause| self.cases.get(cause));
        case.map_or(0, |case| case.failures)
    }

    /// A row was refused for this cause, for the first time or once more.
    pub fn refuse(&mut self, row: K, cause: &str, tried: Tried) {
        let was_known = self.knows(row);
        let failures = self.failures(row);
        self.asked.retain(|other| *other != row);
        self.leave_case(row, cause);
        self.causes.insert(row, cause.to_owned());
        let cases = self.cases.len() + usize::from(!self.cases.contains_key(cause));
        let is_new = !self.cases.contains_key(cause);
        let case = self.cases.entry(cause.to_owned()).or_insert(Case {
            rows: VecDeque::new(),
            // A row that is refused for another reason now is no better than before.
            failures,
            due: Duration::ZERO,
            counted: None,
            hope: None,
        });
        case.rows.push_back(row);
        // Who joins a case that is known already puts it off no further.
        if (is_new || was_known) && case.counted != Some(tried.now) {
            case.counted = Some(tried.now);
            case.failures += 1;
            let distance = self
                .pace
                .distance(case.failures, cases, tried.took, tried.jitter);
            case.due = tried.now.saturating_add(distance);
        }
    }

    /// The rows whose turn it is: those asked for, and one of each case that is due, the longest due first.
    pub fn due(&self, now: Duration, most: usize) -> Vec<K> {
        let mut due: Vec<(Duration, K)> = self
            .cases
            .values()
            .filter(|case| case.hope.is_none() && case.due <= now)
            .filter_map(|case| Some((case.due, *case.rows.front()?)))
            .filter(|(_, row)| !self.asked.contains(row))
            .collect();
        due.sort();
        let due = due.into_iter().map(|(_, row)| row);
        self.asked.iter().copied().chain(due).take(most).collect()
    }

    /// The rows of this one's case, at most so many, whose turn it is first.
    pub fn case(&self, row: K, most: usize) -> Part<K> {
        let cause = self.causes.get(&row).cloned().unwrap_or_default();
        let rows = self.cases.get(&cause).into_iter();
        let rows = rows.flat_map(|case| case.rows.iter().copied()).take(most);
        Part {
            rows: rows.collect(),
            cause,
        }
    }

    /// When the next case is due; now, when there is hope.
    pub fn next_due(&self) -> Option<Duration> {
        let due = |case: &Case<K>| match case.hope {
            Some(_) => Duration::ZERO,
            None => case.due,
        };
        self.cases.values().map(due).min()
    }

    /// No case is due later than this.
    pub fn hurry(&mut self, latest: Duration) {
        for case in self.cases.values_mut() {
            case.due = case.due.min(latest);
        }
    }

    /// Somebody has done something about a row: it is tried as soon as may be.
    pub fn ask(&mut self, row: K) {
        if self.knows(row) && !self.asked.contains(&row) {
            self.asked.push_back(row);
        }
    }

    /// The row could not be tried now, which says nothing of its case.
    pub fn put_off(&mut self, row: K, tried: Tried) {
        self.asked.retain(|other| *other != row);
        let cases = self.cases.len();
        let pace = self.pace;
        if let Some(case) = self.case_of(row) {
            let distance = pace.distance(case.failures, cases, tried.took, tried.jitter);
            case.due = tried.now.saturating_add(distance);
        }
    }

    /// The database took a part and did nothing with it: none of its rows could be tried now, for want of quota or of
    /// a lock. That says nothing of their case, whose turn comes again.
    pub fn untried(&mut self, part: &Part<K>, tried: Tried) {
        if let Some(case) = self.cases.get_mut(&part.cause) {
            case.hope = None;
        }
        for row in &part.rows {
            self.put_off(*row, tried);
        }
    }

    /// The row has gone through: the others of its case may, too.
    pub fn went_through(&mut self, row: K) {
        if let Some(case) = self.case_of(row) {
            case.rows.retain(|other| *other != row);
            if case.hope.is_none() && !case.rows.is_empty() {
                case.hope = Some(Hope {
                    parts: VecDeque::from([case.rows.iter().copied().collect()]),
                    passed: 0,
                    failed: 0,
                });
            }
        }
        self.forget(row);
    }

    /// The row is refused no more, for whatever reason.
    pub fn forget(&mut self, row: K) {
        self.asked.retain(|other| *other != row);
        self.leave_case(row, "");
        self.causes.remove(&row);
    }

    /// The next rows of a mended case, at most so many.
    pub fn hopeful(&mut self, most: usize) -> Option<Part<K>> {
        for (cause, case) in &mut self.cases {
            while let Some(hope) = &mut case.hope {
                let Some(mut rows) = hope.parts.pop_front() else {
                    case.hope = None;
                    break;
                };
                rows.retain(|row| self.causes.get(row) == Some(cause));
                if rows.len() > most.max(1) {
                    hope.parts.push_front(rows.split_off(most.max(1)));
                }
                if !rows.is_empty() {
                    return Some(Part {
                        cause: cause.clone(),
                        rows,
                    });
                }
            }
        }
        None
    }

    /// The database took a part: these of its rows have gone through, and those that were left over may later. When
    /// none has, there was nothing to refuse: they are rows like any other again.
    pub fn passed(&mut self, part: Part<K>, through: &[K]) {
        let (gone, left): (Vec<K>, Vec<K>) = part
            .rows
            .into_iter()
            .partition(|row| through.is_empty() || through.contains(row));
        if let Some(hope) = self.hope_of(&part.cause) {
            hope.passed += 1;
            if !left.is_empty() {
                hope.parts.push_front(left);
            }
        }
        for row in gone {
            self.forget(row);
        }
    }

    /// The database refused a part of several rows: each half is tried by itself, while there is hope.
    pub fn failed(&mut self, mut part: Part<K>) {
        self.in_vain(&part.cause.clone());
        if let Some(hope) = self.hope_of(&part.cause) {
            let rest = part.rows.split_off(part.rows.len() / 2);
            hope.parts.push_front(rest);
            hope.parts.push_front(part.rows);
        }
    }

    /// The database refused a single row of a part; [`refuse`](Refusals::refuse) says why.
    pub fn failed_alone(&mut self, part: &Part<K>) {
        self.in_vain(&part.cause);
    }

    fn in_vain(&mut self, cause: &str) {
        let Some(case) = self.cases.get_mut(cause) else {
            return;
        };
        if let Some(hope) = &mut case.hope {
            hope.failed += 1;
            if hope.failed > IN_VAIN + hope.passed {
                case.hope = None;
            }
        }
    }

    fn hope_of(&mut self, cause: &str) -> Option<&mut Hope<K>> {
        self.cases.get_mut(cause)?.hope.as_mut()
    }

    fn case_of(&mut self, row: K) -> Option<&mut Case<K>> {
        self.cases.get_mut(self.causes.get(&row)?)
    }

    /// Takes a row out of its case, which ends with its last, unless this is the case it comes back to.
    fn leave_case(&mut self, row: K, comes_to: &str) {
        let Some(cause) = self.causes.get(&row).cloned() else {
            return;
        };
        if let Some(case) = self.cases.get_mut(&cause) {
            case.rows.retain(|other| *other != row);
            if case.rows.is_empty() && cause != comes_to {
                self.cases.remove(&cause);
            }
        }
    }
}

#[cfg(test)]
mod tests;
