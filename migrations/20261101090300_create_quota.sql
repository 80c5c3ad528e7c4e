-- The quota: a sliding window of one-second counts, taken by the statement that claims the work.
--
-- A request may reach the gateway up to the send window (5 s) after its quota was taken, so the
-- window is 60 + 5 seconds and one more for the second that is under way: in no 60 seconds does the
-- gateway see more than the limit.
set search_path = pg_catalog, pg_temp;

create function apipay._quota_seconds() returns int language sql immutable parallel safe return 66;
comment on function apipay._quota_seconds() is 'Length of the quota''s window in seconds.';

create function apipay._quota_slide(used int[], newest bigint, second bigint) returns int[]
language sql immutable parallel safe
return array(
  select coalesce(used[i + least(greatest(second - newest, 0), apipay._quota_seconds())], 0)
  from generate_series(1, apipay._quota_seconds()) as i);
comment on function apipay._quota_slide(int[], bigint, bigint) is 'The window moved on to the given unix second. A clock that went back does not move it.';

create function apipay._quota_sum(used int[]) returns bigint
language sql immutable parallel safe
return (select coalesce(sum(n), 0) from unnest(used) as n);
comment on function apipay._quota_sum(int[]) is 'Requests in the window.';

-- Sends leave a sixth of the limit to look-ups and follow-ups, which settle what is already under way.
create function apipay._quota_reserve(per_minute int) returns int
language sql immutable parallel safe
return case when per_minute >= 2 then greatest(1, per_minute / 6) else 0 end;
comment on function apipay._quota_reserve(int) is 'Requests a minute that sends may not use.';

-- Volatile, so each call sees and locks the newest row: concurrent claims share one window exactly.
create function apipay._take_quota(account_name text, wanted int, purpose text) returns int
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  now_second constant bigint := floor(extract(epoch from clock_timestamp()));
  account apipay.accounts;
  used int[];
  granted int;
begin
  if wanted <= 0 or (select stopped from apipay._control) then
    return 0;
  end if;
  select * into account from apipay.accounts where name = account_name for no key update;
  if not found
     or (account.state = 'parked' and purpose <> 'probe')
     or account.blocked_until > clock_timestamp() then
    return 0;
  end if;
  used := apipay._quota_slide(account.quota_used, account.quota_second, now_second);
  granted := greatest(0, least(wanted::bigint,
    account.requests_per_minute - apipay._quota_sum(used)
    - case when purpose = 'send' then apipay._quota_reserve(account.requests_per_minute) else 0 end));
  if granted > 0 then
    used[apipay._quota_seconds()] := used[apipay._quota_seconds()] + granted;
    update apipay.accounts
       set quota_used = used, quota_second = greatest(now_second, quota_second)
     where name = account_name;
  end if;
  return granted;
end $$;
comment on function apipay._take_quota(text, int, text) is
  'Takes up to wanted requests from the account''s quota for send, lookup, follow or probe; none while stopped, parked (but the probe) or blocked.';

create function apipay._return_quota(account_name text, unspent int) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  now_second constant bigint := floor(extract(epoch from clock_timestamp()));
begin
  -- Given back to the oldest seconds: what stays counted is then never older than what was sent. From the
  -- newest ones it would be a younger request, really sent, that the window forgot too early.
  update apipay.accounts a
     set quota_used = array(
           select n - greatest(0, least(n::bigint, unspent - coalesce(sum(n) over (order by i rows between unbounded preceding and 1 preceding), 0)))
           from unnest(apipay._quota_slide(a.quota_used, a.quota_second, now_second)) with ordinality as u(n, i)
           order by i)::int[],
         quota_second = greatest(now_second, a.quota_second)
   where name = account_name and unspent > 0;
end $$;
comment on function apipay._return_quota(text, int) is 'Gives back quota that was taken for requests of which no byte left.';

create function apipay._correct_quota(account_name text, remaining int) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  now_second constant bigint := floor(extract(epoch from clock_timestamp()));
  used int[];
  account apipay.accounts;
  missing bigint;
begin
  select * into account from apipay.accounts where name = account_name for no key update;
  used := apipay._quota_slide(account.quota_used, account.quota_second, now_second);
  missing := account.requests_per_minute - apipay._quota_sum(used) - remaining;
  if found and missing > 0 then
    used[apipay._quota_seconds()] := used[apipay._quota_seconds()] + missing::int;
    update apipay.accounts
       set quota_used = used, quota_second = greatest(now_second, quota_second)
     where name = account_name;
  end if;
end $$;
comment on function apipay._correct_quota(text, int) is
  'The gateway says fewer requests remain than we think: somebody else uses the key. The difference counts as used.';
