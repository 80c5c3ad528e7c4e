//! The server and the database: do they keep, sort and call what we count on?

use super::Finding;
use crate::app::{NO_POWER_CUT, TRIGGERS_OFF};
use crate::db::health::Server;
use crate::db::soundness::{self, ChangedCollation, OutsideBinding};
use crate::db::{DbError, Pool};
use crate::telemetry::Chain;

/// What the server is set to, and how it sorts.
pub(super) async fn ask(pool: &Pool, server: &Server) -> Vec<Finding> {
    let mut findings = vec![durability(server)];
    findings.extend(triggers(server));
    findings.extend(encoding(server));
    findings.push(match soundness::changed_collations(pool, server).await {
        Ok(changed) => collations(&changed),
        Err(error) => Finding::failed("collations", Chain(&error)),
    });
    findings
}

/// What the schema binds, once it is there.
pub(super) async fn ask_bindings(pool: &Pool) -> Finding {
    bindings(soundness::outside_bindings(pool).await)
}

fn durability(server: &Server) -> Finding {
    if server.survives_power_cut {
        Finding::ok("durability", "what is committed stays")
    } else {
        Finding::warning("durability", NO_POWER_CUT)
    }
}

fn triggers(server: &Server) -> Option<Finding> {
    server
        .triggers_are_off
        .then(|| Finding::misconfigured("triggers", TRIGGERS_OFF))
}

fn encoding(server: &Server) -> Option<Finding> {
    let encoding = &server.encoding;
    (encoding != "UTF8").then(|| {
        Finding::warning(
            "encoding",
            format_args!(
                "the database's encoding is {encoding}: an answer of the gateway with a letter that it has not, \
                 such as a Kazakh one, cannot be stored; UTF8 has all of them"
            ),
        )
    })
}

fn collations(changed: &[ChangedCollation]) -> Finding {
    if changed.is_empty() {
        return Finding::ok("collations", "text is sorted as when its indexes were made");
    }
    let places = join(changed, ", ", |it| {
        format!("{} (was {}, is {})", it.place, it.recorded, it.actual)
    });
    let refresh = join(changed, " ", |it| format!("{};", it.refresh));
    Finding::warning(
        "collations",
        format_args!(
            "the system sorts text otherwise than when indexes of this database were made: {places}; your own tables \
             may miss rows or take a unique key twice (those of apipay do not: their keys are sorted by bytes). \
             Its owner makes them anew (reindex database), then runs: {refresh}"
        ),
    )
}

fn bindings(found: Result<Vec<OutsideBinding>, DbError>) -> Finding {
    match found {
        Err(error) => Finding::failed("bindings", Chain(&error)),
        Ok(found) if found.is_empty() => Finding::ok(
            "bindings",
            "the schema calls nothing but itself and Postgres",
        ),
        Ok(found) => Finding::failed(
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

    use super::super::State;
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
    fn triggers_that_are_off_are_a_fault_of_the_configuration() {
        assert_eq!(triggers(&server()), None);
        let replica = Server {
            triggers_are_off: true,
            ..server()
        };
        let finding = triggers(&replica).unwrap();
        assert_eq!((finding.state, finding.exit), (State::Failed, 78));
    }

    #[test]
    fn an_encoding_without_kazakh_letters_is_told() {
        assert_eq!(encoding(&server()), None);
        let old = Server {
            encoding: "WIN1251".into(),
            ..server()
        };
        assert!(encoding(&old).unwrap().text.contains("WIN1251"));
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
        let finding = collations(&changed);
        assert_eq!(finding.state, State::Warning);
        assert!(finding.text.contains("database shop (was 2.31, is 2.36)"));
        assert!(
            finding
                .text
                .ends_with("alter database shop refresh collation version;")
        );
    }

    #[test]
    fn what_is_bound_outside_names_the_sql_that_mends_it() {
        assert_eq!(bindings(Ok(Vec::new())).state, State::Ok);
        let finding = bindings(Ok(vec![OutsideBinding {
            ours: "function apipay._tenge(numeric)".into(),
            outside: "function public.round(numeric, integer)".into(),
        }]));
        assert_eq!((finding.state, finding.exit), (State::Failed, 1));
        assert!(
            finding
                .text
                .contains("apipay._tenge(numeric) binds function public.round")
        );
        assert!(finding.text.ends_with("end $$;"));
    }
}
