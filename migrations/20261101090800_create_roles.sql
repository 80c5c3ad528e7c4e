-- Who may do what. Four roles without login, for the user to grant to the roles of their programs and
-- people. Roles belong to the whole cluster: where the migration may not create them it goes on, and
-- a superuser does it later: create role ...; select apipay._grant_roles();
set search_path = pg_catalog, pg_temp;

create function apipay._roles() returns text[]
language sql immutable parallel safe
return array['apipay_auditor', 'apipay_enqueuer', 'apipay_operator', 'apipay_worker'];
comment on function apipay._roles() is 'The roles of the public interface.';

create function apipay._missing_roles() returns text[]
language sql stable set search_path = pg_catalog, pg_temp
return array(select name from unnest(apipay._roles()) as name
              where not exists (select from pg_roles where rolname = name) order by name);
comment on function apipay._missing_roles() is 'Roles that a superuser still has to create, before apipay._grant_roles().';

-- Names of the schema's own functions, as grants want them.
create function apipay._signatures(names text[]) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
  select string_agg(p.oid::regprocedure::text, ', ' order by p.oid)
  from pg_proc p where p.pronamespace = 'apipay'::regnamespace and p.proname = any (names));
comment on function apipay._signatures(text[]) is 'Functions of the schema by name, with their arguments, as grants want them.';

create function apipay._grant_roles() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  views constant text := 'apipay.overview, apipay.waiting, apipay.uncertain, apipay.parked, apipay.daily, apipay.account_status';
  -- A view's functions run with the rights of its reader, who may read no table. These show nothing but their arguments;
  -- _explain_alive, _explain_other, _was_delivered, _explain_cancelled, _shown_of_held, _unproven_from, _never_left, _or_its_copy and _to_be_shown, which read with the owner's rights, no more than the view does.
  of_views constant text[] := array['_phone', '_number_within', '_id', '_amount', '_job_amount', '_mask_phone', '_mask_phones',
    '_tenge', '_span', '_clock', '_seconds_until', '_when', '_since', '_until_probed', '_age', '_deed', '_trace', '_sought', '_last_answer', '_field_errors', '_obstacle', '_failure', '_slowness',
    '_blocked', '_capped', '_in_plural', '_cap_of', '_of_alert', '_obstacle_to_asking', '_explain', '_explain_queued', '_unseen', '_if_none_lives', '_time_limit', '_sent_from', '_explain_sending', '_unproven_from', '_never_left', '_asked', '_explain_uncertain', '_explain_stated', '_id_to_name', '_sent_again', '_shown_before_again', '_or_its_copy', '_standing', '_shown_of_held', '_ways_out', '_denied', '_bears_name', '_unserved', '_fallen', '_object_of', '_explain_accepted', '_explain_parked', '_explain_held',
    '_sandbox_note', '_explain_bill', '_explain_succeeded', '_explain_failed', '_explain_alive', '_explain_other', '_was_delivered', '_explain_cancelled', '_explain_expired', '_explain_account', '_unwritten', '_to_be_shown',
    '_quota_seconds', '_quota_newest', '_quota_slide', '_quota_sum',
    '_day', '_most_counted', '_counted'];
  of_enqueuer constant text[] := array['create_invoice', 'cancel_invoice', 'refund_invoice', '_enqueue', '_all_changed', '_phone', '_number_within', '_id',
    '_wrong', '_wrong_length', '_fields', '_names_of', '_number', '_wrong_phone', '_wrong_number', '_wrong_text', '_wrong_items', '_wrong_value', '_wrong_name',
    '_wrong_choice', '_wrong_discount', '_wrong_object', '_bytes', '_params_alone', '_wrong_params', '_wrong_job', '_bill', '_refund'];
  of_worker constant text[] := of_views || array['_operations', '_is_notifying', '_notify', '_stated_cause', '_about', '_open_alert', '_change_alert', '_told_held', '_time_over', '_tell_held', '_tell_stuck', '_is_looked_up', '_alert_is_free', '_resolve_alert', '_park', '_learn_of_park', '_resume', '_owner', '_delivered', '_take_trial', '_is_behind_refund', '_refund_in_turn',
    '_quota_share', '_quota_room', '_is_check_due', '_asking_due', '_await_quota', '_lock_quota', '_take_quota', '_take_check', '_end_check', '_return_quota', '_correct_quota',
    '_roles', '_missing_roles', '_announce', '_leave', '_carry_daemons', '_serving', '_recall', '_recall_park', '_ends_of_park', '_sequences_behind',
    '_bytes', '_past', '_at_most', '_moved', '_carried_since', '_carried_until', '_params_among_others', '_params_alone',
    '_all_changed', '_is_older', '_is_superseded', '_is_undisputed', '_back_to', '_awaited', '_asked_first', '_other_living'];
  of_operator constant text[] := array['retry', 'retry_jobs', 'cancel', 'cancel_jobs', 'resolve', 'park', 'resume', 'stop', 'start', 'cancel_invoice', 'acknowledge'];
  grants constant text[][] := array[
    ['apipay_auditor', 'usage on schema apipay'],
    ['apipay_auditor', 'select on ' || views],
    ['apipay_auditor', 'execute on function ' || apipay._signatures(of_views)],

    ['apipay_enqueuer', 'usage on schema apipay'],
    -- To all columns: apipay._admit_job refuses what is not theirs. Libraries ask the sequence for the new id.
    ['apipay_enqueuer', 'insert, select on apipay.jobs'],
    ['apipay_enqueuer', 'select on sequence apipay.jobs_id_seq'],
    ['apipay_enqueuer', 'select (name) on apipay.accounts'],
    ['apipay_enqueuer', 'select on apipay.attempts, apipay.invoices, apipay.refunds, apipay.overview'],
    ['apipay_enqueuer', 'execute on function ' || apipay._signatures(of_views || of_enqueuer)],

    ['apipay_operator', 'usage on schema apipay'],
    ['apipay_operator', 'select on ' || views],
    ['apipay_operator', 'select on apipay.alerts, apipay.alert_deliveries, apipay.events, apipay.daemons'],
    ['apipay_operator', 'execute on function ' || apipay._signatures(of_views || of_operator)],

    ['apipay_worker', 'usage on schema apipay'],
    ['apipay_worker', 'select on ' || views],
    ['apipay_worker', 'select on apipay.jobs, apipay._control, apipay.daemons'],
    ['apipay_worker', 'update (steady_ahead_us) on apipay._control'],
    ['apipay_worker', 'update (run_at, state, reason, attempts, epoch, leased_by, leased_until, invoice_id, refund_id, subscription_id, '
       'http_status, error_code, error_message, errors, result, updated_at, finished_at, generation, spared, baseline, unproven_since, absent_since, failing_since, lookups, stated_id, stated_anyway, stated_unwanted, quiet_until, denied_at) on apipay.jobs'],
    ['apipay_worker', 'select, insert, update on apipay.accounts, apipay._reads, apipay._quotas, apipay.attempts, apipay.invoices, apipay.refunds, apipay.subscriptions, '
       'apipay.alerts, apipay.alert_deliveries, apipay.webhooks, apipay._clocks'],
    ['apipay_worker', 'select on apipay.events'],
    ['apipay_worker', 'select, insert, update (filled_at, recovered) on apipay._channels'],
    ['apipay_worker', 'execute on function ' || apipay._signatures(of_worker)]];
  migrations constant regclass := to_regclass('apipay._migrations');
