-- Lets one job of a parked account through: the gateway says that it is well, the job will tell.
--
-- $1 worker   $2 lease in seconds   $3 account   $4 operations to choose from   $5 second of the quota
with granted as (
  -- The account is locked before the job, as _resume locks them.
  select apipay._take_quota($3, 1, 'probe', $5) = 1 as yes
  where set_config('lock_timeout', '1s', true) is not null
),
parked as (
  select id from apipay.jobs
  where (select yes from granted) and account = $3 and operation = any ($4::text[]) and unproven_since is null
    and state = 'parked' and (expires_at is null or expires_at > now())
  order by id
  limit 1
  for no key update skip locked
),
queued as (
  select id from apipay.jobs
  where (select yes from granted) and not exists (select from parked)
    and account = $3 and operation = any ($4::text[]) and unproven_since is null
    and state = 'queued' and run_at <= now() and (expires_at is null or expires_at > now())
  order by priority desc, run_at, id
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
select id as "id!", account as "account!", operation as "operation!",
       apipay._params_among_others(params) as params, token as "token!",
       generation as "generation!", epoch as "epoch!", attempts as "attempts!", lookups as "lookups!",
       apipay._past(unproven_since) as unproven_since, apipay._past(absent_since) as absent_since,
       apipay._past(failing_since) as failing_since, invoice_id, apipay._bytes(baseline::text) as baseline, now() as "now!"
from claimed
