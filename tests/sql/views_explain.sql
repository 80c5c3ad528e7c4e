-- The views: one sentence per job for every state and combination, no phone in full, no failure
-- whatever stands in params.

insert into apipay.accounts (name) values ('default'), ('sick'), ('owned'), ('limited'), ('told'), ('slow'), ('undelivered'), ('unlisted'), ('paged');
update apipay.accounts set state = 'parked', parked_at = now() - interval '330 s', parked_reason = 'session_expired', parked_by = 'apipayd',
       probe_at = now() + interval '630 s' where name = 'sick';
update apipay.accounts set state = 'parked', parked_at = now() - interval '3 h', parked_reason = 'parked_by_user', parked_by = 'aida', parked_message = 'stocktaking' where name = 'owned';
update apipay.accounts set blocked_until = now() + interval '2430 s', blocked_reason = 'request_rate_limited' where name = 'limited';
update apipay.accounts set state = 'parked', parked_at = now() - interval '330 s', parked_reason = 'session_expired', parked_by = 'apipayd',
       parked_message = 'Kaspi session expired', parked_remedy = 'call support', probe_at = now() + interval '630 s' where name = 'told';
update apipay.accounts set failing_since = now() - interval '330 s', failing_code = 'server_error', failing_status = 502,
       failing_message = 'Kaspi API error', failing_requests = 5, failing_trial_at = now() + interval '40.9 s'
 where name = 'slow';
insert into apipay._reads (account, kind, failing_since, requests, trial_at)
values ('slow', 'look_up', now() - interval '330 s', 4, now() + interval '50.9 s'),
       ('slow', 'check', now() - interval '330 s', 4, now() + interval '70.9 s'),
       ('slow', 'refunds', now() - interval '330 s', 4, now() + interval '90.9 s');
insert into apipay._reads (account, kind, failing_since, code, status, message, requests)
values ('unlisted', 'refunds', now() - interval '330 s', 'server_error', 500, 'Server Error', 1),
       ('unlisted', 'look_up', now() - interval '330 s', 'access_denied', 403, 'This action is unauthorized.', 2),
       ('unlisted', 'check', now() - interval '330 s', 'timeout', null, 'no complete answer in time', 2),
       -- A proxy before ApiPay denies nothing in its name.
       ('paged', 'look_up', now() - interval '330 s', 'unreadable_answer', 403, null, 2);
update apipay.accounts set state = 'parked', parked_at = now() - interval '330 s', parked_reason = 'session_expired', parked_by = 'apipayd',
       delivery_error = 'kaspi_session_invalid', probe_at = now() + interval '630 s' where name = 'undelivered';
insert into apipay.accounts (name) values ('left'), ('strange');
insert into apipay.daemons (worker, host, version, accounts, seen_at)
select gen_random_uuid(), 'here', '1', array(select name from apipay.accounts where name not in ('left', 'strange')), now()
union all
select gen_random_uuid(), 'there', '1', array['left', 'default'], now() - interval '330 s';
set time zone 'Asia/Almaty';

-- {ID} stands for the job's id, {TOKEN} for its token; a moment for any moment.
create function pg_temp.explains(columns jsonb, sentence text) returns bigint language plpgsql as $$
declare
  job apipay.jobs := jsonb_populate_record(null::apipay.jobs, jsonb_build_object(
    'id', nextval('apipay.jobs_id_seq'), 'account', 'default', 'operation', 'invoice.create', 'params', '{"phone_number": "87007654321", "amount": 15000}'::jsonb,
    'token', gen_random_uuid(), 'priority', 0, 'run_at', now(), 'metadata', '{}'::jsonb, 'state', 'queued', 'attempts', 0, 'epoch', 0,
    'created_at', now(), 'updated_at', now(), 'generation', 1, 'spared', 0, 'lookups', 0) || columns);
  said text;
  reader text;
  shown text;
begin
  if job.state = 'sending' then
    job.leased_by := gen_random_uuid();
  elsif job.state in ('succeeded', 'failed', 'cancelled', 'expired') then
    job.finished_at := now();
  end if;
  insert into apipay.jobs overriding system value select job.*;
  select explain into strict said from apipay.overview where id = job.id;
  -- Whoever may read the view reads the same.
  foreach reader in array apipay._roles() loop
    execute format('set local role %I', reader);
    select explain into strict shown from apipay.overview where id = job.id;
    reset role;
    assert shown = said, format(E'%s reads %s\n  not  %s', reader, shown, said);
  end loop;
  said := regexp_replace(said, '[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2} \+0[56]', 'MOMENT', 'g');
  sentence := replace(replace(sentence, '{ID}', job.id::text), '{TOKEN}', job.token::text);
  assert said = sentence, format(E'%s\n  says    %s\n  expected %s', columns, said, sentence);
  return job.id;
end $$;

create function pg_temp.invoice(id bigint, status text, columns jsonb default '{}') returns void language sql as $$
  insert into apipay.invoices select * from jsonb_populate_record(null::apipay.invoices, jsonb_build_object(
    'account', 'default', 'id', id, 'status', status, 'amount', 15000, 'settled', true, 'created_at', now(), 'changed_at', now(),
    'next_check_at', now() + interval '1 min', 'others_unsought', false) || columns)
$$;

do $$
declare
  id bigint;
  behind bigint;
  repeated bigint;
  copy bigint;
  said text;
