-- What no writer may do, a superuser included: change what was asked, move a job as none may move, or rewrite how it ended.

insert into apipay.accounts (name) values ('default'), ('other');

create function pg_temp.expect_refusal(statement text, code text, message text) returns void language plpgsql as $$
begin
  execute statement;
  raise exception 'accepted: %', statement using errcode = 'ZZ001';
exception when others then
  if sqlstate = 'ZZ001' then
    raise;
  end if;
  assert sqlstate = code and sqlerrm like message, format('%s: %s %s', statement, sqlstate, sqlerrm);
end $$;

create function pg_temp.job(wanted text, operation text default 'invoice.create', params jsonb default '{}', unproven boolean default false) returns bigint
language sql as $$
  insert into apipay.jobs (operation, params, state, epoch, leased_by, leased_until, finished_at, unproven_since)
  values (operation, params, wanted, 5, case when wanted = 'sending' then gen_random_uuid() end, case when wanted = 'sending' then now() end,
          case when wanted in ('succeeded', 'failed', 'cancelled', 'expired') then now() end, case when unproven then now() end)
  returning id
$$;

-- What was asked.
do $$
declare
  job bigint := pg_temp.job('queued');
  change text;
begin
  foreach change in array array['account = ''other''', 'operation = ''invoice.cancel''', 'params = ''{"amount": 1}''', 'token = gen_random_uuid()',
    'dedup_key = ''k''', 'retry_of = 1', 'created_at = now() + interval ''1 s'''] loop
    perform pg_temp.expect_refusal(format('update apipay.jobs set %s where id = %s', change, job), '23000',
      format('job %s: id, account, operation, params, token, dedup_key, retry_of and created_at never change; enqueue a new job instead', job));
  end loop;
  perform pg_temp.expect_refusal(format('update apipay.jobs set id = default where id = %s', job), '23000', '%');
  update apipay.jobs set params = params, token = token where id = job;

  perform pg_temp.expect_refusal($q$insert into apipay.jobs (operation, params) values ('invoice.pay', '{}')$q$, '23514',
    'unknown operation "invoice.pay": known are invoice.cancel, invoice.create, invoice.refund');
  perform pg_temp.expect_refusal($q$insert into apipay.jobs (operation, params) values ('invoice.create', '[]')$q$, '23514', '%jobs_params_object%');
  perform pg_temp.expect_refusal($q$insert into apipay.jobs (operation, params, metadata) values ('invoice.create', '{}', '1')$q$, '23514', '%jobs_metadata_object%');
  perform pg_temp.expect_refusal($q$insert into apipay.jobs (operation, params, dedup_key) values ('invoice.create', '{}', '')$q$, '23514', '%jobs_dedup_key_length%');
  perform pg_temp.expect_refusal($q$insert into apipay.jobs (operation, params, account) values ('invoice.create', '{}', 'nobody')$q$, '23503', '%');
  insert into apipay.jobs (operation, params, dedup_key) values ('invoice.create', '{}', 'once');
  perform pg_temp.expect_refusal($q$insert into apipay.jobs (operation, params, dedup_key) values ('invoice.cancel', '{}', 'once')$q$, '23505', '%jobs_dedup%');
  insert into apipay.jobs (account, operation, params, dedup_key) values ('other', 'invoice.create', '{}', 'once');
end $$;

-- What a job is about is noted at its insert, whatever else is given, and says nothing that params do not.
do $$
declare
  noted apipay.jobs;
