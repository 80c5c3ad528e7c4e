-- What of ours binds something outside pg_catalog and apipay, in words.
-- A trigger or an index of the shop's own on our tables may: triggers are ours when their function is, and
-- indexes are asked for their functions and operators, not for their operator classes.
with ours (class, id) as (
  select 'pg_proc'::regclass, p.oid from pg_proc p where p.pronamespace = to_regnamespace('apipay')
  union all
  select 'pg_class'::regclass, c.oid from pg_class c where c.relnamespace = to_regnamespace('apipay')
  union all
  select 'pg_rewrite'::regclass, r.oid from pg_rewrite r join pg_class c on c.oid = r.ev_class
   where c.relnamespace = to_regnamespace('apipay')
  union all
  select 'pg_attrdef'::regclass, d.oid from pg_attrdef d join pg_class c on c.oid = d.adrelid
   where c.relnamespace = to_regnamespace('apipay')
  union all
  select 'pg_constraint'::regclass, k.oid from pg_constraint k join pg_class c on c.oid = k.conrelid
   where c.relnamespace = to_regnamespace('apipay')
  union all
  select 'pg_trigger'::regclass, t.oid from pg_trigger t join pg_class c on c.oid = t.tgrelid
  join pg_proc p on p.oid = t.tgfoid
   where c.relnamespace = to_regnamespace('apipay') and p.pronamespace = to_regnamespace('apipay')
)
select distinct pg_describe_object(o.class, o.id, 0) as ours,
       pg_describe_object(d.refclassid, d.refobjid, 0) as outside
from ours o
join pg_depend d on d.classid = o.class and d.objid = o.id
cross join lateral pg_identify_object(d.refclassid, d.refobjid, 0) as i
where d.refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass, 'pg_class'::regclass)
  and i.schema not in ('pg_catalog', 'apipay')
  -- Where large values of a table of ours stand.
  and i.schema <> 'pg_toast'
order by 1, 2
