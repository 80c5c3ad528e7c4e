-- What operators do: every change, every refusal with its sentence, the events they leave.

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

-- A job in any state, as the daemon would leave it.
create function pg_temp.job(wanted text, operation text default 'invoice.create', unproven boolean default false,
  params jsonb default '{"phone_number": "87001234567", "amount": 100}', account text default 'default') returns bigint
language sql as $$
  insert into apipay.jobs (account, operation, params, state, run_at, attempts, epoch, leased_by, leased_until, finished_at,
                           unproven_since, dedup_key, priority, metadata, traceparent)
  values (account, operation, params, wanted, now() + interval '1 hour', 2, 5,
          case when wanted = 'sending' then gen_random_uuid() end, case when wanted = 'sending' then now() + interval '1 min' end,
          case when wanted in ('succeeded', 'failed', 'cancelled', 'expired') then now() end,
          case when unproven then now() end, gen_random_uuid()::text, 3, '{"order": 1}', 'trace')
  returning id
$$;
create function pg_temp.read(job bigint) returns apipay.jobs language sql as 'select * from apipay.jobs where id = job';
create function pg_temp.invoice_of(job bigint, id bigint, status text, account text default 'default') returns void language sql as $$
  insert into apipay.invoices (account, id, job_id, job_token, status) values (account, id, job, (pg_temp.read(job)).token, status)
$$;
create function pg_temp.refund_of(job bigint, status text, account text default 'default') returns void language sql as $$
  insert into apipay.refunds (account, id, job_id, job_token, invoice_id, status) values (account, job, job, (pg_temp.read(job)).token, 1, status)
$$;
create function pg_temp.last_event(of_subject text, of_id text) returns apipay.events language sql as
  'select * from apipay.events where subject = of_subject and subject_id = of_id order by id desc limit 1';

create function pg_temp.waiting(why text, counted int) returns bigint
language plpgsql as $$
declare
  made constant bigint := pg_temp.job('queued');
begin
  update apipay.jobs set reason = why, attempts = counted where jobs.id = made;
  return made;
end $$;

-- retry
do $$
declare
  id bigint;
  copy apipay.jobs;
  state text;
  expected int;
begin
  id := pg_temp.job('queued');
  assert apipay.retry(id, 'hurry') = id;
  assert (pg_temp.read(id)).run_at = now() and (pg_temp.read(id)).state = 'queued';
  assert (pg_temp.last_event('job', id::text)).reason = 'hurry';

  id := pg_temp.job('parked');
  perform apipay.retry(id);
  assert (pg_temp.read(id)).state = 'queued' and (pg_temp.read(id)).run_at = now();
  assert (pg_temp.last_event('job', id::text)).reason = 'retried_by_user', 'the reason before must not be inherited';
  id := pg_temp.job('parked', unproven => true);
  perform apipay.retry(id);
  assert (pg_temp.read(id)).state = 'uncertain', 'an unproven request is looked up, not sent';

  update apipay.accounts set state = 'parked', parked_at = now(), parked_reason = 'session_expired', parked_by = 'apipayd' where name = 'other';
  id := pg_temp.job('parked', account => 'other');
  perform pg_temp.expect_refusal(format('select apipay.retry(%s)', id), '55000',
    format('job %s is parked: it cannot be sent now; its account is parked: select apipay.resume(''other'', ''why'') when the cause is gone', id));

  id := pg_temp.job('uncertain', unproven => true);
  perform pg_temp.expect_refusal(format('select apipay.retry(%s)', id), '55000',
    format('job %s is uncertain: it cannot be sent again; a request may have had its effect and the daemon is looking it up; if you know: select apipay.resolve(%s, true or false, ...)', id, id));
  id := pg_temp.job('held', unproven => true);
  perform pg_temp.expect_refusal(format('select apipay.retry(%s)', id), '55000',
    format('job %s is held: it cannot be sent again; say first what the gateway did: select apipay.resolve(%s, true, ID, ''why'') or apipay.resolve(%s, false, null, ''why'')', id, id, id));
  foreach state in array array['sending', 'accepted'] loop
    id := pg_temp.job(state);
    perform pg_temp.expect_refusal(format('select apipay.retry(%s)', id), '55000',
      format('job %s is %s: it cannot be sent again; it is under way; wait for its end, apipay.overview says what comes next', id, state));
  end loop;

  foreach state in array array['failed', 'cancelled', 'expired'] loop
    id := pg_temp.job(state);
    select * into copy from pg_temp.read(apipay.retry(id, 'again'));
    assert copy.id <> id and copy.retry_of = id and copy.state = 'queued' and copy.dedup_key is null and copy.attempts = 0 and copy.epoch = 0;
    assert copy.token <> (pg_temp.read(id)).token and copy.run_at = now();
    assert (copy.account, copy.operation, copy.params, copy.priority, copy.metadata, copy.traceparent)
         = ('default', 'invoice.create', '{"phone_number": "87001234567", "amount": 100}'::jsonb, 3, '{"order": 1}'::jsonb, 'trace');
    assert (pg_temp.last_event('job', copy.id::text)).reason = 'again';
    assert (pg_temp.last_event('job', copy.id::text)).evidence = jsonb_build_object('retry_of', id);
    assert (pg_temp.read(id)).state = state, 'history is never rewritten';
    perform pg_temp.expect_refusal(format('select apipay.retry(%s)', id), '55000',
      format('job %s is %s: it cannot be repeated; job %s repeats it already and is queued: look at that one', id, state, copy.id));
  end loop;

  id := pg_temp.job('succeeded');
  perform pg_temp.expect_refusal(format('select apipay.retry(%s)', id), '55000',
    format('job %s is succeeded: it cannot be repeated; it has been done and a copy would do it twice: insert a new job if you mean that', id));
  id := pg_temp.job('succeeded', 'invoice.refund', params => '{"invoice_id": 1}');
  perform pg_temp.expect_refusal(format('select apipay.retry(%s)', id), '55000', '%it has been done and a copy would do it twice%');
  id := pg_temp.job('succeeded', 'invoice.cancel', params => '{"invoice_id": 1}');
  perform pg_temp.expect_refusal(format('select apipay.retry(%s)', id), '55000', '%it has been done and a copy would do it twice%');

  -- A bill may be sent again when its invoice is dead, and only then.
  foreach state in array array['processing', 'pending', 'cancelling', 'paid', 'partially_refunded', 'unknown'] loop
    id := pg_temp.job('succeeded');
    perform pg_temp.invoice_of(id, id, state);
    perform pg_temp.expect_refusal(format('select apipay.retry(%s)', id), '55000',
      format('job %s is succeeded: it cannot be repeated; its invoice %s is %s and a copy would bill the customer twice: insert a new job if you mean that', id, id, state));
    id := pg_temp.job('failed');
    perform pg_temp.invoice_of(id, id, state);
    perform pg_temp.expect_refusal(format('select apipay.retry(%s)', id), '55000', '%would bill the customer twice%');
  end loop;
  foreach state in array array['cancelled', 'expired', 'error'] loop
    id := pg_temp.job('succeeded');
    perform pg_temp.invoice_of(id, id, state);
    assert (pg_temp.read(apipay.retry(id))).retry_of = id;
  end loop;
  id := pg_temp.job('succeeded');
  perform pg_temp.invoice_of(id, id, 'expired'), pg_temp.invoice_of(id, id, 'pending', 'other');
  perform pg_temp.expect_refusal(format('select apipay.retry(%s)', id), '55000', '%is pending and a copy would bill the customer twice%');

  -- What is of an earlier job with the same number says nothing of this one.
  id := pg_temp.job('failed');
  insert into apipay.invoices (account, id, job_id, job_token, status) values ('default', id, id, gen_random_uuid(), 'paid');
  assert (pg_temp.read(apipay.retry(id))).retry_of = id;
  id := pg_temp.job('succeeded');
  insert into apipay.invoices (account, id, job_id, job_token, status) values ('default', id, id, gen_random_uuid(), 'expired');
  perform pg_temp.expect_refusal(format('select apipay.retry(%s)', id), '55000', '%it has been done and a copy would do it twice%');

  -- A try before its time takes the place of the one that was due, and the next wait is no longer for it. Whether anything
  -- was repeated is known all the same. What was told to wait has not counted.
  for id, expected in
    select pg_temp.waiting(n.reason, n.was), n.is_then
      from (values ('not_applied', 7, 6), ('not_applied', 3, 2), ('not_applied', 2, 2), ('not_applied', 1, 1), ('not_applied', 0, 0),
                   ('server_error', 7, 6), ('network', 7, 6), ('busy', 7, 6),
                    ('retry_after', 7, 7), ('cap_reached', 7, 7), ('quota_spent', 7, 7), ('unknown_operation', 7, 7)) as n (reason, was, is_then)
  loop
    perform apipay.retry(id);
    perform apipay.retry(id);
    assert (pg_temp.read(id)).attempts = expected and (pg_temp.read(id)).run_at = now(), expected;
  end loop;
  -- What only asks before the bill is sent has not counted either, and a question takes the place of one.
  id := pg_temp.waiting('earlier_unseen', 7);
  execute format('update apipay.jobs set lookups = 4 where id = %s', id);
  perform apipay.retry(id);
  perform apipay.retry(id);
  assert ((pg_temp.read(id)).attempts, (pg_temp.read(id)).lookups) = (7, 3);
  -- A refund that failed for us and was made after all gives the money back once; one of another job says nothing of it.
  foreach state in array array['pending', 'processing', 'completed', 'unknown'] loop
    id := pg_temp.job('failed', 'invoice.refund', params => '{"invoice_id": 1}');
    perform pg_temp.refund_of(id, state);
    perform pg_temp.expect_refusal(format('select apipay.retry(%s)', id), '55000',
      format('job %s is failed: it cannot be repeated; its refund %s is %s and a copy would give the money back twice: insert a new job if you mean that', id, id, state));
  end loop;
  id := pg_temp.job('failed', 'invoice.refund', params => '{"invoice_id": 1}');
  perform pg_temp.refund_of(id, 'failed'), pg_temp.refund_of(id, 'completed', 'other');
  assert (pg_temp.read(apipay.retry(id))).retry_of = id;
  delete from apipay.refunds;

  perform pg_temp.expect_refusal('select apipay.retry(-1)', 'P0002', 'there is no job -1; %');
  perform pg_temp.expect_refusal('select apipay.retry(null)', '22004', 'job is null: it must be given');
