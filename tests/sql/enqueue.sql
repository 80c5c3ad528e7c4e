-- The typed functions: what they write, what they refuse and how they say it.

insert into apipay.accounts (name) values ('default'), ('second');

create function pg_temp.expect_refusal(statement text, code text, message text) returns void language plpgsql as $$
begin
  execute statement;
  raise exception 'accepted: %', statement using errcode = 'ZZ001';
exception when others then
  if sqlstate = 'ZZ001' then
    raise;
  end if;
  assert sqlstate = code and sqlerrm like message, format('%s: %s %s', statement, sqlstate, sqlerrm);
  assert sqlerrm !~ '765-?43', format('a phone number is repeated: %s', sqlerrm);
end $$;

set role apipay_enqueuer;

do $$
declare
  job apipay.jobs;
  new bigint;
  again bigint;
begin
  -- The least and the most that can be given.
  new := apipay.create_invoice('+7 700 123-45-67', 15000.00);
  select * into strict job from apipay.jobs where id = new;
  assert (job.account, job.operation, job.state, job.priority) = ('default', 'invoice.create', 'queued', 0);
  assert job.params::text = '{"amount": 15000, "phone_number": "87001234567"}', job.params::text;
  assert job.run_at = now() and job.expires_at is null and job.metadata = '{}' and job.dedup_key is null and job.token is not null;

  new := apipay.create_invoice(
    phone_number => '87001234567', amount => 99999990, description => repeat('d', 500), external_order_id => repeat('e', 255),
    discount_percentage => 10, internal_comment => repeat('c', 191), kaspi_connection_id => 7, account => 'second',
    dedup_key => 'order 1', priority => -5, run_at => now() + interval '1 hour', expires_at => now() + interval '2 hours',
    metadata => '{"order": 1}', traceparent => '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01');
  select * into strict job from apipay.jobs where id = new;
  assert job.params = jsonb_build_object('phone_number', '87001234567', 'amount', 99999990, 'description', repeat('d', 500),
    'external_order_id', repeat('e', 255), 'discount_percentage', 10, 'internal_comment', repeat('c', 191), 'kaspi_connection_id', 7);
  assert (job.account, job.dedup_key, job.priority, job.run_at, job.expires_at, job.metadata, job.traceparent)
       = ('second', 'order 1', -5, now() + interval '1 hour', now() + interval '2 hours', '{"order": 1}'::jsonb,
          '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01');

  new := apipay.create_invoice('87001234567', description => '', external_order_id => '',
    cart_items => '[{"catalog_item_id": 1, "count": 2}, {"catalog_item_id": 2, "count": 1, "price": 0.01}]', metadata => null);
  select * into strict job from apipay.jobs where id = new;
  assert job.params = '{"phone_number": "87001234567", "cart_items": [{"catalog_item_id": 1, "count": 2}, {"catalog_item_id": 2, "count": 1, "price": 0.01}]}',
    job.params::text;
  assert job.metadata = '{}';

  -- Beside a cart the gateway ignores an amount. What is null in an item is not given, and numbers may be text.
  new := apipay.create_invoice(E'(+7) 700 123\u2212456\u22127', 100.5, E'two\nlines', cart_items => '[{"catalog_item_id": "1", "count": "3000000000", "price": null}]');
  select * into strict job from apipay.jobs where id = new;
  assert job.params = '{"phone_number": "87001234567", "amount": 100.5, "description": "two\nlines",
    "cart_items": [{"catalog_item_id": "1", "count": "3000000000", "price": null}]}', job.params::text;

  new := apipay.cancel_invoice(17);
  select * into strict job from apipay.jobs where id = new;
  assert job.operation = 'invoice.cancel' and job.params = '{"invoice_id": 17}';

  new := apipay.refund_invoice(17);
  select * into strict job from apipay.jobs where id = new;
  assert job.operation = 'invoice.refund' and job.params = '{"invoice_id": 17}';
  new := apipay.refund_invoice(17, 0.010, repeat('r', 436),
    '[{"catalog_item_id": 1, "count": 1}, {"catalog_item_id": 1, "amount": 10.5}]');
  select * into strict job from apipay.jobs where id = new;
  assert job.params = jsonb_build_object('invoice_id', 17, 'amount', 0.01, 'reason', repeat('r', 436),
    'return_items', '[{"catalog_item_id": 1, "count": 1}, {"catalog_item_id": 1, "amount": 10.5}]'::jsonb);

  -- The same business event twice is one job; the same key for something else is refused.
  again := apipay.create_invoice('8 700 123 45 67', 100, dedup_key => 'event');
  assert again = apipay.create_invoice('+77001234567', 100.0, dedup_key => 'event', priority => 9);
  assert again <> apipay.create_invoice('+77001234567', 100, account => 'second', dedup_key => 'event');
  perform pg_temp.expect_refusal('select apipay.create_invoice(''87007654321'', 101, ''text'', dedup_key => ''event'')', '23505',
    format('dedup_key is taken by job %s of account "default", which asks for something else (different: amount, description, phone_number)%%', again));
  perform pg_temp.expect_refusal('select apipay.cancel_invoice(1, dedup_key => ''event'')', '23505',
    format('dedup_key is taken by job %s of account "default"%%(different: operation)%%', again));
