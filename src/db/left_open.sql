-- Sends that stand open although their jobs are not being sent: they are closed as unknown. Whether they had an effect
-- may be written nowhere, so a job that would be sent again becomes uncertain; where it was written, a look-up finds out.
--
-- $1 quiet period in seconds   $2 the jobs; those that are being sent again, or that somebody has locked, stay
with free as materialized (
  select id, state from apipay.jobs
  where id = any ($2::bigint[]) and state <> 'sending'
  for no key update skip locked
),
to_move as materialized (
  select id from free where state in ('queued', 'parked')
),
moved as (
  update apipay.jobs j
     set state = 'uncertain', reason = 'lease_expired', epoch = j.epoch + 1, run_at = now() + make_interval(secs => $1),
         unproven_since = coalesce(j.unproven_since, now()), absent_since = null, lookups = 0, updated_at = now()
   where j.id = any (array(select id from to_move))
  returning j.id, j.state
),
to_close as materialized (
  select ctid as place from apipay.attempts
  where job_id = any (array(select id from free)) and kind = 'send' and finished_at is null
),
closed as (
  update apipay.attempts t
     set finished_at = now(), effect = 'unknown', error_code = 'lease_expired',
         message = 'no answer was stored with this request, and its job was not being sent any more'
   where t.ctid = any (array(select place from to_close))
  returning t.finished_at
)
select id as "id!" from free
-- Once, whether one moved or not.
where (select apipay._all_changed('apipay.jobs', (select count(*) from to_move), (select count(*) from moved),
                                  (select count(*) from moved where state = 'uncertain')))
  and (select apipay._all_changed('apipay.attempts', (select count(*) from to_close), (select count(*) from closed),
                                  (select count(*) from closed where finished_at is not null)))
