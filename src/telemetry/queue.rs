//! Lines on their way to whoever reads the log. A thread of its own writes them, so that a reader who takes nothing (a
//! journal that hangs, a full pipe) keeps nobody waiting: what does not fit is lost and counted, and payments go on.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How much waits at most, in bytes: some thousands of lines.
const MOST_BYTES: usize = 1 << 20;

/// Lines that were lost since the start of the process.
static LOST: AtomicU64 = AtomicU64::new(0);

/// How long the end of the process waits for a reader.
const AT_THE_END: Duration = Duration::from_secs(1);

/// Where lines are put, by anybody, without waiting for their reader.
#[derive(Clone)]
pub(super) struct Queue {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    /// Bytes of all queued lines.
    bytes: usize,
    /// Once a line was lost, all are until the queue is empty: then there is one gap, in one place.
    is_full: bool,
    /// Lines lost since the loss was last logged.
    lost: u64,
    /// The thread has a line in hand.
    is_writing: bool,
}

impl State {
    fn lose(&mut self) {
        self.lost += 1;
        LOST.fetch_add(1, Ordering::Relaxed);
    }
}

/// How many lines were lost since the start of the process. Who logs something that must not be lost compares it before
/// and after: if it has grown, that line may be among them.
pub fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

impl Queue {
    /// Starts the thread that writes. `tell_lost` logs how many lines were lost, once lines are taken again.
    pub(super) fn start(
        write: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static,
        tell_lost: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Queue> {
        let shared = Arc::<Shared>::default();
        let for_thread = shared.clone();
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || for_thread.write_all(write, tell_lost))?;
        Ok(Queue { shared })
    }

    /// Has this written after all that was put before, or counts it as lost.
    pub(super) fn put(&self, line: Vec<u8>) {
        let mut state = self.shared.state();
        let has_room = state.lines.is_empty() || state.bytes + line.len() <= MOST_BYTES;
        if state.is_full || !has_room {
            state.is_full = true;
            state.lose();
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(line);
        drop(state);
        self.shared.changed.notify_all();
    }
}

/// What the log's formatter writes to: it hands over one whole line at a time.
impl io::Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes for as long as the process lives.
    fn write_all(&self, mut write: impl FnMut(&[u8]) -> io::Result<()>, tell_lost: impl Fn(u64)) {
        loop {
            let line = self.next();
            let is_taken = write(&line).is_ok();
            let mut state = self.state();
            if !is_taken {
                state.lose();
            } else if state.lines.is_empty() && state.lost > 0 {
                let lost = std::mem::take(&mut state.lost);
                drop(state);
                tell_lost(lost);
            }
        }
    }

