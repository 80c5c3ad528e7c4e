//! `apipayd migrate`

use super::failure::Failure;
use super::session::Session;
use super::{advice, print};
use crate::config::Sources;
use crate::db::migrate::{Migrated, SchemaVersion};
use crate::db::{accounts, health, migrate};

/// Brings the schema up to date and says what it did.
pub(super) async fn migrate(sources: &Sources) -> Result<(), Failure> {
    let session = Session::open(sources).await??;
    let pool = session
        .past_pooler()
        .await
        .map_err(|error| Failure::of(&error))?;
    let before = migrate::version(&pool)
        .await
        .map_err(|error| Failure::of(&error))?;
    let mut done = match before {
        SchemaVersion::Missing => "created the schema apipay",
        SchemaVersion::Older => "brought the schema apipay up to date",
        // Not even an empty run: it would need the rights of the schema's owner.
        SchemaVersion::Current => "the schema apipay is up to date already",
        SchemaVersion::Newer | SchemaVersion::Changed(_) => {
            let advice = advice::schema(before, sources.file.as_deref());
            return Err(Failure::of_configuration(advice.unwrap_or_default()));
        }
    };
    if before != SchemaVersion::Current {
        let migrated = migrate::migrate(pool.connections())
            .await
            .map_err(|error| Failure::of(&error))?;
        if migrated == Migrated::Recorded {
            done =
                "the schema apipay was made with psql, and is what this program makes: recorded it";
        }
    }
    print::sentence(done);
    // So that programs can enqueue before the daemon first runs.
    for account in &session.settings.accounts {
        accounts::ensure(&pool, &account.name, account.requests_per_minute)
            .await
            .map_err(|error| Failure::of(&error))?;
    }
    let missing = health::missing_roles(&pool)
        .await
        .map_err(|error| Failure::of(&error))?;
    if !missing.is_empty() {
        print::sentence(format_args!(
            "roles are missing; a superuser runs once, in this database: {}",
            advice::roles_sql(&missing)
        ));
    }
    pool.connections().close().await;
    Ok(())
}
