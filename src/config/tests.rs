//! Every refusal with its whole sentence, and where each value comes from.

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

/// default.toml with the settings that have no default switched on.
fn documented() -> String {
    let switched_on = |line: &str| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with(' ') && !setting.is_empty() => setting.to_owned(),
        _ => line.to_owned(),
    };
    let lines: Vec<String> = source::DEFAULTS.lines().map(switched_on).collect();
    // These files do not exist, and each stands beside the url that it could replace.
    let without_files = |line: &&String| !line.starts_with("url_file");
    lines
        .iter()
        .filter(without_files)
        .cloned()
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn every_documented_key_is_known() {
    let settings = read(&documented());
    assert_eq!(settings.accounts.len(), 1);
    assert!(settings.alerts.webhook.is_some());
    assert!(settings.database.is_pooled());
}

#[test]
fn every_known_key_is_documented() {
    let documented = documented();
    let table: toml::de::DeTable<'_> = toml::de::DeTable::parse(&documented).unwrap().into_inner();
    let mut sections = vec![(String::new(), &table)];
    let mut seen = 0;
    while let Some((path, table)) = sections.pop() {
        seen += 1;
        for (name, value) in table {
            if let Some(inner) = value.get_ref().as_table() {
                let dot = if path.is_empty() { "" } else { "." };
                sections.push((format!("{path}{dot}{}", name.get_ref()), inner));
            }
        }
        // Names of sections are the users' here.
        if path == "accounts" {
            continue;
        }
        let header = if path.is_empty() {
            String::new()
        } else {
            format!("[{path}]\n")
        };
        let folder = Folder::new();
        let text = format!("{header}zzz = 1\n{}", section_of_account(&path));
        let error = read_in(&folder, &text, database()).unwrap_err().to_string();
        let (_, known) = error.split_once(" are ").unwrap();
        for key in known.split(", ") {
            let is_there = table.keys().any(|name| name.get_ref() == key)
                || source::DEFAULTS.contains(&format!("# {key}:"))
                || key == "url_file" && source::DEFAULTS.contains("#url_file = ")
                || path == "alerts" && source::DEFAULTS.contains(&format!("[alerts.{key}]"))
                || key == "web" && source::DEFAULTS.contains("[web]");
            assert!(is_there, "{path}.{key} is known, but not documented");
        }
    }
    assert_eq!(seen, 17, "sections of default.toml");
}

fn section_of_account(path: &str) -> &'static str {
    if path == "accounts.default" {
        "base_url = \"https://api.example.kz\"\n"
    } else {
        ""
    }
}

fn database() -> Environment {
    Environment::from([("APIPAYD__DATABASE__URL", "postgres://u@localhost/shop")])
}

#[test]
fn an_account_has_the_defaults_that_are_documented() {
    let documented = read(&documented());
    let least = read(LEAST);
    let (documented, least) = (&documented.accounts[0], &least.accounts[0]);
    assert_eq!(least.requests_per_minute, documented.requests_per_minute);
    assert_eq!(least.concurrency, documented.concurrency);
    assert_eq!(least.duplicate_protection, documented.duplicate_protection);
    assert_eq!(least.allow_insecure, documented.allow_insecure);
    assert_eq!(least.requests_per_minute, 60);
    assert_eq!(least.concurrency, 8);
    assert_eq!(least.duplicate_protection, DuplicateProtection::Key);
    assert!(!least.allow_insecure);
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let settings = read(LEAST);
    let seconds = Duration::from_secs;
    assert_eq!(settings.database.max_connections, 8);
    assert!(!settings.database.migrate_on_start);
    assert!(!settings.database.is_pooled());
    assert_eq!(settings.worker.concurrency, 64);
    assert_eq!(settings.worker.claim_batch, 300);
    assert_eq!(settings.worker.poll_interval, seconds(1));
    assert_eq!(settings.worker.lease, seconds(90));
    assert_eq!(settings.worker.grace, seconds(40));
    assert_eq!(settings.http.connect_timeout, seconds(5));
    assert_eq!(settings.http.timeout, seconds(30));
    assert_eq!(settings.http.max_body_bytes, 1_048_576);
    assert_eq!(settings.alerts.repeat, seconds(4 * 3600));
    assert!(settings.alerts.webhook.is_none());
    assert_eq!(settings.log.format, LogFormat::Text);
    assert_eq!(settings.log.level, LogLevel::Info);
}