end $$;

-- cancel
do $$
declare
  id bigint;
  state text;
begin
  foreach state in array array['queued', 'parked'] loop
    id := pg_temp.job(state);
    assert apipay.cancel(id, 'the customer called') = id;
    assert ((pg_temp.read(id)).state, (pg_temp.read(id)).reason) = ('cancelled', 'cancelled_by_user') and (pg_temp.read(id)).finished_at = now();
    assert (pg_temp.last_event('job', id::text)).reason = 'the customer called';
    assert (pg_temp.last_event('job', id::text)).actor = session_user;
    perform pg_temp.expect_refusal(format('select apipay.cancel(%s)', id), '55000',
      format('job %s is cancelled: it cannot be cancelled; how it ended never changes', id));
    id := pg_temp.job(state, unproven => true);
    perform pg_temp.expect_refusal(format('select apipay.cancel(%s)', id), '55000',
      format('job %s is %s: it cannot be cancelled; an earlier request of it may have had its effect; it is looked up first', id, state));
  end loop;
  id := pg_temp.job('sending');
  perform pg_temp.expect_refusal(format('select apipay.cancel(%s)', id), '55000',
    format('job %s is sending: it cannot be cancelled; its request is in flight; wait for the answer', id));
  id := pg_temp.job('uncertain', unproven => true);
  perform pg_temp.expect_refusal(format('select apipay.cancel(%s)', id), '55000',
    format('job %s is uncertain: it cannot be cancelled; a request may have had its effect and the daemon is looking it up; if you know that it had none: select apipay.resolve(%s, false, null, ''why'', and_cancel => true)', id, id));
  id := pg_temp.job('held', unproven => true);
  perform pg_temp.expect_refusal(format('select apipay.cancel(%s)', id), '55000',
    format('job %s is held: it cannot be cancelled; say what the gateway did: if it did it, select apipay.resolve(%s, true, ID, ''why''); if not, this ends it unsent: select apipay.resolve(%s, false, null, ''why'', and_cancel => true)', id, id, id));
  foreach state in array array['accepted', 'succeeded'] loop
    id := pg_temp.job(state, 'invoice.refund', params => jsonb_build_object('invoice_id', state));
    perform pg_temp.expect_refusal(format('select apipay.cancel(%s)', id), '55000', format('job %s is %s: it cannot be cancelled; %s', id, state,
      case state when 'accepted' then 'the gateway has taken it; it is followed to its end' else 'how it ended never changes' end));
  end loop;
  foreach state in array array['accepted', 'succeeded'] loop
    id := pg_temp.job('sending');
    update apipay.jobs j
       set state = cancel_state.state, invoice_id = 4711, leased_by = null, leased_until = null,
           finished_at = case when cancel_state.state = 'succeeded' then now() end
      from (select state) as cancel_state
     where j.id = (select max(m.id) from apipay.jobs m);
    perform pg_temp.expect_refusal(format('select apipay.cancel(%s)', id), '55000',
      format('job %s is %s: it cannot be cancelled; the gateway has invoice 4711; to cancel that: select apipay.cancel_invoice(4711, account => ''default'')', id, state));
  end loop;
  perform pg_temp.expect_refusal('select apipay.cancel(-1)', 'P0002', 'there is no job -1; %');
  perform pg_temp.expect_refusal('select apipay.cancel(null)', '22004', 'job is null: it must be given');
end $$;

-- resolve
do $$
declare
  how int;
  nth int := 0;
  job bigint;
  other bigint;
  found apipay.jobs;
  state text;
  operation text;
