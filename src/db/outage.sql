-- Stores what is known of how an account's sends go, if it is still what the decision was made on.
--
-- $1 account   $2 to $5 what was known: since, sends, trial, refused since
-- $6 to $14 what is known now   $15 whether it is over   $16 how long the account's row is waited for
with patience as materialized (select set_config('lock_timeout', $16, true)),
stored as (
  update apipay.accounts a
     set failing_since = $6, failing_code = $7, failing_status = $8, failing_message = apipay._mask_phones(left($9, 300)),
         failed_at = $10, failing_job = $11, failing_requests = $12, failing_trial_at = $13, refused_since = $14,
         failing_ended_at = case when $15 then now() else a.failing_ended_at end,
         resumed_at = case when $15 then now() else a.resumed_at end,
         -- Without a slow-down: policy::outage says whose time it changes.
         unanswered_since = case when ended.without_trials then a.failing_since else a.unanswered_since end,
         answered_at = case when ended.without_trials then now() else a.answered_at end, updated_at = now()
    from patience, (select $2::timestamptz is not null and $6::timestamptz is null and not $15 as without_trials) ended
   where a.name = $1 and a.failing_since is not distinct from $2 and a.failing_requests = $3
     and a.failing_trial_at is not distinct from $4 and a.refused_since is not distinct from $5
  returning a.name
)
select count(*) = 1 as "stored!" from stored
