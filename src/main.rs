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
            Ok(runtime) => {
                let code = runtime.block_on(cli::execute(arguments, environment));
                // Only what nobody waits for is left. A look-up of a name cannot be stopped, and may hang for long.
                runtime.shutdown_background();
                code
            }
            Err(error) => cli::Failure::from(error).report(),
        }
    })
}
