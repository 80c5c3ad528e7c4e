//! Why a statement failed, and so what helps.

use sqlx::Error;
use sqlx::postgres::PgDatabaseError;

/// Who is at fault when a statement fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
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
    /// Its message, long numbers masked: a function of the shop may put a phone there.
    pub message: String,
    /// Where it happened: the innermost function or row.
    pub place: Option<String>,
}

impl Cause {
    /// What is the same for all rows that are refused for this cause: its code, and where it happened or else its
    /// words, without the numbers of the one row.
    pub fn case(&self) -> String {
        let words = self.place.as_ref().unwrap_or(&self.message);
        let words: String = words.chars().filter(|c| !c.is_ascii_digit()).collect();
        format!("{} {words}", self.sqlstate.as_deref().unwrap_or_default())
    }

    pub(super) fn of(error: &Error) -> Cause {
        match error {
            Error::Database(said) => Cause {
                sqlstate: said.code().map(Into::into),
                message: without_long_numbers(said.message()),
                place: place(error).map(without_long_numbers),
            },
            _ => Cause {
                sqlstate: None,
                message: without_long_numbers(&error.to_string()),
                place: None,
            },
        }
    }
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

pub(super) fn fault(error: &Error) -> Fault {
    match error {
        Error::Database(said) => fault_of(&said.code().unwrap_or_default(), context(error)),
        Error::Encode(_) => Fault::Words,
        _ => Fault::Database,
    }
}

/// An allow-list of what is the database's own trouble and nobody's row: what is not on it is a row's, for
/// a row that is taken for the database stops everybody, and a database that is taken for a row is noticed
/// by the next statement.
fn fault_of(code: &str, context: Option<&str>) -> Fault {
    let place = context.and_then(|context| context.lines().next());
    // A function that raises may choose any code.
    if place.is_some_and(|place| place.ends_with("at RAISE")) {
        return Fault::Rows;
    }
    let is_foreign = context.is_some_and(is_of_a_foreign_function);
    let class = code.get(..2).unwrap_or_default();
    match (code, class) {
        ("40001" | "40P01", _) => Fault::Conflict,
        ("55P03", _) => Fault::Lock,
        // A statement that took too long, or was cancelled by hand.
        ("57014", _) => Fault::Rows,
        // Connections, the kind of transaction, resources, shutdown, files, configuration, and a
        // statement or a pooler's session that is not what we prepared.
        // What a trigger of the shop's reaches for (another server, a session's state) may fail it alone; a
        // disk or a memory that is full, and a shutdown, are everybody's wherever they are met.
        (_, "08" | "25" | "26" | "28" | "3D" | "55" | "F0") if is_foreign => Fault::Rows,
        (_, "" | "08" | "25" | "26" | "28" | "3D" | "53" | "55" | "57" | "58" | "F0") => {
            Fault::Database
        }
        ("42P05", _) => Fault::Database,
        // A right or a name that is missing: a function's that a row sets off, or else our own.
        (_, "42" | "0A") if place.is_none() => Fault::Database,
        (_, "22" | "54") => Fault::Words,
        _ => Fault::Rows,
    }
}

/// Whether a function that is none of the schema's own was at work.
fn is_of_a_foreign_function(context: &str) -> bool {
    let mut functions = context
        .lines()
        .filter_map(|line| line.split_once("function "));
    functions.any(|(_, name)| !name.trim_start_matches('"').starts_with("apipay."))
}

/// Masks what may be a phone number.
pub fn without_long_numbers(text: &str) -> String {
    const DIGITS: usize = 9;
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, number) = rest.split_at(start);
        let length = number
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(number.len());
        masked.push_str(before);
        masked.push_str(if length >= DIGITS {
            "***"
        } else {
            &number[..length]
        });
        rest = &number[length..];
    }
    masked.push_str(rest);
    masked
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
            ("", None, Fault::Database),
            ("08006", None, Fault::Database),
            ("25006", None, Fault::Database),
            ("53100", None, Fault::Database),
            ("53100", trigger, Fault::Database),
            ("53300", None, Fault::Database),
            ("55000", trigger, Fault::Rows),
            ("55000", within, Fault::Rows),
            ("08001", trigger, Fault::Rows),
            ("55000", ours, Fault::Database),
            ("57P01", trigger, Fault::Database),
            ("55000", None, Fault::Database),
            ("57P01", None, Fault::Database),
            ("57P03", None, Fault::Database),
            ("58030", None, Fault::Database),
            ("42P01", None, Fault::Database),
            ("42501", None, Fault::Database),
            ("42P05", None, Fault::Database),
            ("26000", None, Fault::Database),
            ("0A000", None, Fault::Database),
            ("42501", trigger, Fault::Rows),
            ("42703", trigger, Fault::Rows),
            ("57014", None, Fault::Rows),
            ("P0001", None, Fault::Rows),
            ("P0001", raised, Fault::Rows),
            ("53200", raised, Fault::Rows),
            ("40001", raised, Fault::Rows),
            ("23503", None, Fault::Rows),
            ("23505", None, Fault::Rows),
            ("21000", None, Fault::Rows),
            ("44000", None, Fault::Rows),
            ("XX001", None, Fault::Rows),
            ("22021", None, Fault::Words),
            ("22P05", None, Fault::Words),
            ("54000", None, Fault::Words),
            ("55P03", None, Fault::Lock),
            ("55P03", trigger, Fault::Lock),
            ("40001", None, Fault::Conflict),
            ("40P01", trigger, Fault::Conflict),
        ] {
            assert_eq!(fault_of(code, context), expected, "{code} {context:?}");
        }
        assert_eq!(fault(&Error::PoolTimedOut), Fault::Database);
        assert_eq!(fault(&Error::Encode("a value".into())), Fault::Words);
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
        let bare = cause("23505", "duplicate key in row 15", None).case();
        assert_eq!(bare, cause("23505", "duplicate key in row 16", None).case());
        assert_ne!(bare, cause("23505", "another key in row 15", None).case());
        let tuple = |place| cause("55P03", "canceling statement", Some(place)).case();
        assert_eq!(
            tuple("while locking tuple (0,7)"),
            tuple("while locking tuple (1,12)")
        );
    }

    #[test]
    fn no_phone_number_leaves_by_a_message() {
        assert_eq!(
            without_long_numbers("order 15 of +77001234567, 87001234567"),
            "order 15 of +***, ***"
        );
    }
}
