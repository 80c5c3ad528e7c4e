-- What the schema is made of does not depend on who looks, or on where: keys are ordered by bytes, and
-- functions find the same names in every session.

do $$
declare
  found text;
begin
  select string_agg(distinct c.oid::regclass::text, ', ') into found
    from pg_index i join pg_class c on c.oid = i.indexrelid, unnest(i.indcollation) as k (sorting)
   where c.relnamespace = 'apipay'::regnamespace and k.sorting <> 0
     and k.sorting <> (select oid from pg_collation where collname = 'C' and collnamespace = 'pg_catalog'::regnamespace);
  assert found is null, format('indexes that are ordered by a locale: %s', found);

  -- A body that was parsed when it was made has its names; any other one must say where it looks for them.
  select string_agg(p.oid::regprocedure::text, ', ') into found
    from pg_proc p
   where p.pronamespace = 'apipay'::regnamespace and p.prosqlbody is null
     and not coalesce(p.proconfig @> array['search_path=pg_catalog, pg_temp'], false);
  assert found is null, format('functions that look up names in the session''s search path: %s', found);

  -- Read by the setting standard_conforming_strings of whoever calls.
  select string_agg(p.oid::regprocedure::text, ', ') into found
    from pg_proc p where p.pronamespace = 'apipay'::regnamespace and p.prosqlbody is null and p.prosrc like '%\%' escape '!';
  assert found is null, format('bodies with a backslash: %s', found);

  select string_agg(c.oid::regclass || ' and its ' || a.attname, ', ') into found
    from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
   where c.relnamespace = 'apipay'::regnamespace and c.relkind in ('r', 'p') and c.relname <> '_migrations'
     and a.attname = any (array['account', 'dedup_key', 'state', 'operation', 'kind', 'channel', 'external_order_id', 'status'])
     and a.attcollation <> 0
     and a.attcollation <> (select oid from pg_collation where collname = 'C' and collnamespace = 'pg_catalog'::regnamespace);
  assert found is null, format('columns that are compared for identity and ordered by a locale: %s', found);
end $$;