begin
  for i in 1 .. array_length(grants, 1) loop
    if to_regrole(grants[i][1]) is not null then
      execute format('grant %s to %I', grants[i][2], grants[i][1]);
    end if;
  end loop;
  -- Only sqlx makes this table; a schema that was installed with psql has none.
  if migrations is not null and to_regrole('apipay_worker') is not null then
    grant select on apipay._migrations to apipay_worker;
  end if;
end $$;
comment on function apipay._grant_roles() is
  'Grants the roles that exist what they need; may be run again at any time, by the owner of the schema or a superuser.';

-- What is made here is open to nobody but its owner: functions are public by default, and `alter default
-- privileges` of this database may have opened tables, sequences, functions and the schema to anybody.
do $$
declare
  opened record;
begin
  for opened in
    select distinct format('revoke all on %s %s from %s cascade', o.kind, o.name,
                           case acl.grantee when 0 then 'public' else acl.grantee::regrole::text end) as statement
    from (select 'schema' as kind, n.nspname::text as name, n.nspowner as owner, coalesce(n.nspacl, acldefault('n', n.nspowner)) as acl
            from pg_namespace n where n.nspname = 'apipay'
          union all
          select case c.relkind when 'S' then 'sequence' else 'table' end, c.oid::regclass::text, c.relowner, c.relacl
            from pg_class c where c.relnamespace = 'apipay'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'S')
          union all
          select 'function', p.oid::regprocedure::text, p.proowner, coalesce(p.proacl, acldefault('f', p.proowner))
            from pg_proc p where p.pronamespace = 'apipay'::regnamespace) o
    cross join aclexplode(o.acl) acl
    where acl.grantee <> o.owner
  loop
    execute opened.statement;
  end loop;
end $$;

-- Left open: what runs inside every insert into apipay.jobs, or a change of it, for its check, its triggers, and the
-- entries of its indexes.
grant execute on function apipay._operations(), apipay._is_ahead_of_sequence(bigint), apipay._next_job(), apipay._given_amiss(apipay.jobs), apipay._most_of_queue(),
  apipay._next_states(text), apipay._is_notifying(), apipay._notify(text, text),
  apipay._number_within(jsonb, numeric, numeric, int), apipay._id(jsonb), apipay._is_in_turn(text),
  apipay._mask_phones(text), apipay._order_id(jsonb), apipay._day(timestamptz) to public;

do $$
declare
  role text;
begin
  foreach role in array apipay._missing_roles() loop
    begin
      execute format('create role %I nologin', role);
    exception
      when insufficient_privilege then
        raise notice 'role % was not created: %; a superuser may do it, then: select apipay._grant_roles()', role, sqlerrm;
      when duplicate_object or unique_violation then
        raise notice 'role % was created by another migration just now', role;
    end;
  end loop;
  perform apipay._grant_roles();
end $$;