begin
  delete from apipay.jobs j where j.state = 'held';
  foreach state in array array['held', 'uncertain'] loop
    -- Not applied: sent again, with a fence before whoever still works on it.
    job := pg_temp.job(state, unproven => true);
    insert into apipay.attempts (job_id, epoch, account, kind, worker) values (job, 5, 'default', 'send', gen_random_uuid());
    perform apipay._tell_held('default', 'job_held', 'critical', 'a job is held', 'resolve it', jsonb_build_object('job', job));
    assert apipay.resolve(job, false, reason => 'not in the dashboard') = job;
    found := pg_temp.read(job);
    assert (pg_temp.last_event('job', job::text)).reason = 'not in the dashboard';
    if state = 'held' then
      -- A bill is looked up once more, and until then its alert stays.
      assert (found.state, found.reason, found.attempts, found.lookups, found.epoch) = ('uncertain', 'resolved_not_applied', 0, 0, 6);
      assert (found.absent_since, found.run_at) = ('2000-01-01Z'::timestamptz, now()) and found.unproven_since is not null;
      assert (select effect = 'unknown' and finished_at is not null from apipay.attempts where job_id = job);
      assert exists (select from apipay.alerts where kind = 'job_held' and resolved_at is null);
      delete from apipay.jobs where id = job;
      -- So is a cancel: what became of it, its invoice shows.
      job := pg_temp.job(state, 'invoice.cancel', true, jsonb_build_object('invoice_id', 40 + job));
      perform apipay.resolve(job, false, reason => 'not in the dashboard');
      found := pg_temp.read(job);
      assert (found.state, found.reason, found.absent_since) = ('uncertain', 'resolved_not_applied', '2000-01-01Z'::timestamptz);
      delete from apipay.jobs where id = job;
      -- So is a refund. It stays unproven until then, so that it cannot end as if nothing of it had an effect.
      job := pg_temp.job(state, 'invoice.refund', true, jsonb_build_object('invoice_id', 40 + job));
      update apipay.jobs set baseline = '{"refund_ids": [1]}' where id = job;
      insert into apipay.attempts (job_id, epoch, account, kind, worker) values (job, 5, 'default', 'send', gen_random_uuid());
      perform apipay._tell_held('default', 'job_held', 'critical', 'a job is held', 'resolve it', jsonb_build_object('job', job));
      perform apipay.resolve(job, false, reason => 'not in the dashboard');
      found := pg_temp.read(job);
      assert (found.state, found.reason, found.attempts, found.lookups, found.epoch) = ('uncertain', 'resolved_not_applied', 0, 0, 6);
      assert (found.absent_since, found.run_at) = ('2000-01-01Z'::timestamptz, now()) and found.unproven_since is not null;
      assert found.baseline = '{"refund_ids": [1], "is_told_apart": true}', found.baseline;
      assert (select effect = 'unknown' and finished_at is not null from apipay.attempts where job_id = job);
      assert exists (select from apipay.alerts where kind = 'job_held' and resolved_at is null);
      perform pg_temp.expect_refusal(format('select apipay.cancel(%s)', job), '55000', '%it cannot be cancelled%');
      perform apipay._resolve_alert('default', 'job_held', 'its job is gone', subject) from apipay.alerts where kind = 'job_held' and resolved_at is null;
      delete from apipay.jobs where id = job;
      -- An invoice of another organization cannot be asked for: the word is all there is.
      job := pg_temp.job(state, 'invoice.refund', true, jsonb_build_object('invoice_id', 40 + job), account => 'other');
      update apipay.jobs set reason = 'other_organization' where id = job;
      update apipay.accounts set organization_since = now() where name = 'other';
      perform apipay.resolve(job, false, reason => 'taken back there');
      found := pg_temp.read(job);
      assert (found.state, found.reason, found.unproven_since is null) = ('queued', 'resolved_not_applied', true), found;
      update apipay.accounts set organization_since = null where name = 'other';
      perform apipay.cancel(job);
    else
      -- Its request may still be at work: a look-up comes first, and what it does not find is not there.
      assert (found.state, found.reason, found.absent_since, found.epoch) = ('uncertain', 'resolved_not_applied', '2000-01-01Z'::timestamptz, 6);
      assert found.unproven_since is not null;
      perform apipay._resolve_alert('default', 'job_held', 'enough', job::text);
      delete from apipay.jobs where id = job;
      -- When it was to come, and no earlier.
      job := pg_temp.job(state, unproven => true);
      update apipay.jobs set run_at = now() + interval '50 s' where id = job;
      perform apipay.resolve(job, false);
      assert (pg_temp.read(job)).run_at = now() + interval '50 s';
      perform pg_temp.expect_refusal(format('select apipay.resolve(%s, false, and_cancel => true)', job), '55000', '%its request may still be at work; wait until %');
      update apipay.jobs set lookups = 1 where id = job;
      perform apipay.resolve(job, false);
      assert (pg_temp.read(job)).run_at = now();
      delete from apipay.jobs where id = job;
      -- Nor if an object was named that is not there, or the account was given to another organization: held or not.
      for how in 1..3 loop
        job := pg_temp.job(state, unproven => true, account => case how when 3 then 'other' else 'default' end);
        update apipay.jobs set run_at = now() + interval '50 s' where id = job;
        if how = 3 then
          perform apipay._change_organization('other', 'cafe');
        else
          perform apipay.resolve(job, true, 900, 'a slip');
          assert (pg_temp.read(job)).run_at = now();
        end if;
        if how = 2 then
          update apipay.jobs set state = 'held', reason = 'not_as_stated', lookups = 1, stated_id = null where id = job;
        end if;
        perform pg_temp.expect_refusal(format('select apipay.resolve(%s, false, and_cancel => true)', job), '55000', '%its request may still be at work; wait until %');
        perform apipay.resolve(job, false, null, 'not there');
        found := pg_temp.read(job);
        assert (found.state, found.run_at, found.absent_since) = ('uncertain', now() + interval '50 s', '2000-01-01Z'::timestamptz), how;
        -- However far ahead its end is.
        update apipay.jobs set state = 'held', reason = 'unknown_outcome', lookups = 1, quiet_until = now() + interval '2 h' where id = job;
        perform pg_temp.expect_refusal(format('select apipay.resolve(%s, false, and_cancel => true)', job), '55000', '%its request may still be at work; wait until %');
        perform apipay.resolve(job, false, null, 'not there');
        assert ((pg_temp.read(job)).state, (pg_temp.read(job)).run_at) = ('uncertain', now() + interval '2 h'), how;
        -- Once that is over, it is not in the way, however long ago the transaction began.
        update apipay.jobs set state = 'held', reason = 'unknown_outcome', lookups = 1, quiet_until = now() - interval '1 s' where id = job;
        perform apipay.resolve(job, false, null, 'not there');
        assert ((pg_temp.read(job)).state, (pg_temp.read(job)).run_at) = ('uncertain', now()), how;
        delete from apipay.jobs where id = job;
      end loop;
    end if;

    -- Not applied, and not wanted any more: what it may have made is looked for, and what is not found ends it. A cancel
    -- makes nothing, so that ends in the same step; none was ever queued.
    foreach operation in array array['invoice.create', 'invoice.refund'] loop
      job := pg_temp.job(state, operation, true, jsonb_build_object('invoice_id', 6000 + nth));
      nth := nth + 1;
      insert into apipay.attempts (job_id, epoch, account, kind, worker) values (job, 5, 'default', 'send', gen_random_uuid());
      update apipay.jobs set run_at = now() where id = job;
      assert apipay.resolve(job, false, null, 'not there, not wanted', and_cancel => true) = job;
      found := pg_temp.read(job);
      assert (found.state, found.reason, found.epoch, found.stated_unwanted, found.run_at, found.absent_since)
           = ('uncertain', 'resolved_not_applied', 6, true, now(), '2000-01-01Z'::timestamptz), operation;
      assert (select effect = 'unknown' and finished_at is not null from apipay.attempts where job_id = job);
      assert (select explain from apipay.overview where id = job) like '%Somebody said at % that it was not done and is to end: %Nothing is sent, and nothing is to do until then.';
      -- Whatever is said of it next takes its place.
      perform apipay.resolve(job, false);
      assert (pg_temp.read(job)).stated_unwanted is null;
      perform apipay.resolve(job, false, and_cancel => true);
      assert (pg_temp.read(job)).stated_unwanted;
      perform apipay.resolve(job, true, 7000 + job, 'it is there');
      assert (pg_temp.read(job)).stated_unwanted is null;
      delete from apipay.jobs where id = job;
    end loop;
    job := pg_temp.job(state, 'invoice.cancel', true, '{"invoice_id": 78}');
    insert into apipay.attempts (job_id, epoch, account, kind, worker) values (job, 5, 'default', 'send', gen_random_uuid());
    perform apipay._tell_held('default', 'job_held', 'critical', 'a job is held', 'resolve it', jsonb_build_object('job', job));
    update apipay.jobs set run_at = now() where id = job;
    assert apipay.resolve(job, false, null, 'not there, not wanted', and_cancel => true) = job;
    found := pg_temp.read(job);
    assert (found.state, found.reason, found.epoch, found.finished_at) = ('cancelled', 'resolved_not_applied', 6, now()) and found.unproven_since is null;
    assert (select array_agg(e.to_state) from apipay.events e where e.job_id = job and e.subject = 'job' and e.reason = 'not there, not wanted') = array['cancelled'];
    assert (select effect = 'unknown' and finished_at is not null from apipay.attempts where job_id = job);
    assert not exists (select from apipay.alerts where kind = 'job_held' and resolved_at is null);
    assert (select explain from apipay.overview where id = job) like 'Cancelled by % (not there, not wanted): somebody said that no request of it had an effect.';
    job := pg_temp.job(state, 'invoice.cancel', true, '{"invoice_id": 79}');
    perform pg_temp.expect_refusal(format('select apipay.resolve(%s, true, 5, and_cancel => true)', job), '22023', 'and_cancel is given although it was applied: %');
    update apipay.jobs set run_at = now() where id = job;
    perform apipay.resolve(job, false, and_cancel => true);

    -- Applied: to be checked at once, and believed no earlier.
    job := pg_temp.job(state, unproven => true);
    perform apipay._tell_held('default', 'job_held', 'critical', 'a job is held', 'resolve it', jsonb_build_object('job', job));
    perform apipay.resolve(job, true, 100 + job, 'seen');
    found := pg_temp.read(job);
    assert (found.state, found.reason, found.stated_id, found.stated_anyway, found.run_at, found.lookups, found.epoch)
         = ('uncertain', 'resolved_applied', 100 + job, false, now(), 0, 6);
    assert found.unproven_since is not null and num_nulls(found.invoice_id, found.absent_since) = 2;
    assert (select (e.to_state, e.reason, e.evidence ->> 'stated_id') = ('uncertain', 'seen', (100 + job)::text)
              from apipay.events e where e.job_id = job and e.subject = 'job' order by id desc limit 1) or state = 'uncertain';
    assert not exists (select from apipay.invoices m where id = 100 + job), 'nobody has seen it yet';
    assert exists (select from apipay.alerts where kind = 'job_held' and resolved_at is null), 'it waits still';
    -- Somebody knows better meanwhile.
    perform apipay.resolve(job, true, 200 + job, anyway => true);
    found := pg_temp.read(job);
    assert (found.state, found.stated_id, found.stated_anyway, found.epoch) = ('uncertain', 200 + job, true, 7);
    perform apipay.resolve(job, false);
    found := pg_temp.read(job);
    assert found.state = 'uncertain' and num_nulls(found.stated_id, found.stated_anyway) = 2;
    delete from apipay.jobs where id = job;
    perform apipay._resolve_alert('default', 'job_held', 'enough', subject) from apipay.alerts where kind = 'job_held' and resolved_at is null;

    job := pg_temp.job(state, 'invoice.refund', true, jsonb_build_object('invoice_id', 50 + job));
    perform apipay.resolve(job, true, 900 + job, 'seen');
    found := pg_temp.read(job);
    assert (found.state, found.stated_id) = ('uncertain', 900 + job) and found.refund_id is null;

    job := pg_temp.job(state, 'invoice.cancel', true, '{"invoice_id": 77}');
    perform apipay.resolve(job, true);
    assert ((pg_temp.read(job)).state, (pg_temp.read(job)).stated_id) = ('uncertain', 77);
    job := pg_temp.job(state, 'invoice.cancel', true, '{"invoice_id": 77}');
    perform apipay.resolve(job, true, 77);
    assert (pg_temp.read(job)).stated_id = 77, 'two cancels may speak of one invoice';
  end loop;

  -- A bill that is about to be resubmitted has invoices that the key of another organization does not show.
  job := pg_temp.job('queued', account => 'other');
  update apipay.jobs set generation = 2 where id = job;
  other := pg_temp.job('queued', account => 'other');
  perform apipay._change_organization('other', 'tea');
  assert ((pg_temp.read(job)).state, (pg_temp.read(other)).state) = ('held', 'queued');
  delete from apipay.jobs where id in (job, other);

  -- Whatever the account has at the earlier organization was before the change, wherever the clock stood.
  job := pg_temp.job('uncertain', account => 'other');
  insert into apipay.attempts (job_id, epoch, account, kind, worker, started_at) values (job, 5, 'other', 'send', gen_random_uuid(), now() + interval '2 days');
  insert into apipay.invoices (account, id, status, amount, settled, created_at) values ('other', 769999, 'pending', 100, true, now() + interval '3 days');
  perform apipay._change_organization('other', 'mint');
  assert (select organization_since > now() + interval '3 days' from apipay.accounts where name = 'other');
  assert (select organization_since from apipay.accounts where name = 'other') > (select created_at from apipay.invoices where id = 769999);
  delete from apipay.invoices where id = 769999;
  perform apipay._change_organization('other', 'mint');
  assert (select organization_since > now() + interval '2 days' and organization_since < now() + interval '3 days' from apipay.accounts where name = 'other');
  delete from apipay.attempts where job_id = job;
  delete from apipay.jobs where id = job;

  -- What was accepted at another organization ends by a person's word about that job, which nothing can check.
  job := pg_temp.job('accepted', account => 'other');
  update apipay.jobs set invoice_id = 770001 where id = job;
  other := pg_temp.job('held', 'invoice.refund', true, '{"invoice_id": 770002}', account => 'other');
  perform pg_temp.invoice_of(job, 770001, 'processing', 'other');
  perform apipay._change_organization('other', 'cocoa');
  for found in select * from apipay.jobs where id in (job, other) loop
    assert (found.state, found.reason) = ('held', 'other_organization'), found;
  end loop;
  assert (select settled from apipay.invoices where id = 770001);
  assert (select explain from apipay.overview where id = job)
         like 'Held (other_organization) %(invoice 770001)%' || format('select apipay.resolve(%s, true, 770001, ''why'', anyway => true), which is believed.', job) || '%';
  perform apipay.resolve(job, true, 770001, 'seen there');
  assert ((pg_temp.read(job)).state, (pg_temp.read(job)).stated_id) = ('uncertain', 770001), 'asked for, unless it is to be believed';
  update apipay.jobs set state = 'held', reason = 'other_organization' where id = job;
  perform apipay.resolve(job, true, 770001, 'seen there', anyway => true);
  found := pg_temp.read(job);
  assert (found.state, found.reason, found.invoice_id, found.finished_at) = ('succeeded', 'resolved_applied', 770001, now());
  assert (select explain from apipay.overview where id = job) like 'Done at the organization that the account was for before, as somebody said: invoice 770001. %';
  perform apipay.resolve(other, true, 880001, 'seen there', anyway => true);
  assert ((pg_temp.read(other)).state, (pg_temp.read(other)).refund_id) = ('succeeded', 880001);
  update apipay.accounts set organization_since = null where name = 'other';

  -- The alert of a job ends with it, whatever else is held.
  job := pg_temp.job('held', 'invoice.cancel', true, '{"invoice_id": 4001}');
  other := pg_temp.job('held', 'invoice.cancel', true, '{"invoice_id": 4002}');
  perform apipay._tell_held('default', 'job_held', 'critical', 'it is held', 'resolve it', jsonb_build_object('job', job));
  perform apipay._tell_held('default', 'duplicate_detected', 'critical', 'two refunds', 'say which', jsonb_build_object('job', other));
  perform apipay.resolve(job, false, and_cancel => true);
  assert (select array_agg((kind, details ->> 'job')::text) = array[('duplicate_detected', other)::text] from apipay.alerts where kind in ('job_held', 'duplicate_detected') and resolved_at is null);
  perform apipay.resolve(other, false, reason => 'there is none', and_cancel => true);
  assert (select resolution = 'there is none' from apipay.alerts where kind = 'duplicate_detected' and details -> 'job' = to_jsonb(other));

  -- But not while it is checked what somebody said of it.
  job := pg_temp.job('held', unproven => true);
  perform apipay._tell_held('default', 'job_held', 'critical', 'it is held', 'resolve it', jsonb_build_object('job', job));
  perform apipay.resolve(job, true, 4000);
  assert exists (select from apipay.alerts where kind = 'job_held' and resolved_at is null);
  perform apipay.resolve(job, false, and_cancel => true);
  -- The daemon ends it when the look-up has ended the job.
  assert exists (select from apipay.alerts where kind = 'job_held' and resolved_at is null);
  perform apipay._resolve_alert('default', 'job_held', 'the job is not held any more', job::text);

  -- What is learned of a held job stands in its alert, of whichever kind, and is told each time.
  perform apipay._tell_held('default', 'duplicate_detected', 'critical', 'two invoices', 'look', jsonb_build_object('job', job));
  perform apipay._tell_held('default', 'duplicate_detected', 'critical', 'three: +7 700 765-43-21', 'look again', jsonb_build_object('job', job, 'reason', 'duplicate_detected'));
  assert (select jsonb_agg(jsonb_build_array(kind, subject, summary, action, details, changed_at is not null, incidents)) from apipay.alerts where account = 'default' and resolved_at is null and kind <> 'account_parked')
       = jsonb_build_array(jsonb_build_array('duplicate_detected', job::text, 'three: 8700***4321', apipay._sought(pg_temp.read(job)) || '; look again', jsonb_build_object('job', job, 'reason', 'duplicate_detected'), true, 1));
  -- One of the other kind takes its place: who filters by the kind sees what it is now.
  perform apipay._tell_held('default', 'job_held', 'critical', 'not as stated: +7 700 765-43-21', 'look again', jsonb_build_object('job', job, 'reason', 'not_as_stated'));
  assert (select jsonb_agg(jsonb_build_array(kind, subject, summary, incidents)) from apipay.alerts where account = 'default' and resolved_at is null and kind <> 'account_parked')
       = jsonb_build_array(jsonb_build_array('job_held', job::text, 'not as stated: 8700***4321', 0));
  assert (select resolution = 'the job is held for another reason now: see its alert job_held' from apipay.alerts where kind = 'duplicate_detected' order by id desc limit 1);
  -- The same again is news only where somebody has said something meanwhile; who had seen to it has to look again then.
  perform apipay.acknowledge(id, 'I see') from apipay.alerts where kind = 'job_held' and resolved_at is null;
  perform apipay._tell_held('default', 'job_held', 'critical', 'not as stated: +7 700 765-43-21', 'look again', jsonb_build_object('job', job, 'reason', 'not_as_stated'));
  assert (select incidents = 0 and acked_at is not null from apipay.alerts where kind = 'job_held' and resolved_at is null);
  perform apipay.resolve(job, true, 4001, 'that one');
  assert (select incidents = 0 and acked_at is not null and summary like format('Job %s of account default was held. Somebody said at %%Z that it was done, as invoice 4001, and ApiPay is being asked whether that is so.', job)
              and action like 'nothing is to do now. %' from apipay.alerts where kind = 'job_held' and resolved_at is null), 'that is no news yet';
  perform apipay._tell_held('default', 'job_held', 'critical', 'not as stated: +7 700 765-43-21', 'look again', jsonb_build_object('job', job, 'reason', 'not_as_stated'));
  assert (select incidents = 1 and acked_at is null and summary like 'not as stated: %' and not details ? 'answered_at' from apipay.alerts where kind = 'job_held' and resolved_at is null);
  perform apipay._resolve_alert('default', 'job_held', 'looked', job::text);

  -- Ten are told one by one, and those beyond that by one alert, which stays for them even when some of the ten are settled.
  perform apipay._tell_held('default', 'job_held', 'critical', 'held', 'look', jsonb_build_object('job', n)) from generate_series(1, 12) n;
  assert (select count(*) = 11 and count(*) filter (where subject = 'others') = 1 and count(distinct details -> 'job') = 10 from apipay.alerts where account = 'default' and kind = 'job_held' and resolved_at is null);
  perform apipay._resolve_alert('default', 'job_held', 'settled', '3');
  perform apipay._tell_held('default', 'job_held', 'critical', 'held', 'look', '{"job": 13}');
  assert (select count(*) = 10 from apipay.alerts where account = 'default' and kind = 'job_held' and resolved_at is null);
  -- One that has ended, and of which ApiPay never told, is told by itself, takes no place of a held one, and ends with a word.
  perform apipay._tell_held('default', 'job_held', 'critical', 'ended', 'look', '{"job": 14, "reason": "called_off_unseen"}');
  assert (select count(*) = 11 and count(*) filter (where subject = '14') = 1 from apipay.alerts where account = 'default' and kind = 'job_held' and resolved_at is null);
  assert cardinality(apipay._told_held('default')) = 9;
  assert (select apipay.acknowledge(id, 'not there') from apipay.alerts where kind = 'job_held' and subject = '14' and resolved_at is null);
  assert not exists (select from apipay.alerts where kind = 'job_held' and subject = '14' and resolved_at is null);
  assert not (select apipay.acknowledge(id, 'I see') from apipay.alerts where kind = 'job_held' and subject = '5' and resolved_at is null);
  perform apipay._resolve_alert('default', 'job_held', 'looked', subject) from apipay.alerts where account = 'default' and kind = 'job_held' and resolved_at is null;

  -- What belongs to one job cannot be given to another.
  job := pg_temp.job('held', unproven => true);
  other := pg_temp.job('held', unproven => true);
  perform apipay.resolve(other, true, 5000);
  perform pg_temp.expect_refusal(format('select apipay.resolve(%s, true, 5000)', job), '55000',
    format('job %s is held: it cannot be resolved so; invoice 5000 belongs to another job (%s); if it carries this job''s own name at ApiPay, add anyway => true, and ApiPay is asked', job, other));
  perform pg_temp.expect_refusal(format('select apipay.resolve(%s, true, 5000, anyway => null)', job), '55000', '%invoice 5000 belongs to another job%');
  perform pg_temp.invoice_of(other, 5001, 'pending'), pg_temp.invoice_of(null, 5002, 'pending');
  perform pg_temp.expect_refusal(format('select apipay.resolve(%s, true, 5001)', job), '55000', format('%%invoice 5001 belongs to another job (%s)%%', other));
  insert into apipay.invoices (account, id, job_id, job_token, status) values ('default', 5003, job, gen_random_uuid(), 'pending');
  perform pg_temp.expect_refusal(format('select apipay.resolve(%s, true, 5003)', job), '55000', '%invoice 5003 belongs to an earlier job of the same number; %');
  perform apipay.resolve(job, true, 5002);
  assert (select m.job_id is null from apipay.invoices m where id = 5002), 'nobody has checked it yet';

  insert into apipay.refunds (account, id, job_id, job_token, invoice_id, status)
  values ('default', 600, other, (pg_temp.read(other)).token, 60, 'pending'), ('default', 601, null, null, 61, 'pending');
  job := pg_temp.job('held', 'invoice.refund', true, '{"invoice_id": 60}');
  perform pg_temp.expect_refusal(format('select apipay.resolve(%s, true, 600)', job), '55000', format('%%refund 600 belongs to another job (%s)', other));
  perform pg_temp.expect_refusal(format('select apipay.resolve(%s, true, 601)', job), '55000', '%refund 601 is of invoice 61, not 60');
  perform pg_temp.expect_refusal(format('select apipay.resolve(%s, true)', job), '22004', 'gateway_id (the id of the refund) is null: it must be given');
  job := pg_temp.job('held', 'invoice.cancel', true, '{"invoice_id": 60}');
  perform pg_temp.expect_refusal(format('select apipay.resolve(%s, true, 61)', job), '22023', format('job %s is about invoice 60, not 61', job));

  job := pg_temp.job('held', unproven => true);
  perform pg_temp.expect_refusal(format('select apipay.resolve(%s, true)', job), '22004', 'gateway_id (the id of the invoice) is null: it must be given');
  perform pg_temp.expect_refusal(format('select apipay.resolve(%s, true, 0)', job), '22023', 'gateway_id is not an id of the gateway: a whole number from 1');
  perform pg_temp.expect_refusal(format('select apipay.resolve(%s, false, 1)', job), '22023', 'gateway_id is given although nothing was applied: give one or the other');
  perform pg_temp.expect_refusal(format('select apipay.resolve(%s, null)', job), '22004', 'applied is null: it must be given');
  perform pg_temp.expect_refusal('select apipay.resolve(null, true)', '22004', 'job is null: it must be given');
  perform pg_temp.expect_refusal('select apipay.resolve(-1, true)', 'P0002', 'there is no job -1; %');
  foreach state in array array['queued', 'sending', 'accepted', 'parked'] loop
    job := pg_temp.job(state);
    perform pg_temp.expect_refusal(format('select apipay.resolve(%s, false)', job), '55000',
      format('job %s is %s: it cannot be resolved; only a held or uncertain job waits for that; apipay.overview says what comes next', job, state));
  end loop;
  foreach state in array array['succeeded', 'failed', 'cancelled', 'expired'] loop
    job := pg_temp.job(state);
    perform pg_temp.expect_refusal(format('select apipay.resolve(%s, true, 1)', job), '55000',
      format('job %s is %s: it cannot be resolved; how it ended never changes', job, state));
  end loop;
