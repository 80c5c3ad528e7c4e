-- Has jobs go on whose account got a clear answer after all that it got none for.
--
-- $1 jobs   $2 reasons for which a queued one has backed off   $3 reasons for which an uncertain one waits
with free as materialized (
  select p.id from apipay.jobs p
  join apipay.accounts a on a.name = p.account and p.failing_since <= a.failing_ended_at
  where p.id = any ($1) and p.state in ('queued', 'sending', 'uncertain')
  for no key update of p skip locked
),
moved as (
  update apipay.jobs j
     set failing_since = null,
         run_at = case when (j.state = 'queued' and j.reason = any ($2))
                         or (j.state = 'uncertain' and j.reason = any ($3))
                       then least(j.run_at, now()) else j.run_at end
   where j.id = any (array(select id from free))
  returning j.id, j.failing_since
)
select id as "id!" from moved
where (select apipay._all_changed('apipay.jobs', (select count(*) from free), (select count(*) from moved),
                                  (select count(*) from moved where failing_since is null)))
