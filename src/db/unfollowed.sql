-- Accepted jobs whose object is not followed: its mirror is settled or missing, or is not known to be of the refund's job.
-- Whoever checks objects does not find these jobs. All of an account are gone through a piece at a time.
--
-- $1 account and $2 job after which to begin   $3 most jobs to go through   $4 jobs to pass over
with accepted as materialized (
  -- Account by account as they are read, so that no more is read than is gone through.
  select j.id, j.account, j.epoch, j.version, j.invoice_id, j.refund_id, row_number() over () as nth
  from (select name from apipay.accounts where name >= $1::text order by name offset 0) a
  cross join lateral (
    select id, account, epoch, xmin::text as version, invoice_id, refund_id from apipay.jobs
    where account = a.name and state = 'accepted' and id > case when a.name = $1 then $2::bigint else 0 end
    order by id
    limit $3) j
  limit $3
)
select j.id as "id!", j.account as "account!", j.epoch as "epoch!", j.version as "version!", j.nth as "nth!",
       coalesce(mirror.is_ended, true) and j.invoice_id is not null and j.id <> all ($4::bigint[]) as "is_unfollowed!"
from accepted j
left join lateral (
  select i.settled as is_ended from apipay.invoices i
  where j.refund_id is null and i.account = j.account and i.id = j.invoice_id
  union all
  select r.settled or r.job_id is null from apipay.refunds r
  where r.account = j.account and r.id = j.refund_id) mirror on true
where j.nth = $3
   or (coalesce(mirror.is_ended, true) and j.invoice_id is not null and j.id <> all ($4))
order by j.nth
