//! From keys to settings, and what must hold between them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use super::credentials::{self, KeyFile};
use super::duration::show;
use super::endpoint::{self, DatabaseUrl};
use super::environment::Environment;
use super::error::ConfigError;
use super::section::{Found, Section};
use super::settings::{
    AccountSettings, AlertSettings, DatabaseSettings, Settings, WebhookSettings, WorkerSettings,
};
use super::source::Sources;
use crate::domain::account::{AccountName, DuplicateProtection};
use crate::domain::http::HttpLimits;
use crate::domain::times::SEND_WINDOW;
use crate::policy::rules::{BreakerRules, Curve, FollowRules, Rules};
use crate::telemetry::{LogFormat, LogLevel, LogSettings};

/// For clocks and recording.
const MARGIN: Duration = Duration::from_secs(5);
/// The gateway's invoices live 24 h: a key is never sent again after that.
const GIVE_UP_MAX: Duration = Duration::from_secs(23 * 3600);

impl Settings<KeyFile> {
    /// Reads and checks everything but the API keys, section by section; nothing may be left over.
    pub fn read(sources: &Sources) -> Result<Settings<KeyFile>, ConfigError> {
        let mut all = sources.merge()?;
        let http = Http::read(all.section("http")?)?;
        let settings = Settings {
            database: database(all.section("database")?, &sources.environment)?,
            accounts: accounts(all.section("accounts")?)?,
            worker: worker(all.section("worker")?, &http.timeout)?,
            rules: rules(&mut all, http.timeout.value)?,
            alerts: alerts(all.section("alerts")?)?,
            log: log(all.section("log")?)?,
            http: http.into_limits(),
        };
        web(all.section("web")?)?;
        all.finish()?;
        Ok(settings)
    }
}

fn database(
    mut section: Section,
    environment: &Environment,
) -> Result<DatabaseSettings, ConfigError> {
    let url = match url_or_file(&mut section)? {
        Some(url) => url,
        None => database_credential(environment)?,
    };
    let url = database_url(&url)?;
    let listen_url = match section.text("listen_url")? {
        Some(found) => {
            let mut direct = database_url(&found.secret())?;
            direct.value.inherit_password(&url.value);
            Some(direct)
        }
        None => None,
    };
    let settings = DatabaseSettings {
        options: url.value.options().map_err(|problem| url.refuse(problem))?,
        listen_options: listen_url
            .map(|url| url.value.options().map_err(|problem| url.refuse(problem)))
            .transpose()?,
        max_connections: section.number("max_connections", 4..=1000)?.value,
        migrate_on_start: section.switch("migrate_on_start")?.value,
    };
    section.finish()?;
    Ok(settings)
}

fn database_credential(environment: &Environment) -> Result<Found<SecretString>, ConfigError> {
    let missing = || {
        ConfigError::at(
            ConfigError::ANYWHERE,
            "database.url is missing; set it, or run under systemd with LoadCredential=database-url:PATH",
        )
    };
    let path = credentials::credential(environment, "database-url")
        .filter(|path| path.exists())
        .ok_or_else(missing)?;
    let origin = "systemd credentials".to_owned();
    let key = "database-url".to_owned();
    let found = Found {
        value: path,
        key,
        origin,
    };
    let secret = credentials::read_named(&found)?;
    Ok(found.with(secret))
}

/// `url`, or what the file `url_file` holds.
fn url_or_file(section: &mut Section) -> Result<Option<Found<SecretString>>, ConfigError> {
    match (section.text("url")?, section.text("url_file")?) {
        (None, None) => Ok(None),
        (Some(url), None) => Ok(Some(url.secret())),
        (None, Some(file)) => {
            let file = file.path();
            let secret = credentials::read_named(&file)?;
            Ok(Some(file.with(secret)))
        }
        (Some(url), Some(file)) => Err(file.refuse(format_args!(
            "and {} ({}) are both set; exactly one of them is allowed",
            url.key, url.origin
        ))),
    }
}

fn database_url(written: &Found<SecretString>) -> Result<Found<DatabaseUrl>, ConfigError> {
    let url = DatabaseUrl::parse(written.value.expose_secret())
        .map_err(|problem| written.refuse(problem))?;
    let is_in_settings_file = written.is_from_file() && !written.key.ends_with("_file");
    if is_in_settings_file
        && url.has_password()
        && credentials::is_readable_by_everybody(Path::new(&written.origin))
    {
        return Err(written.refuse(
            "holds a password in a file that everybody may read; put the url into a file of its own \
             with mode 600, and pass that to the service with LoadCredential=database-url:PATH",
        ));
    }
    Ok(written.with(url))
}

