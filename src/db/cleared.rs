//! Ends of alerts whose cause is gone.

use std::time::Duration;

use super::{ACCOUNT_PATIENCE_MS, DbError, Pool, Task};

/// How long alerts have to stay before [`resolve`] ends them.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long an account has to stay active that was resumed without proof.
    pub well_for: Duration,
    /// How long no cap has to block an account.
    pub unblocked_for: Duration,
    /// For how long this daemon has had the database. Before, time has passed in which nothing could be tried, and no
    /// daemon could give a sign of life: it says nothing of whether the cause is gone.
    pub served_for: Duration,
}

/// Has the alert of a park that is over and may begin again say that the account is well, since when, and until when the alert
/// is kept open. That is no news.
pub async fn tell_well(pool: &Pool, patience: Patience) -> Result<(), DbError> {
    sqlx::query!(
        r#"with patience as materialized (select set_config('lock_timeout', $3, true)),
         well as materialized (
           select l.id, a.name, a.resumed_at, a.doubted_since is not null as is_doubted, l.details ->> 'reason' as reason,
                  greatest(a.resumed_at, now() - make_interval(secs => $2)) + make_interval(secs => $1) as until
             from patience, apipay.alerts l
             join apipay.accounts a on a.name = l.account
            where l.kind = 'account_parked' and l.resolved_at is null and l.subject = ''
              and a.state = 'active' and a.resumed_at is not null and (a.doubted_since is not null or a.parks_follow)
              -- A start begins to count again.
              and ((l.details ->> 'well_since')::timestamptz is distinct from a.resumed_at
                   or (l.details ->> 'kept_until')::timestamptz < now()))
         update apipay.alerts l
            set summary = format(
                  case when w.is_doubted
                       then 'Account %s was parked%s and is well again since %s, as ApiPay''s answer to a probe says: its payments are sent. This alert is kept open until one has got through, or, if it stays so, until %s.'
                       else 'Account %s was parked again and again%s and is well again since %s: its payments are sent. This alert is kept open, if it stays so, until %s.' end,
                  w.name, ' (' || w.reason || ')', to_char(w.resumed_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
                  to_char(w.until at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')),
                action = 'nothing now: the alert ends by itself, and says so should the account be parked again',
                details = l.details || jsonb_build_object('well_since', w.resumed_at, 'kept_until', w.until)
           from well w
          where l.id = w.id and l.resolved_at is null"#,
        super::seconds(patience.well_for),
        super::seconds(patience.served_for),
        ACCOUNT_PATIENCE_MS,
    )
    .execute(pool)
    .await
    .task("say that an account is well again")
    .map(|_| ())
}

/// Ends alerts whose cause is gone. That is so when
///
/// - the job that was held, overdue or stuck has moved on, or the daemon that had the outcome of a stuck job in its memory
///   has ended;
/// - the invoice that had failed is not to be paid any more, or its money was given back;
/// - the refund of a job that had ended has failed;
/// - the gateway shows what it has of a job that ended unseen, or all that was missing;
/// - a panic is an hour ago;
/// - no cap has blocked the account for [`Patience::unblocked_for`];
/// - the account is active, and something got through since it was resumed without proof, or it has stayed so for
///   [`Patience::well_for`], as it always must when its parks follow each other;
/// - a key is known to be of its account, or no daemon has it any more.
///
/// An alert that another session has locked is left for later. Returns how many ended.
pub async fn resolve(pool: &Pool, patience: Patience) -> Result<u64, DbError> {
    sqlx::query_file!(
        "src/db/cleared.sql",
        super::seconds(patience.well_for),
        super::seconds(patience.unblocked_for),
        super::seconds(patience.served_for),
    )
    .execute(pool)
    .await
    .task("resolve cleared alerts")
    .map(|done| done.rows_affected())
}

/// Resolves alerts that named who keeps a job locked: of jobs that nobody has locked any more, or that are held by
/// another blocker than the alert names. `held` are those seen locked, each with its blocker's name.
pub async fn resolve_unlocked(pool: &Pool, held: &[(i64, Option<String>)]) -> Result<u64, DbError> {
    let (jobs, blockers): (Vec<i64>, Vec<Option<String>>) = held.iter().cloned().unzip();
    sqlx::query!(
        "with told as materialized (
           select l.id, (l.details ->> 'job')::bigint as job, l.details ->> 'blocker' as blocker
             from apipay.alerts l
            where l.kind = 'job_stuck' and l.resolved_at is null and l.details @> '{\"locked\": true}'
              for no key update skip locked),
         free as materialized (
           select j.id from apipay.jobs j where j.id = any (array(select job from told))
              for no key update skip locked)
         update apipay.alerts l
            set resolved_at = now(), resolution = 'the transaction that kept the job locked does so no more'
          where l.id = any (array(
            select t.id from told t
             where t.job in (select id from free)
                or exists (select from unnest($1::bigint[], $2::text[]) as h(job, blocker)
                            where h.job = t.job and h.blocker is distinct from t.blocker)))",
        &jobs,
        &blockers as &[Option<String>],
    )
    .execute(pool)
    .await
    .task("resolve alerts of locked jobs")
    .map(|done| done.rows_affected())
}
