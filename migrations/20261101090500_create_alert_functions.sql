-- Alerts: opened and resolved here and nowhere else; the daemon delivers them.
set search_path = pg_catalog, pg_temp;

-- A person has seen to what an alert was about, not to whatever it is about later.
create function apipay._about(kind text, details jsonb) returns text
language sql immutable parallel safe
return (
  -- Who tells it, how often something was tried, and what only counts or shows another example of the same.
  details - '{worker,epoch,epoch_now,others_refused,message,place,said}'::text[]
          - case when kind = 'mode_mismatch' then 'invoice' else '' end
          -- Of words, all but the numbers of the one row; the place says more than the words.
          || jsonb_strip_nulls(jsonb_build_object(
               'words', regexp_replace(coalesce(details ->> 'place', details ->> 'message', details ->> 'said'), '[0-9]+', '', 'g'))))::text;
comment on function apipay._about(text, jsonb) is 'What an alert with these details is about, without what only counts: two that are about the same are one incident.';

create function apipay._forget_acknowledgement() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if apipay._about(new.kind, new.details) <> all (new.acked_for) then
    new.acked_at := null;
    new.acked_by := null;
    new.incidents := old.incidents + 1;
  end if;
  return new;
end $$;
comment on function apipay._forget_acknowledgement() is 'Has an alert told again that a person had seen to, when it is about something that nobody has seen to.';
create trigger forget_acknowledgement before update on apipay.alerts
  for each row when (old.acked_at is not null and new.acked_at is not null and new.resolved_at is null and new.details <> old.details)
  execute function apipay._forget_acknowledgement();

create function apipay._open_alert(
  account_name text, kind text, severity text, summary text, action text, details jsonb, subject text default '') returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  alert bigint;
  is_another boolean;
begin
  -- Another transaction may open it or resolve it between the two statements; then once more.
  loop
    select a.id, a.acked_at is not null and apipay._about(a.kind, coalesce(_open_alert.details, '{}')) <> all (a.acked_for)
      into alert, is_another
      from apipay.alerts a
     where coalesce(a.account, '') = coalesce(account_name, '') and a.kind = _open_alert.kind
       and a.subject = _open_alert.subject and a.resolved_at is null;
    if found then
      -- A person has seen to what the open one is about, and not to this.
      if is_another then
        update apipay.alerts a
           set severity = _open_alert.severity, summary = apipay._mask_phones(_open_alert.summary), action = _open_alert.action,
               details = coalesce(_open_alert.details, '{}')
         where a.id = alert and a.resolved_at is null and a.acked_at is not null;
        if not found then
          continue;
        end if;
      end if;
      return alert;
    end if;
    -- It may quote the gateway, who may quote a phone.
    insert into apipay.alerts as a (account, kind, subject, severity, summary, action, details)
    values (account_name, _open_alert.kind, _open_alert.subject, _open_alert.severity, apipay._mask_phones(_open_alert.summary),
            _open_alert.action, coalesce(_open_alert.details, '{}'))
    on conflict do nothing
    returning a.id into alert;
    if found then
      return alert;
    end if;
  end loop;
end $$;
comment on function apipay._open_alert(text, text, text, text, text, jsonb, text) is
  'Opens the alert of this account (null: the whole daemon), kind and subject unless it is open; returns the id of the open one. One that a person has seen to says this from now on, and is told again, if this is something else.';

create function apipay._change_alert(
  account_name text, kind text, summary text, action text, details jsonb, subject text default '') returns boolean
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  update apipay.alerts a
     set summary = apipay._mask_phones(_change_alert.summary), action = _change_alert.action,
         details = a.details || coalesce(_change_alert.details, '{}'), changed_at = now()
   where coalesce(a.account, '') = coalesce(account_name, '') and a.kind = _change_alert.kind
     and a.subject = _change_alert.subject and a.resolved_at is null
     and (a.summary, a.action) is distinct from (apipay._mask_phones(_change_alert.summary), _change_alert.action);
  return found;
end $$;
comment on function apipay._change_alert(text, text, text, text, jsonb, text) is
  'More was learned about an open alert: it says so from now on, and is told once more; true when that is news.';

create function apipay._renew_alert(
  account_name text, kind text, severity text, summary text, action text, details jsonb) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  told constant text := coalesce(
    (select a.kind from apipay.alerts a
      where coalesce(a.account, '') = coalesce(account_name, '') and a.resolved_at is null
        and a.kind in ('job_held', 'duplicate_detected') and a.details -> 'job' = _renew_alert.details -> 'job'
      order by a.kind limit 1), kind);
  alert constant bigint := apipay._open_alert(account_name, told, severity, summary, action, details);
begin
  perform apipay._change_alert(account_name, told, summary, action, details);
  return alert;
end $$;
comment on function apipay._renew_alert(text, text, text, text, text, jsonb) is
  'Opens the alert of a held job, or has the open one say this from now on: that of the job, whatever its kind, else that of this kind; returns its id.';

create function apipay._resolve_alert(account_name text, kind text, resolution text, subject text default '') returns boolean
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  update apipay.alerts a
     set resolved_at = now(), resolution = _resolve_alert.resolution
   where coalesce(a.account, '') = coalesce(account_name, '') and a.kind = _resolve_alert.kind
     and a.subject = _resolve_alert.subject and a.resolved_at is null;
  return found;
end $$;
comment on function apipay._resolve_alert(text, text, text, text) is 'Resolves the open alert of this account, kind and subject; true when there was one.';
