-- Moments of our own are moments: never infinite, and none that a program cannot read (year 10000).
-- jobs.run_at and jobs.expires_at are the user's, whose "never" is a wish, and some of the mirrors' the
-- gateway's; of these the daemon reads none. Nor does it read the turn of a check, which may be long ago.
set search_path = pg_catalog, pg_temp;

do $$
declare
  bounded record;
begin
  for bounded in
    select c.oid::regclass as relation, c.relname,
           string_agg(format('%1$I > ''-infinity'' and %1$I < ''10000-01-01 00:00+00''', a.attname), ' and ' order by a.attnum) as condition
      from pg_catalog.pg_class c join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
     where c.relnamespace = 'apipay'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition and c.relname <> '_migrations'
       and a.atttypid = 'timestamptz'::regtype
       and not (c.relname = 'jobs' and a.attname in ('run_at', 'expires_at'))
       and not (c.relname = '_quotas' and a.attname = 'check_from')
       and a.attname not in ('gateway_created_at', 'gateway_updated_at', 'paid_at', 'next_billing_at')
     group by c.oid, c.relname
     order by c.relname
  loop
    execute format('alter table %s add constraint %I check (%s)', bounded.relation, bounded.relname || '_moments', bounded.condition);
  end loop;
end $$;
