-- Claims due jobs within every limit and opens their attempts, in one statement.
--
-- $1 worker   $2 lease in seconds
-- $3 accounts, in the order of their turns   $4 free slots of each   $5 free slots in all
-- $6 second of the quota
with recursive
slots as (
  select * from unnest($3::text[], $4::int[]) with ordinality as s(account, room, turn)
),
ready as (
  -- Only a first sieve: _take_quota below looks again, under a lock.
  select s.* from slots s join apipay.accounts a on a.name = s.account
  where s.room > 0 and a.state = 'active' and (a.blocked_until is null or a.blocked_until <= now())
    -- One that has slowed down has its trials instead (claim_trials.sql).
    and a.failing_trial_at is null
    and not (select stopped from apipay._control)
),
lanes as (
  -- The distinct priorities of each account, one probe of the index each. Without it a lane of
  -- future jobs with a high priority would be read to its end.
  select r.account, r.room, r.turn, first.priority
  from ready r cross join lateral (
    select j.priority from apipay.jobs j
    where j.account = r.account and j.state = 'queued'
    order by j.priority desc limit 1) first
  union all
  select l.account, l.room, l.turn, next.priority
  from lanes l cross join lateral (
    select j.priority from apipay.jobs j
    where j.account = l.account and j.state = 'queued' and j.priority < l.priority
    order by j.priority desc limit 1) next
),
due as (
  select l.account, l.room, l.turn, l.priority, d.id, d.run_at, d.one_at_a_time
  from lanes l cross join lateral (
    select j.id, j.run_at,
           case when j.operation = 'invoice.refund' then j.params ->> 'invoice_id' end as one_at_a_time
    from apipay.jobs j
    where j.account = l.account and j.priority = l.priority and j.state = 'queued' and j.run_at <= now()
      and (j.expires_at is null or j.expires_at > now())
      -- One open refund per invoice; the unique index has the last word.
      and not (j.operation = 'invoice.refund' and exists (
        select from apipay.jobs o
        where o.account = j.account and o.operation = 'invoice.refund'
          and (o.params ->> 'invoice_id') collate "C" = j.params ->> 'invoice_id'
          and (o.state in ('sending', 'uncertain', 'accepted', 'held')
               or (o.state in ('queued', 'parked') and o.unproven_since is not null and o.id <> j.id))))
    order by j.run_at, j.id
    limit l.room
    for no key update of j skip locked) d
),
ranked as (
  select id, account, room, turn,
         row_number() over (partition by account order by priority desc, run_at, id) as place
  from (select *, row_number() over (partition by account, coalesce(one_at_a_time, 'job ' || id)
                                     order by priority desc, run_at, id) as among_equals
        from due) d
  where among_equals = 1
),
chosen as (
  -- Everybody's first before anybody's second.
  select id, account, place from ranked where place <= room order by place, turn limit $5
),
granted as (
  -- Accounts are locked in the order of their names, so that two claims cannot wait for each other.
  select c.account, apipay._take_quota(c.account, c.wanted, 'send', $6) as requests
  from (select account, count(*)::int as wanted from chosen group by account order by account) c
),
claimed as (
  -- An array, so that the plan is one look-up per job whatever the planner believes of the above.
  update apipay.jobs j
     set state = 'sending', reason = null, epoch = j.epoch + 1,
         leased_by = $1, leased_until = now() + make_interval(secs => $2), updated_at = now()
   where j.id = any (array(
           select c.id from chosen c join granted g on g.account = c.account where c.place <= g.requests))
  returning j.*
),
opened as (
  insert into apipay.attempts (job_id, epoch, account, kind, worker)
  select id, epoch, account, 'send', $1 from claimed
)
select id as "id!", account as "account!", operation as "operation!", params as "params!", token as "token!",
       generation as "generation!", epoch as "epoch!", attempts as "attempts!", lookups as "lookups!",
       unproven_since, absent_since, failing_since, invoice_id, baseline, now() as "now!"
from claimed
order by priority desc, run_at, id
