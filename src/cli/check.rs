//! `apipayd check`: is everything there that `run` needs? Changes nothing.
//!
//! What each fact means is decided by pure functions from facts to findings; only [`gather`] asks.

mod holdups;
mod server;
mod standing;

use std::fmt;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;

use super::{EXIT_CONFIGURATION, EXIT_FAILURE, roles_sql, schema_advice};
use crate::app::POOLER;
use crate::config::{AccountSettings, Environment, HttpSettings, Settings, Sources};
use crate::db::health::Server;
use crate::db::migrate::SchemaVersion;
use crate::db::{Connect, DbError, Pool, health, migrate, organization};
use crate::domain::answer::{Answer, Body};
use crate::gateway::client::{Gateway, GatewayError, fingerprint};
use crate::gateway::wire;
use crate::policy::breaker::{self, Health};
use crate::policy::remedy;
use crate::policy::verdict::Reason;
use crate::telemetry::Chain;

/// Checks, prints, and says with the exit code whether anything failed.
pub(super) async fn check(sources: &Sources, as_json: bool) -> ExitCode {
    let findings = gather(sources).await;
    if as_json {
        println!("{}", serde_json::json!(findings));
    } else {
        let with_colours = may_use_colours(&sources.environment);
        for finding in &findings {
            println!("{}", finding.line(with_colours));
        }
    }
    ExitCode::from(exit_code(&findings))
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    check: &'static str,
    state: State,
    text: String,
    #[serde(skip)]
    exit: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warning,
    Failed,
}

impl Finding {
    fn ok(check: &'static str, text: impl fmt::Display) -> Finding {
        Finding {
            check,
            state: State::Ok,
            text: text.to_string(),
            exit: 0,
        }
    }

    fn warning(check: &'static str, text: impl fmt::Display) -> Finding {
        Finding {
            state: State::Warning,
            ..Finding::ok(check, text)
        }
    }

    fn failed(check: &'static str, text: impl fmt::Display) -> Finding {
        Finding {
            state: State::Failed,
            exit: EXIT_FAILURE,
            ..Finding::ok(check, text)
        }
    }

    fn misconfigured(check: &'static str, text: impl fmt::Display) -> Finding {
        Finding {
            exit: EXIT_CONFIGURATION,
            ..Finding::failed(check, text)
        }
    }

    fn line(&self, with_colours: bool) -> String {
        let (word, colour) = match self.state {
            State::Ok => ("ok", 32),
            State::Warning => ("warning", 33),
            State::Failed => ("failed", 31),
        };
        // Answers of other machines are shown: a terminal obeys none of them.
        let text = self.text.replace(|c: char| c.is_control(), " ");
        let check = self.check;
        if with_colours {
            format!("\u{1b}[{colour}m{word:<8}\u{1b}[0m {check:<13} {text}")
        } else {
            format!("{word:<8} {check:<13} {text}")
        }
    }
}

/// The configuration's fault wins: it is what has to be put right first.
fn exit_code(findings: &[Finding]) -> u8 {
    findings
        .iter()
        .map(|finding| finding.exit)
        .max()
        .unwrap_or(0)
}

fn may_use_colours(environment: &Environment) -> bool {
    let is_refused = environment
        .get("NO_COLOR")
        .is_some_and(|value| !value.is_empty());
    !is_refused && std::io::stdout().is_terminal()
}

async fn gather(sources: &Sources) -> Vec<Finding> {
    let settings = match Settings::read(sources) {
        Ok(settings) => settings,
        Err(error) => return vec![Finding::misconfigured("configuration", error)],
    };
    let mut findings = vec![Finding::ok(
        "configuration",
        match &sources.file {
            Some(file) => format!("{} is understood", file.display()),
            None => "understood: /etc/apipayd/apipayd.toml, if there is one, and the environment"
                .to_owned(),
        },
    )];
    let connect = settings.connect();
    let http = settings.http.clone();
    let configured: Vec<String> = settings
        .accounts
        .iter()
        .map(|account| account.name.to_string())
        .collect();
    let mut accounts = Vec::new();
    if settings.accounts.is_empty() {
        findings.push(Finding::misconfigured(
            "credentials",
            "there is no account; add a section [accounts.default] with base_url; its key is the credential api-key, or in api_key_file",
        ));
    }
    for account in settings.accounts {
        let name = account.name.clone();
        match account.load_key(&sources.environment) {
            Ok(account) => {
                findings.push(Finding::ok(
                    "credentials",
                    format_args!("the API key of account {name} can be read"),
                ));
                accounts.push(account);
            }
            Err(error) => findings.push(Finding::misconfigured("credentials", error)),
        }
    }
    findings.extend(ask_database(&connect, sources, &configured, &accounts).await);
    for account in &accounts {
        findings.extend(gateway(
            account.name.as_str(),
            ask_gateway(account, &http).await,
        ));
    }
    findings
}

