-- What no writer may do, whoever it is: change what was asked, or rewrite how it ended.
set search_path = pg_catalog, pg_temp;

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

create function apipay._refuse_changed_final() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'job % is % and final: it never changes; apipay.retry(%) enqueues a copy', old.id, old.state, old.id
    using errcode = 'integrity_constraint_violation';
end $$;
comment on function apipay._refuse_changed_final() is 'How a job ended is immutable.';
create trigger refuse_changed_final before update on apipay.jobs
  for each row when (old.state in ('succeeded', 'failed', 'cancelled', 'expired'))
  execute function apipay._refuse_changed_final();

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
