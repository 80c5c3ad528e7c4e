-- The quota: a sliding window of one-second counts, taken by the statement that claims the work.
--
-- A request may reach the gateway up to the send window (5 s) after its quota was taken, so the
-- window is 60 + 5 seconds and one more for the second that is under way: in no 60 seconds does the
-- gateway see more than the limit.
--
-- Its seconds are not the database's clock, which may be set back or forward at any time: the caller
-- gives the second, counted by a clock that cannot jump (apipay._clocks).
--
-- Who gets how much of it is one function, apipay._quota_room.
set search_path = pg_catalog, pg_temp;

-- A row of its own for each account, which the daemons lock, and who gives the account to another organization
-- (apipay._hold_claims): who holds the account's row, as apipay.park() does in a transaction that is left open, stops no claim. So there is no foreign key
-- either, whose check would wait for that row.
create table apipay._quotas (
  account     text collate "C" primary key,
  used        int[] not null default '{}',
  asked       int[] not null default '{}',
  newest      bigint not null default 0,
  check_from  timestamptz not null default '-infinity',
  claimed_at  timestamptz
) with (fillfactor = 50);
comment on table apipay._quotas is 'The requests of each account in the last minute, and the turn of its checks. Made before the first request.';
comment on column apipay._quotas.account is 'The account.';
comment on column apipay._quotas.used is 'Requests taken in each of the last seconds, the newest last: the sliding window.';
comment on column apipay._quotas.asked is 'Those of them that asked: look-ups, checks of invoices, lists of refunds.';
comment on column apipay._quotas.newest is 'The second of the newest entry of both, of the steady time (apipay._clocks).';
comment on column apipay._quotas.check_from is
  'No check of invoices before this moment: one is under way, or the last one was just now.';
comment on column apipay._quotas.claimed_at is 'When jobs of the account were last claimed to be sent, by any daemon; null: never.';

create function apipay._quota_seconds() returns int language sql immutable parallel safe return 66;
comment on function apipay._quota_seconds() is 'Length of the quota''s window in seconds.';

create function apipay._quota_sum(used int[]) returns bigint
language sql immutable parallel safe
return (select coalesce(sum(n), 0) from unnest(used) as n);
comment on function apipay._quota_sum(int[]) is 'Requests in the window.';

-- Callers may come out of order by a little, and a newest second that is further ahead was counted by a
-- clock that has been put right: obeyed, it would lock the account out until then.
create function apipay._quota_newest(newest bigint, second bigint) returns bigint
language sql immutable parallel safe
return case when newest > second + 10 then second else greatest(newest, second) end;
comment on function apipay._quota_newest(bigint, bigint) is 'The newest second of the window, counted on to the given one.';

create function apipay._quota_slide(used int[], newest bigint, second bigint) returns int[]
language sql immutable parallel safe
return case
  when apipay._quota_newest(newest, second) < newest
    then array_fill(0, array[apipay._quota_seconds() - 1]) || least(apipay._quota_sum(used), 1000000000)::int
  else array(
    select coalesce(used[i + least(apipay._quota_newest(newest, second) - newest, apipay._quota_seconds())], 0)
    from generate_series(1, apipay._quota_seconds()) as i) end;
comment on function apipay._quota_slide(int[], bigint, bigint) is 'The window moved on to the given second. A window of the future counts as taken just now: no request of it is forgotten too early.';

create function apipay._quota_share(per_minute int) returns int
language sql immutable parallel safe
return case when per_minute >= 2 then greatest(1, per_minute / 6) else 0 end;
comment on function apipay._quota_share(int) is 'Requests of the window that asking may use however many bills there are.';

-- Bills come first. Asking may use its share (a sixth) always, and else half of what bills left idle in
-- the window, so that a burst of them still finds the other half. Bills may use everything but what is
-- due of the share right now. Many look-ups or lists of refunds may come at once, so they leave a third
-- of it to the checks, which never do.
create function apipay._quota_room(purpose text, per_minute int, used bigint, asked bigint, asking_due int) returns bigint
language sql immutable parallel safe
return greatest(0, least(per_minute - used, case
  when purpose = 'send' then per_minute - used - least(asking_due, greatest(0, apipay._quota_share(per_minute) - asked))
  when purpose = 'probe' then per_minute - used
  else
    (greatest(apipay._quota_share(per_minute), (per_minute - greatest(0, used - asked) + 1) / 2)
     * case when purpose = 'check' then 3 else 2 end + 2) / 3
    - asked end));
