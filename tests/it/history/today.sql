-- What is under way today: little, beside the years.
set session_replication_role = replica;

-- What an earlier run of this has left.
delete from apipay.invoices where job_id > {JOBS};
delete from apipay.refunds where not settled;
delete from apipay.attempts where job_id > {JOBS};
delete from apipay.alert_deliveries where delivered_at is null;
delete from apipay.alerts where resolved_at is null;
delete from apipay.jobs where id > {JOBS};
update apipay.accounts
   set state = 'active', parked_at = null, parked_reason = null, parked_by = null, probe_at = null
 where state = 'parked';

-- A dozen accounts with a little of everything, ten parked ones.
insert into apipay.jobs
  (id, token, account, operation, params, dedup_key, state, reason, attempts, epoch, invoice_id, refund_id,
   leased_by, leased_until, unproven_since, expires_at, run_at, order_id)
overriding system value
select {JOBS} + account * 1000 + s.ordinality * 10 + nth, gen_random_uuid(), 'branch-' || account, 'invoice.create',
       jsonb_build_object('phone_number', '87010000000', 'amount', 1000, 'external_order_id', format('today-%s-%s-%s', account, s.state, nth)),
       format('today-%s-%s-%s', account, s.state, nth), s.state,
       case s.state when 'queued' then (array['network', 'retry_after', null])[nth] when 'parked' then 'session_expired' end, 1, 1,
       case when s.state = 'accepted' then 30000000 + account * 1000 + nth end, null,
       case when s.state = 'sending' then '00000000-0000-0000-0000-000000000000'::uuid end,
       case when s.state = 'sending' then now() - interval '1 min' end,
       case when s.state in ('uncertain', 'held') then now() - interval '1 hour' end,
       case when s.state = 'queued' and nth = 3 then now() - interval '1 min' end,
       case when s.state = 'queued' and nth = 2 then now() + interval '1 hour' else now() - interval '1 min' end,
       format('today-%s-%s-%s', account, s.state, nth)
from generate_series(1, 22) as account
cross join unnest(array['queued', 'sending', 'uncertain', 'accepted', 'held', 'parked']) with ordinality as s(state, ordinality)
cross join generate_series(1, 3) as nth
where s.state in ('queued', 'parked') or account <= 12;
-- A third account waits for a hundred invoices at once.
insert into apipay.jobs (id, token, account, operation, params, dedup_key, state, attempts, epoch, invoice_id)
overriding system value
select {JOBS} + 100000 + nth, gen_random_uuid(), 'branch-3', 'invoice.cancel', jsonb_build_object('invoice_id', 30003100 + nth),
       'accepted-' || nth, 'accepted', 1, 1, 30003100 + nth
from generate_series(1, 100) as nth;
-- A fourth refunds some invoices in parts: of a third of them the first part is under way, and of all the others wait.
insert into apipay.jobs (id, token, account, operation, params, state, reason, attempts, epoch, invoice_id, refund_id, run_at)
overriding system value
select {JOBS} + 200000 + invoice * 10 + part, gen_random_uuid(), 'branch-4', 'invoice.refund',
       jsonb_build_object('invoice_id', 60000000 + invoice, 'amount', 1), case when is_open then 'accepted' else 'queued' end,
       case when not is_open then 'waits_for_refund' end, is_open::int, is_open::int, 60000000 + invoice,
       case when is_open then 70000000 + invoice end, now() - interval '1 min'
from generate_series(1, 6) as invoice cross join generate_series(1, 3) as part
cross join lateral (select part = 1 and invoice % 3 = 0 as is_open) as first;
-- One of which somebody has said what the gateway did.
update apipay.jobs set stated_id = 10001002 where id = {JOBS} + 1031;
-- The one that a test records.
update apipay.jobs set token = '00000000-0000-0000-0000-00000000000f' where id = {JOBS} + 1021;
insert into apipay.attempts (job_id, epoch, account, kind, worker)
select id, epoch, account, 'send', '00000000-0000-0000-0000-000000000000' from apipay.jobs where state = 'sending';
insert into apipay.invoices (account, id, job_id, job_token, status, next_check_at)
select account, invoice_id, id, token, 'processing', now() - interval '1 hour' from apipay.jobs where state = 'accepted';
insert into apipay.refunds (account, id, job_id, invoice_id, status, next_check_at)
select account, invoice_id + 10000000, null, invoice_id, 'pending', now() - interval '1 hour' from apipay.jobs where state = 'accepted';
update apipay.accounts set state = 'parked', parked_at = now(), parked_reason = 'session_expired', parked_by = 'apipayd', probe_at = now()
where name in (select 'branch-' || n from generate_series(13, 22) n);
-- The second account has slowed down.
update apipay.accounts
   set failing_since = '2026-01-01 00:00Z', failing_code = 'timeout', failing_job = {JOBS} + 2011, failing_requests = 5,
       failing_trial_at = '2026-01-01 01:00Z', failing_ended_at = '2026-01-01 00:00Z',
       unanswered_since = '2026-01-01 00:00Z', answered_at = '2026-01-01 00:00Z'
where name = 'branch-2';
delete from apipay._reads;
insert into apipay._reads (account, kind, failing_since, requests, trial_at)
select 'branch-2', kind, '2026-01-01 00:00Z', 2, '2026-01-01 01:00Z'
  from unnest(array['look_up', 'check', 'code', 'refunds']) kind;
update apipay.jobs set failing_since = '2026-01-01 00:00Z'
where account = 'branch-2' and (reason = 'network' or state = 'uncertain');
-- Locks leave their mark on rows when they are gone.
select count(*) from (
  select from apipay.jobs where account = 'branch-1' and state in ('queued', 'uncertain') for no key update) as locked;
insert into apipay.alerts (account, kind, summary, action, details)
select name, kind, 'It is.', 'Look.', case kind when 'job_overdue' then jsonb_build_object('job', {JOBS} + 1001) else '{}' end
from apipay.accounts, unnest(array['account_parked', 'job_held', 'cap_reached', 'job_overdue', 'gateway_failing']) as kind
where state = 'parked' or (name in ('branch-1', 'branch-2') and kind <> 'account_parked');
insert into apipay.alerts (account, kind, subject, summary, action, details)
select 'branch-2', 'job_held', 'others', 'They are.', 'Look.', '{"jobs": 1}'
union all
select 'branch-1', 'job_held', n::text, 'It is.', 'Look.', jsonb_build_object('job', {JOBS} + n, 'reason', 'called_off_unseen') from generate_series(1001, 1010) n;
insert into apipay.alert_deliveries (alert_id, channel, status)
select id, 'log', 'firing' from apipay.alerts where resolved_at is null;

set session_replication_role = origin;