end $$;

-- park and resume
do $$
declare
  account apipay.accounts;
  alert apipay.alerts;
  plain bigint;
  waiting bigint;
  later bigint;
begin
  update apipay.accounts set state = 'active', parked_at = null, parked_reason = null, parked_by = null, probe_at = null;
  delete from apipay.jobs where jobs.state = 'parked';
  assert apipay.resume('default', 'nothing to do') = 0;

  -- By the daemon: probed.
  assert apipay._park('default', 'session_expired', 'apipayd', interval '1 min', 'session expired', 'log in', '{"http_status": 503}', 'session ended', 'log in at Kaspi');
  select * into account from apipay.accounts where name = 'default';
  assert (account.state, account.parked_reason, account.parked_by, account.parked_at, account.probe_at, account.probes)
       = ('parked', 'session_expired', 'apipayd', now(), now() + interval '1 min', 0);
  assert (pg_temp.last_event('account', 'default')).to_state = 'parked' and (pg_temp.last_event('account', 'default')).reason = 'session_expired';
  select * into alert from apipay.alerts where kind = 'account_parked' and resolved_at is null;
  assert (alert.account, alert.severity, alert.summary, alert.action, alert.details) = ('default', 'critical', 'session expired', 'log in', '{"http_status": 503}'::jsonb);

  -- Again by the daemon: nothing changes.
  update apipay.accounts set probes = 3 where name = 'default';
  assert not apipay._park('default', 'tariff_inactive', 'apipayd', interval '1 h', 'tariff', 'pay', null);
  select * into account from apipay.accounts where name = 'default';
  assert (account.parked_reason, account.probe_at, account.probes) = ('session_expired', now() + interval '1 min', 3);

  -- By an operator: theirs, no probe any more; the daemon cannot take it back.
  assert not apipay.park('default', 'maintenance');
  select * into account from apipay.accounts where name = 'default';
  assert (account.state, account.parked_reason, account.parked_by) = ('parked', 'parked_by_user', session_user::text) and account.probe_at is null;
  assert (pg_temp.last_event('account', 'default')).reason = 'maintenance';
  -- What the daemon had parked it for is kept, and when each did.
  assert (select summary from apipay.alerts where id = alert.id) = format(
    'Account "default" was parked by %s: maintenance. It was taken over at %s from apipayd, which had parked it at %s for session_expired; ApiPay said: session ended; to do about that: log in at Kaspi.',
    session_user, apipay._clock(now()), apipay._clock(now()));
  assert (select action from apipay.alerts where id = alert.id) = 'see that what apipayd had parked it for is mended; then select apipay.resume(''default'', ''why''); if it is to stay parked, this has it told no more: select apipay.acknowledge(id, ''why'') from apipay.alerts where kind = ''account_parked'' and account = ''default'' and resolved_at is null;';
  assert (select apipay._obstacle(a, c, 'infinity') from apipay.accounts a cross join apipay._control c where a.name = 'default') like format(
    '%%is parked since %%(parked_by_user, by %s: maintenance; taken over at %% from apipayd, which had parked it at %% for session_expired; ApiPay said: session ended; to do about that: log in at Kaspi)%%', session_user);
  assert not apipay._park('default', 'session_expired', 'apipayd', interval '1 min', 'session expired', 'log in', null);
  assert not apipay.park('default', 'again');
  assert (select probe_at is null and parked_reason = 'parked_by_user' from apipay.accounts where name = 'default');
  -- Nor does a probe that was under way end it.
  assert apipay._resume('default', 'a probe succeeded', 'apipayd') is null;
  assert (select state = 'parked' and parked_reason = 'parked_by_user' from apipay.accounts where name = 'default');
  assert exists (select from apipay.alerts where id = alert.id and resolved_at is null);

  -- Resumed: the daemon puts the parked jobs back, what was told to wait itself is due.
  plain := pg_temp.job('parked');
  perform pg_temp.job('parked', unproven => true);
  waiting := pg_temp.job('queued');
  later := pg_temp.job('queued');
  update apipay.jobs set run_at = now() + interval '1 day', reason = 'cap_reached' where id = waiting;
  update apipay.jobs set run_at = now() + interval '1 day' where id = later;
  update apipay.accounts set blocked_until = now() + interval '1 h', blocked_reason = 'request_rate_limited';
  -- A try that a person asks for takes the place of the one that was due: should it fail, the next wait is no longer for it.
  update apipay.accounts set failing_since = now(), failing_code = 'server_error', failing_requests = 8, failing_trial_at = now() + interval '9 min' where name = 'default';
  insert into apipay._reads (account, kind, failing_since, requests, trial_at)
  values ('default', 'check', now(), 8, now() + interval '9 min'), ('default', 'code', now(), 6, now() + interval '9 min'), ('default', 'look_up', now(), 8, now());
  perform apipay._open_alert('default', 'cap_reached', 'critical', 'cap', 'wait', null);
  assert apipay.resume('default', 'session is back') = 2;
  assert (pg_temp.read(plain)).state = 'parked', 'nobody waits for the account while thousands of jobs move';
  assert (pg_temp.read(waiting)).run_at = now();
  assert (pg_temp.read(later)).run_at > now(), 'that is when its owner wants it';
  select * into account from apipay.accounts where name = 'default';
  assert (account.state, account.probes, account.resumed_at) = ('active', 0, now());
  assert (account.failing_trial_at, account.failing_requests) = (now(), 7);
  assert (select array_agg((r.kind, r.requests, r.trial_at)::text order by r.kind) from apipay._reads r where r.account = 'default')
       = array[('check', 7, now())::text, ('code', 6, now())::text, ('look_up', 8, now())::text], 'one of six is only just told';
  update apipay.accounts set failing_since = null, failing_code = null, failing_requests = 0, failing_trial_at = null where name = 'default';
  delete from apipay._reads r where r.account = 'default';
  assert num_nulls(account.parked_reason, account.parked_at, account.parked_by, account.probe_at, account.blocked_until, account.blocked_reason) = 6;
  assert (select blocked_until is not null from apipay.accounts where name = 'other'), 'other accounts are left alone';
  assert (pg_temp.last_event('account', 'default')).to_state = 'active' and (pg_temp.last_event('account', 'default')).reason = 'session is back';
  assert not exists (select from apipay.alerts where kind in ('account_parked', 'cap_reached') and resolved_at is null);
  assert (select resolution from apipay.alerts where id = alert.id) = 'session is back';

  delete from apipay.jobs where jobs.state = 'parked';
  assert apipay.resume('default', 'nothing to do') = 0;
  assert apipay.resume('other', 'the limit was lifted') = 0;
  assert (select blocked_until is null and resumed_at is null from apipay.accounts where name = 'other'), 'a block ends; it was not parked';
  assert apipay.park('other') and (pg_temp.last_event('account', 'other')).reason = 'parked_by_user', 'no cause is inherited';
  assert apipay.resume('other') = 0;

  -- The daemon's resume: of what it has parked itself, and a block that came while it probed stays.
  assert apipay._resume('default', 'a probe succeeded', 'apipayd') is null, 'it is active';
  assert apipay._park('default', 'session_expired', 'apipayd', interval '1 min', 'session expired', 'log in', '{}');
  update apipay.accounts set blocked_until = clock_timestamp() + interval '1 h', blocked_reason = 'request_rate_limited' where name = 'default';
  update apipay.jobs set run_at = now() + interval '1 h' where id = waiting;
  perform apipay._open_alert('default', 'cap_reached', 'critical', 'cap', 'wait', null);
  assert apipay._resume('default', 'a probe succeeded', 'apipayd') = 0;
  assert (select state = 'active' and blocked_until > now() and blocked_reason = 'request_rate_limited' from apipay.accounts where name = 'default');
  assert (pg_temp.read(waiting)).run_at > now();
  assert (select array_agg(kind) from apipay.alerts where kind in ('account_parked', 'cap_reached') and resolved_at is null) = '{cap_reached}';
  assert apipay.resume('default', 'the limit was lifted') = 0;
  assert (select blocked_until is null from apipay.accounts where name = 'default') and (pg_temp.read(waiting)).run_at = now();

  -- A cap is none of its business either; an operator ends it, also of an account that is not parked.
  assert apipay._park('default', 'session_expired', 'apipayd', interval '1 min', 'session expired', 'log in', '{}');
  update apipay.accounts
     set capped_until = clock_timestamp() + interval '1 h', capped_operations = '{invoice.create}', capped_reason = 'tariff_limit_reached'
   where name = 'default';
  update apipay.jobs set run_at = now() + interval '1 h' where id = waiting;
  perform apipay._open_alert('default', 'cap_reached', 'critical', 'cap', 'wait', null);
  assert apipay._resume('default', 'a probe succeeded', 'apipayd') = 0;
  assert (select capped_until > now() and apipay._capped(a) = '{invoice.create}' from apipay.accounts a where name = 'default');
  assert (pg_temp.read(waiting)).run_at > now();
  assert (select array_agg(kind) from apipay.alerts where kind in ('account_parked', 'cap_reached') and resolved_at is null) = '{cap_reached}';
  assert apipay.resume('default', 'the cap was raised') = 0;
  assert (select num_nulls(capped_until, capped_operations, capped_reason) = 3 and apipay._capped(a) = '{}' from apipay.accounts a where name = 'default');
  assert (pg_temp.read(waiting)).run_at = now();
  assert not exists (select from apipay.alerts where kind = 'cap_reached' and resolved_at is null);

  -- Its health alone ends a park: the next one for the same reason is the same one, until something gets through.
  assert apipay._park('default', 'session_expired', 'apipayd', interval '1 min', 'session expired', 'log in', '{}');
  update apipay.accounts set parked_at = now() - interval '1 h', probes = 4 where name = 'default';
  assert apipay._resume('default', null, 'apipayd', interval '1 min') = 0;
  assert apipay._park('default', 'session_expired', 'apipayd', interval '1 min', 'session expired', 'log in', '{}');
  assert (select (parked_at, probes) = (now() - interval '1 h', 4) from apipay.accounts where name = 'default');
  assert apipay._resume('default', null, 'apipayd', interval '1 min') = 0;
  assert apipay._park('default', 'key_rejected', 'apipayd', interval '1 min', 'key', 'renew it', '{}');
  assert (select (parked_at, probes) = (now(), 0) from apipay.accounts where name = 'default'), 'that is another one';
  update apipay.accounts set probes = 4 where name = 'default';
  assert apipay._resume('default', 'a probe succeeded', 'apipayd', interval '1 min') = 0;
  assert (select doubted_since is null and probes = 0 from apipay.accounts where name = 'default');

  -- Parks of one reason that follow each other share an alert; another reason, or a park later on, has its own.
  assert apipay._park('default', 'key_rejected', 'apipayd', interval '1 min', 'key', 'renew it', '{}');
  assert apipay._resume('default', 'a probe succeeded', 'apipayd', interval '1 min') = 0;
  assert (select count(*) from apipay.alerts where kind = 'account_parked' and resolved_at is null) = 1;
  assert apipay._park('default', 'session_expired', 'apipayd', interval '1 min', 'session expired', 'log in', '{}');
  assert apipay._resume('default', 'a probe succeeded', 'apipayd', interval '1 min') = 0;
  assert not exists (select from apipay.alerts where kind = 'account_parked' and resolved_at is null);
  update apipay.accounts set resumed_at = now() - interval '2 min' where name = 'default';
  assert apipay._park('default', 'session_expired', 'apipayd', interval '1 min', 'session expired', 'log in', '{}');
  assert apipay._resume('default', 'a probe succeeded', 'apipayd', interval '1 min') = 0;
  assert not exists (select from apipay.alerts where kind = 'account_parked' and resolved_at is null);

  perform pg_temp.expect_refusal('select apipay.park(''nobody'')', '22023', 'account "nobody" is unknown; known: default, other');
  perform pg_temp.expect_refusal('select apipay.resume(''nobody'')', '22023', 'account "nobody" is unknown; known: default, other');
  perform pg_temp.expect_refusal('select apipay.park(null)', '22004', 'account is null: it must be given');
  perform pg_temp.expect_refusal('select apipay.resume(null)', '22004', 'account is null: it must be given');
  perform pg_temp.expect_refusal('select apipay._park(''nobody'', ''x'', ''apipayd'', null, '''', '''', null)', '22023', 'account "nobody" is unknown');
  perform pg_temp.expect_refusal('select apipay._resume(''nobody'', ''x'', ''apipayd'')', '22023', 'account "nobody" is unknown');
