-- Claims due jobs within every limit and opens their attempts, in one statement. Those that it meets and that wait
-- for another job, or for the end of a cap, stand back from now on: they come back as they are, queued.
--
-- $1 worker   $2 lease in seconds
-- $3 accounts, in the order of their turns   $4 free slots of each   $5 free slots in all
-- $6 second of the quota   $7 jobs that are set aside   $8 the only jobs to look at, or null   $9 how long to wait for a lock
with recursive
slots as (
  select * from unnest($3::text[], $4::int[]) with ordinality as s(account, room, turn)
),
ready as (
  -- Only a first sieve: _take_quota below looks again, under a lock.
  select s.*, apipay._capped(a) as capped from slots s join apipay.accounts a on a.name = s.account
  where s.room > 0 and a.state = 'active' and (a.blocked_until is null or a.blocked_until <= now())
    -- One that has slowed down has its trials instead (claim_trials.sql).
    and a.failing_trial_at is null
    and not (select stopped from apipay._control)
    and (select set_config('lock_timeout', $9, true)) is not null
),
lanes as (
  -- The distinct priorities of each account from the highest on, one probe of the index each, until enough
  -- rows are due. Without it a lane of future jobs with a high priority would be read to its end.
  select r.account, r.room, r.turn, r.capped, first.priority, 1 as lane, 0::bigint as due_above
  from ready r cross join lateral (
    select j.priority from apipay.jobs j
    where j.account = r.account and j.state = 'queued' and apipay._is_in_turn(j.reason)
    order by j.priority desc limit 1) first
  union all
  select l.account, l.room, l.turn, l.capped, next.priority, l.lane + 1, l.due_above + here.jobs
  from lanes l
  cross join lateral (
    select j.priority from apipay.jobs j
    where j.account = l.account and j.state = 'queued' and apipay._is_in_turn(j.reason) and j.priority < l.priority
    order by j.priority desc limit 1) next
  cross join lateral (
    select count(*) as jobs from (
      select from apipay.jobs j
      where j.account = l.account and j.priority = l.priority and j.state = 'queued' and apipay._is_in_turn(j.reason)
        and j.run_at <= now()
        and l.priority > next.priority -- Counted only where there is another lane.
      order by j.run_at, j.id
      limit l.room) d) here
  where l.lane < 64 and l.due_above + here.jobs < l.room
),
in_lanes as (
  select l.account, l.room, l.turn, d.*
  from lanes l cross join lateral (
    select j.id, j.priority, j.run_at, j.expires_at, j.epoch,
           case when j.operation = 'invoice.refund' then j.invoice_id end as one_at_a_time,
           case when j.operation = any (l.capped) then 'waits_for_cap'
                -- One open refund per invoice; the unique index has the last word.
                when j.operation = 'invoice.refund' and j.unproven_since is null
                     and apipay._is_behind_refund(j.account, j.invoice_id, j.priority, j.run_at, j.id, $7)
                then 'waits_for_refund' end as waits
    from apipay.jobs j
    where j.account = l.account and j.priority = l.priority and j.state = 'queued' and apipay._is_in_turn(j.reason)
      and j.run_at <= now()
      and j.id <> all ($7::bigint[]) and ($8::bigint[] is null or j.id = any ($8))
      -- An expired one takes a place until apipay's expiry has ended it, so that a claim never reads through thousands
      -- of them. One that waits for another job, or for the end of a cap, takes one too, and then stands back. Where the
      -- first of a lane is such a one there may be very many, and some hundred more are read.
      and (j.expires_at is null or j.expires_at > now() or j.unproven_since is null)
    order by j.run_at, j.id
    limit l.room + case when exists (
        select from (
          select j.operation, j.unproven_since, j.expires_at, j.invoice_id, j.run_at, j.id from apipay.jobs j
          where j.account = l.account and j.priority = l.priority and j.state = 'queued' and apipay._is_in_turn(j.reason)
            and j.run_at <= now()
          order by j.run_at, j.id
          limit 1) j
        where j.operation = any (l.capped) or j.expires_at <= now()
          or (j.operation = 'invoice.refund' and j.unproven_since is null
              and apipay._is_behind_refund(l.account, j.invoice_id, l.priority, j.run_at, j.id, $7))) then 500 else 0 end
    for no key update of j skip locked) d
),
below as (
  -- Accounts whose lanes were too many to be walked, and brought too little: how much is wanted still.
  select w.*, w.room - (select count(*) from in_lanes d where d.account = w.account and d.waits is null) as wanted
  from (select account, room, turn, capped, min(priority) as lowest from lanes group by account, room, turn, capped) w
  where exists (
    select from apipay.jobs j
    where j.account = w.account and j.state = 'queued' and apipay._is_in_turn(j.reason) and j.priority < w.lowest
    offset 0)
),
by_age as (
  -- The same as above for what is below all those lanes, by age alone: with jobs_due (id > 0, + 0).
  select b.account, b.room, b.turn, d.*
  from below b cross join lateral (
    select j.id, j.priority, j.run_at, j.expires_at, j.epoch,
           case when j.operation = 'invoice.refund' then j.invoice_id end as one_at_a_time,
           case when j.operation = any (b.capped) then 'waits_for_cap'
                when j.operation = 'invoice.refund' and j.unproven_since is null
                     and apipay._is_behind_refund(j.account, j.invoice_id, j.priority, j.run_at, j.id, $7)
                then 'waits_for_refund' end as waits
    from apipay.jobs j
    where j.account = b.account and j.priority + 0 < b.lowest and j.state = 'queued' and j.id > 0
      and apipay._is_in_turn(j.reason) and j.run_at <= now()
      and j.id <> all ($7::bigint[]) and ($8::bigint[] is null or j.id = any ($8))
      and (j.expires_at is null or j.expires_at > now() or j.unproven_since is null)
    order by j.run_at, j.id
    limit greatest(b.wanted, 0)
    for no key update of j skip locked) d
),
met as (
  select * from in_lanes union all select * from by_age
),
standing_back as (
  update apipay.jobs j
     set reason = case when j.id = any (array(select id from met where waits = 'waits_for_cap')) then 'waits_for_cap' else 'waits_for_refund' end,
         updated_at = now()
   where j.id = any (array(select id from met where waits is not null))
  returning j.*
),
ranked as (
  select id, account, room, turn, epoch,
         row_number() over (partition by account order by priority desc, run_at, id) as place
  from (select *, row_number() over (partition by account, coalesce(one_at_a_time::text, 'job ' || id)
                                     order by priority desc, run_at, id) as among_equals
        from met
        where waits is null and (expires_at is null or expires_at > now())) d
  where among_equals = 1
),
chosen as (
  -- Everybody's first before anybody's second.
  select id, account, place, epoch from ranked where place <= room order by place, turn limit $5
),
granted as (
  -- Accounts are locked in the order of their names, so that two claims cannot wait for each other.
  select c.account, apipay._take_quota(c.account, c.wanted, 'send', $6) as requests
  from (select account, count(*)::int as wanted from chosen group by account order by account collate "C") c
),
to_claim as materialized (
  select c.id, c.epoch from chosen c join granted g on g.account = c.account where c.place <= g.requests
),
claimed as (
  -- An array, so that the plan is one look-up per job whatever the planner believes of the above.
  update apipay.jobs j
     -- A job that is retried alone ($8) may reuse the number of an earlier job whose attempts still exist; the new
     -- epoch begins above theirs.
     set state = 'sending', reason = null,
         epoch = 1 + case when $8 is null then j.epoch else greatest(j.epoch, (
           select max(t.epoch) from apipay.attempts t where t.job_id = j.id)) end,
         leased_by = $1, leased_until = now() + make_interval(secs => $2), updated_at = now()
   where j.id = any (array(select id from to_claim))
  returning j.*
),
taken as (
  -- A trigger may have had another row stored: of what did not become so nothing is sent, and no attempt is opened.
  -- A full join is hashed however few rows the planner expects; a loop would compare each row with each.
  select c.* from claimed c full join to_claim t on t.id = c.id
   where coalesce(c.state = 'sending' and c.leased_by = $1 and c.epoch > t.epoch, false)
),
opened as (
  insert into apipay.attempts (job_id, epoch, account, kind, worker)
  select id, epoch, account, 'send', $1 from taken
  returning job_id
)
select id as "id!", account as "account!", operation as "operation!", state as "state!",
       case when state = 'sending' then apipay._params_among_others(params) end as params, token as "token!",
       generation as "generation!", epoch as "epoch!", attempts as "attempts!", lookups as "lookups!",
       apipay._past(unproven_since) as unproven_since, apipay._past(absent_since) as absent_since,
       apipay._past(failing_since) as failing_since, coalesce(expires_at <= now(), false) as "is_expired!", false as "is_target_known!", null::timestamptz as sent_at,
       false as "is_repeated!", null::timestamptz as denied_since, invoice_id, false as "is_key_taken!", apipay._bytes(baseline::text) as baseline, null::jsonb as "stated?: Json<Stated>", retry_of is not null as "is_copy!",
       false as "is_unwanted!", least(now(), clock_timestamp()) as "now!"
from (select * from taken union all select * from standing_back) j
-- Once for all: nothing is sent of which the attempt was not stored.
where (select apipay._all_changed('apipay.jobs', (select count(*) from to_claim), (select count(*) from claimed), (select count(*) from taken)))
  and (select apipay._all_changed('apipay.attempts', (select count(*) from taken), (select count(*) from opened)))
  and (select apipay._all_changed('apipay.jobs', (select count(*) from met where waits is not null), (select count(*) from standing_back),
                                  (select count(*) from standing_back where not apipay._is_in_turn(reason))))
order by priority desc, run_at, id
