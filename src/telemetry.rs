//! Logs: set-up of the subscriber.
//!
//! Libraries below us could log statements, URLs and headers; they are capped here whatever the level
//! is. Nothing else may log secrets or phone numbers.

mod chain;
mod journal;
mod queue;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::panic::PanicHookInfo;
use std::thread;

use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber, error};
use tracing_subscriber::filter::{FilterExt, Targets};
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Filter, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

pub use chain::Chain;
use journal::{Journal, priority};
use queue::Queue;
pub use queue::{Rest, lost};

/// `[log]`
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// For whom.
    pub format: LogFormat,
    /// How much, unless RUST_LOG says otherwise.
    pub level: LogLevel,
}

/// `log.format`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For collectors.
    Json,
    /// For systemd's journal, with fields.
    Journald,
}

/// `log.level`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the five levels that everybody knows")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Why logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// RUST_LOG is wrong.
    #[error("environment variable RUST_LOG: not a list of filters such as info,apipayd=debug")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// There is no journal here.
    #[error(
        "log.format = \"journald\", but the journal cannot be reached; allowed is also \"text\" or \"json\""
    )]
    Journal(#[source] io::Error),
    /// The operating system refused the thread that writes.
    #[error("the thread that writes the log cannot be started")]
    Thread(#[source] io::Error),
}

/// Starts logging to stderr or the journal, for the whole process; once. Panics are logged too. What is returned is
/// dropped at the end of the process, so that nothing which waits to be written is lost.
///
/// `rust_log` and `journal_stream` are the environment variables of these names.
pub fn init(
    settings: &LogSettings,
    rust_log: Option<&str>,
    journal_stream: Option<&str>,
) -> Result<Rest, TelemetryError> {
    let filter = filter(settings.level, rust_log)?;
    let queue = match settings.format {
        LogFormat::Journald => {
            let socket = journal::connect().map_err(TelemetryError::Journal)?;
            Queue::start(move |entry| socket.send(entry).map(drop), tell_lost)
        }
        LogFormat::Text | LogFormat::Json => Queue::start(write_to_stderr, tell_lost),
    }
    .map_err(TelemetryError::Thread)?;
    let rest = Rest::of(&queue);
    let layer = match settings.format {
        LogFormat::Journald => Journal::new(queue).boxed(),
        LogFormat::Json => json(writer(queue)),
        LogFormat::Text if stderr_is_the_journal(journal_stream) => journal_text(writer(queue)),
        LogFormat::Text => text(writer(queue), io::stderr().is_terminal()),
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .init();
    std::panic::set_hook(Box::new(log_panic));
    Ok(rest)
}

/// The last words of a command, on stderr whatever the log's format is. A reader who takes nothing does not hold up the exit.
pub fn say(words: &str) {
    let line = format!("{words}\n").into_bytes();
    match Queue::start(write_to_stderr, |_| {}) {
        Ok(queue) => {
            queue.put(line);
            drop(Rest::of(&queue));
        }
        // Nobody is left to tell when stderr is gone as well.
        Err(_) => drop(write_to_stderr(&line)),
    }
}

fn write_to_stderr(line: &[u8]) -> io::Result<()> {
    io::stderr().write_all(line)
}

fn tell_lost(lost: u64) {
    error!("{lost} lines of the log were lost: its reader did not take them");
}

/// What the standard library would write to stderr, and wait for its reader.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let backtrace = Backtrace::capture();
    let backtrace = match backtrace.status() {
        BacktraceStatus::Captured => format!("\n{backtrace}"),
        _ => String::new(),
    };
    let thread = thread::current();
    let name = thread.name().unwrap_or("without a name");
    error!("thread '{name}' {panic}{backtrace}");
}

/// A log that loses whatever is written to it, for as long as what is returned beside it lives.
#[cfg(test)]
pub(crate) fn losing() -> (impl Subscriber + Send + Sync, std::sync::mpsc::Sender<()>) {
    let (queue, reader) = queue::full();
    let layer = text(writer(queue), false);
    (tracing_subscriber::registry().with(layer), reader)
}

/// Hands each line to the queue.
fn writer(queue: Queue) -> BoxMakeWriter {
    BoxMakeWriter::new(move || queue.clone())
}

// None of these writes its own troubles to stderr, where nobody may be reading.
type AnyLayer = Box<dyn Layer<Registry> + Send + Sync>;

fn text(writer: BoxMakeWriter, with_colours: bool) -> AnyLayer {
    tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .log_internal_errors(false)
        .with_ansi(with_colours)
        .boxed()
}

/// The journal knows the time, and wants to know the priority.
fn journal_text(writer: BoxMakeWriter) -> AnyLayer {
    tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .log_internal_errors(false)
        .with_ansi(false)
        .event_format(Prioritized(
            Format::default().without_time().with_level(false),
        ))
        .boxed()
}

fn json(writer: BoxMakeWriter) -> AnyLayer {
    tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_writer(writer)
        .log_internal_errors(false)
        .boxed()
}

/// What is told.
fn filter(
    level: LogLevel,
    rust_log: Option<&str>,
) -> Result<impl Filter<Registry> + Send + Sync + 'static, TelemetryError> {
    // Panics and lost lines are told from here, whatever RUST_LOG says.
    let always = Targets::new().with_target(module_path!(), LevelFilter::ERROR);
    Ok(wanted(level, rust_log)?.and(caps()).or(always))
}