fn accounts(section: Section) -> Result<Vec<AccountSettings<KeyFile>>, ConfigError> {
    section
        .named_sections()?
        .into_iter()
        .map(|(name, section)| account(&name, section))
        .collect()
}

fn account(name: &str, mut section: Section) -> Result<AccountSettings<KeyFile>, ConfigError> {
    let name = AccountName::parse(name).ok_or_else(|| {
        let path = section.path();
        section.refuse(format_args!(
            "[{path}] is not named well; a name begins with a lower-case letter or a digit, goes on \
             with these, _ and -, and has at most 63 of them"
        ))
    })?;
    section.refuse_key("webhook_secret_file")?;
    let Some(base_url) = section.text("base_url")? else {
        let path = section.path();
        return Err(section.refuse(format_args!(
            "{path}.base_url is missing; it says where the gateway is"
        )));
    };
    let api_key_file = section.text("api_key_file")?;
    section.or_default("requests_per_minute", 60_i64);
    section.or_default("concurrency", 8_i64);
    section.or_default("duplicate_protection", "key");
    section.or_default("allow_insecure", false);
    let allow_insecure = section.switch("allow_insecure")?.value;
    let settings = AccountSettings {
        name,
        base_url: endpoint::gateway(&base_url.value, allow_insecure)
            .map_err(|problem| base_url.refuse(problem))?,
        api_key: KeyFile(api_key_file.map(|file| file.path())),
        requests_per_minute: section
            .number("requests_per_minute", 1..=i32::MAX.unsigned_abs())?
            .value,
        concurrency: count(section.number("concurrency", 1..=10_000)?),
        duplicate_protection: section
            .word(
                "duplicate_protection",
                &[
                    ("key", DuplicateProtection::Key),
                    ("lookup", DuplicateProtection::Lookup),
                ],
            )?
            .value,
        allow_insecure,
    };
    section.finish()?;
    Ok(settings)
}

fn worker(mut section: Section, timeout: &Found<Duration>) -> Result<WorkerSettings, ConfigError> {
    let lease = section.positive_duration("lease")?;
    let grace = section.positive_duration("grace")?;
    must_exceed(&lease, timeout, SEND_WINDOW + MARGIN)?;
    must_exceed(&grace, timeout, Duration::ZERO)?;
    let settings = WorkerSettings {
        concurrency: count(section.number("concurrency", 1..=10_000)?),
        claim_batch: count(section.number("claim_batch", 1..=10_000)?),
        poll_interval: section.positive_duration("poll_interval")?.value,
        lease: lease.value,
        grace: grace.value,
    };
    section.finish()?;
    Ok(settings)
}

struct Http {
    connect_timeout: Found<Duration>,
    timeout: Found<Duration>,
    max_body_bytes: usize,
}

impl Http {
    fn read(mut section: Section) -> Result<Http, ConfigError> {
        let http = Http {
            connect_timeout: section.positive_duration("connect_timeout")?,
            timeout: section.positive_duration("timeout")?,
            max_body_bytes: count(section.number("max_body_bytes", 1 << 10..=16 << 20)?),
        };
        must_exceed(&http.timeout, &http.connect_timeout, Duration::ZERO)?;
        section.finish()?;
        Ok(http)
    }

    fn into_limits(self) -> HttpLimits {
        HttpLimits {
            connect_timeout: self.connect_timeout.value,
            timeout: self.timeout.value,
            max_body_bytes: self.max_body_bytes,
        }
    }
}

fn rules(all: &mut Section, request_timeout: Duration) -> Result<Rules, ConfigError> {
    let mut retry = all.section("retry")?;
    let mut reconcile = all.section("reconcile")?;
    let settle = reconcile.positive_duration("settle")?;
    let give_up = reconcile.positive_duration("give_up")?;
    if give_up.value > GIVE_UP_MAX {
        return Err(give_up.refuse(format_args!(
            "is {}, but must be at most 23h: the gateway's invoices live 24h",
            show(give_up.value)
        )));
    }
    must_exceed(&give_up, &settle, Duration::ZERO)?;
    let rules = Rules {
        rate_limited: curve(retry.section("rate_limited")?)?,
        server_error: curve(retry.section("server_error")?)?,
        network: curve(retry.section("network")?)?,
        async_error: curve(retry.section("async_error")?)?,
        quiet_after_timeout: reconcile.duration("quiet_after_timeout")?.value,
        quiet_after_answer: reconcile.duration("quiet_after_answer")?.value,
        settle: settle.value,
        give_up: give_up.value,
        request_timeout,
        breaker: breaker(all.section("breaker")?)?,
        follow: follow(all.section("follow")?)?,
    };
    retry.finish()?;
    reconcile.finish()?;
    Ok(rules)
}

