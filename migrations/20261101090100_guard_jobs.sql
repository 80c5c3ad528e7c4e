-- What no writer may do, whoever it is: change what was asked, move a job as none may move, or rewrite how it ended.
set search_path = pg_catalog, pg_temp;

-- A number that the sequence has not given out: it would be given out once more, to somebody else's order.
create function apipay._is_ahead_of_sequence(job bigint) returns boolean
language sql volatile parallel unsafe
return case when has_sequence_privilege('apipay.jobs_id_seq'::regclass, 'select')
  -- Of a sequence that was never used none can be: whoever takes one uses it.
  then job < 1 or job > coalesce(pg_sequence_last_value('apipay.jobs_id_seq'::regclass), 0) end;
comment on function apipay._is_ahead_of_sequence(bigint) is
  'Whether an id was given by hand, as far as whoever asks may see.';

-- The column's default needs no right to the sequence; what is done for it needs none either.
create function apipay._next_job() returns bigint
language sql volatile security definer set search_path = pg_catalog, pg_temp
return nextval('apipay.jobs_id_seq'::regclass);
comment on function apipay._next_job() is 'The number of a job whose insert gives NULL as its id.';

create function apipay._given_amiss(job apipay.jobs) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
  select min(given.key)
  from jsonb_each(to_jsonb(job) - array['account', 'operation', 'params', 'dedup_key', 'priority', 'run_at', 'expires_at',
                                        'metadata', 'traceparent', 'created_at', 'updated_at']) as given
  where case given.key
    when 'id' then apipay._is_ahead_of_sequence(job.id)
    else given.value <> coalesce('{"state": "queued", "attempts": 0, "epoch": 0, "generation": 1, "lookups": 0, "spared": 0}'::jsonb -> given.key, 'null') end);
comment on function apipay._given_amiss(apipay.jobs) is
  'The column of a new job that has another value than its default and is not for the inserter to give; null when there is none.';

-- What an insert may say. Libraries name every column: what their user left out they send as NULL or DEFAULT, or as
-- the default itself, and a time of their own for created_at and updated_at. So the right to insert is to all columns,
-- and this decides about each row, before any other trigger (they run by their names) fills in what is not the
-- inserter's. Whoever may do what the table's owner may inserts what they like: a restore, or apipay.retry.
create function apipay._admit_job() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  given text;
begin
  -- The identity numbers what is left out or DEFAULT, and not NULL.
  if new.id is null then
    new.id := apipay._next_job();
  end if;
  if not (new.account, new.priority, new.run_at, new.metadata, new.state, new.attempts, new.epoch, new.generation, new.lookups,
          new.spared, new.created_at, new.updated_at) is not null
     or new.metadata = 'null' or new.errors = 'null' or new.result = 'null' or new.baseline = 'null' then
    new.account := coalesce(new.account, 'default');
    new.priority := coalesce(new.priority, 0);
    new.run_at := coalesce(new.run_at, now());
    new.metadata := coalesce(nullif(new.metadata, 'null'), '{}');
    new.state := coalesce(new.state, 'queued');
    new.attempts := coalesce(new.attempts, 0);
    new.epoch := coalesce(new.epoch, 0);
    new.generation := coalesce(new.generation, 1);
    new.lookups := coalesce(new.lookups, 0);
    new.spared := coalesce(new.spared, 0);
    new.created_at := coalesce(new.created_at, now());
    new.updated_at := coalesce(new.updated_at, now());
    new.errors := nullif(new.errors, 'null');
    new.result := nullif(new.result, 'null');
    new.baseline := nullif(new.baseline, 'null');
  end if;
  -- One comparison for the many rows that give nothing else; the error alone looks which column it was.
  if (new.state, new.attempts, new.epoch, new.generation, new.lookups, new.spared, new.created_at, new.updated_at)
       <> ('queued', 0, 0, 1, 0, 0, now(), now())
     or not (new.token, new.retry_of, new.reason, new.leased_by, new.leased_until, new.invoice_id, new.refund_id, new.subscription_id,
             new.http_status, new.error_code, new.error_message, new.errors, new.result, new.finished_at, new.baseline,
             new.unproven_since, new.absent_since, new.failing_since, new.order_id, new.amount, new.stated_id, new.stated_anyway, new.stated_unwanted, new.quiet_until, new.denied_at) is null
     or apipay._is_ahead_of_sequence(new.id) then
    if not pg_has_role((select relowner from pg_class where oid = tg_relid), 'usage') then
      new.created_at := now();
      new.updated_at := now();
      given := apipay._given_amiss(new);
      if given is not null then
        raise exception 'apipay.jobs.% is not for an insert to say: leave it out, or give NULL or DEFAULT', given
          using errcode = 'insufficient_privilege', schema = 'apipay', table = 'jobs', column = given;
      end if;
    end if;
  end if;
  new.token := coalesce(new.token, gen_random_uuid());
  return new;
end $$;
comment on function apipay._admit_job() is
  'Takes NULL for the default, makes the token, and refuses an insert that gives another value to a column that is not the inserter''s.';
create trigger admit_job before insert on apipay.jobs
  for each row execute function apipay._admit_job();

create function apipay._refuse_unknown_operation() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'unknown operation "%": known are %', new.operation, array_to_string(apipay._operations(), ', ')
    using errcode = 'check_violation', constraint = 'jobs_operation_known';
end $$;
comment on function apipay._refuse_unknown_operation() is 'Names the known operations, which a check constraint cannot.';
create trigger refuse_unknown_operation before insert on apipay.jobs
  for each row when (not new.operation = any (apipay._operations()))
  execute function apipay._refuse_unknown_operation();

