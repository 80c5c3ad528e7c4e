//! The server and the database: do they keep, sort and call what we count on?

use super::result::CheckResult;
use crate::app::{NO_POWER_CUT, TRIGGERS_OFF};
use crate::db::health::{self, Notifications, Server};
use crate::db::soundness::{self, ChangedCollation, Letters, OutsideBinding};
use crate::db::{DbError, Pool};
use crate::telemetry::Chain;

/// What the server is set to, and how it sorts.
pub(super) async fn ask(pool: &Pool, server: &Server) -> Vec<CheckResult> {
    let mut results = vec![durability(server)];
    results.extend(triggers(server));
    results.extend(encoding(server));
    results.push(match soundness::changed_collations(pool, server).await {
        Ok(changed) => collations(&changed),
        Err(error) => CheckResult::failed("collations", Chain(&error)),
    });
    results
}

/// What the schema binds, once it is there.
pub(super) async fn ask_bindings(pool: &Pool) -> CheckResult {
    bindings(soundness::outside_bindings(pool).await)
}

/// What of others may keep changes of ours from being made, once the schema is there.
pub(super) async fn ask_triggers(pool: &Pool) -> CheckResult {
    match soundness::foreign_triggers(pool).await {
        Err(error) => CheckResult::failed("foreign triggers", Chain(&error)),
        Ok(found) if found.is_empty() => CheckResult::ok(
            "foreign triggers",
            "nobody else's trigger or rule changes what is written",
        ),
        Ok(found) => CheckResult::warning(
            "foreign triggers",
            format_args!(
                "these are not of the schema, and may keep its changes from being made (a trigger that returns null or the old row, \
                 a rule): {}; see that they do not, the alert job_stuck names what they do",
                join(&found, ", ", |it| format!("{} on {}", it.name, it.relation))
            ),
        ),
    }
}

/// Whether notifications are let out, once the schema is there.
pub(super) async fn ask_notifications(pool: &Pool) -> CheckResult {
    match health::notifications(pool).await {
        Ok(found) => notifications(&found),
        Err(error) => CheckResult::failed("notifications", Chain(&error)),
    }
}

/// Silence is no fault: what is new is found by polling.
fn notifications(found: &Notifications) -> CheckResult {
    let polling = "what is new is found by polling alone (worker.poll_interval)";
    if found.are_let_out {
        CheckResult::ok("notifications", "new jobs and outcomes are told at once")
    } else if found.setting == "off" {
        CheckResult::ok(
            "notifications",
            format_args!("the setting apipay.notify is off: {polling}"),
        )
    } else if found.is_filling {
        let oldest = found.oldest_transaction.map_or(String::new(), |pid| {
            format!("; the oldest transaction is that of process {pid}")
        });
        CheckResult::warning(
            "notifications",
            format_args!(
                "the server's queue of notifications is {:.0} % full, because a session that listens does not end its \
                 transaction{oldest}; apipayd adds none, and {polling}",
                found.queue_usage * 100.0
            ),
        )
    } else {
        CheckResult::ok(
            "notifications",
            format_args!(
                "this server lets transactions be prepared (max_prepared_transactions), and one that has notified \
                 cannot be: {polling}; if no program of yours prepares any: alter database ... set apipay.notify = on"
            ),
        )
    }
}

fn durability(server: &Server) -> CheckResult {
    if server.survives_power_cut {
        CheckResult::ok("durability", "what is committed stays")
    } else {
        CheckResult::warning("durability", NO_POWER_CUT)
    }
}

fn triggers(server: &Server) -> Option<CheckResult> {
    server
        .triggers_are_off
        .then(|| CheckResult::misconfigured("triggers", TRIGGERS_OFF))
}

fn encoding(server: &Server) -> Option<CheckResult> {
    let encoding = &server.encoding;
    match soundness::letters(encoding) {
        Letters::All => None,
        Letters::Russian => Some(CheckResult::warning(
            "encoding",
            format_args!(
                "the database's encoding is {encoding}: an answer of the gateway with a letter that it has not, \
                 such as a Kazakh one, is stored without its words; UTF8 has all letters"
            ),
        )),
        Letters::AnyBytes => Some(CheckResult::warning(
            "encoding",
            format_args!(
                "the database's encoding is {encoding}: it takes any bytes for text, and a job whose params are \
                 not UTF-8 fails; write UTF-8, or use a database with the encoding UTF8"
            ),
        )),
        Letters::None => Some(CheckResult::misconfigured(
            "encoding",
            format_args!(
                "the database's encoding is {encoding}, which has no Russian letters, and the gateway writes them; \
                 use a database with the encoding UTF8"
            ),
        )),
    }
}

