-- Claims uncertain jobs that are due for a look-up, and opens the attempts of the look-ups.
--
-- The claim is a lease until run_at, not a state: a worker that dies leaves the job uncertain and
-- due again.
-- $1 worker   $2 accounts   $3 most jobs of each   $4 seconds until another worker may try
-- $5 second of the quota   $6 jobs that are set aside   $7 the only jobs to look at, or null
-- $8 seconds to which no look-up is ever put off   $9 seconds for which nobody else asks where one at a time does
-- $10 how long to wait for a lock
with slow as (
  -- Accounts whose look-ups get no clear answer and are due again. Of several daemons one has the row.
  select r.account as name from apipay._reads r
  where r.account = any ($2::text[]) and r.kind = 'look_up'
    and (r.trial_at <= now() or r.trial_at > now() + make_interval(secs => $8))
  order by r.account
  for no key update skip locked
),
asking as materialized (
  -- While look-ups get no clear answer, one at a time asks.
  select account.name, case when r.trial_at is null then room.jobs else 1 end as most
  from unnest($2::text[], $3::int[]) as room(account, jobs)
  join apipay.accounts account on account.name = room.account
  left join apipay._reads r on r.account = account.name and r.kind = 'look_up'
  where (account.state = 'active' or account.delivery_error is not null)
    and (account.blocked_until is null or account.blocked_until <= now())
    and (r.trial_at is null or account.name = any (array(select name from slow)))
    and (select set_config('lock_timeout', $10, true)) is not null
),
due as (
  select d.id, d.account, d.epoch, row_number() over (partition by d.account order by d.run_at, d.id) as place
  from asking a
  cross join lateral (
    select j.id, j.account, j.run_at, j.epoch from apipay.jobs j
    where j.account = a.name and j.state = 'uncertain' and j.run_at <= now()
      and j.id <> all ($6::bigint[]) and ($7::bigint[] is null or j.id = any ($7))
    order by j.run_at, j.id
    limit a.most
    for no key update of j skip locked) d
),
granted as (
  select c.account, apipay._take_quota(c.account, c.wanted, 'lookup', $5) as requests
  from (select account, count(*)::int as wanted from due group by account order by account) c
),
to_claim as materialized (
  select d.id, d.epoch from due d join granted g on g.account = d.account where d.place <= g.requests
),
claimed as (
  update apipay.jobs j
     -- A job that is tried alone ($7) may have the number of an earlier one, as in claim.sql.
     set epoch = 1 + case when $7 is null then j.epoch else greatest(j.epoch, (
           select max(t.epoch) from apipay.attempts t where t.job_id = j.id)) end,
         lookups = j.lookups + 1,
         run_at = now() + make_interval(secs => $4), updated_at = now()
   where j.id = any (array(select id from to_claim))
  returning j.*
),
taken as (
  -- A trigger may have had another row stored. The full join is hashed, as in claim.sql.
  select c.* from claimed c full join to_claim t on t.id = c.id
   where coalesce(c.state = 'uncertain' and c.epoch > t.epoch, false)
),
put_off as (
  -- No other daemon asks until this look-up is over.
  update apipay._reads set trial_at = now() + make_interval(secs => $9)
   where kind = 'look_up'
     and account = any (array(select s.name from slow s where s.name = any (array(select account from taken))))
),
to_abandon as materialized (
  select ctid as place from apipay.attempts
  where job_id = any (array(select id from taken)) and kind = 'lookup' and finished_at is null
),
abandoned as (
  update apipay.attempts t
     set finished_at = now(), effect = 'unknown', error_code = 'lease_expired',
         message = 'the worker did not finish this look-up'
   where t.ctid = any (array(select place from to_abandon))
  returning t.finished_at
),
opened as (
  insert into apipay.attempts (job_id, epoch, account, kind, worker)
  select id, epoch, account, 'lookup', $1 from taken
  returning job_id
)
select id as "id!", account as "account!", operation as "operation!", state as "state!",
       apipay._params_among_others(params) as params, token as "token!",
       generation as "generation!", epoch as "epoch!", attempts as "attempts!", lookups as "lookups!",
       apipay._past(unproven_since) as unproven_since, apipay._past(absent_since) as absent_since,
       apipay._past(failing_since) as failing_since, coalesce(expires_at <= now(), false) as "is_expired!",
       operation = 'invoice.cancel' and exists (select from apipay.invoices i where i.account = taken.account and i.id = taken.invoice_id) as "is_target_known!",
       apipay._past(newest.started_at) as sent_at,
       -- Whose effect is not known, or that was answered with what has the key.
       (select count(*) > 1 from (
          select from apipay.attempts t
           where t.job_id = taken.id and t.kind = 'send' and apipay._asked_first(t.request) is null
             and (coalesce(t.effect, 'unknown') = 'unknown' or (t.effect = 'applied' and t.http_status = 409))
           limit 2) sent) as "is_repeated!",
       case when absent_since = apipay._denied() then apipay._past(coalesce(denied_at, updated_at)) end as denied_since,
       -- Of a bill: what another job has is not asked about by its number, which is no proof then, but by the job's name.
       case when operation = 'invoice.create' and invoice_id is not null and apipay._owner(account, operation, invoice_id, null, token) is not null then null else invoice_id end as "invoice_id?", apipay._bytes(baseline::text) as baseline,
       coalesce(newest.effect = 'applied' and newest.http_status = 409, false) as "is_key_taken!",
       case when stated_id is not null then jsonb_build_object(
         'id', stated_id, 'anyway', coalesce(stated_anyway, false),
         'owner', apipay._owner(account, operation, stated_id, invoice_id, token)) end as "stated?: Json<Stated>",
       retry_of is not null as "is_copy!", coalesce(stated_unwanted, false) as "is_unwanted!", least(now(), clock_timestamp()) as "now!"
from taken
left join lateral (
  select t.started_at, t.effect, t.http_status from apipay.attempts t
   where t.job_id = taken.id and t.kind = 'send' order by t.epoch desc limit 1) newest on true
-- Once for all: nothing is asked of which the attempt was not stored.
where (select apipay._all_changed('apipay.jobs', (select count(*) from to_claim), (select count(*) from claimed), (select count(*) from taken)))
  and (select apipay._all_changed('apipay.attempts', (select count(*) from taken), (select count(*) from opened)))
  and (select apipay._all_changed('apipay.attempts', (select count(*) from to_abandon), (select count(*) from abandoned),
                                  (select count(*) from abandoned where finished_at is not null)))