#[test]
fn rules_are_made_of_their_sections() {
    let seconds = Duration::from_secs;
    let curve = |initial, max, attempts| Curve {
        initial: seconds(initial),
        max: seconds(max),
        multiplier: 2.0,
        jitter: 0.2,
        attempts,
    };
    let rules = read(LEAST).rules();
    assert_eq!(rules.rate_limited, curve(60, 900, 0));
    assert_eq!(rules.server_error, curve(5, 900, 0));
    assert_eq!(rules.network, curve(1, 300, 0));
    assert_eq!(rules.async_error, curve(90, 900, 3));
    assert_eq!(rules.quiet_after_timeout, seconds(60));
    assert_eq!(rules.quiet_after_answer, seconds(5));
    assert_eq!(rules.settle, seconds(900));
    assert_eq!(rules.give_up, seconds(20 * 3600));
    assert_eq!(rules.request_timeout, seconds(30));
    assert_eq!(rules.breaker.probe_initial, seconds(60));
    assert_eq!(rules.breaker.probe_max, seconds(900));
    assert_eq!(rules.breaker.slow_start, seconds(60));
    assert_eq!(rules.follow.first, seconds(5));
    assert_eq!(rules.follow.max, seconds(600));
    assert_eq!(rules.follow.watch_after_final, seconds(72 * 3600));
}

#[test]
fn each_rule_comes_from_its_own_key() {
    let text = format!(
        "{LEAST}
        [http]\ntimeout = \"20s\"
        [retry.rate_limited]\ninitial = \"61s\"\nmax = \"62s\"\nmultiplier = 3\njitter = 0\nattempts = 1
        [retry.server_error]\nattempts = 2
        [retry.network]\nattempts = 3
        [retry.async_error]\nattempts = 4
        [reconcile]\nquiet_after_timeout = \"1s\"\nquiet_after_answer = \"0s\"\nsettle = \"3s\"\ngive_up = \"23h\"
        [breaker]\nprobe_initial = \"5s\"\nprobe_max = \"6s\"\nslow_start = \"7s\"
        [follow]\nfirst = \"8s\"\nmax = \"9s\"\nwatch_after_final = \"10s\""
    );
    let rules = read(&text).rules();
    assert_eq!(rules.request_timeout.as_secs(), 20);
    assert_eq!(rules.rate_limited.initial.as_secs(), 61);
    assert_eq!(rules.rate_limited.max.as_secs(), 62);
    assert_eq!(rules.rate_limited.multiplier, 3.0);
    assert_eq!(rules.rate_limited.jitter, 0.0);
    let attempts = [
        rules.rate_limited,
        rules.server_error,
        rules.network,
        rules.async_error,
    ]
    .map(|curve| curve.attempts);
    assert_eq!(attempts, [1, 2, 3, 4]);
    let reconcile = [
        rules.quiet_after_timeout,
        rules.quiet_after_answer,
        rules.settle,
    ];
    assert_eq!(reconcile.map(|d| d.as_secs()), [1, 0, 3]);
    let breaker = [
        rules.breaker.probe_initial,
        rules.breaker.probe_max,
        rules.breaker.slow_start,
    ];
    assert_eq!(breaker.map(|d| d.as_secs()), [5, 6, 7]);
    let follow = [
        rules.follow.first,
        rules.follow.max,
        rules.follow.watch_after_final,
    ];
    assert_eq!(follow.map(|d| d.as_secs()), [8, 9, 10]);
}

