-- What operators do. Each function takes a reason, which lands in apipay.events, and refuses what is
-- unsafe with a sentence that says what to do instead.
--
-- Each states its reason as the cause of its own statements and puts the earlier cause back; an error
-- does that by itself. (`set apipay.cause = ...` on the function would be shorter, but takes a superuser.)
-- Locks are taken in one order: job, then account, then alert. _resume, which starts at the account,
-- passes over a job that somebody has locked: parks, probes and trials wait for the account's row (claims
-- only for its row in _quotas), so nothing that holds it waits for another row, or works through many. The one exception
-- is _change_organization: nobody serves the account meanwhile, and its claims are held up first.
set search_path = pg_catalog, pg_temp;

-- A job is repeated once; then its copy is. Two people who retry the same job make one copy.
create unique index jobs_retry_of on apipay.jobs (retry_of) where retry_of is not null;

-- Accounts: park and resume. The daemon uses these two as well.

create function apipay._park(
  account_name text, why text, who text, probe_after interval, summary text, action text, details jsonb,
  said text default null, remedy text default null, delivery_error text default null,
  accepted_at timestamptz default null, job bigint default null, job_remedy text default null) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  current apipay.accounts;
  goes_on boolean;
  from_daemon text;
  stored apipay.accounts;
  is_free boolean;
begin
  select * into current from apipay.accounts where name = account_name for no key update;
  if not found then
    raise exception 'account "%" is unknown', account_name using errcode = 'invalid_parameter_value';
  end if;
  if current.state = 'parked' and (who = 'apipayd' or current.parked_by is distinct from 'apipayd') then
    return false;
  end if;
  -- What was accepted before a resumption says nothing of the account since.
  if current.resumed_at > accepted_at then
    return false;
  end if;
  -- Its health alone ended the last park, and was mistaken: this is the same one.
  goes_on := who = 'apipayd' and delivery_error is null and current.doubted_since is not null and current.resumed_from is not distinct from why;
  if current.state = 'parked' then
    -- What the daemon knew of the account still has to be mended.
    from_daemon := concat('taken over at ', apipay._clock(now()), ' from apipayd, which had parked it at ', apipay._clock(current.parked_at),
      ' for ', current.parked_reason, '; invoices that ApiPay accepts fail with ' || apipay._mask_phones(left(current.delivery_error, 200)),
      '; ApiPay said: ' || current.parked_message, '; to do about that: ' || current.parked_remedy);
  end if;
  update apipay.accounts
     set state = 'parked', parked_reason = why, parked_by = who,
         parked_at = coalesce(current.parked_at, case when goes_on then current.doubted_since end, now()),
         parked_message = apipay._mask_phones(left(said, 300)), parked_remedy = remedy, parked_job = job, parked_job_remedy = job_remedy, taken_over = from_daemon,
         delivery_error = _park.delivery_error, trial_from = null, doubted_since = null,
         probe_at = now() + probe_after, probes = case when goes_on then current.probes else 0 end, updated_at = now()
   where name = account_name
  returning * into stored;
  perform apipay._all_changed('apipay.accounts', 1, found::int,
    coalesce(stored.state = 'parked' and (stored.parked_reason, stored.parked_by) is not distinct from (why, who), false)::int);
  -- One that somebody keeps locked says so later (db::alerts::untold_parks).
  is_free := apipay._alert_is_free(account_name, 'account_parked');
  if current.state = 'active' then
    -- It may be open still: the account had been resumed without proof.
    if is_free then
      perform apipay._open_alert(account_name, 'account_parked', 'critical', summary, action, details);
      perform apipay._change_alert(account_name, 'account_parked', summary, action, details);
    end if;
    return true;
  end if;
  -- Taken over from the daemon: the account stays parked, now until an operator resumes it.
  if is_free then
    perform apipay._change_alert(account_name, 'account_parked', concat(summary, ' It was ', from_daemon, '.'),
      concat('see that what apipayd had parked it for is mended; then ', action), details);
  end if;
  return false;
end $$;
comment on function apipay._park(text, text, text, interval, text, text, jsonb, text, text, text, timestamptz, bigint, text) is
  'Parks an account and opens its alert. True when it became parked now. One that was resumed by its health alone, and is parked again for the same reason before anything got through, is parked since the same moment as before, and its probes go on. who is apipayd or a database role; an operator takes over what the daemon parked, not the other way round. No probe_after: no probe, an operator resumes it. said is the gateway''s own words, or the operator''s. With a delivery_error only a delivered invoice proves that it is well again; accepted_at is when the gateway accepted what failed: nothing is done when the account was resumed since. job is the one whose refusal parks it, and job_remedy what ends the park if nothing else is refused. Call it in the statement that parks a job.';

create function apipay._learn_of_park(
  account_name text, why text, summary text, action text, details jsonb, said text, remedy text,
  delivery_error text, job bigint default null, job_remedy text default null) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  current apipay.accounts;
  stored apipay.accounts;
begin
  select * into current from apipay.accounts where name = account_name for no key update;
  if not found or current.state <> 'parked' or current.parked_by <> 'apipayd'
     or (current.parked_reason = why and (_learn_of_park.delivery_error is null or current.delivery_error is not null)) then
    return false;
  end if;
  update apipay.accounts
     -- What was said of another reason says nothing of this one.
     set parked_reason = why,
         parked_message = coalesce(apipay._mask_phones(left(said, 300)), case when parked_reason = why then parked_message end),
         parked_remedy = remedy, parked_job = job, parked_job_remedy = job_remedy, delivery_error = coalesce(_learn_of_park.delivery_error, current.delivery_error),
         updated_at = now()
   where name = account_name
  returning * into stored;
  perform apipay._all_changed('apipay.accounts', 1, found::int, coalesce(stored.parked_reason = why, false)::int);
  if apipay._alert_is_free(account_name, 'account_parked') then
    perform apipay._change_alert(account_name, 'account_parked', summary, action, details);
  end if;
  return true;
end $$;
comment on function apipay._learn_of_park(text, text, text, text, jsonb, text, text, text, bigint, text) is
  'The daemon has learned that an account it parked is unwell for another reason: its row and its open alert say so; true when that is news.';

create function apipay._resume(account_name text, resolution text, who text, slow_start interval default null) returns int
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  current apipay.accounts;
  is_blocked boolean;
  is_capped boolean;
  follows boolean;
  stored apipay.accounts;
  waiting bigint[];
  one bigint;
  put_back int;
