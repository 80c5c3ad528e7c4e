//! Whether the database is the one that the daemon needs, and its user may do what is needed.

use std::time::Duration;

use time::OffsetDateTime;

use super::result::CheckResult;
use super::rights::{privileges, roles};
use super::{holdups, server, standing};
use crate::app::POOLER;
use crate::cli::advice;
use crate::cli::session::Session;
use crate::config::{AccountSettings, Sources};
use crate::db::health::Server;
use crate::db::migrate::SchemaVersion;
use crate::db::{DbError, Pool, health, migrate, organization};
use crate::gateway::client::fingerprint;
use crate::telemetry::Chain;

/// Past the pooler, if there is one: hints and migrations go this way.
async fn ask_past_pooler(session: &Session) -> Option<CheckResult> {
    if !session.has_pooler() {
        return None;
    }
    let asked = match session.past_pooler().await {
        Ok(pool) => health::server(&pool).await,
        Err(error) => Err(error),
    };
    Some(match asked {
        Ok(server) if server.is_set => CheckResult::ok("listen_url", "reached past the pooler"),
        Err(error) if !error.is_of_pooler() => CheckResult::failed(
            "listen_url",
            format_args!("{}; is database.listen_url right?", Chain(&error)),
        ),
        _ => CheckResult::misconfigured(
            "listen_url",
            "it leads to a pooler too: notifications and migrations need a direct connection",
        ),
    })
}

/// Asks the database; `accounts` are those whose API key could be read.
pub(super) async fn gather(
    session: &Session,
    sources: &Sources,
    accounts: &[AccountSettings],
) -> Vec<CheckResult> {
    let pool = &match session.database().await {
        Ok(pool) => pool,
        Err(error) => return vec![unreachable_database(&error)],
    };
    let configured = session.settings.accounts.iter();
    let configured: Vec<String> = configured.map(|account| account.name.to_string()).collect();
    let configured = configured.as_slice();
    let before = OffsetDateTime::now_utc();
    let server = match health::server(pool).await {
        Ok(server) => server,
        Err(error) => return vec![unreachable_database(&error)],
    };
    // The server read its clock somewhere between.
    let here = before + (OffsetDateTime::now_utc() - before) / 2;
    let mut results = vec![database(&server), clock(server.now - here)];
    results.extend(ask_past_pooler(session).await);
    results.extend(server::ask(pool, &server).await);
    let version = match migrate::version(pool).await {
        Ok(version) => version,
        Err(error) => {
            results.push(if error.is_denied() {
                privileges(&server.user, &["usage on schema apipay".to_owned()])
            } else {
                CheckResult::failed("schema", Chain(&error))
            });
            return results;
        }
    };
    results.push(schema(version, sources));
    // Before the schema is there, nobody can have rights in it.
    if version == SchemaVersion::Current {
        let has_webhook = session.settings.alerts.webhook.is_some();
        let standing = standing::gather(pool, &server.user, configured, has_webhook).await;
        let is_usable = standing.iter().all(|result| result.exit == 0);
        results.extend(standing);
        if is_usable {
            results.extend(holdups::gather(pool, configured).await);
            results.extend(ask_for_keys(pool, configured, accounts).await);
        } else {
            results.extend(holdups::locked_tables(pool).await);
            results.extend(holdups::told(pool, configured).await);
        }
        results.push(match health::missing_roles(pool).await {
            Ok(missing) => roles(&missing),
            Err(error) => CheckResult::failed("roles", Chain(&error)),
        });
        results.push(server::ask_bindings(pool).await);
        results.push(server::ask_triggers(pool).await);
        results.push(server::ask_notifications(pool).await);
    }
    results
}

/// Keys that a start would have to ask the gateway about.
async fn ask_for_keys(
    pool: &Pool,
    configured: &[String],
    accounts: &[AccountSettings],
) -> Vec<CheckResult> {
    let stored = match organization::keys(pool, configured).await {
        Ok(stored) => stored,
        Err(error) => return vec![CheckResult::failed("keys", Chain(&error))],
    };
    let is_new = |account: &&AccountSettings| {
        let own = fingerprint(&account.api_key);
        let row = stored
            .iter()
            .find(|row| row.account == account.name.as_str());
        let known = row.and_then(|row| row.stored.as_ref());
        known.is_some_and(|known| !known.contains(&own))
    };
    let new = accounts.iter().filter(is_new);
    new.map(|account| {
        let name = &account.name;
        CheckResult::warning(
            "keys",
            format_args!(
                "account {name}: the database does not know this key for it; once started, apipayd asks \
                 ApiPay by it for the account's invoices, and serves nothing of the account if it shows none. A second \
                 organization gets an account name of its own"
            ),
        )
    })
    .collect()
}

