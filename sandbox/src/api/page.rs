//! What the two lists share: paging, sorting direction and filters of a query, checked.

use serde_json::{Map, json};
use time::OffsetDateTime;

use crate::envelope::Reply;
use crate::stamp::{Bound, parse_bound};

/// The parameters of a list under validation.
pub(super) struct Query<'a> {
    pairs: &'a [(String, String)],
    errors: Map<String, serde_json::Value>,
}

impl<'a> Query<'a> {
    pub(super) fn new(pairs: &'a [(String, String)]) -> Self {
        Self {
            pairs,
            errors: Map::new(),
        }
    }

    pub(super) fn wrong(&mut self, name: &str, message: &str) {
        self.errors.insert(name.to_owned(), json!([message]));
    }

    /// The last value of a parameter; an empty one is absent.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        let last = self.pairs.iter().rev().find(|(present, _)| present == name);
        last.map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, name: &str, words: &[(&str, T)], default: T) -> T {
        let Some(value) = self.get(name) else {
            return default;
        };
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == value) {
            return *meaning;
        }
        self.wrong(name, &format!("The selected {name} is invalid."));
        default
    }

    /// All values of `name[]`, each one of a few words.
    pub(super) fn words<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Vec<T> {
        let mut chosen = Vec::new();
        let values = self
            .pairs
            .iter()
            .filter(|(present, _)| is_element(present, name))
            .map(|(_, value)| value);
        for (position, value) in values.enumerate() {
            match words.iter().find(|(word, _)| word == value) {
                Some((_, meaning)) => chosen.push(*meaning),
                None => {
                    let element = format!("{name}.{position}");
                    self.errors.insert(
                        element.clone(),
                        json!([format!("The selected {element} is invalid.")]),
                    );
                }
            }
        }
        chosen
    }

    pub(super) fn number(&mut self, name: &str, lowest: u64, highest: u64) -> Option<u64> {
        let value = self.get(name)?;
        let number = value
            .parse()
            .ok()
            .filter(|number| (lowest..=highest).contains(number));
        if number.is_none() {
            self.wrong(
                name,
                &format!("The {name} field must be an integer between {lowest} and {highest}."),
            );
        }
        number
    }

    pub(super) fn window(&mut self) -> Window {
        Window {
            from: self.bound("date_from", Bound::From),
            to: self.bound("date_to", Bound::To),
        }
    }

    pub(super) fn page(&mut self) -> Page {
        Page {
            number: to_usize(self.number("page", 1, u64::from(u32::MAX)).unwrap_or(1)),
            size: to_usize(self.number("per_page", 1, 100).unwrap_or(10)),
        }
    }

    pub(super) fn finish(self) -> Result<(), Reply> {
        if self.errors.is_empty() {
            Ok(())
        } else {
            Err(Reply::invalid(self.errors, None))
        }
    }

    fn bound(&mut self, name: &str, bound: Bound) -> Option<OffsetDateTime> {
        let instant = parse_bound(self.get(name)?, bound);
        if instant.is_none() {
            self.wrong(name, &format!("The {name} field must be a valid date."));
        }
        instant
    }
}

fn is_element(present: &str, name: &str) -> bool {
    present
        .strip_prefix(name)
        .is_some_and(|rest| rest.is_empty() || (rest.starts_with('[') && rest.ends_with(']')))
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

pub(super) struct Window {
    from: Option<OffsetDateTime>,
    to: Option<OffsetDateTime>,
}

impl Window {
    /// Whether an instant lies within; what has no instant lies only in an open window.
    pub(super) fn holds(&self, at: Option<OffsetDateTime>) -> bool {
        match at {
            Some(at) => {
                self.from.is_none_or(|from| from <= at) && self.to.is_none_or(|to| at <= to)
            }
            None => self.from.is_none() && self.to.is_none(),
        }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Page {
    pub(super) number: usize,
    pub(super) size: usize,
}

impl Page {
    /// The rows of this page. `shifted` loses one row at each page's start, as when rows move up between two reads.
    pub(super) fn cut<T>(self, rows: &[T], shifted: bool) -> &[T] {
        let moved = if shifted { self.number - 1 } else { 0 };
        let start = ((self.number - 1).saturating_mul(self.size) + moved).min(rows.len());
        &rows[start..rows.len().min(start + self.size)]
    }

    pub(super) fn last(self, total: usize) -> usize {
        total.div_ceil(self.size).max(1)
    }
}
