-- Claims the next check of each account whose turn it is, with the accepted jobs that wait for its invoices.
--
-- A check is due when an invoice is; it is filled up with those due soonest, for they cost nothing more.
-- Of one account one check is under way at a time.
-- $1 accounts   $2 invoices of a check   $3 seconds until another worker may try
-- $4 second of the quota   $5 most accounts   $6 mirrors that are left out   $7 the only ones to look at, or null
-- $8 how long to wait for a lock
with ready as (
  -- Only a first sieve: _take_check below looks again, under a lock.
  select a.name
  from unnest($1::text[]) as n(name)
  join apipay.accounts a on a.name = n.name
   and (a.state = 'active' or a.delivery_error is not null) and (a.blocked_until is null or a.blocked_until <= now())
  left join apipay._quotas q on q.account = a.name
  cross join lateral (
    select m.next_check_at from apipay.invoices m
    where m.account = a.name and not m.settled
      and m.account || ' ' || m.id <> all ($6::text[])
      and ($7::text[] is null or m.account || ' ' || m.id = any ($7))
    order by m.next_check_at
    limit 1) first
  where (select set_config('lock_timeout', $8, true)) is not null and first.next_check_at <= now() and apipay._is_check_due(q.check_from, make_interval(secs => $3))
  order by first.next_check_at
  limit $5
),
turn as (
  select r.name, apipay._take_check(r.name, make_interval(secs => $3), $4) as is_ours
  from (select name from ready order by name) r
),
due as (
  select d.place_in_table
  from turn t
  cross join lateral (
    select m.ctid as place_in_table from apipay.invoices m
    where m.account = t.name and not m.settled
      and m.account || ' ' || m.id <> all ($6)
      and ($7 is null or m.account || ' ' || m.id = any ($7))
    order by m.next_check_at
    limit $2
    for no key update of m skip locked) d
  where t.is_ours
),
claimed as (
  update apipay.invoices m
     set next_check_at = now() + make_interval(secs => $3),
         -- Once the job is gone there is nothing to search for.
         others_unsought = m.others_unsought and exists (
           select from apipay.jobs o where o.id = m.job_id and o.token = m.job_token)
   where m.ctid = any (array(select place_in_table from due))
  returning m.account, m.id, m.job_id, m.job_token, m.status, m.amount, m.next_check_at, m.changed_at, m.created_at, m.others_unsought, coalesce(m.checked_at, m.created_at) as last_shown
)
select c.account as "account!", c.id as "invoice_id!", null::bigint as "refund_id?", maker.id as "made_by?", c.status as "status!", c.amount as "amount?",
       coalesce(maker.goes_by_another, false) as "is_superseded!",
       case when c.others_unsought and maker.id is not null then c.job_token end as "unsought_of?",
       extract(epoch from now() - c.created_at)::float8 as "mirrored_for_s!",
       -- It may be what a job has at the gateway that ended while nobody knew of it.
       c.job_id is null and exists (
         select from apipay.alerts l
          where coalesce(l.account, '') = c.account and l.kind = 'job_held' and l.resolved_at is null
            and l.details ->> 'reason' = 'called_off_unseen') as "may_be_unseens!",
       extract(epoch from now() - c.changed_at)::float8 as "unchanged_for_s!", c.last_shown as "last_shown!", least(now(), clock_timestamp()) as "now!",
       j.id as "job_id?", j.operation as "operation?", apipay._params_among_others(j.params) as params, j.token as "token?",
       j.generation as "generation?", j.spared as "spared?", j.epoch as "epoch?", j.attempts as "attempts?",
       -- What a job made has its mirror from that moment on.
       extract(epoch from now() - case when j.id = maker.id then c.created_at else j.updated_at end)::float8 as "accepted_for_s?",
       (select extract(epoch from now() - a.resumed_at)::float8 from apipay.accounts a
         where a.name = c.account and a.state = 'active') as "resumed_for_s?"
from claimed c
-- Written so that the planner does not take the index of all accepted jobs: while few were, it believes that to be short.
left join lateral (
  select * from apipay.jobs where invoice_id = c.id and state = (select 'accepted')
  offset 0) j on j.account = c.account and j.refund_id is null
left join lateral (
  select o.id, (o.finished_at is not null or o.state = 'accepted') and o.invoice_id is distinct from c.id as goes_by_another
  from apipay.jobs o
  where o.id = c.job_id and o.token = c.job_token
  offset 0) maker on true
where (select apipay._all_changed('apipay.invoices', (select count(*) from due), (select count(*) from claimed),
                                  (select count(*) from claimed where next_check_at >= now() + make_interval(secs => $3))))