#[test]
fn the_environment_overrides_the_file_and_the_file_the_defaults() {
    let folder = Folder::new();
    let text = format!("{LEAST}[http]\ntimeout = \"20s\"\nconnect_timeout = \"4s\"\n");
    let variables = Environment::from([
        ("APIPAYD__HTTP__TIMEOUT", "25s"),
        ("APIPAYD__WORKER__CONCURRENCY", "7"),
        ("APIPAYD__RETRY__NETWORK__JITTER", "0.5"),
        ("APIPAYD__DATABASE__MIGRATE_ON_START", "true"),
        (
            "APIPAYD__ACCOUNTS__DEFAULT__BASE_URL",
            "https://other.example.kz",
        ),
        (
            "APIPAYD__ACCOUNTS__SHOP_2__BASE_URL",
            "https://second.example.kz",
        ),
        ("APIPAYDX__HTTP__TIMEOUT", "1s"),
        ("PATH", "/bin"),
    ]);
    let settings = read_in(&folder, &text, variables).unwrap();
    assert_eq!(settings.http.timeout.as_secs(), 25);
    assert_eq!(settings.http.connect_timeout.as_secs(), 4);
    assert_eq!(settings.http.max_body_bytes, 1 << 20);
    assert_eq!(settings.worker.concurrency, 7);
    assert_eq!(settings.rules().network.jitter, 0.5);
    assert!(settings.database.migrate_on_start);
    let accounts: Vec<_> = settings
        .accounts
        .iter()
        .map(|account| (account.name.as_str(), account.base_url.as_str()))
        .collect();
    assert_eq!(
        accounts,
        [
            ("default", "https://other.example.kz/"),
            ("shop_2", "https://second.example.kz/")
        ]
    );
}

#[test]
fn a_sandbox_and_an_empty_web_section_are_fine() {
    let folder = Folder::new();
    let key = folder.write("api-key", "sk_test_1\n", 0o600);
    let text = format!(
        r#"
        [database]
        url = "postgres://postgres@127.0.0.1:5433/bench"
        migrate_on_start = true
        [accounts.default]
        base_url = "http://127.0.0.1:18080/api/v1"
        api_key_file = "{}"
        allow_insecure = true
        requests_per_minute = 100000000
        concurrency = 64
        [worker]
        concurrency = 64
        [web]
        "#,
        key.display()
    );
    let settings = read_in(&folder, &text, Environment::default()).unwrap();
    let settings = settings.load_keys(&Environment::default()).unwrap();
    let account = &settings.accounts[0];
    assert_eq!(account.api_key.expose_secret(), "sk_test_1");
    assert_eq!(account.base_url.as_str(), "http://127.0.0.1:18080/api/v1");
    assert_eq!(account.requests_per_minute, 100_000_000);
    assert_eq!(account.concurrency, 64);
}

#[test]
fn the_example_is_understood() {
    let example = include_str!("../../config/apipayd.example.toml");
    let names = |settings: &Settings<KeyFile>| -> Vec<String> {
        let names = settings.accounts.iter().map(|a| a.name.to_string());
        names.collect()
    };
    let settings = read(example);
    assert_eq!(names(&settings), ["default"]);
    // What it offers is a line that starts with # and has no blank after it.
    let offers = example
        .replace("\n#[", "\n[")
        .replace("\n#base_url", "\nbase_url")
        .replace("\n#url", "\nurl");
    let offered = read(&offers);
    assert_eq!(names(&offered), ["clinic", "default"]);
    assert!(offered.alerts.webhook.is_some());
    assert_eq!(settings.connect().options.get_database(), Some("shop"));
    let socket = settings.connect().options.get_socket().cloned();
    assert_eq!(socket.as_deref(), Some(Path::new("/run/postgresql")));
}

#[test]
fn the_units_leave_time_for_the_grace_period() {
    let grace = read(LEAST).worker.grace;
    for unit in [
        include_str!("../../systemd/apipayd.service"),
        include_str!("../../systemd/apipayd@.service"),
    ] {
        let limit = unit
            .lines()
            .find_map(|line| line.strip_prefix("TimeoutStopSec="))
            .unwrap();
        let limit = duration::parse(limit).unwrap();
        assert!(limit >= grace + Duration::from_secs(15), "{limit:?}");
    }
}

