-- Claims the refunds that are due for a check, with the accepted jobs that wait for them. One
-- request reads all refunds of an invoice.
--
-- $1 accounts   $2 most refunds per account   $3 seconds until another worker may try
-- $4 second of the quota   $5 mirrors that are left out   $6 the only ones to look at, or null
-- $7 how long to wait for a lock
with due as (
  select d.account, d.place_in_table, dense_rank() over (partition by d.account order by d.invoice_id) as request
  from unnest($1::text[]) as a(name)
  join apipay.accounts account on account.name = a.name
   and (account.state = 'active' or account.delivery_error is not null) and (account.blocked_until is null or account.blocked_until <= now())
  cross join lateral (
    select m.account, m.invoice_id, m.ctid as place_in_table from apipay.refunds m
    where m.account = a.name and not m.settled and m.next_check_at <= now()
      and m.account || ' ' || m.id <> all ($5::text[])
      and ($6::text[] is null or m.account || ' ' || m.id = any ($6))
    order by m.next_check_at
    limit $2
    for no key update of m skip locked) d
  where (select set_config('lock_timeout', $7, true)) is not null
),
granted as (
  select c.account, apipay._take_quota(c.account, c.wanted, 'follow', $4) as requests
  from (select account, max(request)::int as wanted from due group by account order by account) c
),
to_claim as materialized (
  select d.place_in_table from due d join granted g on g.account = d.account where d.request <= g.requests
),
claimed as (
  update apipay.refunds m
     set next_check_at = now() + make_interval(secs => $3)
   where m.ctid = any (array(select place_in_table from to_claim))
  returning m.account, m.id, m.invoice_id, m.job_id, m.job_token, m.status, m.amount, m.next_check_at, m.changed_at, m.created_at, coalesce(m.checked_at, m.created_at) as last_shown
)
select c.account as "account!", c.id as "refund_id?", c.invoice_id as "invoice_id!", maker.id as "made_by?", false as "is_superseded!", false as "may_be_unseens!",
       null::uuid as "unsought_of?", extract(epoch from now() - c.created_at)::float8 as "mirrored_for_s!",
       c.status as "status!", c.amount as "amount?", extract(epoch from now() - c.changed_at)::float8 as "unchanged_for_s!", c.last_shown as "last_shown!", least(now(), clock_timestamp()) as "now!",
       j.id as "job_id?", j.operation as "operation?", apipay._params_among_others(j.params) as params, j.token as "token?",
       j.generation as "generation?", j.spared as "spared?", j.epoch as "epoch?", j.attempts as "attempts?",
       -- What a job made has its mirror from that moment on.
       extract(epoch from now() - c.created_at)::float8 as "accepted_for_s?",
       (select extract(epoch from now() - a.resumed_at)::float8 from apipay.accounts a
         where a.name = c.account and a.state = 'active') as "resumed_for_s?"
from claimed c
left join lateral (
  select * from apipay.jobs where id = c.job_id and token = c.job_token
  offset 0) maker on true
left join lateral (
  select maker.* where maker.account = c.account and maker.refund_id = c.id and maker.state = 'accepted') j on true
where (select apipay._all_changed('apipay.refunds', (select count(*) from to_claim), (select count(*) from claimed),
                                  (select count(*) from claimed where next_check_at > now())))
