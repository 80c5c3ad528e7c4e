//! systemd's journal, in its own protocol: a message that says everything by itself, and the same as fields.
//!
//! `journalctl -u apipayd` shows messages alone; the layer of tracing-journald puts an event's fields beside its
//! message and not into it, so that what a job, an account or a cause was could not be read there.
//! Protocol: <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>.

use std::fmt::{self, Write};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::layer::Context;

use super::queue::Queue;

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// A value is cut here, so that an entry of some twenty of them fits into a datagram.
const VALUE_BYTES: usize = 4_096;

/// The journal's socket. Fails where no journal listens.
pub(super) fn connect() -> io::Result<UnixDatagram> {
    connect_to(Path::new(SOCKET))
}

fn connect_to(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(socket)
}

/// Makes an entry of each event.
pub(super) struct Journal {
    queue: Queue,
}

impl Journal {
    /// The queue leads to the journal's socket.
    pub(super) fn new(queue: Queue) -> Journal {
        Journal { queue }
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.queue.put(entry(event));
    }
}

/// The event as the journal takes it.
fn entry(event: &Event<'_>) -> Vec<u8> {
    let mut message = String::new();
    // Writing to a String cannot fail.
    let _ = DefaultFields::new().format_fields(Writer::new(&mut message), event);
    let metadata = event.metadata();
    let mut entry = Entry(Vec::new());
    entry.put("MESSAGE", &message);
    entry.put("PRIORITY", &priority(*metadata.level()).to_string());
    entry.put("SYSLOG_IDENTIFIER", "apipayd");
    entry.put("TARGET", metadata.target());
    event.record(&mut entry);
    entry.0
}

struct Entry(Vec<u8>);

impl Entry {
    /// The length before the value, little-endian: a value may have lines.
    fn put(&mut self, name: &str, value: &str) {
        let value = &value[..value.floor_char_boundary(VALUE_BYTES)];
        self.0.extend(name.as_bytes());
        self.0.push(b'\n');
        self.0.extend((value.len() as u64).to_le_bytes());
        self.0.extend(value.as_bytes());
        self.0.push(b'\n');
    }
}

impl Visit for Entry {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            return;
        }
        let mut text = String::new();
        let _ = write!(text, "{value:?}");
        self.put(&name(field.name()), &text);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

/// Names of the journal are capital letters, digits and underscores, and begin with a letter.
fn name(field: &str) -> String {
    let letters = field.chars().map(|letter| match letter {
        'a'..='z' | 'A'..='Z' | '0'..='9' => letter.to_ascii_uppercase(),
        _ => '_',
    });
    "F_".chars().chain(letters).collect()
}

/// As syslog(3) counts.
pub(super) fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::super::queue::Rest;
    use super::*;

    fn sent(log: impl FnOnce()) -> Vec<Vec<u8>> {
        let folder = std::env::temp_dir().join(format!("apipayd-journal-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let socket = connect_to(&path).unwrap();
        let send = move |entry: &[u8]| socket.send(entry).map(drop);
        let queue = Queue::start(send, |_| {}).unwrap();
        let rest = Rest::of(&queue);
        let subscriber = tracing_subscriber::registry().with(Journal::new(queue));
        tracing::subscriber::with_default(subscriber, log);
        drop(rest);
        journal.set_nonblocking(true).unwrap();
        let mut buffer = vec![0; 1 << 20];
        let mut entries = Vec::new();
        while let Ok(bytes) = journal.recv(&mut buffer) {
            entries.push(buffer[..bytes].to_vec());
        }
        std::fs::remove_dir_all(&folder).unwrap();
        entries
    }

    /// The fields of an entry, in order.
    fn fields(mut entry: &[u8]) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        while let Some(end) = entry.iter().position(|byte| *byte == b'\n') {
            let (name, rest) = entry.split_at(end);
            let (length, rest) = rest[1..].split_at(8);
            let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            fields.push((text(name), text(&rest[..length])));
            assert_eq!(rest[length], b'\n');
            entry = &rest[length + 1..];
        }
        fields
    }

    #[test]
    fn a_message_says_everything_and_has_fields_beside() {
        let entries = sent(|| {
            let error = "connection refused\nby the server";
            tracing::warn!(job.id = 7, account = %"shop", error, "the database failed; trying again");
        });
        assert_eq!(entries.len(), 1);
        let expected = [
            (
                "MESSAGE",
                "the database failed; trying again job.id=7 account=shop error=\"connection refused\\nby the server\"",
            ),
            ("PRIORITY", "4"),
            ("SYSLOG_IDENTIFIER", "apipayd"),
            ("TARGET", "apipayd::telemetry::journal::tests"),
            ("F_JOB_ID", "7"),
            ("F_ACCOUNT", "shop"),
            ("F_ERROR", "connection refused\nby the server"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(fields(&entries[0]), expected);
    }

    #[test]
    fn a_long_value_is_cut_and_the_entry_still_arrives() {
        let long = "ы".repeat(1 << 20);
        let entries = sent(|| tracing::error!(cause = long, "it failed"));
        let fields = fields(&entries[0]);
        let longest = fields.iter().map(|(_, value)| value.len()).max();
        assert_eq!(longest, Some(VALUE_BYTES));
        assert!(fields[0].1.starts_with("it failed cause="));
    }

    #[test]
    fn without_a_journal_the_start_says_so() {
        assert!(connect_to(Path::new("/nonexistent/socket")).is_err());
    }
}
