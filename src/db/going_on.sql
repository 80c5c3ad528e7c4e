-- Jobs that failed last with all others of their account, before that got clear answers again, and wait since. Each account
-- has its share of a look, as with those that have expired.
--
-- $1 most jobs   $2 jobs to pass over   $3 account after which to begin
-- $4 reasons for which a queued one has backed off   $5 reasons for which an uncertain one waits
with theirs as materialized (
  select a.name, a.failing_ended_at, greatest($1::bigint / count(*) over (), 1) as share
  from apipay.accounts a
  cross join lateral (
    select from apipay.jobs
    where account = a.name and failing_since <= a.failing_ended_at and updated_at <= a.failing_ended_at and run_at > now()
      and state in ('queued', 'uncertain') and reason = any (case state when 'queued' then $4::text[] else $5::text[] end)
      and id <> all ($2::bigint[])
    order by failing_since
    limit 1) first
  where a.failing_ended_at <= now() and a.name > $3
)
select j.id, j.account, j.state, j.epoch, j.version as "version!", t.share as "share!"
from theirs t
cross join lateral (
  select id, account, state, epoch, xmin::text as version from apipay.jobs
  where account = t.name and failing_since <= t.failing_ended_at and updated_at <= t.failing_ended_at and run_at > now()
    and state in ('queued', 'uncertain') and reason = any (case state when 'queued' then $4 else $5 end)
    and id <> all ($2)
  order by failing_since
  limit t.share) j
order by t.name
limit $1