comment on function apipay._quota_room(text, int, bigint, bigint, int) is
  'How many requests may leave now for this purpose, when so many were used in the window, of them so many to ask, and so many more are due to ask.';

create function apipay._is_check_due(check_from timestamptz, lease interval) returns boolean
language sql stable parallel safe
-- No check is put off for longer than the lease of a claim: a moment further away is of another clock.
return check_from is null or check_from not between clock_timestamp() and clock_timestamp() + lease;
comment on function apipay._is_check_due(timestamptz, interval) is 'Whether it is the turn of another check of invoices.';

create function apipay._asking_due(account_name text, most int) returns int
language sql stable set search_path = pg_catalog, pg_temp
return (select count(*)::int from (
  (select from apipay.jobs j where j.account = account_name and j.state = 'uncertain' and j.run_at <= now() limit most)
  union all
  (select from apipay.refunds r where r.account = account_name and not r.settled and r.next_check_at <= now() limit most)
  union all
  (select from apipay.invoices i where i.account = account_name and not i.settled and i.next_check_at <= now()
      and not exists (select from apipay._quotas q where q.account = account_name and q.check_from > now())
    limit 1)) as due);
comment on function apipay._asking_due(text, int) is 'How many requests would ask now if they might, counted up to three times most.';

-- Other claims, look-ups and checks hold the row for milliseconds: they are waited for. Who holds it for
-- longer than that stops this account and no other.
create function apipay._await_quota(account_name text) returns apipay._quotas
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '250ms' as $$
declare
  quota apipay._quotas;
begin
  insert into apipay._quotas (account) select name from apipay.accounts where name = account_name on conflict do nothing;
  select * into quota from apipay._quotas where account = account_name for no key update;
  return quota;
exception when lock_not_available then
  return null;
end $$;
comment on function apipay._await_quota(text) is 'Waits a little for the lock of an account''s quota, and makes it if there is none; null when it is not to be had.';

create function apipay._lock_quota(account_name text, second bigint) returns apipay._quotas
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  quota apipay._quotas;
begin
  select * into quota from apipay._quotas where account = account_name for no key update skip locked;
  if not found then
    quota := apipay._await_quota(account_name);
  end if;
  quota.used := apipay._quota_slide(quota.used, quota.newest, second);
  quota.asked := apipay._quota_slide(quota.asked, quota.newest, second);
  quota.newest := apipay._quota_newest(quota.newest, second);
  return quota;
end $$;
comment on function apipay._lock_quota(text, bigint) is
  'The account''s quota, locked and moved on to the given second; its account is null when another session holds it or there is no such account.';

-- Volatile, so each call sees and locks the newest row: concurrent claims share one window exactly.
create function apipay._take_quota(account_name text, wanted int, purpose text, second bigint) returns int
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  account apipay.accounts;
  quota apipay._quotas;
  used bigint;
  asked bigint;
  share int;
  due int := 0;
  granted int;
begin
  if wanted <= 0 or (select stopped from apipay._control) then
    return 0;
  end if;
  quota := apipay._lock_quota(account_name, second);
  select * into account from apipay.accounts where name = account_name;
  if quota.account is null
     -- What was accepted is asked about while invoices fail at Kaspi: whether one is delivered ends that.
     or (account.state = 'parked' and purpose <> 'probe' and (purpose = 'send' or account.delivery_error is null))
     or account.blocked_until > clock_timestamp() then
    return 0;
  end if;
  used := apipay._quota_sum(quota.used);
  asked := apipay._quota_sum(quota.asked);
  share := apipay._quota_share(account.requests_per_minute);
  -- Only a window that is nearly full has to be shared.
  if purpose = 'send' and asked < share and account.requests_per_minute - used < wanted + share then
    due := apipay._asking_due(account_name, share);
  end if;
  granted := least(wanted, apipay._quota_room(purpose, account.requests_per_minute, used, asked, due));
  if granted > 0 then
    quota.used[apipay._quota_seconds()] := quota.used[apipay._quota_seconds()] + granted;
    if purpose not in ('send', 'probe') then
      quota.asked[apipay._quota_seconds()] := quota.asked[apipay._quota_seconds()] + granted;
    end if;
    update apipay._quotas q
       set used = quota.used, asked = quota.asked, newest = quota.newest,
           claimed_at = case when purpose = 'send' then clock_timestamp() else q.claimed_at end
     where q.account = account_name;
  end if;
  return granted;
