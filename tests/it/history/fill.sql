-- Two years of a merchant with a thousand branches, of which the first has half of all, and the second
-- a quarter: {JOBS} finished jobs with what they leave behind, and beside them the little that is under way today.
set session_replication_role = replica;

-- The tests measure before the first ANALYZE and after it, so nobody else may run one.
alter table apipay.jobs set (autovacuum_enabled = off);
alter table apipay.attempts set (autovacuum_enabled = off);
alter table apipay.invoices set (autovacuum_enabled = off);
alter table apipay.refunds set (autovacuum_enabled = off);
alter table apipay.events set (autovacuum_enabled = off);
alter table apipay.alerts set (autovacuum_enabled = off);
alter table apipay.alert_deliveries set (autovacuum_enabled = off);
alter table apipay.accounts set (autovacuum_enabled = off);

insert into apipay.accounts (name, requests_per_minute)
select 'branch-' || n, 6000 from generate_series(1, 1000) n;

-- Twelve bills, four cancels and four refunds of twenty; of each operation some did not succeed.
insert into apipay.jobs
  (id, account, operation, params, dedup_key, state, reason, attempts, epoch, invoice_id, refund_id, http_status,
   created_at, updated_at, run_at, finished_at)
overriding system value
select n, 'branch-' || case when n % 2 = 0 then 1 when n % 4 = 1 then 2 else 1 + n % 1000 end, operation,
       case operation
         when 'invoice.create' then jsonb_build_object('phone_number', '87010000000', 'amount', 1000 + n % 5000, 'external_order_id', 'order-' || n)
         else jsonb_build_object('invoice_id', 10000000 + n) end,
       'event-' || n, state, case when state = 'failed' then 'rejected' end, 1, 1,
       case when operation <> 'invoice.create' or state = 'succeeded' then 10000000 + n end,
       case when operation = 'invoice.refund' and state = 'succeeded' then 20000000 + n end,
       200, at, at, at, at
from generate_series(1, {JOBS}) n
cross join lateral (
  select case when n / 8 % 20 < 12 then 'invoice.create' when n / 8 % 20 < 16 then 'invoice.cancel' else 'invoice.refund' end as operation,
         case n / 2 % 4 when 0 then (array['failed', 'cancelled', 'expired'])[1 + n % 3] else 'succeeded' end as state,
         now() - interval '2 years' * (1 - n::float8 / {JOBS}) - interval '1 day' as at) as made;
select setval('apipay.jobs_id_seq', {JOBS} + 1000000);

insert into apipay.attempts (job_id, epoch, account, kind, worker, started_at, finished_at, effect, http_status)
select id, 1, account, 'send', '00000000-0000-0000-0000-000000000000', created_at, created_at, 'applied', 200 from apipay.jobs;

insert into apipay.events (at, account, job_id, subject, subject_id, from_state, to_state, evidence)
select j.created_at, j.account, j.id, 'job', j.id::text, e.from_state, case e.to_state when 'end' then j.state else e.to_state end, '{"epoch": 1}'
from apipay.jobs j cross join (values ('queued', 'sending'), ('sending', 'accepted'), ('accepted', 'end')) as e(from_state, to_state);

insert into apipay.invoices (account, id, job_id, status, amount, external_order_id, checked_at, next_check_at, settled, created_at)
select account, invoice_id, case when operation = 'invoice.create' then id end, 'paid', 1000,
       coalesce(params ->> 'external_order_id', 'order-of-' || id), created_at, created_at, true, created_at
from apipay.jobs where invoice_id is not null;

insert into apipay.refunds (account, id, job_id, invoice_id, status, amount, checked_at, next_check_at, settled, created_at)
select account, refund_id, id, invoice_id, 'completed', 100, created_at, created_at, true, created_at
from apipay.jobs where refund_id is not null;

insert into apipay.alerts (account, kind, summary, action, opened_at, resolved_at, resolution)
select 'branch-' || 1 + n % 1000, (array['account_parked', 'job_held', 'cap_reached'])[1 + n % 3], 'It was.', 'None.',
       now() - make_interval(hours => n), now() - make_interval(hours => n - 1, secs => 1), 'It is over.'
from generate_series(2, {JOBS} / 30) n;
insert into apipay.alert_deliveries (alert_id, channel, notice, created_at, tries, delivered_at)
select l.id, c.name, n.name, l.opened_at, 1, l.resolved_at
from apipay.alerts l cross join (values ('log'), ('webhook')) as c(name) cross join (values ('firing'), ('resolved')) as n(name);

