-- Binds functions and views of ours to what Postgres has by the name that they found elsewhere.
do $$
declare
  bound record;
begin
  -- So that what is elsewhere is written with its schema.
  perform set_config('search_path', 'pg_catalog, pg_temp', true);
  for bound in
    select distinct p.oid, quote_ident(i.schema) || '.' as elsewhere
    from pg_proc p
    join pg_depend d on d.classid = 'pg_proc'::regclass and d.objid = p.oid
    cross join lateral pg_identify_object(d.refclassid, d.refobjid, 0) as i
    where p.pronamespace = 'apipay'::regnamespace and i.schema not in ('pg_catalog', 'apipay')
  loop
    execute replace(pg_get_functiondef(bound.oid), bound.elsewhere, 'pg_catalog.');
  end loop;
  for bound in
    select distinct c.oid, quote_ident(i.schema) || '.' as elsewhere
    from pg_class c
    join pg_rewrite r on r.ev_class = c.oid
    join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
    cross join lateral pg_identify_object(d.refclassid, d.refobjid, 0) as i
    where c.relkind = 'v' and c.relnamespace = 'apipay'::regnamespace and i.schema not in ('pg_catalog', 'apipay')
  loop
    execute format('create or replace view %s as %s', bound.oid::regclass,
                   replace(pg_get_viewdef(bound.oid), bound.elsewhere, 'pg_catalog.'));
  end loop;
end $$;
