//! Which keys are known to be of the organization that an account is for.

use uuid::Uuid;

use super::{ACCOUNT_PATIENCE_MS, DbError, Pool, Task};
use crate::domain::account::AccountName;

/// The fingerprints of an account's keys.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The account.
    pub account: String,
    /// Those of its organization; none before a daemon has served it.
    pub stored: Option<Vec<String>>,
}

/// How the key of an account that is not served is announced.
pub fn doubt(account: &AccountName, fingerprint: &str) -> String {
    format!("{account} {fingerprint}")
}

/// The keys of these accounts.
pub async fn keys(pool: &Pool, accounts: &[String]) -> Result<Vec<Keys>, DbError> {
    sqlx::query_as!(
        Keys,
        "select name as account, key_fingerprints as stored from apipay.accounts where name = any ($1)",
        accounts,
    )
    .fetch_all(pool)
    .await
    .task("read the keys of the accounts")
}

/// Those of these accounts which no open transaction gives to another organization: it would hold their quota's lock.
/// Who else holds that, as a claim does for a moment, is not waited for either.
pub async fn settled(pool: &Pool, accounts: &[String]) -> Result<Vec<String>, DbError> {
    if accounts.is_empty() {
        return Ok(Vec::new());
    }
    sqlx::query!(
        "with patience as materialized (select set_config('lock_timeout', $2, true))
         insert into apipay._quotas (account)
         select given.name from patience, unnest($1::text[]) as given (name)
          where not exists (select from apipay._quotas q where q.account = given.name)
             on conflict do nothing",
        accounts,
        ACCOUNT_PATIENCE_MS,
    )
    .execute(pool)
    .await
    .task("make the quotas of the accounts")?;
    sqlx::query_scalar!(
        "with patience as materialized (select set_config('lock_timeout', $2, true))
         select q.account from patience, apipay._quotas q where q.account = any ($1) for share of q skip locked",
        accounts,
        ACCOUNT_PATIENCE_MS,
    )
    .fetch_all(pool)
    .await
    .task("look whether an account is being given to another organization")
}

/// What a key that is not known has to do with.
#[derive(Clone, Debug)]
pub struct Traces {
    /// The newest invoices that the account's organization has.
    pub invoices: Vec<i64>,
    /// Whether a job may have been sent, and its end is not known.
    pub may_have_sent: bool,
    /// The machine of another daemon that serves the account.
    pub served_on: Option<String>,
    /// Whether a person has given the account to another organization.
    pub was_given_over: bool,
}

/// What an account has at the gateway, with at most so many invoices, and whether a daemon besides this one serves it.
pub async fn traces(
    pool: &Pool,
    account: &AccountName,
    worker: Uuid,
    most: i64,
) -> Result<Traces, DbError> {
    sqlx::query_as!(
        Traces,
        r#"select array(select i.id from (select n.id, n.shown_to from apipay.invoices n
                                          where n.account = a.name order by n.id desc limit 100) i
                         where i.shown_to = any (a.key_fingerprints)
                         order by i.id desc limit $3) as "invoices!",
                  exists (select from apipay.jobs j where j.account = a.name and j.state = 'uncertain')
                  or exists (select from apipay.jobs j where j.account = a.name and j.state = 'sending')
                  or exists (select from apipay.jobs j where j.account = a.name and j.state = 'accepted')
                  or exists (select from apipay.jobs j
                              where j.account = a.name and j.state in ('parked', 'held') and j.unproven_since is not null)
                  or exists (select from apipay.jobs j
                              where j.account = a.name and j.state = 'queued' and j.id > 0 and j.unproven_since is not null)
                    as "may_have_sent!",
                  apipay._serving(a.name, $2) as served_on,
                  a.organization_since is not null as "was_given_over!"
             from apipay.accounts a
            where a.name = $1"#,
        account.as_str(),
        worker,
        most,
    )
    .fetch_one(pool)
    .await
    .task("read what the account has at the gateway")
}

/// Stores the keys of an account, unless they are not those of `before` any more. With `alone`, they are stored only
/// while no daemon besides that one serves the account. True when they were.
pub async fn store(
    pool: &Pool,
    account: &AccountName,
    before: Option<&[String]>,
    after: &[String],
    alone: Option<Uuid>,
) -> Result<bool, DbError> {
    sqlx::query!(
        "with patience as materialized (select set_config('lock_timeout', $5, true))
         update apipay.accounts a
            set key_fingerprints = $3, updated_at = now()
           from patience
          where a.name = $1 and a.key_fingerprints is not distinct from $2
            and ($4::uuid is null or apipay._serving(a.name, $4) is null)",
        account.as_str(),
        before,
        after,
        alone,
        ACCOUNT_PATIENCE_MS,
    )
    .execute(pool)
    .await
    .task("store the account's key")
    .map(|done| done.rows_affected() > 0)
}