-- Today: a dozen accounts with a little of everything, ten parked ones.
insert into apipay.jobs
  (id, account, operation, params, dedup_key, state, reason, attempts, epoch, invoice_id, refund_id,
   leased_by, leased_until, unproven_since, expires_at, run_at)
overriding system value
select {JOBS} + account * 1000 + s.ordinality * 10 + nth, 'branch-' || account, 'invoice.create',
       jsonb_build_object('phone_number', '87010000000', 'amount', 1000, 'external_order_id', format('today-%s-%s-%s', account, s.state, nth)),
       format('today-%s-%s-%s', account, s.state, nth), s.state,
       case s.state when 'queued' then (array['network', 'retry_after', null])[nth] when 'parked' then 'session_expired' end, 1, 1,
       case when s.state = 'accepted' then 30000000 + account * 1000 + nth end, null,
       case when s.state = 'sending' then '00000000-0000-0000-0000-000000000000'::uuid end,
       case when s.state = 'sending' then now() - interval '1 min' end,
       case when s.state in ('uncertain', 'held') then now() - interval '1 hour' end,
       case when s.state = 'queued' and nth = 3 then now() - interval '1 min' end,
       case when s.state = 'queued' and nth = 2 then now() + interval '1 hour' else now() - interval '1 min' end
from generate_series(1, 22) as account
cross join unnest(array['queued', 'sending', 'uncertain', 'accepted', 'held', 'parked']) with ordinality as s(state, ordinality)
cross join generate_series(1, 3) as nth
where s.state in ('queued', 'parked') or account <= 12;
-- A third account waits for a hundred invoices at once.
insert into apipay.jobs (id, account, operation, params, dedup_key, state, attempts, epoch, invoice_id)
overriding system value
select {JOBS} + 100000 + nth, 'branch-3', 'invoice.cancel', jsonb_build_object('invoice_id', 30003100 + nth),
       'accepted-' || nth, 'accepted', 1, 1, 30003100 + nth
from generate_series(1, 100) as nth;
-- The one that a test records.
update apipay.jobs set token = '00000000-0000-0000-0000-00000000000f' where id = {JOBS} + 1021;
insert into apipay.attempts (job_id, epoch, account, kind, worker)
select id, epoch, account, 'send', '00000000-0000-0000-0000-000000000000' from apipay.jobs where state = 'sending';
insert into apipay.invoices (account, id, job_id, status, next_check_at)
select account, invoice_id, id, 'processing', now() - interval '1 hour' from apipay.jobs where state = 'accepted';
insert into apipay.refunds (account, id, job_id, invoice_id, status, next_check_at)
select account, invoice_id + 10000000, null, invoice_id, 'pending', now() - interval '1 hour' from apipay.jobs where state = 'accepted';
update apipay.accounts set state = 'parked', parked_at = now(), parked_reason = 'session_expired', parked_by = 'apipayd', probe_at = now()
where name in (select 'branch-' || n from generate_series(13, 22) n);
-- The second account has slowed down.
update apipay.accounts
   set failing_since = '2026-01-01 00:00Z', failing_code = 'timeout', failing_job = {JOBS} + 2011, failing_requests = 5,
       failing_trial_at = '2026-01-01 01:00Z', failing_reads = 2, failing_read_at = '2026-01-01 01:00Z'
where name = 'branch-2';
update apipay.jobs set failing_since = '2026-01-01 00:00Z'
where account = 'branch-2' and (reason = 'network' or state = 'uncertain');
-- Locks leave their mark on rows when they are gone.
select count(*) from (
  select from apipay.jobs where account = 'branch-1' and state in ('queued', 'uncertain') for no key update) as locked;
insert into apipay.alerts (account, kind, summary, action, details)
select name, kind, 'It is.', 'Look.', case kind when 'job_overdue' then jsonb_build_object('job', {JOBS} + 1001) else '{}' end
from apipay.accounts, unnest(array['account_parked', 'job_held', 'cap_reached', 'job_overdue', 'gateway_failing']) as kind
where state = 'parked' or (name in ('branch-1', 'branch-2') and kind <> 'account_parked');
insert into apipay.alert_deliveries (alert_id, channel, notice)
select id, 'log', 'firing' from apipay.alerts where resolved_at is null;

set session_replication_role = origin;
