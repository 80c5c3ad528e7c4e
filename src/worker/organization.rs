//! Finds out whether the keys of the accounts are of their organisations. Of an account whose key is not known to be so
//! nothing is claimed, sent or asked, but whether the gateway shows this key the account's invoices.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::db::alerts::{self, About};
use crate::db::claim::Purpose;
use crate::db::fault::Fault;
use crate::db::organization::{self as keys, Keys};
use crate::db::{DbError, progress};
use crate::domain::account::AccountName;
use crate::gateway::wire;
use crate::policy::breaker::probe_delay;
use crate::policy::organization::{Doubt, Known, Standing, shown, standing, with};
use crate::telemetry::Chain;
use crate::worker::account::Account;
use crate::worker::alarm;
use crate::worker::clock::Moment;
use crate::worker::{Context, Step, probe};

/// How often a daemon gives a sign of life. Others count on it to be half a minute old at most.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// Answers that are not clear, in a row, before a person is told.
const UNCLEAR_MOST: u32 = 3;

/// The loop's memory: what was announced, and which keys are doubted.
#[derive(Default)]
pub struct Organizations {
    announced: Option<(Moment, BTreeSet<AccountName>)>,
    doubted: HashMap<AccountName, Doubted>,
}

/// A key that is not known.
struct Doubted {
    times: u32,
    again_at: Moment,
}

impl Organizations {
    /// Confirms the keys that are known, and tries to have the others known.
    pub async fn step(&mut self, ctx: &Arc<Context>) -> Result<Step, DbError> {
        let mut stored = keys::keys(&ctx.pool, &ctx.account_names()).await?;
        let mut known = known(ctx, &stored);
        if self.is_to_be_announced(&known) {
            let names: Vec<String> = known.iter().map(AccountName::to_string).collect();
            progress::announce(&ctx.pool, ctx.worker, &ctx.host, &names).await?;
            self.announced = Some((Moment::now(), known.clone()));
            // Another key takes the place of one only while nobody is seen to serve with it: so what is read after
            // the announcement holds.
            stored = keys::keys(&ctx.pool, &ctx.account_names()).await?;
            let announced = known;
            known = self::known(ctx, &stored);
            known.retain(|name| announced.contains(name));
        }
        let mut begun = Vec::new();
        let mut step = Step::Idle;
        for account in ctx.accounts.values() {
            if known.contains(&account.name) {
                self.doubted.remove(&account.name);
                if account.know() {
                    begun.push(account.clone());
                }
                continue;
            }
            account.doubt_key();
            // A row that cannot be seen says nothing.
            let row = stored
                .iter()
                .find(|row| row.account == account.name.as_str());
            let Some(row) = row.filter(|_| self.is_due(&account.name)) else {
                continue;
            };
            match self.try_key(ctx, account, row).await {
                Ok(true) => step = Step::Worked,
                Ok(false) => {}
                Err(error) if error.fault() == Fault::Database => return Err(error),
                // Somebody keeps the account's row locked: the next round comes soon.
                Err(error) => {
                    warn!(account = %account.name, error = %Chain(&error), "the account's key was not stored yet");
                }
            }
        }
        if !begun.is_empty() {
            ctx.wake.dispatch.notify_one();
            probe::look_around(ctx, begun).await;
        }
        Ok(step)
    }

    fn is_to_be_announced(&self, known: &BTreeSet<AccountName>) -> bool {
        let announced = self.announced.as_ref();
        announced.is_none_or(|(at, names)| names != known || at.elapsed() >= SIGN_OF_LIFE)
    }

    fn is_due(&self, account: &AccountName) -> bool {
        let doubted = self.doubted.get(account);
        doubted.is_none_or(|doubted| Moment::now() >= doubted.again_at)
    }

    /// Has the key known, if it may be. True when it is.
    async fn try_key(
        &mut self,
        ctx: &Arc<Context>,
        account: &Arc<Account>,
        row: &Keys,
    ) -> Result<bool, DbError> {
        let most = i64::try_from(wire::CHECK_IDS).unwrap_or(i64::MAX);
        let traces = keys::traces(&ctx.pool, &account.name, ctx.worker, most).await?;
        let own = account.fingerprint();
        let known = Known {
            stored: row.stored.as_deref(),
            invoices: &traces.invoices,
            may_have_sent: traces.may_have_sent,
            is_served: traces.served_on.is_some(),
        };
        let before = row.stored.as_deref();
        let doubt = match standing(own, known) {
            Standing::Serve => return Ok(true),
            Standing::Take => {
                let alone = before.map(|_| ctx.worker);
                let only = [own.to_owned()];
                return keys::store(&ctx.pool, &account.name, before, &only, alone).await;
            }
            Standing::Refuse(doubt) => doubt,
            Standing::Ask => {
                if !ctx.take_one(&account.name, Purpose::Probe).await? {
                    return Ok(false);
                }
                match ask(account, &traces.invoices).await {
                    Ok(()) => {
                        info!(account = %account.name, "ApiPay knows the account's invoices by its new key");
                        let all = with(before.unwrap_or_default(), own);
                        return keys::store(&ctx.pool, &account.name, before, &all, None).await;
                    }
                    Err(doubt) => doubt,
                }
            }
        };
        self.refuse(ctx, account, doubt, traces.invoices.len())
            .await?;
        Ok(false)
    }

    async fn refuse(
        &mut self,
        ctx: &Context,
        account: &Account,
        doubt: Doubt,
        asked: usize,
    ) -> Result<(), DbError> {
        let name = &account.name;
        let times = self.doubted.get(name).map_or(0, |doubted| doubted.times) + 1;
        let wait = probe_delay(&ctx.rules.breaker, times, None, ctx.jitter());
        let doubted = Doubted {
            times,
            again_at: Moment::now().after(wait),
        };
        self.doubted.insert(name.clone(), doubted);
        warn!(account = %name, ?doubt, "the account's key is not known to be of its organisation; nothing of it is served");
        if doubt == Doubt::Unanswered && times < UNCLEAR_MOST {
            return Ok(());
        }
        let about = About {
            account: Some(name),
            kind: alarm::ORGANIZATION,
            subject: account.fingerprint(),
            severity: "critical",
        };
        let text = alarm::other_organization(name, doubt, asked, ctx.worker, &ctx.host);
        alerts::say(&ctx.pool, &about, &text).await?;
        ctx.wake.deliver.notify_one();
        Ok(())
    }
}

/// The accounts whose key is known.
fn known(ctx: &Context, stored: &[Keys]) -> BTreeSet<AccountName> {
    let is_known = |account: &&Arc<Account>| {
        let row = stored
            .iter()
            .find(|row| row.account == account.name.as_str());
        let keys = row.and_then(|row| row.stored.as_ref());
        keys.is_some_and(|keys| keys.iter().any(|key| key == account.fingerprint()))
    };
    let known = ctx.accounts.values().filter(is_known);
    known.map(|account| account.name.clone()).collect()
}

/// Asks the gateway whether it knows these invoices by the account's key.
async fn ask(account: &Account, invoices: &[i64]) -> Result<(), Doubt> {
    let timed = account.call(&wire::check_invoices(invoices)).await;
    let rows = wire::read_check(&timed);
    let ids: Option<Vec<i64>> = rows.map(|rows| rows.iter().map(|row| row.id).collect());
    shown(invoices, ids.as_deref())
}
