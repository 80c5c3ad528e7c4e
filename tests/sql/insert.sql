-- What a plain insert may say, as a role that may do nothing but enqueue: any column may be named, NULL and DEFAULT
-- mean the default, and what is not the inserter's is refused by its name.

insert into apipay.accounts (name) values ('default'), ('second');

create function pg_temp.row_of(key text) returns jsonb language sql as
  'select to_jsonb(j) - array[''id'', ''token'', ''dedup_key''] from apipay.jobs j where dedup_key = key';
grant execute on function pg_temp.row_of(text) to public;

-- An id by hand, also before the sequence was ever used, and where no sequence comes.
do $$
declare
  given bigint;
  clause text;
begin
  set local role apipay_enqueuer;
  foreach given in array array[1, 2, 9223372036854775807, 0, -5] loop
    foreach clause in array array['', 'overriding system value'] loop
      begin
        execute format('insert into apipay.jobs (id, operation, params) %s values (%s, ''invoice.create'', ''{}'')', clause, given);
        raise 'id % was taken', given using errcode = 'ZZ001';
      exception when insufficient_privilege then
        assert sqlerrm like 'apipay.jobs.id is not for an insert to say%', sqlerrm;
      end;
    end loop;
  end loop;
  reset role;
end $$;

-- The table's defaults, and the trigger's for what is given as NULL, are the same.
insert into apipay.jobs (operation, params, dedup_key) values ('invoice.create', '{"amount": 1}', 'plain');
do $$
declare
  columns text;
  nothing text;
begin
  set local role apipay_enqueuer;
  foreach nothing in array array['null', 'default'] loop
    select string_agg(quote_ident(attname), ', ' order by attnum) into columns
      from pg_attribute where attrelid = 'apipay.jobs'::regclass and attnum > 0 and not attisdropped and attname not in ('id', 'operation', 'params', 'dedup_key');
    execute format('insert into apipay.jobs (id, operation, params, dedup_key, %s) values (%s, ''invoice.create'', ''{"amount": 1}'', %L, %s)',
      columns, nothing, nothing, regexp_replace(columns, '[^, ]+', nothing, 'g'));
    assert pg_temp.row_of(nothing) = pg_temp.row_of('plain'), format('%s: %s', nothing, pg_temp.row_of(nothing));
    assert (select token is not null from apipay.jobs where dedup_key = nothing);
    -- Numbered by the sequence, and libraries that ask it for the number afterwards are told that one.
    assert (select id = currval('apipay.jobs_id_seq') and id = lastval() from apipay.jobs where dedup_key = nothing), nothing;
  end loop;
  reset role;
end $$;

-- Every column by itself: the inserter's are taken, all others refused, and the name is said.
do $$
declare
  c record;
  given text;
  said text;
begin
  set local role apipay_enqueuer;
  for c in
    select attname::text as name, format_type(atttypid, null) as type from pg_attribute
     where attrelid = 'apipay.jobs'::regclass and attnum > 0 and not attisdropped and attname not in ('operation', 'params')
  loop
    given := case
      when c.name = 'account' then '''second'''
      when c.name = 'id' then '(select last_value + 1000 from apipay.jobs_id_seq)'
      when c.name = 'state' then '''parked'''
      when c.type = 'jsonb' then '''{"a": 1}'''
      when c.type = 'uuid' then 'gen_random_uuid()'
      when c.type = 'boolean' then 'true'
      when c.type like 'timestamp%' then 'now() + interval ''1 hour'''
      when c.type = 'text' then '''x'''
      else '7' end;
    begin
      execute format('insert into apipay.jobs (operation, params, %I) overriding system value values (''invoice.create'', ''{}'', %s)', c.name, given);
      said := null;
    exception when insufficient_privilege then
      said := sqlerrm;
    end;
    if c.name = any (array['account', 'dedup_key', 'priority', 'run_at', 'expires_at', 'metadata', 'traceparent', 'created_at', 'updated_at']) then
      assert said is null, said;
    else
      assert said is not distinct from format('apipay.jobs.%s is not for an insert to say: leave it out, or give NULL or DEFAULT', c.name),
        format('%s: %s', c.name, said);
    end if;
  end loop;
  -- A clock of the program's own says nothing here.
  assert not exists (select from apipay.jobs where created_at <> now() or updated_at <> now());
  begin
    insert into apipay.jobs (operation, params, state, finished_at) values ('invoice.create', '{}', 'succeeded', now());
    raise 'accepted' using errcode = 'ZZ001';
  exception when insufficient_privilege then null;
  end;
  reset role;
end $$;

-- Whoever owns the table, or restores it, inserts what they like.
insert into apipay.jobs (id, operation, params, token, state, finished_at, created_at, updated_at, dedup_key) overriding system value
values (4711, 'invoice.create', '{}', '00000000-0000-0000-0000-000000000001', 'succeeded', '2020-01-02Z', '2020-01-01Z', '2020-01-02Z', 'restored');
do $$ begin
  assert (select (id, token, state, created_at, updated_at) =
    (4711, '00000000-0000-0000-0000-000000000001'::uuid, 'succeeded', '2020-01-01Z'::timestamptz, '2020-01-02Z'::timestamptz)
    from apipay.jobs where dedup_key = 'restored');