    /// Waits for a line.
    fn next(&self) -> Vec<u8> {
        let mut state = self.state();
        state.is_writing = false;
        self.changed.notify_all();
        loop {
            if let Some(line) = state.lines.pop_front() {
                state.bytes -= line.len();
                state.is_full &= !state.lines.is_empty();
                state.is_writing = true;
                return line;
            }
            state = (self.changed.wait(state)).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Dropped at the end of the process: what is in the queue is written, unless nobody reads it.
pub struct Rest(Queue);

impl Rest {
    pub(super) fn of(queue: &Queue) -> Rest {
        Rest(queue.clone())
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        let shared = &self.0.shared;
        let is_left = |state: &mut State| state.is_writing || !state.lines.is_empty();
        let waited = (shared.changed).wait_timeout_while(shared.state(), AT_THE_END, is_left);
        // What is left after this time is lost with the process.
        drop(waited);
    }
}

/// A queue that is full: its reader takes nothing for as long as what is returned beside it lives.
#[cfg(test)]
pub(super) fn full() -> (Queue, std::sync::mpsc::Sender<()>) {
    let (reader, nothing) = std::sync::mpsc::channel::<()>();
    let write = move |_: &[u8]| nothing.recv().map_err(io::Error::other);
    let queue = Queue::start(write, |_| {}).unwrap();
    queue.put(b"in hand".to_vec());
    while !queue.shared.state().lines.is_empty() {
        thread::sleep(Duration::from_millis(1));
    }
    queue.put(vec![b'x'; MOST_BYTES]);
    queue.put(b"too much".to_vec());
    (queue, reader)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A queue whose lines arrive here, each after the reader was told to take one more.
    fn slow() -> (Queue, mpsc::Sender<()>, mpsc::Receiver<String>) {
        let (take, taken) = mpsc::channel::<()>();
        let (written, lines) = mpsc::channel();
        let told = written.clone();
        let write = move |line: &[u8]| {
            taken.recv().map_err(io::Error::other)?;
            written
                .send(String::from_utf8_lossy(line).into_owned())
                .map_err(io::Error::other)
        };
        let tell_lost = move |lost| told.send(format!("{lost} lost")).unwrap();
        (Queue::start(write, tell_lost).unwrap(), take, lines)
    }

    #[test]
    fn what_does_not_fit_is_lost_and_told_in_its_place() {
        let (queue, take, lines) = slow();
        let long = "x".repeat(MOST_BYTES / 4);
        let began = Instant::now();
        for n in 0..100 {
            queue.put(format!("{n} {long}").into_bytes());
        }
        assert!(began.elapsed() < PATIENCE, "nobody waits for a reader");
        for _ in 0..100 {
            take.send(()).unwrap();
        }
        let mut arrived = Vec::new();
        while arrived.len() < 100 {
            let line = lines.recv_timeout(PATIENCE).unwrap();
            if let Some(lost) = line.strip_suffix(" lost") {
                let lost: usize = lost.parse().unwrap();
                assert_eq!(arrived.len() + lost, 100);
                break;
            }
            let (n, _) = line.split_once(' ').unwrap();
            arrived.push(n.parse::<usize>().unwrap());
        }
        // One may be in the writer's hand.
        assert!((3..=4).contains(&arrived.len()), "{arrived:?}");
        assert!(arrived.iter().copied().eq(0..arrived.len()), "{arrived:?}");
        queue.put(b"later".to_vec());
        assert_eq!(lines.recv_timeout(PATIENCE).unwrap(), "later");
    }

    #[test]
    fn a_line_longer_than_all_that_may_wait_is_written() {
        let (queue, take, lines) = slow();
        let long = "x".repeat(2 * MOST_BYTES);
        queue.put(long.clone().into_bytes());
        take.send(()).unwrap();
        assert!(lines.recv_timeout(PATIENCE).unwrap() == long);
    }

    #[test]
    fn what_was_refused_is_counted_and_told_when_the_next_line_is_taken() {
        let (written, lines) = mpsc::channel();
        let write = {
            let written = written.clone();
            move |line: &[u8]| match line {
                b"refused" => Err(io::ErrorKind::ConnectionRefused.into()),
                _ => written.send(line.to_vec()).map_err(io::Error::other),
            }
        };
        let tell_lost = move |lost| written.send(format!("{lost} lost").into_bytes()).unwrap();
        let queue = Queue::start(write, tell_lost).unwrap();
        for line in ["refused", "refused", "taken"] {
            queue.put(line.into());
        }
        assert_eq!(lines.recv_timeout(PATIENCE).unwrap(), b"taken");
        assert_eq!(lines.recv_timeout(PATIENCE).unwrap(), b"2 lost");
    }

    #[test]
    fn the_end_waits_for_what_is_queued_and_not_for_a_reader_that_takes_nothing() {
        let (queue, take, lines) = slow();
        queue.put(b"one".to_vec());
        queue.put(b"two".to_vec());
        let began = Instant::now();
        drop(Rest::of(&queue));
        assert!((AT_THE_END..PATIENCE).contains(&began.elapsed()));
        take.send(()).unwrap();
        take.send(()).unwrap();
        drop(Rest::of(&queue));
        assert_eq!(lines.try_iter().collect::<Vec<_>>(), ["one", "two"]);
    }

    #[test]
    fn the_end_waits_for_the_line_in_hand_too() {
        let (written, lines) = mpsc::channel();
        let write = move |line: &[u8]| {
            thread::sleep(AT_THE_END / 3);
            written.send(line.to_vec()).map_err(io::Error::other)
        };
        let queue = Queue::start(write, |_| {}).unwrap();
        queue.put(b"one".to_vec());
        let patience = Instant::now() + PATIENCE;
        while !queue.shared.state().is_writing {
            assert!(Instant::now() < patience);
            thread::yield_now();
        }
        drop(Rest::of(&queue));
        assert_eq!(lines.try_recv().unwrap(), b"one");
    }
}
