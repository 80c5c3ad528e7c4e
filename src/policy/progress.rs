//! Whether what is due moves: from what is seen now, what was seen before, and for how long.
//!
//! The net below every other alert. It trusts no loop's word that there was nothing to do: whatever is
//! due has a mark that changes when it moves, and a mark that stands still for too long is a standstill. A
//! backlog behind the quota moves, however slowly; one that nobody can see does not.

mod concern;
mod facts;
mod sights;

use std::time::Duration;

use sights::{Sight, is_missed, is_service_told, is_unchanged, sights};

pub use concern::Concern;
pub use facts::{AccountFacts, FEW, Facts, Failure, RefusedRequests, Stopped};
pub use sights::{Patience, explanation, time_to_find};

/// What stands still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standstill {
    /// The account it concerns; none: all of them.
    pub account: Option<String>,
    /// The machine whose daemon has stopped, if that is what was found; else empty.
    pub host: String,
    /// The accounts that this daemon served.
    pub accounts: Vec<String>,
    /// What should move.
    pub concern: Concern,
    /// For how long it was seen to stand still.
    pub lasted: Duration,
    /// What was said of it; empty when nothing was.
    pub cause: String,
    /// The requests that are refused, if that is what was found.
    pub refused: Option<RefusedRequests>,
}

/// What was seen before.
#[derive(Debug, Default)]
pub struct Watch {
    marks: Vec<Mark>,
}

/// A sight, and since when it stands still.
#[derive(Debug)]
struct Mark {
    sight: Sight,
    since: Duration,
    /// Whether it has stood still for too long. That lasts until it moves, even where more patience is due meanwhile.
    is_found: bool,
    /// Whether people were told so.
    is_told: bool,
}

impl Mark {
    fn is_of(&self, sight: &Sight) -> bool {
        self.sight.key() == sight.key()
    }

    fn standstill(&self, at: Duration) -> Standstill {
        let sight = &self.sight;
        Standstill {
            account: sight.account.clone(),
            host: match sight.concern {
                Concern::StoppedDaemon | Concern::SilentDaemon => sight.what.clone(),
                _ => String::new(),
            },
            accounts: sight.accounts.clone(),
            concern: sight.concern,
            lasted: at.saturating_sub(self.since),
            cause: sight.cause.clone(),
            refused: sight.refused.clone(),
        }
    }
}

impl Watch {
    /// Compares with what was seen before; `at` is a time that only rises. Whatever was not seen, or has
    /// another mark, has moved. While the database does not tell, what had been found stands as it was. So does what had
    /// been found of an account that is not looked at, because nobody serves it, until that has been found.
    pub fn look(&mut self, at: Duration, facts: &Facts, patience: Patience) -> Vec<Standstill> {
        let before = std::mem::take(&mut self.marks);
        let is_stopped = facts.stopped_for.is_some();
        let mut marks: Vec<Mark> = Vec::new();
        for sight in sights(facts, patience) {
            let mut known = before.iter().filter(|last| last.is_of(&sight));
            let last = known.find(|last| last.sight.mark == sight.mark);
            let last = last.or_else(|| handed_over(&before, &sight));
            let (was_found, is_told) = last.map_or((false, false), |m| (m.is_found, m.is_told));
            if is_stopped && sight.concern.is_kept_by_a_stop() && !was_found {
                // It has its time from when sending is started.
                continue;
            }
            let since = last.map_or(at, |last| last.since);
            // Whoever stops all sending may do so to stop daemons as well.
            let is_excused = is_stopped && sight.concern.is_of_service();
            marks.push(Mark {
                is_found: was_found || (!is_excused && at.saturating_sub(since) >= sight.patience),
                is_told,
                since,
                sight,
            });
        }
        let is_kept = |mark: &Mark| match (&facts.database, &mark.sight.account) {
            (Some(_), _) => true,
            (None, Some(account)) => is_withheld(facts, account) && !is_covered(&marks, account),
            (None, None) => false,
        };
        let unseen = |mark: &Mark| !marks.iter().any(|seen| seen.is_of(&mark.sight));
        let kept: Vec<Mark> = before
            .into_iter()
            .filter(|mark| mark.is_found && unseen(mark) && is_kept(mark))
            .collect();
        let is_new = marks.len();
        marks.extend(kept);
        // What concerns everything explains why nothing of an account moves, and is told once.
        let mut of_all = marks.iter().filter(|mark| mark.sight.concern.stops_all());
        let may_be_told = of_all.next().is_some();
        let is_told = marks[..is_new]
            .iter()
            .any(|mark| mark.is_found && mark.sight.concern.stops_all());
        let (mut standstills, mut of_accounts) = (Vec::new(), Vec::new());
        for (number, mark) in marks.iter_mut().enumerate() {
            let standstill = mark.standstill(at);
            let may_be_explained =
                standstill.account.is_some() && standstill.concern != Concern::Service;
            let is_old = mark.is_told || standstill.lasted >= mark.sight.patience * 2;
            let is_explained = may_be_explained && (is_told || (may_be_told && !is_old));
            // While the database does not tell, nothing new is known of what was found before.
            let is_unknown = number >= is_new && facts.database.is_some();
            if !mark.is_found || is_explained || is_unknown {
                continue;
            }
            mark.is_told = true;
            match may_be_explained {
                true => of_accounts.push(standstill),
                false => standstills.push(standstill),
            }
        }
        self.marks = marks;
        standstills.extend(of_accounts);
        standstills
    }
}

/// What had been found when one concern takes the place of the other: that nobody serves an account is the same incident,
/// whether or not it is known which daemon has stopped.
fn handed_over<'a>(before: &'a [Mark], sight: &Sight) -> Option<&'a Mark> {
    let found = before.iter().filter(|mark| {
        mark.is_found && mark.sight.concern.is_of_service() && sight.concern.is_of_service()
    });
    found
        .filter(|mark| mark.sight.shares_an_account(sight))
        .min_by_key(|mark| mark.since)
}

/// Whether nothing of the account is looked at, although it is due.
fn is_withheld(facts: &Facts, account: &str) -> bool {
    let mut accounts = facts.accounts.iter().filter(|a| a.account == account);
    accounts.any(|a| (is_missed(a) && !is_service_told(a)) || is_unchanged(facts, a))
}

/// Whether it has been found why it is not looked at.
fn is_covered(marks: &[Mark], account: &str) -> bool {
    marks.iter().any(|mark| {
        mark.is_found && mark.sight.concern.covers_accounts() && mark.sight.is_about(account)
    })
}

#[cfg(test)]
mod tests;
