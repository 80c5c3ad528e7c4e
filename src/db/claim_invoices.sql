-- Claims the invoices that are due for a check, with the accepted jobs that wait for them.
--
-- $1 accounts   $2 most invoices per account   $3 invoices per request   $4 seconds until another worker may try
-- $5 second of the quota
with due as (
  select d.account, d.place_in_table, row_number() over (partition by d.account order by d.next_check_at, d.id) as place
  from unnest($1::text[]) as a(name)
  join apipay.accounts account on account.name = a.name
   and account.state = 'active' and (account.blocked_until is null or account.blocked_until <= now())
  cross join lateral (
    select m.account, m.id, m.next_check_at, m.ctid as place_in_table from apipay.invoices m
    where m.account = a.name and not m.settled and m.next_check_at <= now()
    order by m.next_check_at
    limit $2
    for no key update of m skip locked) d
),
granted as (
  select c.account, apipay._take_quota(c.account, c.wanted, 'follow', $5) as requests
  from (select account, ((count(*) + $3::int - 1) / $3::int)::int as wanted from due group by account order by account) c
),
claimed as (
  update apipay.invoices m
     set next_check_at = now() + make_interval(secs => $4)
   where m.ctid = any (array(
           select d.place_in_table from due d join granted g on g.account = d.account
           where d.place <= g.requests * $3::int))
  returning m.account, m.id, m.job_id, m.status, m.changed_at
)
select c.account as "account!", c.id as "invoice_id!", null::bigint as "refund_id?", c.job_id as "made_by?", c.status as "status!",
       extract(epoch from now() - c.changed_at)::float8 as "unchanged_for_s!", now() as "now!",
       j.id as "job_id?", j.operation as "operation?", j.params as "params?", j.token as "token?",
       j.generation as "generation?", j.epoch as "epoch?", j.attempts as "attempts?",
       extract(epoch from now() - j.updated_at)::float8 as "accepted_for_s?"
from claimed c
left join lateral (
  select * from apipay.jobs where apipay._about_invoice(invoice_id, params) = c.id and account = c.account
  offset 0) j on j.state = 'accepted' and j.invoice_id = c.id and j.refund_id is null
