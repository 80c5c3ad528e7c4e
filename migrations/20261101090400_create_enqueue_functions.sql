-- Enqueueing by function: every argument is checked against the gateway's limits before a row is
-- written, and what is wrong is said in one sentence. A plain insert into apipay.jobs stays possible;
-- its params are checked later, by the daemon.
set search_path = pg_catalog, pg_temp;

-- Brackets, dots, blanks of any width and dashes count for nothing, as in the daemon: after the blanks of ASCII come those
-- of other scripts and of print, \u00a0 ... \u3000, then the dashes, \u2010 ... \u2015, and the minus sign, \u2212.
create function apipay._phone(written text) returns text
language sql immutable parallel safe
return '8' || substring(
  regexp_replace(written, E'[\\t-\\r ().\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000\\u2010-\\u2015\\u2212-]', '', 'g')
  from '^(?:[+]?7|8)([0-9]{10})$');
comment on function apipay._phone(text) is
  'A phone number of Kazakhstan as the gateway wants it (87001234567), from the forms that people store; null when it is none.';

-- What the checks below need. None of them raises: each returns what is wrong as a sentence, or null, so that the
-- function that was called raises it, and an error has one line of context.

create function apipay._wrong(argument text, problem text, allowed text) returns text
language sql immutable parallel safe
return format('%s %s; allowed: %s', argument, problem, allowed);
comment on function apipay._wrong(text, text, text) is
  'The one sentence about a wrong argument: which, what is wrong, what is allowed. No text and no long number is repeated: it may be personal.';

create function apipay._wrong_length(argument text, value text, longest int) returns text
language sql immutable parallel safe
return case when length(value) > longest then
  apipay._wrong(argument, concat('has ', length(value), ' characters'), concat('at most ', longest)) end;
comment on function apipay._wrong_length(text, text, int) is 'What is wrong with a text that is longer than the gateway takes; null when nothing is.';

-- What an operation may be given. It stands in the daemon's source too, beside each operation, which says what the words
-- mean (src/domain/operation/fields.rs). A test compares the two, and prints what has to stand here.
create function apipay._fields(asked_operation text) returns jsonb
language sql immutable parallel safe
return case asked_operation
  when 'invoice.cancel' then jsonb '{
    "fields": [
      {"name": "invoice_id", "kind": "id", "need": "required", "allowed": "the gateway''s id of the invoice, as in apipay.jobs.invoice_id: a whole number from 1"}],
    "reserved": [], "rules": []}'
  when 'invoice.create' then jsonb '{
    "fields": [
      {"name": "phone_number", "kind": "phone", "need": "required", "allowed": "8 and ten digits, also written with +7 or 7 in place of the 8, with blanks, dashes and brackets"},
      {"name": "amount", "kind": "number", "least": "1", "most": "99999999", "decimals": 0, "need": {"unless": "cart_items"}, "allowed": "whole tenge from 1 to 99999999, or cart_items instead"},
      {"name": "cart_items", "kind": "items", "need": "optional", "allowed": "an array of 1 to 100 objects",
        "fields": [
          {"name": "catalog_item_id", "kind": "id", "need": "required", "allowed": "a whole number from 1"},
          {"name": "count", "kind": "number", "least": "1", "most": "9223372036854775807", "decimals": 0, "need": "required", "allowed": "a whole number from 1"},
          {"name": "price", "kind": "number", "least": "0.01", "most": "99999999.99", "decimals": 2, "need": "optional", "allowed": "0.01 to 99999999.99 tenge with at most two decimals, or no price"}],
        "reserved": [], "rules": []},
      {"name": "discount_percentage", "kind": "number", "least": "1", "most": "99", "decimals": 0, "need": "optional", "allowed": "a whole number from 1 to 99, or null for no discount"},
      {"name": "description", "kind": "text", "most": 500, "lines": true, "marked": false, "need": "optional", "allowed": "text of at most 500 characters"},
      {"name": "internal_comment", "kind": "text", "most": 191, "lines": true, "marked": true, "need": "optional", "allowed": "text of at most 191 characters"},
      {"name": "external_order_id", "kind": "text", "most": 255, "lines": false, "marked": false, "need": "optional", "allowed": "text of at most 255 characters"},
      {"name": "kaspi_connection_id", "kind": "id", "need": "optional", "allowed": "a whole number from 1"}],
    "reserved": [{"name": "external_order_id_idempotency", "why": "must not be given: the job''s token is the key"}], "rules": [{"whole_after_discount": {"amount": "amount", "discount": "discount_percentage"}}]}'
  when 'invoice.refund' then jsonb '{
    "fields": [
      {"name": "invoice_id", "kind": "id", "need": "required", "allowed": "the gateway''s id of the invoice, as in apipay.jobs.invoice_id: a whole number from 1"},
      {"name": "amount", "kind": "number", "least": "0.01", "most": "99999999.99", "decimals": 2, "need": "optional", "allowed": "0.01 to 99999999.99 tenge with at most two decimals, or null for all that is left"},
      {"name": "reason", "kind": "text", "most": 436, "lines": true, "marked": true, "need": "optional", "allowed": "text of at most 436 characters"},
      {"name": "return_items", "kind": "items", "need": "optional", "allowed": "an array of 1 to 100 objects",
        "fields": [
          {"name": "catalog_item_id", "kind": "id", "need": "required", "allowed": "a whole number from 1"},
          {"name": "count", "kind": "number", "least": "1", "most": "9223372036854775807", "decimals": 0, "need": "optional", "allowed": "a whole number from 1"},
          {"name": "amount", "kind": "number", "least": "0.01", "most": "99999999.99", "decimals": 2, "need": "optional", "allowed": "0.01 to 99999999.99 tenge with at most two decimals"}],
        "reserved": [], "rules": [{"exactly_one": ["count", "amount"]}]}],
    "reserved": [], "rules": []}'