end $$;

set role apipay_enqueuer;

-- Rails, with partial_inserts off: every column but the key and those with a function for a default; its own clock.
prepare rails as insert into "apipay"."jobs" ("account", "operation", "params", "token", "dedup_key", "priority", "expires_at", "metadata", "traceparent",
  "retry_of", "state", "reason", "attempts", "epoch", "leased_by", "leased_until", "invoice_id", "refund_id", "subscription_id", "http_status", "error_code",
  "error_message", "errors", "result", "created_at", "updated_at", "finished_at", "generation", "baseline", "unproven_since", "absent_since",
  "failing_since", "lookups")
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33)
returning "id";
execute rails ('default', 'invoice.create', '{"amount": 1}', null, 'rails', 0, null, '{}', null, null, 'queued', null, 0, 0, null, null, null, null, null, null, null,
  null, null, null, '2026-11-26 03:32:13.123456', '2026-11-26 03:32:13.123456', null, 1, null, null, null, null, 0);
-- ... with insert_all and upsert by the key.
insert into "apipay"."jobs" ("operation", "params", "dedup_key", "created_at", "updated_at")
values ('invoice.create', '{"amount": 1}', 'rails', current_timestamp, current_timestamp), ('invoice.create', '{"amount": 1}', 'rails 2', current_timestamp, current_timestamp)
on conflict ("account", "dedup_key") do nothing returning "id";

-- Laravel: what the model has, and timestamps without a fraction.
prepare laravel as insert into "apipay"."jobs" ("operation", "params", "dedup_key", "metadata", "run_at", "updated_at", "created_at")
values ($1, $2, $3, $4, $5, $6, $7) returning "id";
execute laravel ('invoice.create', '{"amount": 1}', 'laravel', null, null, '2026-11-26 03:32:13', '2026-11-26 03:32:13');
insert into "apipay"."jobs" ("operation", "params", "dedup_key") values ('invoice.create', '{"amount": 1}', 'laravel') on conflict do nothing;
-- PDO and Doctrine ask for the number afterwards.
do $$ begin assert lastval() >= (select max(id) from apipay.jobs where dedup_key = 'laravel') and currval('apipay.jobs_id_seq') = lastval(); end $$;

-- Drizzle: every column of the table, and `default` for what was not given.
insert into "apipay"."jobs" ("id", "account", "operation", "params", "token", "dedup_key", "priority", "run_at", "expires_at", "metadata", "traceparent",
  "retry_of", "state", "reason", "attempts", "epoch", "leased_by", "leased_until", "invoice_id", "refund_id", "subscription_id", "http_status", "error_code",
  "error_message", "errors", "result", "created_at", "updated_at", "finished_at", "generation", "baseline", "unproven_since", "absent_since", "failing_since", "lookups")
values (default, default, 'invoice.create', '{"amount": 1}', default, 'drizzle', default, default, default, default, default, default, default, default, default, default,
  default, default, default, default, default, default, default, default, default, default, default, default, default, default, default, default, default, default, default)
on conflict ("account", "dedup_key") do nothing returning "id", "state";

-- SQLAlchemy: NULL for whatever has no default in the table, JSON null for a document that is None.
prepare sqlalchemy as insert into apipay.jobs (operation, params, dedup_key, expires_at, metadata, traceparent, retry_of, reason, leased_by, leased_until, invoice_id,
  refund_id, subscription_id, http_status, error_code, error_message, errors, result, finished_at, baseline, unproven_since, absent_since, failing_since, token)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24)
returning apipay.jobs.id, apipay.jobs.account, apipay.jobs.token, apipay.jobs.run_at;
execute sqlalchemy ('invoice.create', '{"amount": 1}', 'sqlalchemy', null, 'null', null, null, null, null, null, null, null, null, null, null, null, 'null', 'null',
  null, 'null', null, null, null, null);
insert into apipay.jobs (operation, params, dedup_key) values ('invoice.create', '{"amount": 1}', 'sqlalchemy')
on conflict (account, dedup_key) where dedup_key is not null do nothing;

do $$
declare
  key text;
begin
  foreach key in array array['rails', 'rails 2', 'laravel', 'drizzle', 'sqlalchemy'] loop
    assert pg_temp.row_of(key) - array['run_at', 'created_at', 'updated_at'] = pg_temp.row_of('plain') - array['run_at', 'created_at', 'updated_at'],
      format('%s: %s', key, pg_temp.row_of(key));
    assert (select (created_at, updated_at, run_at) = (now(), now(), now()) or created_at > now() - interval '1 minute' from apipay.jobs where dedup_key = key), key;
  end loop;
end $$;
reset role;
