-- The tables of the public interface. Names starting with an underscore are internal: they may
-- change between versions, everything else only grows.
--
-- Every migration begins with its search_path: what it makes binds the names that it finds now, for ever,
-- and in another schema somebody else may have made one that fits better.
-- Whatever the client is set to, a file means the same: a string with a backslash is written E'', which
-- standard_conforming_strings does not concern, and all is ASCII, which every encoding has.
--
-- What is compared for identity, or ordered by an index, is `collate "C"`: the order of another locale changes
-- with the operating system, and an index that was made before finds nothing then, and lets a key in twice.
set search_path = pg_catalog, pg_temp;

create function apipay._operations() returns text[]
language sql immutable parallel safe
return array['invoice.cancel', 'invoice.create', 'invoice.refund'];
comment on function apipay._operations() is
  'The operations this version knows. A new one replaces this function.';

-- Params are whatever somebody inserted. What reads them here never fails, whatever stands in them.

create function apipay._number_within(value jsonb, lowest numeric, highest numeric, decimals int) returns boolean
language sql immutable parallel safe
return case jsonb_typeof(value)
  when 'number' then value::numeric between lowest and highest and value::numeric = round(value::numeric, decimals)
  else false end;
comment on function apipay._number_within(jsonb, numeric, numeric, int) is
  'Whether a JSON value is a number within the limits, with no more decimals than allowed.';

