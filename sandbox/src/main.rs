//! The command: arguments, the stand-in, signals.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use apipay_sandbox::{Mode, Settings};
use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;
use tracing_subscriber::EnvFilter;

/// A local stand-in for the payment gateway ApiPay.kz.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8600", env = "APIPAY_SANDBOX_LISTEN")]
    listen: SocketAddr,
    /// A file to write the bound `ip:port` to, once it listens.
    #[arg(long)]
    port_file: Option<PathBuf>,
    /// The mode of every organization.
    #[arg(long, value_enum, default_value_t = ModeArgument::Live)]
    mode: ModeArgument,
    /// How many times faster than real time invoices and refunds live.
    #[arg(long, default_value_t = 1.0, value_parser = parse_speed)]
    speed: f64,
    /// The general limit of each key; 0 lifts all limits per key.
    #[arg(long, default_value_t = 200)]
    requests_per_minute: u32,
    /// Refuse keys that the control API does not know.
    #[arg(long)]
    strict_keys: bool,
    /// How many requests the log keeps.
    #[arg(long, default_value_t = 200_000)]
    request_log: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum ModeArgument {
    Live,
    Sandbox,
}

fn parse_speed(text: &str) -> Result<f64, String> {
    let speed = text
        .parse()
        .ok()
        .filter(|speed| (0.0..=1e9).contains(speed));
    speed.ok_or_else(|| "expected a number from 0 to 1000000000".to_owned())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do when even this cannot be written.
            writeln!(io::stderr(), "apipay-sandbox: {error}").unwrap_or_default();
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(serve(arguments))
}

async fn serve(arguments: &Arguments) -> io::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let started = apipay_sandbox::start(arguments.listen, settings(arguments)).await;
    let running = started.map_err(|error| told("cannot listen on", &arguments.listen, &error))?;
    if let Some(path) = &arguments.port_file {
        write_address(path, running.addr)
            .map_err(|error| told("cannot write", &path.display(), &error))?;
    }
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    info!("sandbox stops");
    running.stop().await;
    Ok(())
}

fn settings(arguments: &Arguments) -> Settings {
    Settings {
        mode: match arguments.mode {
            ModeArgument::Live => Mode::Live,
            ModeArgument::Sandbox => Mode::Sandbox,
        },
        speed: arguments.speed,
        requests_per_minute: arguments.requests_per_minute,
        strict_keys: arguments.strict_keys,
        request_log: arguments.request_log,
    }
}

fn told(what: &str, object: &impl std::fmt::Display, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {object}: {error}"))
}

/// Whoever waits for the file never reads half of it.
fn write_address(path: &Path, addr: SocketAddr) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    std::fs::write(&beside, format!("{addr}\n"))?;
    std::fs::rename(&beside, path)
}
