-- Has the objects of accepted jobs asked about again that nobody follows, or too late (see unfollowed.sql). A mirror that
-- is missing is made again, as that of an object of which nothing was seen yet.
--
-- $1 the jobs; those that are not accepted any more, or that are followed, stay   $2 how long to wait for a lock
-- $3 codes that an account is to blame for   $4 seconds that they wait at the most once it is resumed
with patience as materialized (
  select set_config('lock_timeout', $2, true)
),
accepted as materialized (
  select j.id, j.token, j.account, j.operation, j.invoice_id, j.refund_id, j.reason,
         (select a.resumed_at from apipay.accounts a where a.name = j.account and a.state = 'active') as resumed_at
  from patience, apipay.jobs j
  where j.id = any ($1::bigint[]) and j.state = 'accepted' and j.invoice_id is not null
),
unfollowed as materialized (
  select j.*, coalesce(mirror.is_ended, true) as was_unfollowed from accepted j
  left join lateral (
    select i.settled as is_ended,
           j.reason = 'async_retry' and i.error_code = any ($3::text[]) and j.resumed_at >= i.changed_at
             and i.next_check_at > greatest(now(), i.changed_at + make_interval(secs => $4)) as is_too_late
    from apipay.invoices i
    where j.refund_id is null and i.account = j.account and i.id = j.invoice_id
    union all
    select r.settled or r.job_id is null,
           j.reason = 'async_retry' and r.error_code = any ($3) and j.resumed_at >= r.changed_at
             and r.next_check_at > greatest(now(), r.changed_at + make_interval(secs => $4))
    from apipay.refunds r
    where r.account = j.account and r.id = j.refund_id) mirror on true
  where coalesce(mirror.is_ended, true) or mirror.is_too_late
),
unfollowed_invoice as materialized (
  select u.account, u.invoice_id, min(u.id) filter (where u.operation = 'invoice.create') as made_by,
         (array_agg(u.token order by u.id) filter (where u.operation = 'invoice.create'))[1] as made_with
  from unfollowed u where u.refund_id is null group by u.account, u.invoice_id
),
invoice as (
  insert into apipay.invoices as m (account, id, job_id, job_token, status, next_check_at)
  select account, invoice_id, made_by, made_with, 'processing', now() from unfollowed_invoice
  on conflict (account, id) do update set settled = false, next_check_at = now()
  returning m.account, m.id, m.settled
),
refund as (
  insert into apipay.refunds as m (account, id, job_id, job_token, invoice_id, status, next_check_at)
  select account, refund_id, id, token, invoice_id, 'pending', now() from unfollowed where refund_id is not null
  on conflict (account, id) do update
     set settled = false, next_check_at = now(), job_id = coalesce(m.job_id, excluded.job_id),
         job_token = coalesce(m.job_token, excluded.job_token)
  returning m.account, m.id, m.settled
)
select id as "id!", was_unfollowed as "was_unfollowed!" from unfollowed
-- Once, whether there is one or not.
where (select apipay._all_changed('apipay.invoices', (select count(*) from unfollowed_invoice), count(*), count(*) filter (where not settled))
         from invoice)
  and (select apipay._all_changed('apipay.refunds', (select count(*) from unfollowed where refund_id is not null), count(*),
                                  count(*) filter (where not settled))
         from refund)