-- One id written in several ways is one: 100001, 100001.0, 1.00001e5, "0100001". The daemon reads the same set.
create function apipay._id(value jsonb) returns bigint
language sql immutable parallel safe
return case
  when apipay._number_within(value, 1, 9223372036854775807, 0) then value::numeric::bigint
  when jsonb_typeof(value) = 'string'
       and substring(value #>> '{}' from '^0*([0-9]{1,19})(?:[.]0+)?$')::numeric between 1 and 9223372036854775807
    then substring(value #>> '{}' from '^0*([0-9]{1,19})(?:[.]0+)?$')::bigint end;
comment on function apipay._id(jsonb) is 'An id of the gateway out of params; null when it is none.';

-- Bytes: in a database that knows no encoding they may be no text, and a statement that returned them as
-- text would fail for all its rows.
create function apipay._bytes(written text) returns bytea
language sql stable parallel safe
return case getdatabaseencoding() when 'SQL_ASCII' then convert_to(written, 'SQL_ASCII') else textsend(written) end;
comment on function apipay._bytes(text) is 'A text in the client''s encoding, or as it is where the database knows none.';

-- What is kept in few bytes may be long as text: compressed, or a number like 1e131071.
create function apipay._params_among_others(params jsonb) returns bytea
language sql stable parallel safe
return case when pg_column_size(params) <= 2048 and pg_column_compression(params) is null
  then substr(apipay._bytes(params::text), 1, 4097) end;
comment on function apipay._params_among_others(jsonb) is
  'The params of one of many jobs, as text: null when they are kept apart, cut after 4096 bytes.';

create function apipay._params_alone(params jsonb) returns bytea
language sql stable parallel safe
return case when pg_column_size(params) <= 65536 then
       case when pg_column_size(params || '{}') <= 65536 then
       case when not jsonb_path_exists(params, '$.** ? (@ >= 1e40 || @ <= -1e40)') then
       case when octet_length(params::text) <= 65536 then apipay._bytes(params::text) end end end end;
comment on function apipay._params_alone(jsonb) is
  'The params of one job, as text: null when they are longer than 64 KiB, as text or as they are kept, or hold a number beyond 1e40.';

create function apipay._past(moment timestamptz) returns timestamptz
language sql stable parallel safe
return case when moment is not null then least(greatest(moment, '2000-01-01T00:00:00Z'::timestamptz), now()) end;
comment on function apipay._past(timestamptz) is 'A moment that has passed, within what a program can reckon with.';

create function apipay._at_most(moment timestamptz, bound timestamptz) returns timestamptz
language sql immutable parallel safe
return case when moment is not null then least(moment, bound) end;
comment on function apipay._at_most(timestamptz, timestamptz) is
  'The moment, or the bound if that comes first. Null stays null, where least() alone would give the bound.';

-- Rows are strangers: a program may give any moment that a timestamp can hold, and a sum beyond that fails the statement.
create function apipay._moved(moment timestamptz, jump interval) returns timestamptz
language sql immutable parallel safe
return case when moment between '1900-01-01T00:00:00Z'::timestamptz and '9999-01-01T00:00:00Z'::timestamptz then moment + jump else moment end;
comment on function apipay._moved(timestamptz, interval) is
  'A moment, later by jump; one so far away that no clock has shown it stays.';

create function apipay._carried_since(moment timestamptz, jump interval) returns timestamptz
language sql stable parallel safe
return apipay._at_most(apipay._moved(moment, jump), now());
comment on function apipay._carried_since(timestamptz, interval) is
  'A moment since which something is so, after the clock was set forward by jump (back, if less than 0): as long ago as before.';

create function apipay._carried_until(moment timestamptz, jump interval) returns timestamptz
language sql stable parallel safe
return case
  when moment is null then null
  when jump < '0' then greatest(least(moment, now()), apipay._moved(moment, jump))
  when moment between now() - jump and now() then apipay._moved(moment, jump)
  else moment end;
comment on function apipay._carried_until(timestamptz, interval) is
  'A moment until which something waits, after the clock was set forward by jump (back, if less than 0): never longer than before. A wait that the jump passed over is as long as before; one that ends later still keeps its moment.';

create table apipay._control (
  one         boolean primary key default true check (one),
  stopped     boolean not null default false,
  changed_at  timestamptz not null default now(),
  changed_by  text not null default session_user,
  reason      text,
  steady_ahead_us  bigint not null default 0
);
insert into apipay._control default values;
comment on table apipay._control is 'One row: whether all sending is stopped (apipay.stop(), apipay.start()), and how far the database''s clock has been moved.';
comment on column apipay._control.one is 'Always true: it keeps this table at one row.';
comment on column apipay._control.stopped is 'While true, nothing is sent to the gateway, for any account.';
comment on column apipay._control.changed_at is 'When stopped was last changed.';
comment on column apipay._control.changed_by is 'The database role that changed it.';
comment on column apipay._control.reason is 'The reason that was given.';
comment on column apipay._control.steady_ahead_us is 'Microseconds by which the steady time is ahead of the database''s clock: what its jumps come to since it was first read.';

create table apipay._clocks (
  boot          text collate "C" primary key,
  ahead_us      bigint not null,
  started_at    timestamptz not null default now()
);
comment on table apipay._clocks is 'The steady time: the database''s clock as it was when first read, counted on by the machines of the daemons. One row per start of such a machine.';
comment on column apipay._clocks.boot is 'The machine''s name of its start.';
comment on column apipay._clocks.ahead_us is 'Microseconds by which the steady time is ahead of the time since that start.';
comment on column apipay._clocks.started_at is 'When a daemon first came from there.';

create table apipay.accounts (
  name                 text collate "C" primary key check (name ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
  state                text collate "C" not null default 'active' check (state in ('active', 'parked')),
  parked_reason        text,
  parked_at            timestamptz,
  parked_by            text,
  parked_message       text,
  parked_remedy        text,
  parked_job           bigint,
  parked_job_remedy    text,
  taken_over           text,
  probe_at             timestamptz,
  probes               int not null default 0,
  delivery_error       text,
  trial_from           timestamptz,
  resumed_at           timestamptz,
  resumed_from         text,
  doubted_since        timestamptz,
  parks_follow         boolean not null default false,
  requests_per_minute  int not null default 60 check (requests_per_minute > 0),
  blocked_until        timestamptz,
  blocked_reason       text,
  blocked_message      text,
  capped_until         timestamptz,
  capped_operations    text[],
  capped_reason        text,
  capped_message       text,
  failing_since        timestamptz,
  failing_code         text,
  failing_status       smallint,
  failing_message      text,
  failed_at            timestamptz,
  failing_job          bigint,
  failing_requests     int not null default 0,
  failing_trial_at     timestamptz,
  failing_ended_at     timestamptz,
  unanswered_since     timestamptz,
  answered_at          timestamptz,
  refused_since        timestamptz,
  mode                 text check (mode in ('live', 'sandbox')),
  mode_invoice         bigint,
  key_fingerprints     text[] check (cardinality(key_fingerprints) > 0),
  organization_since   timestamptz,
  created_at           timestamptz not null default now(),
  updated_at           timestamptz not null default now(),
  check ((state = 'parked') = (parked_at is not null)),
  check ((state = 'parked') = (parked_reason is not null)),
  check (delivery_error is null or state = 'parked')
) with (fillfactor = 50);
comment on table apipay.accounts is
  'One row per account (for ever one organization at ApiPay, whichever of its keys is used), made from the configuration when the daemon starts. No secret is stored.';
comment on column apipay.accounts.name is 'The name of the account in the configuration: [accounts.NAME].';
comment on column apipay.accounts.state is 'active: jobs are sent. parked: nothing is sent but the probe, until the account is well again.';
comment on column apipay.accounts.parked_reason is 'Why it is parked, a stable code such as session_expired; null while active.';
comment on column apipay.accounts.parked_at is 'Since when it is parked; null while active.';
comment on column apipay.accounts.taken_over is 'When an operator took the park over from the daemon, and since when and why the daemon had parked it, for a sentence; null otherwise.';
comment on column apipay.accounts.parked_by is 'Who parked it: the daemon (apipayd) or the database role of an operator.';
comment on column apipay.accounts.parked_message is 'What the gateway said when it was parked, or the operator who parked it, masked; null while active, or when nothing was said.';
comment on column apipay.accounts.parked_remedy is 'What a human can do about it; null while active, or when an operator parked it.';
comment on column apipay.accounts.parked_job is 'The job whose refusal has parked it, while that job can be cancelled and no probe was told that the account is unwell: to cancel it may end the park. Null otherwise.';
comment on column apipay.accounts.parked_job_remedy is 'What ends the park if ApiPay refuses nothing but parked_job; null without one.';
comment on column apipay.accounts.probe_at is 'When the daemon next asks the gateway whether the account is well; null while active, or when an operator parked it.';
comment on column apipay.accounts.probes is 'Probes made since it was parked; their distance grows with it. It goes on counting when the account was resumed by its health alone and is parked again for the same reason.';
comment on column apipay.accounts.delivery_error is 'The code with which invoices that the gateway accepted failed at Kaspi, when that is why it is parked: until one is delivered, each probe lets one job through and nothing else is sent, whatever the gateway''s health says. What was accepted is asked about meanwhile. Null otherwise.';
comment on column apipay.accounts.trial_from is 'Internal: a probe found no job to let through; from this moment on a due one is a reason to probe at once.';
comment on column apipay.accounts.resumed_at is 'When it last became active again, or its requests last got clear answers again after a slow-down; sending then starts slowly.';
comment on column apipay.accounts.requests_per_minute is 'The gateway''s limit for this key, as configured. No 60 seconds ever see more requests.';
comment on column apipay.accounts.resumed_from is 'Internal: why it had been parked when the daemon last resumed it.';
comment on column apipay.accounts.doubted_since is 'Internal: since when it had been parked, if it was resumed by its health alone and nothing was sent with success since. Null otherwise.';
comment on column apipay.accounts.parks_follow is 'Internal: whether the park that the daemon ended last had followed the one before it within the slow start: their alert stays open until the account has stayed active for a while.';
comment on column apipay.accounts.blocked_until is 'Nothing is sent or asked before this moment: the gateway answered 429.';
comment on column apipay.accounts.blocked_reason is 'The code of the 429 that set blocked_until.';
comment on column apipay.accounts.blocked_message is 'What that 429 said, or the beginning of its page, masked; null when it said nothing.';
comment on column apipay.accounts.capped_until is 'Nothing of capped_operations is sent before this moment: the gateway said that a cap is reached. Everything else goes on.';
comment on column apipay.accounts.capped_operations is 'The operations that the cap is about: those that make invoices, and any other that the gateway answered with it.';
comment on column apipay.accounts.capped_reason is 'The code of that cap, such as tariff_limit_reached.';
comment on column apipay.accounts.capped_message is 'What the gateway said of the cap, masked; null when nothing was said.';
comment on column apipay.accounts.failing_since is 'Since when its sends get no clear answer; null once one does.';
comment on column apipay.accounts.failing_code is 'What the newest of them got in place of one: server_error, timeout, connect_failed and the like.';
comment on column apipay.accounts.failing_status is 'HTTP status of that, if there was one.';
comment on column apipay.accounts.failing_message is 'What the gateway said in it, masked.';
comment on column apipay.accounts.failed_at is 'When the newest of them came; null once one gets a clear answer.';
comment on column apipay.accounts.failing_job is 'Internal: the job of the newest such send.';
comment on column apipay.accounts.failing_requests is 'Internal: such sends in a row, each job counted once in a row; after the slow-down its trials.';
comment on column apipay.accounts.failing_trial_at is 'While not null the account has slowed down: one job tries at this moment, the others wait for its answer.';
comment on column apipay.accounts.failing_ended_at is 'When its sends last got clear answers again after a slow-down: what had backed off before goes on.';
comment on column apipay.accounts.unanswered_since is 'Internal: since when its sends had got no clear answer before answered_at.';
comment on column apipay.accounts.answered_at is 'Internal: when a send last got a clear answer after others had got none, without a slow-down: what had failed with all others goes on.';
comment on column apipay.accounts.refused_since is 'Since when each of its sends is refused for its limit (429); null once one is not.';
comment on column apipay.accounts.mode is 'live or sandbox, as the gateway''s first answer that showed it, or as accepted since by apipay.acknowledge; null until one was seen.';
comment on column apipay.accounts.mode_invoice is 'Internal: the newest invoice that showed a mode. Older ones keep theirs and say nothing of the account now.';
comment on column apipay.accounts.key_fingerprints is 'Internal: which keys are known to be of the organization that the account is for, the newest last; of each the first 16 hexadecimal digits of a SHA-256 of it. A daemon with another key serves nothing of the account. Null until a daemon has served it.';
comment on column apipay.accounts.organization_since is 'Since when it is for that organization, if a person has given it to another one (apipay.acknowledge): invoices from before prove nothing of a key. Null otherwise.';
comment on column apipay.accounts.created_at is 'When the daemon first started with this account.';
comment on column apipay.accounts.updated_at is 'When the row last changed.';

create function apipay._capped(account apipay.accounts) returns text[]
language sql stable parallel safe
return case when account.capped_until > now() then coalesce(account.capped_operations, '{}') else '{}' end;
comment on function apipay._capped(apipay.accounts) is 'The operations that a cap of the gateway keeps from being sent now.';

create table apipay._reads (
  account        text collate "C" not null,
  kind           text collate "C" not null check (kind in ('look_up', 'check', 'code', 'refunds')),
  failing_since  timestamptz,
  code           text,
  status         smallint,
  message        text,
  failed_at      timestamptz,
  job            bigint,
  requests       int not null default 0,
  trial_at       timestamptz,
  refused_since  timestamptz,
  primary key (account, kind)
) with (fillfactor = 50);
comment on table apipay._reads is 'How the requests go that only ask: one row for each kind of an account that ever failed.';
comment on column apipay._reads.account is 'The account.';
comment on column apipay._reads.kind is 'look_up: what became of an uncertain job. check: how open invoices are. code: why one failed. refunds: how refunds are.';
comment on column apipay._reads.failing_since is 'Since when they get no clear answer; null once one does.';
comment on column apipay._reads.code is 'What the newest of them got in place of one.';
comment on column apipay._reads.status is 'HTTP status of that, if there was one.';
comment on column apipay._reads.message is 'What the gateway said in it, masked.';
comment on column apipay._reads.failed_at is 'When the newest of them came.';
comment on column apipay._reads.job is 'The job of the newest, if it was about one.';
comment on column apipay._reads.requests is 'How many in a row, each job counted once in a row; after the slow-down the trials.';
comment on column apipay._reads.trial_at is 'While not null one is made at a time, and not before this moment.';
comment on column apipay._reads.refused_since is 'Since when each of them is refused for the account''s limit (429); null once one is not.';

create table apipay.jobs (
  id               bigint generated by default as identity primary key,
  account          text collate "C" not null default 'default' references apipay.accounts (name),
  operation        text collate "C" not null constraint jobs_operation_known check (operation = any (apipay._operations())),
  params           jsonb not null,
  token            uuid not null,
  dedup_key        text collate "C" constraint jobs_dedup_key_length check (length(dedup_key) between 1 and 255),
  priority         smallint not null default 0,
  run_at           timestamptz not null default now(),
  expires_at       timestamptz,
  metadata         jsonb not null default '{}',
  traceparent      text,
  retry_of         bigint,
  state            text collate "C" not null default 'queued' constraint jobs_state_known check (state in
                     ('queued', 'sending', 'uncertain', 'accepted', 'parked', 'held',
                      'succeeded', 'failed', 'cancelled', 'expired')),
  reason           text,
  attempts         int not null default 0,
  epoch            bigint not null default 0,
  leased_by        uuid,
  leased_until     timestamptz,
  invoice_id       bigint,
  refund_id        bigint,
  subscription_id  bigint,
  http_status      smallint,
  error_code       text,
  error_message    text,
  errors           jsonb,
  result           jsonb,
  created_at       timestamptz not null default now(),
  updated_at       timestamptz not null default now(),
  finished_at      timestamptz,
  generation       smallint not null default 1,
  spared           smallint not null default 0,
  baseline         jsonb,
  unproven_since   timestamptz,
  absent_since     timestamptz,
  failing_since    timestamptz,
  lookups          int not null default 0,
  order_id         text collate "C",
  amount           numeric(12,2),
  stated_id        bigint,
  stated_anyway    boolean,
  stated_unwanted  boolean,
  quiet_until      timestamptz,
  denied_at        timestamptz,
  constraint jobs_lease_while_sending check
    ((state = 'sending') = (leased_until is not null) and (state = 'sending') = (leased_by is not null)),
  constraint jobs_finished_when_final check
    ((state in ('succeeded', 'failed', 'cancelled', 'expired')) = (finished_at is not null))
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 1);
comment on table apipay.jobs is 'The queue and its outcomes: one row per payment job. Enqueue by inserting operation and params; read the outcome from the same row.';
comment on column apipay.jobs.id is 'The number of the job; what an insert gives as NULL or DEFAULT is numbered by the database.';
comment on column apipay.jobs.account is 'Which account sends it.';
comment on column apipay.jobs.operation is 'What to do: invoice.create, invoice.cancel, invoice.refund.';
comment on column apipay.jobs.params is 'What to send, an object of at most 64 KiB; never changes. Bad params end the job failed with error_code invalid_params.';
comment on column apipay.jobs.token is 'The name of the job at the gateway; random, made with the row (apipay._admit_job), never changes.';
comment on column apipay.jobs.dedup_key is 'Your name for the business event; the same one cannot be enqueued twice in an account, for ever.';
comment on column apipay.jobs.priority is 'Higher goes first within the account.';
comment on column apipay.jobs.run_at is 'Not sent before this moment; for an uncertain job, when it is next looked up.';
comment on column apipay.jobs.expires_at is 'Not sent after this moment: past it a job of which nothing was done ends expired, also while its account is parked. Null: no limit.';
comment on column apipay.jobs.metadata is 'Yours; never sent to the gateway.';
comment on column apipay.jobs.traceparent is 'W3C trace context of the enqueuer, kept with the job for your own use; never sent to the gateway.';
comment on column apipay.jobs.retry_of is 'The final job that this one repeats (apipay.retry).';
comment on column apipay.jobs.state is 'queued, sending, uncertain (a request may have had its effect), accepted (followed to its end), parked (the account is unwell), held (a human decides); final: succeeded, failed, cancelled, expired.';
comment on column apipay.jobs.reason is 'Why the job is in this state: a stable code.';
comment on column apipay.jobs.attempts is 'Requests that count against the limit of attempts. From the third on, one that a person has had made before its time (apipay.retry) takes the place of the one that was due.';
comment on column apipay.jobs.epoch is 'The fence: rises with every claim, so that a worker that lost the job cannot write over newer work.';
comment on column apipay.jobs.leased_by is 'The worker that holds the job while it is sending.';
comment on column apipay.jobs.leased_until is 'Until when it holds it; after that the job becomes uncertain.';
comment on column apipay.jobs.invoice_id is 'The gateway''s id of the invoice: the one that params name to cancel or refund; of a new one once known.';
comment on column apipay.jobs.refund_id is 'The gateway''s id of the refund, once known.';
comment on column apipay.jobs.subscription_id is 'The gateway''s id of the subscription, once known.';
comment on column apipay.jobs.http_status is 'HTTP status of the last answer.';
comment on column apipay.jobs.error_code is 'Code of the last error, the gateway''s or ours: invalid_params; differs of a held job whose object is taken with anyway => true; anothers_object of one that went by an object with another job''s name.';
comment on column apipay.jobs.error_message is 'Text of the last error.';
comment on column apipay.jobs.errors is 'Errors by field, as the gateway writes them in a 422.';
comment on column apipay.jobs.result is 'The gateway''s object, when succeeded.';
comment on column apipay.jobs.created_at is 'When it was enqueued, by the database''s clock, whatever a program gives here.';
comment on column apipay.jobs.updated_at is 'When the row last changed: its state, its reason or a look-up.';
comment on column apipay.jobs.finished_at is 'When it became final; null before.';
comment on column apipay.jobs.generation is 'Internal: 2 and more after an invoice that certainly died and was resubmitted; part of the name at the gateway.';
comment on column apipay.jobs.spared is 'Internal: how many of its generations died of the account''s trouble and not of their own; they do not count against the limit.';
comment on column apipay.jobs.baseline is 'Internal: the refunds of the invoice that were known before this one was first sent. With is_told_apart once a person has said of a held refund that it is none of the others.';
comment on column apipay.jobs.unproven_since is 'Internal: since when a request of this generation is unproven; null when every request is known to have had no effect.';
comment on column apipay.jobs.quiet_until is 'Internal: until when its last request may still be at work, where it was looked up or held before that was over.';
comment on column apipay.jobs.absent_since is 'Internal: when a complete look-up first found nothing; of a job of which somebody named an object, nothing with its own name beside that.';
comment on column apipay.jobs.failing_since is 'Internal: since when its requests get no clear answer; null once one did.';
comment on column apipay.jobs.lookups is 'Internal: look-ups since the job became uncertain; of a queued bill, how often in a row it could not be seen, before it is sent, whether an earlier invoice of it, or of what it repeats, lives.';
comment on column apipay.jobs.stated_id is 'Internal: the gateway''s id that somebody named in apipay.resolve, until the gateway was asked about it.';
comment on column apipay.jobs.stated_anyway is 'Internal: whether that object is to be taken although its amount, payer or order differs.';
comment on column apipay.jobs.denied_at is 'Internal: when somebody last said in apipay.resolve that nothing was done. When look-ups have been in vain for reconcile.give_up since, the job is held again, or ends if it was said that it is to end; nothing is sent on that word alone.';
comment on column apipay.jobs.stated_unwanted is 'Internal: whether somebody said in apipay.resolve that nothing was done and that it is to end cancelled, until the gateway was asked about it.';
comment on column apipay.jobs.order_id is 'Internal: the order id in params, as the views show it.';
comment on column apipay.jobs.amount is 'Internal: the amount in params in tenge, for sums of what waits; null for a cancel, a cart and a refund of all that is left.';

create function apipay._amount(params jsonb) returns numeric
language sql immutable parallel safe
return case
  when jsonb_typeof(params -> 'cart_items') <> 'null' then null
  when apipay._number_within(params -> 'amount', 0.01, 99999999.99, 2) then (params -> 'amount')::numeric
  when jsonb_typeof(params -> 'amount') = 'string' and params ->> 'amount' ~ '^[0-9]{1,8}([.][0-9]{1,2})?$' then (params ->> 'amount')::numeric
  end;
comment on function apipay._amount(jsonb) is 'The amount in params in tenge; null when there is none that the gateway could take, or a cart in its place.';

-- What a job is about is read from its params once. They may be huge, and an index, a generated column or a sum over
-- many jobs would read them again and again.
create function apipay._note_subject() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if new.operation in ('invoice.cancel', 'invoice.refund') then
    new.invoice_id := apipay._id(new.params -> 'invoice_id');
  end if;
  new.amount := case when new.operation <> 'invoice.cancel' then apipay._amount(new.params) end;
  new.order_id := apipay._order_id(new.params);
  return new;
end $$;
comment on function apipay._note_subject() is 'Notes which invoice, which order and what amount a new job is about, whatever else was given.';
create trigger note_subject before insert on apipay.jobs
  for each row execute function apipay._note_subject();

-- A change of state moves the row and makes a new entry in every index that holds it, some four for each
-- job. So each index says what it is for, and holds only the rows that this needs. What people look for
-- has its indexes with the views.

-- A job that waits for another one, or for the end of a cap, stands back: a claim that meets it gives it the reason,
-- and no claim reads it again until it has lost that. (One expression: the planner takes an `and` apart, and finds no
-- column of an index in its parts.) One more such reason is added here; then the indexes that say _is_in_turn must be
-- rebuilt.
create function apipay._is_in_turn(reason text) returns boolean
language sql immutable parallel safe
return coalesce(reason <> all (array['waits_for_refund', 'waits_for_cap']), true);
comment on function apipay._is_in_turn(text) is 'Whether claims look at a queued job with this reason: not at one that waits for another job, or for the end of a cap.';

-- Queued rows, those in turn in the order of the claim; rows due later stand behind the due ones of their lane. Those
-- that stand back are apart, for whoever looks for all of an account.
create index jobs_claim on apipay.jobs (account, (apipay._is_in_turn(reason)), priority desc, run_at, id)
  where state = 'queued';
-- By age, for those whose priority is one of very many. Only a statement that says `id > 0` is offered it: a planner
-- that knows nothing of the table would take it for the other, and read all that is due for one priority.
create index jobs_due on apipay.jobs (account, run_at, id) where state = 'queued' and apipay._is_in_turn(reason) and id > 0;
-- Jobs that we put off ourselves: a job that was never tried has no reason.
create index jobs_put_off on apipay.jobs (run_at)
  where state = 'queued' and reason is not null and apipay._is_in_turn(reason);
create index jobs_lookup on apipay.jobs (account, run_at, id) where state = 'uncertain';
create index jobs_lease on apipay.jobs (leased_until) where state = 'sending';
create index jobs_expiry on apipay.jobs (account, expires_at) where state = 'queued' and expires_at is not null;
create index jobs_parked_expiry on apipay.jobs (account, expires_at)
  where state = 'parked' and unproven_since is null and expires_at is not null;
-- What is counted, put back and released of an account, and how its rare ends are found.
create index jobs_account_state on apipay.jobs (account, state, id)
  where state in ('accepted', 'parked', 'held', 'failed', 'cancelled', 'expired');
-- Whose last request may still be at work while a person decides, for when the clock is set.
create index jobs_quiet on apipay.jobs (quiet_until) where state = 'held' and quiet_until is not null;
-- What apipay._resume makes due at once.
create index jobs_told_to_wait on apipay.jobs (account)
  where state in ('queued', 'uncertain') and reason in ('retry_after', 'cap_reached');
-- Few: those that were tried while the gateway gave no clear answer.
create index jobs_failing on apipay.jobs (account, failing_since)
  where failing_since is not null and state in ('queued', 'sending', 'uncertain');
-- The key first: people who look for an event do not name the account. Jobs without a key are in it too, or
-- `on conflict (account, dedup_key)` would not find it; to keep their many equal entries as lists would cost each
-- change of state three times as much as an entry of its own.
create unique index jobs_dedup on apipay.jobs (dedup_key, account) with (deduplicate_items = off);
-- No object is checked for two jobs at once: it can be one job's only. A cancel makes none.
create unique index jobs_stated on apipay.jobs (account, operation, stated_id)
  where stated_id is not null and operation <> 'invoice.cancel';
-- One open refund per invoice: two partial refunds in flight could not be told apart.
--
-- `+ 0`, here and in what looks for these refunds: so it is not offered jobs_invoice, which holds all of an invoice, and
-- which a planner that has seen none of them wait would take for as good.
create unique index jobs_one_open_refund on apipay.jobs (account, (invoice_id + 0))
  where operation = 'invoice.refund'
    and (state in ('sending', 'uncertain', 'accepted', 'held')
         or (state in ('queued', 'parked') and unproven_since is not null));

-- Those that wait for it, in the order in which they go, and those whose turn it is.
create index jobs_waits_for_refund on apipay.jobs (account, (invoice_id + 0), priority desc, run_at, id)
  where state = 'queued' and reason = 'waits_for_refund';
-- Those that wait for the end of a cap, in the order in which they go on.
create index jobs_waits_for_cap on apipay.jobs (account, operation, priority desc, run_at, id)
  where state = 'queued' and reason = 'waits_for_cap';
create index jobs_next_refund on apipay.jobs (account, (invoice_id + 0), run_at)
  where state = 'queued' and operation = 'invoice.refund' and apipay._is_in_turn(reason);

-- Asked for refunds only, so that it costs other jobs nothing. One that is open itself waits for none. Those that
-- cannot be moved, because the database refuses it or somebody keeps them locked, are passed over, unless they are open:
-- a daemon says which they are. (Neither of these functions calls another: that would be planned again for each row.)
create function apipay._is_behind_refund(account_name text, invoice bigint, urgency smallint, due_at timestamptz, job bigint, passed_over bigint[]) returns boolean
language sql stable parallel safe
return exists (
    select from apipay.jobs o
    where o.account = account_name and o.operation = 'invoice.refund' and o.invoice_id + 0 = invoice
      and (o.state in ('sending', 'uncertain', 'accepted', 'held')
           or (o.state in ('queued', 'parked') and o.unproven_since is not null)))
  or exists (
    select from (
      select w.priority, w.run_at, w.id from (
        select w.priority, w.run_at, w.id, w.expires_at from apipay.jobs w
        where w.account = account_name and w.invoice_id + 0 = invoice and w.state = 'queued' and w.reason = 'waits_for_refund'
          and w.id <> all (passed_over)
        order by w.priority desc, w.run_at, w.id limit 100) w
      where w.run_at <= now() and (w.expires_at is null or w.expires_at > now())
      order by w.priority desc, w.run_at, w.id limit 1) first
    where (-first.priority::int, first.run_at, first.id) < (-urgency::int, due_at, job));
comment on function apipay._is_behind_refund(text, bigint, smallint, timestamptz, bigint, bigint[]) is
  'Whether a refund that is to be sent waits for one of the same invoice: an open one, or one that has waited for that, is due and goes first. The unique index has the last word.';

create function apipay._refund_in_turn(account_name text, invoice bigint, passed_over bigint[]) returns bigint
language sql stable parallel safe
return case when not exists (
      select from apipay.jobs o
      where o.account = account_name and o.operation = 'invoice.refund' and o.invoice_id + 0 = invoice
        and (o.state in ('sending', 'uncertain', 'accepted', 'held')
             or (o.state in ('queued', 'parked') and o.unproven_since is not null)))
    -- Of those whose turn has come the next claim takes the first.
    and not exists (
      select from apipay.jobs n
      where n.account = account_name and n.invoice_id + 0 = invoice and n.state = 'queued' and n.operation = 'invoice.refund'
        and apipay._is_in_turn(n.reason) and n.run_at <= now() and (n.expires_at is null or n.expires_at > now())
        and n.id <> all (passed_over))
  then (
    -- The same one as in _is_behind_refund: it would be sent back to wait otherwise.
    select w.id from (
      select w.id, w.priority, w.run_at, w.expires_at from apipay.jobs w
      where w.account = account_name and w.invoice_id + 0 = invoice and w.state = 'queued' and w.reason = 'waits_for_refund'
        and w.id <> all (passed_over)
      order by w.priority desc, w.run_at, w.id limit 100) w
    where w.run_at <= now() and (w.expires_at is null or w.expires_at > now())
    order by w.priority desc, w.run_at, w.id limit 1) end;
comment on function apipay._refund_in_turn(text, bigint, bigint[]) is
  'Of the refunds of an invoice that wait for another one, the one whose turn has come; null while it has not.';

create table apipay.attempts (
  job_id          bigint not null,
  epoch           bigint not null,
  account         text collate "C" not null,
  kind            text collate "C" not null check (kind in ('send', 'lookup')),
  worker          uuid not null,
  started_at      timestamptz not null default now(),
  finished_at     timestamptz,
  request         jsonb,
  request_sha256  text,
  effect          text collate "C" check (effect in ('applied', 'rejected', 'not_applied', 'unknown')),
  http_status     smallint,
  error_code      text,
  message         text,
  retry_after     interval,
  answer          jsonb,
  duration_ms     int,
  primary key (job_id, epoch)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 1);
-- No foreign key to jobs: a check per row on the hottest path, for rows that only our own claim writes.
create unique index attempts_one_open_send on apipay.attempts (job_id) where kind = 'send' and finished_at is null;
comment on table apipay.attempts is 'One row per send and per look-up of a job, written before it is made and closed with the answer that decided; never deleted by the daemon. Further requests that one of them needs (the list before a refund, more pages of a search) and checks of what was accepted have none.';
comment on column apipay.attempts.job_id is 'The job.';
comment on column apipay.attempts.epoch is 'The job''s epoch of this attempt.';
comment on column apipay.attempts.account is 'The account whose key was used.';
comment on column apipay.attempts.kind is 'send: the operation itself, or what had to be known before it and could not be seen. lookup: asking the gateway whether an earlier send had its effect.';
comment on column apipay.attempts.worker is 'The worker; random for each start of a daemon.';
comment on column apipay.attempts.started_at is 'When the job was claimed for this attempt, before anything was sent.';
comment on column apipay.attempts.finished_at is 'When the attempt was closed; null while open.';
comment on column apipay.attempts.request is 'Method, path and body of the request.';
comment on column apipay.attempts.request_sha256 is 'SHA-256 of the body, hexadecimal.';
comment on column apipay.attempts.effect is 'What the request did at the gateway, as far as its answer proves.';
comment on column apipay.attempts.http_status is 'HTTP status of the answer; null when there was none.';
comment on column apipay.attempts.error_code is 'The gateway''s error code, or the name of the network fault.';
comment on column apipay.attempts.message is 'The gateway''s message, or what happened.';
comment on column apipay.attempts.retry_after is 'How long the gateway asked to wait.';
comment on column apipay.attempts.answer is 'The body of the answer; text that is not JSON or too long is cut and kept as a string.';
comment on column apipay.attempts.duration_ms is 'Time from the beginning of the request, the look-up of the name and the connection included, to the end of the answer.';

-- As with attempts, the mirrors have no foreign key to accounts: their account is that of a job.
create table apipay.invoices (
  account            text collate "C" not null,
  id                 bigint not null,
  job_id             bigint,
  job_token          uuid,
  status             text collate "C" not null,
  amount             numeric(12, 2),
  total_refunded     numeric(12, 2),
  external_order_id  text collate "C",
  kaspi_invoice_id   text,
  error_code         text,
  error_message      text,
  is_sandbox         boolean,
  gateway_created_at timestamptz,
  gateway_updated_at timestamptz,
  paid_at            timestamptz,
  shown_to           text collate "C",
  created_at         timestamptz not null default now(),
  changed_at         timestamptz not null default now(),
  checked_at         timestamptz,
  next_check_at      timestamptz not null default now(),
  settled            boolean not null default false,
  others_unsought    boolean not null default false,
  primary key (account, id),
  constraint invoices_job_token check ((job_id is null) = (job_token is null))
) with (fillfactor = 80);
create index invoices_due on apipay.invoices (account, next_check_at) where not settled;
create index invoices_job on apipay.invoices (job_id) where job_id is not null;
comment on table apipay.invoices is 'Our copy of each invoice that a job created, cancelled or refunded, followed to its end and read again after each refund of ours. Whether the customer paid stands in status.';
comment on column apipay.invoices.account is 'The account.';
comment on column apipay.invoices.id is 'The gateway''s id.';
comment on column apipay.invoices.job_id is 'The job that created it; null when it was created elsewhere.';
comment on column apipay.invoices.job_token is 'Internal: the token of that job. A number may be given out again once its job is gone, a token is not: only the job with both created it.';
comment on column apipay.invoices.status is 'The gateway''s status: processing, pending, cancelling, paid, partially_refunded, cancelled, expired, error. There is none for a full refund: total_refunded is the amount then. An error whose code says that the invoice was paid or cancelled before stands here as that.';
comment on column apipay.invoices.amount is 'Amount in tenge.';
comment on column apipay.invoices.total_refunded is 'Refunded so far, in tenge, by whomever, as last seen: read after each refund of ours.';
comment on column apipay.invoices.external_order_id is 'The order id that the gateway has for it.';
comment on column apipay.invoices.shown_to is 'Internal: the key to which ApiPay showed it last, as in accounts.key_fingerprints. Only what a key of the account''s organization was shown proves anything of another one.';
comment on column apipay.invoices.kaspi_invoice_id is 'Kaspi''s own id, once known.';
comment on column apipay.invoices.error_code is 'Why it ended in error.';
comment on column apipay.invoices.error_message is 'The gateway''s text for that.';
comment on column apipay.invoices.is_sandbox is 'Whether it exists in the gateway''s sandbox only.';
comment on column apipay.invoices.gateway_created_at is 'When the gateway created it.';
comment on column apipay.invoices.gateway_updated_at is 'When the gateway last changed it.';
comment on column apipay.invoices.paid_at is 'When the customer paid, as the gateway says; while it did not say, when the gateway last changed the invoice before we first saw it paid.';
comment on column apipay.invoices.created_at is 'When this copy was made.';
comment on column apipay.invoices.changed_at is 'When its status last changed, as far as we saw.';
comment on column apipay.invoices.checked_at is 'When the gateway last showed it.';
comment on column apipay.invoices.next_check_at is 'When it will be asked next; does not matter once settled.';
comment on column apipay.invoices.settled is 'True when it is no longer followed.';
comment on column apipay.invoices.others_unsought is 'Internal: whether the job may have made another invoice before this one, which nobody has searched for yet: an earlier request of it got no clear answer, and its key protects only while what it made lives. It is searched for once it must be listed, and this one is not settled before.';

create table apipay.refunds (
  account            text collate "C" not null,
  id                 bigint not null,
  job_id             bigint,
  job_token          uuid,
  invoice_id         bigint not null,
  status             text collate "C" not null,
  amount             numeric(12, 2),
  external_order_id  text collate "C",
  reason             text,
  error_code         text,
  error_message      text,
  gateway_created_at timestamptz,
  completed_at       timestamptz,
  created_at         timestamptz not null default now(),
  changed_at         timestamptz not null default now(),
  checked_at         timestamptz,
  next_check_at      timestamptz not null default now(),
  settled            boolean not null default false,
  primary key (account, id),
  constraint refunds_job_token check ((job_id is null) = (job_token is null))
) with (fillfactor = 80);
create index refunds_due on apipay.refunds (account, next_check_at) where not settled;
create index refunds_invoice on apipay.refunds (account, invoice_id);
comment on table apipay.refunds is 'Our copy of each refund that a job made, followed to its end, and of those that people made and that were seen beside it.';
comment on column apipay.refunds.account is 'The account.';
comment on column apipay.refunds.id is 'The gateway''s id.';
comment on column apipay.refunds.job_id is 'The job that made it; null when it was made elsewhere.';
comment on column apipay.refunds.job_token is 'Internal: the token of that job, as in apipay.invoices.';
comment on column apipay.refunds.invoice_id is 'The gateway''s id of the refunded invoice.';
comment on column apipay.refunds.status is 'The gateway''s status: pending, processing, completed, failed.';
comment on column apipay.refunds.amount is 'Amount in tenge.';
comment on column apipay.refunds.external_order_id is 'The order id of the invoice, when known.';
comment on column apipay.refunds.reason is 'The reason as the gateway has it.';
comment on column apipay.refunds.error_code is 'Why it failed.';
comment on column apipay.refunds.error_message is 'The gateway''s text for that.';
comment on column apipay.refunds.gateway_created_at is 'When the gateway created it.';
comment on column apipay.refunds.completed_at is 'When the money was given back: when we first saw it so; of one that was completed when we first saw it, when the gateway created it.';
comment on column apipay.refunds.created_at is 'When this copy was made.';
comment on column apipay.refunds.changed_at is 'When its status last changed, as far as we saw.';
comment on column apipay.refunds.checked_at is 'When the gateway last showed it.';
comment on column apipay.refunds.next_check_at is 'When it will be asked next; does not matter once settled.';
comment on column apipay.refunds.settled is 'True when it is no longer followed.';

create table apipay.subscriptions (
  account            text collate "C" not null,
  id                 bigint not null,
  job_id             bigint,
  status             text collate "C" not null,
  amount             numeric(12, 2),
  external_order_id  text collate "C",
  error_code         text,
  gateway_created_at timestamptz,
  next_billing_at    timestamptz,
  created_at         timestamptz not null default now(),
  changed_at         timestamptz not null default now(),
  checked_at         timestamptz,
  next_check_at      timestamptz not null default now(),
  settled            boolean not null default false,
  primary key (account, id)
);
comment on table apipay.subscriptions is 'Our copy of each subscription. No operation of this version makes one yet.';
comment on column apipay.subscriptions.account is 'The account.';
comment on column apipay.subscriptions.id is 'The gateway''s id.';
comment on column apipay.subscriptions.job_id is 'The job that made it.';
comment on column apipay.subscriptions.status is 'The gateway''s status: active, paused, cancelled, expired.';
comment on column apipay.subscriptions.amount is 'Amount of each charge in tenge.';
comment on column apipay.subscriptions.external_order_id is 'The subscriber''s id that the gateway has for it.';
comment on column apipay.subscriptions.error_code is 'Why it ended, when the gateway says.';
comment on column apipay.subscriptions.gateway_created_at is 'When the gateway created it.';
comment on column apipay.subscriptions.next_billing_at is 'When the gateway charges next.';
comment on column apipay.subscriptions.created_at is 'When this copy was made.';
comment on column apipay.subscriptions.changed_at is 'When its status last changed, as far as we saw.';
comment on column apipay.subscriptions.checked_at is 'When the gateway was last asked.';
comment on column apipay.subscriptions.next_check_at is 'When it will be asked next; does not matter once settled.';
comment on column apipay.subscriptions.settled is 'True when it is no longer followed.';

create table apipay.events (
  id          bigint generated always as identity primary key,
  at          timestamptz not null default clock_timestamp(),
  account     text collate "C",
  job_id      bigint,
  subject     text collate "C" not null check (subject in ('job', 'invoice', 'refund', 'subscription', 'account', 'daemon')),
  subject_id  text collate "C",
  from_state  text,
  to_state    text,
  reason      text,
  evidence    jsonb,
  actor       text not null default session_user
);
create index events_job on apipay.events (job_id) where job_id is not null;
-- Who cancelled a job, for apipay.overview: few rows, and the planner knows that they are.
create index events_cancelled on apipay.events (job_id, id) where subject = 'job' and to_state = 'cancelled';
-- What was stopped and parked last, for apipay._recall: these are few.
create index events_standing on apipay.events (subject, account, id) where subject in ('account', 'daemon') and to_state is not null;
comment on table apipay.events is 'Append-only history: every change of state of a job, a mirror or an account, with cause and evidence.';
comment on column apipay.events.id is 'The number of the event.';
comment on column apipay.events.at is 'When it happened.';
comment on column apipay.events.account is 'The account it concerns.';
comment on column apipay.events.job_id is 'The job it concerns.';
comment on column apipay.events.subject is 'What changed: a job, an invoice, a refund, a subscription, an account, or sending as a whole (daemon).';
comment on column apipay.events.subject_id is 'Its id: the job''s, the gateway''s, or the account''s name.';
comment on column apipay.events.from_state is 'State or status before.';
comment on column apipay.events.to_state is 'State or status after.';
comment on column apipay.events.reason is 'The cause: a stable code, or what an operator gave as the reason.';
comment on column apipay.events.evidence is 'What proves it: epoch, HTTP status, error code, ids.';
comment on column apipay.events.actor is 'The database role that made the change.';

create table apipay.alerts (
  id           bigint generated always as identity primary key,
  account      text collate "C" references apipay.accounts (name),
  kind         text collate "C" not null,
  subject      text collate "C" not null default '',
  severity     text not null default 'critical' check (severity in ('critical', 'warning')),
  summary      text not null,
  action       text not null,
  details      jsonb not null default '{}',
  opened_at    timestamptz not null default now(),
  changed_at   timestamptz,
  resolved_at  timestamptz,
  resolution   text,
  acked_at     timestamptz,
  acked_by     text,
  acked_for    text[] not null default '{}',
  incidents    int not null default 0
);
create unique index alerts_one_open on apipay.alerts (coalesce(account, ''), kind, subject) where resolved_at is null;
-- Those that ended a moment ago and may still have to be told of.
create index alerts_resolved on apipay.alerts (resolved_at) where resolved_at is not null;
comment on table apipay.alerts is 'What needs a human: one open alert per account, kind and subject.';
comment on column apipay.alerts.id is 'The number of the alert.';
comment on column apipay.alerts.account is 'The account it concerns; null for the whole daemon.';
comment on column apipay.alerts.kind is 'A stable code: account_parked, cap_reached, gateway_failing, clock_jumped, history_lost, invoice_missing, invoice_revived, job_held, job_overdue, job_refused, job_stuck, duplicate_detected, mode_mismatch, no_progress, other_organization, refund_revived, task_panicked.';
comment on column apipay.alerts.subject is 'What it is about, where several of a kind may be open at the same time: one invoice (invoice_revived), one refund (refund_revived), the machine of a daemon (history_lost, no_progress), one job, by its number, or all jobs beyond ten (job_held, duplicate_detected, job_stuck), what ApiPay shows and cannot be stored (job_stuck), or a key, by its fingerprint (other_organization); else empty.';
comment on column apipay.alerts.severity is 'critical: payments wait. warning: look at it today.';
comment on column apipay.alerts.summary is 'What happened, in one sentence.';
comment on column apipay.alerts.action is 'What to do, with the exact command.';
comment on column apipay.alerts.details is 'Codes and ids; no phone number, no secret.';
comment on column apipay.alerts.opened_at is 'Since when.';
comment on column apipay.alerts.changed_at is 'When more was learned, and what it says last changed; null while it says what it said at first.';
comment on column apipay.alerts.resolved_at is 'Until when; null while open.';
comment on column apipay.alerts.resolution is 'How it ended.';
comment on column apipay.alerts.acked_at is 'When a human said that they have seen to it (apipay.acknowledge): it is not told again until it is about something else (another job, another cause); then this is null again.';
comment on column apipay.alerts.acked_by is 'Who.';
comment on column apipay.alerts.acked_for is 'Internal: what it was about each time a human said so, the newest last.';
comment on column apipay.alerts.incidents is 'Internal: how often a delivery was made before the usual repeat, because the alert changed its subject, a job was held again or for another reason, or more jobs were held.';

create table apipay.alert_deliveries (
  id            bigint generated always as identity primary key,
  alert_id      bigint not null references apipay.alerts (id) on delete cascade,
  channel       text collate "C" not null,
  status        text collate "C" not null check (status in ('firing', 'repeat', 'resolved')),
  sequence      int not null default 0,
  created_at    timestamptz not null default now(),
  next_try_at   timestamptz not null default now(),
  tries         int not null default 0,
  delivered_at  timestamptz,
  last_error    text,
  unique (alert_id, channel, status, sequence)
);
create index alert_deliveries_due on apipay.alert_deliveries (next_try_at) where delivered_at is null;
comment on table apipay.alert_deliveries is 'The outbox of alerts: one row per delivery and channel, tried until it is delivered.';
comment on column apipay.alert_deliveries.id is 'The number of the delivery.';
comment on column apipay.alert_deliveries.alert_id is 'The alert.';
comment on column apipay.alert_deliveries.channel is 'log or webhook.';
comment on column apipay.alert_deliveries.status is 'firing: it began. repeat: it is still open. resolved: it ended.';
comment on column apipay.alert_deliveries.sequence is 'The number of the repeat, from 1. It is 0 for firing, for resolved, and for a repeat that is made early because more was learned. It is less than 0 for a repeat that is made at once because the alert is about something else than before (apipay.alerts.incidents).';
comment on column apipay.alert_deliveries.created_at is 'When it was put here.';
comment on column apipay.alert_deliveries.next_try_at is 'When it is tried next.';
comment on column apipay.alert_deliveries.tries is 'How often it was tried.';
comment on column apipay.alert_deliveries.delivered_at is 'When it was delivered; null before.';
comment on column apipay.alert_deliveries.last_error is 'Why the last try failed.';

create table apipay._channels (
  name       text collate "C" primary key,
  after      bigint not null,
  filled_at  timestamptz not null default now(),
  recovered  bigint not null default 0
);
comment on table apipay._channels is 'The channels that alerts go to, each from the time on when it was first there.';
comment on column apipay._channels.name is 'The channel, as in apipay.alert_deliveries.';
comment on column apipay._channels.after is 'The newest alert that had ended when the channel was first there: of those up to it that had ended it is told nothing.';
comment on column apipay._channels.filled_at is 'Up to ten minutes before what is to be told on it was last collected: since then alerts may have ended while no daemon was there.';
comment on column apipay._channels.recovered is 'How often a delivery was made on it while another one waited after a failed try.';

create table apipay.daemons (
  worker      uuid primary key,
  host        text not null,
  version     text not null,
  accounts    text[] not null,
  doubted     text[] not null default '{}',
  dropped     jsonb not null default '{}',
  has_left    boolean not null default false,
  started_at  timestamptz not null default now(),
  seen_at     timestamptz not null default now()
);
comment on table apipay.daemons is 'Who runs: one row for each start of a daemon, renewed about every 5 s; removed a day after its last sign of life, that of the last one to serve an account after thirty days.';
comment on column apipay.daemons.worker is 'The worker, as in apipay.attempts.';
comment on column apipay.daemons.host is 'The machine it runs on.';
comment on column apipay.daemons.version is 'The version of apipayd.';
comment on column apipay.daemons.accounts is 'The accounts that it serves: those of its configuration whose key is known to be of the account''s organization.';
comment on column apipay.daemons.doubted is 'Internal: the other accounts of its configuration, each with a blank and the fingerprint of its key (apipay.accounts.key_fingerprints), which is not known to be of the account''s organization.';
comment on column apipay.daemons.dropped is 'Internal: the accounts that it served once and serves no more, as after a reload, each with the moment when it was last known to.';
comment on column apipay.daemons.has_left is 'Whether it was stopped and has recorded all that it did.';
comment on column apipay.daemons.started_at is 'When it came to this database.';
comment on column apipay.daemons.seen_at is 'Its last sign of life.';

create table apipay.webhooks (
  id            bigint generated always as identity primary key,
  account       text collate "C" not null references apipay.accounts (name),
  received_at   timestamptz not null default now(),
  event         text collate "C" not null,
  dedup_key     text collate "C" not null,
  body          jsonb not null,
  processed_at  timestamptz,
  unique (account, dedup_key)
);
comment on table apipay.webhooks is 'Raw inbox of the gateway''s webhooks. This version does not receive any yet.';
comment on column apipay.webhooks.id is 'The number of the webhook.';
comment on column apipay.webhooks.account is 'The account whose address received it.';
comment on column apipay.webhooks.received_at is 'When it came.';
comment on column apipay.webhooks.event is 'The gateway''s name of the event.';
comment on column apipay.webhooks.dedup_key is 'Event, object and status: the gateway repeats webhooks.';
comment on column apipay.webhooks.body is 'The body as it came.';
comment on column apipay.webhooks.processed_at is 'When the state was read again because of it.';