begin
  -- queued
  perform pg_temp.explains('{}', 'Due now: it goes out in its turn, as fast as the account''s quota of requests allows.');
  -- A refund goes out once the others of its invoice are shown.
  perform pg_temp.explains('{"operation": "invoice.refund", "account": "unlisted", "params": {"invoice_id": 7}, "reason": "resolved_not_applied"}',
    'Due now: it goes out in its turn, as fast as the account''s quota of requests allows. ApiPay shows no refunds since MOMENT (5 min ago) (HTTP 500: Server Error): it goes out once ApiPay shows those of its invoice.');
  perform pg_temp.explains('{"operation": "invoice.refund", "params": {"invoice_id": 7}, "reason": "resolved_not_applied"}',
    'Due now: it goes out in its turn, as fast as the account''s quota of requests allows. ApiPay is asked for the refunds of its invoice first, and it goes out once those are shown without it.');
  perform pg_temp.explains('{"operation": "invoice.refund", "params": {"invoice_id": 8}}',
    'Due now: it goes out in its turn, as fast as the account''s quota of requests allows.');
  perform pg_temp.explains('{"account": "unlisted"}', 'Due now: it goes out in its turn, as fast as the account''s quota of requests allows.');
  perform pg_temp.explains(jsonb_build_object('operation', 'invoice.refund', 'account', 'unlisted', 'params', '{"invoice_id": 8}'::jsonb,
      'run_at', now() + interval '40 s', 'reason', 'server_error', 'attempts', 3, 'http_status', 500),
    'Due at MOMENT (in 40 s): backing off (server_error) after 3 counted attempts; last: HTTP 500. ApiPay shows no refunds since MOMENT (5 min ago) (HTTP 500: Server Error): it goes out once ApiPay shows those of its invoice.');
  perform pg_temp.explains('{"attempts": 1, "http_status": 502, "error_code": "kaspi_error", "error_message": "bad gateway"}',
    'Due now: it goes out in its turn, as fast as the account''s quota of requests allows; last: HTTP 502, kaspi_error: bad gateway.');
  perform pg_temp.explains(jsonb_build_object('run_at', now() + interval '2 h'), 'Due at MOMENT (in 2 h), as asked.');
  perform pg_temp.explains(jsonb_build_object('run_at', 'infinity'), 'Due never, as asked.');
  perform pg_temp.explains(jsonb_build_object('run_at', now() + interval '40 s', 'reason', 'server_error', 'attempts', 3, 'http_status', 502),
    'Due at MOMENT (in 40 s): backing off (server_error) after 3 counted attempts; last: HTTP 502.');
  perform pg_temp.explains(jsonb_build_object('run_at', now() + interval '17 s', 'reason', 'retry_after', 'http_status', 429, 'error_code', 'request_rate_limited'),
    'Due at MOMENT (in 17 s): backing off (retry_after); last: HTTP 429, request_rate_limited.');
  perform pg_temp.explains(jsonb_build_object('run_at', now() + interval '20 min', 'reason', 'lookup_absent', 'unproven_since', now(), 'attempts', 1),
    'Due at MOMENT (in 20 min): backing off (lookup_absent) after 1 counted attempt. It goes out under the same name as before, so that the gateway sees a repetition.');
  perform pg_temp.explains(jsonb_build_object('expires_at', now() - interval '1 s'), 'Its time ran out at MOMENT: it ends expired.');
  perform pg_temp.explains('{"account": "sick"}',
    'Waiting: account sick is parked since MOMENT (5 min ago) (session_expired, by apipayd), until it is well again, which is probed next at MOMENT (in 10 min). Then it goes out.');
  -- Somebody keeps its row locked.
  assert apipay._until_probed(jsonb_populate_record(null::apipay.accounts, jsonb_build_object('probe_at', now() - interval '40 s')))
    like 'until it is well again, and a probe is due since % (40 s ago) and is not made: apipayd check says why';
  assert apipay._until_probed(jsonb_populate_record(null::apipay.accounts, jsonb_build_object('probe_at', now() - interval '40 s', 'delivery_error', 'x')))
    like 'until one is delivered: one job is tried with each probe, and a probe is due since % (40 s ago) and is not made: %';
  perform pg_temp.explains(jsonb_build_object('account', 'owned', 'run_at', now() + interval '3 days'),
    'Waiting: account owned is parked since MOMENT (3 h ago) (parked_by_user, by aida: stocktaking), until select apipay.resume(''owned'', ''why''). It is due at MOMENT (in 3 days).');
  perform pg_temp.explains('{"account": "limited"}',
    'Waiting: account limited may not send until MOMENT (in 40 min): the gateway limits it (request_rate_limited). Then it goes out.');

  perform pg_temp.explains('{"account": "told"}',
    'Waiting: account told is parked since MOMENT (5 min ago) (session_expired, by apipayd; ApiPay said: Kaspi session expired), until it is well again, which is probed next at MOMENT (in 10 min); to do: call support. Then it goes out.');
  perform pg_temp.explains('{"account": "undelivered"}',
    'Waiting: account undelivered is parked since MOMENT (5 min ago) (session_expired, by apipayd; invoices that ApiPay accepts fail with kaspi_session_invalid), until one is delivered: one job is tried with each probe, the next at MOMENT (in 10 min). Then it goes out.');
  perform pg_temp.explains('{"account": "slow"}',
    'Waiting: ApiPay gives account slow no clear answer since MOMENT (5 min ago) (HTTP 502: Kaspi API error): one job at a time tries, the next at MOMENT (in 40 s), the others wait for its answer. Then it goes out.');
  -- Of its own moment and the account's only the later one is true.
  perform pg_temp.explains(jsonb_build_object('account', 'slow', 'run_at', now() + interval '7 s', 'reason', 'server_error'),
    'Waiting: ApiPay gives account slow no clear answer since MOMENT (5 min ago) (HTTP 502: Kaspi API error): one job at a time tries, the next at MOMENT (in 40 s), the others wait for its answer. Then it goes out.');
  perform pg_temp.explains(jsonb_build_object('account', 'slow', 'run_at', now() + interval '50 s', 'reason', 'server_error'),
    'Waiting: ApiPay gives account slow no clear answer since MOMENT (5 min ago) (HTTP 502: Kaspi API error): one job at a time tries, the next at MOMENT (in 40 s), the others wait for its answer. It is due at MOMENT (in 50 s).');
  -- Whatever is due first tries, should that take minutes.
  update apipay.accounts a set failing_trial_at = now() - interval '3 min' where a.name = 'slow';
  perform pg_temp.explains(jsonb_build_object('account', 'slow', 'run_at', now() + interval '50 s', 'reason', 'server_error'),
    'Waiting: ApiPay gives account slow no clear answer since MOMENT (5 min ago) (HTTP 502: Kaspi API error): one job at a time tries, the next as soon as one is due, the others wait for its answer. It is due at MOMENT (in 50 s).');
  assert (select a.explain from apipay.account_status a where a.account = 'slow') like '% tries, the next as soon as one is due, the others wait %';
  update apipay.accounts a set failing_trial_at = now() + interval '40.9 s' where a.name = 'slow';
  delete from apipay.jobs j where j.account = 'slow' and j.run_at > now();
  perform pg_temp.explains(jsonb_build_object('account', 'slow', 'state', 'uncertain', 'operation', 'invoice.cancel', 'params', '{"invoice_id": 17}'::jsonb, 'unproven_since', now()),
    'A request for the cancellation of invoice 17 may or may not have had its effect, since MOMENT (0 s ago). The gateway is asked at MOMENT (in 50 s) at the earliest: one at a time is asked about, the others wait for its answer. Nothing is sent before that is known. ApiPay gives no clear answer to such questions since MOMENT (5 min ago).');
  -- Whichever is due first is asked about: its own moment may be later than that of the next question, or long over.
  perform pg_temp.explains(jsonb_build_object('account', 'slow', 'state', 'uncertain', 'operation', 'invoice.cancel', 'params', '{"invoice_id": 17}'::jsonb, 'unproven_since', now(),
      'lookups', 2, 'run_at', now() + interval '80.9 s'),
    'A request for the cancellation of invoice 17 may or may not have had its effect, since MOMENT (0 s ago). The gateway is asked again (2 times so far) at MOMENT (in 80 s) at the earliest: one at a time is asked about, the others wait for its answer. Nothing is sent before that is known. ApiPay gives no clear answer to such questions since MOMENT (5 min ago).');
  update apipay._reads r set trial_at = now() - interval '3 min' where r.account = 'slow' and r.kind = 'look_up';
  perform pg_temp.explains(jsonb_build_object('account', 'slow', 'state', 'uncertain', 'stated_id', 18, 'params', '{"amount": 15000}'::jsonb, 'unproven_since', now()),
    'Somebody said that the invoice of 15 000 tenge was done: invoice 18. ApiPay is asked whether that is so in its turn: one at a time is asked about, the others wait for its answer. If it is not, the job is held again; until then nothing is sent. ApiPay gives no clear answer to such questions since MOMENT (5 min ago).');
  update apipay._reads r set trial_at = now() + interval '50.9 s' where r.account = 'slow' and r.kind = 'look_up';
  insert into apipay.refunds select * from jsonb_populate_record(null::apipay.refunds, jsonb_build_object('account', 'slow', 'id', 17, 'invoice_id', 17, 'status', 'processing',
    'amount', 200, 'settled', false, 'created_at', now(), 'changed_at', now(), 'next_check_at', now() + interval '1 s'));
  perform pg_temp.explains('{"account": "slow", "state": "accepted", "operation": "invoice.refund", "params": {"invoice_id": 17}, "invoice_id": 17, "refund_id": 17}',
    'The gateway is making refund 17 of invoice 17 (status processing). It is asked again at MOMENT (in 1 min) at the earliest: one at a time is asked about, the others wait for its answer. ApiPay gives no clear answer to such questions since MOMENT (5 min ago).');
  delete from apipay.jobs j where j.account = 'slow' and j.state in ('uncertain', 'accepted') and (j.lookups = 2 or j.stated_id = 18 or j.refund_id = 17);

  -- its time may run out while it waits
  perform pg_temp.explains(jsonb_build_object('account', 'limited', 'expires_at', now() + interval '20 min'),
    'Waiting: account limited may not send until MOMENT (in 40 min): the gateway limits it (request_rate_limited). It ends expired at MOMENT (in 20 min), unless it is sent before.');
  perform pg_temp.explains(jsonb_build_object('account', 'limited', 'expires_at', now() + interval '2 h'),
    'Waiting: account limited may not send until MOMENT (in 40 min): the gateway limits it (request_rate_limited). Then it goes out. If it is not sent by MOMENT (in 2 h), it ends expired.');
  perform pg_temp.explains(jsonb_build_object('account', 'limited', 'expires_at', 'infinity'),
    'Waiting: account limited may not send until MOMENT (in 40 min): the gateway limits it (request_rate_limited). Then it goes out.');
  perform pg_temp.explains(jsonb_build_object('account', 'sick', 'expires_at', now() + interval '20 min'),
    'Waiting: account sick is parked since MOMENT (5 min ago) (session_expired, by apipayd), until it is well again, which is probed next at MOMENT (in 10 min). Then it goes out. If it is not sent by MOMENT (in 20 min), it ends expired.');
  perform pg_temp.explains(jsonb_build_object('account', 'slow', 'expires_at', now() + interval '30 s'),
    'Waiting: ApiPay gives account slow no clear answer since MOMENT (5 min ago) (HTTP 502: Kaspi API error): one job at a time tries, the next at MOMENT (in 40 s), the others wait for its answer. It ends expired at MOMENT (in 30 s), unless it is sent before.');
  update apipay.accounts a set capped_until = now() + interval '90.5 min', capped_operations = '{invoice.create}', capped_reason = 'trial_daily_limit' where a.name = 'default';
  perform pg_temp.explains(jsonb_build_object('expires_at', now() + interval '35.5 min', 'run_at', now() + interval '90.5 min', 'reason', 'cap_reached'),
    'Waiting: ApiPay takes no new bills of account default until MOMENT (in 1 h): a cap is reached (trial_daily_limit); none is tried before that, unless its cause is mended and somebody says so: select apipay.resume(''default'', ''why''). It is due at MOMENT (in 1 h). It ends expired at MOMENT (in 35 min), unless it is sent before.');
  update apipay.accounts a set capped_until = null, capped_operations = null, capped_reason = null where a.name = 'default';
  perform pg_temp.explains(jsonb_build_object('run_at', now() + interval '2 h', 'expires_at', now() + interval '1 h'),
    'Due at MOMENT (in 2 h), as asked. It ends expired at MOMENT (in 60 min), unless it is sent before.');
  perform pg_temp.explains(jsonb_build_object('run_at', now() + interval '2 h', 'expires_at', now() + interval '1 h', 'unproven_since', now()),
    'Due at MOMENT (in 2 h), as asked. Unless it is sent by MOMENT (in 60 min), what became of its last request is looked up, and it ends. It goes out under the same name as before, so that the gateway sees a repetition.');
  perform pg_temp.explains(jsonb_build_object('expires_at', now() + interval '1 h'),
    'Due now: it goes out in its turn, as fast as the account''s quota of requests allows. If it is not sent by MOMENT (in 60 min), it ends expired.');
  delete from apipay.jobs j where j.expires_at > now();
  perform pg_temp.explains(jsonb_build_object('expires_at', '-infinity'), 'Its time ran out at the beginning of time: it ends expired.');
  perform pg_temp.explains(jsonb_build_object('expires_at', '4713-01-01 12:00 BC', 'account', 'left'),
    'Its time ran out at MOMENT:07 BC: it ends expired.');
  -- what has expired is ended first
  perform pg_temp.explains('{}', 'Due now: it goes out in its turn, as fast as the account''s quota of requests allows, after jobs of the account that have expired: where those stand before it, they are ended first.');
  delete from apipay.jobs j where j.expires_at <= now();
  perform pg_temp.explains('{}', 'Due now: it goes out in its turn, as fast as the account''s quota of requests allows.');

  -- no daemon serves the account, whatever else is the matter with it
  perform pg_temp.explains('{"account": "left"}',
    'Waiting: no daemon serves account left since MOMENT (5 min ago): see that apipayd runs (systemctl status apipayd) and has [accounts.left] in its configuration. Then it goes out.');
  perform pg_temp.explains('{"account": "strange"}',
    'Waiting: no daemon serves account strange: name it in the configuration, then sudo systemctl reload apipayd (restart, where systemd loads its key). Then it goes out.');
  perform pg_temp.explains('{"account": "left", "operation": "invoice.refund", "params": {"invoice_id": 500}, "reason": "waits_for_refund"}',
    'Waiting: no daemon serves account left since MOMENT (5 min ago): see that apipayd runs (systemctl status apipayd) and has [accounts.left] in its configuration. Then it goes out.');
  perform pg_temp.explains(jsonb_build_object('account', 'left', 'state', 'sending', 'leased_until', now() - interval '1 min'),
    'Its worker should have answered by MOMENT: it becomes uncertain and is looked up, once this is over: no daemon serves account left since MOMENT (5 min ago): see that apipayd runs (systemctl status apipayd) and has [accounts.left] in its configuration.');
  perform pg_temp.explains(jsonb_build_object('account', 'left', 'state', 'uncertain', 'operation', 'invoice.cancel', 'params', '{"invoice_id": 17}'::jsonb, 'unproven_since', now()),
    'A request for the cancellation of invoice 17 may or may not have had its effect, since MOMENT (0 s ago). The gateway is asked now, once this is over: no daemon serves account left since MOMENT (5 min ago): see that apipayd runs (systemctl status apipayd) and has [accounts.left] in its configuration. Nothing is sent before that is known.');
  perform pg_temp.explains('{"account": "left", "state": "parked"}',
    'Parked; account left is active again, and the daemon puts it back once this is over: no daemon serves account left since MOMENT (5 min ago): see that apipayd runs (systemctl status apipayd) and has [accounts.left] in its configuration. Nothing of it had an effect; then it is sent.');
  perform pg_temp.explains('{"account": "left", "state": "accepted", "invoice_id": 501}',
    'The gateway has taken it as invoice 501 and delivers it to the customer. It is asked again at an unknown time, once this is over: no daemon serves account left since MOMENT (5 min ago): see that apipayd runs (systemctl status apipayd) and has [accounts.left] in its configuration.');
  -- One that runs on served it later than one that died, until its configuration was changed.
  insert into apipay.daemons (worker, host, version, accounts, dropped)
  values ('00000000-0000-4000-8000-00000000000c', 'kassa-2', '1', '{}', jsonb_build_object('left', now() - interval '2.5 min'));
  assert (select a.explain from apipay.account_status a where a.account = 'left') like 'Nothing is sent: no daemon serves account left since % (2 min ago): %';
  assert (select w.explain from apipay.waiting w where w.account = 'left' limit 1) like '%no daemon serves account left since % (2 min ago): %';
  delete from apipay.daemons d where d.host = 'kassa-2';
  -- What a person has parked needs no daemon; what the daemon has parked does.
  begin
    perform apipay._park('left', 'parked_by_user', 'aida', null, 'It is.', 'Look.', '{}', 'given up');
    perform apipay._park('strange', 'key_rejected', 'apipayd', interval '1 h', 'It is.', 'Look.', '{}');
    assert (select a.explain from apipay.account_status a where a.account = 'left') like
      'Nothing is sent: account left is parked since % (0 s ago) (parked_by_user, by aida: given up), until select apipay.resume(''left'', ''why''); no daemon serves it either. %',
      (select a.explain from apipay.account_status a where a.account = 'left');
    assert (select a.explain from apipay.account_status a where a.account = 'strange') like
      'Nothing is sent: no daemon serves account strange: name it in %; it is parked as well, since % (0 s ago) (key_rejected, by apipayd), and nobody asks ApiPay whether it is well again. %',
      (select a.explain from apipay.account_status a where a.account = 'strange');
    raise exception using errcode = 'UNDO1';
  exception when sqlstate 'UNDO1' then null;
  end;
  assert (select array_agg(distinct w.cause order by w.cause) from apipay.waiting w where w.account in ('left', 'strange'))
       = array['not_followed', 'not_served', 'unproven_request'];
  assert (select a.explain from apipay.account_status a where a.account = 'left') like
    'Nothing is sent: no daemon serves account left since % (5 min ago): see that apipayd runs (systemctl status apipayd) and has [accounts.left] in its configuration. 3 jobs wait %';
  delete from apipay.jobs where account in ('left', 'strange');

  -- One that has it doubts its key.
  perform apipay._announce('00000000-0000-4000-8000-00000000000d', 'kassa-3', '1', '{}', '{"left 0123456789abcdef", "strange fedcba9876543210"}');
  perform apipay._open_alert('left', 'other_organization', 'critical', 'The key is another one.', 'look', '{"host": "kassa-3"}', '0123456789abcdef');
  perform pg_temp.explains('{"account": "left"}', format(
    'Waiting: the apipayd on kassa-3 has a key for account left that may be of another organization, and serves nothing of it before that is known: see alert %s (other_organization), in apipay.alerts. Then it goes out.',
    (select max(l.id) from apipay.alerts l where l.kind = 'other_organization')));
  perform pg_temp.explains('{"account": "strange"}',
    'Waiting: the apipayd on kassa-3 has a key for account strange that may be of another organization, and serves nothing of it before that is known. Then it goes out.');
  assert (select array_agg(distinct w.cause) from apipay.waiting w where w.account in ('left', 'strange')) = array['not_served'];
  assert (select a.explain from apipay.account_status a where a.account = 'left') like
    'Nothing is sent: the apipayd on kassa-3 has a key for account left that may be of another organization, and %: see alert % (other_organization), in apipay.alerts. 1 job waits %';
  -- Where another one serves the account, that is in nothing''s way; and one that has left has no key.
  perform pg_temp.explains('{}', 'Due now: it goes out in its turn, as fast as the account''s quota of requests allows.');
  update apipay.daemons d set has_left = true where d.host = 'kassa-3';
  assert (select w.explain from apipay.waiting w where w.account = 'left') like 'Waiting: no daemon serves account left since %';
  delete from apipay.daemons d where d.host = 'kassa-3';
  perform apipay._resolve_alert('left', 'other_organization', 'enough', '0123456789abcdef');
  -- What a daemon says itself, that it leaves or doubts its key, is known at once; its silence, after a minute.
  perform apipay._announce('00000000-0000-4000-8000-00000000000e', 'kassa-4', '1', '{left}');
  update apipay.daemons d set seen_at = now() - interval '50 s' where d.host = 'kassa-4';
  perform pg_temp.explains('{"account": "left"}', 'Due now: it goes out in its turn, as fast as the account''s quota of requests allows.');
  perform apipay._leave('00000000-0000-4000-8000-00000000000e');
  perform pg_temp.explains('{"account": "left"}',
    'Waiting: no daemon serves account left since MOMENT (50 s ago): see that apipayd runs (systemctl status apipayd) and has [accounts.left] in its configuration. Then it goes out.');
  assert (select a.explain from apipay.account_status a where a.account = 'left') like 'Nothing is sent: no daemon serves account left since % (50 s ago)%';
  assert (select array_agg(distinct w.cause) from apipay.waiting w where w.account = 'left') = array['not_served'];
  perform apipay._announce('00000000-0000-4000-8000-00000000000d', 'kassa-4', '1', '{}', '{"left 0123456789abcdef"}');
  perform pg_temp.explains('{"account": "left"}',
    'Waiting: the apipayd on kassa-4 has a key for account left that may be of another organization, and serves nothing of it before that is known. Then it goes out.');
  assert (select a.explain from apipay.account_status a where a.account = 'left') like 'Nothing is sent: the apipayd on kassa-4 has a key for account left that may be of another organization%';
  delete from apipay.daemons d where d.host = 'kassa-4';
  delete from apipay.jobs where account in ('left', 'strange');

  -- the database does not let it move, or has forgotten
  id := pg_temp.explains('{"account": "default", "epoch": 3}', 'Due now: it goes out in its turn, as fast as the account''s quota of requests allows.');
  perform apipay._open_alert('default', 'job_stuck', 'critical', 'The database does not let it go.', 'mend it', jsonb_build_object('job', id, 'state', 'queued', 'epoch', 3));
  assert (select o.explain from apipay.overview o where o.id = explain_id.id) =
    'The database does not let it go. What to do stands in the alert job_stuck, in apipay.alerts.' from (select id) as explain_id;
  -- It has moved since.
  update apipay.jobs j set epoch = 4 from (select id) as moved where j.id = moved.id;
  assert (select o.explain from apipay.overview o where o.id = explain_id.id) like 'Due now: %' from (select id) as explain_id;
  perform apipay._resolve_alert('default', 'job_stuck', 'mended');
  -- Of several that it refuses the alert names one.
  perform apipay._open_alert('default', 'job_stuck', 'critical', 'The database does not let job 1 go.', 'mend it',
    jsonb_build_object('job', 1, 'state', 'queued', 'epoch', 3, 'others_refused', 2));
  assert (select o.explain from apipay.overview o where o.id = explain_id.id) like 'Due now: %' from (select id) as explain_id;
  update apipay.jobs j set run_at = now() - interval '1 min' from (select id) as waits where j.id = waits.id;
  assert (select o.explain from apipay.overview o where o.id = explain_id.id) =
    'It is due and does not go out. The database refuses several jobs of this account: The database does not let job 1 go. What to do stands in the alert job_stuck, in apipay.alerts.' from (select id) as explain_id;
  perform apipay._resolve_alert('default', 'job_stuck', 'mended');
  update apipay.jobs j set run_at = now() from (select id) as waits where j.id = waits.id;
  -- Or lists all of them whose outcomes wait in the memory of daemons, each its own, and says how many they are.
  perform apipay._announce('00000000-0000-4000-8000-00000000000a', 'kassa-5', '1', '{}');
  perform apipay._tell_stuck('default', 'critical', 'The outcome of job 1 is not taken.', 'mend it. It does not take those of 1 more',
    jsonb_build_object('job', 1, 'case', 'c', 'worker', '00000000-0000-4000-8000-00000000000a', 'more', 1, 'others_refused', 0,
      'alike', jsonb_build_object('00000000-0000-4000-8000-00000000000a', jsonb_build_object(id, '{"state": "queued", "epoch": 4}'::jsonb))), false);
  assert (select o.explain from apipay.overview o where o.id = explain_id.id) =
    'The database does not take what became of it either: The outcome of job 1 is not taken. What to do stands in the alert job_stuck, in apipay.alerts.' from (select id) as explain_id;
  perform apipay._tell_stuck('default', 'critical', 'The outcome of job 2 is not taken.', 'mend it. It does not take those of 7 more',
    jsonb_build_object('job', 2, 'case', 'c', 'worker', '00000000-0000-4000-8000-00000000000b', 'more', 7, 'others_refused', 0,
      'alike', '{"00000000-0000-4000-8000-00000000000b": {"2": {"state": "sending", "epoch": 1}}}'::jsonb), false);
  assert (select l.summary like '%job 1 is not taken.' and l.action like '%of 1 more' and l.changed_at is null
             and array(select jsonb_object_keys(l.details -> 'alike')) = array['00000000-0000-4000-8000-00000000000a', '00000000-0000-4000-8000-00000000000b']
            from apipay.alerts l where l.kind = 'job_stuck' and l.resolved_at is null), 'the other daemon lists its own';
  perform apipay._tell_stuck('default', 'critical', 'The outcome of job 3 is not taken.', 'mend it. It does not take those of 4 more',
    jsonb_build_object('job', 3, 'case', 'c', 'worker', '00000000-0000-4000-8000-00000000000a', 'more', 4, 'others_refused', 0,
      'alike', '{"00000000-0000-4000-8000-00000000000a": {"3": {"state": "sending", "epoch": 1}}}'::jsonb), false);
  assert (select l.summary like '%job 1 is not taken.' and l.action like '%of 4 more' and l.changed_at is null
             and l.details -> 'alike' = '{"00000000-0000-4000-8000-00000000000a": {"3": {"state": "sending", "epoch": 1}}}'::jsonb
            from apipay.alerts l where l.kind = 'job_stuck' and l.resolved_at is null), 'one that gives no sign of life lists none';
  assert (select o.explain from apipay.overview o where o.id = explain_id.id) like 'Due now: %' from (select id) as explain_id;
  assert apipay._unwritten(1) = '1 job waits for the database to take what became of it'
    and apipay._unwritten(15) = '15 jobs wait for the database to take what became of them';
  perform apipay._resolve_alert('default', 'job_stuck', 'mended', '1');
  delete from apipay.daemons d where d.host = 'kassa-5';
  perform apipay._open_alert(null, 'history_lost', 'critical', 'The database has lost commits.', 'look', '{}');
  perform pg_temp.explains('{}',
    'Waiting: a daemon sends nothing any more, and what to do stands in the alert history_lost, in apipay.alerts: The database has lost commits. Then it goes out.');
  perform apipay._resolve_alert(null, 'history_lost', 'looked');
  -- What is due for long, and what holds it up with others of its kind.
  perform apipay._open_alert(null, 'no_progress', 'critical', 'The books are closed.', 'open', '{"concerns": ["outcomes"]}');
  perform apipay._open_alert('default', 'no_progress', 'critical', 'None is looked up.', 'see', '{"concerns": ["look_ups"]}');
  perform pg_temp.explains('{}', 'Due now: it goes out in its turn, as fast as the account''s quota of requests allows.');
  perform pg_temp.explains(jsonb_build_object('run_at', now() - interval '1 min'),
    'Waiting: payments do not move, and what to do stands in the alert no_progress, in apipay.alerts: The books are closed. Then it goes out.');
  perform apipay._resolve_alert(null, 'no_progress', 'opened');
  perform pg_temp.explains(jsonb_build_object('run_at', now() - interval '1 min'),
    'Due now: it goes out in its turn, as fast as the account''s quota of requests allows.');
  perform pg_temp.explains(jsonb_build_object('state', 'uncertain', 'unproven_since', now(), 'run_at', now() - interval '1 min'),
    'A request for the invoice of 15 000 tenge to 8700***4321 may or may not have had its effect, since MOMENT (0 s ago). The gateway is asked now, once this is over: payments do not move, and what to do stands in the alert no_progress, in apipay.alerts: None is looked up. Nothing is sent before that is known.');
  perform apipay._resolve_alert('default', 'no_progress', 'looked up');
  delete from apipay.jobs j where j.run_at = now() - interval '1 min';
  -- a try that was never sent for a cause of ours
  perform pg_temp.explains('{"reason": "window_closed", "error_code": "window_closed", "error_message": "too much of the lease was gone; nothing was sent"}',
    'Due now: it goes out in its turn, as fast as the account''s quota of requests allows; last: window_closed: too much of the lease was gone; nothing was sent.');

  -- a bill that is not sent before it is seen whether an earlier invoice lives
  perform pg_temp.explains(jsonb_build_object('reason', 'earlier_unseen', 'run_at', now() + interval '40.9 s', 'retry_of', 5, 'lookups', 3, 'http_status', 404,
      'error_message', 'it could not be seen whether invoice 31 of job 5 (which it repeats) lives: ApiPay said: Not found'),
    'Not sent so far: it could not be seen whether invoice 31 of job 5 (which it repeats) lives: ApiPay said: Not found (HTTP 404). ApiPay is asked again at MOMENT (in 40 s) (3 times so far); it is sent once none of it is shown alive. To have it asked now: select apipay.retry({ID}, ''why''). If ApiPay never shows it, see in its dashboard that nothing of it lives; then select apipay.cancel({ID}, ''why''), and enqueue a new job. It repeats job 5.');
  perform pg_temp.explains(jsonb_build_object('reason', 'earlier_unseen', 'run_at', now() + interval '40.9 s', 'generation', 2, 'lookups', 1, 'error_code', 'timeout',
      'error_message', 'it could not be seen whether an invoice with its name lives: no complete answer in time', 'expires_at', now() + interval '200.9 s'),
    'Not sent again so far: it could not be seen whether an invoice with its name lives: no complete answer in time (timeout). ApiPay is asked again at MOMENT (in 40 s) (once so far); it is sent once none of it is shown alive. To have it asked now: select apipay.retry({ID}, ''why''). If ApiPay never shows it, see in its dashboard that nothing of it lives; then select apipay.cancel({ID}, ''why''), and enqueue a new job. If it is not sent by MOMENT (in 3 min), it ends expired.');
  -- That a person has it tried now does not send it: it is asked first all the same.
  perform pg_temp.explains(jsonb_build_object('account', 'sick', 'reason', 'retried_by_user', 'retry_of', 51, 'lookups', 2, 'http_status', 404),
    'Waiting: account sick is parked since MOMENT (5 min ago) (session_expired, by apipayd), until it is well again, which is probed next at MOMENT (in 10 min). Then it goes out, if ApiPay shows nothing alive of job 51. It repeats job 51.');
  perform pg_temp.explains(jsonb_build_object('reason', 'retried_by_user', 'retry_of', 52, 'lookups', 2, 'http_status', 404, 'error_message', 'it could not be seen whether invoice 31 of job 5 (which it repeats) lives'),
    'Due now: it goes out in its turn, as fast as the account''s quota of requests allows, if ApiPay shows nothing alive of job 52; last: HTTP 404: it could not be seen whether invoice 31 of job 5 (which it repeats) lives. It repeats job 52.');
  perform pg_temp.explains('{"reason": "retried_by_user", "generation": 2}',
    'Due now: it goes out in its turn, as fast as the account''s quota of requests allows, if ApiPay shows no earlier invoice of it alive.');
  perform pg_temp.explains('{"state": "parked", "reason": "session_expired", "account": "sick", "retry_of": 54}',
    'Parked (session_expired) with its account: account sick is parked since MOMENT (5 min ago) (session_expired, by apipayd), until it is well again, which is probed next at MOMENT (in 10 min). Nothing of it had an effect; then it is sent, if ApiPay shows nothing alive of job 54. It repeats job 54.');
  perform pg_temp.explains('{"operation": "invoice.cancel", "params": {"invoice_id": 4}, "retry_of": 55}',
    'Due now: it goes out in its turn, as fast as the account''s quota of requests allows. It repeats job 55.');
  delete from apipay.jobs j where j.retry_of between 51 and 60 or j.reason = 'retried_by_user';
  perform pg_temp.explains('{"state": "failed", "reason": "gave_up", "http_status": 500, "error_message": "it could not be seen whether invoice 31 of job 5 (which it repeats) lives"}',
    'Given up before ApiPay had taken anything of it; last: HTTP 500: it could not be seen whether invoice 31 of job 5 (which it repeats) lives. select apipay.retry({ID}, ''why'') enqueues a copy.');

  -- behind another refund of the same invoice
  perform pg_temp.explains('{"operation": "invoice.refund", "params": {"invoice_id": 21}, "reason": "waits_for_refund"}',
    'The job that it waited for has ended: it goes out within moments, unless the database does not let it be changed (see apipay.alerts).');
  behind := pg_temp.explains('{"operation": "invoice.refund", "params": {"invoice_id": 21}, "priority": 1}',
    'Due now: it goes out in its turn, as fast as the account''s quota of requests allows.');
  perform pg_temp.explains('{"operation": "invoice.refund", "params": {"invoice_id": 21}, "reason": "waits_for_refund"}',
    format('It waits for refund job %s of the same invoice, and goes out once that has ended: two at a time could not be told apart.', behind));
  update apipay.jobs j set state = 'uncertain', unproven_since = now() where j.id = behind;
  perform pg_temp.explains('{"operation": "invoice.refund", "params": {"invoice_id": 21}}',
    format('It waits for refund job %s of the same invoice, and goes out once that has ended: two at a time could not be told apart.', behind));
  perform pg_temp.explains(jsonb_build_object('operation', 'invoice.refund', 'params', '{"invoice_id": 21}'::jsonb, 'run_at', now() + interval '2 h'),
    'Due at MOMENT (in 2 h), as asked.');
  update apipay.jobs j set state = 'failed', finished_at = now() where j.id = behind;

  -- sending
  perform pg_temp.explains(jsonb_build_object('state', 'sending', 'leased_until', now() + interval '1 min'),
    'A worker has it since MOMENT (0 s ago): its request is under way, or the answer is being written; without one by MOMENT it becomes uncertain and is looked up, never sent blindly again.');
  perform pg_temp.explains(jsonb_build_object('state', 'sending', 'leased_until', now() - interval '1 min'),
    'Its worker should have answered by MOMENT: it becomes uncertain within moments and is looked up.');

  -- uncertain
  perform pg_temp.explains(jsonb_build_object('state', 'uncertain', 'unproven_since', now() - interval '1 min', 'run_at', now() + interval '30 s', 'http_status', 504),
    'A request for the invoice of 15 000 tenge to 8700***4321 may or may not have had its effect, since MOMENT (60 s ago) (last: HTTP 504). The gateway is asked at MOMENT (in 30 s). Nothing is sent before that is known.');
  -- Found by the recovery long after it was sent.
  id := pg_temp.explains(jsonb_build_object('state', 'uncertain', 'reason', 'lease_expired', 'epoch', 3, 'unproven_since', now(), 'run_at', now() + interval '30 s'),
    'A request for the invoice of 15 000 tenge to 8700***4321 may or may not have had its effect, since MOMENT (0 s ago). The gateway is asked at MOMENT (in 30 s). Nothing is sent before that is known.');
  insert into apipay.attempts (job_id, epoch, account, kind, worker, started_at, finished_at, effect, error_code)
  values (id, 2, 'default', 'send', gen_random_uuid(), now() - interval '330 s', now(), 'unknown', 'lease_expired');
  said := (select o.explain from apipay.overview o where o.id = found_late.id) from (select id) as found_late;
  assert said like '%effect, since % (5 min ago)%', said;
  delete from apipay.jobs j where j.reason = 'lease_expired';
  perform pg_temp.explains(jsonb_build_object('state', 'uncertain', 'account', 'sick', 'operation', 'invoice.refund', 'params', '{"invoice_id": 17, "amount": 200.5}'::jsonb, 'unproven_since', now(), 'lookups', 2),
    'A request for the refund of 200.5 tenge from invoice 17 may or may not have had its effect, since MOMENT (0 s ago). The gateway is asked again (2 times so far) now, once this is over: account sick is parked since MOMENT (5 min ago) (session_expired, by apipayd), until it is well again, which is probed next at MOMENT (in 10 min). Nothing is sent before that is known.');
  perform pg_temp.explains(jsonb_build_object('state', 'uncertain', 'operation', 'invoice.cancel', 'params', '{"invoice_id": 17}'::jsonb, 'unproven_since', now()),
    'A request for the cancellation of invoice 17 may or may not have had its effect, since MOMENT (0 s ago). The gateway is asked now. Nothing is sent before that is known.');

  -- uncertain, and somebody has said what the gateway did
  perform pg_temp.explains(jsonb_build_object('state', 'uncertain', 'reason', 'lookup_unclear', 'unproven_since', now() - interval '1 h', 'absent_since', apipay._denied(), 'denied_at', now() - interval '1 min', 'lookups', 1, 'http_status', 502),
    'A request for the invoice of 15 000 tenge to 8700***4321 may or may not have had its effect, since MOMENT (60 min ago) (last: HTTP 502). The gateway is asked again (once so far) now. Somebody said at MOMENT that it was not done: it is sent again once ApiPay shows clearly that nothing of it is there. If ApiPay shows that it was done, it is taken as done. If what ApiPay shows does not fit, or there is no clear answer for reconcile.give_up, it is held again. Nothing is sent before that is known, and nothing is to do until then.');
  perform pg_temp.explains(jsonb_build_object('state', 'uncertain', 'reason', 'resolved_applied', 'unproven_since', now() - interval '1 h', 'stated_id', 123, 'http_status', 504),
    'Somebody said that the invoice of 15 000 tenge to 8700***4321 was done: invoice 123. ApiPay is asked whether that is so now. If it is not, the job is held again; until then nothing is sent.');
  perform pg_temp.explains(jsonb_build_object('state', 'uncertain', 'account', 'told', 'operation', 'invoice.refund', 'params', '{"invoice_id": 18}'::jsonb, 'unproven_since', now(), 'stated_id', 55, 'lookups', 3, 'http_status', 502),
    'Somebody said that the full refund from invoice 18 was done: refund 55. ApiPay is asked whether that is so (3 times so far; last: HTTP 502) now, once this is over: account told is parked since MOMENT (5 min ago) (session_expired, by apipayd; ApiPay said: Kaspi session expired), until it is well again, which is probed next at MOMENT (in 10 min); to do: call support. If it is not, the job is held again; until then nothing is sent.');

  -- accepted
  perform pg_temp.invoice(1, 'processing', '{"settled": false}');
  perform pg_temp.explains('{"state": "accepted", "invoice_id": 1}',
    'The gateway has taken it as invoice 1 and delivers it to the customer (status processing). It is asked again at MOMENT (in 60 s).');
  -- Whether it was delivered is not seen.
  perform pg_temp.invoice(703, 'processing', '{"settled": false, "account": "unlisted"}');
  perform pg_temp.explains('{"state": "accepted", "account": "unlisted", "invoice_id": 703}',
    'The gateway has taken it as invoice 703 and delivers it to the customer (status processing). It is asked again at MOMENT (in 60 s). ApiPay gives no clear answer to such questions since MOMENT (5 min ago) (timeout: no complete answer in time).');
  -- What the key may not ask is answered clearly.
  perform pg_temp.explains(jsonb_build_object('state', 'uncertain', 'account', 'unlisted', 'unproven_since', now(), 'lookups', 2, 'http_status', 403, 'error_message', 'This action is unauthorized.'),
    'A request for the invoice of 15 000 tenge to 8700***4321 may or may not have had its effect, since MOMENT (0 s ago) (last: HTTP 403: This action is unauthorized.). The gateway is asked again (2 times so far) now. Nothing is sent before that is known. ApiPay denies the account''s key an answer to such questions since MOMENT (5 min ago) (HTTP 403: This action is unauthorized.): ask its support why.');
  delete from apipay.jobs j where j.account = 'unlisted' and j.state in ('accepted', 'uncertain');
  perform pg_temp.explains('{"account": "paged", "state": "uncertain", "operation": "invoice.cancel", "params": {"invoice_id": 17}}',
    'A request for the cancellation of invoice 17 may or may not have had its effect, since MOMENT (0 s ago). The gateway is asked now. Nothing is sent before that is known. ApiPay gives no clear answer to such questions since MOMENT (5 min ago) (HTTP 403).');
  delete from apipay.jobs j where j.account = 'paged';
  -- It has not been shown since its copy was made.
  perform apipay._open_alert('default', 'invoice_missing', 'critical', 's', 'a',
    (select jsonb_build_object('invoices', jsonb_build_object('1', i.created_at), 'refunds', '{}'::jsonb) from apipay.invoices i where i.account = 'default' and i.id = 1));
  update apipay.invoices i set checked_at = null where i.account = 'default' and i.id = 1;
  perform pg_temp.explains('{"state": "accepted", "invoice_id": 1}',
    'The gateway has taken it as invoice 1 and delivers it to the customer (status processing). It is asked again at MOMENT (in 60 s). ApiPay has not shown invoice 1 since MOMENT (0 s ago), although it is asked for it: what to do stands in the alert invoice_missing, in apipay.alerts.');
  update apipay.invoices i set checked_at = i.created_at + interval '1 ms' where i.account = 'default' and i.id = 1;
  perform pg_temp.explains('{"state": "accepted", "invoice_id": 1}',
    'The gateway has taken it as invoice 1 and delivers it to the customer (status processing). It is asked again at MOMENT (in 60 s).');
  perform apipay._resolve_alert('default', 'invoice_missing', 'shown');
  -- What was accepted is asked about although the account is parked.
  perform pg_temp.explains('{"state": "accepted", "account": "undelivered", "invoice_id": 998}',
    'The gateway has taken it as invoice 998 and delivers it to the customer. It is asked again at an unknown time.');
  delete from apipay.jobs where account = 'undelivered';
  perform pg_temp.explains('{"state": "accepted", "invoice_id": 999}',
    'The gateway has taken it as invoice 999 and delivers it to the customer. It is asked again at an unknown time.');
  perform pg_temp.invoice(2, 'cancelling', '{"settled": false}');
  perform pg_temp.explains('{"state": "accepted", "operation": "invoice.cancel", "params": {"invoice_id": 2}, "invoice_id": 2}',
    'The gateway is cancelling invoice 2 (status cancelling). It is asked again at MOMENT (in 60 s).');
  -- Accepted without a trace.
  perform pg_temp.invoice(90, 'pending', '{"settled": false}');
  perform pg_temp.explains('{"state": "accepted", "operation": "invoice.cancel", "params": {"invoice_id": 90}, "invoice_id": 90}',
    'The gateway has accepted the cancellation of invoice 90 (status pending), which can still be paid. It is asked again at MOMENT (in 60 s). If nothing has come of it at MOMENT (in 10 min), it is sent again.');
  insert into apipay.refunds (account, id, invoice_id, status, amount, next_check_at) values ('default', 7, 3, 'pending', 200, now());
  perform pg_temp.explains('{"state": "accepted", "operation": "invoice.refund", "params": {"invoice_id": 3}, "invoice_id": 3, "refund_id": 7}',
    'The gateway is making refund 7 of invoice 3 (status pending). It is asked again now.');

  -- accepted, and failed at Kaspi afterwards
  perform pg_temp.invoice(3, 'error', '{"settled": false, "error_code": "network_unavailable", "error_message": "no answer from +7 700 765-43-21"}');
  perform pg_temp.explains('{"state": "accepted", "reason": "async_retry", "invoice_id": 3}',
    'The gateway had taken it as invoice 3, and that failed at Kaspi (network_unavailable: no answer from 8700***4321). It is asked again at MOMENT (in 60 s). If it has still failed then, a new one is sent, unless it has failed as often as retry.async_error.attempts allows, which does not count what its account was to blame for.');
  perform pg_temp.invoice(4, 'error', '{"settled": false}');
  perform pg_temp.explains('{"state": "accepted", "invoice_id": 4}',
    'The gateway had taken it as invoice 4, and that failed at Kaspi (why is not known yet). It is asked again at MOMENT (in 60 s). If it has still failed then, a new one is sent, unless it has failed as often as retry.async_error.attempts allows, which does not count what its account was to blame for.');
  insert into apipay.refunds (account, id, invoice_id, status, amount, next_check_at, error_code) values ('default', 8, 6, 'failed', 200, now(), 'kaspi_throttled');
  perform pg_temp.explains('{"state": "accepted", "operation": "invoice.refund", "params": {"invoice_id": 6}, "invoice_id": 6, "refund_id": 8}',
    'The gateway had taken it as refund 8 of invoice 6, and that failed at Kaspi (kaspi_throttled). It is asked again now. If it has still failed then, a new one is sent, unless it has failed as often as retry.async_error.attempts allows, which does not count what its account was to blame for.');

  -- parked
  perform pg_temp.explains('{"state": "parked", "reason": "session_expired", "account": "owned"}',
    'Parked (session_expired) with its account: account owned is parked since MOMENT (3 h ago) (parked_by_user, by aida: stocktaking), until select apipay.resume(''owned'', ''why''). Nothing of it had an effect; then it is sent.');
  perform pg_temp.explains(jsonb_build_object('state', 'parked', 'unproven_since', now()),
    'Parked; account default is active again, and the daemon puts it back within moments. A request for the invoice of 15 000 tenge to 8700***4321 is unproven; then it is looked up first.');
  perform pg_temp.explains(jsonb_build_object('state', 'parked', 'expires_at', now() - interval '1 s'),
    'Its time ran out at MOMENT while it was parked: it ends expired. Nothing of it had an effect.');
  perform pg_temp.explains(jsonb_build_object('state', 'parked', 'account', 'owned', 'expires_at', now() - interval '1 s'),
    'Its time ran out at MOMENT while it was parked: it ends expired. Nothing of it had an effect.');
  perform pg_temp.explains(jsonb_build_object('state', 'parked', 'account', 'owned', 'expires_at', now() + interval '2 h'),
    'Parked with its account: account owned is parked since MOMENT (3 h ago) (parked_by_user, by aida: stocktaking), until select apipay.resume(''owned'', ''why''). Nothing of it had an effect; then it is sent. If it is not sent by MOMENT (in 2 h), it ends expired.');
  perform pg_temp.explains(jsonb_build_object('state', 'parked', 'unproven_since', now(), 'expires_at', now() - interval '1 s'),
    'Parked; account default is active again, and the daemon puts it back within moments. A request for the invoice of 15 000 tenge to 8700***4321 is unproven; then it is looked up first. Its time ran out at MOMENT: it is not sent again.');
  delete from apipay.jobs j where j.state = 'parked' and j.expires_at is not null;

  -- held: the exact calls
  perform pg_temp.explains(jsonb_build_object('state', 'held', 'reason', 'gave_up', 'unproven_since', now()),
    'Held (gave_up) since MOMENT (0 s ago): nobody but a human can tell whether the invoice of 15 000 tenge to 8700***4321 was done. Look for {TOKEN} in ApiPay''s dashboard. Done: select apipay.resolve({ID}, true, INVOICE_ID, ''why''). Not done: select apipay.resolve({ID}, false, null, ''why''), which sends it again once ApiPay shows nothing alive with its name, or with and_cancel => true never.');
  perform pg_temp.explains(jsonb_build_object('state', 'held', 'operation', 'invoice.refund', 'params', '{"invoice_id": 4}'::jsonb, 'unproven_since', now(), 'http_status', 500),
    'Held since MOMENT (0 s ago): nobody but a human can tell whether the full refund from invoice 4 was done (last: HTTP 500). Look for {TOKEN} in ApiPay''s dashboard. Done: select apipay.resolve({ID}, true, REFUND_ID, ''why''). Not done: select apipay.resolve({ID}, false, null, ''why''), which sends it again once ApiPay shows nothing alive with its name, or with and_cancel => true never.');

  perform pg_temp.explains(jsonb_build_object('state', 'held', 'reason', 'not_as_stated', 'unproven_since', now(), 'http_status', 200, 'error_message', 'invoice 123 was named; ApiPay has none with that number'),
    'Held (not_as_stated) since MOMENT (0 s ago): what was said of the invoice of 15 000 tenge to 8700***4321 is not what ApiPay has: invoice 123 was named; ApiPay has none with that number. Done as another one: select apipay.resolve({ID}, true, INVOICE_ID, ''why''). Not done: select apipay.resolve({ID}, false, null, ''why''), which sends it again once ApiPay shows nothing alive with its name, or with and_cancel => true never.');

  perform pg_temp.explains(jsonb_build_object('state', 'held', 'operation', 'invoice.refund', 'params', '{"invoice_id": 44}'::jsonb, 'reason', 'not_as_stated', 'unproven_since', now(), 'error_code', 'differs', 'error_message', 'it is another one: name it with anyway => true'),
    'Held (not_as_stated) since MOMENT (0 s ago): what was said of the full refund from invoice 44 is not what ApiPay has: it is another one: name it with anyway => true. Done as another one: select apipay.resolve({ID}, true, REFUND_ID, ''why''). Done as that one, though it differs: the same with anyway => true. Not done: select apipay.resolve({ID}, false, null, ''why''), which sends it again once ApiPay shows nothing alive with its name, or with and_cancel => true never.');

  delete from apipay.jobs j where j.invoice_id = 44;

  perform pg_temp.explains(jsonb_build_object('state', 'held', 'reason', 'original_lives', 'unproven_since', now(), 'retry_of', 6, 'error_message', 'what it repeats was done after all: the gateway shows invoice 3 (status pending)'),
    'Held (original_lives) since MOMENT (0 s ago): what it repeats was done after all: the gateway shows invoice 3 (status pending); invoice 3 has failed by now. This copy is not sent, but whether the invoice of 15 000 tenge to 8700***4321 had been done before that was seen is not known. Look for {TOKEN} in ApiPay''s dashboard. Nothing there: select apipay.resolve({ID}, false, null, ''why'', and_cancel => true), which ends it unsent; what to do about what job 6 made stands in its explain. Something there: select apipay.resolve({ID}, true, INVOICE_ID, ''why''); the customer could then pay both, so cancel the one that is not to be paid. It repeats job 6.');
  delete from apipay.jobs j where j.state = 'held' and j.reason = 'original_lives';
  perform pg_temp.explains(jsonb_build_object('state', 'held', 'reason', 'other_organization', 'unproven_since', now(), 'invoice_id', 77),
    'Held (other_organization) since MOMENT (0 s ago): the account is for another organization than when the invoice of 15 000 tenge to 8700***4321 was sent, and ApiPay shows nothing of it to the account''s present key. Look for {TOKEN} in the dashboard of the earlier organization (invoice 77). Done there: select apipay.resolve({ID}, true, 77, ''why'', anyway => true), which is believed. Not done, or taken back there: select apipay.resolve({ID}, false, null, ''why''), which sends it again, to the account''s present organization; or with and_cancel => true never.');
  delete from apipay.jobs j where j.reason = 'other_organization';
  perform pg_temp.explains(jsonb_build_object('state', 'held', 'reason', 'mismatch', 'unproven_since', now(), 'http_status', 200, 'error_message', '15000 tenge was asked for, and ApiPay has invoice 5: 1500 tenge (status pending)'),
    'Held (mismatch) since MOMENT (0 s ago): what ApiPay has under the name of the invoice of 15 000 tenge to 8700***4321 does not fit: 15000 tenge was asked for, and ApiPay has invoice 5: 1500 tenge (status pending). Done as another one: select apipay.resolve({ID}, true, INVOICE_ID, ''why''). Done as that one, though it differs: the same with anyway => true. An invoice that is wrong and not paid: first select apipay.cancel_invoice(INVOICE_ID, account => ''default''), and wait until ApiPay shows it as cancelled, or it holds the job again. Not done: select apipay.resolve({ID}, false, null, ''why''), which sends it again once ApiPay shows nothing alive with its name, or with and_cancel => true never.');
  -- What ApiPay has shown since of the invoice that it is held against: what helps follows that.
  insert into apipay.invoices (account, id, status, amount) values ('default', 35, 'processing', 1500);
  perform pg_temp.explains(jsonb_build_object('state', 'held', 'reason', 'mismatch', 'unproven_since', now(), 'invoice_id', 35, 'error_code', null::text, 'error_message', '15000 tenge was asked for, and ApiPay has invoice 35: 1500 tenge (status pending)'),
    'Held (mismatch) since MOMENT (0 s ago): what ApiPay has under the name of the invoice of 15 000 tenge to 8700***4321 does not fit: 15000 tenge was asked for, and ApiPay has invoice 35: 1500 tenge (status pending). Done as another one: select apipay.resolve({ID}, true, INVOICE_ID, ''why''). Done as that one, though it differs: the same with anyway => true. An invoice that is wrong and not paid: first select apipay.cancel_invoice(35, account => ''default''), and wait until ApiPay shows it as cancelled, or it holds the job again. Not done: select apipay.resolve({ID}, false, null, ''why''), which sends it again once ApiPay shows nothing alive with its name, or with and_cancel => true never.');
  update apipay.invoices i set status = 'cancelling' where i.id = 35;
  perform pg_temp.explains(jsonb_build_object('state', 'held', 'reason', 'mismatch', 'unproven_since', now(), 'invoice_id', 35, 'error_code', null::text, 'error_message', '15000 tenge was asked for, and ApiPay has invoice 35: 1500 tenge (status pending)'),
    'Held (mismatch) since MOMENT (0 s ago): what ApiPay has under the name of the invoice of 15 000 tenge to 8700***4321 does not fit: 15000 tenge was asked for, and ApiPay has invoice 35: 1500 tenge (status pending); invoice 35 is being cancelled by now. Done as another one: select apipay.resolve({ID}, true, INVOICE_ID, ''why''). Done as that one, though it differs: the same with anyway => true. First wait: invoice 35 is being cancelled, and holds the job again until ApiPay shows it as cancelled. Not done: select apipay.resolve({ID}, false, null, ''why''), which sends it again once ApiPay shows nothing alive with its name, or with and_cancel => true never.');
  update apipay.invoices i set status = 'cancelled' where i.id = 35;
  perform pg_temp.explains(jsonb_build_object('state', 'held', 'reason', 'mismatch', 'unproven_since', now(), 'invoice_id', 35, 'error_code', null::text, 'error_message', '15000 tenge was asked for, and ApiPay has invoice 35: 1500 tenge (status pending)'),
    'Held (mismatch) since MOMENT (0 s ago): what ApiPay has under the name of the invoice of 15 000 tenge to 8700***4321 does not fit: 15000 tenge was asked for, and ApiPay has invoice 35: 1500 tenge (status pending); invoice 35 is cancelled by now. As ApiPay shows it now, invoice 35 holds the job no more. Done as another one: select apipay.resolve({ID}, true, INVOICE_ID, ''why''). Not done: select apipay.resolve({ID}, false, null, ''why''), which sends it again once ApiPay shows nothing alive with its name, or with and_cancel => true never.');
  update apipay.invoices i set status = 'paid' where i.id = 35;
  perform pg_temp.explains(jsonb_build_object('state', 'held', 'reason', 'mismatch', 'unproven_since', now(), 'invoice_id', 35, 'error_code', null::text, 'error_message', '15000 tenge was asked for, and ApiPay has invoice 35: 1500 tenge (status pending)'),
    'Held (mismatch) since MOMENT (0 s ago): what ApiPay has under the name of the invoice of 15 000 tenge to 8700***4321 does not fit: 15000 tenge was asked for, and ApiPay has invoice 35: 1500 tenge (status pending); invoice 35 is paid by now. The customer has paid invoice 35, so it cannot be cancelled, and the job is not sent again beside it. Done as that one, though it differs: select apipay.resolve({ID}, true, 35, ''why'', anyway => true). If it is not what was to be paid, say the same, have it refunded in ApiPay''s dashboard, or by your program with apipay.refund_invoice, and enqueue a new job.');
  perform pg_temp.explains(jsonb_build_object('state', 'held', 'reason', 'mismatch', 'unproven_since', now(), 'invoice_id', 35, 'error_code', null::text, 'error_message', '15000 tenge was asked for, and ApiPay has invoice 35: 1500 tenge (status paid)'),
    'Held (mismatch) since MOMENT (0 s ago): what ApiPay has under the name of the invoice of 15 000 tenge to 8700***4321 does not fit: 15000 tenge was asked for, and ApiPay has invoice 35: 1500 tenge (status paid). The customer has paid invoice 35, so it cannot be cancelled, and the job is not sent again beside it. Done as that one, though it differs: select apipay.resolve({ID}, true, 35, ''why'', anyway => true). If it is not what was to be paid, say the same, have it refunded in ApiPay''s dashboard, or by your program with apipay.refund_invoice, and enqueue a new job.');
  perform pg_temp.explains(jsonb_build_object('state', 'held', 'reason', 'not_as_stated', 'unproven_since', now(), 'invoice_id', 35, 'error_code', 'differs', 'error_message', 'invoice 34 was named; ApiPay has invoice 35: 1500 tenge (status pending)'),
    'Held (not_as_stated) since MOMENT (0 s ago): what was said of the invoice of 15 000 tenge to 8700***4321 is not what ApiPay has: invoice 34 was named; ApiPay has invoice 35: 1500 tenge (status pending); invoice 35 is paid by now. The customer has paid invoice 35, so it cannot be cancelled, and the job is not sent again beside it. Done as that one, though it differs: select apipay.resolve({ID}, true, 35, ''why'', anyway => true). If it is not what was to be paid, say the same, have it refunded in ApiPay''s dashboard, or by your program with apipay.refund_invoice, and enqueue a new job.');
  perform pg_temp.explains(jsonb_build_object('state', 'held', 'reason', 'not_as_stated', 'unproven_since', now(), 'invoice_id', 35, 'error_code', null::text, 'error_message', 'invoice 34 was named; ApiPay has invoice 35: 1500 tenge (status pending)'),
    'Held (not_as_stated) since MOMENT (0 s ago): what was said of the invoice of 15 000 tenge to 8700***4321 is not what ApiPay has: invoice 34 was named; ApiPay has invoice 35: 1500 tenge (status pending); invoice 35 is paid by now. The customer has paid invoice 35, so it cannot be cancelled, and the job is not sent again beside it. Done as that one: select apipay.resolve({ID}, true, 35, ''why''). If it is not what was to be paid, say the same, have it refunded in ApiPay''s dashboard, or by your program with apipay.refund_invoice, and enqueue a new job.');
  delete from apipay.jobs j where j.invoice_id = 35;
  delete from apipay.invoices i where i.id = 35;
  perform pg_temp.explains(jsonb_build_object('state', 'held', 'operation', 'invoice.cancel', 'params', '{"invoice_id": 17}'::jsonb, 'reason', 'unconfirmed', 'unproven_since', now(), 'denied_at', now() - interval '20 h', 'http_status', 502),
    'Held (unconfirmed) since MOMENT (0 s ago): somebody said that the cancellation of invoice 17 was not done, and ApiPay has given no clear answer about it since MOMENT (20 h ago) (last: HTTP 502), so nothing was sent. To have ApiPay asked again: select apipay.resolve({ID}, false, null, ''why''). To end it: the same with and_cancel => true, which sends nothing. Done, as ApiPay''s dashboard shows for invoice 17: select apipay.resolve({ID}, true, null, ''why'').');
  perform pg_temp.explains(jsonb_build_object('state', 'held', 'operation', 'invoice.cancel', 'params', '{"invoice_id": 18}'::jsonb, 'reason', 'unconfirmed', 'unproven_since', now(), 'denied_at', now() - interval '20 h', 'http_status', 403, 'error_message', 'This action is unauthorized.'),
    'Held (unconfirmed) since MOMENT (0 s ago): somebody said that the cancellation of invoice 18 was not done, and ApiPay has given no answer about it since MOMENT (20 h ago) (last: HTTP 403: This action is unauthorized.; the account''s key may not ask that, and ApiPay''s support can say why), so nothing was sent. To have ApiPay asked again: select apipay.resolve({ID}, false, null, ''why''). To end it: the same with and_cancel => true, which sends nothing. Done, as ApiPay''s dashboard shows for invoice 18: select apipay.resolve({ID}, true, null, ''why'').');
  delete from apipay.jobs j where j.state = 'held' and j.invoice_id = 18;
  -- What the checks of its invoice have shown since.
  perform pg_temp.invoice(1908, 'paid');
  perform pg_temp.explains(jsonb_build_object('state', 'held', 'operation', 'invoice.cancel', 'params', '{"invoice_id": 1908}'::jsonb, 'reason', 'unconfirmed', 'unproven_since', now(), 'denied_at', now() - interval '20 h', 'http_status', 502),
    'Held (unconfirmed) since MOMENT (0 s ago): somebody said that the cancellation of invoice 1908 was not done, and ApiPay has given no clear answer about it since MOMENT (20 h ago) (last: HTTP 502), so nothing was sent; invoice 1908 is paid by now. To have ApiPay asked again: select apipay.resolve({ID}, false, null, ''why''). To end it: the same with and_cancel => true, which sends nothing. Done, as ApiPay''s dashboard shows for invoice 1908: select apipay.resolve({ID}, true, null, ''why'').');
  delete from apipay.jobs j where j.state = 'held' and j.invoice_id = 1908;
  delete from apipay.invoices i where i.id = 1908;
  perform pg_temp.explains(jsonb_build_object('state', 'held', 'reason', 'duplicate_detected', 'unproven_since', now(), 'http_status', 200, 'error_message', 'invoice 5: 15000 tenge (status pending), and invoice 6: 15000 tenge (status pending)'),
    'Held (duplicate_detected) since MOMENT (0 s ago): more than one object at ApiPay carries the name of the invoice of 15 000 tenge to 8700***4321: invoice 5: 15000 tenge (status pending), and invoice 6: 15000 tenge (status pending). See in ApiPay''s dashboard that the customer pays only one of them, and say which: select apipay.resolve({ID}, true, INVOICE_ID, ''why''). An invoice that is not kept can still be paid, so cancel each of those: select apipay.cancel_invoice(INVOICE_ID, account => ''default''); one that was paid too has to be refunded. Once none of them lives: select apipay.resolve({ID}, false, null, ''why'', and_cancel => true) ends it, and after that select apipay.retry({ID}, ''why'') bills anew.');

  -- held past its expires_at, or before: what is not sent again ends expired
  perform pg_temp.explains(jsonb_build_object('state', 'held', 'unproven_since', now(), 'expires_at', now() - interval '1 min'),
    'Held since MOMENT (0 s ago): nobody but a human can tell whether the invoice of 15 000 tenge to 8700***4321 was done. Look for {TOKEN} in ApiPay''s dashboard. Done: select apipay.resolve({ID}, true, INVOICE_ID, ''why''). Not done: select apipay.resolve({ID}, false, null, ''why''): it ends expired once ApiPay shows nothing alive with its name, since its expires_at, MOMENT, is over; apipay.retry({ID}, ''why'') then makes a copy. With and_cancel => true it ends cancelled.');
  perform pg_temp.explains(jsonb_build_object('state', 'held', 'unproven_since', now(), 'expires_at', now() + interval '1 h'),
    'Held since MOMENT (0 s ago): nobody but a human can tell whether the invoice of 15 000 tenge to 8700***4321 was done. Look for {TOKEN} in ApiPay''s dashboard. Done: select apipay.resolve({ID}, true, INVOICE_ID, ''why''). Not done: select apipay.resolve({ID}, false, null, ''why''), which sends it again once ApiPay shows nothing alive with its name, unless its expires_at, MOMENT, is over by then: then it ends expired, and apipay.retry({ID}, ''why'') makes a copy. With and_cancel => true it ends cancelled.');
  -- So is a refund.
  perform pg_temp.explains(jsonb_build_object('state', 'held', 'operation', 'invoice.refund', 'params', '{"invoice_id": 45}'::jsonb, 'unproven_since', now(), 'expires_at', now() - interval '1 min'),
    'Held since MOMENT (0 s ago): nobody but a human can tell whether the full refund from invoice 45 was done. Look for {TOKEN} in ApiPay''s dashboard. Done: select apipay.resolve({ID}, true, REFUND_ID, ''why''). Not done: select apipay.resolve({ID}, false, null, ''why''): it ends expired once ApiPay shows nothing alive with its name, since its expires_at, MOMENT, is over; apipay.retry({ID}, ''why'') then makes a copy. With and_cancel => true it ends cancelled.');
  perform pg_temp.explains(jsonb_build_object('state', 'held', 'reason', 'other_organization', 'unproven_since', now(), 'expires_at', now() - interval '1 min'),
    'Held (other_organization) since MOMENT (0 s ago): the account is for another organization than when the invoice of 15 000 tenge to 8700***4321 was sent, and ApiPay shows nothing of it to the account''s present key. Look for {TOKEN} in the dashboard of the earlier organization. Done there: select apipay.resolve({ID}, true, INVOICE_ID, ''why'', anyway => true), which is believed. Not done, or taken back there: select apipay.resolve({ID}, false, null, ''why''): it ends expired, since its expires_at, MOMENT, is over; apipay.retry({ID}, ''why'') then makes a copy. With and_cancel => true it ends cancelled.');
  perform pg_temp.explains(jsonb_build_object('state', 'uncertain', 'reason', 'resolved_not_applied', 'unproven_since', now() - interval '1 h', 'absent_since', apipay._denied(), 'denied_at', now() - interval '1 min', 'expires_at', now() - interval '1 min'),
    'A request for the invoice of 15 000 tenge to 8700***4321 may or may not have had its effect, since MOMENT (60 min ago). The gateway is asked now. Somebody said at MOMENT that it was not done: it ends expired once ApiPay shows clearly that nothing of it is there, since its expires_at, MOMENT, is over; apipay.retry({ID}, ''why'') then makes a copy. If ApiPay shows that it was done, it is taken as done. If what ApiPay shows does not fit, or there is no clear answer for reconcile.give_up, it is held again. Nothing is sent before that is known, and nothing is to do until then.');
  perform pg_temp.explains(jsonb_build_object('state', 'uncertain', 'reason', 'resolved_not_applied', 'unproven_since', now() - interval '1 h', 'absent_since', apipay._denied(), 'denied_at', now() - interval '1 min', 'expires_at', now() + interval '1 h'),
    'A request for the invoice of 15 000 tenge to 8700***4321 may or may not have had its effect, since MOMENT (60 min ago). The gateway is asked now. Somebody said at MOMENT that it was not done: it is sent again once ApiPay shows clearly that nothing of it is there, unless its expires_at, MOMENT, is over by then: then it ends expired, and apipay.retry({ID}, ''why'') makes a copy. If ApiPay shows that it was done, it is taken as done. If what ApiPay shows does not fit, or there is no clear answer for reconcile.give_up, it is held again. Nothing is sent before that is known, and nothing is to do until then.');
  delete from apipay.jobs j where j.state in ('held', 'uncertain') and j.expires_at is not null;

  -- succeeded: what the customer did
  perform pg_temp.explains('{"state": "succeeded", "account": "sick", "invoice_id": 700}', 'Invoice 700 was made.');
  perform pg_temp.invoice(701, 'pending', '{"settled": false, "account": "sick"}');
  perform pg_temp.explains('{"state": "succeeded", "account": "sick", "invoice_id": 701}',
    'Invoice 701 was delivered and waits for the customer to pay; it is asked about again at MOMENT (in 60 s), once this is over: account sick is parked since MOMENT (5 min ago) (session_expired, by apipayd), until it is well again, which is probed next at MOMENT (in 10 min).');
  perform pg_temp.invoice(702, 'pending', '{"settled": false, "account": "slow"}');
  perform pg_temp.explains('{"state": "succeeded", "account": "slow", "invoice_id": 702}',
    'Invoice 702 was delivered and waits for the customer to pay; it is asked about again at MOMENT (in 70 s). ApiPay gives no clear answer to such questions since MOMENT (5 min ago).');
  perform pg_temp.invoice(10, 'pending', '{"settled": false}');
  perform pg_temp.explains('{"state": "succeeded", "invoice_id": 10}', 'Invoice 10 was delivered and waits for the customer to pay; it is asked about again at MOMENT (in 60 s).');
  -- what ApiPay shows of it, or of others, cannot be stored
  perform apipay._open_alert('default', 'job_stuck', 'critical', 'What ApiPay shows of invoice 10 is not stored.', 'mend it', '{"invoice": 10}', 'what ApiPay shows');
  perform pg_temp.explains('{"state": "succeeded", "invoice_id": 10}',
    'What ApiPay shows of invoice 10 is not stored. What to do stands in the alert job_stuck, in apipay.alerts.');
  perform pg_temp.invoice(710, 'pending', '{"settled": false}');
  perform pg_temp.explains('{"state": "succeeded", "invoice_id": 710}', 'Invoice 710 was delivered and waits for the customer to pay; it is asked about again at MOMENT (in 60 s).');
  update apipay.invoices set next_check_at = now() - interval '1 min' where invoices.id = 710;
  perform pg_temp.explains('{"state": "succeeded", "invoice_id": 710}',
    'It is due to be asked about. What ApiPay shows of others cannot be stored either: What ApiPay shows of invoice 10 is not stored. What to do stands in the alert job_stuck, in apipay.alerts.');
  perform apipay._resolve_alert('default', 'job_stuck', 'mended', 'what ApiPay shows');
  perform pg_temp.invoice(11, 'paid', jsonb_build_object('paid_at', now()));
  perform pg_temp.explains('{"state": "succeeded", "invoice_id": 11, "retry_of": 1}', 'Invoice 11 was paid by the customer at MOMENT. It repeats job 1.');
  perform pg_temp.invoice(12, 'paid', '{"total_refunded": 15000}');
  perform pg_temp.explains('{"state": "succeeded", "invoice_id": 12}', 'Invoice 12 was paid by the customer and fully refunded.');
  perform pg_temp.invoice(9, 'partially_refunded', '{"total_refunded": 15000}');
  perform pg_temp.explains('{"state": "succeeded", "invoice_id": 9}', 'Invoice 9 was paid by the customer and fully refunded.');
  perform pg_temp.invoice(13, 'partially_refunded', '{"amount": 2000000, "total_refunded": 1234567.5}');
  perform pg_temp.explains('{"state": "succeeded", "invoice_id": 13}', 'Invoice 13 was paid by the customer, of which 1 234 567.5 tenge were refunded.');
  perform pg_temp.invoice(14, 'expired');
  perform pg_temp.explains('{"state": "succeeded", "invoice_id": 14}', 'Invoice 14 expired unpaid.');
  perform pg_temp.invoice(15, 'cancelled');
  perform pg_temp.explains('{"state": "succeeded", "invoice_id": 15}', 'Invoice 15 was cancelled, unpaid.');
  perform pg_temp.invoice(16, 'error', '{"error_code": "client_not_found", "error_message": "no Kaspi at 87007654321"}');
  perform pg_temp.explains('{"state": "succeeded", "invoice_id": 16}', 'Invoice 16 was accepted and then ended in error (client_not_found: no Kaspi at 8700***4321).');
  perform pg_temp.invoice(17, 'reversed');
  perform pg_temp.explains('{"state": "succeeded", "invoice_id": 17}', 'Invoice 17 was made; its status is reversed.');
  perform pg_temp.invoice(18, 'processing');
  perform pg_temp.explains('{"state": "succeeded", "invoice_id": 18}', 'Invoice 18 is being delivered to the customer.');
  perform pg_temp.explains('{"state": "succeeded", "invoice_id": 998}', 'Invoice 998 was made.');
  perform pg_temp.explains('{"state": "succeeded", "operation": "invoice.cancel", "params": {"invoice_id": 15}}', 'Invoice 15 is cancelled.');
  perform pg_temp.explains('{"state": "succeeded", "operation": "invoice.cancel", "params": {"invoice_id": 11}}', 'Invoice 11 was seen cancelled, and after that paid: the customer''s money is in.');
  perform pg_temp.explains('{"state": "succeeded", "operation": "invoice.cancel", "params": {"invoice_id": 14}}', 'Invoice 14 is dead: it expired unpaid.');
  perform pg_temp.explains('{"state": "succeeded", "operation": "invoice.cancel", "params": {"invoice_id": 18}}', 'Invoice 18 was cancelled, but ApiPay has it as processing now: it may be paid.');
  perform pg_temp.explains('{"state": "succeeded", "operation": "invoice.refund", "params": {"invoice_id": 3}, "invoice_id": 3, "refund_id": 7}', 'Refund 7 of 200 tenge from invoice 3 was made.');

  -- It was delivered where it was seen so.
  declare
    job bigint;
    token uuid;
    seen text;
    ended text;
    sentence text;
  begin
    for seen, ended, sentence in values
      ('pending', 'expired', 'was delivered; the customer let it expire unpaid'), ('processing', 'expired', 'expired unpaid'),
      ('pending', 'cancelled', 'was delivered and then cancelled, unpaid'), ('processing', 'cancelled', 'was cancelled, unpaid'),
      ('pending', 'cancelling', 'was delivered and is being cancelled'), ('processing', 'cancelling', 'is being cancelled'),
      ('pending', 'reversed', 'was delivered; its status is reversed'), ('processing', 'reversed', 'was made; its status is reversed')
    loop
      job := nextval('apipay.jobs_id_seq');
      token := gen_random_uuid();
      perform pg_temp.invoice(800, seen, jsonb_build_object('job_id', job, 'job_token', token));
      update apipay.invoices i set status = ended where i.id = 800;
      perform pg_temp.explains(jsonb_build_object('id', job, 'token', token, 'state', 'succeeded', 'invoice_id', 800), format('Invoice 800 %s.', sentence));
      delete from apipay.invoices i where i.id = 800;
      delete from apipay.jobs j where j.id = job;
    end loop;
  end;

  -- Another invoice of the same bill is paid, or can be.
  declare
    job constant bigint := nextval('apipay.jobs_id_seq');
    token constant uuid := gen_random_uuid();
    its_copy constant bigint := nextval('apipay.jobs_id_seq');
    copy_token constant uuid := gen_random_uuid();
    states text;
    own jsonb;
    other jsonb;
    starts text;
    ends text;
    columns jsonb;
  begin
    for states, own, other, starts, ends in values
      ('succeeded', '{"status": "cancelled"}'::jsonb, jsonb_build_object('status', 'paid', 'paid_at', now()), 'Invoice 810 was cancelled, unpaid.',
       ' But its invoice 811 was paid by the customer at MOMENT: deliver what was ordered, or have it refunded. Another bill would make the customer pay twice.'),
      ('succeeded', '{"status": "cancelled"}', '{"status": "pending"}', 'Invoice 810 was cancelled, unpaid.',
       ' But its invoice 811 lives (status pending): the customer may pay it, and another bill would be a second one. Unless it is to be paid: select apipay.cancel_invoice(811, account => ''default'').'),
      ('succeeded', '{"status": "cancelled"}', '{"status": "paid", "total_refunded": 15000}', 'Invoice 810 was cancelled, unpaid.',
       ' But its invoice 811 was paid by the customer and fully refunded.'),
      ('succeeded', '{"status": "cancelled"}', '{"status": "expired"}', 'Invoice 810 was cancelled, unpaid.', ''),
      ('succeeded', '{"status": "paid"}', '{"status": "paid"}', 'Invoice 810 was paid by the customer.',
       ' Its invoice 811 was paid by the customer as well: have one of the two refunded.'),
      ('succeeded', '{"status": "paid", "total_refunded": 15000}', '{"status": "paid"}', 'Invoice 810 was paid by the customer and fully refunded.',
       ' But its invoice 811 was paid by the customer: deliver what was ordered, or have it refunded. Another bill would make the customer pay twice.'),
      ('succeeded', '{"status": "paid"}', '{"status": "pending"}', 'Invoice 810 was paid by the customer.',
       ' Its invoice 811 lives as well (status pending): the customer could pay twice. To prevent that: select apipay.cancel_invoice(811, account => ''default'').'),
      ('succeeded', '{"status": "pending"}', '{"status": "paid"}', 'Invoice 810 was delivered and waits for the customer to pay.',
       ' Its invoice 811 was paid by the customer: the customer could pay twice. To prevent that: select apipay.cancel_invoice(810, account => ''default'').'),
      ('accepted', '{"status": "processing"}', '{"status": "pending"}',
       'The gateway has taken it as invoice 810 and delivers it to the customer (status processing). It is asked again at MOMENT (in 60 s).',
       ' Its invoice 811 lives as well (status pending): the customer could pay both. Unless that one is to be paid: select apipay.cancel_invoice(811, account => ''default'').')
    loop
      perform pg_temp.invoice(810, own ->> 'status', own || jsonb_build_object('job_id', job, 'job_token', token));
      perform pg_temp.invoice(811, other ->> 'status', other || jsonb_build_object('job_id', job, 'job_token', token));
      columns := jsonb_build_object('id', job, 'token', token, 'state', states, 'invoice_id', 810);
      perform pg_temp.explains(columns, starts || ends);
      delete from apipay.jobs j where j.id = job;
      -- The same of its copy.
      insert into apipay.jobs overriding system value
      select * from jsonb_populate_record(null::apipay.jobs, (select to_jsonb(j) from apipay.jobs j where j.invoice_id = 11 limit 1)
        || jsonb_build_object('id', its_copy, 'token', copy_token, 'retry_of', job, 'invoice_id', 811));
      update apipay.invoices i set job_id = its_copy, job_token = copy_token where i.id = 811;
      perform pg_temp.explains(columns, starts || replace(replace(ends, 'its invoice 811', format('invoice 811 of job %s, for the same bill,', its_copy)),
                                                         'Its invoice 811', format('Invoice 811 of job %s, for the same bill,', its_copy)));
      delete from apipay.jobs j where j.id in (job, its_copy);
      delete from apipay.invoices i where i.id in (810, 811);
    end loop;
  end;

  -- failed
  perform pg_temp.explains('{"state": "failed", "reason": "refused", "http_status": 422, "error_code": "content_rejected", "error_message": "text refused for +7 700 765-43-21", "errors": {"description": ["bad word", "too long"]}}',
    'The gateway refused it: HTTP 422, content_rejected: text refused for 8700***4321 [description (bad word; too long)]. Once the cause is gone, select apipay.retry({ID}, ''why'') enqueues a copy.');
  perform pg_temp.explains('{"state": "failed", "reason": "invalid_params", "error_code": "invalid_params", "errors": {"phone_number": ["87007654321 has no prefix"], "amount": "must be whole"}}',
    'Nothing was sent: its params are wrong: amount (must be whole), phone_number (8700***4321 has no prefix). Enqueue a new job with right ones.');
  perform pg_temp.explains('{"state": "failed", "error_code": "invalid_params", "error_message": "phone_number is missing"}',
    'Nothing was sent: its params are wrong: phone_number is missing. Enqueue a new job with right ones.');
  perform pg_temp.explains('{"state": "failed", "reason": "async_error", "http_status": 201, "error_code": "client_not_found"}',
    'The gateway accepted it and it failed at Kaspi later: client_not_found. Once the cause is gone, select apipay.retry({ID}, ''why'') enqueues a copy.');
  perform pg_temp.explains('{"state": "failed", "reason": "gave_up", "generation": 3, "invoice_id": 7, "error_code": "network_unavailable"}',
    'Given up: the gateway accepted it 3 times, and it failed at Kaspi each time: network_unavailable. select apipay.retry({ID}, ''why'') enqueues a copy.');
  perform pg_temp.explains('{"state": "failed", "reason": "original_lives", "http_status": 200, "retry_of": 7, "error_message": "what it repeats was done after all: the gateway shows invoice 3 (status pending)"}',
    'Nothing was sent: what it repeats was done after all: the gateway shows invoice 3 (status pending). What to do about that invoice stands in explain of job 7. It repeats job 7.');
  perform pg_temp.explains('{"state": "failed", "reason": "already_paid", "operation": "invoice.cancel"}',
    'The customer has paid the invoice: it cannot be cancelled, only refunded.');