fn collations(changed: &[ChangedCollation]) -> CheckResult {
    if changed.is_empty() {
        return CheckResult::ok("collations", "text is sorted as when its indexes were made");
    }
    let places = join(changed, ", ", |it| {
        format!("{} (was {}, is {})", it.place, it.recorded, it.actual)
    });
    let refresh = join(changed, " ", |it| format!("{};", it.refresh));
    CheckResult::warning(
        "collations",
        format_args!(
            "the system sorts text otherwise than when indexes of this database were made: {places}; your own tables \
             may miss rows or take a unique key twice (those of apipay do not: their keys are sorted by bytes). \
             Its owner rebuilds them (reindex database), then runs: {refresh}"
        ),
    )
}

fn bindings(found: Result<Vec<OutsideBinding>, DbError>) -> CheckResult {
    match found {
        Err(error) => CheckResult::failed("bindings", Chain(&error)),
        Ok(found) if found.is_empty() => CheckResult::ok(
            "bindings",
            "the schema calls nothing but itself and Postgres",
        ),
        Ok(found) => CheckResult::failed(
            "bindings",
            format_args!(
                "whoever owns these acts with the rights of those who use the schema: {}; the schema's owner runs: {}",
                join(&found, ", ", |it| format!(
                    "{} binds {}",
                    it.ours, it.outside
                )),
                soundness::rebinding()
            ),
        ),
    }
}

fn join<T>(items: &[T], separator: &str, word: impl Fn(&T) -> String) -> String {
    items.iter().map(word).collect::<Vec<_>>().join(separator)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::super::result::State;
    use super::*;

    fn server() -> Server {
        Server {
            version: 150_006,
            now: datetime!(2026-11-01 00:00 UTC),
            read_only: false,
            user: "shop".into(),
            is_set: true,
            triggers_are_off: false,
            survives_power_cut: true,
            encoding: "UTF8".into(),
        }
    }

    #[test]
    fn what_a_server_loses_is_told() {
        assert_eq!(durability(&server()).state, State::Ok);
        let hasty = Server {
            survives_power_cut: false,
            ..server()
        };
        assert_eq!(durability(&hasty).state, State::Warning);
        assert!(durability(&hasty).text.contains("fsync"));
    }

    #[test]
    fn silence_has_a_cause() {
        let found = |are_let_out, setting: &str, queue_usage| Notifications {
            are_let_out,
            setting: setting.into(),
            queue_usage,
            is_filling: queue_usage > 0.5,
            oldest_transaction: Some(4711),
        };
        for (found, state, word) in [
            (found(true, "", 0.2), State::Ok, "at once"),
            (found(false, "off", 0.7), State::Ok, "apipay.notify is off"),
            (found(false, "", 0.7), State::Warning, "70 % full"),
            (found(false, "on", 0.7), State::Warning, "process 4711"),
            (
                found(false, "", 0.0),
                State::Ok,
                "max_prepared_transactions",
            ),
        ] {
            let result = notifications(&found);
            assert_eq!((result.state, result.exit), (state, 0));
            assert!(result.text.contains(word), "{}", result.text);
        }
    }

    #[test]
    fn triggers_that_are_off_are_a_fault_of_the_configuration() {
        assert_eq!(triggers(&server()), None);
        let replica = Server {
            triggers_are_off: true,
            ..server()
        };
        let result = triggers(&replica).unwrap();
        assert_eq!((result.state, result.exit), (State::Failed, 78));
    }

    #[test]
    fn an_encoding_without_letters_that_the_gateway_writes_is_told() {
        assert_eq!(encoding(&server()), None);
        for (name, word, state) in [
            ("WIN1251", "Kazakh", State::Warning),
            ("SQL_ASCII", "UTF-8", State::Warning),
            ("LATIN1", "Russian", State::Failed),
            ("EUC_JP", "Russian", State::Failed),
        ] {
            let old = Server {
                encoding: name.into(),
                ..server()
            };
            let result = encoding(&old).unwrap();
            assert_eq!(result.state, state);
            assert!(result.text.contains(name) && result.text.contains(word));
        }
    }

    #[test]
    fn collations_that_changed_name_what_to_run() {
        assert_eq!(collations(&[]).state, State::Ok);
        let changed = [ChangedCollation {
            place: "database shop".into(),
            recorded: "2.31".into(),
            actual: "2.36".into(),
            refresh: "alter database shop refresh collation version".into(),
        }];
        let result = collations(&changed);
        assert_eq!(result.state, State::Warning);
        assert!(result.text.contains("database shop (was 2.31, is 2.36)"));
        assert!(
            result
                .text
                .ends_with("alter database shop refresh collation version;")
        );
    }

    #[test]
    fn what_is_bound_outside_names_the_sql_that_mends_it() {
        assert_eq!(bindings(Ok(Vec::new())).state, State::Ok);
        let result = bindings(Ok(vec![OutsideBinding {
            ours: "function apipay._tenge(numeric)".into(),
            outside: "function public.round(numeric, integer)".into(),
        }]));
        assert_eq!((result.state, result.exit), (State::Failed, 1));
        assert!(
            result
                .text
                .contains("apipay._tenge(numeric) binds function public.round")
        );
        assert!(result.text.ends_with("end $$;"));
    }
}
