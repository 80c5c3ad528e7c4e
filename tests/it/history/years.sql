-- Two years of a merchant with a thousand branches, of which the first has half of all, and the second
-- a quarter: {JOBS} finished jobs with what they leave behind.
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
  (id, token, account, operation, params, dedup_key, state, reason, attempts, epoch, invoice_id, refund_id, http_status,
   created_at, updated_at, run_at, finished_at, order_id)
overriding system value
select n, gen_random_uuid(), 'branch-' || case when n % 2 = 0 then 1 when n % 4 = 1 then 2 else 1 + n % 1000 end, operation,
       case operation
         when 'invoice.create' then jsonb_build_object('phone_number', '87010000000', 'amount', 1000 + n % 5000, 'external_order_id', 'order-' || n)
         else jsonb_build_object('invoice_id', 10000000 + n) end,
       'event-' || n, state, case when state = 'failed' then 'rejected' end, 1, 1,
       case when operation <> 'invoice.create' or state = 'succeeded' then 10000000 + n end,
       case when operation = 'invoice.refund' and state = 'succeeded' then 20000000 + n end,
       200, at, at, at, at, case when operation = 'invoice.create' then 'order-' || n end
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

insert into apipay.invoices (account, id, job_id, job_token, status, amount, external_order_id, checked_at, next_check_at, settled, created_at, paid_at)
select account, invoice_id, case when operation = 'invoice.create' then id end, case when operation = 'invoice.create' then token end, 'paid', 1000,
       coalesce(params ->> 'external_order_id', 'order-of-' || id), created_at, created_at, true, created_at, created_at
from apipay.jobs where invoice_id is not null;

insert into apipay.refunds (account, id, job_id, job_token, invoice_id, status, amount, checked_at, next_check_at, settled, created_at, completed_at)
select account, refund_id, id, token, invoice_id, 'completed', 100, created_at, created_at, true, created_at, created_at
from apipay.jobs where refund_id is not null;

insert into apipay.alerts (account, kind, summary, action, opened_at, resolved_at, resolution)
select 'branch-' || 1 + n % 1000, (array['account_parked', 'job_held', 'cap_reached'])[1 + n % 3], 'It was.', 'None.',
       now() - make_interval(hours => n), now() - make_interval(hours => n - 1, secs => 1), 'It is over.'
from generate_series(2, {JOBS} / 30) n;
insert into apipay.alert_deliveries (alert_id, channel, status, created_at, tries, delivered_at)
select l.id, c.name, n.name, l.opened_at, 1, l.resolved_at
from apipay.alerts l cross join (values ('log'), ('webhook')) as c(name) cross join (values ('firing'), ('resolved')) as n(name);

set session_replication_role = origin;