-- An invoice of it that lives after all: nothing is to be sent again. The dead ones of others say nothing.
  insert into apipay.invoices (account, id, status, amount) values ('default', 30, 'pending', 100);
  perform pg_temp.explains('{"state": "failed", "reason": "gave_up", "generation": 3, "invoice_id": 30, "error_code": "network_unavailable"}',
    'Ended as failed (gave_up), but its invoice 30 lives after all (status pending): the customer may pay it, and another bill would be a second one. Unless it is to be paid: select apipay.cancel_invoice(30, account => ''default'').');
  update apipay.invoices i set status = 'paid' where i.id = 30;
  perform pg_temp.explains('{"state": "expired", "reason": "expired", "invoice_id": 30}',
    'Ended as expired (expired), but its invoice 30 was paid by the customer after all: deliver what was ordered, or have it refunded. Another bill would make the customer pay twice.');
  update apipay.invoices i set total_refunded = 100 where i.id = 30;
  perform pg_temp.explains('{"state": "cancelled", "reason": "resolved_not_applied", "invoice_id": 30}',
    'Ended as cancelled (resolved_not_applied), but its invoice 30 was paid by the customer after all and fully refunded.');
  update apipay.invoices i set status = 'error' where i.id = 30;
  perform pg_temp.explains('{"state": "failed", "reason": "gave_up", "generation": 3, "invoice_id": 30, "error_code": "network_unavailable"}',
    'Given up: the gateway accepted it 3 times, and it failed at Kaspi each time: network_unavailable. select apipay.retry({ID}, ''why'') enqueues a copy.');
  perform pg_temp.explains('{"state": "failed", "reason": "gave_up", "attempts": 8, "error_message": "connection refused"}',
    'Given up after 8 counted attempts, none of which had an effect; last: connection refused. select apipay.retry({ID}, ''why'') enqueues a copy.');

  -- cancelled, expired
  insert into apipay.jobs (operation, params) values ('invoice.create', '{"amount": 15000}') returning jobs.id into id;
  perform apipay.cancel(id, 'customer +77007654321 called');
  assert (select explain from apipay.overview o where o.id = explain_id.id) like format('Cancelled by %s at %% (customer 8700***4321 called), before anything was sent.', session_user)
    from (select id) as explain_id;
  perform pg_temp.explains('{"state": "cancelled", "reason": "cancelled_by_user", "attempts": 1, "error_code": "server_error", "http_status": 502}',
    'Cancelled at MOMENT (cancelled_by_user): nothing that was sent of it had an effect.');
  perform pg_temp.explains(jsonb_build_object('state', 'expired', 'http_status', 503, 'expires_at', now()),
    'Nothing that was sent of it by its expires_at, MOMENT, had an effect. select apipay.retry({ID}, ''why'') enqueues a copy without a limit.');
  -- What was only asked before it, or had no connection, sent nothing of it.
  declare
    job bigint;
    tried jsonb;
    answered int;
    left_us text;
    looked_up boolean;
    state text;
    sentence text;
  begin
    for tried, answered, left_us, looked_up in values
      ('{"method": "GET", "path": "/invoices/4/refunds"}'::jsonb, 500, 'Nothing', false),
      ('{"method": "POST", "path": "/invoices/status/check"}', 500, 'Nothing', false),
      ('{"method": "POST", "path": "/invoices/4/refund"}', null, 'Nothing', false),
      ('{"method": "POST", "path": "/invoices/4/refund"}', 503, 'Something', false),
      ('{"method": "GET", "path": "/invoices/4/refunds"}', 500, 'Something', true)
    loop
      for state, sentence in values
        ('expired', case left_us when 'Nothing' then 'Nothing was sent by its expires_at, MOMENT.' else 'Nothing that was sent of it by its expires_at, MOMENT, had an effect.' end
           || ' select apipay.retry({ID}, ''why'') enqueues a copy without a limit.'),
        ('cancelled', 'Cancelled at MOMENT (cancelled_by_user)' || case left_us when 'Nothing' then ', before anything was sent.' else ': nothing that was sent of it had an effect.' end)
      loop
        job := nextval('apipay.jobs_id_seq');
        insert into apipay.attempts (job_id, epoch, account, kind, worker, finished_at, request, effect, http_status)
        values (job, 1, 'default', 'send', gen_random_uuid(), now(), tried, 'not_applied', answered);
        if looked_up then
          insert into apipay.attempts (job_id, epoch, account, kind, worker, finished_at, effect, http_status)
          values (job, 2, 'default', 'lookup', gen_random_uuid(), now(), 'not_applied', 200);
        end if;
        perform pg_temp.explains(jsonb_build_object('id', job, 'operation', 'invoice.refund', 'params', '{"invoice_id": 4}'::jsonb, 'state', state, 'epoch', 2,
          'attempts', 2, 'http_status', answered, 'expires_at', now(), 'reason', case state when 'cancelled' then 'cancelled_by_user' end), sentence);
        delete from apipay.jobs j where j.id = job;
        delete from apipay.attempts a where a.job_id = job;
      end loop;
    end loop;
  end;
  -- Something was sent of it; that is seen no more once a person has said that it had no effect.
  perform pg_temp.explains(jsonb_build_object('state', 'expired', 'epoch', 3, 'expires_at', now()),
    'Nothing of it is known to have had an effect by its expires_at, MOMENT. select apipay.retry({ID}, ''why'') enqueues a copy without a limit.');
  perform pg_temp.explains('{"state": "cancelled", "reason": "cancelled_by_user", "epoch": 3}',
    'Cancelled at MOMENT (cancelled_by_user): nothing of it is known to have had an effect.');
  perform pg_temp.explains(jsonb_build_object('state', 'expired', 'expires_at', now()), 'Nothing was sent by its expires_at, MOMENT. select apipay.retry({ID}, ''why'') enqueues a copy without a limit.');

  -- A job has one copy at most: that is named, and not how one is made.
  for repeated, copy in
    select o.id, apipay.retry(o.id) from apipay.overview o where o.state in ('failed', 'expired') and o.explain like '%select apipay.retry(%' order by o.id
  loop
    said := (select o.explain from apipay.overview o where o.id = repeated);
    assert said like format('%%. Job %s repeats it.', copy) and said not like '%apipay.retry%', said;
    delete from apipay.jobs j where j.id = copy;
  end loop;
  for repeated, copy in
    select o.id, apipay.retry(o.id) from apipay.overview o where o.state = 'cancelled' and o.reason = 'cancelled_by_user' order by o.id
  loop
    said := (select o.explain from apipay.overview o where o.id = repeated);
    assert said like format('Cancelled %%. Job %s repeats it.', copy), said;
    delete from apipay.jobs j where j.id = copy;
  end loop;

  -- all sending stopped comes before everything else
  perform apipay.stop('fire at 87007654321');
  perform pg_temp.explains('{"account": "sick"}',
    format('Waiting: all sending is stopped since MOMENT (0 s ago) by %s (fire at 8700***4321), until select apipay.start(''why''). Then it goes out.', session_user));
  perform apipay.start();
