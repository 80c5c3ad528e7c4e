//! Work that the system may never come to an end with, such as to look a name up or to read a file, on threads of its own.
//!
//! A thread that hangs cannot be ended. If it were one of the runtime's, of which there is a limited number, everybody
//! would miss it. So whoever has such work has threads for it, of which so many may hang and no more; the end of the
//! process waits for none of them.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

/// Threads for one kind of work.
#[derive(Debug)]
pub struct Threads {
    name: &'static str,
    most: usize,
    free: Arc<Semaphore>,
}

/// Why work was not begun.
#[derive(Debug, thiserror::Error)]
pub enum NotBegun {
    /// As many threads as there may be are at work already, and have not come to an end.
    #[error("{0} that were begun earlier hang; only a restart of apipayd ends them")]
    AllHang(usize),
    /// The operating system refused a thread.
    #[error("no thread can be started")]
    NoThread(#[source] io::Error),
}

/// The thread panicked.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("it panicked")]
pub struct Panicked;

impl Threads {
    /// At most so many at a time, with this name of at most 15 bytes.
    pub fn new(name: &'static str, most: usize) -> Threads {
        Threads {
            name,
            most,
            free: Arc::new(Semaphore::new(most)),
        }
    }

    /// Begins the work. It goes on whether anybody waits for it or not.
    pub fn begin<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Begun<T>, NotBegun> {
        let free = self.free.clone().try_acquire_owned();
        let place = free.map_err(|_| NotBegun::AllHang(self.most))?;
        let (done, begun) = oneshot::channel();
        thread::Builder::new()
            .name(self.name.to_owned())
            .spawn(move || {
                let outcome = work();
                drop(place);
                // Whoever wanted it may have given up.
                done.send(outcome).ok();
            })
            .map_err(NotBegun::NoThread)?;
        Ok(Begun(begun))
    }
}

/// Work that was begun.
pub struct Begun<T>(oneshot::Receiver<T>);

impl<T> Begun<T> {
    /// What it brought. `None` when the time is over first: it may be waited for again.
    pub async fn within(&mut self, limit: Duration) -> Option<Result<T, Panicked>> {
        let done = tokio::time::timeout(limit, &mut self.0).await.ok()?;
        Some(done.map_err(|_| Panicked))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);
    const PATIENCE: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn what_hangs_takes_no_more_threads_than_there_may_be_and_gives_them_back() {
        let threads = Threads::new("test", 2);
        let hanging = || {
            let (release, released) = mpsc::channel::<u8>();
            let begun = threads.begin(move || released.recv().unwrap());
            (release, begun)
        };
        let ((release, begun), (kept, other)) = (hanging(), hanging());
        let (mut begun, mut other) = (begun.unwrap(), other.unwrap());
        assert!(begun.within(PATIENCE).await.is_none());
        let refused = hanging().1.err().unwrap();
        assert!(matches!(refused, NotBegun::AllHang(2)), "{refused}");
        release.send(7).unwrap();
        assert_eq!(begun.within(SOON).await.unwrap().unwrap(), 7);
        let mut next = threads.begin(|| 8).unwrap();
        assert_eq!(next.within(SOON).await.unwrap().unwrap(), 8);
        // It panics, and its thread is free again all the same.
        drop(kept);
        assert!(other.within(SOON).await.unwrap().is_err());
        let (first, second) = (threads.begin(|| 1), threads.begin(|| 2));
        assert!(first.is_ok() && second.is_ok());
    }
}
