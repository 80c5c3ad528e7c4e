//! Whether the schema is still as this version made it, and the SQL that makes it so again.
//!
//! A database belongs to its user, and what they change in good faith can stop us without an error:
//! rows that we may not see are rows that are not there.

use std::collections::BTreeSet;
use std::fmt;

use super::migrate::{self, SchemaVersion};
use super::{DbError, Pool, Task};

/// What is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Defect {
    /// Row level security hides rows of this table; from this user too, if `is_ours`.
    RowSecurity {
        /// The table.
        table: String,
        /// Whether it binds the user that we are.
        is_ours: bool,
    },
    /// An event trigger that enables row level security on new tables.
    EventTrigger {
        /// Its name.
        name: String,
    },
    /// A sequence that will give out numbers that are taken.
    SequenceBehind {
        /// The sequence.
        sequence: String,
        /// The highest number that is taken, of those that the sequence comes to.
        highest: i64,
        /// A higher one, given by hand, that it never comes to.
        beyond: Option<i64>,
    },
    /// Our user may not do this.
    Denied {
        /// Our user.
        user: String,
        /// Such as `update of state on apipay.jobs`.
        privilege: String,
    },
    /// Something of the schema is gone, or is not as it was made.
    Missing {
        /// Such as `column apipay.jobs.state text not null`.
        part: String,
    },
}

impl Defect {
    /// Whether payments stop because of it, or go the slow way. What does neither takes a guard or the history
    /// away.
    pub fn stops_payments(&self) -> bool {
        match self {
            Defect::RowSecurity { is_ours, .. } => *is_ours,
            Defect::EventTrigger { .. } => false,
            Defect::SequenceBehind { .. } | Defect::Denied { .. } => true,
            Defect::Missing { part } => ["table", "column", "function"]
                .iter()
                .any(|kind| part.starts_with(kind)),
        }
    }

    /// Whether some payments still move: a number that is taken refuses one row, or one statement over many,
    /// and the next number may be free.
    pub fn is_partial(&self) -> bool {
        matches!(self, Defect::SequenceBehind { .. })
    }

    /// What mends it, for the owner of the schema.
    pub fn remedy(&self) -> String {
        match self {
            Defect::RowSecurity { table, .. } => {
                format!("alter table {table} disable row level security;")
            }
            Defect::EventTrigger { name } => {
                format!("alter event trigger {} disable;", quoted(name))
            }
            Defect::SequenceBehind {
                sequence, highest, ..
            } => format!("select setval('{sequence}', {highest});"),
            Defect::Denied { user, .. } => format!(
                "grant apipay_worker to {}; select apipay._grant_roles();",
                quoted(user)
            ),
            Defect::Missing { part } => match part.strip_prefix("enabled trigger ") {
                Some(trigger) => match trigger.split_once(" of ") {
                    Some((name, table)) => format!("alter table {table} enable trigger {name};"),
                    None => RESTORE.to_owned(),
                },
                None => RESTORE.to_owned(),
            },
        }
    }
}

/// For what no single statement of ours brings back.
const RESTORE: &str = "put it back as the migrations of this version make it, or restore a backup";

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Defect::RowSecurity { table, is_ours } => {
                let whom = if *is_ours { "apipayd" } else { "other users" };
                write!(
                    f,
                    "row level security is on for {table} and may hide its rows from {whom}"
                )
            }
            Defect::EventTrigger { name } => write!(
                f,
                "the event trigger {name} enables row level security on new tables"
            ),
            Defect::SequenceBehind {
                sequence,
                highest,
                beyond,
            } => {
                write!(
                    f,
                    "{sequence} gives out numbers that are taken, up to {highest}"
                )?;
                match beyond {
                    Some(number) => write!(
                        f,
                        " ({number}, which somebody gave by hand, stays as it is: the sequence never comes to it)"
                    ),
                    None => Ok(()),
                }
            }
            Defect::Denied { user, privilege } => write!(f, "user {user} lacks {privilege}"),
            Defect::Missing { part } => write!(f, "the schema lacks: {part}"),
        }
    }
}

/// The lines of a fresh schema, written by scripts/sqlx-prepare.
const EXPECTED: &str = include_str!("schema.txt");

/// Looks for everything in the schema that would stop us, or take a guard away. Reads the catalog and
/// the ends of a few indexes.
pub async fn faults(pool: &Pool) -> Result<Vec<Defect>, DbError> {
    let mut faults = hidden(pool).await?;
    let missing = missing(pool).await?;
    if missing.is_empty() && !faults.iter().any(Defect::stops_payments) {
        faults.extend(behind(pool).await?);
    } else if !missing.is_empty() && migrate::version(pool).await? != SchemaVersion::Newer {
        // A newer version may have changed what it likes; this one is about to be replaced.
        faults.extend(missing);
    }
    Ok(faults)
}

async fn hidden(pool: &Pool) -> Result<Vec<Defect>, DbError> {
    let tables = sqlx::query!(
        r#"select 'apipay.' || c.relname as "table!", row_security_active(c.oid) as "is_ours!"
             from pg_catalog.pg_class c
            where c.relnamespace = (select oid from pg_catalog.pg_namespace where nspname = 'apipay')
              and c.relkind in ('r', 'p') and c.relrowsecurity
            order by c.relname"#
    )
    .fetch_all(pool)
    .await
    .task("look for row level security")?;
    let triggers = sqlx::query_scalar!(
        r#"select t.evtname::text as "name!" from pg_catalog.pg_event_trigger t
             join pg_catalog.pg_proc p on p.oid = t.evtfoid
            where t.evtenabled <> 'D' and p.prosrc ~* 'enable\s+row\s+level\s+security'
            order by t.evtname"#
    )
    .fetch_all(pool)
    .await
    .task("look for event triggers")?;
    let tables = tables.into_iter().map(|row| Defect::RowSecurity {
        table: row.table,
        is_ours: row.is_ours,
    });
    let triggers = triggers
        .into_iter()
        .map(|name| Defect::EventTrigger { name });
    Ok(tables.chain(triggers).collect())
}