end $$;

-- A phone number that is kept as a number, of a type that holds all its digits; texts of any type as before.
do $$
declare
  written text;
begin
  foreach written in array array['87001234567', '77001234567::bigint', '87001234567::numeric', '87001234567.00', '87001234567::float8',
      '''87001234567''', '''87001234567''::varchar', '''87001234567''::name', '''87001234567''::char(20)'] loop
    execute format('select apipay.create_invoice(%s, 700, external_order_id => $1)', written) using written;
    assert (select params ->> 'phone_number' = '87001234567' from apipay.jobs where params ->> 'external_order_id' = written), written;
  end loop;
  perform apipay.create_invoice(phone_number => 87001234567, amount => 700);
  -- As drivers send an argument without a type.
  execute 'prepare by_driver as select apipay.create_invoice($1, $2, dedup_key => $3)';
  execute 'execute by_driver(''87001234567'', 100, ''by driver'')';
end $$;

do $$
declare
  refused record;
begin
  for refused in select * from (values
    ($q$create_invoice(87001234567.5, 100)$q$, 'phone_number is not a whole number; allowed: 8 and ten digits'),
    ($q$create_invoice(7001234567, 100)$q$, 'phone_number is not a phone number of Kazakhstan (10 characters given)%'),
    ($q$create_invoice(42, 100)$q$, 'phone_number is not a phone number of Kazakhstan (2 characters given)%'),
    ($q$create_invoice('NaN'::float8, 100)$q$, 'phone_number is not a phone number of Kazakhstan (3 characters given)%'),
    ($q$create_invoice(null::bigint, 100)$q$, 'phone_number is missing; allowed%'),
    ($q$create_invoice(87001234567::real, 100)$q$, 'phone_number is of type real; allowed: text, or a whole number as bigint, numeric or double precision'),
    ($q$create_invoice('"87001234567"'::jsonb, 100)$q$, 'phone_number is of type jsonb; allowed%'),
    ($q$create_invoice(87001234567, 0)$q$, 'amount is 0; allowed%'),
    ($q$create_invoice(null, 100)$q$, 'phone_number is missing; allowed: 8 and ten digits,%'),
    ($q$create_invoice('', 100)$q$, 'phone_number is not a phone number of Kazakhstan (0 characters given); allowed: 8 and ten digits, also written with +7 or 7 in place of the 8, with blanks, dashes and brackets'),
    ($q$create_invoice('+7 700 765-43-210', 100)$q$, 'phone_number is not a phone number of Kazakhstan (17 characters given)%'),
    ($q$create_invoice('87007654321')$q$, 'amount is missing; allowed: whole tenge from 1 to 99999999, or cart_items instead'),
    ($q$create_invoice('87007654321', 0)$q$, 'amount is 0; allowed: whole tenge from 1 to 99999999, or cart_items instead'),
    ($q$create_invoice('87007654321', -1)$q$, 'amount is -1; allowed%'),
    ($q$create_invoice('87007654321', 100.5)$q$, 'amount is 100.5; allowed: whole tenge%'),
    ($q$create_invoice('87007654321', 100000000)$q$, 'amount is 100000000; allowed%'),
    ($q$create_invoice('87007654321', 'NaN')$q$, 'amount is not a number in digits; allowed%'),
    ($q$create_invoice('87007654321', 'Infinity')$q$, 'amount is not a number in digits; allowed%'),
    ($q$create_invoice('87007654321', 87007654321)$q$, 'amount is not an allowed number; allowed: whole tenge%'),
    ($q$create_invoice('87007654321', 100, cart_items => '[]')$q$, 'cart_items has 0 items; allowed: 1 to 100'),
    ($q$create_invoice('87007654321', 5001, discount_percentage => 10)$q$, 'discount_percentage leaves no whole tenge of the amount; allowed: one that does'),
    ($q$create_invoice('87007654321', 100, E'a\u0001b')$q$, 'description has control characters; allowed: line breaks and tabs, and no others'),
    ($q$create_invoice('87007654321', 100, external_order_id => E'a\nb')$q$, 'external_order_id has control characters; allowed: none, not even line breaks and tabs'),
    ($q$create_invoice('87007654321', 100, internal_comment => E'as in [apipayd\t15]')$q$, 'internal_comment has "[apipayd", which marks jobs; allowed: text without it'),
    ($q$create_invoice('87007654321', 100, repeat('d', 501))$q$, 'description has 501 characters; allowed: at most 500'),
    ($q$create_invoice('87007654321', 100, external_order_id => repeat('d', 256))$q$, 'external_order_id has 256 characters; allowed: at most 255'),
    ($q$create_invoice('87007654321', 100, internal_comment => repeat('d', 192))$q$, 'internal_comment has 192 characters; allowed: at most 191'),
    ($q$create_invoice('87007654321', 100, discount_percentage => 0)$q$, 'discount_percentage is 0; allowed: a whole number from 1 to 99%'),
    ($q$create_invoice('87007654321', 100, discount_percentage => 100)$q$, 'discount_percentage is 100; allowed%'),
    ($q$create_invoice('87007654321', 100, discount_percentage => 1.5)$q$, 'discount_percentage is 1.5; allowed%'),
    ($q$create_invoice('87007654321', 100, kaspi_connection_id => 0)$q$, 'kaspi_connection_id is not an id of the gateway; allowed: a whole number from 1'),
    ($q$create_invoice('87007654321', 100, account => 'nobody')$q$, 'account is unknown; allowed: default, second'),
    ($q$create_invoice('87007654321', 100, account => null)$q$, 'account is null; allowed: default, second'),
    ($q$create_invoice('87007654321', 100, dedup_key => '')$q$, 'dedup_key has 0 characters; allowed: 1 to 255'),
    ($q$create_invoice('87007654321', 100, dedup_key => repeat('k', 256))$q$, 'dedup_key has 256 characters; allowed: 1 to 255'),
    ($q$create_invoice('87007654321', 100, priority => 32768)$q$, 'priority is out of range; allowed: -32768 to 32767'),
    ($q$create_invoice('87007654321', 100, expires_at => now())$q$, 'expires_at is not in the future; allowed: a later moment%'),
    ($q$create_invoice('87007654321', 100, run_at => now() + interval '1 h', expires_at => now() + interval '1 h')$q$, 'expires_at is not after run_at; allowed%'),
    ($q$create_invoice('87007654321', 100, metadata => '[]')$q$, 'metadata is a JSON array; allowed: an object'),
    ($q$create_invoice('87007654321', 100, traceparent => repeat('t', 256))$q$, 'traceparent has 256 characters; allowed: at most 255'),
    ($q$create_invoice('87007654321', cart_items => '{}')$q$, 'cart_items is a JSON object; allowed: an array of 1 to 100 objects'),
    ($q$create_invoice('87007654321', cart_items => 'null')$q$, 'amount is missing; allowed: whole tenge from 1 to 99999999, or cart_items instead'),
    ($q$create_invoice('87007654321', cart_items => '[]')$q$, 'cart_items has 0 items; allowed: 1 to 100'),
    ($q$create_invoice('87007654321', cart_items => (select jsonb_agg(jsonb_build_object('catalog_item_id', n, 'count', 1)) from generate_series(1, 101) n))$q$,
      'cart_items has 101 items; allowed: 1 to 100'),
    ($q$create_invoice('87007654321', cart_items => '[1]')$q$, 'cart_items, item 1, is a JSON number; allowed: an object with catalog_item_id, count, price'),
    ($q$create_invoice('87007654321', cart_items => '[{"catalog_item_id": 1, "count": 1, "sum": 1}]')$q$,
      'cart_items, item 1, sum is not a known field; allowed: catalog_item_id, count, price'),
    ($q$create_invoice('87007654321', cart_items => '[{"catalog_item_id": 1, "count": 1}, {"count": 1}]')$q$,
      'cart_items, item 2, catalog_item_id is missing; allowed: a whole number from 1'),
    ($q$create_invoice('87007654321', cart_items => '[{"catalog_item_id": 1}]')$q$, 'cart_items, item 1, count is missing; allowed%'),
    ($q$create_invoice('87007654321', cart_items => '[{"catalog_item_id": 1, "count": 0}]')$q$, 'cart_items, item 1, count is 0; allowed: a whole number from 1'),
    ($q$create_invoice('87007654321', cart_items => '[{"catalog_item_id": 1, "count": 1.5}]')$q$, 'cart_items, item 1, count is 1.5; allowed%'),
    ($q$create_invoice('87007654321', cart_items => '[{"catalog_item_id": "one", "count": 1}]')$q$, 'cart_items, item 1, catalog_item_id is not an id of the gateway; allowed: a whole number from 1'),
    ($q$create_invoice('87007654321', cart_items => '[{"catalog_item_id": 1, "count": 1, "price": 0.001}]')$q$, 'cart_items, item 1, price is 0.001; allowed: 0.01 to 99999999.99 tenge with at most two decimals, or no price'),
    ($q$create_invoice('87007654321', cart_items => '[{"catalog_item_id": 1, "count": 1, "price": {}}]')$q$, 'cart_items, item 1, price is a JSON object; allowed: 0.01 to 99999999.99 tenge with at most two decimals, or no price'),
    ($q$cancel_invoice(null)$q$, 'invoice_id is missing; allowed: the gateway''s id of the invoice%'),
    ($q$cancel_invoice(0)$q$, 'invoice_id is not an id of the gateway; allowed: the gateway''s id of the invoice, as in apipay.jobs.invoice_id: a whole number from 1'),
    ($q$cancel_invoice(1, 'nobody')$q$, 'account is unknown; allowed: default, second'),
    ($q$refund_invoice(null)$q$, 'invoice_id is missing; allowed%'),
    ($q$refund_invoice(-3)$q$, 'invoice_id is not an id of the gateway; allowed%'),
    ($q$refund_invoice(1, 0)$q$, 'amount is 0; allowed: 0.01 to 99999999.99 tenge with at most two decimals%'),
    ($q$refund_invoice(1, 0.001)$q$, 'amount is 0.001; allowed%'),
    ($q$refund_invoice(1, 100000000)$q$, 'amount is 100000000; allowed%'),
    ($q$refund_invoice(1, 'NaN')$q$, 'amount is not a number in digits; allowed%'),
    ($q$refund_invoice(1, reason => repeat('r', 430) || '[apipayd ')$q$, 'reason has 439 characters; allowed: at most 436'),
    ($q$refund_invoice(1, reason => E'a\u009fb')$q$, 'reason has control characters; allowed: line breaks and tabs, and no others'),
    ($q$refund_invoice(1, 10, repeat('r', 437))$q$, 'reason has 437 characters; allowed: at most 436'),
    ($q$refund_invoice(1, return_items => '[{"catalog_item_id": 1}]')$q$, 'return_items, item 1, has neither count nor amount; allowed: exactly one of the two'),
    ($q$refund_invoice(1, return_items => '[{"catalog_item_id": 1, "count": 1, "amount": 1}]')$q$, 'return_items, item 1, has count and amount; allowed%'),
    ($q$refund_invoice(1, return_items => '[{"catalog_item_id": 1, "count": "one"}]')$q$, 'return_items, item 1, count is not a number in digits; allowed%'),
    ($q$refund_invoice(1, return_items => '[{"catalog_item_id": 1, "amount": 0}]')$q$, 'return_items, item 1, amount is 0; allowed%'),
    ($q$refund_invoice(1, return_items => '[{"catalog_item_id": 1, "count": 1, "price": 1}]')$q$, 'return_items, item 1, price is not a known field; allowed: catalog_item_id, count, amount'),
    ($q$refund_invoice(1, return_items => '"all"')$q$, 'return_items is a JSON string; allowed%')
  ) as v (call, message) loop
    perform pg_temp.expect_refusal('select apipay.' || refused.call, '22023', refused.message);
  end loop;
end $$;

reset role;
