-- Who may do what: each right of each role, and each thing it must not do. The roles belong to the
-- cluster and may have been there before.

do $$
begin
  assert apipay._missing_roles() = '{}', 'a superuser applied the migrations: all roles are there';
  assert not exists (select from pg_roles where rolname = any (apipay._roles()) and (rolcanlogin or rolsuper or rolcreaterole or rolcreatedb or rolbypassrls));
  perform apipay._grant_roles();
  perform apipay._grant_roles();
end $$;

insert into apipay.accounts (name) values ('default');
insert into apipay.jobs (operation, params) values ('invoice.create', '{"phone_number": "87007654321", "amount": 100}');
insert into apipay.events (subject, reason) values ('daemon', 'test');
insert into apipay.attempts (job_id, epoch, account, kind, worker) values (1, 1, 'default', 'send', gen_random_uuid());

create function pg_temp.expect_denial(role text, statement text) returns void language plpgsql as $$
begin
  execute format('set local role %I', role);
  execute statement;
  raise exception '% may: %', role, statement using errcode = 'ZZ001';
exception
  when insufficient_privilege then
    null;
  when others then
    raise exception '%: %: % %', role, statement, sqlstate, sqlerrm;
end $$;

create function pg_temp.expect_success(role text, statement text) returns void language plpgsql as $$
begin
  execute format('set local role %I', role);
  execute statement;
  reset role;
exception when others then
  raise exception '%: %: % %', role, statement, sqlstate, sqlerrm;
end $$;

-- Tables: every right of every role on every relation, as expected and no other.
do $$
declare
  found record;