#[test]
fn the_trailing_slash_of_a_base_url_is_dropped() {
    assert_eq!(
        read(LEAST).accounts[0].base_url.as_str(),
        "https://api.example.kz/api/v1"
    );
}

#[test]
fn what_is_unknown_is_refused() {
    check_line_refused(
        "http",
        "retries = 3",
        "a.toml: unknown key http.retries; the keys of [http] are connect_timeout, max_body_bytes, timeout",
    );
    check_line_refused(
        "htpp",
        "timeout = \"3s\"",
        "a.toml: unknown section htpp; the sections are accounts, alerts, breaker, database, follow, http, \
         log, reconcile, retry, web, worker",
    );
    check_line_refused(
        "retry.timeout",
        "initial = \"3s\"",
        "a.toml: unknown key retry.timeout; the keys of [retry] are async_error, network, rate_limited, \
         server_error",
    );
    check_refused(
        LEAST,
        Environment::from([("APIPAYD__HTTP__RETRIES", "3")]),
        "environment variable APIPAYD__HTTP__RETRIES: unknown key http.retries; the keys of [http] are \
         connect_timeout, max_body_bytes, timeout",
    );
    check_account_refused(
        "api_key = \"sk_live_123\"",
        "a.toml: unknown key accounts.default.api_key; the keys of [accounts.default] are allow_insecure, \
         api_key_file, base_url, concurrency, duplicate_protection, requests_per_minute",
    );
}

