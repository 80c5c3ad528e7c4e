-- Enqueueing by function: every argument is checked against the gateway's limits before a row is
-- written, and what is wrong is said in one sentence. A plain insert into apipay.jobs stays possible;
-- its params are checked later, by the daemon.
set search_path = pg_catalog, pg_temp;

-- \u00a0, \u2007, \u2009, \u202f: spaces that do not break; \u2010 ... \u2015, \u2212: dashes.
create function apipay._phone(written text) returns text
language sql immutable parallel safe
return '8' || substring(
  regexp_replace(written, E'[\\s().\\u00a0\\u2007\\u2009\\u202f\\u2010-\\u2015\\u2212-]', '', 'g')
  from '^(?:[+]?7|8)([0-9]{10})$');
comment on function apipay._phone(text) is
  'A phone number of Kazakhstan as the gateway wants it (87001234567), from the forms that people store; null when it is none.';

-- What the checks below need. None of them raises: each returns what is wrong as a sentence, or null, so that the
-- function that was called raises it, and an error has one line of context.

create function apipay._wrong(argument text, problem text, allowed text) returns text
language sql immutable parallel safe
return format('%s %s; allowed: %s', argument, problem, allowed);
comment on function apipay._wrong(text, text, text) is
  'The one sentence about a wrong argument: which, what is wrong, what is allowed. Values are not repeated: they may be personal.';

create function apipay._wrong_length(argument text, value text, longest int) returns text
language sql immutable parallel safe
return case when length(value) > longest then
  apipay._wrong(argument, concat('has ', length(value), ' characters'), concat('at most ', longest)) end;
comment on function apipay._wrong_length(text, text, int) is 'What is wrong with a text that is longer than the gateway takes; null when nothing is.';

create function apipay._wrong_id(argument text, value bigint) returns text
language sql immutable parallel safe
return case when value < 1 then apipay._wrong(argument, 'is not an id of the gateway', 'a whole number from 1') end;
comment on function apipay._wrong_id(text, bigint) is 'What is wrong with a number that cannot be an id of the gateway; null when nothing is.';

-- What every object in a list of items must be.
create function apipay._wrong_item(place text, item jsonb, known text[]) returns text
language sql immutable parallel safe
return case
  when jsonb_typeof(item) <> 'object' then
    apipay._wrong(place || ',', format('is a JSON %s', jsonb_typeof(item)), format('an object with %s', array_to_string(known, ', ')))
  when exists (select from jsonb_object_keys(item) as key where key <> all (known)) then
    apipay._wrong(place || ',', format('has the unknown key "%s"', left((
      select min(key) from jsonb_object_keys(item) as key where key <> all (known)), 40)), array_to_string(known, ', '))
  when not apipay._number_within(item -> 'catalog_item_id', 1, 9223372036854775807, 0) then
    apipay._wrong(place || ', catalog_item_id', 'is missing or not an id', 'a whole number from 1') end;
comment on function apipay._wrong_item(text, jsonb, text[]) is
  'What is wrong with an item that is no object with known keys and a catalog_item_id; null when nothing is.';

create function apipay._wrong_list(argument text, items jsonb) returns text
language sql immutable parallel safe
return case
  when jsonb_typeof(items) <> 'array' then apipay._wrong(argument, format('is a JSON %s', jsonb_typeof(items)), 'an array of 1 to 100 objects')
  when jsonb_array_length(items) not between 1 and 100 then apipay._wrong(argument, concat('has ', jsonb_array_length(items), ' items'), '1 to 100') end;
comment on function apipay._wrong_list(text, jsonb) is 'What is wrong with what is not an array of 1 to 100 items; null when nothing is.';

