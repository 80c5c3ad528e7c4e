//! Sections of the settings, each key with the place it was written at: taken once, checked, refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use config::{Map, Value, ValueKind};

use super::duration;
use super::error::ConfigError;

/// The places that are no files: the compiled-in layer, and, before its name, an environment variable.
pub(super) const DEFAULT: &str = "built-in default";
pub(super) const VARIABLE: &str = "environment variable";

/// A setting that was found, with the words that errors about it need.
#[derive(Clone, Debug)]
pub(super) struct Found<T> {
    /// What was written.
    pub(super) value: T,
    /// The whole key, such as `http.timeout`.
    pub(super) key: String,
    /// The file or the environment variable.
    pub(super) origin: String,
}

impl<T> Found<T> {
    /// An error: the place, the key, and the end of a sentence about it.
    pub(super) fn refuse(&self, rest: impl fmt::Display) -> ConfigError {
        ConfigError::at(&self.origin, format_args!("{} {rest}", self.key))
    }

    /// The same place with another value.
    pub(super) fn with<U>(&self, value: U) -> Found<U> {
        Found {
            value,
            key: self.key.clone(),
            origin: self.origin.clone(),
        }
    }

    /// The value is stated by a file, not by a variable or a default.
    pub(super) fn is_from_file(&self) -> bool {
        self.origin != DEFAULT && !self.is_from_variable()
    }

    /// The value is stated by an environment variable, so it is a text whatever it means.
    fn is_from_variable(&self) -> bool {
        self.origin.starts_with(VARIABLE)
    }
}

/// A section, from which each key is taken once; what is left over at the end is unknown.
pub(super) struct Section {
    path: String,
    values: BTreeMap<String, Value>,
    known: BTreeSet<&'static str>,
}

impl Section {
    pub(super) fn new(path: String, value: Value) -> Result<Section, ConfigError> {
        let origin = origin_within(&value);
        match value.kind {
            ValueKind::Table(table) => Ok(Section {
                path,
                values: table.into_iter().collect(),
                known: BTreeSet::new(),
            }),
            _ => Err(ConfigError::at(
                &origin,
                format_args!("{path} must be a section, [{path}]"),
            )),
        }
    }

    /// A section within; empty when nobody wrote it.
    pub(super) fn section(&mut self, key: &'static str) -> Result<Section, ConfigError> {
        self.known.insert(key);
        let path = self.key(key);
        match self.values.remove(key) {
            Some(value) => Section::new(path, value),
            None => Section::new(path, Value::new(None, Map::<String, Value>::new())),
        }
    }

    /// All sections within, by the names that users gave them.
    pub(super) fn named_sections(self) -> Result<Vec<(String, Section)>, ConfigError> {
        let path = self.path;
        self.values
            .into_iter()
            .map(|(name, value)| {
                Section::new(format!("{path}.{name}"), value).map(|section| (name, section))
            })
            .collect()
    }

    /// The name of the section, such as `accounts.default`.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// An error about the section as a whole.
    pub(super) fn refuse(&self, sentence: impl fmt::Display) -> ConfigError {
        let origin = self.values.values().find_map(Value::origin);
        ConfigError::at(origin.unwrap_or(ConfigError::ANYWHERE), sentence)
    }

    /// Nothing may be left.
    pub(super) fn finish(self) -> Result<(), ConfigError> {
        let Some((key, value)) = self.values.iter().next() else {
            return Ok(());
        };
        let known = self.known.iter().copied().collect::<Vec<_>>().join(", ");
        let sentence = if self.path.is_empty() {
            format!("unknown section {key}; the sections are {known}")
        } else {
            let path = &self.path;
            format!("unknown key {path}.{key}; the keys of [{path}] are {known}")
        };
        Err(ConfigError::at(&origin_within(value), sentence))
    }

    /// Nothing may be here at all: these settings belong to a feature that is still to come.
    pub(super) fn refuse_all(&self) -> Result<(), ConfigError> {
        match self.values.keys().next() {
            Some(key) => self.refuse_key(key),
            None => Ok(()),
        }
    }

    /// A key of a feature that is still to come.
    pub(super) fn refuse_key(&self, key: &str) -> Result<(), ConfigError> {
        match self.values.get(key) {
            Some(value) => Err(ConfigError::unsupported(
                &origin_within(value),
                self.key(key),
            )),
            None => Ok(()),
        }
    }

    /// A text, never quoted in errors: it may be a secret.
    pub(super) fn text(&mut self, key: &'static str) -> Result<Option<Found<String>>, ConfigError> {
        let Some(found) = self.take(key) else {
            return Ok(None);
        };
        match &found.value.kind {
            ValueKind::String(text) if text.trim().is_empty() => {
                Err(found.refuse("is empty; leave the key out or give it a value"))
            }
            ValueKind::String(text) => Ok(Some(found.with(text.clone()))),
            _ => Err(found.refuse("must be a text in quotes")),
        }
    }

