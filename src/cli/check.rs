//! `apipayd check`: is everything there that `run` needs? Changes nothing.
//!
//! What each fact means is decided by pure functions from facts to results; only [`gather`] asks.

mod database;
mod gateway;
mod holdups;
mod result;
mod rights;
mod server;
mod standing;

use std::process::ExitCode;

use super::print;
use super::session::{Session, patiently};
use crate::config::Sources;
use result::CheckResult;

/// Checks, prints, and says with the exit code whether anything failed.
pub(super) async fn check(sources: &Sources, as_json: bool) -> ExitCode {
    let results = gather(sources).await;
    print::listing(&results, as_json, &sources.environment);
    ExitCode::from(exit_code(&results))
}

/// The configuration's fault wins: it is what has to be put right first.
fn exit_code(results: &[CheckResult]) -> u8 {
    results.iter().map(|result| result.exit).max().unwrap_or(0)
}

async fn gather(sources: &Sources) -> Vec<CheckResult> {
    let session = match Session::open(sources).await {
        Ok(Ok(session)) => session,
        Ok(Err(error)) => return vec![CheckResult::misconfigured("configuration", error)],
        Err(failure) => return vec![CheckResult::failed("configuration", failure)],
    };
    let settings = &session.settings;
    let mut results = vec![CheckResult::ok(
        "configuration",
        match &sources.file {
            Some(file) => format!("{} is understood", file.display()),
            None => "understood: /etc/apipayd/apipayd.toml, if there is one, and the environment"
                .to_owned(),
        },
    )];
    let mut accounts = Vec::new();
    if settings.accounts.is_empty() {
        results.push(CheckResult::misconfigured(
            "credentials",
            "there is no account; add a section [accounts.default] with base_url; its key is the credential api-key, or in api_key_file",
        ));
    }
    for account in &settings.accounts {
        let name = &account.name;
        let (account, environment) = (account.clone(), sources.environment.clone());
        match patiently(move || account.load_key(&environment)).await {
            Ok(Ok(account)) => {
                results.push(CheckResult::ok(
                    "credentials",
                    format_args!("the API key of account {name} can be read"),
                ));
                accounts.push(account);
            }
            Ok(Err(error)) => results.push(CheckResult::misconfigured("credentials", error)),
            Err(failure) => results.push(CheckResult::failed("credentials", failure)),
        }
    }
    results.extend(database::gather(&session, sources, &accounts).await);
    for account in &accounts {
        let asked = gateway::ask(account, settings.http).await;
        results.extend(gateway::results(account.name.as_str(), asked));
    }
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configurations_fault_decides_the_exit_code() {
        let (ok, failed) = (CheckResult::ok("a", "b"), CheckResult::failed("a", "b"));
        let wrong = CheckResult::misconfigured("a", "b");
        assert_eq!(exit_code(&[]), 0);
        assert_eq!(exit_code(&[ok.clone(), CheckResult::warning("a", "b")]), 0);
        assert_eq!(exit_code(&[ok.clone(), failed.clone()]), 1);
        assert_eq!(exit_code(&[failed, wrong, ok]), 78);
    }
}
