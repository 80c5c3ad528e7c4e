-- Has jobs go on whose account got a clear answer after all that it got none for. That says nothing of them: since when they
-- have got none stays as it is.
--
-- $1 jobs   $2 reasons for which a queued one has backed off   $3 reasons for which an uncertain one waits
with free as materialized (
  select p.id from apipay.jobs p
  join apipay.accounts a on a.name = p.account and p.failing_since <= a.failing_ended_at and p.updated_at <= a.failing_ended_at
  where p.id = any ($1) and ((p.state = 'queued' and p.reason = any ($2))
                             or (p.state = 'uncertain' and p.reason = any ($3)))
  for no key update of p skip locked
),
moved as (
  update apipay.jobs j
     set run_at = least(j.run_at, now())
   where j.id = any (array(select id from free))
  returning j.id, j.run_at
)
select id as "id!" from moved
where (select apipay._all_changed('apipay.jobs', (select count(*) from free), (select count(*) from moved),
                                  (select count(*) from moved where run_at <= now())))
