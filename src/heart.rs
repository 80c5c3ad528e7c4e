//! A loop's sign of life.
//!
//! Whatever a loop waits for is bounded: a request by its time limit, a statement by the limits of the pool.
//! A loop gives a sign of life after each such wait, and one that has given none for longer than any of them
//! may last is stuck, however long its whole step takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

tokio::task_local! {
    /// The heart of the loop that the task is part of.
    static OWN: Arc<Heart>;
}

/// The signs of life of one loop. A machine that was suspended has not been stuck: the time is that of
/// `CLOCK_MONOTONIC`, which stops meanwhile.
pub struct Heart {
    name: &'static str,
    made_at: Instant,
    /// The last sign of life, in milliseconds since `made_at`; 0 while the loop has nothing to do.
    beat_at_ms: AtomicU64,
}

impl Heart {
    /// The heart of a loop that has nothing to do yet.
    pub fn new(name: &'static str) -> Arc<Heart> {
        Arc::new(Heart {
            name,
            made_at: Instant::now(),
            beat_at_ms: AtomicU64::new(0),
        })
    }

    /// The loop's name, for the log.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The loop has begun to do something, or goes on with it.
    pub fn beat(&self) {
        let ms = u64::try_from(self.made_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.beat_at_ms.store(ms.max(1), Ordering::Relaxed);
    }

    /// The loop waits for its next turn, for as long as that takes.
    pub fn rest(&self) {
        self.beat_at_ms.store(0, Ordering::Relaxed);
    }

    /// For how long a loop that has something to do has given no sign of life.
    pub fn silent_for(&self) -> Duration {
        match self.beat_at_ms.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            at => (self.made_at.elapsed()).saturating_sub(Duration::from_millis(at)),
        }
    }

    /// Does this as a part of the loop: what it waits for gives the loop's signs of life.
    pub async fn carry<F: Future>(self: Arc<Heart>, work: F) -> F::Output {
        OWN.scope(self, work).await
    }
}

/// A bounded wait of the loop is over. Outside of loops this does nothing.
pub fn beat() {
    // An error means that there is no loop here.
    let _ = OWN.try_with(|heart| heart.beat());
}

/// The same work, for a task of its own that a loop spawns and waits for: its signs of life are the loop's.
pub fn shared<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let own = OWN.try_with(Arc::clone).ok();
    async move {
        match own {
            Some(heart) => heart.carry(work).await,
            None => work.await,
        }
    }
}

/// Waits for what another task does, which gives signs of life of its own or is bounded itself.
pub async fn beat_until<F: Future>(done: F) -> F::Output {
    let mut done = std::pin::pin!(done);
    loop {
        tokio::select! {
            output = &mut done => return output,
            () = tokio::time::sleep(Duration::from_secs(1)) => beat(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waits_for_another_task_is_alive_and_whoever_rests_is_too() {
        let heart = Heart::new("test");
        assert_eq!(heart.silent_for(), Duration::ZERO, "nothing was begun");
        heart.beat();
        let silence = tokio::time::sleep(Duration::from_millis(1_300));
        heart.clone().carry(silence).await;
        assert!(heart.silent_for() >= Duration::from_millis(1_200));
        let other = async {
            let sleep = async { tokio::time::sleep(Duration::from_millis(1_300)).await };
            beat_until(tokio::spawn(shared(sleep))).await
        };
        heart.clone().carry(other).await.unwrap();
        assert!(heart.silent_for() < Duration::from_millis(900));
        heart.rest();
        assert_eq!(heart.silent_for(), Duration::ZERO);
    }
}
