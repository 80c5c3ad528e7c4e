//! The shape of the code: dependencies point one way, and each part keeps to what it may know.

mod imports;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::world::ROOT;
use imports::Imports;

struct File {
    path: String,
    /// Without the unit tests at its end.
    code: String,
}

impl File {
    /// Whether it is compiled for unit tests only.
    fn is_for_tests(&self) -> bool {
        let names = self.path.split(['/', '.']).skip(1);
        self.path.starts_with("src/")
            && names
                .into_iter()
                .any(|name| ["tests", "laws", "fixtures"].contains(&name))
    }
}

fn sources(folder: &str) -> Vec<File> {
    let mut files = Vec::new();
    walk(&Path::new(ROOT).join(folder), &mut files);
    let files: Vec<File> = files
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = without_tests(&text)
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

/// The files of `src` that are more than unit tests.
fn program() -> Vec<File> {
    let mut files = sources("src");
    files.retain(|file| !file.is_for_tests());
    files
}

/// The text up to the unit tests that stand in it, and without the declarations of those in files of their own.
fn without_tests(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("#[cfg(test)]\n") {
        code += before;
        let (line, following) = after.split_once('\n').unwrap_or((after, ""));
        match line.trim_end().chars().last() {
            // Of an item of a line, only that is left out.
            Some(';') => rest = following,
            _ if line.contains("mod ") => return code,
            _ => rest = after,
        }
    }
    code + rest
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

/// The parts of the program from below, and which others each knows: of these only those that stand before it, so that
/// there is no circle.
const PARTS: [(&str, &[&str]); 17] = [
    ("beside", &[]),
    ("domain", &[]),
    ("crash", &[]),
    ("heart", &[]),
    ("service", &[]),
    ("telemetry", &[]),
    ("policy", &["domain"]),
    ("watchdog", &["heart", "service"]),
    ("names", &["beside", "domain"]),
    ("db", &["domain", "heart", "names"]),
    (
        "gateway",
        &["beside", "crash", "domain", "names", "telemetry"],
    ),
    ("config", &["db", "domain", "policy", "telemetry"]),
    ("alert", &["domain", "names", "policy"]),
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
            "beside",
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
            "beside",
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

fn names(of: &[&str]) -> BTreeSet<String> {
    of.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn each_part_knows_only_those_below_it() {
    let found = Imports::of(&program()).of_parts();
    let listed: BTreeSet<String> = names(&PARTS.map(|(part, _)| part));
    assert_eq!(listed, found.keys().cloned().collect(), "the parts");
    for (part, known) in PARTS {
        let (known, found) = (names(known), &found[part]);
        let unlisted: Vec<_> = found.difference(&known).collect();
        assert!(unlisted.is_empty(), "{part} must not know {unlisted:?}");
        let unused: Vec<_> = known.difference(found).collect();
        assert!(unused.is_empty(), "{part} need not know {unused:?}");
    }
    for (at, (part, known)) in PARTS.iter().enumerate() {
        let below = names(&PARTS.map(|(part, _)| part)[..at]);
        let above: Vec<_> = names(known).difference(&below).cloned().collect();
        assert!(above.is_empty(), "{part} stands below {above:?}");
    }
}

#[test]
fn no_files_depend_on_each_other_in_a_circle() {
    let imports = Imports::of(&program()).modules;
    let circles = imports::circles(&imports);
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn sql_stands_in_db_only() {
    let queries = ["sqlx::query", "sqlx::raw_sql", "QueryBuilder"];
    // The log has filters by these names.
    let allowed = ["src/db/", "src/telemetry.rs"];
    forbid("src", &queries, &allowed, "only db asks the database");
}

/// Crates that do I/O or wait, and the modules that may know each.
const CRATES: [(&str, &[&str]); 8] = [
    ("clap", &["cli"]),
    ("reqwest", &["alert::webhook", "config", "gateway", "names"]),
    ("rustix", &["app", "service", "worker::clock"]),
    ("rustls", &["cli", "gateway"]),
    // The configuration reads URLs into the driver's options.
    ("sqlx", &["config", "db"]),
    (
        "tokio",
        &[
            "app", "beside", "crash", "db", "gateway", "heart", "names", "reload", "watchdog",
            "worker",
        ],
    ),
    ("tokio_util", &["app", "worker"]),
    ("tracing_subscriber", &["telemetry"]),
];

#[test]
fn a_crate_that_does_io_is_known_where_it_must_be() {
    let mut found = Vec::new();
    for (module, crates) in Imports::of(&program()).crates {
        for (name, allowed) in CRATES {
            let is_allowed = allowed
                .iter()
                .any(|above| module == *above || module.starts_with(&format!("{above}::")));
            if crates.contains(name) && !is_allowed {
                found.push(format!("{module}: {name}"));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// What is no value: I/O, waiting, clocks and randomness.
const IMPURE: [&str; 16] = [
    "sqlx::",
    "reqwest::",
    "tokio::",
    "tracing::",
    "rustix::",
    "std::env",
    "std::fs",
    "std::io",
    "std::process",
    "std::thread",
    "TcpStream",
    "SystemTime",
    "Instant",
    "now_utc",
    "now_local",
    "new_v4",
];

#[test]
fn domain_and_policy_decide_without_io_clock_and_randomness() {
    for folder in ["src/domain", "src/policy"] {
        forbid(folder, &IMPURE, &[], "time and randomness are arguments");
    }
}

#[test]
fn only_workers_loop() {
    let waits = ["sleep(", "spawn(", "time::interval"];
    // The half of a body that a test has on the wire.
    let allowed = ["src/gateway/halves.rs"];
    for folder in [
        "alert", "cli", "config", "db", "domain", "gateway", "policy",
    ] {
        let folder = format!("src/{folder}");
        forbid(
            &folder,
            &waits,
            &allowed,
            "only worker waits and tries again",
        );
    }
}

#[test]
fn an_operation_is_named_in_its_own_file_only() {
    let allowed = ["src/domain/operation/"];
    let found: Vec<String> = program()
        .into_iter()
        .filter(|file| file.code.contains("\"invoice."))
        .map(|file| file.path)
        .filter(|path| !allowed.iter().any(|allowed| path.starts_with(allowed)))
        .collect();
    assert!(found.is_empty(), "{found:#?}");
}

/// What decides about objects asks them, whichever kind they are.
#[test]
fn no_decision_knows_a_kind_of_object() {
    let allowed: Vec<String> = sources("src/policy")
        .into_iter()
        .filter(File::is_for_tests)
        .map(|file| file.path)
        .collect();
    let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
    forbid(
        "src/policy",
        &["Object::Invoice", "Object::Refund"],
        &allowed,
        "an object is asked, as domain::object has it",
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
