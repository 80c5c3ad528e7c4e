//! What is due and should be moving, who is there to move it, and the alerts that are told without the
//! database.

use std::time::Duration;

use rust_decimal::Decimal;
use time::OffsetDateTime;
use uuid::Uuid;

use super::accounts::AlertText;
use super::{ACCOUNT_PATIENCE_MS, DbError, Pool, Task};

/// What waits in an account, and a mark of each kind that changes when something of it moves.
#[derive(Clone, Debug, Default)]
pub struct DueWork {
    /// The account.
    pub account: String,
    /// Jobs that could be claimed now, counted to 11.
    pub due_jobs: i64,
    /// When jobs of it were last claimed.
    pub claimed: String,
    /// Whether the quota may be what they wait for.
    pub is_quota_tight: bool,
    /// The look-up that is due first.
    pub lookup: Option<String>,
    /// A job that was looked up often and to no answer at all.
    pub undecided: Option<i64>,
    /// The check of an invoice or refund that is due first.
    pub check: Option<String>,
    /// A lease that ran out and that nobody recovered.
    pub lease: Option<String>,
    /// Since when each send is refused for the account's limit, if jobs wait because of it.
    pub refused_sends: Option<OffsetDateTime>,
    /// Since when each read of some kind is, if something waits to be asked.
    pub refused_reads: Option<OffsetDateTime>,
    /// The code of the last refusal.
    pub blocked_reason: Option<String>,
    /// What it said.
    pub blocked_message: Option<String>,
    /// Until when the account waits because of it, if that is long.
    pub blocked_until: Option<OffsetDateTime>,
    /// A job that waited for another one, whose turn has come.
    pub turn: Option<String>,
    /// Whether jobs of it expired more than a minute ago and have not been ended.
    pub has_expired: bool,
    /// When the probe was due that was not made, while the account is parked.
    pub probe: Option<OffsetDateTime>,
    /// Living daemons that have the account in their configuration.
    pub served_by: i64,
    /// The last sign of life of any of them, if that is older than one may be.
    pub silent_since: Option<OffsetDateTime>,
    /// Whether an operator has parked it.
    pub is_left_alone: bool,
    /// The machine of the daemon that served it last, if that one has stopped and was not started again.
    pub stopped_host: Option<String>,
    /// The last sign of life of the daemon that served it there.
    pub stopped_at: Option<OffsetDateTime>,
    /// Whether that daemon was stopped and had recorded all that it did, and did not just fall silent.
    pub was_stopped_properly: bool,
    /// Kinds of its open alerts; with what fails, of the one that has several causes.
    pub open_alerts: Vec<String>,
    /// The jobs of its open alerts about stuck ones.
    pub stuck: Vec<String>,
}

/// Puts back a stop that a restore of the data has lost.
pub async fn recall(pool: &Pool) -> Result<(), DbError> {
    sqlx::query!(
        "with patience as materialized (select set_config('lock_timeout', $1, true))
         select apipay._recall() from patience",
        ACCOUNT_PATIENCE_MS,
    )
    .execute(pool)
    .await
    .task("look whether a stop was lost")
    .map(|_| ())
}

/// Gives a sign of life of this daemon, with the accounts that it serves and the keys that it doubts (see
/// [`super::organization::doubt`]).
pub async fn announce(
    pool: &Pool,
    worker: Uuid,
    host: &str,
    accounts: &[String],
    doubted: &[String],
) -> Result<(), DbError> {
    sqlx::query!(
        "select apipay._announce($1, $2, $3, $4, $5)",
        worker,
        host,
        env!("CARGO_PKG_VERSION"),
        accounts,
        doubted,
    )
    .execute(pool)
    .await
    .task("store that we are here")
    .map(|_| ())
}

/// Stores that this daemon has stopped, with everything recorded.
pub async fn leave(pool: &Pool, worker: Uuid) -> Result<(), DbError> {
    sqlx::query!("select apipay._leave($1)", worker)
        .execute(pool)
        .await
        .task("store that we have left")
        .map(|_| ())
}