#[test]
fn wrong_values_are_refused() {
    check_line_refused(
        "http",
        "timeout = 30",
        "a.toml: http.timeout = 30 is not a duration; allowed is a whole number and a unit \
         (ms, s, m, h or d), such as \"30s\", at most 366d",
    );
    check_refused(
        LEAST,
        Environment::from([("APIPAYD__HTTP__TIMEOUT", "soon")]),
        "environment variable APIPAYD__HTTP__TIMEOUT: http.timeout = \"soon\" is not a duration; allowed \
         is a whole number and a unit (ms, s, m, h or d), such as \"30s\", at most 366d",
    );
    check_line_refused(
        "worker",
        "poll_interval = \"0s\"",
        "a.toml: worker.poll_interval must not be zero",
    );
    check_line_refused(
        "worker",
        "claim_batch = 0",
        "a.toml: worker.claim_batch = 0 is not allowed; allowed is a whole number from 1 to 10000",
    );
    check_line_refused(
        "worker",
        "claim_batch = \"9\"",
        "a.toml: worker.claim_batch = \"9\" is not allowed; allowed is a whole number from 1 to 10000",
    );
    check_line_refused(
        "worker",
        "claim_batch = 2.5",
        "a.toml: worker.claim_batch = 2.5 is not allowed; allowed is a whole number from 1 to 10000",
    );
    check_line_refused(
        "worker",
        "claim_batch = true",
        "a.toml: worker.claim_batch = true is not allowed; allowed is a whole number from 1 to 10000",
    );
    check_refused(
        LEAST,
        Environment::from([("APIPAYD__DATABASE__MAX_CONNECTIONS", "3")]),
        "environment variable APIPAYD__DATABASE__MAX_CONNECTIONS: database.max_connections = \"3\" is not \
         allowed; allowed is a whole number from 4 to 1000",
    );
    check_line_refused(
        "retry.network",
        "multiplier = 0.5",
        "a.toml: retry.network.multiplier = 0.5 is not allowed; allowed is a number from 1 to 100",
    );
    check_line_refused(
        "retry.network",
        "jitter = 1.5",
        "a.toml: retry.network.jitter = 1.5 is not allowed; allowed is a number from 0 to 1",
    );
    check_line_refused(
        "retry.network",
        "jitter = nan",
        "a.toml: retry.network.jitter = NaN is not allowed; allowed is a number from 0 to 1",
    );
    check_line_refused(
        "log",
        "level = \"loud\"",
        "a.toml: log.level = \"loud\" is not allowed; allowed is one of \"error\", \"warn\", \"info\", \
         \"debug\", \"trace\"",
    );
    check_account_refused(
        "allow_insecure = \"true\"",
        "a.toml: accounts.default.allow_insecure = \"true\" is not allowed; allowed is true or false, \
         without quotes",
    );
    check_account_refused(
        "duplicate_protection = \"none\"",
        "a.toml: accounts.default.duplicate_protection = \"none\" is not allowed; allowed is one of \
         \"key\", \"lookup\"",
    );
    check_account_refused(
        "api_key_file = 3",
        "a.toml: accounts.default.api_key_file must be a text in quotes",
    );
    check_account_refused(
        "api_key_file = \"\"",
        "a.toml: accounts.default.api_key_file is empty; leave the key out or give it a value",
    );
    check_refused(
        "http = 5",
        database(),
        "a.toml: http must be a section, [http]",
    );
    check_refused(
        LEAST,
        Environment::from([("APIPAYD__HTTP", "5")]),
        "environment variable APIPAYD__HTTP: http must be a section, [http]",
    );
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    check_line_refused(
        "worker",
        "lease = \"40s\"",
        "a.toml: worker.lease is 40s, but must be longer than http.timeout, which is 30s (built-in \
         default), by more than 10s",
    );
    check_refused(
        LEAST,
        Environment::from([("APIPAYD__HTTP__TIMEOUT", "80s")]),
        "built-in default: worker.lease is 90s, but must be longer than http.timeout, which is 80s \
         (environment variable APIPAYD__HTTP__TIMEOUT), by more than 10s",
    );
    check_line_refused(
        "worker",
        "grace = \"30s\"",
        "a.toml: worker.grace is 30s, but must be longer than http.timeout, which is 30s (built-in default)",
    );
    check_line_refused(
        "http",
        "connect_timeout = \"30s\"",
        "built-in default: http.timeout is 30s, but must be longer than http.connect_timeout, which is \
         30s (a.toml)",
    );
    check_line_refused(
        "retry.network",
        "initial = \"6m\"",
        "a.toml: retry.network.initial is 6m, but must not be longer than retry.network.max, which is 5m \
         (built-in default)",
    );
    check_line_refused(
        "breaker",
        "probe_max = \"30s\"",
        "built-in default: breaker.probe_initial is 60s, but must not be longer than breaker.probe_max, \
         which is 30s (a.toml)",
    );
    check_line_refused(
        "follow",
        "first = \"11m\"",
        "a.toml: follow.first is 11m, but must not be longer than follow.max, which is 10m (built-in default)",
    );
    check_line_refused(
        "reconcile",
        "give_up = \"24h\"",
        "a.toml: reconcile.give_up is 24h, but must be at most 23h: the gateway's invoices live 24h",
    );
    check_line_refused(
        "reconcile",
        "settle = \"20h\"",
        "built-in default: reconcile.give_up is 20h, but must be longer than reconcile.settle, which is \
         20h (a.toml)",
    );
}

#[test]
fn names_of_features_to_come_are_refused_and_their_empty_sections_are_not() {
    check_line_refused(
        "web",
        "listen = \"127.0.0.1:9090\"",
        "a.toml: not supported by this version: web.listen; remove it",
    );
    check_line_refused(
        "alerts.telegram",
        "token_file = \"/x\"",
        "a.toml: not supported by this version: alerts.telegram.token_file; remove it",
    );
    check_line_refused(
        "alerts.email",
        "to = \"a@b.kz\"",
        "a.toml: not supported by this version: alerts.email.to; remove it",
    );
    check_line_refused(
        "alerts.command",
        "run = \"/x\"",
        "a.toml: not supported by this version: alerts.command.run; remove it",
    );
    check_line_refused(
        "alerts",
        "language = \"ru\"",
        "a.toml: not supported by this version: alerts.language other than \"en\"; remove it",
    );
    check_account_refused(
        "webhook_secret_file = \"/x\"",
        "a.toml: not supported by this version: accounts.default.webhook_secret_file; remove it",
    );
    read(&format!(
        "{LEAST}[web]\n[alerts.telegram]\n[alerts.email]\n[alerts.command]\n"
    ));
}