create function apipay._wrong_cart_items(items jsonb) returns text
language sql immutable parallel safe
return coalesce(apipay._wrong_list('cart_items', items), (
  select wrong.sentence
  from jsonb_array_elements(case jsonb_typeof(items) when 'array' then items else '[]' end) with ordinality as item (value, place)
  cross join lateral (select format('cart_items, item %s', item.place)) as it (name)
  cross join lateral (select case
    when apipay._wrong_item(it.name, item.value, array['catalog_item_id', 'count', 'price']) is not null then
      apipay._wrong_item(it.name, item.value, array['catalog_item_id', 'count', 'price'])
    when not apipay._number_within(item.value -> 'count', 1, 2147483647, 0) then
      apipay._wrong(it.name || ', count', 'is missing or wrong', 'a whole number from 1')
    when item.value ? 'price' and not apipay._number_within(item.value -> 'price', 0.01, 99999999.99, 2) then
      apipay._wrong(it.name || ', price', 'is wrong', '0.01 to 99999999.99 with at most two decimals, or no price') end) as wrong (sentence)
  where wrong.sentence is not null
  order by item.place limit 1));
comment on function apipay._wrong_cart_items(jsonb) is 'What is wrong with a cart that the gateway would refuse; null when nothing is.';

create function apipay._wrong_return_items(items jsonb) returns text
language sql immutable parallel safe
return coalesce(apipay._wrong_list('return_items', items), (
  select wrong.sentence
  from jsonb_array_elements(case jsonb_typeof(items) when 'array' then items else '[]' end) with ordinality as item (value, place)
  cross join lateral (select format('return_items, item %s', item.place)) as it (name)
  cross join lateral (select case
    when apipay._wrong_item(it.name, item.value, array['catalog_item_id', 'count', 'amount']) is not null then
      apipay._wrong_item(it.name, item.value, array['catalog_item_id', 'count', 'amount'])
    when (item.value ? 'count') = (item.value ? 'amount') then
      apipay._wrong(it.name || ',', case when item.value ? 'count' then 'has count and amount' else 'has neither count nor amount' end,
        'exactly one of the two')
    when item.value ? 'count' and not apipay._number_within(item.value -> 'count', 1, 2147483647, 0) then
      apipay._wrong(it.name || ', count', 'is wrong', 'a whole number from 1')
    when item.value ? 'amount' and not apipay._number_within(item.value -> 'amount', 0.01, 99999999.99, 2) then
      apipay._wrong(it.name || ', amount', 'is wrong', '0.01 to 99999999.99 with at most two decimals') end) as wrong (sentence)
  where wrong.sentence is not null
  order by item.place limit 1));
comment on function apipay._wrong_return_items(jsonb) is 'What is wrong with return items that the gateway would refuse; null when nothing is.';

-- The common tail of all three functions: everything about the job that is not sent.
create function apipay._wrong_job(
  account_name text, key text, asked_priority int, due timestamptz, deadline timestamptz, extra jsonb, trace text) returns text
language sql stable
return case
  when account_name is null or not exists (select from apipay.accounts where name = account_name) then
    apipay._wrong('account', case when account_name is null then 'is null' else 'is unknown' end,
      coalesce((select string_agg(name, ', ' order by name) from apipay.accounts),
               'none yet: the daemon makes them from its configuration when it starts'))
  when length(key) not between 1 and 255 then apipay._wrong('dedup_key', concat('has ', length(key), ' characters'), '1 to 255')
  when asked_priority not between -32768 and 32767 then apipay._wrong('priority', 'is out of range', '-32768 to 32767')
  when deadline <= coalesce(due, now()) then
    apipay._wrong('expires_at',
      case when due is null then 'is not in the future' else 'is not after run_at' end, 'a later moment, or null for no limit')
  when jsonb_typeof(extra) <> 'object' then apipay._wrong('metadata', format('is a JSON %s', jsonb_typeof(extra)), 'an object')
  else apipay._wrong_length('traceparent', trace, 255) end;
comment on function apipay._wrong_job(text, text, int, timestamptz, timestamptz, jsonb, text) is
  'What is wrong with those arguments of a job that are not sent; null when nothing is.';

