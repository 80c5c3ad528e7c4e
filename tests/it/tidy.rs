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
            let path = path
                .strip_prefix(ROOT)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
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

/// Fails with every place where a file of the folder holds one of the words.
fn forbid(folder: &str, words: &[&str], allowed: &[&str], why: &str) {
    let mut found = Vec::new();
    for file in sources(folder) {
        if allowed.iter().any(|allowed| file.path.starts_with(allowed)) {
            continue;
        }
        let words = words.iter().filter(|word| file.code.contains(**word));
        found.extend(words.map(|word| format!("{}: {word}", file.path)));
    }
    assert!(found.is_empty(), "{why}:\n{}", found.join("\n"));
}

#[test]
fn sql_stands_in_db_only() {
    let queries = ["sqlx::query", "sqlx::raw_sql", "QueryBuilder"];
    forbid(
        "src",
        &queries,
        &["src/db/", "src/telemetry.rs"],
        "only db asks the database",
    );
    // The configuration reads URLs into its types, and the wiring hands a pool around;
    // the log has a filter for the driver.
    let allowed = [
        "src/db/",
        "src/config/",
        "src/app.rs",
        "src/cli/",
        "src/worker/",
        "src/telemetry.rs",
    ];
    forbid("src", &["sqlx::"], &allowed, "only db speaks to Postgres");
    forbid(
        "src/worker",
        &["sqlx::Postgres", "sqlx::postgres", "sqlx::Error"],
        &[],
        "a worker knows the pool and nothing else of it",
    );
}

#[test]
fn http_stands_in_the_gateway_and_the_alerts_only() {
    let allowed = ["src/gateway/", "src/alert/", "src/config/", "src/app.rs"];
    forbid(
        "src",
        &["reqwest::"],
        &allowed,
        "only gateway and alert speak HTTP; config knows its Url",
    );
}

/// The parts of the program, and which others each may know.
const PARTS: [(&str, &[&str]); 14] = [
    ("domain", &[]),
    ("crash", &[]),
    ("heart", &[]),
    ("service", &[]),
    ("telemetry", &[]),
    ("policy", &["domain"]),
    ("watchdog", &["heart", "service"]),
    ("db", &["domain", "heart"]),
    ("gateway", &["crash", "domain", "telemetry"]),
    (
        "config",
        &["db", "domain", "gateway", "policy", "telemetry"],
    ),
    ("alert", &["config", "db", "policy", "telemetry"]),
    (
        "worker",
        &[
            "alert",
            "crash",
            "db",
            "domain",
            "gateway",
            "heart",
            "policy",
            "telemetry",
        ],
    ),
    (
        "reload",
        &[
            "config",
            "domain",
            "gateway",
            "service",
            "telemetry",
            "worker",
        ],
    ),
    (
        "app",
        &[
            "alert",
            "config",
            "db",
            "heart",
            "policy",
            "reload",
            "service",
            "telemetry",
            "watchdog",
            "worker",
        ],
    ),
    (
        "cli",
        &[
            "app",
            "config",
            "crash",
            "db",
            "domain",
            "gateway",
            "policy",
            "telemetry",
        ],
    ),
];

/// The part that a file of `src` belongs to; `None` for those that only list the parts.
fn part_of(path: &str) -> Option<&str> {
    let name = path.strip_prefix("src/")?;
    let part = name.split(['/', '.']).next()?;
    (!["main", "lib"].contains(&part)).then_some(part)
}

#[test]
fn each_part_knows_only_those_below_it() {
    let mut found = Vec::new();
    for file in sources("src") {
        let Some(part) = part_of(&file.path) else {
            continue;
        };
        let Some((_, known)) = PARTS.iter().find(|(name, _)| *name == part) else {
            found.push(format!("{}: a part that the list lacks", file.path));
            continue;
        };
        for (at, _) in file.code.match_indices("crate::") {
            let name: String = file.code[at + "crate::".len()..]
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            let is_part = PARTS.iter().any(|(part, _)| *part == name);
            if is_part && name != part && !known.contains(&name.as_str()) {
                found.push(format!("{}: crate::{name}", file.path));
            }
        }
    }
    assert!(
        found.is_empty(),
        "dependencies point one way:\n{}",
        found.join("\n")
    );
    // So the list itself has no circle: whoever stands above knows only those that stand before it.
    for (at, (part, known)) in PARTS.iter().enumerate() {
        let below = &PARTS[..at];
        for name in *known {
            assert!(
                below.iter().any(|(part, _)| part == name),
                "{part} knows {name}, which does not stand below it"
            );
        }
    }
}

#[test]
fn policy_decides_without_database_network_runtime_and_clock() {
    let words = [
        "sqlx::",
        "reqwest::",
        "tokio::",
        "SystemTime",
        "Instant",
        "now_utc",
        "now_local",
        "rustix::",
    ];
    forbid(
        "src/policy",
        &words,
        &[],
        "policy is pure: time and randomness are arguments",
    );
}

#[test]
fn domain_knows_no_io() {
    forbid(
        "src/domain",
        &["sqlx::", "reqwest::", "tokio::"],
        &[],
        "domain is words and their checks",
    );
}

/// Those that are words of nothing else: an invoice may be `failed` too, and a finding of `check` is about `sending`.
#[test]
fn each_state_of_a_job_is_spelled_once() {
    let words = ["queued", "uncertain", "accepted", "parked", "held"];
    let words = words.map(|word| format!("\"{word}\""));
    forbid(
        "src",
        &words.each_ref().map(String::as_str),
        &["src/domain/state.rs"],
        "the words of the states stand in domain::state, and in SQL",
    );
}

#[test]
fn only_one_module_knows_the_crate_backoff() {
    let words = [
        "::backoff::Exponential",
        "use ::backoff",
        "ExponentialBackoff",
    ];
    forbid(
        "src",
        &words,
        &["src/policy/backoff.rs"],
        "another crate must be able to replace it in an hour",
    );
}

#[test]
fn no_file_is_a_giant() {
    for folder in ["src", "tests/it"] {
        for file in sources(folder) {
            let lines = file.code.lines().count();
            let is_test = file.path.ends_with("tests.rs") || file.path.ends_with("laws.rs");
            assert!(
                is_test || lines <= 600,
                "{} has {lines} lines of code",
                file.path
            );
        }
    }
}
