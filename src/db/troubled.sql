-- Accounts of whose requests people are or must be told: what they get in place of clear answers, the job
-- that has got none for longest, what waits for one, and the alert that is open.
--
-- $1 accounts   $2 seconds without a clear answer after which a job is told of   $3 codes of attempts that say nothing of the gateway
-- $4 jobs that are counted at most   $5 what the database's clock should show: one that was just set forward makes nothing old
select a.name as "account!", a.state = 'parked' as "is_parked!",
       a.failing_since, a.failing_code, a.failing_status, a.failing_message, a.failed_at, a.failing_job, a.failing_requests,
       a.failing_trial_at, a.refused_since,
       job.id as "job?", job.operation as "operation?", job.failing_since as "job_failing_since?", job.reason as "reason?",
       answer.http_status as "http_status?", answer.error_code as "error_code?",
       apipay._mask_phones(left(answer.message, 300)) as message, answer.asked_first as "asked_first?",
       case when job.state = 'uncertain' then 'look_up'
            when job.operation = 'invoice.refund' and answer.asked_first is not null then 'refunds' end as "waits_for?",
       coalesce(answer.is_left_out, false) as "is_left_out!",
       coalesce(others.jobs, 0) as "others!", apipay._awaited(a.name) as "awaited!",
       shown_first.bills as "bills!", shown_first.refunds as "refunds!", shown_first.in_words,
       alert.details ->> 'fails' as "told?", alert.id is not null as "is_open!", alert.summary as "summary?",
       alert.action as "action?",
       (select t.id || ' is ' || t.state from apipay.jobs t where t.id = (alert.details ->> 'job')::bigint) as "told_job?",
       -- Those that go on with their account, and of which it is not known yet whether they fail by themselves.
       (alert.id is not null and exists (
         select from apipay.jobs j
         where j.account = a.name and j.failing_since <= least(now(), $5) - make_interval(secs => $2)
           and j.failing_since <= a.failing_ended_at and j.state in ('queued', 'sending', 'uncertain')
           and (j.state = 'sending' or (j.state in ('queued', 'uncertain') and apipay._is_in_turn(j.reason) and j.updated_at <= a.failing_ended_at
                                        and a.failing_ended_at > now() - interval '1 minute')))) as "is_open_end!",
       array(select distinct d.host from apipay.daemons d
              where a.name = any (d.accounts) and not d.has_left and d.seen_at > now() - interval '1 minute' order by 1) as "hosts!"
from apipay.accounts a
left join lateral (
  -- The time counts to the newest request. A job that has only waited since is left out, so is one that waits for another
  -- job or for the end of a cap, and so is one that goes on with its account, until it has failed by itself. One that is
  -- tried comes before those that are looked up: where look-ups fail, all of these wait, and are told of as such.
  select j.id, j.operation, j.failing_since, j.reason, j.state from apipay.jobs j
  where j.account = a.name and j.failing_since <= least(now(), $5) - make_interval(secs => $2)
    and j.state in ('queued', 'sending', 'uncertain') and j.updated_at >= j.failing_since + make_interval(secs => $2)
    and (j.state <> 'queued' or apipay._is_in_turn(j.reason))
    and (a.failing_ended_at is null or j.failing_since > a.failing_ended_at
         or (j.state <> 'sending' and j.updated_at > a.failing_ended_at))
  order by j.state = 'uncertain', j.failing_since, j.id limit 1) job on a.state = 'active'
left join lateral (
  select count(*) as jobs from (
    select from apipay.jobs j
    where j.account = a.name and j.failing_since <= least(now(), $5) - make_interval(secs => $2)
      and j.state in ('queued', 'sending', 'uncertain') and j.updated_at >= j.failing_since + make_interval(secs => $2)
      and (j.state <> 'queued' or apipay._is_in_turn(j.reason))
      and (a.failing_ended_at is null or j.failing_since > a.failing_ended_at
         or (j.state <> 'sending' and j.updated_at > a.failing_ended_at))
      and j.id <> job.id
    limit $4) j) others on job.id is not null
left join lateral (
  select t.http_status, t.error_code, t.message,
         case when t.kind = 'send' then apipay._asked_first(t.request) end as asked_first,
         -- A check that shows invoices is answered; it did not show all that it was to.
         t.kind = 'send' and t.http_status = 200 and t.request ->> 'path' = '/invoices/status/check'
           and jsonb_typeof(t.answer -> 'invoices') = 'array' as is_left_out
    from apipay.attempts t
  where t.job_id = job.id and t.finished_at is not null
    and (t.effect = 'unknown' or (t.kind = 'send' and t.effect = 'not_applied'))
    -- A look-up that was answered, and found nothing, leaves what the send got.
    and not (t.kind = 'lookup' and t.http_status = 200 and jsonb_typeof(t.answer) = 'object')
    and t.http_status is distinct from 429 and coalesce(t.error_code, '') <> all ($3::text[])
  order by t.epoch desc limit 1) answer on true
cross join lateral apipay._to_be_shown(a.name) shown_first
left join apipay.alerts alert
  on coalesce(alert.account, '') = a.name and alert.kind = 'gateway_failing' and alert.resolved_at is null
where a.name = any ($1::text[])
  and (a.failing_since is not null or job.id is not null or alert.id is not null
       or exists (select from apipay._reads r where r.account = a.name and r.failing_since is not null))
order by a.name
