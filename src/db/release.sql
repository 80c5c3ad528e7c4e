-- Puts parked jobs back whose account goes on, and the unproven ones of an account that waits for a delivery.
--
-- $1 jobs
with free as materialized (
  select p.id from apipay.jobs p
  join apipay.accounts a on a.name = p.account
   and (a.state = 'active' or (a.delivery_error is not null and p.unproven_since is not null))
  where p.id = any ($1) and p.state = 'parked'
  for no key update of p skip locked
),
moved as (
  update apipay.jobs j
     set state = apipay._back_to(j.unproven_since),
         reason = 'resumed', run_at = least(j.run_at, now()), updated_at = now()
   where j.id = any (array(select id from free))
  returning j.id, j.state
)
select id as "id!" from moved
where (select apipay._all_changed('apipay.jobs', (select count(*) from free), (select count(*) from moved),
                                  (select count(*) from moved where state in ('queued', 'uncertain'))))
