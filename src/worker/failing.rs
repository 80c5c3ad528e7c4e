//! What the ends of requests say of the gateway, gathered for each account: the account slows down when
//! nothing clear comes, people are told, and all goes on with the first clear answer.

use tracing::{info, warn};

use crate::db::{DbError, outage};
use crate::domain::account::AccountName;
use crate::domain::job::JobId;
use crate::domain::outage::{Fault, Outage};
use crate::policy::outage::{Errand, Sign};
use crate::worker::Context;
use crate::worker::account::Account;

/// What the end of one request says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// What it was for.
    pub errand: Errand,
    /// The job that it was about.
    pub job: JobId,
    /// What it says.
    pub sign: Sign,
}

/// What people must be told of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telling {
    /// What comes in place of clear answers.
    pub fault: Fault,
    /// Since when.
    pub since: time::OffsetDateTime,
}

/// Brings what is known of an account up to date. Returns what must be told, if anything.
pub async fn note(
    ctx: &Context,
    name: &AccountName,
    signs: &[&Signed],
) -> Result<Option<Telling>, DbError> {
    let Some(account) = ctx.accounts.get(name) else {
        return Ok(None);
    };
    if !signs.iter().any(|signed| is_news(account, signed)) {
        return Ok(None);
    }
    loop {
        let asked = ctx.clock.ask();
        let Some((before, now)) = outage::read(&ctx.pool, name).await? else {
            return Ok(None);
        };
        let at = ctx.circumstances(name, asked.now(now));
        let after = signs.iter().fold(before.clone(), |known, signed| {
            known.after(signed.errand, signed.job, &signed.sign, at)
        });
        // Another daemon may have learned something meanwhile: then once more, with that.
        if after == before || outage::store(&ctx.pool, name, &before, &after).await? {
            account.learn(after.clone());
            report(ctx, account, &before, &after);
            let row = after.sends.as_ref().filter(|_| after.tells());
            return Ok(row.map(|row| Telling {
                fault: row.fault.clone(),
                since: row.since,
            }));
        }
    }
}

/// Whether it can change anything: nearly every answer is clear, and costs nothing here.
pub fn is_news(account: &Account, signed: &Signed) -> bool {
    match signed.sign {
        Sign::Failing(_) => true,
        Sign::Clear => account.is_failing(),
        Sign::Silent => signed.errand == Errand::Trial,
    }
}

fn report(ctx: &Context, account: &Account, before: &Outage, after: &Outage) {
    match (before.is_slow(), after.is_slow()) {
        (false, true) => {
            let code = after.sends.as_ref().map(|row| row.fault.code.as_str());
            warn!(account = %account.name, code, "no clear answer again and again: one job tries at a time");
        }
        (true, false) => {
            account.resume_slowly();
            info!(account = %account.name, "a clear answer: all jobs go on");
            ctx.wake.dispatch.notify_one();
            ctx.wake.deliver.notify_one();
        }
        _ => {}
    }
}