end $$;

-- Money and phones, each in its view.
do $$
begin
  assert (select (o.phone, o.amount, o.invoice_status) = ('8700***4321', 15000.00, 'paid') from apipay.overview o where o.invoice_id = 11 and o.operation = 'invoice.create');
  assert (select o.amount is null from apipay.overview o where o.operation = 'invoice.cancel' limit 1);
  assert (select (w.cause) = 'account_parked' from apipay.waiting w where w.account = 'sick' and w.state = 'queued' limit 1);
  assert (select array_agg(distinct w.cause order by w.cause) from apipay.waiting w)
       = array['account_blocked', 'account_parked', 'back_off', 'gateway_failing', 'human_decides', 'not_due', 'not_followed', 'other_refund', 'parked', 'quota', 'unproven_request'];
  assert not exists (select from apipay.waiting w where w.state in ('sending', 'succeeded', 'failed', 'cancelled', 'expired'));
  assert (select count(*) = 13 and sum(u.at_risk) = 105200.50 from apipay.uncertain u), (select jsonb_agg(u) from apipay.uncertain u)::text;
  assert (select bool_and((u.state = 'held') = (u.next_lookup_at is null)) from apipay.uncertain u);
  assert (select count(*) = 6 from apipay.parked p), (select jsonb_agg(p) from apipay.parked p)::text;
  assert (select count(*) = 1 from apipay.parked p where p.parked_reason is null);
  assert (select (a.queued, a.uncertain, a.tenge_waiting) = (2, 1, 30000.00) from apipay.account_status a where a.account = 'sick');
  assert (select a.explain from apipay.account_status a where a.account = 'limited') like
    'Nothing is sent: account limited may not send until % (in 40 min): the gateway limits it (request_rate_limited). 1 job waits for 15 000 tenge.';
  assert (select a.explain from apipay.account_status a where a.account = 'owned') like
    'Nothing is sent: account owned is parked since % (3 h ago) (parked_by_user, by aida: stocktaking), until select apipay.resume(''owned'', ''why''). 2 jobs wait for 30 000 tenge.';
  perform apipay._open_alert(null, 'history_lost', 'critical', 'Commits are lost.', 'look', '{"accounts": ["default"]}', 'kassa');
  -- What a cap lets go on is stopped by something else.
  update apipay.accounts set capped_until = now() + interval '2430 s', capped_operations = '{invoice.create}', capped_reason = 'kyc_limit_reached' where name in ('owned', 'slow', 'limited');
  assert (select a.explain from apipay.account_status a where a.account = 'owned') like
    'Nothing is sent: account owned is parked %; besides, ApiPay takes no new bills of account owned until % a cap is reached (kyc_limit_reached). %';
  assert not exists (select from apipay.account_status a where a.account in ('owned', 'slow', 'limited') and a.explain like '%everything else goes on%');
  update apipay.accounts set capped_until = null, capped_operations = null, capped_reason = null where name in ('owned', 'slow', 'limited');
  assert (select a.explain from apipay.account_status a where a.account = 'default') like
    'A daemon sends nothing any more, and what to do stands in the alert history_lost, in apipay.alerts: Commits are lost. %';
  assert (select a.explain from apipay.account_status a where a.account = 'default') like '% jobs wait for %, % of unknown outcome, 1 that failed at Kaspi.',
    (select a.explain from apipay.account_status a where a.account = 'default');
  assert (select a.explain from apipay.account_status a where a.account = 'slow') not like '%history_lost%';
  perform apipay._resolve_alert(null, 'history_lost', 'read', 'kassa');
  begin
    perform apipay._open_alert('default', 'no_progress', 'critical', 'Payments are due.', 'look', '{"concerns": ["claims"]}');
    -- What one daemon cannot do another one may be doing: then nothing is due for long.
    update apipay.jobs j set run_at = now() where j.account = 'default' and j.state = 'queued' and j.run_at < now();
    assert (select a.explain from apipay.account_status a where a.account = 'default') like 'Sending: %';
    update apipay.jobs j set run_at = now() - interval '1 min', reason = null
     where j.id = (select min(q.id) from apipay.jobs q where q.account = 'default' and q.state = 'queued');
    assert found;
    assert (select a.explain from apipay.account_status a where a.account = 'default') like
      'Payments do not move, and what to do stands in the alert no_progress, in apipay.alerts: Payments are due. %';
    assert (select a.explain from apipay.account_status a where a.account = 'slow') not like '%no_progress%';
    raise exception using errcode = 'UNDO1';
  exception when sqlstate 'UNDO1' then null;
  end;
  assert (select a.explain from apipay.account_status a where a.account = 'slow') like
    'Hardly anything is sent: ApiPay gives account slow no clear answer since % (5 min ago) (HTTP 502: Kaspi API error): one job at a time tries, the next at % (in 40 s), the others wait for its answer. 1 job waits for 15 000 tenge, 1 of unknown outcome.';
  -- A daemon that is silent for longer than one may be (src/db/progress.sql) may be gone, and is not said to send.
  begin
    update apipay.daemons d set seen_at = now() - interval '40 s' where d.host = 'here';
    assert (select a.explain from apipay.account_status a where a.account = 'default') like
      'Perhaps nothing is sent: the apipayd that serves account default has given no sign of life since % (40 s ago); see that it runs (systemctl status apipayd). % jobs wait for %',
      (select a.explain from apipay.account_status a where a.account = 'default');
    assert (select a.explain from apipay.account_status a where a.account = 'slow') like 'Perhaps nothing is sent: %';
    assert (select a.explain from apipay.account_status a where a.account = 'sick') like 'Nothing is sent: account sick is parked %';
    -- One of two is enough.
    update apipay.daemons d set seen_at = now() - interval '20 s' where d.host = 'there';
    assert (select a.explain from apipay.account_status a where a.account = 'default') like 'Sending: %';
    raise exception using errcode = 'UNDO1';
  exception when sqlstate 'UNDO1' then null;
  end;
  -- That ApiPay's health says well, and only a payment to try is missing, is known once a probe has found none.
  begin
    update apipay.accounts set state = 'parked', parked_reason = 'session_expired', parked_by = 'apipayd', parked_at = now(), delivery_error = 'kaspi_session_invalid',
           probe_at = now() + interval '10 min' where name = 'default';
    assert (select a.explain from apipay.account_status a where a.account = 'default') not like '%health says well%';
    update apipay.accounts set trial_from = now() where name = 'default';
    assert (select a.explain from apipay.account_status a where a.account = 'default') like
      'Nothing is sent: account default is parked %, the next at % (in 10 min); its health says well, and only a payment that can be tried is missing: the first that is due is tried, whenever the next probe would be%',
      (select a.explain from apipay.account_status a where a.account = 'default');
    raise exception using errcode = 'UNDO1';
  exception when sqlstate 'UNDO1' then null;
  end;
  -- What is not sent before ApiPay answers a question about it does not go on with the account.
  begin
    update apipay.jobs set failing_since = now(), reason = 'earlier_unseen'
     where jobs.id = any (array(select q.id from apipay.jobs q where q.account = 'default' and q.state = 'queued' and q.operation = 'invoice.create' and apipay._is_in_turn(q.reason) order by q.id limit 2));
    assert (select a.explain from apipay.account_status a where a.account = 'default') like
      'Sending: % requests a minute are taken; but 2 bills that repeat earlier ones are not sent before ApiPay shows that nothing of those lives (new bills do not wait for that). % jobs wait for %',
      (select a.explain from apipay.account_status a where a.account = 'default');
    update apipay.jobs set failing_since = null where reason = 'earlier_unseen' and jobs.id <> (select min(q.id) from apipay.jobs q where q.reason = 'earlier_unseen');
    update apipay.jobs set failing_since = now(), reason = 'server_error'
     where jobs.id = (select min(q.id) from apipay.jobs q where q.account = 'default' and q.state = 'queued' and q.operation = 'invoice.refund' and apipay._is_in_turn(q.reason));
    insert into apipay.attempts (job_id, epoch, account, kind, worker, finished_at, effect, request)
    select q.id, q.epoch + 100, q.account, 'send', gen_random_uuid(), now(), 'not_applied', '{"method": "GET", "path": "/invoices/1/refunds"}'
      from apipay.jobs q where q.account = 'default' and q.state = 'queued' and q.operation = 'invoice.refund' and q.reason = 'server_error' and q.failing_since = now();
    assert found;
    assert (select a.explain from apipay.account_status a where a.account = 'default') like
      'Sending: %; but 1 bill that repeats an earlier one is not sent before ApiPay shows that nothing of that one lives (new bills do not wait for that), and 1 refund is not sent before ApiPay lists those of its invoice. %',
      (select a.explain from apipay.account_status a where a.account = 'default');
    assert (select (n.bills, n.refunds) = (1, 1) from apipay._to_be_shown('default') n);
    assert (select n.in_words is null from apipay._to_be_shown('slow') n);
    raise exception using errcode = 'UNDO1';
  exception when sqlstate 'UNDO1' then null;
  end;
  -- With nothing to send there is no next try.
  begin
    perform apipay.cancel(j.id, 'too late') from apipay.jobs j where j.account = 'slow' and j.state = 'queued';
    assert (select a.explain from apipay.account_status a where a.account = 'slow') like
      'Nothing waits to be sent; the last that was got no clear answer from ApiPay, since % (5 min ago) (HTTP 502: Kaspi API error): the next payment will show whether it answers. 1 job of unknown outcome waits.',
      (select a.explain from apipay.account_status a where a.account = 'slow');
    raise exception using errcode = 'UNDO1';
  exception when sqlstate 'UNDO1' then null;
  end;
  assert (select sum(d.jobs) from apipay.daily d where d.day_of = 'enqueued') = (select count(*) from apipay.jobs);
  assert (select d.amount = 200 from apipay.daily d where d.operation = 'invoice.refund' and d.state = 'succeeded');
  -- What was paid and refunded, by the days on which it was, whatever day it was enqueued.
  assert not exists (select from apipay.daily d where d.day_of = 'refunded');
  update apipay.invoices set paid_at = '2025-03-01 18:59:59Z', amount = 700.5 where invoices.id = 12;
  update apipay.invoices set paid_at = '2025-03-01 19:00:00Z' where invoices.id = 13;
  update apipay.refunds set status = 'completed', completed_at = '2025-03-01 19:00:00Z' where refunds.id = 7;
  assert (select jsonb_agg(to_jsonb(d) order by d.day, d.day_of) from apipay.daily d where d.day < '2025-03-10') = jsonb_build_array(
    jsonb_build_object('account', 'default', 'day', '2025-03-01', 'day_of', 'paid', 'operation', 'invoice.create', 'state', 'paid', 'jobs', 1, 'amount', 700.50),
    jsonb_build_object('account', 'default', 'day', '2025-03-02', 'day_of', 'paid', 'operation', 'invoice.create', 'state', 'paid', 'jobs', 1, 'amount', 2000000.00),
    jsonb_build_object('account', 'default', 'day', '2025-03-02', 'day_of', 'refunded', 'operation', 'invoice.refund', 'state', 'refunded', 'jobs', 1, 'amount', 200.00)),
    (select jsonb_agg(d) from apipay.daily d where d.day < '2025-03-10')::text;
  -- What is known to be of the sandbox is no money.
  update apipay.invoices set is_sandbox = true where invoices.id = 12;
  assert (select jsonb_agg(d.day order by d.day) from apipay.daily d where d.day < '2025-03-10' and d.day_of = 'paid') = '["2025-03-02"]';
  update apipay.invoices i set is_sandbox = true from apipay.refunds r where r.id = 7 and i.id = r.invoice_id;
  assert not exists (select from apipay.daily d where d.day_of = 'refunded');
  assert (select o.explain from apipay.overview o where o.invoice_id = 12 and o.state = 'succeeded' limit 1) like '% in ApiPay''s sandbox, where no money moves%';
  update apipay.invoices set is_sandbox = null;
  assert (select (sum(d.jobs), sum(d.amount)) = ((select count(*) from apipay.invoices i where i.paid_at is not null), (select sum(i.amount) from apipay.invoices i where i.paid_at is not null)) from apipay.daily d where d.state = 'paid');
  assert (select sum(d.jobs) = 1 from apipay.daily d where d.state = 'paid' and d.day = apipay._day(now())), 'paid today';
  perform apipay._take_quota('default', 20, 'send', floor(extract(epoch from now()))::bigint);
  assert (select (a.quota_limit, a.quota_used, a.quota_left) = (60, 20, 40) from apipay.account_status a where a.account = 'default');
  perform apipay._open_alert('default', 'cap_reached', 'critical', 's', 'a', null);
  assert (select a.open_alerts = 1 from apipay.account_status a where a.account = 'default');