begin
  select * into current from apipay.accounts where name = account_name for no key update;
  if not found then
    raise exception 'account "%" is unknown', account_name using errcode = 'invalid_parameter_value';
  end if;
  -- An operator may have taken it over, or resumed it, while the daemon probed.
  if who = 'apipayd' and (current.state <> 'parked' or current.parked_by is distinct from 'apipayd') then
    return null;
  end if;
  -- A blocked account is not probed: a block that stands now came after the probe had begun. A cap says nothing of
  -- whether the account is well, nor the other way round.
  is_blocked := who = 'apipayd' and coalesce(current.blocked_until > clock_timestamp(), false);
  is_capped := who = 'apipayd' and coalesce(current.capped_until > clock_timestamp(), false);
  -- Bad jobs alternate with good ones: parks of one reason follow each other within the slow start.
  follows := who = 'apipayd' and coalesce(current.resumed_from = current.parked_reason and current.parked_at >= current.resumed_at
                                          and current.parked_at <= current.resumed_at + slow_start, false);
  update apipay.accounts
     set state = 'active', parked_reason = null, parked_at = null, parked_by = null, parked_message = null,
         parked_remedy = null, parked_job = null, parked_job_remedy = null, taken_over = null, delivery_error = null, trial_from = null, probe_at = null,
         probes = case when resolution is null then probes else 0 end,
         resumed_at = case when state = 'parked' then now() else resumed_at end,
         resumed_from = case when who = 'apipayd' then parked_reason end,
         doubted_since = case when resolution is null then parked_at end, parks_follow = follows,
         blocked_until = case when is_blocked then blocked_until end,
         blocked_reason = case when is_blocked then blocked_reason end,
         blocked_message = case when is_blocked then blocked_message end,
         capped_until = case when is_capped then capped_until end,
         capped_operations = case when is_capped then capped_operations end,
         capped_reason = case when is_capped then capped_reason end,
         capped_message = case when is_capped then capped_message end,
         -- Whoever knows that the gateway answers again has the next trial made at once.
         failing_trial_at = case when failing_trial_at > now() then now() else failing_trial_at end,
         -- It takes the place of the one that was due: should it fail, the next wait is as long as this one was. Fewer than
         -- three are no slow-down (policy::outage).
         failing_requests = case when failing_trial_at > now() then greatest(failing_requests - 1, least(failing_requests, 3)) else failing_requests end,
         updated_at = now()
   where name = account_name
  returning * into stored;
  -- It says that it is active, and how long it waits still.
  perform apipay._all_changed('apipay.accounts', 1, found::int,
    coalesce(stored.state = 'active' and (is_blocked or stored.blocked_until is null) and (is_capped or stored.capped_until is null), false)::int);
  -- With fewer than six nobody would be told of what fails any more (policy::outage).
  update apipay._reads set trial_at = now(), requests = greatest(requests - 1, least(requests, 6))
   where account = account_name and trial_at > now();
  -- Those that were told to wait themselves: as many as requests were refused for the rate.
  waiting := array(
    select id from apipay.jobs
    where not is_blocked and not (is_capped and reason = 'cap_reached')
      and account = account_name and state in ('queued', 'uncertain') and reason in ('retry_after', 'cap_reached')
      and run_at > now()
    limit 1000
    for no key update skip locked);
  begin
    update apipay.jobs set run_at = now(), updated_at = now() where id = any (waiting);
  exception when others then
    -- One of them is refused, as by a trigger: it waits for as long as it was told to, and keeps nothing else from going on.
    foreach one in array waiting loop
      begin
        update apipay.jobs set run_at = now(), updated_at = now() where id = one;
      exception when others then
        null;
      end;
    end loop;
  end;
  -- The daemon puts the parked ones back, now that the account is active (db::recover, Occasion::Release), but for those
  -- that end expired (Occasion::Expiry).
  select count(*) into put_back
    from (select from apipay.jobs
           where account = account_name and state = 'parked'
             and (unproven_since is not null or expires_at is null or expires_at > now())
           limit 10000) as parked;
  -- Without a resolution nothing has proven yet that it is well: its alert ends once it stays so. So does that of
  -- parks which follow each other, instead of ending and beginning with each of them.
  -- One that somebody keeps locked ends with the daemon's next rounds.
  if resolution is not null then
    if not follows and apipay._alert_is_free(account_name, 'account_parked') then
      perform apipay._resolve_alert(account_name, 'account_parked', resolution);
    end if;
    if not is_blocked and not is_capped and apipay._alert_is_free(account_name, 'cap_reached') then
      perform apipay._resolve_alert(account_name, 'cap_reached', resolution);
    end if;
  end if;
  perform apipay._notify('apipay_jobs', '');
  return put_back;
end $$;
comment on function apipay._resume(text, text, text, interval) is
  'Makes an account active again and resolves its alerts, if a resolution is given. who is apipayd or a database role: the daemon resumes what it parked itself, else nothing is done and null returned, and lifts neither a block after 429 nor a cap; an operator resumes everything. Where the daemon''s parks of one reason follow each other within slow_start, their alert stays open until the account has stayed active for a while. The daemon then puts its parked jobs back within moments (looked up first where a request is unproven). Returns how many jobs these are, 10000 for that many or more.';

create function apipay._delivered(account_name text, accepted_at timestamptz, resolution text, slow_start interval default null) returns int
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  perform from apipay.accounts a
    where a.name = account_name and a.parked_by = 'apipayd' and a.delivery_error is not null and a.parked_at < accepted_at
      for no key update;
  return case when found then apipay._resume(account_name, resolution, 'apipayd', slow_start) end;
end $$;
comment on function apipay._delivered(text, timestamptz, text, interval) is
  'Kaspi has delivered what the gateway accepted at this moment: an account that was parked before because that failed is well again. Returns as _resume does; null when it was not parked for that.';

-- What the public functions share. None of these raises: what is refused is returned as a sentence, and the function
-- that was called raises it, so that an error has one line of context.

create function apipay._missing(argument text) returns text
language sql immutable parallel safe
return format('%s is null: it must be given', argument);
comment on function apipay._missing(text) is 'The refusal of an argument that is missing.';

create function apipay._refusal(job apipay.jobs, wanted text, instead text) returns text
language sql immutable parallel safe
return format('job %s is %s: it cannot be %s; %s', job.id, job.state, wanted, instead);
comment on function apipay._refusal(apipay.jobs, text, text) is 'The refusal of an operator function: what the job is, and what to do instead.';

create function apipay._state_cause(cause text) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  before constant text := current_setting('apipay.cause', true);
begin
  perform set_config('apipay.cause', coalesce(cause, ''), true);
  return before;
end $$;
comment on function apipay._state_cause(text) is
  'States the cause of what follows in this transaction, for apipay.events; returns the one that was stated before.';

create function apipay._lock_job(job bigint) returns apipay.jobs
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  locked apipay.jobs;
begin
  select * into locked from apipay.jobs where id = job for update;
  return locked;
end $$;
comment on function apipay._lock_job(bigint) is 'The job, locked for the transaction; null when there is none.';

create function apipay._no_job(job bigint) returns text
language sql immutable parallel safe
return case when job is null then apipay._missing('job')
            else format('there is no job %s; the numbers of all jobs stand in apipay.overview', job) end;
comment on function apipay._no_job(bigint) is 'The refusal of a number that no job has, or of none.';

create function apipay._unknown_account(account_name text) returns text
language sql stable
return case
  when account_name is null then apipay._missing('account')
  when not exists (select from apipay.accounts where name = account_name) then
    format('account "%s" is unknown; known: %s', account_name,
      coalesce((select string_agg(name, ', ' order by name) from apipay.accounts), 'none yet')) end;
comment on function apipay._unknown_account(text) is 'The refusal of an account that does not exist, which names those that do; null when it exists.';

-- All jobs of an invoice: for people, for the follow-ups of the daemon, which want the accepted ones, and for
-- apipay.resolve.
create index jobs_invoice on apipay.jobs (invoice_id, state, account) where invoice_id is not null;

-- Jobs.

-- Why a final job may not be repeated; null when it may.
create function apipay._why_not_again(job apipay.jobs) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
  with copy as (select id, state from apipay.jobs where retry_of = job.id),
       alive as (select id, status from apipay.invoices
                  where job_id = job.id and job_token = job.token and status not in ('cancelled', 'expired', 'error') limit 1),
       dead as (select from apipay.invoices where job_id = job.id and job_token = job.token and status in ('cancelled', 'expired', 'error')),
       given_back as (select r.id, r.status from apipay.refunds r
                       where job.operation = 'invoice.refund' and r.account = job.account and r.invoice_id = job.invoice_id
                         and r.job_id = job.id and job_token = job.token and r.status <> 'failed' limit 1)
  select case
    when exists (select from copy) then
      (select format('job %s repeats it already and is %s: look at that one', id, state) from copy)
    when job.operation = 'invoice.create' and exists (select from alive) then
      (select format('its invoice %s is %s and a copy would bill the customer twice: insert a new job if you mean that', id, status) from alive)
    when job.state = 'succeeded' and not (job.operation = 'invoice.create' and exists (select from dead)) then
      'it has been done and a copy would do it twice: insert a new job if you mean that'
    when exists (select from given_back) and job.state <> 'succeeded' then
      (select format('its refund %s is %s and a copy would give the money back twice: insert a new job if you mean that', id, status) from given_back)
    -- A copy has a name of its own, by which nothing is found of what this one may have done.
    when job.reason = 'called_off_unseen' then
      'ApiPay has not answered whether it has anything of it and a copy could do it twice: look there, and insert a new job if there is nothing' end);