end;
comment on function apipay._fields(text) is
  'What the params of an operation may hold: its fields with their kinds, limits and words, reserved fields, and rules between fields. Null for an unknown operation.';

-- The kinds of values, each as the daemon reads it (src/domain/operation/params.rs).

create function apipay._wrong_phone(argument text, value jsonb, allowed text) returns text
language sql immutable parallel safe
return case
  when jsonb_typeof(value) <> 'string' then apipay._wrong(argument, concat('is a JSON ', jsonb_typeof(value)), allowed)
  when apipay._phone(value #>> '{}') is null then
    apipay._wrong(argument, concat('is not a phone number of Kazakhstan (', length(value #>> '{}'), ' characters given)'), allowed) end;
comment on function apipay._wrong_phone(text, jsonb, text) is 'What is wrong with a value that is no phone number as text; null when nothing is.';

-- Digits, with or without a fraction, as a number or as text. Zeros that change nothing may be very many.
create function apipay._number(written text) returns numeric
language sql immutable parallel safe
return case when written ~ '^[0-9]+([.][0-9]+)?$' then (
  select case when length(bare) <= 30 then concat('0', bare)::numeric end
  from ltrim(case when written like '%.%' then rtrim(rtrim(written, '0'), '.') else written end, '0') as bare) end;
comment on function apipay._number(text) is 'A number that is written in digits, with or without a fraction; null when it is not, or is longer than any that is allowed.';

create function apipay._wrong_number(argument text, value jsonb, lowest numeric, highest numeric, decimals int, allowed text) returns text
language sql immutable parallel safe
return case
  when jsonb_typeof(value) not in ('number', 'string') then apipay._wrong(argument, concat('is a JSON ', jsonb_typeof(value)), allowed)
  when value #>> '{}' !~ '^-?[0-9]+([.][0-9]+)?$' then apipay._wrong(argument, 'is not a number in digits', allowed)
  when not coalesce((
    select number between lowest and highest and number = round(number, decimals) from apipay._number(value #>> '{}') as number), false) then
    apipay._wrong(argument, case when length(value #>> '{}') <= 9 then concat('is ', value #>> '{}') else 'is not an allowed number' end, allowed) end;
comment on function apipay._wrong_number(text, jsonb, numeric, numeric, int, text) is
  'What is wrong with a value that is no number within the limits, as number or text; null when nothing is.';

-- In other encodings than UTF8 the numbers \u0080 ... \u009f are those of letters and quotation marks.
create function apipay._wrong_text(argument text, value jsonb, most int, lines boolean, marked boolean, allowed text) returns text
language sql stable parallel safe
return case
  when jsonb_typeof(value) <> 'string' then apipay._wrong(argument, concat('is a JSON ', jsonb_typeof(value)), allowed)
  else (
    select coalesce(
      apipay._wrong_length(argument, written, most),
      case when written ~ E'[\\u0001-\\u001f\\u007f]' or getdatabaseencoding() = 'UTF8' and written ~ E'[\\u0080-\\u009f]' then
        apipay._wrong(argument, 'has control characters',
          case when lines then 'line breaks and tabs, and no others' else 'none, not even line breaks and tabs' end) end,
      -- The beginning of a job's name, behind a text: a copied one would have two jobs take one object for theirs.
      case when marked and strpos(written, '[apipayd ') > 0 then
        apipay._wrong(argument, 'has "[apipayd", which marks jobs', 'text without it') end)
    -- They are sent as blanks.
    from translate(value #>> '{}', case when lines then E'\t\n\r' else '' end, '   ') as written) end;
comment on function apipay._wrong_text(text, jsonb, int, boolean, boolean, text) is
  'What is wrong with a value that is no text, or too long, or holds what it must not; null when nothing is.';

create function apipay._wrong_items(argument text, items jsonb, known jsonb) returns text
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp as $$
declare
  wrong text;
begin
  if jsonb_typeof(items) <> 'array' then
    return apipay._wrong(argument, concat('is a JSON ', jsonb_typeof(items)), known ->> 'allowed');
  elsif jsonb_array_length(items) not between 1 and 100 then
    return apipay._wrong(argument, format('has %s items', jsonb_array_length(items)), '1 to 100');
  end if;
  for place in 0 .. jsonb_array_length(items) - 1 loop
    wrong := apipay._wrong_object(format('%s, item %s, ', argument, place + 1), items -> place, known);
    exit when wrong is not null;
  end loop;
  return wrong;
end $$;
comment on function apipay._wrong_items(text, jsonb, jsonb) is 'What is wrong with what is not an array of 1 to 100 items with known fields; null when nothing is.';

create function apipay._wrong_value(argument text, value jsonb, field jsonb) returns text
language sql stable parallel safe
return case field ->> 'kind'
  when 'phone' then apipay._wrong_phone(argument, value, field ->> 'allowed')
  when 'id' then case when apipay._id(value) is null then apipay._wrong(argument, 'is not an id of the gateway', field ->> 'allowed') end
  when 'number' then apipay._wrong_number(argument, value,
    (field ->> 'least')::numeric, (field ->> 'most')::numeric, (field ->> 'decimals')::int, field ->> 'allowed')
  when 'text' then apipay._wrong_text(argument, value,
    (field ->> 'most')::int, (field ->> 'lines')::boolean, (field ->> 'marked')::boolean, field ->> 'allowed')
  when 'items' then apipay._wrong_items(argument, value, field) end;
comment on function apipay._wrong_value(text, jsonb, jsonb) is 'What is wrong with the value of a field that is described so; null when nothing is.';

create function apipay._names_of(known jsonb) returns text
language sql immutable parallel safe
return (select string_agg(f.field ->> 'name', ', ' order by f.nth) from jsonb_array_elements(known -> 'fields') with ordinality as f (field, nth));
comment on function apipay._names_of(jsonb) is 'The names of the fields that are described.';

-- Of several such fields, the one whose name comes first by its bytes, as in the daemon.
create function apipay._wrong_name(place text, object jsonb, known jsonb) returns text
language sql immutable parallel safe
return (
  select case
    when reserved.why is not null then format('%s%s %s', place, given.name, reserved.why)
    -- A name may be a phone number.
    when given.name ~ '^[A-Za-z0-9_-]{1,64}$' and length(given.name) - length(translate(given.name, '0123456789', '')) <= 4 then
      apipay._wrong(place || given.name, 'is not a known field', apipay._names_of(known))
    else apipay._wrong(coalesce(nullif(rtrim(place), ''), 'params'), 'has a field with an unreadable name', apipay._names_of(known)) end
  from jsonb_object_keys(object) as given (name)
  left join (select field ->> 'name' as name, field ->> 'why' as why from jsonb_array_elements(known -> 'reserved') as field) as reserved
    on reserved.name = given.name
  where not jsonb_path_exists(known -> 'fields', '$[*] ? (@.name == $name)', jsonb_build_object('name', given.name))
  order by given.name collate "C" limit 1);
comment on function apipay._wrong_name(text, jsonb, jsonb) is 'What is wrong with an object that has a field which nobody described; null when nothing is.';

-- The rules between fields.

create function apipay._wrong_choice(itself text, given jsonb, one text, other text) returns text
language sql immutable parallel safe
return case when (given ? one) = (given ? other) then
  apipay._wrong(itself, case when given ? one then format('has %s and %s', one, other) else format('has neither %s nor %s', one, other) end,
    'exactly one of the two') end;
comment on function apipay._wrong_choice(text, jsonb, text, text) is 'What is wrong with an object that has both or neither of two fields; null when nothing is.';

create function apipay._wrong_discount(place text, given jsonb, amount text, discount text) returns text
language sql immutable parallel safe
return case when apipay._number(given ->> amount) * (100 - apipay._number(given ->> discount)) % 100 <> 0 then
  apipay._wrong(place || discount, format('leaves no whole tenge of the %s', amount), 'one that does') end;
comment on function apipay._wrong_discount(text, jsonb, text, text) is 'What is wrong with a discount that leaves a part of a tenge; null when nothing is.';

-- place: '' for params; 'cart_items, item 1, ' for an item.
create function apipay._wrong_object(place text, object jsonb, known jsonb) returns text
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp as $$
declare
  itself constant text := coalesce(nullif(rtrim(place), ''), 'params');
  -- What is null is not given.
  given jsonb;
  field jsonb;
  rule jsonb;
  wrong text;
begin
  if jsonb_typeof(object) <> 'object' then
    return apipay._wrong(itself, concat('is a JSON ', jsonb_typeof(object)), concat('an object with ', apipay._names_of(known)));
  end if;
  wrong := apipay._wrong_name(place, object, known);
  if wrong is not null then
    return wrong;
  end if;
  given := (select coalesce(jsonb_object_agg(key, value), '{}') from jsonb_each(object) where value <> 'null');
  for field in select f.value from jsonb_array_elements(known -> 'fields') as f loop
    if given ? (field -> 'need' ->> 'unless') then
      given := given - (field ->> 'name');
    elsif given ? (field ->> 'name') then
      wrong := apipay._wrong_value(place || (field ->> 'name'), given -> (field ->> 'name'), field);
    elsif field -> 'need' <> '"optional"' then
      wrong := apipay._wrong(place || (field ->> 'name'), 'is missing', field ->> 'allowed');
    end if;
    if wrong is not null then
      return wrong;
    end if;
  end loop;
  for rule in select r.value from jsonb_array_elements(known -> 'rules') as r loop
    wrong := coalesce(
      apipay._wrong_choice(itself, given, rule -> 'exactly_one' ->> 0, rule -> 'exactly_one' ->> 1),
      apipay._wrong_discount(place, given, rule -> 'whole_after_discount' ->> 'amount', rule -> 'whole_after_discount' ->> 'discount'));
    exit when wrong is not null;
  end loop;
  return wrong;
end $$;
comment on function apipay._wrong_object(text, jsonb, jsonb) is 'What is wrong with an object whose fields are described so; null when nothing is.';

create function apipay._wrong_params(asked_operation text, params jsonb) returns text
language sql stable parallel safe
return coalesce(
  apipay._wrong_object('', params, apipay._fields(asked_operation)),
  -- What the daemon does not read at all.
  case when apipay._params_alone(params) is null then 'params must not be longer than 64 KiB, nor hold numbers of more than 40 digits'
       when strpos(params::text, '"$serde_json::private::') > 0 then 'params must not hold the word $serde_json::private'
       when jsonb_path_exists(params, 'strict $.**{127 to last} ? (@.type() == "array" || @.type() == "object")') then
         'params must not be nested deeper than 127 levels' end);
comment on function apipay._wrong_params(text, jsonb) is
  'What is wrong with the params of a job, in one sentence: the first thing that the daemon would refuse them for. Null when nothing is.';

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

create function apipay._bill(
  phone text, amount numeric, description text, external_order_id text, cart_items jsonb, discount_percentage numeric,
  internal_comment text, kaspi_connection_id bigint) returns jsonb
language sql immutable parallel safe
return jsonb_strip_nulls(jsonb_build_object(
    'phone_number', coalesce(apipay._phone(phone), phone), 'amount', trim_scale(amount),
    'discount_percentage', trim_scale(discount_percentage), 'description', nullif(description, ''),
    'internal_comment', nullif(internal_comment, ''), 'external_order_id', nullif(external_order_id, ''),
    'kaspi_connection_id', kaspi_connection_id))
  || case when jsonb_typeof(cart_items) <> 'null' then jsonb_build_object('cart_items', cart_items) else '{}' end;
comment on function apipay._bill(text, numeric, text, text, jsonb, numeric, text, bigint) is 'The params of a bill with these arguments.';

create function apipay._refund(invoice_id bigint, amount numeric, reason text, return_items jsonb) returns jsonb
language sql immutable parallel safe
return jsonb_strip_nulls(jsonb_build_object('invoice_id', invoice_id, 'amount', trim_scale(amount), 'reason', nullif(reason, '')))
  || case when jsonb_typeof(return_items) <> 'null' then jsonb_build_object('return_items', return_items) else '{}' end;
comment on function apipay._refund(bigint, numeric, text, jsonb) is 'The params of a refund with these arguments.';

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
  params constant jsonb := apipay._bill(
    phone_number, amount, description, external_order_id, cart_items, discount_percentage, internal_comment, kaspi_connection_id);
  wrong constant text := coalesce(
    apipay._wrong_params('invoice.create', params),
    apipay._wrong_job(account, dedup_key, priority, run_at, expires_at, metadata, traceparent));
  enqueued record;
begin
  if wrong is not null then
    raise exception using message = wrong, errcode = 'invalid_parameter_value';
  end if;
  enqueued := apipay._enqueue('invoice.create', params, account, dedup_key, priority, run_at, expires_at, metadata, traceparent);
  if enqueued.taken is not null then
    raise exception using message = enqueued.taken, errcode = 'unique_violation', constraint = 'jobs_dedup';
  end if;
  return enqueued.job;
end $$;
comment on function apipay.create_invoice(text, numeric, text, text, jsonb, numeric, text, bigint, text, text, int, timestamptz, timestamptz, jsonb, text) is
  'Enqueues a bill to a phone number and returns the job''s id. amount is whole tenge; beside cart_items the gateway ignores it. Blank texts count as not given, line breaks and tabs in texts as blanks. The same dedup_key with the same request returns the first job''s id again.';

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
  params constant jsonb := apipay._bill(
    written, amount, description, external_order_id, cart_items, discount_percentage, internal_comment, kaspi_connection_id);
  wrong constant text := coalesce(
    case when not is_number then apipay._wrong('phone_number', format('is of type %s', pg_typeof(phone_number)),
           'text, or a whole number as bigint, numeric or double precision')
         when phone_number::text::numeric <> written::numeric then
           apipay._wrong('phone_number', 'is not a whole number', '8 and ten digits') end,
    apipay._wrong_params('invoice.create', params),
    apipay._wrong_job(account, dedup_key, priority, run_at, expires_at, metadata, traceparent));
  enqueued record;
begin
  if wrong is not null then
    raise exception using message = wrong, errcode = 'invalid_parameter_value';
  end if;
  enqueued := apipay._enqueue('invoice.create', params, account, dedup_key, priority, run_at, expires_at, metadata, traceparent);
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
  params constant jsonb := jsonb_build_object('invoice_id', invoice_id);
  wrong constant text := coalesce(
    apipay._wrong_params('invoice.cancel', params),
    apipay._wrong_job(account, dedup_key, priority, run_at, expires_at, metadata, traceparent));
  enqueued record;
begin
  if wrong is not null then
    raise exception using message = wrong, errcode = 'invalid_parameter_value';
  end if;
  enqueued := apipay._enqueue('invoice.cancel', params, account, dedup_key, priority, run_at, expires_at, metadata, traceparent);
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
  params constant jsonb := apipay._refund(invoice_id, amount, reason, return_items);
  wrong constant text := coalesce(
    apipay._wrong_params('invoice.refund', params),
    apipay._wrong_job(account, dedup_key, priority, run_at, expires_at, metadata, traceparent));
  enqueued record;
begin
  if wrong is not null then
    raise exception using message = wrong, errcode = 'invalid_parameter_value';
  end if;
  enqueued := apipay._enqueue('invoice.refund', params, account, dedup_key, priority, run_at, expires_at, metadata, traceparent);
  if enqueued.taken is not null then
    raise exception using message = enqueued.taken, errcode = 'unique_violation', constraint = 'jobs_dedup';
  end if;
  return enqueued.job;
end $$;
comment on function apipay.refund_invoice(bigint, numeric, text, jsonb, text, text, int, timestamptz, timestamptz, jsonb, text) is
  'Enqueues a refund of a paid invoice (the gateway''s id) and returns the job''s id. Without an amount all that is left is refunded.';