begin
  insert into apipay.jobs (operation, params, invoice_id, order_id)
  values ('invoice.refund', '{"invoice_id": "0100001", "external_order_id": "call 87001234567"}', 7, 'x') returning * into noted;
  assert noted.invoice_id = 100001 and noted.order_id = 'call 8700***4567', noted;
  insert into apipay.jobs (operation, params, invoice_id) values ('invoice.cancel', '{"invoice_id": "1e400"}', 7) returning * into noted;
  assert noted.invoice_id is null and noted.order_id is null, noted;
  insert into apipay.jobs (operation, params, order_id) values ('invoice.create', '{"invoice_id": 5}', 'x') returning * into noted;
  assert noted.invoice_id is null and noted.order_id is null, noted;
  insert into apipay.jobs (operation, params) values ('invoice.create', jsonb_build_object('external_order_id', repeat('e', 300))) returning * into noted;
  assert noted.order_id = repeat('e', 255), noted;
  -- The amount that waits is summed over many jobs, so it is not read from params that may be huge.
  insert into apipay.jobs (operation, params, amount) values ('invoice.create', '{"amount": 700}', 9) returning * into noted;
  assert noted.amount = 700, noted;
  insert into apipay.jobs (operation, params, amount) values ('invoice.refund', '{"amount": "15000.50"}', 9) returning * into noted;
  assert noted.amount = 15000.50, noted;
  insert into apipay.jobs (operation, params, amount) values ('invoice.create', '{"amount": 700, "cart_items": null}', 9) returning * into noted;
  assert noted.amount = 700, noted;
  for noted in
    insert into apipay.jobs (operation, params, amount)
    values ('invoice.create', '{"amount": 700, "cart_items": []}', 9), ('invoice.create', '{"amount": "1e3"}', 9), ('invoice.refund', '{}', 9),
           ('invoice.create', '{"amount": 0.001}', 9), ('invoice.cancel', '{"amount": 700}', 9)
    returning *
  loop
    assert noted.amount is null, noted;
  end loop;
end $$;

-- How it ended, the fence, the lease.
do $$
declare
  job bigint;
  state text;
begin
  foreach state in array array['succeeded', 'failed', 'cancelled', 'expired'] loop
    job := pg_temp.job(state);
    perform pg_temp.expect_refusal(format('update apipay.jobs set state = ''queued'', finished_at = null where id = %s', job), '23000',
      format('job %s is %s and final: it never changes; apipay.retry(%s) enqueues a copy', job, state, job));
    perform pg_temp.expect_refusal(format('update apipay.jobs set result = ''{}'' where id = %s', job), '23000', '%is % and final%');
    perform pg_temp.expect_refusal(format('update apipay.jobs set finished_at = null where id = %s', job), '23000', '%');
  end loop;
  perform pg_temp.expect_refusal('insert into apipay.jobs (operation, params, state) values (''invoice.create'', ''{}'', ''failed'')', '23514', '%jobs_finished_when_final%');
  job := pg_temp.job('queued');
  perform pg_temp.expect_refusal(format('update apipay.jobs set state = ''done'' where id = %s', job), '23514', '%jobs_state_known%');
  perform pg_temp.expect_refusal(format('update apipay.jobs set finished_at = now() where id = %s', job), '23514', '%jobs_finished_when_final%');
  perform pg_temp.expect_refusal(format('update apipay.jobs set state = ''sending'' where id = %s', job), '23514', '%jobs_lease_while_sending%');
  perform pg_temp.expect_refusal(format('update apipay.jobs set leased_until = now() where id = %s', job), '23514', '%jobs_lease_while_sending%');
  perform pg_temp.expect_refusal(format('update apipay.jobs set epoch = 4 where id = %s', job), '23000',
    format('job %s: its epoch only rises (4 is not above 5)', job));
  -- Moves that there are none of; a job may stay where it is.
  perform pg_temp.expect_refusal(format('update apipay.jobs set state = ''succeeded'', finished_at = now() where id = %s', job), '23000',
    format('job %s is queued: it cannot become succeeded; from there it may only become sending, uncertain, held, cancelled, expired', job));
  perform pg_temp.expect_refusal(format('update apipay.jobs set state = null where id = %s', job), '23502', '%');
  update apipay.jobs set state = 'queued', reason = 'test', run_at = now() where id = job;
  job := pg_temp.job('sending');
  perform pg_temp.expect_refusal(format('update apipay.jobs set state = ''queued'' where id = %s', job), '23514', '%jobs_lease_while_sending%');
  job := pg_temp.job('held', unproven => true);
  perform pg_temp.expect_refusal(format('update apipay.jobs set state = ''parked'' where id = %s', job), '23000',
    format('job %s is held: it cannot become parked; from there it may only become queued, uncertain, succeeded, cancelled', job));