comment on function apipay._why_not_again(apipay.jobs) is
  'Why a copy of a final job could do something twice; null when it cannot (it had no effect, or its invoice is dead, or its refund has failed).';

create function apipay._why_not_retry(job apipay.jobs) returns text
language sql stable
return case
  when job.state = 'queued' then null
  when job.state = 'parked' then case (select state from apipay.accounts where name = job.account) when 'parked' then
    apipay._refusal(job, 'sent now', format('its account is parked: select apipay.resume(''%s'', ''why'') when the cause is gone', job.account)) end
  when job.state = 'uncertain' then apipay._refusal(job, 'sent again', format(
    'a request may have had its effect and the daemon is looking it up; if you know: select apipay.resolve(%s, true or false, ...)', job.id))
  when job.state = 'held' then apipay._refusal(job, 'sent again', format(
    'say first what the gateway did: select apipay.resolve(%s, true, ID, ''why'') or apipay.resolve(%s, false, null, ''why'')', job.id, job.id))
  when job.state in ('sending', 'accepted') then
    apipay._refusal(job, 'sent again', 'it is under way; wait for its end, apipay.overview says what comes next')
  -- What is looked at has to be what is true at this moment, and not what was when the transaction began.
  when current_setting('transaction_isolation') in ('repeatable read', 'serializable') then apipay._refusal(job, 'repeated', format(
    'whether a copy would do it twice is not seen in a transaction that is %s; say it in one of its own: begin isolation level read committed',
    current_setting('transaction_isolation')))
  else (select apipay._refusal(job, 'repeated', why.not_again) from (select apipay._why_not_again(job)) as why (not_again)
         where why.not_again is not null) end;
comment on function apipay._why_not_retry(apipay.jobs) is 'Why apipay.retry refuses a job; null when it does not.';

create function apipay.retry(job bigint, reason text default null) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  old constant apipay.jobs := apipay._lock_job(job);
  refusal constant text := apipay._why_not_retry(old);
  stored apipay.jobs;
  copy bigint;
  before text;
begin
  if old.id is null then
    raise exception using message = apipay._no_job(job), errcode = case when job is null then 'null_value_not_allowed' else 'no_data_found' end;
  end if;
  if refusal is not null then
    raise exception using message = refusal, errcode = 'object_not_in_prerequisite_state';
  end if;
  before := apipay._state_cause(retry.reason);
  if old.state in ('queued', 'parked') then
    update apipay.jobs
       set state = case when state = 'parked' then apipay._back_to(unproven_since) else state end,
           run_at = least(run_at, now()), reason = 'retried_by_user',
           -- A try takes the place of the one that was due: should it fail, the next wait is as long as this one was. Fewer
           -- than two would say that nothing was repeated (policy::reconcile). What waits for another reason, as for a limit of
           -- the gateway's, has counted no attempt (policy::outage::BACKED_OFF).
           attempts = case when old.state = 'queued' and old.run_at > now()
                                and old.reason = any (array['network', 'not_applied', 'server_error', 'busy'])
                           then greatest(attempts - 1, least(attempts, 2)) else attempts end,
           -- So does one that only asks before the job is sent.
           lookups = case when old.run_at > now() and old.reason = 'earlier_unseen' then greatest(lookups - 1, 0) else lookups end,
           updated_at = now()
     where id = job
    returning * into stored;
    perform apipay._all_changed('apipay.jobs', 1, found::int, coalesce(stored.reason = 'retried_by_user' and stored.run_at <= now(), false)::int);
  else
    insert into apipay.jobs (account, operation, params, priority, metadata, traceparent, retry_of)
    values (old.account, old.operation, old.params, old.priority, old.metadata, old.traceparent, old.id)
    returning id into copy;
    perform apipay._all_changed('apipay.jobs', 1, found::int);
    insert into apipay.events (account, job_id, subject, subject_id, to_state, reason, evidence)
    values (old.account, copy, 'job', copy::text, 'queued', coalesce(retry.reason, 'retried_by_user'),
            jsonb_build_object('retry_of', old.id));
  end if;
  perform apipay._notify('apipay_jobs', '');
  perform apipay._state_cause(before);
  return coalesce(copy, job);
end $$;
comment on function apipay.retry(bigint, text) is
  'Makes a waiting job due now and returns its id; of a final job enqueues a copy (retry_of, a new token) and returns the copy''s id. Refused where it could do something twice. Many at once: apipay.retry_jobs.';

create function apipay._why_not_cancel(job apipay.jobs) returns text
language sql immutable parallel safe
return case when job.state in ('queued', 'parked') and job.unproven_since is null then null
else apipay._refusal(job, 'cancelled', case
  when job.operation = 'invoice.create' and job.invoice_id is not null and job.state in ('accepted', 'succeeded') then
    format('the gateway has invoice %s; to cancel that: select apipay.cancel_invoice(%s, account => ''%s'')', job.invoice_id, job.invoice_id, job.account)
  when job.state = 'sending' then 'its request is in flight; wait for the answer'
  when job.state in ('queued', 'parked') then 'an earlier request of it may have had its effect; it is looked up first'
  when job.state = 'uncertain' then format(
    'a request may have had its effect and the daemon is looking it up; if you know that it had none: select apipay.resolve(%s, false, null, ''why'', and_cancel => true)', job.id)
  when job.state = 'held' then format(
    'say what the gateway did: if it did it, select apipay.resolve(%s, true, ID, ''why''); if not, this ends it unsent: select apipay.resolve(%s, false, null, ''why'', and_cancel => true)', job.id, job.id)
  when job.state = 'accepted' then 'the gateway has taken it; it is followed to its end'
  else 'how it ended never changes' end) end;
comment on function apipay._why_not_cancel(apipay.jobs) is 'Why apipay.cancel refuses a job; null when it does not.';

create function apipay.cancel(job bigint, reason text default null) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  old constant apipay.jobs := apipay._lock_job(job);
  refusal constant text := apipay._why_not_cancel(old);
  stored apipay.jobs;
  before text;
begin
  if old.id is null then
    raise exception using message = apipay._no_job(job), errcode = case when job is null then 'null_value_not_allowed' else 'no_data_found' end;
  end if;
  if refusal is not null then
    raise exception using message = refusal, errcode = 'object_not_in_prerequisite_state';
  end if;
  before := apipay._state_cause(cancel.reason);
  update apipay.jobs
     set state = 'cancelled', reason = 'cancelled_by_user', finished_at = now(), updated_at = now()
   where id = job
  returning * into stored;
  perform apipay._all_changed('apipay.jobs', 1, found::int, coalesce(stored.state = 'cancelled', false)::int);
  perform apipay._state_cause(before);
  return job;
end $$;
comment on function apipay.cancel(bigint, text) is
  'Cancels a job of which nothing was ever sent; returns its id. Refused for any other, with what to do instead. To cancel an invoice at the gateway use apipay.cancel_invoice; many jobs at once, apipay.cancel_jobs.';