end $$;

-- Many at once: each refusal is its own job's answer, and its cause nobody else's.
do $$
declare
  waiting bigint := pg_temp.job('queued');
  held bigint := pg_temp.job('held');
  failed bigint := pg_temp.job('failed');
  parked bigint := pg_temp.job('parked');
  answers jsonb;
begin
  select jsonb_agg(a order by job) into answers
    from apipay.retry_jobs(array[failed, held, 99999999, waiting, waiting, null], 'the outage is over') a;
  assert jsonb_array_length(answers) = 4;
  assert (answers -> 0) = jsonb_build_object('job', waiting, 'retried_as', waiting, 'why_not', null), answers::text;
  assert answers -> 1 ->> 'retried_as' is null and answers -> 1 ->> 'why_not' like format('job %s is held: it cannot be sent again;%%', held), answers::text;
  assert (answers -> 2 ->> 'retried_as')::bigint > parked and answers -> 2 ->> 'why_not' is null, answers::text;
  assert answers -> 3 ->> 'why_not' like 'there is no job 99999999%', answers::text;

  select jsonb_agg(a order by job) into answers
    from apipay.cancel_jobs(array[parked, held, failed, waiting], 'the campaign was a mistake') a;
  assert answers -> 0 = jsonb_build_object('job', waiting, 'cancelled', true, 'why_not', null), answers::text;
  assert answers -> 1 ->> 'cancelled' = 'false' and answers -> 1 ->> 'why_not' like format('job %s is held: it cannot be cancelled;%%', held), answers::text;
  assert answers -> 2 ->> 'cancelled' = 'false', answers::text;
  assert answers -> 3 = jsonb_build_object('job', parked, 'cancelled', true, 'why_not', null), answers::text;
  assert (select count(*) = 2 from apipay.events where to_state = 'cancelled' and reason = 'the campaign was a mistake');
  assert apipay._stated_cause() is null;
  assert not exists (select from apipay.cancel_jobs(null, 'none')) and not exists (select from apipay.cancel_jobs('{}', 'none'));
