-- Records decisions: closes attempts, moves jobs, writes mirrors, in one statement for a batch.
--
-- $1 an array of transitions, $2 of invoices, $3 of refunds (db::record has their fields), $4 how long to
-- wait for a lock. What is not there is null, or false.
-- A job moves only if it is the job that the decision was made for (ids come again after commits that were
-- lost, tokens do not), and still in that state, that epoch and that worker's hands. The attempt keeps its
-- evidence in any case, if it is an attempt of that job and that worker.
-- A mirror takes nothing that was seen before what it shows: an answer may have waited for the database. It is followed
-- for as long as an accepted job waits for its object that does not move with it: nothing else finds that job. So it is
-- until the other invoices were searched for that its job may have.
-- An invoice that was read for another job is given to the job whose mark it bears, if that ended unseen.
-- An object that is another job's is not taken (`instead` says what becomes of the job then), nor is its mirror changed.
with patience as materialized (
  select set_config('lock_timeout', $4, true)
),
told as materialized (
  select t.*, o.is_anothers_of
  from patience, jsonb_to_recordset($1::text::jsonb) as t(
    job_id bigint, token uuid, account text, worker uuid, epoch bigint, from_state text, kind text,
    effect text, http_status smallint, error_code text, message text, errors jsonb, retry_after_s float8,
    answer jsonb, request jsonb, request_sha256 text, duration_ms int,
    state text, reason text, after_s float8, counts boolean, looked boolean, unproven boolean, proven boolean, absent boolean, failing boolean, answered boolean,
    keeps_cause boolean, resubmitted boolean, spared boolean, invoice_id bigint, refund_id bigint, result jsonb,
    instead jsonb, owner bigint)
  cross join lateral (
    select case
      when t.owner is not null then t.owner
      when t.instead is null then null
      when t.refund_id is not null then coalesce(
        (select m.job_id from (select job_id, job_token from apipay.refunds where account = t.account and id = t.refund_id offset 0) m
          where m.job_token <> t.token),
        (select j.id from apipay.jobs j
          where j.invoice_id = t.invoice_id and j.account = t.account and j.refund_id = t.refund_id and j.id <> t.job_id limit 1))
      else coalesce(
        -- By itself: beside job_id a planner that has seen an empty table would take the index of that, and read all of it.
        (select m.job_id from (select job_id, job_token from apipay.invoices where account = t.account and id = t.invoice_id offset 0) m
          where m.job_token <> t.token),
        (select j.id from apipay.jobs j
          where j.invoice_id = t.invoice_id and j.account = t.account and j.operation = 'invoice.create' and j.id <> t.job_id limit 1))
      end as is_anothers_of
    offset 0) o
),
transition as materialized (
  select job_id, token, account, worker, epoch, from_state, kind, request, request_sha256, duration_ms, answer, http_status,
         retry_after_s, counts, looked, spared, resubmitted, instead, is_anothers_of,
         case when is_anothers_of is null then effect else 'unknown' end as effect,
         case when is_anothers_of is null then state else instead ->> 'state' end as state,
         case when is_anothers_of is null then reason else instead ->> 'reason' end as reason,
         case when is_anothers_of is null then after_s else (instead ->> 'after_s')::float8 end as after_s,
         case when is_anothers_of is null then unproven else kind = 'send' end as unproven,
         is_anothers_of is null and proven as proven, is_anothers_of is null and absent as absent,
         is_anothers_of is not null or failing as failing, is_anothers_of is null and answered as answered,
         is_anothers_of is null and keeps_cause as keeps_cause,
         case when is_anothers_of is null then invoice_id end as invoice_id,
         case when is_anothers_of is null then refund_id end as refund_id,
         case when is_anothers_of is null then result end as result,
         case when is_anothers_of is null then errors end as errors,
         case when is_anothers_of is null then error_code end as error_code,
         case when is_anothers_of is null then message
              else format('ApiPay showed %s as this job''s, and here it is that of %s',
                          coalesce('refund ' || refund_id, 'invoice ' || invoice_id),
                          case when is_anothers_of = job_id then 'an earlier job of the same number' else 'job ' || is_anothers_of end) end as message
  from told
),
moved as (
  update apipay.jobs j
     set state = t.state,
         reason = t.reason,
         attempts = j.attempts + coalesce(t.counts, false)::int,
         run_at = case when t.after_s is null then j.run_at else now() + make_interval(secs => t.after_s) end,
         leased_by = null,
         leased_until = null,
         -- What is cancelled or refunded stays what params name.
         invoice_id = case when j.operation <> 'invoice.create' then j.invoice_id
                           when t.resubmitted then null else coalesce(t.invoice_id, j.invoice_id) end,
         refund_id = case when t.resubmitted then null else coalesce(t.refund_id, j.refund_id) end,
         generation = j.generation + coalesce(t.resubmitted, false)::int,
         spared = j.spared + coalesce(t.spared, false)::int,
         baseline = case when t.resubmitted or (t.proven and t.state = 'queued') then null else j.baseline end,
         unproven_since = case when t.resubmitted or t.proven then null
                               when t.unproven then coalesce(j.unproven_since, now())
                               else j.unproven_since end,
         absent_since = case when t.absent then coalesce(j.absent_since, now())
                             when t.from_state = 'uncertain' and t.state = 'uncertain' then j.absent_since end,
         failing_since = case when t.failing then coalesce(j.failing_since, now())
                              when t.state in ('queued', 'uncertain') and t.answered is not true then j.failing_since end,
         lookups = case when t.state = 'uncertain' and t.from_state = 'uncertain' then j.lookups
                        when t.state = 'queued' and t.looked then j.lookups + 1 else 0 end,
         -- What somebody said of it is checked until the check decides.
         stated_id = case when t.state = 'uncertain' then j.stated_id end,
         stated_anyway = case when t.state = 'uncertain' then j.stated_anyway end,
         stated_unwanted = case when t.state = 'uncertain' then j.stated_unwanted end,
         -- Whatever is said of the last answer is of one: beside an error without a status none of an earlier answer stays.
         http_status = case when t.keeps_cause then j.http_status
                            when t.error_code is null and t.message is null then coalesce(t.http_status, j.http_status)
                            else t.http_status end,
         error_code = case when t.keeps_cause then j.error_code else t.error_code end,
         error_message = case when t.keeps_cause then j.error_message else t.message end,
         errors = case when t.keeps_cause then j.errors else t.errors end,
         result = t.result,
         updated_at = now(),
         finished_at = case when t.state in ('succeeded', 'failed', 'cancelled') then now() end
    from transition t
   where j.id = any (array(select job_id from transition))
     and j.id = t.job_id and j.token = t.token and j.account = t.account
     and j.epoch = t.epoch and j.state = t.from_state
     and j.leased_by is not distinct from case when t.from_state = 'sending' then t.worker end
  returning j.id, j.epoch, j.token, j.account, j.state, j.invoice_id, j.refund_id, j.operation = 'invoice.refund' as may_be_waited_for,
            t.is_anothers_of is not null as is_anothers,
            -- A trigger may have had another row stored. One that stays in its state shows it by when it last changed.
            j.state = t.state and j.epoch = t.epoch and (t.state <> t.from_state or j.updated_at >= now()) as is_so
),
to_close as materialized (
  select t.*, o.place
    from transition t
    cross join lateral (
      select ctid as place from apipay.attempts o
      where o.job_id = t.job_id and o.epoch = t.epoch and o.worker = t.worker and o.kind = t.kind
        and (o.finished_at is null or (o.effect = 'unknown' and o.http_status is null and o.answer is null))
      offset 0) o
    cross join lateral (
      select from apipay.jobs j where j.id = t.job_id and j.token = t.token and j.account = t.account
      offset 0) same
   where t.kind is not null
),
closed as (
  update apipay.attempts a
     set finished_at = coalesce(a.finished_at, now()), effect = t.effect, http_status = t.http_status,
         error_code = t.error_code, message = t.message, retry_after = make_interval(secs => t.retry_after_s),
         answer = t.answer, request = t.request, request_sha256 = t.request_sha256, duration_ms = t.duration_ms
    from to_close t
   where a.ctid = t.place
  returning a.finished_at is not null and a.effect is not distinct from t.effect as is_so
),
seen_invoice as materialized (
  select i.*
  from patience, jsonb_to_recordset($2::text::jsonb) as i(
    account text, id bigint, seen_at timestamptz, job_id bigint, token uuid, marked_token uuid, marked_generation smallint, status text, amount numeric, total_refunded numeric,
    external_order_id text, kaspi_invoice_id text, error_code text, error_message text, is_sandbox boolean,
    created_at timestamptz, updated_at timestamptz, paid_at timestamptz, paid boolean, shown_to text,
    check_after_s float8, settled boolean, others_unsought boolean)
  where i.token is null or i.token <> all (array(select token from told where is_anothers_of is not null))
),
seen_refund as materialized (
  select r.*
  from patience, jsonb_to_recordset($3::text::jsonb) as r(
    account text, id bigint, seen_at timestamptz, job_id bigint, token uuid, invoice_id bigint, status text, amount numeric,
    external_order_id text, reason text, error_code text, error_message text, created_at timestamptz, check_after_s float8,
    settled boolean)
  where r.token is null or r.token <> all (array(select token from told where is_anothers_of is not null))
),
waited_for as materialized (
  select j.account, j.invoice_id, j.refund_id
  from (select id from seen_invoice where settled union select invoice_id from seen_refund where settled) s
  cross join lateral (
    -- As in claim_invoices.sql: not by the index of all accepted jobs.
    select id, account, invoice_id, refund_id from apipay.jobs where invoice_id = s.id and state = (select 'accepted')
    offset 0) j
  where j.id not in (select id from moved)
  union all
  select account, invoice_id, refund_id from moved where state = 'accepted'
),
invoice as (
  insert into apipay.invoices as m
    (account, id, job_id, job_token, status, amount, total_refunded, external_order_id, kaspi_invoice_id, error_code,
     error_message, is_sandbox, gateway_created_at, gateway_updated_at, paid_at, shown_to, checked_at, next_check_at, settled, others_unsought)
  select i.account, i.id, made_by.id, made_by.token,
         i.status, i.amount, i.total_refunded, i.external_order_id, i.kaspi_invoice_id,
         i.error_code, i.error_message, i.is_sandbox, i.created_at, i.updated_at,
         -- Without its own word: when it last changed, at the latest. A check months later says no more than that.
         case when i.paid then coalesce(i.paid_at, least(i.updated_at, now())) end,
         i.shown_to, least(i.seen_at, now()), now() + make_interval(secs => i.check_after_s),
         i.settled and not coalesce(made_by.is_to_be_told, false) and i.others_unsought is not true
           and not exists (select from waited_for w where w.account = i.account and w.invoice_id = i.id and w.refund_id is null),
         coalesce(i.others_unsought, false)
  from seen_invoice i
  left join lateral (
    (select j.id, j.token, false as is_to_be_told from apipay.jobs j where j.id = i.job_id and j.token = i.token and j.account = i.account
     offset 0)
    union all
    -- Read for another job, with the mark of one that ended while nobody knew of it: those are few, and their alerts name
    -- them. If it lives, it is followed until that is told.
    (select j.id, j.token, i.status not in ('cancelled', 'expired', 'error') and not exists (
              select from apipay.alerts told
               where coalesce(told.account, '') = i.account and told.kind = 'invoice_revived' and told.resolved_at is null
                 and told.details ->> 'invoice' = i.id::text)
       from apipay.alerts l
      cross join lateral (
        select k.id, k.token, k.account, k.generation, k.reason from apipay.jobs k where k.id = (l.details ->> 'job')::bigint offset 0) j
      where i.marked_token is not null and coalesce(l.account, '') = i.account and l.kind = 'job_held' and l.resolved_at is null
        and l.details ->> 'reason' = 'called_off_unseen'
        and j.token = i.marked_token and j.generation = i.marked_generation and j.account = i.account and j.reason = 'called_off_unseen'
        and not exists (
          select from (select job_token from apipay.invoices where account = i.account and id = i.id offset 0) m
           where m.job_token <> j.token)
      limit 1)) made_by on true
  on conflict (account, id) do update
     set job_id = coalesce(m.job_id, excluded.job_id),
         job_token = coalesce(m.job_token, excluded.job_token),
         status = excluded.status,
         changed_at = case when m.status is distinct from excluded.status then now() else m.changed_at end,
         amount = coalesce(excluded.amount, m.amount),
         total_refunded = coalesce(excluded.total_refunded, m.total_refunded),
         external_order_id = coalesce(excluded.external_order_id, m.external_order_id),
         kaspi_invoice_id = coalesce(excluded.kaspi_invoice_id, m.kaspi_invoice_id),
         -- A check of many invoices shows no code: what was read before stays.
         error_code = case when excluded.status = 'error' then coalesce(excluded.error_code, m.error_code) end,
         error_message = case when excluded.status = 'error' then coalesce(excluded.error_message, m.error_message) end,
         is_sandbox = coalesce(excluded.is_sandbox, m.is_sandbox),
         gateway_created_at = coalesce(excluded.gateway_created_at, m.gateway_created_at),
         gateway_updated_at = coalesce(excluded.gateway_updated_at, m.gateway_updated_at),
         -- Each substitute for paid_at is an upper bound, so the earliest value is the best.
         paid_at = least(m.paid_at, excluded.paid_at),
         shown_to = excluded.shown_to,
         checked_at = excluded.checked_at,
         next_check_at = excluded.next_check_at,
         settled = excluded.settled and not m.others_unsought,
         others_unsought = m.others_unsought or excluded.others_unsought
   where not apipay._is_older(excluded.checked_at, m.checked_at)
  returning m.account, m.id, m.status, m.checked_at, m.job_token
),
refund as (
  insert into apipay.refunds as m
    (account, id, job_id, job_token, invoice_id, status, amount, external_order_id, reason, error_code, error_message,
     gateway_created_at, completed_at, checked_at, next_check_at, settled)
  select r.account, r.id, made_by.id, made_by.token,
         r.invoice_id, r.status, r.amount, r.external_order_id, r.reason, r.error_code, r.error_message,
         r.created_at, case when r.status = 'completed' then coalesce(least(r.created_at, now()), now()) end,
         least(r.seen_at, now()), now() + make_interval(secs => r.check_after_s),
         r.settled and not exists (select from waited_for w where w.account = r.account and w.refund_id = r.id)
  from seen_refund r
  left join lateral (
    select j.id, j.token from apipay.jobs j where j.id = r.job_id and j.token = r.token and j.account = r.account
    offset 0) made_by on true
  on conflict (account, id) do update
     set job_id = coalesce(m.job_id, excluded.job_id),
         job_token = coalesce(m.job_token, excluded.job_token),
         status = excluded.status,
         changed_at = case when m.status is distinct from excluded.status then now() else m.changed_at end,
         amount = coalesce(excluded.amount, m.amount),
         external_order_id = coalesce(excluded.external_order_id, m.external_order_id),
         reason = coalesce(excluded.reason, m.reason),
         completed_at = case when excluded.status = 'completed' then coalesce(m.completed_at, now()) end,
         error_code = excluded.error_code,
         error_message = excluded.error_message,
         gateway_created_at = coalesce(excluded.gateway_created_at, m.gateway_created_at),
         checked_at = excluded.checked_at,
         next_check_at = excluded.next_check_at,
         settled = excluded.settled
   where not apipay._is_older(excluded.checked_at, m.checked_at)
  returning m.account, m.id, m.status, m.checked_at, m.job_token
),
unstored as (
  select 'invoices' as mirrors, i.account, i.id, i.seen_at from seen_invoice i
   where (i.account, i.id) not in (select account, id from invoice)
  union all
  select 'refunds', r.account, r.id, r.seen_at from seen_refund r
   where (r.account, r.id) not in (select account, id from refund)
)
select id as "id!", epoch as "epoch!", token as "token!", may_be_waited_for as "may_be_waited_for!", is_anothers as "is_anothers!" from moved
-- Once, whether a job moved or not.
where (select bool_and(apipay._is_superseded(u.mirrors, u.account, u.id, u.seen_at)) from unstored u) is not false
  and (select apipay._all_changed('apipay.jobs', count(*), count(*), count(*) filter (where is_so)) from moved)
  and (select apipay._all_changed('apipay.attempts', (select count(*) from to_close), count(*), count(*) filter (where is_so)) from closed)
  and (select apipay._all_changed('apipay.invoices', count(*), count(*),
                                  count(*) filter (where m.status = i.status and m.checked_at = least(i.seen_at, now())))
         from invoice m join seen_invoice i on i.account = m.account and i.id = m.id)
  and (select apipay._all_changed('apipay.refunds', count(*), count(*),
                                  count(*) filter (where m.status = r.status and m.checked_at = least(r.seen_at, now())))
         from refund m join seen_refund r on r.account = m.account and r.id = m.id)
  -- Another job may have taken it at this very moment: then all of it is made again, and shows that.
  and (select apipay._is_undisputed(count(*)) from (
         select from told t join invoice m on m.account = t.account and m.id = t.invoice_id
          where t.instead is not null and t.is_anothers_of is null and t.refund_id is null and m.job_token <> t.token
         union all
         select from told t join refund m on m.account = t.account and m.id = t.refund_id
          where t.instead is not null and t.is_anothers_of is null and m.job_token <> t.token) disputed)
