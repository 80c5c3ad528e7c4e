-- A trigger of the shop's that returns null, or the old row, for what an operator's function changes: the function fails
-- with its name, and says no success.

insert into apipay.accounts (name) values ('default');

create function pg_temp.expect_told(statement text) returns void language plpgsql as $$
declare
  given text;
begin
  foreach given in array array['null', 'old'] loop
    perform set_config('shop.given', given, true);
    begin
      execute statement;
      raise exception 'accepted: %', statement using errcode = 'ZZ001';
    exception when others then
      if sqlstate = 'ZZ001' then
        raise;
      end if;
      assert sqlerrm like case given when 'null' then '%swallowed without an error: the trigger hush%'
                                     else '%changed back by the trigger hush%' end, format('%s: %s', statement, sqlerrm);
    end;
    perform set_config('shop.given', '', true);
  end loop;
end $$;

create function public.hush() returns trigger language plpgsql as $$
begin
  return case current_setting('shop.given', true) when 'null' then null when 'old' then old else new end;
end $$;
create trigger hush before update on apipay.jobs for each row execute function public.hush();
create trigger hush before update on apipay.accounts for each row execute function public.hush();
create trigger hush before update on apipay.attempts for each row execute function public.hush();
create trigger hush before update on apipay.alerts for each row execute function public.hush();
create trigger hush before update on apipay._control for each row execute function public.hush();

create function pg_temp.job(wanted text) returns bigint language sql as $$
  insert into apipay.jobs (operation, params, state, epoch, unproven_since, dedup_key)
  values ('invoice.create', '{"phone_number": "87001234567", "amount": 100}', wanted, 5,
          case when wanted in ('held', 'uncertain') then now() end, gen_random_uuid()::text)
  returning id
$$;

do $$
declare
  queued constant bigint := pg_temp.job('queued');
  held constant bigint := pg_temp.job('held');
  alert bigint;
begin
  perform pg_temp.expect_told(format('select apipay.retry(%s)', queued));
  perform pg_temp.expect_told(format('select apipay.cancel(%s)', queued));
  perform pg_temp.expect_told(format('select apipay.resolve(%s, true, 7)', held));
  perform pg_temp.expect_told(format('select apipay.resolve(%s, false)', held));
  perform pg_temp.expect_told(format('select apipay.resolve(%s, false, and_cancel => true)', held));
  assert (select state = 'queued' from apipay.jobs where id = queued) and (select state = 'held' from apipay.jobs where id = held);
  -- The functions for many say it of each.
  perform set_config('shop.given', 'old', true);
  assert (select why_not like '%the trigger hush%' from apipay.retry_jobs(array[queued]));
  assert (select why_not like '%the trigger hush%' from apipay.cancel_jobs(array[queued]));
  perform set_config('shop.given', '', true);

  -- A send that stands open, which the word about its job closes.
  insert into apipay.attempts (job_id, epoch, account, kind, worker) values (held, 5, 'default', 'send', gen_random_uuid());
  alter table apipay.jobs disable trigger hush;
  perform pg_temp.expect_told(format('select apipay.resolve(%s, false)', held));
  alter table apipay.jobs enable trigger hush;
  assert (select state = 'held' from apipay.jobs where id = held);

  perform pg_temp.expect_told('select apipay.park(''default'', ''why'')');
  perform pg_temp.expect_told('select apipay._park(''default'', ''session_expired'', ''apipayd'', interval ''1 min'', ''s'', ''a'', ''{}'')');
  assert (select state = 'active' from apipay.accounts) and not exists (select from apipay.alerts);
  perform apipay._park('default', 'service_unavailable', 'apipayd', interval '1 min', 's', 'a', '{}');
  perform pg_temp.expect_told('select apipay._learn_of_park(''default'', ''session_expired'', ''s'', ''a'', ''{}'', null, null, null)');
  perform pg_temp.expect_told('select apipay._resume(''default'', ''a probe succeeded'', ''apipayd'')');
  perform pg_temp.expect_told('select apipay.resume(''default'', ''why'')');
  assert (select state = 'parked' from apipay.accounts);

  perform pg_temp.expect_told('select apipay.stop(''why'')');
  assert apipay.stop('why') and not apipay.stop('why');
  perform pg_temp.expect_told('select apipay.start(''why'')');
  assert (select stopped from apipay._control) and apipay.start('why') and not apipay.start('why');

  alert := (select id from apipay.alerts where kind = 'account_parked');
  perform pg_temp.expect_told(format('select apipay.acknowledge(%s, ''why'')', alert));
  alert := apipay._open_alert('default', 'mode_mismatch', 'critical', 's', 'a', '{"now": "sandbox"}');
  perform pg_temp.expect_told(format('select apipay.acknowledge(%s, ''why'')', alert));
  assert (select mode is null from apipay.accounts) and (select resolved_at is null from apipay.alerts where id = alert);
end $$;
drop trigger hush on apipay.jobs;

-- An order is not lost without a word either.
create trigger hush before insert on apipay.jobs for each row execute function public.hush();
do $$
begin
  perform set_config('shop.given', 'null', true);
  perform apipay.create_invoice('87001234567', 1);
  raise exception 'accepted' using errcode = 'ZZ001';
exception when others then
  assert sqlerrm like '%swallowed without an error: the trigger hush%', sqlerrm;
end $$;
drop function public.hush cascade;
