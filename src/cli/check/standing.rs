//! What stands in the way of payments without any error: a schema that moved, rows that are hidden,
//! accounts that nobody serves, alerts that nobody takes.

use std::collections::BTreeMap;

use time::format_description::well_known::Rfc3339;

use super::result::CheckResult;
use super::rights::privileges;
use crate::db::progress::{self, DueWork, Undelivered};
use crate::db::schema::{self, Defect};
use crate::db::{DbError, Pool};
use crate::domain::times::ALIVE_FOR;
use crate::policy::unserved;
use crate::telemetry::Chain;

/// Asks the database; `configured` are the accounts of this configuration, which may have a webhook for alerts.
pub(super) async fn gather(
    pool: &Pool,
    user: &str,
    configured: &[String],
    has_webhook: bool,
) -> Vec<CheckResult> {
    let mut results = match schema::faults(pool).await {
        Ok(faults) => of_schema(user, &faults),
        Err(error) => vec![CheckResult::failed("schema", Chain(&error))],
    };
    // With a schema that moved the rest can only fail, and says nothing new.
    if results.iter().any(|result| result.exit != 0) {
        return results;
    }
    let asked = async {
        let due = progress::due(pool, ALIVE_FOR, &progress::Unstored::default()).await?;
        let undelivered = progress::undelivered(pool, has_webhook).await?;
        Ok::<_, DbError>((due, undelivered))
    };
    match asked.await {
        Ok((due, undelivered)) => {
            results.extend(unserved(&due, configured));
            results.extend(untold(&undelivered));
        }
        Err(error) => results.push(CheckResult::failed("waiting", Chain(&error))),
    }
    results
}

fn of_schema(user: &str, faults: &[Defect]) -> Vec<CheckResult> {
    let mut denied = Vec::new();
    let mut results = Vec::new();
    for fault in faults {
        let check = match fault {
            Defect::Denied { privilege, .. } => {
                denied.push(privilege.clone());
                continue;
            }
            Defect::RowSecurity { .. } | Defect::EventTrigger { .. } => "row_security",
            Defect::SequenceBehind { .. } => "sequences",
            Defect::Missing { .. } => "schema",
        };
        let text = format!("{fault}; mend it: {}", fault.remedy());
        results.push(if fault.stops_payments() {
            CheckResult::failed(check, text)
        } else {
            CheckResult::warning(check, text)
        });
    }
    if results.is_empty() {
        results.push(CheckResult::ok(
            "schema",
            "nothing of it is missing, hidden or behind",
        ));
    }
    results.push(privileges(user, &denied));
    results
}

/// Accounts with something to do that nobody serves: of a daemon that has stopped by its machine, once. One of this
/// configuration that no daemon is known to have served before is about to be served for the first time.
fn unserved(due: &[DueWork], configured: &[String]) -> Vec<CheckResult> {
    let is_first_start =
        |due: &DueWork| due.stopped_host.is_none() && configured.contains(&due.account);
    let unserved = due
        .iter()
        .filter(|due| due.served_by == 0 && !is_first_start(due));
    let mut results = Vec::new();
    let mut of_hosts: BTreeMap<(&str, bool), Vec<&DueWork>> = BTreeMap::new();
    for due in unserved {
        match &due.stopped_host {
            Some(host) => {
                let key = (host.as_str(), due.was_stopped_properly);
                of_hosts.entry(key).or_default().push(due);
            }
            None => results.push(unknown(&due.account)),
        }
    }
    let of_hosts = of_hosts.into_iter();
    results.extend(of_hosts.map(|((host, is_proper), due)| stopped(host, is_proper, &due)));
    results
}

fn unknown(account: &str) -> CheckResult {
    CheckResult::warning(
        "accounts",
        format_args!(
            "account {account} has something to do and no running apipayd has it in its configuration; add \
             [accounts.{account}], then: sudo systemctl reload apipayd (restart, where systemd loads its key). {}",
            unserved::give_up(&[account])
        ),
    )
}

fn stopped(host: &str, is_proper: bool, served: &[&DueWork]) -> CheckResult {
    let names: Vec<&str> = served.iter().map(|due| due.account.as_str()).collect();
    let seen_at = served.iter().filter_map(|due| due.stopped_at).max();
    let at = seen_at.and_then(|at| at.replace_nanosecond(0).ok());
    let at = at.and_then(|at| at.format(&Rfc3339).ok());
    let how = match (is_proper, at) {
        (true, Some(at)) => format!("was stopped at {at}"),
        (true, None) => "was stopped".to_owned(),
        (false, Some(at)) => format!("has given no sign of life since {at}"),
        (false, None) => "gives no sign of life".to_owned(),
    };
    CheckResult::warning(
        "accounts",
        format_args!(
            "the apipayd on {host} that served {} {how}; no other one does, and something of each of them is due. To do: {}. {}",
            names.join(", "),
            unserved::start_again(host),
            unserved::give_up(&names)
        ),
    )
}

