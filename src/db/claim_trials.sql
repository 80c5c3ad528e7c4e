-- Claims one due job for each account that has slowed down and whose trial is due. As in claim.sql, those that it
-- meets and that wait for another job, or for the end of a cap, stand back from now on.
--
-- $1 worker   $2 lease in seconds   $3 accounts   $4 most jobs   $5 second of the quota
-- $6 seconds to which no trial is ever put off: one that is due later is of a clock that was wrong
-- $7 jobs that are set aside   $8 the only jobs to look at, or null
-- $9 seconds for which no other worker makes a trial: its answer sets when the next one is due
-- $10 how long to wait for a lock
with slow as (
  select a.name, apipay._capped(a) as capped from apipay.accounts a
  where a.name = any ($3::text[]) and a.state = 'active'
    and (a.failing_trial_at <= now() or a.failing_trial_at > now() + make_interval(secs => $6))
    and (a.blocked_until is null or a.blocked_until <= now()) and not (select stopped from apipay._control)
    and (select set_config('lock_timeout', $10, true)) is not null
),
eldest as (
  -- By age, with jobs_due (id > 0), so that jobs of the future are never read; and no more than a few, should
  -- somebody keep rows locked. The same order as in among.rs.
  select d.* from slow s cross join lateral (
    select j.id, j.account,
           case when j.operation = any (s.capped) then 'waits_for_cap'
                when j.operation = 'invoice.refund' and j.unproven_since is null
                     and apipay._is_behind_refund(j.account, j.invoice_id, j.priority, j.run_at, j.id, $7)
                then 'waits_for_refund' end as waits
    from apipay.jobs j
    where j.account = s.name and j.state = 'queued' and j.id > 0 and apipay._is_in_turn(j.reason) and j.run_at <= now()
      and j.id <> all ($7::bigint[]) and ($8::bigint[] is null or j.id = any ($8))
      and (j.expires_at is null or j.expires_at > now())
    order by j.run_at, j.id
    limit 100) d
),
to_stand_back as materialized (
  select b.id from apipay.jobs b
  where b.id = any (array(select id from eldest where waits is not null)) and b.state = 'queued'
    and apipay._is_in_turn(b.reason)
  for no key update of b skip locked
),
standing_back as (
  update apipay.jobs j
     set reason = case when j.id = any (array(select id from eldest where waits = 'waits_for_cap')) then 'waits_for_cap' else 'waits_for_refund' end,
         updated_at = now()
   where j.id = any (array(select id from to_stand_back))
  returning j.*
),
locked as (
  select d.* from slow s cross join lateral (
    select j.id, j.account, j.epoch from apipay.jobs j
    where j.id = any (array(select e.id from eldest e where e.account = s.name and e.waits is null)) and j.state = 'queued'
    -- One that has not failed yet, if there is one: should it be the job to which no answer is given,
    -- and not the account, the next trial is another's.
    order by j.failing_since is not null, j.priority desc, j.run_at, j.id
    limit 1
    for no key update of j skip locked) d
  limit $4
),
granted as (
  select l.id, l.epoch, apipay._take_trial(l.account, make_interval(secs => $9), make_interval(secs => $6), $5) as trials
  from (select * from locked order by account collate "C") l
),
claimed as (
  update apipay.jobs j
     -- It may have the number of an earlier job, whose attempts are still here.
     set state = 'sending', reason = null,
         epoch = 1 + greatest(j.epoch, (select max(t.epoch) from apipay.attempts t where t.job_id = j.id)),
         leased_by = $1, leased_until = now() + make_interval(secs => $2), updated_at = now()
   where j.id = any (array(select id from granted where trials = 1))
  returning j.*
),
taken as (
  -- A trigger may have had another row stored: of what did not become so nothing is sent, and no attempt is opened.
  select c.* from claimed c join granted t on t.id = c.id
   where c.state = 'sending' and c.leased_by = $1 and c.epoch > t.epoch
),
opened as (
  insert into apipay.attempts (job_id, epoch, account, kind, worker)
  select id, epoch, account, 'send', $1 from taken
  returning job_id
)
select id as "id!", account as "account!", operation as "operation!", state as "state!",
       case when state = 'sending' then apipay._params_among_others(params) end as params, token as "token!",
       generation as "generation!", epoch as "epoch!", attempts as "attempts!", lookups as "lookups!",
       apipay._past(unproven_since) as unproven_since, apipay._past(absent_since) as absent_since,
       apipay._past(failing_since) as failing_since, coalesce(expires_at <= now(), false) as "is_expired!", false as "is_target_known!", null::timestamptz as sent_at,
       false as "is_repeated!", null::timestamptz as denied_since, invoice_id, false as "is_key_taken!", apipay._bytes(baseline::text) as baseline, null::jsonb as "stated?: Json<Stated>", retry_of is not null as "is_copy!",
       false as "is_unwanted!", least(now(), clock_timestamp()) as "now!"
from (select * from taken union all select * from standing_back) j
-- Once for all: nothing is sent of which the attempt was not stored.
where (select apipay._all_changed('apipay.jobs', (select count(*) from granted where trials = 1), (select count(*) from claimed), (select count(*) from taken)))
  and (select apipay._all_changed('apipay.attempts', (select count(*) from taken), (select count(*) from opened)))
  and (select apipay._all_changed('apipay.jobs', (select count(*) from to_stand_back), (select count(*) from standing_back),
                                  (select count(*) from standing_back where not apipay._is_in_turn(reason))))
