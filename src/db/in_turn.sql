-- The invoices that have refunds which wait for another one, and of each the refund whose turn has come, if it has.
--
-- $1 account and $2 invoice after which to begin   $3 most invoices   $4 jobs to pass over
with recursive waiting as (
  (select j.account, j.invoice_id + 0 as invoice_id, 1::bigint as nth from apipay.jobs j
    where j.state = 'queued' and j.reason = 'waits_for_refund' and (j.account, j.invoice_id + 0) > ($1::text, $2::bigint)
    order by j.account, j.invoice_id + 0
    limit 1)
  union all
  select next.account, next.invoice_id, w.nth + 1
  from waiting w
  cross join lateral (
    select j.account, j.invoice_id + 0 as invoice_id from apipay.jobs j
    where j.state = 'queued' and j.reason = 'waits_for_refund' and (j.account, j.invoice_id + 0) > (w.account, w.invoice_id)
    order by j.account, j.invoice_id + 0
    limit 1) next
  where w.nth < $3
)
select w.account as "account!", w.invoice_id as "invoice_id!", w.nth as "nth!", j.id as "job?", j.epoch as "epoch?", j.version as "version?"
from waiting w
left join lateral (
  select id, epoch, xmin::text as version from apipay.jobs
  where id = apipay._refund_in_turn(w.account, w.invoice_id, $4::bigint[])
  offset 0) j on true
order by w.nth
