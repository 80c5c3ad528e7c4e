-- Has jobs stand in turn again that stood back for another job, or for a cap.
--
-- $1 jobs
with free as materialized (
  select id from apipay.jobs
  where id = any ($1) and state = 'queued' and not apipay._is_in_turn(reason)
  for no key update skip locked
),
moved as (
  update apipay.jobs
     set reason = null, updated_at = now()
   where id = any (array(select id from free))
  returning id, reason
)
select id as "id!" from moved
where (select apipay._all_changed('apipay.jobs', (select count(*) from free), (select count(*) from moved),
                                  (select count(*) from moved where apipay._is_in_turn(reason))))