#[test]
fn a_base_url_must_be_https_and_public() {
    let check = |url: &str, expected: &str| {
        let text = format!("[accounts.default]\nbase_url = \"{url}\"\n");
        let whole = format!("a.toml: accounts.default.base_url {expected}");
        check_refused(&text, database(), &whole);
    };
    let private =
        "is a private or local address; that is for the sandbox, with allow_insecure = true";
    for host in [
        "localhost",
        "localhost.",
        "shop.localhost",
        "printer.local",
        "127.0.0.1",
        "127.1",
        "2130706433",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[fe80::1]",
        "[fd00::1]",
        "[::ffff:127.0.0.1]",
    ] {
        check(&format!("https://{host}/api/v1"), private);
    }
    check(
        "http://api.example.kz",
        "must begin with https://; plain http is for the sandbox, with allow_insecure = true",
    );
    check("ftp://api.example.kz", "must begin with https://");
    check(
        "api.example.kz",
        "is not a URL such as https://api.example.kz/api/v1",
    );
    check(
        "https://me:secret@api.example.kz",
        "must hold no user name and no password",
    );
    check(
        "https://api.example.kz/?key=1",
        "must end with its path: no ? and no #",
    );
    check(
        "https://api.example.kz/#a",
        "must end with its path: no ? and no #",
    );
}

#[test]
fn accounts_are_named_as_the_database_names_them() {
    let text = "[accounts.Shop]\nbase_url = \"https://api.example.kz\"\n";
    check_refused(
        text,
        database(),
        "a.toml: [accounts.Shop] is not named well; a name begins with a lower-case letter or a digit, \
         goes on with these, _ and -, and has at most 63 of them",
    );
    check_refused(
        "[accounts.default]\nconcurrency = 3\n",
        database(),
        "a.toml: accounts.default.base_url is missing; it says where the gateway is",
    );
}

#[test]
fn the_database_has_exactly_one_url() {
    let none = Environment::default();
    check_refused(
        "",
        none.clone(),
        "configuration: database.url is missing; set it, or run under systemd with LoadCredential=database-url:PATH",
    );
    check_refused(
        "[database]\nurl = \"postgres://u@h/d\"\nurl_file = \"/x\"\n",
        none.clone(),
        "a.toml: database.url_file and database.url (a.toml) are both set; exactly one of them is allowed",
    );
    check_refused(
        "[database]\nurl = \"mysql://u:secret@h/d\"\n",
        none.clone(),
        "a.toml: database.url is not a URL such as postgres://user@host/database",
    );
    check_refused(
        "[database]\nurl = \"postgres://u:secret@h/d?sslmode=perhaps\"\n",
        Environment::from([(
            "APIPAYD__DATABASE__URL",
            "postgres://u:secret@h/d?sslmode=perhaps",
        )]),
        "environment variable APIPAYD__DATABASE__URL: database.url has a parameter with a value that is \
         not understood",
    );
    check_refused(
        "[database]\nurl = \"postgres://u@h/d?channel_binding=require\"\n",
        none,
        "a.toml: database.url has the parameter \"channel_binding\", which is not understood; allowed are \
         application_name, dbname, host, hostaddr, options, password, port, ssl-ca, ssl-cert, ssl-key, \
         ssl-mode, ssl-root-cert, sslcert, sslkey, sslmode, sslrootcert, user",
    );
}

