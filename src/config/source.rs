//! Where settings come from: layers of keys, each value with the place it was written at.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Config, FileFormat, Format, Map, Source, Value, ValueKind};

use super::duration;

/// The compiled-in layer.
pub(super) const DEFAULTS: &str = include_str!("../../config/default.toml");
const DEFAULTS_ORIGIN: &str = "built-in default";

/// Read when no file was named, if it exists.
const USUAL_FILE: &str = "/etc/apipayd/apipayd.toml";

const PREFIX: &str = "APIPAYD__";
const VARIABLE: &str = "environment variable";

/// What is wrong with the settings: the place, the key, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    /// The place of what nobody wrote.
    pub(super) const ANYWHERE: &str = "configuration";

    pub(super) fn at(origin: &str, sentence: impl fmt::Display) -> ConfigError {
        ConfigError(format!("{origin}: {sentence}"))
    }

    /// About a name of the contract whose feature is still to come: never silently ignored.
    pub(super) fn unsupported(origin: &str, what: impl fmt::Display) -> ConfigError {
        ConfigError::at(
            origin,
            format_args!("not supported by this version: {what}; remove it"),
        )
    }
}

/// The environment as a value, so that no test depends on the real one.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The environment of this process; what is not Unicode is left out.
    pub fn of_process() -> Environment {
        let readable = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Environment(std::env::vars_os().filter_map(readable).collect())
    }

    /// The variable's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(variables: [(&str, &str); N]) -> Environment {
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Environment(variables.into_iter().map(own).collect())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be secrets.
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What settings are read from, over the compiled-in defaults.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The file that was named; otherwise the usual one is read if it exists.
    pub file: Option<PathBuf>,
    /// The environment.
    pub environment: Environment,
}

impl Sources {
    /// All layers merged, as one tree.
    pub(super) fn merge(&self) -> Result<Section, ConfigError> {
        let mut layers = vec![parse(DEFAULTS_ORIGIN, DEFAULTS)?];
        layers.extend(self.read_file()?);
        layers.push(variables(&self.environment));
        let merged = layers
            .into_iter()
            .fold(Config::builder(), |builder, layer| {
                builder.add_source(Layer(layer))
            })
            .build()
            .map_err(|error| ConfigError::at("settings", error))?;
        Section::new(String::new(), merged.cache)
    }

    fn read_file(&self) -> Result<Option<Map<String, Value>>, ConfigError> {
        let (path, is_required) = match &self.file {
            Some(path) => (path.as_path(), true),
            None => (Path::new(USUAL_FILE), false),
        };
        match std::fs::read_to_string(path) {
            Ok(text) => parse(&path.display().to_string(), &text).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !is_required => Ok(None),
            Err(error) => Err(ConfigError::at(
                &path.display().to_string(),
                format_args!("cannot read this configuration file: {error}"),
            )),
        }
    }
}

#[derive(Clone, Debug)]
struct Layer(Map<String, Value>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.0.clone())
    }
}

fn parse(origin: &str, text: &str) -> Result<Map<String, Value>, ConfigError> {
    FileFormat::Toml
        .parse(Some(&origin.to_owned()), text)
        .map_err(|error| {
            // The error's own text quotes the line, which may hold a password.
            match error.downcast_ref::<toml::de::Error>() {
                Some(error) => {
                    let line = error
                        .span()
                        .and_then(|span| text.get(..span.start))
                        .map_or(1, |before| before.matches('\n').count() + 1);
                    let problem = error.message();
                    ConfigError::at(origin, format_args!("line {line} is not TOML: {problem}"))
                }
                None => ConfigError::at(origin, "this file is not TOML"),
            }
        })
}

fn variables(environment: &Environment) -> Map<String, Value> {
    let ours = |(name, value): (&String, &String)| {
        let key = name.strip_prefix(PREFIX)?.to_lowercase().replace("__", ".");
        let origin = format!("{VARIABLE} {name}");
        Some((key, Value::new(Some(&origin), value.as_str())))
    };
    environment.0.iter().filter_map(ours).collect()
}

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
        self.origin != DEFAULTS_ORIGIN && !self.is_from_variable()
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
    fn new(path: String, value: Value) -> Result<Section, ConfigError> {
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
            .or_insert_with(|| Value::new(Some(&DEFAULTS_ORIGIN.to_owned()), value));
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