end $$;
comment on function apipay._take_quota(text, int, text, bigint) is
  'Takes up to wanted requests from the account''s quota for send, check, lookup, follow or probe; none while stopped, blocked or parked (but for the probe, and to ask while invoices fail at Kaspi).';

create function apipay._take_check(account_name text, lease interval, second bigint) returns boolean
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  quota constant apipay._quotas := apipay._lock_quota(account_name, second);
begin
  if quota.account is null or not apipay._is_check_due(quota.check_from, lease)
     or apipay._take_quota(account_name, 1, 'check', second) = 0 then
    return false;
  end if;
  update apipay._quotas q set check_from = clock_timestamp() + lease where q.account = account_name;
  return true;
end $$;
comment on function apipay._take_check(text, interval, bigint) is
  'Takes the turn of the account''s next check of invoices, with its quota. No other is made until the lease is over or the check has ended.';

create function apipay._end_check(account_name text, distance interval) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  quota constant apipay._quotas := apipay._await_quota(account_name);
begin
  update apipay._quotas q set check_from = clock_timestamp() + distance where q.account = quota.account;
end $$;
comment on function apipay._end_check(text, interval) is 'The account''s check of invoices is over: the next one may begin after the distance.';

create function apipay._return_quota(account_name text, taken bigint[], second bigint) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  quota constant apipay._quotas := apipay._lock_quota(account_name, second);
begin
  -- Given back to the second in which it was taken, however late: from another one it would be a request
  -- really sent that the window forgot too early. A second that has left the window gets nothing back.
  update apipay._quotas q
     set used = array(
           select n - least(greatest(0, n - quota.asked[i]),
                            (select count(*) from unnest(taken) as t where t = quota.newest - apipay._quota_seconds() + i))
           from unnest(quota.used) with ordinality as u(n, i)
           order by i)::int[],
         asked = quota.asked,
         newest = quota.newest
   where q.account = quota.account;
end $$;
comment on function apipay._return_quota(text, bigint[], bigint) is
  'Gives back quota that was taken for sends of which no byte left: the second in which it was taken, of each of them.';

create function apipay._correct_quota(account_name text, remaining int, fades_s int, second bigint) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  quota constant apipay._quotas := apipay._lock_quota(account_name, second);
  minute constant int := 60;
  missing constant bigint := (select requests_per_minute from apipay.accounts where name = account_name)
                             - apipay._quota_sum(quota.used) - remaining;
begin
  -- What is counted in the entry n is forgotten after n seconds. When the others' requests were made is
  -- not known: those of a minute, one after the other.
  update apipay._quotas q
     set used = array(
           select n + case
             when i > minute then 0
             when fades_s is null then missing * i / minute - missing * (i - 1) / minute
             when i = greatest(1, least(fades_s, minute)) then missing
             else 0 end
           from unnest(quota.used) with ordinality as u(n, i)
           order by i)::int[],
         asked = quota.asked,
         newest = quota.newest
   where q.account = quota.account and missing > 0;
end $$;
comment on function apipay._correct_quota(text, int, int, bigint) is
  'The gateway says fewer requests remain than we think: somebody else uses the key. The difference counts as used, and is forgotten after so many seconds, or within the next minute when that is not known.';

-- An account to which the gateway gives no clear answer has slowed down: one job tries, and its answer
-- sets when the next one does. Until then the trial belongs to who took it, for as long as was promised.
-- Who keeps the account's row locked puts off the trials of that account, and of no other.
create function apipay._take_trial(account_name text, trial interval, longest interval, second bigint) returns int
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  taken_until timestamptz;
begin
  perform from apipay.accounts
    where name = account_name
      and (failing_trial_at <= clock_timestamp() or failing_trial_at > clock_timestamp() + longest)
    for no key update skip locked;
  if not found or apipay._take_quota(account_name, 1, 'send', second) = 0 then
    return 0;
  end if;
  update apipay.accounts set failing_trial_at = clock_timestamp() + trial where name = account_name
  returning failing_trial_at into taken_until;
  -- If the new time was not stored (a trigger), no trial is granted, or it would be repeated without end.
  perform apipay._all_changed('apipay.accounts', 1, found::int, coalesce(taken_until > clock_timestamp(), false)::int);
  return 1;
end $$;
comment on function apipay._take_trial(text, interval, interval, bigint) is
  'Takes the trial of an account that has slowed down, with the quota for it; 0 when it is not due, or somebody else has it or the row. No trial is put off for longer than longest.';
