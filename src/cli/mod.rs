//! The command line: one file for each command. `session` is what they begin with, `print` and `failure` how they end, and
//! `advice` tells a person what to do to the database.

mod advice;
mod check;
mod failure;
mod migrate;
mod print;
mod run;
mod session;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Environment, Sources};
use failure::EXIT_CONFIGURATION;

pub use failure::Failure;

/// Sends payment jobs from your Postgres to ApiPay.kz, never twice and never lost.
///
/// Your program inserts rows into apipay.jobs; apipayd carries them out and writes down what happened.
/// Start: write /etc/apipayd/apipayd.toml, then `apipayd migrate`, `apipayd check`, `apipayd run`.
#[derive(Debug, Parser)]
#[command(name = "apipayd", version, max_term_width = 100)]
pub struct Arguments {
    /// The configuration file [default: /etc/apipayd/apipayd.toml, if there is one]
    ///
    /// Each setting can also be given as an environment variable APIPAYD__SECTION__KEY, which
    /// overrides the file.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Carry out jobs until told to stop: this is the daemon
    ///
    /// SIGHUP has it read its accounts again; a configuration that is wrong is refused, and the one before stays in force.
    /// SIGTERM or SIGINT stop it: it claims no more, ends what is under way and records it, for as
    /// long as worker.grace allows. A second signal changes nothing.
    Run,
    /// Create the schema apipay in your database, or bring it up to date
    ///
    /// Needs a user who may create schemas, and no API key. May be run again at any time.
    Migrate,
    /// Check configuration, credentials, database and gateway; changes nothing
    ///
    /// Prints one line for each check. Exit code 0: nothing failed; 78: the configuration or the schema
    /// is at fault; 1: something else is.
    Check {
        /// Print a JSON array instead of lines
        #[arg(long)]
        json: bool,
    },
}

impl Arguments {
    /// Reads the command line; help, version and mistakes are printed, and end with an exit code.
    pub fn read() -> Result<Arguments, u8> {
        Arguments::try_parse().map_err(|error| {
            let code = if error.use_stderr() {
                EXIT_CONFIGURATION
            } else {
                0
            };
            // Nobody is left to tell when the terminal is gone.
            error.print().ok();
            code
        })
    }
}

/// Does what the arguments say.
pub async fn execute(arguments: Arguments, environment: Environment) -> ExitCode {
    // The TLS of every client in this process. An error only says that it is installed already.
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let sources = Sources {
        file: arguments.config,
        environment,
    };
    let done = match arguments.command {
        Command::Run => run::run(&sources).await,
        Command::Migrate => migrate::migrate(&sources).await,
        Command::Check { json } => return check::check(&sources, json).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_configuration_file_may_be_named_before_or_after_the_command() {
        for words in [
            ["apipayd", "--config", "/a.toml", "run"],
            ["apipayd", "run", "--config", "/a.toml"],
        ] {
            let arguments = Arguments::try_parse_from(words).unwrap();
            assert_eq!(arguments.config.as_deref(), Some(Path::new("/a.toml")));
            assert!(matches!(arguments.command, Command::Run));
        }
    }
}