end $$;

-- A restore of the data alone brings the events of a stop and of a park, and not their rows.
do $$
begin
  perform apipay.stop('fire drill');
  perform apipay.park('other', 'moving house');
  set session_replication_role = replica;
  update apipay._control set stopped = false, changed_by = 'nobody', reason = null;
  update apipay.accounts set state = 'active', parked_at = null, parked_reason = null, parked_by = null;
  delete from apipay.alerts;
  set session_replication_role = origin;
  perform apipay._recall();
  perform apipay._recall();
  assert not apipay._recall_park('default') and apipay._recall_park('other') and not apipay._recall_park('other');
  assert (select (stopped, changed_by, reason) = (true, session_user::text, 'fire drill') from apipay._control);
  assert (select (state, parked_by, parked_reason) = ('parked', session_user::text, 'parked_by_user') and probe_at is null from apipay.accounts where name = 'other');
  assert (select count(*) = 1 and min(summary) like 'Account "other" was parked by %: moving house, before its data were restored.' from apipay.alerts where resolved_at is null);
  -- What was ended stays ended, and what the daemon parked is its own to find out.
  perform apipay.start('over');
  perform apipay.resume('other', 'over');
  perform apipay._park('default', 'session_expired', 'apipayd', interval '1 min', 's', 'a', '{}');
  set session_replication_role = replica;
  update apipay.accounts set state = 'active', parked_at = null, parked_reason = null, parked_by = null, probe_at = null;
  set session_replication_role = origin;
  perform apipay._recall();
  assert not apipay._recall_park('default') and not apipay._recall_park('other');
  assert (select not stopped from apipay._control);
  assert (select count(*) = 2 from apipay.accounts where state = 'active');
  perform apipay._resolve_alert('default', 'account_parked', 'over');
