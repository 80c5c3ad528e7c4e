//! The outbox of alerts: what each channel has to be told, and what it was told.

use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;

use super::{ACCOUNT_PATIENCE_MS, DbError, Pool, Task};
use crate::domain::job::MOST_COUNTED;

/// Puts into the outbox what each channel has to be told: that an alert began, that it is still
/// open, that it ended, however long no daemon was there to tell it. One that began and ended between two calls is told of too; of what had ended before a
/// channel was first there that channel is told nothing. An alert that another session has locked is left for
/// later. Returns how many deliveries there are more.
pub async fn fill_outbox(
    pool: &Pool,
    channels: &[String],
    repeat: Duration,
) -> Result<u64, DbError> {
    sqlx::query!(
        "with patience as materialized (select set_config('lock_timeout', $3, true)),
         made as (
           insert into apipay._channels (name, after)
           select c.name, coalesce((select max(id) from apipay.alerts where resolved_at is not null), 0)
             from unnest($1::text[]) as c(name)
            where not exists (select from apipay._channels k where k.name = c.name)
           on conflict do nothing
           returning name, after),
         channel as materialized (
           select k.name, k.after, least(k.filled_at, now()) as filled_at from apipay._channels k where k.name = any ($1)
           union all
           select name, after, now() from made),
         news as materialized (
         select l.id, c.name, n.status, n.sequence
           from patience cross join (select * from apipay.alerts where resolved_at is null
                 union all
                 -- What somebody has resolved in a transaction may be seen later than it happened.
                 select * from apipay.alerts where resolved_at > (select min(filled_at) from channel) - interval '1 hour') l
           cross join channel c
           cross join lateral (
             select 'firing' as status, 0 as sequence
             union all
             -- More was learned: told at once, and further news with the usual repeats.
             select 'repeat', 0 where l.resolved_at is null and l.changed_at is not null and l.incidents = 0
             union all
             -- It is about something else than what a person had seen to.
             select 'repeat', -l.incidents where l.resolved_at is null and l.incidents > 0
             union all
             select 'repeat', floor(extract(epoch from now() - l.opened_at)::float8 / $2::float8)::int
              where l.resolved_at is null and l.acked_at is null and now() - l.opened_at >= make_interval(secs => $2)
             union all
             select 'resolved', 0 where l.resolved_at is not null
           ) n
          where (l.resolved_at is null or l.id > c.after
                 or exists (select from apipay.alert_deliveries d
                             where (d.alert_id, d.channel, d.status, d.sequence) = (l.id, c.name, 'firing', 0)
                            offset 0))
            and not exists (select from apipay.alert_deliveries d
                             where (d.alert_id, d.channel, d.status, d.sequence) = (l.id, c.name, n.status, n.sequence)
                            offset 0)),
         free as materialized (
           select a.id from apipay.alerts a where a.id = any (array(select id from news))
              for key share skip locked),
         filled as (
           update apipay._channels set filled_at = now()
            where name = any (array(
                    select k.name from apipay._channels k
                     where k.name = any ($1) and k.filled_at not between now() - interval '10 minutes' and now()
                       for no key update skip locked))
              -- Otherwise something is left for later.
              and not exists (select from news where id not in (select id from free)))
         insert into apipay.alert_deliveries (alert_id, channel, status, sequence)
         -- In this order they are delivered: of two alerts with one fingerprint the end of the older one comes first.
         select id, name, status, sequence from news where id in (select id from free)
         order by id, status = 'resolved', sequence
         on conflict do nothing",
        channels,
        repeat.as_secs_f64(),
        ACCOUNT_PATIENCE_MS,
    )
    .execute(pool)
    .await
    .task("fill the outbox of alerts")
    .map(|done| done.rows_affected())
}

/// A delivery that this worker delivers.
#[derive(Clone, Debug)]
pub struct DueDelivery {
    /// The delivery.
    pub id: i64,
    /// The channel.
    pub channel: String,
    /// `firing`, `repeat` or `resolved`.
    pub status: String,
    /// Tries so far, without this one.
    pub tries: i32,
    /// The alert.
    pub alert_id: i64,
    /// The account it concerns.
    pub account: Option<String>,
    /// Its kind.
    pub kind: String,
    /// What it is about, where several of its kind may be open; else empty.
    pub subject: String,
    /// `critical` or `warning`.
    pub severity: String,
    /// What happened.
    pub summary: String,
    /// What to do.
    pub action: String,
    /// Codes and ids.
    pub details: Value,
    /// Since when.
    pub opened_at: OffsetDateTime,
    /// Until when.
    pub resolved_at: Option<OffsetDateTime>,
    /// How it ended.
    pub resolution: Option<String>,
}

