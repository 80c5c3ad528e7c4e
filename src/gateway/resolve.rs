//! Names to addresses, with the addresses refused that an account may not use.
//!
//! The check is made where the address is used, so that a name cannot be checked with one address
//! and connected to with another.

use std::net::SocketAddr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::domain::http::is_public;

/// Why a name did not become an address.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResolveError {
    /// The system's resolver failed.
    #[error("the name could not be resolved")]
    Failed(#[source] std::io::Error),
    /// It has only addresses of private networks.
    #[error("the name has no public address")]
    Forbidden,
}

/// The system's resolver, with a filter.
pub(super) struct Resolver {
    /// Also accept addresses of private networks.
    pub(super) allow_private: bool,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0))
                .await
                .map_err(ResolveError::Failed)?
                .collect();
            let usable: Vec<SocketAddr> = found
                .into_iter()
                .filter(|address| allow_private || is_public(address.ip()))
                .collect();
            if usable.is_empty() {
                return Err(ResolveError::Forbidden.into());
            }
            Ok(Box::new(usable.into_iter()) as Addrs)
        })
    }
}
