//! What a check found: a line for a person, an object for a program.

use std::fmt;

use serde::Serialize;

use crate::cli::failure::{EXIT_CONFIGURATION, EXIT_FAILURE};
use crate::cli::print::Row;

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct CheckResult {
    check: &'static str,
    pub(super) state: State,
    pub(super) text: String,
    /// The exit code that it asks for.
    #[serde(skip)]
    pub(super) exit: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Ok,
    Warning,
    Failed,
}

impl CheckResult {
    /// Nothing has to be done.
    pub(super) fn ok(check: &'static str, text: impl fmt::Display) -> CheckResult {
        CheckResult {
            check,
            state: State::Ok,
            text: text.to_string(),
            exit: 0,
        }
    }

    /// It works, and something should be done.
    pub(super) fn warning(check: &'static str, text: impl fmt::Display) -> CheckResult {
        CheckResult {
            state: State::Warning,
            ..CheckResult::ok(check, text)
        }
    }

    /// It does not work.
    pub(super) fn failed(check: &'static str, text: impl fmt::Display) -> CheckResult {
        CheckResult {
            state: State::Failed,
            exit: EXIT_FAILURE,
            ..CheckResult::ok(check, text)
        }
    }

    /// It does not work, and the configuration or the schema is at fault.
    pub(super) fn misconfigured(check: &'static str, text: impl fmt::Display) -> CheckResult {
        CheckResult {
            exit: EXIT_CONFIGURATION,
            ..CheckResult::failed(check, text)
        }
    }
}

impl Row for CheckResult {
    fn line(&self, with_colours: bool) -> String {
        let (word, colour) = match self.state {
            State::Ok => ("ok", 32),
            State::Warning => ("warning", 33),
            State::Failed => ("failed", 31),
        };
        // Answers of other machines are shown: a terminal obeys none of them.
        let text = self.text.replace(|c: char| c.is_control(), " ");
        let check = self.check;
        if with_colours {
            format!("\u{1b}[{colour}m{word:<8}\u{1b}[0m {check:<13} {text}")
        } else {
            format!("{word:<8} {check:<13} {text}")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_finding_is_coloured_or_json() {
        let result = CheckResult::failed("schema", "no\u{1b}[2J");
        assert_eq!(
            result.line(true),
            "\u{1b}[31mfailed  \u{1b}[0m schema        no [2J"
        );
        assert_eq!(
            json!([result]),
            json!([{ "check": "schema", "state": "failed", "text": "no\u{1b}[2J" }])
        );
    }
}
