-- What a person sees of a refusal in psql: one sentence, and one line of context, which names the function that was
-- called. Of every public function.

insert into apipay.accounts (name, state, parked_at, parked_reason, parked_by)
values ('default', 'active', null, null, null), ('ill', 'parked', now(), 'session_expired', 'apipayd');

create temporary table refusals (statement text primary key, called text, said text);

create function pg_temp.refused(statement text) returns void language plpgsql as $$
declare
  said text;
  context text;
  called constant text := substring(statement from 'apipay[.]([a-z_]+)[(]');
begin
  begin
    execute statement;
    raise exception 'accepted: %', statement using errcode = 'ZZ001';
  exception when others then
    get stacked diagnostics said = message_text, context = pg_exception_context;
    if sqlstate = 'ZZ001' then
      raise;
    end if;
  end;
  assert split_part(context, E'\n', 1) like format('PL/pgSQL function apipay.%s(%%) line %% at RAISE', called), format('%s: %s', statement, context);
  assert split_part(context, E'\n', 2) = format('SQL statement "%s"', statement), format('%s: %s', statement, context);
  insert into refusals values (statement, called, said);
end $$;

create function pg_temp.job(wanted text, operation text default 'invoice.create', params jsonb default '{"phone_number": "87001234567", "amount": 100}',
  account text default 'default') returns bigint
language sql as $$
  insert into apipay.jobs (account, operation, params, state, run_at, leased_by, leased_until, finished_at, unproven_since)
  values (account, operation, params, wanted, now() + interval '1 hour',
          case when wanted = 'sending' then gen_random_uuid() end, case when wanted = 'sending' then now() + interval '1 min' end,
          case when wanted in ('succeeded', 'failed', 'cancelled', 'expired') then now() end,
          case when wanted in ('held', 'uncertain') then now() end)
  returning id
$$;

do $$
declare
  argument text;
  state text;
  id bigint;
  other bigint;
