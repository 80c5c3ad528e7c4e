-- What the schema apipay is made of, with its definitions, a row each.
with relations as (
  select c.oid, c.relname, c.relkind, c.relowner from pg_class c
  where c.relnamespace = to_regnamespace('apipay') and c.relkind in ('r', 'p', 'v', 'm', 'f') and c.relname <> '_migrations'
),
functions as (
  select p.oid, p.oid::regprocedure::text as name, p.prokind, p.proowner from pg_proc p where p.pronamespace = to_regnamespace('apipay')
),
parts (part, definition) as (
  select 'table or view apipay.' || relname, concat(relkind, ' of ', relowner::regrole) from relations
  union all
  select 'column apipay.' || r.relname || '.' || a.attname,
         concat_ws(' ', format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated, a.attcollation::regcollation,
                   pg_get_expr(d.adbin, d.adrelid))
  from relations r join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
  left join pg_attrdef d on d.adrelid = r.oid and d.adnum = a.attnum
  union all
  select 'view apipay.' || relname, pg_get_viewdef(oid) from relations where relkind = 'v'
  union all
  select 'constraint ' || k.conname || ' of apipay.' || r.relname, pg_get_constraintdef(k.oid)
  from relations r join pg_constraint k on k.conrelid = r.oid
  union all
  select 'index apipay.' || x.relname, pg_get_indexdef(x.oid)
  from relations r join pg_index i on i.indrelid = r.oid join pg_class x on x.oid = i.indexrelid
  union all
  select 'trigger ' || t.tgname || ' of apipay.' || r.relname, concat_ws(' ', t.tgenabled, pg_get_triggerdef(t.oid))
  from relations r join pg_trigger t on t.tgrelid = r.oid where not t.tgisinternal
  union all
  select 'rule ' || w.rulename || ' of apipay.' || r.relname, pg_get_ruledef(w.oid)
  from relations r join pg_rewrite w on w.ev_class = r.oid where w.rulename <> '_RETURN'
  union all
  select 'function ' || name, 'of ' || proowner::regrole || case when prokind <> 'a' then ': ' || pg_get_functiondef(oid) else '' end from functions
  union all
  select 'operator ' || o.oid::regoperator, o.oprcode::text from pg_operator o where o.oprnamespace = to_regnamespace('apipay')
  union all
  select 'type ' || t.oid::regtype, t.typtype::text from pg_type t
  where t.typnamespace = to_regnamespace('apipay') and t.typrelid = 0 and t.typelem = 0
)
select part, definition from parts order by part, definition
