//! The settings as types.

use std::fmt;
use std::time::Duration;

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgConnectOptions;

use super::credentials::KeyFile;
use super::environment::Environment;
use super::error::ConfigError;
use crate::db::Connect;
use crate::domain::account::{AccountName, DuplicateProtection};
use crate::domain::http::HttpLimits;
use crate::policy::rules::Rules;
use crate::telemetry::LogSettings;

/// Everything that can be configured.
///
/// `K` is what is known of the API keys: the files they are in, or the keys themselves.
#[derive(Clone, Debug)]
pub struct Settings<K = SecretString> {
    /// `[database]`
    pub database: DatabaseSettings,
    /// `[accounts.NAME]`, by name.
    pub accounts: Vec<AccountSettings<K>>,
    /// `[worker]`
    pub worker: WorkerSettings,
    /// `[http]`
    pub http: HttpLimits,
    /// `[alerts]`
    pub alerts: AlertSettings,
    /// `[log]`
    pub log: LogSettings,
    pub(super) rules: Rules,
}

impl Settings<KeyFile> {
    /// Reads the API keys. There must be an account, and each must have its key.
    pub fn load_keys(self, environment: &Environment) -> Result<Settings, ConfigError> {
        if self.accounts.is_empty() {
            return Err(ConfigError::at(
                ConfigError::ANYWHERE,
                "there is no account; add a section [accounts.default] with base_url; its key is the credential api-key, or in api_key_file",
            ));
        }
        let accounts = self
            .accounts
            .into_iter()
            .map(|account| account.load_key(environment))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Settings {
            database: self.database,
            accounts,
            worker: self.worker,
            http: self.http,
            alerts: self.alerts,
            log: self.log,
            rules: self.rules,
        })
    }
}

impl<K> Settings<K> {
    /// What decisions depend on.
    pub fn rules(&self) -> Rules {
        self.rules.clone()
    }

    /// How to reach the database.
    pub fn connect(&self) -> Connect {
        self.database.connect()
    }
}

/// `[database]`
#[derive(Clone)]
pub struct DatabaseSettings {
    pub(super) options: PgConnectOptions,
    pub(super) listen_options: Option<PgConnectOptions>,
    /// Connections of one daemon.
    pub max_connections: u32,
    /// Whether `run` brings the schema up to date.
    pub migrate_on_start: bool,
}

impl DatabaseSettings {
    fn connect(&self) -> Connect {
        Connect::new(
            self.options.clone(),
            self.listen_options.clone(),
            self.max_connections,
        )
    }

    /// Whether the pool goes through a pooler.
    pub fn is_pooled(&self) -> bool {
        self.listen_options.is_some()
    }
}

impl fmt::Debug for DatabaseSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The options show their password.
        f.debug_struct("DatabaseSettings")
            .field("max_connections", &self.max_connections)
            .field("migrate_on_start", &self.migrate_on_start)
            .finish_non_exhaustive()
    }
}

/// `[accounts.NAME]`
#[derive(Clone, Debug)]
pub struct AccountSettings<K = SecretString> {
    /// The section's name.
    pub name: AccountName,
    /// Where the gateway is, without a trailing slash (a bare host keeps its own).
    pub base_url: Url,
    /// The key, or where it is.
    pub api_key: K,
    /// The limit of this key.
    pub requests_per_minute: u32,
    /// Requests at a time.
    pub concurrency: usize,
    /// Whether the gateway honours the idempotency key.
    pub duplicate_protection: DuplicateProtection,
    /// Whether plain http and private addresses are allowed.
    pub allow_insecure: bool,
}

impl AccountSettings<KeyFile> {
    /// Reads the account's API key.
    pub fn load_key(self, environment: &Environment) -> Result<AccountSettings, ConfigError> {
        let api_key = self.api_key.load(&self.name, environment)?;
        Ok(AccountSettings {
            name: self.name,
            base_url: self.base_url,
            api_key,
            requests_per_minute: self.requests_per_minute,
            concurrency: self.concurrency,
            duplicate_protection: self.duplicate_protection,
            allow_insecure: self.allow_insecure,
        })
    }
}

impl AccountSettings {
    /// Whether all settings of the other one are the same.
    pub fn is_same(&self, other: &AccountSettings) -> bool {
        let AccountSettings {
            name,
            base_url,
            api_key,
            requests_per_minute,
            concurrency,
            duplicate_protection,
            allow_insecure,
        } = self;
        *name == other.name
            && *base_url == other.base_url
            && api_key.expose_secret() == other.api_key.expose_secret()
            && *requests_per_minute == other.requests_per_minute
            && *concurrency == other.concurrency
            && *duplicate_protection == other.duplicate_protection
            && *allow_insecure == other.allow_insecure
    }
}

/// `[worker]`
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// Requests at a time, of all accounts.
    pub concurrency: usize,
    /// Jobs claimed at once.
    pub claim_batch: usize,
    /// How often to look for work.
    pub poll_interval: Duration,
    /// How long a claimed job is ours.
    pub lease: Duration,
    /// How long requests in flight may take on stop.
    pub grace: Duration,
}

/// `[alerts]`
#[derive(Clone, Debug)]
pub struct AlertSettings {
    /// How often an open alert is told again.
    pub repeat: Duration,
    /// `[alerts.webhook]`, when it has a URL.
    pub webhook: Option<WebhookSettings>,
}

/// `[alerts.webhook]`
#[derive(Clone, Debug)]
pub struct WebhookSettings {
    /// Where to post; a known-good http or https URL, often with a secret in it.
    pub url: SecretString,
    /// A whole delivery.
    pub timeout: Duration,
}