create function apipay._enqueue(
  asked_operation text, asked_params jsonb, account_name text, key text, asked_priority int,
  due timestamptz, deadline timestamptz, extra jsonb, trace text, out job bigint, out taken text)
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  other record;
begin
  -- A second round only when the job with this key was pruned between the two statements.
  for round in 1 .. 10 loop
    insert into apipay.jobs (account, operation, params, dedup_key, priority, run_at, expires_at, metadata, traceparent)
    values (account_name, asked_operation, asked_params, key, coalesce(asked_priority, 0),
            coalesce(due, now()), deadline, coalesce(extra, '{}'), trace)
    on conflict (account, dedup_key) do nothing
    returning id into job;
    if job is not null then
      return;
    end if;
    select j.id, j.operation, j.params into other
      from apipay.jobs j where j.account = account_name and j.dedup_key = key;
    exit when found;
  end loop;
  if other.id is null then
    perform apipay._all_changed('apipay.jobs', 1, 0);
  end if;
  if other.operation = asked_operation and other.params = asked_params then
    job := other.id;
    return;
  end if;
  taken := format('dedup_key is taken by job %s of account "%s", which asks for something else (different: %s); one key names one business event, for ever',
    other.id, account_name,
    case when other.operation <> asked_operation then 'operation'
         else (select string_agg(coalesce(o.key, n.key), ', ' order by coalesce(o.key, n.key))
               from jsonb_each(other.params) o full join jsonb_each(asked_params) n using (key)
               where o.value is distinct from n.value) end);
end $$;
comment on function apipay._enqueue(text, jsonb, text, text, int, timestamptz, timestamptz, jsonb, text) is
  'Inserts a checked job. A dedup_key that exists returns its job when that asks for the same; otherwise no job, and why it is refused.';

create function apipay._wrong_bill(
  phone text, amount numeric, description text, external_order_id text, cart_items jsonb, discount_percentage numeric,
  internal_comment text, kaspi_connection_id bigint) returns text
language sql immutable parallel safe
return case
  when apipay._phone(phone) is null then
    apipay._wrong('phone_number',
      case when phone is null then 'is null'
           else concat('is not a phone number of Kazakhstan (', length(phone), ' characters given)') end,
      '8 and ten digits like 87001234567, also written +7 700 123-45-67')
  when cart_items is null and amount is null then
    apipay._wrong('amount', 'is missing', 'whole tenge from 1 to 99999999, or cart_items instead')
  when cart_items is not null and amount is not null then
    apipay._wrong('amount', 'is given beside cart_items', 'one of the two: the gateway adds up a cart itself')
  when amount <> trunc(amount) or amount not between 1 and 99999999 then
    apipay._wrong('amount', format('is %s', left(amount::text, 40)), 'whole tenge from 1 to 99999999')
  when discount_percentage <> trunc(discount_percentage) or discount_percentage not between 1 and 99 then
    apipay._wrong('discount_percentage', format('is %s', left(discount_percentage::text, 40)),
      'a whole number from 1 to 99, or null for no discount')
  else coalesce(
    case when cart_items is not null then apipay._wrong_cart_items(cart_items) end,
    apipay._wrong_length('description', description, 500),
    apipay._wrong_length('external_order_id', external_order_id, 255),
    -- The gateway takes 255; the job's name takes up to 64 of them.
    apipay._wrong_length('internal_comment', internal_comment, 191),
    apipay._wrong_id('kaspi_connection_id', kaspi_connection_id)) end;
comment on function apipay._wrong_bill(text, numeric, text, text, jsonb, numeric, text, bigint) is
  'What is wrong with the arguments of a bill; null when nothing is.';

create function apipay._bill(
  phone text, amount numeric, description text, external_order_id text, cart_items jsonb, discount_percentage numeric,
  internal_comment text, kaspi_connection_id bigint) returns jsonb
