-- Stores what is known of how the reads of one kind of an account go, if it is still what the decision was
-- made on; whoever claimed a read meanwhile has moved the trial only.
--
-- $1 account   $2 kind   $3 to $5 what was known: since, requests, refused since
-- $6 to $14 what is known now   $15 how long the row is waited for
with patience as materialized (select set_config('lock_timeout', $15, true)),
stored as (
  insert into apipay._reads as r
    (account, kind, failing_since, code, status, message, failed_at, job, requests, trial_at, refused_since)
  select $1, $2, $6, $7, $8, apipay._mask_phones(left($9, 300)), $10, $11, $12, $13, $14 from patience
  on conflict (account, kind) do update
     set failing_since = excluded.failing_since, code = excluded.code, status = excluded.status,
         message = excluded.message, failed_at = excluded.failed_at, job = excluded.job, requests = excluded.requests,
         trial_at = excluded.trial_at, refused_since = excluded.refused_since
   where r.failing_since is not distinct from $3 and r.requests = $4 and r.refused_since is not distinct from $5
  returning r.account
)
select count(*) = 1 as "stored!" from stored
