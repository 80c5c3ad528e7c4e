//! Faults of apipayd itself.

use serde_json::json;

use super::Alert;
use crate::db::accounts::AlertText;
use crate::domain::account::AccountName;

/// The kind of the alert about a task that panicked. It ends after an hour, and a later one opens it again.
pub const PANICKED: &str = "task_panicked";

impl Alert {
    /// A task of an account panicked.
    pub fn panicked(account: &AccountName, task: &str) -> Alert {
        Alert {
            kind: PANICKED,
            severity: "critical",
            text: AlertText {
                summary: format!(
                    "A task of account {account} ended by a fault of apipayd itself (a panic, in {task})."
                ),
                action: "report it to the makers of apipayd, with what the log says just before. Nothing has to be done for \
                         the payments: what the task had in hand is taken up again once its claim has run out \
                         (worker.lease), and looked up first if it may have been sent; all others go on"
                    .to_owned(),
                details: json!({ "task": task }),
            },
            renews: false,
        }
    }
}