language sql immutable parallel safe
return jsonb_strip_nulls(jsonb_build_object(
    'phone_number', apipay._phone(phone), 'amount', trim_scale(amount),
    'discount_percentage', trim_scale(discount_percentage), 'description', nullif(description, ''),
    'internal_comment', nullif(internal_comment, ''), 'external_order_id', nullif(external_order_id, ''),
    'kaspi_connection_id', kaspi_connection_id))
  || case when cart_items is null then '{}' else jsonb_build_object('cart_items', cart_items) end;
comment on function apipay._bill(text, numeric, text, text, jsonb, numeric, text, bigint) is 'The params of a bill with these arguments.';

create function apipay.create_invoice(
  phone_number text,
  amount numeric default null,
  description text default null,
  external_order_id text default null,
  cart_items jsonb default null,
  discount_percentage numeric default null,
  internal_comment text default null,
  kaspi_connection_id bigint default null,
  account text default 'default',
  dedup_key text default null,
  priority int default 0,
  run_at timestamptz default null,
  expires_at timestamptz default null,
  metadata jsonb default '{}',
  traceparent text default null) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  wrong constant text := coalesce(
    apipay._wrong_bill(phone_number, amount, description, external_order_id, cart_items, discount_percentage, internal_comment, kaspi_connection_id),
    apipay._wrong_job(account, dedup_key, priority, run_at, expires_at, metadata, traceparent));
  enqueued record;
begin
  if wrong is not null then
    raise exception using message = wrong, errcode = 'invalid_parameter_value';
  end if;
  enqueued := apipay._enqueue('invoice.create', apipay._bill(phone_number, amount, description, external_order_id, cart_items, discount_percentage,
    internal_comment, kaspi_connection_id), account, dedup_key, priority, run_at, expires_at, metadata, traceparent);
  if enqueued.taken is not null then
    raise exception using message = enqueued.taken, errcode = 'unique_violation', constraint = 'jobs_dedup';
  end if;
  return enqueued.job;
end $$;
comment on function apipay.create_invoice(text, numeric, text, text, jsonb, numeric, text, bigint, text, text, int, timestamptz, timestamptz, jsonb, text) is
  'Enqueues a bill to a phone number and returns the job''s id. Either amount (whole tenge) or cart_items. Empty texts count as not given. The same dedup_key with the same request returns the first job''s id again.';

-- People keep phone numbers as numbers too. Of the types that hold one whole, any is taken as the text that it writes.
create function apipay.create_invoice(
  phone_number anyelement,
  amount numeric default null,
  description text default null,
  external_order_id text default null,
  cart_items jsonb default null,
  discount_percentage numeric default null,
  internal_comment text default null,
  kaspi_connection_id bigint default null,
  account text default 'default',
  dedup_key text default null,
  priority int default 0,
  run_at timestamptz default null,
  expires_at timestamptz default null,
  metadata jsonb default '{}',
  traceparent text default null) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  is_number constant boolean := pg_typeof(phone_number) in ('bigint'::regtype, 'int'::regtype, 'numeric'::regtype, 'double precision'::regtype);
  written constant text := case when is_number then trunc(phone_number::text::numeric)::text end;
  wrong constant text := coalesce(
    case when not is_number then apipay._wrong('phone_number', format('is of type %s', pg_typeof(phone_number)),
           'text, or a whole number as bigint, numeric or double precision')
         when phone_number::text::numeric <> written::numeric then
           apipay._wrong('phone_number', 'is not a whole number', '8 and ten digits like 87001234567') end,
    apipay._wrong_bill(written, amount, description, external_order_id, cart_items, discount_percentage, internal_comment, kaspi_connection_id),
    apipay._wrong_job(account, dedup_key, priority, run_at, expires_at, metadata, traceparent));
  enqueued record;
begin
  if wrong is not null then
    raise exception using message = wrong, errcode = 'invalid_parameter_value';
  end if;
  enqueued := apipay._enqueue('invoice.create', apipay._bill(written, amount, description, external_order_id, cart_items, discount_percentage,
    internal_comment, kaspi_connection_id), account, dedup_key, priority, run_at, expires_at, metadata, traceparent);
  if enqueued.taken is not null then
    raise exception using message = enqueued.taken, errcode = 'unique_violation', constraint = 'jobs_dedup';
  end if;
  return enqueued.job;
