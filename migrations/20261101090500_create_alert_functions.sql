-- Alerts: opened and resolved here and nowhere else; the daemon delivers them.
set search_path = pg_catalog, pg_temp;

-- A person has seen to what an alert was about, not to whatever it is about later.
create function apipay._about(kind text, details jsonb) returns text
language sql immutable parallel safe
return case
  -- Jobs that are stuck for one cause are one incident, whichever of them is named.
  when details ? 'case' then details ->> 'case'
  -- Who tells it, how often something was tried, and what only counts or shows another example of the same.
  else (details - '{worker,epoch,epoch_now,others_refused,jobs,message,place,said,answered_at,well_since,kept_until}'::text[]
          - case kind when 'mode_mismatch' then 'invoice' when 'account_parked' then 'job' else '' end
          -- Of words, all but the numbers of the one row; those of a place in a function say which line of it refuses.
          || jsonb_strip_nulls(jsonb_build_object(
               'place', case when details ->> 'place' like '%function %' and details ->> 'place' not like 'SQL statement%' then details ->> 'place'
                             else regexp_replace(details ->> 'place', '[0-9]+', '', 'g') end,
               'words', regexp_replace(coalesce(details ->> 'message', details ->> 'said'), '[0-9]+', '', 'g'))))::text end;
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
  -- Another transaction may open it or resolve it between the two statements; then once more, but not for ever: a trigger
  -- of somebody else's that returns null mutes it.
  for tries in 1 .. 100 loop
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
  return null;
end $$;
comment on function apipay._open_alert(text, text, text, text, text, jsonb, text) is
  'Opens the alert of this account (null: the whole daemon), kind and subject unless it is open; returns the id of the open one, or null where a trigger swallows each that is made. One that a person has seen to says this from now on, and is told again, if this is something else.';

create function apipay._change_alert(
  account_name text, kind text, summary text, action text, details jsonb, subject text default '') returns boolean
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  update apipay.alerts a
     set summary = apipay._mask_phones(_change_alert.summary), action = _change_alert.action,
         details = a.details - '{well_since,kept_until}'::text[] || coalesce(_change_alert.details, '{}'),
         -- That it is about the same once more, after it seemed to be over, is none; nor is that another job was refused so.
         changed_at = case when (a.details ? 'well_since'
                                 or (a.kind = 'account_parked' and a.details ->> 'job' is distinct from _change_alert.details ->> 'job'))
                            and apipay._about(a.kind, a.details) = apipay._about(a.kind, a.details || coalesce(_change_alert.details, '{}'))
                           then a.changed_at else now() end
   where coalesce(a.account, '') = coalesce(account_name, '') and a.kind = _change_alert.kind
     and a.subject = _change_alert.subject and a.resolved_at is null
     and (a.summary, a.action) is distinct from (apipay._mask_phones(_change_alert.summary), _change_alert.action);
  return found;
end $$;
comment on function apipay._change_alert(text, text, text, text, jsonb, text) is
  'More was learned about an open alert: it says so from now on, and is told once more; true when that is news.';

create function apipay._told_held(account_name text) returns bigint[]
language sql stable set search_path = pg_catalog, pg_temp
return array(select (a.details ->> 'job')::bigint from apipay.alerts a
              where coalesce(a.account, '') = account_name and a.kind in ('job_held', 'duplicate_detected')
                and a.resolved_at is null and a.details ? 'job' and a.details ->> 'reason' is distinct from 'called_off_unseen');
comment on function apipay._told_held(text) is 'The held jobs of an account that have an open alert of their own.';