/// Claims the oldest delivery of a channel that is due; until `lease` is over no other worker delivers it.
///
/// A channel gets the deliveries of alerts about the same in their order: a later one waits for the earlier. To a receiver they
/// are one alert, and the last word counts.
pub async fn claim_delivery(
    pool: &Pool,
    channel: &str,
    lease: Duration,
) -> Result<Option<DueDelivery>, DbError> {
    sqlx::query_as!(
        DueDelivery,
        r#"with waiting as materialized (
             select d.id, d.next_try_at, coalesce(l.account, '') as account, l.kind, l.subject
               from (select id, alert_id, channel, next_try_at from apipay.alert_deliveries where delivered_at is null offset 0) d
               cross join lateral (select account, kind, subject from apipay.alerts where id = d.alert_id offset 0) l
              where d.channel = $1),
           first as (
             select distinct on (account, kind, subject) id, next_try_at from waiting order by account, kind, subject, id),
           due as (
             select d.id from apipay.alert_deliveries d
              where d.id = any (array(select id from first where next_try_at <= now() order by id limit 20))
                and d.delivered_at is null and d.next_try_at <= now()
              order by d.id
              limit 1
              for no key update skip locked),
           claimed as (
             update apipay.alert_deliveries d
                set tries = d.tries + 1, next_try_at = now() + make_interval(secs => $2)
              where d.id = any (array(select id from due))
          returning d.*)
           select c.id as "id!", c.channel as "channel!", c.status as "status!", c.tries - 1 as "tries!",
                  l.id as "alert_id!", l.account as "account?", l.kind as "kind!", l.subject as "subject!", l.severity as "severity!",
                  l.summary as "summary!", l.action as "action!", l.details as "details!",
                  l.opened_at as "opened_at!", l.resolved_at as "resolved_at?", l.resolution as "resolution?"
             from claimed c
             cross join lateral (select * from apipay.alerts where id = c.alert_id offset 0) l"#,
        channel,
        lease.as_secs_f64(),
    )
    .fetch_optional(pool)
    .await
    .task("claim a delivery")
}

/// What is at stake in an account with whatever an alert tells of: what waits for its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtStake {
    /// Its jobs, up to [`MOST_COUNTED`] of each state.
    pub jobs: i64,
    /// The tenge in them, as far as their params say.
    pub amount: Option<rust_decimal::Decimal>,
}

/// Counts the jobs that wait while this alert is open; none are counted for an alert of the whole daemon.
pub async fn waiting(pool: &Pool, delivery: &DueDelivery) -> Result<Option<AtStake>, DbError> {
    let Some(account) = &delivery.account else {
        return Ok(None);
    };
    // The job that a park is told for is recorded as parked after that.
    let is_park = delivery.kind == "account_parked" && delivery.resolved_at.is_none();
    // When asking fails, what was accepted waits too.
    let is_of_reads = delivery
        .details
        .get("fails")
        .is_some_and(|fails| fails == "reads");
    sqlx::query_as!(
        AtStake,
        // One arm per index, none read to the end of a long queue.
        r#"select count(*) as "jobs!", case when sum(amount) = trunc(sum(amount)) then trunc(sum(amount)) else sum(amount) end as amount
             from ((select amount from apipay.jobs where account = $1 and state = 'queued' limit $2)
                   union all
                   (select amount from apipay.jobs where account = $1 and state = 'uncertain' limit $2)
                   union all
                   (select amount from apipay.jobs where account = $1 and state = 'parked' limit $2)
                   union all
                   (select amount from apipay.jobs where account = $1 and state = 'held' limit $2)
                   union all
                   (select amount from apipay.jobs where account = $1 and state = 'sending' and $3 limit $2)
                   union all
                   (select amount from apipay.jobs where account = $1 and state = 'accepted' and $4 limit $2)) j"#,
        account,
        MOST_COUNTED,
        is_park,
        is_of_reads,
    )
    .fetch_one(pool)
    .await
    .task("count what waits for an alert")
    .map(Some)
}

/// The delivery was delivered. Others of its channel that wait after a failed try wait no longer than `lease` from now:
/// whoever may be making one of them this moment has claimed it for no longer.
pub async fn delivered(pool: &Pool, id: i64, lease: Duration) -> Result<(), DbError> {
    sqlx::query!(
        "with patience as materialized (select set_config('lock_timeout', $2, true)),
         done as (
           update apipay.alert_deliveries d set delivered_at = now(), last_error = null
             from patience where d.id = $1
           returning d.channel),
         waiting as materialized (
           select d.id, d.channel, d.next_try_at
             from (select id, channel, next_try_at, last_error from apipay.alert_deliveries where delivered_at is null offset 0) d
             join done on done.channel = d.channel
            where d.last_error is not null and d.id <> $1),
         hurried as (
           update apipay.alert_deliveries d set next_try_at = now() + make_interval(secs => $3)
            where d.delivered_at is null
              and d.id = any (array(
                select h.id from apipay.alert_deliveries h
                 where h.id = any (array(select w.id from waiting w where w.next_try_at > now() + make_interval(secs => $3)))
                   and h.delivered_at is null and h.next_try_at > now() + make_interval(secs => $3)
                   for no key update skip locked)))
         update apipay._channels c set recovered = c.recovered + 1
          where c.name = any (array(
            select k.name from apipay._channels k where k.name in (select w.channel from waiting w) for no key update skip locked))",
        id,
        ACCOUNT_PATIENCE_MS,
        lease.as_secs_f64(),
    )
    .execute(pool)
    .await
    .task("close a delivery")
    .map(|_| ())
}

/// The delivery was not delivered: try again later.
pub async fn not_delivered(
    pool: &Pool,
    id: i64,
    after: Duration,
    error: &str,
) -> Result<(), DbError> {
    sqlx::query!(
        "with patience as materialized (select set_config('lock_timeout', $4, true))
         update apipay.alert_deliveries
            set next_try_at = now() + make_interval(secs => $2), last_error = $3
           from patience
          where id = $1",
        id,
        super::seconds(after),
        error,
        ACCOUNT_PATIENCE_MS,
    )
    .execute(pool)
    .await
    .task("put off a delivery")
    .map(|_| ())
}
