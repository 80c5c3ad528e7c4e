//! Ends what was told of an account that no daemon serves any more. Nothing of it is asked then, so what was said in the
//! present tense is not known any more; that nobody serves it is told by `no_progress`, if anything of it waits.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::db::{DbError, refused, troubled, unserved};
use crate::domain::times::ALIVE_FOR;
use crate::policy::progress::Patience;
use crate::worker::alerting;
use crate::worker::clock::Moment;
use crate::worker::context::Context;

/// The end of an alert whose cause nobody sees any more.
const ENDED: &str = "no running apipayd serves it any more, so whether it is still so is not seen";

/// The kinds of alerts that say how requests go, or what is not seen: whoever serves the account again opens them again, if
/// it is still so.
fn kinds() -> Vec<String> {
    [
        troubled::KIND,
        refused::KIND,
        alerting::MISSING,
        alerting::OVERDUE,
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Since when nobody serves the accounts of which such an alert is open, as far as this daemon has seen.
#[derive(Debug, Default)]
pub struct Unserved {
    since: BTreeMap<String, Moment>,
}

impl Unserved {
    /// Finds the accounts without a daemon, and resolves the alerts of those that have had none for long. Returns the
    /// others, whose alerts may still end for their own cause. A daemon that is started again within that time finds
    /// its alerts open.
    pub async fn step(&mut self, ctx: &Context) -> Result<Vec<String>, DbError> {
        let moving = Patience::new(ctx.lease, ctx.rules.follow.max).moving;
        let kinds = kinds();
        let told = unserved::told(&ctx.pool, &kinds, moving.max(ALIVE_FOR)).await?;
        self.note(&told);
        // By then it is told that nobody serves them.
        let (long, recent): (Vec<String>, Vec<String>) = told
            .into_iter()
            .partition(|account| self.lasted(account) >= moving * 2);
        if !long.is_empty() {
            unserved::resolve(&ctx.pool, &kinds, &long, ENDED).await?;
        }
        Ok(recent)
    }

    /// Nothing is known of what was while the database was away.
    pub fn forget(&mut self) {
        self.since.clear();
    }

    fn note(&mut self, told: &[String]) {
        self.since.retain(|account, _| told.contains(account));
        for account in told {
            self.since
                .entry(account.clone())
                .or_insert_with(Moment::now);
        }
    }

    fn lasted(&self, account: &str) -> Duration {
        self.since
            .get(account)
            .map_or(Duration::ZERO, |since| since.elapsed())
    }
}
