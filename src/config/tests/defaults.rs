//! Which keys there are, and where each value comes from.

use super::*;

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
    let example = include_str!("../../../config/apipayd.example.toml");
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
        include_str!("../../../systemd/apipayd.service"),
        include_str!("../../../systemd/apipayd@.service"),
    ] {
        let limit = unit
            .lines()
            .find_map(|line| line.strip_prefix("TimeoutStopSec="))
            .unwrap();
        let limit = duration::parse(limit).unwrap();
        assert!(limit >= grace + Duration::from_secs(15), "{limit:?}");
    }
}