fn untold(undelivered: &[Undelivered]) -> Vec<CheckResult> {
    undelivered
        .iter()
        .map(|deliveries| {
            CheckResult::warning(
                "alerts",
                format_args!(
                    "{} for the channel {}: {}",
                    deliveries.counted(),
                    deliveries.channel,
                    deliveries.error
                ),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::result::State;
    use super::*;
    use crate::cli::print::Row;

    fn lines(results: &[CheckResult]) -> Vec<String> {
        results.iter().map(|result| result.line(false)).collect()
    }

    #[test]
    fn each_fault_comes_with_the_sql_that_mends_it() {
        let faults = [
            Defect::RowSecurity {
                table: "apipay.jobs".into(),
                is_ours: true,
            },
            Defect::EventTrigger {
                name: "ensure_rls".into(),
            },
            Defect::SequenceBehind {
                sequence: "apipay.jobs_id_seq".into(),
                highest: 12,
                beyond: Some(i64::MAX),
            },
            Defect::Denied {
                user: "shop".into(),
                privilege: "select on apipay.jobs".into(),
            },
            Defect::Missing {
                part: "enabled trigger wake of apipay.jobs".into(),
            },
        ];
        assert_eq!(
            lines(&of_schema("shop", &faults)),
            [
                "failed   row_security  row level security is on for apipay.jobs and may hide its rows from apipayd; \
                 mend it: alter table apipay.jobs disable row level security;",
                "warning  row_security  the event trigger ensure_rls enables row level security on new tables; mend \
                 it: alter event trigger \"ensure_rls\" disable;",
                "failed   sequences     apipay.jobs_id_seq gives out numbers that are taken, up to 12 \
                 (9223372036854775807, which somebody gave by hand, stays as it is: the sequence never comes to it); mend it: \
                 select setval('apipay.jobs_id_seq', 12);",
                "warning  schema        the schema lacks: enabled trigger wake of apipay.jobs; mend it: alter table \
                 apipay.jobs enable trigger wake;",
                "failed   privileges    user shop lacks select on apipay.jobs; run as the schema's owner: grant \
                 apipay_worker to \"shop\"; select apipay._grant_roles();",
            ]
        );
        let well = of_schema("shop", &[]);
        assert!(well.iter().all(|result| result.state == State::Ok));
        assert_eq!(well.len(), 2);
    }

    #[test]
    fn an_account_of_this_configuration_that_nobody_has_served_is_about_to_be_served() {
        let due = [DueWork {
            account: "shop".into(),
            ..DueWork::default()
        }];
        assert_eq!(unserved(&due, &["shop".to_owned()]), []);
        assert_eq!(unserved(&due, &[]).len(), 1);
        let served = [DueWork {
            served_by: 1,
            ..due[0].clone()
        }];
        assert_eq!(unserved(&served, &[]), []);
    }

    #[test]
    fn a_daemon_that_served_an_account_of_this_configuration_and_is_gone_is_told() {
        let due = DueWork {
            account: "shop".into(),
            stopped_host: Some("kassa-1".into()),
            stopped_at: Some(time::OffsetDateTime::UNIX_EPOCH),
            ..DueWork::default()
        };
        let told = |was_stopped_properly| {
            let due = DueWork {
                was_stopped_properly,
                ..due.clone()
            };
            lines(&unserved(&[due], &["shop".to_owned()])).join("\n")
        };
        for (was_stopped_properly, how) in [
            (true, "was stopped at"),
            (false, "has given no sign of life since"),
        ] {
            let line = told(was_stopped_properly);
            let expected =
                format!("the apipayd on kassa-1 that served shop {how} 1970-01-01T00:00:00Z");
            assert!(
                line.contains(&expected)
                    && line.contains("on kassa-1: sudo systemctl start apipayd"),
                "{line}"
            );
        }
    }

    #[test]
    fn a_daemon_that_stopped_is_told_by_its_machine_with_all_that_it_served() {
        let of = |account: &str, host: Option<&str>| DueWork {
            account: account.into(),
            stopped_host: host.map(str::to_owned),
            stopped_at: host.map(|_| time::OffsetDateTime::UNIX_EPOCH),
            ..DueWork::default()
        };
        let due = [
            of("b1", Some("kassa-2")),
            of("ghost", None),
            of("b2", Some("kassa-2")),
        ];
        let lines = lines(&unserved(&due, &[]));
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains("account ghost has something to do"));
        assert!(
            lines[1].contains(
                "the apipayd on kassa-2 that served b1, b2 has given no sign of life since 1970-01-01T00:00:00Z; no other \
                 one does, and something of each of them is due. To do: on kassa-2: sudo systemctl start apipayd;"
            ),
            "{lines:?}"
        );
        let properly = DueWork {
            was_stopped_properly: true,
            ..due[0].clone()
        };
        let lines = self::lines(&unserved(&[properly], &[]));
        assert!(
            lines[0]
                .contains("that served b1 was stopped at 1970-01-01T00:00:00Z; no other one does"),
            "{lines:?}"
        );
    }
}