-- A check constraint would read them, however long they are, with each change of the row.
create function apipay._refuse_no_object() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'new row for relation "jobs" violates check constraint "jobs_%_object": % must be a JSON object', tg_argv[0], tg_argv[0]
    using errcode = 'check_violation', constraint = format('jobs_%s_object', tg_argv[0]);
end $$;
comment on function apipay._refuse_no_object() is 'What is a JSON value of another kind is refused where it is written.';
create trigger refuse_params before insert on apipay.jobs
  for each row when (jsonb_typeof(new.params) <> 'object') execute function apipay._refuse_no_object('params');
create trigger refuse_metadata before insert or update of metadata on apipay.jobs
  for each row when (jsonb_typeof(new.metadata) <> 'object') execute function apipay._refuse_no_object('metadata');

create function apipay._refuse_changed_request() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'job %: id, account, operation, params, token, dedup_key, retry_of and created_at never change; enqueue a new job instead', old.id
    using errcode = 'integrity_constraint_violation';
end $$;
comment on function apipay._refuse_changed_request() is 'What was asked is immutable.';
create trigger refuse_changed_request
  before update of id, account, operation, params, token, dedup_key, retry_of, created_at on apipay.jobs
  for each row when (
    (old.id, old.account, old.operation, old.params, old.token, old.dedup_key, old.retry_of, old.created_at)
    is distinct from
    (new.id, new.account, new.operation, new.params, new.token, new.dedup_key, new.retry_of, new.created_at))
  execute function apipay._refuse_changed_request();

-- The table of legal moves, the same as domain::state::State::moves. A job may stay in its state, with another reason or
-- another run_at; one that is final may not even do that.
create function apipay._next_states(state text) returns text[]
language sql immutable parallel safe
return case state
  when 'queued' then array['queued', 'sending', 'uncertain', 'held', 'cancelled', 'expired']
  when 'sending' then array['sending', 'queued', 'uncertain', 'accepted', 'parked', 'held', 'succeeded', 'failed']
  when 'uncertain' then array['uncertain', 'queued', 'accepted', 'held', 'succeeded', 'failed', 'cancelled']
  when 'accepted' then array['accepted', 'queued', 'held', 'succeeded', 'failed']
  when 'parked' then array['parked', 'queued', 'sending', 'uncertain', 'held', 'cancelled', 'expired']
  when 'held' then array['held', 'queued', 'uncertain', 'succeeded', 'cancelled']
  when 'succeeded' then '{}'::text[]
  when 'failed' then '{}'::text[]
  when 'cancelled' then '{}'::text[]
  when 'expired' then '{}'::text[] end;
comment on function apipay._next_states(text) is
  'The states in which a job of this state may be after a change of its row, this one among them; none when it is final, null when it is no state.';

create function apipay._back_to(unproven_since timestamptz) returns text
language sql immutable parallel safe
return case when unproven_since is null then 'queued' else 'uncertain' end;
comment on function apipay._back_to(timestamptz) is
  'The state in which a job that waited goes on: what is unproven goes to uncertain, everything else to queued.';

create function apipay._refuse_illegal_move() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  allowed constant text[] := apipay._next_states(old.state);
begin
  if allowed = '{}' then
    raise exception 'job % is % and final: it never changes; apipay.retry(%) enqueues a copy', old.id, old.state, old.id
      using errcode = 'integrity_constraint_violation';
  elsif apipay._next_states(new.state) is not null then
    raise exception 'job % is %: it cannot become %; from there it may only become %',
      old.id, old.state, new.state, array_to_string(array_remove(allowed, old.state), ', ')
      using errcode = 'integrity_constraint_violation';
  end if;
  -- What is no state at all is refused by its constraint.
  return new;
end $$;
comment on function apipay._refuse_illegal_move() is
  'A job moves as apipay._next_states says, whoever moves it, and how it ended is immutable.';
-- The condition alone is evaluated for each row: a look at a constant, without a call.
create trigger refuse_illegal_move before update on apipay.jobs
  for each row when (not new.state = any (apipay._next_states(old.state)))
  execute function apipay._refuse_illegal_move();

create function apipay._refuse_lower_epoch() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'job %: its epoch only rises (% is not above %)', old.id, new.epoch, old.epoch
    using errcode = 'integrity_constraint_violation';
end $$;
comment on function apipay._refuse_lower_epoch() is 'The fence only rises.';
create trigger refuse_lower_epoch before update of epoch on apipay.jobs
  for each row when (new.epoch < old.epoch)
  execute function apipay._refuse_lower_epoch();

create function apipay._refuse_history_change() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'apipay.% is append-only', tg_table_name using errcode = 'integrity_constraint_violation';
end $$;
comment on function apipay._refuse_history_change() is 'History is append-only.';
create trigger refuse_update before update on apipay.events
  for each row execute function apipay._refuse_history_change();

-- A closed attempt is evidence. The one change it may see: a worker that was taken for dead
-- brings the answer of a request that recovery had closed as unknown.
create function apipay._refuse_changed_evidence() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'attempt % of job % is closed: evidence never changes', old.epoch, old.job_id
    using errcode = 'integrity_constraint_violation';
end $$;
comment on function apipay._refuse_changed_evidence() is 'A closed attempt never changes, except that a late answer may be added.';
create trigger refuse_changed_evidence before update on apipay.attempts
  for each row when (old.finished_at is not null and (old.effect <> 'unknown' or old.answer is not null or old.http_status is not null))
  execute function apipay._refuse_changed_evidence();
