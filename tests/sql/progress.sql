-- What the check for progress stands on: who runs, and which sequences are behind.

do $$
declare
  worker constant uuid := gen_random_uuid();
begin
  perform apipay._announce(worker, 'a', '1', array['shop']);
  update apipay.daemons set seen_at = now() - interval '1 minute';
  perform apipay._leave(worker);
  assert (select has_left from apipay.daemons) and apipay._serving('shop', null) is null;
  perform apipay._announce(worker, 'a', '1', array['shop', 'clinic']);
  assert (select not has_left from apipay.daemons);
  assert apipay._serving('shop', null) = 'a' and apipay._serving('shop', worker) is null and apipay._serving('other', null) is null;
  assert (select accounts = array['shop', 'clinic'] and seen_at = now() from apipay.daemons);
  insert into apipay.daemons (worker, host, version, accounts, seen_at)
  values (gen_random_uuid(), 'dead', '1', '{}', now() - interval '25 hours'),
         (gen_random_uuid(), 'ill', '1', '{}', now() - interval '23 hours');
  perform apipay._announce(worker, 'a', '1', array['shop']);
  assert (select array_agg(host order by host) = array['a', 'ill'] from apipay.daemons);
  -- What it serves no more it knows with the moment, until it serves it again.
  assert (select dropped = jsonb_build_object('clinic', now()) from apipay.daemons where host = 'a');
  perform apipay._announce(worker, 'a', '1', array['shop']);
  assert (select dropped ? 'clinic' from apipay.daemons where host = 'a');
  perform apipay._announce(worker, 'a', '1', array['clinic', 'shop']);
  assert (select dropped = '{}' from apipay.daemons where host = 'a');
  perform apipay._announce(worker, 'a', '1', array['shop']);
  -- The last one to serve an account is known for longer, until another one serves it.
  insert into apipay.daemons (worker, host, version, accounts, seen_at)
  values (gen_random_uuid(), 'kept', '1', array['shop', 'closed'], now() - interval '20 days'),
         (gen_random_uuid(), 'over', '1', array['shop'], now() - interval '20 days'),
         (gen_random_uuid(), 'old', '1', array['torn_down'], now() - interval '31 days');
  perform apipay._announce(worker, 'a', '1', array['shop']);
  assert (select array_agg(host order by host) = array['a', 'ill', 'kept'] from apipay.daemons);
  perform apipay._announce(worker, 'a', '1', array['shop', 'closed']);
  perform apipay._announce(worker, 'a', '1', array['shop', 'closed']);
  assert (select array_agg(host order by host) = array['a', 'ill'] from apipay.daemons);
end $$;

do $$
begin
  assert not exists (select from apipay._sequences_behind()), 'fresh';
  insert into apipay.accounts (name) values ('default');
  insert into apipay.jobs (operation, params) select 'invoice.create', '{}' from generate_series(1, 3);
  assert not exists (select from apipay._sequences_behind()), 'in step';
  perform setval('apipay.jobs_id_seq', 3, false);
  assert (select (sequence, highest) = ('apipay.jobs_id_seq', 3) from apipay._sequences_behind()), 'the next one is taken';
  perform setval('apipay.jobs_id_seq', 4, false);
  assert not exists (select from apipay._sequences_behind()), 'the next one is free';
  insert into apipay.attempts (job_id, epoch, account, kind, worker) values (9, 1, 'default', 'send', gen_random_uuid());
  assert (select highest = 9 from apipay._sequences_behind()), 'an earlier job had that number';
  perform setval('apipay.jobs_id_seq', 9);
  assert not exists (select from apipay._sequences_behind());

  -- A number that somebody gave by hand, and that the sequence never comes to, is no reason to use the sequence up.
  insert into apipay.jobs (id, operation, params) values (9223372036854775807, 'invoice.create', '{}'), (9007199254740992, 'invoice.create', '{}');
  assert not exists (select from apipay._sequences_behind()), 'the next ones are free';
  insert into apipay.jobs (id, operation, params) values (12, 'invoice.create', '{}');
  perform setval('apipay.jobs_id_seq', 11);
  assert (select (highest, beyond) = (12, 9223372036854775807) from apipay._sequences_behind());
  perform setval('apipay.jobs_id_seq', 12);
  insert into apipay.jobs (operation, params) values ('invoice.create', '{}');
  assert lastval() = 13;
end $$;
