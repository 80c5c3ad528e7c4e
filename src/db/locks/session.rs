//! A session that keeps others waiting.

use time::OffsetDateTime;

use crate::domain::statement::first_words;

/// A session that holds what we wait for, as far as our role may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker {
    /// Its process: `select pg_terminate_backend(pid)` ends it.
    pub pid: i32,
    /// Its user.
    pub user: Option<String>,
    /// What it calls itself.
    pub application: Option<String>,
    /// When its transaction began.
    pub since: Option<OffsetDateTime>,
    /// How it stands: `active`, `idle in transaction` and the like.
    pub state: Option<String>,
    /// The first words of its last statement, without its values.
    pub statement: Option<String>,
}

/// A session as the statements here return it.
pub(super) struct Session {
    pub(super) pid: i32,
    pub(super) user: Option<String>,
    pub(super) application: Option<String>,
    pub(super) since: Option<OffsetDateTime>,
    pub(super) state: Option<String>,
    pub(super) query: Option<String>,
}

impl From<Session> for Blocker {
    fn from(session: Session) -> Blocker {
        Blocker {
            pid: session.pid,
            user: session.user,
            application: session.application,
            since: session.since,
            state: session.state,
            statement: session.query.as_deref().and_then(first_words),
        }
    }
}
