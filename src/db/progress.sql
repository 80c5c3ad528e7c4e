-- What is due and should be moving, account by account, each with something that changes when it moves.
-- Reads no history: a few probes of an index for each account, and of what waits no more than it tells.
--
-- $1 seconds after which a daemon without a sign of life counts as dead
-- $2 invoices, and $3 refunds, of which is known, and told, that what is seen of them cannot be stored
with leases as materialized (
  -- Read once, not for each account: those that ran out, as many as one round of recovery takes.
  select j.id, j.epoch, j.account from apipay.jobs j
  where j.state = 'sending' and j.leased_until <= now() order by j.leased_until limit 500
),
unstored as materialized (
  -- What other daemons have told of.
  select l.account || ' ' || (l.details ->> 'invoice') as invoice, l.account || ' ' || (l.details ->> 'refund') as refund
  from apipay.alerts l where l.kind = 'job_stuck' and l.resolved_at is null and l.details ?| array['invoice', 'refund']
),
sending as materialized (
  select distinct j.account from apipay.jobs j where j.state = 'sending'
)
select a.name as "account!", case when may_send.yes then due.jobs else 0 end as "due_jobs!",
       coalesce(q.claimed_at::text, 'never') as "claimed!",
       -- As it was left by the last request: by now it can only be emptier.
       coalesce(apipay._quota_sum(q.used), 0) * 2 >= a.requests_per_minute as "is_quota_tight!",
       lookup.mark as "lookup?", undecided.id as "undecided?", checks.mark as "check?", lease.mark as "lease?",
       refused.sends as "refused_sends?", refused.reads as "refused_reads?", a.blocked_reason as "blocked_reason?",
       a.blocked_message as "blocked_message?",
       -- One that changes with each request is nothing to tell.
       case when a.blocked_until > now() + interval '1 minute' then a.blocked_until end as "blocked_until?",
       turn.mark as "turn?", probe.due_at as "probe?",
       exists (select from apipay.jobs j
                where j.account = a.name and j.state = 'queued' and j.expires_at < now() - interval '1 minute') as "has_expired!",
       (select count(*) from apipay.daemons d
         where d.seen_at > now() - make_interval(secs => $1) and not d.has_left and a.name = any (d.accounts)) as "served_by!",
       -- A sign of life is half a minute old at most (worker::organization).
       (select max(d.seen_at) from apipay.daemons d
         where d.seen_at > now() - make_interval(secs => $1) and not d.has_left and a.name = any (d.accounts)
        having max(d.seen_at) < now() - interval '30 s') as "silent_since?",
       a.state = 'parked' and a.parked_by <> 'apipayd' as "is_left_alone!",
       stopped.host as "stopped_host?", stopped.seen_at as "stopped_at?", coalesce(stopped.has_left, false) as "was_stopped_properly!",
       -- One of them may be about less than all of the account.
       array(select concat_ws(' ', l.kind, case l.kind when 'gateway_failing' then l.details ->> 'fails' when 'cap_reached' then l.details ->> 'stops' end)
               from apipay.alerts l
              where coalesce(l.account, a.name) = a.name and l.resolved_at is null
                -- What one daemon tells of itself explains nothing of the accounts of others.
                and (l.kind <> 'history_lost' or coalesce(l.details -> 'accounts' ? a.name, true)))
         -- A key that is refused is told as what it is, and its daemon serves nothing all the same.
         || case when exists (select from apipay.daemons d cross join lateral unnest(d.doubted) as one (key)
                               where d.seen_at > now() - make_interval(secs => $1) and not d.has_left and split_part(one.key, ' ', 1) = a.name)
                 then array['other_organization'] end as "open_alerts!",
       array(select k.job from apipay.alerts l
              cross join lateral (select l.details ->> 'job' as job
                                  union all
                                  select jsonb_object_keys(l.details -> 'jobs')
                                  union all
                                  -- What a daemon has in its memory goes with it.
                                  select jsonb_object_keys(theirs.jobs) from jsonb_each(l.details -> 'alike') as theirs (worker, jobs)
                                   where exists (select from apipay.daemons d
                                                  where d.worker::text = theirs.worker and not d.has_left and d.seen_at > now() - make_interval(secs => $1))) k
              where l.account = a.name and l.kind = 'job_stuck' and l.resolved_at is null and k.job is not null) as "stuck!"
