-- Lets one job of a parked account through: the gateway says that it is well, the job will tell.
--
-- $1 worker   $2 lease in seconds   $3 account   $4 jobs that no refund waits for   $5 the jobs to choose from
-- $6 how long to wait for a lock
--
-- Its quota has been taken. An operator may have taken the account over meanwhile: its row is locked, so that
-- a job is claimed before that or not at all. A job that somebody has locked is passed over.
with ours as (
  select a.delivery_error is not null as undelivered, apipay._capped(a) as capped from apipay.accounts a
  where set_config('lock_timeout', $6, true) is not null
    and a.name = $3 and a.state = 'parked' and a.parked_by = 'apipayd'
  for no key update
),
chosen as (
  select j.id, j.epoch from ours cross join lateral (
    select id, epoch from apipay.jobs
    where id = any ($5::bigint[]) and account = $3 and operation <> all (ours.capped)
      and ((state = 'parked' and unproven_since is null)
           or (state = 'queued' and apipay._is_in_turn(reason) and run_at <= now()
               and (unproven_since is null or ours.undelivered)))
      and (expires_at is null or expires_at > now())
      and not (operation = 'invoice.refund'
               and apipay._is_behind_refund($3, invoice_id, priority, run_at, id, $4::bigint[]))
    order by id
    limit 1
    for no key update skip locked) j
),
claimed as (
  update apipay.jobs j
     -- It may have the number of an earlier job, whose attempts are still here.
     set state = 'sending', reason = 'probe',
         epoch = 1 + greatest(j.epoch, (select max(t.epoch) from apipay.attempts t where t.job_id = j.id)),
         leased_by = $1, leased_until = now() + make_interval(secs => $2), updated_at = now()
   where j.id = any (array(select id from chosen))
  returning j.*
),
taken as (
  -- A trigger may have had another row stored: of what did not become so nothing is sent, and no attempt is opened.
  select c.* from claimed c join chosen t on t.id = c.id
   where c.state = 'sending' and c.leased_by = $1 and c.epoch > t.epoch
),
opened as (
  insert into apipay.attempts (job_id, epoch, account, kind, worker)
  select id, epoch, account, 'send', $1 from taken
  returning job_id
)
select id as "id!", account as "account!", operation as "operation!", state as "state!",
       apipay._params_among_others(params) as params, token as "token!",
       generation as "generation!", epoch as "epoch!", attempts as "attempts!", lookups as "lookups!",
       apipay._past(unproven_since) as unproven_since, apipay._past(absent_since) as absent_since,
       apipay._past(failing_since) as failing_since, coalesce(expires_at <= now(), false) as "is_expired!", false as "is_target_known!", null::timestamptz as sent_at,
       false as "is_repeated!", null::timestamptz as denied_since, invoice_id, false as "is_key_taken!", apipay._bytes(baseline::text) as baseline, null::jsonb as "stated?: Json<Stated>", retry_of is not null as "is_copy!",
       false as "is_unwanted!", least(now(), clock_timestamp()) as "now!"
from taken
-- Once for all: nothing is sent of which the attempt was not stored.
where (select apipay._all_changed('apipay.jobs', (select count(*) from chosen), (select count(*) from claimed), (select count(*) from taken)))
  and (select apipay._all_changed('apipay.attempts', (select count(*) from taken), (select count(*) from opened)))