end $$;

-- What ApiPay did not answer before a job is sent is asked at once with resume, in an account that waits for nothing else.
do $$
declare
  bill constant bigint := pg_temp.waiting('earlier_unseen', 3);
  refund constant bigint := pg_temp.job('queued', 'invoice.refund', params => '{"invoice_id": 1, "amount": 100}');
  other_refund constant bigint := pg_temp.job('queued', 'invoice.refund', params => '{"invoice_id": 2, "amount": 100}');
  sent constant bigint := pg_temp.waiting('server_error', 3);
  unsure constant bigint := pg_temp.job('uncertain', unproven => true);
  quiet constant bigint := pg_temp.job('uncertain', unproven => true);
  foreign_one constant bigint := pg_temp.job('queued', account => 'other');
begin
  -- They are the only ones that wait here.
  update apipay.jobs set run_at = now() where state in ('queued', 'uncertain') and run_at > now() and account = 'default' and id not in (bill, refund, other_refund, sent, unsure, quiet);
  update apipay.jobs set reason = 'server_error' where id in (refund, other_refund);
  update apipay.jobs set reason = 'earlier_unseen', failing_since = now() where id = foreign_one;
  update apipay.jobs set failing_since = now(), attempts = 5, lookups = 4, run_at = now() + interval '1 h' where id in (bill, refund, other_refund, sent, unsure, quiet);
  update apipay.jobs set reason = 'lookup_unclear' where id = unsure;
  update apipay.jobs set reason = 'timeout' where id = quiet;
  insert into apipay.attempts (job_id, epoch, account, kind, worker, finished_at, effect, request) values
    (refund, 4, 'default', 'send', gen_random_uuid(), now(), 'unknown', '{"method": "POST", "path": "/invoices/1/refund"}'),
    (refund, 5, 'default', 'send', gen_random_uuid(), now(), 'not_applied', '{"method": "GET", "path": "/invoices/1/refunds"}'),
    (other_refund, 4, 'default', 'send', gen_random_uuid(), now(), 'not_applied', '{"method": "GET", "path": "/invoices/2/refunds"}'),
    (other_refund, 5, 'default', 'send', gen_random_uuid(), now(), 'unknown', '{"method": "POST", "path": "/invoices/2/refund"}');
  assert apipay.resume('default', 'ApiPay answers again') = 3, 'a bill, a refund and a look-up';
  assert (select array_agg(j.id order by j.id) from apipay.jobs j where j.id in (bill, refund, other_refund, sent, unsure, quiet) and j.run_at = now())
       = array[bill, refund, unsure], 'what was sent, and what may be at work, keep their own time';
  -- The next wait is as long as this one was.
  assert ((pg_temp.read(bill)).attempts, (pg_temp.read(bill)).lookups) = (5, 3);
  assert ((pg_temp.read(refund)).attempts, (pg_temp.read(refund)).lookups) = (4, 4);
  assert ((pg_temp.read(unsure)).attempts, (pg_temp.read(unsure)).lookups) = (5, 3);
  assert (pg_temp.read(foreign_one)).run_at > now(), 'other accounts are left alone';
  assert apipay.resume('default', 'once more') = 0, 'they are due already';
  delete from apipay.attempts where job_id in (refund, other_refund);
  delete from apipay.jobs where id in (bill, refund, other_refund, sent, unsure, quiet, foreign_one);
