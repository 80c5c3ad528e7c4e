//! What a person does to the database so that a command can go on.

use std::path::Path;

use crate::db::migrate::SchemaVersion;

/// What to do about a schema that does not fit; none when it does.
pub(super) fn schema(version: SchemaVersion, config: Option<&Path>) -> Option<String> {
    let command = match config {
        Some(file) => format!("apipayd --config {} migrate", file.display()),
        None => "apipayd migrate".to_owned(),
    };
    match version {
        SchemaVersion::Current => None,
        SchemaVersion::Missing => Some(format!(
            "the database has no schema apipay; as a user who may create one, run: {command}"
        )),
        SchemaVersion::Older => Some(format!(
            "the schema apipay is older than this program; as its owner, run: {command}"
        )),
        SchemaVersion::Newer => Some(format!(
            "the schema apipay is newer than this program, apipayd {}; install the version that made it, \
             or a newer one",
            env!("CARGO_PKG_VERSION")
        )),
        SchemaVersion::Changed(migration) => Some(format!(
            "migration {migration} ran in this database with another text than this program has, apipayd {}: the schema \
             apipay is another build's, or the file was changed; install the program that made it",
            env!("CARGO_PKG_VERSION")
        )),
    }
}

/// What a superuser runs once, when our user may not create the roles.
pub(super) fn roles_sql(missing: &[String]) -> String {
    let mut sql: String = missing
        .iter()
        .map(|role| format!("create role {role} nologin; "))
        .collect();
    sql += "select apipay._grant_roles();";
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_about_the_schema_names_the_whole_command() {
        let file = Some(Path::new("/srv/a.toml"));
        let advice = |version, file| schema(version, file).unwrap();
        assert_eq!(
            advice(SchemaVersion::Missing, file),
            "the database has no schema apipay; as a user who may create one, run: apipayd --config /srv/a.toml migrate"
        );
        assert_eq!(
            advice(SchemaVersion::Older, None),
            "the schema apipay is older than this program; as its owner, run: apipayd migrate"
        );
        assert!(
            advice(SchemaVersion::Newer, None)
                .starts_with("the schema apipay is newer than this program, apipayd ")
        );
        assert_eq!(schema(SchemaVersion::Current, None), None);
    }

    #[test]
    fn the_sql_for_a_superuser_creates_the_roles_and_grants_to_them() {
        assert_eq!(
            roles_sql(&["apipay_auditor".into(), "apipay_worker".into()]),
            "create role apipay_auditor nologin; create role apipay_worker nologin; \
             select apipay._grant_roles();"
        );
    }
}
