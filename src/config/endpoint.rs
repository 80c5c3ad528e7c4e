//! URLs: which the gateway may have, and which the database.

use std::net::IpAddr;

use reqwest::Url;
use sqlx::postgres::PgConnectOptions;

use crate::domain::http::is_public;

/// Checks where the gateway is said to be. The error is the end of a sentence about the key.
///
/// Returned without a trailing slash. What a name resolves to is not known here.
pub(super) fn gateway(written: &str, allow_insecure: bool) -> Result<Url, String> {
    let mut url = Url::parse(written)
        .map_err(|_| "is not a URL such as https://api.example.kz/api/v1".to_owned())?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err("must begin with https://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must hold no user name and no password".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must end with its path: no ? and no #".to_owned());
    }
    if !allow_insecure && url.scheme() == "http" {
        return Err(
            "must begin with https://; plain http is for the sandbox, with allow_insecure = true"
                .to_owned(),
        );
    }
    if !allow_insecure && is_private(&url) {
        return Err(
            "is a private or local address; that is for the sandbox, with allow_insecure = true"
                .to_owned(),
        );
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

fn is_private(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(address) => !is_public(address),
        Err(_) => {
            let name = host.trim_end_matches('.');
            name == "localhost" || name.ends_with(".localhost") || name.ends_with(".local")
        }
    }
}

/// The URL of a database, as far as this program understands it.
#[derive(Clone)]
pub(super) struct DatabaseUrl(Url);

/// Parameters that the driver knows; it would ignore others.
const PARAMETERS: [&str; 17] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "user",
];

impl DatabaseUrl {
    /// The error is the end of a sentence about the key, and quotes nothing of the URL but the name
    /// of a parameter.
    pub(super) fn parse(written: &str) -> Result<DatabaseUrl, String> {
        const ALLOWED: &str = "is not a URL such as postgres://user@host/database";
        let url = Url::parse(written).map_err(|_| ALLOWED.to_owned())?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(ALLOWED.to_owned());
        }
        let unknown = url
            .query_pairs()
            .find(|(name, _)| !PARAMETERS.contains(&&**name) && !name.starts_with("options["));
        match unknown {
            Some((name, _)) => Err(format!(
                "has the parameter {name:?}, which is not understood; allowed are {}",
                PARAMETERS.join(", ")
            )),
            None => Ok(DatabaseUrl(url)),
        }
    }

    /// Whether a password stands in it.
    pub(super) fn has_password(&self) -> bool {
        self.0.password().is_some() || self.0.query_pairs().any(|(name, _)| name == "password")
    }

    /// The other connection of the same user has the same password, unless it says its own.
    pub(super) fn inherit_password(&mut self, from: &DatabaseUrl) {
        if !self.has_password() && self.0.username() == from.0.username() {
            // Refused only for URLs without a host, which need no password.
            let _is_set = self.0.set_password(from.0.password()).is_ok();
        }
    }

    /// What the driver makes of it.
    pub(super) fn options(&self) -> Result<PgConnectOptions, String> {
        self.0
            .as_str()
            .parse()
            .map_err(|_| "has a parameter with a value that is not understood".to_owned())
    }
}
