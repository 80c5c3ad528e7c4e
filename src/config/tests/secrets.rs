//! The URL of the database and the API keys: where they may stand, and that nothing shows them.

use super::*;

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