end $$;
comment on function apipay.create_invoice(anyelement, numeric, text, text, jsonb, numeric, text, bigint, text, text, int, timestamptz, timestamptz, jsonb, text) is
  'The same for a phone number that is kept as a number.';

-- With the owner's rights: operators cancel an invoice too, and enqueue nothing else.
create function apipay.cancel_invoice(
  invoice_id bigint,
  account text default 'default',
  dedup_key text default null,
  priority int default 0,
  run_at timestamptz default null,
  expires_at timestamptz default null,
  metadata jsonb default '{}',
  traceparent text default null) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  wrong constant text := coalesce(
    case when invoice_id is null then apipay._wrong('invoice_id', 'is null', 'the gateway''s id of the invoice, as in apipay.jobs.invoice_id') end,
    apipay._wrong_id('invoice_id', invoice_id),
    apipay._wrong_job(account, dedup_key, priority, run_at, expires_at, metadata, traceparent));
  enqueued record;
begin
  if wrong is not null then
    raise exception using message = wrong, errcode = 'invalid_parameter_value';
  end if;
  enqueued := apipay._enqueue('invoice.cancel', jsonb_build_object('invoice_id', invoice_id), account, dedup_key, priority, run_at, expires_at, metadata, traceparent);
  if enqueued.taken is not null then
    raise exception using message = enqueued.taken, errcode = 'unique_violation', constraint = 'jobs_dedup';
  end if;
  return enqueued.job;
end $$;
comment on function apipay.cancel_invoice(bigint, text, text, int, timestamptz, timestamptz, jsonb, text) is
  'Enqueues the cancellation of an unpaid invoice (the gateway''s id) and returns the job''s id.';

create function apipay.refund_invoice(
  invoice_id bigint,
  amount numeric default null,
  reason text default null,
  return_items jsonb default null,
  account text default 'default',
  dedup_key text default null,
  priority int default 0,
  run_at timestamptz default null,
  expires_at timestamptz default null,
  metadata jsonb default '{}',
  traceparent text default null) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  wrong constant text := coalesce(
    case when invoice_id is null then apipay._wrong('invoice_id', 'is null', 'the gateway''s id of the invoice, as in apipay.jobs.invoice_id')
         when amount <> round(amount, 2) or amount not between 0.01 and 99999999.99 then
           apipay._wrong('amount', format('is %s', left(amount::text, 40)), '0.01 to 99999999.99 tenge with at most two decimals, or null for all that is left') end,
    apipay._wrong_id('invoice_id', invoice_id),
    -- The gateway takes 500; the job's name takes up to 64 of them.
    apipay._wrong_length('reason', reason, 436),
    case when return_items is not null then apipay._wrong_return_items(return_items) end,
    apipay._wrong_job(account, dedup_key, priority, run_at, expires_at, metadata, traceparent));
  enqueued record;
begin
  if wrong is not null then
    raise exception using message = wrong, errcode = 'invalid_parameter_value';
  end if;
  enqueued := apipay._enqueue('invoice.refund', jsonb_strip_nulls(jsonb_build_object(
      'invoice_id', invoice_id, 'amount', trim_scale(amount), 'reason', nullif(reason, '')))
    || case when return_items is null then '{}' else jsonb_build_object('return_items', return_items) end, account, dedup_key, priority, run_at, expires_at, metadata, traceparent);
  if enqueued.taken is not null then
    raise exception using message = enqueued.taken, errcode = 'unique_violation', constraint = 'jobs_dedup';
  end if;
  return enqueued.job;
end $$;
comment on function apipay.refund_invoice(bigint, numeric, text, jsonb, text, text, int, timestamptz, timestamptz, jsonb, text) is
  'Enqueues a refund of a paid invoice (the gateway''s id) and returns the job''s id. Without an amount all that is left is refunded.';
