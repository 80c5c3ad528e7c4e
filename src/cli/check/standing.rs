//! What stands in the way of payments without any error: a schema that moved, rows that are hidden,
//! accounts that nobody serves, alerts that nobody takes.

use std::time::Duration;

use super::finding::Finding;
use super::rights::privileges;
use crate::db::progress::{self, Due, Undelivered};
use crate::db::schema::{self, Fault};
use crate::db::{DbError, Pool};
use crate::telemetry::Chain;

/// How long a daemon counts as running after its last sign of life.
const ALIVE_FOR: Duration = Duration::from_secs(180);

/// Asks the database; `configured` are the accounts of this configuration.
pub(super) async fn gather(pool: &Pool, user: &str, configured: &[String]) -> Vec<Finding> {
    let mut findings = match schema::faults(pool).await {
        Ok(faults) => of_schema(user, &faults),
        Err(error) => vec![Finding::failed("schema", Chain(&error))],
    };
    // With a schema that moved the rest can only fail, and says nothing new.
    if findings.iter().any(|finding| finding.exit != 0) {
        return findings;
    }
    let asked = async {
        let due = progress::due(pool, ALIVE_FOR, &progress::Unstored::default()).await?;
        let undelivered = progress::undelivered(pool).await?;
        Ok::<_, DbError>((due, undelivered))
    };
    match asked.await {
        Ok((due, undelivered)) => {
            findings.extend(unserved(&due, configured));
            findings.extend(untold(&undelivered));
        }
        Err(error) => findings.push(Finding::failed("waiting", Chain(&error))),
    }
    findings
}

fn of_schema(user: &str, faults: &[Fault]) -> Vec<Finding> {
    let mut denied = Vec::new();
    let mut findings = Vec::new();
    for fault in faults {
        let check = match fault {
            Fault::Denied { privilege, .. } => {
                denied.push(privilege.clone());
                continue;
            }
            Fault::RowSecurity { .. } | Fault::EventTrigger { .. } => "row_security",
            Fault::SequenceBehind { .. } => "sequences",
            Fault::Missing { .. } => "schema",
        };
        let text = format!("{fault}; mend it: {}", fault.remedy());
        findings.push(if fault.stops_payments() {
            Finding::failed(check, text)
        } else {
            Finding::warning(check, text)
        });
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            "schema",
            "nothing of it is missing, hidden or behind",
        ));
    }
    findings.push(privileges(user, &denied));
    findings
}

fn unserved(due: &[Due], configured: &[String]) -> Vec<Finding> {
    let unserved = due
        .iter()
        .filter(|due| due.served_by == 0 && !configured.contains(&due.account));
    unserved
        .map(|due| {
            let account = &due.account;
            Finding::warning(
                "accounts",
                format_args!(
                    "account {account} has something to do and no running apipayd has it in its configuration; add \
                     [accounts.{account}]. If it is not to be served any more: select * from \
                     apipay.cancel_jobs(array(select id from apipay.overview where account = '{account}' and state = \
                     'queued'), 'why'); select apipay.park('{account}', 'why');"
                ),
            )
        })
        .collect()
}

fn untold(undelivered: &[Undelivered]) -> Vec<Finding> {
    undelivered
        .iter()
        .map(|notices| {
            Finding::warning(
                "alerts",
                format_args!(
                    "{} for the channel {}: {}",
                    notices.counted(),
                    notices.channel,
                    notices.error
                ),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;
    use crate::cli::print::Row;

    fn lines(findings: &[Finding]) -> Vec<String> {
        findings.iter().map(|finding| finding.line(false)).collect()
    }

    #[test]
    fn each_fault_comes_with_the_sql_that_mends_it() {
        let faults = [
            Fault::RowSecurity {
                table: "apipay.jobs".into(),
                is_ours: true,
            },
            Fault::EventTrigger {
                name: "ensure_rls".into(),
            },
            Fault::SequenceBehind {
                sequence: "apipay.jobs_id_seq".into(),
                highest: 12,
                beyond: Some(i64::MAX),
            },
            Fault::Denied {
                user: "shop".into(),
                privilege: "select on apipay.jobs".into(),
            },
            Fault::Missing {
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
        assert!(well.iter().all(|finding| finding.state == State::Ok));
        assert_eq!(well.len(), 2);
    }

    #[test]
    fn an_account_of_this_configuration_is_about_to_be_served() {
        let due = [Due {
            account: "shop".into(),
            ..Due::default()
        }];
        assert_eq!(unserved(&due, &["shop".to_owned()]), []);
        assert_eq!(unserved(&due, &[]).len(), 1);
        let served = [Due {
            served_by: 1,
            ..due[0].clone()
        }];
        assert_eq!(unserved(&served, &[]), []);
    }
}
