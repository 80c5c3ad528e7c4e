-- Queued jobs that are past their end, and parked ones of which nothing had an effect. Each account has its share of a look,
-- so that those of one do not wait for the very many that another one may have.
--
-- $1 most jobs   $2 jobs to pass over   $3 account after which to begin   $4 what the clock should show
with theirs as materialized (
  select a.name, greatest($1::bigint / count(*) over (), 1) as share
  from apipay.accounts a
  cross join lateral (
    (select id from apipay.jobs
     where account = a.name and state = 'queued' and expires_at <= least(now(), $4) and id <> all ($2::bigint[])
     order by expires_at
     limit 1)
    union all
    (select id from apipay.jobs
     where account = a.name and state = 'parked' and unproven_since is null and expires_at <= least(now(), $4)
       and id <> all ($2)
     order by expires_at
     limit 1)
    limit 1) first
  where a.name > $3
)
select j.id as "id!", j.account as "account!", j.state as "state!", j.epoch as "epoch!", j.version as "version!", t.share as "share!"
from theirs t
cross join lateral (
  (select id, account, state, epoch, xmin::text as version from apipay.jobs
   where account = t.name and state = 'queued' and expires_at <= least(now(), $4) and id <> all ($2)
   order by expires_at
   limit t.share)
  union all
  (select id, account, state, epoch, xmin::text as version from apipay.jobs
   where account = t.name and state = 'parked' and unproven_since is null and expires_at <= least(now(), $4)
     and id <> all ($2)
   order by expires_at
   limit t.share)
  limit t.share) j
order by t.name
limit $1
