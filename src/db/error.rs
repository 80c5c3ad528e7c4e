//! A statement that failed, and what it was for.

use super::fault::{AtFault, Cause, Said, Swallowed, fault};
use crate::heart;

/// A statement that failed, with what it was for. What it says of the cause has its phones masked (module `fault`).
#[derive(Debug, thiserror::Error)]
#[error("the statement of the database to {task} failed")]
pub struct DbError {
    pub(super) task: &'static str,
    #[source]
    pub(super) source: Said,
}

impl DbError {
    /// Whether the server answered, if only to refuse.
    pub fn is_answer(&self) -> bool {
        self.source.0.as_database_error().is_some()
    }

    /// Who is at fault, and so what helps.
    pub fn fault(&self) -> AtFault {
        fault(&self.source.0)
    }

    /// Whether the database took too long, or had no connection free for us.
    pub fn is_too_slow(&self) -> bool {
        match &self.source.0 {
            sqlx::Error::PoolTimedOut => true,
            sqlx::Error::Database(said) => said.code().as_deref() == Some("57014"),
            _ => false,
        }
    }

    /// What the database said.
    pub fn cause(&self) -> Cause {
        Cause::of(&self.source.0)
    }

    /// Whether single rows may be the reason: then the others may do without them.
    pub fn is_about_rows(&self) -> bool {
        matches!(self.fault(), AtFault::Rows | AtFault::Words | AtFault::Lock)
    }

    /// A statement that succeeded and changed nothing, where these triggers may be why.
    pub(super) fn swallowed(task: &'static str, triggers: &[&str]) -> DbError {
        let by = match triggers {
            [] => "nothing that is seen".to_owned(),
            triggers => triggers.join(" or "),
        };
        DbError {
            task,
            source: Said(sqlx::Error::AnyDriverError(Box::new(Swallowed { by }))),
        }
    }

    /// Whether the statement took too long, or was cancelled by hand.
    pub fn is_cancelled(&self) -> bool {
        let error = self.source.0.as_database_error();
        error.and_then(|error| error.code()).as_deref() == Some("57014")
    }

    /// Whether our user lacks a privilege.
    pub fn is_denied(&self) -> bool {
        let error = self.source.0.as_database_error();
        error.and_then(|error| error.code()).as_deref() == Some("42501")
    }

    /// Whether it speaks of a pooler: our start-up parameters are refused, or a statement was prepared
    /// with another server connection.
    pub fn is_of_pooler(&self) -> bool {
        self.source.0.as_database_error().is_some_and(|error| {
            error.message().starts_with("unsupported startup parameter")
                || matches!(error.code().as_deref(), Some("42P05" | "26000"))
        })
    }
}

/// Names what a statement was for, and gives a sign of life: the wait for it is over.
pub(super) trait Task<T> {
    fn task(self, task: &'static str) -> Result<T, DbError>;
}

impl<T> Task<T> for Result<T, sqlx::Error> {
    fn task(self, task: &'static str) -> Result<T, DbError> {
        heart::beat();
        self.map_err(|error| DbError {
            task,
            source: Said(error),
        })
    }
}