fn unreachable_database(error: &DbError) -> CheckResult {
    if error.is_of_pooler() {
        return CheckResult::misconfigured("database", POOLER);
    }
    CheckResult::failed(
        "database",
        format_args!("{}; is database.url right?", Chain(error)),
    )
}

const OLDEST_SERVER: i32 = 140_000;

fn database(server: &Server) -> CheckResult {
    let (major, user) = (server.version / 10_000, &server.user);
    if server.version < OLDEST_SERVER {
        CheckResult::failed(
            "database",
            format_args!("this is PostgreSQL {major}; 14 or newer is needed"),
        )
    } else if !server.is_set {
        CheckResult::misconfigured("database", POOLER)
    } else if server.read_only {
        CheckResult::failed(
            "database",
            "it takes no writes: a replica, or set to read-only; let database.url lead to the primary",
        )
    } else {
        CheckResult::ok(
            "database",
            format_args!("PostgreSQL {major}, reached as user {user}"),
        )
    }
}

const CLOCKS_APART_MAX: Duration = Duration::from_secs(5);

/// `ahead`: the database's clock minus ours.
fn clock(ahead: time::Duration) -> CheckResult {
    let apart = ahead.unsigned_abs();
    if apart > CLOCKS_APART_MAX {
        let word = if ahead.is_positive() {
            "ahead of"
        } else {
            "behind"
        };
        let seconds = apart.as_secs();
        CheckResult::warning(
            "clock",
            format_args!(
                "the database's clock is {seconds} s {word} this machine's; set both by NTP"
            ),
        )
    } else {
        CheckResult::ok(
            "clock",
            "the database and this machine agree about the time",
        )
    }
}

fn schema(version: SchemaVersion, sources: &Sources) -> CheckResult {
    match advice::schema(version, sources.file.as_deref()) {
        Some(advice) => CheckResult::misconfigured("schema", advice),
        None => CheckResult::ok("schema", "the schema apipay is the one this program needs"),
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::cli::check::result::State;
    use crate::cli::print::Row;
    use crate::config::Environment;

    fn server(version: i32, read_only: bool) -> Server {
        Server {
            version,
            now: datetime!(2026-11-01 00:00 UTC),
            read_only,
            user: "shop".into(),
            is_set: true,
            triggers_are_off: false,
            survives_power_cut: true,
            encoding: "UTF8".into(),
        }
    }

    #[track_caller]
    fn check(result: &CheckResult, line: &str, exit: u8) {
        assert_eq!(result.line(false), line);
        assert_eq!(result.exit, exit);
    }

    #[test]
    fn a_server_must_be_new_enough_and_take_writes() {
        check(
            &database(&server(150_006, false)),
            "ok       database      PostgreSQL 15, reached as user shop",
            0,
        );
        check(
            &database(&server(130_010, false)),
            "failed   database      this is PostgreSQL 13; 14 or newer is needed",
            1,
        );
        check(
            &database(&server(140_000, true)),
            "failed   database      it takes no writes: a replica, or set to read-only; let database.url \
             lead to the primary",
            1,
        );
    }

    #[test]
    fn clocks_may_differ_by_five_seconds() {
        let result = |ms| clock(time::Duration::milliseconds(ms));
        assert_eq!(result(5_000).state, State::Ok);
        assert_eq!(result(-5_000).state, State::Ok);
        check(
            &result(7_300),
            "warning  clock         the database's clock is 7 s ahead of this machine's; set both by NTP",
            0,
        );
        check(
            &result(-5_001),
            "warning  clock         the database's clock is 5 s behind this machine's; set both by NTP",
            0,
        );
    }

    #[test]
    fn a_schema_that_does_not_fit_names_the_command() {
        let sources = Sources {
            file: Some("/srv/a.toml".into()),
            environment: Environment::default(),
        };
        assert_eq!(schema(SchemaVersion::Current, &sources).state, State::Ok);
        check(
            &schema(SchemaVersion::Missing, &sources),
            "failed   schema        the database has no schema apipay; as a user who may create one, run: apipayd --config /srv/a.toml migrate",
            78,
        );
    }
}
