//! Where settings come from: the compiled-in defaults, a file, the environment, merged in this order.

use std::path::{Path, PathBuf};

use config::{Config, FileFormat, Format, Map, Source, Value};

use super::environment::Environment;
use super::error::ConfigError;
use super::reading;
use super::section::{DEFAULT, Section, VARIABLE};

/// The compiled-in layer.
pub(super) const DEFAULTS: &str = include_str!("../../config/default.toml");

/// Read when no file was named, if it exists.
const USUAL_FILE: &str = "/etc/apipayd/apipayd.toml";

const PREFIX: &str = "APIPAYD__";

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
        let mut layers = vec![parse(DEFAULT, DEFAULTS)?];
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
        reading::begin(path);
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
    environment.all().filter_map(ours).collect()
}
