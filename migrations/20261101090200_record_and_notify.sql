-- Every change of state becomes an event, whoever makes it, and tells those who listen. Events are written by
-- these triggers and by the operators' functions alone, with the rights of their owner: nobody is granted to insert
-- one, so the actor is who logged in.
-- Postgres lets anybody notify any channel: who listens takes a notification as a hint to read the row, no more.
-- `alter database ... set apipay.notify = off` silences both channels; polling alone is correct.
set search_path = pg_catalog, pg_temp;

-- A notification must cost nobody their transaction, and it can: one that has notified cannot be prepared for a commit
-- in two phases, and while a session that listens stays in a transaction, the queue fills until every commit that
-- notifies fails. Postgres warns from half full on.
create function apipay._most_of_queue() returns double precision
language sql immutable parallel safe
return 0.5;
comment on function apipay._most_of_queue() is 'How full the server''s queue of notifications may be for us to add one: 1 is full.';

-- In PL/pgSQL, which keeps its plan: they run with every insert.
create function apipay._is_notifying() returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  return case coalesce(current_setting('apipay.notify', true), '')
           when 'off' then false when 'on' then true else current_setting('max_prepared_transactions') = '0' end
         and pg_notification_queue_usage() <= apipay._most_of_queue();
end $$;
comment on function apipay._is_notifying() is
  'Whether notifications are let out: by the setting apipay.notify (on, off), or else where no transaction can be prepared; never into a queue that is filling.';