    /// A duration; zero is allowed.
    pub(super) fn duration(&mut self, key: &'static str) -> Result<Found<Duration>, ConfigError> {
        let found = self.require(key)?;
        let read = match &found.value.kind {
            ValueKind::String(written) => duration::parse(written),
            _ => None,
        };
        found.or_refuse(read, "is not a duration", || duration::ALLOWED.to_owned())
    }

    /// A duration that is not zero.
    pub(super) fn positive_duration(
        &mut self,
        key: &'static str,
    ) -> Result<Found<Duration>, ConfigError> {
        let found = self.duration(key)?;
        if found.value.is_zero() {
            return Err(found.refuse("must not be zero"));
        }
        Ok(found)
    }

    /// A whole number within limits.
    pub(super) fn number(
        &mut self,
        key: &'static str,
        limits: RangeInclusive<u32>,
    ) -> Result<Found<u32>, ConfigError> {
        let found = self.require(key)?;
        let read = match &found.value.kind {
            ValueKind::I64(number) => u32::try_from(*number).ok(),
            ValueKind::String(text) if found.is_from_variable() => text.parse().ok(),
            _ => None,
        };
        let allowed = read.filter(|number| limits.contains(number));
        found.or_refuse(allowed, "is not allowed", || {
            format!("a whole number from {} to {}", limits.start(), limits.end())
        })
    }

    /// A number within limits, with decimals.
    pub(super) fn decimal(
        &mut self,
        key: &'static str,
        limits: RangeInclusive<f64>,
    ) -> Result<Found<f64>, ConfigError> {
        let found = self.require(key)?;
        let read = match &found.value.kind {
            ValueKind::Float(number) => Some(*number),
            ValueKind::I64(number) => i32::try_from(*number).ok().map(f64::from),
            ValueKind::String(text) if found.is_from_variable() => text.parse().ok(),
            _ => None,
        };
        let allowed = read.filter(|number| limits.contains(number));
        found.or_refuse(allowed, "is not allowed", || {
            format!("a number from {} to {}", limits.start(), limits.end())
        })
    }

    /// true or false.
    pub(super) fn switch(&mut self, key: &'static str) -> Result<Found<bool>, ConfigError> {
        let found = self.require(key)?;
        let read = match &found.value.kind {
            ValueKind::Boolean(value) => Some(*value),
            ValueKind::String(text) if found.is_from_variable() => text.parse().ok(),
            _ => None,
        };
        found.or_refuse(read, "is not allowed", || {
            "true or false, without quotes".to_owned()
        })
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Result<Found<T>, ConfigError> {
        let found = self.require(key)?;
        let read = match &found.value.kind {
            ValueKind::String(text) => words.iter().find(|(word, _)| word == text),
            _ => None,
        };
        found.or_refuse(read.map(|(_, value)| *value), "is not allowed", || {
            let quoted: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            format!("one of {}", quoted.join(", "))
        })
    }

    /// Gives a key of a named section, which the defaults cannot list, its default.
    pub(super) fn or_default(&mut self, key: &'static str, value: impl Into<ValueKind>) {
        self.values
            .entry(key.to_owned())
            .or_insert_with(|| Value::new(Some(&DEFAULT.to_owned()), value));
    }

    fn take(&mut self, key: &'static str) -> Option<Found<Value>> {
        self.known.insert(key);
        let value = self.values.remove(key)?;
        Some(Found {
            key: self.key(key),
            origin: origin_within(&value),
            value,
        })
    }

    fn require(&mut self, key: &'static str) -> Result<Found<Value>, ConfigError> {
        self.take(key)
            .ok_or_else(|| self.refuse(format_args!("{} is missing", self.key(key))))
    }

    fn key(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }
}

impl Found<Value> {
    fn or_refuse<T>(
        &self,
        read: Option<T>,
        problem: &str,
        allowed: impl FnOnce() -> String,
    ) -> Result<Found<T>, ConfigError> {
        let refusal = || {
            let (shown, allowed) = (show(&self.value), allowed());
            self.refuse(format_args!("= {shown} {problem}; allowed is {allowed}"))
        };
        read.map(|value| self.with(value)).ok_or_else(refusal)
    }
}

/// A section has no place of its own: that of the first key in it.
fn origin_within(value: &Value) -> String {
    let inner = match &value.kind {
        ValueKind::Table(table) => table.values().next().map(origin_within),
        _ => None,
    };
    value
        .origin()
        .map(str::to_owned)
        .or(inner)
        .unwrap_or_else(|| ConfigError::ANYWHERE.to_owned())
}

/// Quotes a wrong value, unless it looks like something that ended up at the wrong key.
fn show(value: &Value) -> String {
    const LONGEST: usize = 12;
    match &value.kind {
        ValueKind::String(text) if text.chars().count() <= LONGEST => format!("{text:?}"),
        ValueKind::String(_) => "(a longer text)".to_owned(),
        ValueKind::Boolean(value) => value.to_string(),
        ValueKind::I64(number) => number.to_string(),
        ValueKind::Float(number) => number.to_string(),
        ValueKind::Table(_) => "(a section)".to_owned(),
        ValueKind::Array(_) => "(a list)".to_owned(),
        ValueKind::Nil | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => {
            "(this value)".to_owned()
        }
    }
}