#[test]
fn a_password_is_refused_in_a_file_that_everybody_may_read() {
    for url in [
        "postgres://u:secret@h/d",
        "postgres://u@h/d?password=secret",
    ] {
        let text = format!("[database]\nurl = \"{url}\"\n");
        check_refused(
            &text,
            Environment::default(),
            "a.toml: database.url holds a password in a file that everybody may read; put the url into a \
             file of its own with mode 600, and pass that to the service with LoadCredential=database-url:PATH",
        );
        let folder = Folder::new();
        let file = Some(folder.write("private.toml", &text, 0o640));
        let environment = Environment::default();
        Settings::read(&Sources { file, environment }).unwrap();
        let variables = Environment::from([("APIPAYD__DATABASE__URL", url)]);
        read_in(&Folder::new(), "", variables).unwrap();
    }
}

#[test]
fn the_database_url_is_read_from_its_file_or_from_systemd() {
    let folder = Folder::new();
    let url = "postgres://u:secret@db.example.kz/shop\n";
    let path = folder.write("database-url", url, 0o600);
    let text = format!("[database]\nurl_file = \"{}\"\n", path.display());
    let settings = read_in(&folder, &text, Environment::default()).unwrap();
    assert_eq!(settings.connect().options.get_host(), "db.example.kz");

    let credentials = Environment::from([("CREDENTIALS_DIRECTORY", folder.0.to_str().unwrap())]);
    let settings = read_in(&folder, "", credentials).unwrap();
    assert_eq!(settings.connect().options.get_database(), Some("shop"));

    let path = folder.write("database-url", url, 0o644);
    let error = read_in(&folder, &text, Environment::default()).unwrap_err();
    assert_eq!(
        sentence(&folder, &error),
        "a.toml: database.url_file names database-url, which everybody may read (mode 644); run: chmod 600 database-url",
        "{path:?}"
    );
}

#[test]
fn a_pooled_connection_prepares_no_statements_and_listens_past_the_pooler() {
    let folder = Folder::new();
    let variables = Environment::from([
        (
            "APIPAYD__DATABASE__URL",
            "postgres://u:pass@pooler:6432/shop",
        ),
        ("APIPAYD__DATABASE__LISTEN_URL", "postgres://u@direct/shop"),
    ]);
    let connect = read_in(&folder, "", variables).unwrap().connect();
    assert_eq!(connect.options.get_host(), "pooler");
    assert_eq!(connect.direct().options.get_host(), "direct");
    let shown = format!("{:?} {:?}", connect.session(), connect.direct().session());
    assert!(
        shown.contains("statement_cache_capacity: 0"),
        "the pooler's"
    );
    assert_eq!(
        shown.matches("pass").count() - shown.matches("password").count(),
        2,
        "inherited"
    );
    let direct = read(LEAST).connect();
    assert!(!format!("{:?}", direct.session()).contains("statement_cache_capacity: 0,"));
}

#[test]
fn an_api_key_is_read_from_its_file_or_from_systemd() {
    let folder = Folder::new();
    folder.write("api-key", "first\n", 0o400);
    folder.write("api-key-shop", "second", 0o400);
    let named = folder.write("third", "third", 0o640);
    let text = format!(
        "{LEAST}[accounts.shop]\nbase_url = \"https://a.example.kz\"
         [accounts.zoo]\nbase_url = \"https://a.example.kz\"\napi_key_file = \"{}\"\n",
        named.display()
    );
    let environment = Environment::from([("CREDENTIALS_DIRECTORY", folder.0.to_str().unwrap())]);
    let settings = read(&text).load_keys(&environment).unwrap();
    let keys: Vec<_> = settings
        .accounts
        .iter()
        .map(|account| (account.name.as_str(), account.api_key.expose_secret()))
        .collect();
    assert_eq!(
        keys,
        [("default", "first"), ("shop", "second"), ("zoo", "third")]
    );
}

