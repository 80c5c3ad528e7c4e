-- Lets one job of a parked account through: the gateway says that it is well, the job will tell.
--
-- $1 worker   $2 lease in seconds   $3 account   $4 operations to choose from
--
-- Its quota has been taken. An operator may have taken the account over meanwhile: its row is locked, so that
-- a job is claimed before that or not at all. A job that somebody has locked is passed over.
with ours as (
  select a.delivery_error is not null as undelivered, apipay._capped(a) as capped from apipay.accounts a
  where set_config('lock_timeout', '1s', true) is not null
    and a.name = $3 and a.state = 'parked' and a.parked_by = 'apipayd'
  for no key update
),
parked as (
  -- One that waits for another job proves nothing, and neither does one that a cap refuses; no more than some are asked.
  select id from (
    select id, operation, invoice_id, priority, run_at from apipay.jobs
    where exists (select from ours) and account = $3 and operation = any ($4::text[]) and unproven_since is null
      and operation <> all (array(select unnest(capped) from ours))
      and state = 'parked' and (expires_at is null or expires_at > now())
    order by id
    limit 100
    for no key update skip locked) j
  where not (operation = 'invoice.refund' and apipay._is_behind_refund($3, invoice_id, priority, run_at, id))
  limit 1
),
eldest as (
  select j.id from ours cross join lateral (
    select id, operation, invoice_id, priority, run_at from apipay.jobs
    where not exists (select from parked)
      and account = $3 and operation = any ($4::text[]) and operation <> all (ours.capped)
      and (unproven_since is null or ours.undelivered)
      and state = 'queued' and apipay._is_in_turn(reason) and run_at <= now() and (expires_at is null or expires_at > now())
    order by priority desc, run_at, id
    limit 100) j
  where not (j.operation = 'invoice.refund' and apipay._is_behind_refund($3, j.invoice_id, j.priority, j.run_at, j.id))
),
queued as (
  -- Where what is accepted fails at Kaspi, one to which that has not happened yet, if there is one: should it
  -- be the job's trouble and not the account's, the next trial is another's.
  select id from apipay.jobs
  where id = any (array(select id from eldest)) and state = 'queued'
  order by unproven_since is not null, spared, priority desc, run_at, id
  limit 1
  for no key update skip locked
),
claimed as (
  update apipay.jobs j
     -- It may have the number of an earlier job, whose attempts are still here.
     set state = 'sending', reason = 'probe',
         epoch = 1 + greatest(j.epoch, (select max(t.epoch) from apipay.attempts t where t.job_id = j.id)),
         leased_by = $1, leased_until = now() + make_interval(secs => $2), updated_at = now()
   where j.id = any (array(select id from parked union all select id from queued))
  returning j.*
),
opened as (
  insert into apipay.attempts (job_id, epoch, account, kind, worker)
  select id, epoch, account, 'send', $1 from claimed
)
select id as "id!", account as "account!", operation as "operation!", state as "state!",
       apipay._params_among_others(params) as params, token as "token!",
       generation as "generation!", epoch as "epoch!", attempts as "attempts!", lookups as "lookups!",
       apipay._past(unproven_since) as unproven_since, apipay._past(absent_since) as absent_since,
       apipay._past(failing_since) as failing_since, invoice_id, apipay._bytes(baseline::text) as baseline, null::jsonb as "stated?: Json<Stated>", now() as "now!"
from claimed