-- Many at once: each refusal is its own job's answer. In the order of their numbers, so that two people who name the
-- same jobs wait for each other and no more.
create function apipay.cancel_jobs(jobs bigint[], reason text default null)
returns table (job bigint, cancelled boolean, why_not text)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  for job in select distinct named from unnest(jobs) as named where named is not null order by named loop
    begin
      perform apipay.cancel(job, cancel_jobs.reason);
      cancelled := true;
      why_not := null;
    exception when others then
      cancelled := false;
      why_not := sqlerrm;
    end;
    return next;
  end loop;
end $$;
comment on function apipay.cancel_jobs(bigint[], text) is
  'apipay.cancel for many jobs: a row for each, with why not where it was refused; the others are cancelled all the same.';

create function apipay.retry_jobs(jobs bigint[], reason text default null)
returns table (job bigint, retried_as bigint, why_not text)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  for job in select distinct named from unnest(jobs) as named where named is not null order by named loop
    begin
      retried_as := apipay.retry(job, retry_jobs.reason);
      why_not := null;
    exception when others then
      retried_as := null;
      why_not := sqlerrm;
    end;
    return next;
  end loop;
end $$;
comment on function apipay.retry_jobs(bigint[], text) is
  'apipay.retry for many jobs: a row for each, with the job that goes out (itself or its copy), or why not where it was refused.';

-- Whose an object of the gateway is already: by its mirror, by the jobs themselves, and by what is being checked.
create function apipay._owner(
  account_name text, of_operation text, gateway_id bigint, of_invoice bigint, but_token uuid) returns bigint
language sql stable set search_path = pg_catalog, pg_temp
return case of_operation
  when 'invoice.create' then coalesce(
    (select m.job_id from apipay.invoices m where m.account = account_name and m.id = gateway_id and m.job_token <> but_token limit 1),
    (select j.id from apipay.jobs j
      where j.invoice_id = gateway_id and j.account = account_name and j.operation = 'invoice.create' and j.token <> but_token limit 1),
    (select j.id from apipay.jobs j
      where j.account = account_name and j.operation = 'invoice.create' and j.stated_id = gateway_id and j.token <> but_token limit 1))
  when 'invoice.refund' then coalesce(
    (select m.job_id from apipay.refunds m where m.account = account_name and m.id = gateway_id and m.job_token <> but_token limit 1),
    (select j.id from apipay.jobs j
      where j.invoice_id = of_invoice and j.account = account_name and j.refund_id = gateway_id and j.token <> but_token limit 1),
    (select j.id from apipay.jobs j
      where j.account = account_name and j.operation = 'invoice.refund' and j.stated_id = gateway_id and j.token <> but_token limit 1)) end;
comment on function apipay._owner(text, text, bigint, bigint, uuid) is
  'The other job of an account, than the one with this token, to which an invoice (of a create) or a refund (of this invoice) belongs; null when none is known, and for a cancel, which makes nothing.';

-- Copies bill the same customer for the same thing. Each job has one copy at most, so they are a chain.
create function apipay._other_living(bill bigint, but_invoice bigint) returns apipay.invoices
language sql stable set search_path = pg_catalog, pg_temp
return (
  with recursive earlier as (
    select j.id, j.token, j.account, j.retry_of, 0 as step from apipay.jobs j where j.id = bill
    union all
    select o.id, o.token, o.account, o.retry_of, e.step + 1
      from earlier e cross join lateral (select id, token, account, retry_of from apipay.jobs where id = e.retry_of offset 0) o
     where o.account = e.account and e.step < 100),
  later as (
    select id, token, account, step from earlier where step = 0
    union all
    select o.id, o.token, o.account, l.step + 1
      from later l cross join lateral (select id, token, account from apipay.jobs where retry_of = l.id offset 0) o
     where o.account = l.account and l.step < 100)
  select m
    from (
      select i.account, i.id
        from (select id, token, account, step from earlier union select id, token, account, step from later) c
        cross join lateral (
          select account, id, status from apipay.invoices where job_id = c.id and job_token = c.token offset 0) i
       where i.account = c.account and i.id <> but_invoice and i.status not in ('cancelled', 'expired', 'error')
       order by c.step, i.id desc
       limit 1) living
    join apipay.invoices m on m.account = living.account and m.id = living.id);
comment on function apipay._other_living(bigint, bigint) is
  'Another invoice than this one that may be paid, or was, of a bill, of what it repeats, or of its copies; that of the job itself comes first. Null when there is none.';

create function apipay._object_of(job apipay.jobs) returns text
language sql immutable parallel safe
return case job.operation when 'invoice.refund' then 'refund' else 'invoice' end;
comment on function apipay._object_of(apipay.jobs) is 'The noun for the object whose id apipay.resolve takes: invoice or refund.';

-- A look-up that is made at once, because somebody named an object, moves run_at and so ends no quiet period. It is measured
-- by the time of the call: the transaction may have begun long before. However far ahead the end is, it counts: a daemon
-- brings back what a clock that was wrong has set too far (db/bounds.rs).
create function apipay._at_work_until(job apipay.jobs) returns timestamptz
language sql volatile parallel safe
return greatest(case when job.state = 'uncertain' and job.lookups = 0 and job.run_at > clock_timestamp() then job.run_at end,
                case when job.quiet_until > clock_timestamp() then job.quiet_until end);
comment on function apipay._at_work_until(apipay.jobs) is 'Until when the last request of a job may still be at work; null when that is over.';

create function apipay._why_not_resolve(
  job apipay.jobs, applied boolean, gateway_id bigint, anyway boolean, and_cancel boolean, out message text, out code text)
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  -- What the gateway's id is an id of.
  object constant text := apipay._object_of(job);
  other bigint;
begin
  code := 'invalid_parameter_value';
  if applied is null then
    code := 'null_value_not_allowed';
    message := apipay._missing('applied');
  elsif job.state not in ('held', 'uncertain') then
    code := 'object_not_in_prerequisite_state';
    message := apipay._refusal(job, 'resolved', case
      when job.finished_at is not null then 'how it ended never changes'
      else 'only a held or uncertain job waits for that; apipay.overview says what comes next' end);
  elsif not applied and gateway_id is not null then
    message := 'gateway_id is given although nothing was applied: give one or the other';
  elsif applied and and_cancel then
    message := 'and_cancel is given although it was applied: give one or the other; an invoice is cancelled by apipay.cancel_invoice';
  elsif gateway_id < 1 then
    message := 'gateway_id is not an id of the gateway: a whole number from 1';
  elsif not applied and and_cancel and apipay._at_work_until(job) is not null then
    code := 'object_not_in_prerequisite_state';
    message := apipay._refusal(job, 'resolved so', format('its request may still be at work; wait until %s', apipay._at_work_until(job)));
  elsif applied and job.operation = 'invoice.cancel' then
    if gateway_id <> job.invoice_id then
      message := format('job %s is about invoice %s, not %s', job.id, job.invoice_id, gateway_id);
    elsif coalesce(gateway_id, job.invoice_id) is null then
      code := 'null_value_not_allowed';
      message := apipay._missing(format('gateway_id (the id of the %s)', object));
    end if;
  elsif applied and gateway_id is null then
    code := 'null_value_not_allowed';
    message := apipay._missing(format('gateway_id (the id of the %s)', object));
  elsif applied then
    code := 'object_not_in_prerequisite_state';
    select m.invoice_id into other from apipay.refunds m
     where object = 'refund' and m.account = job.account and m.id = gateway_id and m.invoice_id <> job.invoice_id;
    if found then
      message := apipay._refusal(job, 'resolved so', format('refund %s is of invoice %s, not %s', gateway_id, other, job.invoice_id));
      return;
    end if;
    other := apipay._owner(job.account, job.operation, gateway_id, job.invoice_id, job.token);
    -- Should it carry this job's name at ApiPay, that is stronger than what is stored here: the look-up decides.
    if other is not null and anyway is not true then
      message := apipay._refusal(job, 'resolved so', format('%s %s belongs to %s', object, gateway_id,
          case when other = job.id then 'an earlier job of the same number' else format('another job (%s)', other) end)
        || case when object = 'invoice' then '; if it carries this job''s own name at ApiPay, add anyway => true, and ApiPay is asked' else '' end);
    end if;
  end if;
