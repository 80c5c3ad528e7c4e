-- Jobs that the gateway has refused again and again for a reason of their own: the last tries of each were refused,
-- for so long, although its account is well and no limit or cap of it is reached, which other alerts tell.
--
-- $1 accounts   $2 jobs that are told of: they may be under way   $3 tries   $4 seconds for which they last
-- $5 jobs that are looked at most   $6 what the database's clock should show
with candidate as materialized (
  select c.id, false as is_told
    from (select j.id, j.account, j.epoch, j.failing_since from apipay.jobs j
           where j.state = 'queued' and j.reason is not null and apipay._is_in_turn(j.reason)
           order by j.run_at limit $5) c
   where c.account = any ($1::text[]) and c.epoch >= $3 and c.failing_since is null and c.id <> all ($2::bigint[])
  union all
  select t.id, true from unnest($2) as t(id)
)
select j.account as "account!", j.id as "job!", j.operation as "operation!", first.started_at as "since!",
       last.http_status as "http_status?", last.error_code as "error_code?", apipay._mask_phones(left(last.message, 300)) as message
from candidate c
cross join lateral (select * from apipay.jobs where id = c.id offset 0) j
join apipay.accounts a on a.name = j.account
cross join lateral (
  select count(*) as tries, min(t.started_at) as since,
         bool_and(t.effect = 'not_applied' and t.http_status between 400 and 499) as are_refused
    from (select s.started_at, s.effect, s.http_status from apipay.attempts s
           where s.job_id = j.id and s.kind = 'send' and s.finished_at is not null and apipay._asked_first(s.request) is null
           order by s.epoch desc limit $3) t) sends
cross join lateral (
  select s.http_status, s.error_code, s.message from apipay.attempts s
   where s.job_id = j.id and s.kind = 'send' and s.finished_at is not null and apipay._asked_first(s.request) is null
   order by s.epoch desc limit 1) last
cross join lateral (
  select s.started_at from apipay.attempts s
   where s.job_id = j.id and s.kind = 'send' and apipay._asked_first(s.request) is null order by s.epoch limit 1) first
where j.account = any ($1) and j.state in ('queued', 'sending', 'uncertain', 'parked')
  and coalesce(j.reason <> all (array['cap_reached', 'waits_for_cap']), true)
  and (c.is_told or (a.state = 'active' and a.refused_since is null))
  and sends.tries >= $3 and sends.are_refused and sends.since <= least(now(), $6) - make_interval(secs => $4)
order by j.account, first.started_at, j.id
