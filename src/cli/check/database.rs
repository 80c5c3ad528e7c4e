//! Whether the database is the one that the daemon needs, and its user may do what is needed.

use std::time::Duration;

use time::OffsetDateTime;

use super::finding::Finding;
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
async fn ask_past_pooler(session: &Session) -> Option<Finding> {
    if !session.has_pooler() {
        return None;
    }
    let asked = match session.past_pooler().await {
        Ok(pool) => health::server(&pool).await,
        Err(error) => Err(error),
    };
    Some(match asked {
        Ok(server) if server.is_set => Finding::ok("listen_url", "reached past the pooler"),
        Err(error) if !error.is_of_pooler() => Finding::failed(
            "listen_url",
            format_args!("{}; is database.listen_url right?", Chain(&error)),
        ),
        _ => Finding::misconfigured(
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
) -> Vec<Finding> {
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
    let mut findings = vec![database(&server), clock(server.now - here)];
    findings.extend(ask_past_pooler(session).await);
    findings.extend(server::ask(pool, &server).await);
    let version = match migrate::version(pool).await {
        Ok(version) => version,
        Err(error) => {
            findings.push(if error.is_denied() {
                privileges(&server.user, &["usage on schema apipay".to_owned()])
            } else {
                Finding::failed("schema", Chain(&error))
            });
            return findings;
        }
    };
    findings.push(schema(version, sources));
    // Before the schema is there, nobody can have rights in it.
    if version == SchemaVersion::Current {
        let standing = standing::gather(pool, &server.user, configured).await;
        let is_usable = standing.iter().all(|finding| finding.exit == 0);
        findings.extend(standing);
        if is_usable {
            findings.extend(holdups::gather(pool, configured).await);
            findings.extend(ask_for_keys(pool, configured, accounts).await);
        }
        findings.push(match health::missing_roles(pool).await {
            Ok(missing) => roles(&missing),
            Err(error) => Finding::failed("roles", Chain(&error)),
        });
        findings.push(server::ask_bindings(pool).await);
        findings.push(server::ask_triggers(pool).await);
        findings.push(server::ask_notifications(pool).await);
    }
    findings
}

/// Keys that a start would have to ask the gateway about.
async fn ask_for_keys(
    pool: &Pool,
    configured: &[String],
    accounts: &[AccountSettings],
) -> Vec<Finding> {
    let stored = match organization::keys(pool, configured).await {
        Ok(stored) => stored,
        Err(error) => return vec![Finding::failed("keys", Chain(&error))],
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
        Finding::warning(
            "keys",
            format_args!(
                "account {name}: the database does not know this key for it; once started, apipayd asks \
                 ApiPay by it for the account's invoices, and serves nothing of the account if it shows none. A second \
                 organisation gets an account name of its own"
            ),
        )
    })
    .collect()
}

fn unreachable_database(error: &DbError) -> Finding {
    if error.is_of_pooler() {
        return Finding::misconfigured("database", POOLER);
    }
    Finding::failed(
        "database",
        format_args!("{}; is database.url right?", Chain(error)),
    )
}

const OLDEST_SERVER: i32 = 140_000;

fn database(server: &Server) -> Finding {
    let (major, user) = (server.version / 10_000, &server.user);
    if server.version < OLDEST_SERVER {
        Finding::failed(
            "database",
            format_args!("this is PostgreSQL {major}; 14 or newer is needed"),
        )
    } else if !server.is_set {
        Finding::misconfigured("database", POOLER)
    } else if server.read_only {
        Finding::failed(
            "database",
            "it takes no writes: a replica, or set to read-only; let database.url lead to the primary",
        )
    } else {
        Finding::ok(
            "database",
            format_args!("PostgreSQL {major}, reached as user {user}"),
        )
    }
}

const CLOCKS_APART_MAX: Duration = Duration::from_secs(5);

/// `ahead`: the database's clock minus ours.
fn clock(ahead: time::Duration) -> Finding {
    let apart = ahead.unsigned_abs();
    if apart > CLOCKS_APART_MAX {
        let word = if ahead.is_positive() {
            "ahead of"
        } else {
            "behind"
        };
        let seconds = apart.as_secs();
        Finding::warning(
            "clock",
            format_args!(
                "the database's clock is {seconds} s {word} this machine's; set both by NTP"
            ),
        )
    } else {
        Finding::ok(
            "clock",
            "the database and this machine agree about the time",
        )
    }
}

fn schema(version: SchemaVersion, sources: &Sources) -> Finding {
    match advice::schema(version, sources.file.as_deref()) {
        Some(advice) => Finding::misconfigured("schema", advice),
        None => Finding::ok("schema", "the schema apipay is the one this program needs"),
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::cli::check::finding::State;
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
    fn check(finding: &Finding, line: &str, exit: u8) {
        assert_eq!(finding.line(false), line);
        assert_eq!(finding.exit, exit);
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
        let finding = |ms| clock(time::Duration::milliseconds(ms));
        assert_eq!(finding(5_000).state, State::Ok);
        assert_eq!(finding(-5_000).state, State::Ok);
        check(
            &finding(7_300),
            "warning  clock         the database's clock is 7 s ahead of this machine's; set both by NTP",
            0,
        );
        check(
            &finding(-5_001),
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