async fn missing(pool: &Pool) -> Result<Vec<Defect>, DbError> {
    let user = sqlx::query_scalar!(r#"select current_user::text as "user!""#)
        .fetch_one(pool)
        .await
        .task("ask who we are")?;
    let lines = sqlx::query_file_scalar!("src/db/schema.sql", user)
        .fetch_all(pool)
        .await
        .task("read what the schema is made of")?;
    let there: BTreeSet<&str> = lines.iter().map(String::as_str).collect();
    Ok(without(EXPECTED, &there, &user))
}

/// What is expected and not there. Of what is gone altogether its parts are not told one by one.
fn without(expected: &str, there: &BTreeSet<&str>, user: &str) -> Vec<Defect> {
    let gone = expected.lines().filter(|line| !there.contains(line));
    let gone: Vec<&str> = gone.collect();
    let relations: Vec<String> = gone
        .iter()
        .filter_map(|line| {
            line.strip_prefix("table ")
                .or_else(|| line.strip_prefix("view "))
        })
        .flat_map(|name| [format!(" {name}"), format!(" {name}.")])
        .collect();
    let functions: Vec<&str> = gone
        .iter()
        .filter_map(|line| line.strip_prefix("function "))
        .collect();
    // What may be done with a column goes with it.
    let is_of_gone_column = |line: &str| {
        let privilege = line.strip_prefix("privilege update of ");
        let column = privilege.and_then(|it| it.split_once(" on "));
        column.is_some_and(|(column, table)| {
            let there_as = format!("column {table}.{column} ");
            !there.iter().any(|line| line.starts_with(&there_as))
        })
    };
    let is_part = |line: &str| {
        is_of_gone_column(line)
            || relations.iter().any(|name| {
                !line.starts_with("table ")
                    && !line.starts_with("view ")
                    && (line.ends_with(name.as_str())
                        || (name.ends_with('.') && line.contains(name.as_str())))
            })
            || line
                .strip_prefix("privilege execute on ")
                .is_some_and(|name| functions.contains(&name))
    };
    gone.iter()
        .filter(|line| !is_part(line))
        .map(|line| match line.strip_prefix("privilege ") {
            Some(privilege) => Defect::Denied {
                user: user.to_owned(),
                privilege: privilege.to_owned(),
            },
            None => Defect::Missing {
                part: (*line).to_owned(),
            },
        })
        .collect()
}

async fn behind(pool: &Pool) -> Result<Vec<Defect>, DbError> {
    let rows = sqlx::query!(
        r#"select sequence as "sequence!", highest as "highest!", beyond from apipay._sequences_behind()"#
    )
    .fetch_all(pool)
    .await
    .task("compare sequences with their tables")?;
    Ok(rows
        .into_iter()
        .map(|row| Defect::SequenceBehind {
            sequence: row.sequence,
            highest: row.highest,
            beyond: row.beyond,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(line: &str) -> Defect {
        Defect::Missing { part: line.into() }
    }

    #[test]
    fn a_fresh_schema_lacks_nothing() {
        let there = EXPECTED.lines().collect();
        assert_eq!(without(EXPECTED, &there, "shop"), []);
        assert!(EXPECTED.contains("\nprivilege update of state on apipay.jobs\n"));
        assert!(EXPECTED.contains("\nenabled trigger refuse_illegal_move of apipay.jobs\n"));
    }

    #[test]
    fn what_is_gone_is_told_once_and_not_with_all_its_parts() {
        let expected = "column apipay.jobs.id bigint not null\nenabled trigger wake of apipay.jobs\n\
                        function apipay._park/7\nprivilege execute on apipay._park/7\n\
                        privilege select on apipay.jobs\ntable apipay.jobs";
        assert_eq!(
            without(expected, &BTreeSet::new(), "shop"),
            [
                missing("function apipay._park/7"),
                missing("table apipay.jobs")
            ]
        );
        let there = BTreeSet::from(["table apipay.jobs", "function apipay._park/7"]);
        assert_eq!(
            without(expected, &there, "shop").len(),
            4,
            "each part that is gone of what is there"
        );
    }

    #[test]
    fn what_may_be_done_with_a_column_goes_with_it() {
        let expected = "column apipay.jobs.state text\nprivilege update of state on apipay.jobs";
        assert_eq!(
            without(expected, &BTreeSet::new(), "shop"),
            [missing("column apipay.jobs.state text")]
        );
        let another = BTreeSet::from(["column apipay.jobs.state bigint"]);
        assert_eq!(without(expected, &another, "shop").len(), 2);
    }

    #[test]
    fn a_fault_names_the_sql_that_mends_it() {
        let denied = Defect::Denied {
            user: "a\"b".into(),
            privilege: "select on apipay.jobs".into(),
        };
        assert_eq!(denied.to_string(), "user a\"b lacks select on apipay.jobs");
        assert_eq!(
            denied.remedy(),
            "grant apipay_worker to \"a\"\"b\"; select apipay._grant_roles();"
        );
        let trigger = missing("enabled trigger wake of apipay.jobs");
        assert_eq!(
            trigger.remedy(),
            "alter table apipay.jobs enable trigger wake;"
        );
        assert!(!trigger.stops_payments());
        assert!(missing("column apipay.jobs.state text").stops_payments());
    }
}