/// Past the pooler, if there is one: hints and migrations go this way.
async fn ask_past_pooler(connect: &Connect) -> Option<Finding> {
    connect.past_pooler.as_ref()?;
    let direct = connect.direct();
    let asked = match health::reach(&direct.session()).await {
        Ok(()) => health::server(&direct.pool()).await,
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

async fn ask_database(
    connect: &Connect,
    sources: &Sources,
    configured: &[String],
    accounts: &[AccountSettings],
) -> Vec<Finding> {
    if let Err(error) = health::reach(&connect.session()).await {
        return vec![unreachable_database(&error)];
    }
    let pool = &connect.pool();
    let before = OffsetDateTime::now_utc();
    let server = match health::server(pool).await {
        Ok(server) => server,
        Err(error) => return vec![unreachable_database(&error)],
    };
    // The server read its clock somewhere between.
    let here = before + (OffsetDateTime::now_utc() - before) / 2;
    let mut findings = vec![database(&server), clock(server.now - here)];
    findings.extend(ask_past_pooler(connect).await);
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
                "account {name}: the database does not know this key and base_url for it; once started, apipayd asks \
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
    match schema_advice(version, sources.file.as_deref()) {
        Some(advice) => Finding::misconfigured("schema", advice),
        None => Finding::ok("schema", "the schema apipay is the one this program needs"),
    }
}

fn privileges(user: &str, missing: &[String]) -> Finding {
    if missing.is_empty() {
        return Finding::ok(
            "privileges",
            format_args!("user {user} may do what is needed"),
        );
    }
    Finding::failed(
        "privileges",
        format_args!(
            "user {user} lacks {}; run as the schema's owner: grant apipay_worker to \"{}\"; select apipay._grant_roles();",
            missing.join(", "),
            user.replace('"', "\"\""),
        ),
    )
}

fn roles(missing: &[String]) -> Finding {
    if missing.is_empty() {
        return Finding::ok("roles", "all roles of the schema exist");
    }
    Finding::warning(
        "roles",
        format_args!(
            "{} missing; a superuser runs once, in this database: {}",
            missing.join(", "),
            roles_sql(missing)
        ),
    )
}

/// Asks for the account's health: reading, and answered by every gateway that takes the key.
async fn ask_gateway(
    account: &AccountSettings,
    http: &HttpSettings,
) -> Result<Answer, GatewayError> {
    let gateway = Gateway::new(
        &account.base_url,
        &account.api_key,
        account.allow_insecure,
        http.limits(),
    )?;
    Ok(gateway.call(&wire::account_health()).await.answer)
}

fn gateway(account: &str, asked: Result<Answer, GatewayError>) -> Vec<Finding> {
    let answer = match asked {
        Ok(answer) => answer,
        Err(error) => {
            let error = Chain(&error);
            return vec![Finding::misconfigured(
                "gateway",
                format_args!("account {account}: {error}"),
            )];
        }
    };
    let seen = seen(&answer);
    let reached = match &answer {
        Answer::Reply(reply) if reply.status == 404 => {
            let remedy = remedy::of_park(Reason::RouteNotFound);
            return vec![Finding::failed(
                "gateway",
                format_args!(
                    "account {account}: {seen}: {}; {}",
                    remedy.what, remedy.action
                ),
            )];
        }
        // Any other answer of the gateway's own shows that base_url leads to it.
        Answer::Reply(reply) if matches!(reply.body, Body::Json(_)) && reply.status < 500 => {
            Finding::ok("gateway", format_args!("account {account}: it answers"))
        }
        _ => {
            return vec![Finding::failed(
                "gateway",
                format_args!("account {account}: {seen}; is accounts.{account}.base_url right?"),
            )];
        }
    };
    let health = match breaker::health(&answer) {
        Health::Well => Finding::ok(
            "account",
            format_args!("account {account}: ApiPay says that it is well"),
        ),
        Health::Unwell(reason) => {
            let code = reason.code();
            Finding::failed(
                "account",
                format_args!("account {account}: would be parked, {code} ({seen})"),
            )
        }
        Health::Unclear => Finding::warning(
            "account",
            format_args!("account {account}: not clear ({seen})"),
        ),
    };
    vec![reached, health]
}

/// What came back, without anything of its body but a code.
fn seen(answer: &Answer) -> String {
    match answer {
        Answer::Reply(reply) => match (reply.error_code(), &reply.body) {
            (Some(code), _) => format!("HTTP {} {code}", reply.status),
            (None, Body::Json(_)) => format!("HTTP {}", reply.status),
            (None, _) => format!("HTTP {}, not the gateway's JSON", reply.status),
        },
        Answer::NotSent(cause) => format!("not reached, {}", cause.code()),
        Answer::Lost(cause) => format!("no answer, {}", cause.code()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use super::*;
    use crate::domain::answer::{Limits, NotSent, Reply};

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

    #[test]
    fn missing_rights_and_roles_come_with_their_sql() {
        assert_eq!(privileges("shop", &[]).state, State::Ok);
        check(
            &privileges("my\"shop", &["update on apipay.jobs".into()]),
            "failed   privileges    user my\"shop lacks update on apipay.jobs; run as the schema's owner: \
             grant apipay_worker to \"my\"\"shop\"; select apipay._grant_roles();",
            1,
        );
        assert_eq!(roles(&[]).state, State::Ok);
        check(
            &roles(&["apipay_worker".into()]),
            "warning  roles         apipay_worker missing; a superuser runs once, in this database: create \
             role apipay_worker nologin; select apipay._grant_roles();",
            0,
        );
    }

    fn reply(status: u16, body: Body) -> Answer {
        Answer::Reply(Reply {
            status,
            body,
            limits: Limits::default(),
        })
    }

    fn lines(answer: Answer) -> Vec<String> {
        gateway("shop", Ok(answer))
            .iter()
            .map(|finding| finding.line(false))
            .collect()
    }

    #[test]
    fn the_gateway_must_answer_and_the_account_be_well() {
        let well = json!({ "connection": { "kaspi_connected": true } });
        assert_eq!(
            lines(reply(200, Body::Json(well))),
            [
                "ok       gateway       account shop: it answers",
                "ok       account       account shop: ApiPay says that it is well"
            ]
        );
        assert_eq!(
            lines(reply(502, Body::Text("<html>".into()))),
            [
                "failed   gateway       account shop: HTTP 502, not the gateway's JSON; is \
              accounts.shop.base_url right?"
            ]
        );
        assert_eq!(
            lines(Answer::NotSent(NotSent::Dns)),
            [
                "failed   gateway       account shop: not reached, dns_failed; is accounts.shop.base_url right?"
            ]
        );
        assert_eq!(
            lines(reply(
                401,
                Body::Json(json!({ "error_code": "invalid_api_key" }))
            )),
            [
                "ok       gateway       account shop: it answers",
                "failed   account       account shop: would be parked, key_rejected (HTTP 401 invalid_api_key)"
            ]
        );
        assert_eq!(
            lines(reply(
                429,
                Body::Json(json!({ "error_code": "request_rate_limited" }))
            ))[1],
            "warning  account       account shop: not clear (HTTP 429 request_rate_limited)"
        );
    }

    #[test]
    fn the_configurations_fault_decides_the_exit_code() {
        let (ok, failed) = (Finding::ok("a", "b"), Finding::failed("a", "b"));
        let wrong = Finding::misconfigured("a", "b");
        assert_eq!(exit_code(&[]), 0);
        assert_eq!(exit_code(&[ok.clone(), Finding::warning("a", "b")]), 0);
        assert_eq!(exit_code(&[ok.clone(), failed.clone()]), 1);
        assert_eq!(exit_code(&[failed, wrong, ok]), 78);
    }

    #[test]
    fn a_finding_is_coloured_or_json() {
        let finding = Finding::failed("schema", "no\u{1b}[2J");
        assert_eq!(
            finding.line(true),
            "\u{1b}[31mfailed  \u{1b}[0m schema        no [2J"
        );
        assert_eq!(
            json!([finding]),
            json!([{ "check": "schema", "state": "failed", "text": "no\u{1b}[2J" }])
        );
    }
}
