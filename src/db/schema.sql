-- What the schema is made of, a line each, as far as this version depends on it; and what the user $1
-- may do in it. src/db/schema.txt holds the lines of a fresh one.
with relations as (
  select c.oid, c.relname, c.relkind from pg_catalog.pg_class c
  where c.relnamespace = (select oid from pg_catalog.pg_namespace where nspname = 'apipay')
    and c.relname <> '_migrations'
),
columns as (
  select r.oid, r.relname, r.relkind, a.attnum, a.attname, a.attnotnull,
         pg_catalog.format_type(a.atttypid, a.atttypmod) as type
  from relations r join pg_catalog.pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
  where r.relkind in ('r', 'p', 'v')
),
functions as (
  select p.oid, p.proname || '/' || p.pronargs as name from pg_catalog.pg_proc p
  where p.pronamespace = (select oid from pg_catalog.pg_namespace where nspname = 'apipay')
),
facts (line) as (
  select case relkind when 'v' then 'view' else 'table' end || ' apipay.' || relname
  from relations where relkind in ('r', 'p', 'v')
  union all
  select 'column apipay.' || relname || '.' || attname || ' ' || type || case when attnotnull then ' not null' else '' end
  from columns
  union all
  select 'constraint ' || k.conname || ' of apipay.' || r.relname
  from relations r join pg_catalog.pg_constraint k on k.conrelid = r.oid
  where k.convalidated and k.contype <> 'n'
  union all
  select case when i.indisunique then 'unique ' else '' end || 'index apipay.' || x.relname || ' on apipay.' || r.relname
  from relations r join pg_catalog.pg_index i on i.indrelid = r.oid join relations x on x.oid = i.indexrelid
  where i.indisvalid and i.indisready
  union all
  select 'enabled trigger ' || t.tgname || ' of apipay.' || r.relname
  from relations r join pg_catalog.pg_trigger t on t.tgrelid = r.oid
  where not t.tgisinternal and t.tgenabled in ('O', 'A')
  union all
  select 'function apipay.' || name from functions
  union all
  select 'privilege ' || p.name || ' on apipay.' || r.relname
  from relations r cross join unnest(array['select', 'insert', 'update']) as p (name)
  where r.relkind in ('r', 'p', 'v') and has_table_privilege($1::text, r.oid, p.name)
  union all
  select 'privilege update of ' || c.attname || ' on apipay.' || c.relname
  from columns c where c.relkind in ('r', 'p') and has_column_privilege($1::text, c.oid, c.attnum, 'update')
  union all
  select 'privilege execute on apipay.' || name from functions where has_function_privilege($1::text, oid, 'execute')
  union all
  select 'privilege usage on schema apipay'
  where has_schema_privilege($1::text, (select oid from pg_catalog.pg_namespace where nspname = 'apipay'), 'usage')
)
select line as "line!" from facts order by line collate "C"
