//! What is refused, with the whole sentence.

use super::*;

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
