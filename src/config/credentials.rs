//! Secrets, which come from files of their own: API keys and URLs with passwords.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::environment::Environment;
use super::error::ConfigError;
use super::reading;
use super::section::Found;
use crate::domain::account::AccountName;

/// systemd sets it to the folder of the unit's credentials.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// No key or URL is longer.
const SIZE_MAX: u64 = 16 * 1024;

const READABLE_BY_EVERYBODY: u32 = 0o004;

/// Where an account's API key is read from.
#[derive(Clone, Debug)]
pub struct KeyFile(pub(super) Option<Found<PathBuf>>);

impl KeyFile {
    /// Reads the key: from the file that was named, otherwise from systemd's credentials.
    pub(super) fn load(
        &self,
        account: &AccountName,
        environment: &Environment,
    ) -> Result<SecretString, ConfigError> {
        match &self.0 {
            Some(found) => read_named(found),
            None => read_credential(account, environment),
        }
    }
}

fn read_credential(
    account: &AccountName,
    environment: &Environment,
) -> Result<SecretString, ConfigError> {
    let name = match account.as_str() {
        "default" => "api-key".to_owned(),
        name => format!("api-key-{name}"),
    };
    let key = format!("accounts.{account}.api_key_file");
    match credential(environment, &name) {
        Some(path) => read_secret(&path).map_err(|problem| {
            let path = path.display();
            ConfigError::at(
                "systemd credentials",
                format_args!("{path}, the key of account {account}, {problem}"),
            )
        }),
        None => Err(ConfigError::at(
            ConfigError::ANYWHERE,
            format_args!(
                "{key} is missing; name a file that holds the API key, or run under systemd with LoadCredential={name}:PATH"
            ),
        )),
    }
}

/// The path of a credential that systemd may have been told to pass.
pub(super) fn credential(environment: &Environment, name: &str) -> Option<PathBuf> {
    environment
        .get(CREDENTIALS_DIRECTORY)
        .map(|folder| Path::new(folder).join(name))
}

/// Reads the secret in the file that a setting names.
pub(super) fn read_named(found: &Found<PathBuf>) -> Result<SecretString, ConfigError> {
    read_secret(&found.value).map_err(|problem| {
        let path = found.value.display();
        found.refuse(format_args!("names {path}, which {problem}"))
    })
}

/// Reads a secret of one line. The error is the end of a sentence about the file.
pub(super) fn read_secret(path: &Path) -> Result<SecretString, String> {
    reading::begin(path);
    let file = File::open(path).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => format!(
            "cannot be read: {error}; a service with a user of its own is passed its secrets by LoadCredential="
        ),
        _ => format!("cannot be read: {error}"),
    })?;
    let metadata = file
        .metadata()
        .map_err(|error| format!("cannot be read: {error}"))?;
    if !metadata.is_file() {
        return Err("is not a file".to_owned());
    }
    let mode = metadata.permissions().mode();
    if mode & READABLE_BY_EVERYBODY != 0 {
        return Err(format!(
            "everybody may read (mode {:o}); run: chmod 600 {}",
            mode & 0o7777,
            path.display()
        ));
    }
    let mut text = String::new();
    file.take(SIZE_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| format!("cannot be read: {error}"))?;
    match text.trim() {
        "" => Err("is empty".to_owned()),
        secret if secret.len() as u64 > SIZE_MAX => Err(format!("is longer than {SIZE_MAX} bytes")),
        secret if secret.lines().count() > 1 => Err("must hold one line only".to_owned()),
        secret if !secret.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err("must hold visible ASCII characters only, and no blank".to_owned())
        }
        secret => Ok(SecretString::from(secret)),
    }
}

/// Whether everybody on this machine may read the file.
pub(super) fn is_readable_by_everybody(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.permissions().mode() & READABLE_BY_EVERYBODY != 0)
}
