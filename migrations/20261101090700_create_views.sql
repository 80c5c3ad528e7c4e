-- Views for people. Phones are masked wherever they may stand; no view shows params.
--
-- The functions below make the sentence `explain`. They are pure: they read their arguments and the
-- clock, never a table, because a view's functions run with the rights of whoever reads the view.
-- Whatever stands in params, they never fail.
set search_path = pg_catalog, pg_temp;

-- Words.

create function apipay._mask_phone(phone text) returns text
language sql immutable parallel safe
return case when phone ~ '^8[0-9]{10}$' then left(phone, 4) || '***' || right(phone, 4) end;
comment on function apipay._mask_phone(text) is 'A phone number with its middle hidden: 8700***4567.';

-- With a prefix (+7, 7, 8) any ten digits, without one those of a mobile number; separators as people write them, and
-- digits of Arabic and full-width scripts as well. First what is written digit by digit: such groups are never amounts.
create function apipay._mask_phones(written text) returns text
language sql immutable parallel safe
return regexp_replace(regexp_replace(written,
  E'(?<![0-9\\u0660-\\u0669\\u06f0-\\u06f9\\uff10-\\uff19])(?:(?:[7\\u0667\\u06f7\\uff17]|[8\\u0668\\u06f8\\uff18])(?:[\\s()._/\\u00a0\\u2007\\u2009\\u202f\\u2010-\\u2015\\u2212-][0-9\\u0660-\\u0669\\u06f0-\\u06f9\\uff10-\\uff19]){10}|[7\\u0667\\u06f7\\uff17](?:[\\s()._/\\u00a0\\u2007\\u2009\\u202f\\u2010-\\u2015\\u2212-][0-9\\u0660-\\u0669\\u06f0-\\u06f9\\uff10-\\uff19]){9})(?![0-9\\u0660-\\u0669\\u06f0-\\u06f9\\uff10-\\uff19])',
  '***', 'g'),
  E'(?<![0-9\\u0660-\\u0669\\u06f0-\\u06f9\\uff10-\\uff19])(?:(?:\\+?[7\\u0667\\u06f7\\uff17]|[8\\u0668\\u06f8\\uff18])[\\s()._/\\u00a0\\u2007\\u2009\\u202f\\u2010-\\u2015\\u2212-]{0,3}([0-9\\u0660-\\u0669\\u06f0-\\u06f9\\uff10-\\uff19]{3})|([7\\u0667\\u06f7\\uff17][0-9\\u0660-\\u0669\\u06f0-\\u06f9\\uff10-\\uff19]{2}))[\\s()._/\\u00a0\\u2007\\u2009\\u202f\\u2010-\\u2015\\u2212-]{0,3}[0-9\\u0660-\\u0669\\u06f0-\\u06f9\\uff10-\\uff19]{3}[\\s._/\\u00a0\\u2007\\u2009\\u202f\\u2010-\\u2015\\u2212-]{0,2}([0-9\\u0660-\\u0669\\u06f0-\\u06f9\\uff10-\\uff19]{2})[\\s._/\\u00a0\\u2007\\u2009\\u202f\\u2010-\\u2015\\u2212-]{0,2}([0-9\\u0660-\\u0669\\u06f0-\\u06f9\\uff10-\\uff19]{2})(?![0-9\\u0660-\\u0669\\u06f0-\\u06f9\\uff10-\\uff19])',
  E'8\\1\\2***\\3\\4', 'g');
comment on function apipay._mask_phones(text) is 'A text with the middle of everything hidden that looks like a phone number.';

create function apipay._job_amount(job apipay.jobs, mirrored numeric) returns numeric
language sql immutable parallel safe
return case when job.operation <> 'invoice.cancel' then coalesce(round(mirrored, 2), job.amount) end;
comment on function apipay._job_amount(apipay.jobs, numeric) is
  'The amount of a job in tenge: the gateway''s, else that of its params; null for a cancel, a cart or a full refund that the gateway has not priced yet.';

create function apipay._tenge(amount numeric) returns text
language sql immutable parallel safe
return regexp_replace(trim_scale(round(amount, 2))::text, '([0-9])(?=([0-9]{3})+($|[.]))', E'\\1 ', 'g') || ' tenge';
comment on function apipay._tenge(numeric) is 'An amount for a sentence: 15 000 tenge.';

create function apipay._span(seconds numeric) returns text
language sql immutable parallel safe
return case
  when seconds < 90 then trunc(seconds) || ' s'
  when seconds < 5400 then trunc(seconds / 60) || ' min'
  when seconds < 172800 then trunc(seconds / 3600) || ' h'
  else trunc(seconds / 86400) || ' days' end;
comment on function apipay._span(numeric) is 'A length of time for a sentence: 40 s, 5 min, 3 h, 2 days.';

create function apipay._clock(moment timestamptz) returns text
language sql stable parallel safe
return case
  when isfinite(moment) then to_char(moment, 'YYYY-MM-DD HH24:MI:SS OF') || case when extract(year from moment) < 0 then ' BC' else '' end
  when moment > now() then 'the end of time'
  when moment < now() then 'the beginning of time' end;
comment on function apipay._clock(timestamptz) is 'A moment for a sentence, in the time zone of the session.';

create function apipay._seconds_until(moment timestamptz) returns numeric
language sql stable parallel safe
return extract(epoch from moment) - extract(epoch from now());
comment on function apipay._seconds_until(timestamptz) is 'Seconds from now; unlike the difference of moments it takes infinity.';

create function apipay._when(moment timestamptz) returns text
language sql stable parallel safe
return case
  when moment <= now() then 'now'
  when isfinite(moment) then format('at %s (in %s)', apipay._clock(moment), apipay._span(apipay._seconds_until(moment)))
  when moment is null then 'at an unknown time'
  else 'never' end;
comment on function apipay._when(timestamptz) is 'When something happens next, for a sentence.';

create function apipay._since(moment timestamptz) returns text
language sql stable parallel safe
return case
  when isfinite(moment) then format('since %s (%s ago)', apipay._clock(moment), apipay._span(greatest(-apipay._seconds_until(moment), 0)))
  else 'since ' || apipay._clock(moment) end;
comment on function apipay._since(timestamptz) is 'Since when, for a sentence.';

create function apipay._age(moment timestamptz) returns interval
language sql stable parallel safe
return case when isfinite(moment) then date_trunc('second', now() - moment) end;
comment on function apipay._age(timestamptz) is 'How long ago, in whole seconds; null for infinity.';

-- What a job is about, in words.

create function apipay._deed(job apipay.jobs) returns text
language sql immutable parallel safe
return case job.operation
  when 'invoice.create' then concat('the invoice', ' of ' || apipay._tenge(apipay._job_amount(job, null)),
    ' to ' || apipay._mask_phone(apipay._phone(job.params ->> 'phone_number')))
  when 'invoice.cancel' then concat('the cancellation', ' of invoice ' || job.invoice_id)
  when 'invoice.refund' then concat('the ', case when not job.params ? 'amount' and not job.params ? 'return_items' then 'full ' end,
    'refund', ' of ' || apipay._tenge(apipay._job_amount(job, null)), ' from invoice ' || job.invoice_id)
  else job.operation end;
comment on function apipay._deed(apipay.jobs) is 'What a job asks for, for a sentence.';

create function apipay._trace(job apipay.jobs) returns text
language sql immutable parallel safe
return case when job.operation = 'invoice.cancel' then coalesce('invoice ' || job.invoice_id, job.token::text) else job.token::text end;
comment on function apipay._trace(apipay.jobs) is 'What to look for in ApiPay''s dashboard to see what became of a job: the name that its object bears, or the invoice that it acts on.';

create function apipay._sought(job apipay.jobs) returns text
language sql immutable parallel safe
return concat('the job asks for ', apipay._deed(job), ' (look for ', apipay._trace(job), ' in the dashboard)');
comment on function apipay._sought(apipay.jobs) is 'What a job asks for and what to look for in the dashboard, for the beginning of a sentence.';

create function apipay._last_answer(job apipay.jobs) returns text
language sql immutable parallel safe
return case when job.http_status is not null or job.error_code is not null or job.error_message is not null then
  concat_ws(', ', 'HTTP ' || job.http_status, apipay._mask_phones(left(job.error_code, 200)))
  || coalesce(case when job.http_status is not null or job.error_code is not null then ': ' end
              || apipay._mask_phones(left(job.error_message, 500)),
              apipay._mask_phones(left(job.error_message, 500)), '') end;
comment on function apipay._last_answer(apipay.jobs) is 'What the gateway, or the network, last answered; null when nothing did.';