#[test]
fn keys_that_cannot_be_used_are_refused() {
    let none = Environment::default();
    let error = read("[database]\nurl = \"postgres://u@h/d\"")
        .load_keys(&none)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "configuration: there is no account; add a section [accounts.default] with base_url; its key is the credential api-key, or in api_key_file"
    );
    let error = read(LEAST).load_keys(&none).unwrap_err();
    assert_eq!(
        error.to_string(),
        "configuration: accounts.default.api_key_file is missing; name a file that holds the API key, or run \
         under systemd with LoadCredential=api-key:PATH"
    );
    let folder = Folder::new();
    let systemd = Environment::from([("CREDENTIALS_DIRECTORY", folder.0.to_str().unwrap())]);
    let error = read(LEAST).load_keys(&systemd).unwrap_err();
    assert_eq!(
        sentence(&folder, &error),
        "systemd credentials: api-key, the key of account default, cannot be read: No such file or directory \
         (os error 2)"
    );
    let check = |text: &str, mode, expected: &str| {
        let path = folder.write("key", text, mode);
        let line = format!("{LEAST}api_key_file = \"{}\"\n", path.display());
        let error = read_in(&folder, &line, Environment::default())
            .unwrap()
            .load_keys(&Environment::default())
            .unwrap_err();
        let expected = format!("a.toml: accounts.default.api_key_file names key, which {expected}");
        assert_eq!(sentence(&folder, &error), expected);
    };
    check(
        "sk",
        0o604,
        "everybody may read (mode 604); run: chmod 600 key",
    );
    check(" \n", 0o600, "is empty");
    check("sk\nsk", 0o600, "must hold one line only");
    check(
        "s k",
        0o600,
        "must hold visible ASCII characters only, and no blank",
    );
    check(
        "клю",
        0o600,
        "must hold visible ASCII characters only, and no blank",
    );
    check(&"x".repeat(16_385), 0o600, "is longer than 16384 bytes");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Settings::read(&Sources {
        file: Some(Path::new("/nonexistent/a.toml").to_owned()),
        environment: database(),
    })
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "/nonexistent/a.toml: cannot read this configuration file: No such file or directory (os error 2)"
    );
}

#[test]
fn a_file_that_is_not_toml_is_refused_with_its_line() {
    check_refused(
        "[database]\nmax_connections = 5\n\n[database]\n",
        database(),
        "a.toml: line 4 is not TOML: duplicate key",
    );
}

#[test]
fn an_alert_url_must_be_one() {
    check_line_refused(
        "alerts.webhook",
        "url = \"hooks/secret\"",
        "a.toml: alerts.webhook.url is not a URL such as https://alerts.example.kz/hook",
    );
}

#[test]
fn no_error_and_no_debug_shows_a_secret() {
    const CANARY: &str = "s3cr3t-canary";
    let folder = Folder::new();
    let none = Environment::default;
    let wrong = [
        format!("[database]\nurl = \"postgres://u:{CANARY}@h/d\n"),
        format!("[database]\nurl = \"postgres://u:{CANARY}@h:port/d\"\n"),
        format!("database = \"postgres://u:{CANARY}@h/d\"\n"),
        format!("[http]\ntimeout = \"{CANARY}\"\n"),
        format!("[log]\nlevel = \"{CANARY}\"\n"),
        format!("[alerts.webhook]\nurl = \"{CANARY}\"\n"),
        format!("[accounts.default]\napi_key = \"{CANARY}\"\n"),
        format!("[accounts.default]\nbase_url = \"https://u:{CANARY}@h\"\n"),
        format!("[accounts.default]\nbase_url = {{ key = \"{CANARY}\" }}\n"),
    ];
    for text in wrong {
        let error = read_in(&folder, &text, none()).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(CANARY), "{error}");
    }
    let key = folder.write("key", CANARY, 0o600);
    let url = format!("postgres://u:{CANARY}@h/d");
    let text = format!(
        "[accounts.default]\nbase_url = \"https://h.kz\"\napi_key_file = \"{}\"
         [alerts.webhook]\nurl = \"https://h/{CANARY}\"\n",
        key.display()
    );
    let environment = Environment::from([("APIPAYD__DATABASE__URL", url.as_str())]);
    let settings = read_in(&folder, &text, environment.clone()).unwrap();
    assert!(!format!("{settings:?} {environment:?}").contains(CANARY));
    let settings = settings.load_keys(&none()).unwrap();
    assert!(!format!("{settings:#?}").contains(CANARY));
}
