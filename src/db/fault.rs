//! Why a statement failed, and so what helps.

use std::fmt;

use sqlx::Error;
use sqlx::postgres::PgDatabaseError;

use crate::domain::phone::without_phones;

/// What sqlx says of a failure, as it leaves this module: the text of the database's may quote a row, so phones are masked,
/// and `Debug` shows no more than `Display`.
pub(super) struct Said(pub(super) Error);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = self.0.to_string();
        f.write_str(&without_phones(&told))?;
        let mut cause = std::error::Error::source(&self.0);
        while let Some(error) = cause {
            let text = error.to_string();
            // sqlx ends its own text with that of the cause.
            if !told.ends_with(&text) {
                write!(f, ": {}", without_phones(&text))?;
            }
            told = text;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Said({self})")
    }
}

impl std::error::Error for Said {}

/// A row that a statement should have changed is as it was, although the statement succeeded.
#[derive(Debug, thiserror::Error)]
#[error("the change was swallowed without an error: {by} returns null for this row")]
pub(super) struct Swallowed {
    pub(super) by: String,
}

/// Who is at fault when a statement fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtFault {
    /// The database: every statement would fail, and all wait until it is well.
    Database,
    /// Rows of this statement: without them it would succeed.
    Rows,
    /// The gateway's words in a row: the database cannot store them.
    Words,
    /// Somebody holds a lock. On a row it is that row's trouble, on a table everybody's.
    Lock,
    /// A concurrent statement: the same one may simply be run again.
    Conflict,
}

/// What the database said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Its code, when it was the database that spoke.
    pub sqlstate: Option<String>,
    /// Its message, phones masked: a function of the shop may put one there.
    pub message: String,
    /// Where it happened: the innermost function or row.
    pub place: Option<String>,
}

impl Cause {
    /// What is the same for all rows that are refused for this cause: its code, and where it happened or else its
    /// words, without the numbers of the one row. Those of a place in a function say which line of it refuses.
    pub fn case(&self) -> String {
        let words = match &self.place {
            Some(place) if is_in_a_function(place) => place.clone(),
            Some(place) => without_numbers(place),
            None => without_numbers(&self.message),
        };
        format!("{} {words}", self.sqlstate.as_deref().unwrap_or_default())
    }

    /// What people are told as one: the case, and the words, for one line of a function may raise for several causes.
    pub fn incident(&self) -> String {
        match &self.place {
            Some(_) => format!("{}: {}", self.case(), without_numbers(&self.message)),
            None => self.case(),
        }
    }

