//! The daemon and its commands: arguments → configuration → runtime → exit code.

use std::process::ExitCode;

use apipayd::cli;
use apipayd::config::Environment;

fn main() -> ExitCode {
    let environment = Environment::of_process();
    cli::Arguments::read().map_or_else(ExitCode::from, |arguments| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build();
        match runtime {
            Ok(runtime) => runtime.block_on(cli::execute(arguments, environment)),
            Err(error) => cli::Failure::from(error).report(),
        }
    })
}
