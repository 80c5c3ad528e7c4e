//! Names of hosts to addresses, for everybody who connects to one: the gateway's clients, the webhook, the database.
//!
//! The system's resolver cannot be told to stop: when nameservers do not answer, a look-up goes on for long after whoever
//! wanted it has given up, and some never end (a nameserver that takes a connection and says nothing more, a module of the
//! name service that hangs). So look-ups have threads of their own. All who want a name wait for the same look-up, but not
//! for one that is overdue: a new one is begun beside it, so that a nameserver that is well again is heard although an
//! earlier look-up never ends. The longer they hang, the less often one is begun: each of them may cost a thread for ever.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::watch;

use crate::beside::{NotBegun, Threads};
use crate::domain::http::is_public;

/// Why a name did not become an address.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// The system's resolver failed.
    #[error("the name could not be resolved")]
    Failed(#[source] Arc<io::Error>),
    /// So many look-ups hang that no more is begun, or the operating system refused it.
    #[error("the name cannot be looked up")]
    NotBegun(#[source] NotBegun),
    /// It has only addresses of private networks.
    #[error("the name has no public address")]
    Forbidden,
}

/// The system's resolver for a client of HTTP, with the addresses refused that it may not use.
///
/// The check is made where the address is used, so that a name cannot be checked with one address and connected to with
/// another.
pub struct Resolver {
    /// Also accept addresses of private networks.
    allow_private: bool,
    names: Arc<Names>,
}

impl Resolver {
    /// For one client, which has look-ups of its own.
    pub fn new(allow_private: bool) -> Resolver {
        Resolver {
            allow_private,
            names: Arc::default(),
        }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        let names = self.names.clone();
        Box::pin(async move {
            let found = names.find(name.as_str()).await?.into_iter();
            let usable: Vec<SocketAddr> = found
                .filter(|address| allow_private || is_public(address.ip()))
                .collect();
            if usable.is_empty() {
                return Err(NameError::Forbidden.into());
            }
            Ok(Box::new(usable.into_iter()) as Addrs)
        })
    }
}

/// How many look-ups may hang at a time. As they become rarer the longer they hang, that many hang only after months, or
/// where others come to an end in between.
const MOST: usize = 128;

/// How long a look-up is waited for by whoever comes later. A resolver that goes from one nameserver to the next may take as
/// long.
const DUE: Duration = Duration::from_secs(5);

/// Of the time that look-ups of a name have hung, the part that the newest must have lasted before one is begun beside it.
const PART: u32 = 8;

/// The look-ups of one who connects: of each name the last one.
#[derive(Debug)]
pub struct Names {
    threads: Threads,
    last: Mutex<BTreeMap<String, LookUp>>,
}

impl Default for Names {
    fn default() -> Names {
        Names {
            threads: Threads::new("look-up", MOST),
            last: Mutex::default(),
        }
    }
}

/// What a look-up has brought.
type Found = Result<Vec<SocketAddr>, Arc<io::Error>>;

/// A look-up that was begun.
#[derive(Clone, Debug)]
struct LookUp {
    begun_at: Instant,
    /// When the first of those was begun that hang: of this one, and of those before it in whose place it was begun.
    hanging_since: Instant,
    /// Shows nothing while it is under way. A look-up that panicked has closed it.
    found: watch::Receiver<Option<Found>>,
}

impl LookUp {
    fn is_under_way(&self) -> bool {
        self.found.borrow().is_none() && self.found.has_changed().is_ok()
    }

    /// Whether whoever comes now does not wait for it.
    fn is_overdue(&self, now: Instant) -> bool {
        now - self.begun_at >= DUE.max((now - self.hanging_since) / PART)
    }
}

impl Names {
    /// What the system's resolver knows of this name: what the look-up brings that is under way, or a new one. It may take for
    /// ever; whoever waits sets a limit.
    pub async fn find(&self, name: &str) -> Result<Vec<SocketAddr>, NameError> {
        self.find_with(name, look_up, Instant::now()).await
    }

    async fn find_with(
        &self,
        name: &str,
        look_up: impl FnOnce(&str) -> io::Result<Vec<SocketAddr>> + Send + 'static,
        now: Instant,
    ) -> Result<Vec<SocketAddr>, NameError> {
        let mut found = self.join(name, look_up, now).map_err(NameError::NotBegun)?;
        match found.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(found)) => found.clone().map_err(NameError::Failed),
            _ => {
                let early = io::Error::other("the look-up ended early");
                Err(NameError::Failed(Arc::new(early)))
            }
        }
    }

    fn join(
        &self,
        name: &str,
        look_up: impl FnOnce(&str) -> io::Result<Vec<SocketAddr>> + Send + 'static,
        now: Instant,
    ) -> Result<watch::Receiver<Option<Found>>, NotBegun> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let under_way = last.get(name).filter(|last| last.is_under_way());
        if let Some(under_way) = under_way.filter(|last| !last.is_overdue(now)) {
            return Ok(under_way.found.clone());
        }
        let hanging_since = under_way.map_or(now, |hangs| hangs.hanging_since);
        let (shows, found) = watch::channel(None);
        let asked = name.to_owned();
        self.threads.begin(move || {
            shows.send_replace(Some(look_up(&asked).map_err(Arc::new)));
        })?;
        let begun = LookUp {
            begun_at: now,
            hanging_since,
            found: found.clone(),
        };
        last.insert(name.to_owned(), begun);
        Ok(found)
    }
}