-- Whatever is said of a held job, it is sent only before its expires_at. Some reasons promise no sending.
create function apipay._time_over(job apipay.jobs, held_for text) returns text
language sql stable parallel safe
return case when isfinite(job.expires_at) and held_for not in ('duplicate_detected', 'original_lives', 'called_off_unseen') then
  case when job.expires_at <= now()
       then format('its expires_at, %s, is over, so that it is not sent again, and once it has ended expired apipay.retry(%s, ''why'') makes a copy; ',
              to_char(job.expires_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"'), job.id)
       else format('it is sent again only before its expires_at, %s: after that it ends expired, and apipay.retry(%s, ''why'') makes a copy; ',
              to_char(job.expires_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"'), job.id) end end;
comment on function apipay._time_over(apipay.jobs, text) is
  'What its expires_at means for a job that is held for this reason, for the beginning of a sentence; null where that promises no sending, or the job has no end.';

-- Of an account ten jobs that are held are told one by one. What is beyond that is counted by one more alert, until none
-- of those is held any more: else each that is settled would have another one told. Each that has ended on a person's word,
-- while ApiPay never told whether it has anything of it, is told by itself, until a person has looked.
create function apipay._tell_held(
  account_name text, kind text, severity text, summary text, action text, details jsonb) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  told apipay.alerts;
  has_ended constant boolean := coalesce(details ->> 'reason' = 'called_off_unseen', false);
begin
  -- Whoever is to look the payment up has to know which one it is, and only what is true is promised: past its expires_at
  -- nothing of a job is sent.
  action := coalesce((select concat(apipay._sought(j), '; ', case when not details ? 'paid_invoice' then apipay._time_over(j, details ->> 'reason') end, case when j.expires_at <= now()
                               then regexp_replace(action, '; sends it again(, to the account''s present organization,)?', '; ends it expired')
                               else action end)
                        from apipay.jobs j where j.id = (details ->> 'job')::bigint and j.account = account_name), action);
  select * into told from apipay.alerts a
   where coalesce(a.account, '') = account_name and a.kind in ('job_held', 'duplicate_detected') and a.resolved_at is null
     and a.details -> 'job' = _tell_held.details -> 'job'
   order by a.id limit 1;
  if found and told.kind <> _tell_held.kind then
    -- Who filters by the kind has to see what it is now.
    update apipay.alerts a
       set resolved_at = clock_timestamp(), resolution = format(case when has_ended then 'the job has ended: see its alert %s' else 'the job is held for another reason now: see its alert %s' end, _tell_held.kind)
     where a.id = told.id and a.resolved_at is null;
    return apipay._open_alert(account_name, kind, severity, summary, action, details, details ->> 'job');
  elsif found then
    -- It is held for another reason now, or again although somebody has said what became of it (apipay.resolve): who
    -- had seen to it has to look again.
    update apipay.alerts a
       set severity = _tell_held.severity, summary = apipay._mask_phones(_tell_held.summary), action = _tell_held.action,
           details = _tell_held.details, changed_at = now(), incidents = a.incidents + 1, acked_at = null, acked_by = null
     where a.id = told.id and a.resolved_at is null
       and (a.details ? 'answered_at' or (a.summary, a.action) is distinct from (apipay._mask_phones(_tell_held.summary), _tell_held.action));
    return told.id;
  end if;
  select * into told from apipay.alerts a
   where coalesce(a.account, '') = account_name and a.kind = 'job_held' and a.subject = 'others' and a.resolved_at is null;
  if found and not has_ended then
    return told.id;
  elsif has_ended or cardinality(apipay._told_held(account_name)) < 10 then
    return apipay._open_alert(account_name, kind, severity, summary, action, details, details ->> 'job');
  end if;
  return apipay._open_alert(account_name, 'job_held', 'critical',
    format('1 more job of account %s is held, besides those that are told one by one.', account_name),
    format('somebody has to decide about each of them; why it is held, and what settles it: select id, explain from apipay.overview where account = ''%s'' and state = ''held'';', account_name),
    '{"jobs": 1}', 'others');
end $$;
comment on function apipay._tell_held(text, text, text, text, text, jsonb) is
  'Opens the alert of a held job (in details), or has its open one say this from now on, with what the job asks for (apipay._sought), and tells it again when that is news. One of the other kind ends with it. Beyond ten of an account they are counted by one alert. Returns the id of the one that tells of it.';

-- Of an account ten jobs that are stuck are told one by one, and those that are stuck for the same cause by one of them.
-- What is beyond that is counted by one more alert.
create function apipay._is_looked_up(job bigint, state text, epoch bigint) returns boolean
language sql stable parallel safe
return state = 'uncertain' and exists (
  select from apipay.attempts a where a.job_id = job and a.epoch = _is_looked_up.epoch and a.kind = 'lookup' and a.finished_at is null);
comment on function apipay._is_looked_up(bigint, text, bigint) is 'Whether a job of this state and epoch is uncertain and its look-up has been recorded by nobody.';

create function apipay._tell_stuck(
  account_name text, severity text, summary text, action text, details jsonb, renew boolean) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  job constant text := details ->> 'job';
  told apipay.alerts;
  jobs jsonb;
  number int;
  is_own boolean;
begin
  select * into told from apipay.alerts a
   where a.account = account_name and a.kind = 'job_stuck' and a.resolved_at is null
     and (a.subject = job or a.details ->> 'case' = _tell_stuck.details ->> 'case')
   order by a.subject = job desc, a.id limit 1;
  if found then
    if details ? 'alike' and told.details ? 'alike' then
      -- Each daemon lists its own, as long as it gives signs of life.
      jobs := (select coalesce(jsonb_object_agg(theirs.worker, theirs.jobs), '{}') from jsonb_each(told.details -> 'alike') as theirs (worker, jobs)
                where exists (select from apipay.daemons d
                               where d.worker::text = theirs.worker and not d.has_left and d.seen_at > now() - interval '1 minute'));
      details := details || jsonb_build_object('alike', jobs || (details -> 'alike'));
    end if;
    if _tell_stuck.renew then
      perform apipay._change_alert(account_name, 'job_stuck', summary, action, details, told.subject);
    elsif details ? 'alike' then
      -- That they are more or fewer is no news for whoever was told of it. What it says of their number is of the daemon
      -- that opened it.
      is_own := details -> 'worker' = told.details -> 'worker';
      update apipay.alerts a
         set details = a.details || jsonb_build_object('alike', _tell_stuck.details -> 'alike')
               || case when is_own then jsonb_build_object('more', _tell_stuck.details -> 'more', 'others_refused', _tell_stuck.details -> 'others_refused')
                  else '{}' end,
             action = case when is_own and (_tell_stuck.details ->> 'more')::int > 0
                           then regexp_replace(a.action, 'those of [0-9]+ more', format('those of %s more', _tell_stuck.details ->> 'more'))
                           else a.action end
       where a.id = told.id and a.resolved_at is null
         and (a.details -> 'alike' is distinct from _tell_stuck.details -> 'alike'
              or is_own and a.details -> 'more' is distinct from _tell_stuck.details -> 'more');
    end if;
    return told.id;
  end if;
  select count(*) into number from apipay.alerts a
   where a.account = account_name and a.kind = 'job_stuck' and a.resolved_at is null and a.details ? 'job';
  if number < 10 then
    return apipay._open_alert(account_name, 'job_stuck', severity, summary, action, details, job);
  end if;
  select * into told from apipay.alerts a
   where a.account = account_name and a.kind = 'job_stuck' and a.resolved_at is null and a.subject = 'others'
     for no key update;
  jobs := coalesce(told.details -> 'jobs', '{}');
  number := (select count(*) from jsonb_object_keys(jobs));
  if jobs ? job or number >= 1000 then
    return told.id;
  end if;
  jobs := jobs || jsonb_build_object(job, jsonb_build_object('state', details -> 'state', 'epoch', details -> 'epoch'));
  number := number + 1;
  if told.id is null then
    told.id := apipay._open_alert(account_name, 'job_stuck', severity, '', 'see the other alerts job_stuck of this account first: what mends those may mend these. All of them: '
      || 'select * from apipay.overview where id in (select k::bigint from apipay.alerts, jsonb_object_keys(details -> ''jobs'') k where id = ' || 'ALERT' || ');', '{}', 'others');
  end if;
  -- That it grows is no news for whoever was told of it.
  update apipay.alerts a
     set details = jsonb_build_object('jobs', jobs), action = replace(a.action, 'ALERT', a.id::text),
         -- Of the jobs that somebody keeps locked only the first are looked at.
         summary = format('The database lets %s%s%s more of account %s not go on, besides those that are told one by one.',
           case when _tell_stuck.details ? 'locked' or a.summary like '% at least %' then 'at least ' end,
           case when number = 1 then '1 job' else number || ' jobs' end, case when number >= 1000 then ' or more' end, account_name)
   where a.id = told.id;
  return told.id;
end $$;
comment on function apipay._tell_stuck(text, text, text, text, jsonb, boolean) is
  'Opens the alert of a job that is stuck, unless one is open about it, or about its case (in details); with renew that one says this from now on, and without it lists those whose outcomes are refused for its cause (alike, by the daemons that have them) and says how many there are. Beyond ten of an account they are counted by one alert. Returns the id of the one that tells of it.';

create function apipay._resolve_alert(account_name text, kind text, resolution text, subject text default '') returns boolean
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  update apipay.alerts a
     set resolved_at = clock_timestamp(), resolution = _resolve_alert.resolution
   where coalesce(a.account, '') = coalesce(account_name, '') and a.kind = _resolve_alert.kind
     and a.subject = _resolve_alert.subject and a.resolved_at is null;
  return found;
end $$;
comment on function apipay._resolve_alert(text, text, text, text) is 'Resolves the open alert of this account, kind and subject; true when there was one.';

-- What changes an account must not wait for whoever keeps the row of an alert locked, as with an open transaction around
-- apipay.acknowledge: payments would wait with it. The daemon's next rounds bring such an alert up to date, or end it.
create function apipay._alert_is_free(account_name text, kind text) returns boolean
language sql volatile set search_path = pg_catalog, pg_temp as $$
  with told as materialized (
    select a.id from apipay.alerts a
     where coalesce(a.account, '') = account_name and a.kind = _alert_is_free.kind and a.subject = '' and a.resolved_at is null),
  free as materialized (
    select a.id from apipay.alerts a where a.id = any (array(select id from told)) for no key update skip locked)
  select not exists (select from told) or exists (select from free);
$$;
comment on function apipay._alert_is_free(text, text) is
  'False while another session keeps the open alert of this account and kind locked; else it is locked for this transaction, if there is one.';
