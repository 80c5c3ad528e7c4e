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

-- What the checks below need.

create function apipay._refuse_argument(argument text, problem text, allowed text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  raise exception '% %; allowed: %', argument, problem, allowed using errcode = 'invalid_parameter_value';
end $$;
comment on function apipay._refuse_argument(text, text, text) is
  'Raises the one error of a wrong argument: which, what is wrong, what is allowed. Values are not repeated: they may be personal.';

create function apipay._check_length(argument text, value text, longest int) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if length(value) > longest then
    perform apipay._refuse_argument(argument, format('has %s characters', length(value)), format('at most %s', longest));
  end if;
end $$;
comment on function apipay._check_length(text, text, int) is 'Refuses a text that is longer than the gateway takes.';

create function apipay._check_id(argument text, value bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if value < 1 then
    perform apipay._refuse_argument(argument, 'is not an id of the gateway', 'a whole number from 1');
  end if;
end $$;
comment on function apipay._check_id(text, bigint) is 'Refuses a number that cannot be an id of the gateway.';

create function apipay._check_item_list(argument text, items jsonb, known text[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  item record;
  unknown text;
begin
  if jsonb_typeof(items) <> 'array' then
    perform apipay._refuse_argument(argument, format('is a JSON %s', jsonb_typeof(items)), 'an array of 1 to 100 objects');
  elsif jsonb_array_length(items) not between 1 and 100 then
    perform apipay._refuse_argument(argument, format('has %s items', jsonb_array_length(items)), '1 to 100');
  end if;
  for item in select value, ordinality from jsonb_array_elements(items) with ordinality loop
    if jsonb_typeof(item.value) <> 'object' then
      perform apipay._refuse_argument(format('%s, item %s,', argument, item.ordinality),
        format('is a JSON %s', jsonb_typeof(item.value)), format('an object with %s', array_to_string(known, ', ')));
    end if;
    select min(key) into unknown from jsonb_object_keys(item.value) as key where key <> all (known);
    if unknown is not null then
      perform apipay._refuse_argument(format('%s, item %s,', argument, item.ordinality),
        format('has the unknown key "%s"', left(unknown, 40)), array_to_string(known, ', '));
    elsif not apipay._number_within(item.value -> 'catalog_item_id', 1, 9223372036854775807, 0) then
      perform apipay._refuse_argument(format('%s, item %s, catalog_item_id', argument, item.ordinality),
        'is missing or not an id', 'a whole number from 1');
    end if;
  end loop;
end $$;
comment on function apipay._check_item_list(text, jsonb, text[]) is
  'Refuses what is not an array of 1 to 100 objects with known keys and a catalog_item_id.';

create function apipay._check_cart_items(items jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  item record;
begin
  perform apipay._check_item_list('cart_items', items, array['catalog_item_id', 'count', 'price']);
  for item in select value, ordinality from jsonb_array_elements(items) with ordinality loop
    if not apipay._number_within(item.value -> 'count', 1, 2147483647, 0) then
      perform apipay._refuse_argument(format('cart_items, item %s, count', item.ordinality),
        'is missing or wrong', 'a whole number from 1');
    elsif item.value ? 'price' and not apipay._number_within(item.value -> 'price', 0.01, 99999999.99, 2) then
      perform apipay._refuse_argument(format('cart_items, item %s, price', item.ordinality),
        'is wrong', '0.01 to 99999999.99 with at most two decimals, or no price');
    end if;
  end loop;
end $$;
comment on function apipay._check_cart_items(jsonb) is 'Refuses a cart that the gateway would refuse.';

create function apipay._check_return_items(items jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  item record;
begin
  perform apipay._check_item_list('return_items', items, array['catalog_item_id', 'count', 'amount']);
  for item in select value, ordinality from jsonb_array_elements(items) with ordinality loop
    if (item.value ? 'count') = (item.value ? 'amount') then
      perform apipay._refuse_argument(format('return_items, item %s,', item.ordinality),
        case when item.value ? 'count' then 'has count and amount' else 'has neither count nor amount' end,
        'exactly one of the two');
    elsif item.value ? 'count' and not apipay._number_within(item.value -> 'count', 1, 2147483647, 0) then
      perform apipay._refuse_argument(format('return_items, item %s, count', item.ordinality),
        'is wrong', 'a whole number from 1');
    elsif item.value ? 'amount' and not apipay._number_within(item.value -> 'amount', 0.01, 99999999.99, 2) then
      perform apipay._refuse_argument(format('return_items, item %s, amount', item.ordinality),
        'is wrong', '0.01 to 99999999.99 with at most two decimals');
    end if;
  end loop;
end $$;
comment on function apipay._check_return_items(jsonb) is 'Refuses return items that the gateway would refuse.';

-- The common tail of all three functions: everything about the job that is not sent.
create function apipay._enqueue(
  asked_operation text, asked_params jsonb, account_name text, key text, asked_priority int,
  due timestamptz, deadline timestamptz, extra jsonb, trace text) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  job bigint;
  taken record;
begin
  if not exists (select from apipay.accounts where name = account_name) or account_name is null then
    perform apipay._refuse_argument('account', case when account_name is null then 'is null' else 'is unknown' end,
      coalesce((select string_agg(name, ', ' order by name) from apipay.accounts),
               'none yet: the daemon makes them from its configuration when it starts'));
  elsif length(key) not between 1 and 255 then
    perform apipay._refuse_argument('dedup_key', format('has %s characters', length(key)), '1 to 255');
  elsif asked_priority not between -32768 and 32767 then
    perform apipay._refuse_argument('priority', 'is out of range', '-32768 to 32767');
  elsif deadline <= coalesce(due, now()) then
    perform apipay._refuse_argument('expires_at',
      case when due is null then 'is not in the future' else 'is not after run_at' end, 'a later moment, or null for no limit');
  elsif jsonb_typeof(extra) <> 'object' then
    perform apipay._refuse_argument('metadata', format('is a JSON %s', jsonb_typeof(extra)), 'an object');
  end if;
  perform apipay._check_length('traceparent', trace, 255);

  -- A second round only when the job with this key was pruned between the two statements.
  for round in 1 .. 10 loop
    insert into apipay.jobs (account, operation, params, dedup_key, priority, run_at, expires_at, metadata, traceparent)
    values (account_name, asked_operation, asked_params, key, coalesce(asked_priority, 0),
            coalesce(due, now()), deadline, coalesce(extra, '{}'), trace)
    on conflict (account, dedup_key) do nothing
    returning id into job;
    if job is not null then
      return job;
    end if;
    select j.id, j.operation, j.params into taken
      from apipay.jobs j where j.account = account_name and j.dedup_key = key;
    exit when found;
  end loop;
  if taken.operation = asked_operation and taken.params = asked_params then
    return taken.id;
  end if;
  raise exception 'dedup_key is taken by job % of account "%", which asks for something else (different: %); one key names one business event, for ever',
    taken.id, account_name,
    case when taken.operation <> asked_operation then 'operation'
         else (select string_agg(coalesce(o.key, n.key), ', ' order by coalesce(o.key, n.key))
               from jsonb_each(taken.params) o full join jsonb_each(asked_params) n using (key)
               where o.value is distinct from n.value) end
    using errcode = 'unique_violation', constraint = 'jobs_dedup';
end $$;
comment on function apipay._enqueue(text, jsonb, text, text, int, timestamptz, timestamptz, jsonb, text) is
  'Inserts a checked job. A dedup_key that exists returns its job when that asks for the same, and is refused otherwise.';

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
begin
  if apipay._phone(phone_number) is null then
    perform apipay._refuse_argument('phone_number',
      case when phone_number is null then 'is null'
           else format('is not a phone number of Kazakhstan (%s characters given)', length(phone_number)) end,
      '8 and ten digits like 87001234567, also written +7 700 123-45-67');
  elsif cart_items is null and amount is null then
    perform apipay._refuse_argument('amount', 'is missing', 'whole tenge from 1 to 99999999, or cart_items instead');
  elsif cart_items is not null and amount is not null then
    perform apipay._refuse_argument('amount', 'is given beside cart_items', 'one of the two: the gateway adds up a cart itself');
  elsif amount <> trunc(amount) or amount not between 1 and 99999999 then
    perform apipay._refuse_argument('amount', format('is %s', left(amount::text, 40)), 'whole tenge from 1 to 99999999');
  elsif discount_percentage <> trunc(discount_percentage) or discount_percentage not between 1 and 99 then
    perform apipay._refuse_argument('discount_percentage', format('is %s', left(discount_percentage::text, 40)),
      'a whole number from 1 to 99, or null for no discount');
  end if;
  if cart_items is not null then
    perform apipay._check_cart_items(cart_items);
  end if;
  perform apipay._check_length('description', description, 500);
  perform apipay._check_length('external_order_id', external_order_id, 255);
  -- The gateway takes 255; the job's name takes up to 64 of them.
  perform apipay._check_length('internal_comment', internal_comment, 191);
  perform apipay._check_id('kaspi_connection_id', kaspi_connection_id);
  return apipay._enqueue('invoice.create',
    jsonb_strip_nulls(jsonb_build_object(
      'phone_number', apipay._phone(phone_number), 'amount', trim_scale(amount),
      'discount_percentage', trim_scale(discount_percentage), 'description', nullif(description, ''),
      'internal_comment', nullif(internal_comment, ''), 'external_order_id', nullif(external_order_id, ''),
      'kaspi_connection_id', kaspi_connection_id))
    || case when cart_items is null then '{}' else jsonb_build_object('cart_items', cart_items) end,
    account, dedup_key, priority, run_at, expires_at, metadata, traceparent);
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
begin
  if pg_typeof(phone_number) not in ('bigint'::regtype, 'int'::regtype, 'numeric'::regtype, 'double precision'::regtype) then
    perform apipay._refuse_argument('phone_number', format('is of type %s', pg_typeof(phone_number)),
      'text, or a whole number as bigint, numeric or double precision');
  elsif phone_number::numeric <> trunc(phone_number::numeric) then
    perform apipay._refuse_argument('phone_number', 'is not a whole number', '8 and ten digits like 87001234567');
  end if;
  return apipay.create_invoice(trunc(phone_number::numeric)::text, amount, description, external_order_id, cart_items,
    discount_percentage, internal_comment, kaspi_connection_id, account, dedup_key, priority, run_at, expires_at, metadata, traceparent);
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
begin
  if invoice_id is null then
    perform apipay._refuse_argument('invoice_id', 'is null', 'the gateway''s id of the invoice, as in apipay.jobs.invoice_id');
  end if;
  perform apipay._check_id('invoice_id', invoice_id);
  return apipay._enqueue('invoice.cancel', jsonb_build_object('invoice_id', invoice_id),
    account, dedup_key, priority, run_at, expires_at, metadata, traceparent);
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
begin
  if invoice_id is null then
    perform apipay._refuse_argument('invoice_id', 'is null', 'the gateway''s id of the invoice, as in apipay.jobs.invoice_id');
  elsif amount <> round(amount, 2) or amount not between 0.01 and 99999999.99 then
    perform apipay._refuse_argument('amount', format('is %s', left(amount::text, 40)),
      '0.01 to 99999999.99 tenge with at most two decimals, or null for all that is left');
  end if;
  perform apipay._check_id('invoice_id', invoice_id);
  -- The gateway takes 500; the job's name takes up to 64 of them.
  perform apipay._check_length('reason', reason, 436);
  if return_items is not null then
    perform apipay._check_return_items(return_items);
  end if;
  return apipay._enqueue('invoice.refund',
    jsonb_strip_nulls(jsonb_build_object(
      'invoice_id', invoice_id, 'amount', trim_scale(amount), 'reason', nullif(reason, '')))
    || case when return_items is null then '{}' else jsonb_build_object('return_items', return_items) end,
    account, dedup_key, priority, run_at, expires_at, metadata, traceparent);
end $$;
comment on function apipay.refund_invoice(bigint, numeric, text, jsonb, text, text, int, timestamptz, timestamptz, jsonb, text) is
  'Enqueues a refund of a paid invoice (the gateway''s id) and returns the job''s id. Without an amount all that is left is refunded.';