begin
  -- What every job takes, whichever function makes it.
  foreach argument in array array['account => null', 'account => ''nobody''', 'dedup_key => ''''', 'priority => 99999', 'expires_at => ''2020-01-01Z''',
      'metadata => ''[]''', 'traceparent => repeat(''x'', 256)', 'dedup_key => ''taken'''] loop
    insert into apipay.jobs (operation, params, dedup_key) values ('invoice.create', '{}', 'taken') on conflict do nothing;
    perform pg_temp.refused(format('select apipay.create_invoice(''87001234567'', 100, %s)', argument));
    perform pg_temp.refused(format('select apipay.create_invoice(87001234567, 100, %s)', argument));
    perform pg_temp.refused(format('select apipay.cancel_invoice(1, %s)', argument));
    perform pg_temp.refused(format('select apipay.refund_invoice(1, %s)', argument));
  end loop;
  foreach argument in array array['null', '''8700''', '''87001234567''', '''87001234567'', 0', '''87001234567'', 1, cart_items => ''[]''',
      '''87001234567'', cart_items => ''{}''', '''87001234567'', cart_items => ''[]''', '''87001234567'', cart_items => ''[1]''',
      '''87001234567'', cart_items => ''[{"a": 1}]''', '''87001234567'', cart_items => ''[{"catalog_item_id": 0}]''',
      '''87001234567'', cart_items => ''[{"catalog_item_id": 1}]''', '''87001234567'', cart_items => ''[{"catalog_item_id": 1, "count": 1, "price": 0}]''',
      '''87001234567'', 1, discount_percentage => 100', '''87001234567'', 1, description => repeat(''x'', 501)',
      '''87001234567'', 1, external_order_id => repeat(''x'', 256)', '''87001234567'', 1, internal_comment => repeat(''x'', 192)',
      '''87001234567'', 1, kaspi_connection_id => 0', '8700', 'true, 1', '1.5, 1', 'null::bigint, 1'] loop
    perform pg_temp.refused(format('select apipay.create_invoice(%s)', argument));
  end loop;
  foreach argument in array array['null', '0'] loop
    perform pg_temp.refused(format('select apipay.cancel_invoice(%s)', argument));
  end loop;
  foreach argument in array array['null', '0', '1, 0', '1, 0.001', '1, reason => repeat(''x'', 437)', '1, return_items => ''{}''',
      '1, return_items => ''[{"catalog_item_id": 1}]''', '1, return_items => ''[{"catalog_item_id": 1, "count": 0}]''',
      '1, return_items => ''[{"catalog_item_id": 1, "amount": 0}]'''] loop
    perform pg_temp.refused(format('select apipay.refund_invoice(%s)', argument));
  end loop;

  foreach state in array array['null', '-1'] loop
    perform pg_temp.refused(format('select apipay.retry(%s)', state));
    perform pg_temp.refused(format('select apipay.cancel(%s)', state));
    perform pg_temp.refused(format('select apipay.resolve(%s, false)', state));
  end loop;
  foreach state in array array['uncertain', 'held', 'sending', 'accepted', 'succeeded'] loop
    id := pg_temp.job(state);
    perform pg_temp.refused(format('select apipay.retry(%s)', id));
    perform pg_temp.refused(format('select apipay.cancel(%s)', id));
  end loop;
  perform pg_temp.refused(format('select apipay.retry(%s)', pg_temp.job('parked', account => 'ill')));

  foreach state in array array['queued', 'parked', 'sending', 'accepted', 'failed'] loop
    perform pg_temp.refused(format('select apipay.resolve(%s, false)', pg_temp.job(state)));
  end loop;
  id := pg_temp.job('uncertain');
  foreach argument in array array['null', 'false, 1', 'true, 1, and_cancel => true', 'true, 0', 'true', 'false, and_cancel => true'] loop
    perform pg_temp.refused(format('select apipay.resolve(%s, %s)', id, argument));
  end loop;
  other := pg_temp.job('held');
  insert into apipay.invoices (account, id, job_id, job_token, status) select 'default', 5, j.id, j.token, 'pending' from apipay.jobs j where j.id = other;
  perform pg_temp.refused(format('select apipay.resolve(%s, true, 5)', id));
  insert into apipay.refunds (account, id, invoice_id, status) values ('default', 6, 60, 'pending');
  id := pg_temp.job('held', 'invoice.refund', '{"invoice_id": 61}');
  perform pg_temp.refused(format('select apipay.resolve(%s, true, 6)', id));
  id := pg_temp.job('held', 'invoice.cancel', '{"invoice_id": 61}');
  perform pg_temp.refused(format('select apipay.resolve(%s, true, 62)', id));

  foreach argument in array array['null', '''nobody'''] loop
    perform pg_temp.refused(format('select apipay.park(%s)', argument));
    perform pg_temp.refused(format('select apipay.resume(%s)', argument));
  end loop;

  foreach argument in array array['null', '-1'] loop
    perform pg_temp.refused(format('select apipay.acknowledge(%s)', argument));
  end loop;
  id := apipay._open_alert('ill', 'other_organization', 'critical', 'It is another one.', 'look', '{}', 'cafe');
  other := pg_temp.job('sending', account => 'ill');
  perform pg_temp.refused(format('select apipay.acknowledge(%s)', id));
  perform apipay._announce(gen_random_uuid(), 'host', '1', '{ill}');
  perform pg_temp.refused(format('select apipay.acknowledge(%s, ''why'')', id));

  -- One sentence each, without a line break or what a template would leave.
  assert not exists (select from refusals where said ~ E'[\n%]' or said ~ '[.]$' or length(said) < 20),
    (select string_agg(said, E'\n') from refusals where said ~ E'[\n%]' or said ~ '[.]$' or length(said) < 20);
  -- What is refused of many jobs is their answer, and a stop or a start is never refused.
  assert not exists (
    select from pg_proc p
    where p.pronamespace = 'apipay'::regnamespace and p.proname not like '\_%'
      and p.proname <> all (array['cancel_jobs', 'retry_jobs', 'stop', 'start'])
      and not exists (select from refusals r where r.called = p.proname)), 'a public function has no case here';
end $$;
