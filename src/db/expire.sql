-- Ends queued jobs that are past their end, and parked ones of which nothing had an effect. A queued one of which a request
-- is unproven is looked up first; so is a parked one, once its account is well.
--
-- $1 jobs
with free as materialized (
  select id from apipay.jobs
  where id = any ($1) and (state = 'queued' or (state = 'parked' and unproven_since is null)) and expires_at <= now()
  for no key update skip locked
),
moved as (
  update apipay.jobs
     set state = case when unproven_since is null then 'expired' else 'uncertain' end,
         reason = case when unproven_since is null then 'expired' else 'expired_unproven' end,
         run_at = case when unproven_since is null then run_at else now() end,
         finished_at = case when unproven_since is null then now() end,
         absent_since = null, lookups = 0, updated_at = now()
   where id = any (array(select id from free))
  returning id, state
)
select id as "id!" from moved
where (select apipay._all_changed('apipay.jobs', (select count(*) from free), (select count(*) from moved),
                                  (select count(*) from moved where state in ('expired', 'uncertain'))))