end $$;
comment on function apipay._why_not_resolve(apipay.jobs, boolean, bigint, boolean, boolean) is
  'Why apipay.resolve refuses what was said of a job, with the code of the error; no message when it does not.';

-- Whatever was sent of it was sent before the account was given to the organization that it is for now.
create function apipay._is_elsewhere(job apipay.jobs) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
return coalesce((
  select job.reason = 'other_organization' or newest.sent_at < a.organization_since
    from apipay.accounts a
    cross join lateral (
      select max(t.started_at) as sent_at
        from (select started_at from apipay.attempts where job_id = job.id and kind = 'send' offset 0) t) newest
   where a.name = job.account and a.organization_since is not null), false);
comment on function apipay._is_elsewhere(apipay.jobs) is
  'Whether what was sent of a job can only be at another organization than the one that its account is for now: the account''s present key shows nothing of it.';

create function apipay._denied() returns timestamptz
language sql immutable parallel safe
return timestamptz '2000-01-01 00:00:00+00';
comment on function apipay._denied() is
  'Since when nothing was found of a job of which a person said that nothing was done: so long that one look-up more which finds nothing is enough, once what was sent would be shown.';

-- Whether ApiPay is asked before it is believed that nothing was done. No request is ever sent on a word alone, and none that
-- may have had its effect ends on one: what a bill or a refund has made carries its job's name, and whether an invoice was
-- cancelled it shows itself. A cancel that is to end has nothing that anybody could pay. An invoice of another organization
-- cannot be asked for with the key of this one, so that a person's word is all there is of what was to be done to it.
create function apipay._is_asked_first(job apipay.jobs, and_cancel boolean) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
return case job.operation
  when 'invoice.create' then true
  when 'invoice.cancel' then not and_cancel and not apipay._is_elsewhere(job)
  else not apipay._is_elsewhere(job) end;
comment on function apipay._is_asked_first(apipay.jobs, boolean) is
  'Whether a held or uncertain job of which somebody says that nothing was done is looked up before it is sent again, or, with and_cancel, before it ends.';

create function apipay.resolve(
  job bigint, applied boolean, gateway_id bigint default null, reason text default null, anyway boolean default false,
  and_cancel boolean default false) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  old constant apipay.jobs := apipay._lock_job(job);
  at_work_until constant timestamptz := apipay._at_work_until(old);
  refusal record := apipay._why_not_resolve(old, applied, gateway_id, anyway, and_cancel);
  stored apipay.jobs;
  unclosed bigint;
  changed bigint;
  closed bigint;
  before text;
  violated text;