/// Asks the system, for as long as that takes.
fn look_up(name: &str) -> io::Result<Vec<SocketAddr>> {
    Ok((name, 0).to_socket_addrs()?.collect())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use tokio::time::timeout;

    use super::*;

    fn address() -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], 0))
    }

    /// So long a request waits for its name.
    const PATIENCE: Duration = Duration::from_millis(50);

    /// Look-ups that hang until they are told to end.
    struct Hanging {
        begun: Arc<AtomicUsize>,
        release: mpsc::Sender<()>,
        released: Arc<Mutex<mpsc::Receiver<()>>>,
    }

    impl Hanging {
        fn new() -> Hanging {
            let (release, released) = mpsc::channel();
            Hanging {
                begun: Arc::default(),
                release,
                released: Arc::new(Mutex::new(released)),
            }
        }

        fn one(&self) -> impl FnOnce(&str) -> io::Result<Vec<SocketAddr>> + Send + 'static {
            let (begun, released) = (self.begun.clone(), self.released.clone());
            move |_: &str| {
                begun.fetch_add(1, Ordering::SeqCst);
                released.lock().unwrap().recv().ok();
                Ok(vec![address()])
            }
        }

        fn begun(&self) -> usize {
            self.begun.load(Ordering::SeqCst)
        }
    }

    #[tokio::test]
    async fn of_one_name_one_look_up_is_under_way_however_many_wait_and_give_up() {
        let (names, hanging, now) = (Names::default(), Hanging::new(), Instant::now());
        for _ in 0..3 {
            let found = names.find_with("shop.example", hanging.one(), now);
            let found = timeout(PATIENCE, found).await;
            assert!(found.is_err(), "{found:?}");
        }
        assert_eq!(hanging.begun(), 1);
        // Another name does not wait for it.
        let other = names.find_with("other.example", |_| Ok(vec![address()]), now);
        assert_eq!(other.await.unwrap(), [address()]);
        // Whoever waits when it ends has what it brought.
        let (first, second, ()) = tokio::join!(
            names.find_with("shop.example", hanging.one(), now),
            names.find_with("shop.example", hanging.one(), now),
            async { hanging.release.send(()).unwrap() },
        );
        assert_eq!(
            (first.unwrap(), second.unwrap()),
            (vec![address()], vec![address()])
        );
        assert_eq!(hanging.begun(), 1);
    }

    #[tokio::test]
    async fn what_a_look_up_brought_is_not_kept_for_the_next_request() {
        let (names, now) = (Names::default(), Instant::now());
        let failed = |error: NameError| match error {
            NameError::Failed(cause) => cause.to_string(),
            other => panic!("{other:?}"),
        };
        let fails = |_: &str| Err(io::Error::other("no such name"));
        let error = names.find_with("shop.example", fails, now).await;
        assert_eq!(failed(error.unwrap_err()), "no such name");
        let shows = |_: &str| -> io::Result<Vec<SocketAddr>> { panic!("it broke") };
        let error = names.find_with("shop.example", shows, now).await;
        assert_eq!(failed(error.unwrap_err()), "the look-up ended early");
        let found = names.find_with("shop.example", |_| Ok(vec![address()]), now);
        assert_eq!(found.await.unwrap(), [address()]);
    }

    #[tokio::test]
    async fn beside_a_look_up_that_is_overdue_a_new_one_is_begun_which_all_wait_for() {
        let (names, hanging, begun_at) = (Names::default(), Hanging::new(), Instant::now());
        let hangs = names.find_with("shop.example", hanging.one(), begun_at);
        assert!(timeout(PATIENCE, hangs).await.is_err());
        // It is waited for until it is overdue.
        let just_before = begun_at + DUE - Duration::from_millis(1);
        let well = || |_: &str| Ok(vec![address()]);
        let joins = names.find_with("shop.example", well(), just_before);
        assert!(timeout(PATIENCE, joins).await.is_err());
        let second = names.find_with("shop.example", well(), begun_at + DUE);
        assert_eq!(second.await.unwrap(), [address()]);
        assert_eq!(hanging.begun(), 1);
    }

    /// How many look-ups are begun in so many seconds, when somebody wants the name after each so many.
    fn begun_in(seconds: u64, every: usize) -> usize {
        let (names, hanging, start) = (Names::default(), Hanging::new(), Instant::now());
        let mut begun = 0;
        let mut last = None;
        for second in (0..seconds).step_by(every) {
            let now = start + Duration::from_secs(second);
            let found = names.join("shop.example", hanging.one(), now).unwrap();
            if !last.as_ref().is_some_and(|last| found.same_channel(last)) {
                begun += 1;
            }
            last = Some(found);
        }
        begun
    }

    #[tokio::test]
    async fn the_longer_look_ups_hang_the_fewer_are_begun_and_those_of_two_months_are_few_enough() {
        let hour = 3_600;
        for (seconds, expected) in [(6, 2), (60, 11), (hour, 42), (24 * hour, 65)] {
            assert_eq!(begun_in(seconds, 1), expected, "in {seconds} s");
        }
        let begun = begun_in(60 * 24 * hour, 60);
        assert!(begun < MOST, "{begun}");
    }

    #[tokio::test]
    async fn when_no_more_may_hang_that_is_said_and_one_that_ends_makes_room() {
        let (names, hanging) = (Names::default(), Hanging::new());
        let start = Instant::now();
        for number in 0..MOST {
            let name = format!("{number}.example");
            names.join(&name, hanging.one(), start).unwrap();
        }
        let well = || |_: &str| Ok(vec![address()]);
        let refused = names.find_with("shop.example", well(), start).await;
        assert!(
            matches!(refused, Err(NameError::NotBegun(NotBegun::AllHang(MOST)))),
            "{refused:?}"
        );
        hanging.release.send(()).unwrap();
        let room = async {
            while names
                .find_with("shop.example", well(), start)
                .await
                .is_err()
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(20), room).await.unwrap();
    }
}