begin
  for found in
    with expected (role, relations, rights) as (values
      ('apipay_auditor', array['overview', 'waiting', 'uncertain', 'parked', 'daily', 'account_status'], array['SELECT']),
      ('apipay_operator', array['overview', 'waiting', 'uncertain', 'parked', 'daily', 'account_status', 'daemons', 'alerts', 'alert_deliveries', 'events'], array['SELECT']),
      ('apipay_enqueuer', array['jobs', 'attempts', 'invoices', 'refunds', 'overview'], array['SELECT']),
      -- To all columns; what an insert may say is in tests/sql/insert.sql.
      ('apipay_enqueuer', array['jobs'], array['INSERT']),
      ('apipay_worker', array['overview', 'waiting', 'uncertain', 'parked', 'daily', 'account_status', 'jobs', '_control', '_migrations', 'daemons'], array['SELECT']),
      ('apipay_worker', array['accounts', '_reads', '_quotas', 'attempts', 'invoices', 'refunds', 'subscriptions', 'alerts', 'alert_deliveries', 'webhooks', '_clocks'], array['SELECT', 'INSERT', 'UPDATE']),
      ('apipay_worker', array['_channels'], array['SELECT', 'INSERT']),
      ('apipay_worker', array['events'], array['SELECT']))
    select r.role, c.relname, p.privilege, has_table_privilege(r.role, c.oid, p.privilege) as has,
           exists (select from expected e where e.role = r.role and c.relname = any (e.relations) and p.privilege = any (e.rights)) as wanted
    from unnest(apipay._roles()) as r (role), pg_class c, unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) as p (privilege)
    where c.relnamespace = 'apipay'::regnamespace and c.relkind in ('r', 'v')
  loop
    assert found.has = found.wanted, format('%s on %s: %s has %s', found.privilege, found.relname, found.role, found.has);
  end loop;

  -- Columns: the same, where a table is granted in part.
  for found in
    with expected (role, relation, privilege, columns) as (values
      ('apipay_enqueuer', 'accounts', 'SELECT', array['name']),
      ('apipay_worker', 'jobs', 'UPDATE', array['run_at', 'state', 'reason', 'attempts', 'epoch', 'leased_by', 'leased_until', 'invoice_id', 'refund_id',
        'subscription_id', 'http_status', 'error_code', 'error_message', 'errors', 'result', 'updated_at', 'finished_at', 'generation', 'spared', 'baseline',
        'unproven_since', 'absent_since', 'failing_since', 'lookups', 'stated_id', 'stated_anyway', 'stated_unwanted', 'quiet_until', 'denied_at']),
      ('apipay_worker', '_channels', 'UPDATE', array['filled_at', 'recovered']),
      ('apipay_worker', '_control', 'UPDATE', array['steady_ahead_us']))
    select r.role, c.relname, a.attname, p.privilege, has_column_privilege(r.role, c.oid, a.attnum, p.privilege) as has,
           has_table_privilege(r.role, c.oid, p.privilege)
           or exists (select from expected e where e.role = r.role and e.relation = c.relname and e.privilege = p.privilege and a.attname = any (e.columns)) as wanted
    from unnest(apipay._roles()) as r (role), pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped,
         unnest(array['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) as p (privilege)
    where c.relnamespace = 'apipay'::regnamespace and c.relkind in ('r', 'v')
  loop
    assert found.has = found.wanted, format('%s on %s.%s: %s has %s', found.privilege, found.relname, found.attname, found.role, found.has);
  end loop;

  assert not exists (select from unnest(apipay._roles()) as role, unnest(array['CREATE']) as p where has_schema_privilege(role, 'apipay', p));
  -- Whoever enqueues may ask for the number that was given out, as libraries do after an insert.
  assert not exists (select from unnest(apipay._roles()) as role, pg_class c, unnest(array['USAGE', 'UPDATE', 'SELECT']) as p
                      where c.relnamespace = 'apipay'::regnamespace and c.relkind = 'S' and has_sequence_privilege(role, c.oid, p)
                        and (role, c.relname, p) <> ('apipay_enqueuer', 'jobs_id_seq', 'SELECT'));
end $$;

-- Functions: what changes something, role by role; the pure helpers of the views may be run by whoever reads a view.
do $$
declare
  found record;
begin
  for found in
    with expected (role, functions) as (values
      ('apipay_auditor', array['']),
      ('apipay_operator', array['retry', 'retry_jobs', 'cancel', 'cancel_jobs', 'resolve', 'park', 'resume', 'stop', 'start', 'cancel_invoice', 'acknowledge']),
      ('apipay_enqueuer', array['create_invoice', 'cancel_invoice', 'refund_invoice', '_enqueue']),
      ('apipay_worker', array['_open_alert', '_change_alert', '_tell_held', '_tell_stuck', '_is_looked_up', '_alert_is_free', '_resolve_alert', '_park', '_learn_of_park', '_resume', '_owner', '_delivered', '_take_trial', '_await_quota', '_lock_quota', '_take_quota', '_take_check', '_end_check', '_return_quota', '_correct_quota', '_announce', '_leave', '_carry_daemons', '_recall', '_recall_park', '_is_superseded']))
    select r.role, p.proname, has_function_privilege(r.role, p.oid, 'EXECUTE') as has, p.proname = any (e.functions) as wanted
    from unnest(apipay._roles()) as r (role) join expected e using (role), pg_proc p
    where p.pronamespace = 'apipay'::regnamespace and p.provolatile = 'v' and p.proname <> all (array['_notify', '_is_ahead_of_sequence', '_next_job'])
  loop
    assert found.has = found.wanted, format('%s may execute %s: %s', found.role, found.proname, found.has);
  end loop;
  assert not exists (select from unnest(apipay._roles()) as role where has_function_privilege(role, 'apipay._grant_roles()', 'EXECUTE')
                      or has_function_privilege(role, 'apipay._why_not_again(apipay.jobs)', 'EXECUTE'));
end $$;

-- Who reads a view may read no table, and a function fails as a whole, also where its answer would need none. So those that
-- they may run, but for what anybody may for the sake of triggers, read with the owner's rights where they read.
do $$
declare
  readers constant text := (
    select string_agg(p.oid::regprocedure::text, ', ') from pg_proc p
     where p.pronamespace = 'apipay'::regnamespace and not p.prosecdef and has_function_privilege('apipay_auditor', p.oid, 'EXECUTE')
       and not has_function_privilege('pg_monitor', p.oid, 'EXECUTE') and pg_get_functiondef(p.oid) ~* '\m(from|join)[\s(]+apipay\.\w+(?!\w|\()');
begin
  assert readers is null, readers;
end $$;

-- Enqueuer: business columns, and nothing else.
do $$
declare
  statement text;
begin
  perform pg_temp.expect_success('apipay_enqueuer', 'select apipay.create_invoice(''87007654321'', 100, dedup_key => ''k'')');
  perform pg_temp.expect_success('apipay_enqueuer', 'select apipay.create_invoice(''87007654321'', 100, dedup_key => ''k'')');
  perform pg_temp.expect_success('apipay_enqueuer', 'select apipay.cancel_invoice(1)');
  perform pg_temp.expect_success('apipay_enqueuer', 'select apipay.refund_invoice(1, return_items => ''[{"catalog_item_id": 1, "count": 1}]'')');
  perform pg_temp.expect_success('apipay_enqueuer', 'select apipay.create_invoice(''87007654321'', cart_items => ''[{"catalog_item_id": 1, "count": 1}]'')');
  perform pg_temp.expect_success('apipay_enqueuer', $q$insert into apipay.jobs (account, operation, params, dedup_key, priority, run_at, expires_at, metadata, traceparent)
    values ('default', 'invoice.create', '{}', 'x', 1, now(), now(), '{}', 't') returning id, state$q$);
  perform pg_temp.expect_success('apipay_enqueuer', 'select * from apipay.jobs, apipay.attempts, apipay.invoices, apipay.refunds, apipay.overview');
  foreach statement in array array[
    'insert into apipay.jobs (operation, params, token) values (''invoice.create'', ''{}'', gen_random_uuid())',
    'insert into apipay.jobs (operation, params, state, finished_at) values (''invoice.create'', ''{}'', ''succeeded'', now())',
    'insert into apipay.jobs (operation, params, retry_of) values (''invoice.create'', ''{}'', 1)',
    'insert into apipay.jobs (operation, params, invoice_id) values (''invoice.create'', ''{}'', 1)',
    'update apipay.jobs set state = ''cancelled'', finished_at = now()', 'update apipay.jobs set run_at = now()', 'update apipay.jobs set params = ''{}''',
    'delete from apipay.jobs', 'truncate apipay.jobs', 'select * from apipay.accounts', 'update apipay.accounts set requests_per_minute = 1000',
    'select * from apipay.events', 'select * from apipay.alerts', 'select * from apipay._control', 'select * from apipay.waiting',
    'insert into apipay.invoices (account, id, status) values (''default'', 1, ''paid'')', 'update apipay.attempts set effect = ''applied''', 'select apipay.retry(1)', 'select apipay.cancel(1)', 'select apipay.resolve(1, false)', 'select apipay.park(''default'')',
    'select apipay.resume(''default'')', 'select apipay.stop()', 'select apipay.start()', 'select apipay._take_quota(''default'', 1, ''send'', 100)', 'select apipay._grant_roles()', 'select apipay._back_to(now())',
    'select 1 from apipay.jobs for update', 'create table apipay.mine ()'] loop
    perform pg_temp.expect_denial('apipay_enqueuer', statement);
  end loop;
end $$;

-- Worker: moves jobs, writes evidence; no delete, no change of what was asked or of history.
do $$
declare
  statement text;
begin
  foreach statement in array array[
    'select * from apipay.jobs for update skip locked',
    'update apipay.jobs set state = ''sending'', epoch = epoch + 1, leased_by = gen_random_uuid(), leased_until = now() + interval ''1 min'', updated_at = now() where id = 1',
    'update apipay.jobs set state = ''parked'', reason = ''session_expired'', leased_by = null, leased_until = null where id = 1',
    'select apipay._park(''default'', ''session_expired'', ''apipayd'', interval ''1 min'', ''s'', ''a'', ''{}'')',
    'select apipay._resume(''default'', ''well again'', ''apipayd'')', 'select apipay._take_quota(''default'', 5, ''send'', 100)', 'select apipay._return_quota(''default'', ''{100}'', 100)',
    'select apipay._correct_quota(''default'', 3, null, 100)', 'select apipay._take_check(''default'', interval ''1 min'', 100)', 'select apipay._end_check(''default'', interval ''3 s'')', 'update apipay._quotas set check_from = now()', 'select apipay._open_alert(null, ''x'', ''warning'', ''s'', ''a'', null)', 'select apipay._resolve_alert(null, ''x'', ''r'')',
    'insert into apipay.accounts (name) values (''second'') on conflict (name) do update set requests_per_minute = 60',
    'update apipay.attempts set finished_at = now(), effect = ''unknown'' where job_id = 1',
    'insert into apipay.attempts (job_id, epoch, account, kind, worker) values (1, 2, ''default'', ''lookup'', gen_random_uuid())',
    'insert into apipay.invoices (account, id, status) values (''default'', 1, ''pending'')', 'update apipay.invoices set status = ''paid''',
    'insert into apipay.refunds (account, id, invoice_id, status) values (''default'', 1, 1, ''pending'')', 'update apipay.refunds set status = ''completed''',
    'insert into apipay.subscriptions (account, id, status) values (''default'', 1, ''active'')', 'update apipay.subscriptions set status = ''paused''',
    'insert into apipay.webhooks (account, event, dedup_key, body) values (''default'', ''e'', ''k'', ''{}'')', 'update apipay.webhooks set processed_at = now()',
    'insert into apipay.alert_deliveries (alert_id, channel, status) select id, ''log'', ''firing'' from apipay.alerts', 'update apipay.alert_deliveries set tries = 1',
    'select * from apipay.events, apipay._control',
    'select * from apipay.account_status', 'select * from apipay.overview', 'select apipay._missing_roles()', 'select apipay._back_to(now())'] loop
    perform pg_temp.expect_success('apipay_worker', statement);
  end loop;
  foreach statement in array array[
    'insert into apipay.jobs (operation, params) values (''invoice.create'', ''{}'')', 'delete from apipay.jobs', 'truncate apipay.jobs',
    'update apipay.jobs set params = ''{}''', 'update apipay.jobs set token = gen_random_uuid()', 'update apipay.jobs set operation = ''invoice.cancel''',
    'update apipay.jobs set account = ''second''', 'update apipay.jobs set dedup_key = null', 'update apipay.jobs set id = default', 'update apipay.jobs set created_at = now()',
    'update apipay.jobs set retry_of = 1', 'update apipay.jobs set metadata = ''{}''', 'update apipay.jobs set expires_at = null',
    'insert into apipay.events (subject, reason, actor) values (''job'', ''cancelled_by_user'', ''director'')', 'insert into apipay.events (subject) values (''daemon'')',
    'delete from apipay.attempts', 'delete from apipay.events', 'update apipay.events set reason = ''x''', 'truncate apipay.events', 'delete from apipay.invoices',
    'delete from apipay.refunds', 'delete from apipay.subscriptions', 'delete from apipay.accounts', 'delete from apipay.alerts', 'delete from apipay.alert_deliveries',
    'delete from apipay.webhooks', 'update apipay._control set stopped = false', 'delete from apipay._control', 'select apipay.start()', 'select apipay.retry(1)',
    'select apipay.resolve(1, false)', 'select apipay.create_invoice(''87007654321'', 1)', 'select apipay._grant_roles()',
    'alter table apipay.jobs disable trigger all', 'drop view apipay.overview', 'create function apipay.f() returns int language sql as ''select 1'''] loop
    perform pg_temp.expect_denial('apipay_worker', statement);
  end loop;
end $$;

-- Auditor and operator: the views; the operator the functions too. Neither sees what the views leave out.
do $$
declare
  role text;
  statement text;
  view text;
begin
  foreach role in array array['apipay_auditor', 'apipay_operator'] loop
    foreach view in array array['overview', 'waiting', 'uncertain', 'parked', 'daily', 'account_status'] loop
      perform pg_temp.expect_success(role, format('select * from apipay.%I', view));
    end loop;
    foreach statement in array array[
      'select * from apipay.jobs', 'select params from apipay.jobs', 'select id from apipay.jobs', 'select * from apipay.attempts',
      'select * from apipay.accounts', 'select * from apipay.invoices', 'select * from apipay.refunds', 'select * from apipay.subscriptions',
      'select * from apipay.webhooks', 'select * from apipay._control', 'insert into apipay.alerts (kind, summary, action) values (''x'', ''s'', ''a'')',
      'insert into apipay.jobs (operation, params) values (''invoice.create'', ''{}'')', 'update apipay.jobs set run_at = now()', 'delete from apipay.jobs',
      'select apipay.create_invoice(''87007654321'', 1)', 'select apipay._park(''default'', ''x'', ''y'', null, ''s'', ''a'', null)', 'select apipay._resume(''default'', ''x'', ''y'')',
      'select apipay._lock_job(1)', 'select apipay._why_not_again(null)', 'select apipay._enqueue(''invoice.create'', ''{}'', ''default'', null, 0, null, null, null, null)',
      'select apipay._open_alert(null, ''x'', ''warning'', ''s'', ''a'', null)', 'select apipay._take_quota(''default'', 1, ''send'', 100)', 'select apipay._grant_roles()'] loop
      perform pg_temp.expect_denial(role, statement);
    end loop;
  end loop;
  foreach statement in array array['select apipay.retry(1)', 'select apipay.cancel(1)', 'select apipay.resolve(1, false)', 'select apipay.park(''default'')',
    'select apipay.resume(''default'')', 'select apipay.stop()', 'select apipay.start()', 'select apipay.acknowledge(1)', 'select apipay.cancel_invoice(1)',
    'select * from apipay.alerts', 'select * from apipay.alert_deliveries', 'select * from apipay.events', 'select * from apipay.daemons'] loop
    perform pg_temp.expect_denial('apipay_auditor', statement);
  end loop;
  foreach statement in array array['select apipay.stop(''drill'')', 'select apipay.start()', 'select apipay.park(''default'', ''drill'')', 'select apipay.resume(''default'')',
    'select apipay.retry(1)', 'select apipay.cancel(1)', 'select apipay.retry(1)', 'select apipay.cancel_invoice(1)',
    'select apipay.acknowledge(max(id), ''drill'') from apipay.alerts',
    'select * from apipay.alerts, apipay.alert_deliveries, apipay.events, apipay.daemons'] loop
    perform pg_temp.expect_success('apipay_operator', statement);
  end loop;
end $$;

-- Who acted is who logged in, not the owner of the function.
do $$
begin
  assert (select bool_and(actor = session_user) from apipay.events where reason = 'drill' or reason like '%by_user');
  assert (select count(*) >= 4 from apipay.events where reason = 'drill' or reason like '%by_user');
end $$;

-- Everybody else: nothing. (pg_monitor stands for a role without any grant here.)
do $$
declare
  statement text;
begin
  foreach statement in array array['select * from apipay.overview', 'select * from apipay.jobs', 'select apipay.stop()', 'select apipay._phone(''8'')', 'select apipay._operations()',
    'insert into apipay.jobs (operation, params) values (''invoice.create'', ''{}'')', 'create table apipay.mine ()'] loop
    perform pg_temp.expect_denial('pg_monitor', statement);
  end loop;
end $$;