from apipay.accounts a
left join apipay._quotas q on q.account = a.name
cross join lateral (
  select a.state = 'active' and (a.blocked_until is null or a.blocked_until <= now()) as yes) may_send
cross join lateral (
  -- Lane by lane, as the claim goes, past what is due later. Behind an open refund another one waits, and behind a
  -- cap what it is about.
  with recursive lanes as (
    select 1 as depth, (select j.priority from apipay.jobs j
                        where j.account = a.name and j.state = 'queued' and apipay._is_in_turn(j.reason)
                        order by j.priority desc limit 1) as priority
     where may_send.yes or (a.state = 'active' and a.refused_since is not null)
    union all
    select l.depth + 1, (select j.priority from apipay.jobs j
                         where j.account = a.name and j.state = 'queued' and apipay._is_in_turn(j.reason)
                           and j.priority < l.priority
                         order by j.priority desc limit 1)
    from lanes l where l.priority is not null and l.depth < 64
  )
  select count(*) as jobs from (
    select from lanes l cross join lateral (
      select j.id, j.operation, j.unproven_since, j.invoice_id, j.priority, j.run_at from apipay.jobs j
      where j.account = a.name and j.priority = l.priority and j.state = 'queued' and apipay._is_in_turn(j.reason)
        and j.run_at <= now()
        and (j.expires_at is null or j.expires_at > now())
      order by j.run_at, j.id limit 500) j
    where j.operation <> all (apipay._capped(a))
      and not (j.operation = 'invoice.refund' and j.unproven_since is null
               and apipay._is_behind_refund(a.name, j.invoice_id, j.priority, j.run_at, j.id, '{}'))
    limit 11) sample
) due
left join lateral (
  select j.id || ' ' || j.epoch as mark from apipay.jobs j
  where may_send.yes and j.account = a.name and j.state = 'uncertain' and j.run_at <= now()
  order by j.run_at, j.id limit 1) lookup on true
left join lateral (
  -- Of an account that nobody serves: the machine of the daemon that served it last, unless that one was started again
  -- without the account: one that came later serves others of its accounts there, and none served just these beside it.
  -- That it was stopped properly proves nothing: it may be meant to come back, and what else runs there may be another unit.
  select last.host, last.seen_at, last.has_left from (
    select d.worker, d.host, d.started_at, d.seen_at, d.accounts, d.has_left from apipay.daemons d
     where a.name = any (d.accounts) order by d.seen_at desc limit 1) last
  where not exists (
    -- One that runs on served it later, until its configuration was changed.
    select from apipay.daemons d where (d.dropped ->> a.name)::timestamptz > last.seen_at)
   and not exists (
    select from apipay.daemons d
     where d.seen_at > now() - make_interval(secs => $1) and not d.has_left and d.host = last.host
       and d.accounts && last.accounts
       and not exists (
         select from apipay.daemons beside
          where beside.host = last.host and beside.worker <> last.worker
            and beside.started_at < last.seen_at and beside.seen_at > last.started_at
            and beside.accounts @> d.accounts and d.accounts @> beside.accounts))
) stopped on true
left join lateral (
  -- A look-up without a clear answer is told otherwise, and one that finds nothing waits for its proof; these come
  -- to no answer at all.
  select j.id from (
    select j.id, j.lookups, j.reason from apipay.jobs j
    where may_send.yes and j.account = a.name and j.state = 'uncertain'
    order by j.run_at, j.id limit 500) j
  where j.lookups >= 5 and j.reason is distinct from 'lookup_unclear' and j.reason is distinct from 'lookup_absent'
  order by j.id limit 1) undecided on true
left join lateral (
  select least((select min(m.next_check_at) from apipay.invoices m
                 where m.account = a.name and not m.settled and m.next_check_at <= now()
                   and m.account || ' ' || m.id <> all ($2::text[] || array(select u.invoice from unstored u where u.invoice is not null))),
               (select min(m.next_check_at) from apipay.refunds m
                 where m.account = a.name and not m.settled and m.next_check_at <= now()
                   and m.account || ' ' || m.id <> all ($3::text[] || array(select u.refund from unstored u where u.refund is not null))))::text as mark
  where may_send.yes) checks on true
