-- Leases that ran out: the jobs become uncertain, never queued, and their attempts are closed as
-- unknown. The raised epoch fences the worker that lost them.
--
-- $1 quiet period in seconds   $2 the jobs; those that are not so any more, or that somebody has locked, stay
with expired as (
  select id from apipay.jobs
  where id = any ($2::bigint[]) and state = 'sending' and leased_until < now()
  for no key update skip locked
),
moved as (
  update apipay.jobs j
     set state = 'uncertain', reason = 'lease_expired', epoch = j.epoch + 1, attempts = j.attempts + 1,
         leased_by = null, leased_until = null, run_at = now() + make_interval(secs => $1),
         unproven_since = coalesce(j.unproven_since, now()), absent_since = null, lookups = 0, updated_at = now()
   where j.id = any (array(select id from expired))
  returning j.id, j.state
),
to_close as materialized (
  select ctid as place from apipay.attempts
  where job_id = any (array(select id from moved)) and kind = 'send' and finished_at is null
),
closed as (
  update apipay.attempts t
     set finished_at = now(), effect = 'unknown', error_code = 'lease_expired',
         message = 'the lease expired before an answer was recorded'
   where t.ctid = any (array(select place from to_close))
  returning t.finished_at
)
select id as "id!" from moved
-- Once, whether one moved or not.
where (select apipay._all_changed('apipay.jobs', (select count(*) from expired), (select count(*) from moved),
                                  (select count(*) from moved where state = 'uncertain')))
  and (select apipay._all_changed('apipay.attempts', (select count(*) from to_close), (select count(*) from closed),
                                  (select count(*) from closed where finished_at is not null)))