/// The accounts in which something is due. A daemon counts as living for so long after its last sign.
pub async fn due(
    pool: &Pool,
    alive_for: Duration,
    unstored: &Unstored,
) -> Result<Vec<DueWork>, DbError> {
    sqlx::query_file_as!(
        DueWork,
        "src/db/progress.sql",
        alive_for.as_secs_f64(),
        &unstored.invoices,
        &unstored.refunds,
    )
    .fetch_all(pool)
    .await
    .task("compare what is due with what moved")
}

/// Mirrors about which `job_stuck` is open, so that their overdue checks are no news; by their keys.
#[derive(Clone, Debug, Default)]
pub struct Unstored {
    /// Invoices.
    pub invoices: Vec<String>,
    /// Refunds.
    pub refunds: Vec<String>,
}

/// A stop of all sending.
#[derive(Clone, Debug)]
pub struct Stop {
    /// How long ago, in seconds.
    pub seconds: f64,
    /// The role that stopped it.
    pub changed_by: String,
    /// Why.
    pub reason: String,
}

/// Whether all sending is stopped, by whom and why.
pub async fn stop(pool: &Pool) -> Result<Option<Stop>, DbError> {
    sqlx::query_as!(
        Stop,
        r#"select extract(epoch from now() - changed_at)::float8 as "seconds!", changed_by,
                  coalesce(apipay._mask_phones(reason), '') as "reason!"
             from apipay._control where stopped"#
    )
    .fetch_optional(pool)
    .await
    .task("read whether sending is stopped")
}

/// Deliveries of a channel that were tried and not delivered.
#[derive(Clone, Debug)]
pub struct Undelivered {
    /// The channel.
    pub channel: String,
    /// How many.
    pub deliveries: i64,
    /// How often one was delivered while another one waited so.
    pub recovered: i64,
    /// Why its last try failed.
    pub error: String,
}

impl Undelivered {
    /// Their number, for a sentence.
    pub fn counted(&self) -> String {
        match self.deliveries {
            1 => "1 delivery waits".to_owned(),
            more => format!("{more} deliveries wait"),
        }
    }
}

/// What channels do not take: the log, and the webhook if this configuration has it. What is left of one that was taken out
/// of every configuration is tried by nobody, and waits until it is put back.
pub async fn undelivered(pool: &Pool, has_webhook: bool) -> Result<Vec<Undelivered>, DbError> {
    sqlx::query_as!(
        Undelivered,
        r#"select d.channel as "channel!", count(*) as "deliveries!", coalesce(max(c.recovered), 0) as "recovered!",
                  coalesce((array_agg(d.last_error order by d.id))[1], '') as "error!"
             from apipay.alert_deliveries d
             left join apipay._channels c on c.name = d.channel
            where d.delivered_at is null and d.last_error is not null and (d.channel <> 'webhook' or $1)
            group by d.channel order by d.channel"#,
        has_webhook
    )
    .fetch_all(pool)
    .await
    .task("look for deliveries that failed")
}

/// How much waits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weight {
    /// When it was counted.
    pub counted_at: OffsetDateTime,
    /// Jobs, counted to [`MOST_WEIGHED`].
    pub jobs: i64,
    /// The tenge in them, as far as their params say.
    pub amount: Option<Decimal>,
}

/// Jobs that are counted at most.
pub const MOST_WEIGHED: i64 = 10_000;

/// Counts the jobs of these accounts that are due to be sent or looked up, and the money in them.
pub async fn weigh(pool: &Pool, accounts: &[String]) -> Result<Weight, DbError> {
    sqlx::query_as!(
        Weight,
        r#"select clock_timestamp() as "counted_at!", count(*) as "jobs!", case when sum(amount) = trunc(sum(amount)) then trunc(sum(amount)) else sum(amount) end as amount
             from (select w.amount
                     from unnest($1::text[]) as a(name)
                     cross join lateral (
                       (select j.amount from apipay.jobs j
                         where j.account = a.name and j.state = 'queued' and apipay._is_in_turn(j.reason) and j.id > 0
                           and j.run_at <= now() limit $2)
                       union all
                       (select j.amount from apipay.jobs j
                         where j.account = a.name and j.state = 'uncertain' and j.run_at <= now() limit $2)
                     ) w
                    limit $2) waiting"#,
        accounts,
        MOST_WEIGHED,
    )
    .fetch_one(pool)
    .await
    .task("count what waits")
}

