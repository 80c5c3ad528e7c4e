//! In which mode the gateway treats an account, live or sandbox: compared with what is stored, whichever answer
//! shows it.
//!
//! Only what shows a whole invoice does: neither the answer to a bill nor a check (API, sections 2.1 and 2.6). So of
//! an account that only succeeds one new invoice is read by itself now and then.

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use crate::db::alerts::About;
use crate::db::fault::Fault;
use crate::db::{DbError, accounts, alerts, progress};
use crate::gateway::wire::ShownMode;
use crate::telemetry::Chain;
use crate::worker::account::Account;
use crate::worker::alerting;
use crate::worker::clock::Moment;
use crate::worker::context::Context;

/// How long a mode that was seen is believed without another look.
const BELIEVED: Duration = Duration::from_secs(3600);

/// The same while it is not the one that is stored, and the alert says so.
const DISPUTED: Duration = Duration::from_secs(10);

/// The newest invoice that showed its mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight(ShownMode);

impl Sight {
    fn mode(self) -> &'static str {
        if self.0.is_sandbox { "sandbox" } else { "live" }
    }
}

/// What answers have shown of an account's mode.
#[derive(Default)]
pub struct Modes {
    newest: Option<Sight>,
    told: Option<Sight>,
    is_disputed: bool,
    looked_at: Option<Moment>,
}

impl Modes {
    /// An answer showed an invoice. An older one than was seen keeps its own mode, and says nothing of now.
    pub fn see(&mut self, shown: ShownMode) {
        let is_older = |known: Sight| shown.invoice < known.0.invoice;
        if !self.newest.is_some_and(is_older) {
            self.newest = Some(Sight(shown));
            self.looked_at = Some(Moment::now());
        }
    }

    /// What is to be compared: another mode than the last that was, or a newer invoice while that is disputed.
    pub fn untold(&self) -> Option<Sight> {
        let is_known = |sight: &Sight| match self.told {
            None => false,
            Some(told) => told == *sight || (!self.is_disputed && told.mode() == sight.mode()),
        };
        self.newest.filter(|sight| !is_known(sight))
    }

    /// This was compared.
    pub fn told(&mut self, sight: Sight, is_disputed: bool) {
        self.told = Some(sight);
        self.is_disputed = is_disputed;
    }

    /// Whether it is time to look; then it counts as looked.
    pub fn wants_a_look(&mut self) -> bool {
        let believed = if self.is_disputed { DISPUTED } else { BELIEVED };
        let wants = self.looked_at.is_none_or(|at| at.elapsed() >= believed);
        if wants {
            self.looked_at = Some(Moment::now());
        }
        wants
    }
}

/// Compares what was seen since the last time with what is stored: opens the alert where they differ, and ends it
/// where they agree again.
pub async fn compare(ctx: &Arc<Context>) -> Result<(), DbError> {
    for account in ctx.accounts.open() {
        let Some(sight) = account.untold_mode() else {
            continue;
        };
        match compare_one(ctx, &account, sight).await {
            Ok(is_disputed) => account.mode_is_told(sight, is_disputed),
            Err(error) if error.fault() == Fault::Database => return Err(error),
            // Somebody keeps the account's row locked: the next round comes soon.
            Err(error) => {
                warn!(account = %account.name, error = %Chain(&error), "the account's mode was not compared yet");
            }
        }
    }
    Ok(())
}

async fn compare_one(ctx: &Context, account: &Account, sight: Sight) -> Result<bool, DbError> {
    let (name, mode) = (&account.name, sight.mode());
    let Some(stored) = accounts::saw_mode(&ctx.pool, name, mode, sight.0.invoice).await? else {
        // A newer invoice was seen by somebody else.
        return Ok(false);
    };
    if stored == mode {
        let how = format!("its newest invoices are {mode}, as is right for the account");
        progress::resolve(&ctx.pool, Some(name.as_str()), alerting::MODE, "", &how).await?;
        return Ok(false);
    }
    let text = alerting::mode_changed(name, &stored, mode, sight.0.invoice);
    let about = About::account(name, alerting::MODE, "critical");
    alerts::open(&ctx.pool, &about, &text).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(invoice: i64, is_sandbox: bool) -> ShownMode {
        ShownMode {
            invoice,
            is_sandbox,
        }
    }

    #[test]
    fn a_mode_is_compared_when_it_is_new_and_older_invoices_say_nothing() {
        let mut modes = Modes::default();
        assert_eq!(modes.untold(), None);
        modes.see(shown(5, false));
        let first = modes.untold().unwrap();
        assert_eq!((first.mode(), first.0.invoice), ("live", 5));
        modes.told(first, false);
        modes.see(shown(6, false));
        assert_eq!(modes.untold(), None, "no news");
        modes.see(shown(4, true));
        assert_eq!(modes.untold(), None, "an older one");
        modes.see(shown(7, true));
        let other = modes.untold().unwrap();
        assert_eq!(other.mode(), "sandbox");
        modes.told(other, true);
        assert_eq!(modes.untold(), None);
        // An operator may have accepted it meanwhile.
        modes.see(shown(8, true));
        assert!(modes.untold().is_some());
        modes.see(shown(9, false));
        assert_eq!(modes.untold().unwrap().mode(), "live");
    }

    #[test]
    fn a_look_is_wanted_once_in_a_while() {
        let mut modes = Modes::default();
        assert!(modes.wants_a_look());
        assert!(!modes.wants_a_look(), "it is under way");
        let mut seen = Modes::default();
        seen.see(shown(5, false));
        assert!(!seen.wants_a_look());
    }
}
