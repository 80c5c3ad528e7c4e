//! Names to addresses, with the addresses refused that an account may not use.
//!
//! The check is made where the address is used, so that a name cannot be checked with one address
//! and connected to with another.
//!
//! The system's resolver cannot be told to stop: when nameservers do not answer, a look-up goes on for long after the
//! request that wanted it has timed out. So it has a thread of its own, not one of the runtime's, which are limited and
//! are needed by others; and of one name of an account one look-up is under way at a time, which all requests share.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::watch;

use crate::domain::http::is_public;

/// Why a name did not become an address.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResolveError {
    /// The system's resolver failed.
    #[error("the name could not be resolved")]
    Failed(#[source] Arc<io::Error>),
    /// It has only addresses of private networks.
    #[error("the name has no public address")]
    Forbidden,
}

/// The system's resolver, with a filter.
pub(super) struct Resolver {
    /// Also accept addresses of private networks.
    allow_private: bool,
    look_ups: Arc<LookUps>,
}

impl Resolver {
    pub(super) fn new(allow_private: bool) -> Resolver {
        Resolver {
            allow_private,
            look_ups: Arc::default(),
        }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        let look_ups = self.look_ups.clone();
        Box::pin(async move {
            let found = look_ups.find(name.as_str(), look_up).await;
            let usable: Vec<SocketAddr> = found
                .map_err(ResolveError::Failed)?
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

/// Asks the system, for as long as that takes.
fn look_up(name: &str) -> io::Result<Vec<SocketAddr>> {
    Ok((name, 0).to_socket_addrs()?.collect())
}

/// What a look-up has brought.
type Found = Result<Vec<SocketAddr>, Arc<io::Error>>;

/// The look-ups of an account, by name: the last one of each, which shows nothing while it is under way.
#[derive(Default)]
struct LookUps(Mutex<BTreeMap<String, watch::Receiver<Option<Found>>>>);

impl LookUps {
    /// What the look-up of this name brings that is under way; it is begun if none is.
    async fn find(
        &self,
        name: &str,
        look_up: impl FnOnce(&str) -> io::Result<Vec<SocketAddr>> + Send + 'static,
    ) -> Found {
        let mut found = self.join(name, look_up)?;
        match found.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(found)) => found.clone(),
            _ => Err(Arc::new(io::Error::other("the look-up ended early"))),
        }
    }

    fn join(
        &self,
        name: &str,
        look_up: impl FnOnce(&str) -> io::Result<Vec<SocketAddr>> + Send + 'static,
    ) -> Result<watch::Receiver<Option<Found>>, Arc<io::Error>> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One that ended early has closed its channel, and brings nothing.
        let is_under_way = |last: &&watch::Receiver<Option<Found>>| {
            last.borrow().is_none() && last.has_changed().is_ok()
        };
        if let Some(under_way) = last.get(name).filter(is_under_way) {
            return Ok(under_way.clone());
        }
        let (shows, found) = watch::channel(None);
        let asked = name.to_owned();
        thread::Builder::new()
            .name("resolve".to_owned())
            .spawn(move || shows.send_replace(Some(look_up(&asked).map_err(Arc::new))))?;
        last.insert(name.to_owned(), found.clone());
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn address() -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], 0))
    }

    /// So long a request waits for its name.
    const PATIENCE: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn of_one_name_one_look_up_is_under_way_however_many_wait_and_give_up() {
        let look_ups = LookUps::default();
        let begun = Arc::new(AtomicUsize::new(0));
        let (release, released) = mpsc::channel::<()>();
        let released = Arc::new(Mutex::new(released));
        let hangs = || {
            let (begun, released) = (begun.clone(), released.clone());
            move |_: &str| {
                begun.fetch_add(1, Ordering::SeqCst);
                released.lock().unwrap().recv().ok();
                Ok(vec![address()])
            }
        };
        for _ in 0..3 {
            let found = timeout(PATIENCE, look_ups.find("shop.example", hangs())).await;
            assert!(found.is_err(), "{found:?}");
        }
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        // Another name does not wait for it.
        let other = look_ups.find("other.example", |_| Ok(vec![address()]));
        assert_eq!(other.await.unwrap(), [address()]);
        // Whoever waits when it ends has what it brought.
        let (first, second, ()) = tokio::join!(
            look_ups.find("shop.example", hangs()),
            look_ups.find("shop.example", hangs()),
            async { release.send(()).unwrap() },
        );
        assert_eq!(
            (first.unwrap(), second.unwrap()),
            (vec![address()], vec![address()])
        );
        assert_eq!(begun.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn what_a_look_up_brought_is_not_kept_for_the_next_request() {
        let look_ups = LookUps::default();
        let fails = |_: &str| Err(io::Error::other("no such name"));
        let error = look_ups.find("shop.example", fails).await.unwrap_err();
        assert_eq!(error.to_string(), "no such name");
        let shows = |_: &str| -> io::Result<Vec<SocketAddr>> { panic!("it broke") };
        let error = look_ups.find("shop.example", shows).await.unwrap_err();
        assert_eq!(error.to_string(), "the look-up ended early");
        let found = look_ups.find("shop.example", |_| Ok(vec![address()])).await;
        assert_eq!(found.unwrap(), [address()]);
    }
}