fn wanted(level: LogLevel, override_: Option<&str>) -> Result<EnvFilter, TelemetryError> {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    EnvFilter::builder()
        .with_default_directive(level.into())
        .parse(override_.unwrap_or_default())
        .map_err(TelemetryError::Filter)
}

/// What libraries may say at most, by the beginning of their targets. Below, hyper and reqwest log
/// URLs and headers, sqlx logs statements; sqlx logs slow ones as a warning. What the server tells beside its answers
/// (`raise warning` of a trigger of the shop's) may quote a row, and nobody has masked it.
fn caps() -> Targets {
    Targets::new()
        .with_default(LevelFilter::TRACE)
        .with_target("sqlx", LevelFilter::WARN)
        .with_target("sqlx::query", LevelFilter::ERROR)
        .with_target("sqlx::postgres::notice", LevelFilter::OFF)
        .with_target("hyper", LevelFilter::WARN)
        .with_target("h2", LevelFilter::WARN)
        .with_target("reqwest", LevelFilter::WARN)
        .with_target("rustls", LevelFilter::WARN)
        .with_target("tower", LevelFilter::WARN)
}

/// systemd says which stream it reads; somebody may have redirected ours since.
fn stderr_is_the_journal(journal_stream: Option<&str>) -> bool {
    let ours = || {
        let stderr = io::stderr().as_fd().try_clone_to_owned().ok()?;
        let metadata = std::fs::File::from(stderr).metadata().ok()?;
        Some(format!("{}:{}", metadata.dev(), metadata.ino()))
    };
    journal_stream.is_some_and(|stream| Some(stream.to_owned()) == ours())
}

/// Puts the priority before each line in the way of sd-daemon(3).
struct Prioritized<F>(F);

impl<S, N, F> FormatEvent<S, N> for Prioritized<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        fn writer(&self) -> BoxMakeWriter {
            let captured = self.clone();
            BoxMakeWriter::new(move || captured.clone())
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log_with(
        layer: impl FnOnce(BoxMakeWriter) -> AnyLayer,
        level: LogLevel,
        rust_log: Option<&str>,
        log: impl FnOnce(),
    ) -> String {
        let captured = Captured::default();
        let filter = filter(level, rust_log).unwrap();
        let subscriber =
            tracing_subscriber::registry().with(layer(captured.writer()).with_filter(filter));
        tracing::subscriber::with_default(subscriber, log);
        captured.text()
    }

    #[test]
    fn the_journal_gets_priorities_and_no_time() {
        let text = log_with(journal_text, LogLevel::Debug, None, || {
            tracing::error!(job.id = 7, "one");
            tracing::warn!("two");
            tracing::info!("three");
            tracing::debug!("four");
            tracing::trace!("five");
        });
        let here = "apipayd::telemetry::tests";
        let expected =
            format!("<3>{here}: one job.id=7\n<4>{here}: two\n<6>{here}: three\n<7>{here}: four\n");
        assert_eq!(text, expected);
    }

    #[test]
    fn json_has_one_object_a_line_with_the_fields_beside_the_message() {
        let text = log_with(json, LogLevel::Info, None, || {
            tracing::info!(job.id = 7, "one");
        });
        let object: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(object["message"], "one");
        assert_eq!(object["job.id"], 7);
        assert_eq!(object["level"], "INFO");
    }

    #[test]
    fn rust_log_overrides_the_level() {
        let plain = |writer| text(writer, false);
        let log = || {
            tracing::info!("told");
            tracing::debug!("whispered");
        };
        assert!(!log_with(plain, LogLevel::Error, None, log).contains("told"));
        let overridden = log_with(plain, LogLevel::Error, Some("apipayd=debug"), log);
        assert!(overridden.contains("told") && overridden.contains("whispered"));
    }

    #[test]
    fn no_level_makes_libraries_tell_statements_and_urls() {
        let plain = |writer| text(writer, false);
        let told = log_with(
            plain,
            LogLevel::Trace,
            Some("trace,sqlx=trace,hyper_util=trace"),
            || {
                tracing::warn!(target: "sqlx::query", "select phone");
                tracing::info!(target: "sqlx::postgres::notice", "notice");
                tracing::debug!(target: "hyper_util::client", "https://secret");
                tracing::trace!(target: "reqwest::connect", "https://secret");
                tracing::debug!(target: "rustls::client", "hello");
                tracing::warn!(target: "rustls::client", "important");
            },
        );
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(told.contains("important"));
    }

    #[test]
    fn no_filter_hides_what_was_lost() {
        for rust_log in ["off", "sqlx=warn"] {
            let plain = |writer| text(writer, false);
            let told = log_with(plain, LogLevel::Info, Some(rust_log), || {
                tell_lost(7);
                tracing::error!(target: "apipayd::app", "hidden");
            });
            assert_eq!(told.lines().count(), 1, "{told}");
            assert!(told.contains("7 lines of the log were lost"), "{told}");
        }
    }

    #[test]
    fn a_wrong_rust_log_is_refused() {
        let error = wanted(LogLevel::Info, Some("apipayd=loud")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "environment variable RUST_LOG: not a list of filters such as info,apipayd=debug"
        );
    }

    #[test]
    fn another_stream_than_systemds_is_not_the_journal() {
        assert!(!stderr_is_the_journal(None));
        assert!(!stderr_is_the_journal(Some("1:1")));
    }
}
