-- Leases that ran out: the jobs become uncertain, never queued, and their attempts are closed as
-- unknown. The raised epoch fences the worker that lost them. Those of which it was only asked what is to be known first
-- ('asks_first', which the worker takes away before it sends) were not sent: they are as they were before their claim, and
-- their attempts are closed as not applied.
--
-- $1 quiet period in seconds   $2 the jobs; those that are not so any more, or that somebody has locked, stay
with expired as materialized (
  select id, reason is not distinct from 'asks_first' as is_unsent from apipay.jobs
  where id = any ($2::bigint[]) and state = 'sending' and leased_until < now()
  for no key update skip locked
),
moved as (
  update apipay.jobs j
     set state = case when u.is_unsent then apipay._back_to(j.unproven_since) else 'uncertain' end,
         reason = 'lease_expired', epoch = j.epoch + 1, attempts = j.attempts + (not u.is_unsent)::int,
         leased_by = null, leased_until = null,
         run_at = case when u.is_unsent then now() else now() + make_interval(secs => $1) end,
         unproven_since = case when u.is_unsent then j.unproven_since else coalesce(j.unproven_since, now()) end,
         absent_since = null, lookups = 0, updated_at = now()
    from expired u
   where j.id = any (array(select id from expired)) and j.id = u.id
  returning j.id, j.state, u.is_unsent
),
to_close as materialized (
  select ctid as place, job_id from apipay.attempts
  where job_id = any (array(select id from moved)) and kind = 'send' and finished_at is null
),
closed as (
  update apipay.attempts t
     set finished_at = now(), error_code = 'lease_expired',
         effect = case when c.is_unsent then 'not_applied' else 'unknown' end,
         message = case when c.is_unsent then 'the lease expired while ApiPay was asked what is to be known first; nothing was sent'
                        else 'the lease expired before an answer was recorded' end
    from (select o.place, m.is_unsent from to_close o join moved m on m.id = o.job_id) c
   where t.ctid = c.place
  returning t.finished_at
)
select id as "id!" from moved
-- Once, whether one moved or not.
where (select apipay._all_changed('apipay.jobs', (select count(*) from expired), (select count(*) from moved),
                                  (select count(*) from moved where state in ('uncertain', case when is_unsent then 'queued' end))))
  and (select apipay._all_changed('apipay.attempts', (select count(*) from to_close), (select count(*) from closed),
                                  (select count(*) from closed where finished_at is not null)))
