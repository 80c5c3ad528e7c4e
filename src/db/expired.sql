-- Queued jobs that are past their end. Each account has its share of a look, so that those of one do not wait for the
-- very many that another one may have.
--
-- $1 most jobs   $2 jobs to pass over   $3 account after which to begin   $4 what the clock should show
with theirs as materialized (
  select a.name, greatest($1::bigint / count(*) over (), 1) as share
  from apipay.accounts a
  cross join lateral (
    select from apipay.jobs
    where account = a.name and state = 'queued' and expires_at <= least(now(), $4) and id <> all ($2::bigint[])
    order by expires_at
    limit 1) first
  where a.name > $3
)
select j.id, j.account, j.state, j.epoch, j.version as "version!", t.share as "share!"
from theirs t
cross join lateral (
  select id, account, state, epoch, xmin::text as version from apipay.jobs
  where account = t.name and state = 'queued' and expires_at <= least(now(), $4) and id <> all ($2)
  order by expires_at
  limit t.share) j
order by t.name
limit $1