create function apipay._field_errors(errors jsonb) returns text
language sql immutable parallel safe
return case when jsonb_typeof(errors) = 'object' then (
  select string_agg(apipay._mask_phones(left(format('%s (%s)', key,
           case when jsonb_typeof(value) = 'array'
                then (select string_agg(text, '; ') from jsonb_array_elements_text(value) as text)
                else value #>> '{}' end), 300)), ', ' order by key)
  from (select key, value from jsonb_each(errors) order by key limit 20) as field) end;
comment on function apipay._field_errors(jsonb) is 'Errors by field, for a sentence.';

create function apipay._blocked(account apipay.accounts) returns text
language sql stable parallel safe
return case when account.blocked_until > now() then concat('account ', account.name, ' may not send until ', apipay._clock(account.blocked_until),
    ' (in ', apipay._span(least(apipay._seconds_until(account.blocked_until), 1e9)), '): the gateway limits it',
    ' (' || apipay._mask_phones(left(account.blocked_reason, 200)) || ')') end;
comment on function apipay._blocked(apipay.accounts) is 'Until when the gateway limits this account; null when it does not.';

create function apipay._in_plural(operation text) returns text
language sql immutable parallel safe
return case operation
  when 'invoice.create' then 'new bills' when 'invoice.cancel' then 'cancellations' when 'invoice.refund' then 'refunds'
  else operation end;
comment on function apipay._in_plural(text) is 'What jobs of an operation are called in a sentence.';

create function apipay._cap_of(account apipay.accounts, operations text[]) returns text
language sql stable parallel safe
return case when apipay._capped(account) && operations then concat('ApiPay takes no ',
    (select string_agg(apipay._in_plural(o), ', ' order by o) from unnest(operations) as o where o = any (apipay._capped(account))),
    ' of account ', account.name, ' until ', apipay._clock(account.capped_until),
    ' (in ', apipay._span(least(apipay._seconds_until(account.capped_until), 1e9)), '): a cap is reached (',
    apipay._mask_phones(left(account.capped_reason, 200)), '; ApiPay said: ' || account.capped_message, ')',
    case when account.state = 'active' then concat('; none is tried before that, unless its cause is mended and somebody says so: ',
                                                   'select apipay.resume(''', account.name, ''', ''why'')') end) end;
comment on function apipay._cap_of(apipay.accounts, text[]) is
  'Which of these operations a cap of the gateway keeps from being sent, until when, and what the gateway said; null when none.';

-- The row of the last daemon to serve an account is kept for thirty days.
create function apipay._unserved(account apipay.accounts, served_at timestamptz, doubted text default null) returns text
language sql stable parallel safe
return case when served_at is distinct from 'infinity' then coalesce(
  doubted,
  case when served_at is null then concat('no daemon serves account ', account.name,
    ': name it in the configuration, then sudo systemctl reload apipayd (restart, where systemd loads its key)') end,
  concat('no daemon serves account ', account.name, ' ', apipay._since(served_at),
    format(': see that apipayd runs (systemctl status apipayd) and has [accounts.%s] in its configuration', account.name))) end;
comment on function apipay._unserved(apipay.accounts, timestamptz, text) is
  'Since when no daemon serves this account, and what starts one, given when it was last served (infinity: one serves it), and what is said of one that runs and doubts its key (apipay._job_facts.doubted); null while one does.';

-- A daemon takes up a probe that is due within a second or two, unless somebody keeps the row of its account locked.
create function apipay._until_probed(account apipay.accounts) returns text
language sql stable parallel safe
return concat(
  case when account.delivery_error is null then 'until it is well again' else 'until one is delivered: one job is tried with each probe' end,
  case when account.probe_at < now() - interval '10 s'
       then concat(', and a probe is due ', apipay._since(account.probe_at), ' and is not made: apipayd check says why')
       else concat(case when account.delivery_error is null then ', which is probed next ' else ', the next ' end, apipay._when(account.probe_at)) end,
  -- The last probe was answered so.
  case when account.trial_from is not null
       then '; its health says well, and only a payment that can be tried is missing: the first that is due is tried, whenever the next probe would be' end);
comment on function apipay._until_probed(apipay.accounts) is 'Until when an account is parked that is probed, for a sentence.';

-- What stands in the way of everything of an account; null when nothing does.
create function apipay._obstacle(account apipay.accounts, control apipay._control, served_at timestamptz, doubted text default null) returns text
language sql stable parallel safe
return case
  when control.stopped then concat('all sending is stopped ', apipay._since(control.changed_at), ' by ', control.changed_by,
    ' (' || apipay._mask_phones(left(control.reason, 200)) || ')', ', until select apipay.start(''why'')')
  when account.state = 'parked' and account.parked_by = 'apipayd' and apipay._unserved(account, served_at, doubted) is not null then
    concat(apipay._unserved(account, served_at, doubted), '; it is parked as well, ', apipay._since(account.parked_at),
      ' (', apipay._mask_phones(left(account.parked_reason, 200)), ', by apipayd), and nobody asks ApiPay whether it is well again')
  -- What a person has parked needs no daemon: so it is given up.
  when account.state <> 'parked' and apipay._unserved(account, served_at, doubted) is not null then apipay._unserved(account, served_at, doubted)
  when account.state = 'parked' then concat('account ', account.name, ' is parked ', apipay._since(account.parked_at),
    ' (', apipay._mask_phones(left(account.parked_reason, 200)), ', by ', account.parked_by,
    case when account.parked_by = 'apipayd' then '; ApiPay said: ' else ': ' end || account.parked_message, '; ' || account.taken_over,
    '; invoices that ApiPay accepts fail with ' || apipay._mask_phones(left(account.delivery_error, 200)), '), ',
    case when account.probe_at is null then 'until select apipay.resume(''' || account.name || ''', ''why'')'
         else apipay._until_probed(account) end,
    '; to do: ' || account.parked_remedy, '; or, ' || account.parked_job_remedy,
    case when apipay._unserved(account, served_at, doubted) is not null then '; no daemon serves it either' end)
  else apipay._blocked(account) end;
comment on function apipay._obstacle(apipay.accounts, apipay._control, timestamptz, text) is
  'Why nothing of this account is sent, and until when; null when something is.';

create function apipay._obstacle_to_asking(account apipay.accounts, control apipay._control, served_at timestamptz, doubted text default null) returns text
language sql stable parallel safe
return case when account.delivery_error is not null and not control.stopped
            then coalesce(apipay._unserved(account, served_at, doubted), apipay._blocked(account))
            else apipay._obstacle(account, control, served_at, doubted) end;
comment on function apipay._obstacle_to_asking(apipay.accounts, apipay._control, timestamptz, text) is
  'Why the gateway is asked nothing about the jobs of this account, and until when; null when it is.';

-- What comes in place of a clear answer, of an account whose sends get none; null otherwise.
create function apipay._failure(account apipay.accounts) returns text
language sql immutable parallel safe
return case when account.failing_since is not null then
  concat(coalesce('HTTP ' || account.failing_status, account.failing_code), ': ' || account.failing_message) end;
comment on function apipay._failure(apipay.accounts) is 'What the sends of an account get in place of a clear answer; null while they get one.';

-- Why only one job of an account tries at a time; null when it has not slowed down.
create function apipay._slowness(account apipay.accounts) returns text
language sql stable parallel safe
return case when account.failing_trial_at is not null then
  concat('ApiPay gives account ', account.name, ' no clear answer ', apipay._since(account.failing_since),
    ' (' || apipay._failure(account) || ')', ': one job at a time tries, the next ',
    case when account.failing_trial_at > now() then apipay._when(account.failing_trial_at) else 'as soon as one is due' end,
    ', the others wait for its answer') end;
comment on function apipay._slowness(apipay.accounts) is
  'Since when ApiPay gives an account no clear answer, and when its next job tries; null when it has not slowed down.';

-- Each operation is a POST of its own.
create function apipay._asked_first(request jsonb) returns text
language sql immutable parallel safe
return case when request ->> 'method' = 'GET' or request ->> 'path' = '/invoices/status/check'
            then concat(request ->> 'method', ' ', left(request ->> 'path', 100)) end;
comment on function apipay._asked_first(jsonb) is
  'The request of a send, if it only asked for what is to be known before the job is sent; null if it was the operation itself.';

-- Of an account and a state no more are counted: a queue of millions is not read for a line.
create function apipay._most_counted() returns int language sql immutable parallel safe return 10000;
comment on function apipay._most_counted() is 'The number from which on jobs of an account and state are not counted any more.';

create function apipay._counted(jobs bigint) returns text
language sql immutable parallel safe
return jobs || case when jobs >= apipay._most_counted() then '+' else '' end;
comment on function apipay._counted(bigint) is 'A count for a sentence: 37, or 10000+ when there may be more.';

-- Of a queued bill its reason says so. A refund has the reason of whatever came in place of the list of its invoice's refunds,
-- and what is being sent, or tried upon a person's word, has no reason that tells.
create function apipay._waits_to_be_shown(job apipay.jobs) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
return job.state in ('queued', 'sending') and job.failing_since is not null and apipay._is_in_turn(job.reason) and case
  when job.reason = 'earlier_unseen' then true
  when job.state = 'sending' or job.operation = 'invoice.refund' or job.reason = 'retried_by_user' then exists (
    select from (select t.request from apipay.attempts t
                  where t.job_id = job.id and t.kind = 'send' and t.finished_at is not null order by t.epoch desc limit 1) newest
     where apipay._asked_first(newest.request) is not null)
  else false end;
comment on function apipay._waits_to_be_shown(apipay.jobs) is
  'Whether a job, queued or being sent, is not sent before ApiPay answers a question about it, which it did not do last time.';

-- It reads with the owner's rights, as apipay._explain_alive does.
create function apipay._to_be_shown(account_name text, out bills bigint, out refunds bigint, out in_words text)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select n.bills, n.refunds, nullif(concat_ws(', and ',
      case when n.bills = 1 then '1 bill that repeats an earlier one is not sent before ApiPay shows that nothing of that one lives'
           when n.bills > 1 then apipay._counted(n.bills) || ' bills that repeat earlier ones are not sent before ApiPay shows that nothing of those lives' end
        || ' (new bills do not wait for that)',
      case when n.refunds = 1 then '1 refund is not sent before ApiPay lists those of its invoice'
           when n.refunds > 1 then apipay._counted(n.refunds) || ' refunds are not sent before ApiPay lists those of their invoices' end), '')
    from (
      select count(*) filter (where w.operation = 'invoice.create') as bills, count(*) filter (where w.operation = 'invoice.refund') as refunds
        from (select j.operation from apipay.jobs j
               where j.account = account_name and j.state in ('queued', 'sending') and j.failing_since is not null and apipay._waits_to_be_shown(j)
               limit apipay._most_counted()) w) n
$$;
comment on function apipay._to_be_shown(text) is
  'How many jobs of an account are not sent before ApiPay answers a question about them, which it did not do last time, and that in words; no words when there are none.';

-- A request that was proven to have had no effect, and to which nothing was answered, found no connection. What was looked up
-- may have been sent, whatever its attempts say. It reads with the owner's rights, as apipay._explain_alive does.
create function apipay._never_left(job apipay.jobs) returns boolean
language sql stable parallel safe security definer set search_path = pg_catalog, pg_temp
return coalesce((
  select bool_and(t.kind = 'send' and t.finished_at is not null
                  and (apipay._asked_first(t.request) is not null or (t.effect = 'not_applied' and t.http_status is null)))
    from apipay.attempts t where t.job_id = job.id), false);
comment on function apipay._never_left(apipay.jobs) is
  'Whether the attempts of a job show that nothing of it has ever reached the gateway but questions that come before it.';

-- For the daemon: nobody else reads these tables. What is not due before its run_at, was never tried and waits for nothing.
create function apipay._awaited(account_name text) returns text[]
language sql stable set search_path = pg_catalog, pg_temp
return array_remove(array[
  case when exists (select from apipay.jobs j where j.account = account_name and j.state = 'queued'
                       and apipay._is_in_turn(j.reason) and j.id > 0 and j.run_at <= now())
         or exists (select from apipay.jobs j where j.account = account_name and j.state in ('queued', 'sending', 'uncertain')
                       and j.failing_since is not null and (j.state <> 'queued' or apipay._is_in_turn(j.reason)))
         or exists (select from apipay.jobs j where j.account = account_name and j.state in ('queued', 'uncertain')
                       and j.reason in ('retry_after', 'cap_reached'))
         or exists (select from apipay.jobs j where j.account = account_name and j.state = 'uncertain')
         or exists (select from (select s.account from apipay.jobs s where s.state = 'sending' offset 0) j where j.account = account_name)
       then 'send' end,
  case when exists (select from apipay.jobs j where j.account = account_name and j.state = 'uncertain') then 'look_up' end,
  case when exists (select from apipay.invoices m where m.account = account_name and not m.settled) then 'check' end,
  case when exists (select from apipay.jobs j where j.account = account_name and j.state = 'accepted')
         or exists (select from apipay.refunds m where m.account = account_name and not m.settled) then 'code' end,
  case when exists (select from apipay.refunds m where m.account = account_name and not m.settled)
         -- It is sent only once the others of its invoice are shown.
         or exists (select from apipay.jobs j where j.account = account_name and j.state in ('queued', 'sending')
                       and j.failing_since is not null and j.operation = 'invoice.refund'
                       and (j.state <> 'queued' or apipay._is_in_turn(j.reason)))
       then 'refunds' end], null);
comment on function apipay._awaited(text) is
  'The kinds of requests to the gateway that something of an account waits for: send, look_up, check, code, refunds.';

-- One sentence per state.

-- A job whose request is unproven is looked up before it ends.
create function apipay._time_limit(job apipay.jobs, earliest timestamptz) returns text
language sql stable parallel safe
return case
  when not isfinite(job.expires_at) then null
  when job.unproven_since is not null then
    format(' Unless it is sent by %s (in %s), what became of its last request is looked up, and it ends.',
           apipay._clock(job.expires_at), apipay._span(apipay._seconds_until(job.expires_at)))
  when job.expires_at <= earliest then
    format(' It ends expired at %s (in %s), unless it is sent before.',
           apipay._clock(job.expires_at), apipay._span(apipay._seconds_until(job.expires_at)))
  else
    format(' If it is not sent by %s (in %s), it ends expired.',
           apipay._clock(job.expires_at), apipay._span(apipay._seconds_until(job.expires_at))) end;
comment on function apipay._time_limit(apipay.jobs, timestamptz) is
  'What its expires_at, which lies ahead, means for a job that waits, given the earliest moment at which it is expected to go out; null when it has none.';

create function apipay._sent_from(account apipay.accounts, operation text) returns timestamptz
language sql stable parallel safe
return greatest(case when account.blocked_until > now() then account.blocked_until end,
                case when operation = any (apipay._capped(account)) then account.capped_until end,
                account.failing_trial_at);
comment on function apipay._sent_from(apipay.accounts, text) is
  'The moment before which nothing of this operation is expected to be sent for an account, as far as that is known; null when nothing is.';

create function apipay._unseen(job apipay.jobs) returns text
language sql immutable parallel safe
return concat(apipay._mask_phones(left(job.error_message, 500)),
  ' (' || nullif(concat_ws(', ', 'HTTP ' || job.http_status, apipay._mask_phones(left(job.error_code, 200))), '') || ')');
comment on function apipay._unseen(apipay.jobs) is 'What could not be seen before a job is sent, and what ApiPay answered.';

-- What a copy repeats, and the earlier invoices of a bill, are asked for before it is sent.
create function apipay._if_none_lives(job apipay.jobs) returns text
language sql immutable parallel safe
return case when job.operation = 'invoice.cancel' then null
            when job.generation > 1 and job.operation = 'invoice.create' then ', if ApiPay shows no earlier invoice of it alive'
            when job.retry_of is not null then ', if ApiPay shows nothing alive of job ' || job.retry_of end;
comment on function apipay._if_none_lives(apipay.jobs) is 'What ApiPay has to show before a job is sent, for the end of a sentence; null where that is nothing.';

-- `ahead` is the job that it waits for, if there is one; `sent_from` as in apipay._sent_from; `expired`, whether jobs of its
-- account have expired and are not ended yet; `unlisted`, that ApiPay does not show refunds.
create function apipay._explain_queued(job apipay.jobs, obstacle text, ahead bigint, sent_from timestamptz, expired boolean, unlisted text) returns text
language sql stable parallel safe
return case
  when job.expires_at <= now() and job.unproven_since is null then
    format('Its time ran out at %s: it ends expired.', apipay._clock(job.expires_at))
  when job.expires_at <= now() then
    format('Its time ran out at %s, and what became of its last request is looked up before it ends.', apipay._clock(job.expires_at))
  when obstacle is not null then
    concat('Waiting: ', obstacle, '.', case
      -- Of two moments the later one is true.
      when job.run_at > now() and (job.run_at < sent_from) is not true then ' It is due ' || apipay._when(job.run_at) || '.'
      -- Then its time has run out.
      when job.expires_at <= sent_from and job.unproven_since is null then null
      when job.reason = 'earlier_unseen' then concat(' Then ApiPay is asked again, for ', apipay._unseen(job), '.')
      else coalesce(' Then it waits for refund job ' || ahead || ' of the same invoice.', concat(' Then it goes out', apipay._if_none_lives(job), '.')) end)
  when job.run_at > now() and job.reason = 'earlier_unseen' then
    concat(case when job.generation = 1 and job.attempts = 0 then 'Not sent so far: ' else 'Not sent again so far: ' end, apipay._unseen(job),
      '. ApiPay is asked again ', apipay._when(job.run_at), case job.lookups when 0 then null when 1 then ' (once so far)' else ' (' || job.lookups || ' times so far)' end,
      '; it is sent once none of it is shown alive. To have it asked now: select apipay.retry(', job.id, ', ''why''). If ApiPay never shows it, see in its dashboard that nothing of it lives; then select apipay.cancel(',
      job.id, ', ''why''), and enqueue a new job.')
  when job.run_at > now() then
    concat('Due ', apipay._when(job.run_at), case
      when job.attempts > 0 or job.http_status is not null or job.error_code is not null then concat(': backing off',
        ' (' || apipay._mask_phones(job.reason) || ')', ' after ' || nullif(job.attempts, 0) || case when job.attempts = 1 then ' counted attempt' else ' counted attempts' end,
        '; last: ' || apipay._last_answer(job))
      when job.reason is not null then ' (' || apipay._mask_phones(job.reason) || ')'
      else ', as asked' end, '.')
  when ahead is not null then
    format('It waits for refund job %s of the same invoice, and goes out once that has ended%s: two at a time could not be told apart.', ahead, apipay._if_none_lives(job))
  when not apipay._is_in_turn(job.reason) then
    concat(case when job.reason = 'waits_for_cap' then 'The cap' else 'The job' end,
      ' that it waited for has ended: it goes out within moments', apipay._if_none_lives(job), ', unless the database does not let it be changed (see apipay.alerts).')
  else
    concat('Due now: it goes out in its turn, as fast as the account''s quota of requests allows', apipay._if_none_lives(job),
      case when expired then ', after jobs of the account that have expired: where those stand before it, they are ended first' end,
      '; last: ' || apipay._last_answer(job), '.') end
  || case when job.expires_at > now() then coalesce(apipay._time_limit(job, greatest(job.run_at, sent_from)), '') else '' end
  || case when job.expires_at <= now() then ''
          when unlisted is not null then concat(' ', unlisted, ': it goes out once ApiPay shows those of its invoice.')
          when job.operation = 'invoice.refund' and job.reason = 'resolved_not_applied'
          then ' ApiPay is asked for the refunds of its invoice first, and it goes out once those are shown without it.' else '' end
  || case when job.unproven_since is not null
          then ' It goes out under the same name as before, so that the gateway sees a repetition.' else '' end;
comment on function apipay._explain_queued(apipay.jobs, text, bigint, timestamptz, boolean, text) is 'explain of a queued job.';

create function apipay._explain_sending(job apipay.jobs, unserved text) returns text
language sql stable parallel safe
return case
  when job.leased_until <= now() and unserved is not null then
    format('Its worker should have answered by %s: it becomes uncertain and is looked up, once this is over: %s.', apipay._clock(job.leased_until), unserved)
  when job.leased_until > now() then
    format('A worker has it %s: its request is under way, or the answer is being written; without one by %s it becomes uncertain and is looked up, never sent blindly again.',
           apipay._since(job.updated_at), apipay._clock(job.leased_until))
  else format('Its worker should have answered by %s: it becomes uncertain within moments and is looked up.',
              apipay._clock(job.leased_until)) end;
comment on function apipay._explain_sending(apipay.jobs, text) is 'explain of a job that is sending.';

create function apipay._shown_before_again(operation text) returns text
language sql immutable parallel safe
return case operation when 'invoice.cancel' then 'that invoice as not cancelled' else 'nothing alive with its name' end;
comment on function apipay._shown_before_again(text) is 'What ApiPay has to show of a job that somebody said was not done, before it is sent again.';

-- A job that somebody said was not done is sent again, unless its time is over: then it ends.
create function apipay._sent_again(job apipay.jobs, sends text, once_shown text) returns text
language sql stable parallel safe
return case
  when job.expires_at <= now() then format(': it ends expired%s, since its expires_at, %s, is over; apipay.retry(%s, ''why'') then makes a copy',
    once_shown, apipay._clock(job.expires_at), job.id)
  when isfinite(job.expires_at) then format('%s%s, unless its expires_at, %s, is over by then: then it ends expired, and apipay.retry(%s, ''why'') makes a copy',
    sends, once_shown, apipay._clock(job.expires_at), job.id)
  else concat(sends, once_shown) end;
comment on function apipay._sent_again(apipay.jobs, text, text) is
  'What comes of it that somebody says a job was not done, once that is shown: it is sent again, in these words, or ends expired.';

-- A daemon that died is noticed long after it has sent. It reads with the owner's rights, as apipay._explain_alive does.
create function apipay._unproven_from(job apipay.jobs) returns timestamptz
language sql stable parallel safe security definer set search_path = pg_catalog, pg_temp
return least(coalesce(job.unproven_since, job.updated_at), (
  select t.started_at from apipay.attempts t
   where t.job_id = job.id and t.kind = 'send' and (t.finished_at is null or t.effect = 'unknown')
   order by t.epoch desc limit 1));
comment on function apipay._unproven_from(apipay.jobs) is
  'From when a request of a job may have had its effect: when it was sent, or when an earlier one was found to be unproven.';

-- While such questions get no clear answer, one is asked at a time, and whichever is due first: the moment is true for one.
create function apipay._asked(due timestamptz, asked_from timestamptz) returns text
language sql stable parallel safe
return case
  when asked_from is null then apipay._when(due)
  else concat(case when greatest(due, asked_from) > now() then apipay._when(greatest(due, asked_from)) || ' at the earliest' else 'in its turn' end,
    ': one at a time is asked about, the others wait for its answer') end;
comment on function apipay._asked(timestamptz, timestamptz) is
  'When the gateway is asked about something that is due at a moment, for a sentence, given from when one thing at a time is asked about; null while that is not so.';

create function apipay._explain_uncertain(job apipay.jobs, asked_from timestamptz, obstacle text) returns text
language sql stable parallel safe
return concat('A request for ', apipay._deed(job), ' may or may not have had its effect, ',
  apipay._since(apipay._unproven_from(job)), ' (last: ' || apipay._last_answer(job) || ')',
  '. The gateway is asked ', case when job.lookups > 0 then 'again (' || case job.lookups when 1 then 'once' else job.lookups || ' times' end || ' so far) ' end,
  apipay._asked(job.run_at, asked_from), ', ' || 'once this is over: ' || obstacle,
  case when job.stated_unwanted
       then concat('. Somebody said', ' at ' || apipay._clock(job.denied_at), ' that it was not done and is to end: it does when nothing alive with its name is found, or when there was no clear answer for reconcile.give_up; otherwise it is held again. Nothing is sent, and nothing is to do until then.')
       when job.absent_since = apipay._denied()
       then concat('. Somebody said', ' at ' || apipay._clock(job.denied_at), ' that it was not done',
              apipay._sent_again(job, ': it is sent again', ' once ApiPay shows clearly that nothing of it is there'), '. If ApiPay shows that it was done, it is taken as done. If what ApiPay shows does not fit, or there is no clear answer for reconcile.give_up, it is held again. Nothing is sent before that is known, and nothing is to do until then.')
       when job.expires_at <= now()
       then format('. Nothing is sent any more, for its expires_at, %s, is over: it ends expired once ApiPay shows nothing of it, and a person decides if there is no clear answer for reconcile.give_up.', apipay._clock(job.expires_at))
       else '. Nothing is sent before that is known.' end);
comment on function apipay._explain_uncertain(apipay.jobs, timestamptz, text) is 'explain of an uncertain job.';

create function apipay._explain_stated(job apipay.jobs, asked_from timestamptz, obstacle text) returns text
language sql stable parallel safe
return concat('Somebody said that ', apipay._deed(job), ' was done: ', apipay._object_of(job), ' ', job.stated_id,
  case when job.absent_since is null then '. ApiPay is asked whether that is so '
       else '. Nothing with the job''s own name was found beside it; before it is taken, ApiPay is asked once more ' end,
  case when job.lookups > 0 then '(' || case job.lookups when 1 then 'once' else job.lookups || ' times' end || ' so far; last: ' || apipay._last_answer(job) || ') ' end,
  apipay._asked(job.run_at, asked_from), ', ' || 'once this is over: ' || obstacle,
  '. If it is not, the job is held again; until then nothing is sent.');
comment on function apipay._explain_stated(apipay.jobs, timestamptz, text) is
  'explain of a job of which somebody said in apipay.resolve what the gateway did, while that is checked.';

-- What failed at Kaspi is watched for a while, since it may live again; then another one is made.
create function apipay._fallen(job apipay.jobs, invoice apipay.invoices, refund apipay.refunds) returns text
language sql stable parallel safe
return case
  when job.operation = 'invoice.create' and invoice.status = 'error' then
    concat('invoice ', job.invoice_id, ', and that failed at Kaspi (',
      coalesce(nullif(concat_ws(': ', apipay._mask_phones(left(coalesce(invoice.error_code, job.error_code), 200)), apipay._mask_phones(left(invoice.error_message, 500))), ''), 'why is not known yet'), ')')
  when job.operation = 'invoice.refund' and refund.status = 'failed' then
    concat('refund ', job.refund_id, ' of invoice ', job.invoice_id, ', and that failed at Kaspi (',
      coalesce(nullif(concat_ws(': ', apipay._mask_phones(left(coalesce(refund.error_code, job.error_code), 200)), apipay._mask_phones(left(refund.error_message, 500))), ''), 'why is not known yet'), ')') end;
comment on function apipay._fallen(apipay.jobs, apipay.invoices, apipay.refunds) is
  'What the gateway had accepted of a job and failed at Kaspi afterwards, and why; null while it has not.';

create function apipay._explain_accepted(job apipay.jobs, invoice apipay.invoices, refund apipay.refunds, asked_from timestamptz, obstacle text) returns text
language sql stable parallel safe
return concat(case when apipay._fallen(job, invoice, refund) is not null then concat('The gateway had taken it as ', apipay._fallen(job, invoice, refund))
  else concat(case job.operation
    when 'invoice.create' then concat('The gateway has taken it as invoice ', job.invoice_id, ' and delivers it to the customer')
    when 'invoice.cancel' then concat(case when invoice.status in ('pending', 'processing') then 'The gateway has accepted the cancellation of invoice '
                                           else 'The gateway is cancelling invoice ' end, job.invoice_id)
    when 'invoice.refund' then concat('The gateway is making refund ', job.refund_id, ' of invoice ', job.invoice_id)
    else concat('The gateway has taken ', job.operation) end,
  ' (status ' || case when job.operation = 'invoice.refund' then refund.status else invoice.status end || ')') end,
  case when job.operation = 'invoice.cancel' and invoice.status in ('pending', 'processing') then ', which can still be paid' end,
  '. It is asked again ',
  -- Of bills very many are asked about at once.
  case when job.operation = 'invoice.refund' then apipay._asked(refund.next_check_at, asked_from)
       else apipay._when(greatest(invoice.next_check_at, asked_from)) end,
  ', ' || 'once this is over: ' || obstacle, '.',
  case when apipay._fallen(job, invoice, refund) is not null
       then ' If it has still failed then, a new one is sent, unless it has failed as often as retry.async_error.attempts allows, which does not count what its account was to blame for.' end,
  case when job.operation = 'invoice.cancel' and invoice.status in ('pending', 'processing')
       then concat(' If nothing has come of it ', apipay._when(job.updated_at + interval '10 minutes'), ', it is sent again.') end);
comment on function apipay._explain_accepted(apipay.jobs, apipay.invoices, apipay.refunds, timestamptz, text) is 'explain of an accepted job.';

create function apipay._explain_parked(job apipay.jobs, account apipay.accounts, obstacle text, unserved text) returns text
language sql stable parallel safe
return case when job.expires_at <= now() and job.unproven_since is null then
  format('Its time ran out at %s while it was parked: it ends expired. Nothing of it had an effect.', apipay._clock(job.expires_at))
else concat('Parked', ' (' || apipay._mask_phones(job.reason) || ')', case
  when account.state = 'parked' then ' with its account: ' || obstacle
  when unserved is not null then format('; account %s is active again, and the daemon puts it back once this is over: %s', account.name, unserved)
  else format('; account %s is active again, and the daemon puts it back within moments', account.name) end,
  '. ', case
    when job.unproven_since is not null then 'A request for ' || apipay._deed(job) || ' is unproven; then it is looked up first.'
    else concat('Nothing of it had an effect; then it is sent', apipay._if_none_lives(job), '.') end,
  case
    when job.expires_at > now() then apipay._time_limit(job, job.run_at)
    when job.expires_at is null then null
    else format(' Its time ran out at %s: it is not sent again.', apipay._clock(job.expires_at)) end) end;
comment on function apipay._explain_parked(apipay.jobs, apipay.accounts, text, text) is 'explain of a parked job.';

create function apipay._id_to_name(job apipay.jobs) returns text
language sql immutable parallel safe
return case job.operation when 'invoice.create' then 'INVOICE_ID' when 'invoice.refund' then 'REFUND_ID' else 'null' end;
comment on function apipay._id_to_name(apipay.jobs) is 'What stands in a call of apipay.resolve for the number that a person is to name: null of a cancel, which names its invoice itself.';

create function apipay._standing(status text) returns text
language sql immutable parallel safe
return case when status is null then null when status in ('paid', 'partially_refunded') then 'paid' when status in ('cancelled', 'expired', 'error') then 'dead'
            when status = 'cancelling' then 'cancelling' else 'open' end;
comment on function apipay._standing(text) is 'What helps about an invoice with this status goes by this: open, cancelling, paid or dead.';

-- Of what was found of a held job its message says how it stood then; what helps depends on how it stands now. It reads the
-- copies of invoices with the owner's rights, as apipay._explain_alive does, and shows no more than the view does.
create function apipay._shown_of_held(job apipay.jobs, out invoice bigint, out standing text, out since text) returns record
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  with named as (
    select distinct (found.groups)[1]::bigint as id
      from regexp_matches(left(job.error_message, 4000), '(?:^|[^a-z])invoice ([1-9][0-9]{0,17})(?![0-9])', 'g') as found (groups)
    limit 20
  ), seen as (
    select m.id, m.status, s.standing,
           case when m.id is not distinct from job.invoice_id then is_known.yes else (m.job_id = job.id and m.job_token = job.token) is true end as is_own,
           coalesce(m.total_refunded >= m.amount, false) as is_refunded,
           told.status as told, s.alike
      from (select job.operation = 'invoice.create' and job.error_code is distinct from 'anothers_object' and job.invoice_id is not null as yes) is_known
      cross join lateral (
            select id from named
            union
            select o.id from (select id, account from apipay.invoices where job_id = job.id and job_token = job.token offset 0) o
             where o.account = job.account
            union
            select job.invoice_id where is_known.yes or job.operation = 'invoice.cancel') n
      cross join lateral (
        select id, status, amount, total_refunded, job_id, job_token from apipay.invoices where account = job.account and id = n.id offset 0) m
      -- Each is told with its status in the first parentheses after its number (policy::found).
      left join lateral (
        select substring(left(job.error_message, 4000) from concat('(?:^|[^a-z])invoice ', m.id, '(?![0-9])[^(]*[(]status ([^)]+)[)]')) as status) told on true
      cross join lateral (select apipay._standing(m.status) as standing, apipay._standing(told.status) as alike) s
     where job.operation in ('invoice.create', 'invoice.cancel') and job.reason is distinct from 'other_organization'
  ), news as (
    -- Of a cancellation its invoice is told of once that stands as after its end.
    select *, case when told is not null then standing <> alike
                   when job.operation = 'invoice.cancel' and id = job.invoice_id then standing in ('paid', 'dead')
                   else is_own and standing = 'paid' end as is_news from seen
  ), own as (
    -- What is dead and was not told of is an earlier one, which had been seen to.
    select * from news
     where job.operation = 'invoice.create' and is_own
       and (standing <> 'dead' or is_news or (told is not null and job.reason = 'mismatch'))
  ), one as (
    -- Of several that live none is meant more than the others; what is dead counts where nothing lives.
    select o.id, o.standing from own o
     where case when o.standing = 'dead' then not exists (select from own other where other.standing <> 'dead' or other.id > o.id)
                else not exists (select from own other where other.standing <> 'dead' and other.id <> o.id) end
  )
  select coalesce((select one.id from one),
           case when job.operation = 'invoice.create' and job.reason = 'mismatch' and job.error_code is distinct from 'anothers_object' then job.invoice_id end),
         (select one.standing from one),
         (select string_agg(format('invoice %s %s by now', news.id, case
                   when news.standing = 'paid' and news.is_refunded then 'is paid and fully refunded'
                   when news.status = 'partially_refunded' then 'is paid and refunded in part'
                   when news.status = 'cancelling' then 'is being cancelled' when news.status = 'error' then 'has failed'
                   else 'is ' || apipay._mask_phones(left(news.status, 100)) end), ' and ' order by news.id) from news where news.is_news)
$$;
comment on function apipay._shown_of_held(apipay.jobs) is
  'The one invoice of a held bill that a person decides about, if it is one, with how it stands (apipay._standing), and what ApiPay has shown since of the invoices that its message tells of, or that are paid; null where nothing has changed.';

-- What a person can say of a held job, as exact calls.
create function apipay._ways_out(job apipay.jobs, done text, as_that_one text, invoice bigint, standing text) returns text
language sql stable parallel safe
return case when standing = 'paid' and job.reason in ('mismatch', 'not_as_stated') then concat(
    'The customer has paid invoice ', invoice, ', so it cannot be cancelled, and the job is not sent again beside it. ',
    coalesce(as_that_one, 'Done as that one'), ': select apipay.resolve(', job.id, ', true, ', invoice, ', ''why''',
    case when as_that_one is not null then ', anyway => true' end, '). ',
    'If it is not what was to be paid, say the same, have it refunded in ApiPay''s dashboard, or by your program with apipay.refund_invoice, and enqueue a new job.')
  else concat(
    case when standing = 'dead' and job.reason in ('mismatch', 'not_as_stated')
         then format('As ApiPay shows it now, invoice %s holds the job no more. ', invoice) end,
    done, ': select apipay.resolve(', job.id, ', true, ', apipay._id_to_name(job), ', ''why''). ',
    case when standing is distinct from 'dead' then as_that_one || ': the same with anyway => true. ' end,
    case when job.operation <> 'invoice.create' or job.error_code is not distinct from 'anothers_object' or standing is not distinct from 'dead'
              or job.reason is distinct from 'mismatch' and (job.reason is distinct from 'not_as_stated' or standing is null) then null
         when standing = 'cancelling' then format('First wait: invoice %s is being cancelled, and holds the job again until ApiPay shows it as cancelled. ', invoice)
         else concat('An invoice that is wrong and not paid: first select apipay.cancel_invoice(', coalesce(invoice::text, 'INVOICE_ID'),
           ', account => ''', job.account, '''), and wait until ApiPay shows it as cancelled, or it holds the job again. ') end,
    'Not done: select apipay.resolve(', job.id, ', false, null, ''why'')', apipay._sent_again(job, ', which sends it again',
      ' once ApiPay shows ' || apipay._shown_before_again(job.operation)),
    case when isfinite(job.expires_at) then '. With and_cancel => true it ends cancelled.' else ', or with and_cancel => true never.' end) end;
comment on function apipay._ways_out(apipay.jobs, text, text, bigint, text) is
  'The calls that settle a held job, of which this one invoice is known to stand so (apipay._shown_of_held).';

create function apipay._explain_held(job apipay.jobs, invoice bigint, standing text, since text) returns text
language sql stable parallel safe
return concat('Held', ' (' || apipay._mask_phones(job.reason) || ')', ' ', apipay._since(job.updated_at), ': ', case
  when job.reason = 'not_as_stated' then concat('what was said of ', apipay._deed(job), ' is not what ApiPay has',
    ': ' || nullif(concat_ws('; ', apipay._mask_phones(left(job.error_message, 500)), since), ''), '. ',
    -- policy::stated says where it is needed.
    apipay._ways_out(job, 'Done as another one', case when job.error_code = 'differs' then 'Done as that one, though it differs' end, invoice, standing))
  when job.reason = 'mismatch' then concat('what ApiPay has under the name of ', apipay._deed(job), ' does not fit',
    ': ' || nullif(concat_ws('; ', apipay._mask_phones(left(job.error_message, 500)), since), ''), '. ',
    apipay._ways_out(job, 'Done as another one', 'Done as that one, though it differs', invoice, standing))
  when job.reason = 'duplicate_detected' then concat('more than one object at ApiPay carries the name of ', apipay._deed(job),
    ': ' || nullif(concat_ws('; ', apipay._mask_phones(left(job.error_message, 500)), since), ''),
    '. See in ApiPay''s dashboard that the customer pays only one of them, and say which: select apipay.resolve(', job.id, ', true, ',
    apipay._id_to_name(job), ', ''why'').',
    case when job.operation = 'invoice.create' then concat(
      ' An invoice that is not kept can still be paid, so cancel each of those: select apipay.cancel_invoice(INVOICE_ID, account => ''',
      job.account, '''); one that was paid too has to be refunded. Once none of them lives: select apipay.resolve(', job.id,
      ', false, null, ''why'', and_cancel => true) ends it, and after that select apipay.retry(', job.id, ', ''why'') bills anew.') end)
  when job.reason = 'unconfirmed' then concat('somebody said that ', apipay._deed(job), ' was not done, and ApiPay has given ',
    case when job.http_status = 403 then 'no answer about it' else 'no clear answer about it' end, ' ' || apipay._since(job.denied_at),
    ' (last: ' || apipay._last_answer(job) || case when job.http_status = 403 then '; the account''s key may not ask that, and ApiPay''s support can say why' else '' end || ')',
    ', so nothing was sent', '; ' || since, '. ',
    'To have ApiPay asked again: select apipay.resolve(', job.id, ', false, null, ''why''). To end it: the same with and_cancel => true, which sends nothing. ',
    case job.operation
      when 'invoice.create' then 'Before you enqueue a new payment, see in ApiPay''s dashboard that nothing of this job is there, and cancel what is. '
      when 'invoice.refund' then 'Before you enqueue a new refund, see in ApiPay''s dashboard that nothing of this job is there. ' end,
    'Done, as ApiPay''s dashboard shows for ', apipay._trace(job), ': select apipay.resolve(', job.id, ', true, ',
    apipay._id_to_name(job), ', ''why'').')
  when job.reason = 'original_lives' then concat(concat_ws('; ', apipay._mask_phones(left(job.error_message, 500)), since), '. This copy is not sent, but whether ',
    apipay._deed(job), ' had been done before that was seen is not known. Look for ', apipay._trace(job), ' in ApiPay''s dashboard. ',
    'Nothing there: select apipay.resolve(', job.id, ', false, null, ''why'', and_cancel => true), which ends it unsent',
    format('; what to do about what job %s made stands in its explain', job.retry_of), '. ',
    'Something there: select apipay.resolve(', job.id, ', true, ', apipay._id_to_name(job), ', ''why'')',
    case when job.operation = 'invoice.create' then '; the customer could then pay both, so cancel the one that is not to be paid' end, '.')
  when job.reason = 'other_organization' then concat('the account is for another organization than when ', apipay._deed(job), ' was sent, and ApiPay shows nothing of it to the account''s present key. ',
    'Look for ', apipay._trace(job), ' in the dashboard of the earlier organization',
    case when job.operation = 'invoice.create' then coalesce(' (invoice ' || job.invoice_id || ')', '') end, '. ',
    'Done there: select apipay.resolve(', job.id, ', true, ',
    coalesce(case job.operation when 'invoice.create' then job.invoice_id::text end, apipay._id_to_name(job)),
    ', ''why'', anyway => true), which is believed. ',
    'Not done, or taken back there: select apipay.resolve(', job.id, ', false, null, ''why'')',
    apipay._sent_again(job, ', which sends it again, to the account''s present organization', null),
    case when isfinite(job.expires_at) then '. With and_cancel => true it ends cancelled.' else '; or with and_cancel => true never.' end)
  else concat('nobody but a human can tell whether ', apipay._deed(job), ' was done', ' (last: ' || apipay._last_answer(job) || ')', '; ' || since,
    '. Look for ', apipay._trace(job), ' in ApiPay''s dashboard. ', apipay._ways_out(job, 'Done', null, invoice, standing)) end);
comment on function apipay._explain_held(apipay.jobs, bigint, text, text) is 'explain of a held job, with what apipay._shown_of_held says of it.';

create function apipay._sandbox_note(invoice apipay.invoices) returns text
language sql immutable parallel safe
return case when invoice.is_sandbox then ' in ApiPay''s sandbox, where no money moves' end;
comment on function apipay._sandbox_note(apipay.invoices) is 'Part of a sentence about a payment that is none; null where nothing says so.';

-- Of an invoice that ended early nothing else says whether the customer ever had it. It reads with the owner's rights, as
-- apipay._explain_alive does.
create function apipay._was_delivered(invoice apipay.invoices) returns boolean
language sql stable security definer set search_path = pg_catalog, pg_temp
return exists (
  select from apipay.events e
   where e.job_id = invoice.job_id and e.subject = 'invoice' and e.account = invoice.account and e.subject_id = invoice.id::text
     and e.to_state in ('pending', 'paid', 'partially_refunded'));
comment on function apipay._was_delivered(apipay.invoices) is
  'Whether an invoice was ever seen as one that had reached the customer; false as well where that is not known.';

create function apipay._explain_bill(job apipay.jobs, invoice apipay.invoices, asked_from timestamptz, obstacle text) returns text
language sql stable parallel safe
return concat('Invoice ', job.invoice_id, ' ', case invoice.status
  when 'processing' then 'is being delivered to the customer'
  when 'pending' then 'was delivered and waits for the customer to pay'
  when 'cancelling' then case when apipay._was_delivered(invoice) then 'was delivered and is being cancelled' else 'is being cancelled' end
  when 'paid' then concat('was paid by the customer', ' at ' || apipay._clock(invoice.paid_at), apipay._sandbox_note(invoice),
    case when invoice.total_refunded >= invoice.amount then ' and fully refunded'
         when invoice.total_refunded > 0 then ', of which ' || apipay._tenge(invoice.total_refunded) || ' were refunded' end)
  when 'partially_refunded' then concat('was paid by the customer', ' at ' || apipay._clock(invoice.paid_at), apipay._sandbox_note(invoice),
    case when invoice.total_refunded >= invoice.amount then ' and fully refunded'
         else ', of which ' || apipay._tenge(invoice.total_refunded) || ' were refunded' end)
  when 'expired' then case when apipay._was_delivered(invoice) then 'was delivered; the customer let it expire unpaid' else 'expired unpaid' end
  when 'cancelled' then case when apipay._was_delivered(invoice) then 'was delivered and then cancelled, unpaid' else 'was cancelled, unpaid' end
  when 'error' then concat('was accepted and then ended in error',
    ' (' || concat_ws(': ', apipay._mask_phones(invoice.error_code), apipay._mask_phones(left(invoice.error_message, 500))) || ')')
  else concat(case when apipay._was_delivered(invoice) then 'was delivered' else 'was made' end,
    '; its status is ' || apipay._mask_phones(left(invoice.status, 100))) end,
  case when not invoice.settled
       then '; it is asked about again ' || apipay._when(greatest(invoice.next_check_at, asked_from)) || coalesce(', once this is over: ' || obstacle, '') end, '.');
comment on function apipay._explain_bill(apipay.jobs, apipay.invoices, timestamptz, text) is 'explain of an invoice.create that succeeded: what the customer did.';

create function apipay._explain_succeeded(job apipay.jobs, invoice apipay.invoices, refund apipay.refunds, asked_from timestamptz, obstacle text) returns text
language sql stable parallel safe
return case
  when job.reason = 'resolved_applied' then concat('Done at the organization that the account was for before, as somebody said',
    ': ' || case job.operation when 'invoice.refund' then 'refund ' || job.refund_id else 'invoice ' || job.invoice_id end,
    '. ApiPay cannot be asked about it with the account''s present key.')
  else case job.operation
  when 'invoice.create' then apipay._explain_bill(job, invoice, asked_from, obstacle)
  when 'invoice.cancel' then concat('Invoice ', job.invoice_id,
    case when invoice.status in ('paid', 'partially_refunded') then ' was seen cancelled, and after that paid: the customer''s money is in.'
         when invoice.status = 'expired' then ' is dead: it expired unpaid.'
         when invoice.status in ('processing', 'pending') then concat(' was cancelled, but ApiPay has it as ', invoice.status, ' now: it may be paid.')
         else ' is cancelled.' end)
  when 'invoice.refund' then concat('Refund ', job.refund_id, ' of ' || apipay._tenge(apipay._job_amount(job, refund.amount)),
    ' from invoice ', job.invoice_id, ' was made.')
  else 'Done.' end end;
comment on function apipay._explain_succeeded(apipay.jobs, apipay.invoices, apipay.refunds, timestamptz, text) is 'explain of a job that succeeded.';

-- A job has one copy at most. It is asked for as in apipay._explain_alive.
create function apipay._or_its_copy(job apipay.jobs, how_to_copy text) returns text
language sql stable security definer set search_path = pg_catalog, pg_temp
return coalesce((select format('. Job %s repeats it.', copy.id) from apipay.jobs copy where copy.retry_of = job.id),
                format(how_to_copy, job.id));
comment on function apipay._or_its_copy(apipay.jobs, text) is
  'The end of the sentence of a final job: which job repeats it; these words, with its number, when none does.';

create function apipay._explain_failed(job apipay.jobs) returns text
language sql stable parallel safe
return case
  when job.error_code = 'invalid_params' then concat('Nothing was sent: its params are wrong',
    ': ' || coalesce(apipay._field_errors(job.errors), apipay._mask_phones(left(job.error_message, 500))),
    '. Enqueue a new job with right ones.')
  when job.reason = 'async_error' then concat('The gateway accepted it and it failed at Kaspi later',
    ': ' || apipay._mask_phones(left(job.error_code, 200)), ' (' || apipay._mask_phones(left(job.error_message, 300)) || ')',
    apipay._or_its_copy(job, '. Once the cause is gone, select apipay.retry(%s, ''why'') enqueues a copy.'))
  when job.reason = 'original_lives' then concat('Nothing was sent: ',
    coalesce(apipay._mask_phones(left(job.error_message, 500)), 'what it repeats was done after all'), '.',
    format(' What to do about that %s stands in explain of job %s.', apipay._object_of(job), job.retry_of))
  when job.reason = 'already_paid' then 'The customer has paid the invoice: it cannot be cancelled, only refunded.'
  when job.reason = 'gave_up' and (job.refund_id is not null or (job.operation = 'invoice.create' and job.invoice_id is not null))
    then concat('Given up: the gateway accepted it ', case when job.generation = 1 then 'once' else job.generation || ' times' end,
    ', and it failed at Kaspi each time', ': ' || apipay._mask_phones(left(job.error_code, 200)),
    apipay._or_its_copy(job, '. select apipay.retry(%s, ''why'') enqueues a copy.'))
  when job.reason = 'gave_up' and job.attempts = 0 then concat('Given up before ApiPay had taken anything of it; last: ', apipay._last_answer(job),
    apipay._or_its_copy(job, '. select apipay.retry(%s, ''why'') enqueues a copy.'))
  when job.reason = 'gave_up' then concat('Given up after ', job.attempts, case when job.attempts = 1 then ' counted attempt, which had no effect'
      else ' counted attempts, none of which had an effect' end,
    '; last: ' || apipay._last_answer(job), apipay._or_its_copy(job, '. select apipay.retry(%s, ''why'') enqueues a copy.'))
  else concat('The gateway refused it', ': ' || coalesce(apipay._last_answer(job), apipay._mask_phones(job.reason)),
    ' [' || apipay._field_errors(job.errors) || ']',
    apipay._or_its_copy(job, '. Once the cause is gone, select apipay.retry(%s, ''why'') enqueues a copy.')) end;
comment on function apipay._explain_failed(apipay.jobs) is 'explain of a job that failed.';

-- A job may be final although one of its invoices lives: one that failed or was given up, and was delivered later; or
-- although its refund was made. It is asked for here, for such jobs alone, and with the owner's rights: beside each job in the views it would make their
-- plans seem so long that they are compiled. It shows no more than the view does.
create function apipay._explain_alive(job apipay.jobs) returns text
language sql stable security definer set search_path = pg_catalog, pg_temp
return coalesce((
  select case
    when alive.status in ('paid', 'partially_refunded') then concat('Ended as ', job.state, ' (' || apipay._mask_phones(job.reason) || ')',
      ', but its invoice ', alive.id, ' was paid by the customer after all', ' at ' || apipay._clock(alive.paid_at), apipay._sandbox_note(alive),
      case when alive.total_refunded >= alive.amount then ' and fully refunded.'
           else ': deliver what was ordered, or have it refunded. Another bill would make the customer pay twice.' end)
    else concat('Ended as ', job.state, ' (' || apipay._mask_phones(job.reason) || ')',
      ', but its invoice ', alive.id, ' lives after all (status ' || apipay._mask_phones(left(alive.status, 100)) || ')',
      format(': the customer may pay it, and another bill would be a second one. Unless it is to be paid: select apipay.cancel_invoice(%s, account => ''%s'').',
             alive.id, job.account)) end
  from (
    (select * from apipay.invoices where job_id = job.id and job_token = job.token offset 0)
    union all
    (select * from apipay.invoices where account = job.account and id = job.invoice_id)) as alive
  where job.operation = 'invoice.create' and alive.account = job.account and alive.status not in ('cancelled', 'expired', 'error')
  order by alive.status in ('paid', 'partially_refunded') desc
  limit 1), (
  select concat('Ended as ', job.state, ' (' || apipay._mask_phones(job.reason) || ')', ', but its refund ', given.id, ' was made after all',
    ' (' || apipay._tenge(given.amount) || ')', case given.status when 'completed' then ': the money was given back'
      else format(', and is %s: the money is being given back', apipay._mask_phones(left(given.status, 100))) end,
    '. Do not have it refunded again', apipay._or_its_copy(job, '.'))
  from (select * from apipay.refunds where account = job.account and invoice_id = job.invoice_id offset 0) as given
  where job.operation = 'invoice.refund' and given.job_id = job.id and given.job_token = job.token and given.status <> 'failed'
  order by given.status = 'completed' desc, given.id desc
  limit 1));
comment on function apipay._explain_alive(apipay.jobs) is
  'explain of a job that is over although an invoice of it may be paid, or was, or a refund of it was made; null when there is none.';

-- A bill may have another invoice than the one that its row names, and so may what it repeats and its copies. It reads with
-- the owner's rights, as apipay._explain_alive does.
create function apipay._explain_other(job apipay.jobs, invoice apipay.invoices) returns text
language sql stable security definer set search_path = pg_catalog, pg_temp
return (
  select concat(case when own.is_over then ' But' end, case when other.job_id = job.id then case when own.is_over then ' its' else ' Its' end || ' invoice ' || other.id
                     else concat(case when own.is_over then ' invoice ' else ' Invoice ' end, other.id, ' of job ', other.job_id, ', for the same bill,') end,
    case when other.status in ('paid', 'partially_refunded') then concat(' was paid by the customer', case when own.is_paid then ' as well' end,
        ' at ' || apipay._clock(other.paid_at), apipay._sandbox_note(other), case
          when other.total_refunded >= other.amount then ' and fully refunded.'
          when own.is_paid then ': have one of the two refunded.'
          when own.is_over then ': deliver what was ordered, or have it refunded. Another bill would make the customer pay twice.'
          else format(': the customer could pay twice. To prevent that: select apipay.cancel_invoice(%s, account => ''%s'').', job.invoice_id, job.account) end)
      else concat(case when own.is_over then ' lives' else ' lives as well' end, ' (status ', apipay._mask_phones(left(other.status, 100)), '): ', case
          when own.is_over then 'the customer may pay it, and another bill would be a second one. Unless it is to be paid'
          when own.is_paid then 'the customer could pay twice. To prevent that'
          else 'the customer could pay both. Unless that one is to be paid' end,
        format(': select apipay.cancel_invoice(%s, account => ''%s'').', other.id, job.account)) end)
  from apipay._other_living(job.id, job.invoice_id) as other
  cross join lateral (
    select coalesce(invoice.status in ('cancelled', 'expired', 'error') or invoice.total_refunded >= invoice.amount, false) as is_over,
           coalesce(invoice.status in ('paid', 'partially_refunded') and (invoice.total_refunded >= invoice.amount) is not true, false) as is_paid) as own
  where job.operation = 'invoice.create' and other.id is not null);
comment on function apipay._explain_other(apipay.jobs, apipay.invoices) is
  'What explain says, of a bill that was taken, of another invoice than this one that may be paid, or was, of it, of what it repeats or of its copies; null when there is none.';

-- It may have to read what ApiPay has shown of the job's invoice or refund, with the owner's rights, as apipay._explain_alive does.
create function apipay._explain_cancelled(job apipay.jobs, who text, why text) returns text
language sql stable parallel safe security definer set search_path = pg_catalog, pg_temp
return concat('Cancelled', case when job.reason in ('called_off', 'called_off_unseen') then null else ' by ' || who end, ' at ', apipay._clock(job.finished_at),
  ' (' || apipay._mask_phones(left(coalesce(why, job.reason), 300)) || ')', case
    when job.reason = 'resolved_not_applied' then ': somebody said that no request of it had an effect.'
    when job.reason = 'called_off' then ': somebody said that no request of it had an effect, and no look-up since has shown anything alive with its name.'
    when job.reason = 'called_off_unseen' then concat(': somebody said that no request of it had an effect, and ApiPay has given no clear answer about it',
      ' since ' || apipay._clock(job.denied_at), ' (last: ' || apipay._last_answer(job) || ')', '. ', coalesce(
        (select format('Since then ApiPay has shown its invoice %s, which is %s.', dead.id, dead.status)
           from (select * from apipay.invoices where job_id = job.id and job_token = job.token offset 0) as dead
          where job.generation = 1 and dead.account = job.account and dead.status in ('cancelled', 'expired', 'error') and dead.checked_at > job.finished_at
          order by dead.id limit 1),
        (select format('Since then ApiPay has shown its refund %s, which has failed.', dead.id)
           from (select * from apipay.refunds where account = job.account and invoice_id = job.invoice_id offset 0) as dead
          where job.generation = 1 and dead.job_id = job.id and dead.job_token = job.token and dead.status = 'failed' and dead.checked_at > job.finished_at
          order by dead.id limit 1),
        'Whether it has something of it is not known: look there before you insert a new job for it.'), ' Nothing more is sent.')
    when apipay._never_left(job) then ', before anything was sent.'
    when job.attempts > 0 or job.http_status is not null then ': nothing that was sent of it had an effect.'
    when job.epoch = 0 then ', before anything was sent.'
    else ': nothing of it is known to have had an effect.' end,
  -- Each of these is a whole sentence already.
  substr(apipay._or_its_copy(job, ''), 2));
comment on function apipay._explain_cancelled(apipay.jobs, text, text) is
  'explain of a cancelled job. It reads with the owner''s rights, and shows no more than the view does.';

create function apipay._explain_expired(job apipay.jobs) returns text
language sql stable parallel safe
return concat(case
    when apipay._never_left(job) then format('Nothing was sent by its expires_at, %s', apipay._clock(job.expires_at))
    when job.attempts > 0 or job.http_status is not null
    then format('Nothing that was sent of it by its expires_at, %s, had an effect', apipay._clock(job.expires_at))
    when job.epoch = 0 then format('Nothing was sent by its expires_at, %s', apipay._clock(job.expires_at))
    -- The word of a person begins the count of attempts anew.
    else format('Nothing of it is known to have had an effect by its expires_at, %s', apipay._clock(job.expires_at)) end,
  apipay._or_its_copy(job, '. select apipay.retry(%s, ''why'') enqueues a copy without a limit.'));
comment on function apipay._explain_expired(apipay.jobs) is 'explain of an expired job.';

create function apipay._of_alert(told apipay.alerts) returns text
language sql stable parallel safe
return concat(case told.kind when 'history_lost' then 'a daemon sends nothing any more' else 'payments do not move' end,
  ', and what to do stands in the alert ', told.kind, ', in apipay.alerts: ', rtrim(told.summary, '.'));
comment on function apipay._of_alert(apipay.alerts) is 'What an alert that holds up many jobs says, for the sentence of one of them or of its account.';

-- In PL/pgSQL, so that it stays a call: a function in SQL becomes part of each statement that reads a view, and with it
-- all that it calls. To plan that would take longer than to run it, and to compile it (jit) a hundred times as long.
--
-- `stuck` is what the alert says of a job that the database does not let move; `halted`, what one says that holds up all
-- such jobs.
create function apipay._explain(
  job apipay.jobs, account apipay.accounts, control apipay._control,
  invoice apipay.invoices, refund apipay.refunds, asked_from timestamptz, ahead bigint, who text, why text,
  served_at timestamptz, stuck text, halted text, doubted text default null, unshown timestamptz default null,
  expired boolean default false, unanswered text default null) returns text
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp as $$
begin
  return coalesce(stuck || ' What to do stands in the alert job_stuck, in apipay.alerts.', case job.state
  when 'queued' then apipay._explain_queued(job, coalesce(apipay._obstacle(account, control, served_at, doubted), halted,
    apipay._cap_of(account, array[job.operation]), apipay._slowness(account)), ahead, apipay._sent_from(account, job.operation), expired, unanswered)
  when 'sending' then apipay._explain_sending(job, apipay._unserved(account, served_at, doubted))
  when 'uncertain' then case when job.stated_id is null then apipay._explain_uncertain(job, asked_from, coalesce(apipay._obstacle_to_asking(account, control, served_at, doubted), halted))
                             else apipay._explain_stated(job, asked_from, coalesce(apipay._obstacle_to_asking(account, control, served_at, doubted), halted)) end
  when 'accepted' then apipay._explain_accepted(job, invoice, refund, asked_from, coalesce(apipay._obstacle_to_asking(account, control, served_at, doubted), halted))
  when 'parked' then apipay._explain_parked(job, account, apipay._obstacle(account, control, served_at, doubted), apipay._unserved(account, served_at, doubted))
  when 'held' then (select apipay._explain_held(job, now.invoice, now.standing, now.since) from apipay._shown_of_held(job) now)
  when 'succeeded' then apipay._explain_succeeded(job, invoice, refund, asked_from, coalesce(apipay._obstacle_to_asking(account, control, served_at, doubted), halted))
    || case when job.operation = 'invoice.create' and invoice.settled and invoice.status in ('processing', 'pending', 'cancelling')
                 and invoice.created_at < account.organization_since
            then concat(' It is not asked about any more: the account is for another organization since ', apipay._clock(account.organization_since), '.')
            else '' end
  when 'failed' then coalesce(apipay._explain_alive(job), apipay._explain_failed(job))
  when 'cancelled' then coalesce(apipay._explain_alive(job), apipay._explain_cancelled(job, who, why))
  when 'expired' then coalesce(apipay._explain_alive(job), apipay._explain_expired(job)) end)
  || case when job.state <> 'queued' then coalesce(' ' || unanswered || '.', '') else '' end
  || case when job.state in ('accepted', 'succeeded') then coalesce(apipay._explain_other(job, invoice), '') else '' end
  || coalesce(' ApiPay has not shown ' || case when job.refund_id is null then 'invoice ' || job.invoice_id else 'refund ' || job.refund_id end
       || ' ' || apipay._since(unshown) || ', although it is asked for it: what to do stands in the alert invoice_missing, in apipay.alerts.', '')
  || coalesce(' It repeats job ' || job.retry_of || '.', '');
end $$;
comment on function apipay._explain(apipay.jobs, apipay.accounts, apipay._control, apipay.invoices, apipay.refunds, timestamptz, bigint, text, text, timestamptz, text, text, text, timestamptz, boolean, text) is
  'The sentence of a job: why it is where it is, what happens next and when.';

-- What people look for. Finished jobs are nearly all there are, so each usual filter of a view, and the
-- newest of it (`order by id desc limit ...`), has an index: jobs_dedup and jobs_invoice, which others need
-- too, and these. They hold every job, because a filter that is a parameter proves no condition.
--
-- The two that begin with what nearly all jobs share are for views alone, which say of themselves that a job
-- was created at some time. A planner whose statistics have seen no waiting job takes them to be as few in all
-- as in one account, and would have the daemon read those of all accounts for each.

create function apipay._order_id(params jsonb) returns text
language sql immutable parallel safe
return apipay._mask_phones(left(params ->> 'external_order_id', 255));
comment on function apipay._order_id(jsonb) is 'The order id in params, for a view: cut to what the gateway takes, phones masked.';

create function apipay._day(moment timestamptz) returns date
language sql immutable parallel safe
return (moment at time zone 'Asia/Almaty')::date;
comment on function apipay._day(timestamptz) is 'The day of a moment in Almaty.';

create index jobs_account on apipay.jobs (account, id) where created_at > '-infinity';
create index jobs_state on apipay.jobs (state, id) where created_at > '-infinity';
create index jobs_order on apipay.jobs (order_id, account) where order_id is not null;
-- One entry for each job: it never moves again.
create index jobs_finished_day on apipay.jobs (apipay._day(created_at), account) where finished_at is not null;
-- The same of the money: one entry for each invoice that was paid, and each refund that was made.
create index invoices_paid_day on apipay.invoices (apipay._day(paid_at), account) where paid_at is not null;
create index refunds_completed_day on apipay.refunds (apipay._day(completed_at), account) where completed_at is not null;

-- The views. Whatever stands beside a job is looked up with `limit 1`, row by row by its key: a join
-- would let the planner, which knows nothing of a table that was never analyzed, read the whole of it.

create view apipay._job_facts as
select j as job, a.sender, c.control, i.invoice, r.refund, asked.trial_at, asked.unanswered, ahead.id as ahead,
       cancelled.actor as cancelled_by, cancelled.reason as cancelled_why,
       served.seen_at as served_at, stuck.summary as stuck, halted.summary as halted, doubted.summary as doubted,
       missing.last_shown as unshown, expired.yes as expired
from apipay.jobs j
cross join (select control from apipay._control as control limit 1) as c
cross join lateral (select sender from apipay.accounts as sender where sender.name = j.account limit 1) as a
left join lateral (
  select invoice from apipay.invoices as invoice
   where invoice.account = j.account and invoice.id = j.invoice_id limit 1) as i on true
left join lateral (
  select refund from apipay.refunds as refund where refund.account = j.account and refund.id = j.refund_id limit 1) as r on true
-- While what asks gets no clear answer, one asks at a time. A page of a proxy before ApiPay has no words of ApiPay's, and denies
-- nothing in its name; and what says that the account is unwell has a remedy of its own (policy::remedy::of_fault).
left join lateral (
  select reads.trial_at, case when reads.failing_since is not null then concat(
           case when j.state = 'queued' then 'ApiPay shows no refunds ' when denied.yes then 'ApiPay denies the account''s key an answer to such questions '
                else 'ApiPay gives no clear answer to such questions ' end,
           apipay._since(reads.failing_since), ' (' || coalesce('HTTP ' || reads.status, reads.code) || coalesce(': ' || reads.message, '') || ')',
           case when j.state <> 'queued' and denied.yes then ': ask its support why' end) end as unanswered
    from apipay._reads reads
   cross join lateral (
     select reads.status = 403 and reads.message is not null and reads.code in ('unlisted_answer', 'access_denied') as yes) as denied
   where (j.state in ('uncertain', 'accepted') or (j.state = 'succeeded' and (i.invoice).settled is false)
          -- A refund is sent once the others of its invoice are shown.
          or (j.state = 'queued' and j.operation = 'invoice.refund'))
     and reads.account = j.account and reads.kind = case when j.state = 'uncertain' then 'look_up' when j.operation = 'invoice.refund' then 'refunds' else 'check' end
   limit 1) as asked on true
left join lateral (
  select case when bool_or(d.has_it and not d.has_left and d.seen_at >= now() - interval '1 minute') then 'infinity'
              else max(case when d.has_it then d.seen_at else (d.dropped ->> j.account)::timestamptz end) end as seen_at
    from (select j.account = any (all_of.accounts) as has_it, all_of.has_left, all_of.seen_at, all_of.dropped from apipay.daemons all_of) d
   where (j.finished_at is null or (i.invoice).settled is false) and (d.has_it or d.dropped ? j.account)) as served on true
-- Of an account that nobody serves: a daemon that has it and does not know its key to be of the account's organization.
left join lateral (
  select concat('the apipayd on ', d.host, ' has a key for account ', j.account, ' that may be of another organization, and serves nothing of it before that is known',
                (select format(': see alert %s (%s), in apipay.alerts', l.id, l.kind) from apipay.alerts l
                  where coalesce(l.account, '') = j.account and l.resolved_at is null and l.kind in ('other_organization', 'account_parked')
                  order by l.kind = 'other_organization' desc, l.details ->> 'host' = d.host desc, l.id desc limit 1)) as summary
    from apipay.daemons d cross join lateral unnest(d.doubted) as one (key)
   where (j.finished_at is null or (i.invoice).settled is false) and served.seen_at is distinct from 'infinity'
     and not d.has_left and d.seen_at >= now() - interval '1 minute' and split_part(one.key, ' ', 1) = j.account
   order by d.seen_at desc limit 1) as doubted on true
cross join lateral (
  select case when j.refund_id is null then 'invoice' else 'refund' end as object, coalesce(j.refund_id, j.invoice_id) as id,
         case when j.refund_id is null then (i.invoice).settled else (r.refund).settled end is false as is_open,
         case when j.refund_id is null then (i.invoice).next_check_at else (r.refund).next_check_at end as next_check_at) as mirror
-- An alert of this kind names one job, and counts or lists others that are refused for the same cause, or counts many; or
-- names one invoice or refund.
left join lateral (
  -- The alert about this job, or one that counts it among others.
  select case when of_it.yes then told.summary
              when of_it.is_alike then 'The database does not take what became of it either: ' || told.summary
              when told.details ? 'job' is false then 'It is due to be asked about. What ApiPay shows of others cannot be stored either: ' || told.summary
              else 'It is due and does not go out. The database refuses several jobs of this account: ' || told.summary end as summary
    from apipay.alerts told
   cross join lateral (
     select told.details @> jsonb_build_object('job', j.id, 'state', j.state, 'epoch', j.epoch)
            or coalesce(told.details -> 'jobs' -> j.id::text = jsonb_build_object('state', j.state, 'epoch', j.epoch), false)
            -- Or about what ApiPay shows of its object, and cannot be stored.
            or coalesce(mirror.is_open and told.details -> mirror.object = to_jsonb(mirror.id), false) as yes,
            -- Or lists it among those whose outcomes wait in the memory of a daemon.
            exists (select from jsonb_each(told.details -> 'alike') as theirs (worker, jobs)
                     where theirs.jobs -> j.id::text = jsonb_build_object('state', j.state, 'epoch', j.epoch)) as is_alike) as of_it
   where (j.finished_at is null or mirror.is_open) and told.resolved_at is null and told.kind = 'job_stuck' and coalesce(told.account, '') = j.account
     and (of_it.yes or of_it.is_alike or (j.state = 'queued' and apipay._is_in_turn(j.reason) and j.run_at < now() - interval '30 s'
                        and (told.details ->> 'others_refused')::int > 0)
          or (mirror.is_open and mirror.next_check_at < now() - interval '30 s' and told.details ?| array['invoice', 'refund']))
   order by of_it.yes desc, of_it.is_alike desc
   limit 1) as stuck on true
-- An alert that says why nothing like it moves: of commits that the database has forgotten; or of standstills of which the
-- job, which is due for long, is one.
left join lateral (
  select apipay._of_alert(told) as summary from apipay.alerts told
   where told.resolved_at is null and told.kind in ('history_lost', 'no_progress') and coalesce(told.account, '') in ('', j.account)
     and (j.finished_at is null or mirror.is_open)
     and case when told.kind = 'history_lost' then j.state = 'queued' and coalesce(told.details -> 'accounts' ? j.account, true)
              when j.state = 'queued' then j.run_at < now() - interval '30 s' and apipay._is_in_turn(j.reason)
                                           and told.details -> 'concerns' ?| '{claims,window,loop,outcomes,schema}'
              when j.state = 'uncertain' then j.run_at < now() - interval '30 s'
                                              and told.details -> 'concerns' ?| '{look_ups,answers,loop,outcomes,schema}'
              when mirror.is_open then mirror.next_check_at < now() - interval '30 s'
                                       and told.details -> 'concerns' ?| '{checks,loop,outcomes,schema}' end
   order by told.kind, told.account, told.id
   limit 1) as halted on true
-- Named with the moment when it was last shown, which is over once it is shown again.
left join lateral (
  select told.last_shown from (
    select case when j.refund_id is null then missing.details -> 'invoices' ->> j.invoice_id::text
                else missing.details -> 'refunds' ->> j.refund_id::text end::timestamptz as last_shown
      from apipay.alerts missing
     where ((j.refund_id is null and (i.invoice).settled is false) or (r.refund).settled is false)
       and missing.resolved_at is null and missing.kind = 'invoice_missing' and coalesce(missing.account, '') = j.account
     limit 1) told
   where told.last_shown >= case when j.refund_id is null then coalesce((i.invoice).checked_at, (i.invoice).created_at)
                                 else coalesce((r.refund).checked_at, (r.refund).created_at) end) as missing on true
-- They are ended within seconds, unless there are very many, or something keeps them.
left join lateral (
  select true as yes from apipay.jobs x
   where j.state = 'queued' and x.account = j.account and x.state = 'queued' and x.expires_at < now() - interval '10 s'
   limit 1) as expired on true
left join lateral (
  select e.actor, e.reason from apipay.events e
   where j.state = 'cancelled' and e.job_id = j.id and e.subject = 'job' and e.to_state = 'cancelled'
   order by e.id desc limit 1) as cancelled on true
left join lateral (
  -- Before a refund goes: an open one of the same invoice; and if it waits, the one whose turn it is, or will be.
  select o.id from (
    (select r.id from apipay.jobs r
      where r.account = j.account and r.invoice_id + 0 = j.invoice_id and r.operation = 'invoice.refund'
        and (r.state in ('sending', 'uncertain', 'accepted', 'held')
             or (r.state in ('queued', 'parked') and r.unproven_since is not null))
      limit 1)
    union all
    (select r.id from apipay.jobs r
      where j.reason = 'waits_for_refund'
        and r.account = j.account and r.invoice_id + 0 = j.invoice_id and r.operation = 'invoice.refund'
        and r.state = 'queued' and apipay._is_in_turn(r.reason) and r.run_at <= now()
      order by r.run_at limit 1)
    union all
    (select r.id from apipay.jobs r
      where j.reason = 'waits_for_refund'
        and r.account = j.account and r.invoice_id + 0 = j.invoice_id and r.state = 'queued' and r.reason = 'waits_for_refund'
        and r.run_at <= now()
      order by r.priority desc, r.run_at, r.id limit 1)) as o
   where j.state = 'queued' and j.operation = 'invoice.refund' and j.unproven_since is null and o.id <> j.id
   limit 1) as ahead on true;
comment on view apipay._job_facts is 'Internal: each job with all that the views say of it.';
comment on column apipay._job_facts.job is 'The job.';
comment on column apipay._job_facts.sender is 'Its account.';
comment on column apipay._job_facts.control is 'Whether all sending is stopped.';
comment on column apipay._job_facts.invoice is 'The copy of its invoice, if there is one.';
comment on column apipay._job_facts.refund is 'The copy of its refund, if there is one.';
comment on column apipay._job_facts.trial_at is 'Before this moment the gateway is not asked about it, because such requests get no clear answer.';
comment on column apipay._job_facts.ahead is 'The refund job of the same invoice that it waits for.';
comment on column apipay._job_facts.cancelled_by is 'Who cancelled it.';
comment on column apipay._job_facts.cancelled_why is 'Why.';
comment on column apipay._job_facts.served_at is 'Infinity while a daemon serves its account: one that has not left and gave a sign of life within the last minute. Otherwise when one that served it last gave one.';
comment on column apipay._job_facts.stuck is 'What the alert says, if the database does not let it move.';
comment on column apipay._job_facts.unanswered is 'Since when ApiPay gives no clear answer to what is asked of such a job, in words: of a queued one, to the list of refunds that it goes out after.';
comment on column apipay._job_facts.unshown is 'When the gateway last showed its invoice or refund, if an alert says that it does not any more.';
comment on column apipay._job_facts.expired is 'True when its account has queued jobs that expired some seconds ago, while it is queued itself; else null.';
comment on column apipay._job_facts.halted is 'What an alert says of why nothing like it moves, if one does.';
comment on column apipay._job_facts.doubted is 'What a daemon says that has the account while nobody serves it: that its key may be of another organization.';

create view apipay.overview as
select (f.job).id, (f.job).account, (f.job).operation, (f.job).state,
       apipay._mask_phones((f.job).reason) as reason,
       apipay._explain(f.job, f.sender, f.control, f.invoice, f.refund, f.trial_at, f.ahead, f.cancelled_by, f.cancelled_why,
         f.served_at, f.stuck, f.halted, f.doubted, f.unshown, f.expired, f.unanswered) as explain,
       apipay._mask_phone(apipay._phone((f.job).params ->> 'phone_number')) as phone,
       apipay._job_amount(f.job, case when (f.job).operation = 'invoice.refund' then (f.refund).amount else (f.invoice).amount end) as amount,
       (f.job).order_id as external_order_id,
       apipay._mask_phones(left((f.invoice).external_order_id, 255)) collate "C" as invoice_order_id,
       (f.job).invoice_id,
       apipay._mask_phones((f.invoice).status) as invoice_status,
       (f.job).refund_id,
       apipay._mask_phones((f.refund).status) as refund_status,
       (f.job).attempts, (f.job).http_status,
       apipay._mask_phones(left((f.job).error_code, 200)) as error_code,
       apipay._mask_phones(left((f.job).error_message, 500)) as error_message,
       (f.job).lookups, (f.job).unproven_since, (f.job).priority, (f.job).retry_of,
       (f.job).created_at, (f.job).run_at, (f.job).expires_at, (f.job).updated_at, (f.job).finished_at
from apipay._job_facts f
where (f.job).created_at > '-infinity';
comment on view apipay.overview is 'One line per job: where it is, why, what happens next and when. Phones are masked.';
comment on column apipay.overview.id is 'The number of the job.';
comment on column apipay.overview.account is 'Which account sends it.';
comment on column apipay.overview.operation is 'What to do.';
comment on column apipay.overview.state is 'As in apipay.jobs.';
comment on column apipay.overview.reason is 'Why it is in that state: a stable code.';
comment on column apipay.overview.explain is 'One sentence: why it is where it is, what happens next and when.';
comment on column apipay.overview.phone is 'The customer''s phone, masked; null when params hold none.';
comment on column apipay.overview.amount is 'Tenge: the gateway''s amount once known, else that of params; null for a cancellation, and for a cart or full refund not priced yet.';
comment on column apipay.overview.external_order_id is 'Your order id, as this job''s params name it. Cancellations and refunds name an invoice: find them by invoice_id.';
comment on column apipay.overview.invoice_order_id is 'The order id that the gateway has for the invoice: of a cancellation or refund too, once the invoice is known.';
comment on column apipay.overview.invoice_id is 'The gateway''s id of the invoice.';
comment on column apipay.overview.invoice_status is 'What became of the invoice: apipay.invoices.status.';
comment on column apipay.overview.refund_id is 'The gateway''s id of the refund.';
comment on column apipay.overview.refund_status is 'What became of the refund: apipay.refunds.status.';
comment on column apipay.overview.attempts is 'Requests that count against the limit of attempts.';
comment on column apipay.overview.http_status is 'HTTP status of the last answer.';
comment on column apipay.overview.error_code is 'Code of the last error.';
comment on column apipay.overview.error_message is 'Text of the last error.';
comment on column apipay.overview.lookups is 'How often the gateway was asked whether an unproven request had its effect; of a queued job, how often it could not be seen whether an earlier invoice of it, or of what it repeats, lives.';
comment on column apipay.overview.unproven_since is 'Since when a request is unproven; null when none is.';
comment on column apipay.overview.priority is 'Higher goes first within the account.';
comment on column apipay.overview.retry_of is 'The final job that this one repeats.';
comment on column apipay.overview.created_at is 'When it was enqueued.';
comment on column apipay.overview.run_at is 'Not sent before this moment; for an uncertain job, when it is next looked up.';
comment on column apipay.overview.expires_at is 'Not sent after this moment; null: no limit.';
comment on column apipay.overview.updated_at is 'When its row last changed: its state, its reason or a look-up.';
comment on column apipay.overview.finished_at is 'When it became final; null before.';

-- What waits is found by one arm for each state, each with its index, so that the final rows, which are nearly all, are
-- not read; what is told of it is looked up job by job, as above.

-- `id + 0 = id`, here and below, is true of each row, and the planner, which cannot know that, expects one of two hundred.
-- It would expect too many: without statistics it takes one row of two hundred for queued, and as many for each other
-- state. What is looked up beside each would make the statement seem so long that it is compiled (jit): for seconds, and
-- then run for milliseconds. Not so in apipay.overview: its newest are found in the order of an index, and if few were
-- expected, to sort all would seem as good.
create view apipay.waiting as
select w.id, w.account, w.operation, w.state, apipay._age(w.created_at) as age,
       case w.state
         when 'uncertain' then 'unproven_request'
         when 'held' then 'human_decides'
         when 'accepted' then 'not_followed'
         else case
           when (o.control).stopped then 'stopped'
           when apipay._unserved(o.sender, o.served_at) is not null then 'not_served'
           when (o.sender).state = 'parked' then 'account_parked'
           when w.state = 'parked' then 'parked'
           when (o.sender).blocked_until > now() then 'account_blocked'
           when w.operation = any (apipay._capped(o.sender)) then 'account_capped'
           when (o.sender).failing_trial_at is not null then 'gateway_failing'
           when w.reason = 'waits_for_refund' then 'other_refund'
           when w.reason = 'waits_for_cap' then 'quota'
           when w.run_at <= now() then 'quota'
           when w.attempts > 0 or w.reason = 'earlier_unseen' then 'back_off'
           else 'not_due' end end as cause,
       apipay._mask_phones(w.reason) as reason,
       apipay._explain(o.job, o.sender, o.control, o.invoice, o.refund, o.trial_at, o.ahead, o.cancelled_by, o.cancelled_why,
         o.served_at, o.stuck, o.halted, o.doubted, o.unshown, o.expired, o.unanswered) as explain,
       apipay._job_amount(o.job, case when w.operation = 'invoice.refund' then (o.refund).amount else (o.invoice).amount end) as amount,
       coalesce(w.order_id, apipay._mask_phones(left((o.invoice).external_order_id, 255)) collate "C") as external_order_id,
       w.run_at, w.created_at
from (
  select * from apipay.jobs where state = 'queued' and id + 0 = id
  union all
  select * from apipay.jobs where state = 'uncertain' and id + 0 = id
  union all
  select * from apipay.jobs where state = 'parked' and created_at > '-infinity' and id + 0 = id
  union all
  select * from apipay.jobs where state = 'held' and created_at > '-infinity' and id + 0 = id
  union all
  select q.* from apipay.jobs q
  left join lateral (
    select next_check_at from apipay.invoices
     where q.operation <> 'invoice.refund' and account = q.account and id = q.invoice_id limit 1) as i on true
  left join lateral (
    select next_check_at from apipay.refunds
     where q.operation = 'invoice.refund' and account = q.account and id = q.refund_id limit 1) as r on true
  where q.state = 'accepted' and q.created_at > '-infinity' and q.id + 0 = q.id
    and coalesce(i.next_check_at, r.next_check_at, '-infinity') < now() - interval '10 minutes'
) as w
cross join lateral (select * from apipay._job_facts f where (f.job).id = w.id limit 1) as o;
comment on view apipay.waiting is 'Jobs that are not final and not moving, with their age and what they wait for.';
comment on column apipay.waiting.id is 'The number of the job.';
comment on column apipay.waiting.account is 'Which account sends it.';
comment on column apipay.waiting.operation is 'What to do.';
comment on column apipay.waiting.state is 'As in apipay.jobs.';
comment on column apipay.waiting.age is 'Time since it was enqueued.';
comment on column apipay.waiting.cause is 'What it waits for: stopped, not_served (no daemon serves its account), account_parked, parked, account_blocked (429), account_capped (a cap of its operation is reached), gateway_failing (one job at a time tries), other_refund (one of the same invoice goes first), quota (its turn), back_off, not_due, unproven_request, human_decides, not_followed (the daemon should have asked about it 10 minutes ago).';
comment on column apipay.waiting.reason is 'Why it is in that state: a stable code.';
comment on column apipay.waiting.explain is 'One sentence: why it is where it is, what happens next and when.';
comment on column apipay.waiting.amount is 'Tenge; null when unknown.';
comment on column apipay.waiting.external_order_id is 'Your order id.';
comment on column apipay.waiting.run_at is 'When it is due, or next looked up.';
comment on column apipay.waiting.created_at is 'When it was enqueued.';

create view apipay.uncertain as
select w.id, w.account, w.operation, w.state, apipay._mask_phones(w.reason) as reason,
       apipay._unproven_from(o.job) as uncertain_since, apipay._age(apipay._unproven_from(o.job)) as age,
       apipay._job_amount(o.job, case when w.operation = 'invoice.refund' then (o.refund).amount else (o.invoice).amount end) as at_risk,
       apipay._mask_phone(apipay._phone(w.params ->> 'phone_number')) as phone,
       coalesce(w.order_id, apipay._mask_phones(left((o.invoice).external_order_id, 255)) collate "C") as external_order_id,
       w.invoice_id, w.lookups, case when w.state = 'uncertain' then w.run_at end as next_lookup_at, w.http_status,
       apipay._mask_phones(left(w.error_code, 200)) as error_code,
       apipay._explain(o.job, o.sender, o.control, o.invoice, o.refund, o.trial_at, o.ahead, o.cancelled_by, o.cancelled_why,
         o.served_at, o.stuck, o.halted, o.doubted, o.unshown, o.expired, o.unanswered) as explain
from (
  select * from apipay.jobs where state = 'uncertain' and id + 0 = id
  union all
  select * from apipay.jobs where state = 'held' and created_at > '-infinity' and id + 0 = id
) as w
cross join lateral (select * from apipay._job_facts f where (f.job).id = w.id limit 1) as o;
comment on view apipay.uncertain is 'Jobs of which a request may have had its effect: looked up by the daemon (uncertain) or left to a human (held).';
comment on column apipay.uncertain.id is 'The number of the job.';
comment on column apipay.uncertain.account is 'Which account sent it.';
comment on column apipay.uncertain.operation is 'What was asked.';
comment on column apipay.uncertain.state is 'uncertain: the daemon looks it up. held: a human decides.';
comment on column apipay.uncertain.reason is 'Why it is in that state: a stable code.';
comment on column apipay.uncertain.uncertain_since is 'Since when a request is unproven.';
comment on column apipay.uncertain.age is 'How long that is.';
comment on column apipay.uncertain.at_risk is 'Money at risk in tenge: what would be billed or refunded twice, or not at all; null when unknown.';
comment on column apipay.uncertain.phone is 'The customer''s phone, masked.';
comment on column apipay.uncertain.external_order_id is 'Your order id.';
comment on column apipay.uncertain.invoice_id is 'The gateway''s id of the invoice, when known.';
comment on column apipay.uncertain.lookups is 'How often the gateway was asked.';
comment on column apipay.uncertain.next_lookup_at is 'When it is asked next; null when held.';
comment on column apipay.uncertain.http_status is 'HTTP status of the last answer.';
comment on column apipay.uncertain.error_code is 'Code of the last error.';
comment on column apipay.uncertain.explain is 'One sentence: which request is unproven, and what to do.';

create view apipay.parked as
select w.account, apipay._mask_phones((o.sender).parked_reason) as parked_reason, (o.sender).parked_at, (o.sender).parked_by,
       (o.sender).probe_at, w.id, w.operation, w.state, apipay._mask_phones(w.reason) as reason, apipay._age(w.created_at) as age,
       apipay._job_amount(o.job, case when w.operation = 'invoice.refund' then (o.refund).amount else (o.invoice).amount end) as amount,
       coalesce(w.order_id, apipay._mask_phones(left((o.invoice).external_order_id, 255)) collate "C") as external_order_id,
       apipay._explain(o.job, o.sender, o.control, o.invoice, o.refund, o.trial_at, o.ahead, o.cancelled_by, o.cancelled_why,
         o.served_at, o.stuck, o.halted, o.doubted, o.unshown, o.expired, o.unanswered) as explain,
       w.created_at
from (
  select * from apipay.jobs where state = 'parked' and created_at > '-infinity' and id + 0 = id
  union all
  select q.* from apipay.accounts p join apipay.jobs q on q.account = p.name
   where p.state = 'parked' and q.state = 'queued' and q.id + 0 = q.id
) as w
cross join lateral (select * from apipay._job_facts f where (f.job).id = w.id limit 1) as o;
comment on view apipay.parked is 'Jobs that wait for their account: parked ones, and queued ones of a parked account.';
comment on column apipay.parked.account is 'The account.';
comment on column apipay.parked.parked_reason is 'Why the account is parked; null when it is active again.';
comment on column apipay.parked.parked_at is 'Since when the account is parked.';
comment on column apipay.parked.parked_by is 'Who parked it: the daemon (apipayd) or a database role.';
comment on column apipay.parked.probe_at is 'When the daemon next asks whether the account is well; null when an operator must resume it.';
comment on column apipay.parked.id is 'The number of the job.';
comment on column apipay.parked.operation is 'What to do.';
comment on column apipay.parked.state is 'parked or queued.';
comment on column apipay.parked.reason is 'Why the job is in that state: a stable code.';
comment on column apipay.parked.age is 'Time since it was enqueued.';
comment on column apipay.parked.amount is 'Tenge; null when unknown.';
comment on column apipay.parked.external_order_id is 'Your order id.';
comment on column apipay.parked.explain is 'One sentence: why it waits, and until when.';
comment on column apipay.parked.created_at is 'When it was enqueued.';

-- The days are walked one by one, each with its part of an index: a range of days, of which the planner
-- cannot know how many jobs it holds, would have it read all. The newest goes first, so that whoever asks for the
-- newest few days has the others not read. What is not finished stands beside it: its states are others.
--
-- `+ 0` as in apipay.waiting: it has the planner expect one day, and few jobs of it.
create view apipay._days as
with recursive days as (
  select greatest(
    (select max(apipay._day(created_at)) from apipay.jobs where finished_at is not null),
    (select max(apipay._day(paid_at)) from apipay.invoices where paid_at is not null),
    (select max(apipay._day(completed_at)) from apipay.refunds where completed_at is not null)) as day
  union all
  select greatest(
    (select max(apipay._day(created_at)) from apipay.jobs where finished_at is not null and apipay._day(created_at) < d.day),
    (select max(apipay._day(paid_at)) from apipay.invoices where paid_at is not null and apipay._day(paid_at) < d.day),
    (select max(apipay._day(completed_at)) from apipay.refunds where completed_at is not null and apipay._day(completed_at) < d.day))
  from days d where d.day is not null
)
select day from days where day + 0 = day order by day desc;
comment on view apipay._days is 'Internal: each day that has finished jobs, payments or refunds, the newest first.';
comment on column apipay._days.day is 'The day in Almaty.';

create view apipay.daily as
(select d.account, days.day, d.day_of, d.operation, d.state, d.jobs, d.amount
from apipay._days days
cross join lateral (
  select p.account, p.day_of, p.operation, p.state, count(*) as jobs, sum(p.amount) as amount
  from (
    select j.account, 'enqueued' as day_of, j.operation, j.state,
           apipay._job_amount(j, case when j.operation = 'invoice.refund' then r.amount else i.amount end) as amount
    from apipay.jobs j
    left join lateral (
      select amount from apipay.invoices
       where j.operation = 'invoice.create' and account = j.account and id = j.invoice_id limit 1) as i on true
    left join lateral (
      select amount from apipay.refunds
       where j.operation = 'invoice.refund' and account = j.account and id = j.refund_id limit 1) as r on true
    where j.finished_at is not null and apipay._day(j.created_at) = days.day and j.id + 0 = j.id
    union all
    select i.account, 'paid', 'invoice.create', 'paid', i.amount from apipay.invoices i
    where i.paid_at is not null and apipay._day(i.paid_at) = days.day and i.is_sandbox is not true
    union all
    select r.account, 'refunded', 'invoice.refund', 'refunded', r.amount from apipay.refunds r
    left join lateral (
      select is_sandbox from apipay.invoices where account = r.account and id = r.invoice_id limit 1) as i on true
    where r.completed_at is not null and apipay._day(r.completed_at) = days.day and i.is_sandbox is not true
  ) as p
  group by 1, 2, 3, 4
) as d
order by day desc)
union all
select j.account, apipay._day(j.created_at), 'enqueued', j.operation, j.state, count(*),
       sum(apipay._job_amount(j, case when j.operation = 'invoice.refund' then r.amount else i.amount end))
from (select * from apipay.jobs
       where state in ('queued', 'sending', 'uncertain', 'accepted', 'parked', 'held') and created_at > '-infinity' and id + 0 = id
      offset 0) as j
left join lateral (
  select amount from apipay.invoices
   where j.operation = 'invoice.create' and account = j.account and id = j.invoice_id limit 1) as i on true
left join lateral (
  select amount from apipay.refunds
   where j.operation = 'invoice.refund' and account = j.account and id = j.refund_id limit 1) as r on true
group by 1, 2, 3, 4, 5;
comment on view apipay.daily is 'Per account and day (Almaty): what was enqueued on it, by operation and state (day_of enqueued: succeeded bills are billed, not paid), what was paid on it (day_of and state paid) and what was given back on it (refunded), but for what is known to be of ApiPay''s sandbox. Never add these up. Ask for the days you mean, as in where day > current_date - 7, or for the newest, as in order by day desc limit 20: else all jobs are read.';
comment on column apipay.daily.account is 'The account.';
comment on column apipay.daily.day is 'The day in Almaty: that of day_of.';
comment on column apipay.daily.day_of is 'Of what it is the day: enqueued (of jobs, whatever became of them later), paid (of invoices, by their paid_at), refunded (of refunds, by their completed_at).';
comment on column apipay.daily.operation is 'What to do; of what was paid invoice.create, of what was refunded invoice.refund, whoever did it.';
comment on column apipay.daily.state is 'Of jobs the state they are in now: the amount of succeeded bills is what was billed. paid: the customers'' money came in. refunded: it was given back.';
comment on column apipay.daily.jobs is 'How many: jobs, or invoices that were paid, or refunds that were made.';
comment on column apipay.daily.amount is 'Tenge, of what was paid without regard to later refunds; what has no known amount is left out, null when nothing has.';

create function apipay._unwritten(jobs bigint) returns text
language sql immutable parallel safe
return apipay._counted(jobs) || case when jobs = 1 then ' job waits' else ' jobs wait' end || ' for the database to take what became of '
  || case when jobs = 1 then 'it' else 'them' end;
comment on function apipay._unwritten(bigint) is 'Says of so many jobs that their outcomes are refused.';

create function apipay._explain_account(
  account apipay.accounts, control apipay._control, served_at timestamptz, halted text, used bigint, waiting bigint, tenge numeric, unsure bigint, under_way bigint,
  doubted text default null, failed bigint default 0, unwritten bigint default 0, to_be_shown text default null, silent_since timestamptz default null) returns text
language sql stable parallel safe
return concat(coalesce('Nothing is sent: ' || apipay._obstacle(account, control, served_at, doubted),
    upper(left(halted, 1)) || substr(halted, 2),
    case when silent_since is not null then format('Perhaps nothing is sent: the apipayd that serves account %s has given no sign of life %s; see that it runs (systemctl status apipayd)',
      account.name, apipay._since(silent_since)) end,
    case when waiting + under_way > 0 then 'Hardly anything is sent: ' || apipay._slowness(account)
         when account.failing_trial_at is not null then concat('Nothing waits to be sent; the last that was got no clear answer from ApiPay, ',
           apipay._since(account.failing_since), ' (' || apipay._failure(account) || ')', ': the next payment will show whether it answers') end,
    concat(format('Sending: %s of %s requests a minute are taken', used, account.requests_per_minute), '; but ' || to_be_shown)),
  case when apipay._obstacle(account, control, served_at, doubted) is null and halted is null and silent_since is null and account.failing_trial_at is null
       then '; ' || apipay._cap_of(account, account.capped_operations) || ', and everything else goes on'
       else '; besides, ' || apipay._cap_of(account, account.capped_operations) end, '. ',
  case when waiting = 0 and unsure = 0 and failed > 0
            then apipay._counted(failed) || case when failed = 1 then ' job waits that failed at Kaspi' else ' jobs wait that failed at Kaspi' end
       when waiting = 0 and unsure > 0 then apipay._counted(unsure) || case when unsure = 1 then ' job of unknown outcome waits' else ' jobs of unknown outcome wait' end
       when waiting = 0 and unwritten > 0 then apipay._unwritten(unwritten)
       when waiting = 0 then 'No job waits' else apipay._counted(waiting) || case when waiting = 1 then ' job waits' else ' jobs wait' end
    || coalesce(' for ' || case when waiting >= apipay._most_counted() then 'at least ' else '' end || apipay._tenge(tenge), '') end,
  case when waiting > 0 and unsure > 0 then ', ' || apipay._counted(unsure) || ' of unknown outcome' end,
  case when waiting + unsure > 0 and failed > 0 then ', ' || apipay._counted(failed) || ' that failed at Kaspi' end,
  case when waiting + unsure + failed > 0 and unwritten > 0 then '; ' || apipay._unwritten(unwritten) end, '.');
comment on function apipay._explain_account(apipay.accounts, apipay._control, timestamptz, text, bigint, bigint, numeric, bigint, bigint, text, bigint, bigint, text, timestamptz) is
  'The sentence of an account: whether it sends, why not, what waits.';

create view apipay.account_status as
select a.name as account, a.mode, a.state, apipay._mask_phones(a.parked_reason) as parked_reason, a.parked_at, a.parked_by, a.probe_at,
       a.blocked_until, apipay._mask_phones(a.blocked_reason) as blocked_reason,
       a.capped_until, a.capped_operations, apipay._mask_phones(a.capped_reason) as capped_reason, a.capped_message,
       a.requests_per_minute as quota_limit, quota.used as quota_used,
       greatest(a.requests_per_minute - quota.used, 0) as quota_left,
       n.queued, coalesce(s.jobs, 0) as sending, n.uncertain, n.accepted, n.parked, n.held, n.tenge_waiting, n.oldest_waiting_at,
       (select count(*) from apipay.alerts l where coalesce(l.account, '') = a.name and l.resolved_at is null) as open_alerts,
       apipay._explain_account(a, c.control, served.seen_at, halted.summary, quota.used, n.queued + n.parked, n.tenge_waiting, n.uncertain + n.held,
         coalesce(s.jobs, 0), doubted.summary, n.failed, coalesce(unwritten.jobs, 0), (apipay._to_be_shown(a.name)).in_words, served.silent_since) as explain
from apipay.accounts a
cross join (select control from apipay._control as control limit 1) as c
cross join lateral (
  select coalesce((select apipay._quota_sum(apipay._quota_slide(q.used, q.newest,
                            floor(extract(epoch from now()) + (c.control).steady_ahead_us / 1e6)::bigint))
                   from apipay._quotas q where q.account = a.name), 0) as used) as quota
left join lateral (
  select case when bool_or(d.has_it and not d.has_left and d.seen_at >= now() - interval '1 minute') then 'infinity'
              else max(case when d.has_it then d.seen_at else (d.dropped ->> a.name)::timestamptz end) end as seen_at,
         -- A sign of life is half a minute old at most; after a minute nobody serves it.
         case when max(d.seen_at) filter (where d.has_it and not d.has_left) between now() - interval '1 minute' and now() - interval '30 s'
              then max(d.seen_at) filter (where d.has_it and not d.has_left) end as silent_since
    from (select a.name = any (all_of.accounts) as has_it, all_of.has_left, all_of.seen_at, all_of.dropped from apipay.daemons all_of) d
   where d.has_it or d.dropped ? a.name) as served on true
left join lateral (
  select concat('the apipayd on ', d.host, ' has a key for account ', a.name, ' that may be of another organization, and serves nothing of it before that is known',
                (select format(': see alert %s (%s), in apipay.alerts', l.id, l.kind) from apipay.alerts l
                  where coalesce(l.account, '') = a.name and l.resolved_at is null and l.kind in ('other_organization', 'account_parked')
                  order by l.kind = 'other_organization' desc, l.details ->> 'host' = d.host desc, l.id desc limit 1)) as summary
    from apipay.daemons d cross join lateral unnest(d.doubted) as one (key)
   where served.seen_at is distinct from 'infinity'
     and not d.has_left and d.seen_at >= now() - interval '1 minute' and split_part(one.key, ' ', 1) = a.name
   order by d.seen_at desc limit 1) as doubted on true
left join lateral (
  select apipay._of_alert(told) as summary from apipay.alerts told
   where told.resolved_at is null and told.kind in ('history_lost', 'no_progress') and coalesce(told.account, '') in ('', a.name)
     and case told.kind when 'history_lost' then coalesce(told.details -> 'accounts' ? a.name, true)
                        -- What one daemon cannot do another one may be doing.
                        else told.details -> 'concerns' ?| '{claims,window,loop,outcomes,schema}' and exists (
                          select from apipay.jobs j
                           where j.account = a.name and j.state = 'queued' and apipay._is_in_turn(j.reason) and j.id > 0
                             and j.run_at < now() - interval '30 s') end
   order by told.kind, told.account, told.id
   limit 1) as halted on true
left join (
  select j.account, count(*) as jobs
  from (select jobs.account from apipay.jobs where jobs.state = 'sending' offset 0) as j group by j.account) as s on s.account = a.name
-- Of those that are being sent, whose outcomes the database does not take: as the alerts list them.
left join lateral (
  select count(*) as jobs from (
    select distinct one.job, one.stands from apipay.alerts told
     cross join lateral jsonb_each(told.details -> 'alike') as theirs (worker, jobs)
     cross join lateral jsonb_each(theirs.jobs) as one (job, stands)
     where coalesce(told.account, '') = a.name and told.kind = 'job_stuck' and told.resolved_at is null and one.stands ->> 'state' = 'sending') listed
   cross join lateral (
     select j.state, j.epoch from apipay.jobs j where j.id = listed.job::bigint offset 0) j
   where listed.stands = jsonb_build_object('state', j.state, 'epoch', j.epoch)) as unwritten on true
cross join lateral (
  select count(*) filter (where o.state = 'queued') as queued,
         count(*) filter (where o.state = 'uncertain') as uncertain,
         count(*) filter (where o.state = 'accepted') as accepted,
         count(*) filter (where o.state = 'parked') as parked,
         count(*) filter (where o.state = 'held') as held,
         count(*) filter (where o.has_failed) as failed,
         sum(o.amount) filter (where o.state in ('queued', 'parked')) as tenge_waiting,
         min(o.created_at) filter (where o.state <> 'accepted') as oldest_waiting_at
  from (
    (select j.state, j.created_at, apipay._job_amount(j, null) as amount, false as has_failed from apipay.jobs j
      where j.account = a.name and j.state = 'queued' limit apipay._most_counted())
    union all
    (select j.state, j.created_at, null, false from apipay.jobs j
      where j.account = a.name and j.state = 'uncertain' limit apipay._most_counted())
    union all
    (select j.state, j.created_at, null, j.reason is not distinct from 'async_retry' from apipay.jobs j
      where j.account = a.name and j.state = 'accepted' limit apipay._most_counted())
    union all
    (select j.state, j.created_at, apipay._job_amount(j, null), false from apipay.jobs j
      where j.account = a.name and j.state = 'parked' limit apipay._most_counted())
    union all
    (select j.state, j.created_at, null, false from apipay.jobs j
      where j.account = a.name and j.state = 'held' limit apipay._most_counted())
  ) as o
) as n
-- As `id + 0 = id` in apipay.waiting.
where a.name || '' = a.name;
comment on view apipay.account_status is 'One line per account: whether it sends, why not, how much of its quota is left, what waits.';
comment on column apipay.account_status.account is 'The name of the account.';
comment on column apipay.account_status.mode is 'live or sandbox; null until seen.';
comment on column apipay.account_status.state is 'active or parked.';
comment on column apipay.account_status.parked_reason is 'Why it is parked, a stable code; null while active.';
comment on column apipay.account_status.parked_at is 'Since when it is parked.';
comment on column apipay.account_status.parked_by is 'Who parked it: the daemon (apipayd) or a database role.';
comment on column apipay.account_status.probe_at is 'When the daemon next asks whether it is well; null while active, or when an operator must resume it.';
comment on column apipay.account_status.blocked_until is 'Nothing is sent or asked before this moment: the gateway answered 429.';
comment on column apipay.account_status.blocked_reason is 'The code of that 429.';
comment on column apipay.account_status.capped_until is 'Nothing of capped_operations is sent before this moment: a cap of the gateway is reached. It stops nothing else.';
comment on column apipay.account_status.capped_operations is 'The operations that the cap is about.';
comment on column apipay.account_status.capped_reason is 'The code of that cap.';
comment on column apipay.account_status.capped_message is 'What the gateway said of the cap, masked.';
comment on column apipay.account_status.quota_limit is 'Requests a minute that the key allows.';
comment on column apipay.account_status.quota_used is 'Requests in the window now.';
comment on column apipay.account_status.quota_left is 'Requests that may still go out now.';
comment on column apipay.account_status.queued is 'Jobs in that state; 10000 means that many or more.';
comment on column apipay.account_status.sending is 'Jobs in that state.';
comment on column apipay.account_status.uncertain is 'Jobs in that state; 10000 means that many or more.';
comment on column apipay.account_status.accepted is 'Jobs in that state; 10000 means that many or more.';
comment on column apipay.account_status.parked is 'Jobs in that state; 10000 means that many or more.';
comment on column apipay.account_status.held is 'Jobs in that state; 10000 means that many or more.';
comment on column apipay.account_status.tenge_waiting is 'Money of the queued and parked jobs that were counted; jobs of unknown amount are left out.';
comment on column apipay.account_status.oldest_waiting_at is 'When the oldest job was enqueued that is queued, uncertain, parked or held, of those that were counted.';
comment on column apipay.account_status.open_alerts is 'Alerts of this account that are open.';
comment on column apipay.account_status.explain is 'One sentence: whether it sends, why not, and what waits.';