end $$;

-- Two refunds of one invoice are never under way at once, whichever way the first one waits.
do $$
declare
  way record;
  written text;
begin
  for way in select * from (values (101, 'sending', false), (102, 'uncertain', true), (103, 'accepted', false), (104, 'held', true), (105, 'queued', true), (106, 'parked', true)) as v (invoice, state, unproven) loop
    perform pg_temp.job(way.state, 'invoice.refund', jsonb_build_object('invoice_id', way.invoice), way.unproven);
    perform pg_temp.job('queued', 'invoice.refund', jsonb_build_object('invoice_id', way.invoice));
    -- However the id is written.
    for written in select * from unnest(array['%s', '%s.0', '%se0', '"%s"', '"00%s"', '"%s.00"']) loop
      perform pg_temp.expect_refusal(format('select pg_temp.job(''sending'', ''invoice.refund'', ''{"invoice_id": ' || written || '}'')', way.invoice),
        '23505', '%jobs_one_open_refund%');
    end loop;
  end loop;
  perform pg_temp.job('sending', 'invoice.refund', '{"invoice_id": 8}');
  perform pg_temp.job('parked', 'invoice.refund', '{"invoice_id": 8}');
  -- A job is repeated once.
  insert into apipay.jobs (operation, params, retry_of) values ('invoice.create', '{}', 1);
  perform pg_temp.expect_refusal('insert into apipay.jobs (operation, params, retry_of) values (''invoice.create'', ''{}'', 1)', '23505', '%jobs_retry_of%');
end $$;

-- Evidence.
do $$
declare
  job bigint := pg_temp.job('queued');
begin
  insert into apipay.attempts (job_id, epoch, account, kind, worker) values (job, 1, 'default', 'send', gen_random_uuid());
  perform pg_temp.expect_refusal(format('insert into apipay.attempts (job_id, epoch, account, kind, worker) values (%s, 2, ''default'', ''send'', gen_random_uuid())', job),
    '23505', '%attempts_one_open_send%');
  insert into apipay.attempts (job_id, epoch, account, kind, worker) values (job, 2, 'default', 'lookup', gen_random_uuid());
  -- Closed as unknown by recovery, then a late answer, then never again.
  update apipay.attempts set finished_at = now(), effect = 'unknown' where job_id = job and epoch = 1;
  update apipay.attempts set effect = 'applied', http_status = 201, answer = '{}' where job_id = job and epoch = 1;
  perform pg_temp.expect_refusal(format('update apipay.attempts set effect = ''rejected'' where job_id = %s and epoch = 1', job), '23000',
    format('attempt 1 of job %s is closed: evidence never changes', job));

  update apipay.jobs set state = 'held', reason = 'test' where id = job;
  assert (select (from_state, to_state, reason, subject, actor) = ('queued', 'held', 'test', 'job', session_user::text) from apipay.events where job_id = job);
  perform pg_temp.expect_refusal(format('update apipay.events set reason = ''x'' where job_id = %s', job), '23000', 'apipay.events is append-only');
end $$;

-- One row of control, accounts that are what they say.
do $$
begin
  perform pg_temp.expect_refusal('insert into apipay._control (one) values (false)', '23514', '%');
  perform pg_temp.expect_refusal('insert into apipay._control default values', '23505', '%');
  perform pg_temp.expect_refusal('insert into apipay.accounts (name) values (''Two Words'')', '23514', '%');
  perform pg_temp.expect_refusal('update apipay.accounts set state = ''parked''', '23514', '%');
  perform pg_temp.expect_refusal('update apipay.accounts set parked_reason = ''x''', '23514', '%');
end $$;
