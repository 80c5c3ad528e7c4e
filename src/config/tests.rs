//! Every refusal with its whole sentence, and where each value comes from.

mod defaults;
mod refusals;
mod secrets;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use secrecy::ExposeSecret;

use super::*;
use crate::domain::account::DuplicateProtection;
use crate::policy::rules::Curve;
use crate::telemetry::{LogFormat, LogLevel};

/// The least that can run.
const LEAST: &str = r#"
[database]
url = "postgres://apipayd@localhost/shop"
[accounts.default]
base_url = "https://api.example.kz/api/v1/"
"#;

/// A folder of its own for each test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("apipayd-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn read_in(
    folder: &Folder,
    text: &str,
    environment: Environment,
) -> Result<Settings<KeyFile>, ConfigError> {
    let file = Some(folder.write("a.toml", text, 0o644));
    Settings::read(&Sources { file, environment })
}

fn read(text: &str) -> Settings<KeyFile> {
    read_in(&Folder::new(), text, Environment::default()).unwrap()
}

/// The error with the folder's name left out.
fn sentence(folder: &Folder, error: &ConfigError) -> String {
    error
        .to_string()
        .replace(&format!("{}/", folder.0.display()), "")
}

#[track_caller]
fn check_refused(text: &str, variables: Environment, expected: &str) {
    let folder = Folder::new();
    let error = read_in(&folder, text, variables).unwrap_err();
    assert_eq!(sentence(&folder, &error), expected);
}

/// One more line in a section of an otherwise fine file.
#[track_caller]
fn check_line_refused(section: &str, line: &str, expected: &str) {
    let text = format!("{LEAST}\n[{section}]\n{line}\n");
    check_refused(&text, Environment::default(), expected);
}

/// The same for a line about the account.
#[track_caller]
fn check_account_refused(line: &str, expected: &str) {
    check_refused(
        &format!("{LEAST}{line}\n"),
        Environment::default(),
        expected,
    );
}

fn database() -> Environment {
    Environment::from([("APIPAYD__DATABASE__URL", "postgres://u@localhost/shop")])
}