create function apipay._notify(channel text, payload text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if apipay._is_notifying() then
    perform pg_notify(channel, payload);
  end if;
end $$;
comment on function apipay._notify(text, text) is 'pg_notify, where notifications are let out (apipay._is_notifying).';

-- The cause that an operator function gave for the changes of its transaction.
create function apipay._stated_cause() returns text
language sql stable set search_path = pg_catalog, pg_temp
return nullif(current_setting('apipay.cause', true), '');
comment on function apipay._stated_cause() is 'The reason that an operator gave for this transaction''s changes.';

create function apipay._wake() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  perform apipay._notify('apipay_jobs', '');
  return null;
end $$;
comment on function apipay._wake() is 'One hint per statement that there is work.';
create trigger wake after insert on apipay.jobs
  for each statement execute function apipay._wake();

create function apipay._record_job_changes() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
-- The plan is kept, and the planner cannot know how many rows a statement will change: only a hash is
-- good for one row and for a thousand.
set enable_nestloop = off as $$
declare
  -- Once for the statement: a call for each row would cost more than the row.
  cause constant text := apipay._stated_cause();
  is_heard constant boolean := apipay._is_notifying();
  notified bigint;
begin
  with change as materialized (
    select n.account, n.id, o.state as state_before, n.state, n.reason, n.epoch, n.http_status, n.error_code,
           n.invoice_id, n.refund_id, coalesce(n.stated_id, o.stated_id) as stated_id
    from changed n join before_change o using (id)
    where n.state is distinct from o.state or (n.state <> 'sending' and n.reason is distinct from o.reason)
  ),
  recorded as (
    insert into apipay.events (account, job_id, subject, subject_id, from_state, to_state, reason, evidence, actor)
    select account, id, 'job', id::text, state_before, state, coalesce(cause, reason),
           case when state = 'sending' then jsonb_build_object('epoch', epoch)
                else jsonb_strip_nulls(jsonb_build_object(
                       'epoch', epoch, 'http_status', http_status, 'error_code', error_code,
                       'invoice_id', invoice_id, 'refund_id', refund_id, 'stated_id', stated_id)) end,
           session_user
    from change
  )
  select count(pg_notify('apipay_outcomes', json_build_object('job', id, 'state', state)::text))
  into notified
  from change
  where is_heard and state is distinct from state_before and state not in ('queued', 'sending');
  return null;
end $$;
comment on function apipay._record_job_changes() is
  'Writes the events of changed jobs and notifies apipay_outcomes: a hint to read the row, which anybody may send.';
create trigger record_changes after update on apipay.jobs
  referencing old table as before_change new table as changed
  for each statement execute function apipay._record_job_changes();

-- What is seen of an object of the gateway for the first time is told like a change: from nothing to its status. One that
-- a restore brings was made earlier, and is no news; its event has its number already.
create function apipay._record_new_mirrors() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  is_heard constant boolean := apipay._is_notifying();
  notified bigint;
begin
  with recorded as (
    insert into apipay.events (account, job_id, subject, subject_id, to_state, reason, evidence, actor)
    select account, job_id, tg_argv[0], id::text, status, error_code,
           case when error_code is null then '{}'::jsonb else jsonb_build_object('error_code', error_code) end, session_user
    from made
    where created_at >= now()
  )
  select count(pg_notify('apipay_outcomes',
                 json_build_object(tg_argv[0], id, 'account', account, 'job', job_id, 'status', status)::text))
  into notified
  from made
  where is_heard and created_at >= now();
  return null;
end $$;
comment on function apipay._record_new_mirrors() is 'Writes the events of mirrors that were made, and notifies apipay_outcomes.';

create function apipay._record_mirror_changes() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
set enable_nestloop = off as $$
declare
  is_heard constant boolean := apipay._is_notifying();
  notified bigint;
begin
  with change as materialized (
    select n.account, n.id, n.job_id, n.status, n.error_code, o.status as status_before
    from changed n join before_change o using (account, id)
    where n.status is distinct from o.status
  ),
  recorded as (
    insert into apipay.events (account, job_id, subject, subject_id, from_state, to_state, reason, evidence, actor)
    select account, job_id, tg_argv[0], id::text, status_before, status, error_code,
           jsonb_strip_nulls(jsonb_build_object('error_code', error_code)), session_user
    from change
  )
  select count(pg_notify('apipay_outcomes',
                 json_build_object(tg_argv[0], id, 'account', account, 'job', job_id, 'status', status)::text))
  into notified
  from change
  where is_heard;
  return null;
end $$;
comment on function apipay._record_mirror_changes() is 'Writes the events of changed refunds and subscriptions, and notifies apipay_outcomes.';

-- A refund of the whole leaves an invoice's status as it is, so what was refunded is a change of its own.
create function apipay._record_invoice_changes() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
set enable_nestloop = off as $$
declare
  is_heard constant boolean := apipay._is_notifying();
  notified bigint;
begin
  with change as materialized (
    select n.account, n.id, n.job_id, n.status, n.error_code, o.status as status_before,
           nullif(coalesce(n.total_refunded, 0), coalesce(o.total_refunded, 0)) as refunded
    from changed n join before_change o using (account, id)
    where n.status is distinct from o.status or coalesce(n.total_refunded, 0) <> coalesce(o.total_refunded, 0)
  ),
  recorded as (
    insert into apipay.events (account, job_id, subject, subject_id, from_state, to_state, reason, evidence, actor)
    select account, job_id, 'invoice', id::text, status_before, status, error_code,
           jsonb_strip_nulls(jsonb_build_object('error_code', error_code, 'total_refunded', refunded)), session_user
    from change
  )
  select count(pg_notify('apipay_outcomes',
                 json_build_object('invoice', id, 'account', account, 'job', job_id, 'status', status)::text))
  into notified
  from change
  where is_heard;
  return null;
end $$;
comment on function apipay._record_invoice_changes() is
  'Writes the events of invoices whose status or refunded total changed, and notifies apipay_outcomes.';

create trigger record_new after insert on apipay.invoices
  referencing new table as made
  for each statement execute function apipay._record_new_mirrors('invoice');
create trigger record_new after insert on apipay.refunds
  referencing new table as made
  for each statement execute function apipay._record_new_mirrors('refund');
create trigger record_new after insert on apipay.subscriptions
  referencing new table as made
  for each statement execute function apipay._record_new_mirrors('subscription');
create trigger record_changes after update on apipay.invoices
  referencing old table as before_change new table as changed
  for each statement execute function apipay._record_invoice_changes();
create trigger record_changes after update on apipay.refunds
  referencing old table as before_change new table as changed
  for each statement execute function apipay._record_mirror_changes('refund');
create trigger record_changes after update on apipay.subscriptions
  referencing old table as before_change new table as changed
  for each statement execute function apipay._record_mirror_changes('subscription');

create function apipay._record_account_change() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  insert into apipay.events (account, subject, subject_id, from_state, to_state, reason, evidence, actor)
  values (new.name, 'account', new.name, old.state, new.state, coalesce(apipay._stated_cause(), new.parked_reason),
          jsonb_strip_nulls(jsonb_build_object(
            'parked_reason', coalesce(new.parked_reason, old.parked_reason),
            'delivery_error', new.delivery_error,
            'parked_reason_before', case when new.state = 'parked' then old.parked_reason end)), session_user);
  return null;
end $$;
comment on function apipay._record_account_change() is 'Writes the event of an account that was parked or resumed, or is parked for another reason now.';
create trigger record_changes after update of state, parked_reason, delivery_error on apipay.accounts
  for each row when (old.state is distinct from new.state or old.parked_reason is distinct from new.parked_reason
                     or old.delivery_error is distinct from new.delivery_error)
  execute function apipay._record_account_change();

create function apipay._record_control_change() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  insert into apipay.events (subject, from_state, to_state, reason, actor)
  values ('daemon', case when old.stopped then 'stopped' else 'started' end,
          case when new.stopped then 'stopped' else 'started' end, new.reason, session_user);
  return null;
end $$;
comment on function apipay._record_control_change() is 'Writes the event of a stop or start of all sending.';
create trigger record_changes after update on apipay._control
  for each row when (old.stopped is distinct from new.stopped)
  execute function apipay._record_control_change();

create function apipay._record_clock_jump() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  insert into apipay.events (subject, reason, evidence, actor)
  values ('daemon', 'clock_jumped', jsonb_build_object('seconds', round((old.steady_ahead_us - new.steady_ahead_us) / 1e6, 3)), session_user);
  return null;
end $$;
comment on function apipay._record_clock_jump() is 'Writes the event of a jump of the database''s clock: by how many seconds it was set forward, or back.';
create trigger record_clock_jump after update on apipay._control
  for each row when (old.steady_ahead_us <> new.steady_ahead_us)
  execute function apipay._record_clock_jump();

-- A trigger of somebody else's that returns null, or a rule, has a statement succeed and change nothing; one that returns
-- the old row, or puts another value in its place, has it count a change that was not made. A payment would stand still
-- without a word, so statements that must not be without their effect fail then, like those that one raises for.
create function apipay._all_changed(relation text, expected bigint, changed bigint, stored bigint default null) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  of_others text;
begin
  if changed >= expected and coalesce(stored, changed) >= changed then
    return true;
  end if;
  of_others := (
    select string_agg(found.name, ' or ' order by found.name) from (
      select format('the trigger %I', t.tgname) as name
        from pg_trigger t join pg_proc p on p.oid = t.tgfoid
       where t.tgrelid = relation::regclass and not t.tgisinternal and p.pronamespace <> 'apipay'::regnamespace
         -- For each row, and before it.
         and t.tgtype & 3 = 3 and t.tgenabled <> 'D'
      union all
      select format('the rule %I', r.rulename) from pg_rewrite r
       where r.ev_class = relation::regclass and r.ev_enabled <> 'D') found);
  -- Without any a row was missed for another cause: somebody else changed it at the same moment.
  if of_others is not null and changed < expected then
    raise exception 'the change was swallowed without an error: % returns null for this row', of_others;
  elsif of_others is not null then
    raise exception 'the change was made without an error and changed back by %', of_others;
  end if;
  return true;
end $$;
comment on function apipay._all_changed(text, bigint, bigint, bigint) is
  'True; an error when fewer rows of the table were changed than expected, or fewer are stored as they were to be than were changed, and triggers or rules that are not of the schema may be why.';

create function apipay._is_older(seen_at timestamptz, checked_at timestamptz) returns boolean
language sql stable parallel safe
-- A checked_at in the future was written before the clock was set back, and is ignored.
return coalesce(seen_at < checked_at and checked_at <= now(), false);
comment on function apipay._is_older(timestamptz, timestamptz) is 'Whether what was seen then is older than a mirror that was last checked then.';

create function apipay._is_superseded(mirrors text, account_name text, object_id bigint, seen_at timestamptz) returns boolean
-- Volatile, to see what was stored since its statement began.
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
  return exists (select from apipay.invoices m
                  where mirrors = 'invoices' and m.account = account_name and m.id = object_id
                    and apipay._is_older(_is_superseded.seen_at, m.checked_at))
      or exists (select from apipay.refunds m
                  where mirrors = 'refunds' and m.account = account_name and m.id = object_id
                    and apipay._is_older(_is_superseded.seen_at, m.checked_at))
      or apipay._all_changed('apipay.' || mirrors, 1, 0);
end $$;
comment on function apipay._is_superseded(text, text, bigint, timestamptz) is
  'Why a mirror was not changed by what was seen then: true when it shows something newer, an error when the change was swallowed.';

create function apipay._is_undisputed(disputed bigint) returns boolean
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
begin
  if disputed > 0 then
    raise exception 'another job has taken the same object at this moment';
  end if;
  return true;
end $$;
comment on function apipay._is_undisputed(bigint) is
  'True where no object of a record has become another job''s since its statement began, an error otherwise: made again, the record sees that.';
