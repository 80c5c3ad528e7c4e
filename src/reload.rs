//! SIGHUP: the configuration is read again, and accounts come, go or change while everything else goes on.
//!
//! An account that goes is closed: nothing more is claimed, sent or asked for it, and what is under way is ended and
//! recorded. One that changes is closed and, once nobody has it in hand, opened with its new settings, so no two keys
//! are used for it at a time. All other settings are those of the start.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::signal::unix::Signal;
use tracing::{error, info};

use crate::beside::{NotBegun, Panicked, Threads};
use crate::config::{AccountSettings, ConfigError, Reading, Settings};
use crate::domain::account::AccountName;
use crate::domain::http::HttpLimits;
use crate::gateway::client::{Gateway, GatewayError};
use crate::service::Service;
use crate::telemetry::Chain;
use crate::worker::context::Context;
use crate::worker::room::Room;
use crate::worker::room::client::Client;
use crate::worker::room::handles::Handles;

/// Where the settings come from, each time that they are read.
pub type ReadSettings = Arc<dyn Fn() -> Result<Settings, ConfigError> + Send + Sync>;

/// Why an account cannot be served with its settings.
#[derive(Debug, thiserror::Error)]
#[error("account {account} cannot be used")]
pub struct UnusableAccount {
    account: AccountName,
    #[source]
    source: GatewayError,
}

/// Makes the room of an account from its settings.
pub fn open_room(
    settings: &AccountSettings,
    limits: HttpLimits,
    handles: Handles,
) -> Result<Room, UnusableAccount> {
    let gateway = Gateway::new(
        &settings.base_url,
        &settings.api_key,
        settings.allow_insecure,
        limits,
    )
    .map_err(|source| UnusableAccount {
        account: settings.name.clone(),
        source,
    })?;
    Ok(Room::new(
        settings.name.clone(),
        Client::new(gateway),
        settings.duplicate_protection,
        settings.concurrency,
        settings.requests_per_minute,
        handles,
    ))
}

/// Why the configuration that was read last is not the one that is served; empty when it is.
#[derive(Clone, Default)]
pub struct Refusal(Arc<Mutex<Option<String>>>);

impl Refusal {
    /// The cause as a sentence for the status line.
    pub fn in_words(&self) -> Option<String> {
        self.lock().clone()
    }