/// What is known of one incident.
#[derive(Clone, Debug)]
pub struct Incident<'a> {
    /// The account; none: the whole daemon.
    pub account: Option<&'a str>,
    /// What it is about, where several may be open; else empty.
    pub subject: &'a str,
    /// How long it has been known.
    pub age: Duration,
    /// `critical` or `warning`.
    pub severity: &'a str,
    /// What it says.
    pub text: &'a AlertText,
    /// Channels that were told of it past the database.
    pub told: &'a [String],
    /// The number of the repeat that they were told last; 0: none.
    pub repeats: i32,
}

/// Writes the alert of an incident, or brings an open one up to date, and notes what was told already:
/// the outbox does not tell it again. Another daemon may have written it, and even resolved it.
pub async fn keep(pool: &Pool, kind: &str, incident: &Incident<'_>) -> Result<(), DbError> {
    sqlx::query!(
        "with patience as materialized (select set_config('lock_timeout', $10, true)),
         known as (
           select l.id from (select * from apipay.alerts where resolved_at is null
                             union all
                             -- One that another daemon has told of and resolved began when ours did; one that began long before is another.
                             select * from apipay.alerts
                              -- What lies ahead was told before the clock was set back.
                              where resolved_at > now() - make_interval(secs => $6) and resolved_at < now() + interval '15 s'
                                and opened_at > now() - make_interval(secs => $6 + 15)) l
            where coalesce(l.account, '') = coalesce($1, '') and l.kind = $2 and l.subject = $11
            order by l.id desc limit 1),
         renewed as (
           -- That it has begun to cost payments is news.
           update apipay.alerts l
              set severity = $3, summary = $4, action = $5, details = $7,
                  changed_at = case when l.severity = 'warning' and $3 = 'critical' then now() else l.changed_at end
             from patience
            where l.id = (select id from known) and l.resolved_at is null and l.summary <> $4),
         opened as (
           insert into apipay.alerts (account, kind, subject, severity, summary, action, details, opened_at)
           select $1, $2, $11, $3, $4, $5, $7, now() - make_interval(secs => $6)
             from patience
            where not exists (select from known)
           on conflict do nothing
           returning id)
         insert into apipay.alert_deliveries (alert_id, channel, status, sequence, delivered_at)
         select id, channel, case sequence when 0 then 'firing' else 'repeat' end, sequence, now()
           from (select id from known union all select id from opened) alert,
                unnest($8::text[]) as channel, generate_series(0, $9) as sequence
          -- Once, whether one was opened or not.
          where (select apipay._all_changed('apipay.alerts', (select 1 - count(*) from known), (select count(*) from opened)))
         on conflict (alert_id, channel, status, sequence) do update
            set delivered_at = coalesce(alert_deliveries.delivered_at, now()), last_error = null",
        incident.account,
        kind,
        incident.severity,
        incident.text.summary,
        incident.text.action,
        incident.age.as_secs_f64(),
        incident.text.details,
        incident.told,
        incident.repeats,
        ACCOUNT_PATIENCE_MS,
        incident.subject,
    )
    .execute(pool)
    .await
    .task("open an alert")
    .map(|_| ())
}

/// Resolves the alert of an incident that is over.
pub async fn resolve(
    pool: &Pool,
    account: Option<&str>,
    kind: &str,
    subject: &str,
    resolution: &str,
) -> Result<(), DbError> {
    sqlx::query_scalar!(
        "with patience as materialized (select set_config('lock_timeout', $5, true))
         select apipay._resolve_alert($1, $2, $3, $4) from patience",
        account,
        kind,
        resolution,
        subject,
        ACCOUNT_PATIENCE_MS,
    )
    .fetch_one(pool)
    .await
    .task("resolve an alert")
    .map(|_| ())
}