    /// Whether it was met at the row of a job.
    pub(super) fn is_about_a_job(&self) -> bool {
        let place = self.place.as_deref();
        place.is_some_and(|place| {
            place.contains(" tuple ") && place.ends_with(r#"in relation "jobs""#)
        })
    }

    pub(super) fn of(error: &Error) -> Cause {
        match error {
            Error::Database(said) => Cause {
                sqlstate: said.code().map(Into::into),
                message: without_phones(said.message()),
                place: place(error).map(without_phones),
            },
            Error::AnyDriverError(said) => Cause {
                sqlstate: None,
                message: without_phones(&said.to_string()),
                place: None,
            },
            _ => Cause {
                sqlstate: None,
                message: without_phones(&error.to_string()),
                place: None,
            },
        }
    }
}

fn is_in_a_function(place: &str) -> bool {
    // That of SQL is followed by its text, which may quote a row.
    place.contains("function ") && !place.starts_with("SQL statement")
}

fn without_numbers(words: &str) -> String {
    words.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// The innermost line of the error's context.
fn place(error: &Error) -> Option<&str> {
    context(error)?.lines().next()
}

/// Which functions and statements were at work, the innermost first.
fn context(error: &Error) -> Option<&str> {
    let said = error.as_database_error()?;
    said.try_downcast_ref::<PgDatabaseError>()?.r#where()
}

pub(super) fn fault(error: &Error) -> AtFault {
    match error {
        Error::Database(said) => fault_of(&said.code().unwrap_or_default(), context(error)),
        Error::Encode(_) => AtFault::Words,
        Error::AnyDriverError(said) if said.is::<Swallowed>() => AtFault::Rows,
        _ => AtFault::Database,
    }
}

/// An allow-list of what is the database's own trouble and nobody's row: what is not on it is a row's, for
/// a row that is taken for the database stops everybody, and a database that is taken for a row is noticed
/// by the next statement.
fn fault_of(code: &str, context: Option<&str>) -> AtFault {
    let place = context.and_then(|context| context.lines().next());
    // A function that raises may choose any code.
    if place.is_some_and(|place| place.ends_with("at RAISE")) {
        return AtFault::Rows;
    }
    let is_foreign = context.is_some_and(is_of_a_foreign_function);
    let class = code.get(..2).unwrap_or_default();
    match (code, class) {
        ("40001" | "40P01", _) => AtFault::Conflict,
        ("55P03", _) => AtFault::Lock,
        // A statement that took too long, or was cancelled by hand.
        ("57014", _) => AtFault::Rows,
        // Connections, the kind of transaction, resources, shutdown, files, configuration, and a
        // statement or a pooler's session that is not what we prepared.
        // What a trigger of the shop's reaches for (another server, a session's state) may fail it alone; a
        // disk or a memory that is full, and a shutdown, are everybody's wherever they are met.
        (_, "08" | "25" | "26" | "28" | "3D" | "55" | "F0") if is_foreign => AtFault::Rows,
        (_, "" | "08" | "25" | "26" | "28" | "3D" | "53" | "55" | "57" | "58" | "F0") => {
            AtFault::Database
        }
        ("42P05", _) => AtFault::Database,
        // A right or a name that is missing: a function's that a row sets off, or else our own.
        (_, "42" | "0A") if place.is_none() => AtFault::Database,
        (_, "22" | "54") => AtFault::Words,
        _ => AtFault::Rows,
    }
}

/// Whether a function that is none of the schema's own was at work.
fn is_of_a_foreign_function(context: &str) -> bool {
    let mut functions = context
        .lines()
        .filter_map(|line| line.split_once("function "));
    functions.any(|(_, name)| !name.trim_start_matches('"').starts_with("apipay."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_databases_own_trouble_makes_everybody_wait() {
        let trigger = Some("PL/pgSQL function public.audit() line 3 at SQL statement");
        let raised = Some("PL/pgSQL function public.audit() line 3 at RAISE");
        let within = Some(
            "SQL statement \"select currval('s')\"\nPL/pgSQL function public.audit() line 3 at PERFORM",
        );
        let ours = Some(
            "PL/pgSQL function apipay._take_quota(text,integer,text,bigint) line 9 at SQL statement",
        );
        for (code, context, expected) in [
            ("", None, AtFault::Database),
            ("08006", None, AtFault::Database),
            ("25006", None, AtFault::Database),
            ("53100", None, AtFault::Database),
            ("53100", trigger, AtFault::Database),
            ("53300", None, AtFault::Database),
            ("55000", trigger, AtFault::Rows),
            ("55000", within, AtFault::Rows),
            ("08001", trigger, AtFault::Rows),
            ("55000", ours, AtFault::Database),
            ("57P01", trigger, AtFault::Database),
            ("55000", None, AtFault::Database),
            ("57P01", None, AtFault::Database),
            ("57P03", None, AtFault::Database),
            ("58030", None, AtFault::Database),
            ("42P01", None, AtFault::Database),
            ("42501", None, AtFault::Database),
            ("42P05", None, AtFault::Database),
            ("26000", None, AtFault::Database),
            ("0A000", None, AtFault::Database),
            ("42501", trigger, AtFault::Rows),
            ("42703", trigger, AtFault::Rows),
            ("57014", None, AtFault::Rows),
            ("P0001", None, AtFault::Rows),
            ("P0001", raised, AtFault::Rows),
            ("53200", raised, AtFault::Rows),
            ("40001", raised, AtFault::Rows),
            ("23503", None, AtFault::Rows),
            ("23505", None, AtFault::Rows),
            ("21000", None, AtFault::Rows),
            ("44000", None, AtFault::Rows),
            ("XX001", None, AtFault::Rows),
            ("22021", None, AtFault::Words),
            ("22P05", None, AtFault::Words),
            ("54000", None, AtFault::Words),
            ("55P03", None, AtFault::Lock),
            ("55P03", trigger, AtFault::Lock),
            ("40001", None, AtFault::Conflict),
            ("40P01", trigger, AtFault::Conflict),
        ] {
            assert_eq!(fault_of(code, context), expected, "{code} {context:?}");
        }
        assert_eq!(fault(&Error::PoolTimedOut), AtFault::Database);
        assert_eq!(fault(&Error::Encode("a value".into())), AtFault::Words);
    }

    #[test]
    fn rows_that_are_refused_for_the_same_cause_are_one_case() {
        let cause = |state: &str, message: &str, place: Option<&str>| Cause {
            sqlstate: Some(state.into()),
            message: message.into(),
            place: place.map(Into::into),
        };
        let function = Some("PL/pgSQL function public.audit() line 3 at RAISE");
        let one = cause("P0001", "order 7 of Aida is frozen", function).case();
        assert_eq!(
            one,
            cause("P0001", "order 8 of Daniyar is frozen", function).case()
        );
        assert_ne!(
            one,
            cause("23514", "order 7 of Aida is frozen", function).case()
        );
        let other = Some("PL/pgSQL function public.mark() line 3 at RAISE");
        assert_ne!(
            one,
            cause("P0001", "order 7 of Aida is frozen", other).case()
        );
        // A function refuses for as many causes as it has lines.
        let elsewhere = Some("PL/pgSQL function public.audit() line 13 at RAISE");
        assert_ne!(
            one,
            cause("P0001", "order 7 of Aida is frozen", elsewhere).case()
        );
        let bare = cause("23505", "duplicate key in row 15", None).case();
        assert_eq!(bare, cause("23505", "duplicate key in row 16", None).case());
        assert_ne!(bare, cause("23505", "another key in row 15", None).case());
        let within = |order| {
            let place =
                format!("SQL statement \"update orders set paid = true where id = {order}\"");
            cause("23514", "the row is refused", Some(place.as_str())).case()
        };
        assert_eq!(within(7), within(8));
        let tuple = |place| cause("55P03", "canceling statement", Some(place)).case();
        assert_eq!(
            tuple("while locking tuple (0,7)"),
            tuple("while locking tuple (1,12)")
        );
    }

    #[test]
    fn what_is_told_apart_has_the_words_too_without_the_numbers_of_the_row() {
        let told = |message: &str, place: &str| {
            let cause = Cause {
                sqlstate: Some("P0001".into()),
                message: message.into(),
                place: Some(place.into()),
            };
            cause.incident()
        };
        let place = "PL/pgSQL function public.tr() line 1 at RAISE";
        let one = told("order 7 is frozen", place);
        assert_eq!(one, told("order 8 is frozen", place));
        assert_ne!(one, told("order 7 is not paid for", place));
        let elsewhere = "PL/pgSQL function public.tr() line 2 at RAISE";
        assert_ne!(one, told("order 7 is frozen", elsewhere));
    }

    #[test]
    fn no_phone_number_leaves_by_a_message() {
        assert_eq!(
            without_phones("order 15 of +77001234567, 87001234567"),
            "order 15 of +***, ***"
        );
        let quoting = "the row (+7 700 123-45-67) is refused";
        let error = crate::db::DbError {
            task: "claim jobs",
            source: Said(Error::Protocol(quoting.into())),
        };
        let cause = error.cause().message;
        let source = std::error::Error::source(&error).unwrap().to_string();
        for text in [cause, source, error.to_string(), format!("{error:?}")] {
            assert!(!text.contains("123-45-67"), "{text}");
        }
        let io = Said(Error::Io(std::io::Error::other(quoting)));
        assert_eq!(io.to_string().matches("***").count(), 1, "{io}");
    }
}
