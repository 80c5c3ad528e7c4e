-- Jobs that waited for the end of a cap that is over. The first of them meet a cap that is still there, and so soon after its
-- end that the others need not move for nothing: they go on as the first go out, or once the cap has not come back for ten
-- seconds. Each account and operation has its share of a look, as with those that have expired.
--
-- $1 most jobs   $2 jobs to pass over   $3 account after which to begin
with theirs as materialized (
  select a.name, o.operation, greatest($1::bigint / count(*) over (), 1) as share
  from apipay.accounts a
  cross join unnest(apipay._operations()) as o(operation)
  cross join lateral (
    select from apipay.jobs
    where account = a.name and operation = o.operation and state = 'queued' and reason = 'waits_for_cap'
      and id <> all ($2::bigint[])
    limit 1) first
  where a.name > $3 and o.operation <> all (apipay._capped(a))
    and ((a.capped_until > now() - interval '10 seconds') is not true
         or (select count(*) from (
               select from apipay.jobs n
               where n.account = a.name and n.state = 'queued' and apipay._is_in_turn(n.reason)
                 and n.id > 0 and n.run_at <= now()
               limit 100) first) < 100)
)
select j.id, j.account, j.state, j.epoch, j.version as "version!", t.share as "share!"
from theirs t
cross join lateral (
  select id, account, state, epoch, xmin::text as version from apipay.jobs
  where account = t.name and operation = t.operation and state = 'queued' and reason = 'waits_for_cap'
    and id <> all ($2)
  order by priority desc, run_at, id
  limit t.share) j
order by t.name, t.operation
limit $1
