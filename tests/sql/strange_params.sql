-- Whatever stands in a job's params: what reads them neither fails nor takes them for something else.

insert into apipay.accounts (name) values ('default');

-- One invoice is one, however its id is written; the daemon reads the same set
-- (domain::operation::params, an_id_is_what_the_database_takes_for_one).
do $$
declare
  way record;
begin
  for way in select * from (values
    ('100001', 100001), ('100001.0', 100001), ('100001.000', 100001), ('1.00001e5', 100001), ('"100001"', 100001),
    ('"0100001"', 100001), ('"100001.0"', 100001), ('"00000000000000000000000000000000000000007"', 7),
    ('9223372036854775807', 9223372036854775807), ('"9223372036854775807"', 9223372036854775807),
    ('9223372036854775808', null), ('"9223372036854775808"', null), ('0', null), ('"0"', null), ('-1', null), ('"-1"', null),
    ('1.5', null), ('"1.5"', null), ('"1."', null), ('".0"', null), ('""', null), ('" 1"', null), ('"1\n"', null), ('"+1"', null),
    ('"1e2"', null), ('"٣"', null), ('1e131071', null), ('1e-16383', null), ('null', null), ('true', null), ('[1]', null), ('{"a": 1}', null),
    ('{"$serde_json::private::Number": "15"}', null)
  ) as v (written, id) loop
    assert apipay._id(way.written::jsonb) is not distinct from way.id, format('%s is %s', way.written, apipay._id(way.written::jsonb));
  end loop;
  assert apipay._id(to_jsonb(repeat('9', 200000))) is null;
  assert apipay._id(to_jsonb(repeat('0', 200000) || '5')) = 5;
  assert apipay._id(null) is null;
end $$;

-- What is sent to the daemon of many rows is short, of one row at most 64 KiB, and neither is made from what is
-- very long as text.
do $$
declare
  way record;
begin
  for way in select * from (values
    ('{"amount": 5}'::jsonb, true, true),
    (jsonb_build_object('a', repeat('x', 1500)), true, true),
    (jsonb_build_object('a', repeat('x', 3000)), false, true),
    (jsonb_build_object('a', repeat('x', 65000)), false, true),
    (jsonb_build_object('a', repeat('x', 65530)), false, false),
    (jsonb_build_object('a', repeat('x', 1000000)), false, false),
    ('{"amount": 1e131071}', false, false),
    ('{"amount": [{"deeper": -1e50}]}', true, false),
    (jsonb_build_object('a', array(select '1e131071'::jsonb from generate_series(1, 10000))), false, false)
  ) as v (params, among_others, alone) loop
    assert coalesce(octet_length(apipay._params_among_others(way.params)) <= 4096, false) = way.among_others, left(way.params::text, 100);
    assert (apipay._params_alone(way.params) is not null) = way.alone;
  end loop;
end $$;

-- The views and the index take every row.
do $$
declare
  strange jsonb;
  operation text;
  shown bigint;
begin
  for strange in
    select jsonb_build_object('phone_number', v, 'amount', v, 'invoice_id', v, 'external_order_id', v, 'cart_items', v, 'reason', v)
    from unnest(array['1e131071', '-1e131071', '1e-16383', '"' || repeat('9', 300) || '"', '{"$serde_json::private::Number": "5"}',
      repeat('[', 1000) || repeat(']', 1000), '""', 'null', 'true', '[]', '{}', '"NaN"', '"Infinity"', '"1e400000"']::jsonb[]) as v
  loop
    foreach operation in array apipay._operations() loop
      insert into apipay.jobs (operation, params, metadata) values (operation, strange, strange);
      insert into apipay.jobs (operation, params, state, leased_by, leased_until) values (operation, strange, 'sending', gen_random_uuid(), now());
      insert into apipay.jobs (operation, params, state) values (operation, strange, 'held'), (operation, strange, 'accepted'), (operation, strange, 'uncertain');
      insert into apipay.jobs (operation, params, state, finished_at) values (operation, strange, 'failed', now()), (operation, strange, 'succeeded', now());
    end loop;
  end loop;
  select count(v::text) into shown from apipay.overview v;
  assert shown = (select count(*) from apipay.jobs);
  perform count(v::text) from apipay.waiting v;
  perform count(v::text) from apipay.uncertain v;
  perform count(v::text) from apipay.parked v;
  perform count(v::text) from apipay.daily v;
  perform count(v::text) from apipay.account_status v;
end $$;