left join lateral (
  select l.id || ' ' || l.epoch as mark from leases l where l.account = a.name limit 1) lease on true
left join lateral (
  -- The gateway refuses all for the account's limit while something waits for it: due, told to wait itself,
  -- or being tried this moment; of what is only asked, whatever is not settled.
  select case when due.jobs > 0 or a.name in (select account from sending)
                or exists (select from apipay.jobs j where j.account = a.name and j.state in ('queued', 'uncertain')
                                                       and j.reason in ('retry_after', 'cap_reached'))
                -- A page that is not the gateway's proves nothing: what it answered is looked up, and waits to be sent again.
                or exists (
                  select from (
                    (select j.id from apipay.jobs j
                      where j.account = a.name and j.state = 'uncertain' order by j.run_at, j.id limit 500)
                    union all
                    (select j.id from apipay.jobs j
                      where j.account = a.name and j.state = 'queued' and apipay._is_in_turn(j.reason) and j.id > 0
                      order by j.run_at, j.id limit 500)) j
                  cross join lateral (
                    select t.http_status from apipay.attempts t
                     where t.job_id = j.id and t.kind = 'send' order by t.epoch desc limit 1) sent
                  where sent.http_status = 429)
              then a.refused_since end as sends,
         case when exists (select from apipay.jobs j where j.account = a.name and j.state = 'uncertain')
                or exists (select from apipay.invoices m where m.account = a.name and not m.settled)
                or exists (select from apipay.refunds m where m.account = a.name and not m.settled)
              then reads.since end as reads
  from (select min(r.refused_since) as since from apipay._reads r where r.account = a.name) reads
  where a.state = 'active' and coalesce(a.refused_since, reads.since) is not null) refused on true
left join lateral (
  -- A refund that waited for another one, whose turn has come: of the first invoices that have such.
  with recursive waiting as (
    select 1 as nth, (select min(j.invoice_id + 0) from apipay.jobs j
                      where j.account = a.name and j.state = 'queued' and j.reason = 'waits_for_refund') as invoice
    union all
    select w.nth + 1, (select min(j.invoice_id + 0) from apipay.jobs j
                       where j.account = a.name and j.state = 'queued' and j.reason = 'waits_for_refund'
                         and j.invoice_id + 0 > w.invoice)
    from waiting w where w.invoice is not null and w.nth < 100
  )
  select t.job || ' ' || t.invoice as mark
  from (select w.invoice, apipay._refund_in_turn(a.name, w.invoice, '{}') as job from waiting w where w.invoice is not null) t
  where t.job is not null
  limit 1) turn on true
cross join lateral (
  -- Where a probe is under way the next one lies ahead.
  select case when a.state = 'parked' and a.probe_at <= now() then a.probe_at end as due_at) probe
where due.jobs > 0 or lookup.mark is not null or undecided.id is not null or checks.mark is not null or lease.mark is not null
   or refused.sends is not null or refused.reads is not null or turn.mark is not null
   or probe.due_at is not null
   -- What the daemon has parked, or what waits behind a cap or a block, is looked after by nobody once it is in no
   -- configuration: no probe of it is made, and nothing of it goes on when that is over.
   or ((a.state = 'parked' and a.parked_by = 'apipayd' or a.state = 'active' and greatest(a.capped_until, a.blocked_until) > now())
       and not exists (select from apipay.daemons d
                        where d.seen_at > now() - make_interval(secs => $1) and not d.has_left and a.name = any (d.accounts))
       and (exists (select from apipay.jobs j where j.account = a.name and j.state = 'parked')
            or exists (select from apipay.jobs j where j.account = a.name and j.state = 'queued')
            or exists (select from apipay.jobs j where j.account = a.name and j.state = 'uncertain')
            or exists (select from apipay.jobs j where j.account = a.name and j.state = 'accepted')
            or exists (select from apipay.invoices m where m.account = a.name and not m.settled)
            or exists (select from apipay.refunds m where m.account = a.name and not m.settled)))
order by a.name
