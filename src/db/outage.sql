-- Stores what is known of an account's requests that got no clear answer, if it is still what the
-- decision was made on.
--
-- $1 account   $2 to $5 what was known: since, sends, trial, look-ups
-- $6 to $14 what is known now   $15 whether it is over   $16 how long the account's row is waited for
with patience as materialized (select set_config('lock_timeout', $16, true)),
stored as (
  update apipay.accounts a
     set failing_since = $6, failing_code = $7, failing_status = $8, failing_message = apipay._mask_phones(left($9, 300)),
         failing_job = $10, failing_requests = $11, failing_trial_at = $12, failing_reads = $13, failing_read_at = $14,
         resumed_at = case when $15 then now() else a.resumed_at end, updated_at = now()
    from patience
   where a.name = $1 and a.failing_since is not distinct from $2 and a.failing_requests = $3
     and a.failing_trial_at is not distinct from $4 and a.failing_reads = $5
  returning a.name
)
select count(*) = 1 as "stored!" from stored
