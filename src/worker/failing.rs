//! What the ends of requests say of the gateway, gathered for each account: the account slows down when
//! nothing clear comes, people are told, and all goes on with the first clear answer.

use std::collections::VecDeque;
use std::sync::Arc;

use tracing::{info, warn};

use crate::db::{DbError, outage};
use crate::domain::account::AccountName;
use crate::domain::job::JobId;
use crate::domain::outage::{Fault, Outage};
use crate::policy::outage::{BACKED_OFF, Errand, LOOKED_UP_IN_VAIN, Sign};
use crate::policy::verdict::Reason;
use crate::telemetry::Chain;
use crate::worker::Context;
use crate::worker::account::Account;

/// Times that something is stored which others keep changing.
const STORED_AT_MOST: u32 = 10;

/// Jobs that one statement lets go on.
const RELEASED: i64 = 200;

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
    ctx: &Arc<Context>,
    name: &AccountName,
    signs: &[&Signed],
) -> Result<Option<Telling>, DbError> {
    let Some(account) = ctx.accounts.get(name) else {
        return Ok(None);
    };
    if !signs.iter().any(|signed| is_news(account, signed)) {
        return Ok(None);
    }
    for _ in 0..STORED_AT_MOST {
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
    // The next request says it again.
    warn!(account = %name, "other daemons stored so much of what fails that our part was not");
    Ok(None)
}

/// Whether it can change anything: nearly every answer is clear, and costs nothing here.
pub fn is_news(account: &Account, signed: &Signed) -> bool {
    match signed.sign {
        Sign::Failing(_) => true,
        Sign::Clear => account.is_failing(),
        Sign::Silent => signed.errand == Errand::Trial,
    }
}

fn report(ctx: &Arc<Context>, account: &Account, before: &Outage, after: &Outage) {
    match (before.is_slow(), after.is_slow()) {
        (false, true) => {
            let code = after.sends.as_ref().map(|row| row.fault.code.as_str());
            warn!(account = %account.name, code, "no clear answer again and again: one job tries at a time");
        }
        (true, false) => {
            account.resume_slowly();
            let (owned, name) = (ctx.clone(), account.name.clone());
            ctx.recorder.errands.spawn(async move {
                if let Err(error) = release(&owned, &name).await {
                    warn!(account = %name, error = %Chain(&error), "jobs that backed off go on at their own time");
                }
            });
            info!(account = %account.name, "a clear answer: all jobs go on");
            ctx.wake.dispatch.notify_one();
            ctx.wake.deliver.notify_one();
        }
        _ => {}
    }
}

/// Lets the jobs go on that backed off. None of it is worth insisting: each goes on at its own time. What
/// some rows are to blame for is divided until they stand alone.
async fn release(ctx: &Context, account: &AccountName) -> Result<(), DbError> {
    let codes = |reasons: &[Reason]| -> Vec<String> {
        let codes = reasons.iter().map(|reason| reason.code().to_owned());
        codes.collect()
    };
    let (queued, uncertain) = (codes(&BACKED_OFF), codes(&LOOKED_UP_IN_VAIN));
    let mut above = 0;
    loop {
        let jobs = outage::failing_jobs(&ctx.pool, account, above, RELEASED).await?;
        let Some(last) = jobs.last() else {
            return Ok(());
        };
        above = *last;
        let mut parts = VecDeque::from([jobs]);
        while let Some(mut jobs) = parts.pop_front() {
            match outage::release(&ctx.pool, &jobs, &queued, &uncertain).await {
                Ok(()) => {}
                Err(error) if !error.is_about_rows() => return Err(error),
                Err(_) if jobs.len() > 1 => {
                    let rest = jobs.split_off(jobs.len() / 2);
                    parts.extend([jobs, rest]);
                }
                Err(error) => {
                    warn!(account = %account, jobs = ?jobs, error = %Chain(&error), "a job that backed off goes on at its own time");
                }
            }
        }
        ctx.wake.dispatch.notify_one();
    }
}
