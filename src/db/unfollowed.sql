-- Accepted jobs whose object is not followed: its mirror is settled or missing, or is not known to be of the refund's job.
-- Whoever checks objects does not find these jobs. And those whose object failed at Kaspi before their account was resumed,
-- which was to blame for it: what they wait for still was the back-off of an account that is unwell.
-- All of an account are gone through a piece at a time.
--
-- $1 account and $2 job after which to begin   $3 most jobs to go through   $4 jobs to pass over
-- $5 codes that an account is to blame for   $6 seconds that they wait at the most once it is resumed
with accepted as materialized (
  -- Account by account as they are read, so that no more is read than is gone through.
  select j.id, j.account, j.epoch, j.version, j.invoice_id, j.refund_id, j.reason, a.resumed_at, row_number() over () as nth
  from (select name, case when state = 'active' then resumed_at end as resumed_at from apipay.accounts where name >= $1::text order by name offset 0) a
  cross join lateral (
    select id, account, epoch, xmin::text as version, invoice_id, refund_id, reason from apipay.jobs
    where account = a.name and state = 'accepted' and id > case when a.name = $1 then $2::bigint else 0 end
    order by id
    limit $3) j
  limit $3
)
select j.id as "id!", j.account as "account!", j.epoch as "epoch!", j.version as "version!", j.nth as "nth!",
       (coalesce(mirror.is_ended, true) or coalesce(mirror.is_too_late, false))
         and j.invoice_id is not null and j.id <> all ($4::bigint[]) as "is_unfollowed!"
from accepted j
left join lateral (
  select i.settled as is_ended,
         j.reason = 'async_retry' and i.error_code = any ($5::text[]) and j.resumed_at >= i.changed_at
           and i.next_check_at > greatest(now(), i.changed_at + make_interval(secs => $6)) as is_too_late
  from apipay.invoices i
  where j.refund_id is null and i.account = j.account and i.id = j.invoice_id
  union all
  select r.settled or r.job_id is null,
         j.reason = 'async_retry' and r.error_code = any ($5) and j.resumed_at >= r.changed_at
           and r.next_check_at > greatest(now(), r.changed_at + make_interval(secs => $6))
  from apipay.refunds r
  where r.account = j.account and r.id = j.refund_id) mirror on true
where j.nth = $3
   or ((coalesce(mirror.is_ended, true) or mirror.is_too_late) and j.invoice_id is not null and j.id <> all ($4))
order by j.nth
