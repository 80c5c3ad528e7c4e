//! Whether the database's user may do what is needed, and the roles exist that others get their rights from.

use super::result::CheckResult;
use crate::cli::advice;

/// What the user may not do, of what the daemon does.
pub(super) fn privileges(user: &str, missing: &[String]) -> CheckResult {
    if missing.is_empty() {
        return CheckResult::ok(
            "privileges",
            format_args!("user {user} may do what is needed"),
        );
    }
    CheckResult::failed(
        "privileges",
        format_args!(
            "user {user} lacks {}; run as the schema's owner: grant apipay_worker to \"{}\"; select apipay._grant_roles();",
            missing.join(", "),
            user.replace('"', "\"\""),
        ),
    )
}

/// The roles of the schema that do not exist.
pub(super) fn roles(missing: &[String]) -> CheckResult {
    if missing.is_empty() {
        return CheckResult::ok("roles", "all roles of the schema exist");
    }
    CheckResult::warning(
        "roles",
        format_args!(
            "{} missing; a superuser runs once, in this database: {}",
            missing.join(", "),
            advice::roles_sql(missing)
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::result::State;
    use crate::cli::print::Row;

    #[track_caller]
    fn check(result: &CheckResult, line: &str, exit: u8) {
        assert_eq!(result.line(false), line);
        assert_eq!(result.exit, exit);
    }

    #[test]
    fn missing_rights_and_roles_come_with_their_sql() {
        assert_eq!(privileges("shop", &[]).state, State::Ok);
        check(
            &privileges("my\"shop", &["update on apipay.jobs".into()]),
            "failed   privileges    user my\"shop lacks update on apipay.jobs; run as the schema's owner: \
             grant apipay_worker to \"my\"\"shop\"; select apipay._grant_roles();",
            1,
        );
        assert_eq!(roles(&[]).state, State::Ok);
        check(
            &roles(&["apipay_worker".into()]),
            "warning  roles         apipay_worker missing; a superuser runs once, in this database: create \
             role apipay_worker nologin; select apipay._grant_roles();",
            0,
        );
    }
}
