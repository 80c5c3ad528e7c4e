//! The shape of the code: dependencies point one way, and each part keeps to what it may know.

use std::path::{Path, PathBuf};

use crate::world::ROOT;

struct File {
    path: String,
    /// Without the unit tests at its end.
    code: String,
}

fn sources(folder: &str) -> Vec<File> {
    let mut files = Vec::new();
    walk(&Path::new(ROOT).join(folder), &mut files);
    let files: Vec<File> = files
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            let code = code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .collect::<Vec<_>>()
                .join("\n");
            let path = path.strip_prefix(ROOT).unwrap().to_str().unwrap().to_owned();
            File { path, code }
        })
        .collect();
    assert!(!files.is_empty(), "{folder} holds no Rust");
    files
}

fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, into);
        } else {
            into.push(path);
        }
    }
}

/// Whether a word stands in the code, not only as a part of another one.
fn mentions(code: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(start, _)| {
        let before = code[..start].chars().next_back();
        let after = code[start + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

/// Fails with every place where a file of the folder mentions one of the words.
fn forbid(folder: &str, words: &[&str], allowed: &[&str], why: &str) {
    let mut found = Vec::new();
    for file in sources(folder) {
        if allowed.iter().any(|allowed| file.path.starts_with(allowed)) {
            continue;
        }
        let words = words.iter().filter(|word| mentions(&file.code, word));
        found.extend(words.map(|word| format!("{}: {word}", file.path)));
    }
    assert!(found.is_empty(), "{why}:\n{}", found.join("\n"));
}

#[test]
fn sql_stands_in_db_only() {
    let allowed = ["src/db/", "src/config/", "src/app.rs", "src/cli/", "src/worker/mod.rs"];
    forbid("src", &["query", "query_as", "query_scalar", "query_file", "raw_sql"], &["src/db/", "src/domain/", "src/gateway/"], "only db asks the database");
    forbid("src", &["sqlx"], &allowed, "only db speaks to Postgres; config and the wiring hold its types");
}

#[test]
fn http_stands_in_the_gateway_and_the_alerts_only() {
    let allowed = ["src/gateway/", "src/alert/", "src/config/", "src/app.rs"];
    forbid("src", &["reqwest"], &allowed, "only gateway and alert speak HTTP; config knows its Url");
}

#[test]
fn policy_decides_without_database_network_runtime_and_clock() {
    let words = ["sqlx", "reqwest", "tokio", "SystemTime", "Instant", "now_utc", "db", "gateway", "worker", "alert"];
    forbid("src/policy", &words, &[], "policy is pure: time and randomness are arguments");
}

#[test]
fn domain_knows_nobody_else() {
    let words = ["sqlx", "reqwest", "tokio", "policy", "db", "gateway", "worker", "alert", "config"];
    forbid("src/domain", &words, &[], "domain is words and their checks, without any I/O");
}

#[test]
fn the_database_and_the_gateway_know_neither_policy_nor_worker() {
    forbid("src/db", &["policy", "worker", "gateway"], &[], "db carries out, it does not decide");
    forbid("src/gateway", &["policy", "worker", "db"], &[], "the gateway's client reports, it does not decide");
}

#[test]
fn only_one_module_knows_the_crate_backoff() {
    forbid("src", &["backoff::ExponentialBackoff", "backoff::backoff", "ExponentialBackoff"], &["src/policy/backoff.rs"], "another crate must be able to replace it in an hour");
}

/// The tests watch the daemon from outside. What they turn by hand is time: leases and due times.
#[test]
fn no_file_is_a_giant() {
    let mut giants = Vec::new();
    for folder in ["src", "tests/it"] {
        for file in sources(folder) {
            let lines = file.code.lines().count();
            if lines > 600 {
                giants.push(format!("{}: {lines} lines", file.path));
            }
        }
    }
    assert!(giants.is_empty(), "{giants:?}");
}
