-- Claims uncertain jobs that are due for a look-up, and opens the attempts of the look-ups.
--
-- The claim is a promise until run_at, not a state: a worker that dies leaves the job uncertain and
-- due again.
-- $1 worker   $2 accounts   $3 most jobs per account   $4 seconds until another worker may try
-- $5 second of the quota   $6 jobs that are set aside   $7 the only jobs to look at, or null
-- $8 seconds to which no look-up is ever put off   $9 how long to wait for a lock
with slow as (
  -- Accounts whose look-ups get no clear answer and are due again. Of several daemons one has the row.
  select a.name from apipay.accounts a
  where a.name = any ($2::text[])
    and (a.failing_read_at <= now() or a.failing_read_at > now() + make_interval(secs => $8))
  order by a.name
  for no key update skip locked
),
due as (
  select d.id, d.account, row_number() over (partition by d.account order by d.run_at, d.id) as place
  from unnest($2::text[]) as a(name)
  join apipay.accounts account on account.name = a.name
   and (account.state = 'active' or account.delivery_error is not null) and (account.blocked_until is null or account.blocked_until <= now())
   and (select set_config('lock_timeout', $9, true)) is not null
   and (account.failing_read_at is null or account.name = any (array(select name from slow)))
  cross join lateral (
    select j.id, j.account, j.run_at from apipay.jobs j
    where j.account = a.name and j.state = 'uncertain' and j.run_at <= now()
      and j.id <> all ($6::bigint[]) and ($7::bigint[] is null or j.id = any ($7))
    order by j.run_at, j.id
    -- While look-ups get no clear answer, one at a time asks.
    limit case when account.failing_read_at is null then $3::bigint else 1 end
    for no key update of j skip locked) d
),
granted as (
  select c.account, apipay._take_quota(c.account, c.wanted, 'lookup', $5) as requests
  from (select account, count(*)::int as wanted from due group by account order by account) c
),
claimed as (
  update apipay.jobs j
     set epoch = j.epoch + 1, lookups = j.lookups + 1,
         run_at = now() + make_interval(secs => $4), updated_at = now()
   where j.id = any (array(select d.id from due d join granted g on g.account = d.account where d.place <= g.requests))
  returning j.*
),
taken as (
  -- No other daemon asks until this look-up is over.
  update apipay.accounts set failing_read_at = now() + make_interval(secs => $4)
   where name = any (array(select s.name from slow s where s.name = any (array(select account from claimed))))
),
abandoned as (
  update apipay.attempts t
     set finished_at = now(), effect = 'unknown', error_code = 'lease_expired',
         message = 'the worker did not finish this look-up'
   where t.job_id = any (array(select id from claimed)) and t.kind = 'lookup' and t.finished_at is null
),
opened as (
  insert into apipay.attempts (job_id, epoch, account, kind, worker)
  select id, epoch, account, 'lookup', $1 from claimed
)
select id as "id!", account as "account!", operation as "operation!",
       apipay._params_among_others(params) as params, token as "token!",
       generation as "generation!", epoch as "epoch!", attempts as "attempts!", lookups as "lookups!",
       apipay._past(unproven_since) as unproven_since, apipay._past(absent_since) as absent_since,
       apipay._past(failing_since) as failing_since, invoice_id, apipay._bytes(baseline::text) as baseline, now() as "now!"
from claimed