/// The state of an account whose `no_progress` alert is about to be resolved.
#[derive(Clone, Debug, Default)]
pub struct AccountNow {
    /// Whether it is parked.
    pub is_parked: bool,
    /// Whether an operator has parked it.
    pub is_left_alone: bool,
    /// Whether a living daemon has it in its configuration.
    pub is_served: bool,
    /// Whether something of it is due to be sent or looked up, was told to wait, or is being sent.
    pub is_waiting: bool,
    /// Until when ApiPay limits it.
    pub blocked_until: Option<OffsetDateTime>,
    /// Whether jobs of it were claimed to be sent since it was told.
    pub was_claimed: bool,
    /// Jobs that came to be held since it was told.
    pub held: i64,
    /// Jobs that ApiPay has accepted and that are not at their end, and invoices that may still be paid, as far as they are
    /// counted.
    pub open: i64,
}

/// How an account stands; none when there is no such account. A daemon counts as living for so long after its last sign;
/// `kind` is that of the alert.
pub async fn standing(
    pool: &Pool,
    account: &str,
    alive_for: Duration,
    kind: &str,
) -> Result<Option<AccountNow>, DbError> {
    sqlx::query_as!(
        AccountNow,
        r#"select a.state = 'parked' as "is_parked!", coalesce(a.state = 'parked' and a.parked_by <> 'apipayd', false) as "is_left_alone!",
                  exists (select from apipay.daemons d
                           where d.seen_at > now() - make_interval(secs => $2) and not d.has_left and a.name = any (d.accounts)) as "is_served!",
                  exists (select from apipay.jobs j where j.account = a.name and j.state = 'sending')
                    or exists (select from apipay.jobs j
                                where j.account = a.name and j.state = 'queued' and apipay._is_in_turn(j.reason) and j.id > 0
                                  and j.run_at <= now())
                    or exists (select from apipay.jobs j where j.account = a.name and j.state = 'uncertain' and j.run_at <= now())
                    or exists (select from apipay.jobs j
                                where j.account = a.name and j.state in ('queued', 'uncertain')
                                  and j.reason in ('retry_after', 'cap_reached')) as "is_waiting!",
                  case when a.blocked_until > now() then a.blocked_until end as blocked_until,
                  coalesce((select q.claimed_at from apipay._quotas q where q.account = a.name)
                           >= (select min(l.opened_at) from apipay.alerts l
                                where coalesce(l.account, '') = a.name and l.kind = $4 and l.resolved_at is null), false) as "was_claimed!",
                  (select count(*) from (
                     select from apipay.jobs j
                      where j.account = a.name and j.state = 'held'
                        and j.updated_at >= (select min(l.opened_at) from apipay.alerts l
                                              where coalesce(l.account, '') = a.name and l.kind = $4 and l.resolved_at is null)
                      limit $3) given_up) as "held!",
                  (select count(*) from (
                     (select from apipay.jobs j where j.account = a.name and j.state = 'accepted' order by j.id limit $3)
                     union all
                     (select from apipay.invoices m where m.account = a.name and not m.settled limit $3)) unended) as "open!"
             from apipay.accounts a where a.name = $1"#,
        account,
        alive_for.as_secs_f64(),
        MOST_WEIGHED,
        kind,
    )
    .fetch_optional(pool)
    .await
    .task("read how an account stands")
}

/// An open alert that no living daemon remembers.
#[derive(Clone, Debug)]
pub struct LeftOpen {
    /// The account; none: all of them.
    pub account: Option<String>,
    /// What it is about.
    pub subject: String,
    /// What stood still, as codes.
    pub concerns: Vec<String>,
}

/// Open alerts of this kind that no living daemon remembers: each was opened by one that has ended since, or that has given no
/// sign of life for `alive_for`.
pub async fn left_open(
    pool: &Pool,
    kind: &str,
    alive_for: Duration,
) -> Result<Vec<LeftOpen>, DbError> {
    sqlx::query_as!(
        LeftOpen,
        r#"select l.account, l.subject,
                  case when jsonb_typeof(l.details -> 'concerns') = 'array'
                       then array(select jsonb_array_elements_text(l.details -> 'concerns')) else '{}' end as "concerns!"
             from apipay.alerts l
            where l.kind = $1 and l.resolved_at is null
              and not exists (select from apipay.daemons d
                               where d.worker::text = l.details ->> 'worker'
                                 and d.seen_at > now() - make_interval(secs => $2) and not d.has_left)"#,
        kind,
        alive_for.as_secs_f64()
    )
    .fetch_all(pool)
    .await
    .task("read what is told")
}