end $$;

-- What it answers in words.
do $$
begin
  assert apipay._said_of_resume('shop', 'the park, the wait for the next trial', 0, 0, true) = 'account "shop" sends again; ended: the park, the wait for the next trial';
  assert apipay._said_of_resume('shop', '', 12, 0, true) = 'ApiPay is asked at once about 12 jobs of account "shop" of which it had not answered';
  assert apipay._said_of_resume('shop', 'the wait for the next trial', 1, 0, true)
       = 'account "shop" sends again; ended: the wait for the next trial; ApiPay is asked at once about 1 job of account "shop" of which it had not answered';
  assert apipay._said_of_resume('shop', '', 0, 0, true) = 'account "shop" does not wait: what it tries next is due already, and goes out as fast as its quota allows';
  assert apipay._said_of_resume('shop', '', 0, 0, false) = 'account "shop" was neither parked nor made to wait';
  -- Of those that are being asked about nothing can be moved.
  assert apipay._said_of_resume('shop', '', 12, 1, true)
       = 'ApiPay is asked at once about 12 jobs of account "shop" of which it had not answered; it is being asked about 1 more: without an answer that one waits as long as it would have';
  assert apipay._said_of_resume('shop', '', 0, 3, true)
       = 'ApiPay is being asked about 3 jobs of account "shop" of which it had not answered: without an answer those wait as long as they would have';
end $$;

-- stop and start
do $$
begin
  assert apipay.stop('fire drill');
  -- Whatever its transaction did before: since the moment when it was said.
  assert (select stopped and reason = 'fire drill' and changed_by = session_user and changed_at > now() and changed_at <= clock_timestamp() from apipay._control);
  assert (select (to_state, reason) = ('stopped', 'fire drill') from apipay.events where subject = 'daemon' order by id desc limit 1);
  assert apipay._take_quota('default', 1, 'send', 100) = 0;
  assert not apipay.stop('again');
  assert (select reason = 'fire drill' from apipay._control);
  assert apipay.start('over');
  assert (select not stopped and reason = 'over' from apipay._control);
  assert (select (to_state, reason) = ('started', 'over') from apipay.events where subject = 'daemon' order by id desc limit 1);
  assert not apipay.start();
  assert apipay._take_quota('default', 1, 'send', 100) = 1;
end $$;

-- The reason of one call is not the cause of what follows in its transaction, whatever was set before.
do $$
declare
  id bigint := pg_temp.job('queued');
begin
  perform apipay.retry(id, 'because');
  assert apipay._stated_cause() is null;
  perform set_config('apipay.cause', 'a script', true);
  perform apipay.retry(id);
  assert apipay._stated_cause() = 'a script';
  perform set_config('apipay.cause', '', true);
  perform pg_temp.expect_refusal('select apipay.retry(pg_temp.job(''held''), ''refused'')', '55000', '%');
  assert apipay._stated_cause() is null, 'nor when it was refused';
end $$;

-- Alerts: one open per account and kind.
do $$
declare
  first bigint := apipay._open_alert('default', 'duplicate_detected', 'critical', 'two invoices', 'look', '{"ids": [1, 2]}');
  daemon bigint := apipay._open_alert(null, 'duplicate_detected', 'warning', 'daemon', 'look', null);
begin
  assert first = apipay._open_alert('default', 'duplicate_detected', 'warning', 'another text', 'other', null);
  assert (select (severity, summary, details) = ('critical', 'two invoices', '{"ids": [1, 2]}'::jsonb) from apipay.alerts where id = first);
  assert daemon not in (first, apipay._open_alert('other', 'duplicate_detected', 'critical', 'x', 'y', null));
  assert daemon = apipay._open_alert(null, 'duplicate_detected', 'warning', 'daemon', 'look', null);
  assert apipay._resolve_alert('default', 'duplicate_detected', 'looked');
  assert (select resolved_at between now() and clock_timestamp() and resolution = 'looked' from apipay.alerts where id = first);
  assert not apipay._resolve_alert('default', 'duplicate_detected', 'looked');
  assert (select resolved_at is null from apipay.alerts where id = daemon);
  assert apipay._resolve_alert(null, 'duplicate_detected', 'looked');
  assert apipay._open_alert('default', 'duplicate_detected', 'critical', 'again', 'look', null) > first;
end $$;

-- What an alert is about: the line of a function and the words, without the numbers of the one row.
do $$
declare
  one constant text := apipay._about('job_stuck', '{"place": "PL/pgSQL function public.tr() line 4 at RAISE", "message": "order 7 is frozen"}');
begin
  assert one = apipay._about('job_stuck', '{"place": "PL/pgSQL function public.tr() line 4 at RAISE", "message": "order 8 is frozen"}');
  assert one <> apipay._about('job_stuck', '{"place": "PL/pgSQL function public.tr() line 9 at RAISE", "message": "order 7 is frozen"}');
  assert one <> apipay._about('job_stuck', '{"place": "PL/pgSQL function public.tr() line 4 at RAISE", "message": "order 7 is unknown"}');
  assert apipay._about('job_stuck', '{"place": "while locking tuple (0,7)"}') = apipay._about('job_stuck', '{"place": "while locking tuple (1,12)"}');
end $$;

-- Parks for one reason that share an alert are one incident, whichever job was refused.
do $$
declare
  parked bigint := apipay._open_alert('other', 'account_parked', 'critical', 'refused job 1', 'look', '{"reason": "access_denied", "job": 1}');
begin
  perform apipay.acknowledge(parked, 'on it');
  assert apipay._change_alert('other', 'account_parked', 'refused job 2', 'look', '{"reason": "access_denied", "job": 2}');
  assert apipay._change_alert('other', 'account_parked', 'asked', 'look', '{"reason": "access_denied", "job": null}');
  assert (select changed_at is null and acked_at is not null and summary = 'asked' from apipay.alerts where id = parked), 'it is no news';
  assert apipay._change_alert('other', 'account_parked', 'refused job 2', 'look', '{"reason": "session_expired", "job": 2}');
  assert (select changed_at is not null and acked_at is null from apipay.alerts where id = parked), 'another reason is';
  perform apipay._resolve_alert('other', 'account_parked', 'over');
end $$;

-- acknowledge
do $$
declare
  one bigint := apipay._open_alert('default', 'invoice_revived', 'critical', 'invoice 1 lives', 'look', '{"invoice": 1}', 'invoice 1');
  two bigint := apipay._open_alert('default', 'invoice_revived', 'critical', 'invoice 2 lives', 'look', '{"invoice": 2}', 'invoice 2');
  parked bigint := apipay._open_alert('other', 'account_parked', 'critical', 'parked', 'look', '{}');
  mode bigint := apipay._open_alert('default', 'mode_mismatch', 'critical', 'sandbox', 'look', '{"before": "live", "now": "sandbox"}');
begin
  assert one <> two, 'each has a subject of its own';
  assert one = apipay._open_alert('default', 'invoice_revived', 'critical', 'again', 'look', '{}', 'invoice 1');
  assert apipay.acknowledge(one, 'delivered to +7 700 765-43-21');
  assert (select resolved_at is not null and acked_by = session_user and resolution = format('acknowledged by %s: delivered to 8700***4321', session_user) from apipay.alerts where id = one);
  assert (select resolved_at is null and acked_at is null from apipay.alerts where id = two);
  assert (select reason = 'delivered to +7 700 765-43-21' and evidence = jsonb_build_object('alert', one, 'kind', 'invoice_revived', 'about', 'invoice 1')
            from apipay.events where subject = 'account' order by id desc limit 1);
  assert not apipay.acknowledge(one, 'again'), 'it has ended';
  assert not apipay.acknowledge(parked, 'on it');
  assert (select resolved_at is null and acked_at is not null from apipay.alerts where id = parked), 'it ends with its cause';
  update apipay.accounts set mode = 'live' where name = 'default';
  assert apipay.acknowledge(mode);
  assert (select a.mode = 'sandbox' from apipay.accounts a where name = 'default');
  perform pg_temp.expect_refusal('select apipay.acknowledge(987654321)', 'P0002', 'there is no alert 987654321; the open ones: %');
  perform pg_temp.expect_refusal('select apipay.acknowledge(null)', '22004', 'alert is null: it must be given');
end $$;