end $$;

-- Whatever stands in params, errors and texts, in whichever state: no view fails, none shows a phone.
do $$
declare
  garbage jsonb;
  params jsonb;
  operation text;
  shown text;
begin
  foreach garbage in array array['null', 'true', '""', '"x"', '"87007654321"', '"+7 (700) 765-43-21"', '-1', '0', '1e300', '1e-300', '0.005', '123456789012345678901234567890',
    '9223372036854775807', '9223372036854775808', '[]', '[1, [2]]', '{}', '{"a": {"b": 1}}', '"1e5"', '"15000.00"', '"15000.001"', '"NaN"', '"%s %I $1 \\1 {}"',
    '"Қазақ ₸ 🙂"', '"999999999999999999999"', '["87007654321"]', '{"87007654321": ["87007654321"]}']::jsonb[] loop
    -- A phone in the place of an id is an id: nothing tells them apart.
    params := (select jsonb_object_agg(key, case when key = 'invoice_id' and garbage::text ~ '765' then '17' else garbage end) from unnest(array['phone_number', 'amount', 'cart_items', 'discount_percentage', 'description',
      'internal_comment', 'external_order_id', 'kaspi_connection_id', 'invoice_id', 'reason', 'return_items', 'other']) as key);
    foreach operation in array apipay._operations() loop
      insert into apipay.jobs (operation, params, state, reason, error_code, error_message, errors, run_at, expires_at, http_status, leased_by, leased_until, finished_at, unproven_since)
      select operation, v.params, state, garbage #>> '{}', garbage #>> '{}', garbage #>> '{}', garbage, run_at,
             case when operation = 'invoice.cancel' then '-infinity'::timestamptz when operation = 'invoice.refund' then 'infinity' end, -1,
             case when state = 'sending' then gen_random_uuid() end, case when state = 'sending' then now() end,
             case when final then now() end, case when operation = 'invoice.create' then now() end
      from (values (params), (params - 'cart_items'), (params - 'cart_items' - 'return_items' - 'amount')) as v (params),
           (values ('sending', now(), false), ('uncertain', '-infinity', false), ('accepted', 'infinity', false), ('parked', now(), false), ('held', now(), false),
             ('succeeded', now(), true), ('failed', now(), true), ('cancelled', now(), true), ('expired', now(), true), ('queued', '294000-01-01', false)) as s (state, run_at, final)
      on conflict do nothing;
    end loop;
    insert into apipay.jobs (operation, params, error_code, errors, state, finished_at) values ('invoice.create', params, 'invalid_params', garbage, 'failed', now());
    assert apipay._amount(garbage) is null and apipay._amount(null) is null;
  end loop;
  assert apipay._amount('{"amount": 15000}') = 15000 and apipay._amount('{"amount": "15000.50"}') = 15000.50 and apipay._amount('{"amount": 100000000}') is null;
  assert (select count(*) > 1000 from apipay.overview), 'the garbage is there';

  shown := concat((select string_agg(v::text, ' ') from apipay.overview v), (select string_agg(v::text, ' ') from apipay.waiting v),
    (select string_agg(v::text, ' ') from apipay.uncertain v), (select string_agg(v::text, ' ') from apipay.parked v),
    (select string_agg(v::text, ' ') from apipay.daily v), (select string_agg(v::text, ' ') from apipay.account_status v));
  assert shown like '%8700***4321%' and shown !~ '765.?43', substring(shown from '.{200}765.?43.{50}');
  assert not exists (select from apipay.overview where explain is null), (select jsonb_agg(o)::text from apipay.overview o where explain is null);
end $$;

reset time zone;
