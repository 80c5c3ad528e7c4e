//! What commands print: sentences, and listings as lines or as JSON.

use std::fmt;
use std::io::{ErrorKind, IsTerminal, Write};

use serde::Serialize;

use crate::config::Environment;

/// A row of a listing.
pub(super) trait Row: Serialize {
    /// The row as one line for a person, without a line break.
    fn line(&self, with_colours: bool) -> String;
}

/// Prints rows, one line for each or all of them as a JSON array.
pub(super) fn listing<R: Row>(rows: &[R], as_json: bool, environment: &Environment) {
    if as_json {
        sentence(serde_json::json!(rows));
        return;
    }
    let with_colours = may_use_colours(environment);
    for row in rows {
        sentence(row.line(with_colours));
    }
}

/// Prints one line.
pub(super) fn sentence(text: impl fmt::Display) {
    match writeln!(std::io::stdout(), "{text}") {
        // Whoever reads has read enough, as `head` does.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        Err(error) => drop(writeln!(std::io::stderr(), "apipayd: stdout: {error}")),
        Ok(()) => {}
    }
}

/// Colours are for a terminal, unless its user wants none (no-color.org).
fn may_use_colours(environment: &Environment) -> bool {
    let is_refused = environment
        .get("NO_COLOR")
        .is_some_and(|value| !value.is_empty());
    !is_refused && std::io::stdout().is_terminal()
}
