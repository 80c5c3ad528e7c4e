-- The jobs that a probe of a parked account may let through, the first choice first. Nothing is claimed here:
-- claim_trial_of_park.sql tries them, one after another.
--
-- $1 account   $2 operations to choose from   $3 jobs that are set aside   $4 jobs that no refund waits for
with ours as (
  select a.delivery_error is not null as undelivered, apipay._capped(a) as capped from apipay.accounts a
  where name = $1 and state = 'parked' and parked_by = 'apipayd'
),
parked as (
  select j.*, row_number() over (order by j.id) as place from (
    select id, account, operation, state, epoch, xmin::text as version, invoice_id, priority, run_at from apipay.jobs
    where exists (select from ours) and account = $1 and operation = any ($2::text[]) and unproven_since is null
      and operation <> all (array(select unnest(capped) from ours))
      and state = 'parked' and (expires_at is null or expires_at > now()) and id <> all ($3::bigint[])
    order by id
    limit 100) j
),
queued as (
  -- Where what is accepted fails at Kaspi, one to which that has not happened yet, if there is one: should it
  -- be the job's trouble and not the account's, the next trial is another's.
  select j.*, row_number() over (order by j.unproven_since is not null, j.spared, j.priority desc, j.run_at, j.id) as place
  from ours cross join lateral (
    select id, account, operation, state, epoch, xmin::text as version, invoice_id, priority, run_at, unproven_since, spared
    from apipay.jobs
    where account = $1 and operation = any ($2::text[]) and operation <> all (ours.capped)
      and (unproven_since is null or ours.undelivered)
      and state = 'queued' and apipay._is_in_turn(reason) and run_at <= now() and (expires_at is null or expires_at > now())
      and id <> all ($3)
    order by priority desc, run_at, id
    limit 100) j
)
select c.id as "id!", c.account as "account!", c.state as "state!", c.epoch as "epoch!", c.version as "version!"
from (
  select id, account, operation, state, epoch, version, invoice_id, priority, run_at, place, 1 as kind from parked
  union all
  select id, account, operation, state, epoch, version, invoice_id, priority, run_at, place, 2 from queued) c
-- One that waits for another job proves nothing, and neither does one that a cap refuses.
where not (c.operation = 'invoice.refund' and apipay._is_behind_refund($1, c.invoice_id, c.priority, c.run_at, c.id, $4::bigint[]))
order by c.kind, c.place
