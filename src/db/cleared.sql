-- Ends the alerts whose cause is gone, each with what became of it (db::cleared says which causes there are).
--
-- $1 seconds for which an account has to stay active that was resumed without proof   $2 seconds for which no cap has to
-- block an account   $3 seconds for which this daemon has had the database
update apipay.alerts l
    set resolved_at = now(),
        resolution = case when l.kind in ('job_held', 'duplicate_detected') and l.subject = 'others' then 'no other job is held any more'
                          when l.kind in ('job_held', 'duplicate_detected') then coalesce(
                            (select case
                               when j.reason = 'called_off_unseen' and l.details ->> 'reason' = 'called_off_unseen' then 'ApiPay shows what it has of it' || coalesce(
                                 (select format(': invoice %s is %s', i.id, apipay._mask_phones(left(i.status, 100)))
                                    from (select account, id, status from apipay.invoices where job_id = j.id and job_token = j.token offset 0) i
                                   where i.account = j.account order by i.status in ('cancelled', 'expired', 'error'), i.id desc limit 1),
                                 (select format(': refund %s is %s', r.id, apipay._mask_phones(left(r.status, 100)))
                                    from (select id, status, job_id, job_token from apipay.refunds where account = j.account and invoice_id = j.invoice_id offset 0) r
                                   where r.job_id = j.id and r.job_token = j.token order by r.status = 'failed', r.id desc limit 1), '')
                               when j.reason = 'called_off_unseen'
                               then 'the job ended as somebody said, and ApiPay has not answered whether it has anything of it: look there before you enqueue a new job for it'
                               when j.state in ('accepted', 'succeeded') and exists (
                                 select from apipay.attempts t where t.job_id = j.id and t.kind = 'send' and t.started_at >= l.opened_at)
                               then 'ApiPay showed ' || apipay._shown_before_again(j.operation) || ', so it was sent again, and the job is ' || j.state || ' now'
                               when j.state = 'queued' and j.reason = 'not_applied'
                               then 'ApiPay showed ' || apipay._shown_before_again(j.operation) || ', and it is sent again in its turn'
                               when j.state in ('accepted', 'succeeded') then 'ApiPay shows that it was done, and the job is ' || j.state || ' now' end
                               from apipay.jobs j where j.id = (l.details ->> 'job')::bigint),
                            'the job is not held any more')
                          else case l.kind
                                 when 'invoice_revived' then 'the invoice is not to be paid any more, was refunded, or is the one that its job has'
                                 when 'refund_revived' then 'that refund has failed'
                                 when 'invoice_missing' then 'ApiPay shows all of it again, or it is not followed any more'
                                 when 'job_overdue' then coalesce(
                                   (select 'job ' || j.id || ' is ' || j.state || ' now' from apipay.jobs j where j.id = (l.details ->> 'job')::bigint),
                                   'the job is gone')
                                 when 'task_panicked' then 'an hour has passed since; another one is told again'
                                 when 'job_stuck' then case
                                   when exists (
                                     select from apipay.jobs j
                                     where j.id = (l.details ->> 'job')::bigint and j.state = l.details ->> 'state'
                                       and (j.epoch = (l.details ->> 'epoch')::bigint or apipay._is_looked_up(j.id, j.state, j.epoch)))
                                   then 'the apipayd that had the outcome in its memory has ended; what became of the job is asked about again'
                                   else 'the job has moved on' end
                                 when 'other_organization' then case
                                   when exists (select from apipay.accounts a where a.name = l.account and l.subject = any (a.key_fingerprints))
                                   then 'the key is known to be of the account''s organization'
                                   else 'no apipayd has this key for the account any more' end
                                 else 'the account may send again' end end
  where l.id = any (array(
    select l.id from apipay.alerts l
     where l.resolved_at is null
       and case l.kind
           -- An alert is opened just before the answer that it is about is recorded.
           when 'job_held' then case when l.subject = 'others' then l.opened_at < now() - interval '10 s' and not exists (
             select from (select apipay._told_held(l.account) as jobs offset 0) own
              cross join lateral (
                select from apipay.jobs j
                 where j.account = l.account and j.state = 'held' and j.id <> all (own.jobs) limit 1) others)
             -- It has ended and is not asked about: until a person has looked, or it is seen all the same. If it lives, that is
             -- told first; where there was no earlier one, what is dead was it.
             when l.details ->> 'reason' = 'called_off_unseen' then exists (select from (select * from apipay.jobs where id = (l.details ->> 'job')::bigint offset 0) j
              where j.state not in ('held', 'sending', 'uncertain') and j.reason is distinct from 'called_off_unseen'
                 or exists (select from (select account, id, status, settled, checked_at from apipay.invoices where job_id = j.id and job_token = j.token offset 0) i
                             where i.account = j.account
                               and case when i.status in ('cancelled', 'expired', 'error') then j.generation = 1 and i.checked_at > l.opened_at
                                        else i.settled or exists (
                                          select from apipay.alerts told
                                           where coalesce(told.account, '') = i.account and told.kind = 'invoice_revived' and told.resolved_at is null
                                             and told.details ->> 'invoice' = i.id::text) end)
                 or exists (select from apipay.refunds r where r.account = j.account and r.invoice_id = j.invoice_id and r.job_id = j.id and r.job_token = j.token
                               and (r.status <> 'failed' or j.generation = 1 and r.checked_at > l.opened_at)))
             else not exists (select from apipay.jobs j where j.id = (l.details ->> 'job')::bigint and j.state in ('held', 'sending', 'uncertain')) end
           when 'duplicate_detected' then not exists (
             select from apipay.jobs j
             where j.id = (l.details ->> 'job')::bigint and j.state in ('held', 'sending', 'uncertain', 'accepted'))
           when 'invoice_revived' then l.opened_at < now() - interval '10 s' and not exists (
             select from apipay.invoices i
             where i.account = l.account and i.id = (l.details ->> 'invoice')::bigint
               and i.status not in ('cancelled', 'expired', 'error')
               and (i.total_refunded >= i.amount) is not true
               -- It is what its job goes by. Another one of that job is told by itself.
               and not exists (
                 select from apipay.jobs j
                 where j.id = i.job_id and j.token = i.job_token and j.state in ('accepted', 'succeeded') and j.invoice_id = i.id
                   -- A job that cancelled it has said that it is not to be paid.
                   and not exists (
                     select from (select account, operation, state from apipay.jobs where invoice_id = i.id offset 0) c
                     where c.account = i.account and c.operation = 'invoice.cancel' and c.state = 'succeeded')
                   and coalesce((apipay._other_living(j.id, i.id)).job_id = j.id, true)))
           when 'refund_revived' then l.opened_at < now() - interval '10 s' and not exists (
             select from apipay.refunds r
             where r.account = l.account and r.id = (l.details ->> 'refund')::bigint and r.status <> 'failed')
           -- Each is named with the moment when it was last shown.
           when 'invoice_missing' then not exists (
             select from jsonb_each_text(l.details -> 'invoices') as told (id, shown)
              cross join lateral (
                select i.settled, coalesce(i.checked_at, i.created_at) as last_shown from apipay.invoices i
                 where i.account = l.account and i.id = told.id::bigint offset 0) m
              where not m.settled and m.last_shown <= told.shown::timestamptz)
             and not exists (
             select from jsonb_each_text(l.details -> 'refunds') as told (id, shown)
              cross join lateral (
                select r.settled, coalesce(r.checked_at, r.created_at) as last_shown from apipay.refunds r
                 where r.account = l.account and r.id = told.id::bigint offset 0) m
              where not m.settled and m.last_shown <= told.shown::timestamptz)
           -- The block may be over a moment before the next request meets the cap again.
           when 'cap_reached' then $3::float8 >= $2::float8 and exists (
             select from apipay.accounts a
             where a.name = l.account
               and (greatest(a.capped_until, case when l.details ->> 'stops' = 'everything' then a.blocked_until end)
                    <= now() - make_interval(secs => $2)) is not false)
           when 'task_panicked' then l.opened_at < now() - interval '1 hour'
           when 'job_overdue' then not exists (
             select from apipay.jobs j where j.id = (l.details ->> 'job')::bigint
                and (j.state = 'accepted' or l.details ? 'dropped' and j.state in ('queued', 'sending', 'uncertain', 'parked')))
           -- What was seen of an invoice or refund, until it is stored.
           when 'job_stuck' then case
             when l.details ? 'invoice' then exists (
               select from apipay.invoices i
               where i.account = l.account and i.id = (l.details ->> 'invoice')::bigint and i.checked_at > l.opened_at)
             when l.details ? 'jobs' then not exists (
               select from jsonb_each(l.details -> 'jobs') as told (job, was)
                cross join lateral (
                  select j.state, j.epoch from apipay.jobs j where j.id = told.job::bigint offset 0) j
                where j.state = told.was ->> 'state'
                  and (j.epoch = (told.was ->> 'epoch')::bigint or apipay._is_looked_up(told.job::bigint, j.state, j.epoch)))
             when l.details ? 'refund' then exists (
               select from apipay.refunds r
               where r.account = l.account and r.id = (l.details ->> 'refund')::bigint and r.checked_at > l.opened_at)
             else not exists (
             select from apipay.jobs j
             where j.id = (l.details ->> 'job')::bigint and j.state = l.details ->> 'state'
               and (j.epoch = (l.details ->> 'epoch')::bigint
                    -- Another daemon looks it up, and has not been refused what it found yet.
                    or l.details ? 'worker' and apipay._is_looked_up(j.id, j.state, j.epoch)))
               -- The outcome was in the memory of a daemon, which has ended.
               or l.details ? 'worker' and $3::float8 >= 20 and not exists (
                 select from apipay.daemons d
                 where d.worker::text = l.details ->> 'worker'
                   and d.seen_at > now() - case when d.has_left then interval '20 s' else interval '1 minute' end) end
           when 'account_parked' then exists (
               select from apipay.accounts a
               where a.name = l.account and a.state = 'active'
                 -- One that was never parked at all, whatever opened the alert, has been active since then.
                 and (($3::float8 >= $1::float8 and coalesce(a.resumed_at, l.opened_at) <= now() - make_interval(secs => $1))
                      or a.doubted_since is null and not a.parks_follow))
           when 'other_organization' then exists (
               select from apipay.accounts a
               where a.name = l.account and l.subject = any (a.key_fingerprints))
             -- One that was stopped may be on its way back with the same key.
             or $3::float8 >= 20 and not exists (
               select from apipay.daemons d
               where l.account || ' ' || l.subject = any (d.doubted)
                 and d.seen_at > now() - case when d.has_left then interval '20 s' else interval '1 minute' end)
           else false end
       for no key update skip locked))