fn curve(mut section: Section) -> Result<Curve, ConfigError> {
    let initial = section.positive_duration("initial")?;
    let max = section.positive_duration("max")?;
    must_not_exceed(&initial, &max)?;
    let curve = Curve {
        initial: initial.value,
        max: max.value,
        multiplier: section.decimal("multiplier", 1.0..=100.0)?.value,
        jitter: section.decimal("jitter", 0.0..=1.0)?.value,
        attempts: section.number("attempts", 0..=1_000_000)?.value,
    };
    section.finish()?;
    Ok(curve)
}

fn breaker(mut section: Section) -> Result<BreakerRules, ConfigError> {
    let initial = section.positive_duration("probe_initial")?;
    let max = section.positive_duration("probe_max")?;
    must_not_exceed(&initial, &max)?;
    let rules = BreakerRules {
        probe_initial: initial.value,
        probe_max: max.value,
        slow_start: section.duration("slow_start")?.value,
    };
    section.finish()?;
    Ok(rules)
}

fn follow(mut section: Section) -> Result<FollowRules, ConfigError> {
    let first = section.positive_duration("first")?;
    let max = section.positive_duration("max")?;
    must_not_exceed(&first, &max)?;
    let rules = FollowRules {
        first: first.value,
        max: max.value,
        watch_after_final: section.duration("watch_after_final")?.value,
    };
    section.finish()?;
    Ok(rules)
}

fn alerts(mut section: Section) -> Result<AlertSettings, ConfigError> {
    for channel in ["telegram", "email", "command"] {
        section.section(channel)?.refuse_all()?;
    }
    let is_english = section.word("language", &[("en", true), ("ru", false), ("kk", false)])?;
    if !is_english.value {
        return Err(ConfigError::unsupported(
            &is_english.origin,
            r#"alerts.language other than "en""#,
        ));
    }
    let settings = AlertSettings {
        repeat: section.positive_duration("repeat")?.value,
        webhook: alert_webhook(section.section("webhook")?)?,
    };
    section.finish()?;
    Ok(settings)
}

fn alert_webhook(mut section: Section) -> Result<Option<WebhookSettings>, ConfigError> {
    let url = url_or_file(&mut section)?;
    let timeout = section.positive_duration("timeout")?.value;
    section.finish()?;
    let Some(url) = url else { return Ok(None) };
    let is_http = Url::parse(url.value.expose_secret())
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if !is_http {
        return Err(url.refuse("is not a URL such as https://alerts.example.kz/hook"));
    }
    Ok(Some(WebhookSettings {
        url: url.value,
        timeout,
    }))
}

fn web(section: Section) -> Result<(), ConfigError> {
    section.refuse_key("listen")?;
    section.finish()
}

fn log(mut section: Section) -> Result<LogSettings, ConfigError> {
    let settings = LogSettings {
        format: section
            .word(
                "format",
                &[
                    ("text", LogFormat::Text),
                    ("json", LogFormat::Json),
                    ("journald", LogFormat::Journald),
                ],
            )?
            .value,
        level: section
            .word(
                "level",
                &[
                    ("error", LogLevel::Error),
                    ("warn", LogLevel::Warn),
                    ("info", LogLevel::Info),
                    ("debug", LogLevel::Debug),
                    ("trace", LogLevel::Trace),
                ],
            )?
            .value,
    };
    section.finish()?;
    Ok(settings)
}

fn must_exceed(
    longer: &Found<Duration>,
    shorter: &Found<Duration>,
    margin: Duration,
) -> Result<(), ConfigError> {
    if longer.value > shorter.value.saturating_add(margin) {
        return Ok(());
    }
    let (is, other) = (show(longer.value), show(shorter.value));
    let (key, place) = (&shorter.key, &shorter.origin);
    let plus = if margin.is_zero() {
        String::new()
    } else {
        format!(", by more than {}", show(margin))
    };
    Err(longer.refuse(format_args!(
        "is {is}, but must be longer than {key}, which is {other} ({place}){plus}"
    )))
}

fn must_not_exceed(shorter: &Found<Duration>, longer: &Found<Duration>) -> Result<(), ConfigError> {
    if shorter.value <= longer.value {
        return Ok(());
    }
    let (is, other) = (show(shorter.value), show(longer.value));
    let (key, place) = (&longer.key, &longer.origin);
    Err(shorter.refuse(format_args!(
        "is {is}, but must not be longer than {key}, which is {other} ({place})"
    )))
}

fn count(found: Found<u32>) -> usize {
    usize::try_from(found.value).unwrap_or(usize::MAX)
}

impl Found<String> {
    fn path(&self) -> Found<PathBuf> {
        self.with(PathBuf::from(&self.value))
    }

    fn secret(&self) -> Found<SecretString> {
        self.with(SecretString::from(self.value.as_str()))
    }
}
