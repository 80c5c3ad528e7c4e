//! Who keeps something locked, and what ends that.

use crate::db::locks::{Blocker, Prepared, Session};
use crate::domain::phone::without_phones;
use crate::worker::written::written;

/// What ends the lock of somebody.
pub(super) fn end_of_lock(by: &Blocker) -> String {
    let who = blocker(by);
    match by {
        Blocker::Session(session) => format!(
            "{who} keeps it locked: end that transaction (or, as a superuser: select pg_terminate_backend({});).",
            session.pid,
        ),
        Blocker::Prepared(prepared) => {
            format!("{who} keeps it locked: end it ({}).", prepared.end())
        }
    }
}

/// For a sentence: who it is, and what it does.
pub fn blocker(blocker: &Blocker) -> String {
    let name = blocker.name();
    match blocker {
        Blocker::Session(session) => format!("{name} ({})", of_session(session)),
        Blocker::Prepared(Prepared {
            owner,
            database,
            since,
            ..
        }) => format!(
            "{name} (owner {owner}, database {database}, prepared since {})",
            written(*since)
        ),
    }
}

fn of_session(session: &Session) -> String {
    let Session {
        pid: _,
        user,
        application,
        since,
        state,
        statement,
    } = session;
    let known = |name: &Option<String>| {
        let name = name.as_deref().filter(|name| !name.is_empty());
        name.map_or_else(|| "unknown".to_owned(), without_phones)
    };
    let state = state
        .as_ref()
        .map_or_else(String::new, |state| format!(", {state}"));
    let statement = statement.as_ref().map_or_else(String::new, |words| {
        format!(", its last statement: {words}")
    });
    format!(
        "user {}, application {}, in its transaction since {}{state}{statement}",
        known(user),
        known(application),
        since.map_or_else(|| "an unknown time".to_owned(), written),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::remedy::ANY_LOCK;

    #[test]
    fn an_action_has_one_mark_at_the_end_of_a_sentence() {
        let session = end_of_lock(&Blocker::Session(Session {
            pid: 1,
            user: None,
            application: None,
            since: None,
            state: None,
            statement: None,
        }));
        assert!(session.ends_with("pg_terminate_backend(1);)."), "{session}");
        let prepared = end_of_lock(&Blocker::Prepared(Prepared {
            gid: "p1".into(),
            owner: "aida".into(),
            database: "shop".into(),
            since: time::OffsetDateTime::UNIX_EPOCH,
        }));
        assert!(prepared.ends_with("commit prepared 'p1';)."), "{prepared}");
        for text in [session, prepared, ANY_LOCK.to_owned()] {
            assert!(!text.contains(";."), "{text}");
        }
    }
}