begin
  if old.id is null then
    raise exception using message = apipay._no_job(job), errcode = case when job is null then 'null_value_not_allowed' else 'no_data_found' end;
  end if;
  if refusal.message is not null then
    raise exception using message = refusal.message, errcode = refusal.code;
  end if;
  before := apipay._state_cause(resolve.reason);

  if (not applied and (old.state = 'held' or and_cancel)) or (applied and anyway and apipay._is_elsewhere(old)) then
    -- A send that was never closed would stand in the way of the next one, and of the end.
    unclosed := (select count(*) from apipay.attempts a where a.job_id = job and a.kind = 'send' and a.finished_at is null);
    with closing as (
      update apipay.attempts a
         set finished_at = clock_timestamp(), effect = 'unknown', message = 'closed by apipay.resolve'
       where a.job_id = job and a.kind = 'send' and a.finished_at is null
      returning a.finished_at)
    select count(*), count(*) filter (where finished_at is not null) into changed, closed from closing;
    perform apipay._all_changed('apipay.attempts', unclosed, changed, closed);
  end if;
  if not applied and (apipay._is_asked_first(old, and_cancel)
                      or (not and_cancel and (old.state = 'uncertain' or at_work_until is not null))) then
    -- The request may still be at work, or what it did may be found, so the look-up comes first, when that is over. That it
    -- finds nothing once is enough now, when what was sent would be shown (reconcile.settle): then it is sent again, or ends.
    -- Without a clear answer it is not sent.
    update apipay.jobs
       set state = 'uncertain', reason = 'resolved_not_applied', run_at = coalesce(at_work_until, now()),
           lookups = case when state = 'held' then 0 else lookups end, attempts = case when state = 'held' then 0 else attempts end,
           unproven_since = coalesce(unproven_since, now()), absent_since = apipay._denied(), denied_at = now(), stated_id = null, stated_anyway = null,
           -- What has failed before that says nothing of what comes.
           stated_unwanted = nullif(and_cancel, false), failing_since = null, epoch = epoch + 1, updated_at = now(),
           -- Whoever says so of a held refund has told it from the refunds that do not say whose they are.
           baseline = case when state = 'held' then baseline || '{"is_told_apart": true}' else baseline end,
           -- The invoice of another organization is not asked for.
           invoice_id = case when operation <> 'invoice.create' or not apipay._is_elsewhere(old) then invoice_id end
     where id = job
    returning * into stored;
  elsif applied and anyway and apipay._is_elsewhere(old) then
    -- What another organization has cannot be asked for with the key of this one: a person's word is all there is.
    update apipay.jobs
       set state = 'succeeded', reason = 'resolved_applied', finished_at = now(), unproven_since = null, absent_since = null,
           invoice_id = case when operation = 'invoice.create' then gateway_id else invoice_id end,
           refund_id = case when operation = 'invoice.refund' then gateway_id else refund_id end,
           stated_id = null, stated_anyway = null, stated_unwanted = null, epoch = epoch + 1, updated_at = now()
     where id = job
    returning * into stored;
  elsif not applied then
    update apipay.jobs
       set state = case when and_cancel then 'cancelled' else 'queued' end, reason = 'resolved_not_applied',
           finished_at = case when and_cancel then now() end, run_at = now(), unproven_since = null, absent_since = null,
           lookups = 0, attempts = 0, stated_id = null, stated_anyway = null, stated_unwanted = null, epoch = epoch + 1, updated_at = now()
     where id = job
    returning * into stored;
    update apipay.alerts l
       set resolved_at = greatest(clock_timestamp(), l.opened_at), resolution = coalesce(resolve.reason, 'the job is not held any more')
     where coalesce(l.account, '') = old.account and l.kind in ('job_held', 'duplicate_detected') and l.resolved_at is null
       and l.details -> 'job' = to_jsonb(job);
  else
    -- What was said is checked by the look-up, at once. Until then nothing is believed, and an open alert stays open.
    begin
      update apipay.jobs
         set state = 'uncertain', reason = 'resolved_applied', run_at = now(), quiet_until = at_work_until, stated_anyway = coalesce(anyway, false), stated_unwanted = null,
             stated_id = case when operation = 'invoice.cancel' then coalesce(gateway_id, invoice_id) else gateway_id end,
             unproven_since = coalesce(unproven_since, now()), absent_since = null, failing_since = null, lookups = 0, epoch = epoch + 1, updated_at = now()
       where id = job
      returning * into stored;
    exception when unique_violation then
      get stacked diagnostics violated = constraint_name;
      if violated <> 'jobs_stated' then
        raise;
      end if;
      -- Somebody else has named it at the same moment.
      refusal := apipay._why_not_resolve(old, applied, gateway_id, anyway, and_cancel);
      raise exception using errcode = 'object_not_in_prerequisite_state', message = coalesce(refusal.message,
        apipay._refusal(old, 'resolved so', format('%s %s was named for another job at this moment', apipay._object_of(old), gateway_id)));
    end;
  end if;
  perform apipay._all_changed('apipay.jobs', 1, (stored.id is not null)::int,
    coalesce(stored.epoch > old.epoch and stored.reason in ('resolved_applied', 'resolved_not_applied'), false)::int);
  if stored.state = 'uncertain' then
    -- What its alert asks for is done, and it says so from now on. Nobody is told of that; but should the job be held again,
    -- that is told, even if it is for the same reason (_tell_held).
    update apipay.alerts l
       set details = l.details || jsonb_build_object('answered_at', now()),
           summary = format('Job %s of account %s was held. Somebody said at %s that it was %s, and ApiPay is being asked whether that is so.',
             job, old.account, to_char(now() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"'),
             case when applied then format('done, as %s %s', apipay._object_of(stored), stored.stated_id)
                  when and_cancel then 'not done and is to end' else 'not done' end),
           action = format('nothing is to do now. Nothing of the job is sent before ApiPay has answered; this alert ends then, or says why the job is held again.%s How it stands: select explain from apipay.overview where id = %s;',
             case when and_cancel then ' Without a clear answer for reconcile.give_up the job ends all the same: see then in ApiPay''s dashboard that nothing of it is there, before you enqueue a new job for it.' end, job)
     where l.id = any (array(
       select a.id from apipay.alerts a
        where coalesce(a.account, '') = old.account and a.kind in ('job_held', 'duplicate_detected') and a.resolved_at is null
          and a.details -> 'job' = to_jsonb(job)
          for no key update skip locked));
  end if;

  perform apipay._notify('apipay_jobs', '');
  perform apipay._state_cause(before);
  return job;
end $$;
comment on function apipay.resolve(bigint, boolean, bigint, text, boolean, boolean) is
  'Tells of a held or uncertain job whether the gateway did it: applied with the id of the invoice or refund there, or not applied: then it is sent again once the gateway has shown clearly that nothing of it is there, and never on that word alone: without a clear answer for reconcile.give_up it is held again. With and_cancel it ends cancelled and is never sent, a bill or a refund once nothing alive of it was shown, or once there was no clear answer for so long. What lives with its name holds it again. An id is checked at the gateway at once: it is taken and followed if it exists, is no other job''s, and agrees in amount, payer and order; otherwise the job is held again, and its alert names both. anyway takes an object that differs in amount, payer or order, and believes what was said of a job that was sent while the account was for another organization, of which the gateway cannot be asked. Returns the job''s id.';

-- Accounts and all sending.

create function apipay._ends_of_park(account_name text) returns text
language sql immutable parallel safe
return format('select apipay.resume(''%1$s'', ''why''); if it is to stay parked, this has it told no more: '
  'select apipay.acknowledge(id, ''why'') from apipay.alerts where kind = ''account_parked'' and account = ''%1$s'' and resolved_at is null;', account_name);
comment on function apipay._ends_of_park(text) is 'What to do about an account that an operator has parked: what ends that, and what has it told no more.';

create function apipay.park(account text, reason text default null) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  -- As text of a variable: a name's collation, C, would pass to all arguments of _park beside it, and
  -- compared so an account's name finds no index.
  who constant text := session_user;
  unknown constant text := apipay._unknown_account(park.account);
  before text;
  parked boolean;
begin
  if unknown is not null then
    raise exception using message = unknown,
      errcode = case when park.account is null then 'null_value_not_allowed' else 'invalid_parameter_value' end;
  end if;
  before := apipay._state_cause(park.reason);
  parked := apipay._park(park.account, 'parked_by_user', who, null,
    format('Account "%s" was parked by %s%s.', park.account, who, coalesce(': ' || nullif(park.reason, ''), '')),
    apipay._ends_of_park(park.account), '{}', nullif(park.reason, ''));
  perform apipay._state_cause(before);
  return parked;
end $$;
comment on function apipay.park(text, text) is
  'Stops sending for one account until apipay.resume; true when it became parked now. What is in flight is finished.';

-- What is asked in vain before a job is sent, and look-ups that got no clear answer. A try takes the place of the one that was
-- due, as in apipay.retry.
create function apipay._make_due(jobs bigint[]) returns int
language sql volatile set search_path = pg_catalog, pg_temp as $$
  with due as (
    update apipay.jobs j
       set run_at = least(run_at, now()), updated_at = now(),
           attempts = case when state = 'queued' and reason <> 'earlier_unseen' then greatest(attempts - 1, least(attempts, 2)) else attempts end,
           lookups = case when state = 'uncertain' then greatest(lookups - 1, 1)
                          when reason = 'earlier_unseen' then greatest(lookups - 1, 0) else lookups end
     where j.id = any (_make_due.jobs)
    returning j.run_at)
  select count(*)::int from due where run_at <= now();
$$;
comment on function apipay._make_due(bigint[]) is
  'Makes jobs due that back off until they are asked about again; returns how many are due now. Should it fail, their next wait is as long as this one was.';

-- Jobs come before the account. One that somebody has locked is passed over.
create function apipay._ask_now(account_name text) returns int
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  waiting constant bigint[] := array(
    select j.id from apipay.jobs j
     where j.account = account_name and j.state in ('queued', 'uncertain') and j.failing_since is not null and j.run_at > now()
       and (apipay._waits_to_be_shown(j) or (j.state = 'uncertain' and j.reason = 'lookup_unclear'))
     limit 10000
       for no key update skip locked);
  one bigint;
  due int := 0;
begin
  begin
    return apipay._make_due(waiting);
  exception when others then
    -- One of them is refused, as by a trigger: it keeps its own time, and keeps nothing else from being asked about.
    foreach one in array waiting loop
      begin
        due := due + apipay._make_due(array[one]);
      exception when others then
        null;
      end;
    end loop;
  end;
  return due;
end $$;
comment on function apipay._ask_now(text) is
  'Makes the jobs of an account due that wait for an answer to a question about them: before they are sent, or whether they were done. Returns how many, of 10000 at most.';

create function apipay._said_of_resume(account_name text, ended text, asked int, asking int, tries boolean) returns text
language sql immutable parallel safe
return coalesce(
  nullif(concat_ws('; ',
    case when ended <> '' then format('account "%s" sends again; ended: %s', account_name, ended) end,
    case when asked > 0 then format('ApiPay is asked at once about %s of account "%s" of which it had not answered', case asked when 1 then '1 job' else asked || ' jobs' end, account_name) end,
    -- It is known already what becomes of those, and only a daemon could say otherwise.
    case when asking > 0 and asked > 0 then concat('it is being asked about ', asking, ' more')
         when asking > 0 then format('ApiPay is being asked about %s of account "%s" of which it had not answered', case asking when 1 then '1 job' else asking || ' jobs' end, account_name) end
      || case asking when 1 then ': without an answer that one waits as long as it would have' else ': without an answer those wait as long as they would have' end), ''),
  case when tries then format('account "%s" does not wait: what it tries next is due already, and goes out as fast as its quota allows', account_name) end,
  format('account "%s" was neither parked nor made to wait', account_name));
comment on function apipay._said_of_resume(text, text, int, int, boolean) is
  'What apipay.resume answers in words: which waits it ended, how many jobs it has asked about, how many are being asked about already, and else whether something is due of which ApiPay had not answered.';

create function apipay.resume(account text, reason text default null) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  -- See apipay.park.
  who constant text := session_user;
  unknown constant text := apipay._unknown_account(resume.account);
  before text;
  ended text;
  asked int;
  tries boolean;
  put_back int := 0;
begin
  if unknown is not null then
    raise exception using message = unknown,
      errcode = case when resume.account is null then 'null_value_not_allowed' else 'invalid_parameter_value' end;
  end if;
  before := apipay._state_cause(resume.reason);
  asked := apipay._ask_now(resume.account);
  select concat_ws(', ', case when a.state = 'parked' then 'the park' end,
                   case when a.blocked_until > now() then 'the wait until ' || apipay._clock(a.blocked_until) end,
                   case when a.capped_until > now() then 'the cap until ' || apipay._clock(a.capped_until) end,
                   case when a.failing_trial_at > now() or exists (select from apipay._reads r where r.account = a.name and r.trial_at > now())
                        then 'the wait for the next trial' end),
         a.failing_trial_at is not null or exists (select from apipay._reads r where r.account = a.name and r.trial_at is not null)
           or (apipay._to_be_shown(a.name)).in_words is not null
    into ended, tries from apipay.accounts a where a.name = resume.account;
  if exists (select from apipay.accounts a
              where a.name = resume.account and (a.state = 'parked' or a.blocked_until > now() or a.capped_until > now() or a.failing_trial_at > now()))
     or exists (select from apipay._reads r where r.account = resume.account and r.trial_at > now())
     or exists (select from apipay.jobs j where j.account = resume.account and j.state = 'parked') then
    put_back := apipay._resume(resume.account, coalesce(nullif(resume.reason, ''), format('resumed by %s', who)), who);
  end if;
  -- The number alone would say of a wait that nothing had been there to end.
  raise notice '%', apipay._said_of_resume(resume.account, ended, asked, (
    select count(*)::int from (select j from apipay.jobs j where j.account = resume.account and j.state = 'sending' and j.failing_since is not null offset 0) sent
     where apipay._waits_to_be_shown(sent.j)), tries);
  if asked > 0 then
    perform apipay._notify('apipay_jobs', '');
  end if;
  perform apipay._state_cause(before);
  return put_back + asked;
end $$;
comment on function apipay.resume(text, text) is
  'Sends for one account again, at once: ends a park, a block after 429 and a cap, and has the next trial of an account whose requests get no clear answer made now, of a job that is due. Jobs of which ApiPay did not answer what it is asked before they are sent (copies of apipay.retry, refunds), or whether they were done, are asked about at once; others that back off keep their own time (apipay.retry). Returns how many jobs go on so: parked ones that go back into the queue, and those that are asked about (10000 of either: that many or more), which is 0 after a mere wait; a notice says what was ended. The daemon puts them back within moments.';

create function apipay._set_stopped(is_to_be boolean, why text) returns boolean
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  stored apipay._control;
begin
  perform from apipay._control where stopped <> is_to_be for no key update;
  if not found then
    return false;
  end if;
  update apipay._control
     set stopped = is_to_be, changed_at = clock_timestamp(), changed_by = session_user, reason = why
  returning * into stored;
  perform apipay._all_changed('apipay._control', 1, found::int, coalesce(stored.stopped = is_to_be, false)::int);
  return true;
end $$;
comment on function apipay._set_stopped(boolean, text) is 'Stops all sending, or starts it; true when that is a change.';

create function apipay.stop(reason text default null) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  return apipay._set_stopped(true, stop.reason);
end $$;
comment on function apipay.stop(text) is 'Stops all sending, of every account, within a second; true when it was not stopped. What is in flight is finished.';

create function apipay.start(reason text default null) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  changed constant boolean := apipay._set_stopped(false, start.reason);
begin
  perform apipay._notify('apipay_jobs', '');
  return changed;
end $$;
comment on function apipay.start(text) is 'Starts sending again after apipay.stop; true when it was stopped.';

-- Alerts.

-- A daemon gives a sign of life every few seconds, and sends nothing when it could give none for twenty.
create function apipay._serving(account_name text, besides uuid) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (select d.host from apipay.daemons d
         where account_name = any (d.accounts) and d.worker is distinct from besides
           and not d.has_left and d.seen_at > now() - interval '30 s'
         order by d.seen_at desc limit 1);
comment on function apipay._serving(text, uuid) is 'The machine of a daemon that serves the account, besides this one; null when none does.';

-- What is looked at has to be what is true at this moment, and not what was when the transaction began.
create function apipay._why_not_change_organization(account_name text) returns text
language sql volatile set search_path = pg_catalog, pg_temp
return case
  when current_setting('transaction_isolation') in ('repeatable read', 'serializable') then format(
    'account %s: whether another apipayd serves it is not seen in a transaction that is %s; say it in one of its own: begin isolation level read committed',
    account_name, current_setting('transaction_isolation'))
  when apipay._serving(account_name, null) is not null then format(
    'account %s: the apipayd on %s serves it with another key; stop that one first, or give one of the two organizations an account name of its own',
    account_name, apipay._serving(account_name, null))
  when exists (select from apipay.jobs where account = account_name and state = 'sending') then format(
    'account %s: requests are under way, or a daemon died with them; say it again in some minutes, when they are recorded', account_name) end;
comment on function apipay._why_not_change_organization(text) is 'Why an account cannot be for another organization from now on; null when it can.';

-- Takes the lock that each claim takes. A claim that committed before is visible here; a later one waits until this
-- transaction ends.
create function apipay._hold_claims(account_name text) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
  insert into apipay._quotas (account) values (account_name) on conflict do nothing;
  select from apipay._quotas where account = account_name for no key update;
$$;
comment on function apipay._hold_claims(text) is
  'Has nothing of the account sent or asked before this transaction is over, but for what was claimed before.';

-- The database's clock may have been set since, either way: whatever was made before this stays before it.
create function apipay._new_organization_since(account_name text) returns timestamptz
language sql volatile set search_path = pg_catalog, pg_temp
return greatest(
  clock_timestamp(),
  (select max(newest.created_at) from (
     select i.created_at from apipay.invoices i where i.account = account_name order by i.id desc limit 100) newest),
  (select max(greatest(j.updated_at, (select max(t.started_at) from apipay.attempts t where t.job_id = j.id)))
     from apipay.jobs j
    where j.account = account_name
      and (j.state in ('uncertain', 'accepted', 'held') or (j.state in ('queued', 'parked') and (j.unproven_since is not null or j.generation > 1))))
) + interval '1 microsecond';
comment on function apipay._new_organization_since(text) is
  'The moment from which on the account is for another organization: later than all that it has at the one that it is for now.';

-- What was sent with the keys of before cannot be looked up or followed with this one, which finds nothing and proves
-- nothing: so a person says what became of it. Nor can the invoices of a bill that is about to be resubmitted, of which one
-- may live. What was never sent goes to the organization of this key.
create function apipay._change_organization(account_name text, fingerprint text) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
  select apipay._hold_claims(account_name);
  update apipay.accounts
     set key_fingerprints = array[fingerprint], organization_since = apipay._new_organization_since(account_name), updated_at = now()
   where name = account_name;
  update apipay.jobs
     set state = 'held', reason = 'other_organization', quiet_until = apipay._at_work_until(jobs), stated_id = null, stated_anyway = null, stated_unwanted = null,
         epoch = epoch + 1, updated_at = now()
   where account = account_name and (state in ('uncertain', 'accepted', 'held') or (state in ('queued', 'parked') and (unproven_since is not null or generation > 1)));
  update apipay.invoices set settled = true where account = account_name and not settled;
  update apipay.refunds set settled = true where account = account_name and not settled;
$$;
comment on function apipay._change_organization(text, text) is
  'From now on the account is for the organization of this key. Its jobs that may have been sent with another one are held, those that were accepted among them, and what is open at the earlier one is not asked about any more.';

-- A transaction may be left open, and a daemon with the earlier key, which is the stored one until the commit, be started
-- meanwhile.
create function apipay._look_again_at_organization() returns trigger
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  why_not constant text := apipay._why_not_change_organization(new.name);
begin
  if why_not is not null then
    raise exception using errcode = 'object_not_in_prerequisite_state',
      message = concat(why_not, '. Nothing was changed: say it again then in one step, as a statement of its own and not in a transaction that stays open.');
  end if;
  return null;
end $$;
comment on function apipay._look_again_at_organization() is
  'Asks at the commit once more whether the account can be for another organization, and has the whole transaction fail when it cannot.';
create constraint trigger look_again_at_organization after update of organization_since on apipay.accounts
  deferrable initially deferred for each row
  when (new.organization_since is not null and new.organization_since is distinct from old.organization_since)
  execute function apipay._look_again_at_organization();

create function apipay.acknowledge(alert bigint, reason text default null) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  who constant text := session_user;
  told apipay.alerts;
  ends boolean;
  stored apipay.alerts;
  mode_now text;
  why_not text;
begin
  select * into told from apipay.alerts where id = alert;
  if not found then
    raise exception using
      message = case when alert is null then apipay._missing('alert')
                     else format('there is no alert %s; the open ones: select id, kind, summary from apipay.alerts where resolved_at is null', alert) end,
      errcode = case when alert is null then 'null_value_not_allowed' else 'no_data_found' end;
  elsif told.kind = 'history_lost' and told.resolved_at is null
        and exists (select from apipay.daemons d where d.worker::text = told.details ->> 'worker' and d.seen_at > now() - interval '1 minute') then
    raise exception 'alert %: the apipayd on % runs still and sends nothing until it is started again; there: sudo systemctl restart apipayd', alert, told.details ->> 'host'
      using errcode = 'object_not_in_prerequisite_state';
  end if;
  ends := (told.kind in ('invoice_revived', 'refund_revived', 'mode_mismatch', 'history_lost', 'other_organization')
           -- The job has ended, and nothing of it is asked for any more.
           or coalesce(told.kind = 'job_held' and told.details ->> 'reason' = 'called_off_unseen', false))
    -- An invoice that can still be paid is not acknowledged: the customer might pay twice.
    and not (told.kind = 'invoice_revived' and exists (
      select from apipay.invoices i
      where i.account = told.account and i.id = (told.details ->> 'invoice')::bigint
        and i.status not in ('paid', 'partially_refunded', 'refunded', 'cancelled', 'expired', 'error')));
  -- Before the alert, as everywhere.
  if told.kind = 'mode_mismatch' and told.resolved_at is null then
    update apipay.accounts set mode = told.details ->> 'now', updated_at = now() where name = told.account returning mode into mode_now;
    perform apipay._all_changed('apipay.accounts', 1, found::int, (mode_now is not distinct from told.details ->> 'now')::int);
  elsif told.kind = 'other_organization' and told.resolved_at is null then
    perform from apipay.accounts where name = told.account for no key update;
    perform apipay._hold_claims(told.account);
    why_not := apipay._why_not_change_organization(told.account);
    if why_not is not null then
      raise exception using message = why_not, errcode = 'object_not_in_prerequisite_state';
    end if;
    perform apipay._change_organization(told.account, told.subject);
    perform apipay._all_changed('apipay.accounts', 1, (
      select count(*) from apipay.accounts a where a.name = told.account and told.subject = any (a.key_fingerprints)));
    perform apipay._all_changed('apipay.jobs', (
      select count(*) from apipay.jobs j
       where j.account = told.account and (j.state in ('uncertain', 'accepted') or (j.state in ('queued', 'parked') and (j.unproven_since is not null or j.generation > 1)))), 0);
    perform apipay._all_changed('apipay.invoices', (select count(*) from apipay.invoices i where i.account = told.account and not i.settled), 0);
    perform apipay._all_changed('apipay.refunds', (select count(*) from apipay.refunds r where r.account = told.account and not r.settled), 0);
  end if;
  update apipay.alerts a
     set acked_at = coalesce(a.acked_at, clock_timestamp()), acked_by = coalesce(a.acked_by, who),
         acked_for = (array_remove(a.acked_for, apipay._about(a.kind, a.details)))[greatest(cardinality(a.acked_for) - 98, 1):]
                     || apipay._about(a.kind, a.details),
         resolved_at = case when ends then clock_timestamp() end,
         resolution = case when ends then concat('acknowledged by ', who, ': ' || apipay._mask_phones(nullif(acknowledge.reason, ''))) end
   where a.id = alert and a.resolved_at is null
  returning * into stored;
  if not found then
    -- It may have ended at this moment; one that stands as it was is swallowed.
    perform apipay._all_changed('apipay.alerts', (select count(*) from apipay.alerts a where a.id = alert and a.resolved_at is null), 0);
    return false;
  end if;
  perform apipay._all_changed('apipay.alerts', 1, 1, (stored.acked_at is not null and (not ends or stored.resolved_at is not null))::int);
  insert into apipay.events (account, subject, subject_id, reason, evidence)
  values (told.account, case when told.account is null then 'daemon' else 'account' end, told.account,
          coalesce(nullif(acknowledge.reason, ''), 'acknowledged_by_user'),
          jsonb_strip_nulls(jsonb_build_object('alert', alert, 'kind', told.kind, 'about', nullif(told.subject, ''))));
  return ends;
end $$;
comment on function apipay.acknowledge(bigint, text) is
  'Says that a person has seen to an alert: it is not told again, unless it comes to be about something else (another job, another cause). One whose end only a person can know ends with it, and true is returned: invoice_revived of an invoice that cannot be paid any more or is paid, refund_revived, history_lost of a daemon that does not run any more, mode_mismatch, whose new mode is the right one from then on, and other_organization, whose key is the right one from then on: jobs that may have been sent with another key are held then (reason other_organization), and open invoices and refunds are not asked about any more; and job_held of a job that ended without an answer of the gateway''s whether it has anything of it (called_off_unseen). Any other ends when its cause is gone.';

-- A restore of the data alone meets the row of _control, and those of accounts, that a fresh schema has already, and
-- brings only the events: what they say last still stands. Each account is by itself, for its row may be locked. A park of the daemon's own is not put back: the gateway says
-- by itself whether it must be.
create function apipay._recall() returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
  -- An insert that meets the row would wait for whoever is changing it.
  insert into apipay._control select where not exists (select from apipay._control) on conflict do nothing;
  update apipay._control c
     set stopped = true, changed_at = last.at, changed_by = last.actor, reason = last.reason
    from (select e.to_state, e.at, e.actor, e.reason from apipay.events e
           where e.subject = 'daemon' and e.account is null and e.to_state is not null
           order by e.id desc limit 1) as last
   where not c.stopped and last.to_state = 'stopped';
$$;
comment on function apipay._recall() is 'Puts back a stop that apipay.events tells of and a restore of the data has lost.';

create function apipay._recall_park(account_name text) returns boolean
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
  select coalesce(bool_or(apipay._park(a.name, 'parked_by_user', last.actor, null,
      format('Account "%s" was parked by %s%s, before its data were restored.', a.name, last.actor, coalesce(': ' || nullif(last.reason, 'parked_by_user'), '')),
      apipay._ends_of_park(a.name), '{}', nullif(last.reason, 'parked_by_user'))), false)
    from apipay.accounts a
   cross join lateral (
     select e.to_state, e.actor, e.reason, e.evidence from apipay.events e
      where e.subject = 'account' and e.account = a.name and e.to_state is not null
      order by e.id desc limit 1) as last
   where a.name = account_name and a.state = 'active' and last.to_state = 'parked' and last.evidence ->> 'parked_reason' = 'parked_by_user';
$$;
comment on function apipay._recall_park(text) is
  'Puts back an operator''s park of this account that apipay.events tells of and a restore of the data has lost; true when there was one.';
