-- Parked jobs whose account is active again, and those that are to be looked up first while their account waits for a
-- delivery. Each account has its share of a look, as with those that have expired.
--
-- $1 most jobs   $2 jobs to pass over   $3 account after which to begin
with theirs as materialized (
  select a.name, a.state, greatest($1::bigint / count(*) over (), 1) as share
  from apipay.accounts a
  cross join lateral (
    select from apipay.jobs
    where account = a.name and state = 'parked' and id <> all ($2::bigint[])
      and (a.state = 'active' or unproven_since is not null)
    order by id
    limit 1) first
  where (a.state = 'active' or a.delivery_error is not null) and a.name > $3
)
select j.id, j.account, j.state, j.epoch, j.version as "version!", t.share as "share!"
from theirs t
cross join lateral (
  select id, account, state, epoch, xmin::text as version from apipay.jobs
  where account = t.name and state = 'parked' and id <> all ($2)
    and (t.state = 'active' or unproven_since is not null)
  order by id
  limit t.share) j
order by t.name
limit $1
