-- The schema explains itself, and nothing in it is open to the public by accident.

do $$
declare
  bare text;
  opened text;
begin
  select string_agg(what, ', ' order by what) into bare from (
    select c.oid::regclass::text as what from pg_class c
     where c.relnamespace = 'apipay'::regnamespace and c.relkind in ('r', 'v', 'm', 'p', 'f')
       and c.relname <> '_migrations' and obj_description(c.oid, 'pg_class') is null
    union all
    select c.oid::regclass || '.' || a.attname from pg_class c join pg_attribute a on a.attrelid = c.oid
     where c.relnamespace = 'apipay'::regnamespace and c.relkind in ('r', 'v', 'm', 'p', 'f') and a.attnum > 0 and not a.attisdropped
       and c.relname <> '_migrations' and col_description(c.oid, a.attnum) is null
    union all
    select p.oid::regprocedure::text from pg_proc p
     where p.pronamespace = 'apipay'::regnamespace and obj_description(p.oid, 'pg_proc') is null) as uncommented;
  assert bare is null, format('without a comment: %s', bare);

  select string_agg(p.oid::regprocedure::text, ', ' order by p.oid::regprocedure::text) into opened
    from pg_proc p
   where p.pronamespace = 'apipay'::regnamespace
     and exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) where grantee = 0)
     -- What runs inside an insert into apipay.jobs, or a change of it.
     and p.proname not in ('_operations', '_is_ahead_of_sequence', '_next_job', '_given_amiss', '_most_of_queue', '_next_states', '_is_notifying', '_notify', '_number_within', '_id', '_is_in_turn',
                           '_mask_phones', '_order_id', '_day');
  assert opened is null, format('executable by everybody: %s', opened);

  select string_agg(c.oid::regclass::text, ', ') into opened
    from pg_class c where c.relnamespace = 'apipay'::regnamespace and exists (select from aclexplode(c.relacl) where grantee = 0);
  assert opened is null, format('open to everybody: %s', opened);
  assert not exists (select from pg_namespace, aclexplode(nspacl) where nspname = 'apipay' and grantee = 0);

  -- Whoever calls a function that runs with its owner's rights must not choose what its names mean.
  select string_agg(p.oid::regprocedure::text, ', ') into opened
    from pg_proc p
   where p.pronamespace = 'apipay'::regnamespace and p.prosecdef
     and not coalesce(p.proconfig @> array['search_path=pg_catalog, pg_temp'], false);
  assert opened is null, format('security definer without a fixed search_path: %s', opened);

  -- Operators can always say why.
  assert (select bool_and('reason' = any (proargnames)) from pg_proc
           where pronamespace = 'apipay'::regnamespace and proname in ('retry', 'retry_jobs', 'cancel', 'cancel_jobs', 'resolve', 'park', 'resume', 'stop', 'start', 'acknowledge'));
end $$;