    fn set(&self, cause: Option<String>) {
        *self.lock() = cause;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings what is served in line with the configuration, each time that it is asked to.
pub struct Reload {
    read: ReadSettings,
    /// The settings of the accounts that are served.
    served: Vec<AccountSettings>,
    limits: HttpLimits,
    refusal: Refusal,
    readers: Threads,
}

impl Reload {
    /// For a daemon that was started with these settings.
    pub fn new(read: ReadSettings, settings: &Settings) -> Reload {
        Reload {
            read,
            served: settings.accounts.clone(),
            limits: settings.http,
            refusal: Refusal::default(),
            readers: Threads::new("read", READERS),
        }
    }

    /// Where the cause is shown while a configuration is refused.
    pub fn refusal(&self) -> Refusal {
        self.refusal.clone()
    }

    /// Reads the configuration whenever the signal comes.
    pub async fn run(mut self, ctx: &Context, service: &Service, signal: &mut Signal) {
        while signal.recv().await.is_some() {
            service.reloading();
            let failed = match self.read_again().await {
                Ok(settings) => self.change(ctx, settings.accounts).await.err(),
                Err(failed) => Some(failed),
            };
            match &failed {
                Some(Failed { what, cause }) => {
                    error!(cause, "{what}; everything goes on as before");
                }
                None => info!(
                    "every other setting that was changed takes effect when apipayd is started again"
                ),
            }
            let words =
                |Failed { what, cause }| format!("{what}, the one before is in force: {cause}");
            self.refusal.set(failed.map(words));
            service.reloaded();
        }
    }

    /// Reads it beside the loops: a disk may be slow, or never answer.
    async fn read_again(&self) -> Result<Settings, Failed> {
        match self.read_in_time().await {
            Ok(Ok(settings)) => Ok(settings),
            Ok(Err(error)) => Err(Failed::refused(&error)),
            Err(error) => Err(Failed {
                what: "the configuration cannot be read",
                cause: Chain(&error).to_string(),
            }),
        }
    }

    async fn read_in_time(&self) -> Result<Result<Settings, ConfigError>, Unread> {
        let (read, reading) = (self.read.clone(), Reading::default());
        let carried = reading.clone();
        let mut begun = self.readers.begin(move || carried.carry(|| read()))?;
        match begun.within(PATIENCE).await {
            Some(done) => Ok(done?),
            None => Err(Unread::Hangs(reading.file().unwrap_or_default())),
        }
    }

    /// Opens, closes and changes accounts. Returns when the last request of those that are closed is answered.
    async fn change(&mut self, ctx: &Context, wanted: Vec<AccountSettings>) -> Result<(), Failed> {
        let difference = Difference::between(&self.served, &wanted);
        let made = wanted
            .iter()
            .filter(|account| difference.makes(&account.name));
        let made: Result<Vec<Room>, UnusableAccount> = made
            .map(|account| open_room(account, self.limits, ctx.handles()))
            .collect();
        let made = made.map_err(|error| Failed::refused(&error))?;
        info!(%difference, "the accounts are served as configured now");
        let mut made: BTreeMap<AccountName, Arc<Room>> = made
            .into_iter()
            .map(|room| (room.name.clone(), Arc::new(room)))
            .collect();
        for name in &difference.opened {
            if let Some(room) = made.remove(name) {
                ctx.rooms.add(room);
            }
        }
        let leaving = difference.closed.iter().chain(&difference.changed);
        let leaving = leaving.map(|name| {
            let next = made.remove(name);
            async move {
                close(ctx, name).await;
                if let Some(room) = next {
                    ctx.rooms.add(room);
                }
            }
        });
        let leaving: Vec<_> = leaving.collect();
        join_all(leaving).await;
        self.served = wanted;
        Ok(())
    }
}

/// How long a reading of the configuration is waited for. What it brings later is not taken.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many readings may hang.
const READERS: usize = 64;

/// Why what is served is not what the configuration says now.
struct Failed {
    what: &'static str,
    cause: String,
}

impl Failed {
    fn refused(error: &(dyn Error + 'static)) -> Failed {
        Failed {
            what: "the new configuration is refused",
            cause: Chain(error).to_string(),
        }
    }
}

/// Why the configuration could not be read.
#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error(
        "{} does not answer, and was not waited for; once it does: systemctl reload apipayd (SIGHUP)",
        .0.display()
    )]
    Hangs(PathBuf),
    #[error("it is not read")]
    NotBegun(#[from] NotBegun),
    #[error("reading it ended early")]
    Panicked(#[from] Panicked),
}

/// How often it is looked whether a closed account is still in somebody's hands.
const LOOK: Duration = Duration::from_millis(50);

/// Closes an account, and waits until nobody has it in hand: no longer than a request takes.
async fn close(ctx: &Context, name: &AccountName) {
    if let Some(room) = ctx.rooms.get(name) {
        room.client.serving.close();
    }
    while !ctx.rooms.remove(name) {
        tokio::time::sleep(LOOK).await;
    }
    ctx.held_up.forget(name);
    info!(account = %name, "the account is closed");
}

/// How the accounts that are wanted differ from those that are served.
#[derive(Debug, Default, PartialEq, Eq)]
struct Difference {
    opened: Vec<AccountName>,
    closed: Vec<AccountName>,
    changed: Vec<AccountName>,
}

impl Difference {
    fn between(served: &[AccountSettings], wanted: &[AccountSettings]) -> Difference {
        let mut difference = Difference::default();
        for account in wanted {
            let name = account.name.clone();
            match served.iter().find(|other| other.name == name) {
                None => difference.opened.push(name),
                Some(other) if !other.is_same(account) => difference.changed.push(name),
                Some(_) => {}
            }
        }
        let is_gone =
            |account: &&AccountSettings| wanted.iter().all(|other| other.name != account.name);
        let gone = served.iter().filter(is_gone);
        difference.closed = gone.map(|account| account.name.clone()).collect();
        difference
    }

    /// Whether there will be a new account of this name.
    fn makes(&self, name: &AccountName) -> bool {
        self.opened.contains(name) || self.changed.contains(name)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = [
            ("opened", &self.opened),
            ("closed", &self.closed),
            ("changed", &self.changed),
        ];
        let lists = lists.iter().filter(|(_, names)| !names.is_empty());
        let parts: Vec<String> = lists
            .map(|(what, names)| {
                let names: Vec<&str> = names.iter().map(AccountName::as_str).collect();
                format!("{what}: {}", names.join(", "))
            })
            .collect();
        match parts.is_empty() {
            true => f.write_str("none differs"),
            false => f.write_str(&parts.join("; ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;
    use crate::domain::account::DuplicateProtection;

    fn account(name: &str, key: &str) -> AccountSettings {
        AccountSettings {
            name: AccountName::parse(name).unwrap(),
            base_url: "https://api.example/api/v1".parse().unwrap(),
            api_key: SecretString::from(key),
            requests_per_minute: 60,
            concurrency: 4,
            duplicate_protection: DuplicateProtection::Key,
            allow_insecure: false,
        }
    }

    #[test]
    fn accounts_come_go_and_change_by_their_names() {
        let served = [account("a", "1"), account("b", "2"), account("c", "3")];
        let same = Difference::between(&served, &served);
        assert_eq!(
            (same.to_string().as_str(), &same),
            ("none differs", &Difference::default())
        );
        let wanted = [account("b", "2"), account("c", "4"), account("d", "5")];
        let difference = Difference::between(&served, &wanted);
        assert_eq!(difference.to_string(), "opened: d; closed: a; changed: c");
    }

    #[test]
    fn any_setting_of_an_account_that_differs_changes_it() {
        let served = account("a", "1");
        let others = [
            AccountSettings {
                base_url: "https://api.example/other".parse().unwrap(),
                ..served.clone()
            },
            AccountSettings {
                api_key: SecretString::from("2"),
                ..served.clone()
            },
            AccountSettings {
                requests_per_minute: 61,
                ..served.clone()
            },
            AccountSettings {
                concurrency: 5,
                ..served.clone()
            },
            AccountSettings {
                duplicate_protection: DuplicateProtection::Lookup,
                ..served.clone()
            },
            AccountSettings {
                allow_insecure: true,
                ..served.clone()
            },
        ];
        for other in others {
            assert!(!served.is_same(&other), "{other:?}");
        }
    }
}
