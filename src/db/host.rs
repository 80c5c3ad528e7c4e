//! The name of the database's host, looked up before the driver does.
//!
//! The driver looks it up on a thread of the runtime's, of which there is a limited number, and each of its tries would
//! leave one there as long as nameservers do not answer. So a connection is tried only when the name is found.

use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::Error;
use sqlx::postgres::PgConnectOptions;
use tokio::time::timeout;

use crate::names::{NameError, Names};

/// Where a database is; a clone shares the look-ups.
#[derive(Clone, Debug)]
pub(super) struct Host {
    /// There is none where an address or a socket is given.
    name: Option<String>,
    names: Arc<Names>,
}

impl Host {
    pub(super) fn of(options: &PgConnectOptions, names: Arc<Names>) -> Host {
        let host = options.get_host();
        let is_name = options.get_socket().is_none()
            && !host.starts_with('/')
            && host.trim_matches(['[', ']']).parse::<IpAddr>().is_err();
        Host {
            name: is_name.then(|| host.to_owned()),
            names,
        }
    }

    /// Waits until the system has answered about the name, be it that nobody has it: of that the driver tells. An error
    /// says that it has not answered within this time.
    pub(super) async fn expect_found(&self, within: Duration) -> Result<(), Error> {
        let Some(name) = &self.name else {
            return Ok(());
        };
        match timeout(within, self.names.find(name)).await {
            Ok(Ok(_) | Err(NameError::Failed(_) | NameError::Forbidden)) => Ok(()),
            Ok(Err(error @ NameError::NotBegun(_))) => Err(Error::Io(io::Error::other(error))),
            Err(_) => Err(Error::Io(io::Error::new(
                ErrorKind::TimedOut,
                format!("nameservers do not answer about the name of the database's host, {name}"),
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_is_looked_up() {
        let name = |url: &str| Host::of(&url.parse().unwrap(), Arc::default()).name;
        assert_eq!(
            name("postgres://u@db.example/shop").as_deref(),
            Some("db.example")
        );
        for url in [
            "postgres://u@192.0.2.1/shop",
            "postgres://u@[2001:db8::1]/shop",
            "postgres://u@%2Frun%2Fpostgresql/shop",
        ] {
            assert_eq!(name(url), None, "{url}");
        }
    }
}
